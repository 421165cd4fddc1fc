//! Why a run of a process ended, in the form that log, metrics, API, page and command share.

use serde::{Deserialize, Serialize};

use crate::{AppName, Bytes, DaemonName, Limit, Slope, WallTime};

/// What ended a run of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// leakslope restarted it.
    Leakslope,
    /// pm2's `max_memory_restart`.
    MaxMemoryRestart,
    /// pm2's `watch`: a file changed.
    Watch,
    /// pm2's `cron_restart`.
    Cron,
    /// pm2 was asked to restart, reload, stop or delete it.
    #[serde(rename = "command")]
    Pm2Command,
    /// pm2 was asked, and killed it when `kill_timeout` was over.
    KillTimeout,
    /// V8 reached the limit of its heap.
    V8HeapLimit,
    /// The kernel killed it because memory was short.
    KernelOomKill,
    /// An exception that nobody caught.
    UncaughtException,
    /// It ended by itself, with this exit code.
    Exit,
    /// It aborted, not for want of heap.
    Abort,
    /// A crash in native code: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP.
    NativeCrash,
    /// A signal from outside of pm2.
    Signal,
    /// It ends again and again right after its start, for a reason that cannot be told.
    BootLoop,
    /// pm2's daemon was killed or crashed, and its apps ended with it.
    DaemonKilled,
    /// pm2's daemon was stopped, and its apps with it.
    DaemonStopped,
    /// It cannot be told.
    Undecided,
}

impl Cause {
    /// Every cause, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::V8HeapLimit,
        Self::KernelOomKill,
        Self::MaxMemoryRestart,
        Self::Pm2Command,
        Self::KillTimeout,
        Self::Watch,
        Self::Cron,
        Self::Leakslope,
        Self::UncaughtException,
        Self::Exit,
        Self::Abort,
        Self::NativeCrash,
        Self::Signal,
        Self::BootLoop,
        Self::DaemonKilled,
        Self::DaemonStopped,
        Self::Undecided,
    ];

    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leakslope => "leakslope",
            Self::MaxMemoryRestart => "max_memory_restart",
            Self::Watch => "watch",
            Self::Cron => "cron",
            Self::Pm2Command => "command",
            Self::KillTimeout => "kill_timeout",
            Self::V8HeapLimit => "v8_heap_limit",
            Self::KernelOomKill => "kernel_oom_kill",
            Self::UncaughtException => "uncaught_exception",
            Self::Exit => "exit",
            Self::Abort => "abort",
            Self::NativeCrash => "native_crash",
            Self::Signal => "signal",
            Self::BootLoop => "boot_loop",
            Self::DaemonKilled => "daemon_killed",
            Self::DaemonStopped => "daemon_stopped",
            Self::Undecided => "undecided",
        }
    }

    /// Whether somebody asked pm2 to end it: a command, a rule in its configuration, or leakslope.
    pub fn is_asked(self) -> bool {
        match self {
            Self::Leakslope
            | Self::MaxMemoryRestart
            | Self::Watch
            | Self::Cron
            | Self::Pm2Command
            | Self::KillTimeout
            | Self::DaemonStopped => true,
            Self::V8HeapLimit
            | Self::KernelOomKill
            | Self::UncaughtException
            | Self::Exit
            | Self::Abort
            | Self::NativeCrash
            | Self::Signal
            | Self::BootLoop
            | Self::DaemonKilled
            | Self::Undecided => false,
        }
    }

    /// Whether it ended because memory ran out or was found to be too much.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::V8HeapLimit | Self::KernelOomKill | Self::MaxMemoryRestart)
    }
}

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// It could be either of [`Finding::between`].
    Undecided,
    /// The signs point to it, and something else is possible.
    Likely,
    /// The signs leave nothing else.
    Certain,
}

impl Certainty {
    /// The word used in JSON and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// What the signs of an end come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The cause.
    pub cause: Cause,
    /// What the cause alone does not say: `restart`, `SIGTERM`, `3`, `control group`; empty where it says all.
    #[serde(default)]
    pub detail: String,
    /// How sure it is.
    pub certainty: Certainty,
    /// What it may be, where it is undecided.
    #[serde(default)]
    pub between: Vec<String>,
    /// What it was told by, the most trusted first.
    pub signs: Vec<String>,
    /// What happened, as a clause that follows the name of the process and the time.
    pub clause: String,
}

