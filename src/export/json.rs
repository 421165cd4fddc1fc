//! The snapshot and its verdicts as the JSON of `/api/v1/processes`: field names with units, absent values as null.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Collected;
use super::timeline::SparklineView;
use crate::model::{
    AppName, Bytes, DaemonSample, LifeSummary, MemoryCause, MemoryKind, ProcessKey, ProcessSample, Slope, Steady,
    SystemSample, Verdict, WallTime,
};

/// The body of `/api/v1/processes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessesView {
    /// The sidecar's version.
    pub version: String,
    /// Time of the collection in seconds since the Unix epoch.
    pub collected_at: f64,
    /// Seconds between two collections, once the sidecar told.
    pub interval_seconds: Option<f64>,
    /// Seconds for which a life has to be watched before its first verdict, once the sidecar told.
    #[serde(default)]
    pub first_verdict_after_seconds: Option<f64>,
    /// The machine.
    pub host: HostView,
    /// Every daemon watched.
    pub daemons: Vec<DaemonView>,
    /// Every process, by daemon and `pm_id`.
    pub processes: Vec<ProcessView>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// All memory.
    pub memory_total_bytes: u64,
    /// What new work could get.
    pub memory_available_bytes: u64,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Its configured name.
    pub name: String,
    /// Whether it answered.
    pub up: bool,
    /// Its version.
    pub version: Option<String>,
    /// Its own resident memory.
    pub resident_memory_bytes: Option<u64>,
    /// The verdict on the daemon itself, once there is one.
    #[serde(default)]
    pub verdict: Option<VerdictView>,
    /// Why its collection failed, where it did.
    pub failure: Option<String>,
    /// When it last answered, in seconds since the Unix epoch.
    pub last_success_at: Option<f64>,
    /// Processes beyond the configured bound.
    pub processes_left_out: usize,
    /// Metrics of the apps' own beyond what one daemon may take.
    #[serde(default)]
    pub app_metrics_left_out: usize,
    /// What earlier runs of its apps left behind; null where it could not be looked for.
    #[serde(default)]
    pub orphans: Option<Vec<OrphansView>>,
}

/// What earlier runs of one app left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphansView {
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// How many processes.
    pub processes: usize,
    /// Their resident memory.
    pub resident_memory_bytes: u64,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its daemon.
    pub daemon: String,
    /// Its app.
    pub app: String,
    /// pm2's number.
    pub pm_id: u32,
    /// The system's process id while it lives.
    pub pid: Option<u32>,
    /// pm2's status.
    pub status: String,
    /// `fork`, `cluster` or `unknown`.
    pub exec_mode: String,
    /// pm2's namespace: with the name it tells apps of one daemon apart.
    pub namespace: String,
    /// Whether it is a module that pm2 itself installed.
    #[serde(default)]
    pub module: bool,
    /// The app's version.
    pub version: Option<String>,
    /// The git revision.
    pub revision: Option<String>,
    /// Node's version.
    pub node_version: Option<String>,
    /// Start in seconds since the Unix epoch.
    pub started_at: Option<f64>,
    /// Seconds since the start.
    pub uptime_seconds: Option<f64>,
    /// pm2's restart count.
    pub restarts: Option<u64>,
    /// Restarts before `min_uptime`.
    pub unstable_restarts: Option<u64>,
    /// Resident memory.
    pub resident_memory_bytes: Option<u64>,
    /// Resident memory of the process tree.
    pub tree_resident_memory_bytes: Option<u64>,
    /// Swapped memory of the process.
    pub swapped_memory_bytes: Option<u64>,
    /// Resident memory by what holds it, and that of the descendants; null where it is not known.
    #[serde(default)]
    pub memory_by_kind_bytes: Option<BTreeMap<String, u64>>,
    /// Why it is not known by kind, where that is for good.
    #[serde(default)]
    pub memory_by_kind_unknown: Option<String>,
    /// Worker threads.
    #[serde(default)]
    pub worker_threads: Option<u32>,
    /// What growth of its memory comes from, once enough is known of the run.
    #[serde(default)]
    pub memory_cause: Option<MemoryCauseView>,
    /// V8 heap in use.
    pub heap_used_bytes: Option<u64>,
    /// V8 heap committed.
    pub heap_total_bytes: Option<u64>,
    /// CPU time since the start.
    pub cpu_seconds: Option<f64>,
    /// Median event-loop latency.
    pub event_loop_latency_p50_seconds: Option<f64>,
    /// 95th percentile of event-loop latency.
    pub event_loop_latency_p95_seconds: Option<f64>,
    /// Seconds since the app's own values last moved.
    pub metrics_age_seconds: Option<f64>,
    /// Whether they stand still: the event loop is blocked.
    pub metrics_frozen: bool,
    /// Memory ceilings by where they come from.
    pub limits: BTreeMap<String, u64>,
    /// The verdict, once there is one.
    pub verdict: Option<VerdictView>,
    /// Resident memory over the verdict's window, once there are minutes.
    pub sparkline: Option<SparklineView>,
    /// What the restart policy is about to do with it; null when nothing.
    pub plan: Option<PlanView>,
}

