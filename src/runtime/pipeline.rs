//! From a collection to verdicts: history takes in every process, and each is judged when its turn has come.
//!
//! No clock and no IO: the collecting task calls it and carries away what is to be stored, logged and shown.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::export::VersionSlope;
use crate::history::{About, Composition, ProcessHistory, Retention, Sample};
use crate::model::{
    AppName, DaemonName, DaemonSample, LeakState, Life, LifeEnd, LifeSummary, MemoryLimits, Minute, ProcessKey,
    ProcessSample, Snapshot, Steady, Verdict,
};
use crate::trend::compare::versions;
use crate::trend::{self, Detector, Limits};

/// Siblings shown to the detector at most: a fleet of workers needs no more to be compared with.
const SIBLINGS: usize = 8;

/// The name under which the history keeps the daemons themselves.
const DAEMON_APP: &str = "pm2";

/// The processes of each app of each daemon, by `pm_id`.
type Families = BTreeMap<(DaemonName, AppName), Vec<u32>>;

/// Everything remembered and thought of all processes.
#[derive(Debug)]
pub struct Pipeline {
    retention: Retention,
    settings: trend::Settings,
    watched: BTreeMap<ProcessKey, Watched>,
}

#[derive(Debug)]
struct Watched {
    history: ProcessHistory,
    composition: Composition,
    detector: Detector,
    verdict: Option<Verdict>,
    slot: Option<i64>,
}

/// What a collection led to, apart from the verdicts themselves.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Minutes that are over, to be stored.
    pub minutes: Vec<(ProcessKey, Life, Minute)>,
    /// Lives that ended.
    pub ended: Vec<LifeSummary>,
    /// Verdicts whose state changed.
    pub changes: Vec<Change>,
    /// Whether a life began.
    pub begun: bool,
}

/// A verdict whose state changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The process.
    pub key: ProcessKey,
    /// Its app.
    pub app: AppName,
    /// The state before; none for a process judged for the first time.
    pub before: Option<LeakState>,
    /// The state now.
    pub state: LeakState,
    /// The verdict's sentence.
    pub reason: String,
}

impl Pipeline {
    /// Makes one that has seen nothing.
    pub fn new(retention: Retention, settings: trend::Settings) -> Self {
        Self { retention, settings, watched: BTreeMap::new() }
    }

    /// Goes on from a history that a store kept, with the state its running life was in and since when.
    pub fn restore(&mut self, history: ProcessHistory, standing: Option<(LeakState, Steady)>, now: Steady) {
        let life = history.current().map(|current| current.life);
        let detector = life.zip(standing).map(|(life, (state, since))| Detector::resume(life, state, since, now));
        let key = history.key().clone();
        let mut watched = Watched::new(history);
        watched.detector = detector.unwrap_or_default();
        self.watched.insert(key, watched);
    }

    /// The state of a process's verdict and since when, once there is one.
    pub fn standing(&self, key: &ProcessKey) -> Option<(LeakState, Steady)> {
        let verdict = self.watched.get(key)?.verdict.as_ref()?;
        Some((verdict.state, verdict.since))
    }

    /// Changes the detector's settings; verdicts follow at their next turn.
    pub fn set_trend(&mut self, settings: trend::Settings) {
        self.settings = settings;
    }

