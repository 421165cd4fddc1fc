//! One signal on trial: a ladder of windows, and in each the tests that growth has to pass to count as a leak.
//!
//! Pure arithmetic on floors. It refuses to combine signals and to remember anything between evaluations: that is the
//! detector's.

use crate::model::Signal;

use super::frame::{Frame, floors};
use super::settings::{Grade, Settings};
use super::stats::{Floors, MOST, as_f64, kendall, kendall_variance, median, residuals, theil_sen};

/// The tests by name, in the order they are made.
pub const TESTS: [&str; 14] = [
    "points",
    "direction",
    "significance",
    "size",
    "plateau",
    "step",
    "spread",
    "separation",
    "watched",
    "high",
    "life",
    "rise",
    "recurrence",
    "persistence",
];

const POINTS: usize = 0;
const DIRECTION: usize = 1;
const SIGNIFICANCE: usize = 2;
const SIZE: usize = 3;
const PLATEAU: usize = 4;
const STEP: usize = 5;
const SPREAD: usize = 6;
const SEPARATION: usize = 7;
const WATCHED: usize = 8;
const HIGH: usize = 9;
const LIFE: usize = 10;
const RISE: usize = 11;
const RECURRENCE: usize = 12;

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
    /// Resident memory taken for each byte that is kept.
    pub(super) amplification: f64,
    /// How much growth by once the first floor is worth as evidence: less for a part of memory that starts small.
    pub(super) weight: f64,
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
    /// Minutes until the nearest limit.
    pub(super) left: f64,
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
    life: &mut Option<Life>,
) -> Result<(Finding, Result<(), usize>), usize> {
    let series = frame.series(trial.signal);
    let now = frame.len();
    let span = as_f64(now - from);
    let floors = floors(series, from, now, MOST);
    let count = floors.len();
    let (at, value) = (floors.at(), floors.value());
    let start = as_f64(from);
    if count < trial.points || at[count / 2] < start + 0.25 * span || at[count / 2] > start + 0.75 * span {
        return Err(POINTS);
    }
    // Rank statistics first: they are cheap, and most windows end here.
    let s = kendall(value);
    let variance = kendall_variance(count);
    let tau = 2.0 * s / (as_f64(count) * as_f64(count - 1));
    if s <= 0.0 {
        return Err(DIRECTION);
    }
    let may_be_seasonal =
        trial.signal != Signal::Resident && count * 6 >= MOST * 5 && span >= settings.season_from && tau > 0.25;
    if (s - 1.0) / variance.sqrt() < 2.5 && tau < 0.85 && !may_be_seasonal {
        return Err(SIGNIFICANCE);
    }
    let slope = theil_sen(at, value);
    if slope <= 0.0 {
        return Err(DIRECTION);
    }
    let (mad, rho) = residuals(&floors, slope);
    let growth = slope * (at[count - 1] - at[0]);
    let z = (s - 1.0) / (variance * (1.0 + rho) / (1.0 - rho)).sqrt();
    let significant = z >= 2.5 || (tau >= 0.85 && growth >= 6.0 * mad);
    // A trend that shows only from season to season is exempt from the tests of its shape within them.
    let seasonal = !significant && may_be_seasonal && rises_every_season(series, from, now);
    if !significant && !seasonal {
        return Err(SIGNIFICANCE);
    }
    let least = (trial.share * scene.level).max(settings.smallest_growth.as_f64());
    if growth < least || growth < 3.0 * mad {
        return Err(SIZE);
    }
    let half = count / 2;
    let later = theil_sen(&at[half..], &value[half..]);
    let later = if seasonal { slope } else { later };
    if later < 0.4 * slope || (!seasonal && count >= 12 && last_third_pace(at, value) < 0.55 * slope) {
        return Err(PLATEAU);
    }
    // What a line of this slope would not explain of the largest rise over two buckets.
    let step = (2..count).map(|i| value[i] - value[i - 2] - slope * (at[i] - at[i - 2])).fold(0.0, f64::max);
    let noise = 2.0
        * if frame.basis == crate::model::Basis::MajorGc && trial.signal != Signal::Resident {
            mad.min(increment_noise(value))
        } else {
            mad
        };
    if !seasonal && step > settings.suspect.step_share * growth + noise {
        return Err(STEP);
    }
    let spread = spread_share(value, growth);
    if spread < settings.suspect.spread_share {
        return Err(SPREAD);
    }
    let quarter = count / 4;
    let lowest_late = value[count - quarter..].iter().copied().fold(f64::INFINITY, f64::min);
    let highest_early = value[..quarter].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if lowest_late <= highest_early && !seasonal {
        return Err(SEPARATION);
    }
    let left = (scene.headroom / (slope.min(later) * trial.amplification)).max(0.0);
    let earlier = theil_sen(&at[..half], &value[..half]);
    let relative = trial.weight * growth / median_of(value, 0..3).max(settings.smallest_growth.as_f64());
    let straight = spread >= 0.5 && tau >= 0.75 && later >= 0.8 * earlier && later <= 1.8 * earlier;
    let rising = (1..count).filter(|i| value[*i] > value[i - 1]).count();
    let agreement = as_f64(rising) / as_f64(MOST - 1);
    let evidence = if straight { relative * agreement } else { 0.0 };
    let risen = rising_for(&floors, as_f64(now));
    if left > trial.soon || !watched(&settings.suspect, span, left, risen, evidence) {
        return Err(WATCHED);
    }
    if !all_time_high(series, frame, settings, from, median_of(value, count - 3..count), least) {
        return Err(HIGH);
    }
    if frame.age() > 60 {
        let life = life.get_or_insert_with(|| Life::of(frame, series, settings));
        if (life.first > 0.0 && life.second < 0.65 * life.first) || life.log_fits_better_by < settings.log_ratio {
            return Err(LIFE);
        }
        if !seasonal && life.rise_pace < settings.suspect.rise_pace {
            return Err(RISE);
        }
    }
    if recurs(series, frame, settings, from, slope, growth) {
        return Err(RECURRENCE);
    }
    let finding = Finding {
        signal: trial.signal,
        span,
        slope,
        growth,
        left,
        rising,
        intervals: count - 1,
        pace: if earlier > 0.0 { later / earlier } else { f64::INFINITY },
    };
    let strict = if !seasonal && step > settings.leaking.step_share * growth + noise {
        Err(STEP)
    } else if spread < settings.leaking.spread_share {
        Err(SPREAD)
    } else if !seasonal && life.is_some_and(|life| life.rise_pace < settings.leaking.rise_pace) {
        Err(RISE)
    } else if !watched(&settings.leaking, span, left, risen, evidence) {
        Err(WATCHED)
    } else {
        Ok(())
    };
    Ok((finding, strict))
}

