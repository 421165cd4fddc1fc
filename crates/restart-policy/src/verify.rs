//! Verification of one replacement: pm2's word is not believed, the list is watched instead.
//!
//! A replacement is good when a new life is online past its minimum uptime, with an unchanged restart count, an event
//! loop that moves and, where the old one's heap was readable, a readable heap; when it is known to serve as the old one
//! did; and when the probe, where one is set, succeeds. Everything else stops the roll, and so does what is not known. This
//! room refuses to act.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observation::ProcessObservation;
use super::serving::{Listening, ProbeAnswer, SocketQuestion, Sockets};
use super::settings::VerifySettings;
use model::Spoken;
use model::{Life, Status, Steady};

/// More lives than this within one verification are a process that does not settle.
const MOST_LIVES: u32 = 3;
/// An app that is still launching so shortly before pm2 stops waiting for it did not come online by itself. Lists are
/// looked at several times within this span while a replacement is watched.
const LAST_MOMENT: Duration = Duration::from_millis(600);
/// The time from an order to the end of the old life that a life's age is rounded by.
const AGE_SLACK: Duration = Duration::from_secs(1);

/// What has been off pm2's list, or stopped, for so long was taken away on purpose: pm2 does neither by itself.
const REMOVED_AFTER: Duration = Duration::from_secs(5);

/// What is watched after one action.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    old: Life,
    deadline: Steady,
    stable_for: Duration,
    listen_timeout: Duration,
    heap: bool,
    unstable_before: Option<u64>,
    /// Whether the old life may end before its minimum uptime: pm2 then counts that end too, although it was asked for.
    #[serde(default)]
    old_was_young: bool,
    /// pm2's count of restarts before the order.
    #[serde(default)]
    restarts: Option<u64>,
    new: Option<NewLife>,
    lives: u32,
    /// Whether somebody asked pm2 for another start while this was under way, or may have.
    #[serde(default)]
    asked_again: bool,
    late: bool,
    /// What shows that the new instance serves; none where nobody asks.
    #[serde(default)]
    expected: Option<Expected>,
    /// The ports by which a connection reached the old instance, and must reach the new one.
    #[serde(default)]
    reaches: BTreeSet<u16>,
    /// Whether pm2 saw the first new instance listen, or heard that it is ready.
    #[serde(default)]
    reported: bool,
    /// Whether nothing more will come from pm2 about the order.
    #[serde(default)]
    answered: bool,
    /// Whether a probe must succeed.
    #[serde(default)]
    probe: bool,
    /// What the probe said last, with when it was asked.
    #[serde(default)]
    probe_said: Option<(Steady, Result<(), String>)>,
    /// Since when it is stopped or off the list.
    #[serde(default)]
    absent_since: Option<Steady>,
}

/// What shows that a new instance serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expected {
    /// It listens here, as the old one did.
    Listens(Listening),
    /// A connection has reached it.
    Connection,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct NewLife {
    life: Life,
    restarts: Option<u64>,
    /// What pm2 says of when its start was asked for.
    #[serde(default)]
    created_at: Option<i64>,
    steady_since: Option<Steady>,
    /// The greatest age at which it was seen launching.
    launching: Duration,
    /// What its sockets showed last.
    #[serde(default)]
    serving: Serving,
    /// The ports by which a connection has reached it.
    #[serde(default)]
    reached: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Serving {
    #[default]
    NotSeen,
    Missing(Listening),
    Unseen(String),
    Seen,
}

/// What a verification still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A new pid.
    NewLife,
    /// pm2's `online`.
    Online,
    /// Time online with a stable restart count.
    Stable,
    /// A readable heap and a moving event loop.
    Heap,
    /// Being known to serve.
    Serving,
    /// A probe that succeeds.
    Probe,
}

/// Why a replacement is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// pm2 gave it up.
    Errored,
    /// The new code ended before its minimum uptime.
    CrashedAtBoot,
    /// It started over and over.
    Restless,
    /// It never came online.
    NeverOnline,
    /// It came online only because pm2 stopped waiting for it.
    NeverReady {
        /// How long pm2 waited.
        waited: Duration,
    },
    /// It was not online for long enough.
    NeverStable,
    /// Its heap could not be read, or its event loop is blocked.
    HeapUnreadable,
    /// It does not listen where the old one did.
    NotListening(Listening),
    /// Whether it serves is not known.
    ReadinessUnknown {
        /// Why not.
        why: String,
    },
    /// The probe does not succeed.
    ProbeFailed {
        /// What it said last.
        why: String,
    },
    /// The daemon stopped answering and did not come back.
    DaemonLost,
}

