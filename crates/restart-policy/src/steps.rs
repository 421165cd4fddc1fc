//! Replacements: which target goes next, the order to pm2, and the watch over what comes of it.
//!
//! One step at a time in each daemon. Between two steps of a roll every gate is asked again. A step that was ordered is
//! never ordered again: it is watched until the list shows what became of it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::audit::{AuditRecord, Outcome, RecordKind};
use super::breaker::Trouble;
use super::command::{Answer, Command, NoticeKind, Order, Severity};
use super::effect::{Effect, EffectWatch};
use super::gates::Evaluation;
use super::machine::Policy;
use super::observation::Now;
use super::reason::{Decision, Gate, Reason};
use super::request::{Action, Request, TargetState, Trigger};
use super::serving::ProbeCount;
use super::state::{LedgerEntry, Phase, Step};
use super::verify::{Failure, Progress, Stage, Verification};
use model::Spoken;
use model::{AppName, DaemonName, Life, ProcessKey, Steady};

/// How long pm2 may take to answer on top of its own time-outs.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(20);
/// A list older than this cannot verify anything.
const LIST_FRESH: Duration = Duration::from_secs(30);
/// How long an answer that never comes is waited for after the verification's own deadline.
const LOST_ANSWER: Duration = Duration::from_mins(5);
/// The first pause after an attempt that came to nothing; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

impl Policy {
    /// Begins whatever may begin, one step in each daemon; writes down why everything else is held.
    pub(super) fn start_steps(&mut self, now: Now) {
        let mut lock_wanted = false;
        // Requests of which the most pressing target is asked how it serves: no other goes before it.
        let mut asked = BTreeSet::new();
        for (id, pm_id) in self.candidates(now.steady) {
            if asked.contains(&id) {
                continue;
            }
            let Some((request, target)) =
                self.state.requests.get(&id).and_then(|it| Some((it, it.targets.get(&pm_id)?)))
            else {
                continue;
            };
            let evaluation = self.context().evaluate(request, pm_id, target, now);
            match &evaluation.decision {
                Decision::UnderWay(_) => {}
                Decision::Hold(_) => {
                    lock_wanted |= self.hold(id, pm_id, &evaluation, now);
                    let asks = evaluation.hold(Gate::Readiness) == Some(&Reason::Asking(Gate::Readiness));
                    if asks && evaluation.open_but_for(&[Gate::Readiness]) {
                        asked.insert(id);
                    }
                }
                Decision::Reload(sentence) | Decision::Restart(sentence) => {
                    let sentence = sentence.clone();
                    self.begin_step(id, pm_id, evaluation, sentence, now);
                }
                Decision::WouldReload(sentence) | Decision::WouldRestart(sentence) => {
                    let sentence = sentence.clone();
                    self.rehearse(id, pm_id, evaluation, sentence, now);
                }
            }
        }
        if lock_wanted {
            self.ask_for_fleet_lock(now);
        }
    }

    /// Targets that wait, in the order in which they may go: rolls that have begun, then the most pressing trigger, then
    /// the oldest request; within a request the worst slope, then the most memory.
    fn candidates(&self, now: Steady) -> Vec<(u64, u32)> {
        let mut requests: Vec<&Request> = self.state.requests.values().collect();
        requests.sort_by_key(|request| (Reverse(request.started()), request.trigger, request.id));
        let mut candidates = Vec::new();
        for request in requests {
            if self.world.fresh(&request.daemon, now).is_none() && self.world.daemons.is_empty() {
                continue;
            }
            let mut targets: Vec<(f64, u64, u32)> = request
                .targets
                .iter()
                .filter(|(_, target)| target.state == TargetState::Waiting)
                .map(|(pm_id, _)| {
                    let key = ProcessKey { daemon: request.daemon.clone(), pm_id: *pm_id };
                    let process = self.world.process(&key);
                    let verdict = process.and_then(|process| process.verdict.as_ref());
                    let slope = verdict.map_or(0.0, super::observation::VerdictView::bytes_per_second);
                    (slope, process.and_then(|process| process.held).unwrap_or_default().0, *pm_id)
                })
                .collect();
            targets.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
            candidates.extend(targets.into_iter().map(|(_, _, pm_id)| (request.id, pm_id)));
        }
        candidates
    }

