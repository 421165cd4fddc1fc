//! What must hold for any series: shift, scale, order within a minute, outliers, gaps, restarts, steps of the clock.

use leakslope::history::Sample;
use leakslope::model::{Bytes, LeakState, Life, Limit, LimitKind, Steady};
use leakslope::trend::{Limits, Replay, Settings};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;
const MIB: f64 = 1_048_576.0;

fn limits(mebibytes: f64) -> Limits {
    Limits::new([Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes::from_f64(mebibytes * MIB) }])
}

/// The states at each evaluation for a series of held memory in MiB, one sample a minute.
fn states(memory: &[f64], limit: f64, settings: &Settings) -> Vec<LeakState> {
    let minute = i64::try_from(settings.minute.as_millis()).expect("short");
    let mut replay = Replay::new(settings.clone(), limits(limit), 4320);
    let mut states = Vec::new();
    for (at, memory) in (0..).zip(memory) {
        if replay.feed(&sample(1, *memory), Steady(at * minute)).evaluated {
            states.push(replay.verdict().expect("evaluated").state);
        }
    }
    states
}

fn sample(pid: u32, memory: f64) -> Sample {
    Sample { held: Some(Bytes::from_f64(memory * MIB)), ..Sample::empty(Life { pid, started: i64::from(pid) }) }
}

fn worst(states: &[LeakState]) -> LeakState {
    states.iter().copied().max().unwrap_or(LeakState::Learning)
}

