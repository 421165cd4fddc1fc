//! What is asked of others: Prometheus, Alertmanager and the FleetLock server, and when the lock is given back.
//!
//! Questions go out only for targets that every gate of our own lets through; the fleet lock is asked for only when every
//! other gate is open, and given back as soon as nothing is under way. This room refuses to talk to anybody.

use std::time::Duration;

use super::command::{Command, LockAnswer};
use super::gates::Evaluation;
use super::machine::Policy;
use super::observation::Now;
use super::reason::{Gate, Reason};
use super::state::FleetLock;
use model::{AppName, DaemonName, ProcessKey};

/// How long a refusal of the fleet lock stands before it is asked for again.
const LOCK_RETRY: Duration = Duration::from_mins(1);
/// The first pause after a release that failed; it doubles up to [`LONGEST_RELEASE_PAUSE`].
const RELEASE_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RELEASE_PAUSE: Duration = Duration::from_mins(5);

impl Policy {
    /// Asks Prometheus and Alertmanager about a target that waits only for them.
    pub(super) fn ask_outside(&mut self, id: u64, pm_id: u32, evaluation: &Evaluation, now: Now) {
        let Some(request) = self.state.requests.get(&id) else { return };
        let name = (request.daemon.clone(), request.app.clone());
        self.ask_before(&ProcessKey { daemon: name.0.clone(), pm_id }, &name.1, evaluation, now);
        let timeout = self.settings.answer_timeout.0 * 2;
        let due = |asked: Option<&model::Steady>| asked.is_none_or(|at| now.steady.since(*at) > timeout);
        if evaluation.hold(Gate::Silence) == Some(&Reason::Asking(Gate::Silence)) && due(self.asking.silences.as_ref())
        {
            self.asking.silences = Some(now.steady);
            self.order(Command::AskSilences);
        }
        if evaluation.hold(Gate::Promql) == Some(&Reason::Asking(Gate::Promql)) && due(self.asking.promql.get(&name)) {
            let expressions = self.policy_settings(&name.0, &name.1).promql.iter();
            let expressions = expressions.map(|expression| put_names(expression, &name.0, &name.1)).collect();
            self.asking.promql.insert(name.clone(), now.steady);
            self.order(Command::AskPromql { daemon: name.0, app: name.1, expressions });
        }
        // An answer that does not come is asked for again.
        self.wake_by(now.steady + timeout + Duration::from_millis(1));
    }

    /// Asks for the fleet lock, once it is written down that it may be ours.
    pub(super) fn ask_for_fleet_lock(&mut self, now: Now) {
        let refused = self.answers.fleet_lock.as_ref().is_some_and(|(until, _)| now.steady < *until);
        let free = match self.state.fleet_lock {
            FleetLock::Free => true,
            // A release that waits to be tried again can be left out, one that is on its way cannot.
            FleetLock::Releasing { .. } => self.asking.fleet_lock.is_none(),
            FleetLock::Asked { .. } | FleetLock::Held { .. } => false,
        };
        if refused || !free {
            if let Some((until, _)) = self.answers.fleet_lock {
                self.wake_by(until.max(now.steady + Duration::from_secs(1)));
            }
            return;
        }
        self.answers.fleet_lock = None;
        self.state.fleet_lock = FleetLock::Asked { since: now.steady };
        self.asking.fleet_lock = Some(now.steady);
        self.order_when_kept(Command::AskFleetLock);
    }

    pub(super) fn fleet_lock_answered(&mut self, answer: LockAnswer, now: Now) {
        if !matches!(self.state.fleet_lock, FleetLock::Asked { .. }) {
            return;
        }
        self.asking.fleet_lock = None;
        self.touch();
        match answer {
            LockAnswer::Granted => self.state.fleet_lock = FleetLock::Held { since: now.steady },
            LockAnswer::Denied(why) => {
                self.state.fleet_lock = FleetLock::Free;
                self.answers.fleet_lock = Some((now.steady + LOCK_RETRY, Reason::FleetLockHeld(why)));
            }
            LockAnswer::Failed(why) => {
                self.state.fleet_lock = FleetLock::Releasing { next: now.steady, attempts: 0 };
                self.answers.fleet_lock = Some((now.steady + LOCK_RETRY, Reason::FleetLockFailed(why)));
            }
        }
    }

    pub(super) fn fleet_lock_released(&mut self, result: &Result<(), String>, now: Now) {
        let FleetLock::Releasing { attempts, .. } = self.state.fleet_lock else { return };
        self.asking.fleet_lock = None;
        self.touch();
        self.state.fleet_lock = if result.is_ok() {
            FleetLock::Free
        } else {
            let pause = (RELEASE_RETRY * 2_u32.saturating_pow(attempts.min(10))).min(LONGEST_RELEASE_PAUSE);
            FleetLock::Releasing { next: now.steady + pause, attempts: attempts.saturating_add(1) }
        };
    }

    /// Gives the lock back as soon as nothing is under way; tries again where that failed.
    pub(super) fn settle_fleet_lock(&mut self, now: Now) {
        let timeout = self.settings.answer_timeout.0 * 2;
        match self.state.fleet_lock {
            FleetLock::Free => {}
            FleetLock::Asked { since } => {
                if self.asking.fleet_lock.is_none() || now.steady.since(since) > timeout {
                    self.handle_lost_question(now);
                } else {
                    self.wake_by(since + timeout + Duration::from_millis(1));
                }
            }
            FleetLock::Held { .. } if self.state.steps.values().any(|step| step.fleet_lock) => {}
            // The next replacement waits for nothing but whether its process serves.
            FleetLock::Held { .. } if self.asking.probes.values().any(|at| now.steady.since(*at) <= timeout) => {
                self.wake_by(now.steady + timeout);
            }
            FleetLock::Held { .. } => {
                self.state.fleet_lock = FleetLock::Releasing { next: now.steady, attempts: 0 };
                self.touch();
                self.release(now);
            }
            FleetLock::Releasing { .. } => self.release(now),
        }
    }

    fn handle_lost_question(&mut self, now: Now) {
        self.fleet_lock_answered(LockAnswer::Failed("no answer came".to_owned()), now);
        self.release(now);
    }

    fn release(&mut self, now: Now) {
        let FleetLock::Releasing { next, .. } = self.state.fleet_lock else { return };
        let timeout = self.settings.answer_timeout.0 * 2;
        let under_way = self.asking.fleet_lock.is_some_and(|at| now.steady.since(at) <= timeout);
        if under_way {
            self.wake_by(now.steady + timeout);
        } else if now.steady >= next {
            self.asking.fleet_lock = Some(now.steady);
            self.order(Command::ReleaseFleetLock);
            self.wake_by(now.steady + timeout + Duration::from_millis(1));
        } else {
            self.wake_by(next);
        }
    }
}

/// Puts an app's and its daemon's names into an expression, as they must stand inside of PromQL's double quotes.
fn put_names(expression: &str, daemon: &DaemonName, app: &AppName) -> String {
    let quoted = |name: &str| name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let names = [("$daemon", daemon.as_str()), ("$namespace", app.namespace()), ("$app", app.name())];
    names.iter().fold(expression.to_owned(), |text, (word, name)| text.replace(word, &quoted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let expression = put_names("up{app=\"$app\",d=\"$daemon\"}", &"d".into(), &"a\"} or vector(1) #\\".into());
        assert_eq!(expression, "up{app=\"a\\\"} or vector(1) #\\\\\",d=\"d\"}");
    }
}