    /// Remembers why a target is held, says so when the reason is a new one, asks outside where all else is open; returns
    /// whether only the fleet lock is missing.
    fn hold(&mut self, id: u64, pm_id: u32, evaluation: &Evaluation, now: Now) -> bool {
        let Decision::Hold(reason) = &evaluation.decision else { return false };
        if let Some(span) = reason.opens_in() {
            self.wake_by(now.steady + span);
        }
        let known = self.holds.insert((id, pm_id), reason.clone());
        if known.is_none_or(|known| known.label() != reason.label())
            && let Some(request) = self.state.requests.get(&id)
        {
            let (daemon, app) = (request.daemon.clone(), request.app.clone());
            let text = format!("request {id} for {daemon}/{pm_id} of {app} is held: {reason}");
            self.say(Severity::Note, NoticeKind::Request, (&daemon, &app, Some(pm_id)), text);
        }
        let outside = [Gate::Silence, Gate::Promql, Gate::Readiness, Gate::FleetLock];
        if !evaluation.open_but_for(&outside) {
            return false;
        }
        self.ask_outside(id, pm_id, evaluation, now);
        evaluation.open_but_for(&[Gate::FleetLock])
    }

    fn begin_step(&mut self, id: u64, pm_id: u32, evaluation: Evaluation, sentence: String, now: Now) {
        let Some(request) = self.state.requests.get(&id).cloned() else { return };
        let Some(life) = request.targets.get(&pm_id).map(|target| target.life) else { return };
        let key = ProcessKey { daemon: request.daemon.clone(), pm_id };
        self.holds.remove(&(id, pm_id));
        self.answers.hooks.remove(&id);
        let process = self.world.process(&key);
        let memory_before = process.and_then(|process| process.held);
        let slope_before = process.and_then(|process| process.verdict.as_ref()).and_then(|verdict| verdict.slope);
        let mut record = self.new_record(RecordKind::Restart, &request.daemon, &request.app, sentence, now);
        record.pm_id = Some(pm_id);
        record.request = Some(id);
        record.trigger = Some(request.trigger);
        record.action = Some(evaluation.action);
        record.outcome = Some(Outcome::UnderWay);
        record.gates = evaluation.gates;
        record.life_before = Some(life);
        record.memory_before = memory_before;
        let step = Step {
            id: self.state.next_number(),
            request: id,
            key: key.clone(),
            life,
            action: evaluation.action,
            phase: Phase::Hook { deadline: now.steady },
            record: record.clone(),
            slope_before,
            fleet_lock: evaluation.needs_fleet_lock,
            interrupted: false,
        };
        let step_id = step.id;
        self.state.steps.insert(request.daemon.clone(), step);
        if let Some(target) = self.state.requests.get_mut(&id).and_then(|request| request.targets.get_mut(&pm_id)) {
            target.state = TargetState::Acting;
        }
        self.record(record);
        self.prepare(step_id, now);
    }

