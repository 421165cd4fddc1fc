//! What asks: verdicts, thresholds, schedules, alerts and people become requests with targets.
//!
//! One open request for each app and trigger; what asks again joins it. This room refuses to look at gates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::audit::RecordKind;
use super::breaker::Breaker;
use super::command::{NoticeKind, Severity};
use super::machine::Policy;
use super::observation::{Now, ProcessObservation};
use super::request::{AlertCall, PersonCall, Request, RequestEnd, Target, TargetState, Trigger, Wish};
use super::settings::{Mode, Only, PolicySettings};
use super::state::AlertMemory;
use model::Spoken;
use model::{AppName, Bytes, DaemonName, LeakState, Life, Status, Steady, WallTime, plain};

/// Open requests at the most; what asks beyond that is refused and asks again later.
const MOST_REQUESTS: usize = 2000;
/// Alerts remembered at the most: with the longest names they take half of one piece of durable state.
const MOST_ALERTS: usize = 1000;
/// Names that a refusal lists at the most.
const MOST_NAMES: usize = 20;
/// How long the end of an alert is remembered, so that late deliveries of its beginning ask for nothing.
const RESOLVED_FOR: Duration = Duration::from_hours(24);
/// A time of a schedule that was missed by more than this is skipped.
const LONGEST_MISSED: Duration = Duration::from_hours(1);

/// Lives by `pm_id`, each with why it is asked for.
type Lives = BTreeMap<u32, (Life, String)>;

/// What a person's request means in one daemon: the app and its lives.
type Meant = (DaemonName, AppName, BTreeMap<u32, Life>);

/// Why a person's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {kind}")]
pub struct Refusal {
    /// The app or request.
    pub subject: String,
    /// Why.
    pub kind: RefusalKind,
}

/// The ways to refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalKind {
    /// No such app or process.
    #[error("no running process of this name is known; {there}")]
    Unknown {
        /// What there is instead.
        there: String,
    },
    /// Several namespaces have an app of this name.
    #[error("several namespaces have an app of this name: name one of these")]
    SeveralApps,
    /// Restarts are off.
    #[error("restarts are switched off (mode = \"off\")")]
    Off,
    /// Too many requests are open.
    #[error("too many requests are open")]
    TooMany,
    /// No such request.
    #[error("no such request is open")]
    NoRequest,
    /// It has begun.
    #[error("it has begun already")]
    Begun,
    /// No breaker is open.
    #[error("no circuit breaker of this name is open; {there}")]
    NoBreaker {
        /// Whose are.
        there: String,
    },
}

impl Policy {
    /// Takes a person's request; returns the numbers of the requests that now stand for it, one a daemon. Asking twice
    /// for the same makes no second request.
    pub fn ask(&mut self, call: &PersonCall, now: Now) -> Result<Vec<u64>, Refusal> {
        let mut asked = Vec::new();
        for (daemon, app, targets) in self.meant(call, now)? {
            let wish = call.wish();
            let same = self.state.requests.values().find(|request| {
                request.trigger == Trigger::Person
                    && (&request.daemon, &request.app) == (&daemon, &app)
                    && (request.wish, request.now) == (wish, call.now)
                    && targets
                        .iter()
                        .all(|(pm_id, life)| request.targets.get(pm_id).is_some_and(|target| target.life == *life))
            });
            if let Some(same) = same {
                asked.push(same.id);
                continue;
            }
            if self.state.requests.len() >= MOST_REQUESTS {
                continue;
            }
            let who = if call.who.is_empty() { "a person" } else { &call.who };
            let mut reason = format!("{} asked for it", bounded(who));
            if !call.why.is_empty() {
                reason = format!("{reason}: {}", bounded(&call.why));
            }
            let mut request = Request::new(0, Trigger::Person, &daemon, &app, reason, now);
            request.wish = wish;
            request.now = call.now;
            let targets = waiting(targets, &request.reason);
            asked.push(self.open_request(request, targets, now));
        }
        if asked.is_empty() {
            return Err(Refusal { subject: call.app.to_string(), kind: RefusalKind::TooMany });
        }
        self.settle(now);
        Ok(asked)
    }

