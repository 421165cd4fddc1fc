//! What the collecting task publishes and every reader sees: one collection with everything that follows from it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;

use super::restarting::Standing;
use crate::export::json::ProcessesView;
use crate::export::{self, Collected, Restarts, VersionSlope};
use crate::model::{ProcessKey, Snapshot, Verdict};

/// One collection, what is thought of it, and the bodies made from both. Immutable once published.
#[derive(Debug)]
pub struct Published {
    /// The collection.
    pub snapshot: Arc<Snapshot>,
    /// The verdicts as of it.
    pub verdicts: BTreeMap<ProcessKey, Verdict>,
    /// Slopes by version.
    pub version_slopes: Arc<[VersionSlope]>,
    /// How the restart policy stands; none where it does not say.
    pub restarts: Option<Standing>,
    metrics: Bytes,
    processes: OnceLock<Bytes>,
}

impl Published {
    /// Writes the metrics of a collection, so that a scrape has nothing left to do.
    pub fn new(
        snapshot: Arc<Snapshot>,
        verdicts: BTreeMap<ProcessKey, Verdict>,
        version_slopes: Arc<[VersionSlope]>,
        restarts: Option<Standing>,
    ) -> Self {
        let mut published =
            Self { snapshot, verdicts, version_slopes, restarts, metrics: Bytes::new(), processes: OnceLock::new() };
        published.metrics = Bytes::from(export::render_collected(&published.collected()));
        published
    }

    /// The families of the collection in the text format.
    pub fn metrics(&self) -> Bytes {
        self.metrics.clone()
    }

    /// The collection as the API shows it.
    pub fn view(&self) -> ProcessesView {
        ProcessesView::new(&self.collected())
    }

    /// The JSON body of `/api/v1/processes`, written by `view` when it is first asked for.
    pub fn processes(&self, view: impl FnOnce() -> ProcessesView) -> Bytes {
        let write = || serde_json::to_vec(&view()).map_or_else(|_unwritable| Bytes::new(), Bytes::from);
        self.processes.get_or_init(write).clone()
    }

    fn collected(&self) -> Collected<'_> {
        let restarts = self.restarts.as_ref();
        Collected {
            snapshot: &self.snapshot,
            verdicts: &self.verdicts,
            version_slopes: &self.version_slopes,
            restarts: restarts.map(|standing| Restarts { plan: &standing.plan, state: &standing.state }),
        }
    }
}
