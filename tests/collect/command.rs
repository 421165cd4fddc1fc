//! The pm2 command as the fallback: bounded in time and output, killed with its whole group, and run only beside a living
//! daemon. Shell scripts stand in for pm2.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::fake_daemon::{Behaviour, FakeDaemon, list};
use crate::support::fake_proc::{FakeProc, FakeProcess};
use crate::support::pm2::is_alive;
use crate::support::{steady, wait_for, wall};
use leakslope::collect::{Collector, DaemonSpec, Settings, Source};
use leakslope::model::DaemonSample;

const BANNER: &str = include_str!("../fixtures/pm2/jlist-out-of-date-banner.stdout");

/// A script in place of pm2, with a folder that it may write to as `$OUT`.
struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("#!/bin/sh\nOUT={}\necho \"$PM2_HOME $*\" >> $OUT/calls\n{body}\n", folder.path().display());
        let path = folder.path().join("pm2");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.file("calls")).unwrap_or_default()
    }

    fn spec(&self, home: &Path, source: Source) -> DaemonSpec {
        let pm2_command = vec!["/bin/sh".to_owned(), self.file("pm2").display().to_string()];
        DaemonSpec { name: "default".into(), home: home.to_owned(), source, pm2_command, expected: true }
    }
}

fn settings() -> Settings {
    Settings { deadline: Duration::from_millis(1500), reply_limit: 1 << 20, ..Settings::default() }
}

async fn collect(spec: DaemonSpec, settings: Settings) -> DaemonSample {
    Collector::new(vec![spec], settings).collect(steady(), wall()).await.daemons.remove(0)
}

#[tokio::test]
async fn the_list_is_read_through_banners() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    let script = Script::new("cat $OUT/banner $OUT/list");
    fs::write(script.file("banner"), BANNER).unwrap();
    fs::write(script.file("list"), format!("[PM2] hello\n{}", list(3))).unwrap();
    let sample = collect(script.spec(daemon.home(), Source::Command), settings()).await;
    assert_eq!((sample.up, sample.processes.len()), (true, 3), "{sample:?}");
    assert_eq!(sample.pid, Some(std::process::id()), "the socket's owner");
    assert_eq!(script.calls(), format!("{} -s jlist\n", daemon.home().display()));
    assert!(daemon.methods().is_empty(), "the socket is not asked");
}

#[tokio::test]
async fn what_goes_wrong_is_said_and_bounded() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    for (body, reason) in [
        ("exit 3", "ended with exit status: 3"),
        ("echo '[PM2] nothing'", "the reply is JSON but holds no process list"),
        ("echo '[{\"pid\": hunter2'", "is not JSON from byte 10 on"),
        ("yes hunter2", "killed after 1048576 bytes of output"),
        ("sleep 100", "killed after 1500 ms"),
        ("exec > /dev/null; sleep 100", "killed after 1500 ms"),
    ] {
        let script = Script::new(body);
        let begun = Instant::now();
        let sample = collect(script.spec(daemon.home(), Source::Command), settings()).await;
        let failure = sample.reports[0].failure.as_deref().unwrap();
        assert!(failure.contains(reason) && !failure.contains("hunter2"), "{body}: {failure}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{body}");
    }
    let spec = DaemonSpec {
        pm2_command: vec!["/nonexistent/pm2".to_owned()],
        ..Script::new("").spec(daemon.home(), Source::Command)
    };
    let sample = collect(spec, settings()).await;
    let failure = sample.reports[0].failure.as_deref().unwrap();
    assert!(failure.starts_with("`/nonexistent/pm2`: cannot be started"), "{failure}");
}

#[tokio::test]
async fn the_whole_process_group_dies_at_the_deadline() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    let script = Script::new(
        "sleep 300 & echo $! > $OUT/child\n(trap '' TERM; sleep 300) & echo $! > $OUT/stubborn\necho $$ > $OUT/own; wait",
    );
    let sample = collect(script.spec(daemon.home(), Source::Command), settings()).await;
    assert!(!sample.up);
    for name in ["child", "stubborn", "own"] {
        let pid: u32 = fs::read_to_string(script.file(name)).unwrap().trim().parse().unwrap();
        wait_for(&format!("the end of {name}"), Duration::from_secs(5), || {
            if is_alive(pid) { Err(format!("{pid} lives")) } else { Ok(()) }
        });
    }
}

#[tokio::test]
async fn it_is_not_run_where_it_would_start_a_daemon() {
    let script = Script::new("echo '[]'");
    let daemon = FakeDaemon::start(Behaviour::Silence);
    daemon.die();
    let empty = tempfile::tempdir().unwrap();
    for home in [daemon.home(), empty.path(), Path::new("/nonexistent/.pm2")] {
        for source in [Source::Command, Source::Auto] {
            let sample = collect(script.spec(home, source), settings()).await;
            assert!(!sample.up, "{home:?} {source:?}");
        }
    }
    assert_eq!(script.calls(), "");
}

#[tokio::test]
async fn where_the_socket_is_out_of_reach_the_command_is_the_second_choice() {
    // A path too long for a socket address stands in for a folder that we may not enter: tests may run as root.
    let home = PathBuf::from(format!("/{}/.pm2", "long".repeat(40)));
    let title = format!("PM2 v7.0.4: God Daemon ({})", home.display());
    let proc = FakeProc::new(&[FakeProcess { title, ..FakeProcess::new(77, 1).resident(60_000) }]);
    let with_proc = || Settings { proc: proc.path().to_owned(), ..settings() };
    let script = Script::new("cat $OUT/list");
    fs::write(script.file("list"), list(2)).unwrap();

    let sample = collect(script.spec(&home, Source::Auto), with_proc()).await;
    assert_eq!((sample.up, sample.processes.len(), sample.pid), (true, 2, Some(77)), "{sample:?}");
    assert!(sample.resident.is_some());

    let by_socket = collect(script.spec(&home, Source::Socket), with_proc()).await;
    let failure = by_socket.reports[0].failure.as_deref().unwrap();
    assert!(failure.contains("cannot connect"), "{failure}");

    // Both roads fail: both reasons are told.
    let broken = Script::new("exit 9");
    let sample = collect(broken.spec(&home, Source::Auto), with_proc()).await;
    let failure = sample.reports[0].failure.as_deref().unwrap();
    assert!(failure.contains("cannot connect") && failure.contains("ended with exit status: 9"), "{failure}");

    // With the daemon gone the command is left alone.
    proc.remove(77);
    let calls = script.calls();
    assert!(!collect(script.spec(&home, Source::Auto), with_proc()).await.up);
    assert_eq!(script.calls(), calls);
}
