//! What would happen now and at the next window, and why: for people, the API and the metrics.
//!
//! The same gates as in earnest, asked without consequence. What is seen now is taken to be so then.

use std::collections::BTreeMap;

use serde::Serialize;

use super::gates::{Context, budgets_left};
use super::machine::Policy;
use super::observation::Now;
use super::reason::{Decision, GateResult, Reason};
use super::request::{Action, PersonCall, Request, Target, TargetState, Trigger};
use super::settings::Mode;
use super::triggers::Refusal;
use super::window;
use model::Spoken;
use model::{AppName, DaemonName, WallTime};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// When it was made.
    pub at: WallTime,
    /// Every target of every open request.
    pub entries: Vec<PlanEntry>,
    /// Every app that pm2 lists.
    pub apps: Vec<AppPlan>,
}

/// What a person's request would do, before it is made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preview {
    /// The processes it would be about.
    pub targets: Vec<PreviewTarget>,
    /// What would happen, in sentences.
    pub sentences: Vec<String>,
}

/// One process that a request would be about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreviewTarget {
    /// The daemon.
    pub daemon: DaemonName,
    /// The process.
    pub pm_id: u32,
    /// What would happen to it now.
    pub decision: Decision,
}

/// What would happen to one process that something asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanEntry {
    /// The request.
    pub request: u64,
    /// What asked.
    pub trigger: Trigger,
    /// Why it asked.
    pub reason: String,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The process.
    pub pm_id: u32,
    /// How far it has come.
    pub state: TargetState,
    /// What would happen now.
    pub now: Decision,
    /// What every gate says now.
    pub gates: Vec<GateResult>,
    /// When the next window opens, if none is open now.
    pub next_window: Option<WallTime>,
    /// What would happen then, as far as can be told now.
    pub then: Option<Decision>,
    /// The whole as a sentence.
    pub sentence: String,
}

/// How one app stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppPlan {
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The policy that names it, by its place in the configuration.
    pub policy: Option<usize>,
    /// How far restarts of it may go.
    pub mode: Mode,
    /// What asks for a restart of it at present, if anything.
    pub requests: usize,
    /// The figures.
    pub gauges: AppGauges,
}

/// The figures of one app, for metrics and the page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AppGauges {
    /// Restarts left of the app's budget.
    pub budget_left: u32,
    /// Restarts left of the host's budget.
    pub host_budget_left: u32,
    /// Whether the breaker is open: the short word for why.
    pub breaker_open: Option<String>,
    /// When the next window opens; none when one is open or none is set.
    pub next_window: Option<WallTime>,
    /// Targets held, by the label of the reason; none where nothing would be done anyway.
    pub blocked: BTreeMap<&'static str, usize>,
    /// Memory that the latest measured restart freed, in bytes.
    pub memory_freed: Option<i64>,
}

impl Policy {
    /// Tells what would happen now and at the next window.
    pub fn plan(&self, now: Now) -> Plan {
        let context = self.context();
        let ahead = Context { ahead: true, ..context };
        let mut entries = Vec::new();
        for request in self.state.requests.values() {
            for (pm_id, target) in request.targets.iter().filter(|(_, target)| !target.state.is_final()) {
                let mut evaluation = context.evaluate(request, *pm_id, target, now);
                if target.state == TargetState::Acting {
                    evaluation.decision = Decision::UnderWay(format!("is being replaced: {}", target.reason));
                }
                let (policy, _, _) = context.policy(&request.daemon, &request.app);
                let waits = matches!(evaluation.decision, Decision::Hold(_));
                let opening = (waits && !window::open_at(&policy.windows, now.timestamp()))
                    .then(|| window::next_after(&policy.windows, now.timestamp()))
                    .flatten();
                let next_window = opening.map(|opening| WallTime(opening.from.as_millisecond()));
                let then = next_window.map(|opens| {
                    let span = u64::try_from(opens.0.saturating_sub(now.wall.0)).unwrap_or(0);
                    let then = now.later(std::time::Duration::from_millis(span));
                    ahead.evaluate(request, *pm_id, target, then).decision
                });
                let sentence = sentence(&evaluation.decision, next_window, then.as_ref(), now);
                entries.push(PlanEntry {
                    request: request.id,
                    trigger: request.trigger,
                    reason: target.reason.clone(),
                    daemon: request.daemon.clone(),
                    app: request.app.clone(),
                    pm_id: *pm_id,
                    state: target.state,
                    now: evaluation.decision,
                    gates: evaluation.gates,
                    next_window,
                    then,
                    sentence,
                });
            }
        }
        let apps = self.world.apps().into_iter().map(|(daemon, app)| self.app_plan(daemon, app, now)).collect();
        Plan { at: now.wall, entries, apps }
    }