    /// The lives that a person means, by daemon and app.
    pub(super) fn meant(&self, call: &PersonCall, now: Now) -> Result<Vec<Meant>, Refusal> {
        let names: Vec<DaemonName> = match &call.daemon {
            Some(daemon) => vec![daemon.clone()],
            None => self.world.daemons.keys().cloned().collect(),
        };
        let mut off = false;
        let mut meant = Vec::new();
        for daemon in names {
            let apps = self.world.meant(&daemon, &call.app, call.pm_id);
            if apps.len() > 1 {
                let subject = apps.iter().map(AppName::qualified).collect::<Vec<_>>().join(", ");
                return Err(Refusal { subject, kind: RefusalKind::SeveralApps });
            }
            for app in apps {
                let targets = self.targets_of(&daemon, &app, call.pm_id, call.all, now);
                if targets.is_empty() {
                    continue;
                }
                if self.context().policy(&daemon, &app).1 == Mode::Off {
                    off = true;
                } else {
                    meant.push((daemon.clone(), app, targets));
                }
            }
        }
        let kind = match (meant.is_empty(), off) {
            (false, _) => return Ok(meant),
            (true, true) => RefusalKind::Off,
            (true, false) => {
                RefusalKind::Unknown { there: self.what_there_is(call.daemon.as_ref(), &call.app, call.pm_id) }
            }
        };
        Err(Refusal { subject: call.app.to_string(), kind })
    }

    /// Withdraws a request of whatever trigger that has not begun.
    pub fn withdraw(&mut self, request: u64, who: &str, now: Now) -> Result<(), Refusal> {
        let refuse = |kind| Refusal { subject: format!("request {request}"), kind };
        let open = self.state.requests.get(&request).ok_or_else(|| refuse(RefusalKind::NoRequest))?;
        if open.started() {
            return Err(refuse(RefusalKind::Begun));
        }
        let open = open.clone();
        self.alerts_served(&open);
        self.end_request(request, RequestEnd::Withdrawn, &format!("{} took it back", bounded(who)), now);
        self.settle(now);
        Ok(())
    }

