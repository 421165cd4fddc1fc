//! The state machine: observations and events go in, orders come out, and nothing is done before it is written down.
//!
//! Every input ends in [`Policy::settle`], which does whatever has become possible. An order that changes the world waits
//! behind a [`Command::Persist`] until the shell says that the state is kept; so after a kill at any point the state tells
//! what may have been done, and that is verified rather than done again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::audit::{AuditRecord, RecordKind};
use super::command::{Command, Event, Notice, NoticeKind, Severity};
use super::gates::{Answers, Context};
use super::observation::{Now, Observation};
use super::request::{Request, RequestEnd, Target, TargetState};
use super::settings::{PolicySettings, RestartSettings};
use super::state::{FORMAT, FleetLock, Phase, State};
use super::world::World;
use model::{AppName, DaemonName, ProcessKey, Steady};

/// The longest time between two looks at the state, so that a wall clock that steps is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// How long the store is left alone after it has failed.
const STORE_RETRY: Duration = Duration::from_secs(30);
/// Replacements remembered at the most, whatever the budgets say.
const MOST_LEDGER: usize = 20_000;
/// Records that go with one state at the most, the latest ones: some for each alert that is remembered, and no more than the
/// store takes at once.
const MOST_RECORDS: usize = 4000;
/// The same while the store fails: they wait in memory then.
const MOST_WAITING: usize = 2000;

/// The restart policy of one host.
#[derive(Debug)]
pub struct Policy {
    pub(super) settings: RestartSettings,
    /// For apps that no policy names.
    pub(super) fallback: PolicySettings,
    pub(super) state: State,
    pub(super) world: World,
    pub(super) answers: Answers,
    pub(super) asking: Asking,
    /// The reason every target was last held for, to tell when it changes.
    pub(super) holds: BTreeMap<(u64, u32), super::reason::Reason>,
    pub(super) wake: Steady,
    outbox: VecDeque<Command>,
    /// Orders that wait until the state of their number is kept.
    barrier: VecDeque<(u64, Command)>,
    /// Records that go with the next state.
    records: BTreeMap<u64, AuditRecord>,
    /// Records that went with states of which nobody has said yet that they are kept.
    unconfirmed: BTreeMap<u64, Arc<Vec<AuditRecord>>>,
    dirty: bool,
}

/// Questions that are under way, with when they were asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Asking {
    pub(super) promql: BTreeMap<(DaemonName, AppName), Steady>,
    pub(super) silences: Option<Steady>,
    pub(super) fleet_lock: Option<Steady>,
    /// Whether a process serves, before its replacement.
    pub(super) probes: BTreeMap<ProcessKey, Steady>,
    /// The same during it, by step, with whether the answer has come.
    pub(super) steps: BTreeMap<u64, (Steady, bool)>,
}

impl Policy {
    /// Starts the machine, from the state that was last kept if there is one. `own_pids` are the
    /// sidecar's and those of the processes it runs under, which it never restarts.
    ///
    /// A replacement that was ordered when the state was kept is watched to its end and never ordered again; a hook that
    /// was running is given up; a fleet lock that may be ours is given back unless a replacement still needs it.
    pub fn new(settings: RestartSettings, kept: Option<State>, own_pids: BTreeSet<u32>, now: Now) -> Self {
        let state = kept.filter(|state| state.format == FORMAT).unwrap_or_default();
        let mut policy = Self {
            settings,
            fallback: PolicySettings::default(),
            state,
            world: World::unseen(own_pids),
            answers: Answers::default(),
            asking: Asking::default(),
            holds: BTreeMap::new(),
            wake: now.steady,
            outbox: VecDeque::new(),
            barrier: VecDeque::new(),
            records: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            dirty: true,
        };
        policy.recover(now);
        policy.settle(now);
        policy
    }

