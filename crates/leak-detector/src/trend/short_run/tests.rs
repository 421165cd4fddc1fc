//! Made-up runs: sixty floors over 45 seconds, a quarter of it warm-up, as `leakslope watch` reads them.

use proptest::prelude::*;

use super::*;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
const RUN: f64 = 45.0;

/// Noise between -1 and 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

/// A run whose floor at each second is `bytes` of it.
fn run(bytes: impl FnMut(f64) -> f64) -> Vec<ShortFloor> {
    let mut bytes = bytes;
    let mut second = 0.0;
    (0..60)
        .map(|place| {
            if place > 0 {
                second += RUN / 60.0 * pause_share(place);
            }
            ShortFloor {
                at: Duration::from_secs_f64(second),
                bytes: bytes(second),
                work: None,
                waiting: None,
                after_load: false,
            }
        })
        .collect()
}

fn settings() -> ShortSettings {
    ShortSettings::of_heap(Duration::from_secs_f64(RUN / 4.0), None)
}

fn judge(floors: &[ShortFloor]) -> ShortVerdict {
    judge_short("memory", floors, &settings())
}

/// Gives each floor the requests that were answered by then, at a pace that a machine's other work bends.
fn counted(floors: &mut [ShortFloor], answered: impl Fn(f64) -> f64) {
    for floor in floors {
        floor.work = Some(answered(floor.at.as_secs_f64()).floor());
    }
}

#[test]
fn too_little_is_too_short_and_says_what_it_takes() {
    for floors in [&[][..], &run(|second| second * MIB)[..20]] {
        let verdict = judge(floors);
        assert_eq!((verdict.answer, verdict.test), (ShortAnswer::TooShort, "points"));
        assert!(verdict.reason.ends_with("run it longer"), "{}", verdict.reason);
    }
}

#[test]
fn a_load_that_outran_the_app_is_told_from_a_leak() {
    let mut floors = run(|second| 5.0 * MIB + second * MIB);
    counted(&mut floors, |second| second * 100.0);
    for floor in &mut floors {
        floor.waiting = Some(floor.at.as_secs_f64() * 50.0);
    }
    let verdict = judge(&floors);
    assert_eq!((verdict.answer, verdict.test), (ShortAnswer::TooShort, "backlog"));
    assert!(verdict.reason.contains("run it with less load"), "{}", verdict.reason);
    assert!(verdict.backlog.is_some_and(|more| more > 500.0), "{:?}", verdict.backlog);
    for floor in &mut floors {
        floor.waiting = Some(30.0);
    }
    assert_eq!(judge(&floors).answer, ShortAnswer::Leak, "requests that wait all the time are no backlog");
}

#[test]
fn what_goes_when_the_load_ends_is_no_leak() {
    let rise = |second: f64| 5.0 * MIB + second.min(37.5) * 100.0 * KIB;
    let mut kept = run(rise);
    let mut gone = run(|second| if second < 37.5 { rise(second) } else { 5.0 * MIB });
    let mut going = run(|second| rise(second) - (second - 37.5).max(0.0) * 400.0 * KIB);
    for floors in [&mut kept, &mut gone, &mut going] {
        for floor in floors {
            floor.after_load = floor.at.as_secs_f64() >= 37.5;
        }
    }
    assert_eq!(judge(&kept).answer, ShortAnswer::Leak);
    assert_eq!((judge(&gone).answer, judge(&gone).test), (ShortAnswer::NoLeak, "drain"));
    assert_eq!((judge(&going).answer, judge(&going).test), (ShortAnswer::TooShort, "drain"));
}

#[test]
fn allowed_growth_is_held_against_the_interval() {
    let mut noise = Noise(7);
    let floors = run(|second| 20.0 * MIB + second * 50.0 * KIB + noise.next() * 20.0 * KIB);
    let allowing = |allowed: f64| {
        let settings = ShortSettings::of_heap(Duration::from_secs_f64(RUN / 4.0), Some(allowed * KIB));
        judge_short("memory", &floors, &settings)
    };
    assert_eq!((allowing(100.0).answer, allowing(100.0).test), (ShortAnswer::NoLeak, "allowed"));
    assert_eq!(allowing(50.0).answer, ShortAnswer::TooShort, "{}", allowing(50.0).reason);
    assert_eq!(allowing(20.0).answer, ShortAnswer::Leak);
    let flat = run(|_| 20.0 * MIB + noise.next() * 20.0 * KIB);
    let fine = ShortSettings::of_heap(Duration::from_secs_f64(RUN / 4.0), Some(1.0));
    let verdict = judge_short("memory", &flat, &fine);
    assert_eq!((verdict.answer, verdict.test), (ShortAnswer::TooShort, "precision"), "{}", verdict.reason);
}

#[test]
fn a_table_that_doubles_hides_no_leak() {
    // Entries at a steady pace, and a table that takes twice the room whenever it is full.
    let table = |second: f64| 2_f64.powf((second * 100.0).max(64.0).log2().ceil()) * 32.0;
    let verdict = judge(&run(|second| 4.0 * MIB + second * 16.0 * KIB + table(second)));
    assert_eq!(verdict.answer, ShortAnswer::Leak, "{}", verdict.reason);
}

