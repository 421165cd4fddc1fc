//! How a process is set up by the system: its control group, its limits, where its output goes.
//!
//! Of an environment nothing is kept but what was asked for, and what was read of it is wiped.

use std::path::Path;

use super::{SystemReader, cgroup, read_text};
use crate::model::Bytes;

/// How the system has set a process up. What may not be seen is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// Its `oom_score_adj`.
    pub oom_adjustment: Option<i32>,
    /// The largest core file it may write, in bytes.
    pub core_limit: Option<u64>,
    /// Its `/proc/<pid>/cgroup`.
    pub groups: String,
    /// The smallest limit of memory on the way up from its control group.
    pub group_limit: Option<Bytes>,
    /// Whether that limit is one of control groups of version 2.
    pub is_version_2: bool,
    /// Whether the kernel kills its whole group at once.
    pub dies_together: bool,
    /// What its standard output is, as `/proc` names it.
    pub output: Option<String>,
}

impl SystemReader {
    /// Reads how a process is set up.
    pub fn setup(&mut self, pid: u32) -> Setup {
        let text =
            |reader: &mut Self, name| reader.pid_file(pid, name).map(|text| String::from_utf8_lossy(text).into_owned());
        let groups = text(self, "cgroup").unwrap_or_default();
        let limits = text(self, "limits").unwrap_or_default();
        let files = cgroup::limit_files(self.mounts(), &groups);
        let limit_of = |file: &Path| cgroup::limit(&read_text(file).ok()?);
        let limit = files.iter().filter_map(|file| Some((limit_of(file)?, file))).min();
        let together = |folder: &Path| read_text(&folder.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1");
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")?.split_whitespace().next());
        let link = std::fs::read_link(self.proc.join(pid.to_string()).join("fd/1")).ok();
        Setup {
            oom_adjustment: text(self, "oom_score_adj").and_then(|text| text.trim().parse().ok()),
            core_limit: core.map(|limit| limit.parse().unwrap_or(u64::MAX)),
            group_limit: limit.map(|(limit, _)| limit),
            is_version_2: limit.is_some_and(|(_, file)| file.ends_with("memory.max")),
            dies_together: files.first().and_then(|file| file.parent()).is_some_and(together),
            groups,
            output: link.map(|link| link.to_string_lossy().into_owned()),
        }
    }

    /// Asks something of one variable of a process's environment: its value, or none where it is not set. None where the
    /// environment is not ours to read.
    pub fn variable<T>(&mut self, pid: u32, name: &str, ask: impl FnOnce(Option<&[u8]>) -> T) -> Option<T> {
        let environment = self.pid_file(pid, "environ")?;
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        let answer = ask(value);
        self.buffer.fill(0);
        Some(answer)
    }
}
