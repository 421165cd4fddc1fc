//! What the checks may know. Each fact that could not be had is `None`, never a guess.

use crate::model::{Bytes, Orphan};

use super::journal::Journal;
use super::settings::AppSettings;

/// The host and what is examined on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The machine.
    pub host: Host,
    /// Its pm2 daemons, or an ecosystem file in the place of one.
    pub daemons: Vec<Daemon>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Its memory.
    pub memory: Option<Bytes>,
    /// Its swap; zero where it has none.
    pub swap: Option<Bytes>,
    /// Where the kernel writes core files; empty for nowhere.
    pub core_pattern: Option<String>,
    /// Whether the kernel's log may be read; none where it has none.
    pub reads_kernel_log: Option<bool>,
}

/// One daemon and what surrounds it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Daemon {
    /// Its name, or the ecosystem file.
    pub name: String,
    /// Its pid; none for an ecosystem file, or where it cannot be seen.
    pub pid: Option<u32>,
    /// Its own memory.
    pub resident: Option<Bytes>,
    /// Its `oom_score_adj`.
    pub oom_adjustment: Option<i32>,
    /// Its control group.
    pub group: Option<Group>,
    /// The systemd unit it belongs to.
    pub unit: Option<Unit>,
    /// Where its own output goes.
    pub output: Option<Output>,
    /// Whether its log lines carry the time; none where its environment is not ours to read.
    pub stamps: Option<bool>,
    /// What `pm2 resurrect` would bring back.
    pub dump: Option<Dump>,
    /// Processes that its apps left behind; none where they cannot be looked for.
    pub orphans: Option<Vec<Orphan>>,
    /// What its log says; none where there is none to read.
    pub journal: Option<Journal>,
    /// Its processes, modules included.
    pub apps: Vec<App>,
}

/// A control group with a limit of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its path, which names it.
    pub path: String,
    /// The smallest limit from it upwards; none where there is none.
    pub limit: Option<Bytes>,
    /// Whether V8 learns of the limit by itself: only where control groups are of version 2.
    pub is_version_2: bool,
    /// Whether the kernel kills all of it at once (`memory.oom.group`).
    pub dies_together: bool,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its `OOMPolicy`, where systemd said.
    pub oom_policy: Option<String>,
}

/// Where the daemon's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Into a file.
    File(String),
    /// Into `/dev/null`.
    Nowhere,
    /// Into a pipe or terminal: whoever reads that keeps it.
    Elsewhere,
}

/// The file that `pm2 save` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dump {
    /// There is none.
    Missing,
    /// It holds no list.
    Broken,
    /// The names in it, once for each process.
    Names(Vec<String>),
}

/// One process that pm2 lists, or one app of an ecosystem file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct App {
    /// How it is set up.
    pub settings: AppSettings,
    /// What the system says of it, where it runs.
    pub live: Option<Live>,
    /// Its log files.
    pub logs: Vec<LogFile>,
    /// Whether its script can say that it is ready; none where that cannot be told from the script.
    pub says_ready: Option<bool>,
}

/// A running process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Live {
    /// Seconds since it was started.
    pub uptime: Option<f64>,
    /// The memory of it and its children.
    pub resident: Option<Bytes>,
    /// The least that it held after it warmed up, where that was watched.
    pub floor: Option<Bytes>,
    /// Bytes a second by which its memory grows, where that was watched.
    pub growth: Option<f64>,
    /// V8's heap limit, as the process itself reported it.
    pub heap_limit: Option<Bytes>,
    /// V8's heap in use.
    pub heap_used: Option<Bytes>,
    /// Whether the heap flag of `NODE_OPTIONS` stands in its own environment; none where that is not ours to read.
    pub has_options_flag: Option<bool>,
    /// Its control group.
    pub group: Option<Group>,
    /// Its `oom_score_adj`.
    pub oom_adjustment: Option<i32>,
    /// The largest core file it may write.
    pub core_limit: Option<u64>,
    /// How many processes it has started that still run.
    pub children: usize,
    /// Whether it listens on a port; none where that is not ours to see.
    pub listens: Option<bool>,
}

/// One log file of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: String,
    /// Its size; none where it is not there or cannot be seen.
    pub size: Option<u64>,
    /// Why it cannot be read, where it is there and cannot.
    pub unreadable: Option<String>,
}