impl Failure {
    /// The word used in labels and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Errored => "errored",
            Self::CrashedAtBoot => "crashed_at_boot",
            Self::Restless => "restless",
            Self::NeverOnline => "never_online",
            Self::NeverReady { .. } => "not_ready_in_listen_timeout",
            Self::NeverStable => "never_stable",
            Self::HeapUnreadable => "heap_unreadable",
            Self::NotListening(_) => "not_listening",
            Self::ReadinessUnknown { .. } => "readiness_unknown",
            Self::ProbeFailed { .. } => "probe_failed",
            Self::DaemonLost => "daemon_lost",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errored => write!(out, "the new instance does not start: pm2 gave it up as errored"),
            Self::CrashedAtBoot => write!(out, "the new instance ended before its minimum uptime"),
            Self::Restless => write!(out, "it was started more than {MOST_LIVES} times and did not settle"),
            Self::NeverOnline => write!(out, "the new instance did not come online in time"),
            Self::NeverReady { waited } => {
                write!(
                    out,
                    "the new instance did not listen, or say that it is ready, within pm2's listen_timeout of {}, and pm2 \
                     ended the old one all the same: raise listen_timeout if it needs longer, or set verify.ready to false \
                     where it never listens",
                    Spoken(*waited)
                )
            }
            Self::NeverStable => write!(out, "the new instance was not online for long enough"),
            Self::HeapUnreadable => write!(out, "the new instance's heap cannot be read or its event loop is blocked"),
            Self::NotListening(missing) => {
                write!(out, "the new instance does not listen on {missing}, as the old one did")
            }
            Self::ReadinessUnknown { why } => write!(out, "whether the new instance serves is not known: {why}"),
            Self::ProbeFailed { why } => write!(out, "the probe fails after the replacement: {why}"),
            Self::DaemonLost => write!(out, "pm2's daemon stopped answering and did not come back in time"),
        }
    }
}

/// How a verification stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not decided.
    Waiting(Stage),
    /// The new life is good; the number tells how many starts it took.
    Verified {
        /// The new life.
        life: Life,
        /// Starts seen since the action: more than one when somebody else restarted it too.
        starts: u32,
    },
    /// The replacement is not good.
    Failed(Failure),
    /// The old life still runs: nothing was done.
    NothingHappened,
    /// Somebody stopped it or took it off the list on purpose.
    Removed,
}

impl Verification {
    /// Begins to watch a process whose old life is `old` and has reached the age `age`; `sockets` is what those of the old
    /// one showed, where they were seen.
    pub fn begin(
        old: Life,
        age: Duration,
        before: &ProcessObservation,
        sockets: Option<&Sockets>,
        settings: &VerifySettings,
        now: Steady,
    ) -> Self {
        let expected = match sockets {
            Some(Sockets::Listens(listening)) if !before.cluster => Some(Expected::Listens(listening.clone())),
            // A probe is enough where the sockets of a process of its own cannot be seen.
            _ if !before.cluster && settings.probe().is_some() => None,
            _ => Some(Expected::Connection),
        };
        let reaches = match sockets {
            Some(Sockets::Reached(ports)) if before.cluster => ports.clone(),
            _ => BTreeSet::new(),
        };
        let stable_for = settings.stable_for.0.max(before.min_uptime);
        Self {
            old,
            deadline: now + settings.timeout.0 + stable_for + before.listen_timeout + before.kill_timeout,
            stable_for,
            listen_timeout: before.listen_timeout,
            heap: settings.heap && before.heap_used.is_some() && !before.frozen,
            unstable_before: before.unstable_restarts,
            old_was_young: age < before.min_uptime + AGE_SLACK,
            restarts: before.restarts,
            new: None,
            lives: 0,
            asked_again: false,
            late: false,
            expected: expected.filter(|_| settings.ready),
            reaches,
            reported: false,
            answered: false,
            probe: settings.probe().is_some(),
            probe_said: None,
            absent_since: None,
        }
    }

    /// The instant at which it is decided at the latest.
    pub fn deadline(&self) -> Steady {
        self.deadline
    }

    /// Starts the time-out anew: after a restart of the sidecar nobody has watched for a while.
    pub fn resume(&mut self, settings: &VerifySettings, now: Steady) {
        self.deadline = self.deadline.max(now + settings.timeout.0 + self.stable_for);
        self.answered = true;
        self.absent_since = None;
        if let Some(new) = &mut self.new {
            new.steady_since = None;
        }
    }

