//! The judgement of a run of a minute: floors right after garbage collection in, an answer with its reason out.
//!
//! Hours of history are not there, so the evidence is another: every floor is exact because garbage was collected first, the
//! warm-up is left out, and growth is held against the work that was done, where that is known. What grows must go on
//! growing at the same pace to the end of the run and stay when the load ends. Growth of which that cannot be said is no leak
//! and no acquittal either: it is too short to say. This file refuses to read a clock and to know what a floor was read from.

use std::time::Duration;

use serde::Serialize;

use super::reason::{pace, span};
use super::stats::{Floors, MOST, as_f64, kendall, kendall_variance, median, residuals, theil_sen, theil_sen_interval};
use crate::model::{Bytes, Slope};

/// Fewest floors that can be judged, …
const FEWEST: usize = 10;
/// … and the shortest time they must span.
const SHORTEST: Duration = Duration::from_secs(8);
/// Units of work below which growth is held against time alone.
const LEAST_WORK: f64 = 30.0;
/// Below this share of the pace of the first half, the second half is slowing down.
const STEADY: f64 = 0.88;
/// Below this share of the whole pace, the last third has levelled off.
const LEVEL: f64 = 0.25;
/// The share of the growth that must stay when the load has ended.
const KEPT: f64 = 0.6;

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
    /// Where the window begins.
    pub from: Duration,
    /// Where it ends.
    pub to: Duration,
    /// Floors in the window.
    pub floors: usize,
    /// The slowest leak that would have been seen, in bytes per second.
    pub smallest_visible: Option<f64>,
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
        from,
        to,
        floors: window.len(),
        smallest_visible: None,
    };
    if window.len() < FEWEST || to.saturating_sub(from) < SHORTEST {
        verdict.reason = format!(
            "too short to say: after a warm-up of {} there are {} floors over {}; it takes {FEWEST} over {}",
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
    verdict.smallest_visible = Some(trial.smallest_visible());
    (verdict.answer, verdict.test, verdict.reason) = trial.decide();
    verdict
}

/// Everything that the tests look at.
struct Trial<'a> {
    subject: &'a str,
    settings: &'a ShortSettings,
    window: &'a [ShortFloor],
    after: &'a [f64],
    /// Floors against time in seconds, …
    by_time: Floors,
    /// … and against work where it is counted, else against time.
    by_work: Floors,
    slope: Slope,
    per_work: Option<PerWork>,
    seconds: f64,
    growth: f64,
    noise: f64,
    significance: f64,
}

impl<'a> Trial<'a> {
    fn new(subject: &'a str, window: &'a [ShortFloor], after: &'a [f64], settings: &'a ShortSettings) -> Self {
        let by_time = bucketed(window, |floor| floor.at.as_secs_f64());
        let done = |floor: &ShortFloor| floor.work.unwrap_or(f64::NAN);
        let count = done(&window[window.len() - 1]) - done(&window[0]);
        let worked = count >= LEAST_WORK && window.iter().all(|floor| floor.work.is_some());
        let by_work = if worked { bucketed(window, done) } else { by_time };
        let first = theil_sen(by_time.at(), by_time.value());
        let (noise, correlation) = residuals(&by_time, first);
        let inflation = (1.0 + correlation) / (1.0 - correlation);
        let fitted = |floors: &Floors| theil_sen_interval(floors.at(), floors.value(), inflation);
        let (bytes_per_second, low, high) = fitted(&by_time);
        let per_work = worked.then(|| {
            let (bytes, low, high) = fitted(&by_work);
            PerWork { bytes, low, high, count }
        });
        let at = by_time.at();
        let seconds = at[at.len() - 1] - at[0];
        let significance =
            (kendall(by_time.value()) - 1.0) / (kendall_variance(by_time.len()) * inflation).sqrt().max(1e-9);
        Self {
            subject,
            settings,
            window,
            after,
            by_time,
            by_work,
            slope: Slope { bytes_per_second, low, high },
            per_work,
            seconds,
            growth: bytes_per_second * seconds,
            noise,
            significance,
        }
    }

    fn floor(&self) -> f64 {
        median(&mut self.by_time.value().to_vec())
    }

    /// The growth that a run must show before it counts.
    fn least(&self) -> f64 {
        self.settings.least_growth.max(self.settings.least_share * self.floor()).max(3.0 * self.noise)
    }

    fn smallest_visible(&self) -> f64 {
        (self.least() / self.seconds).max(self.slope.high - self.slope.bytes_per_second)
    }