/// A small deterministic noise within one.
fn noise(at: usize, seed: u64) -> f64 {
    let mixed = (at as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    f64::from(u16::try_from(mixed >> 48).expect("16 bits")) / 32_768.0 - 1.0
}

fn line(hours: usize, start: f64, per_hour: f64, jitter: f64, seed: u64) -> Vec<f64> {
    (0..hours * 60)
        .map(|at| start + per_hour * f64::from(u32::try_from(at).expect("small")) / 60.0 + jitter * noise(at, seed))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_constant_is_never_a_leak(level in 20.0..2000.0_f64, share in 0.0..0.03_f64, seed: u64, room in 1.05..4.0_f64) {
        let memory = line(60, level, 0.0, share * level, seed);
        prop_assert!(worst(&states(&memory, level * room, &Settings::default())) <= LeakState::Stable);
    }

    // From a rise of a third and of some 13 MB in its three days: what is much slower may be called no leak yet.
    #[test]
    fn a_straight_line_that_goes_on_becomes_a_leak(start in 45.0..500.0_f64, share in 0.004..0.2_f64, seed: u64, room in 3.0..40.0_f64) {
        let memory = line(72, start, start * share, start * 0.001, seed);
        let states = states(&memory, start * room, &Settings::default());
        prop_assert_eq!(worst(&states), LeakState::Leaking);
    }

    #[test]
    fn scaling_memory_and_time_together_changes_nothing(per_hour in 1.0..20.0_f64, seed: u64, scale in 1.0..16.0_f64) {
        let memory = line(30, 100.0, per_hour, 0.5, seed);
        let scaled: Vec<f64> = memory.iter().map(|memory| memory * scale).collect();
        let usual = Settings { smallest_growth: Bytes(1), ..Settings::default() };
        let seconds = Settings { minute: std::time::Duration::from_secs(1), ..usual.clone() };
        let plain = states(&memory, 400.0, &usual);
        prop_assert_eq!(&plain, &states(&memory, 400.0, &seconds), "time");
        let larger = states(&scaled, 400.0 * scale, &usual);
        let differ = plain.iter().zip(&larger).filter(|(left, right)| left != right).count();
        // Packing rounds to one part in 2^17, which may move a verdict by an evaluation.
        prop_assert!(differ <= plain.len() / 50, "{} of {}", differ, plain.len());
    }

    #[test]
    fn a_later_start_changes_nothing(shift in 0_i64..2_000_000, per_hour in 0.0..20.0_f64, seed: u64) {
        let memory = line(16, 100.0, per_hour, 0.5, seed);
        let run = |from: i64| {
            let mut replay = Replay::new(Settings::default(), limits(300.0), 4320);
            for (at, memory) in (0..).zip(&memory) {
                replay.feed(&sample(1, *memory), Steady((from + at) * MINUTE));
            }
            replay.verdict().expect("evaluated").state
        };
        prop_assert_eq!(run(0), run(shift * 5));
    }

    #[test]
    fn order_within_a_minute_does_not_matter(seed: u64, per_hour in 0.0..20.0_f64) {
        let memory = line(12, 100.0, per_hour, 2.0, seed);
        let run = |order: [usize; 4]| {
            let mut replay = Replay::new(Settings::default(), limits(300.0), 4320);
            for (minute, four) in (0..).zip(memory.chunks_exact(4)) {
                for (step, place) in (0..).zip(order) {
                    replay.feed(&sample(1, four[place]), Steady(minute * MINUTE + step * 15_000));
                }
            }
            let verdict = replay.verdict().expect("evaluated").clone();
            (verdict.state, verdict.slopes)
        };
        prop_assert_eq!(run([0, 1, 2, 3]), run([3, 0, 2, 1]));
    }

    #[test]
    fn outliers_and_gaps_do_not_make_or_hide_a_leak(seed: u64, every in 7_usize..60, gap in 1_usize..240) {
        for (per_hour, expected) in [(0.0, LeakState::Stable), (6.0, LeakState::Leaking)] {
            let mut replay = Replay::new(Settings::default(), limits(1000.0), 4320);
            let mut worst = LeakState::Learning;
            for (at, memory) in line(40, 100.0, per_hour, 0.5, seed).into_iter().enumerate() {
                if (900..900 + gap).contains(&at) {
                    continue;
                }
                let spike = if at % every == 0 { 150.0 } else { 0.0 };
                replay.feed(&sample(1, memory + spike), Steady(i64::try_from(at).expect("small") * MINUTE));
                worst = worst.max(replay.verdict().map_or(LeakState::Learning, |verdict| verdict.state));
            }
            prop_assert_eq!(worst, expected);
        }
    }

    #[test]
    fn nothing_panics_on_wild_input(values in prop::collection::vec((any::<u64>(), any::<u32>(), -3_i64..400), 1..600)) {
        let mut replay = Replay::new(Settings::default(), Limits::default(), 500);
        let mut at = 0_i64;
        for (bytes, pid, minutes) in values {
            at = at.saturating_add(minutes * MINUTE);
            let wild = Sample {
                held: Some(Bytes(bytes)),
                heap_used: Some(Bytes(bytes.rotate_left(7))),
                heap_total: Some(Bytes(bytes.rotate_left(13))),
                major_gcs: (bytes % 3 == 0).then_some(bytes),
                heap_after_major_gc: Some(Bytes(bytes >> 3)),
                requests_per_second: Some(f64::from_bits(bytes)),
                ..Sample::empty(Life { pid: pid % 3, started: 0 })
            };
            replay.feed(&wild, Steady(at));
        }
        replay.finish(Steady(i64::MAX));
        replay.feed(&sample(1, 1.0), Steady(i64::MIN));
    }
}

#[test]
fn a_restart_starts_learning_anew_and_a_cache_that_fills_again_is_not_blamed() {
    let mut replay = Replay::new(Settings::default(), limits(600.0), 4320);
    let mut worst = LeakState::Learning;
    for life in 1..=4_u32 {
        for minute in 0..600_u32 {
            let memory = 100.0 + 80.0 * (1.0 - (-f64::from(minute) / 90.0).exp());
            let at = Steady(i64::from((life - 1) * 600 + minute) * MINUTE);
            if replay.feed(&sample(life, memory), at).ended.is_some() {
                assert_eq!(replay.history().earlier().count(), life as usize - 1);
            }
            if minute == 20 {
                assert_eq!(replay.verdict().map(|verdict| verdict.state), Some(LeakState::Learning));
            }
            worst = worst.max(replay.verdict().map_or(LeakState::Learning, |verdict| verdict.state));
        }
    }
    assert_eq!(worst, LeakState::Stable);
}

#[test]
fn leaks_that_restarts_hide_are_found_over_several_lives() {
    let mut replay = Replay::new(Settings::default(), limits(2000.0), 4320);
    let mut states = Vec::new();
    for life in 1..=6_u32 {
        for minute in 0..360_u32 {
            let at = i64::from((life - 1) * 360 + minute) * MINUTE;
            replay.feed(&sample(life, 100.0 + 8.0 * f64::from(minute) / 60.0), Steady(at));
            states.push(replay.verdict().map_or(LeakState::Learning, |verdict| verdict.state));
        }
    }
    assert_eq!(worst(&states), LeakState::Leaking);
    let reason = &replay.verdict().expect("evaluated").reason;
    assert!(reason.contains("lives grew without levelling off"), "{reason}");
}

#[test]
fn the_verdict_speaks_in_full_sentences() {
    let mut replay = Replay::new(Settings::default(), limits(512.0), 4320);
    for (at, memory) in (0..).zip(line(40, 150.0, 3.0, 0.2, 7)) {
        replay.feed(&sample(1, memory), Steady(at * MINUTE));
    }
    let verdict = replay.verdict().expect("evaluated");
    assert_eq!(verdict.state, LeakState::Leaking);
    for part in [
        "resident memory grew 3.0 MiB/h over",
        "floors rising in 23 of 23 intervals",
        "the same pace",
        "max_memory_restart of 512 MiB in",
    ] {
        assert!(verdict.reason.contains(part), "{part} is not in: {}", verdict.reason);
    }
    let left = verdict.projected_exhaustion.expect("growing").as_secs_f64() / 3600.0;
    assert!((left - (512.0 - 270.0) / 3.0).abs() < 2.0, "{left} h");
    let slope = verdict.slopes[&verdict.signal];
    assert!(slope.low <= slope.bytes_per_second && slope.bytes_per_second <= slope.high);
    assert_eq!(verdict.rejection, None);
}