    /// Notes that pm2 refused: a life that is still the old one a little later will stay.
    pub fn refused(&mut self, now: Steady) {
        self.answered = true;
        self.deadline = self.deadline.min(now + self.listen_timeout + Duration::from_secs(5));
    }

    /// Notes that pm2 has answered, and whether the new worker reported to it in time, as far as that is known.
    pub fn answered(&mut self, ready: Option<bool>) {
        self.answered = true;
        self.reported = ready == Some(true);
        self.late = ready == Some(false) && self.expected.is_some();
    }

    /// The ports by which a connection is to reach the new instance, where they are known.
    pub(super) fn ports_to_reach(&self) -> BTreeSet<u16> {
        self.reaches.clone()
    }

    /// What is still to be asked of the sockets of the new instance, once pm2 has answered.
    pub fn socket_question(&self) -> Option<SocketQuestion> {
        let online = self.new.as_ref().is_some_and(|new| new.steady_since.is_some());
        match &self.expected {
            _ if !online || self.late() || self.serves() => None,
            Some(Expected::Listens(_)) => Some(SocketQuestion::Ports),
            Some(Expected::Connection) => self.answered.then_some(SocketQuestion::Connection),
            None => None,
        }
    }

    /// Takes in what was found out about `life` by a question that was asked at `asked_at`.
    pub fn probed(&mut self, life: Option<Life>, answer: &ProbeAnswer, asked_at: Steady) {
        if let Some(said) = &answer.probe {
            self.probe_said = Some((asked_at, said.clone()));
        }
        let Some(new) = self.new.as_mut().filter(|new| Some(new.life) == life) else { return };
        new.serving = match (&self.expected, &answer.sockets) {
            (_, None) => return,
            (_, Some(Sockets::Unseen(why))) => Serving::Unseen(why.clone()),
            (Some(Expected::Listens(before)), Some(Sockets::Listens(after))) => {
                let missing = before.missing(after);
                if missing.is_empty() { Serving::Seen } else { Serving::Missing(missing) }
            }
            (Some(Expected::Connection), Some(Sockets::Reached(ports))) => {
                new.reached.extend(ports);
                let missing = Listening::from(self.reaches.clone()).missing(&new.reached.clone().into());
                match new.reached.is_empty() {
                    true => Serving::NotSeen,
                    false if missing.is_empty() => Serving::Seen,
                    false => Serving::Missing(missing),
                }
            }
            (_, Some(Sockets::Listens(_) | Sockets::Reached(_))) => Serving::NotSeen,
        };
    }

    /// Whether the newest instance is known to serve, or nobody asks. pm2's word is about the first one, and enough only
    /// where nobody has seen by which ports the old one served.
    fn serves(&self) -> bool {
        let seen = self.new.as_ref().is_some_and(|new| new.serving == Serving::Seen);
        let none = matches!(&self.expected, Some(Expected::Listens(listening)) if listening.is_empty());
        let word = self.reported && self.lives <= 1 && self.reaches.is_empty();
        self.expected.is_none() || none || seen || word
    }

    /// Whether pm2 stopped waiting for the newest instance: its word is about the first one.
    fn late(&self) -> bool {
        self.late && self.lives <= 1
    }

    fn absent(&mut self, now: Steady) -> Progress {
        let since = *self.absent_since.get_or_insert(now);
        if now.since(since) >= REMOVED_AFTER { Progress::Removed } else { Progress::Waiting(Stage::NewLife) }
    }

