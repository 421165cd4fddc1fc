//! The loop around the policy: what is seen and asked goes in, its orders go to those who carry them out.
//!
//! One task owns the policy. What takes long (pm2, hooks, other servers) runs beside it and reports back as an event;
//! keeping the state does not, since nothing may be ordered before it is kept. While a replacement is being watched the
//! daemon's list is read several times a second. When the loop ends in the middle of something, the kept state tells the
//! next one what to verify.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use pm2_client::reload_lock;

use super::{announce, fleet_lock, hook, http, pm2, promql, serving};
use crate::alertmanager::{LARGEST_BODY, build_alerts, parse_silences};
use crate::collect::system::own_pids;
use crate::collect::{Collector, DaemonSpec, Settings as CollectSettings, Source, join_all};
use crate::evidence::take::Target;
use crate::model::{AppName, DaemonName, Life, ProcessKey, Snapshot, Verdict, WallTime};
use crate::policy::{
    Action, AlertCall, Answer, AuditRecord, Command, Event, EvidenceOrder, EvidenceTaken, LockAnswer, Notice, Now,
    Observation, Order, PersonCall, Plan, Policy, Preview, Refusal, RestartSettings, Severity, State,
};

/// How often the list of a daemon is read in which a replacement is being watched.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long one such reading may take.
const WATCH_DEADLINE: Duration = Duration::from_secs(2);
/// How long keeping the state may take.
const KEEP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a home may take to give pm2's reload lock. One that is late is not asked again before it has answered.
const LOCK_DEADLINE: Duration = Duration::from_millis(500);
/// Announcements under way at the most; more are left out and logged.
const MOST_ANNOUNCEMENTS: usize = 32;
/// Inputs that wait at the most.
const QUEUE: usize = 64;

/// Reads both clocks.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Where the state and the audit log are kept.
pub trait Keeper: Send + Sync + 'static {
    /// Writes a state and records down, both or neither, so that they survive a kill right after the return. A record
    /// replaces the one with its number; a state with a lower revision than the kept one must be left out. May block.
    fn keep(&self, state: &State, records: &[AuditRecord]) -> Result<(), String>;
}

/// Takes evidence of a leaking process that is about to be replaced.
pub trait Witness: Send + Sync + 'static {
    /// Takes it, or tells why not. It is not waited for beyond the order's patience; what is dropped then must leave the app
    /// as it was, and may still come.
    fn testify(&self, target: Target) -> Pin<Box<dyn Future<Output = EvidenceTaken> + Send>>;
}

/// What the driver needs to begin.
pub struct Spec {
    /// The settings, valid.
    pub settings: RestartSettings,
    /// The daemons, as they are collected from.
    pub daemons: Vec<DaemonSpec>,
    /// The state as it was last kept.
    pub kept: Option<State>,
    /// Where it is kept.
    pub keeper: Arc<dyn Keeper>,
    /// The clocks.
    pub clock: Clock,
    /// Who takes evidence before a restart; none where nobody does.
    pub witness: Option<Arc<dyn Witness>>,
}

impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Spec").field("daemons", &self.daemons).finish_non_exhaustive()
    }
}

/// Nobody answers for what was asked: the driver has ended, or the state cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("restarts are shut down, or their state cannot be kept")]
pub struct Closed;

/// The verdicts on processes, each with the life it is about.
pub type Verdicts = BTreeMap<ProcessKey, (Life, Verdict)>;

enum Input {
    Observed(Arc<Snapshot>, Arc<Verdicts>),
    Alerts(Vec<AlertCall>, oneshot::Sender<Vec<(AlertCall, String)>>),
    Ask(PersonCall, oneshot::Sender<Result<Vec<u64>, Refusal>>),
    Withdraw(u64, String, oneshot::Sender<Result<(), Refusal>>),
    Reset(Option<DaemonName>, AppName, String, oneshot::Sender<Result<Vec<String>, Refusal>>),
    Look(oneshot::Sender<(Plan, State)>),
    Preview(PersonCall, oneshot::Sender<Result<Preview, Refusal>>),
    Settings(Box<RestartSettings>),
}