    /// Takes in one collection and judges whoever's turn it is, each app by the settings that `trend_of` gives for its
    /// name.
    pub fn take<'a>(
        &mut self,
        snapshot: &Snapshot,
        trend_of: impl Fn(&AppName) -> Cow<'a, trend::Settings>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        // First: where all processes are others than before, there are never twice as many.
        self.forget_removed(snapshot, &mut outcome);
        for process in snapshot.processes() {
            self.observe(process, snapshot.at, &mut outcome);
        }
        for daemon in &snapshot.daemons {
            self.observe_daemon(daemon, snapshot.at, &mut outcome);
        }
        let host = Some(snapshot.host.memory_total);
        let processes = snapshot.processes().filter(|process| self.is_due(&process.key, snapshot.at)).map(|process| {
            let limits = Limits::of(&process.limits, host).with_own(process.resident, process.held());
            (process.key.clone(), process.listed.app.clone(), limits)
        });
        let mut due: Vec<(ProcessKey, AppName, Limits)> = processes.collect();
        let daemons = snapshot.daemons.iter().map(|daemon| ProcessKey::of_daemon(&daemon.name));
        due.extend(daemons.filter(|key| self.is_due(key, snapshot.at)).map(|key| {
            let limits = Limits::of(&MemoryLimits::default(), host);
            (key, AppName::from(DAEMON_APP), limits)
        }));
        if !due.is_empty() {
            let families = self.families();
            for (key, app, limits) in due {
                self.judge((&key, &app), &families, &limits, snapshot.at, &trend_of, &mut outcome);
            }
        }
        for (key, watched) in &mut self.watched {
            watched.history.settle(snapshot.at);
            let finished = watched.history.take_finished();
            outcome.minutes.extend(finished.into_iter().map(|(life, minute)| (key.clone(), life, minute)));
        }
        outcome
    }

    /// Takes in a look between collections.
    pub fn take_between(&mut self, samples: impl IntoIterator<Item = (ProcessKey, Sample)>, at: Steady) {
        for (key, sample) in samples {
            let Some(watched) = self.watched.get_mut(&key) else { continue };
            // Only a life that is already known: what is new or gone is for the next collection to say.
            if watched.history.current().is_some_and(|current| current.life == sample.life) {
                let about = watched.history.about().clone();
                watched.history.push(&sample, &about, at);
            }
        }
    }

    /// The verdicts as they stand.
    pub fn verdicts(&self) -> BTreeMap<ProcessKey, Verdict> {
        self.watched.iter().filter_map(|(key, watched)| Some((key.clone(), watched.verdict.clone()?))).collect()
    }

    /// The history of one process.
    pub fn history(&self, key: &ProcessKey) -> Option<&ProcessHistory> {
        self.watched.get(key).map(|watched| &watched.history)
    }

    /// What held the memory of one process's run.
    pub fn composition(&self, key: &ProcessKey) -> Option<&Composition> {
        self.watched.get(key).map(|watched| &watched.composition)
    }

    /// Every history, by process.
    pub fn histories(&self) -> impl Iterator<Item = &ProcessHistory> {
        self.watched.values().map(|watched| &watched.history)
    }

    /// Memory that the history takes, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let of =
            |watched: &Watched| watched.history.heap_bytes() + watched.composition.heap_bytes() + size_of::<Watched>();
        self.watched.values().map(of).sum()
    }

    fn observe(&mut self, process: &ProcessSample, at: Steady, outcome: &mut Outcome) {
        let retention = self.retention;
        let watched = self.watched.entry(process.key.clone()).or_insert_with(|| {
            Watched::new(ProcessHistory::new(process.key.clone(), process.listed.app.clone(), retention))
        });
        let life = |history: &ProcessHistory| history.current().map(|current| current.life);
        let before = life(&watched.history);
        watched.composition.observe(process, at, retention.minute);
        outcome.ended.extend(watched.history.observe(process, at));
        let now = life(&watched.history);
        if now != before {
            // What was said of another life must not stand for this one until its next turn.
            watched.slot = None;
            outcome.begun |= now.is_some();
        }
    }

    /// Takes in the daemon itself: it has a history and a verdict like its processes.
    fn observe_daemon(&mut self, daemon: &DaemonSample, at: Steady, outcome: &mut Outcome) {
        let (Some(life), Some(resident)) = (daemon.life, daemon.resident) else { return };
        let (key, retention) = (ProcessKey::of_daemon(&daemon.name), self.retention);
        let about = About { app: AppName::from(DAEMON_APP), version: daemon.version.clone(), revision: None };
        let watched = self
            .watched
            .entry(key.clone())
            .or_insert_with(|| Watched::new(ProcessHistory::new(key, about.app.clone(), retention)));
        let before = watched.history.current().map(|current| current.life);
        let sample = Sample { held: Some(resident), ..Sample::empty(life) };
        outcome.ended.extend(watched.history.push(&sample, &about, at));
        if before != Some(life) {
            watched.slot = None;
            outcome.begun = true;
        }
    }

    /// A process that an answering daemon no longer lists is gone; one of a silent daemon is only out of sight.
    fn forget_removed(&mut self, snapshot: &Snapshot, outcome: &mut Outcome) {
        let up: BTreeSet<&DaemonName> =
            snapshot.daemons.iter().filter(|daemon| daemon.up).map(|daemon| &daemon.name).collect();
        let listed: BTreeSet<&ProcessKey> = snapshot.processes().map(|process| &process.key).collect();
        let left_out = snapshot.daemons.iter().any(|daemon| daemon.processes_left_out > 0);
        self.watched.retain(|key, watched| {
            if left_out || key.is_daemon() || !up.contains(&key.daemon) || listed.contains(key) {
                return true;
            }
            outcome.ended.extend(watched.history.end(LifeEnd::Removed));
            let finished = watched.history.take_finished();
            outcome.minutes.extend(finished.into_iter().map(|(life, minute)| (key.clone(), life, minute)));
            false
        });
    }

    /// Whether it is a process's turn to be judged; what was thought of a life that is over is dropped.
    fn is_due(&mut self, key: &ProcessKey, at: Steady) -> bool {
        let Some(watched) = self.watched.get_mut(key) else { return false };
        // A young process is judged every minute, for it may be over soon. The others take turns: those of one minute are
        // judged together, the rest wait for theirs.
        let young = watched.verdict.as_ref().is_none_or(|verdict| verdict.state == LeakState::Learning);
        let every = if young { 1 } else { i64::from(self.settings.evaluate_every.max(1)) };
        let slot = (self.retention.minute_of(at) + i64::from(key.pm_id)).div_euclid(every);
        if watched.history.current().is_none() {
            (watched.verdict, watched.slot) = (None, None);
            return false;
        }
        watched.slot.replace(slot) != Some(slot)
    }

    fn judge<'a>(
        &mut self,
        (key, app): (&ProcessKey, &AppName),
        families: &Families,
        limits: &Limits,
        at: Steady,
        trend_of: impl Fn(&AppName) -> Cow<'a, trend::Settings>,
        outcome: &mut Outcome,
    ) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        // Its siblings are looked up among the others while it is judged.
        let mut detector = std::mem::take(&mut watched.detector);
        let Some(history) = self.watched.get(key).map(|watched| &watched.history) else { return };
        let siblings = || self.siblings(key, app, families);
        let verdict = detector.evaluate(history, siblings, limits, at, &trend_of(app));
        let Some(watched) = self.watched.get_mut(key) else { return };
        watched.detector = detector;
        let before = watched.verdict.as_ref().map(|verdict| verdict.state);
        if before != Some(verdict.state) {
            outcome.changes.push(Change {
                key: key.clone(),
                app: app.clone(),
                before,
                state: verdict.state,
                reason: verdict.reason.clone(),
            });
        }
        watched.verdict = Some(verdict);
    }

    /// Who belongs to the same app: found once for all who are judged together, not once for each.
    fn families(&self) -> Families {
        let mut families = Families::new();
        for (key, watched) in &self.watched {
            families.entry((key.daemon.clone(), watched.history.about().app.clone())).or_default().push(key.pm_id);
        }
        families
    }

    fn siblings(&self, key: &ProcessKey, app: &AppName, families: &Families) -> Vec<LifeSummary> {
        let daemon = &key.daemon;
        let family = families.get(&(daemon.clone(), app.clone()));
        family
            .into_iter()
            .flatten()
            .filter(|pm_id| **pm_id != key.pm_id)
            .take(SIBLINGS)
            .filter_map(|pm_id| self.watched.get(&ProcessKey { daemon: daemon.clone(), pm_id: *pm_id }))
            .filter_map(|watched| watched.history.summary(LifeEnd::Running))
            .collect()
    }
}

