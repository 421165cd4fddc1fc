//! The gates: what lets a restart through, each with its reason when it holds.
//!
//! Every gate is asked even after one has said no, so that a plan shows them all. What a gate needs from outside (the
//! answers of Prometheus, Alertmanager and a FleetLock server) has been put beside the state before; this room refuses
//! to ask anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use super::observation::{Now, ProcessObservation};
use super::reason::{Decision, Gate, GateResult, Reason};
use super::request::{Action, Request, Target};
use super::serving::{Listening, ProbeAnswer, Sockets};
use super::settings::{BeforeExhaustion, Mode, PolicySettings, RestartSettings};
use super::silence::Silence;
use super::state::{FleetLock, LedgerEntry, State};
use super::values::Spoken;
use super::window;
use super::world::World;
use model::{AppName, Bytes, DaemonName, LeakState, Life, ProcessKey, Status, Steady, WallTime};

/// How long an answer from outside is good for.
pub(super) const ANSWER_FRESH: Duration = Duration::from_mins(1);
/// The span of a budget.
pub(super) const DAY: Duration = Duration::from_hours(24);
/// How long pm2's reload lock is honoured.
const RELOAD_LOCK_LIFE: Duration = Duration::from_secs(30);

/// An answer from outside with its age.
#[derive(Debug, Clone)]
pub(super) struct Answered<T> {
    pub(super) at: Steady,
    pub(super) result: Result<T, String>,
}

/// The answers that are at hand.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub(super) promql: BTreeMap<(DaemonName, AppName), Answered<Vec<bool>>>,
    pub(super) silences: Option<Answered<Vec<Silence>>>,
    /// Whether processes serve, with when that was asked and the life it is about.
    pub(super) probes: BTreeMap<ProcessKey, (Steady, Life, ProbeAnswer)>,
    /// Why the fleet lock was not granted, and when it is asked for again.
    pub(super) fleet_lock: Option<(Steady, Reason)>,
    /// Why the state cannot be kept, and when it is tried again.
    pub(super) store: Option<(Steady, String)>,
    /// Why hooks failed, by request.
    pub(super) hooks: BTreeMap<u64, String>,
}

/// Everything the gates look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) settings: &'a RestartSettings,
    pub(super) fallback: &'a PolicySettings,
    pub(super) state: &'a State,
    pub(super) world: &'a World,
    pub(super) answers: &'a Answers,
    /// The step that is being decided anew, which does not stand in its own way.
    pub(super) own_step: Option<u64>,
    /// Whether this is about a time to come: what is seen now is taken to be so then, and answers that nobody has asked
    /// for yet do not hold.
    pub(super) ahead: bool,
}

/// What the gates say of one target.
#[derive(Debug, Clone)]
pub(super) struct Evaluation {
    pub(super) gates: Vec<GateResult>,
    pub(super) decision: Decision,
    pub(super) action: Action,
    pub(super) needs_fleet_lock: bool,
}

impl Evaluation {
    /// Whether no gate but the given ones holds.
    pub(super) fn open_but_for(&self, gates: &[Gate]) -> bool {
        self.gates.iter().all(|result| result.hold.is_none() || gates.contains(&result.gate))
    }

    pub(super) fn hold(&self, gate: Gate) -> Option<&Reason> {
        self.gates.iter().find(|result| result.gate == gate).and_then(|result| result.hold.as_ref())
    }
}

impl<'a> Context<'a> {
    /// The policy of an app, and how far it may go. An app that no policy names has not opted in.
    pub(super) fn policy(&self, daemon: &DaemonName, app: &AppName) -> (&'a PolicySettings, Mode, bool) {
        match self.settings.policy_of(daemon, app, self.world.is_module(daemon, app)) {
            Some((_, policy)) => (policy, self.settings.mode.min(policy.mode), true),
            None => (self.fallback, self.settings.mode.min(Mode::DryRun), false),
        }
    }

