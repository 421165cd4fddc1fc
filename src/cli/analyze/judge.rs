//! A recording replayed row by row through the very code that runs live, and what came of it.
//!
//! Pure: rows go in, a [`Judged`] comes out. It refuses to read and to print.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::chart::{Course, Line};
use super::row::{Column, Intake, Row};
use super::text;
use super::time::{Stamp, TimeForm};
use crate::history::Retention;
use crate::model::{Basis, Bytes, LeakState, Limit, LimitKind, Signal, Steady, Verdict};
use crate::trend::{Limits, Replay, Settings};

/// How recordings are judged.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    /// The memory the process may use.
    pub(super) memory_limit: Option<Bytes>,
    /// The length of a minute of the history and of every window with it.
    pub(super) settings: Settings,
    /// A fall of resident memory by this share is a restart.
    pub(super) restart_drop: Option<f64>,
}

/// The answer on one series, in the form of `--format json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// The file as it was named.
    pub(super) file: String,
    /// The series within the file, where it holds several.
    pub(super) series: Option<String>,
    /// The state at the end.
    pub(super) verdict: LeakState,
    /// The first evaluation that found *suspect* or worse.
    pub(super) first_suspect_at: Option<Stamp>,
    /// The first evaluation that found *leaking*.
    pub(super) first_leaking_at: Option<Stamp>,
    /// Stretches in an alarming state, oldest first.
    pub(super) episodes: Vec<EpisodeReport>,
    /// The slope of `signal`; none while learning.
    pub(super) slope_bytes_per_second: Option<f64>,
    /// Its lower bound.
    pub(super) slope_low: Option<f64>,
    /// Its upper bound.
    pub(super) slope_high: Option<f64>,
    /// Seconds until the limit at this pace; none when not growing or without a limit.
    pub(super) projected_exhaustion_seconds: Option<f64>,
    /// The signal the verdict rests on.
    pub(super) signal: Signal,
    /// The span the slope is fitted over.
    pub(super) window_seconds: f64,
    /// The verdict as a sentence.
    pub(super) reason: String,
    /// What the heap figures come from.
    pub(super) basis: Basis,
    /// What collections cannot free, at the end.
    pub(super) floor_bytes: Option<Bytes>,
    /// The limit that was given.
    pub(super) memory_limit_bytes: Option<Bytes>,
    /// Rows judged.
    pub(super) samples: u64,
    /// Lives of the process seen.
    pub(super) lives: u32,
    /// The first row's time.
    pub(super) from: Option<Stamp>,
    /// The last row's time.
    pub(super) to: Option<Stamp>,
    /// What else a reader should know.
    pub(super) notes: Vec<String>,
}

/// A stretch in one alarming state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct EpisodeReport {
    /// First evaluation in the state.
    pub(super) from: Stamp,
    /// Last evaluation in the state.
    pub(super) to: Stamp,
    /// The state.
    pub(super) state: LeakState,
}

/// What came of one series.
#[derive(Debug)]
pub(super) struct Judged {
    /// The answer.
    pub(super) report: Report,
    /// The course of memory, for a chart.
    pub(super) course: Course,
    /// The fitted line, for a chart.
    pub(super) line: Option<Line>,
}

/// One series on its way through the detector.
#[derive(Debug)]
pub(super) struct Judging {
    replay: Replay,
    intake: Intake,
    course: Course,
    minute: Duration,
    first_answer: Duration,
    memory_limit: Option<Bytes>,
    has: BTreeSet<Column>,
    first: Option<Steady>,
    last: Steady,
    rows: u64,
    repeated: u64,
    largest: f64,
}

impl Judging {
    /// Begins with a series that has the columns of `has`.
    pub(super) fn new(has: BTreeSet<Column>, judgement: &Judgement) -> Self {
        let settings = &judgement.settings;
        let limit = judgement.memory_limit.map(|bytes| Limit { kind: LimitKind::Configured, bytes });
        let first_answer = settings.warm_up + settings.ladder.first().copied().unwrap_or(0);
        Self {
            intake: Intake::new(has.clone(), judgement.restart_drop),
            replay: Replay::new(settings.clone(), Limits::new(limit), Retention::default().minutes),
            course: Course::default(),
            minute: settings.minute,
            first_answer: settings.span(f64::from(first_answer)),
            memory_limit: judgement.memory_limit,
            has,
            first: None,
            last: Steady(0),
            rows: 0,
            repeated: 0,
            largest: 0.0,
        }
    }

    /// Takes in the next row; rows come in order of time.
    pub(super) fn feed(&mut self, row: &Row) {
        self.repeated += u64::from(self.first.is_some() && row.at == self.last);
        self.first.get_or_insert(row.at);
        self.last = row.at;
        self.rows += 1;
        let Some(sample) = self.intake.sample(row) else { return };
        let held = sample.held.map_or(f64::NAN, Bytes::as_f64);
        self.largest = self.largest.max(held);
        let native = sample.heap_total.map_or(f64::NAN, |total| held - total.as_f64());
        let heap = match (sample.heap_after_major_gc, sample.heap_used) {
            (Some(heap), _) => heap.as_f64(),
            (None, Some(heap)) if sample.major_gcs.is_none() => heap.as_f64(),
            _ => f64::NAN,
        };
        self.course.add(row.at, held, heap, native);
        if self.replay.feed(&sample, row.at).evaluated
            && let Some(verdict) = self.replay.verdict()
        {
            self.course.mark(verdict.at, verdict.state);
        }
    }