impl Watched {
    fn new(history: ProcessHistory) -> Self {
        let composition = Composition::new(history.retention().minute);
        Self { history, composition, detector: Detector::new(), verdict: None, slot: None }
    }
}

/// Slopes by daemon, app and version, over all lives that are held in memory. Lives without a version are left out:
/// their names would be without end.
pub(super) fn version_slopes<'a>(histories: impl Iterator<Item = &'a ProcessHistory>) -> Vec<VersionSlope> {
    let mut apps: BTreeMap<(DaemonName, AppName), Vec<LifeSummary>> = BTreeMap::new();
    for history in histories {
        for life in history.earlier().cloned().chain(history.summary(LifeEnd::Running)) {
            if life.version.is_some() || life.revision.is_some() {
                apps.entry((life.key.daemon.clone(), life.app.clone())).or_default().push(life);
            }
        }
    }
    let slopes = apps.iter().flat_map(|((daemon, app), lives)| {
        versions(lives).into_iter().filter_map(move |version| {
            Some(VersionSlope {
                daemon: daemon.to_string(),
                app: app.clone(),
                version: version.name.text(|_start| String::new()),
                bytes_per_second: version.slope?.bytes_per_second,
            })
        })
    });
    slopes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::list::read_list;
    use crate::model::{Bytes, HostSample, LimitKind, WallTime};

    const MINUTE: i64 = 60_000;

    /// A collection that saw one process of the app "api" hold this much.
    fn seen(at: i64, pid: u32, resident: Bytes) -> Snapshot {
        let json = format!(
            r#"[{{"pm_id":0,"pid":{pid},"name":"api","pm2_env":{{"status":"online","pm_uptime":1795393485552}}}}]"#
        );
        let listed = read_list(json.as_bytes(), 1).unwrap().entries.remove(0);
        let name = DaemonName::from("default");
        let process = ProcessSample {
            key: ProcessKey { daemon: name.clone(), pm_id: 0 },
            life: listed.life(),
            system: None,
            resident: Some(resident),
            resident_source: None,
            limits: MemoryLimits { configured: Some(Bytes(1 << 30)), ..MemoryLimits::default() },
            metrics_age_seconds: None,
            metrics_frozen: false,
            listed,
        };
        let daemon = DaemonSample {
            name,
            up: true,
            version: None,
            pid: None,
            life: None,
            resident: None,
            processes: vec![process],
            processes_left_out: 0,
            orphans: None,
            app_metrics_left_out: 0,
            reports: Vec::new(),
            last_success: None,
        };
        Snapshot { at: Steady(at), wall: WallTime(at), daemons: vec![daemon], host: HostSample::default() }
    }

    fn state(pipeline: &Pipeline) -> LeakState {
        pipeline.verdicts().into_values().next().expect("a verdict").state
    }

    #[test]
    fn a_new_life_does_not_inherit_the_verdict_of_the_one_before() {
        let settings = trend::Settings::default();
        let mut pipeline = Pipeline::new(Retention::default(), settings.clone());
        for minute in 0..=60 {
            pipeline.take(&seen(minute * MINUTE, 100, Bytes(80 << 20)), |_app| Cow::Borrowed(&settings));
        }
        assert_eq!(state(&pipeline), LeakState::Stable);
        // Far from its next turn.
        pipeline.take(&seen(60 * MINUTE + 15_000, 101, Bytes(80 << 20)), |_app| Cow::Borrowed(&settings));
        assert_eq!(state(&pipeline), LeakState::Learning);
    }

    /// pm2#3022, pm2#3712, pm2#4554: the daemon itself leaks.
    #[test]
    fn the_daemon_itself_is_judged_like_a_process_and_begins_anew_with_its_own_restart() {
        let settings = trend::Settings::default();
        let mut pipeline = Pipeline::new(Retention::default(), settings.clone());
        let key = ProcessKey::of_daemon(&"default".into());
        let mut look = |minute: i64, started| {
            let mut snapshot = seen(minute * MINUTE, 100, Bytes(80 << 20));
            let grown = Bytes((60 << 20) + (10 << 20) * minute.unsigned_abs());
            (snapshot.daemons[0].life, snapshot.daemons[0].resident) = (Some(Life { pid: 9, started }), Some(grown));
            snapshot.host.memory_total = Bytes(2 << 30);
            let outcome = pipeline.take(&snapshot, |_app| Cow::Borrowed(&settings));
            let verdict = pipeline.verdicts().remove(&key).expect("a verdict");
            (verdict, outcome.changes)
        };
        let told: Vec<_> = (0..160).flat_map(|minute| look(minute, 1).1).collect();
        assert!(told.iter().any(|change| change.key.is_daemon() && change.state == LeakState::Leaking), "{told:?}");
        let (verdict, _) = look(160, 1);
        assert_eq!((verdict.state, verdict.limit.map(|limit| limit.kind)), (LeakState::Leaking, Some(LimitKind::Host)));
        assert_eq!(look(161, 2).0.state, LeakState::Learning);
    }

    #[test]
    fn an_app_is_judged_by_its_own_thresholds() {
        let after_growth = |settings: &trend::Settings| {
            let mut pipeline = Pipeline::new(Retention::default(), trend::Settings::default());
            for minute in 0..90_i64 {
                let resident = Bytes((80 << 20) + (10 << 20) * minute.unsigned_abs());
                pipeline.take(&seen(minute * MINUTE, 100, resident), |app| {
                    assert_eq!(app.name(), "api");
                    Cow::Borrowed(settings)
                });
            }
            state(&pipeline)
        };
        let usual = trend::Settings::default();
        assert_eq!(after_growth(&usual), LeakState::Leaking);
        let tolerant = trend::Settings { smallest_growth: Bytes(2 << 30), ..usual };
        assert_eq!(after_growth(&tolerant), LeakState::Stable);
    }
}
