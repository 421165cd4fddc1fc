//! Scores: episodes, not points; per family, never only the mean.

use super::generator::Series;

/// Evaluations an hour.
const AN_HOUR: usize = 12;

/// How one detector fared on one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The family.
    pub family: String,
    /// Whether the series leaks.
    pub leak: bool,
    /// False episodes.
    pub false_episodes: usize,
    /// Days in which an episode would be false.
    pub days: f64,
    /// Hours from the onset to the first episode after it.
    pub delay: Option<f64>,
    /// Whether it was found before the limit was met for the first time.
    pub before: bool,
    /// Whether the same series without its leak alarmed too.
    pub twin_alarmed: bool,
}

/// First evaluations of episodes; gaps of an hour or less do not end one.
pub fn episodes(alarms: &[bool]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut last = None;
    for (at, _) in alarms.iter().enumerate().filter(|(_, on)| **on) {
        if last.is_none_or(|last| at - last > AN_HOUR) {
            starts.push(at);
        }
        last = Some(at);
    }
    starts
}

/// Scores the alarms of one series.
pub fn score(series: &Series, alarms: &[bool]) -> Score {
    let starts = episodes(alarms);
    let mut score = Score {
        family: series.family.clone(),
        leak: series.leak,
        false_episodes: starts.len(),
        days: alarms.len() as f64 * 5.0 / 1440.0,
        delay: None,
        before: false,
        twin_alarmed: false,
    };
    if series.leak {
        let onset = series.onset * AN_HOUR as f64;
        let found = starts.iter().map(|start| *start as f64).find(|start| *start >= onset);
        score.false_episodes = starts.iter().filter(|start| (**start as f64) < onset).count();
        score.days = series.onset / 24.0;
        score.delay = found.map(|start| (start - onset) / AN_HOUR as f64);
        score.before =
            found.is_some_and(|start| series.exhausted.is_none_or(|exhausted| start / AN_HOUR as f64 <= exhausted));
    }
    score
}

/// All series of one detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Share of alarmed series that leak.
    pub precision: f64,
    /// Share of leaking series that were found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// False episodes a day of healthy series.
    pub false_a_day: f64,
    /// Upper bound of 95 % of the same (Poisson).
    pub false_a_day_at_most: f64,
    /// Healthy series with an alarm.
    pub false_series: usize,
    /// Share of leaking series found before the limit was met.
    pub before: f64,
    /// Share of leaking series found whose twin stayed quiet.
    pub credited: f64,
    /// Median hours from onset to the alarm.
    pub delay: f64,
}

/// Sums up.
pub fn summarize(scores: &[Score]) -> Summary {
    let (leaks, healthy): (Vec<&Score>, Vec<&Score>) = scores.iter().partition(|score| score.leak);
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let found = leaks.iter().filter(|score| score.delay.is_some()).count();
    let false_series = healthy.iter().filter(|score| score.false_episodes > 0).count();
    let episodes: usize = healthy.iter().map(|score| score.false_episodes).sum();
    let days: f64 = healthy.iter().map(|score| score.days).sum();
    let (precision, recall) = (share(found, found + false_series), share(found, leaks.len()));
    let mut delays: Vec<f64> = leaks.iter().filter_map(|score| score.delay).collect();
    delays.sort_by(f64::total_cmp);
    Summary {
        precision,
        recall,
        f1: 2.0 * precision * recall / (precision + recall).max(1e-9),
        false_a_day: episodes as f64 / days.max(1e-9),
        false_a_day_at_most: poisson_upper(episodes) / days.max(1e-9),
        false_series,
        before: share(leaks.iter().filter(|score| score.before).count(), leaks.len()),
        credited: share(leaks.iter().filter(|score| score.delay.is_some() && !score.twin_alarmed).count(), leaks.len()),
        delay: delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN),
    }
}

/// The largest mean that still leaves 5 % for so few events: bisection on the Poisson sum.
pub fn poisson_upper(events: usize) -> f64 {
    if events > 300 {
        // The sum underflows; the normal approximation is close by then.
        return events as f64 + 1.645 * (events as f64).sqrt() + 1.0;
    }
    let below = |mean: f64| {
        let mut term = (-mean).exp();
        let mut sum = term;
        for k in 1..=events {
            term *= mean / k as f64;
            sum += term;
        }
        sum
    };
    let (mut low, mut high) = (events as f64, events as f64 + 10.0 + 6.0 * (events as f64).sqrt());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) > 0.05 { low = middle } else { high = middle }
    }
    low
}
