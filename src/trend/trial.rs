//! One signal on trial: a ladder of windows, and in each the tests that growth has to pass to count as a leak.
//!
//! Pure arithmetic on floors. It refuses to combine signals and to remember anything between evaluations: that is the
//! detector's.

use crate::model::Signal;

use super::frame::{Frame, floors};
use super::settings::{Grade, Settings};
use super::stats::{Floors, MOST, as_f64, kendall, kendall_variance, median, residuals, theil_sen};

/// The tests by name, in the order they are made.
pub const TESTS: [&str; 11] = [
    "points",
    "direction",
    "significance",
    "size",
    "plateau",
    "step",
    "separation",
    "watched",
    "high",
    "life",
    "persistence",
];

/// Figures of the process that a trial needs beside the series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    /// Resident memory now, in bytes.
    pub(super) level: f64,
    /// Bytes left until the nearest limit; infinite without one.
    pub(super) headroom: f64,
}

/// How a signal is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    pub(super) signal: Signal,
    /// Growth below this share of resident memory does not count.
    pub(super) share: f64,
    /// Fewest floors a window needs.
    pub(super) points: usize,
    /// Growth that leaves more time than this (minutes) does not count.
    pub(super) soon: f64,
}

/// Growth in one window that has passed every test of a grade.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finding {
    pub(super) signal: Signal,
    /// Minutes watched.
    pub(super) span: f64,
    /// Bytes per minute.
    pub(super) slope: f64,
    /// Bytes grown in the window.
    pub(super) growth: f64,
    /// Neighbouring floors that rise, and how many there are.
    pub(super) rising: usize,
    pub(super) intervals: usize,
    /// Pace of the second half over the first.
    pub(super) pace: f64,
}

/// What a trial came to, for *suspect* and for *leaking*.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) suspect: Option<Finding>,
    pub(super) leaking: Option<Finding>,
    /// The furthest test that said no to *leaking*, as an index into [`TESTS`].
    pub(super) furthest: Option<usize>,
}

/// Tries one signal on every window of the ladder, shortest first.
pub(super) fn examine(frame: &Frame, scene: Scene, trial: Trial, settings: &Settings) -> Outcome {
    let mut outcome = Outcome::default();
    let mut life = None;
    let now = frame.len();
    for &width in &settings.ladder {
        let width = width as usize;
        let from = now.saturating_sub(width).max(frame.warm(settings.warm_up));
        let span = now.saturating_sub(from);
        if as_f64(span) < 0.75 * as_f64(width) {
            break;
        }
        match window(frame, scene, trial, settings, from, &mut life) {
            Ok((finding, strict)) => {
                outcome.suspect.get_or_insert(finding);
                match strict {
                    Ok(()) => {
                        outcome.leaking = Some(finding);
                        return outcome;
                    }
                    Err(test) => outcome.furthest = outcome.furthest.max(Some(test)),
                }
            }
            Err(test) => outcome.furthest = outcome.furthest.max(Some(test)),
        }
    }
    outcome
}

