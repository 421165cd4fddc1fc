//! A series through the very code that runs live.

use leakslope::history::Sample;
use leakslope::model::{Bytes, LeakState, Life, Limit, LimitKind, Steady};
use leakslope::trend::{Limits, Replay, Settings};

use super::generator::Series;

/// What the detector may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Heap after each major collection, heap totals, resident memory, load.
    Collections,
    /// Heap figures as polled, no collections.
    Sampled,
    /// Resident memory only.
    Resident,
    /// Everything, load included.
    Load,
}

/// The state at each evaluation (every five minutes), with the test that said no last.
pub fn judge(series: &Series, view: View, settings: &Settings) -> Vec<(LeakState, &'static str)> {
    let limit = Limit { kind: LimitKind::MaxMemoryRestart, bytes: megabytes(series.limit) };
    let mut replay = Replay::new(settings.clone(), Limits::new([limit]), 4320);
    let mut states = Vec::with_capacity(series.resident.len() / 20);
    let mut life = Life { pid: 1, started: 0 };
    let (mut collections, mut after, mut cpu) = (0, None, 0.0);
    for i in 0..series.resident.len() {
        if series.restart[i] {
            life = Life { pid: life.pid + 1, started: i as i64 };
            (collections, after, cpu) = (0, None, 0.0);
        }
        cpu += series.cpu[i] / 100.0 * 15_000.0;
        if !series.after_gc[i].is_nan() {
            collections += 1;
            after = Some(megabytes(series.after_gc[i]));
        }
        let mut sample = Sample {
            held: Some(megabytes(series.resident[i])),
            cpu_milliseconds: (view == View::Load).then_some(cpu as u64),
            ..Sample::empty(life)
        };
        if view != View::Resident {
            sample.heap_used = Some(megabytes(series.heap_used[i]));
            sample.heap_total = Some(megabytes(series.heap_total[i]));
        }
        if matches!(view, View::Collections | View::Load) {
            sample.major_gcs = Some(collections);
            sample.heap_after_major_gc = after;
        }
        if replay.feed(&sample, Steady(i as i64 * 15_000)).evaluated {
            note(&replay, &mut states);
        }
    }
    replay.finish(Steady(series.resident.len() as i64 * 15_000));
    note(&replay, &mut states);
    states
}

fn note(replay: &Replay, states: &mut Vec<(LeakState, &'static str)>) {
    // Young processes are judged every minute; the score counts steps of five.
    if let Some(verdict) = replay.verdict().filter(|verdict| verdict.at.0 % 300_000 == 0) {
        states.push((verdict.state, verdict.rejection.map_or("", |rejection| rejection.test)));
    }
}

fn megabytes(size: f64) -> Bytes {
    Bytes::from_f64(size * 1e6)
}
