//! Kills for want of memory, as the kernel tells them: in its log, which names the pid, and by the counts of control groups, which
//! have to be read before a process ends.
//!
//! The log is read from its end on, where we may; the counts of the groups of pm2's processes at every look. Everything here
//! blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, SeekFrom};

use super::cgroup::{self, Mount};
use super::read_text;
use crate::model::{Bytes, Steady};

/// Kills that are remembered, the newest.
const KEPT: usize = 128;
/// Records of the kernel's log that are read at one look.
const RECORDS: usize = 4096;
/// The longest record.
const RECORD: usize = 8 * 1024;
/// The machine's first pid namespace has the same number everywhere.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";
/// Groups that are looked at.
const GROUPS: usize = 256;

/// A kill that the log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// The process.
    pub pid: u32,
    /// Whether a control group was full; else the whole machine.
    pub in_control_group: bool,
    /// Anonymous memory it held.
    pub held: Option<Bytes>,
}

/// Reads one record of the log; none where it tells of no kill.
pub fn kill(record: &str) -> Option<Kill> {
    let text = record.split_once(';')?.1;
    let (what, rest) = text.split_once("Killed process ")?;
    let pid = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    // The name of a process, in brackets, may hold anything: what follows is taken from behind it.
    let figures = rest.rsplit_once(") total-vm:").map_or("", |(_, figures)| figures);
    let held = figures.split_once("anon-rss:").and_then(|(_, held)| held.split_once("kB"));
    let held = held.and_then(|(held, _)| held.parse::<u64>().ok()).map(|kib| Bytes(kib.saturating_mul(1024)));
    Some(Kill { pid, in_control_group: what.contains("Memory cgroup out of memory"), held })
}

/// What was counted of a group, and when that last rose.
#[derive(Debug)]
struct Counted {
    kills: u64,
    rose_at: Option<Steady>,
}

/// Follows the log and the counts.
#[derive(Debug)]
pub struct Kills {
    proc: PathBuf,
    log: Option<std::fs::File>,
    told: VecDeque<(Kill, Steady)>,
    mounts: Vec<Mount>,
    /// The processes of the machine's first pid namespace, whose pids the log has.
    own: BTreeSet<u32>,
    /// The file that counts for each process.
    files: BTreeMap<u32, Option<PathBuf>>,
    counts: BTreeMap<PathBuf, Counted>,
}

impl Kills {
    /// Begins at the end of the log.
    pub fn new(proc: PathBuf) -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok();
        let log = log.filter(|log| rustix::fs::seek(log, SeekFrom::End(0)).is_ok());
        let mounts = read_text(&proc.join("self/mountinfo")).map(|text| cgroup::mounts(&text)).unwrap_or_default();
        Self {
            proc,
            log: log.map(Into::into),
            told: VecDeque::new(),
            mounts,
            own: BTreeSet::new(),
            files: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Reads what is new, and counts in the groups of these processes.
    pub fn look(&mut self, pids: &BTreeSet<u32>, now: Steady) {
        self.read_log(now);
        self.files.retain(|pid, _| pids.contains(pid));
        self.own.retain(|pid| pids.contains(pid));
        for pid in pids {
            if !self.files.contains_key(pid) {
                let file = self.count_file(*pid);
                self.files.insert(*pid, file);
                if self.is_in_first_namespace(*pid) {
                    self.own.insert(*pid);
                }
            }
        }
        let mut files: BTreeSet<PathBuf> = self.files.values().flatten().cloned().collect();
        // A group whose last process has ended may have counted its kill.
        files.extend(self.counts.keys().cloned());
        for file in files.into_iter().take(GROUPS) {
            let Some(kills) = read_text(&file).ok().as_deref().and_then(cgroup::kill_count) else {
                self.counts.remove(&file);
                continue;
            };
            let counted = self.counts.entry(file).or_insert(Counted { kills, rose_at: None });
            if kills > counted.kills {
                *counted = Counted { kills, rose_at: Some(now) };
            }
        }
    }

    /// The file that counts the kills of a process's group.
    pub fn group_of(&self, pid: u32) -> Option<&Path> {
        self.files.get(&pid)?.as_deref()
    }

    /// Whether the log can be read, and the pids in it are those that this process and its like go by.
    pub fn names_pids_of(&self, pid: u32) -> bool {
        self.log.is_some() && self.own.contains(&pid)
    }

    /// The kill of this pid that was told of since then.
    pub fn of_pid(&self, pid: u32, since: Steady) -> Option<Kill> {
        self.told.iter().rev().find(|(kill, at)| kill.pid == pid && *at >= since).map(|(kill, _)| *kill)
    }

    /// Whether a group has counted a kill since then; none where its count was not read.
    pub fn counted(&self, group: &Path, since: Steady) -> Option<bool> {
        let counted = self.counts.get(group)?;
        Some(counted.rose_at.is_some_and(|at| at >= since))
    }

    fn count_file(&self, pid: u32) -> Option<PathBuf> {
        let membership = read_text(&self.proc.join(pid.to_string()).join("cgroup")).ok()?;
        let files = cgroup::kill_count_files(&self.mounts, &membership);
        files.into_iter().find(|file| read_text(file).is_ok_and(|text| cgroup::kill_count(&text).is_some()))
    }

    fn is_in_first_namespace(&self, pid: u32) -> bool {
        let link = std::fs::read_link(self.proc.join(pid.to_string()).join("ns/pid"));
        link.is_ok_and(|link| link == Path::new(FIRST_NAMESPACE))
    }

    fn read_log(&mut self, now: Steady) {
        let Some(log) = &mut self.log else { return };
        let mut record = [0; RECORD];
        for _ in 0..RECORDS {
            match log.read(&mut record) {
                Ok(length) => {
                    if let Some(kill) = kill(&String::from_utf8_lossy(&record[..length])) {
                        self.told.push_back((kill, now));
                    }
                }
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(_no_more) => break,
            }
        }
        while self.told.len() > KEPT {
            self.told.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_kill_names_the_process_and_what_was_full() {
        let group = "3,421,4775158499,-;Memory cgroup out of memory: Killed process 2812 (node) total-vm:1 (x) total-vm:1403628kB, \
                     anon-rss:379668kB, file-rss:41496kB";
        let held = Some(Bytes(379_668 << 10));
        assert_eq!(kill(group), Some(Kill { pid: 2812, in_control_group: true, held }));
        let host = "3,5,6,-;Out of memory: Killed process 7 (node ./x.js) total-vm:1kB, anon-rss:2kB, file-rss:3kB";
        assert_eq!(kill(host), Some(Kill { pid: 7, in_control_group: false, held: Some(Bytes(2048)) }));
        assert_eq!(kill("6,420,4775158418,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=node,pid=2812,uid=0"), None);
    }
}