/// What pm2 did with a process after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Aftermath {
    /// It runs again.
    Restarted {
        /// Whole seconds from the end to the start, as pm2's log tells them.
        seconds: u64,
    },
    /// pm2 waits before it starts it again.
    Waiting,
    /// It stays stopped.
    Stopped {
        /// Why, where pm2 was not asked to stop it.
        by: Option<StayedDown>,
    },
    /// pm2 gave up after too many unstable restarts.
    Errored,
    /// It is no longer on pm2's list.
    Removed,
    /// That was not seen.
    Unknown,
}

/// Why pm2 did not start a process again that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StayedDown {
    /// Its exit code is among `stop_exit_codes`.
    StopExitCodes,
    /// `autorestart` is off.
    AutorestartOff,
}

/// What a process was doing before it ended, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LastSeen {
    /// Resident memory.
    pub resident_memory_bytes: Option<Bytes>,
    /// V8's used heap.
    pub heap_used_bytes: Option<Bytes>,
    /// V8's limit on its heap.
    pub heap_limit_bytes: Option<Bytes>,
    /// The ceiling it would have met first.
    pub limit: Option<Limit>,
    /// Growth of the signal that the verdict rests on.
    pub slope: Option<Slope>,
    /// The verdict's state.
    pub state: Option<crate::LeakState>,
    /// Seconds from its start to its end.
    pub age_seconds: Option<f64>,
    /// The name of the newest evidence of that run.
    pub evidence: Option<String>,
}

/// One end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Death {
    /// Its number, from 1; a later record with the same number replaces it.
    pub id: u64,
    /// When it ended.
    pub at: WallTime,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// pm2's number.
    pub pm_id: u32,
    /// The pid it had, where that was seen.
    pub pid: Option<u32>,
    /// What ended it.
    #[serde(flatten)]
    pub finding: Finding,
    /// What pm2 did then.
    pub then: Aftermath,
    /// How many times in a row it has ended right after its start, this time included; 0 where it had run for longer.
    #[serde(default)]
    pub in_a_row: u32,
    /// What it was doing before.
    pub before: LastSeen,
    /// The first line of what the app itself wrote about its end: cut, and untrusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The whole story in one sentence.
    pub sentence: String,
    /// Where pm2's log tells of it: the file's inode and the byte behind the line. Tells an end that is known from a new one
    /// when the log is read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<(u64, u64)>,
}

/// What pm2 tells of one step in the life of its processes, by a line of its log or on its bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonEvent {
    /// A process ended.
    Exited {
        /// Which.
        process: Named,
        /// Its exit code; 0 after a signal.
        code: i64,
        /// The signal; `SIGINT` where there was none.
        signal: String,
    },
    /// pm2 was asked to end a process, and begins to.
    Ending(Named),
    /// A process holds more than its `max_memory_restart`.
    OverMemory {
        /// pm2's number.
        pm_id: u32,
        /// What it holds.
        measured: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// A watched file of an app changed.
    Changed {
        /// The app's name.
        app: String,
    },
    /// The cron job of a process is taken off, as before each of its restarts.
    CronOff {
        /// pm2's number.
        pm_id: u32,
        /// The daemon's own calendar at that time, as if it were in UTC.
        calendar: Option<WallTime>,
    },
    /// A process that is not a worker is reloaded, which restarts it.
    Reloading {
        /// pm2's number.
        pm_id: u32,
    },
    /// A process did not end in time and is killed.
    Killing {
        /// Its pid.
        pid: u32,
        /// What pm2 had waited.
        after: std::time::Duration,
    },
    /// A process is started.
    Starting(Named),
    /// Output of a process that has ended came too late for its log.
    OutputLost,
    /// The process that ended last ended too often right after its start.
    GaveUp,
    /// V8 ran out of heap in the process with this pid.
    HeapFull {
        /// The pid, as the process itself knows it.
        pid: u32,
    },
    /// An exception in a process that nobody caught.
    Exception {
        /// pm2's number.
        pm_id: u32,
        /// Its text, untrusted.
        message: String,
    },
    /// pm2's command line has asked for this.
    Confirmed {
        /// pm2's number.
        pm_id: u32,
    },
    /// The daemon stops and takes its apps with it.
    Farewell,
    /// A daemon has begun.
    Began,
}

/// A process as pm2 names it in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The app's name, without its namespace.
    pub app: String,
    /// pm2's number.
    pub pm_id: u32,
    /// Whether it is the old worker of a rolling reload, whose number its successor has.
    pub replaced: bool,
}

/// An event with when it was and where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonLine {
    /// When; to the second where a log tells it.
    pub at: WallTime,
    /// The event.
    pub event: DaemonEvent,
    /// The inode of the log and the byte behind the line.
    pub read_at: Option<(u64, u64)>,
}
