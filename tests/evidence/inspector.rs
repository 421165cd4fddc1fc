//! The client of V8's inspector, against real Node processes and against listeners that misbehave.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leakslope::evidence::inspector::{Inspector, InspectorErrorKind};
use leakslope::evidence::{profile, snapshot};
use leakslope::model::Bytes;
use serde_json::json;
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_mins(1);

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// A Node process that runs `script` with its inspector on a port of the system's choice. Node listens before it has read
/// its own library, so the process counts as begun when its script says so.
fn node(script: &str) -> (Node, SocketAddr) {
    let mut child = Command::new("node")
        .args(["--inspect=127.0.0.1:0", "-e", &format!("console.log('begun'); {script}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is missing: run `apt-get install nodejs npm`");
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("ws://")).unwrap().unwrap();
    // Read on, or the process would block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let said = BufReader::new(child.stdout.take().unwrap()).lines().next();
    assert_eq!(said.unwrap().unwrap(), "begun");
    let address = line.split("ws://").nth(1).unwrap().split('/').next().unwrap();
    (Node(child), address.parse().unwrap())
}

const KEEPER: &str = "const kept = []; class Kept { constructor() { this.text = 'x'.repeat(10) + kept.length; } } \
    function keepMore() { for (let i = 0; i < 2000; i++) kept.push(new Kept(), new Array(50).fill(i)); } \
    keepMore(); setInterval(keepMore, 20);";

#[tokio::test]
async fn the_heap_a_profile_and_a_snapshot_of_a_real_process() {
    let (node, address) = node(KEEPER);
    let mut inspector = Inspector::open(address, DEADLINE).await.unwrap();
    assert_eq!(inspector.process_pid(DEADLINE).await.unwrap(), node.0.id());

    let usage = inspector.heap_usage(DEADLINE).await.unwrap();
    assert!(usage.used.0 > 1_000_000 && usage.total >= usage.used, "{usage:?}");
    inspector.collect_garbage(DEADLINE).await.unwrap();

    let watch = inspector.watch_loop(DEADLINE).await.unwrap();
    inspector.start_sampling(Bytes(16 << 10), DEADLINE).await.unwrap();
    let grown = Bytes(usage.used.0 + (8 << 20));
    crate::support::wait_until("the heap to grow", DEADLINE, || {
        let more = Box::pin(kept_alive(address));
        async move { more.await.and_then(|used| if used > grown { Ok(()) } else { Err(format!("{used}")) }) }
    })
    .await;
    let stopped = inspector.stop_sampling(DEADLINE).await.unwrap();
    assert!(stopped.pause > Duration::ZERO && stopped.pause < DEADLINE, "{:?}", stopped.pause);
    let read = profile::read(stopped.profile.as_slice(), "profile").unwrap();
    let summary = profile::summarise(&read, "profile", 5);
    assert!(summary.functions.iter().any(|row| row.frame.to_string().contains("keepMore")), "{summary:?}");
    let delay = inspector.worst_delay(watch, DEADLINE).await.unwrap();
    assert!(delay > Duration::ZERO && delay < DEADLINE, "{delay:?}");

    let mut file = Vec::new();
    let written = inspector.take_snapshot(&mut file, Bytes(1 << 30), DEADLINE).await.unwrap();
    assert_eq!(written.size.0, file.len() as u64);
    assert!(written.pause > Duration::ZERO, "{written:?}");
    snapshot::read(file.as_slice(), "snapshot", &snapshot::Limits::default()).unwrap();
    inspector.close(DEADLINE).await;
}

/// What a second session of the same process says of the heap.
async fn kept_alive(address: SocketAddr) -> Result<Bytes, String> {
    let mut second = Inspector::open(address, DEADLINE).await.map_err(|error| error.to_string())?;
    second.heap_usage(DEADLINE).await.map(|usage| usage.used).map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_goes_wrong_is_said() {
    let (node, address) = node("setInterval(() => {}, 1000)");
    let mut inspector = Inspector::open(address, DEADLINE).await.unwrap();
    let error = inspector.call("No.suchMethod", json!({}), DEADLINE).await.unwrap_err();
    assert!(matches!(&error.kind, InspectorErrorKind::Refused { method: "No.suchMethod", .. }), "{error}");
    let error = inspector.evaluate("no_such_name", false, DEADLINE).await.unwrap_err();
    assert!(error.to_string().contains("no_such_name is not defined"), "{error}");
    let error = inspector.stop_sampling(DEADLINE).await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::Refused { .. }), "{error}");

    // After a failure the session goes on.
    let mut file = Vec::new();
    let error = inspector.take_snapshot(&mut file, Bytes(1000), DEADLINE).await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::TooLarge { limit: 1000, .. }), "{error}");
    inspector.heap_usage(DEADLINE).await.unwrap();

    // A busy process: the deadline holds, and the late answer is not taken for the next one.
    let late = inspector.evaluate(
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500)",
        false,
        Duration::from_millis(200),
    );
    let error = late.await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::Deadline { .. }), "{error}");
    assert_eq!(inspector.process_pid(DEADLINE).await.unwrap(), node.0.id());

    drop(node);
    let error = inspector.heap_usage(DEADLINE).await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::Closed { .. }), "{error}");
    let error = Inspector::open(address, DEADLINE).await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::Connect(_)), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_listener_that_never_answers_costs_one_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Inspector::open(silent.local_addr().unwrap(), Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error.kind, InspectorErrorKind::Deadline { .. } | InspectorErrorKind::Connect(_)), "{error}");
    assert!(error.to_string().contains("no answer"), "{error}");
}
