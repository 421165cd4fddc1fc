//! A command before a replacement: to drain a worker, or to take evidence.
//!
//! It runs without a shell, in a process group of its own that is killed whole at the deadline or when the waiting ends in
//! another way. Its output is bounded and shown only when it fails. What it must know stands in `LEAKSLOPE_*` variables.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::policy::HookOrder;

use crate::model::plain;

/// The most output that is kept; the rest is read and thrown away, so that the command does not block.
const KEPT_OUTPUT: usize = 4096;

/// Runs a hook to its end; an error tells what it said.
pub(super) async fn run(order: &HookOrder) -> Result<(), String> {
    let (program, arguments) = order.command.split_first().ok_or("no command is set")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LEAKSLOPE_DAEMON", order.key.daemon.as_str())
        .env("LEAKSLOPE_NAMESPACE", order.app.namespace())
        .env("LEAKSLOPE_APP", order.app.name())
        .env("LEAKSLOPE_PM_ID", order.key.pm_id.to_string())
        .env("LEAKSLOPE_PID", order.life.pid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let stderr = child.stderr.take();
    let both = async {
        let (said, status) = tokio::join!(read_bounded(stderr), child.wait());
        (said, status)
    };
    let (said, status) = timeout(order.timeout, both)
        .await
        .map_err(|_elapsed| format!("killed after {} s", order.timeout.as_secs_f32()))?;
    let status = status.map_err(|error| format!("it cannot be waited for: {error}"))?;
    // It has been waited for, so its number may already be another's.
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let said = plain(&said, 200);
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

async fn read_bounded(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let room = KEPT_OUTPUT.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A process group that is killed when it is let go.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that nobody is left in it.
            let _nobody_left = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Life, ProcessKey};

    fn order(script: &str, timeout: Duration) -> HookOrder {
        HookOrder {
            step: 1,
            key: ProcessKey { daemon: "default".into(), pm_id: 3 },
            life: Life { pid: 77, started: 1 },
            app: "shop".into(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout,
        }
    }

    #[tokio::test]
    async fn it_knows_what_it_is_for_and_its_failure_is_told() {
        let long = Duration::from_secs(20);
        let check = r#"test "$LEAKSLOPE_DAEMON/$LEAKSLOPE_PM_ID $LEAKSLOPE_APP $LEAKSLOPE_PID" = "default/3 shop 77""#;
        assert_eq!(run(&order(check, long)).await, Ok(()));
        let said = run(&order("echo 'no room' >&2; exit 3", long)).await.unwrap_err();
        assert_eq!(said, "exit status: 3: no room");
        let loud =
            run(&order("yes >&2 | head -c 10000000 >&2; yes | head -c 1000000 >&2; exit 1", long)).await.unwrap_err();
        assert!(loud.len() < 300, "{loud}");
        let mut missing = order("", long);
        missing.command = vec!["/nonexistent/drain".to_owned()];
        assert!(run(&missing).await.unwrap_err().contains("cannot be started"));
    }

    #[tokio::test]
    async fn at_its_deadline_it_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", mark.display());
        let why = run(&order(&script, Duration::from_secs(1))).await.unwrap_err();
        assert!(why.contains("killed after 1 s"), "{why}");
        let child: u32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the child {child} still runs");
    }
}