    /// Looks at the daemon's list; `process` is the entry with the process's `pm_id`, `uptime` the age of its life.
    pub fn observe(&mut self, process: Option<&ProcessObservation>, uptime: Duration, now: Steady) -> Progress {
        let overdue = now >= self.deadline;
        // An app that pm2 starts again whenever it ends is only stopped by somebody.
        let there = process.filter(|process| process.status != Status::Stopped || !process.autorestart);
        let Some(process) = there else { return self.absent(now) };
        self.absent_since = None;
        if process.status == Status::Errored {
            return Progress::Failed(Failure::Errored);
        }
        // pm2 sets the count to zero at every restart it is asked for, and then counts the end of a life that was too young:
        // from then on one more is one too many.
        let begun = self.new.is_some() || process.life.is_some_and(|life| life != self.old);
        let counted = if begun { Some(0) } else { self.unstable_before };
        let first_asked = self.new.as_ref().and_then(|new| new.created_at);
        self.asked_again |= first_asked.zip(process.created_at).is_some_and(|(first, latest)| first != latest);
        // Two starts before the first look may be ours and theirs; code that crashes does so again.
        let two = || process.restarts.zip(self.restarts).is_some_and(|(now, before)| now > before + 1);
        self.asked_again |= begun && self.new.is_none() && two();
        let allowed = counted.map(|count| count + u64::from(self.old_was_young || self.asked_again));
        // One that pm2 is ending was asked to: young as it is, its end counts as well, and is no crash.
        let counts = process.unstable_restarts.filter(|_| process.status != Status::Stopping);
        if counts.zip(allowed).is_some_and(|(found, allowed)| found > allowed) {
            return Progress::Failed(Failure::CrashedAtBoot);
        }
        match process.life {
            Some(life) if life != self.old => self.observe_new(life, process, uptime, now, overdue),
            Some(_) if self.new.is_none() => {
                if overdue {
                    Progress::NothingHappened
                } else {
                    Progress::Waiting(Stage::NewLife)
                }
            }
            // Between two lives: the old one is gone, the next has no pid yet.
            _ => {
                if overdue {
                    Progress::Failed(Failure::NeverOnline)
                } else {
                    Progress::Waiting(Stage::NewLife)
                }
            }
        }
    }

    /// Looks at a daemon that does not answer.
    pub fn unseen(&self, now: Steady) -> Progress {
        if now >= self.deadline {
            Progress::Failed(Failure::DaemonLost)
        } else {
            Progress::Waiting(self.new.as_ref().map_or(Stage::NewLife, |_| Stage::Stable))
        }
    }

    fn observe_new(
        &mut self,
        life: Life,
        process: &ProcessObservation,
        uptime: Duration,
        now: Steady,
        overdue: bool,
    ) -> Progress {
        if self.new.as_ref().is_none_or(|new| new.life != life) {
            self.lives += 1;
            self.new = Some(NewLife {
                life,
                restarts: process.restarts,
                created_at: process.created_at,
                steady_since: None,
                launching: Duration::ZERO,
                serving: Serving::NotSeen,
                reached: BTreeSet::new(),
            });
            if self.lives > MOST_LIVES {
                return Progress::Failed(Failure::Restless);
            }
            // Where somebody else restarted it meanwhile, or pm2 refused our order, the newest life has its own time.
            self.deadline = self.deadline.max(now + self.stable_for + self.listen_timeout);
        }
        let (starts, late) = (self.lives, self.late());
        let new = self.new.as_mut().expect("invariant: set just above");
        if process.restarts > new.restarts {
            new.restarts = process.restarts;
            new.steady_since = None;
        }
        if process.status != Status::Online {
            new.steady_since = None;
            new.launching = new.launching.max(uptime);
            return if overdue { Progress::Failed(Failure::NeverOnline) } else { Progress::Waiting(Stage::Online) };
        }
        let since = *new.steady_since.get_or_insert(now);
        let never_ready = process.wait_ready && new.launching + LAST_MOMENT >= self.listen_timeout;
        if late || never_ready {
            return Progress::Failed(Failure::NeverReady { waited: self.listen_timeout });
        }
        if now.since(since) < self.stable_for {
            return if overdue { Progress::Failed(Failure::NeverStable) } else { Progress::Waiting(Stage::Stable) };
        }
        if process.frozen || (self.heap && process.heap_used.is_none()) {
            return if overdue { Progress::Failed(Failure::HeapUnreadable) } else { Progress::Waiting(Stage::Heap) };
        }
        if !self.serves() {
            return self.not_serving(overdue);
        }
        // What was asked before it had settled says nothing of how it serves now.
        let settled = since + self.stable_for;
        match &self.probe_said {
            _ if !self.probe => {}
            Some((asked_at, Ok(()))) if *asked_at >= settled => {}
            said if overdue => {
                let why = said.as_ref().and_then(|(_, said)| said.clone().err());
                return Progress::Failed(Failure::ProbeFailed { why: why.unwrap_or("no answer came".to_owned()) });
            }
            _ => return Progress::Waiting(Stage::Probe),
        }
        Progress::Verified { life, starts }
    }