/// Talks to a driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::Sender<Input>);

impl Handle {
    /// Tells what a collection saw, with the verdicts on the lives it saw.
    pub async fn observed(&self, snapshot: Arc<Snapshot>, verdicts: Arc<Verdicts>) -> Result<(), Closed> {
        self.send(Input::Observed(snapshot, verdicts)).await
    }

    /// Hands in alerts; returns when they are kept, with those that ask for nothing and why.
    pub async fn alerts(&self, calls: Vec<AlertCall>) -> Result<Vec<(AlertCall, String)>, Closed> {
        self.ask_for(|answer| Input::Alerts(calls, answer)).await
    }

    /// Hands in a person's request; returns the numbers of the requests that stand for it when they are kept.
    pub async fn ask(&self, call: PersonCall) -> Result<Result<Vec<u64>, Refusal>, Closed> {
        self.ask_for(|answer| Input::Ask(call, answer)).await
    }

    /// Withdraws a request that has not begun.
    pub async fn withdraw(&self, request: u64, who: String) -> Result<Result<(), Refusal>, Closed> {
        self.ask_for(|answer| Input::Withdraw(request, who, answer)).await
    }

    /// Closes the breakers of an app; returns why each had opened.
    pub async fn reset_breaker(
        &self,
        daemon: Option<DaemonName>,
        app: AppName,
        who: String,
    ) -> Result<Result<Vec<String>, Refusal>, Closed> {
        self.ask_for(|answer| Input::Reset(daemon, app, who, answer)).await
    }

    /// Asks what would happen now, and how everything stands.
    pub async fn look(&self) -> Result<(Plan, State), Closed> {
        self.ask_for(Input::Look).await
    }

    /// Asks what a person's request would do.
    pub async fn preview(&self, call: PersonCall) -> Result<Result<Preview, Refusal>, Closed> {
        self.ask_for(|answer| Input::Preview(call, answer)).await
    }

    /// Replaces the settings.
    pub async fn settings(&self, settings: RestartSettings) -> Result<(), Closed> {
        self.send(Input::Settings(Box::new(settings))).await
    }

    async fn send(&self, input: Input) -> Result<(), Closed> {
        self.0.send(input).await.map_err(|_closed| Closed)
    }

    async fn ask_for<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Closed> {
        let (answer, answered) = oneshot::channel();
        self.send(input(answer)).await?;
        answered.await.map_err(|_closed| Closed)
    }
}

/// Told once the state of a number is kept.
type Promise = (u64, Box<dyn FnOnce() + Send>);

/// The loop.
pub struct Driver {
    policy: Policy,
    keeper: Arc<dyn Keeper>,
    clock: Clock,
    witness: Option<Arc<dyn Witness>>,
    homes: BTreeMap<DaemonName, DaemonSpec>,
    watchers: BTreeMap<DaemonName, Collector>,
    verdicts: Arc<Verdicts>,
    inputs: mpsc::Receiver<Input>,
    jobs: JoinSet<Event>,
    announcements: JoinSet<()>,
    promises: Vec<Promise>,
    /// The latest revision that is kept.
    kept: u64,
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").field("homes", &self.homes).finish_non_exhaustive()
    }
}

impl Driver {
    /// Makes a driver and the handle to talk to it.
    pub fn new(spec: Spec) -> (Self, Handle) {
        let (sender, inputs) = mpsc::channel(QUEUE);
        let now = (spec.clock)();
        let driver = Self {
            policy: Policy::new(spec.settings, spec.kept, own_pids(), now),
            keeper: spec.keeper,
            clock: spec.clock,
            witness: spec.witness,
            homes: spec.daemons.into_iter().map(|daemon| (daemon.name.clone(), daemon)).collect(),
            watchers: BTreeMap::new(),
            verdicts: Arc::default(),
            inputs,
            jobs: JoinSet::new(),
            announcements: JoinSet::new(),
            promises: Vec::new(),
            kept: 0,
        };
        (driver, Handle(sender))
    }

