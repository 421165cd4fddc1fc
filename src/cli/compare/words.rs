//! A comparison in words.
//!
//! Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::judge::{Comparison, Outcome, Side};
use crate::cli::output::{self, clean, fit, fit_right, wrap};
use crate::cli::pace::pace;

/// Columns the text keeps to.
const COLUMNS: usize = 80;

/// A span in its best unit: `40 min`, `24 h`, `9 d`.
pub(super) fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..7_200 => format!("{} min", seconds.div_ceil(60)),
        seconds @ 7_200..259_200 => format!("{} h", seconds.div_ceil(3_600)),
        seconds => format!("{} d", seconds.div_ceil(86_400)),
    }
}

fn range(side: &Side) -> Option<String> {
    Some(pace(side.slope_bytes_per_second?, side.slope_low?, side.slope_high?))
}

/// The answer as a sentence.
pub(super) fn reason(verdict: Outcome, before: &Side, after: &Side, needed: Option<Duration>) -> String {
    let described =
        |side: &Side| range(side).map_or_else(|| "no slope yet".to_owned(), |range| format!("grew {range}"));
    let old = described(before);
    match verdict {
        Outcome::Fixed => {
            let now = range(after).unwrap_or_default();
            format!(
                "{} {old}; {} moves by {now} in {} watched",
                before.name,
                after.name,
                output::span(after.watched_seconds)
            )
        }
        Outcome::NotFixed => {
            let now = range(after).unwrap_or_default();
            let share = before.slope_low.filter(|low| *low > 0.0).and(before.slope_bytes_per_second);
            match (share, after.slope_bytes_per_second) {
                (Some(slow), Some(fast)) if fast < 0.8 * slow => {
                    format!(
                        "{} {old}; {} still grows {now}, {:.0} % of that pace",
                        before.name,
                        after.name,
                        100.0 * fast / slow
                    )
                }
                (Some(_), _) => format!("{} {old}; {} still grows {now}", before.name, after.name),
                (None, _) => format!("{} {old}, within chance; {} grows {now}", before.name, after.name),
            }
        }
        Outcome::TooEarly => {
            let needed = span(needed.unwrap_or_default());
            let so_far = match range(after) {
                Some(range) => format!("moves by {range}, which does not decide yet"),
                None => "has no slope yet".to_owned(),
            };
            format!("{} {old}; {} {so_far}: about {needed} more are needed", before.name, after.name)
        }
        Outcome::NoLeakBefore if before.lives == 0 => {
            format!("no life of {} lasted long enough for a slope", before.name)
        }
        Outcome::NoLeakBefore => format!("{} {old}, which is within chance: there was no leak to fix", before.name),
    }
}

/// The comparison for people.
pub(super) fn text(found: &Comparison) -> String {
    let word = match found.verdict {
        Outcome::Fixed => "fixed".to_owned(),
        Outcome::NotFixed => "not fixed".to_owned(),
        Outcome::TooEarly => {
            format!(
                "too early ({} more needed)",
                span(Duration::try_from_secs_f64(found.needed_seconds.unwrap_or_default()).unwrap_or_default())
            )
        }
        Outcome::NoLeakBefore => "no leak before".to_owned(),
    };
    let mut text = format!("{}: {word}\n\n", clean(&found.app));
    for (label, side) in [("before", &found.before), ("after", &found.after)] {
        let slope = range(side).unwrap_or_else(|| "–".to_owned());
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "  {label:<7}{} {}  {} {} of {}",
            fit(&side.name, 16),
            fit(&slope, 30),
            fit_right(&side.lives.to_string(), 3),
            if side.lives == 1 { "life" } else { "lives" },
            output::span(side.watched_seconds),
        );
    }
    let mut letters = found.reason.chars();
    let capital: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    let _infallible = writeln!(text, "\n{}", wrap(&format!("{capital}{}.", letters.as_str()), COLUMNS, 2));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, lives: usize, hours: f64, slope: Option<(f64, f64, f64)>) -> Side {
        Side {
            name: name.to_owned(),
            lives,
            lives_too_short: 0,
            watched_seconds: hours * 3600.0,
            slope_bytes_per_second: slope.map(|slope| slope.0),
            slope_low: slope.map(|slope| slope.1),
            slope_high: slope.map(|slope| slope.2),
        }
    }

    #[test]
    fn every_answer_reads_well() {
        let before = side("1.4.0", 4, 75.0, Some((1700.0, 1600.0, 1800.0)));
        let mut shown = String::new();
        for (verdict, before, after, needed) in [
            (Outcome::Fixed, &before, side("1.4.1", 1, 14.0, Some((-3.0, -60.0, 55.0))), None),
            (Outcome::NotFixed, &before, side("1.4.1", 1, 14.0, Some((800.0, 700.0, 900.0))), None),
            (Outcome::NotFixed, &before, side("1.4.1", 1, 14.0, Some((1750.0, 1600.0, 1900.0))), None),
            (Outcome::NotFixed, &side("1.3.9", 2, 9.0, Some((3.0, -8.0, 14.0))), before.clone(), None),
            (Outcome::TooEarly, &before, side("1.4.1", 0, 0.0, None), Some(Duration::from_mins(35))),
            (
                Outcome::TooEarly,
                &before,
                side("1.4.1", 1, 2.0, Some((90.0, -900.0, 1080.0))),
                Some(Duration::from_hours(5)),
            ),
            (Outcome::NoLeakBefore, &side("1.3.9", 2, 9.0, Some((3.0, -8.0, 14.0))), before.clone(), None),
            (Outcome::NoLeakBefore, &side("1.3.9", 0, 0.0, None), before.clone(), None),
        ] {
            let reason = reason(verdict, before, &after, needed);
            let needed_seconds = needed.map(|needed| needed.as_secs_f64());
            let found = Comparison {
                app: "api".to_owned(),
                verdict,
                before: before.clone(),
                after,
                ratio: None,
                needed_seconds,
                reason,
            };
            let _infallible = writeln!(shown, "{}----", text(&found));
        }
        assert!(shown.lines().all(|line| line.chars().count() <= COLUMNS), "{shown}");
        insta::assert_snapshot!(shown);
    }
}
