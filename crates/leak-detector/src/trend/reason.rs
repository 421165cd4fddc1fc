//! The verdict as sentences for people. Every reader (log, metric, API, page) shows these very words.

use std::fmt::Write as _;
use std::time::Duration;

use model::{Bytes, LeakState, Limit, LimitKind, Provisional, Rejection, Signal, Slope};

use super::pool::Pooled;
use super::trial::Finding;

/// A span in one or two units: `41 h`, `3 d 4 h`, `12 min`, `40 s`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", (seconds + 30) / 60),
        7_200..172_800 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => {
            let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3_600);
            if hours == 0 || days > 9 { format!("{days} d") } else { format!("{days} d {hours} h") }
        }
    }
}

/// A pace in MiB an hour, with a sign where it shrinks.
pub(super) fn pace(bytes_per_second: f64) -> String {
    let mebibytes = bytes_per_second * 3600.0 / f64::from(1 << 20);
    let decimals = match mebibytes.abs() {
        size if size >= 99.5 => 0,
        size if size >= 0.95 => 1,
        _ => 2,
    };
    format!("{mebibytes:.decimals$} MiB/h")
}

/// The signal as the subject of a sentence.
pub(super) fn subject(signal: Signal) -> &'static str {
    match signal {
        Signal::Resident => "resident memory",
        Signal::Heap => "the heap floor",
        Signal::Native => "native memory",
        Signal::Footprint => "the footprint after garbage collection",
    }
}

fn limit_name(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::MaxMemoryRestart => "max_memory_restart",
        LimitKind::Cgroup => "the cgroup limit",
        LimitKind::Heap => "V8's heap limit",
        LimitKind::Host => "the host's memory",
        LimitKind::Configured => "the configured limit",
    }
}

/// Growth that was found.
pub(super) fn growing(
    finding: &Finding,
    slope: Slope,
    watched: Duration,
    limit: Option<(Limit, Option<Duration>)>,
) -> String {
    let mut text = format!(
        "{} grew {} over {}, floors rising in {} of {} intervals, {}",
        subject(finding.signal),
        pace(slope.bytes_per_second),
        span(watched),
        finding.rising,
        finding.intervals,
        half_pace(finding.pace),
    );
    until(&mut text, limit);
    text
}

fn half_pace(ratio: f64) -> String {
    match ratio {
        r if r < 0.85 => format!("{:.0} % of the pace in the second half", r * 100.0),
        r if r <= 1.15 => "the same pace in the second half".to_owned(),
        _ => "faster in the second half".to_owned(),
    }
}

fn until(text: &mut String, limit: Option<(Limit, Option<Duration>)>) {
    // Writing to a string cannot fail.
    let _infallible = match limit {
        Some((limit, Some(Duration::ZERO))) => {
            write!(text, "; it is over {} of {}", limit_name(limit.kind), limit.bytes)
        }
        Some((limit, Some(left))) => {
            write!(text, "; {} of {} in {}", limit_name(limit.kind), limit.bytes, span(left))
        }
        Some((limit, None)) => write!(text, "; {} of {} is far away", limit_name(limit.kind), limit.bytes),
        None => write!(text, "; no limit is known"),
    };
}

/// Several lives that all grew.
pub(super) fn lives(
    pooled: &Pooled,
    slope: Slope,
    lasted: Duration,
    limit: Option<(Limit, Option<Duration>)>,
) -> String {
    if pooled.at_limit > 0 && pooled.grew < 3 {
        let runs = if pooled.at_limit == 1 { "the last run" } else { "the last runs" };
        let mut text = format!(
            "{runs} grew by about {} until the limit was met, after {}, and so does this one",
            pace(slope.bytes_per_second),
            span(lasted),
        );
        until(&mut text, limit);
        return text;
    }
    let mut text = format!(
        "{} of the last {} lives grew without levelling off, by about {}; the last one ended after {}",
        pooled.grew,
        pooled.lives,
        pace(slope.bytes_per_second),
        span(lasted),
    );
    until(&mut text, limit);
    text
}

/// A finding that no longer holds but has not been gone for long enough.
pub(super) fn fading(since: Duration, what: &str) -> String {
    format!("growth stopped {} ago and is watched a little longer; it was: {what}", span(since))
}

/// A state taken over from before the sidecar's own restart.
pub(super) fn resumed(state: LeakState, slope: Option<(Signal, Slope, Duration)>) -> String {
    let mut text = format!("found {} before leakslope restarted, and being checked again", state.as_str());
    if let Some((signal, slope, window)) = slope {
        let _infallible =
            write!(text, "; {} moves by {} over {}", subject(signal), pace(slope.bytes_per_second), span(window));
    }
    text
}