    /// Replaces the settings; requests, breakers and what is under way stay.
    pub fn replace_settings(&mut self, settings: RestartSettings, now: Now) {
        if settings.fleet_lock.is_none() {
            self.state.fleet_lock = FleetLock::Free;
            self.touch();
        }
        self.settings = settings;
        self.answers.promql.clear();
        self.answers.probes.clear();
        self.answers.silences = None;
        self.settle(now);
    }

    /// Takes in a collection. While [`Policy::watched`] names a daemon, collections of it should come every second or so.
    pub fn observe(&mut self, observation: &Observation, now: Now) {
        self.world.observe(observation, &self.settings, now);
        if self.state.adopt_namespaces(&self.world) {
            self.touch();
        }
        self.reconcile(now);
        self.watch_effects(now);
        self.settle(now);
    }

    /// Takes in what the shell or the world reports.
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Alerts(calls) => self.take_alerts(calls, now),
            Event::Persisted { revision } => {
                self.answers.store = None;
                self.unconfirmed = self.unconfirmed.split_off(&(revision + 1));
                while self.barrier.front().is_some_and(|(needed, _)| *needed <= revision) {
                    if let Some((_, command)) = self.barrier.pop_front() {
                        self.outbox.push_back(command);
                    }
                }
            }
            Event::PersistFailed { revision, why } => self.persist_failed(revision, why, now),
            Event::Acted { step, answer } => self.acted(step, answer, now),
            Event::EvidenceEnded { step, taken } => self.evidence_ended(step, taken, now),
            Event::HookEnded { step, result } => self.hook_ended(step, &result, now),
            Event::Promql { daemon, app, answer } => {
                self.asking.promql.remove(&(daemon.clone(), app.clone()));
                let answered = super::gates::Answered { at: now.steady, result: answer };
                self.answers.promql.insert((daemon, app), answered);
            }
            Event::Probed { step, key, life, answer } => self.probed(step, &key, life, answer, now),
            Event::Silences(result) => {
                self.asking.silences = None;
                self.answers.silences = Some(super::gates::Answered { at: now.steady, result });
            }
            Event::FleetLock(answer) => self.fleet_lock_answered(answer, now),
            Event::FleetLockReleased(result) => self.fleet_lock_released(&result, now),
        }
        self.settle(now);
    }

    /// Does what time alone makes due; to be called at [`Policy::wake_at`].
    pub fn tick(&mut self, now: Now) {
        self.settle(now);
    }

    /// The next order, to be carried out before the one after it.
    pub fn next_command(&mut self) -> Option<Command> {
        self.outbox.pop_front()
    }

    /// When [`Policy::tick`] should be called if nothing else happens.
    pub fn wake_at(&self) -> Steady {
        self.wake
    }

    /// Daemons in which a replacement is being watched, so that their lists are needed often. While evidence is taken there
    /// is nothing to watch yet.
    pub fn watched(&self) -> BTreeSet<DaemonName> {
        let watched = self.state.steps.iter().filter(|(_, step)| !matches!(step.phase, Phase::Evidence { .. }));
        watched.map(|(daemon, _)| daemon.clone()).collect()
    }

    /// The durable state as it is now, for those who show it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The number of the state that will hold everything that is known now, once it is kept.
    pub fn revision_to_keep(&self) -> u64 {
        if self.dirty { self.state.revision + 1 } else { self.state.revision }
    }

    /// The settings in force.
    pub fn settings(&self) -> &RestartSettings {
        &self.settings
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            settings: &self.settings,
            fallback: &self.fallback,
            state: &self.state,
            world: &self.world,
            answers: &self.answers,
            own_step: None,
            ahead: false,
        }
    }

    pub(super) fn policy_settings(&self, daemon: &DaemonName, app: &AppName) -> &PolicySettings {
        self.settings
            .policy_of(daemon, app, self.world.is_module(daemon, app))
            .map_or(&self.fallback, |(_, policy)| policy)
    }

    /// Notes that the durable state has changed.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// Writes a record with the next state.
    pub(super) fn record(&mut self, record: AuditRecord) {
        self.records.insert(record.id, record);
        self.dirty = true;
    }

    pub(super) fn new_record(
        &mut self,
        kind: RecordKind,
        daemon: &DaemonName,
        app: &AppName,
        sentence: String,
        now: Now,
    ) -> AuditRecord {
        AuditRecord::new(self.state.next_number(), kind, daemon, app, sentence, now)
    }

    /// Orders something as soon as the state as it is now has been kept.
    pub(super) fn order_when_kept(&mut self, command: Command) {
        self.dirty = true;
        self.barrier.push_back((self.state.revision + 1, command));
    }

    /// Orders something that depends on nothing kept.
    pub(super) fn order(&mut self, command: Command) {
        self.outbox.push_back(command);
    }

    pub(super) fn say(
        &mut self,
        severity: Severity,
        kind: NoticeKind,
        name: (&DaemonName, &AppName, Option<u32>),
        text: impl Into<String>,
    ) {
        let (daemon, app, pm_id) = name;
        let notice = Notice { severity, kind, daemon: daemon.clone(), app: app.clone(), pm_id, text: text.into() };
        self.outbox.push_back(Command::Notify(notice));
    }

    /// Does whatever has become possible and writes down what has changed.
    pub(super) fn settle(&mut self, now: Now) {
        self.wake = now.steady + LONGEST_SLEEP;
        self.forget_the_past(now);
        self.close_breakers(now);
        self.ask_for_what_leaks(now);
        self.ask_by_schedule(now);
        self.ask_for_alerts(now);
        self.forget_alerts(now);
        self.advance_steps(now);
        self.end_requests(now);
        self.start_steps(now);
        self.end_requests(now);
        self.settle_fleet_lock(now);
        self.flush(now);
    }

    /// Asks to be called at `at` at the latest.
    pub(super) fn wake_by(&mut self, at: Steady) {
        self.wake = self.wake.min(at);
    }

    fn flush(&mut self, now: Now) {
        let most = if self.answers.store.is_some() { MOST_WAITING } else { MOST_RECORDS };
        while self.records.len() > most {
            self.records.pop_first();
        }
        if let Some((next, _)) = &mut self.answers.store {
            if now.steady < *next {
                let next = *next;
                self.wake_by(next);
                return;
            }
            // The gate opens only when the store has worked again.
            *next = now.steady + STORE_RETRY;
            self.dirty = true;
        }
        if !self.dirty {
            return;
        }
        self.dirty = false;
        self.state.revision += 1;
        let records: Arc<Vec<AuditRecord>> = Arc::new(std::mem::take(&mut self.records).into_values().collect());
        let revision = self.state.revision;
        self.unconfirmed.insert(revision, records.clone());
        self.outbox.push_back(Command::Persist { revision, state: Box::new(self.state.clone()), records });
    }

    fn persist_failed(&mut self, revision: u64, why: String, now: Now) {
        self.answers.store = Some((now.steady + STORE_RETRY, why));
        // What was not written goes with the next state, unless there is a newer word on it.
        let later = self.unconfirmed.split_off(&(revision + 1));
        let failed = std::mem::replace(&mut self.unconfirmed, later);
        let newer: BTreeSet<u64> =
            self.unconfirmed.values().flat_map(|records| records.iter()).map(|record| record.id).collect();
        for record in failed.into_values().rev().flat_map(Arc::unwrap_or_clone) {
            if !newer.contains(&record.id) {
                self.records.entry(record.id).or_insert(record);
            }
        }
        let mut kept = VecDeque::new();
        for (needed, command) in std::mem::take(&mut self.barrier) {
            if needed > revision {
                kept.push_back((needed, command));
            } else {
                self.take_back(command, now);
            }
        }
        self.barrier = kept;
    }

    /// Undoes what an order that will never be given was to do.
    fn take_back(&mut self, command: Command, now: Now) {
        match command {
            Command::Reload(order) | Command::Restart(order) => {
                let answer = super::command::Answer::NotSent("it could not be written down first".to_owned());
                self.acted(order.step, answer, now);
            }
            Command::RunHook(order) => {
                self.hook_ended(order.step, &Err("it could not be written down first".to_owned()), now);
            }
            Command::TakeEvidence(order) => {
                self.cancel_step(order.step, "it could not be written down first", now);
            }
            Command::AskFleetLock => {
                self.state.fleet_lock = FleetLock::Free;
                self.asking.fleet_lock = None;
            }
            Command::Persist { .. }
            | Command::AskPromql { .. }
            | Command::AskSilences
            | Command::Probe(_)
            | Command::ReleaseFleetLock
            | Command::Notify(_) => {}
        }
    }

    /// Makes sense of a state that was kept by an earlier run.
    fn recover(&mut self, now: Now) {
        for entry in &mut self.state.ledger {
            entry.at = entry.at.min(now.steady);
        }
        self.recover_steps(now);
        let needed = self.state.steps.values().any(|step| step.fleet_lock);
        self.state.fleet_lock = match self.state.fleet_lock {
            FleetLock::Free => FleetLock::Free,
            _ if self.settings.fleet_lock.is_none() => FleetLock::Free,
            FleetLock::Asked { since } | FleetLock::Held { since } if needed => FleetLock::Held { since },
            FleetLock::Asked { .. } | FleetLock::Held { .. } | FleetLock::Releasing { .. } => {
                FleetLock::Releasing { next: now.steady, attempts: 0 }
            }
        };
    }

    fn forget_the_past(&mut self, now: Now) {
        let longest = self
            .settings
            .policy
            .iter()
            .chain([&self.fallback])
            .map(|policy| policy.cooldown.0.max(policy.breaker.too_close.0))
            .max()
            .unwrap_or_default()
            .max(super::gates::DAY);
        let ledger = &mut self.state.ledger;
        ledger.retain(|entry| now.steady.since(entry.at) <= longest);
        if ledger.len() > MOST_LEDGER {
            let surplus = ledger.len() - MOST_LEDGER;
            ledger.drain(..surplus);
        }
        self.state.breakers.retain(|breaker| !breaker.is_blank() || now.steady.since(breaker.forgiven) <= longest);
    }

    fn close_breakers(&mut self, now: Now) {
        for index in 0..self.state.breakers.len() {
            let (daemon, app) = (self.state.breakers[index].daemon.clone(), self.state.breakers[index].app.clone());
            let settings = self.policy_settings(&daemon, &app).breaker.clone();
            let breaker = &mut self.state.breakers[index];
            if breaker.time_out(&settings, now.steady) {
                self.breaker_closed(&daemon, &app, "its time is over", now);
            } else if let Some(open) = &breaker.open {
                let until = open.until;
                self.wake_by(until);
            }
        }
    }

    pub(super) fn breaker_closed(&mut self, daemon: &DaemonName, app: &AppName, why: &str, now: Now) {
        let text = format!("the circuit breaker of {app} closed: {why}");
        let record = self.new_record(RecordKind::BreakerClosed, daemon, app, text.clone(), now);
        self.record(record);
        self.say(Severity::Info, NoticeKind::BreakerClosed, (daemon, app, None), text);
    }

    pub(super) fn trip(
        &mut self,
        daemon: &DaemonName,
        app: &AppName,
        (trouble, detail): (super::breaker::Trouble, Option<&str>),
        cause: &str,
        now: Now,
    ) {
        let settings = self.policy_settings(daemon, app).breaker.clone();
        let breaker = self.state.breaker_mut(daemon, app);
        let was_open = breaker.open.is_some();
        breaker.trip(trouble, detail, cause.to_owned(), &settings, now);
        self.touch();
        if was_open {
            return;
        }
        let text = format!("restarts of {app} are stopped: {cause}");
        let mut record = self.new_record(RecordKind::BreakerOpened, daemon, app, text.clone(), now);
        record.detail = Some(detail.unwrap_or(trouble.as_str()).to_owned());
        self.record(record);
        self.say(Severity::Warning, NoticeKind::BreakerOpened, (daemon, app, None), text);
    }

    /// Looks at the restarts whose effect is being watched.
    fn watch_effects(&mut self, now: Now) {
        use super::effect::Change;
        let mut watches = std::mem::take(&mut self.state.effects);
        let mut judged = Vec::new();
        let mut changed = Vec::new();
        let mut freed = Vec::new();
        let mut ended = Vec::new();
        watches.retain_mut(|watch| {
            let Some(seen) = self.world.fresh(&watch.key.daemon, now.steady) else { return true };
            let settings = &self
                .settings
                .policy_of(&watch.key.daemon, &watch.record.app, false)
                .map_or(&self.fallback, |(_, policy)| policy)
                .breaker;
            let process = seen.processes.get(&watch.key.pm_id);
            let fell = watch.ended_by_itself(process, settings, seen.at);
            let change = watch.observe(process, settings, seen.at);
            let helped = match change {
                Change::None => return true,
                Change::Figure => None,
                Change::Judged(helped) => Some(helped),
                Change::Ended(helped) => helped,
            };
            watch.record.effect = Some(watch.effect.clone());
            if let Some(bytes) = watch.effect.freed {
                freed.push((watch.key.daemon.clone(), watch.record.app.clone(), bytes));
            }
            match fell {
                Some(after) => ended.push((watch.record.clone(), watch.key.clone(), after)),
                None => changed.push(watch.record.clone()),
            }
            if let (true, Some(helped)) = (watch.counts, helped) {
                judged.push((watch.record.clone(), helped, watch.effect.sentence()));
            }
            !matches!(change, Change::Ended(_))
        });
        self.state.effects = watches;
        for (daemon, app, bytes) in freed {
            self.state.note_freed(&daemon, &app, bytes);
        }
        for record in changed {
            self.record(record);
        }
        for (record, key, after) in ended {
            self.ended_after_all(record, &key, after, now);
        }
        for (record, helped, sentence) in judged {
            let (daemon, app) = (record.daemon, record.app);
            let settings = self.policy_settings(&daemon, &app).breaker.clone();
            let breaker = self.state.breaker_mut(&daemon, &app);
            if helped {
                breaker.helped();
            } else if breaker.did_not_help(&settings) {
                let cause = format!("{} restarts in a row did not help ({sentence})", breaker.unhelpful);
                self.trip(&daemon, &app, (super::breaker::Trouble::Unhelpful, None), &cause, now);
            }
        }
    }

    /// Lets go of targets whose life has ended without us.
    fn reconcile(&mut self, now: Now) {
        let world = &self.world;
        let mut changed = false;
        for request in self.state.requests.values_mut() {
            let Some(seen) = world.fresh(&request.daemon, now.steady) else { continue };
            for (pm_id, target) in &mut request.targets {
                if target.state == TargetState::Waiting && has_ended(seen.processes.get(pm_id), target) {
                    target.state = TargetState::Ended;
                    changed = true;
                }
            }
        }
        self.dirty |= changed;
    }

    /// Closes requests that have nothing left to do.
    fn end_requests(&mut self, now: Now) {
        let finished: Vec<u64> =
            self.state.requests.values().filter(|request| request.finished()).map(|request| request.id).collect();
        for id in finished {
            let Some(end) = self.state.requests.get(&id).map(Request::outcome) else { continue };
            self.end_request(id, end, "", now);
        }
    }

    /// Closes a request and writes down how it ended.
    pub(super) fn end_request(&mut self, id: u64, end: RequestEnd, why: &str, now: Now) {
        let Some(request) = self.state.requests.remove(&id) else { return };
        self.holds.retain(|(request, _), _| *request != id);
        self.answers.hooks.remove(&id);
        if end != RequestEnd::Withdrawn {
            self.alerts_served(&request);
        }
        let count = |state| request.targets.values().filter(|target| target.state == state).count();
        let mut text = match end {
            RequestEnd::Done => format!("{} of {} processes replaced", count(TargetState::Done), request.targets.len()),
            RequestEnd::Failed => format!(
                "the roll was stopped: {} replaced, {} failed, {} left alone",
                count(TargetState::Done),
                count(TargetState::Failed),
                count(TargetState::Left)
            ),
            RequestEnd::Rehearsed => format!("{} processes would have been replaced", count(TargetState::Rehearsed)),
            RequestEnd::Moot => "every process it was for has ended by itself".to_owned(),
            RequestEnd::Withdrawn => "withdrawn".to_owned(),
            RequestEnd::Refused => "refused".to_owned(),
        };
        if !why.is_empty() {
            text = format!("{text}: {why}");
        }
        let sentence = format!("request {id} for {} by {}: {text}", request.app, request.trigger);
        let mut record =
            self.new_record(RecordKind::RequestEnded, &request.daemon, &request.app, sentence.clone(), now);
        record.request = Some(id);
        record.trigger = Some(request.trigger);
        record.detail = Some(end.as_str().to_owned());
        self.record(record);
        let severity = if end == RequestEnd::Failed { Severity::Warning } else { Severity::Note };
        self.say(severity, NoticeKind::Request, (&request.daemon, &request.app, None), sentence);
    }

    /// Forgets the step's own phase when nothing was ordered, so that the target waits again.
    pub(super) fn wait_again(&mut self, request: u64, pm_id: u32) {
        if let Some(target) = self.state.requests.get_mut(&request).and_then(|request| request.targets.get_mut(&pm_id))
        {
            target.state = TargetState::Waiting;
        }
    }

    fn recover_steps(&mut self, now: Now) {
        let daemons: Vec<DaemonName> = self.state.steps.keys().cloned().collect();
        for daemon in daemons {
            let Some(step) = self.state.steps.get_mut(&daemon) else { continue };
            step.interrupted = true;
            let app = step.record.app.clone();
            let settings = self.settings.policy_of(&daemon, &app, false).map_or(&self.fallback, |(_, policy)| policy);
            match &mut step.phase {
                Phase::Evidence { .. } => {
                    let id = step.id;
                    self.cancel_step(id, "the sidecar was restarted while evidence was taken", now);
                }
                Phase::Hook { .. } => {
                    let id = step.id;
                    self.cancel_step(id, "the sidecar was restarted while the hook ran", now);
                }
                Phase::Ordered { verification, .. } => verification.resume(&settings.verify, now.steady),
            }
        }
    }
}