    /// Tells pm2, once it is written down that it may have been told.
    pub(super) fn order_action(&mut self, step: u64, now: Now) {
        let Some(daemon) = self.daemon_of(step) else { return };
        let Some(step) = self.state.steps.get(&daemon).cloned() else { return };
        let app = step.record.app.clone();
        let settings = self.policy_settings(&daemon, &app).verify.clone();
        let Some(before) = self.world.process(&step.key) else { return };
        let age = self.world.uptime(before, now.steady);
        let sockets = self.sockets_before(&step.key, step.life);
        let verification = Verification::begin(step.life, age, before, sockets, &settings, now.steady);
        let deadline = before.listen_timeout + before.kill_timeout + ANSWER_GRACE;
        let (pm_id, held) = (step.key.pm_id, before.held);
        self.wake_by(verification.deadline());
        self.state.ledger.push(LedgerEntry {
            step: step.id,
            key: step.key.clone(),
            app: app.clone(),
            life: step.life,
            at: now.steady,
            rehearsal: false,
        });
        let order = Order { step: step.id, key: step.key, life: step.life, app: app.clone(), deadline };
        let sentence = step.record.sentence;
        if let Some(step) = self.state.steps.get_mut(&daemon) {
            step.phase = Phase::Ordered { answer: None, verification: Box::new(verification) };
            step.record.memory_before = held.or(step.record.memory_before);
        }
        self.order_when_kept(match step.action {
            Action::Reload => Command::Reload(order),
            Action::Restart => Command::Restart(order),
        });
        self.say(Severity::Info, NoticeKind::Restart, (&daemon, &app, Some(pm_id)), sentence);
    }

    fn rehearse(&mut self, id: u64, pm_id: u32, evaluation: Evaluation, sentence: String, now: Now) {
        let Some(request) = self.state.requests.get_mut(&id) else { return };
        let Some(target) = request.targets.get_mut(&pm_id) else { return };
        target.state = TargetState::Rehearsed;
        let life = target.life;
        let request = request.clone();
        self.holds.remove(&(id, pm_id));
        let key = ProcessKey { daemon: request.daemon.clone(), pm_id };
        let mut record = self.new_record(RecordKind::Rehearsal, &request.daemon, &request.app, sentence.clone(), now);
        record.pm_id = Some(pm_id);
        record.request = Some(id);
        record.trigger = Some(request.trigger);
        record.action = Some(evaluation.action);
        record.gates = evaluation.gates;
        record.life_before = Some(life);
        record.memory_before = self.world.process(&key).and_then(|process| process.held);
        let step = record.id;
        self.record(record);
        self.state.ledger.push(LedgerEntry {
            step,
            key,
            app: request.app.clone(),
            life,
            at: now.steady,
            rehearsal: true,
        });
        self.say(Severity::Info, NoticeKind::Rehearsal, (&request.daemon, &request.app, Some(pm_id)), sentence);
    }

    pub(super) fn daemon_of(&self, step: u64) -> Option<DaemonName> {
        self.state.steps.iter().find(|(_, it)| it.id == step).map(|(daemon, _)| daemon.clone())
    }

    /// Ends a step of which pm2 was told nothing; its target waits again.
    pub(super) fn cancel_step(&mut self, step: u64, why: &str, now: Now) {
        let Some(daemon) = self.daemon_of(step) else { return };
        let Some(step) = self.state.steps.remove(&daemon) else { return };
        self.wait_again(step.request, step.key.pm_id);
        let mut record = step.record;
        record.outcome = Some(Outcome::Cancelled);
        record.sentence = format!("{}; cancelled: {why}", record.sentence);
        let (app, text) = (record.app.clone(), record.sentence.clone());
        self.state.count_restart(&daemon, &app, step.action, Outcome::Cancelled);
        self.record(record);
        self.pause(step.request, now);
        self.say(Severity::Note, NoticeKind::Restart, (&daemon, &app, Some(step.key.pm_id)), text);
    }

    /// Lets a request rest after an attempt that came to nothing, longer each time.
    fn pause(&mut self, request: u64, now: Now) {
        if let Some(request) = self.state.requests.get_mut(&request) {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(request.idle_attempts.min(16));
            request.not_before = now.steady + pause.min(LONGEST_PAUSE);
            request.idle_attempts = request.idle_attempts.saturating_add(1);
        }
    }

