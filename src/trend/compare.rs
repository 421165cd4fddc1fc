//! Prove the fix: the slopes of two sets of lives, side by side, with a verdict.
//!
//! Pure: summaries of lives go in, an answer with its interval and a sentence comes out. It refuses to guess: where
//! the interval of the later slope is too wide, it says how many hours more would make it narrow enough.

use serde::Serialize;

use crate::model::{LifeSummary, Slope};

use super::reason::pace;

/// What became of a leak between two versions (or two spans).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The later slope is certainly a small part of the earlier one.
    Fixed,
    /// The later slope is certainly more than a small part of the earlier one.
    NotFixed,
    /// The later lives are too short, or too noisy, to tell.
    TooEarly,
    /// The earlier lives did not leak in the first place.
    NothingToFix,
}

/// A comparison of two sets of lives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The answer.
    pub outcome: Outcome,
    /// The pooled slope before; none without a life long enough.
    pub before: Option<Slope>,
    /// The pooled slope after.
    pub after: Option<Slope>,
    /// Lives pooled before and after.
    pub lives: (usize, usize),
    /// Hours more to watch the later version, where it is too early.
    pub hours_needed: Option<f64>,
    /// The answer as a sentence.
    pub reason: String,
}

/// A leak is fixed when less than this share of its slope is left.
const LEFT_OVER: f64 = 0.25;
/// Hours a life must be watched before its slope counts.
const LEAST_HOURS: f64 = 2.0;

/// Compares lives before and after a change. Running lives count as they stand ([`crate::history::ProcessHistory::summary`]).
pub fn compare(before: &[LifeSummary], after: &[LifeSummary]) -> Comparison {
    let (earlier, later) = (pool(before), pool(after));
    let counts = (earlier.lives, later.lives);
    let answer = |outcome, hours_needed, reason| Comparison {
        outcome,
        before: earlier.slope,
        after: later.slope,
        lives: counts,
        hours_needed,
        reason,
    };
    let Some(old) = earlier.slope else {
        let reason = "no earlier life ran for two hours or more: there is nothing to compare with".to_owned();
        return answer(Outcome::TooEarly, None, reason);
    };
    if old.low <= 0.0 {
        let reason = format!("before, memory moved by {}: no leak that could be fixed", interval(old));
        return answer(Outcome::NothingToFix, None, reason);
    }
    let allowed = LEFT_OVER * old.bytes_per_second;
    let Some(new) = later.slope else {
        let hours = (LEAST_HOURS - later.hours).max(0.5);
        let reason =
            format!("too early: the later lives ran for {:.1} h so far; {hours:.0} h more needed", later.hours);
        return answer(Outcome::TooEarly, Some(hours), reason);
    };
    let both = format!("{} before, {} after", interval(old), interval(new));
    if new.high < allowed {
        return answer(Outcome::Fixed, None, format!("fixed: {both}"));
    }
    if new.low > allowed {
        return answer(Outcome::NotFixed, None, format!("not fixed: {both}"));
    }
    // The interval of a slope shrinks with the span to the power of 3/2.
    let distance = (new.bytes_per_second - allowed).abs().max(0.1 * allowed);
    let half_width = ((new.high - new.low) / 2.0).max(f64::MIN_POSITIVE);
    let longer = (half_width / distance).powf(2.0 / 3.0).clamp(1.1, 20.0);
    let hours = (later.hours * (longer - 1.0)).max(0.5);
    answer(Outcome::TooEarly, Some(hours), format!("too early: {both}; about {hours:.0} h more needed"))
}

#[derive(Debug, Clone, Copy)]
struct Pool {
    slope: Option<Slope>,
    lives: usize,
    hours: f64,
}

