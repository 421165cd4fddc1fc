//! What collections leave behind in memory: after a hostile reply, measured on a process of its own, and with the C library
//! in the sidecar.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::time::Duration;

use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::{in_own_process, steady, wait_for, wall};
use leakslope::collect::{Collector, Settings};

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
