//! Two groups of lives of one app, compared by the pace at which they grew.
//!
//! Pure: summaries of lives and `now` go in, a [`Comparison`] comes out. Each life brings one slope with its interval;
//! a group's slope is their mean with random effects (`DerSimonian` and Laird 1986), so that lives that disagree widen
//! the interval instead of outvoting each other. It refuses to guess: where the intervals do not decide, it says how
//! much longer to watch.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::words;
use crate::model::{Life, LifeSummary, ProcessKey, Slope, Steady};

/// A leak counts as fixed when what is left of it is surely below this share of the pace before.
const FIXED_BELOW: f64 = 0.25;
/// Growth in bytes that the old pace would have had to bring before its absence says anything.
const TELLING_GROWTH: f64 = 3e6;
/// Half the width of an interval of 95 % in standard errors.
const WIDTH: f64 = 1.96;
/// Longest time that is named as needed.
const LONGEST_WAIT: Duration = Duration::from_hours(24 * 90);

/// Which lives are compared with which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Split {
    /// Two versions (or revisions, by their beginning); where one is missing the newest, and the one before it.
    Versions {
        /// The version with the leak.
        before: Option<String>,
        /// The version that should have fixed it.
        after: Option<String>,
    },
    /// Lives that began within this span, and those that began earlier.
    Since(Duration),
}

/// Why there is nothing to compare.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    #[error("no life of it is remembered")]
    App,
    #[error("no life of version {0} is remembered; there are {1}")]
    Version(String, String),
    #[error("only version {0} is remembered: compare two spans of it with `--since`")]
    OneVersion(String),
    #[error("pm2 tells no version of it: compare two spans of it with `--since`")]
    NoVersions,
    #[error("no life began before that")]
    Before,
    #[error("no life has begun since")]
    After,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It grew before and no longer does.
    Fixed,
    /// It grows, still or newly.
    NotFixed,
    /// The time watched does not decide.
    TooEarly,
    /// It did not grow before.
    NoLeakBefore,
}

/// One side of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Side {
    /// The version, or what else the side stands for.
    pub(super) name: String,
    /// Lives with a slope.
    pub(super) lives: usize,
    /// Lives too short for one.
    pub(super) lives_too_short: usize,
    /// Time watched in the lives with a slope.
    pub(super) watched_seconds: f64,
    /// The pace, in bytes per second; none without a slope.
    pub(super) slope_bytes_per_second: Option<f64>,
    /// Lower bound.
    pub(super) slope_low: Option<f64>,
    /// Upper bound.
    pub(super) slope_high: Option<f64>,
}

/// Two sides and what they tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// The app.
    pub(super) app: String,
    /// The answer.
    pub(super) verdict: Outcome,
    /// What was.
    pub(super) before: Side,
    /// What is.
    pub(super) after: Side,
    /// The pace after over the pace before.
    pub(super) ratio: Option<f64>,
    /// How much longer to watch, where it is too early.
    pub(super) needed_seconds: Option<f64>,
    /// The answer as a sentence.
    pub(super) reason: String,
}

/// Compares lives of the app `app`.
///
/// # Errors
/// [`Missing`] where one side has no life.
pub(super) fn compare(app: &str, lives: &[LifeSummary], split: &Split, now: Steady) -> Result<Comparison, Missing> {
    let lives = newest_of_each(app, lives);
    if lives.is_empty() {
        return Err(Missing::App);
    }
    let (before, after) = match split {
        Split::Versions { before, after } => by_version(&lives, before.as_deref(), after.as_deref())?,
        Split::Since(span) => by_time(&lives, *span, now)?,
    };
    let (before, after) = (Group::of(before), Group::of(after));
    let (verdict, needed) = decide(&before, &after);
    let ratio = before.slope.zip(after.slope).filter(|(before, _)| before.mean > 0.0).map(|(b, a)| a.mean / b.mean);
    let (before, after) = (before.side(), after.side());
    let reason = words::reason(verdict, &before, &after, needed);
    let needed_seconds = needed.map(|needed| needed.as_secs_f64());
    Ok(Comparison { app: app.to_owned(), verdict, before, after, ratio, needed_seconds, reason })
}

type Named<'a> = (String, Vec<&'a LifeSummary>);

/// Every life of the app once, as it was seen last, in order of their beginning.
fn newest_of_each<'a>(app: &str, lives: &'a [LifeSummary]) -> Vec<&'a LifeSummary> {
    let mut newest: BTreeMap<(&ProcessKey, Life), &LifeSummary> = BTreeMap::new();
    for life in lives.iter().filter(|life| life.app.as_str() == app) {
        let place = newest.entry((&life.key, life.life)).or_insert(life);
        if place.last < life.last {
            *place = life;
        }
    }
    let mut lives: Vec<_> = newest.into_values().collect();
    lives.sort_by_key(|life| life.first);
    lives
}

