//! The sidecar's own use of the machine, read when it is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{SystemError, SystemErrorKind, SystemReader};
use crate::model::{SelfSample, WallTime};

/// Reads this very process from `/proc`. Blocks for some tens of microseconds.
pub fn own_sample(wall: WallTime) -> Result<SelfSample, SystemError> {
    let mut reader = SystemReader::new(PathBuf::from("/proc"));
    let pid = std::process::id();
    let missing = |what| SystemError { path: PathBuf::from("/proc/self"), kind: SystemErrorKind::Unexpected(what) };
    let boot_ms = reader.boot_time(wall)?;
    let stat = reader.pid_file(pid, "stat").and_then(super::parse::stat);
    let stat = stat.ok_or_else(|| missing("figures"))?;
    let status = reader.status(pid).ok_or_else(|| missing("status"))?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(SelfSample {
        cpu_seconds: seconds(reader.milliseconds(stat.cpu_ticks)),
        resident: status.resident,
        virtual_memory: status.virtual_memory,
        open_fds: reader.open_fds(pid).unwrap_or_default(),
        max_fds: limit.current.unwrap_or(u64::MAX),
        threads: stat.threads,
        start_time_seconds: seconds(boot_ms.saturating_add(reader.milliseconds(stat.start_ticks))),
    })
}

/// Lists the pids of this very process and of those it runs under: a shim, a shell, pm2's daemon. What cannot be seen, such
/// as a parent in an outer pid namespace, is left out.
pub fn own_pids() -> BTreeSet<u32> {
    let mut reader = SystemReader::new(PathBuf::from("/proc"));
    let mut pids = BTreeSet::new();
    let mut next = Some(std::process::id());
    while let Some(pid) = next.filter(|pid| *pid > 0 && pids.insert(*pid)) {
        next = reader.pid_file(pid, "stat").and_then(super::parse::stat).map(|stat| stat.parent);
    }
    pids
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay far below 2^53")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_under_its_parent() {
        let pids = own_pids();
        assert!(pids.contains(&std::process::id()), "{pids:?}");
        assert!(pids.contains(&std::os::unix::process::parent_id()), "{pids:?}");
    }
}
