//! What is known of one process at one collection, by source.

use serde::{Deserialize, Serialize};

use crate::{AppName, Bytes, Life, MemoryByKind, ProcessKey};

/// What pm2 says of a process. Unknown words are kept apart from known ones, never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Running.
    Online,
    /// Started, not yet ready.
    Launching,
    /// Told to stop, not yet gone.
    Stopping,
    /// Stopped on purpose; has no pid.
    Stopped,
    /// Gave up after too many unstable restarts; has no pid.
    Errored,
    /// Dead and waiting for its backoff; pm2 still shows the pid of the dead process.
    WaitingRestart,
    /// pm2's `one-launch-status`.
    OneLaunch,
    /// Online by pm2's word, but no such process lives: it never started, or pm2 has not noticed its end.
    NoProcess,
    /// A word this version does not know.
    Unknown,
}

impl Status {
    /// Every status, in the order metrics show them.
    pub const ALL: [Self; 9] = [
        Self::Online,
        Self::Launching,
        Self::Stopping,
        Self::Stopped,
        Self::Errored,
        Self::WaitingRestart,
        Self::OneLaunch,
        Self::NoProcess,
        Self::Unknown,
    ];

    /// Reads pm2's own word.
    pub fn from_pm2(word: &str) -> Self {
        match word {
            "online" => Self::Online,
            "launching" => Self::Launching,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            "errored" => Self::Errored,
            "waiting restart" => Self::WaitingRestart,
            "one-launch-status" => Self::OneLaunch,
            _ => Self::Unknown,
        }
    }

    /// The word used in labels, JSON and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Launching => "launching",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Errored => "errored",
            Self::WaitingRestart => "waiting_restart",
            Self::OneLaunch => "one_launch",
            Self::NoProcess => "no_process",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a pid shown with this status belongs to a live process of the app.
    pub fn has_live_pid(self) -> bool {
        matches!(self, Self::Online | Self::Launching | Self::Stopping)
    }
}

/// One entry of pm2's list after the allow-list: nothing else of pm2's environment gets past the parser.
#[allow(clippy::struct_excessive_bools, reason = "each is a field of pm2's")]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// pm2's number.
    pub pm_id: u32,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The pid pm2 shows, where it is not zero; of a dead process under [`Status::WaitingRestart`].
    pub pid: Option<u32>,
    /// pm2's status.
    pub status: Status,
    /// Wall-clock milliseconds of the last start.
    pub pm_uptime: Option<i64>,
    /// Wall-clock milliseconds of the last start that somebody asked for: pm2 keeps it where it starts what has ended by
    /// itself.
    pub created_at: Option<i64>,
    /// Times pm2 has restarted it since it was added or `pm2 reset`.
    pub restarts: Option<u64>,
    /// Restarts that came before `min_uptime`.
    pub unstable_restarts: Option<u64>,
    /// Whether it is a module that pm2 itself installed, such as pm2-logrotate.
    pub module: bool,
    /// `fork` or `cluster`; `unknown` where the field holds neither.
    pub exec_mode: &'static str,
    /// The app's version from its `package.json`, where pm2 found one.
    pub version: Option<String>,
    /// The git revision pm2 found in the app's folder.
    pub revision: Option<String>,
    /// Node's version as pm2 recorded it.
    pub node_version: Option<String>,
    /// File name of the interpreter (`node`, `python3`), without its folder.
    pub interpreter: Option<String>,
    /// Whether pm2's agent (`pmx`) is loaded into the app; absent reads as true, pm2's default.
    pub pmx: bool,
    /// The instance number among an app's workers.
    pub instance: Option<u32>,
    /// pm2's own memory limit.
    pub max_memory_restart: Option<Bytes>,
    /// `--max-old-space-size` from the node arguments.
    pub max_old_space: Option<Bytes>,
    /// Milliseconds pm2 waits between SIGINT and SIGKILL.
    pub kill_timeout_ms: Option<u64>,
    /// Milliseconds pm2 waits for a new worker to listen.
    pub listen_timeout_ms: Option<u64>,
    /// Milliseconds of uptime after which pm2 calls a start stable.
    pub min_uptime_ms: Option<u64>,
    /// Whether the app says itself when it is ready.
    pub wait_ready: bool,
    /// Whether pm2 starts it again whenever it ends by itself, with whatever exit code.
    pub autorestart: bool,
    /// What pm2 knows of its ends; for leakslope's own use.
    #[serde(skip)]
    pub ending: Ending,
    /// `monit.memory`: resident memory as pm2 sampled it; used only where the system cannot tell.
    pub monit_memory: Option<Bytes>,
    /// `monit.cpu` in percent of one core.
    pub monit_cpu_percent: Option<f64>,
    /// What the app reports through pm2's metric channel.
    pub metrics: AppMetrics,
}

/// What pm2 knows of the ends of a process: how the last one went, and what the next will lead to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// The exit code of the last end; absent before the first.
    pub exit_code: Option<i64>,
    /// The exit codes after which pm2 does not start it again.
    pub stop_exit_codes: Vec<i64>,
    /// Whether pm2 does not start it again whatever the code, because `autorestart` is off.
    pub stays_down: bool,
    /// Its `cron_restart`.
    pub cron_restart: Option<String>,
    /// Where its error output goes.
    pub error_log: Option<String>,
}

impl Listed {
    /// The life this entry describes: none without a live pid or without a start.
    pub fn life(&self) -> Option<Life> {
        if !self.status.has_live_pid() {
            return None;
        }
        Some(Life { pid: self.pid?, started: self.pm_uptime? })
    }
}

