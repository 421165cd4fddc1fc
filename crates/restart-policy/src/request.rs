//! Requests: who asks for which restart, and how far it has come.
//!
//! A request names lives, not processes: a life that ends by itself needs no restart, and none is ever asked for twice.
//! It stays open until every one of its targets has an end, and its end is recorded. This room refuses to decide when.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::observation::Now;
use model::{AppName, DaemonName, Life, Steady, WallTime};

/// What asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person.
    Person,
    /// An alert by Alertmanager's webhook.
    Alert,
    /// Memory above a threshold for a sustained time.
    Memory,
    /// A verdict.
    Leak,
    /// The calendar.
    Schedule,
}

impl Trigger {
    /// Every trigger, the most pressing first.
    pub const ALL: [Self; 5] = [Self::Person, Self::Alert, Self::Memory, Self::Leak, Self::Schedule];

    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Alert => "alert",
            Self::Memory => "memory",
            Self::Leak => "leak",
            Self::Schedule => "schedule",
        }
    }
}

/// How the process is to be replaced, as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// The gentlest way there is: a rolling reload of a cluster worker, a restart of anything else.
    Gentle,
    /// A restart, which drops connections.
    Hard,
}

/// How a process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// pm2 starts a new worker beside the old one and then stops the old one.
    Reload,
    /// pm2 stops the process and starts it anew: connections drop.
    Restart,
}

impl Action {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }

    /// The action for a wish: only a cluster worker can be reloaded.
    pub fn of(wish: Wish, cluster: bool) -> Self {
        if cluster && wish == Wish::Gentle { Self::Reload } else { Self::Restart }
    }
}

/// How far one target has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Not yet touched.
    Waiting,
    /// A step is under way.
    Acting,
    /// Replaced and verified.
    Done,
    /// Replaced, but the new instance did not show what it must; or the outcome is not known.
    Failed,
    /// Would have been replaced.
    Rehearsed,
    /// The life ended without us.
    Ended,
    /// Left alone, because the roll was stopped before it.
    Left,
}

impl TargetState {
    /// Whether nothing more will happen to it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Acting)
    }
}

/// One life that a request wants to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The life.
    pub life: Life,
    /// How far it has come.
    pub state: TargetState,
    /// Why this one, as a sentence.
    pub reason: String,
}

/// One alert that asks for one or all processes of an app, firing or resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertCall {
    /// The alert's own name among all alerts: Alertmanager's fingerprint, or a digest of its labels.
    pub id: String,
    /// The alert's name, for sentences.
    pub name: String,
    /// When it began to fire, in milliseconds since the epoch: with the id, one episode.
    pub starts_at: i64,
    /// Whether it has ended.
    pub resolved: bool,
    /// The daemon it names.
    pub daemon: DaemonName,
    /// The app it names.
    #[serde(flatten)]
    pub app: AppName,
    /// The process it names, where it names one.
    pub pm_id: Option<u32>,
    /// What it asks for.
    pub wish: Wish,
}

/// A person's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonCall {
    /// The daemon; any that has the app when left out.
    #[serde(default)]
    pub daemon: Option<DaemonName>,
    /// The app.
    #[serde(serialize_with = "AppName::serialize_qualified")]
    pub app: AppName,
    /// One process of it.
    #[serde(default)]
    pub pm_id: Option<u32>,
    /// Whether to take all processes even where only some leak.
    #[serde(default)]
    pub all: bool,
    /// Whether to go without waiting for a window or for the minimum uptime.
    #[serde(default)]
    pub now: bool,
    /// Whether to restart where a reload would do.
    #[serde(default)]
    pub hard: bool,
    /// Who asks, for the record.
    #[serde(default)]
    pub who: String,
    /// Why, for the record.
    #[serde(default)]
    pub why: String,
}

impl PersonCall {
    /// How the processes are to be replaced.
    pub(super) fn wish(&self) -> Wish {
        if self.hard { Wish::Hard } else { Wish::Gentle }
    }
}

/// An open request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number; never given twice.
    pub id: u64,
    /// What asked.
    pub trigger: Trigger,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// Why, as a sentence.
    pub reason: String,
    /// What it asks for.
    pub wish: Wish,
    /// Whether a person told it not to wait for a window or the minimum uptime.
    pub now: bool,
    /// When it was made.
    pub made: Steady,
    /// The same by the wall clock.
    pub made_wall: WallTime,
    /// The lives it wants to end, by `pm_id`.
    pub targets: BTreeMap<u32, Target>,
    /// Before this instant it is not tried again.
    pub not_before: Steady,
    /// Attempts in a row that ended with nothing done.
    pub idle_attempts: u32,
}

impl Request {
    /// Whether one of its targets has been acted upon.
    pub fn started(&self) -> bool {
        self.targets
            .values()
            .any(|target| matches!(target.state, TargetState::Acting | TargetState::Done | TargetState::Failed))
    }

    /// Whether nothing is left to do.
    pub fn finished(&self) -> bool {
        self.targets.values().all(|target| target.state.is_final())
    }

    /// How it ended, judged by its targets.
    pub fn outcome(&self) -> RequestEnd {
        let any = |state| self.targets.values().any(|target| target.state == state);
        if any(TargetState::Failed) {
            RequestEnd::Failed
        } else if any(TargetState::Done) {
            RequestEnd::Done
        } else if any(TargetState::Rehearsed) {
            RequestEnd::Rehearsed
        } else {
            RequestEnd::Moot
        }
    }

    pub(super) fn new(id: u64, trigger: Trigger, daemon: &DaemonName, app: &AppName, reason: String, now: Now) -> Self {
        Self {
            id,
            trigger,
            daemon: daemon.clone(),
            app: app.clone(),
            reason,
            wish: Wish::Gentle,
            now: false,
            made: now.steady,
            made_wall: now.wall,
            targets: BTreeMap::new(),
            not_before: now.steady,
            idle_attempts: 0,
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnd {
    /// Every target that was still there was replaced and verified.
    Done,
    /// A replacement failed and the roll was stopped.
    Failed,
    /// It would have been carried out.
    Rehearsed,
    /// Every target's life ended without us.
    Moot,
    /// What asked for it took it back before it began.
    Withdrawn,
    /// It named something that is not there.
    Refused,
}

impl RequestEnd {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Rehearsed => "rehearsed",
            Self::Moot => "moot",
            Self::Withdrawn => "withdrawn",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
