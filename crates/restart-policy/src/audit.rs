//! The audit log: every request, decision, action, outcome and effect as one kind of record.
//!
//! A record is written in the same step as the state it speaks of, and written again under its number when more is
//! known. This room holds values; it refuses to store them.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::observation::Now;
use super::reason::GateResult;
use super::request::{Action, Trigger};
use super::serving::ProbeCount;
use model::{AppName, Bytes, DaemonName, Life, Steady, WallTime};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Something asked for a restart.
    Requested,
    /// A request ended.
    RequestEnded,
    /// A process was to be replaced.
    Restart,
    /// A process would have been replaced.
    Rehearsal,
    /// A breaker opened.
    BreakerOpened,
    /// A breaker closed, by time or by a person.
    BreakerClosed,
}

/// How the replacement of one process went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Under way: after a crash of the sidecar this is what is left of it.
    UnderWay,
    /// The new instance showed everything it must.
    Verified,
    /// The new instance did not show what it must.
    Failed,
    /// The process was replaced, and whether the new instance serves is not known.
    Unverified,
    /// Somebody stopped the process or took it off pm2's list meanwhile, on purpose.
    Removed,
    /// pm2 refused, or the order never reached it: the old instance goes on.
    NotCarriedOut,
    /// The hook failed or the gates closed meanwhile: nothing was ordered.
    Cancelled,
}

impl Outcome {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Unverified => "unverified",
            Self::Removed => "removed",
            Self::NotCarriedOut => "not_carried_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number; a later record with the same number replaces it.
    pub id: u64,
    /// When it was made.
    pub at: Steady,
    /// The same by the wall clock.
    pub wall: WallTime,
    /// What it is about.
    pub kind: RecordKind,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The process, where it is about one.
    pub pm_id: Option<u32>,
    /// The request it belongs to.
    pub request: Option<u64>,
    /// What asked.
    pub trigger: Option<Trigger>,
    /// What was or would have been done.
    pub action: Option<Action>,
    /// How that went.
    pub outcome: Option<Outcome>,
    /// The short word for a failure, an end or a trouble.
    pub detail: Option<String>,
    /// The whole story in a sentence or two.
    pub sentence: String,
    /// What every gate said.
    pub gates: Vec<GateResult>,
    /// The life before.
    pub life_before: Option<Life>,
    /// The life after.
    pub life_after: Option<Life>,
    /// Memory held before.
    pub memory_before: Option<Bytes>,
    /// Memory held when the new instance was verified.
    pub memory_after: Option<Bytes>,
    /// What it brought, as far as it is known.
    pub effect: Option<Effect>,
    /// The name of the evidence that was taken before.
    #[serde(default)]
    pub evidence: Option<String>,
    /// How often the probe was asked meanwhile; none where none is set.
    #[serde(default)]
    pub probes: Option<ProbeCount>,
}

impl AuditRecord {
    pub(super) fn new(
        id: u64,
        kind: RecordKind,
        daemon: &DaemonName,
        app: &AppName,
        sentence: String,
        now: Now,
    ) -> Self {
        Self {
            id,
            at: now.steady,
            wall: now.wall,
            kind,
            daemon: daemon.clone(),
            app: app.clone(),
            pm_id: None,
            request: None,
            trigger: None,
            action: None,
            outcome: None,
            detail: None,
            sentence,
            gates: Vec::new(),
            life_before: None,
            life_after: None,
            memory_before: None,
            memory_after: None,
            effect: None,
            evidence: None,
            probes: None,
        }
    }
}
