//! The store where the system refuses to write any more: a process with a limit on the size of its files meets the same
//! refusals as one on a full disk, and needs no rights to be put there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use leakslope::history::store::{Keeper, Notice, Saved, Store, StoreSettings};
use leakslope::model::{Life, Minute, ProcessKey, Steady, WallTime};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const DIRECTORY: &str = "LEAKSLOPE_TEST_DIRECTORY";
const LIMIT: &str = "LEAKSLOPE_TEST_LIMIT";
const LIFE: Life = Life { pid: 7, started: 1 };
const WALL: WallTime = WallTime(1_750_000_000_000);
const MINUTES: i64 = 300;

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: "default".into(), pm_id }
}

/// Writes for some hours; lifts the limit half-way. Returns whether the disk was full in between.
fn live_through(directory: &Path) -> bool {
    if let Ok(limit) = std::env::var(LIMIT) {
        let current = Some(limit.parse().unwrap());
        setrlimit(Resource::Fsize, Rlimit { current, ..getrlimit(Resource::Fsize) }).unwrap();
    }
    let mut keeper = Keeper::open(directory, StoreSettings::default(), Steady(0), WALL).unwrap();
    let mut degraded = false;
    for minute in 0..MINUTES {
        let now = Steady(minute * 60_000);
        if minute == MINUTES / 2 {
            let limit = getrlimit(Resource::Fsize);
            setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, ..limit }).unwrap();
        }
        keeper.append((0..40).map(|pm_id| {
            let row = Minute { resident: 1.0, native: 2.0, heap_used: 3.0, ..Minute::empty(minute) };
            (key(pm_id), LIFE, row)
        }));
        degraded |= matches!(keeper.flush(now, WALL), Saved::InMemory(_));
        keeper.tick(now, WALL);
        let seen = keeper.minutes(&key(3), LIFE, 0, now);
        assert_eq!(seen.last().map(|seen| seen.minute), Some(minute));
    }
    let end = Steady((MINUTES + 10) * 60_000);
    assert_eq!(keeper.flush(end, WALL), Saved::OnDisk);
    let notices = keeper.take_notices();
    if degraded {
        let [Notice::Degraded(reason), .., Notice::Recovered { dropped: 0, .. }] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert!(reason.contains("no room left to write"), "{reason}");
    } else {
        assert_eq!(notices, []);
    }
    let stats = keeper.stats(end);
    assert_eq!((stats.set_aside, stats.dropped_minutes, stats.degraded), (0, 0, None));
    assert_eq!(keeper.close(end, WALL), Saved::OnDisk);
    degraded
}

fn check(directory: &Path) {
    let (mut store, notices) = Store::open(directory, StoreSettings::default(), WALL).unwrap();
    assert_eq!(notices, []);
    for pm_id in 0..40 {
        let minutes: Vec<i64> = store.minutes(&key(pm_id), LIFE, 0).unwrap().iter().map(|m| m.minute).collect();
        assert_eq!(minutes, (0..MINUTES).collect::<Vec<_>>(), "process {pm_id}");
    }
}

/// With room the same life has no trouble; in the process of the other test it must have some.
#[test]
fn with_room_all_is_saved_at_once() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        assert!(live_through(Path::new(&directory)), "the limit was never met");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(!live_through(directory.path()));
    check(directory.path());
}

#[test]
fn without_room_history_waits_in_memory_and_is_saved_later() {
    // An empty history has 72 KiB, so the first limit leaves no room for any.
    for limit in [50_000, 100_000, 150_000, 200_000] {
        let directory = tempfile::tempdir().unwrap();
        // Without the trap the signal that comes with the refusal would end the process.
        let script = "trap '' XFSZ; exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "full_disk::with_room_all_is_saved_at_once", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(LIMIT, limit.to_string())
            .output()
            .unwrap();
        let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        assert!(output.status.success() && said.contains("1 passed"), "{limit} bytes: {said}");
        check(directory.path());
    }
}