    /// Ends the series and draws up the answer. `notes` are those of whoever read the rows.
    pub(super) fn finish(mut self, file: &str, series: Option<String>, form: TimeForm, notes: Vec<String>) -> Judged {
        self.replay.finish(self.last);
        let verdict = self.replay.verdict().cloned();
        let stamp = |at| form.stamp(at);
        let mut report = Report {
            file: file.to_owned(),
            series,
            verdict: LeakState::Learning,
            first_suspect_at: self.replay.first(LeakState::Suspect).map(stamp),
            first_leaking_at: self.replay.first(LeakState::Leaking).map(stamp),
            episodes: self
                .replay
                .episodes()
                .iter()
                .map(|episode| EpisodeReport { from: stamp(episode.from), to: stamp(episode.to), state: episode.state })
                .collect(),
            slope_bytes_per_second: None,
            slope_low: None,
            slope_high: None,
            projected_exhaustion_seconds: None,
            signal: if self.has.contains(&Column::HeapTotal) { Signal::Footprint } else { Signal::Resident },
            window_seconds: 0.0,
            reason: format!(
                "the recording covers {}; a first answer takes {} of one life",
                text::span(self.covered().as_secs_f64()),
                text::span(self.first_answer.as_secs_f64()),
            ),
            basis: Basis::ResidentOnly,
            floor_bytes: None,
            memory_limit_bytes: self.memory_limit,
            samples: self.rows,
            lives: self.intake.lives(),
            from: self.first.map(stamp),
            to: self.first.map(|_| stamp(self.last)),
            notes,
        };
        self.note(&mut report.notes);
        let mut line = None;
        if let Some(verdict) = verdict {
            line = fitted(&verdict);
            fill(&mut report, verdict);
        }
        Judged { report, course: self.course, line }
    }

    fn covered(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last.since(first))
    }

    fn note(&self, notes: &mut Vec<String>) {
        let left_out = self.replay.episodes_left_out();
        if left_out > 0 {
            notes.push(format!("{left_out} more episodes are left out"));
        }
        if self.repeated > 0 {
            notes.push(format!("{} rows repeat a time; they count into the same minute", self.repeated));
        }
        if self.intake.returns() > 0 {
            notes.push(format!(
                "a life is named again after another had begun, {} times: one recording should hold one process",
                self.intake.returns()
            ));
        }
        if self.intake.falls() > 0 {
            notes.push(format!(
                "resident memory fell to less than half from one row to the next, {} times: if these were restarts, \
                 add a column `life` or `--restart-drop 50`",
                self.intake.falls()
            ));
        }
        if self.has.contains(&Column::Resident) && !self.has.contains(&Column::HeapTotal) {
            if self.has.contains(&Column::HeapUsed) {
                notes.push("without heap_total_bytes the most of heap_used_bytes so far stands for it".to_owned());
            } else if self.has.contains(&Column::PostGc) {
                notes.push("without heap_total_bytes and heap_used_bytes the heap's figures are left aside".to_owned());
            }
        }
        if self.largest > 0.0 && self.largest < 1e6 {
            notes.push(format!(
                "the largest figure is {}: if the figures are not bytes, say so with `--unit`",
                Bytes::from_f64(self.largest)
            ));
        }
        #[allow(clippy::cast_precision_loss, reason = "rows stay far below 2^53")]
        let apart = self.covered().as_secs_f64() / self.rows.saturating_sub(1).max(1) as f64;
        if apart > 15.0 * self.minute.as_secs_f64() {
            notes.push(format!(
                "rows are {} apart: `--minute 10m` or longer widens the windows to match",
                text::span(apart)
            ));
        }
    }
}

fn fitted(verdict: &Verdict) -> Option<Line> {
    let slope = verdict.slopes.get(&verdict.signal)?;
    Some(Line {
        signal: verdict.signal,
        from: verdict.at - verdict.window,
        to: verdict.at,
        bytes_per_second: slope.bytes_per_second,
    })
}

fn fill(report: &mut Report, verdict: Verdict) {
    let slope = verdict.slopes.get(&verdict.signal);
    report.verdict = verdict.state;
    report.slope_bytes_per_second = slope.map(|slope| slope.bytes_per_second);
    report.slope_low = slope.map(|slope| slope.low);
    report.slope_high = slope.map(|slope| slope.high);
    report.projected_exhaustion_seconds = verdict.projected_exhaustion.map(|left| left.as_secs_f64());
    report.signal = verdict.signal;
    report.window_seconds = verdict.window.as_secs_f64();
    report.basis = verdict.basis;
    report.floor_bytes = verdict.floor;
    report.reason = verdict.reason;
}