/// Whether floors rise from season to season, whatever they do within one: a seasonal Kendall test (Hirsch and Slack
/// 1984) at any lag of which the window holds two and a half, with each season's rise like the other's. Buckets without
/// a floor repeat the one before.
fn rises_every_season(series: &[f32], from: usize, to: usize) -> bool {
    let mut value = [0.0_f64; MOST];
    let mut missing = 0_usize;
    for (bucket, value) in value.iter_mut().enumerate() {
        let (start, end) = (from + bucket * (to - from) / MOST, from + (bucket + 1) * (to - from) / MOST);
        *value = series[start..end].iter().copied().fold(f32::INFINITY, f32::min).into();
        missing += usize::from(value.is_infinite());
    }
    if missing > MOST / 6 || value[0].is_infinite() {
        return false;
    }
    for bucket in 1..MOST {
        if value[bucket].is_infinite() {
            value[bucket] = value[bucket - 1];
        }
    }
    // A season falls as well as rises, in both halves; a lone ramp or step does not.
    let growth = value[MOST - 1].max(value[MOST - 2]) - value[0].min(value[1]);
    let falls = |half: &[f64]| {
        let (mut peak, mut fall) = (f64::NEG_INFINITY, 0.0_f64);
        for value in half {
            peak = peak.max(*value);
            fall = fall.max(peak - value);
        }
        fall >= 0.25 * growth
    };
    if !falls(&value[..MOST / 2]) || !falls(&value[MOST / 2..]) {
        return false;
    }
    (5..=MOST * 2 / 5).any(|lag| {
        let (mut rising, mut pairs, mut variance) = (0.0, 0.0, 0.0);
        for phase in 0..lag {
            let season: Floors = value[phase..].iter().step_by(lag).copied().collect();
            let count = season.len();
            rising += kendall(season.value());
            pairs += as_f64(count * (count - 1)) / 2.0;
            variance += kendall_variance(count);
        }
        let rise = |range: std::ops::Range<usize>| {
            let mut rises = [0.0; MOST];
            let count = range.len();
            range.zip(rises.iter_mut()).for_each(|(i, rise)| *rise = value[i] - value[i - lag]);
            median(&mut rises[..count])
        };
        let (first, last) = (rise(lag..MOST - lag), rise(MOST - lag..MOST));
        rising >= 0.7 * pairs && (rising - 1.0) / variance.sqrt() >= 3.0 && last >= 0.4 * first && first >= 0.3 * last
    })
}

