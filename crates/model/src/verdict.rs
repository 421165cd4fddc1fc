//! What the trend says of a process, in the form every reader shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Steady};

/// How sure we are that a process leaks. How soon it matters is a question of its own
/// ([`Verdict::projected_exhaustion`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeakState {
    /// Too little has been seen of this life.
    Learning,
    /// No growth that would go on.
    Stable,
    /// Growth that looks like a leak: worth a ticket.
    Suspect,
    /// Growth that is a leak by the strict tests: worth acting on.
    Leaking,
}

impl LeakState {
    /// Every state, from the least to the most worrying.
    pub const ALL: [Self; 4] = [Self::Learning, Self::Stable, Self::Suspect, Self::Leaking];

    /// The word used in labels, JSON, logs and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Stable => "stable",
            Self::Suspect => "suspect",
            Self::Leaking => "leaking",
        }
    }
}

/// A series that a slope is fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Held memory of the process tree: resident and swapped.
    Resident,
    /// The floor of V8's used heap.
    Heap,
    /// Held memory less the committed heap.
    Native,
    /// Heap floor plus native memory: what garbage collection cannot free.
    Footprint,
}

impl Signal {
    /// Every signal, in the order metrics show them.
    pub const ALL: [Self; 4] = [Self::Resident, Self::Heap, Self::Native, Self::Footprint];

    /// The word used in labels, JSON, logs and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Heap => "heap",
            Self::Native => "native",
            Self::Footprint => "footprint",
        }
    }
}

/// A slope with its confidence interval, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// The best estimate; zero when flat, negative when shrinking.
    pub bytes_per_second: f64,
    /// Lower bound of the interval.
    pub low: f64,
    /// Upper bound of the interval.
    pub high: f64,
}

/// Which ceiling a process will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// pm2's `max_memory_restart`.
    MaxMemoryRestart,
    /// A cgroup's limit.
    Cgroup,
    /// V8's limit on its heap.
    Heap,
    /// The host's memory.
    Host,
    /// Set by the user.
    Configured,
}

impl LimitKind {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxMemoryRestart => "max_memory_restart",
            Self::Cgroup => "cgroup",
            Self::Heap => "heap",
            Self::Host => "host",
            Self::Configured => "configured",
        }
    }
}

/// A ceiling with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which one.
    pub kind: LimitKind,
    /// Where it lies.
    pub bytes: Bytes,
}

/// The verdict on one process at one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// How sure we are.
    pub state: LeakState,
    /// When the state was entered.
    pub since: Steady,
    /// When this evaluation was made.
    pub at: Steady,
    /// The signal the verdict rests on.
    pub signal: Signal,
    /// Whether heap figures come from the app's own collections, from sampling, or are missing.
    pub basis: Basis,
    /// Slope of each signal that could be fitted; empty only while learning.
    pub slopes: BTreeMap<Signal, Slope>,
    /// The span the slope of `signal` is fitted over.
    pub window: Duration,
    /// The floor now: what garbage collection cannot free.
    pub floor: Option<Bytes>,
    /// The nearest ceiling.
    pub limit: Option<Limit>,
    /// Time until that ceiling at the present pace; none when not growing or without a ceiling.
    pub projected_exhaustion: Option<Duration>,
    /// The test that spoke against a leak most recently, with the signal it looked at; none while leaking.
    pub rejection: Option<Rejection>,
    /// The whole verdict as a sentence for people; the same in log, metric, API and page.
    pub reason: String,
}

/// What the heap figures of a verdict come from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Heap right after major collections, as the app reports it.
    MajorGc,
    /// The smallest of sampled heap figures.
    SampledHeap,
    /// No heap figures: resident memory alone.
    ResidentOnly,
}

/// Which test said no, and of which signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The signal.
    pub signal: Signal,
    /// The name of the test, as in `docs/detection.md`.
    pub test: &'static str,
}

impl Basis {
    /// The word used in JSON and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MajorGc => "major_gc",
            Self::SampledHeap => "sampled_heap",
            Self::ResidentOnly => "resident_only",
        }
    }
}
