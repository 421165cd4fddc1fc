//! The shapes that growth can have: seasons, steps, a rise that slows down, a backlog that drained before.
//!
//! Each function answers one question about floors. Pure arithmetic; which answer counts is the trial's.

use super::frame::{Frame, floors, lowest};
use super::settings::Settings;
use crate::stats::{Floors, MOST, as_f64, kendall, kendall_variance, median, theil_sen};

/// Whether floors rise from season to season, whatever they do within one: a seasonal Kendall test (Hirsch and Slack
/// 1984) at any lag of which the window holds two and a half, with each season's rise like the other's. Buckets without
/// a floor repeat the one before.
pub(super) fn rises_every_season(series: &[f32], from: usize, to: usize) -> bool {
    let mut value = [0.0_f64; MOST];
    let mut missing = 0_usize;
    for (bucket, value) in value.iter_mut().enumerate() {
        let (start, end) = (from + bucket * (to - from) / MOST, from + (bucket + 1) * (to - from) / MOST);
        *value = lowest(&series[start..end]).into();
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

/// Minutes since floors were last within a tenth of the rise from their lowest level.
pub(super) fn rising_for(floors: &Floors, now: f64) -> f64 {
    let value = floors.value();
    let lowest = value.iter().copied().fold(f64::INFINITY, f64::min);
    let near = lowest + 0.1 * (value[value.len() - 1] - lowest).max(0.0);
    let last_low = value.iter().rposition(|value| *value <= near).unwrap_or(0);
    now - floors.at()[last_low]
}

/// Whether the floor now lies above every bucket floor of this life before the window.
pub(super) fn all_time_high(
    series: &[f32],
    frame: &Frame,
    settings: &Settings,
    from: usize,
    now: f64,
    least: f64,
) -> bool {
    let bucket = ((frame.len() - from) / MOST).max(1);
    let oldest = (settings.warm_up as usize).saturating_sub(frame.before);
    let mut end = from;
    let mut highest = f64::NEG_INFINITY;
    while end >= oldest + bucket {
        let lowest = lowest(&series[end - bucket..end]);
        if lowest.is_finite() {
            highest = highest.max(f64::from(lowest));
        }
        end -= bucket;
    }
    now >= highest + 0.5 * least
}

/// The shape of the whole life after warm-up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Slope of the first half …
    pub(super) first: f64,
    /// … and of the second.
    pub(super) second: f64,
    /// Pace of the second half of the rise over that of the first, from where it left the lowest level.
    pub(super) rise_pace: f64,
    /// What a logarithm of the age leaves unexplained, as a share of what a line leaves.
    pub(super) log_fits_better_by: f64,
}

impl Life {
    pub(super) fn of(frame: &Frame, series: &[f32], settings: &Settings) -> Self {
        let whole = floors(series, frame.warm(settings.warm_up).min(frame.len()), frame.len(), MOST);
        if whole.len() < 8 {
            return Self { first: 0.0, second: 0.0, rise_pace: 1.0, log_fits_better_by: 1.0 };
        }
        let (first, second) = halves(&whole);
        let before = as_f64(frame.before);
        let line = unexplained(&whole, |at| at);
        let log = unexplained(&whole, |at| libm::log(at + before + 1.0));
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
pub(super) fn recurs(series: &[f32], frame: &Frame, settings: &Settings, from: usize, slope: f64, growth: f64) -> bool {
    let start = (settings.warm_up as usize).saturating_sub(frame.before);
    let bucket = ((frame.len() - from) / MOST).max(5);
    let (mut before, mut peak, mut drop) = ((f64::INFINITY, 0.0), f64::NEG_INFINITY, 0.0);
    let (mut trough_before, mut trough_after) = ((0.0, 0.0), (0.0, 0.0));
    let mut lowest_before_peak = (f64::INFINITY, 0.0);
    let mut at = start;
    while at + bucket <= frame.len() {
        let low = lowest(&series[at..at + bucket]);
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
pub(super) fn increment_noise(value: &[f64]) -> f64 {
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
pub(super) fn spread_share(value: &[f64], growth: f64) -> f64 {
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
pub(super) fn last_third_pace(at: &[f64], value: &[f64]) -> f64 {
    let count = value.len();
    let middle = count - count / 3;
    let rise = median_of(value, count - 3..count) - median_of(value, middle - 1..middle + 2);
    rise / (at[count - 2] - at[middle]).max(1.0)
}

pub(super) fn median_of(values: &[f64], range: std::ops::Range<usize>) -> f64 {
    let mut copy = [0.0; MOST];
    let part = &values[range.start.min(values.len())..range.end.min(values.len())];
    copy[..part.len()].copy_from_slice(part);
    median(&mut copy[..part.len()])
}