    fn decide(&self) -> (ShortAnswer, &'static str, String) {
        let over = span(Duration::from_secs_f64(self.seconds));
        let moved = format!("{} moved by {} over {over}", self.subject, pace(self.slope.bytes_per_second));
        let visible = format!("a leak below {} would not show in this run", pace(self.smallest_visible()));
        let grows = self.significance >= 2.5 && self.slope.bytes_per_second > 0.0;
        if !grows || self.growth < self.least() {
            let (test, why) = match grows {
                false if self.slope.bytes_per_second <= 0.0 => ("direction", "floors do not rise"),
                false => ("significance", "the rise is within what chance does"),
                true => ("size", "the growth is small against the process and its noise"),
            };
            return self.quiet(test, &format!("{moved}: {why}; {visible}"));
        }
        let peak = self.by_time.value().iter().copied().fold(f64::MIN, f64::max);
        let last = median_of_last(self.by_time.value());
        let grew = format!("{} grew {} over {over}{}", self.subject, pace(self.slope.bytes_per_second), self.each());
        if let Some(waiting) = self.outran() {
            let text = format!(
                "too short to say: the load outran the app, {waiting:.0} more requests were waiting at the end than at the \
                 beginning, and a backlog looks like a leak ({grew}); run it with less load"
            );
            return (ShortAnswer::TooShort, "backlog", text);
        }
        if let Some((kept, falling)) = self.kept()
            && kept < KEPT
        {
            let percent = (kept.max(0.0) * 100.0).round();
            return if falling {
                let text = format!(
                    "too short to say: {grew}, and it was still being given back when the run ended ({percent} % was left): \
                     that is a backlog more likely than a leak"
                );
                (ShortAnswer::TooShort, "drain", text)
            } else {
                self.quiet("drain", &format!("{grew}, but only {percent} % of it stayed when the load had ended"))
            };
        }
        if peak - last > 0.35 * self.growth.max(peak - self.by_time.value()[0]) {
            return self.quiet("given back", &format!("{grew}, but a good part was given back before the end"));
        }
        self.shape(&grew)
    }

    /// The tests of whether it will go on.
    fn shape(&self, grew: &str) -> (ShortAnswer, &'static str, String) {
        let shape = Shape::of(&self.by_work);
        if shape.last_third < LEVEL {
            return self.quiet("plateau", &format!("{grew}, but it levelled off before the end of the run"));
        }
        if shape.steadiness < STEADY {
            let text = format!(
                "too short to say: {grew}, but the second half grew at {:.0} % of the pace of the first; a cache that is filling \
                 does that: run it longer",
                shape.steadiness.max(0.0) * 100.0
            );
            return (ShortAnswer::TooShort, "slowing", text);
        }
        if shape.spread < 0.3 {
            let text = format!("too short to say: {grew}, but in a few steps; run it longer to see whether they go on");
            return (ShortAnswer::TooShort, "steps", text);
        }
        let allowed = self.settings.max_slope.unwrap_or(0.0);
        if self.slope.high <= allowed {
            return (ShortAnswer::NoLeak, "allowed", format!("{grew}, within the {} that are allowed", pace(allowed)));
        }
        if self.slope.low <= allowed {
            let text = format!(
                "too short to say: {grew}, but the interval ({} to {}) does not tell whether that is more than {}",
                pace(self.slope.low),
                pace(self.slope.high),
                pace(allowed)
            );
            return (ShortAnswer::TooShort, "interval", text);
        }
        let text = format!(
            "{grew}; it rose in {} of {} intervals and the second half at {:.0} % of the pace of the first",
            rising(self.by_time.value()),
            self.by_time.len() - 1,
            shape.steadiness.min(9.99) * 100.0
        );
        (ShortAnswer::Leak, "none", text)
    }

    /// No leak, unless growth was allowed by a figure that this run is too coarse for.
    fn quiet(&self, test: &'static str, text: &str) -> (ShortAnswer, &'static str, String) {
        match self.settings.max_slope {
            Some(allowed) if self.smallest_visible() > allowed && self.slope.high > allowed => {
                let visible = pace(self.smallest_visible());
                let text = format!(
                    "too short to say: {text}. The smallest leak that this run can show is {visible}, more than the {} that \
                     are allowed; run it longer",
                    pace(allowed)
                );
                (ShortAnswer::TooShort, "precision", text)
            }
            _ => (ShortAnswer::NoLeak, test, text.to_owned()),
        }
    }

    fn each(&self) -> String {
        self.per_work.map_or_else(String::new, |per| {
            format!(
                ", {} for each of {:.0} requests ({} to {})",
                signed(per.bytes),
                per.count,
                signed(per.low),
                signed(per.high)
            )
        })
    }