    /// Asks every gate about one target.
    pub(super) fn evaluate(&self, request: &Request, pm_id: u32, target: &Target, now: Now) -> Evaluation {
        let key = ProcessKey { daemon: request.daemon.clone(), pm_id };
        let process = self.world.process(&key);
        let action = Action::of(request.wish, process.is_some_and(|process| process.cluster));
        let (policy, mode, opted_in) = self.policy(&request.daemon, &request.app);
        let asked = Asked { context: self, request, key: &key, target, process, action, policy, mode, opted_in, now };
        let mut gates = vec![
            asked.mode(),
            asked.breaker(),
            asked.process(),
            asked.window(),
            asked.minimum_uptime(),
            asked.cooldown(),
            asked.app_budget(),
            asked.host_budget(),
            asked.one_at_a_time(),
            asked.siblings(),
            asked.reload_lock(),
            asked.host_memory(),
            asked.state(),
            asked.backoff(),
            asked.silence(),
            asked.promql(),
            asked.readiness(),
        ];
        let needs_fleet_lock = self.settings.fleet_lock.is_some() && policy.fleet_lock && mode == Mode::Enforce;
        gates.push(asked.fleet_lock(needs_fleet_lock));
        let rehearsal = mode != Mode::Enforce;
        let decision = match gates.iter().find_map(|result| result.hold.clone()) {
            Some(reason) => Decision::Hold(reason),
            None => asked.go(rehearsal),
        };
        Evaluation { gates, decision, action, needs_fleet_lock }
    }
}

struct Asked<'a> {
    context: &'a Context<'a>,
    request: &'a Request,
    key: &'a ProcessKey,
    target: &'a Target,
    process: Option<&'a ProcessObservation>,
    action: Action,
    policy: &'a PolicySettings,
    mode: Mode,
    opted_in: bool,
    now: Now,
}

