//! A world for the policy to act in: processes under pm2, a store, a FleetLock server, all without clocks or sockets.
//!
//! Orders are carried out the way the shell and pm2 do it, and checked against the rules on the way: whoever breaks one
//! fails the test with the whole story.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{AppName, Bytes, DaemonName, HostSample, LeakState, Life, ProcessKey, Slope, Status, Steady, WallTime};
use restart_policy::{
    Answer, AuditRecord, Command, DaemonObservation, Event, EvidenceBefore, EvidenceTaken, FleetLock, LockAnswer,
    Notice, Now, Observation, Order, Policy, ProbeAnswer, ProbeOrder, ProcessObservation, RecordKind, RestartSettings,
    SocketQuestion, Sockets, State, VerdictView,
};

pub const MINUTE: Duration = Duration::from_mins(1);
pub const HOUR: Duration = Duration::from_hours(1);
pub const DAEMON: &str = "default";
/// The sidecar, and the shim it runs under.
pub const OWN_PIDS: [u32; 2] = [7, 6];

/// What becomes of a new instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Good,
    ThrowsAtBoot,
    NeverOnline,
    NoHeap,
}

/// How pm2 takes the next orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pm2 {
    Obeys,
    Refuses,
    Unreachable,
    /// Does it, but the answer is lost.
    DoesAndIsSilent,
    /// Does nothing and says nothing.
    Hangs,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub observation: ProcessObservation,
    pub code: Code,
    pub online_at: Steady,
}

#[derive(Debug)]
pub struct World {
    pub settings: RestartSettings,
    pub policy: Policy,
    pub now: Now,
    pub processes: BTreeMap<u32, Process>,
    pub up: bool,
    pub reload_lock: Option<WallTime>,
    pub host: HostSample,
    pub pm2: Pm2,
    pub code: Code,
    pub store_works: bool,
    pub kept: Option<String>,
    pub records: BTreeMap<u64, AuditRecord>,
    pub orders: Vec<(Now, Order)>,
    /// Steps whose order was certainly not carried out.
    pub undone: BTreeSet<u64>,
    pub ended_by_us: Vec<(ProcessKey, Life)>,
    pub notices: Vec<Notice>,
    pub questions: Vec<Command>,
    /// What comes of an order to take evidence; none where nobody answers.
    pub evidence: Option<EvidenceTaken>,
    pub promql: Result<Vec<bool>, String>,
    /// What the sockets of a process show, while pm2 tells nothing; by default they are those of one that serves, and pm2
    /// tells that it does.
    pub sockets: Option<Sockets>,
    /// What the probe says, where one is set.
    pub probe: Result<(), String>,
    pub silences: Result<Vec<restart_policy::Silence>, String>,
    pub lock_answer: LockAnswer,
    pub lock_is_ours: bool,
    pub lock_requests: usize,
    pub requests_seen: BTreeSet<u64>,
    next_pid: u32,
    /// Kill the sidecar after this many more commands.
    pub killed_after: Option<usize>,
    pub kills: usize,
}

/// Stands in a text of settings where evidence is taken before restarts, which another table sets.
pub const EVIDENCE: &str = "# evidence before restarts\n";

pub fn settings(text: &str) -> RestartSettings {
    let mut settings: RestartSettings = toml::from_str(text).expect("settings");
    if text.contains(EVIDENCE) {
        settings.evidence = Some(EvidenceBefore { patience: MINUTE });
    }
    assert_eq!(settings.validate(), []);
    settings
}

pub fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: DAEMON.into(), pm_id }
}

impl World {
    /// A world at noon of Monday, 10 March 2025, UTC, in which processes have run for a day.
    pub fn new(settings: RestartSettings) -> Self {
        let now = Now { steady: Steady(1_000_000_000), wall: WallTime(1_741_608_000_000) };
        Self {
            policy: Policy::new(settings.clone(), None, OWN_PIDS.into(), now),
            settings,
            now,
            processes: BTreeMap::new(),
            up: true,
            reload_lock: None,
            host: HostSample { memory_total: Bytes(16 << 30), memory_available: Bytes(8 << 30) },
            pm2: Pm2::Obeys,
            code: Code::Good,
            store_works: true,
            kept: None,
            records: BTreeMap::new(),
            orders: Vec::new(),
            undone: BTreeSet::new(),
            ended_by_us: Vec::new(),
            notices: Vec::new(),
            questions: Vec::new(),
            evidence: Some(EvidenceTaken { id: Some("profile-1".to_owned()), sentence: "seen".to_owned() }),
            promql: Ok(vec![true]),
            sockets: None,
            probe: Ok(()),
            silences: Ok(Vec::new()),
            lock_answer: LockAnswer::Granted,
            lock_is_ours: false,
            lock_requests: 0,
            requests_seen: BTreeSet::new(),
            next_pid: 100,
            killed_after: None,
            kills: 0,
        }
    }

