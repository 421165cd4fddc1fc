//! What is remembered of a process: minutes of the life it is in, and summaries of the lives before.

use serde::{Deserialize, Serialize};

use crate::{AppName, Life, ProcessKey, Steady};

/// One minute of one life. Every figure is in bytes but `load`; `NaN` means that nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// The minute on the steady line ([`Steady::minute`]).
    pub minute: i64,
    /// Smallest held memory of the minute: resident plus swapped, over the process tree.
    pub resident: f32,
    /// Mean of memory held outside of V8: native memory, buffers, child processes. By the process's mappings, else held
    /// memory less what V8 reports.
    pub native: f32,
    /// Heap right after a major collection when the app reports it, else the smallest heap seen in the minute.
    pub heap_floor: f32,
    /// Mean of V8's used heap.
    pub heap_used: f32,
    /// Load in the unit that is at hand: requests per second, else cores of CPU used.
    pub load: f32,
}

impl Minute {
    /// A minute in which nothing was measured.
    pub const fn empty(minute: i64) -> Self {
        Self { minute, resident: f32::NAN, native: f32::NAN, heap_floor: f32::NAN, heap_used: f32::NAN, load: f32::NAN }
    }
}

/// How a life ended, as far as it could be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeEnd {
    /// It still runs.
    Running,
    /// pm2 started a new life of the same process.
    Restarted,
    /// leakslope restarted it.
    RestartedByUs,
    /// pm2 shows it stopped.
    Stopped,
    /// pm2 shows it errored.
    Errored,
    /// It left pm2's list.
    Removed,
    /// It ended while nobody looked.
    Unseen,
}

/// What is kept of a life for months, after its minutes are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LifeSummary {
    /// The process.
    pub key: ProcessKey,
    /// The app it belonged to.
    #[serde(flatten)]
    pub app: AppName,
    /// The life.
    pub life: Life,
    /// The app's version, where pm2 knew it.
    pub version: Option<String>,
    /// The git revision, where pm2 knew it.
    pub revision: Option<String>,
    /// First sample on the steady line.
    pub first: Steady,
    /// Last sample on the steady line.
    pub last: Steady,
    /// How it ended.
    pub end: LifeEnd,
    /// Smallest footprint in each of equal parts of the life after its warm-up, in bytes; `NaN` where a part is empty.
    pub floors: Vec<f32>,
    /// Smallest resident memory in each of the same parts.
    pub resident_floors: Vec<f32>,
    /// Largest resident memory, in bytes.
    pub resident_max: f32,
    /// Slope of the footprint in bytes per second with its confidence interval, where the life was long enough.
    pub slope: Option<crate::Slope>,
}