/// Tries one window: the finding for *suspect*, with the strict tests' answer, or the test that said no.
fn window(
    frame: &Frame,
    scene: Scene,
    trial: Trial,
    settings: &Settings,
    from: usize,
    life: &mut Option<(f64, f64)>,
) -> Result<(Finding, Result<(), usize>), usize> {
    let series = frame.series(trial.signal);
    let now = frame.len();
    let span = as_f64(now - from);
    let floors = floors(series, from, now, MOST);
    let count = floors.len();
    let (at, value) = (floors.at(), floors.value());
    let start = as_f64(from);
    if count < trial.points || at[count / 2] < start + 0.25 * span || at[count / 2] > start + 0.75 * span {
        return Err(0);
    }
    // Rank statistics first: they are cheap, and most windows end here.
    let s = kendall(value);
    let variance = kendall_variance(count);
    let tau = 2.0 * s / (as_f64(count) * as_f64(count - 1));
    if s <= 0.0 {
        return Err(1);
    }
    if (s - 1.0) / variance.sqrt() < 2.5 && tau < 0.85 {
        return Err(2);
    }
    let slope = theil_sen(at, value);
    if slope <= 0.0 {
        return Err(1);
    }
    let (mad, rho) = residuals(&floors, slope);
    let growth = slope * (at[count - 1] - at[0]);
    let z = (s - 1.0) / (variance * (1.0 + rho) / (1.0 - rho)).sqrt();
    if z < 2.5 && !(tau >= 0.85 && growth >= 6.0 * mad) {
        return Err(2);
    }
    let least = (trial.share * scene.level).max(settings.smallest_growth.as_f64());
    if growth < least || growth < 3.0 * mad {
        return Err(3);
    }
    let half = count / 2;
    let later = theil_sen(&at[half..], &value[half..]);
    let last_third = median_of(value, count - 3..count) - median_of(value, around(count - count / 3, count));
    if later < 0.4 * slope || last_third < 0.15 * growth {
        return Err(4);
    }
    let step = (2..count).map(|i| value[i] - value[i - 2]).fold(0.0, f64::max);
    if step > settings.suspect.step_share * growth + 2.0 * mad {
        return Err(5);
    }
    let quarter = count / 4;
    let lowest_late = value[count - quarter..].iter().copied().fold(f64::INFINITY, f64::min);
    let highest_early = value[..quarter].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if lowest_late <= highest_early {
        return Err(6);
    }
    let left = (scene.headroom / slope.min(later)).max(0.0);
    if left > trial.soon || !watched(&settings.suspect, span, left) {
        return Err(7);
    }
    if !all_time_high(series, frame, settings, from, median_of(value, count - 3..count), least) {
        return Err(8);
    }
    if frame.age() > 60 {
        let (first, second) = *life.get_or_insert_with(|| {
            let whole = super::frame::floors(series, frame.warm(settings.warm_up).min(now), now, MOST);
            if whole.len() >= 8 { halves(&whole) } else { (0.0, 0.0) }
        });
        if first > 0.0 && second < 0.65 * first {
            return Err(9);
        }
    }
    let earlier = theil_sen(&at[..half], &value[..half]);
    let finding = Finding {
        signal: trial.signal,
        span,
        slope,
        growth,
        rising: (1..count).filter(|i| value[*i] > value[i - 1]).count(),
        intervals: count - 1,
        pace: if earlier > 0.0 { later / earlier } else { f64::INFINITY },
    };
    let strict = if step > settings.leaking.step_share * growth + 2.0 * mad {
        Err(5)
    } else if !watched(&settings.leaking, span, left) {
        Err(7)
    } else {
        Ok(())
    };
    Ok((finding, strict))
}

/// Whether growth has been watched long enough for its urgency.
fn watched(grade: &Grade, span: f64, left: f64) -> bool {
    span >= (grade.watch_share * left).min(grade.watch_cap)
}

/// Whether the floor now lies above every bucket floor of this life before the window.
fn all_time_high(series: &[f32], frame: &Frame, settings: &Settings, from: usize, now: f64, least: f64) -> bool {
    let bucket = ((frame.len() - from) / MOST).max(1);
    let oldest = (settings.warm_up as usize).saturating_sub(frame.before);
    let mut end = from;
    let mut highest = f64::NEG_INFINITY;
    while end >= oldest + bucket {
        let lowest = series[end - bucket..end].iter().copied().fold(f32::INFINITY, f32::min);
        if lowest.is_finite() {
            highest = highest.max(f64::from(lowest));
        }
        end -= bucket;
    }
    now >= highest + 0.5 * least
}

/// The slopes of the first and the second half.
pub(super) fn halves(floors: &Floors) -> (f64, f64) {
    let half = floors.len() / 2;
    (theil_sen(&floors.at()[..half], &floors.value()[..half]), theil_sen(&floors.at()[half..], &floors.value()[half..]))
}

fn around(middle: usize, count: usize) -> std::ops::Range<usize> {
    middle.saturating_sub(1)..(middle + 2).min(count)
}

fn median_of(values: &[f64], range: std::ops::Range<usize>) -> f64 {
    let mut copy = [0.0; MOST];
    let part = &values[range.start.min(values.len())..range.end.min(values.len())];
    copy[..part.len()].copy_from_slice(part);
    median(&mut copy[..part.len()])
}
