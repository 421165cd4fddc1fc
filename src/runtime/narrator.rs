//! Log lines about what changed: a state is told when it is entered, never again every interval. What fails for changing
//! reasons, or comes and goes, is told a few times and then only now and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::pipeline::Change;
use crate::collect::DaemonSpec;
use crate::model::{CollectorName, DaemonName, DaemonSample, LeakState, ProcessKey, Snapshot, Steady};

/// How long something that goes on changing is left unsaid, …
const QUIET: Duration = Duration::from_mins(10);
/// … after it was told so often within that time.
const OFTEN: usize = 6;

/// What was told of one collector, and when.
#[derive(Debug, Default)]
struct Told {
    failure: Option<String>,
    at: Vec<Steady>,
}

impl Told {
    /// Whether a change is to be told: a new reason for what fails anyway only once it has been quiet for long.
    fn is_due(&mut self, failure: Option<&String>, now: Steady) -> bool {
        self.at.retain(|at| now < *at || now.since(*at) < QUIET);
        let still_fails = self.failure.is_some() && failure.is_some();
        let due = if still_fails { self.at.is_empty() } else { self.at.len() < OFTEN };
        if due {
            self.at.push(now);
        }
        due
    }
}

/// What was told last of each daemon.
#[derive(Debug, Default)]
pub(super) struct Narrator {
    told: BTreeMap<(DaemonName, CollectorName), Told>,
    /// What is left out of daemons: processes, and metrics of the apps' own.
    left_out: BTreeMap<DaemonName, (bool, bool)>,
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
                let first = !self.told.contains_key(&key);
                let told = self.told.entry(key).or_default();
                if !first && told.failure == report.failure {
                    continue;
                }
                let due = told.is_due(report.failure.as_ref(), snapshot.at);
                told.failure.clone_from(&report.failure);
                if due {
                    self.tell(daemon, report.collector, report.failure.as_deref(), first, specs);
                }
            }
            self.left_out(daemon);
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

    /// Tells once that something of a daemon is left out.
    fn left_out(&mut self, daemon: &DaemonSample) {
        let (processes, metrics) = (daemon.processes_left_out, daemon.app_metrics_left_out);
        let now = (processes > 0, metrics > 0);
        let before = self.left_out.insert(daemon.name.clone(), now).unwrap_or_default();
        if now != before && now != (false, false) {
            tracing::warn!(
                daemon = %daemon.name, processes, metrics,
                "it lists more than one daemon may take: so many processes, and metrics of the apps' own, are left out"
            );
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
            if change.key.is_daemon() {
                let (daemon, state, reason) = (change.key.daemon.as_str(), change.state.as_str(), &change.reason);
                match change.state {
                    LeakState::Leaking | LeakState::Suspect => {
                        tracing::warn!(daemon, state, reason, "verdict on the pm2 daemon itself");
                    }
                    LeakState::Growing | LeakState::Stable | LeakState::Learning => {
                        tracing::debug!(daemon, state, reason, "verdict on the pm2 daemon itself");
                    }
                }
                continue;
            }
            let (daemon, pm_id, app) = (change.key.daemon.as_str(), change.key.pm_id, change.app.to_string());
            let (state, reason) = (change.state.as_str(), change.reason.as_str());
            let worried = matches!(change.before, Some(LeakState::Suspect | LeakState::Leaking));
            match change.state {
                LeakState::Leaking | LeakState::Suspect => {
                    tracing::warn!(daemon, app, pm_id, state, reason, "verdict");
                }
                LeakState::Growing | LeakState::Stable | LeakState::Learning if worried => {
                    tracing::info!(daemon, app, pm_id, state, reason, "verdict");
                }
                LeakState::Growing | LeakState::Stable | LeakState::Learning => {
                    tracing::debug!(daemon, app, pm_id, state, reason, "verdict");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_changing_reasons_is_told_once_and_what_comes_and_goes_a_few_times() {
        let fails = |number: i64| Some(format!("reason {number}"));
        let at = |seconds: i64| Steady(seconds * 1000);
        let tell = |told: &mut Told, failure: Option<String>, now| {
            let due = told.is_due(failure.as_ref(), now);
            told.failure = failure;
            usize::from(due)
        };
        let mut told = Told::default();
        assert_eq!((0..100).map(|turn| tell(&mut told, fails(turn % 2), at(turn))).sum::<usize>(), 1);
        assert_eq!(tell(&mut told, None, at(100)), 1, "its end is told");
        assert_eq!(tell(&mut told, fails(1), at(101)), 1, "and that it fails again");
        let flapping = (102..202).map(|turn| tell(&mut told, fails(turn).filter(|_| turn % 2 == 0), at(turn)));
        assert_eq!(flapping.sum::<usize>(), OFTEN - 3);
        assert_eq!(tell(&mut told, fails(0), at(1000)), 1, "after a while it is told again");
    }
}