    /// Tells what a person's request would do, by the gates that it would meet; nothing is asked or kept.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn preview(&self, call: &PersonCall, now: Now) -> Result<Preview, Refusal> {
        let context = Context { ahead: true, ..self.context() };
        let (mut targets, mut sentences) = (Vec::new(), Vec::new());
        let (mut reloads, mut restarts, mut holds) = (0_usize, 0_usize, BTreeMap::new());
        for (daemon, app, lives) in self.meant(call, now)? {
            let mut request = Request::new(0, Trigger::Person, &daemon, &app, String::new(), now);
            (request.wish, request.now) = (call.wish(), call.now);
            let (_, mode, opted_in) = context.policy(&daemon, &app);
            if mode != Mode::Enforce {
                let why = if opted_in { "the mode is dry-run" } else { "no policy names this app" };
                sentences.push(format!(
                    "This is a dry run ({why}): nothing will be restarted; what would have happened is recorded"
                ));
            }
            for (pm_id, life) in lives {
                let target = Target { life, state: TargetState::Waiting, reason: "a person asked for it".to_owned() };
                let evaluation = context.evaluate(&request, pm_id, &target, now);
                match evaluation.action {
                    Action::Reload => reloads += 1,
                    Action::Restart => restarts += 1,
                }
                if let Decision::Hold(reason) = &evaluation.decision {
                    holds.entry(reason.label()).or_insert_with(|| reason.to_string());
                }
                targets.push(PreviewTarget { daemon: daemon.clone(), pm_id, decision: evaluation.decision });
            }
        }
        if call.now {
            let text = "It does not wait for a maintenance window or for the minimum uptime; every other gate can still hold it";
            sentences.push(text.to_owned());
        }
        sentences.extend(holds.into_values().map(|reason| format!("It waits: {reason}")));
        if reloads > 0 {
            sentences.push(format!(
                "One at a time pm2 reloads {reloads} {}: a new worker starts before the old one stops, so connections are \
                 kept if the app closes gracefully",
                if reloads == 1 { "worker" } else { "workers" }
            ));
        }
        if restarts > 0 {
            sentences.push(format!(
                "Open connections drop: pm2 stops {restarts} {} and starts anew, and requests fail until the app is back",
                if restarts == 1 { "process" } else { "processes" }
            ));
        }
        Ok(Preview { targets, sentences })
    }

    fn app_plan(&self, daemon: DaemonName, app: AppName, now: Now) -> AppPlan {
        let (policy, mode, _) = self.context().policy(&daemon, &app);
        let of_app = |request: &&Request| request.daemon == daemon && request.app == app;
        let at = now.timestamp();
        let (budget_left, host_budget_left) =
            budgets_left(&self.state, &self.settings, &daemon, &app, policy.budget_per_day, now.steady);
        let breaker = self.state.breaker(&daemon, &app).and_then(|breaker| breaker.open.as_ref());
        let mut blocked = BTreeMap::new();
        for request in self.state.requests.values().filter(of_app).filter(|_| mode == Mode::Enforce) {
            for pm_id in request.targets.iter().filter(|(_, it)| it.state == TargetState::Waiting).map(|(id, _)| id) {
                if let Some(reason) = self.holds.get(&(request.id, *pm_id)) {
                    *blocked.entry(Reason::label(reason)).or_default() += 1;
                }
            }
        }
        let freed = self.state.totals.freed.iter().find(|freed| freed.daemon == daemon && freed.app == app);
        AppPlan {
            policy: self.settings.policy_of(&daemon, &app, self.world.is_module(&daemon, &app)).map(|(index, _)| index),
            mode,
            requests: self.state.requests.values().filter(of_app).count(),
            gauges: AppGauges {
                budget_left,
                host_budget_left,
                breaker_open: breaker.map(|open| open.reason().to_owned()),
                next_window: (!window::open_at(&policy.windows, at))
                    .then(|| window::next_after(&policy.windows, at))
                    .flatten()
                    .map(|opening| WallTime(opening.from.as_millisecond())),
                blocked,
                memory_freed: freed.map(|freed| freed.bytes),
            },
            daemon,
            app,
        }
    }
}

fn sentence(decision: &Decision, next_window: Option<WallTime>, then: Option<&Decision>, now: Now) -> String {
    let told = |decision: &Decision| match decision {
        Decision::Hold(reason) => format!("held: {reason}"),
        Decision::UnderWay(text)
        | Decision::Reload(text)
        | Decision::Restart(text)
        | Decision::WouldReload(text)
        | Decision::WouldRestart(text) => text.clone(),
    };
    let mut text = format!("now: {}", told(decision));
    if let (Some(opens), Some(then)) = (next_window, then) {
        let span = std::time::Duration::from_millis(u64::try_from(opens.0.saturating_sub(now.wall.0)).unwrap_or(0));
        text = format!("{text}; when the window opens in {}: {}", Spoken(span), told(then));
    }
    text
}