    /// Closes the breakers of an app; in all daemons when none is named. Returns why each had opened.
    pub fn reset_breaker(
        &mut self,
        daemon: Option<&DaemonName>,
        app: &AppName,
        who: &str,
        now: Now,
    ) -> Result<Vec<String>, Refusal> {
        let named = |breaker: &Breaker| {
            breaker.open.is_some() && app.means(&breaker.app) && daemon.is_none_or(|daemon| breaker.daemon == *daemon)
        };
        let apps: BTreeSet<String> =
            self.state.breakers.iter().filter(|it| named(it)).map(|it| it.app.qualified()).collect();
        if apps.len() > 1 {
            let subject = apps.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Refusal { subject, kind: RefusalKind::SeveralApps });
        }
        let mut closed = Vec::new();
        for breaker in self.state.breakers.iter_mut().filter(|it| named(it)) {
            if let Some(open) = breaker.reset(now.steady) {
                closed.push((breaker.daemon.clone(), breaker.app.clone(), open.cause));
            }
        }
        if closed.is_empty() {
            let open = self.state.breakers.iter().filter(|breaker| breaker.open.is_some());
            let open: BTreeSet<String> = open.map(|breaker| breaker.app.to_string()).collect();
            let there = if open.is_empty() {
                "none is".to_owned()
            } else {
                format!("open are those of {}", open.into_iter().collect::<Vec<_>>().join(", "))
            };
            return Err(Refusal { subject: app.to_string(), kind: RefusalKind::NoBreaker { there } });
        }
        let mut causes = Vec::new();
        for (daemon, app, cause) in closed {
            self.breaker_closed(&daemon, &app, &format!("{} reset it", bounded(who)), now);
            causes.push(cause);
        }
        self.settle(now);
        Ok(causes)
    }

    /// The lives that a request for an app means: one process, else all or those that leak, if any do.
    fn targets_of(
        &self,
        daemon: &DaemonName,
        app: &AppName,
        pm_id: Option<u32>,
        all: bool,
        now: Now,
    ) -> BTreeMap<u32, Life> {
        if self.world.fresh(daemon, now.steady).is_none() {
            return BTreeMap::new();
        }
        let running = |process: &&ProcessObservation| process.status == Status::Online && process.life.is_some();
        let of_app: Vec<&ProcessObservation> = self
            .world
            .processes_of(daemon, app)
            .filter(running)
            .filter(|process| pm_id.is_none_or(|pm_id| process.key.pm_id == pm_id))
            .collect();
        let any_leaks = of_app.iter().any(|process| leaks(process));
        of_app
            .into_iter()
            .filter(|process| all || pm_id.is_some() || !any_leaks || leaks(process))
            .filter_map(|process| Some((process.key.pm_id, process.life?)))
            .collect()
    }

    /// What there is where a name means no running process, for whoever misspelt it.
    fn what_there_is(&self, daemon: Option<&DaemonName>, app: &AppName, pm_id: Option<u32>) -> String {
        let seen = self.world.daemons.iter().filter(|(name, _)| daemon.is_none_or(|daemon| *name == daemon));
        let processes: Vec<&ProcessObservation> = seen.flat_map(|(_, seen)| seen.processes.values()).collect();
        if let Some(other) = processes.iter().find(|it| Some(it.key.pm_id) == pm_id && !app.means(&it.app)) {
            return format!("process {} is of {}", other.key, other.app);
        }
        let of_app: Vec<String> = processes
            .iter()
            .filter(|process| app.means(&process.app))
            .map(|process| format!("{} ({})", process.key, process.status.as_str()))
            .collect();
        if !of_app.is_empty() {
            return format!("{app} has the processes {}", shortened(of_app));
        }
        let apps: BTreeSet<&AppName> = processes.iter().map(|process| &process.app).collect();
        if apps.is_empty() {
            return "pm2 lists no app".to_owned();
        }
        format!("pm2 lists {}", shortened(apps.into_iter().map(AppName::to_string).collect()))
    }

    /// Opens a request with its targets and writes it down.
    fn open_request(&mut self, mut request: Request, targets: BTreeMap<u32, Target>, now: Now) -> u64 {
        let id = self.state.next_number();
        request.id = id;
        request.targets = targets;
        *self.state.totals.requests.entry(request.trigger).or_default() += 1;
        let ids: Vec<String> = request.targets.keys().map(u32::to_string).collect();
        let sentence = format!("request {id} for {} ({}): {}", request.app, ids.join(", "), request.reason);
        let mut record = self.new_record(RecordKind::Requested, &request.daemon, &request.app, sentence.clone(), now);
        record.request = Some(id);
        record.trigger = Some(request.trigger);
        self.record(record);
        self.say(Severity::Note, NoticeKind::Request, (&request.daemon, &request.app, None), sentence);
        self.state.requests.insert(id, request);
        id
    }

    /// Adds targets to the open request of an app and trigger, or opens one.
    fn join(&mut self, trigger: Trigger, daemon: &DaemonName, app: &AppName, targets: Lives, now: Now) {
        let targets = targets
            .into_iter()
            .map(|(pm_id, (life, reason))| (pm_id, Target { life, state: TargetState::Waiting, reason }));
        let open = self
            .state
            .requests
            .values_mut()
            .find(|request| request.trigger == trigger && request.daemon == *daemon && request.app == *app);
        if let Some(request) = open {
            let mut changed = false;
            for (pm_id, target) in targets {
                let known = request.targets.get(&pm_id);
                if known.is_none_or(|known| known.life != target.life && known.state.is_final()) {
                    request.targets.insert(pm_id, target);
                    changed = true;
                }
            }
            if changed {
                self.touch();
            }
        } else if self.state.requests.len() < MOST_REQUESTS {
            let targets: BTreeMap<u32, Target> = targets.collect();
            let reason = targets.values().next().map_or(String::new(), |target| target.reason.clone());
            self.open_request(Request::new(0, trigger, daemon, app, reason, now), targets, now);
        }
    }

    /// Whether this life has had its attempt, so that what still asks for it asks in vain for now.
    fn attempted(&self, process: &ProcessObservation, life: Life, now: Now) -> bool {
        let (policy, mode, _) = self.context().policy(&process.key.daemon, &process.app);
        self.state.ledger.iter().any(|entry| {
            entry.key == process.key
                && entry.life == life
                && (!entry.rehearsal || (mode != Mode::Enforce && now.steady.since(entry.at) < policy.cooldown.0))
        })
    }

    /// Requests by verdict and by threshold, and their withdrawal.
    pub(super) fn ask_for_what_leaks(&mut self, now: Now) {
        let mut wanted: BTreeMap<(Trigger, DaemonName, AppName), Lives> = BTreeMap::new();
        let mut over: BTreeSet<(Trigger, DaemonName, u32)> = BTreeSet::new();
        for (daemon, seen) in &self.world.daemons {
            if self.world.fresh(daemon, now.steady).is_none() {
                continue;
            }
            for process in seen.processes.values().filter(|process| process.status == Status::Online) {
                let (policy, mode, _) = self.context().policy(daemon, &process.app);
                let Some(life) = process.life.filter(|_| mode != Mode::Off) else { continue };
                for (trigger, asks) in [
                    (Trigger::Leak, leak_asks(policy, process, now.steady)),
                    (Trigger::Memory, self.memory_asks(policy, process, now.steady)),
                ] {
                    match asks {
                        Asks::Yes(reason) if !self.attempted(process, life, now) => {
                            let name = (trigger, daemon.clone(), process.app.clone());
                            wanted.entry(name).or_default().insert(process.key.pm_id, (life, reason));
                        }
                        Asks::No => {
                            over.insert((trigger, daemon.clone(), process.key.pm_id));
                        }
                        Asks::Yes(_) | Asks::Unsure => {}
                    }
                }
            }
        }
        for ((trigger, daemon, app), targets) in wanted {
            self.join(trigger, &daemon, &app, targets, now);
        }
        self.withdraw_targets(&over, now);
    }

    /// Takes back what no longer asks, as far as it has not begun.
    fn withdraw_targets(&mut self, over: &BTreeSet<(Trigger, DaemonName, u32)>, now: Now) {
        let mut withdrawn = Vec::new();
        let mut changed = false;
        for request in self.state.requests.values_mut() {
            let before = request.targets.len();
            let (trigger, daemon) = (request.trigger, request.daemon.clone());
            request.targets.retain(|pm_id, target| {
                target.state != TargetState::Waiting || !over.contains(&(trigger, daemon.clone(), *pm_id))
            });
            changed |= request.targets.len() != before;
            if before > 0 && request.targets.is_empty() {
                withdrawn.push((request.id, trigger));
            }
        }
        if changed {
            self.touch();
        }
        for (id, trigger) in withdrawn {
            let why = if trigger == Trigger::Leak { "it no longer leaks" } else { "memory fell below the threshold" };
            self.end_request(id, RequestEnd::Withdrawn, why, now);
        }
    }

    fn memory_asks(&self, policy: &PolicySettings, process: &ProcessObservation, now: Steady) -> Asks {
        let Some(trigger) = &policy.memory else { return Asks::No };
        match self.world.above_for(&process.key, now) {
            None => Asks::No,
            Some(span) if span < trigger.r#for.0 => Asks::Unsure,
            Some(span) => {
                let held = process.held.unwrap_or_default();
                Asks::Yes(format!("memory has been above its threshold for {} ({held} held)", Spoken(span)))
            }
        }
    }

    /// Requests by the calendar.
    pub(super) fn ask_by_schedule(&mut self, now: Now) {
        if self.world.daemons.is_empty() {
            return;
        }
        // A clock that went far back would otherwise keep schedules quiet until it has caught up.
        let hour = i64::try_from(LONGEST_MISSED.as_millis()).unwrap_or(i64::MAX);
        let until = self.state.schedules_until.filter(|until| until.0.saturating_sub(now.wall.0) <= 2 * hour);
        let Some(until) = until else {
            self.state.schedules_until = Some(now.wall);
            self.touch();
            return;
        };
        if now.wall <= until {
            return;
        }
        let from = Now { steady: now.steady, wall: WallTime(until.0.max(now.wall.0.saturating_sub(hour))) };
        let mut due = Vec::new();
        let mut next: Option<i64> = None;
        for (index, policy) in self.settings.policy.iter().enumerate() {
            for schedule in &policy.schedule {
                match schedule.cron.next_after(from.timestamp(), &schedule.time_zone) {
                    Some(at) if at.as_millisecond() <= now.wall.0 => due.push((index, schedule.clone(), at)),
                    Some(at) => next = Some(next.map_or(at.as_millisecond(), |next| next.min(at.as_millisecond()))),
                    None => {}
                }
            }
        }
        if let Some(next) = next {
            let span = Duration::from_millis(u64::try_from(next.saturating_sub(now.wall.0)).unwrap_or(0));
            self.wake_by(now.steady + span);
        }
        // Kept in memory only, until a time has come that must not come again.
        self.state.schedules_until = Some(now.wall);
        if due.is_empty() {
            return;
        }
        self.touch();
        for (index, schedule, at) in due {
            let reason =
                format!("the schedule \"{}\" named {}", schedule.cron, WallTime(at.as_millisecond()).to_rfc3339());
            for (daemon, app) in self.world.apps() {
                let of_policy = self
                    .settings
                    .policy_of(&daemon, &app, self.world.is_module(&daemon, &app))
                    .is_some_and(|(found, _)| found == index);
                if !of_policy || self.context().policy(&daemon, &app).1 == Mode::Off {
                    continue;
                }
                let mut targets = self.targets_of(&daemon, &app, None, true, now);
                targets.retain(|pm_id, life| {
                    let key = model::ProcessKey { daemon: daemon.clone(), pm_id: *pm_id };
                    self.world.process(&key).is_some_and(|process| {
                        (schedule.only == Only::Always || leaks(process))
                            && schedule.memory_above.is_none_or(|floor| process.held.unwrap_or(Bytes(0)) > floor.0)
                            && schedule
                                .uptime_above
                                .is_none_or(|floor| self.world.uptime(process, now.steady) > floor.0)
                            && !self.attempted(process, *life, now)
                    })
                });
                if !targets.is_empty() {
                    let targets = targets.into_iter().map(|(pm_id, life)| (pm_id, (life, reason.clone())));
                    self.join(Trigger::Schedule, &daemon, &app, targets.collect(), now);
                }
            }
        }
    }

    /// Takes in alerts, and tells of each that asks for nothing why not.
    pub fn alerts(&mut self, calls: Vec<AlertCall>, now: Now) -> Vec<(AlertCall, String)> {
        let asked = calls.clone();
        self.handle(super::command::Event::Alerts(calls), now);
        let refused = |call: AlertCall| {
            let memory = self.state.alerts.get(&call.id)?;
            let why = memory.refused.clone().filter(|_| memory.call.starts_at == call.starts_at && !call.resolved)?;
            Some((call, why))
        };
        asked.into_iter().filter_map(refused).collect()
    }

    /// Remembers the newest word on every alert; the order in which words arrive does not matter.
    pub(super) fn take_alerts(&mut self, calls: Vec<AlertCall>, now: Now) {
        for call in calls {
            let rank = |call: &AlertCall| (call.starts_at, call.resolved);
            match self.state.alerts.get_mut(&call.id) {
                Some(memory) if rank(&memory.call) >= rank(&call) => memory.seen = now.steady,
                Some(memory) => {
                    if memory.call.starts_at != call.starts_at {
                        memory.served = false;
                        memory.refused = None;
                        memory.targets = None;
                    }
                    memory.call = call;
                    memory.seen = now.steady;
                    self.touch();
                }
                None => {
                    let memory = AlertMemory { call, seen: now.steady, served: false, refused: None, targets: None };
                    self.state.alerts.insert(memory.call.id.clone(), memory);
                    self.touch();
                }
            }
        }
    }

    /// Forgets what has ended long ago and, of more alerts than can be kept, first those that were refused, then those that
    /// have ended, then those that were served, each the oldest first. To be asked after they had their turn.
    pub(super) fn forget_alerts(&mut self, now: Now) {
        let alerts = &mut self.state.alerts;
        alerts.retain(|_, memory| !memory.call.resolved || now.steady.since(memory.seen) <= RESOLVED_FOR);
        if alerts.len() > MOST_ALERTS {
            let worth = |memory: &AlertMemory| match (memory.served, memory.call.resolved) {
                (true, _) if memory.targets.is_none() => 0,
                (_, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
            };
            let mut order: Vec<_> =
                alerts.values().map(|memory| (worth(memory), memory.call.starts_at, memory.call.id.clone())).collect();
            order.sort();
            for (_, _, id) in order.into_iter().take(alerts.len() - MOST_ALERTS) {
                alerts.remove(&id);
            }
        }
    }

    /// Makes the alert requests agree with the alerts that fire.
    pub(super) fn ask_for_alerts(&mut self, now: Now) {
        if self.world.daemons.is_empty() {
            return;
        }
        self.bind_alerts(now);
        let mut wanted: BTreeMap<(DaemonName, AppName), Wanted> = BTreeMap::new();
        for memory in self.state.alerts.values() {
            let call = &memory.call;
            let Some(targets) = memory.targets.as_ref().filter(|_| !memory.served && !call.resolved) else { continue };
            let wanted = wanted.entry((call.daemon.clone(), call.app.clone())).or_default();
            wanted.targets.extend(targets.iter().map(|(pm_id, life)| (*pm_id, *life)));
            wanted.names.insert(call.name.clone());
            if call.wish == Wish::Hard {
                wanted.wish = Some(Wish::Hard);
            }
        }
        let open: Vec<u64> =
            self.state.requests.values().filter(|it| it.trigger == Trigger::Alert).map(|it| it.id).collect();
        for id in open {
            let Some(request) = self.state.requests.get_mut(&id) else { continue };
            if request.started() {
                wanted.remove(&(request.daemon.clone(), request.app.clone()));
                continue;
            }
            match wanted.remove(&(request.daemon.clone(), request.app.clone())) {
                None => self.end_request(id, RequestEnd::Withdrawn, "the alert was resolved", now),
                Some(wanted) => {
                    let wish = wanted.wish.unwrap_or(Wish::Gentle);
                    let reason = wanted.reason();
                    let mut targets = waiting(wanted.targets, &reason);
                    for (pm_id, target) in &mut targets {
                        if let Some(known) = request.targets.get(pm_id).filter(|known| known.life == target.life) {
                            target.state = known.state;
                        }
                    }
                    if request.targets != targets || request.wish != wish || request.reason != reason {
                        request.targets = targets;
                        request.wish = wish;
                        request.reason = reason;
                        self.touch();
                    }
                }
            }
        }
        for ((daemon, app), wanted) in wanted {
            if self.state.requests.len() >= MOST_REQUESTS {
                break;
            }
            let mut request = Request::new(0, Trigger::Alert, &daemon, &app, wanted.reason(), now);
            request.wish = wanted.wish.unwrap_or(Wish::Gentle);
            let targets = waiting(wanted.targets, &request.reason);
            self.open_request(request, targets, now);
        }
    }

    /// Finds the lives that new alerts mean, once. An alert that names nothing that runs is refused.
    fn bind_alerts(&mut self, now: Now) {
        let unbound: Vec<AlertCall> = self
            .state
            .alerts
            .values()
            .filter(|memory| memory.targets.is_none() && !memory.served && !memory.call.resolved)
            .map(|memory| memory.call.clone())
            .collect();
        for call in unbound {
            let known = self.world.daemons.contains_key(&call.daemon);
            if known && self.world.fresh(&call.daemon, now.steady).is_none() {
                continue;
            }
            let mut meant = self.world.meant(&call.daemon, &call.app, call.pm_id).into_iter();
            let (app, another) = (meant.next().unwrap_or_else(|| call.app.clone()), meant.next());
            let (policy, mode, _) = self.context().policy(&call.daemon, &app);
            if mode == Mode::Off {
                continue;
            }
            let accepted = policy.alerts && another.is_none();
            let mut targets = self.targets_of(&call.daemon, &app, call.pm_id, false, now);
            let running = !targets.is_empty();
            // What began to fire before a process started is about another one.
            targets.retain(|_, life| life.started <= call.starts_at);
            let why = if another.is_some() {
                "several namespaces have an app of this name, and the alert has no label namespace".to_owned()
            } else if !accepted {
                "the policy takes no alerts".to_owned()
            } else if running {
                "it began to fire before the process started, so it is about an earlier one".to_owned()
            } else {
                let there = self.what_there_is(Some(&call.daemon), &call.app, call.pm_id);
                RefusalKind::Unknown { there }.to_string()
            };
            let Some(memory) = self.state.alerts.get_mut(&call.id) else { continue };
            if accepted && !targets.is_empty() {
                memory.call.app = app;
                memory.targets = Some(targets);
                self.touch();
                continue;
            }
            memory.served = true;
            memory.refused = Some(why.clone());
            let sentence = format!("the alert {} for {} is refused: {why}", call.name, call.app);
            let mut record = self.new_record(RecordKind::RequestEnded, &call.daemon, &call.app, sentence.clone(), now);
            record.trigger = Some(Trigger::Alert);
            record.pm_id = call.pm_id;
            record.detail = Some(RequestEnd::Refused.as_str().to_owned());
            self.record(record);
            self.say(Severity::Note, NoticeKind::Request, (&call.daemon, &call.app, call.pm_id), sentence);
        }
    }

    /// Marks the alerts behind a request as served, so that repeats of the same episode ask for nothing.
    pub(super) fn alerts_served(&mut self, request: &Request) {
        if request.trigger != Trigger::Alert {
            return;
        }
        for memory in self.state.alerts.values_mut() {
            if memory.targets.is_some() && memory.call.daemon == request.daemon && memory.call.app == request.app {
                memory.served = true;
            }
        }
    }
}

