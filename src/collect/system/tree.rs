//! A command and everything it started: who they are and what memory each holds.

use std::collections::{BTreeSet, HashMap};

use super::{SystemError, SystemReader, descendants};
use crate::model::Bytes;

/// One process of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeProcess {
    /// The process id.
    pub pid: u32,
    /// Its start in clock ticks after boot: with the pid it names one life.
    pub start_ticks: u64,
    /// The kernel's short name for it.
    pub name: String,
    /// Resident and swapped memory.
    pub held: Bytes,
    /// CPU time since its start.
    pub cpu_milliseconds: u64,
}

impl SystemReader {
    /// Reads a process, its descendants, and everyone else in its group, where it leads one: a child that was orphaned is no
    /// descendant any more. In order of pids; empty when the process and all of them are gone.
    ///
    /// # Errors
    /// [`SystemError`] where the system cannot be read at all.
    pub fn tree(&mut self, root: u32, group: Option<u32>) -> Result<Vec<TreeProcess>, SystemError> {
        let everyone = self.scan()?;
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for stat in everyone.values().filter(|stat| !stat.is_dead) {
            children.entry(stat.parent).or_default().push(stat.pid);
        }
        let mut roots: BTreeSet<u32> =
            everyone.values().filter(|stat| Some(stat.group) == group).map(|stat| stat.pid).collect();
        roots.insert(root);
        let mut pids = descendants(&roots, &children);
        pids.extend(roots);
        let mut tree = Vec::new();
        for pid in pids {
            let Some(stat) = everyone.get(&pid).filter(|stat| !stat.is_dead) else { continue };
            let Some(status) = self.status(pid) else { continue };
            let name = self.pid_file(pid, "comm").map(|name| String::from_utf8_lossy(name).trim_end().to_owned());
            tree.push(TreeProcess {
                pid,
                start_ticks: stat.start_ticks,
                name: name.unwrap_or_default(),
                held: status.resident.saturating_add(status.swapped.unwrap_or_default()),
                cpu_milliseconds: self.milliseconds(stat.cpu_ticks).unsigned_abs(),
            });
        }
        Ok(tree)
    }

    /// Whether the process with this pid and this start still runs.
    pub fn is_alive(&mut self, pid: u32, start_ticks: u64) -> bool {
        let stat = self.pid_file(pid, "stat").and_then(super::parse::stat);
        stat.is_some_and(|stat| stat.start_ticks == start_ticks && !stat.is_dead)
    }
}
