//! Shapes of the API's answers about versions, restarts and evidence, as `docs/openapi.yaml` describes them.
//!
//! Times are seconds since the Unix epoch, absent values null, words those of the rooms they come from. Plain data: this
//! room refuses to fill them in.

use serde::{Deserialize, Serialize};

use crate::evidence::report::SeriesGrowth;
use crate::export::json::PlanView;
use crate::model::Slope;

/// The body of `/api/v1/compare?daemon=&app=`: the versions of one app side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareView {
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// Its versions, the oldest first.
    pub versions: Vec<VersionView>,
    /// The newest version against the one before; null while there is only one.
    pub comparison: Option<ComparisonView>,
}

/// One version of an app, over all its processes and lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// The version, as pm2 knew it; else the git revision or the time of the restart.
    pub version: String,
    /// First sample.
    pub from: f64,
    /// Last sample.
    pub to: f64,
    /// Lives it was seen in.
    pub lives: usize,
    /// Hours it was seen for, over all lives.
    pub hours: f64,
    /// Its slope, where it was seen for long enough.
    pub slope: Option<Slope>,
    /// Largest resident memory of one of its lives.
    pub resident_max_bytes: Option<u64>,
}

/// Whether a new version mended the leak of the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparisonView {
    /// The earlier version.
    pub before: String,
    /// The later version.
    pub after: String,
    /// `fixed`, `not_fixed`, `no_leak` or `too_early`.
    pub outcome: String,
    /// Hours more that are needed when it is too early.
    pub hours_needed: Option<f64>,
    /// The outcome as a sentence.
    pub sentence: String,
}

/// The body of `GET /api/v1/restarts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestartsView {
    /// `off`, `dry-run` or `enforce`: the most that any policy may do.
    pub mode: String,
    /// Whether the one who asks may ask for restarts.
    pub acting: ActingView,
    /// What is asked for and not yet done, by number.
    pub requests: Vec<RequestView>,
    /// Where each app stands.
    pub apps: Vec<AppPolicyView>,
    /// What happened, the newest first.
    pub audit: Vec<AuditView>,
}

/// Whether the one who asks may act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActingView {
    /// Whether an order would be taken.
    pub allowed: bool,
    /// `none`, `basic` or `bearer`: what must come with an order.
    pub authentication: String,
    /// Why, as a sentence.
    pub sentence: String,
}

/// An open request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestView {
    /// Its number.
    pub id: u64,
    /// `person`, `alert`, `memory`, `leak` or `schedule`.
    pub trigger: String,
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// When it was made.
    pub made_at: f64,
    /// Why it was made, as a sentence.
    pub reason: String,
    /// Whether something has been done for it, so that it can't be taken back.
    pub begun: bool,
    /// Its targets, by `pm_id`.
    pub targets: Vec<TargetView>,
}

/// One process that a request is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetView {
    /// pm2's number.
    pub pm_id: u32,
    /// `waiting`, `acting`, `done`, `failed`, `rehearsed` or `ended`.
    pub state: String,
    /// What would happen now; null when nothing more will.
    pub plan: Option<PlanView>,
    /// What every gate says, in the order they are asked.
    pub gates: Vec<GateView>,
}

/// What one gate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// The gate's name.
    pub gate: String,
    /// Whether it lets the request through.
    pub open: bool,
    /// The name of the reason when it holds.
    pub reason: Option<String>,
    /// Its answer as a sentence.
    pub sentence: String,
}

/// Where one app stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppPolicyView {
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// Whether a policy names it.
    pub opted_in: bool,
    /// `off`, `dry-run` or `enforce`, as far as this app goes.
    pub mode: String,
    /// When the next window opens; null when one is open or none is set.
    pub next_window_at: Option<f64>,
    /// Restarts left of the app's budget.
    pub budget_left: u32,
    /// Restarts left of the host's budget.
    pub host_budget_left: u32,
    /// The breaker.
    pub breaker: BreakerView,
    /// Memory that the latest measured restart freed; negative when more is held than before.
    pub memory_freed_bytes: Option<i64>,
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerView {
    /// Whether it is open, which stops all restarts of the app.
    pub open: bool,
    /// Why it opened.
    pub cause: Option<String>,
    /// When it closes by itself.
    pub closes_at: Option<f64>,
}

