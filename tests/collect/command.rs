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
use crate::support::pm2::is_alive;
use crate::support::{steady, wait_for, wall};
use leakslope::collect::{Collector, DaemonSpec, Settings, Source};
use leakslope::model::DaemonSample;

const BANNER: &str = include_str!("../../crates/pm2-client/tests/fixtures/jlist-out-of-date-banner.stdout");

/// A script in place of pm2, with a folder that it may write to as `$OUT`.
pub(crate) struct Script {
    folder: tempfile::TempDir,
}

impl Script {
    pub(crate) fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("#!/bin/sh\nOUT={}\necho \"$PM2_HOME $*\" >> $OUT/calls\n{body}\n", folder.path().display());
        let path = folder.path().join("pm2");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.file("calls")).unwrap_or_default()
    }

    pub(crate) fn spec(&self, home: &Path, source: Source) -> DaemonSpec {
        let pm2_command = vec!["/bin/sh".to_owned(), self.file("pm2").display().to_string()];
        DaemonSpec {
            name: "default".into(),
            home: home.to_owned(),
            source,
            pm2_command,
            expected: true,
            named_by: None,
        }
    }
}

pub(crate) fn settings() -> Settings {
    Settings { deadline: Duration::from_millis(1500), reply_limit: 1 << 20, ..Settings::default() }
}

pub(crate) async fn collect(spec: DaemonSpec, settings: Settings) -> DaemonSample {
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
async fn what_it_leaves_behind_is_said_and_ended_and_it_is_not_run_again() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    let script = Script::new("setsid sleep 1000 > /dev/null 2>&1 & echo $! > $OUT/daemon; echo '[]'");
    let mut collector = Collector::new(vec![script.spec(daemon.home(), Source::Command)], settings());
    let failure = async |collector: &mut Collector| {
        let sample = collector.collect(steady(), wall()).await.daemons.remove(0);
        sample.reports[0].failure.clone().unwrap()
    };
    let said = failure(&mut collector).await;
    let left: u32 = fs::read_to_string(script.file("daemon")).unwrap().trim().parse().unwrap();
    assert!(said.contains(&format!("started a pm2 daemon (pid {left}), which is ended again")), "{said}");
    assert!(!is_alive(left));
    let said = failure(&mut collector).await;
    assert!(said.contains("not run again"), "{said}");
    assert_eq!(script.calls().lines().count(), 1);
}

#[tokio::test]
async fn a_daemon_that_has_died_and_left_its_pid_behind_counts_as_gone() {
    let daemon = FakeDaemon::start(Behaviour::Silence);
    let script = Script::new("echo '[]'");
    fs::write(daemon.home().join("pm2.pid"), "4194304\n").unwrap();
    assert!(!collect(script.spec(daemon.home(), Source::Command), settings()).await.up);
    assert_eq!(script.calls(), "");
    fs::write(daemon.home().join("pm2.pid"), std::process::id().to_string()).unwrap();
    assert!(collect(script.spec(daemon.home(), Source::Command), settings()).await.up);
}