    /// Adds a process that has run for a day.
    pub fn add(&mut self, pm_id: u32, app: &str, cluster: bool) {
        let life = self.new_life(Duration::from_hours(24));
        let observation = ProcessObservation {
            key: key(pm_id),
            app: app.into(),
            module: false,
            status: Status::Online,
            life: Some(life),
            cluster,
            restarts: Some(0),
            unstable_restarts: Some(0),
            held: Some(Bytes(300 << 20)),
            heap_used: Some(Bytes(200 << 20)),
            frozen: false,
            min_uptime: Duration::from_secs(1),
            listen_timeout: Duration::from_secs(3),
            kill_timeout: Duration::from_secs(2),
            wait_ready: false,
            autorestart: true,
            created_at: Some(1),
            verdict: None,
        };
        let process = Process { observation, code: Code::Good, online_at: self.now.steady };
        self.processes.insert(pm_id, process);
    }

    pub fn cluster(&mut self, app: &str, workers: std::ops::Range<u32>) {
        for pm_id in workers {
            self.add(pm_id, app, true);
        }
    }

    fn new_life(&mut self, age: Duration) -> Life {
        self.next_pid += 1;
        Life { pid: self.next_pid, started: self.now.wall.0 - i64::try_from(age.as_millis()).unwrap() }
    }

    pub fn process(&mut self, pm_id: u32) -> &mut ProcessObservation {
        &mut self.processes.get_mut(&pm_id).expect("process").observation
    }

    pub fn life(&self, pm_id: u32) -> Option<Life> {
        self.processes[&pm_id].observation.life
    }

    /// Sets the verdict on a process: since when it is so, its slope in MiB an hour and the hours left.
    pub fn verdict(
        &mut self,
        pm_id: u32,
        state: LeakState,
        for_how_long: Duration,
        slope: f64,
        hours_left: Option<u64>,
    ) {
        let now = self.now.steady;
        let bytes_per_second = slope * 1_048_576.0 / 3600.0;
        self.process(pm_id).verdict = Some(VerdictView {
            state,
            since: now - for_how_long,
            at: now,
            slope: Some(Slope { bytes_per_second, low: bytes_per_second, high: bytes_per_second }),
            projected_exhaustion: hours_left.map(|hours| HOUR * u32::try_from(hours).unwrap()),
        });
    }

    pub fn leak(&mut self, pm_id: u32, slope: f64) {
        self.verdict(pm_id, LeakState::Leaking, HOUR, slope, Some(40));
    }

    /// Lets time go by in steps, with a collection at each.
    pub fn pass(&mut self, span: Duration, step: Duration) {
        let end = self.now.steady + span;
        while self.now.steady < end {
            self.now = self.now.later(step.min(end.since(self.now.steady)));
            self.look();
        }
    }

    /// Carries on as the shell would while something is watched: a look every second.
    pub fn until_quiet(&mut self) {
        for _ in 0..400 {
            if self.policy.watched().is_empty() {
                return;
            }
            self.pass(Duration::from_secs(1), Duration::from_secs(1));
        }
        panic!("a step never ended: {:?}", self.policy.state().steps);
    }

    /// One collection and everything that follows from it.
    pub fn look(&mut self) {
        self.let_processes_come_up();
        let observation = self.observation();
        self.policy.observe(&observation, self.now);
        self.carry_out();
    }

    pub fn observation(&self) -> Observation {
        Observation {
            at: self.now.steady,
            daemons: vec![DaemonObservation {
                name: DAEMON.into(),
                up: self.up,
                reload_lock: self.reload_lock,
                processes: if self.up {
                    self.processes.values().map(|it| it.observation.clone()).collect()
                } else {
                    vec![]
                },
            }],
            host: self.host,
        }
    }

    fn let_processes_come_up(&mut self) {
        for process in self.processes.values_mut() {
            if process.observation.status != Status::Launching || self.now.steady < process.online_at {
                continue;
            }
            match process.code {
                Code::Good => process.observation.status = Status::Online,
                Code::NoHeap => {
                    process.observation.status = Status::Online;
                    process.observation.heap_used = None;
                }
                Code::ThrowsAtBoot => {
                    process.observation.status = Status::Errored;
                    process.observation.life = None;
                }
                Code::NeverOnline => {}
            }
        }
    }

