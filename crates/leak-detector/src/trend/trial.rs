//! One signal on trial: a ladder of windows, and in each the tests that growth has to pass to count as a leak.
//!
//! Pure arithmetic on floors. It refuses to combine signals and to remember anything between evaluations: that is the
//! detector's.

use model::{Basis, Signal};

use super::frame::Frame;
use super::settings::{Grade, Settings};
use super::shape::{
    Life, all_time_high, has_stopped, increment_noise, last_third_pace, median_of, recurs, rises_every_season,
    rising_for, spread_share,
};
use crate::stats::{MOST, as_f64, kendall, kendall_variance, residuals, theil_sen};

/// The tests by name, in the order they are made.
pub const TESTS: [&str; 16] = [
    "points",
    "direction",
    "significance",
    "size",
    "collections",
    "plateau",
    "step",
    "spread",
    "separation",
    "watched",
    "high",
    "life",
    "rise",
    "recurrence",
    "reference",
    "persistence",
];

const POINTS: usize = 0;
const DIRECTION: usize = 1;
const SIGNIFICANCE: usize = 2;
const SIZE: usize = 3;
const COLLECTIONS: usize = 4;
const PLATEAU: usize = 5;
const STEP: usize = 6;
const SPREAD: usize = 7;
const SEPARATION: usize = 8;
const WATCHED: usize = 9;
const HIGH: usize = 10;
const LIFE: usize = 11;
const RISE: usize = 12;
const RECURRENCE: usize = 13;
/// An earlier life or a sibling levelled off higher.
pub(super) const REFERENCE: usize = 14;
/// Not seen often enough in a row.
pub(super) const PERSISTENCE: usize = 15;

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
    /// Whether its heap is taken as polled although collections are known.
    pub(super) polled: bool,
    /// How growth is told from garbage.
    pub(super) garbage: Garbage,
    /// Growth below this share of resident memory does not count.
    pub(super) share: f64,
    /// Growth below this many bytes does not count.
    pub(super) least: f64,
    /// Fewest floors a window needs.
    pub(super) points: usize,
    /// Growth that leaves more time than this (minutes) does not count.
    pub(super) soon: f64,
    /// Resident memory taken for each byte that is kept.
    pub(super) amplification: f64,
    /// How much growth by once the first floor is worth as evidence: less for a part of memory that starts small.
    pub(super) weight: f64,
}

/// How growth is told from garbage that no collection has freed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Garbage {
    /// The signal holds none.
    None,
    /// The heap right after collections must have grown as well.
    Known,
    /// Collections must have been seen to happen, or the heap has outgrown what V8 lets pile up.
    Seen,
}

/// Growth in one window that has passed every test of a grade.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finding {
    pub(super) signal: Signal,
    /// Whether the heap was taken as polled although collections are known.
    pub(super) polled: bool,
    /// Minutes watched.
    pub(super) span: f64,
    /// Neighbouring floors that rise, and how many there are.
    pub(super) rising: usize,
    pub(super) intervals: usize,
    /// Minutes until the nearest limit.
    pub(super) left: f64,
    /// Minutes since the floors left their lowest tenth.
    pub(super) risen: f64,
    /// Pace of the second half over the first.
    pub(super) pace: f64,
}

/// What a trial came to, for *suspect* and for *leaking*.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub(super) suspect: Option<Finding>,
    pub(super) leaking: Option<Finding>,
    /// Growth that goes on, of which only the length of the watch is missing.
    pub(super) growing: Option<Finding>,
    /// The furthest test that said no to *leaking*, as an index into [`TESTS`].
    pub(super) furthest: Option<usize>,
}

/// Tries one signal on every window of the ladder, shortest first.
pub(super) fn examine(frame: &Frame, scene: Scene, trial: Trial, settings: &Settings) -> Outcome {
    let mut outcome = Outcome::default();
    let mut life = None;
    let now = frame.len();
    let warm = frame.warm(settings.warm_up);
    let whole = now.saturating_sub(warm);
    let shortest = settings.ladder.first().map_or(1, |width| *width as usize);
    // The ladder as far as the life reaches, then the whole life.
    let rungs = settings.ladder.iter().map(|width| *width as usize).filter(|width| *width < whole).chain([whole]);
    for width in rungs {
        if as_f64(width) < 0.75 * as_f64(shortest) {
            break;
        }
        let from = now - width;
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
            Err(No { test, growing }) => {
                outcome.furthest = outcome.furthest.max(Some(test));
                outcome.growing = outcome.growing.or(growing.filter(|growing| growing.span >= GROWING_LEAST));
            }
        }
    }
    outcome
}

/// Least minutes of growth that is called *growing*.
const GROWING_LEAST: f64 = 60.0;

/// The test that said no, and growth where only time is missing.
struct No {
    test: usize,
    growing: Option<Finding>,
}

impl From<usize> for No {
    fn from(test: usize) -> Self {
        Self { test, growing: None }
    }
}