impl Asked<'_> {
    fn go(&self, rehearsal: bool) -> Decision {
        let why = &self.target.reason;
        match (self.action, rehearsal) {
            (Action::Reload, false) => Decision::Reload(format!("reloads {} of {}: {why}", self.key, self.request.app)),
            (Action::Reload, true) => {
                Decision::WouldReload(format!("would reload {} of {}: {why}", self.key, self.request.app))
            }
            (Action::Restart, false) => Decision::Restart(format!(
                "restarts {} of {}, which drops its connections: {why}",
                self.key, self.request.app
            )),
            (Action::Restart, true) => Decision::WouldRestart(format!(
                "would restart {} of {}, which drops its connections: {why}",
                self.key, self.request.app
            )),
        }
    }

    fn mode(&self) -> GateResult {
        match self.mode {
            Mode::Off => GateResult::held(Gate::Mode, Reason::Off),
            Mode::DryRun if !self.opted_in => {
                GateResult::open(Gate::Mode, "no policy names the app, so this is a dry run: nothing is done")
            }
            Mode::DryRun => GateResult::open(Gate::Mode, "the mode is dry-run: nothing is done"),
            Mode::Enforce => GateResult::open(Gate::Mode, "the mode is enforce and the app has opted in"),
        }
    }

    fn breaker(&self) -> GateResult {
        let breaker = self.context.state.breaker(&self.request.daemon, &self.request.app);
        match breaker.and_then(|breaker| breaker.open.as_ref()).filter(|open| self.now.steady < open.until) {
            Some(open) => {
                let closes_in = open.until.since(self.now.steady);
                GateResult::held(Gate::Breaker, Reason::BreakerOpen { cause: open.cause.clone(), closes_in })
            }
            None => GateResult::open(Gate::Breaker, "the circuit breaker is closed"),
        }
    }

    fn process(&self) -> GateResult {
        let held = |reason| GateResult::held(Gate::Process, reason);
        if !self.context.ahead && self.context.world.fresh(&self.key.daemon, self.now.steady).is_none() {
            return held(Reason::Unseen);
        }
        let Some(process) = self.process else { return held(Reason::Unseen) };
        if process.status != Status::Online || process.life.is_none() {
            return held(Reason::NotOnline(process.status));
        }
        if process.life.is_some_and(|life| self.context.world.own_pids.contains(&life.pid)) {
            return held(Reason::Itself);
        }
        if process.life != Some(self.target.life) {
            return held(Reason::Unseen);
        }
        GateResult::open(Gate::Process, "it is online in the life that the request names")
    }

    fn window(&self) -> GateResult {
        let windows = &self.policy.windows;
        let at = self.now.timestamp();
        let open = |sentence: String| GateResult::open(Gate::Window, sentence);
        if windows.is_empty() {
            return open("no maintenance windows are set".to_owned());
        }
        if let Some(until) = window::closes_at(windows, at) {
            return open(format!(
                "a maintenance window is open until {}",
                WallTime(until.as_millisecond()).to_rfc3339()
            ));
        }
        if self.request.now {
            return open("a person asked not to wait for a window".to_owned());
        }
        let next = window::next_after(windows, at);
        let opens = next.map(|opening| WallTime(opening.from.as_millisecond()));
        let opens_in =
            opens.map(|opens| Duration::from_millis(u64::try_from(opens.0 - self.now.wall.0).unwrap_or_default()));
        let left = self
            .process
            .filter(|process| process.life == Some(self.target.life))
            .and_then(|process| process.verdict.as_ref())
            // Noise with a positive sign projects an end too: only a leak may leave the window.
            .filter(|verdict| verdict.state == LeakState::Leaking)
            .and_then(|verdict| verdict.time_left(self.now.steady));
        if self.policy.before_exhaustion == BeforeExhaustion::Allow
            && let Some(left) = left
            && opens_in.is_none_or(|opens_in| left < opens_in)
        {
            let window =
                opens_in.map_or("no window opens".to_owned(), |span| format!("a window opens in {}", Spoken(span)));
            return open(format!(
                "it goes early: memory is projected to be exhausted in {} and {window}",
                Spoken(left)
            ));
        }
        GateResult::held(Gate::Window, Reason::WindowClosed { opens, opens_in })
    }

    fn minimum_uptime(&self) -> GateResult {
        let minimum = self.policy.minimum_uptime.0;
        let uptime = self.process.map_or(Duration::ZERO, |process| self.context.world.uptime(process, self.now.steady));
        if self.request.now {
            GateResult::open(Gate::MinimumUptime, "a person asked not to wait for the minimum uptime")
        } else if uptime < minimum {
            GateResult::held(Gate::MinimumUptime, Reason::TooYoung { uptime, minimum })
        } else {
            GateResult::open(
                Gate::MinimumUptime,
                format!("it has run for {}, at least {} is asked", Spoken(uptime), Spoken(minimum)),
            )
        }
    }

    /// The ledger as it counts here: what was only rehearsed counts only in a rehearsal.
    fn ledger(&self) -> impl Iterator<Item = &LedgerEntry> {
        let rehearsal = self.mode != Mode::Enforce;
        self.context
            .state
            .ledger
            .iter()
            .filter(move |entry| rehearsal || !entry.rehearsal)
            .filter(|entry| self.context.own_step != Some(entry.step))
    }

    fn cooldown(&self) -> GateResult {
        let cooldown = self.policy.cooldown.0;
        let last = self.ledger().filter(|entry| entry.key == *self.key).map(|entry| entry.at).max();
        let forgotten = self.context.state.lost_at.map(|at| self.now.steady.since(at));
        if let Some(ago) = forgotten.filter(|ago| *ago < cooldown) {
            return GateResult::held(Gate::Cooldown, Reason::MemoryLost { ago, cooldown });
        }
        let Some(last) = last else {
            return GateResult::open(Gate::Cooldown, "no restart of it is remembered");
        };
        let ago = self.now.steady.since(last);
        if ago < cooldown {
            GateResult::held(Gate::Cooldown, Reason::CoolingDown { ago, cooldown })
        } else {
            GateResult::open(Gate::Cooldown, format!("its last restart was {} ago", Spoken(ago)))
        }
    }

    fn app_budget(&self) -> GateResult {
        let budget = self.policy.budget_per_day;
        let of_app = |entry: &&LedgerEntry| entry.key.daemon == self.key.daemon && entry.app == self.request.app;
        match spent(self.ledger().filter(of_app), budget, self.now.steady) {
            Ok(left) => {
                GateResult::open(Gate::AppBudget, format!("{left} of the app's {budget} restarts a day are left"))
            }
            Err(frees_in) => GateResult::held(Gate::AppBudget, Reason::AppBudgetSpent { budget, frees_in }),
        }
    }

    fn host_budget(&self) -> GateResult {
        let budget = self.context.settings.budget_per_host;
        match spent(self.ledger(), budget, self.now.steady) {
            Ok(left) => {
                GateResult::open(Gate::HostBudget, format!("{left} of the host's {budget} restarts a day are left"))
            }
            Err(frees_in) => GateResult::held(Gate::HostBudget, Reason::HostBudgetSpent { budget, frees_in }),
        }
    }

    fn one_at_a_time(&self) -> GateResult {
        match self.context.state.steps.get(&self.key.daemon) {
            Some(step) if self.context.own_step != Some(step.id) => {
                GateResult::held(Gate::OneAtATime, Reason::Busy { app: step.record.app.to_string() })
            }
            _ => GateResult::open(Gate::OneAtATime, "nothing else is under way in the daemon"),
        }
    }

    fn siblings(&self) -> GateResult {
        let stable = self.policy.verify.stable_for.0;
        let mut healthy = 0_usize;
        let mut away = 0_usize;
        for sibling in self.context.world.processes_of(&self.key.daemon, &self.request.app) {
            // A process that was stopped on purpose does not belong to those that serve.
            if sibling.key == *self.key || sibling.status == Status::Stopped {
                continue;
            }
            let uptime = self.context.world.uptime(sibling, self.now.steady);
            if sibling.status == Status::Online && !sibling.frozen && uptime >= stable.max(sibling.min_uptime) {
                healthy += 1;
            } else {
                away += 1;
            }
        }
        let allowed = self.policy.max_unavailable;
        if away + 1 > usize::try_from(allowed).unwrap_or(usize::MAX) {
            return GateResult::held(Gate::Siblings, Reason::SiblingsAway { away, allowed });
        }
        if healthy == 0 && !self.policy.take_last_instance {
            return GateResult::held(Gate::Siblings, Reason::LastInstance);
        }
        GateResult::open(Gate::Siblings, format!("{healthy} other instances are healthy, {away} are away"))
    }

    fn reload_lock(&self) -> GateResult {
        let lock = self.context.world.daemons.get(&self.key.daemon).and_then(|seen| seen.reload_lock);
        let held = lock.map(|since| Duration::from_millis(since.0.abs_diff(self.now.wall.0)));
        match held.filter(|held| *held < RELOAD_LOCK_LIFE) {
            Some(held) => GateResult::held(Gate::ReloadLock, Reason::ReloadLocked { held }),
            None => GateResult::open(Gate::ReloadLock, "pm2's reload lock is free"),
        }
    }

    fn host_memory(&self) -> GateResult {
        if self.action == Action::Restart {
            return GateResult::open(Gate::HostMemory, "a restart needs no memory for a second instance");
        }
        let host = self.context.world.host;
        if host.memory_total == Bytes(0) {
            return GateResult::held(Gate::HostMemory, Reason::HostMemoryUnknown);
        }
        let held = self.process.and_then(|process| process.held).unwrap_or_default();
        let needed = held.saturating_add(self.context.settings.host_memory_reserve.0);
        let available = host.memory_available;
        if available < needed {
            GateResult::held(Gate::HostMemory, Reason::HostMemoryShort { available, needed })
        } else {
            GateResult::open(
                Gate::HostMemory,
                format!("a second instance fits: {available} available, {needed} needed"),
            )
        }
    }

    fn backoff(&self) -> GateResult {
        let not_before = self.request.not_before;
        if self.now.steady >= not_before {
            return GateResult::open(Gate::Backoff, "no attempt came to nothing of late");
        }
        let tries_in = not_before.since(self.now.steady);
        let reason = match self.context.answers.hooks.get(&self.request.id) {
            Some(why) => Reason::HookFailed { why: why.clone(), tries_in },
            None => Reason::BackingOff { tries_in },
        };
        GateResult::held(Gate::Backoff, reason)
    }

    fn state(&self) -> GateResult {
        match &self.context.answers.store {
            Some((_, why)) => GateResult::held(Gate::State, Reason::StateNotKept(why.clone())),
            None => GateResult::open(Gate::State, "the restart can be written down first"),
        }
    }

    fn silence(&self) -> GateResult {
        let Some(alertmanager) = self.context.settings.alertmanager.as_ref().filter(|it| it.honour_silences) else {
            return GateResult::open(Gate::Silence, "no Alertmanager is set whose silences count");
        };
        let held = |reason| GateResult::held(Gate::Silence, reason);
        let silences = self.context.answers.silences.as_ref().filter(|it| fresh(it.at, self.now.steady));
        match silences.map(|answer| &answer.result) {
            None if self.context.ahead => GateResult::open(Gate::Silence, "silences are asked for then"),
            None => held(Reason::Asking(Gate::Silence)),
            Some(Err(why)) => held(Reason::SilencesUnknown(why.clone())),
            Some(Ok(silences)) => {
                let mut labels = alertmanager.labels.clone();
                for (name, value) in [
                    ("alertname", "LeakslopeRestart".to_owned()),
                    ("daemon", self.key.daemon.to_string()),
                    ("namespace", self.request.app.namespace().to_owned()),
                    ("app", self.request.app.name().to_owned()),
                    ("pm_id", self.key.pm_id.to_string()),
                    ("leakslope_action", self.action.as_str().to_owned()),
                ] {
                    labels.insert(name.to_owned(), value);
                }
                match silences.iter().find(|silence| silence.covers(&labels)) {
                    Some(silence) => {
                        held(Reason::Silenced { id: silence.id.clone(), comment: silence.comment.clone() })
                    }
                    None => GateResult::open(Gate::Silence, "no silence covers it"),
                }
            }
        }
    }

    fn promql(&self) -> GateResult {
        let expressions = &self.policy.promql;
        if expressions.is_empty() {
            return GateResult::open(Gate::Promql, "no expressions are set");
        }
        let held = |reason| GateResult::held(Gate::Promql, reason);
        let name = (self.request.daemon.clone(), self.request.app.clone());
        let answer = self.context.answers.promql.get(&name).filter(|it| fresh(it.at, self.now.steady));
        match answer.map(|answer| &answer.result) {
            None if self.context.ahead => GateResult::open(Gate::Promql, "Prometheus is asked then"),
            None => held(Reason::Asking(Gate::Promql)),
            Some(Err(why)) => held(Reason::PromqlFailed(why.clone())),
            Some(Ok(returned)) if returned.len() != expressions.len() => {
                held(Reason::PromqlFailed("an answer to other expressions".to_owned()))
            }
            Some(Ok(returned)) => match expressions.iter().zip(returned).find(|(_, returned)| !**returned) {
                Some((expression, _)) => held(Reason::PromqlClosed { expression: expression.clone() }),
                None => GateResult::open(Gate::Promql, "every expression returns a sample"),
            },
        }
    }

    /// Whether it can be known that the new instance serves. What needs no question is open, and the sentence warns of what
    /// pm2 does to a worker that is slow.
    fn readiness(&self) -> GateResult {
        let verify = &self.policy.verify;
        let open = |sentence: String| GateResult::open(Gate::Readiness, sentence);
        let cluster = self.process.is_some_and(|process| process.cluster);
        let has_probe = verify.probe().is_some();
        let answer = self.context.answers.probes.get(self.key);
        let answer = answer.filter(|(at, life, _)| {
            (fresh(*at, self.now.steady) || self.context.own_step.is_some()) && *life == self.target.life
        });
        // Which ports lead to a worker is asked only where it is to be replaced in earnest: it takes connections.
        let to_ask = verify.ready && cluster && self.mode == Mode::Enforce && answer.is_none() && !self.context.ahead;
        if !has_probe && (cluster || !verify.ready) && !to_ask {
            let reached = match answer.and_then(|(_, _, answer)| answer.sockets.as_ref()) {
                Some(Sockets::Reached(ports)) if !ports.is_empty() => {
                    format!(
                        "connections reach it by {}, and must reach the new worker; ",
                        Listening::from(ports.clone())
                    )
                }
                _ => String::new(),
            };
            return open(match self.process.filter(|_| verify.ready) {
                Some(process) => format!(
                    "{reached}pm2 waits {} (listen_timeout) for the new worker to {}, then ends the old one all the same; a worker \
                     that needs longer, or of which this cannot be known, stops the roll after it; no probe is set \
                     (verify.http)",
                    Spoken(process.listen_timeout),
                    if process.wait_ready { "say that it is ready" } else { "listen" },
                ),
                None => "verify.ready is false and no probe is set: the new instance need only stay up".to_owned(),
            });
        }
        let held = |reason| GateResult::held(Gate::Readiness, reason);
        match answer.map(|(_, _, answer)| answer) {
            None if self.context.ahead => open("it is asked then whether it serves".to_owned()),
            Some(ProbeAnswer { probe: Some(Err(why)), .. }) => held(Reason::ProbeFails(why.clone())),
            Some(ProbeAnswer { probe: Some(Ok(())), .. }) => open("the probe succeeds".to_owned()),
            Some(ProbeAnswer { sockets: Some(Sockets::Listens(ports)), .. }) if ports.is_empty() => {
                open("it listens nowhere, so the new instance need only stay up".to_owned())
            }
            Some(ProbeAnswer { sockets: Some(Sockets::Listens(ports)), .. }) => {
                open(format!("it listens on {ports}, and so must the new instance"))
            }
            Some(ProbeAnswer { sockets: Some(Sockets::Unseen(why)), .. }) => {
                held(Reason::ReadinessUnknown(why.clone()))
            }
            None | Some(_) => held(Reason::Asking(Gate::Readiness)),
        }
    }

    fn fleet_lock(&self, needed: bool) -> GateResult {
        if !needed {
            return GateResult::open(Gate::FleetLock, "no fleet lock is needed");
        }
        let held = |reason| GateResult::held(Gate::FleetLock, reason);
        match self.context.state.fleet_lock {
            FleetLock::Held { .. } => GateResult::open(Gate::FleetLock, "the fleet lock is ours"),
            FleetLock::Asked { .. } => held(Reason::Asking(Gate::FleetLock)),
            FleetLock::Free | FleetLock::Releasing { .. } => match &self.context.answers.fleet_lock {
                Some((until, reason)) if self.now.steady < *until => held(reason.clone()),
                _ if self.context.ahead => GateResult::open(Gate::FleetLock, "the fleet lock is asked for then"),
                _ => held(Reason::FleetLockNotAsked),
            },
        }
    }
}