    /// A new life of a process, by our order or by somebody else's.
    pub fn restart(&mut self, pm_id: u32) {
        let life = self.new_life(Duration::ZERO);
        let (code, online_at) = (self.code, self.now.steady + Duration::from_secs(1));
        let Some(process) = self.processes.get_mut(&pm_id) else { return };
        process.code = code;
        process.online_at = online_at;
        let observation = &mut process.observation;
        observation.life = Some(life);
        observation.status = Status::Launching;
        observation.restarts = observation.restarts.map(|count| count + 1);
        observation.held = Some(Bytes(80 << 20));
        observation.heap_used = Some(Bytes(40 << 20));
        observation.verdict = None;
        observation.created_at = Some(self.now.wall.0);
    }

    /// pm2 starts a process again because it ended by itself.
    pub fn crash(&mut self, pm_id: u32) {
        let asked_for = self.process(pm_id).created_at;
        self.restart(pm_id);
        self.process(pm_id).created_at = asked_for;
    }

    pub fn state(&self) -> &State {
        self.policy.state()
    }

    pub fn kept_state(&self) -> Option<State> {
        self.kept.as_ref().map(|text| serde_json::from_str(text).expect("the state is read back"))
    }

    /// Kills the sidecar without a word and starts it again from what was kept.
    pub fn kill(&mut self) {
        self.kills += 1;
        self.killed_after = None;
        self.policy = Policy::new(self.settings.clone(), self.kept_state(), OWN_PIDS.into(), self.now);
        self.carry_out();
    }

    /// Carries out every order that comes; returns when there is none.
    pub fn carry_out(&mut self) {
        while let Some(command) = self.policy.next_command() {
            if let Some(left) = self.killed_after {
                if left == 0 {
                    self.kill();
                    return;
                }
                self.killed_after = Some(left - 1);
            }
            self.carry_out_one(command);
        }
        self.check_fleet_lock();
    }

    fn carry_out_one(&mut self, command: Command) {
        let now = self.now;
        match command {
            Command::Persist { revision, state, records } => {
                if self.store_works {
                    let text = serde_json::to_string(&state).expect("the state becomes JSON");
                    let read: State = serde_json::from_str(&text).expect("the state is read back");
                    assert_eq!(read.revision, revision);
                    self.requests_seen.extend(read.requests.keys());
                    self.kept = Some(text);
                    self.records.extend(records.iter().map(|record| (record.id, record.clone())));
                    self.check_nothing_is_forgotten(&read);
                    self.policy.handle(Event::Persisted { revision }, now);
                } else {
                    self.policy.handle(Event::PersistFailed { revision, why: "no space left".to_owned() }, now);
                }
            }
            Command::Reload(order) | Command::Restart(order) => self.pm2_takes(&order),
            Command::RunHook(order) => {
                self.questions.push(Command::RunHook(order.clone()));
                self.policy.handle(Event::HookEnded { step: order.step, result: Ok(()) }, now);
            }
            Command::TakeEvidence(order) => {
                self.questions.push(Command::TakeEvidence(order.clone()));
                if let Some(taken) = self.evidence.clone() {
                    self.policy.handle(Event::EvidenceEnded { step: order.step, taken }, now);
                }
            }
            Command::AskPromql { daemon, app, expressions } => {
                let answer = self.promql.clone();
                self.questions.push(Command::AskPromql { daemon: daemon.clone(), app: app.clone(), expressions });
                self.policy.handle(Event::Promql { daemon, app, answer }, now);
            }
            Command::Probe(order) => {
                self.questions.push(Command::Probe(order.clone()));
                self.answer(order);
            }
            Command::AskSilences => {
                self.questions.push(Command::AskSilences);
                self.policy.handle(Event::Silences(self.silences.clone()), now);
            }
            Command::AskFleetLock => {
                let kept = self.kept_state().expect("asked for the lock before anything was kept");
                assert!(
                    matches!(kept.fleet_lock, FleetLock::Asked { .. }),
                    "the lock is asked for before it is written down"
                );
                self.lock_requests += 1;
                if self.lock_answer == LockAnswer::Granted {
                    self.lock_is_ours = true;
                }
                self.policy.handle(Event::FleetLock(self.lock_answer.clone()), now);
            }
            Command::ReleaseFleetLock => {
                let result = if matches!(self.lock_answer, LockAnswer::Failed(_)) {
                    Err("no answer".to_owned())
                } else {
                    self.lock_is_ours = false;
                    Ok(())
                };
                self.policy.handle(Event::FleetLockReleased(result), now);
            }
            Command::Notify(notice) => self.notices.push(notice),
        }
    }