    /// Takes in how an order to pm2 went.
    pub(super) fn acted(&mut self, step: u64, answer: Answer, now: Now) {
        let Some(daemon) = self.daemon_of(step) else { return };
        let Some(current) = self.state.steps.get_mut(&daemon) else { return };
        let Phase::Ordered { answer: known, verification } = &mut current.phase else { return };
        match &answer {
            Answer::Accepted { ready } => verification.answered(*ready),
            Answer::Refused(_) => verification.refused(now.steady),
            Answer::NotSent(_) | Answer::Unknown(_) => verification.answered(None),
        }
        *known = Some(answer.clone());
        self.touch();
        if let Answer::NotSent(why) = answer {
            self.nothing_done(&daemon, &why, true, now);
        }
    }

    /// Looks how far the steps have come.
    pub(super) fn advance_steps(&mut self, now: Now) {
        let daemons: Vec<DaemonName> = self.state.steps.keys().cloned().collect();
        for daemon in daemons {
            let Some(step) = self.state.steps.get_mut(&daemon) else { continue };
            let key = step.key.clone();
            let (answer, verification) = match &mut step.phase {
                Phase::Evidence { deadline } => {
                    let (id, deadline) = (step.id, *deadline);
                    self.wait_for_evidence(id, deadline, now);
                    continue;
                }
                Phase::Hook { deadline } => {
                    let (id, deadline) = (step.id, *deadline);
                    if now.steady >= deadline {
                        self.hook_ended(id, &Err("it did not end in time".to_owned()), now);
                    } else {
                        self.wake_by(deadline);
                    }
                    continue;
                }
                Phase::Ordered { answer, verification } => (answer.clone(), verification),
            };
            let before = verification.clone();
            let seen = self.world.daemons.get(&daemon).filter(|it| now.steady.since(it.at) <= LIST_FRESH);
            let progress = match seen {
                // One look that came to nothing is no lost daemon.
                Some(seen) if !seen.up => Progress::Waiting(Stage::NewLife),
                Some(seen) => {
                    let process = seen.processes.get(&key.pm_id);
                    let uptime = process.map_or(Duration::ZERO, |process| self.world.uptime(process, seen.at));
                    verification.observe(process, uptime, seen.at)
                }
                None => verification.unseen(now.steady),
            };
            let deadline = verification.deadline();
            let changed = *verification != before;
            // As long as pm2 has not answered, it may still be at work.
            let answered = answer.is_some() || step.interrupted || now.steady >= deadline + LOST_ANSWER;
            if changed {
                self.touch();
            }
            if let Some(step) = self.state.steps.get(&daemon).map(|step| step.id) {
                self.ask_meanwhile(step, now);
            }
            match progress {
                Progress::Waiting(_) => self.wake_by(deadline.max(now.steady + Duration::from_secs(1))),
                Progress::NothingHappened if answered => {
                    let (why, certain) = match &answer {
                        Some(Answer::Refused(why)) => (format!("pm2 refused ({why})"), true),
                        Some(Answer::Unknown(why)) => (format!("pm2 did not answer ({why})"), false),
                        _ => ("pm2 did nothing".to_owned(), false),
                    };
                    self.nothing_done(&daemon, &why, certain, now);
                }
                Progress::Verified { life, starts } if answered || now.steady >= deadline => {
                    self.verified(&daemon, life, starts, now);
                }
                Progress::Failed(failure) => self.failed(&daemon, &failure, now),
                Progress::Removed => self.removed(&daemon),
                Progress::NothingHappened | Progress::Verified { .. } => {
                    self.wake_by((deadline + LOST_ANSWER).max(now.steady + Duration::from_secs(1)));
                }
            }
        }
    }

