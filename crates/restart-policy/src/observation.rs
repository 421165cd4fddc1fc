//! What the policy needs to know of the world at one collection, taken out of the shared snapshot.
//!
//! Plain data. It refuses to interpret: whether a process is healthy is decided by the gates.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::{
    AppName, Bytes, DaemonName, HostSample, LeakState, Life, ProcessKey, ProcessSample, Slope, Snapshot, Status,
    Steady, Verdict, WallTime,
};

/// The same instant on both time lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// On the steady line: for cooldowns, budgets and deadlines.
    pub steady: Steady,
    /// By the wall clock: for windows, schedules and records.
    pub wall: WallTime,
}

impl Now {
    /// Returns the instant a span later, as far as both lines go on alike.
    #[must_use]
    pub fn later(self, span: Duration) -> Self {
        let milliseconds = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self { steady: self.steady + span, wall: WallTime(self.wall.0.saturating_add(milliseconds)) }
    }

    /// The wall clock as the calendar counts; the nearest end of the calendar where it does not reach.
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.wall.0).unwrap_or(if self.wall.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

/// What the verdict says, as far as restarts go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictView {
    /// How sure it is.
    pub state: LeakState,
    /// When the state was entered.
    pub since: Steady,
    /// When it was evaluated.
    pub at: Steady,
    /// Slope of the signal it rests on.
    pub slope: Option<Slope>,
    /// Time from `at` until the nearest limit.
    pub projected_exhaustion: Option<Duration>,
}

impl VerdictView {
    /// The best estimate of growth in bytes per second; zero when unknown.
    pub fn bytes_per_second(&self) -> f64 {
        self.slope.map_or(0.0, |slope| slope.bytes_per_second)
    }

    /// Time left from `now` until exhaustion.
    pub fn time_left(&self, now: Steady) -> Option<Duration> {
        self.projected_exhaustion.map(|span| span.saturating_sub(now.since(self.at)))
    }
}

impl From<&Verdict> for VerdictView {
    fn from(verdict: &Verdict) -> Self {
        Self {
            state: verdict.state,
            since: verdict.since,
            at: verdict.at,
            slope: verdict.slopes.get(&verdict.signal).copied(),
            projected_exhaustion: verdict.projected_exhaustion,
        }
    }
}

/// One process as the policy sees it.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessObservation {
    /// Which process.
    pub key: ProcessKey,
    /// The app it belongs to.
    #[serde(flatten)]
    pub app: AppName,
    /// Whether it is a module that pm2 itself installed.
    pub module: bool,
    /// pm2's status.
    pub status: Status,
    /// The life it is in, none while it has no live pid.
    pub life: Option<Life>,
    /// When its start was last asked for, by pm2's clock: it stays where pm2 starts what has ended by itself.
    pub created_at: Option<i64>,
    /// Whether it is a cluster worker, which pm2 can replace without dropping connections.
    pub cluster: bool,
    /// pm2's restart count.
    pub restarts: Option<u64>,
    /// pm2's count of restarts before `min_uptime`.
    pub unstable_restarts: Option<u64>,
    /// Memory it holds.
    pub held: Option<Bytes>,
    /// V8's used heap, where it can be read.
    pub heap_used: Option<Bytes>,
    /// Whether its metrics have stood still for so long that its event loop must be blocked.
    pub frozen: bool,
    /// pm2's `min_uptime`.
    pub min_uptime: Duration,
    /// pm2's `listen_timeout`.
    pub listen_timeout: Duration,
    /// pm2's `kill_timeout`.
    pub kill_timeout: Duration,
    /// Whether the app says itself when it is ready.
    pub wait_ready: bool,
    /// Whether pm2 starts it again when it ends by itself, however it ends.
    pub autorestart: bool,
    /// What the trend says of this life.
    pub verdict: Option<VerdictView>,
}

impl ProcessObservation {
    /// Takes out of a sample what the policy needs; pm2's own defaults stand in for time-outs the app does not set.
    pub fn from_sample(sample: &ProcessSample, verdict: Option<&Verdict>) -> Self {
        let listed = &sample.listed;
        let milliseconds = |value: Option<u64>, default| Duration::from_millis(value.unwrap_or(default).min(3_600_000));
        Self {
            key: sample.key.clone(),
            app: listed.app.clone(),
            module: listed.module,
            status: listed.status,
            life: sample.life,
            created_at: listed.created_at,
            cluster: listed.exec_mode == "cluster",
            restarts: listed.restarts,
            unstable_restarts: listed.unstable_restarts,
            held: sample.held(),
            heap_used: listed.metrics.heap_used,
            frozen: sample.metrics_frozen,
            min_uptime: milliseconds(listed.min_uptime_ms, 1000),
            listen_timeout: milliseconds(listed.listen_timeout_ms, 3000),
            kill_timeout: milliseconds(listed.kill_timeout_ms, 1600),
            wait_ready: listed.wait_ready,
            autorestart: listed.autorestart,
            verdict: verdict.map(VerdictView::from),
        }
    }
}

/// One daemon as the policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DaemonObservation {
    /// Its name.
    pub name: DaemonName,
    /// Whether it answered; its processes say nothing when it did not.
    pub up: bool,
    /// When pm2's reload lock was taken, by the wall clock; none when it is free.
    pub reload_lock: Option<WallTime>,
    /// Its processes.
    pub processes: Vec<ProcessObservation>,
}

/// Everything the policy sees at one collection. A daemon that is left out was not looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// When the lists began to be read.
    pub at: Steady,
    /// The daemons.
    pub daemons: Vec<DaemonObservation>,
    /// The machine's memory.
    pub host: HostSample,
}

impl Observation {
    /// Takes out of a snapshot what the policy needs; `reload_locks` holds when each daemon's lock was taken.
    pub fn from_snapshot(
        snapshot: &Snapshot,
        verdicts: &BTreeMap<ProcessKey, Verdict>,
        reload_locks: &BTreeMap<DaemonName, WallTime>,
    ) -> Self {
        let daemons = snapshot.daemons.iter().map(|daemon| DaemonObservation {
            name: daemon.name.clone(),
            up: daemon.up,
            reload_lock: reload_locks.get(&daemon.name).copied(),
            processes: daemon
                .processes
                .iter()
                .map(|sample| ProcessObservation::from_sample(sample, verdicts.get(&sample.key)))
                .collect(),
        });
        Self { at: snapshot.at, daemons: daemons.collect(), host: snapshot.host }
    }
}
