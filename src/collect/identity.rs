//! Whether the process that has a pid now is the one pm2 means by it: pure.
//!
//! pm2 goes on showing a pid after the process has died, and the system gives a free pid to the next who asks. What can be
//! checked:
//!
//! - pm2 starts every app itself, in fork and in cluster mode. Where the daemon is a process we can see, a pid
//!   whose parent is not the daemon is someone else's.
//! - Where the daemon is out of sight (it lives in a pid namespace beside or above ours), the process must have started
//!   when pm2 says it did. Both times come from the wall clock, at different moments: pm2 noted one at the start, the other
//!   is reckoned back from now. A step of the clock between them by more than [`START_TOLERANCE_MS`] makes a true pid look
//!   foreign; then pm2's own figure is used until the app restarts, which is poorer but never wrong. A looser tolerance would
//!   take the memory of whatever started around that time.
//!
//! Under `waiting restart`, and with every other status without a live process, the pid is not looked at.

use super::system::{PidReading, SystemReading};
use crate::model::{Listed, MemorySource};

/// How far the start that the system tells may lie from the start that pm2 noted.
pub const START_TOLERANCE_MS: u64 = 10_000;

/// Whose a listed pid is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The app's own process; the system's figures hold.
    Own(&'a PidReading),
    /// Another process has it now: nothing that is said of this pid, by the system or by pm2, is about the app.
    Foreign,
    /// It cannot be seen from here (or it has just ended): only pm2 can tell.
    OutOfSight,
    /// pm2 shows no live pid.
    None,
}

/// Decides whose pid an entry shows.
pub fn standing<'a>(entry: &Listed, daemon_pid: Option<u32>, system: &'a SystemReading) -> Standing<'a> {
    let Some(pid) = entry.pid.filter(|_| entry.status.has_live_pid()) else { return Standing::None };
    let Some(reading) = system.processes.get(&pid) else { return Standing::OutOfSight };
    if let Some(daemon) = daemon_pid.filter(|_| system.daemon_seen) {
        return if reading.parent == daemon { Standing::Own(reading) } else { Standing::Foreign };
    }
    let started_with_it =
        entry.pm_uptime.is_some_and(|noted| noted.abs_diff(reading.sample.started_at_ms) <= START_TOLERANCE_MS);
    if started_with_it { Standing::Own(reading) } else { Standing::OutOfSight }
}

impl Standing<'_> {
    /// Where resident memory is to come from, if from anywhere.
    pub fn memory_source(&self) -> Option<MemorySource> {
        match self {
            Self::Own(_) => Some(MemorySource::System),
            Self::OutOfSight => Some(MemorySource::Pm2),
            Self::Foreign | Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::list::read_list;
    use crate::model::SystemSample;

    const START: i64 = 1_795_393_485_552;

    fn entry(status: &str, pid: u32) -> Listed {
        let json = format!(
            r#"[{{"pm_id":0,"pid":{pid},"pm2_env":{{"status":"{status}","pm_uptime":{START}}},"monit":{{"memory":1}}}}]"#
        );
        read_list(json.as_bytes(), 1).unwrap().entries.remove(0)
    }

    fn system(parent: u32, started_at_ms: i64, daemon_seen: bool) -> SystemReading {
        let sample = SystemSample { started_at_ms, ..SystemSample::default() };
        let reading = PidReading { sample, pid: 100, parent, cgroup_limit: None };
        SystemReading { processes: [(100, reading)].into(), daemon_seen, ..SystemReading::default() }
    }

    #[test]
    fn whose_pid_it_is() {
        let own = Some(MemorySource::System);
        let pm2 = Some(MemorySource::Pm2);
        let year = 31_536_000_000;
        for (case, status, pid, daemon, system, expected) in [
            ("child of the daemon", "online", 100, Some(7), system(7, START, true), own),
            ("child, after a step of the clock", "online", 100, Some(7), system(7, START - year, true), own),
            ("reused by a stranger", "online", 100, Some(7), system(1, START, true), None),
            ("ended a moment ago", "online", 101, Some(7), system(7, START, true), pm2),
            ("launching", "launching", 100, Some(7), system(7, START, true), own),
            ("dead, waiting for its backoff", "waiting restart", 100, Some(7), system(7, START, true), None),
            ("stopped", "stopped", 0, Some(7), system(7, START, true), None),
            ("stopped, but with a pid", "stopped", 100, Some(7), system(7, START, true), None),
            ("errored", "errored", 0, Some(7), system(7, START, true), None),
            ("no daemon, same start", "online", 100, None, system(1, START + 9_000, false), own),
            ("no daemon, other start", "online", 100, None, system(1, START + 11_000, false), pm2),
            ("daemon out of sight", "online", 100, Some(7), system(7, START - year, false), pm2),
            ("no daemon, no such pid", "online", 101, None, system(1, START, false), pm2),
        ] {
            let entry = entry(status, pid);
            assert_eq!(standing(&entry, daemon, &system).memory_source(), expected, "{case}");
        }
    }
}