/// Whether growth has been watched long enough for its urgency, or for its evidence.
fn watched(grade: &Grade, span: f64, left: f64, risen: f64, evidence: f64) -> bool {
    span >= (grade.watch_share * left).min(grade.watch_cap)
        || (risen >= grade.evidence_least && risen * evidence >= grade.evidence_watch)
}

/// Minutes since floors were last within a tenth of the rise from their lowest level.
fn rising_for(floors: &Floors, now: f64) -> f64 {
    let value = floors.value();
    let lowest = value.iter().copied().fold(f64::INFINITY, f64::min);
    let near = lowest + 0.1 * (value[value.len() - 1] - lowest).max(0.0);
    let last_low = value.iter().rposition(|value| *value <= near).unwrap_or(0);
    now - floors.at()[last_low]
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

/// The shape of the whole life after warm-up.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// Slope of the first half …
    first: f64,
    /// … and of the second.
    second: f64,
    /// Pace of the second half of the rise over that of the first, from where it left the lowest level.
    rise_pace: f64,
    /// What a logarithm of the age leaves unexplained, as a share of what a line leaves.
    log_fits_better_by: f64,
}

impl Life {
    fn of(frame: &Frame, series: &[f32], settings: &Settings) -> Self {
        let whole = floors(series, frame.warm(settings.warm_up).min(frame.len()), frame.len(), MOST);
        if whole.len() < 8 {
            return Self { first: 0.0, second: 0.0, rise_pace: 1.0, log_fits_better_by: 1.0 };
        }
        let (first, second) = halves(&whole);
        let before = as_f64(frame.before);
        let line = unexplained(&whole, |at| at);
        let log = unexplained(&whole, |at| (at + before + 1.0).ln());
        Self {
            first,
            second,
            rise_pace: rise_pace(series, &whole, frame.len()),
            log_fits_better_by: if line > 0.0 { log / line } else { 1.0 },
        }
    }
}

/// Pace of the second half of the rise over the first: the rise begins where the floors were last within a tenth of
/// their lowest level.
fn rise_pace(series: &[f32], whole: &Floors, now: usize) -> f64 {
    let value = whole.value();
    let lowest = value.iter().copied().fold(f64::INFINITY, f64::min);
    let near = lowest + 0.1 * (value[value.len() - 1] - lowest).max(0.0);
    let Some(last_low) = value.iter().rposition(|value| *value <= near) else { return 1.0 };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places are indices")]
    let rise = floors(series, whole.at()[last_low] as usize, now, MOST);
    if rise.len() < 8 {
        return 1.0;
    }
    let (first, second) = halves(&rise);
    if first > 0.0 { second / first } else { f64::INFINITY }
}