proptest! {
    #[test]
    fn a_straight_line_is_a_leak(level in 3.0..200.0_f64, pace in 60.0..5000.0_f64, share in 0.0..0.4_f64, seed: u64) {
        let mut noise = Noise(seed);
        let verdict = judge(&run(|second| level * MIB + pace * KIB * (second + noise.next() * share)));
        prop_assert_eq!(verdict.answer, ShortAnswer::Leak, "{}", verdict.reason);
        let slope = verdict.slope.unwrap();
        prop_assert!((slope.bytes_per_second / (pace * KIB) - 1.0).abs() < 0.1);
    }

    #[test]
    fn noise_around_a_level_is_no_leak(level in 3.0..200.0_f64, share in 0.0..0.2_f64, seed: u64) {
        let mut noise = Noise(seed);
        let verdict = judge(&run(|_| level * MIB * (1.0 + share * noise.next())));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn a_cache_that_is_full_before_the_end_is_no_leak(
        full in 0.0..0.93_f64, size in 0.2..100.0_f64, share in 0.0..0.2_f64, seed: u64,
    ) {
        let mut noise = Noise(seed);
        let interval = size * MIB / (full.max(0.05) * 60.0);
        let verdict = judge(&run(|second| {
            5.0 * MIB + size * MIB * (second / RUN / full.max(0.05)).min(1.0) + interval * share * noise.next()
        }));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn a_cache_that_fills_ever_more_slowly_is_no_leak(
        constant in 0.05..1.5_f64, size in 0.2..100.0_f64, share in 0.0..0.05_f64, seed: u64,
    ) {
        let mut noise = Noise(seed);
        let interval = size * MIB / 60.0;
        let verdict = judge(&run(|second| {
            5.0 * MIB + size * MIB * (1.0 - (-second / RUN / constant).exp()) + interval * share * noise.next()
        }));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn a_backlog_that_drains_is_no_leak(
        turn in 0.1..0.9_f64, size in 0.2..100.0_f64, drain in 0.3..5.0_f64, seed: u64,
    ) {
        let mut noise = Noise(seed);
        let verdict = judge(&run(|second| {
            let (share, pace) = (second / RUN, size * MIB / turn);
            let held = if share < turn { share * pace } else { (turn - (share - turn) * drain).max(0.0) * pace };
            5.0 * MIB + held + noise.next() * 4.0 * KIB
        }));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn a_sawtooth_is_no_leak(period in 0.5..8.0_f64, size in 0.1..100.0_f64, phase in 0.0..1.0_f64) {
        let verdict = judge(&run(|second| 5.0 * MIB + (second / period + phase).fract() * size * MIB));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn a_step_is_no_leak(place in 0.0..1.0_f64, size in 0.1..100.0_f64, seed: u64) {
        let mut noise = Noise(seed);
        let verdict = judge(&run(|second| {
            5.0 * MIB + if second / RUN >= place { size * MIB } else { 0.0 } + noise.next() * 4.0 * KIB
        }));
        prop_assert!(verdict.answer != ShortAnswer::Leak, "{}", verdict.reason);
    }

    #[test]
    fn growth_by_request_is_straight_where_growth_by_time_is_not(each in 200.0..20_000.0_f64, bend in 0.3..0.6_f64) {
        // The app answers ever fewer requests until it answers none, and keeps as much of each.
        let answered = |second: f64| {
            let second = second.min(RUN / (2.0 * bend));
            300.0 * (second - bend * second * second / RUN)
        };
        let mut floors = run(|second| 5.0 * MIB + each * answered(second));
        let by_time = judge(&floors);
        prop_assert!(by_time.answer != ShortAnswer::Leak, "{}", by_time.reason);
        counted(&mut floors, answered);
        let verdict = judge(&floors);
        prop_assert_eq!(verdict.answer, ShortAnswer::Leak, "{}", verdict.reason);
        let per = verdict.per_work.unwrap();
        prop_assert!(per.low <= each * 1.01 && each * 0.99 <= per.high, "{per:?}");
    }

    #[test]
    fn whatever_is_read_gets_an_answer_with_a_reason(
        readings in prop::collection::vec((0_u64..3000, 0.0..1e12_f64, 0_u64..500, any::<bool>()), 0..120),
        counts: bool,
    ) {
        let (mut at, mut work) = (0, 0.0);
        let floors: Vec<ShortFloor> = readings.into_iter().map(|(pause, bytes, more, after_load)| {
            at += pause;
            work += f64::from(u32::try_from(more).unwrap());
            let counted = counts.then_some(work);
            ShortFloor { at: Duration::from_millis(at), bytes, work: counted, waiting: counted, after_load }
        }).collect();
        let verdict = judge(&floors);
        prop_assert!(!verdict.reason.is_empty());
        prop_assert!(!verdict.reason.contains("NaN") && !verdict.reason.contains("inf"), "{}", verdict.reason);
        let slope = verdict.slope.map_or(0.0, |slope| slope.low + slope.high);
        prop_assert!(slope.is_finite());
    }
}
