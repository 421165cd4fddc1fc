//! Who a process is, by the system's word: what has to be known before anything is done to it.

use super::{SystemReader, parse};

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its parent's pid.
    pub parent: u32,
    /// Its start in clock ticks after boot.
    pub start_ticks: u64,
    /// How many pid namespaces lie between us and it, itself included; one where it lives in ours.
    pub namespaces: usize,
    /// Its real, effective, saved and file system user.
    pub users: [u32; 4],
}

impl SystemReader {
    /// Reads whose a process is; none where it has ended.
    pub fn credentials(&mut self, pid: u32) -> Option<Credentials> {
        let stat = self.pid_file(pid, "stat").and_then(parse::stat).filter(|stat| !stat.is_dead)?;
        let text = self.pid_file(pid, "status")?;
        let (namespaces, users) = (parse::status(text).namespaces, parse::users(text)?);
        Some(Credentials { parent: stat.parent, start_ticks: stat.start_ticks, namespaces, users })
    }

    /// Milliseconds from the machine's start to this tick.
    pub fn since_boot(&self, ticks: u64) -> i64 {
        self.milliseconds(ticks)
    }
}
