//! What the collecting task publishes and every reader sees: one collection with everything that follows from it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;

use crate::export::json::ProcessesView;
use crate::export::{self, Collected, VersionSlope};
use crate::model::{ProcessKey, Snapshot, Verdict};

/// One collection, its verdicts, and the bodies made from them. Immutable once published.
#[derive(Debug)]
pub struct Published {
    /// The collection.
    pub snapshot: Snapshot,
    /// The verdicts as of it.
    pub verdicts: BTreeMap<ProcessKey, Verdict>,
    /// Slopes by version.
    pub version_slopes: Arc<[VersionSlope]>,
    metrics: Bytes,
    processes: OnceLock<Bytes>,
}

impl Published {
    /// Writes the metrics of a collection, so that a scrape has nothing left to do.
    pub fn new(
        snapshot: Snapshot,
        verdicts: BTreeMap<ProcessKey, Verdict>,
        version_slopes: Arc<[VersionSlope]>,
    ) -> Self {
        let collected = Collected { snapshot: &snapshot, verdicts: &verdicts, version_slopes: &version_slopes };
        let metrics = Bytes::from(export::render_collected(&collected));
        Self { snapshot, verdicts, version_slopes, metrics, processes: OnceLock::new() }
    }

    /// The families of the collection in the text format.
    pub fn metrics(&self) -> Bytes {
        self.metrics.clone()
    }

    /// The collection as the API shows it.
    pub fn view(&self) -> ProcessesView {
        ProcessesView::new(&Collected {
            snapshot: &self.snapshot,
            verdicts: &self.verdicts,
            version_slopes: &self.version_slopes,
        })
    }

    /// The JSON body of `/api/v1/processes`, written by `view` when it is first asked for.
    pub fn processes(&self, view: impl FnOnce() -> ProcessesView) -> Bytes {
        let write = || serde_json::to_vec(&view()).map_or_else(|_unwritable| Bytes::new(), Bytes::from);
        self.processes.get_or_init(write).clone()
    }
}