/// Tries one window: the finding for *suspect*, with the strict tests' answer, or the test that said no.
#[allow(clippy::too_many_lines, reason = "the tests of one window, one after the other as in the documentation")]
fn window(
    frame: &Frame,
    scene: Scene,
    trial: Trial,
    settings: &Settings,
    from: usize,
    life: &mut Option<Life>,
) -> Result<(Finding, Result<(), usize>), No> {
    let series = if trial.polled { frame.polled(trial.signal) } else { frame.series(trial.signal) };
    let now = frame.len();
    let span = as_f64(now - from);
    let floors = series.floors(from, now, MOST);
    let count = floors.len();
    let (at, value) = (floors.at(), floors.value());
    let start = as_f64(from);
    if count < trial.points || at[count / 2] < start + 0.25 * span || at[count / 2] > start + 0.75 * span {
        return Err(POINTS.into());
    }
    // Rank statistics first: they are cheap, and most windows end here.
    let s = kendall(value);
    let variance = kendall_variance(count);
    let tau = 2.0 * s / (as_f64(count) * as_f64(count - 1));
    let may_be_seasonal =
        trial.signal != Signal::Resident && count * 6 >= MOST * 5 && span >= settings.season_from && tau > 0.25;
    if (s - 1.0) / variance.sqrt() < 2.5 && tau < 0.85 && !may_be_seasonal {
        return Err(if s <= 0.0 { DIRECTION } else { SIGNIFICANCE }.into());
    }
    let slope = theil_sen(at, value);
    if s <= 0.0 || slope <= 0.0 {
        return Err(DIRECTION.into());
    }
    let (mad, rho) = residuals(&floors, slope);
    let growth = slope * (at[count - 1] - at[0]);
    let z = (s - 1.0) / (variance * (1.0 + rho) / (1.0 - rho)).sqrt();
    let significant = z >= 2.5 || (tau >= 0.85 && growth >= 6.0 * mad);
    // A trend that shows only from season to season is exempt from the tests of its shape within them.
    let seasonal = !significant && may_be_seasonal && rises_every_season(series, from, now);
    if !significant && !seasonal {
        return Err(SIGNIFICANCE.into());
    }
    let least = (trial.share * scene.level).max(trial.least);
    if growth < least || growth < 3.0 * mad {
        return Err(SIZE.into());
    }
    let outlived = match trial.garbage {
        Garbage::None => true,
        Garbage::Known => known_to_outlive_collections(frame, from, slope, growth),
        Garbage::Seen => seen_to_outlive_collections(frame, settings, from, growth),
    };
    if !outlived {
        return Err(COLLECTIONS.into());
    }
    let half = count / 2;
    let later = if seasonal { slope } else { theil_sen(&at[half..], &value[half..]) };
    if later < 0.4 * slope || (!seasonal && count >= 12 && last_third_pace(at, value) < 0.55 * slope) {
        return Err(PLATEAU.into());
    }
    if !seasonal && has_stopped(at, value) {
        return Err(PLATEAU.into());
    }
    let step = largest_step(at, value, slope);
    // Exact floors hardly wobble, so a few steps must not pass for noise.
    let exact = frame.basis == Basis::MajorGc && trial.signal != Signal::Resident;
    let noise = 2.0 * if exact { mad.min(increment_noise(value)) } else { mad };
    if !seasonal && step > settings.suspect.step_share * growth + noise {
        return Err(STEP.into());
    }
    let spread = spread_share(value, growth);
    if spread < settings.suspect.spread_share {
        return Err(SPREAD.into());
    }
    if !seasonal && !separated(value) {
        return Err(SEPARATION.into());
    }
    let left = (scene.headroom / (slope.min(later) * trial.amplification)).max(0.0);
    let earlier = theil_sen(&at[..half], &value[..half]);
    let relative = trial.weight * growth / median_of(value, 0..3).max(settings.smallest_growth.as_f64());
    let straight = spread >= 0.5 && tau >= 0.75 && later >= 0.8 * earlier && later <= 1.8 * earlier;
    let rising = (1..count).filter(|i| value[*i] > value[i - 1]).count();
    let agreement = as_f64(rising) / as_f64(MOST - 1);
    let evidence = if straight { relative * agreement } else { 0.0 };
    let risen = rising_for(&floors, as_f64(now));
    let busier = busier(frame, from);
    let watch = Watch { span: span / busier, left, risen: risen / busier, evidence };
    let finding = Finding {
        signal: trial.signal,
        polled: trial.polled,
        span,
        left,
        risen,
        rising,
        intervals: count - 1,
        pace: if earlier > 0.0 { later / earlier } else { f64::INFINITY },
    };
    if left > trial.soon || !watch.enough(&settings.suspect) {
        return Err(No { test: WATCHED, growing: Some(finding).filter(|_| left <= trial.soon) });
    }
    if !all_time_high(series, frame, settings, from, median_of(value, count - 3..count), least) {
        return Err(HIGH.into());
    }
    if frame.age() > 60 {
        let life = life.get_or_insert_with(|| Life::of(frame, series, settings));
        if let Some(test) = slowing(life, seasonal, settings) {
            return Err(test.into());
        }
    }
    if recurs(series, frame, settings, from, slope, growth) {
        return Err(RECURRENCE.into());
    }
    let strict = if !seasonal && step > settings.leaking.step_share * growth + noise {
        Err(STEP)
    } else if spread < settings.leaking.spread_share {
        Err(SPREAD)
    } else if !seasonal && life.is_some_and(|life| life.rise_pace < settings.leaking.rise_pace) {
        Err(RISE)
    } else if !watch.enough(&settings.leaking) {
        Err(WATCHED)
    } else {
        Ok(())
    };
    Ok((finding, strict))
}

