//! What the tests share: a real pm2 of a pinned version, a fake daemon that misbehaves on demand, a fake `/proc`, and the
//! real sidecar, a real Prometheus and a real Alertmanager.
//!
//! Everything that is started here is ended on drop, also when a test panics. A tool that is missing fails the test with
//! the command that installs it; nothing is skipped.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

pub mod certificates;
pub mod fake_daemon;
pub mod fake_proc;
pub mod inspected;
pub mod pm2;
pub mod raw;
pub mod sidecar;
pub mod stack;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use leakslope::model::{Steady, WallTime};

/// The wall clock now.
pub fn wall() -> WallTime {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    WallTime(i64::try_from(since_epoch.as_millis()).unwrap())
}

/// The steady line, which in tests is the wall clock.
pub fn steady() -> Steady {
    Steady(wall().0)
}

/// The binary without what only a debugger wants, in this folder: a third of the size, so that it is packed faster.
pub fn stripped_binary(folder: &Path) -> PathBuf {
    let stripped = folder.join("leakslope");
    let whole = env!("CARGO_BIN_EXE_leakslope");
    let status = Command::new("strip").args(["--strip-debug", whole, "-o"]).arg(&stripped).status();
    assert!(status.is_ok_and(|status| status.success()), "strip is missing: run `apt-get install binutils`");
    stripped
}

/// Runs a test, by its path, in a process of its own: for what is limited or measured by process. True in that process; the
/// other one has nothing more to do.
pub fn in_own_process(test: &str) -> bool {
    const MARK: &str = "LEAKSLOPE_TEST_IN_OWN_PROCESS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(MARK, "1").output().unwrap();
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Asks again and again until there is an answer; panics with the last refusal after `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(refusal) if Instant::now() >= end => panic!("waited {deadline:?} for {what}: {refusal}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The same for asynchronous questions.
pub async fn wait_until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(refusal) if Instant::now() >= end => panic!("waited {deadline:?} for {what}: {refusal}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