    /// Answers whether a process serves.
    pub fn answer(&mut self, order: ProbeOrder) {
        let sockets = order.sockets.map(|question| {
            self.sockets.clone().unwrap_or(match question {
                SocketQuestion::Ports => Sockets::Listens(BTreeSet::from([3000]).into()),
                SocketQuestion::Connection => Sockets::Reached([3000].into()),
            })
        });
        let answer = ProbeAnswer { sockets, probe: order.probe.map(|_| self.probe.clone()), port: None };
        self.policy.handle(Event::Probed { step: order.step, key: order.key, life: order.life, answer }, self.now);
    }

    /// What was asked of the outside, but for sockets and probes.
    pub fn asked(&self) -> Vec<Command> {
        self.questions.iter().filter(|question| !matches!(question, Command::Probe(_))).cloned().collect()
    }

    fn pm2_takes(&mut self, order: &Order) {
        let kept = self.kept_state().expect("ordered before anything was kept");
        assert!(
            kept.ledger.iter().any(|entry| entry.step == order.step && entry.life == order.life && !entry.rehearsal),
            "ordered before it was written down: {order:?}"
        );
        if self.settings.fleet_lock.is_some() {
            assert!(self.lock_is_ours, "ordered without the fleet lock");
        }
        let pm_id = order.key.pm_id;
        let current = self.life(pm_id) == Some(order.life);
        self.orders.push((self.now, order.clone()));
        let answer = match self.pm2 {
            _ if !current => Answer::NotSent("the life has ended".to_owned()),
            Pm2::Unreachable => Answer::NotSent("connection refused".to_owned()),
            Pm2::Refuses => Answer::Refused("Reload already in progress".to_owned()),
            Pm2::Obeys | Pm2::DoesAndIsSilent | Pm2::Hangs => {
                if self.pm2 != Pm2::Hangs {
                    self.ended_by_us.push((order.key.clone(), order.life));
                    self.restart(pm_id);
                }
                match self.pm2 {
                    Pm2::Obeys => Answer::Accepted { ready: self.sockets.is_none().then_some(true) },
                    Pm2::Refuses | Pm2::Unreachable | Pm2::DoesAndIsSilent | Pm2::Hangs => {
                        Answer::Unknown("no answer in time".to_owned())
                    }
                }
            }
        };
        if matches!(answer, Answer::NotSent(_) | Answer::Refused(_)) {
            self.undone.insert(order.step);
        }
        self.policy.handle(Event::Acted { step: order.step, answer }, self.now);
    }

    /// The lock is ours only while something is under way.
    fn check_fleet_lock(&self) {
        if self.lock_is_ours && !matches!(self.lock_answer, LockAnswer::Failed(_)) {
            assert!(
                self.state().steps.values().any(|step| step.fleet_lock)
                    || matches!(self.state().fleet_lock, FleetLock::Releasing { attempts: 1.., .. }),
                "the fleet lock is held while nothing is under way: {:?}",
                self.state().fleet_lock
            );
        }
    }

    /// Every request that was ever kept is still open or has an end on record.
    fn check_nothing_is_forgotten(&self, state: &State) {
        for id in &self.requests_seen {
            let ended = || {
                let mut records = self.records.values();
                records.any(|record| record.kind == RecordKind::RequestEnded && record.request == Some(*id))
            };
            assert!(state.requests.contains_key(id) || ended(), "request {id} is forgotten");
        }
    }

    /// The reasons for which targets are held at present, by `pm_id`.
    pub fn holds(&self) -> BTreeMap<u32, &'static str> {
        let mut holds = BTreeMap::new();
        for entry in self.policy.plan(self.now).entries {
            if let restart_policy::Decision::Hold(reason) = &entry.now {
                holds.insert(entry.pm_id, reason.label());
            }
        }
        holds
    }

    /// The records of one kind as `(pm_id, outcome or detail)`.
    pub fn ends(&self, kind: RecordKind) -> Vec<(Option<u32>, String)> {
        let of_kind = self.records.values().filter(|record| record.kind == kind);
        of_kind
            .map(|record| {
                let word = record.outcome.map(|outcome| outcome.as_str().to_owned()).or(record.detail.clone());
                (record.pm_id, word.unwrap_or_default())
            })
            .collect()
    }
}

pub fn app(name: &str) -> AppName {
    name.into()
}

pub fn daemon() -> DaemonName {
    DAEMON.into()
}
