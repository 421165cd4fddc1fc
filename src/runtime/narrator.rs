//! Log lines about what changed: a state is told when it is entered, never again every interval.

use std::collections::{BTreeMap, BTreeSet};

use super::pipeline::Change;
use crate::collect::DaemonSpec;
use crate::model::{CollectorName, DaemonName, DaemonSample, LeakState, ProcessKey, Snapshot};

/// What was told last of each daemon.
#[derive(Debug, Default)]
pub(super) struct Narrator {
    told: BTreeMap<(DaemonName, CollectorName), Option<String>>,
    /// Processes whose metrics stand still.
    frozen: BTreeSet<ProcessKey>,
}

impl Narrator {
    /// Tells what is new in a collection.
    pub(super) fn collection(&mut self, snapshot: &Snapshot, specs: &[DaemonSpec]) {
        let frozen_before = std::mem::take(&mut self.frozen);
        for daemon in &snapshot.daemons {
            for report in &daemon.reports {
                let key = (daemon.name.clone(), report.collector);
                let before = self.told.get(&key);
                if before == Some(&report.failure) {
                    continue;
                }
                let first = before.is_none();
                self.tell(daemon, report.collector, report.failure.as_deref(), first, specs);
                self.told.insert(key, report.failure.clone());
            }
            for process in &daemon.processes {
                let (app, pm_id) = (process.listed.app.to_string(), process.key.pm_id);
                let before = frozen_before.contains(&process.key);
                if process.metrics_frozen {
                    self.frozen.insert(process.key.clone());
                    if !before {
                        let seconds = process.metrics_age_seconds.unwrap_or(0.0);
                        tracing::warn!(
                            daemon = %daemon.name, app, pm_id,
                            "its own metrics have not moved for {seconds:.0} s: the event loop is blocked"
                        );
                    }
                } else if before {
                    tracing::info!(daemon = %daemon.name, app, pm_id, "its event loop moves again");
                }
            }
        }
    }

    #[allow(clippy::unused_self, reason = "reads as one narrator's voice")]
    fn tell(
        &self,
        daemon: &DaemonSample,
        collector: CollectorName,
        failure: Option<&str>,
        first: bool,
        specs: &[DaemonSpec],
    ) {
        let name = daemon.name.as_str();
        let home = specs.iter().find(|spec| spec.name == daemon.name).map(|spec| spec.home.display().to_string());
        let home = home.as_deref().unwrap_or("unknown");
        match (collector, failure) {
            (CollectorName::Pm2, None) => {
                let version = daemon.version.as_deref().unwrap_or("unknown");
                let processes = daemon.processes.len();
                tracing::info!(daemon = name, home, version, processes, "pm2 answers");
            }
            (CollectorName::Pm2, Some(reason)) if first => {
                tracing::warn!(daemon = name, home, reason, "no pm2 daemon answers; it is picked up when it appears");
            }
            (CollectorName::Pm2, Some(reason)) => {
                tracing::warn!(daemon = name, home, reason, "pm2 does not answer");
            }
            (CollectorName::System | CollectorName::Exposed, None) if first => {}
            (CollectorName::System, None) => tracing::info!(daemon = name, "the system can be read again"),
            (CollectorName::System, Some(reason)) => {
                tracing::warn!(daemon = name, reason, "the system cannot be read");
            }
            (CollectorName::Exposed, None) => {
                tracing::info!(daemon = name, "the metrics that apps expose can be read again");
            }
            (CollectorName::Exposed, Some(reason)) => {
                tracing::warn!(daemon = name, reason, "metrics that apps expose cannot be read");
            }
        }
    }

    /// Tells verdicts whose state changed.
    #[allow(clippy::unused_self, reason = "reads as one narrator's voice")]
    pub(super) fn verdicts(&self, changes: &[Change]) {
        for change in changes {
            let (daemon, pm_id, app) = (change.key.daemon.as_str(), change.key.pm_id, change.app.to_string());
            let (state, reason) = (change.state.as_str(), change.reason.as_str());
            let worried = matches!(change.before, Some(LeakState::Suspect | LeakState::Leaking));
            match change.state {
                LeakState::Leaking | LeakState::Suspect => {
                    tracing::warn!(daemon, app, pm_id, state, reason, "verdict");
                }
                LeakState::Stable | LeakState::Learning if worried => {
                    tracing::info!(daemon, app, pm_id, state, reason, "verdict");
                }
                LeakState::Stable | LeakState::Learning => {
                    tracing::debug!(daemon, app, pm_id, state, reason, "verdict");
                }
            }
        }
    }
}
