//! The machine and the sidecar itself.

use serde::Serialize;

use crate::Bytes;

/// The host's memory at one collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HostSample {
    /// All memory.
    pub memory_total: Bytes,
    /// What new work could get without swapping.
    pub memory_available: Bytes,
}

/// The sidecar's own use of the machine, read when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct SelfSample {
    /// CPU time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident: Bytes,
    /// Virtual memory.
    pub virtual_memory: Bytes,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most file descriptors it may open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Start, in seconds since the epoch.
    pub start_time_seconds: f64,
}
