//! One process, looked at closely: what must be known before it is sent a signal.

use std::path::PathBuf;

use super::{SystemReader, parse};

/// What is known of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseUp {
    /// Its start in clock ticks after boot: with the pid it names one life.
    pub start_ticks: u64,
    /// How many pid namespaces lie between us and it, itself included; one where it lives in ours.
    pub namespaces: usize,
    /// What it does with signals.
    pub signals: parse::SignalMasks,
    /// The function of the kernel that its main thread sleeps in; none while it runs, or where that is not ours to see.
    pub sleeps_in: Option<String>,
    /// The program; none where it is not ours to see.
    pub executable: Option<PathBuf>,
    /// Its working directory; none where it is not ours to see.
    pub folder: Option<PathBuf>,
    /// Its command line, as it shows it.
    pub command_line: Vec<String>,
    /// Whether it sees the same network as we do; none where that is not ours to see.
    pub shares_network: Option<bool>,
}

impl SystemReader {
    /// Looks at one process; none where it has ended.
    pub fn close_up(&mut self, pid: u32) -> Option<CloseUp> {
        let stat = self.pid_file(pid, "stat").and_then(parse::stat).filter(|stat| !stat.is_dead)?;
        let text = self.pid_file(pid, "status")?;
        let (signals, status) = (parse::signal_masks(text)?, parse::status(text));
        let sleeps_in = self.pid_file(pid, "wchan").map(|name| String::from_utf8_lossy(name).trim().to_owned());
        let words = self.pid_file(pid, "cmdline").map(|text| String::from_utf8_lossy(text).into_owned());
        let link = |process: &str, name: &str| std::fs::read_link(self.proc.join(process).join(name)).ok();
        let process = pid.to_string();
        let networks = (link("self", "ns/net"), link(&process, "ns/net"));
        Some(CloseUp {
            start_ticks: stat.start_ticks,
            namespaces: status.namespaces,
            signals,
            sleeps_in: sleeps_in.filter(|name| !name.is_empty() && name != "0"),
            executable: link(&process, "exe"),
            folder: link(&process, "cwd"),
            command_line: words.unwrap_or_default().split('\0').map(str::to_owned).collect(),
            shares_network: networks.0.zip(networks.1).map(|(own, other)| own == other),
        })
    }
}