/// One record of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// Its number.
    pub id: u64,
    /// When.
    pub at: f64,
    /// `requested`, `request_ended`, `restart`, `rehearsal`, `breaker_opened` or `breaker_closed`.
    pub kind: String,
    /// The request it belongs to.
    pub request: Option<u64>,
    /// What asked.
    pub trigger: Option<String>,
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// pm2's number, where it is about one process.
    pub pm_id: Option<u32>,
    /// `reload` or `restart`; null where nothing was to be done.
    pub action: Option<String>,
    /// `under_way`, `verified`, `failed`, `unverified`, `removed`, `not_carried_out` or `cancelled`; null where nothing was to be done.
    pub outcome: Option<String>,
    /// The short word for a failure or an end.
    pub detail: Option<String>,
    /// What happened and why, as a sentence.
    pub sentence: String,
    /// Memory held before.
    pub memory_before_bytes: Option<u64>,
    /// Memory held after.
    pub memory_after_bytes: Option<u64>,
    /// Slope before, in bytes per second.
    pub slope_before: Option<f64>,
    /// Slope after, in bytes per second.
    pub slope_after: Option<f64>,
    /// Seconds until memory was back where it was, or until nobody looked any more.
    pub time_bought_seconds: Option<f64>,
    /// Whether it helped; null while that is open.
    pub helped: Option<bool>,
    /// The id of the evidence that was taken before.
    #[serde(default)]
    pub evidence: Option<String>,
    /// How often the probe was asked during the replacement.
    #[serde(default)]
    pub probes_asked: Option<u32>,
    /// How often it failed.
    #[serde(default)]
    pub probes_failed: Option<u32>,
}

/// The body of `GET /api/v1/restarts/preview`: what an order would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewView {
    /// The processes it would be about.
    pub targets: Vec<PreviewTargetView>,
    /// What would happen, in sentences.
    pub sentences: Vec<String>,
}

/// One process that an order would be about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewTargetView {
    /// The daemon.
    pub daemon: String,
    /// pm2's number.
    pub pm_id: u32,
    /// `hold`, `reload`, `restart`, `would_reload` or `would_restart`.
    pub decision: String,
}

/// The answer to an order that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenView {
    /// The numbers of the requests that now stand for it.
    pub requests: Vec<u64>,
    /// What happens next, as a sentence.
    pub sentence: String,
}

/// The body of `/api/v1/evidence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceView {
    /// What was taken, is being taken or came to nothing, the newest first.
    pub evidence: Vec<EvidenceItemView>,
    /// Whether the one who asks may have something taken.
    pub acting: ActingView,
    /// Of one process that runs: why nothing more is taken by itself now, or what is next, as a sentence.
    pub standing: Option<String>,
}

/// The answer to an order to take evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceTakenView {
    /// The name of what is being taken.
    pub id: String,
    /// What happens next, as a sentence.
    pub sentence: String,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceItemView {
    /// Its name in the API.
    pub id: String,
    /// `heap_profile` or `heap_snapshot`.
    pub kind: String,
    /// The daemon.
    pub daemon: String,
    /// pm2's namespace of it.
    pub namespace: String,
    /// The app.
    pub app: String,
    /// pm2's number.
    pub pm_id: u32,
    /// When it was taken.
    pub taken_at: f64,
    /// Why it was taken: `person`, `leak` or `before_restart`.
    pub trigger: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// How long it was sampled for.
    pub duration_seconds: Option<f64>,
    /// The event loop's worst pause while it was taken.
    pub pause_seconds: Option<f64>,
    /// Size of the file.
    pub size_bytes: Option<u64>,
    /// What it says, as a sentence; or why it failed.
    pub sentence: String,
    /// What holds most memory, the largest first; at most twenty lines.
    pub top: Vec<FrameView>,
    /// The profile's tree for a flame graph, cut off where it gets small; null for snapshots.
    pub flame: Option<Box<FrameView>>,
    /// What grew over a series of snapshots, at the last of them; null for profiles, and where no report was made.
    #[serde(default)]
    pub growth: Option<Box<SeriesGrowth>>,
    /// What it cannot tell, and why: places without a source map, memory that no profile sees.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A function or a class and the memory it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameView {
    /// Its name.
    pub name: String,
    /// Its file and line, where known.
    pub location: Option<String>,
    /// The place in the code that ran, where a source map tells another one above.
    pub generated: Option<String>,
    /// The package that it is of, with its version where that is known.
    pub package: Option<String>,
    /// Memory that it and what it called still hold.
    pub bytes: u64,
    /// What it called, the largest first.
    pub children: Vec<FrameView>,
}