    /// It is up, and nothing shows that it serves. What cannot be seen is not waited for.
    fn not_serving(&self, overdue: bool) -> Progress {
        let failure = match self.new.as_ref().map(|new| &new.serving) {
            Some(Serving::Unseen(why)) if self.answered => Failure::ReadinessUnknown { why: why.clone() },
            _ if !overdue => return Progress::Waiting(Stage::Serving),
            Some(Serving::Missing(missing)) => Failure::NotListening(missing.clone()),
            _ if self.reported && !self.reaches.is_empty() => Failure::NotListening(self.reaches.clone().into()),
            _ => {
                let waited = Spoken(self.listen_timeout);
                let why =
                    format!("pm2 waited {waited} for it to listen and tells nothing, and no connection has reached it");
                Failure::ReadinessUnknown { why }
            }
        };
        Progress::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Bytes, ProcessKey};

    const OLD: Life = Life { pid: 10, started: 1000 };
    const YOUNG: Duration = Duration::from_secs(1);
    const GROWN: Duration = Duration::from_hours(1);
    const NEW: Life = Life { pid: 11, started: 9000 };

    fn process(status: Status, life: Option<Life>) -> ProcessObservation {
        ProcessObservation {
            module: false,
            key: ProcessKey { daemon: "default".into(), pm_id: 0 },
            app: "shop".into(),
            status,
            life,
            cluster: true,
            restarts: Some(if life == Some(OLD) { 3 } else { 4 }),
            unstable_restarts: Some(0),
            held: Some(Bytes::MIB),
            heap_used: Some(Bytes::MIB),
            frozen: false,
            min_uptime: Duration::from_secs(1),
            listen_timeout: Duration::from_secs(3),
            kill_timeout: Duration::from_secs(2),
            wait_ready: false,
            autorestart: true,
            created_at: Some(1),
            verdict: None,
        }
    }

    /// pm2 saw the new worker listen.
    fn with_answer(mut verification: Verification) -> Verification {
        verification.answered(Some(true));
        verification
    }

    fn begin() -> Verification {
        let settings = VerifySettings::default();
        with_answer(Verification::begin(OLD, GROWN, &process(Status::Online, Some(OLD)), None, &settings, Steady(0)))
    }

    fn at(seconds: i64) -> Steady {
        Steady(seconds * 1000)
    }