    /// Ends a step after which the old life still runs. When it is certain that nothing was done, it does not count.
    fn nothing_done(&mut self, daemon: &DaemonName, why: &str, certain: bool, now: Now) {
        let Some(step) = self.state.steps.remove(daemon) else { return };
        if certain {
            self.state.ledger.retain(|entry| entry.step != step.id);
        }
        self.wait_again(step.request, step.key.pm_id);
        self.pause(step.request, now);
        self.forget_probes(step.id, &step.key);
        let mut record = step.record;
        record.outcome = Some(Outcome::NotCarriedOut);
        record.detail = Some(if certain { "refused" } else { "unknown" }.to_owned());
        record.sentence = format!("{}; the old instance goes on: {why}", record.sentence);
        let (app, text) = (record.app.clone(), record.sentence.clone());
        self.state.count_restart(daemon, &app, step.action, Outcome::NotCarriedOut);
        self.record(record);
        self.say(Severity::Info, NoticeKind::Restart, (daemon, &app, Some(step.key.pm_id)), text);
    }

    fn verified(&mut self, daemon: &DaemonName, life: Life, starts: u32, now: Now) {
        let Some(step) = self.state.steps.remove(daemon) else { return };
        let trigger = step.record.trigger;
        if let Some(request) = self.state.requests.get_mut(&step.request) {
            request.idle_attempts = 0;
            if let Some(target) = request.targets.get_mut(&step.key.pm_id) {
                target.state = TargetState::Done;
            }
        }
        self.forget_probes(step.id, &step.key);
        let mut record = step.record;
        let after = self.world.process(&step.key).and_then(|process| process.held);
        record.outcome = Some(Outcome::Verified);
        record.life_after = Some(life);
        record.memory_after = after;
        let took = Spoken(now.steady.since(record.at));
        record.sentence = format!("{}; the new instance was good after {took}{}", record.sentence, noticed(&record));
        if starts > 1 {
            record.sentence =
                format!("{} (somebody else restarted it too: {starts} starts were seen)", record.sentence);
        }
        if step.interrupted {
            record.sentence = format!("{} (the sidecar was restarted meanwhile)", record.sentence);
        }
        let effect = Effect { before: record.memory_before, slope_before: step.slope_before, ..Effect::default() };
        record.effect = Some(effect.clone());
        let app = record.app.clone();
        self.state.count_restart(daemon, &app, step.action, Outcome::Verified);
        self.state.effects.retain(|watch| watch.key != step.key);
        if record.memory_before.is_some() {
            let counts = matches!(trigger, Some(Trigger::Leak | Trigger::Memory | Trigger::Alert));
            let since = record.at;
            self.state.effects.push(EffectWatch {
                record: record.clone(),
                key: step.key.clone(),
                life,
                since,
                created_at: self.world.process(&step.key).and_then(|process| process.created_at),
                counts,
                effect,
            });
        }
        let text = record.sentence.clone();
        self.record(record);
        self.say(Severity::Info, NoticeKind::Restart, (daemon, &app, Some(step.key.pm_id)), text);
        self.note_closeness(daemon, &app, &step.key, now);
    }

    /// Opens the breaker when one process has been restarted too often of late.
    fn note_closeness(&mut self, daemon: &DaemonName, app: &AppName, key: &ProcessKey, now: Now) {
        let settings = self.policy_settings(daemon, app).breaker.clone();
        let forgiven = self.state.breaker(daemon, app).map(|breaker| breaker.forgiven);
        let close = self.state.ledger.iter().filter(|entry| {
            !entry.rehearsal
                && entry.key == *key
                && now.steady.since(entry.at) <= settings.too_close.0
                && forgiven.is_none_or(|forgiven| entry.at > forgiven)
        });
        let count = close.count();
        if count >= usize::try_from(settings.too_many).unwrap_or(usize::MAX) {
            let cause = format!("{key} was restarted {count} times within {}", Spoken(settings.too_close.0));
            self.trip(daemon, app, (Trouble::TooClose, None), &cause, now);
        }
    }

