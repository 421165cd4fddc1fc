//! Metrics: what the sidecar saw and thinks, as Prometheus families.
//!
//! Every family is declared once, in [`catalogue`], with its kind, labels and help; the other files only fill in
//! values. There is no global registry: a body is made from one immutable snapshot, so a process that has vanished
//! takes its series with it. This room is pure and refuses to read anything by itself.

mod catalogue;
mod families;
pub mod json;
pub mod openmetrics;
mod process;
mod restart;
mod sidecar;
pub mod timeline;
mod verdict;

use std::collections::BTreeMap;

pub use catalogue::{Descriptor, Kind, catalogue};
use families::Families;
pub use restart::Restarts;
pub use sidecar::{Collections, SidecarState};

use crate::model::{AppName, Cause, ProcessKey, SelfSample, Snapshot, Verdict, WallTime};

/// The media type of the text format.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one collection led to: the part of the body that changes only with a collection.
#[derive(Debug, Clone, Copy)]
pub struct Collected<'a> {
    /// The collection.
    pub snapshot: &'a Snapshot,
    /// The verdicts as of that collection.
    pub verdicts: &'a BTreeMap<ProcessKey, Verdict>,
    /// Slope by daemon, app and version, in bytes per second.
    pub version_slopes: &'a [VersionSlope],
    /// How the restart policy stands, where it said so.
    pub restarts: Option<Restarts<'a>>,
    /// The newest evidence of each kind and process.
    pub evidence: &'a [EvidenceStamp],
    /// How often and why runs ended.
    pub deaths: &'a DeathCounts,
}

/// How often and why runs ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeathCounts {
    /// Ends by process and cause, since the sidecar's start.
    pub counts: Vec<(ProcessKey, AppName, Cause, u64)>,
    /// The last end of each process, with its cause.
    pub last: Vec<(ProcessKey, AppName, Cause, WallTime)>,
}

/// When evidence was last taken of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceStamp {
    /// Which process.
    pub key: ProcessKey,
    /// Its app, as it was called then.
    pub app: AppName,
    /// `heap_profile` or `heap_snapshot`.
    pub kind: &'static str,
    /// When.
    pub at: WallTime,
}

/// The slope of one version of one app, over all its processes and lives.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionSlope {
    /// The daemon's name.
    pub daemon: String,
    /// The app.
    pub app: AppName,
    /// The version, as pm2 knew it.
    pub version: String,
    /// Bytes per second.
    pub bytes_per_second: f64,
}

/// Writes the families of a collection in the text format.
pub fn render_collected(collected: &Collected<'_>) -> String {
    let mut families = Families::default();
    process::add(&mut families, collected.snapshot);
    verdict::add(&mut families, collected);
    process::add_deaths(&mut families, collected.snapshot, collected.deaths);
    if let Some(restarts) = collected.restarts {
        restart::add(&mut families, restarts);
    }
    families.into_text()
}

/// Writes the families of the sidecar itself, which change with every scrape.
pub fn render_sidecar(state: &SidecarState, own: &SelfSample) -> String {
    let mut families = Families::default();
    sidecar::add(&mut families, state, own);
    families.into_text()
}

#[cfg(test)]
mod tests;