/// Whether the process has grown like this before and given it back: a backlog that drained, a day's swing. Then
/// growth counts only if it is twice as large, or if the troughs between the peaks have risen as well.
fn recurs(series: &[f32], frame: &Frame, settings: &Settings, from: usize, slope: f64, growth: f64) -> bool {
    let start = (settings.warm_up as usize).saturating_sub(frame.before);
    let bucket = ((frame.len() - from) / MOST).max(5);
    let (mut before, mut peak, mut drop) = ((f64::INFINITY, 0.0), f64::NEG_INFINITY, 0.0);
    let (mut trough_before, mut trough_after) = ((0.0, 0.0), (0.0, 0.0));
    let mut lowest_before_peak = (f64::INFINITY, 0.0);
    let mut at = start;
    while at + bucket <= frame.len() {
        let low = series[at..at + bucket].iter().copied().fold(f32::INFINITY, f32::min);
        if low.is_finite() {
            let here = (f64::from(low), as_f64(at));
            if here.0 > peak {
                peak = here.0;
                lowest_before_peak = before;
            }
            if peak - here.0 > drop && lowest_before_peak.0.is_finite() {
                drop = peak - here.0;
                (trough_before, trough_after) = (lowest_before_peak, here);
            }
            if here.0 < before.0 {
                before = here;
            }
        }
        at += bucket;
    }
    if drop < 0.5 * growth || growth >= 2.0 * drop {
        return false;
    }
    trough_after.0 - trough_before.0 < 0.4 * slope * (trough_after.1 - trough_before.1)
}

/// The noise of neighbouring floors, blind to a few steps: the scaled median distance of increments from their median.
fn increment_noise(value: &[f64]) -> f64 {
    let mut increments = [0.0; MOST];
    for (increment, pair) in increments.iter_mut().zip(value.windows(2)) {
        *increment = pair[1] - pair[0];
    }
    let increments = &mut increments[..value.len() - 1];
    let middle = median(increments);
    for increment in increments.iter_mut() {
        *increment = (*increment - middle).abs();
    }
    1.4826 * median(increments)
}

/// The sum of squares that least squares on a transformed time leave.
fn unexplained(floors: &Floors, transform: impl Fn(f64) -> f64) -> f64 {
    let n = as_f64(floors.len());
    let mean_at = floors.at().iter().map(|at| transform(*at)).sum::<f64>() / n;
    let mean = floors.value().iter().sum::<f64>() / n;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (at, value) in floors.at().iter().zip(floors.value()) {
        let (x, y) = (transform(*at) - mean_at, value - mean);
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    if xx > 0.0 { (yy - xy * xy / xx).max(0.0) } else { yy }
}

/// The growth that is left when the three largest and the three smallest increments are taken away, as a share of the
/// whole: near one for a line, near zero for a few steps.
fn spread_share(value: &[f64], growth: f64) -> f64 {
    let mut increments = [0.0; MOST];
    let count = value.len() - 1;
    for (increment, pair) in increments.iter_mut().zip(value.windows(2)) {
        *increment = pair[1] - pair[0];
    }
    let increments = &mut increments[..count];
    increments.sort_unstable_by(f64::total_cmp);
    let cut = (count / 7).min(3);
    let middle = &increments[cut..count - cut];
    middle.iter().sum::<f64>() / as_f64(middle.len()) * as_f64(count) / growth
}

/// The slopes of the first and the second half.
pub(super) fn halves(floors: &Floors) -> (f64, f64) {
    let half = floors.len() / 2;
    (theil_sen(&floors.at()[..half], &floors.value()[..half]), theil_sen(&floors.at()[half..], &floors.value()[half..]))
}

/// The pace of the last third, from medians of three.
fn last_third_pace(at: &[f64], value: &[f64]) -> f64 {
    let count = value.len();
    let middle = count - count / 3;
    let rise = median_of(value, count - 3..count) - median_of(value, middle - 1..middle + 2);
    rise / (at[count - 2] - at[middle]).max(1.0)
}

fn median_of(values: &[f64], range: std::ops::Range<usize>) -> f64 {
    let mut copy = [0.0; MOST];
    let part = &values[range.start.min(values.len())..range.end.min(values.len())];
    copy[..part.len()].copy_from_slice(part);
    median(&mut copy[..part.len()])
}
