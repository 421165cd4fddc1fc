//! One collection, whole and immutable: what every reader (metrics, API, page, trend) looks at.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::{AppName, Bytes, DaemonName, HostSample, Life, ProcessSample, Steady, WallTime};

/// The names of collectors in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectorName {
    /// pm2's process list, by socket or command.
    Pm2,
    /// The operating system.
    System,
    /// The metrics that apps expose by HTTP; reports only of daemons with such apps.
    #[serde(rename = "app_metrics")]
    Exposed,
}

impl CollectorName {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pm2 => "pm2",
            Self::System => "system",
            Self::Exposed => "app_metrics",
        }
    }
}

/// How one collector fared in one collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CollectorReport {
    /// Which one.
    pub collector: CollectorName,
    /// Time it took.
    pub duration: Duration,
    /// Why it failed, in plain words; none when it succeeded.
    pub failure: Option<String>,
}

/// What one collection saw of one daemon. After a failed collection the processes are empty, not stale.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DaemonSample {
    /// The daemon's name.
    pub name: DaemonName,
    /// Whether it answered.
    pub up: bool,
    /// Its version, where it told.
    pub version: Option<String>,
    /// Its pid, where the socket told.
    pub pid: Option<u32>,
    /// Its own life, with its start in the system's clock ticks, where the system told.
    pub life: Option<Life>,
    /// Its own resident memory.
    pub resident: Option<Bytes>,
    /// Its processes, by `pm_id`.
    pub processes: Vec<ProcessSample>,
    /// Entries of the list that are not among `processes`: beyond the configured bound, unreadable, or repeating a `pm_id`.
    pub processes_left_out: usize,
    /// Processes that earlier runs of its apps left behind, where they could be looked for.
    pub orphans: Option<Vec<Orphan>>,
    /// Metrics of the apps' own that are not among those of `processes`: beyond what one daemon may show.
    pub app_metrics_left_out: usize,
    /// How each collector fared.
    pub reports: Vec<CollectorReport>,
    /// When it last answered, if ever.
    pub last_success: Option<WallTime>,
}

/// A process that an earlier run of an app left behind: it carries the app's environment, and pm2 no longer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its pid.
    pub pid: u32,
    /// pm2's number of the process that started it.
    pub pm_id: u32,
    /// Its own resident memory.
    pub resident: Bytes,
}

impl DaemonSample {
    /// How many processes each listed app has left behind and what they hold, zero included; those of a number that is
    /// listed no more go by the app `unknown`. None where they could not be looked for.
    pub fn orphans_by_app(&self) -> Option<BTreeMap<AppName, (usize, Bytes)>> {
        let orphans = self.orphans.as_ref()?;
        let mut by_app: BTreeMap<AppName, (usize, Bytes)> =
            self.processes.iter().map(|process| (process.listed.app.clone(), Default::default())).collect();
        for orphan in orphans {
            let process = self.processes.iter().find(|process| process.key.pm_id == orphan.pm_id);
            let app = process.map_or_else(|| AppName::from("unknown"), |process| process.listed.app.clone());
            let (count, resident) = by_app.entry(app).or_default();
            *count += 1;
            *resident = resident.saturating_add(orphan.resident);
        }
        Some(by_app)
    }
}

/// One collection of everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The instant on the steady line.
    pub at: Steady,
    /// The same instant by the wall clock.
    pub wall: WallTime,
    /// The daemons, by name.
    pub daemons: Vec<DaemonSample>,
    /// The machine.
    pub host: HostSample,
}

impl Snapshot {
    /// Iterates over the processes of all daemons, by daemon and `pm_id`.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessSample> {
        self.daemons.iter().flat_map(|daemon| &daemon.processes)
    }
}
