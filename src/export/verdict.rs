//! Families about verdicts, and about the evidence for them.

use std::collections::BTreeMap;

use super::Collected;
use super::catalogue as family;
use super::families::Families;
use super::process::{process_labels, truth};
use crate::model::{Bytes, LeakState, ProcessKey, Verdict};

pub(super) fn add(families: &mut Families, collected: &Collected<'_>) {
    for process in collected.snapshot.processes() {
        if let Some(verdict) = collected.verdicts.get(&process.key) {
            let pm_id = process.key.pm_id.to_string();
            add_verdict(families, verdict, process_labels(&process.key.daemon, &process.listed.app, &pm_id));
        }
    }
    for daemon in &collected.snapshot.daemons {
        if let Some(verdict) = collected.verdicts.get(&ProcessKey::of_daemon(&daemon.name)).filter(|_| daemon.up) {
            add_daemon(families, verdict, daemon.name.as_str());
        }
    }
    if !collected.evidence.is_empty() {
        add_evidence(families, collected);
    }
    for slope in collected.version_slopes {
        let labels = [slope.daemon.as_str(), slope.app.namespace(), slope.app.name(), &slope.version];
        families.add(&family::VERSION_SLOPE, &labels, slope.bytes_per_second);
    }
}

fn add_evidence(families: &mut Families, collected: &Collected<'_>) {
    let listed: BTreeMap<_, _> = collected.snapshot.processes().map(|it| (&it.key, &it.listed.app)).collect();
    for stamp in collected.evidence {
        // A number that went to another app has none of the old one's evidence.
        let Some(app) = listed.get(&stamp.key).filter(|app| stamp.app.means(app)) else { continue };
        let pm_id = stamp.key.pm_id.to_string();
        let [daemon, namespace, app, pm_id] = process_labels(&stamp.key.daemon, app, &pm_id);
        let labels = [daemon, namespace, app, pm_id, stamp.kind];
        families.add(&family::EVIDENCE, &labels, stamp.at.as_seconds());
    }
}

/// Adds what is thought of a daemon itself.
fn add_daemon(families: &mut Families, verdict: &Verdict, daemon: &str) {
    for state in LeakState::ALL {
        let labels = [daemon, state.as_str()];
        families.add(&family::DAEMON_LEAK_STATE, &labels, truth(state == verdict.state));
    }
    if let Some(slope) = verdict.slopes.get(&verdict.signal) {
        families.add(&family::DAEMON_LEAK_SLOPE, &[daemon], slope.bytes_per_second);
        families.add(&family::DAEMON_LEAK_SLOPE_LOW, &[daemon], slope.low);
        families.add(&family::DAEMON_LEAK_SLOPE_HIGH, &[daemon], slope.high);
    }
}

fn add_verdict(families: &mut Families, verdict: &Verdict, own: [&str; 4]) {
    let [daemon, namespace, app, pm_id] = own;
    for state in LeakState::ALL {
        families.add(
            &family::LEAK_STATE,
            &[daemon, namespace, app, pm_id, state.as_str()],
            truth(state == verdict.state),
        );
    }
    for (signal, slope) in &verdict.slopes {
        let labels = [daemon, namespace, app, pm_id, signal.as_str()];
        families.add(&family::LEAK_SLOPE, &labels, slope.bytes_per_second);
        families.add(&family::LEAK_SLOPE_LOW, &labels, slope.low);
        families.add(&family::LEAK_SLOPE_HIGH, &labels, slope.high);
    }
    if let Some(so_far) = verdict.provisional {
        let labels = [daemon, namespace, app, pm_id, so_far.signal.as_str()];
        families.add(&family::LEAK_SO_FAR, &labels, so_far.slope.bytes_per_second);
        families.add(&family::LEAK_SO_FAR_LOW, &labels, so_far.slope.low);
        families.add(&family::LEAK_SO_FAR_HIGH, &labels, so_far.slope.high);
    }
    // Not known yet is no "never".
    if verdict.state != LeakState::Learning {
        let exhaustion = verdict.projected_exhaustion.map_or(f64::INFINITY, |span| span.as_secs_f64());
        families.add(&family::LEAK_EXHAUSTION, &own, exhaustion);
    }
    families.add(&family::LEAK_WINDOW, &own, verdict.window.as_secs_f64());
    families.add_some(&family::MEMORY_FLOOR, &own, verdict.floor.map(Bytes::as_f64));
    if let Some(limit) = verdict.limit {
        families.add(&family::LEAK_LIMIT, &[daemon, namespace, app, pm_id, limit.kind.as_str()], limit.bytes.as_f64());
    }
    if let Some(rejection) = verdict.rejection {
        let labels = [daemon, namespace, app, pm_id, rejection.signal.as_str(), rejection.test];
        families.add(&family::LEAK_REJECTION, &labels, 1.0);
    }
}