/// Whether a target's life is over, as far as a fresh list shows.
fn has_ended(process: Option<&super::observation::ProcessObservation>, target: &Target) -> bool {
    use model::Status;
    let Some(process) = process else { return true };
    match process.life {
        Some(life) => life != target.life,
        None => matches!(process.status, Status::Stopped | Status::Errored | Status::WaitingRestart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::WallTime;

    #[test]
    fn records_do_not_pile_up_while_the_store_fails() {
        let at = |second: i64| Now { steady: Steady(second * 1000), wall: WallTime(second * 1000) };
        let mut policy = Policy::new(RestartSettings::default(), None, BTreeSet::new(), at(0));
        let Some(Command::Persist { revision, .. }) = policy.next_command() else { panic!("the start is kept") };
        policy.handle(Event::PersistFailed { revision, why: "no room".to_owned() }, at(1));
        let mut latest = 0;
        for _ in 0..3 * MOST_WAITING {
            let record = policy.new_record(RecordKind::Requested, &"blue".into(), &"shop".into(), String::new(), at(2));
            latest = record.id;
            policy.record(record);
            policy.tick(at(2));
            assert!(policy.records.len() <= MOST_WAITING && policy.next_command().is_none());
        }
        policy.tick(at(100));
        let Some(Command::Persist { records, .. }) = policy.next_command() else { panic!("it is tried again") };
        assert_eq!((records.len(), records.last().map(|record| record.id)), (MOST_WAITING, Some(latest)));
    }
}
