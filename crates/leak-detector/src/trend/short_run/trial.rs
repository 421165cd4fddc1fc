//! The tests that one run goes through, one after the other, and what each says.

use std::time::Duration;

use super::course::{Course, bucketed, inflation, keep};
use super::{PerWork, ShortAnswer, ShortFloor, ShortSettings};
use crate::stats::{Floors, as_f64, kendall, kendall_variance, median, residuals, theil_sen, theil_sen_interval};
use crate::trend::reason::{pace, span};
use model::{Bytes, Slope};

/// Units of work below which growth is held against time alone.
const LEAST_WORK: f64 = 30.0;
/// A second half surely below this share of the pace of the first is slowing down.
const SLOWER: f64 = 0.97;
/// Growth goes on only where it is sure that the pace has not halved, …
const HALVED: f64 = 0.5;
/// … and has not doubled either.
const DOUBLED: f64 = 2.0;
/// Below this share of the whole pace, the end has levelled off.
const LEVEL: f64 = 0.25;
/// The shortest lull before the end that counts: a busy machine makes shorter ones.
const LULL: Duration = Duration::from_secs(2);
/// The share of the growth that must stay when the load has ended.
const KEPT: f64 = 0.6;

/// Everything that the tests look at.
pub(super) struct Trial<'a> {
    subject: &'a str,
    settings: &'a ShortSettings,
    window: &'a [ShortFloor],
    after: &'a [f64],
    /// Floors against time in seconds, …
    by_time: Floors,
    /// … and against work where it is counted, else against time.
    by_work: Floors,
    pub(super) slope: Slope,
    pub(super) per_work: Option<PerWork>,
    seconds: f64,
    growth: f64,
    noise: f64,
    /// Kendall's S in standard deviations, …
    significance: f64,
    /// … and as a share of all pairs.
    agreement: f64,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        subject: &'a str,
        window: &'a [ShortFloor],
        after: &'a [f64],
        settings: &'a ShortSettings,
    ) -> Self {
        let by_time = bucketed(window, |floor| floor.at.as_secs_f64());
        let done = |floor: &ShortFloor| floor.work.unwrap_or(f64::NAN);
        let count = done(&window[window.len() - 1]) - done(&window[0]);
        let worked = count >= LEAST_WORK && window.iter().all(|floor| floor.work.is_some());
        let by_work = if worked { bucketed(window, done) } else { by_time };
        let first = theil_sen(by_time.at(), by_time.value());
        let (noise, correlation) = residuals(&by_time, first);
        let inflation = inflation(correlation);
        let fitted = |floors: &Floors| theil_sen_interval(floors.at(), floors.value(), inflation);
        let (bytes_per_second, low, high) = fitted(&by_time);
        let per_work = worked.then(|| {
            let (bytes, low, high) = fitted(&by_work);
            PerWork { bytes, low, high, count }
        });
        let at = by_time.at();
        let seconds = at[at.len() - 1] - at[0];
        let (score, count) = (kendall(by_time.value()), as_f64(by_time.len()));
        let significance = (score - 1.0) / (kendall_variance(by_time.len()) * inflation).sqrt().max(1e-9);
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
            agreement: 2.0 * score / (count * (count - 1.0)).max(1.0),
        }
    }

    fn floor(&self) -> f64 {
        median(&mut self.by_time.value().to_vec())
    }

    /// The growth that a run must show before it counts.
    fn least(&self) -> f64 {
        self.settings.least_growth.max(self.settings.least_share * self.floor()).max(3.0 * self.noise)
    }

    pub(super) fn smallest_visible(&self) -> f64 {
        (self.least() / self.seconds).max(self.slope.high - self.slope.bytes_per_second)
    }

    pub(super) fn decide(&self) -> (ShortAnswer, &'static str, String) {
        let over = span(Duration::from_secs_f64(self.seconds));
        let moved = format!("{} moved by {} over {over}", self.subject, pace(self.slope.bytes_per_second));
        let visible = format!("a leak below {} would not show in this run", pace(self.smallest_visible()));
        let straight = self.agreement >= 0.85 && self.growth >= 6.0 * self.noise;
        let grows = self.slope.bytes_per_second > 0.0 && (self.significance >= 2.5 || straight);
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
        let course = Course::of(&self.by_work);
        if course.last_third < LEVEL {
            return self.quiet("plateau", &format!("{grew}, but it levelled off before the end of the run"));
        }
        let unsure = |test, text: &str| (ShortAnswer::TooShort, test, format!("too short to say: {grew}, but {text}"));
        if let Some(lull) = self.lull(course.pace) {
            let text = format!("not in the last {}; run it longer to see whether it goes on", span(lull));
            return unsure("stopped", &text);
        }
        let Some(first) = course.steadiness.first() else {
            return unsure("uneven", "in a few steps; run it longer to see whether they go on");
        };
        let percent = |share: f64| (share.clamp(0.0, 9.99) * 100.0).round();
        let halves = format!("the second half grew at {} % of the pace of the first", percent(first.middle));
        if first.high < SLOWER {
            let text =
                format!("{halves}, as a cache does that is filling; run it longer, or begin later with --warmup");
            return unsure("slowing", &text);
        }
        if !course.steadiness.iter().any(|share| (HALVED..=DOUBLED).contains(&share.low)) {
            let (low, high) = (percent(first.low), percent(first.high));
            return unsure("uneven", &format!("unevenly: {halves}, give or take ({low} to {high} %); run it longer"));
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
            "{grew}; it rose in {} of {} intervals, and {halves}",
            rising(self.by_time.value()),
            self.by_time.len() - 1,
        );
        (ShortAnswer::Leak, "none", text)
    }

    /// No leak, unless growth was allowed by a figure that this run is too coarse for.
    fn quiet(&self, test: &'static str, what: &str) -> (ShortAnswer, &'static str, String) {
        match self.settings.max_slope {
            Some(allowed) if self.smallest_visible() > allowed && self.slope.high > allowed => {
                let visible = pace(self.smallest_visible());
                let sentence = format!(
                    "too short to say: {what}. The smallest leak that this run can show is {visible}, more than the {} that \
                     are allowed; run it longer",
                    pace(allowed)
                );
                (ShortAnswer::TooShort, "precision", sentence)
            }
            _ => (ShortAnswer::NoLeak, test, what.to_owned()),
        }
    }

    /// How long before the end it stopped growing, where it did; `pace` is by work where that is counted.
    fn lull(&self, pace: f64) -> Option<Duration> {
        let along = |floor: &ShortFloor| match (self.per_work, floor.work) {
            (Some(_), Some(work)) => work,
            _ => floor.at.as_secs_f64(),
        };
        let mut kept: Vec<f64> = self.window.iter().map(|floor| floor.bytes).collect();
        keep(&mut kept);
        let last = kept.len() - 1;
        (last - last / 3..=last.saturating_sub(3)).find_map(|place| {
            let expected = pace * (along(&self.window[last]) - along(&self.window[place]));
            let lasted = self.window[last].at.saturating_sub(self.window[place].at);
            let level = kept[last] - kept[place] < LEVEL * expected && expected >= 5.0 * self.noise;
            (level && lasted >= LULL).then_some(lasted)
        })
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
    pub(super) fn outran(&self) -> Option<f64> {
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

fn median_of_last(value: &[f64]) -> f64 {
    median(&mut value[value.len().saturating_sub(3)..].to_vec())
}

fn rising(value: &[f64]) -> usize {
    value.windows(2).filter(|pair| pair[1] > pair[0]).count()
}

fn signed(bytes: f64) -> String {
    format!("{}{}", if bytes < 0.0 { "-" } else { "" }, Bytes::from_f64(bytes.abs()))
}