fn version(life: &LifeSummary) -> Option<&str> {
    life.version.as_deref().or(life.revision.as_deref())
}

fn is_of(life: &LifeSummary, wanted: &str) -> bool {
    life.version.as_deref() == Some(wanted)
        || life.revision.as_deref().is_some_and(|revision| wanted.len() >= 4 && revision.starts_with(wanted))
}

fn by_version<'a>(
    lives: &[&'a LifeSummary],
    before: Option<&str>,
    after: Option<&str>,
) -> Result<(Named<'a>, Named<'a>), Missing> {
    // Versions in the order in which they were first seen.
    let mut known: Vec<&str> = Vec::new();
    for version in lives.iter().filter_map(|life| version(life)) {
        if !known.contains(&version) {
            known.push(version);
        }
    }
    let of = |wanted: &str| -> Result<Named<'a>, Missing> {
        let found: Vec<_> = lives.iter().copied().filter(|life| is_of(life, wanted)).collect();
        if found.is_empty() {
            Err(Missing::Version(wanted.to_owned(), known.join(", ")))
        } else {
            Ok((wanted.to_owned(), found))
        }
    };
    let newest = lives.iter().rev().find_map(|life| version(life)).ok_or(Missing::NoVersions)?;
    let after = match after {
        Some(after) => of(after)?,
        None => of(newest)?,
    };
    let before = if let Some(before) = before {
        of(before)?
    } else {
        // What ran last before the first life of the other side.
        let start = after.1.first().map_or(Steady(i64::MIN), |life| life.first);
        let mut earlier = lives.iter().rev().filter(|life| life.first < start && !is_of(life, &after.0));
        let name = earlier.find_map(|life| version(life));
        of(name.ok_or_else(|| Missing::OneVersion(after.0.clone()))?)?
    };
    Ok((before, after))
}

fn by_time<'a>(lives: &[&'a LifeSummary], span: Duration, now: Steady) -> Result<(Named<'a>, Named<'a>), Missing> {
    let border = now - span;
    let (after, before): (Vec<_>, Vec<_>) = lives.iter().copied().partition(|life| life.first >= border);
    let ago = words::span(span);
    match (before.is_empty(), after.is_empty()) {
        (true, _) => Err(Missing::Before),
        (_, true) => Err(Missing::After),
        _ => Ok(((format!("before the last {ago}"), before), (format!("the last {ago}"), after))),
    }
}

/// A mean with its standard error, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    mean: f64,
    error: f64,
}

impl Estimate {
    fn low(self) -> f64 {
        self.mean - WIDTH * self.error
    }

