//! What the collecting task publishes and every reader sees: one collection with everything that follows from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;

use super::restarting::Standing;
use crate::export::json::ProcessesView;
use crate::export::{self, Collected, DeathCounts, EvidenceStamp, Restarts, VersionSlope};
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
    /// The newest evidence of each kind and process.
    pub evidence: Vec<EvidenceStamp>,
    /// How often and why runs ended.
    pub deaths: DeathCounts,
    metrics: OnceLock<Bytes>,
    scraped: AtomicBool,
    processes: OnceLock<Bytes>,
}

impl Published {
    /// Puts a collection together. Its metrics are written when they are first asked for, unless [`Self::write_metrics`]
    /// has done so before.
    pub fn new(
        snapshot: Arc<Snapshot>,
        verdicts: BTreeMap<ProcessKey, Verdict>,
        version_slopes: Arc<[VersionSlope]>,
        restarts: Option<Standing>,
        evidence: Vec<EvidenceStamp>,
        deaths: DeathCounts,
    ) -> Self {
        Self {
            snapshot,
            verdicts,
            version_slopes,
            restarts,
            evidence,
            deaths,
            metrics: OnceLock::new(),
            scraped: AtomicBool::new(false),
            processes: OnceLock::new(),
        }
    }

    /// Writes the metrics ahead of a scrape, so that it has nothing left to do.
    pub fn write_metrics(&self) -> &Bytes {
        self.metrics.get_or_init(|| Bytes::from(export::render_collected(&self.collected())))
    }

    /// The families of the collection in the text format.
    pub fn metrics(&self) -> Bytes {
        self.scraped.store(true, Ordering::Relaxed);
        self.write_metrics().clone()
    }

    /// Whether somebody has asked for the metrics of this collection.
    pub fn was_scraped(&self) -> bool {
        self.scraped.load(Ordering::Relaxed)
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
            evidence: &self.evidence,
            deaths: &self.deaths,
        }
    }
}
