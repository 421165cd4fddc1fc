//! Rank statistics on a handful of floors: Kendall's S, Theil–Sen slopes and their intervals.
//!
//! Everything works on at most [`MOST`] points and on the stack; there is no allocation and no failure.

use model::Slope;

/// Most points a fit takes.
pub(crate) const MOST: usize = 24;
const PAIRS: usize = MOST * (MOST - 1) / 2;

/// A series of floors: where (in minutes) and how much (in bytes), oldest first, without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floors {
    at: [f64; MOST],
    value: [f64; MOST],
    count: usize,
}

impl Floors {
    pub(crate) const fn new() -> Self {
        Self { at: [0.0; MOST], value: [0.0; MOST], count: 0 }
    }

    /// Adds a point; beyond [`MOST`] it is dropped.
    pub(crate) fn push(&mut self, at: f64, value: f64) {
        if self.count < MOST && value.is_finite() {
            self.at[self.count] = at;
            self.value[self.count] = value;
            self.count += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn at(&self) -> &[f64] {
        &self.at[..self.count]
    }

    pub(crate) fn value(&self) -> &[f64] {
        &self.value[..self.count]
    }
}

impl FromIterator<f64> for Floors {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut floors = Self::new();
        for (place, value) in (0_u32..).zip(values) {
            floors.push(f64::from(place), value);
        }
        floors
    }
}

/// Kendall's S: rising pairs less falling pairs.
pub(crate) fn kendall(value: &[f64]) -> f64 {
    let mut rising = 0_i32;
    for (index, left) in value.iter().enumerate() {
        for right in &value[index + 1..] {
            rising += i32::from(right > left) - i32::from(right < left);
        }
    }
    f64::from(rising)
}

/// The variance of Kendall's S for `count` independent points without ties (Kendall 1975).
pub(crate) fn kendall_variance(count: usize) -> f64 {
    let n = as_f64(count);
    n * (n - 1.0) * (2.0 * n + 5.0) / 18.0
}

/// The median slope over all pairs (Theil 1950, Sen 1968); zero for fewer than two points.
pub(crate) fn theil_sen(at: &[f64], value: &[f64]) -> f64 {
    let mut slopes = [0.0; PAIRS];
    let count = pair_slopes(at, value, &mut slopes);
    median(&mut slopes[..count])
}

/// The Theil–Sen slope with Sen's interval of 95 %, widened by `inflation` of the variance for autocorrelation.
pub(crate) fn theil_sen_interval(at: &[f64], value: &[f64], inflation: f64) -> (f64, f64, f64) {
    let mut slopes = [0.0; PAIRS];
    let count = pair_slopes(at, value, &mut slopes);
    let spread = 1.96 * (kendall_variance(value.len()) * inflation).sqrt();
    middle_and_bounds(&mut slopes[..count], spread)
}

/// By how much the second sample lies above the first (Hodges and Lehmann 1963), with its interval of 95 % from the
/// normal ranks of Mann and Whitney (1947); zeros where one is empty. At most [`MOST`] points in all.
pub(crate) fn shift(first: &[f64], second: &[f64]) -> (f64, f64, f64) {
    let mut differences = [0.0; PAIRS];
    let mut count = 0;
    for (before, after) in first.iter().flat_map(|before| second.iter().map(move |after| (before, after))) {
        differences[count] = after - before;
        count += 1;
    }
    let all = as_f64(count);
    let spread = 2.0 * 1.96 * (all * as_f64(first.len() + second.len() + 1) / 12.0).sqrt();
    middle_and_bounds(&mut differences[..count], spread)
}

/// The median of some figures, and those `spread` ranks apart around it.
fn middle_and_bounds(figures: &mut [f64], spread: f64) -> (f64, f64, f64) {
    let count = figures.len();
    if count == 0 {
        return (0.0, 0.0, 0.0);
    }
    figures.sort_unstable_by(f64::total_cmp);
    let low = ((as_f64(count) - spread) / 2.0).max(0.0);
    let high = f64::midpoint(as_f64(count), spread).min(as_f64(count - 1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the indices")]
    let (low, high) = (low as usize, high as usize);
    let middle =
        if count % 2 == 1 { figures[count / 2] } else { f64::midpoint(figures[count / 2 - 1], figures[count / 2]) };
    (middle, figures[low.min(count - 1)], figures[high])
}

fn pair_slopes(at: &[f64], value: &[f64], slopes: &mut [f64; PAIRS]) -> usize {
    let mut count = 0;
    for first in 0..value.len() {
        for second in first + 1..value.len() {
            slopes[count] = (value[second] - value[first]) / (at[second] - at[first]);
            count += 1;
        }
    }
    count
}

/// The median; sorts partly in place. Zero for an empty slice.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (lower, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if even { f64::midpoint(lower.iter().copied().fold(f64::MIN, f64::max), upper) } else { upper }
}

/// The spread of floors around a line: the scaled median absolute residual, and the residuals' autocorrelation at
/// lag one, within 0 and 0.75.
pub(crate) fn residuals(floors: &Floors, slope: f64) -> (f64, f64) {
    let mut rest = [0.0; MOST];
    for (rest, (at, value)) in rest.iter_mut().zip(floors.at().iter().zip(floors.value())) {
        *rest = value - slope * at;
    }
    let rest = &mut rest[..floors.len()];
    let mut sorted = [0.0; MOST];
    let sorted = &mut sorted[..floors.len()];
    sorted.copy_from_slice(rest);
    let middle = median(sorted);
    let (mut cross, mut square, mut before) = (0.0, 1e-12, None);
    for (rest, sorted) in rest.iter_mut().zip(sorted.iter_mut()) {
        *rest -= middle;
        *sorted = rest.abs();
        square += *rest * *rest;
        if let Some(before) = before {
            cross += *rest * before;
        }
        before = Some(*rest);
    }
    (1.4826 * median(sorted), (cross / square).clamp(0.0, 0.75))
}

pub(crate) fn slope_with_interval(floors: &Floors) -> Option<Slope> {
    if floors.len() < 4 {
        return None;
    }
    let (_, rho) = residuals(floors, theil_sen(floors.at(), floors.value()));
    let inflation = (1.0 + rho) / (1.0 - rho);
    let (middle, low, high) = theil_sen_interval(floors.at(), floors.value(), inflation);
    let s = kendall(floors.value());
    let z = (s.abs() - 1.0).max(0.0) / (kendall_variance(floors.len()) * inflation).sqrt();
    Some(Slope { bytes_per_second: if z < 1.28 { 0.0 } else { middle }, low, high })
}

/// Fits a slope to equally spaced floors, `spacing` seconds apart: bytes per second with an interval of 95 %.
pub(crate) fn slope_of_floors(values: &[f32], spacing: f64) -> Option<Slope> {
    let mut floors = Floors::new();
    for (part, value) in (0_u32..).zip(values) {
        floors.push(f64::from(part), f64::from(*value));
    }
    (spacing > 0.0).then(|| slope_with_interval(&floors)).flatten().map(|slope| scaled(slope, 1.0 / spacing))
}

pub(crate) fn scaled(slope: Slope, by: f64) -> Slope {
    Slope { bytes_per_second: slope.bytes_per_second * by, low: slope.low * by, high: slope.high * by }
}

/// A count as a float.
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_and_intervals_of_known_series() {
        let at: Vec<f64> = (0..24).map(f64::from).collect();
        let line: Vec<f64> = at.iter().map(|t| 3.0 * t + 7.0).collect();
        assert!((theil_sen(&at, &line) - 3.0).abs() < 1e-12);
        let (slope, low, high) = theil_sen_interval(&at, &line, 1.0);
        assert!(low <= slope && slope <= high && (high - low).abs() < 1e-9);
        let mut bent = line.clone();
        bent[5] = 1e9;
        bent[20] = -1e9;
        assert!((theil_sen(&at, &bent) - 3.0).abs() < 0.2, "two outliers hardly move it");
        let (_, low, high) = theil_sen_interval(&at, &bent, 1.0);
        assert!(low <= 3.0 && 3.0 <= high);
    }

    #[test]
    fn a_shift_is_found_through_outliers() {
        let first: Vec<f64> = (0..12).map(|place| 10.0 + f64::from(place % 3)).collect();
        let mut second: Vec<f64> = first.iter().map(|value| value + 5.0).collect();
        second[3] = 1e9;
        let (middle, low, high) = shift(&first, &second[..11]);
        assert!((middle - 5.0).abs() < 0.6 && low <= middle && middle <= high && high < 7.0, "{middle} {low} {high}");
        let (middle, low, high) = shift(&first, &first);
        assert!(middle.abs() < f64::EPSILON && low <= 0.0 && high >= 0.0);
        assert_eq!(shift(&[], &first), (0.0, 0.0, 0.0));
    }

    #[test]
    fn kendall_counts_pairs() {
        assert!((kendall(&[1.0, 2.0, 3.0, 4.0]) - 6.0).abs() < f64::EPSILON);
        assert!((kendall(&[4.0, 3.0, 2.0]) + 3.0).abs() < f64::EPSILON);
        assert!(kendall(&[1.0, 1.0]).abs() < f64::EPSILON);
    }

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }
}
