//! What people use today, on the same series and the same grid of five minutes.

use super::generator::Series;

/// Minutes between evaluations.
const EVERY: usize = 5;

/// A baseline's alarms at each evaluation, by name.
pub fn judge(series: &Series) -> Vec<(&'static str, Vec<bool>)> {
    let minutes: Vec<f64> = series.resident.chunks_exact(4).map(|four| four.iter().sum::<f64>() / 4.0).collect();
    vec![
        ("deriv(1h) > 0 for 1h", hold(&growth(&minutes, 60, 0.0), 12)),
        ("OLS 6h > 1 %/h", growth(&minutes, 360, 1.0)),
        ("Mann-Kendall 6h p < .01", mann_kendall(&minutes)),
        ("predict_linear(6h, 24h)", hold(&predict(&minutes, series.limit, 360, 1440.0), 6)),
        ("predict_linear tuned", hold(&predict(&minutes, series.limit, TUNED.0, TUNED.1), TUNED.2)),
        ("memwatch: 5 growing GCs", memwatch(series)),
    ]
}

/// Window and horizon in minutes and evaluations to hold, chosen on the plain split, seeds 0 to 9, out of [`GRID`].
const TUNED: (usize, f64, usize) = (180, 360.0, 6);

/// What `predict_linear` was tuned over: windows, horizons and evaluations to hold.
pub const GRID: ([usize; 4], [f64; 4], [usize; 3]) =
    ([180, 360, 720, 1440], [180.0, 360.0, 720.0, 1440.0], [6, 24, 48]);

/// Every cell of [`GRID`], with the parameters as its name.
pub fn tuning(series: &Series) -> Vec<(String, Vec<bool>)> {
    let minutes: Vec<f64> = series.resident.chunks_exact(4).map(|four| four.iter().sum::<f64>() / 4.0).collect();
    let mut cells = Vec::new();
    for window in GRID.0 {
        for horizon in GRID.1 {
            let alarms = predict(&minutes, series.limit, window, horizon);
            for held in GRID.2 {
                cells.push((format!("predict_linear {window} {horizon} {held}"), hold(&alarms, held)));
            }
        }
    }
    cells
}

/// Prometheus' `for`: true only after `count` evaluations in a row.
fn hold(alarms: &[bool], count: usize) -> Vec<bool> {
    let mut run = 0;
    alarms
        .iter()
        .map(|alarm| {
            run = if *alarm { run + 1 } else { 0 };
            run >= count
        })
        .collect()
}

/// Least squares over each window: the slope a minute and the fitted value at its end.
fn lines(minutes: &[f64], window: usize) -> Vec<Option<(f64, f64)>> {
    (1..=minutes.len() / EVERY)
        .map(|evaluation| {
            let end = evaluation * EVERY;
            let part = &minutes[end.checked_sub(window)?..end];
            let n = window as f64;
            let middle = (n - 1.0) / 2.0;
            let mean = part.iter().sum::<f64>() / n;
            let (mut xy, mut xx) = (0.0, 0.0);
            for (place, value) in part.iter().enumerate() {
                let x = place as f64 - middle;
                xy += x * (value - mean);
                xx += x * x;
            }
            Some((xy / xx, mean + xy / xx * middle))
        })
        .collect()
}

/// Whether the line rises by more than `percent` of its end an hour.
fn growth(minutes: &[f64], window: usize, percent: f64) -> Vec<bool> {
    let rises =
        |line: &Option<(f64, f64)>| line.is_some_and(|(slope, end)| slope * 60.0 > percent / 100.0 * end.max(1.0));
    lines(minutes, window).iter().map(rises).collect()
}

fn predict(minutes: &[f64], limit: f64, window: usize, horizon: f64) -> Vec<bool> {
    let meets = |line: &Option<(f64, f64)>| line.is_some_and(|(slope, end)| end + slope * horizon > limit);
    lines(minutes, window).iter().map(meets).collect()
}

/// Mann (1945) and Kendall (1975) on medians of five minutes over six hours.
fn mann_kendall(minutes: &[f64]) -> Vec<bool> {
    let medians: Vec<f64> = minutes
        .chunks_exact(EVERY)
        .map(|five| {
            let mut five = five.to_vec();
            five.sort_by(f64::total_cmp);
            five[EVERY / 2]
        })
        .collect();
    let n = 72;
    let deviation = ((n * (n - 1) * (2 * n + 5)) as f64 / 18.0).sqrt();
    (1..=medians.len())
        .map(|end| {
            let Some(start) = end.checked_sub(n) else { return false };
            let part = &medians[start..end];
            let mut s = 0_i32;
            for (place, left) in part.iter().enumerate() {
                for right in &part[place + 1..] {
                    s += i32::from(right > left) - i32::from(right < left);
                }
            }
            (f64::from(s) - 1.0) / deviation > 2.576
        })
        .collect()
}

/// node-memwatch's leak event: five collections in a row that each leave more than the one before.
fn memwatch(series: &Series) -> Vec<bool> {
    let mut alarms = vec![false; series.resident.len() / 4 / EVERY];
    let (mut last, mut run) = (0.0, 0);
    for (place, after) in series.after_gc.iter().enumerate() {
        if series.restart[place] {
            (last, run) = (0.0, 0);
        }
        if after.is_nan() {
            continue;
        }
        run = if *after > last { run + 1 } else { 0 };
        last = *after;
        if run >= 5 {
            run = 0;
            if let Some(alarm) = alarms.get_mut(place / 4 / EVERY) {
                *alarm = true;
            }
        }
    }
    alarms
}