/// Nothing yet, but what can be told already: growth so far, and what the run before was.
pub(super) fn learning(
    age: Duration,
    needed: Duration,
    provisional: Option<Provisional>,
    limit: Option<Limit>,
    previous: Option<LeakState>,
) -> String {
    let mut text = if age.is_zero() {
        format!("the process has just started; a first answer takes {} of it", span(needed))
    } else if age < needed {
        format!("the process has run for {}; a first answer takes {} of it", span(age), span(needed))
    } else {
        format!("the process has run for {}; too few garbage collections are known for an answer", span(age))
    };
    if let Some(growth) = provisional {
        let slope = growth.slope;
        let _infallible = write!(
            text,
            "; so far {} moves by {} (between {} and {})",
            subject(growth.signal),
            pace(slope.bytes_per_second),
            pace(slope.low),
            pace(slope.high),
        );
        if let Some((limit, left)) = limit.zip(growth.exhaustion.filter(|left| !left.is_zero())) {
            let _infallible = write!(
                text,
                ": at this pace {} of {} in {}; too early to call it a leak",
                limit_name(limit.kind),
                limit.bytes,
                span(left),
            );
        }
    }
    if let Some(previous) = previous {
        let _infallible = write!(text, "; the run before was {} when it ended", previous.as_str());
    }
    text
}

/// Growth that goes on but is not called a leak, and why.
pub(super) fn not_yet(
    signal: Signal,
    slope: Slope,
    watched: Duration,
    limit: Option<(Limit, Option<Duration>)>,
    rejection: Option<Rejection>,
) -> String {
    let mut text = format!("{} grows {} over {}", subject(signal), pace(slope.bytes_per_second), span(watched));
    until(&mut text, limit);
    if let Some(rejection) = rejection {
        let _infallible = write!(text, "; not called a leak yet because {}", explain(rejection.test));
    }
    text
}

/// No growth that goes on, and why not.
pub(super) fn stable(
    rejection: Option<Rejection>,
    slope: Option<(Signal, Slope, Duration)>,
    floor: Option<Bytes>,
) -> String {
    let mut text = match slope {
        Some((signal, slope, window)) if slope.bytes_per_second.abs() < f64::EPSILON => {
            format!("{} is flat over {}", subject(signal), span(window))
        }
        Some((signal, slope, window)) => {
            format!("{} moves by {} over {}", subject(signal), pace(slope.bytes_per_second), span(window))
        }
        None => "no slope can be fitted yet".to_owned(),
    };
    if let Some(floor) = floor {
        let _infallible = write!(text, " around a floor of {floor}");
    }
    if let Some(rejection) = rejection {
        let flat = slope.is_none_or(|(_, slope, _)| slope.bytes_per_second <= 0.0);
        let _infallible = match rejection.test {
            // These say nothing against a leak, only that it is too early to speak of one; where nothing grows, nothing.
            "points" | "watched" | "persistence" if flat => Ok(()),
            "points" | "watched" | "persistence" => {
                write!(text, "; not called a leak yet because {}", explain(rejection.test))
            }
            said_no => write!(text, "; not a leak because {}", explain(said_no)),
        };
    }
    text
}

/// What the answer "no" of a test means.
pub(super) fn explain(test: &str) -> &'static str {
    match test {
        "points" => "there are too few floors so far",
        "direction" => "floors do not rise",
        "significance" => "the rise is within what chance does",
        "size" => "the growth is small against the process and its noise",
        "plateau" => "growth has slowed down or stopped",
        "step" => "it grew in steps",
        "spread" => "a few moments account for most of the growth",
        "separation" => "late floors are no higher than early ones",
        "watched" => "it has not been watched for long enough against the time that is left",
        "high" => "the floor has been as high before in this life",
        "life" => "growth is slowing down over the whole life",
        "rise" => "the rise has been slowing down since it began",
        "recurrence" => "it has grown like this before and given it back",
        "reference" => "an earlier life or another worker of the same version levelled off no lower",
        "collections" => "no garbage collection is known that it has outlived",
        "persistence" => "it has not been seen often enough in a row",
        _ => "a test said no",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trend::TESTS;

    #[test]
    fn spans_and_paces_read_well() {
        for (seconds, text) in [
            (40, "40 s"),
            (700, "12 min"),
            (147_600, "41 h"),
            (273_600, "3 d 4 h"),
            (2_000_000, "23 d"),
            (86_400 * 2, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        for (rate, text) in [(902.0, "3.1 MiB/h"), (-902.0, "-3.1 MiB/h"), (0.0, "0.00 MiB/h"), (1e6, "3433 MiB/h")] {
            assert_eq!(pace(rate), text);
        }
    }

    #[test]
    fn what_is_only_too_early_is_not_called_no_leak() {
        let said = |test| {
            let rejection = Some(Rejection { signal: Signal::Footprint, test });
            let slope = Slope { bytes_per_second: 2e5, low: 1e5, high: 3e5 };
            stable(rejection, Some((Signal::Footprint, slope, Duration::from_mins(9))), None)
        };
        assert!(said("watched").contains("; not called a leak yet because it has not been watched for long enough"));
        assert!(said("persistence").contains("; not called a leak yet because "));
        assert!(said("plateau").contains("; not a leak because growth has slowed down"));
    }

    #[test]
    fn every_test_has_its_own_explanation() {
        let mut seen: Vec<&str> = TESTS.iter().map(|test| explain(test)).collect();
        assert!(!seen.contains(&"a test said no"));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), TESTS.len());
    }
}
