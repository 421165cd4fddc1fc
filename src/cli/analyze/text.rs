//! The answer for people: a chart, the verdict below it, and the reason.
//!
//! Pure.

use std::fmt::Write as _;

use super::chart::{self, Setting, painted, state_ink};
use super::judge::{Judged, Report};
use crate::cli::output::{clean, wrap};
use crate::cli::pace::pace;
use crate::model::{Basis, LeakState};

/// How the answer looks.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Look {
    /// Columns of the terminal.
    pub(in crate::cli) width: usize,
    /// Whether colour may be used.
    pub(in crate::cli) color: bool,
}

/// Episodes named one by one.
const EPISODES: usize = 5;

/// Writes the answer on one series.
pub(super) fn answer(judged: &Judged, look: Look) -> String {
    let report = &judged.report;
    let ends = |stamp: Option<super::time::Stamp>| stamp.map_or_else(String::new, super::time::Stamp::for_people);
    let chart = chart::draw(
        &judged.course,
        &Setting {
            width: look.width,
            color: look.color,
            limit: report.memory_limit_bytes,
            line: judged.line,
            state: report.verdict,
            ends: (ends(report.from), ends(report.to)),
        },
    );
    let word = report.verdict.as_str();
    let mut text = format!("{}: {}\n\n", name(report), painted(look.color, state_ink(report.verdict), word));
    if !chart.is_empty() {
        let _infallible = write!(text, "{chart}{:10}  █ floor  ░ resident  • fitted line\n\n", "");
    }
    text.push_str(&wrap(&sentence(&report.reason), look.width.max(40), 2));
    text.push_str("\n\n");
    for (label, value) in facts(report) {
        let _infallible = writeln!(text, "  {label:<10} {value}");
    }
    for note in &report.notes {
        let noted = wrap(&format!("note: {note}"), look.width.max(40), 2);
        let _infallible = writeln!(text, "{noted}");
    }
    text
}

/// The file, and the series where it holds several.
pub(super) fn name(report: &Report) -> String {
    match &report.series {
        Some(series) => clean(&format!("{} {series}", report.file)),
        None => clean(&report.file),
    }
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let (Some(slope), Some(low), Some(high)) = (report.slope_bytes_per_second, report.slope_low, report.slope_high) {
        facts.push((
            "slope",
            format!("{} of {} over {}", pace(slope, low, high), report.signal.as_str(), span(report.window_seconds)),
        ));
    }
    if let Some(floor) = report.floor_bytes {
        facts.push(("floor", floor.to_string()));
    }
    match (report.memory_limit_bytes, report.projected_exhaustion_seconds) {
        (Some(limit), Some(left)) => facts.push(("limit", format!("{limit}, met in {} at this pace", span(left)))),
        (Some(limit), None) => facts.push(("limit", format!("{limit}, not met at this pace"))),
        (None, _) => {}
    }
    for (label, at) in [("suspect", report.first_suspect_at), ("leaking", report.first_leaking_at)] {
        if let Some(at) = at {
            facts.push((label, format!("first at {}", at.for_people())));
        }
    }
    for episode in report.episodes.iter().take(EPISODES) {
        let (from, to) = (episode.from.for_people(), episode.to.for_people());
        facts.push(("episode", format!("{} from {from} to {to}", episode.state.as_str())));
    }
    if report.episodes.len() > EPISODES {
        facts.push(("", format!("and {} more", report.episodes.len() - EPISODES)));
    }
    let plural = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    facts.push((
        "seen",
        format!(
            "{} of {}, {}",
            plural(report.samples, "sample", "samples"),
            plural(u64::from(report.lives), "life", "lives"),
            match report.basis {
                Basis::MajorGc => "heap read after major collections",
                Basis::SampledHeap => "heap sampled between collections",
                Basis::ResidentOnly if report.verdict == LeakState::Learning => "nothing to judge by yet",
                Basis::ResidentOnly => "resident memory only",
            }
        ),
    ));
    facts
}

/// A sentence with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|letter| letter.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// A span in one or two units.
pub(super) fn span(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    format!("{sign}{}", crate::cli::output::span(seconds.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_have_an_end_and_spans_a_sign() {
        assert_eq!(sentence("it grew"), "It grew.");
        assert_eq!(span(-90.0), "-1m");
    }
}