/// What growth of a process's memory comes from, as far as that can be seen from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryCauseView {
    /// A word for it; `none` where nothing grows, `undecided` where the figures do not decide it.
    pub cause: String,
    /// Whether such growth does no harm.
    pub harmless: bool,
    /// Growth of the kind of memory that grows the most.
    pub grown_bytes: u64,
    /// Over how long.
    pub over_seconds: f64,
    /// What is seen.
    pub sentence: String,
    /// What to do next; empty where nothing is to be done.
    pub advice: String,
}

impl From<MemoryCause> for MemoryCauseView {
    fn from(cause: MemoryCause) -> Self {
        Self {
            cause: cause.cause.to_owned(),
            harmless: cause.harmless,
            grown_bytes: cause.grown.0,
            over_seconds: cause.over.as_secs_f64(),
            sentence: cause.sentence,
            advice: cause.advice.to_owned(),
        }
    }
}

/// What the restart policy is about to do with a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// `hold`, `reload`, `restart`, `would_reload` or `would_restart`.
    pub decision: String,
    /// The decision's reason as a sentence.
    pub sentence: String,
    /// When it may be carried out, in seconds since the Unix epoch, where that is known.
    pub at: Option<f64>,
}

/// The verdict on one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictView {
    /// `learning`, `stable`, `growing`, `suspect` or `leaking`.
    pub state: String,
    /// When the state was entered, in seconds since the Unix epoch.
    pub since: f64,
    /// The verdict as a sentence.
    pub reason: String,
    /// The signal it rests on.
    pub signal: String,
    /// What its heap figures come from.
    pub basis: String,
    /// The span of the fit.
    pub window_seconds: f64,
    /// Slopes by signal.
    pub slopes: BTreeMap<String, Slope>,
    /// Memory that garbage collection cannot free.
    pub floor_bytes: Option<u64>,
    /// The nearest limit's name.
    pub limit: Option<String>,
    /// The nearest limit.
    pub limit_bytes: Option<u64>,
    /// Seconds until that limit at the present pace; null when not growing.
    pub projected_exhaustion_seconds: Option<f64>,
    /// While learning: growth so far, too early to rest a state on.
    #[serde(default)]
    pub provisional: Option<ProvisionalView>,
    /// While learning: when the first verdict comes, in seconds since the Unix epoch.
    #[serde(default)]
    pub first_verdict_at: Option<f64>,
    /// The test that last spoke against a leak.
    pub rejected_by: Option<String>,
}

