//! What history takes in: one look at one running process, reduced to the figures the trend needs.

use model::{Bytes, Life, ProcessSample};

/// The figures of one look at one life. Each is absent on its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The life it was taken of.
    pub life: Life,
    /// Memory held: resident and swapped, over the process tree.
    pub held: Option<Bytes>,
    /// V8's used heap.
    pub heap_used: Option<Bytes>,
    /// V8's committed heap.
    pub heap_total: Option<Bytes>,
    /// What of that is resident, where the app reports it.
    pub heap_physical: Option<Bytes>,
    /// Memory held outside of V8 by the process's mappings, where they were read with this sample.
    pub outside_v8: Option<Bytes>,
    /// Heap right after the latest major collection, where the app reports it.
    pub heap_after_major_gc: Option<Bytes>,
    /// Major collections since the start; present (zero included) exactly when the app reports its collections.
    pub major_gcs: Option<u64>,
    /// Requests per second, where the app reports them.
    pub requests_per_second: Option<f64>,
    /// CPU time since the start, in milliseconds.
    pub cpu_milliseconds: Option<u64>,
}

impl Sample {
    /// A sample of a life in which nothing was measured.
    pub const fn empty(life: Life) -> Self {
        Self {
            life,
            held: None,
            heap_used: None,
            heap_total: None,
            heap_physical: None,
            outside_v8: None,
            heap_after_major_gc: None,
            major_gcs: None,
            requests_per_second: None,
            cpu_milliseconds: None,
        }
    }

    /// Takes the sample out of a collection: none while the process does not run. Heap figures of a process whose
    /// metrics stand still are left out, for they say nothing about now.
    pub fn of(process: &ProcessSample) -> Option<Self> {
        let life = process.life?;
        let mut sample = Self {
            held: process.held(),
            cpu_milliseconds: process.system.as_ref().map(|system| system.cpu_milliseconds),
            outside_v8: process.system.as_ref().and_then(|system| system.outside_v8),
            ..Self::empty(life)
        };
        if !process.metrics_frozen {
            let metrics = &process.listed.metrics;
            sample.heap_used = metrics.heap_used;
            sample.heap_total = metrics.heap_total;
            sample.requests_per_second = metrics.http_requests_per_second;
            if let Some(gc) = &metrics.gc {
                sample.major_gcs = Some(gc.major_gcs);
                sample.heap_after_major_gc = gc.heap_after_major_gc;
                sample.heap_physical = gc.heap_physical;
            }
        }
        Some(sample)
    }
}
