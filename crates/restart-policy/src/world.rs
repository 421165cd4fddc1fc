//! What was seen last, and for how long it has been so: the volatile side of the policy.
//!
//! Everything here can be lost without harm; it is seen anew after a restart of the sidecar.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::observation::{DaemonObservation, Now, Observation, ProcessObservation};
use super::settings::RestartSettings;
use model::{AppName, DaemonName, HostSample, Life, ProcessKey, Status, Steady, WallTime};

/// A daemon's list older than this says nothing of the present.
pub(super) const FRESH: Duration = Duration::from_mins(2);

/// What was seen last.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) daemons: BTreeMap<DaemonName, Seen>,
    pub(super) host: HostSample,
    /// The sidecar and the processes it runs under.
    pub(super) own_pids: BTreeSet<u32>,
    lives: BTreeMap<ProcessKey, (Life, Steady)>,
    above: BTreeMap<ProcessKey, Steady>,
}

/// One daemon as it was seen last.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Steady,
    /// When its list began to be read.
    pub(super) asked_at: Steady,
    pub(super) up: bool,
    pub(super) reload_lock: Option<WallTime>,
    /// By `pm_id`; kept from the last time it answered while it does not.
    pub(super) processes: BTreeMap<u32, ProcessObservation>,
}

impl World {
    /// An empty world, seen by the process that is itself and runs under `own_pids`.
    pub(super) fn unseen(own_pids: BTreeSet<u32>) -> Self {
        Self { own_pids, ..Self::default() }
    }

    /// Takes in a collection.
    ///
    /// A whole collection takes its time. While a replacement is watched, newer lists have been seen before it arrives, and
    /// it would bring dead lives back.
    pub(super) fn observe(&mut self, observation: &Observation, settings: &RestartSettings, now: Now) {
        self.host = observation.host;
        for daemon in &observation.daemons {
            if self.daemons.get(&daemon.name).is_none_or(|seen| seen.asked_at <= observation.at) {
                self.observe_daemon(daemon, observation.at, settings, now);
            }
        }
    }

    fn observe_daemon(&mut self, daemon: &DaemonObservation, asked_at: Steady, settings: &RestartSettings, now: Now) {
        if !daemon.up {
            if let Some(seen) = self.daemons.get_mut(&daemon.name) {
                seen.up = false;
                seen.asked_at = asked_at;
            } else {
                let seen = Seen { at: now.steady, asked_at, up: false, reload_lock: None, processes: BTreeMap::new() };
                self.daemons.insert(daemon.name.clone(), seen);
            }
            return;
        }
        let processes: BTreeMap<u32, ProcessObservation> =
            daemon.processes.iter().map(|process| (process.key.pm_id, process.clone())).collect();
        let gone = |key: &ProcessKey| key.daemon == daemon.name && !processes.contains_key(&key.pm_id);
        self.lives.retain(|key, _| !gone(key));
        self.above.retain(|key, _| !gone(key));
        for process in processes.values() {
            self.note_life(process, now);
            self.note_memory(process, settings, now);
        }
        let seen = Seen { at: now.steady, asked_at, up: true, reload_lock: daemon.reload_lock, processes };
        self.daemons.insert(daemon.name.clone(), seen);
    }

    fn note_life(&mut self, process: &ProcessObservation, now: Now) {
        let Some(life) = process.life else { return };
        if self.lives.get(&process.key).is_some_and(|(known, _)| *known == life) {
            return;
        }
        // The wall clock is asked once, at first sight; from then on the steady line counts.
        let age = u64::try_from(now.wall.0.saturating_sub(life.started)).unwrap_or(0);
        let begun = now.steady - Duration::from_millis(age);
        self.lives.insert(process.key.clone(), (life, begun));
        self.above.remove(&process.key);
    }

    fn note_memory(&mut self, process: &ProcessObservation, settings: &RestartSettings, now: Now) {
        let trigger =
            settings.policy_of(&process.key.daemon, &process.app, process.module).and_then(|(_, p)| p.memory.as_ref());
        let above = trigger.is_some_and(|trigger| {
            let over = |value: Option<_>, limit: Option<model::Size>| {
                value.zip(limit).is_some_and(|(value, limit)| value > limit.0)
            };
            over(process.held, trigger.resident_above) || over(process.heap_used, trigger.heap_above)
        });
        if above && process.status == Status::Online {
            self.above.entry(process.key.clone()).or_insert(now.steady);
        } else {
            self.above.remove(&process.key);
        }
    }

    /// The process as it was seen last, whether or not its daemon still answers.
    pub(super) fn process(&self, key: &ProcessKey) -> Option<&ProcessObservation> {
        self.daemons.get(&key.daemon)?.processes.get(&key.pm_id)
    }

    /// The processes of an app as they were seen last.
    pub(super) fn processes_of<'a>(
        &'a self,
        daemon: &DaemonName,
        app: &'a AppName,
    ) -> impl Iterator<Item = &'a ProcessObservation> {
        self.daemons
            .get(daemon)
            .into_iter()
            .flat_map(|seen| seen.processes.values())
            .filter(move |process| process.app == *app)
    }

    /// Whether the app is a module that pm2 itself installed.
    pub(super) fn is_module(&self, daemon: &DaemonName, app: &AppName) -> bool {
        let seen = self.daemons.get(daemon);
        seen.is_some_and(|seen| seen.processes.values().any(|process| process.app == *app && process.module))
    }

    /// The listed apps that a name means, as somebody gave it: several where it has no namespace; with a `pm_id` the app
    /// of that process alone.
    pub(super) fn meant(&self, daemon: &DaemonName, asked: &AppName, pm_id: Option<u32>) -> BTreeSet<AppName> {
        let processes = self.daemons.get(daemon).into_iter().flat_map(|seen| seen.processes.values());
        processes
            .filter(|process| asked.means(&process.app) && pm_id.is_none_or(|pm_id| process.key.pm_id == pm_id))
            .map(|process| process.app.clone())
            .collect()
    }

    /// Every app that is listed, with its daemon.
    pub(super) fn apps(&self) -> std::collections::BTreeSet<(DaemonName, AppName)> {
        let processes = self.daemons.values().flat_map(|seen| seen.processes.values());
        processes.map(|process| (process.key.daemon.clone(), process.app.clone())).collect()
    }

    /// The daemon's list, if it is of the present.
    pub(super) fn fresh(&self, daemon: &DaemonName, now: Steady) -> Option<&Seen> {
        self.daemons.get(daemon).filter(|seen| seen.up && now.since(seen.at) <= FRESH)
    }

    /// How long the process has been in its present life.
    pub(super) fn uptime(&self, process: &ProcessObservation, now: Steady) -> Duration {
        match (self.lives.get(&process.key), process.life) {
            (Some((life, begun)), Some(current)) if *life == current => now.since(*begun),
            _ => Duration::ZERO,
        }
    }

    /// How long its memory has been above the policy's threshold without a break.
    pub(super) fn above_for(&self, key: &ProcessKey, now: Steady) -> Option<Duration> {
        self.above.get(key).map(|since| now.since(*since))
    }
}