    /// By how much the requests that wait grew over the window, where that is a good part of what was done.
    fn outran(&self) -> Option<f64> {
        let waiting: Option<Vec<f64>> = self.window.iter().map(|floor| floor.waiting).collect();
        let waiting = waiting?;
        let third = (waiting.len() / 3).max(1);
        let more = median(&mut waiting[waiting.len() - third..].to_vec()) - median(&mut waiting[..third].to_vec());
        let done = self.per_work.map_or(0.0, |per| per.count);
        (more >= 20.0 && more >= 0.03 * done).then_some(more)
    }

    /// The share of the growth that stayed after the load had ended, and whether it was still falling then.
    fn kept(&self) -> Option<(f64, bool)> {
        let (&settled, &before) = (self.after.last()?, self.after.len().checked_sub(3).map(|i| &self.after[i])?);
        let begin = self.by_time.value()[0];
        let kept = (settled - begin) / self.growth;
        Some((kept, before - settled > 0.05 * self.growth))
    }
}

/// How a rise goes on.
struct Shape {
    /// Pace of the second half against the first, without single steps.
    steadiness: f64,
    /// Pace of the last third against the whole.
    last_third: f64,
    /// The share of the growth that is not in the few largest steps.
    spread: f64,
}

impl Shape {
    fn of(floors: &Floors) -> Self {
        let smooth = without_steps(floors);
        let (at, value) = (smooth.at(), smooth.value());
        let (half, third) = (at.len() / 2, at.len() - at.len() / 3);
        let whole = theil_sen(at, value);
        let (first, second) = (theil_sen(&at[..half], &value[..half]), theil_sen(&at[half..], &value[half..]));
        let ratio = |pace: f64, to: f64| if to > 0.0 { pace / to } else { f64::INFINITY };
        let growth = floors.value()[floors.len() - 1] - floors.value()[0];
        Self {
            steadiness: ratio(second, first),
            last_third: ratio(theil_sen(&at[third..], &value[third..]), whole),
            spread: if growth > 0.0 { (value[value.len() - 1] - value[0]) / growth } else { 1.0 },
        }
    }
}

/// The floors with each increment held within three times the usual one: a table that doubles is a step, and steps
/// say nothing of the pace.
fn without_steps(floors: &Floors) -> Floors {
    let paces: Vec<f64> = floors
        .at()
        .windows(2)
        .zip(floors.value().windows(2))
        .map(|(at, value)| (value[1] - value[0]) / (at[1] - at[0]))
        .collect();
    let middle = median(&mut paces.clone());
    let spread = 1.4826 * median(&mut paces.iter().map(|pace| (pace - middle).abs()).collect::<Vec<_>>());
    let most = (3.0 * spread).max(0.5 * middle.abs());
    let mut smooth = Floors::new();
    let mut level = floors.value()[0];
    smooth.push(floors.at()[0], level);
    for (at, pace) in floors.at().windows(2).zip(&paces) {
        level += pace.clamp(middle - most, middle + most) * (at[1] - at[0]);
        smooth.push(at[1], level);
    }
    smooth
}

/// The lowest floor of each of as many equal stretches as there is room for, where it lay.
fn bucketed(window: &[ShortFloor], along: impl Fn(&ShortFloor) -> f64) -> Floors {
    let buckets = window.len().min(MOST);
    let (first, last) = (along(&window[0]), along(&window[window.len() - 1]));
    let mut lowest: [Option<(f64, f64)>; MOST] = [None; MOST];
    for floor in window {
        let share = ((along(floor) - first) / (last - first).max(1e-9)).clamp(0.0, 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, times few buckets")]
        let bucket = ((share * as_f64(buckets)) as usize).min(buckets - 1);
        if lowest[bucket].is_none_or(|(_, bytes)| floor.bytes < bytes) {
            lowest[bucket] = Some((along(floor), floor.bytes));
        }
    }
    let mut floors = Floors::new();
    let mut before = f64::NEG_INFINITY;
    for (at, bytes) in lowest.into_iter().flatten() {
        if at > before {
            floors.push(at, bytes);
            before = at;
        }
    }
    floors
}

fn median_of_last(value: &[f64]) -> f64 {
    median(&mut value[value.len().saturating_sub(3)..].to_vec())
}

fn rising(value: &[f64]) -> usize {
    value.windows(2).filter(|pair| pair[1] > pair[0]).count()
}

fn signed(bytes: f64) -> String {
    format!("{}{}", if bytes < 0.0 { "-" } else { "" }, Bytes::from_f64(bytes.abs()))
}
