//! Evidence: which code holds the memory.
//!
//! | part       | what it is for                                                    | pure |
//! |------------|-------------------------------------------------------------------|------|
//! | `when`     | when one is taken without a person asking                         | yes  |
//! | `keep`     | records of what was taken, beside its files, within a budget      | no   |
//! | `take`     | takes profiles and snapshots from a running process, after checks | no   |
//! | `inspector`| talks to V8's inspector in a Node process                         | no   |
//! | `snapshot` | reads a heap snapshot                                             | yes  |
//! | `profile`  | reads a sampling heap profile                                     | yes  |
//! | `report`   | what a series of snapshots told, small enough for the sidecar     | yes  |
//!
//! The reading half: bytes of a `.heapsnapshot` or `.heapprofile` in, tables out. It opens no file, reads no clock and
//! starts nothing: the caller passes a `Read`. It keeps no string contents unless it is told to.

pub mod inspector;
pub mod keep;
pub mod profile;
pub mod report;
pub mod snapshot;
pub mod take;
pub mod when;

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
}