#[derive(Default)]
struct Wanted {
    targets: BTreeMap<u32, Life>,
    names: BTreeSet<String>,
    wish: Option<Wish>,
}

impl Wanted {
    fn reason(&self) -> String {
        let mut names: Vec<&str> = self.names.iter().take(3).map(String::as_str).collect();
        if self.names.len() > 3 {
            names.push("and more");
        }
        format!("the alert {} fires", names.join(", "))
    }
}

/// Whether something asks for a process.
enum Asks {
    Yes(String),
    Unsure,
    No,
}

fn leaks(process: &ProcessObservation) -> bool {
    process.verdict.as_ref().is_some_and(|verdict| verdict.state == LeakState::Leaking)
}

fn leak_asks(policy: &PolicySettings, process: &ProcessObservation, now: Steady) -> Asks {
    let trigger = &policy.leak;
    if !trigger.enabled {
        return Asks::No;
    }
    let Some(verdict) = &process.verdict else { return Asks::Unsure };
    let long_enough = now.since(verdict.since) >= trigger.r#for.0;
    match verdict.state {
        LeakState::Stable | LeakState::Growing | LeakState::Suspect if long_enough => Asks::No,
        LeakState::Learning | LeakState::Stable | LeakState::Growing | LeakState::Suspect => Asks::Unsure,
        LeakState::Leaking => {
            let left = verdict.time_left(now);
            let near = trigger.exhaustion_within.is_none_or(|within| left.is_some_and(|left| left <= within.0));
            let per_hour = verdict.bytes_per_second() * 3600.0;
            let steep = trigger.slope_above_per_hour.is_none_or(|least| per_hour > least.0.as_f64());
            if !long_enough || !near || !steep {
                return Asks::Unsure;
            }
            let slope = Bytes::from_f64(per_hour);
            let until =
                left.map_or(String::new(), |left| format!(", memory is projected to be exhausted in {}", Spoken(left)));
            Asks::Yes(format!("it has been leaking for {} at {slope}/h{until}", Spoken(now.since(verdict.since))))
        }
    }
}

/// A list for a sentence, cut off where it gets long.
fn shortened(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

fn waiting(targets: BTreeMap<u32, Life>, reason: &str) -> BTreeMap<u32, Target> {
    let target = |life| Target { life, state: TargetState::Waiting, reason: reason.to_owned() };
    targets.into_iter().map(|(pm_id, life)| (pm_id, target(life))).collect()
}

/// Keeps a person's words short and on one line.
fn bounded(text: &str) -> String {
    plain(text, 200)
}