    /// Ends a step whose process somebody stopped or took away meanwhile: that is no failure, and the roll goes on.
    fn removed(&mut self, daemon: &DaemonName) {
        let Some(step) = self.state.steps.remove(daemon) else { return };
        if let Some(request) = self.state.requests.get_mut(&step.request) {
            request.idle_attempts = 0;
            if let Some(target) = request.targets.get_mut(&step.key.pm_id) {
                target.state = TargetState::Ended;
            }
        }
        self.forget_probes(step.id, &step.key);
        let mut record = step.record;
        record.outcome = Some(Outcome::Removed);
        record.sentence =
            format!("{}; it was stopped or removed meanwhile, on purpose{}", record.sentence, noticed(&record));
        let (app, text) = (record.app.clone(), record.sentence.clone());
        self.state.count_restart(daemon, &app, step.action, Outcome::Removed);
        self.record(record);
        self.say(Severity::Info, NoticeKind::Restart, (daemon, &app, Some(step.key.pm_id)), text);
    }

    /// Ends a step whose new instance is not good: the roll stops and the breaker opens.
    fn failed(&mut self, daemon: &DaemonName, failure: &Failure, now: Now) {
        let Some(step) = self.state.steps.remove(daemon) else { return };
        self.stop_roll(step.request, step.key.pm_id);
        self.forget_probes(step.id, &step.key);
        let mut record = step.record;
        let outcome =
            if matches!(failure, Failure::ReadinessUnknown { .. }) { Outcome::Unverified } else { Outcome::Failed };
        record.outcome = Some(outcome);
        record.detail = Some(failure.as_str().to_owned());
        record.life_after =
            self.world.process(&step.key).and_then(|process| process.life).filter(|life| *life != step.life);
        record.sentence = format!("{}; {failure}{}", record.sentence, noticed(&record));
        let (app, text) = (record.app.clone(), record.sentence.clone());
        self.state.count_restart(daemon, &app, step.action, outcome);
        self.record(record);
        self.say(Severity::Warning, NoticeKind::Restart, (daemon, &app, Some(step.key.pm_id)), text);
        let cause = format!("after the {} of {}: {failure}", step.action.as_str(), step.key);
        self.trip(daemon, &app, (Trouble::VerificationFailed, Some(failure.as_str())), &cause, now);
    }
}

impl Policy {
    /// Leaves alone whatever a request has not begun, after one of its replacements came to no good.
    fn stop_roll(&mut self, request: u64, failed: u32) {
        let Some(request) = self.state.requests.get_mut(&request) else { return };
        for (pm_id, target) in &mut request.targets {
            if *pm_id == failed {
                target.state = TargetState::Failed;
            } else if target.state == TargetState::Waiting {
                target.state = TargetState::Left;
            }
        }
    }

    /// Takes back that a replacement was good: the new instance ended by itself soon after.
    pub(super) fn ended_after_all(&mut self, mut record: AuditRecord, key: &ProcessKey, after: Duration, now: Now) {
        const DETAIL: &str = "ended_by_itself";
        if let Some(request) = record.request {
            self.stop_roll(request, key.pm_id);
        }
        let failure = format!("the new instance ended by itself {} after the replacement", Spoken(after));
        record.outcome = Some(Outcome::Failed);
        record.detail = Some(DETAIL.to_owned());
        record.sentence = format!("{}; {failure}", record.sentence);
        let (daemon, app, text) = (record.daemon.clone(), record.app.clone(), record.sentence.clone());
        self.record(record);
        self.say(Severity::Warning, NoticeKind::Restart, (&daemon, &app, Some(key.pm_id)), text);
        let cause = format!("{failure} of {key}");
        self.trip(&daemon, &app, (Trouble::VerificationFailed, Some(DETAIL)), &cause, now);
    }
}

/// Whether users noticed, as far as the probe tells.
fn noticed(record: &AuditRecord) -> String {
    let Some(ProbeCount { asked, failed }) = record.probes else { return String::new() };
    format!("; of {asked} probes meanwhile {failed} failed")
}
