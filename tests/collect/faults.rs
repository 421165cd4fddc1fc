//! Collecting from daemons that are slow, dead, restarting, half-way through a reply, or lie: each costs one failed
//! collection of its own, with a reason, and nothing else.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::fake_daemon::{Behaviour, FakeDaemon, list, reply};
use crate::support::{steady, wall};
use leakslope::collect::{Collector, DaemonSpec, Settings, Source};
use leakslope::model::{DaemonSample, Snapshot};

fn settings() -> Settings {
    Settings { deadline: Duration::from_secs(1), ..Settings::default() }
}

async fn collect(collector: &mut Collector) -> Snapshot {
    collector.collect(steady(), wall()).await
}

async fn collect_one(collector: &mut Collector) -> DaemonSample {
    collect(collector).await.daemons.remove(0)
}

fn failure(daemon: &DaemonSample) -> &str {
    daemon.reports[0].failure.as_deref().unwrap_or_else(|| panic!("it succeeded: {daemon:?}"))
}

#[tokio::test]
async fn every_fault_is_one_failed_collection_with_a_reason() {
    let daemon = FakeDaemon::start(Behaviour::List(list(3)));
    let mut collector = Collector::new(vec![daemon.spec("default")], settings());
    let half = reply(&list(3), b"s:x");
    let half = half[..half.len() / 2].to_vec();
    let cases = [
        (Behaviour::Close, "the daemon closed the connection without a reply"),
        (Behaviour::Silence, "no complete reply within 1000 ms"),
        (Behaviour::BytesThenClose(half.clone()), "the daemon closed the connection half-way through its reply"),
        (Behaviour::Bytes(half), "no complete reply within 1000 ms"),
        (Behaviour::Drip(list(3), Duration::from_millis(20)), "no complete reply within 1000 ms"),
        (Behaviour::Bytes(b"HTTP/1.1 400 Bad Request".to_vec()), "not an AMP frame: version 4 where 1 was expected"),
        (Behaviour::Bytes(vec![0x10]), "an AMP frame without arguments"),
        (Behaviour::Bytes(vec![0x12, 0, 0, 0, 1, b'x', 0, 0, 0, 1, b'y']), "the reply does not carry the request's id"),
        (Behaviour::WrongId(list(3)), "the reply does not carry the request's id"),
        (
            Behaviour::Message(r#"{"error":"hunter2","stack":"hunter2"}"#.to_owned()),
            "the daemon answered with an error (its text of 9 bytes is withheld, as it may hold secrets)",
        ),
        (Behaviour::Message("{\"args\":[[{\"name\":\"hunter2\"".to_owned()), "is not JSON from byte 27 on"),
        (Behaviour::Message("null".to_owned()), "the reply is JSON but holds no arguments"),
        (Behaviour::Message(r#"{"args":[{"0":"hunter2"}]}"#.to_owned()), "the reply is JSON but holds no process list"),
        (
            Behaviour::Noise(50 << 20),
            "a reply of at least 52428800 bytes, over the limit of 33554432: raise collect.max_reply",
        ),
        (
            Behaviour::Noise(u32::MAX),
            "a reply of at least 4294967295 bytes, over the limit of 33554432: raise collect.max_reply",
        ),
    ];
    for (behaviour, reason) in cases {
        let what = format!("{behaviour:?}").chars().take(60).collect::<String>();
        daemon.behave(behaviour);
        let begun = Instant::now();
        let failed = collect_one(&mut collector).await;
        assert!(!failed.up && failed.processes.is_empty() && failed.version.is_none(), "{what}");
        assert!(failure(&failed).contains(reason), "{what}: {}", failure(&failed));
        assert!(failure(&failed).starts_with(&daemon.home().display().to_string()), "{what}: {}", failure(&failed));
        assert!(!failure(&failed).contains("hunter2"), "{what}");
        assert!(failed.last_success.is_some() || what.contains("Close"), "{what}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what} took {:?}", begun.elapsed());

        daemon.behave(Behaviour::List(list(3)));
        let well = collect_one(&mut collector).await;
        assert_eq!((well.up, well.processes.len(), well.version.as_deref()), (true, 3, Some("9.8.7")), "after {what}");
    }
    assert!(daemon.noise_sent() < 2 << 20, "a reply over the limit is not read: {}", daemon.noise_sent());
}

#[tokio::test]
async fn a_daemon_that_dies_and_comes_back_is_picked_up() {
    let daemon = FakeDaemon::start(Behaviour::List(list(2)));
    let mut collector = Collector::new(vec![daemon.spec("default")], settings());
    assert_eq!(collect_one(&mut collector).await.processes.len(), 2);
    daemon.die();
    for _ in 0..2 {
        let dead = collect_one(&mut collector).await;
        assert!(failure(&dead).contains("nobody listens (pm2 has died or is restarting)"), "{}", failure(&dead));
        assert!(dead.processes.is_empty() && dead.last_success.is_some());
    }
    daemon.behave(Behaviour::List(list(5)));
    daemon.listen();
    assert_eq!(collect_one(&mut collector).await.processes.len(), 5);
    // The restart between two collections is not even noticed: the kept connection is opened anew.
    daemon.die();
    daemon.listen();
    assert_eq!(collect_one(&mut collector).await.processes.len(), 5);
}

#[tokio::test]
async fn one_connection_serves_all_collections_and_polls() {
    let daemon = FakeDaemon::start(Behaviour::List(list(2)));
    let mut collector = Collector::new(vec![daemon.spec("default")], settings());
    for _ in 0..5 {
        assert_eq!(collect_one(&mut collector).await.processes.len(), 2);
        assert_eq!(collector.poll_heap(steady()).await.len(), 2);
    }
    assert_eq!(daemon.connections(), 1);
    let methods = daemon.methods();
    assert_eq!(methods.iter().filter(|method| *method == "getVersion").count(), 1, "{methods:?}");
    assert_eq!(methods.len(), 11);
}

#[tokio::test]
async fn a_bad_daemon_costs_its_neighbours_nothing() {
    let good = FakeDaemon::start(Behaviour::List(list(4)));
    let bad = FakeDaemon::start(Behaviour::Silence);
    let missing = DaemonSpec {
        name: "missing".into(),
        home: PathBuf::from("/nonexistent/.pm2"),
        source: Source::Auto,
        pm2_command: Vec::new(),
        expected: true,
        named_by: None,
    };
    let mut collector = Collector::new(vec![missing, good.spec("good"), bad.spec("bad")], settings());
    for _ in 0..3 {
        let begun = Instant::now();
        let snapshot = collect(&mut collector).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let told: Vec<_> =
            snapshot.daemons.iter().map(|daemon| (daemon.name.as_str(), daemon.up, daemon.processes.len())).collect();
        assert_eq!(told, [("bad", false, 0), ("good", true, 4), ("missing", false, 0)]);
        assert_eq!(
            failure(&snapshot.daemons[2]),
            "/nonexistent/.pm2/rpc.sock: no socket there (pm2 is not running with this home)"
        );
        assert!(snapshot.host.memory_total > snapshot.host.memory_available);
    }
    assert_eq!(collector.poll_heap(steady()).await.len(), 4, "only the good one is polled");
}

#[tokio::test]
async fn processes_beyond_the_bound_are_counted() {
    let daemon = FakeDaemon::start(Behaviour::List(list(30)));
    let mut collector = Collector::new(vec![daemon.spec("default")], Settings { process_limit: 20, ..settings() });
    let sample = collect_one(&mut collector).await;
    assert_eq!((sample.processes.len(), sample.processes_left_out), (20, 10));
}

#[tokio::test]
async fn five_thousand_processes_are_collected() {
    let daemon = FakeDaemon::start(Behaviour::List(list(5000)));
    let mut collector = Collector::new(
        vec![daemon.spec("default")],
        Settings { deadline: Duration::from_secs(30), reply_limit: 64 << 20, ..settings() },
    );
    let sample = collect_one(&mut collector).await;
    assert_eq!((sample.processes.len(), sample.processes_left_out), (5000, 0));
    assert!(
        sample.processes.iter().all(|process| process.resident.is_some()),
        "pm2's own figure where there is no pid"
    );
}

#[tokio::test]
async fn secrets_of_the_environment_are_nowhere_in_a_snapshot() {
    let daemon = FakeDaemon::start(Behaviour::List(list(3)));
    let mut collector = Collector::new(vec![daemon.spec("default")], settings());
    let snapshot = collect(&mut collector).await;
    assert_eq!(snapshot.processes().count(), 3);
    for text in [format!("{snapshot:?}"), format!("{collector:?}"), serde_json::to_string(&snapshot).unwrap()] {
        assert!(!text.contains("s3cr3t"), "{text:.2000}");
    }
}
