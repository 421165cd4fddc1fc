//! What a hostile reply leaves behind in memory. A test binary of its own, because the whole process is measured.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

mod support;

use std::time::Duration;

use leakslope::collect::{Collector, Settings};
use support::fake_daemon::{Behaviour, FakeDaemon};
use support::{steady, wall};

#[tokio::test]
async fn a_large_reply_of_garbage_leaves_no_memory_behind() {
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
