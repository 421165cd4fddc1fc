//! Real memory traces of Node.js workloads, thinned to what the detector needs, replayed at two scales.

use std::path::Path;

use leakslope::history::Sample;
use leakslope::model::{Bytes, LeakState, Life, Limit, LimitKind, Steady, Verdict};
use leakslope::trend::{Limits, Replay, Settings};

/// One trace: a row a second.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// Whether it leaks.
    pub leak: bool,
    /// Resident memory, used heap, committed heap, heap after the latest major collection in bytes; collections.
    pub rows: Vec<[u64; 5]>,
}

/// Reads every trace of a folder, in order of name. `labels.csv` says which leak.
///
/// # Panics
///
/// When a file is missing or malformed.
pub fn read(folder: &Path) -> Vec<Trace> {
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    text("labels.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let (name, leak) = line.split_once(',').expect("name,leak");
            let rows = text(&format!("{name}.csv"))
                .lines()
                .skip(1)
                .map(|line| {
                    let mut fields = line.split(',').map(|field| field.parse().expect("a whole number"));
                    std::array::from_fn(|_| fields.next().expect("five columns"))
                })
                .collect();
            Trace { name: name.to_owned(), leak: leak == "true", rows }
        })
        .collect()
}

/// What came of a replay.
#[derive(Debug)]
pub struct Judged {
    /// Hours until the first *suspect* and the first *leaking*.
    pub suspect: Option<f64>,
    /// The same for *leaking*.
    pub leaking: Option<f64>,
    /// The sentence of the first alarm.
    pub first: Option<String>,
    /// The last verdict.
    pub last: Verdict,
}

/// Replays a trace with a second as `milliseconds`, up to a view: what the detector may see.
///
/// # Panics
///
/// When the trace is empty.
pub fn judge(trace: &Trace, milliseconds: i64, limit_mb: u64, view: super::ours::View, settings: &Settings) -> Judged {
    use super::ours::View;
    let limit = Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes(limit_mb * 1_000_000) };
    let mut replay = Replay::new(settings.clone(), Limits::new([limit]), 4320);
    let life = Life { pid: 1, started: 0 };
    let mut at = Steady(0);
    let mut first = None;
    for row in &trace.rows {
        let mut sample = Sample { held: Some(Bytes(row[0])), ..Sample::empty(life) };
        if view != View::Resident {
            sample.heap_used = Some(Bytes(row[1]));
            sample.heap_total = Some(Bytes(row[2]));
        }
        if matches!(view, View::Collections | View::Load) {
            sample.heap_after_major_gc = (row[3] > 0).then_some(Bytes(row[3]));
            sample.major_gcs = Some(row[4]);
        }
        if replay.feed(&sample, at).evaluated && first.is_none() {
            first = replay.verdict().filter(|verdict| verdict.state >= LeakState::Suspect).map(|v| v.reason.clone());
        }
        at = Steady(at.0 + milliseconds);
    }
    replay.finish(at);
    let hours = |at: Option<Steady>| at.map(|at| at.as_seconds() / 3600.0);
    Judged {
        suspect: hours(replay.first(LeakState::Suspect)),
        leaking: hours(replay.first(LeakState::Leaking)),
        first,
        last: replay.verdict().expect("an evaluation").clone(),
    }
}
