//! How a rise goes on: the pace of its second half against that of its first, and that of its end.

use super::ShortFloor;
use crate::stats::{Floors, MOST, as_f64, median, residuals, shift, theil_sen, theil_sen_interval};

/// How a rise goes on, by the floors that were kept to the end.
pub(super) struct Course {
    /// The pace of the whole.
    pub(super) pace: f64,
    /// The pace of the last third as a share of it.
    pub(super) last_third: f64,
    /// The pace of the second half as a share of that of the first, in two ways.
    pub(super) steadiness: Vec<Share>,
}

/// A share with its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) middle: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Course {
    pub(super) fn of(floors: &Floors) -> Self {
        let at = floors.at();
        let mut value = floors.value().to_vec();
        keep(&mut value);
        let pace = theil_sen(at, &value);
        let third = at.len() - at.len() / 3;
        let last_third = theil_sen(&at[third..], &value[third..]);
        Self {
            pace,
            last_third: if pace > 0.0 { last_third / pace } else { 0.0 },
            steadiness: [by_intervals(at, &value), by_lines(at, &value)].into_iter().flatten().collect(),
        }
    }
}

/// What was held at each moment and was still held at the end: whatever was given back later does not count.
pub(super) fn keep(value: &mut [f64]) {
    for place in (1..value.len()).rev() {
        value[place - 1] = value[place - 1].min(value[place]);
    }
}

/// The paces of the single intervals: those of the second half against those of the first. Steps, like a table that
/// doubles, hardly touch it, and noise does. None where the first half did not grow.
fn by_intervals(at: &[f64], value: &[f64]) -> Option<Share> {
    let paces: Vec<f64> =
        at.windows(2).zip(value.windows(2)).map(|(at, value)| (value[1] - value[0]) / (at[1] - at[0])).collect();
    let (first, second) = (&paces[..paces.len() / 2], &paces[paces.len().div_ceil(2)..]);
    let usual = median(&mut first.to_vec());
    let (middle, low, high) = shift(first, second);
    let share = |difference: f64| 1.0 + difference / usual;
    (usual > 0.0).then(|| Share { middle: share(middle), low: share(low), high: share(high) })
}

/// A line through each half; the interval of their ratio by the propagation of errors to first order. Noise hardly touches
/// it, and steps do. None where the first half did not grow.
fn by_lines(at: &[f64], value: &[f64]) -> Option<Share> {
    let half = at.len() / 2;
    let fitted = |at: &[f64], value: &[f64]| {
        let mut floors = Floors::new();
        at.iter().zip(value).for_each(|(at, value)| floors.push(*at, *value));
        let (_, correlation) = residuals(&floors, theil_sen(at, value));
        theil_sen_interval(at, value, inflation(correlation))
    };
    let (first, first_low, first_high) = fitted(&at[..half], &value[..half]);
    let (second, second_low, second_high) = fitted(&at[half..], &value[half..]);
    (first > 0.0).then(|| {
        let ratio = second / first;
        let below = libm::hypot(second - second_low, ratio * (first_high - first)) / first;
        let above = libm::hypot(second_high - second, ratio * (first - first_low)) / first;
        Share { middle: ratio, low: ratio - below, high: ratio + above }
    })
}

/// By how much neighbours that are alike widen a variance, for a correlation at lag one (Bayley and Hammersley 1946).
pub(super) fn inflation(correlation: f64) -> f64 {
    (1.0 + correlation) / (1.0 - correlation)
}

/// The lowest floor of each of as many equal stretches as there is room for, where it lay.
pub(super) fn bucketed(window: &[ShortFloor], along: impl Fn(&ShortFloor) -> f64) -> Floors {
    let buckets = window.len().min(MOST);
    let (first, last) = (along(&window[0]), along(&window[window.len() - 1]));
    let mut lowest: [Option<(f64, f64)>; MOST] = [None; MOST];
    for floor in window {
        let share = ((along(floor) - first) / (last - first).max(1e-9)).clamp(0.0, 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, times few buckets")]
        let bucket = ((share * as_f64(buckets)) as usize).min(buckets - 1);
        if lowest[bucket].is_none_or(|(_, bytes)| floor.bytes < bytes) {
            lowest[bucket] = Some((along(floor), floor.bytes));
        }
    }
    let mut floors = Floors::new();
    let mut before = f64::NEG_INFINITY;
    for (at, bytes) in lowest.into_iter().flatten() {
        if at > before {
            floors.push(at, bytes);
            before = at;
        }
    }
    floors
}
