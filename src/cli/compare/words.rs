//! A comparison as JSON and in words.
//!
//! Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::select::Side;
use crate::cli::output::{clean, fit, fit_right, span, wrap};
use crate::cli::pace::pace;
use crate::trend::compare::{Outcome, sentence};

/// Columns the text keeps to.
const COLUMNS: usize = 80;

/// One side, in the form of `--format json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SideReport {
    name: String,
    lives: usize,
    watched_seconds: f64,
    slope_bytes_per_second: Option<f64>,
    slope_low: Option<f64>,
    slope_high: Option<f64>,
}

/// The answer, in the form of `--format json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    app: String,
    verdict: &'static str,
    before: SideReport,
    after: SideReport,
    /// The pace after over the pace before.
    ratio: Option<f64>,
    /// How much longer to watch, where it is too early.
    needed_seconds: Option<f64>,
    reason: String,
}

impl SideReport {
    fn of(side: &Side) -> Self {
        let slope = side.trend.slope;
        Self {
            name: side.name.clone(),
            lives: side.trend.lives,
            watched_seconds: side.trend.watched.as_secs_f64(),
            slope_bytes_per_second: slope.map(|slope| slope.bytes_per_second),
            slope_low: slope.map(|slope| slope.low),
            slope_high: slope.map(|slope| slope.high),
        }
    }

    fn range(&self) -> Option<String> {
        Some(pace(self.slope_bytes_per_second?, self.slope_low?, self.slope_high?))
    }
}

/// Draws up the answer on `app`.
pub(super) fn report(app: &str, before: &Side, after: &Side, outcome: Outcome) -> Report {
    let (old, new) = (before.trend.slope, after.trend.slope);
    let ratio = old.zip(new).filter(|(old, _)| old.low > 0.0);
    Report {
        app: app.to_owned(),
        verdict: outcome.as_str(),
        before: SideReport::of(before),
        after: SideReport::of(after),
        ratio: ratio.map(|(old, new)| new.bytes_per_second / old.bytes_per_second),
        needed_seconds: match outcome {
            Outcome::TooEarly { needed } => Some(needed.as_secs_f64()),
            Outcome::Fixed | Outcome::NotFixed | Outcome::NoLeak => None,
        },
        reason: sentence(outcome, (&before.name, old), (&after.name, new)),
    }
}

/// The answer for people.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}: {}\n\n", clean(&report.app), report.verdict.replace('_', " "));
    for (label, side) in [("before", &report.before), ("after", &report.after)] {
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "  {label:<7}{} {} {} {} {}",
            fit(&side.name, 23),
            fit(&side.range().unwrap_or_else(|| "no slope yet".to_owned()), 27),
            fit_right(&side.lives.to_string(), 4),
            if side.lives == 1 { "life, " } else { "lives," },
            span(side.watched_seconds),
        );
    }
    let mut letters = report.reason.chars();
    let capital: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    let _infallible = writeln!(text, "\n{}", wrap(&format!("{capital}{}.", letters.as_str()), COLUMNS, 2));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Slope, Steady};
    use crate::trend::compare::{VersionName, VersionTrend};

    fn side(name: &str, lives: usize, hours: u64, slope: Option<(f64, f64, f64)>) -> Side {
        let trend = VersionTrend {
            name: VersionName::Started(Steady(0)),
            from: Steady(0),
            to: Steady(0),
            lives,
            watched: Duration::from_hours(hours),
            slope: slope.map(|(bytes_per_second, low, high)| Slope { bytes_per_second, low, high }),
            resident_max: 1e8,
        };
        Side { name: name.to_owned(), trend }
    }

    #[test]
    fn every_answer_is_a_table_and_a_sentence() {
        let before = side("1.4.0", 4, 75, Some((1700.0, 1600.0, 1800.0)));
        let mut shown = String::new();
        for (outcome, after) in [
            (Outcome::Fixed, side("1.4.1 (3f2a91c)", 1, 14, Some((-3.0, -60.0, 55.0)))),
            (Outcome::NotFixed, side("1.4.1", 1, 14, Some((800.0, 700.0, 900.0)))),
            (Outcome::TooEarly { needed: Duration::from_mins(35) }, side("the last 1h", 1, 1, None)),
            (Outcome::NoLeak, side("an unusually long version", 1000, 9000, Some((1e5, -2e5, 3e5)))),
        ] {
            let _infallible = writeln!(shown, "{}----", text(&report("api", &before, &after, outcome)));
        }
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn json_has_numbers_and_nulls() {
        let (before, after) = (side("1", 2, 10, Some((1000.0, 900.0, 1100.0))), side("2", 1, 1, None));
        let outcome = Outcome::TooEarly { needed: Duration::from_hours(1) };
        insta::assert_json_snapshot!(report("api", &before, &after, outcome));
    }
}