/// Metrics an app reports through pm2's channel (`axm_monitor`), each in its base unit and each absent on its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct AppMetrics {
    /// V8's used heap.
    pub heap_used: Option<Bytes>,
    /// V8's committed heap.
    pub heap_total: Option<Bytes>,
    /// Median event-loop latency in seconds.
    pub event_loop_p50_seconds: Option<f64>,
    /// 95th percentile of event-loop latency in seconds.
    pub event_loop_p95_seconds: Option<f64>,
    /// libuv's active handles.
    pub active_handles: Option<f64>,
    /// libuv's active requests.
    pub active_requests: Option<f64>,
    /// HTTP requests per second.
    pub http_requests_per_second: Option<f64>,
    /// Median HTTP latency in seconds: what pm2 shows as "HTTP Mean Latency" is its median.
    pub http_p50_seconds: Option<f64>,
    /// 95th percentile of HTTP latency in seconds.
    pub http_p95_seconds: Option<f64>,
    /// What leakslope's own preload reports from inside the app, where it is loaded.
    pub gc: Option<GcReport>,
    /// Everything else the app publishes that is a number.
    pub custom: Vec<CustomMetric>,
}

/// What the preload `leakslope-gc.cjs` reports: exact figures from inside V8.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct GcReport {
    /// Heap used right after the latest major collection; absent before the first.
    pub heap_after_major_gc: Option<Bytes>,
    /// Major collections since the start.
    pub major_gcs: u64,
    /// Minor collections since the start.
    pub minor_gcs: u64,
    /// Seconds spent in garbage collection since the start.
    pub gc_seconds: f64,
    /// V8's heap size limit.
    pub heap_size_limit: Option<Bytes>,
    /// Used size of the new space.
    pub new_space: Option<Bytes>,
    /// Used size of the old space.
    pub old_space: Option<Bytes>,
    /// Used size of the large-object space.
    pub large_object_space: Option<Bytes>,
    /// Memory of array buffers and other external objects.
    pub external: Option<Bytes>,
    /// What of V8's committed heap is resident.
    pub heap_physical: Option<Bytes>,
    /// Memory of global handles: what keeps objects with native memory of their own.
    pub global_handles: Option<Bytes>,
}

/// One metric of the app's own, as pm2 lists it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CustomMetric {
    /// Name as shown by pm2, cleaned of control characters and bounded in length.
    pub name: String,
    /// The number; units inside a string value are split off into `unit`.
    pub value: f64,
    /// The unit as the app wrote it, empty where it gave none.
    pub unit: String,
}

/// Where a resident-memory figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// The operating system, at the collection's instant.
    System,
    /// pm2's `monit`, because the pid cannot be seen from here (another pid namespace).
    Pm2,
}

/// What the operating system says of one pid (and of the tree below it) at the collection's instant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SystemSample {
    /// Resident memory of the process.
    pub resident: Bytes,
    /// The part of it that is anonymous (heap, stacks), where the system tells.
    pub anonymous: Option<Bytes>,
    /// Memory pushed out to swap, where the system tells.
    pub swapped: Option<Bytes>,
    /// CPU time used since the start, in milliseconds.
    pub cpu_milliseconds: u64,
    /// Start in clock ticks after boot: with the pid, the system's own name for a life.
    pub start_ticks: u64,
    /// Start in wall-clock milliseconds, as reckoned from the boot time.
    pub started_at_ms: i64,
    /// Open file descriptors, where we may look.
    pub open_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Resident memory of the process and all its descendants.
    pub tree_resident: Bytes,
    /// Swapped memory of the process and all its descendants.
    pub tree_swapped: Bytes,
    /// Processes in the tree, the process itself included.
    pub tree_processes: u32,
    /// Resident memory by kind, as it was read last: about once a minute.
    pub memory: Option<MemoryByKind>,
    /// Why it is not known by kind, as a clause; none where it is, or is about to be.
    pub memory_unknown: Option<&'static str>,
    /// Memory the whole tree holds outside of the process's V8; only where it was read with this very sample.
    pub outside_v8: Option<Bytes>,
}

impl SystemSample {
    /// Resident memory of all its descendants.
    pub fn children_resident(&self) -> Bytes {
        self.tree_resident.saturating_sub(self.resident)
    }
}

/// The memory ceilings that apply to one process, each where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MemoryLimits {
    /// pm2's `max_memory_restart`.
    pub max_memory_restart: Option<Bytes>,
    /// The nearest cgroup limit above the process.
    pub cgroup: Option<Bytes>,
    /// V8's limit on its heap: reported by the preload, else from `--max-old-space-size`.
    pub heap: Option<Bytes>,
    /// Set by the user for this app.
    pub configured: Option<Bytes>,
}

/// Everything known of one process at one collection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessSample {
    /// Which process.
    pub key: ProcessKey,
    /// pm2's entry.
    pub listed: Listed,
    /// The life it is in; none while it is not running.
    pub life: Option<Life>,
    /// The operating system's figures; none where the pid is dead, reused or out of sight.
    pub system: Option<SystemSample>,
    /// Resident memory by the best source there is.
    pub resident: Option<Bytes>,
    /// Where `resident` comes from.
    pub resident_source: Option<MemorySource>,
    /// The limits that apply.
    pub limits: MemoryLimits,
    /// Seconds for which the app's own metrics have not moved; none where there are none.
    pub metrics_age_seconds: Option<f64>,
    /// Whether they have stood still for so long that the event loop must be blocked.
    pub metrics_frozen: bool,
}

impl ProcessSample {
    /// Memory the app holds: resident and swapped memory of its whole process tree, else pm2's own figure.
    pub fn held(&self) -> Option<Bytes> {
        match &self.system {
            Some(system) => Some(system.tree_resident.saturating_add(system.tree_swapped)),
            None => self.resident,
        }
    }
}
