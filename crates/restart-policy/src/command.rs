//! What goes into the state machine beside observations, and what comes out of it.
//!
//! Plain data: a command is an order to the shell, an event is what the shell reports. Neither holds a secret.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::AuditRecord;
use super::request::AlertCall;
use super::serving::{ProbeAnswer, ProbeOrder};
use super::silence::Silence;
use super::state::State;
use model::{AppName, DaemonName, Life, ProcessKey};

/// An order to replace one life of one process. The shell looks at a fresh list first and sends nothing unless that very
/// life is online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The step it belongs to; reported back with the answer.
    pub step: u64,
    /// The process.
    pub key: ProcessKey,
    /// The life that is to end.
    pub life: Life,
    /// The app, for logs.
    #[serde(flatten)]
    pub app: AppName,
    /// How long pm2 may take to answer.
    pub deadline: Duration,
}

/// An order to run a command before a replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOrder {
    /// The step it belongs to.
    pub step: u64,
    /// The process.
    pub key: ProcessKey,
    /// The life that is to end.
    pub life: Life,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it is killed with its children.
    pub timeout: Duration,
}

/// An order to take evidence of a leaking process before it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceOrder {
    /// The step it belongs to.
    pub step: u64,
    /// The process.
    pub key: ProcessKey,
    /// The life that is to end.
    pub life: Life,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// When it is no longer waited for.
    pub patience: Duration,
}

/// What came of an order to take evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceTaken {
    /// The name of what shows it; none where nothing does.
    pub id: Option<String>,
    /// What it says or why there is none, to go on with in the middle of a sentence.
    pub sentence: String,
}

impl EvidenceTaken {
    /// Nothing was taken.
    pub fn none(why: &str) -> Self {
        Self { id: None, sentence: format!("no heap profile before it: {why}") }
    }
}

/// How loud a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the log: a hold whose reason changed.
    Note,
    /// Something was done.
    Info,
    /// A person should look.
    Warning,
}

/// What kind of thing a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A request was made, held, withdrawn or ended.
    Request,
    /// A replacement began or ended.
    Restart,
    /// A replacement would have been made: nobody need do anything.
    Rehearsal,
    /// A breaker opened.
    BreakerOpened,
    /// A breaker closed.
    BreakerClosed,
}

/// A sentence for the log and, from [`Severity::Info`] up, for people who want to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How loud.
    pub severity: Severity,
    /// What kind.
    pub kind: NoticeKind,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The process, where it is about one.
    pub pm_id: Option<u32>,
    /// The sentence.
    pub text: String,
}

/// An order to the shell. Orders are carried out in the order they come.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Write the state and the records down, both or neither, and report [`Event::Persisted`] or
    /// [`Event::PersistFailed`]. Nothing that depends on it is ordered before that report.
    Persist {
        /// The state's number, to report back.
        revision: u64,
        /// The state.
        state: Box<State>,
        /// Records to write, each over the one with its number. The policy holds the same until they are kept.
        records: Arc<Vec<AuditRecord>>,
    },
    /// Reload one cluster worker and report [`Event::Acted`].
    Reload(Order),
    /// Restart one process and report [`Event::Acted`].
    Restart(Order),
    /// Run a hook and report [`Event::HookEnded`].
    RunHook(HookOrder),
    /// Take evidence and report [`Event::EvidenceEnded`].
    TakeEvidence(EvidenceOrder),
    /// Evaluate expressions and report [`Event::Promql`].
    AskPromql {
        /// The daemon of the app it is about.
        daemon: DaemonName,
        /// The app it is about.
        app: AppName,
        /// The expressions, names already put in.
        expressions: Vec<String>,
    },
    /// Find out whether a process serves and report [`Event::Probed`].
    Probe(ProbeOrder),
    /// Fetch the active silences and report [`Event::Silences`].
    AskSilences,
    /// Ask the FleetLock server for the lock and report [`Event::FleetLock`].
    AskFleetLock,
    /// Give the lock back and report [`Event::FleetLockReleased`].
    ReleaseFleetLock,
    /// Log a sentence and tell people.
    Notify(Notice),
}

/// How an order to pm2 went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// pm2 said ok, which proves nothing.
    Accepted {
        /// Whether the new worker said in time that it is ready, as far as that could be seen.
        ready: Option<bool>,
    },
    /// pm2 answered with an error.
    Refused(String),
    /// Nothing was sent: the life had ended, the lock was taken, the daemon could not be reached.
    NotSent(String),
    /// Something was sent and no answer came: it may or may not have been done.
    Unknown(String),
}

/// What a FleetLock server said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockAnswer {
    /// The lock is ours.
    Granted,
    /// It is not; with the server's `kind` and `value`.
    Denied(String),
    /// There was no answer that means either. The lock may be ours.
    Failed(String),
}

/// What the shell and the world report.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Alerts arrived, in any order and number.
    Alerts(Vec<AlertCall>),
    /// A state was written down.
    Persisted {
        /// Its number.
        revision: u64,
    },
    /// A state could not be written down.
    PersistFailed {
        /// Its number.
        revision: u64,
        /// Why.
        why: String,
    },
    /// An order to pm2 was carried out or not.
    Acted {
        /// The step.
        step: u64,
        /// How it went.
        answer: Answer,
    },
    /// A hook ended.
    HookEnded {
        /// The step.
        step: u64,
        /// What it said when it failed.
        result: Result<(), String>,
    },
    /// Evidence was taken or not; a replacement goes on either way.
    EvidenceEnded {
        /// The step.
        step: u64,
        /// What came of it.
        taken: EvidenceTaken,
    },
    /// Prometheus answered: for every expression whether it returned a sample.
    Promql {
        /// The daemon.
        daemon: DaemonName,
        /// The app.
        app: AppName,
        /// One answer an expression, or why there is none.
        answer: Result<Vec<bool>, String>,
    },
    /// It was found out whether a process serves.
    Probed {
        /// The replacement that is being watched, as it was ordered.
        step: Option<u64>,
        /// The process.
        key: ProcessKey,
        /// The life that was asked about.
        life: Option<Life>,
        /// What was found out.
        answer: ProbeAnswer,
    },
    /// Alertmanager answered.
    Silences(Result<Vec<Silence>, String>),
    /// The FleetLock server answered a request for the lock.
    FleetLock(LockAnswer),
    /// The FleetLock server answered a release.
    FleetLockReleased(Result<(), String>),
}