    /// Runs until `stop` or until nobody holds a handle any more. What is under way then is verified by the next run.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut watch = interval(WATCH_EVERY);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.carry_out().await;
            let watching = !self.policy.watched().is_empty();
            if !watching {
                self.watchers.clear();
            }
            let sleep = self.policy.wake_at().since((self.clock)().steady);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.jobs.join_next() => match done {
                    Ok(event) => self.policy.handle(event, (self.clock)()),
                    Err(error) => tracing::error!(%error, "an order's task ended badly; what it was for is verified later"),
                },
                Some(_) = self.announcements.join_next() => {}
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input).await,
                    None => return,
                },
                _ = watch.tick(), if watching => self.watch().await,
                () = tokio::time::sleep(sleep) => self.policy.tick((self.clock)()),
            }
        }
    }

    async fn take(&mut self, input: Input) {
        let now = (self.clock)();
        match input {
            Input::Observed(snapshot, verdicts) => {
                self.verdicts = verdicts;
                self.observe(&snapshot, now).await;
            }
            Input::Alerts(calls, answer) => {
                let refused = self.policy.alerts(calls, now);
                self.promise(answer, refused);
            }
            Input::Ask(call, answer) => {
                let result = self.policy.ask(&call, now);
                self.promise(answer, result);
            }
            Input::Withdraw(request, who, answer) => {
                let result = self.policy.withdraw(request, &who, now);
                self.promise(answer, result);
            }
            Input::Reset(daemon, app, who, answer) => {
                let result = self.policy.reset_breaker(daemon.as_ref(), &app, &who, now);
                self.promise(answer, result);
            }
            Input::Look(answer) => {
                let _nobody_waits = answer.send((self.policy.plan(now), self.policy.state().clone()));
            }
            Input::Preview(call, answer) => {
                let _nobody_waits = answer.send(self.policy.preview(&call, now));
            }
            Input::Settings(settings) => self.policy.replace_settings(*settings, now),
        }
    }

    /// Answers once the state as it is now is kept. Where it cannot be kept the promise is broken, and whoever waits for it
    /// learns that the request may be lost.
    fn promise<T: Send + 'static>(&mut self, answer: oneshot::Sender<T>, value: T) {
        let keep = move || {
            let _nobody_waits = answer.send(value);
        };
        let needed = self.policy.revision_to_keep();
        if needed <= self.kept {
            keep();
        } else {
            self.promises.push((needed, Box::new(keep)));
        }
    }

    async fn observe(&mut self, snapshot: &Snapshot, now: Now) {
        let verdicts: BTreeMap<ProcessKey, Verdict> = snapshot
            .processes()
            .filter_map(|process| {
                let (life, verdict) = self.verdicts.get(&process.key)?;
                (process.life == Some(*life)).then(|| (process.key.clone(), verdict.clone()))
            })
            .collect();
        let homes = self.homes.values().map(|spec| (spec.name.clone(), spec.home.clone())).collect();
        let locks = reload_locks(homes).await;
        let observation = Observation::from_snapshot(snapshot, &verdicts, &locks);
        self.policy.observe(&observation, now);
    }

    /// Reads the lists in which a replacement is being watched.
    async fn watch(&mut self) {
        for daemon in self.policy.watched() {
            let Some(spec) = self.homes.get(&daemon) else { continue };
            let collector = self.watchers.entry(daemon).or_insert_with(|| {
                let settings = CollectSettings { deadline: WATCH_DEADLINE, ..CollectSettings::default() };
                Collector::new(vec![spec.clone()], settings)
            });
            let now = (self.clock)();
            let snapshot = collector.collect(now.steady, now.wall).await;
            self.observe(&snapshot, (self.clock)()).await;
        }
    }

    /// Hands every order to whoever carries it out; keeps the state itself.
    async fn carry_out(&mut self) {
        while let Some(command) = self.policy.next_command() {
            match command {
                Command::Persist { revision, state, records } => self.keep(revision, state, records).await,
                Command::Reload(order) => self.replace(Action::Reload, order),
                Command::Restart(order) => self.replace(Action::Restart, order),
                Command::RunHook(order) => {
                    self.jobs.spawn(async move {
                        let result = hook::run(&order).await;
                        Event::HookEnded { step: order.step, result }
                    });
                }
                Command::TakeEvidence(order) => self.take_evidence(order),
                Command::AskPromql { daemon, app, expressions } => self.ask_promql(daemon, app, expressions),
                Command::Probe(order) => {
                    self.jobs.spawn(async move {
                        let answer = serving::find_out(&order).await;
                        Event::Probed { step: order.step, key: order.key, life: order.life, answer }
                    });
                }
                Command::AskSilences => self.ask_silences(),
                Command::AskFleetLock => self.ask_fleet_lock(fleet_lock::LockStep::PreReboot),
                Command::ReleaseFleetLock => self.ask_fleet_lock(fleet_lock::LockStep::SteadyState),
                Command::Notify(notice) => self.announce(&notice),
            }
        }
    }

    async fn keep(&mut self, revision: u64, state: Box<State>, records: Arc<Vec<AuditRecord>>) {
        let keeper = Arc::clone(&self.keeper);
        let task = tokio::task::spawn_blocking(move || keeper.keep(&state, &records));
        let result = match timeout(KEEP_DEADLINE, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err(format!("not kept within {} s", KEEP_DEADLINE.as_secs())),
        };
        let now = (self.clock)();
        match result {
            Ok(()) => {
                self.kept = revision;
                let (kept, waiting) =
                    std::mem::take(&mut self.promises).into_iter().partition(|(needed, _)| *needed <= revision);
                self.promises = waiting;
                let kept: Vec<Promise> = kept;
                for (_, promise) in kept {
                    promise();
                }
                self.policy.handle(Event::Persisted { revision }, now);
            }
            Err(why) => {
                tracing::warn!(%why, "the state of restarts cannot be kept; nothing is begun until it can");
                self.promises.retain(|(needed, _)| *needed > revision);
                self.policy.handle(Event::PersistFailed { revision, why }, now);
            }
        }
    }

    fn replace(&mut self, action: Action, order: Order) {
        let step = order.step;
        let spec = self.homes.get(&order.key.daemon).filter(|spec| spec.source != Source::Command);
        let Some(home) = spec.map(|spec| spec.home.clone()) else {
            self.jobs.spawn(async move {
                Event::Acted { step, answer: Answer::NotSent("the daemon is not reached by its socket".to_owned()) }
            });
            return;
        };
        let clock = Arc::clone(&self.clock);
        self.jobs.spawn(async move {
            let answer = pm2::replace(&pm2::Act { home: PathBuf::from(&home), action, order }, || clock().wall).await;
            Event::Acted { step, answer }
        });
    }

    fn take_evidence(&mut self, order: EvidenceOrder) {
        let EvidenceOrder { step, key, life, app, patience } = order;
        let home = self.homes.get(&key.daemon).map(|spec| spec.home.clone());
        let witness = self.witness.clone();
        self.jobs.spawn(async move {
            let taken = match (witness, home) {
                (Some(witness), Some(home)) => {
                    let target = Target { home, key, app, life, heap_used: None };
                    let late =
                        |_elapsed| EvidenceTaken::none(&format!("it did not come within {} s", patience.as_secs()));
                    timeout(patience, witness.testify(target)).await.unwrap_or_else(late)
                }
                _ => EvidenceTaken::none("nobody takes evidence here"),
            };
            Event::EvidenceEnded { step, taken }
        });
    }

    fn ask_promql(&mut self, daemon: DaemonName, app: AppName, expressions: Vec<String>) {
        let settings = self.policy.settings();
        let (endpoint, deadline) = (settings.prometheus.as_ref().map(|it| it.url.clone()), settings.answer_timeout.0);
        self.jobs.spawn(async move {
            let answer = match endpoint {
                Some(endpoint) => match timeout(deadline, promql::ask(&endpoint, &expressions, deadline)).await {
                    Ok(answer) => answer,
                    Err(_elapsed) => Err("not all expressions were answered in time".to_owned()),
                },
                None => Err("no Prometheus is set".to_owned()),
            };
            Event::Promql { daemon, app, answer }
        });
    }

    fn ask_silences(&mut self) {
        let settings = self.policy.settings();
        let (endpoint, deadline) = (settings.alertmanager.as_ref().map(|it| it.url.clone()), settings.answer_timeout.0);
        self.jobs.spawn(async move {
            let Some(endpoint) = endpoint else {
                return Event::Silences(Err("no Alertmanager is set".to_owned()));
            };
            let ask = http::Ask {
                endpoint: &endpoint,
                path: "/api/v2/silences",
                body: None,
                headers: &[],
                deadline,
                limit: LARGEST_BODY,
            };
            let silences = match ask.send().await {
                Ok(reply) if reply.status == 200 => parse_silences(&reply.body).map_err(|error| error.to_string()),
                Ok(reply) => Err(format!("{} answered with status {}", endpoint.authority(), reply.status)),
                Err(error) => Err(error.to_string()),
            };
            Event::Silences(silences)
        });
    }

    fn ask_fleet_lock(&mut self, step: fleet_lock::LockStep) {
        let settings = self.policy.settings();
        let (lock, deadline) = (settings.fleet_lock.clone(), settings.answer_timeout.0);
        self.jobs.spawn(async move {
            let answer = match lock {
                Some(lock) => fleet_lock::ask(&lock, step, deadline).await,
                None => LockAnswer::Failed("no FleetLock server is set".to_owned()),
            };
            match (step, answer) {
                (fleet_lock::LockStep::PreReboot, answer) => Event::FleetLock(answer),
                (fleet_lock::LockStep::SteadyState, LockAnswer::Granted) => Event::FleetLockReleased(Ok(())),
                (fleet_lock::LockStep::SteadyState, LockAnswer::Denied(why) | LockAnswer::Failed(why)) => {
                    Event::FleetLockReleased(Err(why))
                }
            }
        });
    }

    /// Logs a notice and tells those who want to be told.
    fn announce(&mut self, notice: &Notice) {
        let (daemon, app, pm_id, text) = (&notice.daemon, &notice.app, notice.pm_id, &notice.text);
        match notice.severity {
            Severity::Note => tracing::debug!(%daemon, %app, pm_id, "{text}"),
            Severity::Info => tracing::info!(%daemon, %app, pm_id, "{text}"),
            Severity::Warning => tracing::warn!(%daemon, %app, pm_id, "{text}"),
        }
        if notice.severity < Severity::Info {
            return;
        }
        if self.announcements.len() >= MOST_ANNOUNCEMENTS {
            tracing::warn!("an announcement is left out: too many are under way");
            return;
        }
        let settings = self.policy.settings();
        let deadline = settings.answer_timeout.0;
        let chat = settings.notify.as_ref().map(|notify| (notify.url.clone(), "", announce::chat_body(notice)));
        let wall = (self.clock)().wall;
        let alert = settings.alertmanager.as_ref().filter(|it| it.send_alerts).and_then(|it| {
            let alert = announce::alert(notice, &it.labels, wall)?;
            Some((it.url.clone(), "/api/v2/alerts", build_alerts(&[alert])))
        });
        for (endpoint, path, body) in chat.into_iter().chain(alert) {
            self.announcements.spawn(async move {
                let body = Some(("application/json", body));
                let ask = http::Ask { endpoint: &endpoint, path, body, headers: &[], deadline, limit: 64 << 10 };
                match ask.send().await {
                    Ok(reply) if (200..300).contains(&reply.status) => {}
                    Ok(reply) => {
                        tracing::warn!(status = reply.status, "{} refused an announcement", endpoint.authority());
                    }
                    Err(error) => tracing::warn!(%error, "an announcement could not be made"),
                }
            });
        }
    }
}

/// Reads when pm2's reload locks were taken, all side by side; a home that does not answer counts as free here and is asked
/// again before anything is done.
async fn reload_locks(homes: Vec<(DaemonName, PathBuf)>) -> BTreeMap<DaemonName, WallTime> {
    let read = |(name, home): (DaemonName, PathBuf)| async move {
        Some((name, reload_lock::reload_lock(&home, LOCK_DEADLINE).await?))
    };
    join_all(homes.into_iter().map(read)).await.into_iter().flatten().collect()
}