/// The mean of the lives' slopes, each weighted by its precision, with an interval of 95 % that covers both their own
/// intervals and their disagreement (random effects, `DerSimonian` and Laird 1986).
fn pool(lives: &[LifeSummary]) -> Pool {
    let hours = |life: &LifeSummary| life.last.since(life.first).as_secs_f64() / 3600.0;
    let longest = lives.iter().map(hours).fold(0.0, f64::max);
    let known: Vec<(f64, f64)> = lives
        .iter()
        .filter(|life| hours(life) >= LEAST_HOURS)
        .filter_map(|life| life.slope)
        .map(|slope| {
            let middle = f64::midpoint(slope.low, slope.high);
            // A perfect line has no width; a byte a second keeps weights finite.
            let deviation = ((slope.high - slope.low) / 3.92).max(1.0);
            (middle, deviation * deviation)
        })
        .collect();
    if known.is_empty() {
        return Pool { slope: None, lives: 0, hours: longest };
    }
    let weighted = |extra: f64| {
        let total: f64 = known.iter().map(|(_, variance)| 1.0 / (variance + extra)).sum();
        let mean = known.iter().map(|(slope, variance)| slope / (variance + extra)).sum::<f64>() / total;
        (mean, total)
    };
    let (mean, total) = weighted(0.0);
    let scatter: f64 = known.iter().map(|(slope, variance)| (slope - mean).powi(2) / variance).sum();
    let squares: f64 = known.iter().map(|(_, variance)| variance.powi(-2)).sum();
    let freedom = super::stats::as_f64(known.len() - 1);
    let scale = total - squares / total;
    let between = if scale > 0.0 { ((scatter - freedom) / scale).max(0.0) } else { 0.0 };
    let (mean, total) = weighted(between);
    let reach = 1.96 / total.sqrt();
    let slope = Slope { bytes_per_second: mean, low: mean - reach, high: mean + reach };
    Pool { slope: Some(slope), lives: known.len(), hours: longest }
}

fn interval(slope: Slope) -> String {
    format!("{} ({} to {})", pace(slope.bytes_per_second), pace(slope.low), pace(slope.high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Life, LifeEnd, ProcessKey, Steady};

    fn life(hours: i64, rate: f64, width: f64) -> LifeSummary {
        LifeSummary {
            key: ProcessKey { daemon: "d".into(), pm_id: 0 },
            app: "shop".into(),
            life: Life { pid: 1, started: hours },
            version: None,
            revision: None,
            first: Steady(0),
            last: Steady(hours * 3_600_000),
            end: LifeEnd::Restarted,
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: 0.0,
            slope: Some(Slope { bytes_per_second: rate, low: rate - width, high: rate + width }),
        }
    }

    #[test]
    fn a_leak_that_is_gone_is_fixed_and_one_that_stays_is_not() {
        let old = [life(10, 1000.0, 100.0), life(12, 1100.0, 100.0)];
        let fixed = compare(&old, &[life(10, 0.0, 100.0)]);
        assert_eq!(fixed.outcome, Outcome::Fixed, "{}", fixed.reason);
        let same = compare(&old, &[life(10, 900.0, 100.0)]);
        assert_eq!(same.outcome, Outcome::NotFixed, "{}", same.reason);
        assert!(same.reason.contains("MiB/h"), "{}", same.reason);
    }

    #[test]
    fn short_or_noisy_lives_are_too_early_and_say_for_how_long() {
        let old = [life(10, 1000.0, 100.0)];
        let none = compare(&old, &[]);
        assert_eq!(none.outcome, Outcome::TooEarly);
        assert!(none.hours_needed.is_some_and(|hours| hours >= 0.5));
        let noisy = compare(&old, &[life(3, 100.0, 600.0)]);
        assert_eq!(noisy.outcome, Outcome::TooEarly);
        let longer = compare(&old, &[life(3, 100.0, 300.0)]);
        assert!(noisy.hours_needed > longer.hours_needed, "{noisy:?} {longer:?}");
        assert_eq!(compare(&[], &old).outcome, Outcome::TooEarly);
    }

    #[test]
    fn where_nothing_leaked_there_is_nothing_to_fix() {
        assert_eq!(compare(&[life(10, 10.0, 100.0)], &[life(10, 0.0, 10.0)]).outcome, Outcome::NothingToFix);
    }

    #[test]
    fn lives_that_disagree_widen_the_interval() {
        let agree = pool(&[life(9, 1000.0, 50.0), life(9, 1010.0, 50.0)]).slope.expect("two lives");
        let differ = pool(&[life(9, 500.0, 50.0), life(9, 1500.0, 50.0)]).slope.expect("two lives");
        assert!(differ.high - differ.low > 5.0 * (agree.high - agree.low));
    }
}
