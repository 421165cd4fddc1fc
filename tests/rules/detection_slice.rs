//! A small slice of `benches/detection` with floors on what it must find and ceilings on what it may cry wolf about, and
//! the real traces at both scales. The bench itself measures far more series; this keeps it from rotting.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a simulation: all counts are small"
)]
#![allow(missing_docs, dead_code, unreachable_pub, reason = "shared with the bench, which uses all of it")]

#[path = "../../benches/detection/generator.rs"]
mod generator;
#[path = "../../benches/detection/ours.rs"]
mod ours;
#[path = "../../benches/detection/random.rs"]
mod random;
#[path = "../../benches/detection/score.rs"]
mod score;
#[path = "../../benches/detection/traces.rs"]
mod traces;

use std::path::Path;
use std::sync::Mutex;

use leakslope::model::LeakState;
use leakslope::trend::Settings;
use ours::View;
use score::{Score, score, summarize};

/// Seeds of the slice: on neither split that parameters were chosen or reported on.
const SEEDS: std::ops::Range<u64> = 5_000..5_002;

/// Every series of the slice, judged with one view: scores of *suspect* and of *leaking*.
fn slice(view: View, families: &[&str]) -> [Vec<Score>; 2] {
    let jobs: Vec<(&str, u64)> = families.iter().flat_map(|family| SEEDS.map(move |seed| (*family, seed))).collect();
    let scores = Mutex::new([Vec::new(), Vec::new()]);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for jobs in jobs.chunks(jobs.len().div_ceil(threads)) {
            let scores = &scores;
            scope.spawn(move || {
                for (family, seed) in jobs {
                    let series = generator::generate(family, *seed, false, false);
                    let states = ours::judge(&series, view, &Settings::default());
                    for (place, least) in [LeakState::Suspect, LeakState::Leaking].into_iter().enumerate() {
                        let alarms: Vec<bool> = states.iter().map(|(state, _)| *state >= least).collect();
                        scores.lock().expect("no panic")[place].push(score(&series, &alarms));
                    }
                }
            });
        }
    });
    scores.into_inner().expect("no panic")
}

#[test]
fn leaks_are_found_and_healthy_series_left_alone() {
    let families = [&generator::HEALTHY[..], &generator::LEAKING[..]].concat();
    let [suspect, leaking] = slice(View::Collections, &families).map(|scores| summarize(&scores));
    assert!(leaking.f1 >= 0.94 && leaking.false_a_day <= 0.03, "leaking: {leaking:?}");
    assert!(suspect.f1 >= 0.93 && suspect.false_a_day <= 0.06, "suspect: {suspect:?}");
    assert!(suspect.before >= 0.85 && leaking.before >= 0.80, "found too late: {suspect:?} {leaking:?}");
}

#[test]
fn resident_memory_alone_still_serves() {
    let families = [&generator::HEALTHY[..], &generator::LEAKING[..]].concat();
    let [suspect, _] = slice(View::Resident, &families).map(|scores| summarize(&scores));
    assert!(suspect.f1 >= 0.88 && suspect.false_a_day <= 0.06, "{suspect:?}");
}

fn real_traces() -> Vec<traces::Trace> {
    traces::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces"))
}

#[test]
fn real_traces_at_a_minute_a_second() {
    for trace in real_traces() {
        let judged = traces::judge(&trace, 60_000, 400, View::Collections, &Settings::default());
        assert_eq!(judged.suspect.is_some(), trace.leak, "{}: {}", trace.name, judged.last.reason);
        assert_eq!(judged.leaking.is_some(), trace.leak, "{}: {}", trace.name, judged.last.reason);
    }
}

#[test]
fn real_traces_at_fifteen_seconds_a_second() {
    let mut found = 0;
    for trace in real_traces() {
        let judged = traces::judge(&trace, 15_000, 250, View::Collections, &Settings::default());
        assert!(trace.leak || judged.suspect.is_none(), "{}: {:?}", trace.name, judged.first);
        found += usize::from(trace.leak && judged.leaking.is_some());
    }
    assert!(found >= 7, "{found} of 9 leaks found");
}

#[test]
fn healthy_traces_stay_healthy_with_less_to_go_by() {
    for trace in real_traces().into_iter().filter(|trace| !trace.leak) {
        for (milliseconds, limit) in [(60_000, 400), (15_000, 250)] {
            for view in [View::Sampled, View::Resident] {
                let judged = traces::judge(&trace, milliseconds, limit, view, &Settings::default());
                assert_eq!(judged.first, None, "{} with {view:?}", trace.name);
            }
        }
    }
}