/// The body of `/api/v1/lives`: the lives of one app, for those who compare them on their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LivesView {
    /// Now, on the sidecar's steady line, as the lives' own times are.
    pub now: Steady,
    /// Length of a minute of the history, in milliseconds.
    pub minute_ms: u64,
    /// The lives, without their floors.
    pub lives: Vec<LifeSummary>,
}

impl LivesView {
    /// Builds the view. JSON has no word for "not measured", so such a figure is zero in it.
    pub fn new(lives: Vec<LifeSummary>, now: Steady, minute: Duration) -> Self {
        let bare = |life: LifeSummary| LifeSummary {
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: if life.resident_max.is_nan() { 0.0 } else { life.resident_max },
            ..life
        };
        Self {
            now,
            minute_ms: u64::try_from(minute.as_millis()).unwrap_or(60_000),
            lives: lives.into_iter().map(bare).collect(),
        }
    }
}

impl ProcessesView {
    /// Builds the view of one collection.
    pub fn new(collected: &Collected<'_>) -> Self {
        let snapshot = collected.snapshot;
        let offset = snapshot.wall.0 - snapshot.at.0;
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            collected_at: snapshot.wall.as_seconds(),
            interval_seconds: None,
            first_verdict_after_seconds: None,
            host: HostView {
                memory_total_bytes: snapshot.host.memory_total.0,
                memory_available_bytes: snapshot.host.memory_available.0,
            },
            daemons: snapshot
                .daemons
                .iter()
                .map(|daemon| {
                    let key = ProcessKey::of_daemon(&daemon.name);
                    let verdict = collected.verdicts.get(&key).filter(|_| daemon.up);
                    daemon_view(daemon, verdict.map(|verdict| verdict_view(verdict, offset)))
                })
                .collect(),
            processes: snapshot
                .processes()
                .map(|process| {
                    let verdict = collected.verdicts.get(&process.key);
                    process_view(process, verdict, snapshot.wall, offset)
                })
                .collect(),
        }
    }
}

fn daemon_view(daemon: &DaemonSample, verdict: Option<VerdictView>) -> DaemonView {
    DaemonView {
        name: daemon.name.to_string(),
        up: daemon.up,
        version: daemon.version.clone(),
        resident_memory_bytes: daemon.resident.map(|bytes| bytes.0),
        verdict,
        failure: daemon.reports.iter().find_map(|report| report.failure.clone()),
        last_success_at: daemon.last_success.map(WallTime::as_seconds),
        processes_left_out: daemon.processes_left_out,
        app_metrics_left_out: daemon.app_metrics_left_out,
        orphans: daemon.orphans_by_app().map(|by_app| {
            let left = by_app.into_iter().filter(|(_, (processes, _))| *processes > 0);
            let view = |(app, (processes, resident)): (AppName, (usize, Bytes))| OrphansView {
                namespace: app.namespace().to_owned(),
                app: app.name().to_owned(),
                processes,
                resident_memory_bytes: resident.0,
            };
            left.map(view).collect()
        }),
    }
}