/// Whether what collections left behind has grown at no less than half the pace.
fn known_to_outlive_collections(frame: &Frame, from: usize, slope: f64, growth: f64) -> bool {
    let kept = frame.series(Signal::Footprint);
    let at = |minute: &usize| kept.floor(*minute, minute + 1).is_finite();
    let last = (from..frame.len()).rev().find(at);
    let first = (from..frame.len()).find(at);
    let (Some(first), Some(last)) = (first, last) else { return false };
    let apart = as_f64(last - first);
    let rise = kept.floor(last, last + 1) - kept.floor(first, first + 1);
    3 * (last - first) >= frame.len() - from && rise >= 0.5 * slope * apart && rise >= 0.25 * growth
}

/// Least bytes that V8 lets a heap grow by before it collects.
const LEAST_STEP: f64 = 10e6;
/// Most times its floor that V8 lets a heap grow by before it collects.
const MOST_STEP: f64 = 1.2;

/// Whether collections were seen to free a part of the growth and left the rest, or the heap has outgrown what V8
/// lets pile up without one.
fn seen_to_outlive_collections(frame: &Frame, settings: &Settings, from: usize, growth: f64) -> bool {
    let heap = frame.series(Signal::Heap);
    let warm = (settings.warm_up as usize).saturating_sub(frame.before).min(from);
    let lowest = heap.floor(warm, frame.len());
    let now = frame.len();
    let latest = heap.floor(now - (now - from) / MOST - 1, now);
    if latest - lowest >= LEAST_STEP.max(MOST_STEP * lowest) {
        return true;
    }
    let bucket = ((now - from) / (4 * MOST)).max(5);
    let (mut peak, mut seen) = (f64::NEG_INFINITY, [0_usize; 2]);
    let mut count = 0;
    let mut at = from;
    while at + bucket <= now {
        let low = heap.floor(at, at + bucket);
        if low.is_finite() {
            if peak - low >= (0.2 * growth).max(2e6) {
                seen[usize::from(count > 0)] = at;
                count += 1;
                peak = low;
            }
            peak = peak.max(low);
        }
        at += bucket;
    }
    count >= 2 && 3 * (seen[1] - seen[0]) >= now - from
}

/// The test that sees the whole life slowing down, if one does.
fn slowing(life: &Life, seasonal: bool, settings: &Settings) -> Option<usize> {
    if (life.first > 0.0 && life.second < 0.65 * life.first) || life.log_fits_better_by < settings.log_ratio {
        return Some(LIFE);
    }
    (!seasonal && life.rise_pace < settings.suspect.rise_pace).then_some(RISE)
}

/// Whether every floor of the last quarter lies above every floor of the first.
fn separated(value: &[f64]) -> bool {
    let quarter = value.len() / 4;
    let lowest_late = value[value.len() - quarter..].iter().copied().fold(f64::INFINITY, f64::min);
    let highest_early = value[..quarter].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    lowest_late > highest_early
}

/// The largest rise over two buckets, beyond what a line of this slope explains.
fn largest_step(at: &[f64], value: &[f64], slope: f64) -> f64 {
    (2..value.len()).map(|i| value[i] - value[i - 2] - slope * (at[i] - at[i - 2])).fold(0.0, f64::max)
}

/// How long growth has been watched, against how soon it matters and how plain it is.
#[derive(Debug, Clone, Copy)]
struct Watch {
    span: f64,
    left: f64,
    risen: f64,
    evidence: f64,
}

impl Watch {
    fn enough(&self, grade: &Grade) -> bool {
        self.span >= (grade.watch_share * self.left).min(grade.watch_cap)
            || (self.risen >= grade.evidence_least && self.risen * self.evidence >= grade.evidence_watch)
    }
}

/// How much longer to watch because the process is busier than it was before the window: a floor that rises with load
/// may be a backlog or a crowd. One, or two where load rose by a quarter or more.
fn busier(frame: &Frame, from: usize) -> f64 {
    let mean = |load: &[f32]| {
        let (sum, count) = load
            .iter()
            .filter(|load| !load.is_nan())
            .fold((0.0, 0_usize), |(sum, count), load| (sum + f64::from(*load), count + 1));
        (count >= 60).then(|| sum / as_f64(count))
    };
    let late = from + (frame.len() - from) / 2;
    match (mean(&frame.load[..from]), mean(&frame.load[late..])) {
        (Some(before), Some(now)) if now > 1.25 * before => 2.0,
        _ => 1.0,
    }
}