    #[test]
    fn a_new_life_that_stays_online_is_verified() {
        let mut verification = begin();
        let old = process(Status::Online, Some(OLD));
        let new = process(Status::Online, Some(NEW));
        assert_eq!(verification.observe(Some(&old), YOUNG, at(1)), Progress::Waiting(Stage::NewLife));
        let launching = process(Status::Launching, Some(NEW));
        assert_eq!(verification.observe(Some(&launching), YOUNG, at(2)), Progress::Waiting(Stage::Online));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(3)), Progress::Waiting(Stage::Stable));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(12)), Progress::Waiting(Stage::Stable));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(13)), Progress::Verified { life: NEW, starts: 1 });
    }

    fn seen(sockets: Sockets) -> ProbeAnswer {
        ProbeAnswer { sockets: Some(sockets), probe: None, port: None }
    }

    /// A worker of which pm2 tells nothing is not good, however long it stays up.
    #[test]
    fn what_is_not_known_to_serve_is_not_verified() {
        let new = process(Status::Online, Some(NEW));
        for (sockets, progress) in [
            (Some(Sockets::Reached([80].into())), Progress::Verified { life: NEW, starts: 1 }),
            (Some(Sockets::Reached([].into())), Progress::Waiting(Stage::Serving)),
            (None, Progress::Waiting(Stage::Serving)),
            (
                Some(Sockets::Unseen("no".to_owned())),
                Progress::Failed(Failure::ReadinessUnknown { why: "no".to_owned() }),
            ),
        ] {
            let mut verification = begin();
            verification.answered(None);
            verification.observe(Some(&new), YOUNG, at(1));
            assert_eq!(verification.socket_question(), Some(SocketQuestion::Connection));
            if let Some(sockets) = sockets {
                verification.probed(Some(NEW), &seen(sockets), at(2));
            }
            assert_eq!(verification.observe(Some(&new), YOUNG, at(11)), progress);
            if progress == Progress::Waiting(Stage::Serving) {
                let last = verification.observe(Some(&new), YOUNG, at(80));
                assert!(matches!(last, Progress::Failed(Failure::ReadinessUnknown { .. })), "{last:?}");
            }
        }
    }

    #[test]
    fn a_process_of_its_own_must_listen_where_the_old_one_did() {
        let old = ProcessObservation { cluster: false, ..process(Status::Online, Some(OLD)) };
        let new = ProcessObservation { cluster: false, ..process(Status::Online, Some(NEW)) };
        let settings = VerifySettings::default();
        let listens = |ports: &[u16], others: &[&str]| {
            let others = others.iter().map(|other| (*other).to_owned()).collect();
            Sockets::Listens(Listening { ports: ports.iter().copied().collect(), others })
        };
        let both = listens(&[80, 81], &["the socket /run/shop.sock"]);
        let mut verification = Verification::begin(OLD, GROWN, &old, Some(&both), &settings, Steady(0));
        verification.answered(None);
        verification.observe(Some(&new), YOUNG, at(1));
        assert_eq!(verification.socket_question(), Some(SocketQuestion::Ports));
        verification.probed(Some(NEW), &seen(listens(&[80], &[])), at(5));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(12)), Progress::Waiting(Stage::Serving));
        let mut deaf = verification.clone();
        let Progress::Failed(failure) = deaf.observe(Some(&new), YOUNG, at(80)) else { panic!("it is deaf") };
        let told = "the new instance does not listen on port 81 and the socket /run/shop.sock, as the old one did";
        assert_eq!(failure.to_string(), told);
        verification.probed(Some(NEW), &seen(both), at(13));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(14)), Progress::Verified { life: NEW, starts: 1 });
    }

    /// pm2 hears of a worker's first port, and of the ready that it sends: each port that served is asked for.
    #[test]
    fn a_worker_must_be_reached_by_every_port_by_which_the_old_one_was() {
        let (old, new) = (process(Status::Online, Some(OLD)), process(Status::Online, Some(NEW)));
        let settings = VerifySettings::default();
        let before = Sockets::Reached([80, 81].into());
        let mut verification = with_answer(Verification::begin(OLD, GROWN, &old, Some(&before), &settings, Steady(0)));
        verification.observe(Some(&new), YOUNG, at(1));
        assert_eq!(verification.socket_question(), Some(SocketQuestion::Connection));
        let mut unheard = verification.clone();
        verification.probed(Some(NEW), &seen(Sockets::Reached([80].into())), at(2));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(12)), Progress::Waiting(Stage::Serving));
        for (deaf, missing) in [(&mut unheard, vec![80, 81]), (&mut verification.clone(), vec![81])] {
            let failure = Failure::NotListening(missing.into_iter().collect::<BTreeSet<u16>>().into());
            assert_eq!(deaf.observe(Some(&new), YOUNG, at(80)), Progress::Failed(failure));
        }
        verification.probed(Some(NEW), &seen(Sockets::Reached([81].into())), at(13));
        assert_eq!(verification.observe(Some(&new), YOUNG, at(14)), Progress::Verified { life: NEW, starts: 1 });
    }

    #[test]
    fn a_probe_must_succeed_after_the_new_instance_has_settled() {
        let settings: VerifySettings = toml::from_str("command = ['true']").unwrap();
        let before = process(Status::Online, Some(OLD));
        let mut verification = with_answer(Verification::begin(OLD, GROWN, &before, None, &settings, Steady(0)));
        let new = process(Status::Online, Some(NEW));
        let mut said = |probe: Result<(), &str>, asked: i64, now: i64| {
            let answer = ProbeAnswer { sockets: None, probe: Some(probe.map_err(str::to_owned)), port: None };
            verification.probed(Some(NEW), &answer, at(asked));
            verification.observe(Some(&new), YOUNG, at(now))
        };
        assert_eq!(said(Ok(()), 1, 1), Progress::Waiting(Stage::Stable));
        assert_eq!(said(Ok(()), 5, 12), Progress::Waiting(Stage::Probe));
        assert_eq!(said(Err("503"), 13, 14), Progress::Waiting(Stage::Probe));
        assert_eq!(said(Err("503"), 79, 80), Progress::Failed(Failure::ProbeFailed { why: "503".to_owned() }));
        assert_eq!(said(Ok(()), 81, 81), Progress::Verified { life: NEW, starts: 1 });
    }

    #[test]
    fn what_is_stopped_or_taken_off_the_list_for_seconds_was_meant_to_go() {
        let stopped = process(Status::Stopped, None);
        for absent in [None, Some(&stopped)] {
            let mut verification = begin();
            assert_eq!(verification.observe(absent, YOUNG, at(1)), Progress::Waiting(Stage::NewLife));
            let new = process(Status::Launching, Some(NEW));
            assert_eq!(verification.observe(Some(&new), YOUNG, at(5)), Progress::Waiting(Stage::Online));
            assert_eq!(verification.observe(absent, YOUNG, at(6)), Progress::Waiting(Stage::NewLife));
            assert_eq!(verification.observe(absent, YOUNG, at(11)), Progress::Removed);
        }
    }

    #[test]
    fn a_heap_that_was_readable_must_be_readable_again() {
        let mut verification = begin();
        let blind = ProcessObservation { heap_used: None, ..process(Status::Online, Some(NEW)) };
        verification.observe(Some(&blind), YOUNG, at(2));
        assert_eq!(verification.observe(Some(&blind), YOUNG, at(30)), Progress::Waiting(Stage::Heap));
        assert_eq!(verification.observe(Some(&blind), YOUNG, at(80)), Progress::Failed(Failure::HeapUnreadable));
        let seen = process(Status::Online, Some(NEW));
        assert_eq!(verification.observe(Some(&seen), YOUNG, at(81)), Progress::Verified { life: NEW, starts: 1 });
    }

    #[test]
    fn every_way_to_fail_is_told_apart() {
        let errored = process(Status::Errored, None);
        assert_eq!(begin().observe(Some(&errored), YOUNG, at(1)), Progress::Failed(Failure::Errored));
        let crashed = ProcessObservation { unstable_restarts: Some(1), ..process(Status::Launching, Some(NEW)) };
        assert_eq!(begin().observe(Some(&crashed), YOUNG, at(1)), Progress::Failed(Failure::CrashedAtBoot));
        let asked_to_end = ProcessObservation { status: Status::Stopping, ..crashed };
        assert_eq!(begin().observe(Some(&asked_to_end), YOUNG, at(1)), Progress::Waiting(Stage::Online));
        let late = at(76);
        assert_eq!(begin().unseen(late), Progress::Failed(Failure::DaemonLost));
        let old = process(Status::Online, Some(OLD));
        assert_eq!(begin().observe(Some(&old), YOUNG, late), Progress::NothingHappened);
        let stopped = ProcessObservation { autorestart: false, ..process(Status::Stopped, None) };
        assert_eq!(begin().observe(Some(&stopped), YOUNG, late), Progress::Failed(Failure::NeverOnline));
        let launching = process(Status::Launching, Some(NEW));
        assert_eq!(begin().observe(Some(&launching), YOUNG, late), Progress::Failed(Failure::NeverOnline));
        let mut verification = begin();
        verification.answered(Some(false));
        let new = process(Status::Online, Some(NEW));
        let failure = Failure::NeverReady { waited: Duration::from_secs(3) };
        assert_eq!(verification.observe(Some(&new), YOUNG, at(4)), Progress::Failed(failure));
    }

    #[test]
    fn a_second_restart_by_somebody_else_begins_the_wait_anew_and_a_loop_fails() {
        let mut verification = begin();
        let life = |pid| Life { pid, started: 9000 };
        verification.observe(Some(&process(Status::Online, Some(life(11)))), YOUNG, at(1));
        let other = ProcessObservation { restarts: Some(5), ..process(Status::Online, Some(life(12))) };
        assert_eq!(verification.observe(Some(&other), YOUNG, at(9)), Progress::Waiting(Stage::Stable));
        assert_eq!(verification.observe(Some(&other), YOUNG, at(12)), Progress::Waiting(Stage::Stable));
        // pm2's word was about the first.
        assert_eq!(verification.observe(Some(&other), YOUNG, at(19)), Progress::Waiting(Stage::Serving));
        verification.probed(Some(life(12)), &seen(Sockets::Reached([80].into())), at(19));
        assert_eq!(verification.observe(Some(&other), YOUNG, at(19)), Progress::Verified { life: life(12), starts: 2 });
        verification.observe(Some(&process(Status::Online, Some(life(13)))), YOUNG, at(20));
        let fourth = process(Status::Online, Some(life(14)));
        assert_eq!(verification.observe(Some(&fourth), YOUNG, at(21)), Progress::Failed(Failure::Restless));
    }

    /// pm2 counts the end of our young instance, stops waiting for it, or refuses our order, since another is under way.
    #[test]
    fn what_somebody_else_asked_for_meanwhile_is_no_failure() {
        let theirs = Life { pid: 12, started: 12_000 };
        let new = ProcessObservation {
            unstable_restarts: Some(1),
            created_at: Some(2),
            ..process(Status::Online, Some(theirs))
        };
        let refused = |it: &mut Verification| it.refused(at(1));
        let late = |it: &mut Verification| it.answered(Some(false));
        let answers: [&dyn Fn(&mut Verification); 2] = [&refused, &late];
        for answer in answers {
            let old = process(Status::Online, Some(OLD));
            let settings = VerifySettings::default();
            let mut verification = Verification::begin(OLD, GROWN, &old, None, &settings, Steady(0));
            verification.observe(Some(&process(Status::Launching, Some(NEW))), YOUNG, at(1));
            answer(&mut verification);
            assert_eq!(verification.observe(Some(&new), YOUNG, at(8)), Progress::Waiting(Stage::Stable));
            assert_eq!(verification.socket_question(), Some(SocketQuestion::Connection));
            verification.probed(Some(theirs), &seen(Sockets::Reached([80].into())), at(9));
            let progress = verification.observe(Some(&new), YOUNG, at(18));
            assert_eq!(progress, Progress::Verified { life: theirs, starts: 2 });
        }
    }

    #[test]
    fn two_starts_before_the_first_look_are_no_crash_and_a_third_is_one() {
        let mut verification = begin();
        let second = ProcessObservation {
            restarts: Some(5),
            unstable_restarts: Some(1),
            ..process(Status::Launching, Some(NEW))
        };
        assert_eq!(verification.observe(Some(&second), YOUNG, at(1)), Progress::Waiting(Stage::Online));
        let third = ProcessObservation { unstable_restarts: Some(2), ..second };
        assert_eq!(verification.observe(Some(&third), YOUNG, at(2)), Progress::Failed(Failure::CrashedAtBoot));
    }

    #[test]
    fn a_restart_count_that_moves_begins_the_wait_anew() {
        let mut verification = begin();
        let new = process(Status::Online, Some(NEW));
        verification.observe(Some(&new), YOUNG, at(1));
        let moved = ProcessObservation { restarts: Some(6), ..new.clone() };
        assert_eq!(verification.observe(Some(&moved), YOUNG, at(11)), Progress::Waiting(Stage::Stable));
        assert_eq!(verification.observe(Some(&moved), YOUNG, at(21)), Progress::Verified { life: NEW, starts: 1 });
    }

    #[test]
    fn an_app_that_launches_until_pm2_stops_waiting_never_was_ready() {
        let launching = ProcessObservation { wait_ready: true, ..process(Status::Launching, Some(NEW)) };
        let online = ProcessObservation { wait_ready: true, ..process(Status::Online, Some(NEW)) };
        for (milliseconds, ready) in [(1000, true), (2300, true), (2700, false)] {
            let mut verification = begin();
            verification.observe(Some(&launching), Duration::from_millis(milliseconds), at(3));
            let progress = verification.observe(Some(&online), Duration::from_secs(4), at(4));
            assert_eq!(progress == Progress::Waiting(Stage::Stable), ready, "{milliseconds}");
        }
    }

    #[test]
    fn a_count_of_unstable_restarts_from_earlier_days_hides_no_crash() {
        let before = ProcessObservation { unstable_restarts: Some(5), ..process(Status::Online, Some(OLD)) };
        let settings = VerifySettings::default();
        let mut verification = with_answer(Verification::begin(OLD, GROWN, &before, None, &settings, Steady(0)));
        assert_eq!(verification.observe(Some(&before), YOUNG, at(1)), Progress::Waiting(Stage::NewLife));
        let crashed = ProcessObservation { unstable_restarts: Some(1), ..process(Status::Launching, Some(NEW)) };
        assert_eq!(verification.observe(Some(&crashed), YOUNG, at(2)), Progress::Failed(Failure::CrashedAtBoot));
    }

    #[test]
    fn the_end_of_a_young_life_counts_once_and_a_crash_after_it_still_shows() {
        let young = process(Status::Online, Some(OLD));
        let counted = |unstable, status, life| ProcessObservation {
            unstable_restarts: Some(unstable),
            ..process(status, Some(life))
        };
        for (last, expected) in [
            (counted(1, Status::Online, NEW), Progress::Verified { life: NEW, starts: 1 }),
            (counted(2, Status::Launching, NEW), Progress::Failed(Failure::CrashedAtBoot)),
        ] {
            let settings = VerifySettings::default();
            let mut verification = with_answer(Verification::begin(OLD, YOUNG, &young, None, &settings, Steady(0)));
            let ending = counted(1, Status::Stopping, OLD);
            assert_eq!(verification.observe(Some(&ending), YOUNG, at(1)), Progress::Waiting(Stage::NewLife));
            let new = counted(1, Status::Online, NEW);
            assert_eq!(verification.observe(Some(&new), YOUNG, at(2)), Progress::Waiting(Stage::Stable));
            assert_eq!(verification.observe(Some(&last), YOUNG, at(13)), expected);
        }
    }
}