fn process_view(process: &ProcessSample, verdict: Option<&Verdict>, wall: WallTime, offset: i64) -> ProcessView {
    let (listed, metrics) = (&process.listed, &process.listed.metrics);
    let bytes = |value: Option<Bytes>| value.map(|bytes| bytes.0);
    let system = process.system.as_ref();
    let started = process.life.map(|life| WallTime(system.map_or(life.started, |system| system.started_at_ms)));
    let limits = [
        ("max_memory_restart", process.limits.max_memory_restart),
        ("cgroup", process.limits.cgroup),
        ("heap", process.limits.heap),
        ("configured", process.limits.configured),
    ];
    ProcessView {
        daemon: process.key.daemon.to_string(),
        app: listed.app.name().to_owned(),
        pm_id: process.key.pm_id,
        pid: process.life.map(|life| life.pid),
        status: listed.status.as_str().to_owned(),
        exec_mode: listed.exec_mode.to_owned(),
        namespace: listed.app.namespace().to_owned(),
        module: listed.module,
        version: listed.version.clone(),
        revision: listed.revision.clone(),
        node_version: listed.node_version.clone(),
        started_at: started.map(WallTime::as_seconds),
        uptime_seconds: started.map(|at| (wall.as_seconds() - at.as_seconds()).max(0.0)),
        restarts: listed.restarts,
        unstable_restarts: listed.unstable_restarts,
        resident_memory_bytes: bytes(process.resident),
        tree_resident_memory_bytes: system.map(|system| system.tree_resident.0),
        swapped_memory_bytes: system.and_then(|system| bytes(system.swapped)),
        memory_by_kind_bytes: system.and_then(memory_by_kind),
        memory_by_kind_unknown: system.and_then(|system| system.memory_unknown).map(str::to_owned),
        worker_threads: system.and_then(|system| system.memory).map(|memory| memory.workers),
        memory_cause: None,
        heap_used_bytes: bytes(metrics.heap_used),
        heap_total_bytes: bytes(metrics.heap_total),
        cpu_seconds: system.map(|system| super::process::whole(system.cpu_milliseconds) / 1000.0),
        event_loop_latency_p50_seconds: metrics.event_loop_p50_seconds,
        event_loop_latency_p95_seconds: metrics.event_loop_p95_seconds,
        metrics_age_seconds: process.metrics_age_seconds,
        metrics_frozen: process.metrics_frozen,
        limits: limits.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.0))).collect(),
        verdict: verdict.map(|verdict| verdict_view(verdict, offset)),
        sparkline: None,
        plan: None,
    }
}

fn memory_by_kind(system: &SystemSample) -> Option<BTreeMap<String, u64>> {
    let memory = system.memory?;
    let own = MemoryKind::ALL.into_iter().map(|kind| (kind.as_str(), memory.of(kind)));
    let all = own.chain([(super::process::CHILDREN, system.children_resident())]);
    Some(all.map(|(kind, bytes)| (kind.to_owned(), bytes.0)).collect())
}

/// Growth of a run that is too young for a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvisionalView {
    /// The signal that was fitted.
    pub signal: String,
    /// Its slope so far.
    pub slope: Slope,
    /// The span it is fitted over.
    pub window_seconds: f64,
    /// Time until the nearest limit at this pace; null where the interval holds zero or without a limit.
    pub exhaustion_seconds: Option<f64>,
}

fn verdict_view(verdict: &Verdict, offset: i64) -> VerdictView {
    let wall = |at: Steady| WallTime(at.0.saturating_add(offset)).as_seconds();
    VerdictView {
        state: verdict.state.as_str().to_owned(),
        since: wall(verdict.since),
        reason: verdict.reason.clone(),
        signal: verdict.signal.as_str().to_owned(),
        basis: verdict.basis.as_str().to_owned(),
        window_seconds: verdict.window.as_secs_f64(),
        slopes: verdict.slopes.iter().map(|(signal, slope)| (signal.as_str().to_owned(), *slope)).collect(),
        floor_bytes: verdict.floor.map(|bytes| bytes.0),
        limit: verdict.limit.map(|limit| limit.kind.as_str().to_owned()),
        limit_bytes: verdict.limit.map(|limit| limit.bytes.0),
        projected_exhaustion_seconds: verdict.projected_exhaustion.map(|span| span.as_secs_f64()),
        provisional: verdict.provisional.map(|so_far| ProvisionalView {
            signal: so_far.signal.as_str().to_owned(),
            slope: so_far.slope,
            window_seconds: so_far.window.as_secs_f64(),
            exhaustion_seconds: so_far.exhaustion.map(|span| span.as_secs_f64()),
        }),
        first_verdict_at: verdict.first_verdict_at.map(wall),
        rejected_by: verdict.rejection.map(|rejection| format!("{}/{}", rejection.signal.as_str(), rejection.test)),
    }
}
