//! Memory: what an app's is held by, and what collections leave behind in the sidecar's own.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::time::Duration;

use crate::heap_support::node_of;
use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::{in_own_process, steady, wait_for, wall};
use leakslope::collect::{Collector, Settings, Source};
use leakslope::model::{MemoryKind, ProcessSample};

#[tokio::test]
async fn memory_is_told_by_kind_under_every_version_of_node() {
    let pm2 = Pm2::start("pm2-7");
    let app = app("kinds.js");
    for version in [16, 18, 22, 24] {
        let node = node_of(version);
        let arguments = ["start", &app, "--name", &format!("node-{version}"), "--interpreter", node.to_str().unwrap()];
        pm2.run(&arguments);
    }
    pm2.run(&["start", &app, "--name", "node"]);
    let settings = || Settings { memory_every: Duration::ZERO, ..Settings::default() };
    let mut collector = Collector::new(vec![pm2.spec(Source::Socket)], settings());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let processes = collector.collect(steady(), wall()).await.daemons.remove(0).processes;
        assert_eq!(processes.len(), 5);
        let wrong: Vec<String> = processes.iter().filter_map(|process| check_kinds(process).err()).collect();
        if wrong.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{wrong:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Compares what `kinds.js` holds with what is told of it.
fn check_kinds(process: &ProcessSample) -> Result<(), String> {
    let system = process.system.as_ref().ok_or("out of sight")?;
    let name = process.listed.app.name();
    let memory = system.memory.ok_or_else(|| format!("{name}: {:?}", system.memory_unknown))?;
    let about = |kind: MemoryKind, least: u64, most: u64| {
        let mebibytes = memory.of(kind).0 >> 20;
        (least..=most)
            .contains(&mebibytes)
            .then_some(())
            .ok_or(format!("{name}: {mebibytes} MiB of {kind:?}: {memory:?}"))
    };
    about(MemoryKind::Malloc, 64, 110)?;
    about(MemoryKind::Wasm, 32, 33)?;
    about(MemoryKind::JsHeap, 48, 160)?;
    about(MemoryKind::OwnAllocator, 0, 0)?;
    about(MemoryKind::SharedMemory, 0, 0)?;
    about(MemoryKind::Files, 20, 90)?;
    if memory.workers != 2 {
        return Err(format!("{name}: {} workers", memory.workers));
    }
    // Both are of one instant but for the time that the reading takes.
    let apart = memory.resident().0.abs_diff(system.resident.0) >> 20;
    if apart > 4 {
        return Err(format!("{name}: {} and {}", memory.resident(), system.resident));
    }
    let outside = system.outside_v8.ok_or_else(|| format!("{name}: it was read with this sample"))?;
    if outside.0.abs_diff(memory.held.0 - memory.v8_held.0) > 1 << 20 {
        return Err(format!("{name}: {outside} outside of V8"));
    }
    Ok(())
}

#[tokio::test]
async fn a_large_reply_of_garbage_leaves_no_memory_behind() {
    if !in_own_process("memory::a_large_reply_of_garbage_leaves_no_memory_behind") {
        return;
    }
    let daemon = FakeDaemon::start(Behaviour::Noise(50 << 20));
    let limits = Settings { reply_limit: 64 << 20, deadline: Duration::from_secs(20), ..Settings::default() };
    let mut collector = Collector::new(vec![daemon.spec("default")], limits);
    let before = resident_kib();
    for _ in 0..3 {
        let failed = collector.collect(steady(), wall()).await.daemons.remove(0);
        let failure = failed.reports[0].failure.as_deref().unwrap();
        assert!(failure.contains("is not marked as JSON"), "{failure}");
    }
    assert_eq!(daemon.noise_sent(), 3 * (50 << 20), "it was read to its end");
    let left = resident_kib().saturating_sub(before);
    assert!(left < 16 << 10, "{left} KiB more than before");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn memory_is_not_kept_for_each_thread_unless_the_user_says_so() {
    let daemon = FakeDaemon::start(Behaviour::List(fake_daemon::list(50)));
    let place = || Place::new(daemon.home(), "interval = \"1s\"\n");
    let (one, other) = (place(), place());
    let by_itself = one.start();
    let mut command = other.command(&["--web.listen-address", "127.0.0.1:0"]);
    command.env("MALLOC_ARENA_MAX", "8");
    let told = other.spawn(command).ready();
    wait_for("arenas of threads where they are allowed", DEADLINE, || match arenas(told.pid()) {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(arenas(by_itself.pid()), 0);
}

/// How many arenas glibc keeps beside the first: each reserves 64 MiB of addresses, most of it out of reach.
fn arenas(process: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let reserved = |line: &&str| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        rest.starts_with("---p") && address(to) - address(from) > 32 << 20
    };
    maps.lines().filter(reserved).count()
}
