//! The shape in which the API shows why processes ended.

use serde::{Deserialize, Serialize};

use crate::model::{Death, LimitKind};

/// `/api/v1/deaths`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeathsView {
    /// The newest first.
    pub deaths: Vec<DeathView>,
}

/// One end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeathView {
    /// Its number.
    pub id: u64,
    /// When, in seconds since the Unix epoch.
    pub at: f64,
    /// The daemon.
    pub daemon: String,
    /// The app's namespace.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// pm2's number.
    pub pm_id: u32,
    /// The pid it had, where that was seen.
    pub pid: Option<u32>,
    /// What ended it.
    pub cause: String,
    /// What the cause alone does not say: `restart`, `SIGTERM`, an exit code.
    pub detail: String,
    /// `certain`, `likely` or `undecided`.
    pub certainty: String,
    /// What it may be, where it is undecided.
    pub between: Vec<String>,
    /// What it was told by.
    pub signs: Vec<String>,
    /// What pm2 did then.
    pub then: crate::model::Aftermath,
    /// How many times in a row it ended right after its start; 0 where it had run for longer.
    pub in_a_row: u32,
    /// Resident memory when it was last seen.
    pub resident_memory_bytes: Option<u64>,
    /// V8's used heap when it was last seen.
    pub heap_used_bytes: Option<u64>,
    /// V8's limit on its heap.
    pub heap_limit_bytes: Option<u64>,
    /// The ceiling it would have met first.
    pub limit: Option<LimitView>,
    /// Growth when it was last judged, in bytes per second.
    pub slope_bytes_per_second: Option<f64>,
    /// The verdict when it was last judged.
    pub state: Option<String>,
    /// How long it had run, in seconds.
    pub age_seconds: Option<f64>,
    /// The newest evidence of that run.
    pub evidence: Option<String>,
    /// The first line of the exception, as the app wrote it: untrusted text, for those alone who may act.
    pub message: Option<String>,
    /// The whole story in one sentence.
    pub sentence: String,
}

/// A ceiling with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitView {
    /// Which one.
    pub kind: LimitKind,
    /// Where it lies.
    pub bytes: u64,
}

impl From<&Death> for DeathView {
    fn from(death: &Death) -> Self {
        let (finding, before) = (&death.finding, &death.before);
        Self {
            id: death.id,
            at: death.at.as_seconds(),
            daemon: death.daemon.to_string(),
            namespace: death.app.namespace().to_owned(),
            app: death.app.name().to_owned(),
            pm_id: death.pm_id,
            pid: death.pid,
            cause: finding.cause.as_str().to_owned(),
            detail: finding.detail.clone(),
            certainty: finding.certainty.as_str().to_owned(),
            between: finding.between.clone(),
            signs: finding.signs.clone(),
            then: death.then,
            in_a_row: death.in_a_row,
            resident_memory_bytes: before.resident_memory_bytes.map(|bytes| bytes.0),
            heap_used_bytes: before.heap_used_bytes.map(|bytes| bytes.0),
            heap_limit_bytes: before.heap_limit_bytes.map(|bytes| bytes.0),
            limit: before.limit.map(|limit| LimitView { kind: limit.kind, bytes: limit.bytes.0 }),
            slope_bytes_per_second: before.slope.map(|slope| slope.bytes_per_second),
            state: before.state.map(|state| state.as_str().to_owned()),
            age_seconds: before.age_seconds,
            evidence: before.evidence.clone(),
            message: death.message.clone(),
            sentence: death.sentence.clone(),
        }
    }
}
