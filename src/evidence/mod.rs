//! Evidence: which code holds the memory.
//!
//! | part       | what it is for                                                    | pure |
//! |------------|-------------------------------------------------------------------|------|
//! | `when`     | when one is taken without a person asking                         | yes  |
//! | `keep`     | records of what was taken, beside its files, within a budget      | no   |
//! | `take`     | takes profiles and snapshots from a running process, after checks | no   |
//! | `inspector`| talks to V8's inspector in a Node process                         | no   |
//! | `export` | a profile as other tools read it                                  | yes  |
//! | `original` | the author's own file and line, by source maps                   | no   |
//! | `report`   | what a series of snapshots told, small enough for the sidecar     | yes  |
//!
//! What a snapshot and a profile mean is read by the crate `v8-heap`, which opens no file: this room does that.

pub mod export;
pub mod inspector;
pub mod keep;
pub mod original;
pub mod report;
pub mod take;
pub mod when;

pub use ::v8_heap::{profile, snapshot};

use std::time::Duration;

use crate::model::Bytes;

/// `[evidence]`: what may be taken from apps, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceSettings {
    /// Whether a profile is taken when a process is found to leak.
    pub on_leak: bool,
    /// Whether a profile is taken before a leaking process is restarted.
    pub before_restart: bool,
    /// How long allocations are sampled.
    pub duration: Duration,
    /// The same before a restart.
    pub before_restart_duration: Duration,
    /// Time between two profiles of one app that nobody asked for.
    pub cooldown: Duration,
    /// Bound on what is kept in the state directory.
    pub max_disk: Bytes,
    /// Globs over the names of apps whose inspector may be opened without a person asking.
    pub open_inspector: Vec<String>,
    /// Where scripts and their source maps lie.
    pub sources: original::Places,
}
