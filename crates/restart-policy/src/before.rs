//! Before a replacement: evidence of what leaks, then the hook; after each of them every gate is asked once more.
//!
//! Evidence comes first, since a hook may drain the process and an idle one shows nothing. It never holds a restart: what
//! cannot be had is written into the record, and the restart goes on.

use std::time::Duration;

use super::command::{Command, EvidenceOrder, EvidenceTaken, HookOrder, NoticeKind, Severity};
use super::gates::Context;
use super::machine::Policy;
use super::observation::Now;
use super::reason::Decision;
use super::settings::{EvidenceBefore, HookFailure};
use super::state::{Phase, Step};
use super::steps::ANSWER_GRACE;
use model::{LeakState, Steady};

/// The pause after a hook has failed.
const HOOK_PAUSE: Duration = Duration::from_mins(5);

impl Policy {
    /// Does what comes before the order to pm2, if anything does.
    pub(super) fn prepare(&mut self, step: u64, now: Now) {
        let Some(current) = self.step_mut(step) else { return };
        let (key, life, app) = (current.key.clone(), current.life, current.record.app.clone());
        let process = self.world.process(&key);
        let verdict = process.filter(|process| process.life == Some(life)).and_then(|process| process.verdict.as_ref());
        let leaks = verdict.is_some_and(|verdict| verdict.state == LeakState::Leaking);
        let Some(EvidenceBefore { patience }) = self.settings.evidence.filter(|_| leaks) else {
            self.run_hook(step, now);
            return;
        };
        // The shell gives up by itself; this is for one that says nothing.
        let deadline = now.steady + patience + ANSWER_GRACE;
        if let Some(current) = self.step_mut(step) {
            current.phase = Phase::Evidence { deadline };
        }
        self.order_when_kept(Command::TakeEvidence(EvidenceOrder { step, key, life, app, patience }));
        self.wake_by(deadline);
    }

    fn step_mut(&mut self, step: u64) -> Option<&mut Step> {
        self.state.steps.values_mut().find(|it| it.id == step)
    }

    /// Gives evidence up that has not come by its deadline.
    pub(super) fn wait_for_evidence(&mut self, step: u64, deadline: Steady, now: Now) {
        if now.steady < deadline {
            self.wake_by(deadline);
            return;
        }
        self.evidence_ended(step, EvidenceTaken::none("it did not come in time"), now);
    }

    /// Takes in what came of an order to take evidence, and goes on.
    pub(super) fn evidence_ended(&mut self, step: u64, taken: EvidenceTaken, now: Now) {
        let Some(current) = self.step_mut(step).filter(|it| matches!(it.phase, Phase::Evidence { .. })) else { return };
        current.record.evidence = taken.id;
        current.record.sentence = format!("{}; {}", current.record.sentence, taken.sentence);
        let record = current.record.clone();
        self.record(record);
        if self.still_open(step, "while evidence was taken", now) {
            self.run_hook(step, now);
        }
    }

    fn run_hook(&mut self, step: u64, now: Now) {
        let Some(daemon) = self.daemon_of(step) else { return };
        let Some(app) = self.state.steps.get(&daemon).map(|step| step.record.app.clone()) else { return };
        let Some(hook) = self.policy_settings(&daemon, &app).hook.clone() else {
            self.order_action(step, now);
            return;
        };
        let deadline = now.steady + hook.timeout.0 + ANSWER_GRACE;
        let Some(current) = self.state.steps.get_mut(&daemon) else { return };
        current.phase = Phase::Hook { deadline };
        let (key, life) = (current.key.clone(), current.life);
        let order = HookOrder { step, key, life, app, command: hook.command, timeout: hook.timeout.0 };
        self.order_when_kept(Command::RunHook(order));
        self.wake_by(deadline);
    }

    /// Takes in how a hook ended: asks the gates once more, then tells pm2 or waits.
    pub(super) fn hook_ended(&mut self, step: u64, result: &Result<(), String>, now: Now) {
        let Some(daemon) = self.daemon_of(step) else { return };
        let Some(current) = self.state.steps.get(&daemon) else { return };
        if !matches!(current.phase, Phase::Hook { .. }) {
            return;
        }
        let (id, pm_id, app) = (current.request, current.key.pm_id, current.record.app.clone());
        let on_failure = self.policy_settings(&daemon, &app).hook.as_ref().map(|hook| hook.on_failure);
        if let Err(why) = result {
            if on_failure == Some(HookFailure::GoOn) {
                let text = format!("the hook for {daemon}/{pm_id} of {app} failed ({why}); going on without it");
                self.say(Severity::Warning, NoticeKind::Restart, (&daemon, &app, Some(pm_id)), text);
            } else {
                self.answers.hooks.insert(id, why.clone());
                self.cancel_step(step, &format!("the hook failed ({why})"), now);
                if let Some(request) = self.state.requests.get_mut(&id) {
                    request.not_before = now.steady + HOOK_PAUSE;
                }
                return;
            }
        }
        if self.still_open(step, "while the hook ran", now) {
            self.order_action(step, now);
        }
    }

    /// Asks every gate once more; where one has closed the step is cancelled.
    fn still_open(&mut self, step: u64, meanwhile: &str, now: Now) -> bool {
        let Some(daemon) = self.daemon_of(step) else { return false };
        let Some(current) = self.state.steps.get(&daemon) else { return false };
        let (id, pm_id) = (current.request, current.key.pm_id);
        let context = Context { own_step: Some(step), ..self.context() };
        let decision = self
            .state
            .requests
            .get(&id)
            .and_then(|request| Some((request, request.targets.get(&pm_id)?)))
            .map(|(request, target)| context.evaluate(request, pm_id, target, now));
        let why = match decision.map(|evaluation| (evaluation.decision, evaluation.gates)) {
            Some((Decision::Reload(_) | Decision::Restart(_), gates)) => {
                if let Some(step) = self.state.steps.get_mut(&daemon) {
                    step.record.gates = gates;
                }
                return true;
            }
            Some((Decision::Hold(reason), _)) => format!("{meanwhile} a gate closed: {reason}"),
            Some((Decision::WouldReload(_) | Decision::WouldRestart(_), _)) => format!("{meanwhile} the mode changed"),
            Some((Decision::UnderWay(_), _)) | None => format!("{meanwhile} the request went away"),
        };
        self.cancel_step(step, &why, now);
        false
    }
}
