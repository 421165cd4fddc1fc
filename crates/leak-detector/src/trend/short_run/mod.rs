//! The judgement of a run of a minute: floors right after garbage collection in, an answer with its reason out.
//!
//! Hours of history are not there, so the evidence is another: every floor is exact because garbage was collected first, the
//! warm-up is left out, and growth is held against the work that was done, where that is known. What grows must go on
//! growing at the same pace to the end of the run and stay when the load ends. Growth of which that cannot be said is no leak
//! and no acquittal either: it is too short to say. This file refuses to read a clock and to know what a floor was read from.

mod course;
#[cfg(test)]
mod tests;
mod trial;

use std::time::Duration;

use serde::Serialize;

use self::trial::Trial;
use super::reason::span;
use model::Slope;

/// Fewest floors that can be judged, …
pub const FEWEST: usize = 10;
/// … and the shortest time they must span.
const SHORTEST: Duration = Duration::from_secs(8);
/// One floor of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShortFloor {
    /// When, since the run began.
    pub at: Duration,
    /// How much could not be freed, in bytes.
    pub bytes: f64,
    /// Units of work done since the run began, where they are counted.
    pub work: Option<f64>,
    /// Units of work asked for and not done, where they are counted.
    pub waiting: Option<f64>,
    /// Whether the load had ended by then.
    pub after_load: bool,
}

/// What counts as growth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShortSettings {
    /// The first part of the run, of which nothing is believed.
    pub warm_up: Duration,
    /// The growth that is allowed, in bytes per second; none given means that any growth counts that goes on.
    pub max_slope: Option<f64>,
    /// Growth below this many bytes is within what a runtime does by itself, …
    pub least_growth: f64,
    /// … and so is growth below this share of the floor.
    pub least_share: f64,
}

impl ShortSettings {
    /// For a heap that was collected before each reading.
    pub fn of_heap(warm_up: Duration, max_slope: Option<f64>) -> Self {
        Self { warm_up, max_slope, least_growth: 96.0 * 1024.0, least_share: 0.005 }
    }

    /// For resident memory, in which whatever has not been given back to the system stands as well.
    pub fn of_resident(warm_up: Duration, max_slope: Option<f64>) -> Self {
        Self { warm_up, max_slope, least_growth: 6.0 * 1024.0 * 1024.0, least_share: 0.05 }
    }
}

/// The answer on a short run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShortAnswer {
    /// Nothing grew that would go on.
    NoLeak,
    /// The run does not tell.
    TooShort,
    /// It grew, steadily, and to the end.
    Leak,
}

impl ShortAnswer {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLeak => "no_leak",
            Self::TooShort => "too_short",
            Self::Leak => "leak",
        }
    }
}

/// Bytes kept for each unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PerWork {
    /// The best estimate.
    pub bytes: f64,
    /// Lower bound of the interval of 95 %.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Units done in the window.
    pub count: f64,
}

/// The answer with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShortVerdict {
    /// The answer.
    pub answer: ShortAnswer,
    /// Why, as a sentence.
    pub reason: String,
    /// The test that decided.
    pub test: &'static str,
    /// Growth over the window, where a line could be fitted.
    pub slope: Option<Slope>,
    /// Growth by work, where work was counted.
    pub per_work: Option<PerWork>,
    /// Where the window begins, in seconds from the start of the run.
    pub from_seconds: f64,
    /// Where it ends.
    pub to_seconds: f64,
    /// By how many requests the load outran the app, where it did.
    pub backlog: Option<f64>,
    /// Floors in the window.
    pub floors: usize,
    /// The slowest leak that would have been seen, in bytes per second.
    pub smallest_visible: Option<f64>,
}

/// The pause before the reading of this number, as a share of the interval: from three to five quarters, one on average, by
/// multiples of the golden ratio. Evenly spaced readings would see what comes and goes at their own pace as a straight line.
pub fn pause_share(reading: u32) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    0.75 + 0.5 * (f64::from(reading) * GOLDEN).fract()
}

/// Judges the floors of one process, in order of time. `subject` is what they are of, as the subject of a sentence.
pub fn judge_short(subject: &str, floors: &[ShortFloor], settings: &ShortSettings) -> ShortVerdict {
    let window: Vec<ShortFloor> =
        floors.iter().filter(|floor| floor.at >= settings.warm_up && !floor.after_load).copied().collect();
    let after: Vec<f64> = floors.iter().filter(|floor| floor.after_load).map(|floor| floor.bytes).collect();
    let (from, to) = match (window.first(), window.last()) {
        (Some(first), Some(last)) => (first.at, last.at),
        _ => (settings.warm_up, settings.warm_up),
    };
    let mut verdict = ShortVerdict {
        answer: ShortAnswer::TooShort,
        reason: String::new(),
        test: "points",
        slope: None,
        per_work: None,
        from_seconds: from.as_secs_f64(),
        to_seconds: to.as_secs_f64(),
        backlog: None,
        floors: window.len(),
        smallest_visible: None,
    };
    if window.len() < FEWEST || to.saturating_sub(from) < SHORTEST {
        verdict.reason = format!(
            "too short to say: after a warm-up of {} there are {} floors over {}, and it takes {FEWEST} over {}; run it longer",
            span(settings.warm_up),
            window.len(),
            span(to.saturating_sub(from)),
            span(SHORTEST),
        );
        return verdict;
    }
    let trial = Trial::new(subject, &window, &after, settings);
    verdict.slope = Some(trial.slope);
    verdict.per_work = trial.per_work;
    verdict.backlog = trial.outran();
    verdict.smallest_visible = Some(trial.smallest_visible());
    (verdict.answer, verdict.test, verdict.reason) = trial.decide();
    verdict
}