    fn high(self) -> f64 {
        self.mean + WIDTH * self.error
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Group {
    name: String,
    with_slope: usize,
    too_short: usize,
    watched: Duration,
    slope: Option<Estimate>,
}

impl Group {
    fn of((name, lives): Named<'_>) -> Self {
        let with_slope: Vec<(Slope, Duration)> =
            lives.iter().filter_map(|life| Some((life.slope?, life.last.since(life.first)))).collect();
        let slopes: Vec<Estimate> = with_slope.iter().filter_map(|(slope, lasted)| estimate(*slope, *lasted)).collect();
        Self {
            name,
            with_slope: slopes.len(),
            too_short: lives.len() - slopes.len(),
            watched: with_slope.iter().map(|(_, lasted)| *lasted).fold(Duration::ZERO, Duration::saturating_add),
            slope: pooled(&slopes),
        }
    }

    fn side(self) -> Side {
        Side {
            name: self.name,
            lives: self.with_slope,
            lives_too_short: self.too_short,
            watched_seconds: self.watched.as_secs_f64(),
            slope_bytes_per_second: self.slope.map(|slope| slope.mean),
            slope_low: self.slope.map(Estimate::low),
            slope_high: self.slope.map(Estimate::high),
        }
    }
}

/// A life's slope as a mean with an error. Of a slope within chance only the interval counts.
fn estimate(slope: Slope, lasted: Duration) -> Option<Estimate> {
    let middle = f64::midpoint(slope.low, slope.high);
    let mean = if slope.bytes_per_second == 0.0 { middle } else { slope.bytes_per_second };
    // Floors are read in steps of pages: no slope is surer than 64 KiB over the life.
    let least = 65_536.0 / lasted.as_secs_f64().max(1.0);
    let error = ((slope.high - slope.low).abs() / (2.0 * WIDTH)).max(least / WIDTH);
    (mean.is_finite() && error.is_finite()).then_some(Estimate { mean, error })
}

/// The mean of several slopes with random effects.
fn pooled(slopes: &[Estimate]) -> Option<Estimate> {
    let weigh = |spread: f64| {
        let (mut weights, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for slope in slopes {
            let weight = 1.0 / (slope.error * slope.error + spread);
            weights += weight;
            sum += weight * slope.mean;
            squares += weight * weight;
        }
        (weights, sum / weights, squares)
    };
    if slopes.is_empty() {
        return None;
    }
    let (weights, fixed, squares) = weigh(0.0);
    let heterogeneity: f64 = slopes.iter().map(|slope| ((slope.mean - fixed) / slope.error).powi(2)).sum();
    #[allow(clippy::cast_precision_loss, reason = "a store holds a few thousand lives")]
    let freedom = (slopes.len() - 1) as f64;
    let denominator = weights - squares / weights;
    let spread = if denominator > 0.0 { ((heterogeneity - freedom) / denominator).max(0.0) } else { 0.0 };
    let (weights, mean, _) = weigh(spread);
    Some(Estimate { mean, error: (1.0 / weights).sqrt() })
}

fn decide(before: &Group, after: &Group) -> (Outcome, Option<Duration>) {
    let Some(old) = before.slope.filter(|slope| slope.low() > 0.0) else {
        let leaks = after.slope.is_some_and(|slope| slope.low() * after.watched.as_secs_f64() > TELLING_GROWTH);
        return (if leaks { Outcome::NotFixed } else { Outcome::NoLeakBefore }, None);
    };
    let border = FIXED_BELOW * old.mean;
    // Time in which the old pace would have shown.
    let telling = Duration::try_from_secs_f64(TELLING_GROWTH / old.mean).unwrap_or(Duration::MAX);
    let missing = telling.saturating_sub(after.watched);
    let Some(new) = after.slope else {
        return (Outcome::TooEarly, Some(missing.clamp(Duration::from_mins(30), LONGEST_WAIT)));
    };
    if new.low() > border {
        return (Outcome::NotFixed, None);
    }
    if new.high() < border && missing.is_zero() {
        return (Outcome::Fixed, None);
    }
    // The error of a slope falls with the time watched to the power of 1.5.
    let distance = (border - new.mean).abs().max(0.1 * old.mean);
    let longer = ((WIDTH * new.error / distance).powf(2.0 / 3.0) - 1.0).max(0.0);
    let sharper = Duration::try_from_secs_f64(after.watched.as_secs_f64() * longer).unwrap_or(Duration::MAX);
    (Outcome::TooEarly, Some(sharper.max(missing).clamp(Duration::from_mins(10), LONGEST_WAIT)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::LifeEnd;

    const HOUR: i64 = 3_600_000;
    const MIB_AN_HOUR: f64 = 1_048_576.0 / 3600.0;

    /// A life of `hours` from hour `start`, growing by `pace` ± `width` MiB an hour.
    fn life(version: &str, start: i64, hours: i64, pace: f64, width: f64) -> LifeSummary {
        let bytes_per_second = pace * MIB_AN_HOUR;
        LifeSummary {
            key: ProcessKey { daemon: "default".into(), pm_id: 0 },
            app: "api".into(),
            life: Life { pid: 7, started: start },
            version: Some(version.to_owned()).filter(|version| !version.is_empty()),
            revision: None,
            first: Steady(start * HOUR),
            last: Steady((start + hours) * HOUR),
            end: LifeEnd::Restarted,
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: f32::NAN,
            slope: (hours > 0).then_some(Slope {
                bytes_per_second,
                low: bytes_per_second - width * MIB_AN_HOUR,
                high: bytes_per_second + width * MIB_AN_HOUR,
            }),
        }
    }

    const NEWEST: Split = Split::Versions { before: None, after: None };

    fn outcome(lives: &[LifeSummary]) -> Outcome {
        compare("api", lives, &NEWEST, Steady(1000 * HOUR)).expect("two versions").verdict
    }

    #[test]
    fn the_intervals_decide() {
        let old = [life("1", 0, 20, 6.0, 0.5), life("1", 21, 20, 5.0, 0.5), life("1", 42, 3, 5.5, 3.0)];
        for (after, expected) in [
            (life("2", 50, 12, 0.0, 0.4), Outcome::Fixed),
            (life("2", 50, 12, -1.0, 0.4), Outcome::Fixed),
            (life("2", 50, 12, 5.4, 0.5), Outcome::NotFixed),
            (life("2", 50, 12, 3.0, 0.5), Outcome::NotFixed),
            (life("2", 50, 2, 0.5, 4.0), Outcome::TooEarly),
            (life("2", 50, 0, 0.0, 0.0), Outcome::TooEarly),
        ] {
            let lives: Vec<_> = old.iter().cloned().chain([after.clone()]).collect();
            assert_eq!(outcome(&lives), expected, "{after:?}");
        }
        let flat = life("1", 0, 20, 0.2, 0.5);
        assert_eq!(outcome(&[flat.clone(), life("2", 50, 12, 0.0, 0.4)]), Outcome::NoLeakBefore);
        assert_eq!(outcome(&[flat, life("2", 50, 12, 5.0, 0.4)]), Outcome::NotFixed);
    }

    #[test]
    fn too_early_names_a_time_after_which_it_is_not() {
        let old = life("1", 0, 20, 6.0, 0.5);
        let short = compare("api", &[old.clone(), life("2", 50, 2, 0.0, 4.0)], &NEWEST, Steady(0)).expect("two");
        let needed = short.needed_seconds.expect("too early") / 3600.0;
        assert!((0.5..4.0).contains(&needed), "{needed}");
        // The interval narrows with the power of 1.5 of the time.
        let width = 4.0 * (2.0 / (2.0 + needed)).powf(1.5) * 0.99;
        let mut long = life("2", 50, 2, 0.0, width);
        long.last = Steady(long.last.0 + 2 * HOUR + HOUR * 3);
        assert_eq!(outcome(&[old, long]), Outcome::Fixed);
    }

    #[test]
    fn versions_are_found_by_order_name_revision_and_span() {
        let mut lives = vec![
            life("1", 0, 20, 6.0, 0.5),
            life("2", 30, 20, 6.0, 0.5),
            life("2", 51, 20, 5.0, 0.5),
            life("3", 80, 20, 0.0, 0.2),
        ];
        lives.push(LifeSummary { app: "other".into(), ..life("9", 200, 20, 9.0, 0.1) });
        // A life that was seen earlier, as the store may hold it.
        lives.push(LifeSummary { last: Steady(31 * HOUR), slope: None, ..lives[1].clone() });
        let names = |split: &Split| {
            compare("api", &lives, split, Steady(100 * HOUR))
                .map(|found| (found.before.name, found.before.lives, found.after.name, found.after.lives))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(names(&NEWEST), Ok(("2".to_owned(), 2, "3".to_owned(), 1)));
        assert_eq!(
            names(&Split::Versions { before: text("1"), after: None }),
            Ok(("1".to_owned(), 1, "3".to_owned(), 1))
        );
        assert_eq!(
            names(&Split::Versions { before: None, after: text("2") }),
            Ok(("1".to_owned(), 1, "2".to_owned(), 2))
        );
        assert_eq!(
            names(&Split::Since(Duration::from_hours(24))),
            Ok(("before the last 24 h".to_owned(), 3, "the last 24 h".to_owned(), 1))
        );
        assert_eq!(
            names(&Split::Versions { before: text("7"), after: None }),
            Err(Missing::Version("7".to_owned(), "1, 2, 3".to_owned()))
        );
        assert_eq!(
            names(&Split::Versions { before: None, after: text("1") }),
            Err(Missing::OneVersion("1".to_owned()))
        );
        assert_eq!(names(&Split::Since(Duration::from_hours(1))), Err(Missing::After));
        assert_eq!(names(&Split::Since(Duration::from_hours(9000))), Err(Missing::Before));
        assert_eq!(compare("none", &lives, &NEWEST, Steady(0)), Err(Missing::App));
        assert_eq!(compare("api", &[life("", 0, 1, 1.0, 0.1)], &NEWEST, Steady(0)), Err(Missing::NoVersions));
        lives[3].version = None;
        lives[3].revision = text("deadbeef");
        let found = compare("api", &lives, &Split::Versions { before: None, after: text("dead") }, Steady(0));
        assert_eq!(found.map(|found| found.after.lives), Ok(1));
    }

    #[test]
    fn lives_that_disagree_widen_the_interval() {
        let agree = pooled(&[Estimate { mean: 5.0, error: 0.1 }, Estimate { mean: 5.1, error: 0.1 }]).expect("two");
        let differ = pooled(&[Estimate { mean: 1.0, error: 0.1 }, Estimate { mean: 9.0, error: 0.1 }]).expect("two");
        assert!(agree.error < 0.1 && differ.error > 3.0 && (differ.mean - 5.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn any_lives_are_compared(
            lives in prop::collection::vec((0_u8..3, -1000_i64..1000, 0_i64..500, any::<f64>(), any::<f64>()), 0..12),
            since in 0_u64..u64::MAX,
        ) {
            let lives: Vec<_> = lives
                .into_iter()
                .map(|(version, start, hours, pace, width)| life(&version.to_string(), start, hours, pace, width))
                .collect();
            for split in [NEWEST, Split::Since(Duration::from_millis(since))] {
                if let Ok(found) = compare("api", &lives, &split, Steady(1000 * HOUR)) {
                    prop_assert!(!found.reason.is_empty());
                    prop_assert_eq!(found.needed_seconds.is_some(), found.verdict == Outcome::TooEarly);
                }
            }
        }
    }
}
