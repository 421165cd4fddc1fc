//! What history and verdict cost: `cargo bench --bench trend_cost`. The aim is under 1 µs a sample, and under 150 ms of
//! CPU for a round over 1,000 processes with three days of minutes each.
#![allow(clippy::cast_precision_loss, reason = "a bench with small counts")]

use divan::{Bencher, black_box};
use leakslope::history::{About, ProcessHistory, Retention, Sample};
use leakslope::model::{Bytes, Life, Limit, LimitKind, ProcessKey, Steady};
use leakslope::trend::{Detector, Limits, Settings};

fn main() {
    divan::main();
}

fn about() -> About {
    About { app: "shop".into(), version: None, revision: None }
}

fn sample(step: u64, leak: u64) -> Sample {
    let noise = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 43;
    Sample {
        held: Some(Bytes(150_000_000 + noise * 4 + leak * step)),
        heap_used: Some(Bytes(40_000_000 + noise * 8 + leak * step)),
        heap_total: Some(Bytes(70_000_000 + leak * step)),
        cpu_milliseconds: Some(step * 700),
        ..Sample::empty(Life { pid: 1, started: 1 })
    }
}

/// A history of three days, sampled once a minute.
fn full(number: u32) -> ProcessHistory {
    let key = ProcessKey { daemon: "default".into(), pm_id: number };
    let mut history = ProcessHistory::new(key, "shop".into(), Retention::default());
    for step in 0..4_400 {
        let at = Steady(i64::try_from(step).unwrap_or(0) * 60_000);
        history.push(&sample(step + u64::from(number), u64::from(number % 10) * 200), &about(), at);
    }
    history
}

#[divan::bench]
fn push_one_sample(bencher: Bencher<'_, '_>) {
    let (mut history, about, mut step) = (full(0), about(), 17_600_u64);
    bencher.bench_local(|| {
        step += 1;
        let at = Steady(i64::try_from(step).unwrap_or(0) * 15_000);
        black_box(history.push(&sample(step, 10), &about, at));
    });
}

#[divan::bench(sample_count = 10)]
fn evaluate_a_thousand_processes(bencher: Bencher<'_, '_>) {
    let mut processes: Vec<(ProcessHistory, Detector)> =
        (0..1_000).map(|number| (full(number), Detector::new())).collect();
    let bytes: usize = processes.iter().map(|(history, detector)| history.heap_bytes() + size_of_val(detector)).sum();
    assert!(bytes < 64 << 20, "{bytes} bytes for 1,000 processes");
    let limits = Limits::new([Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes(512 << 20) }]);
    let (settings, mut now) = (Settings::default(), 4_400 * 60_000);
    bencher.bench_local(|| {
        now += 300_000;
        for (history, detector) in &mut processes {
            black_box(detector.evaluate(history, Vec::new, &limits, Steady(now), &settings));
        }
    });
}