fn fresh(at: Steady, now: Steady) -> bool {
    now.since(at) <= ANSWER_FRESH
}

/// Returns what is left of a budget, or when the next restart comes free.
fn spent<'a>(entries: impl Iterator<Item = &'a LedgerEntry>, budget: u32, now: Steady) -> Result<u32, Duration> {
    let mut counted: Vec<Steady> = entries.map(|entry| entry.at).filter(|at| now.since(*at) < DAY).collect();
    counted.sort_unstable();
    let used = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    if used < budget {
        return Ok(budget - used);
    }
    let index = usize::try_from(used - budget).unwrap_or(0);
    Err(counted.get(index).map_or(DAY, |at| (*at + DAY).since(now)))
}

/// Returns what is left of an app's budget and of the host's, for metrics.
pub(super) fn budgets_left(
    state: &State,
    settings: &RestartSettings,
    daemon: &DaemonName,
    app: &AppName,
    budget: u32,
    now: Steady,
) -> (u32, u32) {
    let real = || state.ledger.iter().filter(|entry| !entry.rehearsal);
    let of_app = real().filter(|entry| entry.key.daemon == *daemon && entry.app == *app);
    (spent(of_app, budget, now).unwrap_or(0), spent(real(), settings.budget_per_host, now).unwrap_or(0))
}
