//! The store under `kill -9`: whatever a call had returned from is there afterwards.
//!
//! The test starts its own executable again as the writer, and kills it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use leakslope::history::store::{Keeper, LifeFilter, Saved, Store, StoreErrorKind, StoreSettings};
use leakslope::model::{Life, LifeEnd, LifeSummary, Minute, ProcessKey, Steady, WallTime};

const DIRECTORY: &str = "LEAKSLOPE_TEST_DIRECTORY";
const FROM: &str = "LEAKSLOPE_TEST_FROM";
const WALL: WallTime = WallTime(1_750_000_000_000);

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: "default".into(), pm_id }
}

const LIFE: Life = Life { pid: 7, started: 1 };

fn summary(number: i64) -> LifeSummary {
    LifeSummary {
        key: key(0),
        app: "api".into(),
        life: Life { pid: 7, started: number },
        version: None,
        revision: None,
        first: Steady(0),
        last: Steady(number),
        end: LifeEnd::Restarted,
        floors: vec![1.0; 24],
        resident_floors: vec![1.0; 24],
        resident_max: 2.0,
        slope: None,
    }
}

/// Writes minutes one by one, and from time to time everything else, and tells of each after it is saved.
fn write(directory: &Path, from: i64, until: i64, mut out: impl Write) {
    let mut keeper = Keeper::open(directory, StoreSettings::default(), Steady(0), WALL).unwrap();
    for number in from..until {
        let now = Steady(number * 60_000);
        keeper.append((0..5).map(|pm_id| (key(pm_id), LIFE, Minute { resident: 1.0, ..Minute::empty(number) })));
        keeper.put_state("policy", Some(number.to_string().into_bytes())).unwrap();
        keeper.put_life(summary(number));
        keeper.append_audit(now, number.to_string().into_bytes()).unwrap();
        assert_eq!(keeper.flush(now, WALL), Saved::OnDisk);
        if number % 40 == 39 {
            keeper.prune(now).unwrap();
        }
        writeln!(out, "\nsaved {number}").unwrap();
        out.flush().unwrap();
    }
}

/// The writer: in its own process when another test starts it, else for a few minutes only.
#[test]
fn writer() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let from = std::env::var(FROM).unwrap().parse().unwrap();
        write(Path::new(&directory), from, i64::MAX, std::io::stdout());
    }
    let directory = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    write(directory.path(), 0, 3, &mut told);
    assert_eq!(told, b"\nsaved 0\n\nsaved 1\n\nsaved 2\n");
    assert_eq!(check(directory.path()), 2);
}

fn start_writer(directory: &Path, from: i64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Opens what the writer left and returns the last minute; everything before it must be there as well.
fn check(directory: &Path) -> i64 {
    let (mut store, notices) = Store::open(directory, StoreSettings::default(), WALL).unwrap();
    assert_eq!(notices, [], "a killed writer leaves no damage");
    let last = store.minutes(&key(0), LIFE, 0).unwrap().last().unwrap().minute;
    for pm_id in 0..5 {
        let minutes: Vec<i64> = store.minutes(&key(pm_id), LIFE, 0).unwrap().iter().map(|m| m.minute).collect();
        assert_eq!(minutes, (0..=last).collect::<Vec<_>>(), "process {pm_id}");
    }
    assert_eq!(store.state("policy").unwrap().unwrap(), last.to_string().into_bytes(), "one transaction, one truth");
    let audit = store.audit(0..=u64::MAX, usize::MAX).unwrap();
    let expected = usize::try_from(last + 1).unwrap();
    assert_eq!((audit.len(), store.lives(&LifeFilter::default()).unwrap().len()), (expected, expected));
    last
}

#[test]
fn a_killed_writer_loses_nothing_it_had_saved() {
    let directory = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 0..12 {
        let mut child = start_writer(directory.path(), next);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = |line: String| line.strip_prefix("saved ").and_then(|number| number.parse::<i64>().ok());
        let mut last = next - 1;
        for _ in 0..=(round * 13) % 31 {
            last = lines.by_ref().find_map(told).expect("the writer ended by itself");
        }
        child.kill().unwrap();
        last = lines.filter_map(told).last().unwrap_or(last);
        child.wait().unwrap();
        let found = check(directory.path());
        assert!(found == last || found == last + 1, "round {round}: {last} was saved and {found} is found");
        next = found + 1;
    }
    assert!(next > 60, "the journal was folded meanwhile");
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start_writer(directory.path(), 0);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let began = { lines }.find(|line| line.starts_with("saved "));
    assert!(began.is_some());
    let error = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Locked { pid: Some(pid) } if pid == child.id()), "{error:?}");
    let expected = format!(
        "{}: the state directory is in use by another leakslope (pid {})",
        directory.path().display(),
        child.id()
    );
    assert_eq!(error.to_string(), expected);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(check(directory.path()) >= 0, "the lock died with its holder");
}
