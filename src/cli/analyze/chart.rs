//! A chart of memory over time in characters.
//!
//! Pure. [`Course`] gathers any number of rows in fixed memory; [`draw`] turns it into lines of text. Solid blocks are
//! the floor that collections cannot free, shade is the rest of resident memory.

use std::fmt::Write as _;

use crate::model::{Bytes, LeakState, Signal, Steady};

/// Equal stretches of time a course is kept in; when they do not suffice, two become one.
const STRETCHES: usize = 1024;
/// The length of a stretch at first, in milliseconds.
const SHORTEST: i64 = 1000;
/// Rows of the plot.
const HEIGHT: usize = 12;
/// Columns of the labels at the left.
const LABELS: usize = 10;
/// Blocks that fill a character from below, by eighths.
const EIGHTHS: [char; 8] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇'];

/// What happened in one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    low: f64,
    high: f64,
    heap: f64,
    native: f64,
    native_count: f64,
    state: Option<LeakState>,
}

impl Stretch {
    const EMPTY: Self =
        Self { low: f64::NAN, high: f64::NAN, heap: f64::NAN, native: 0.0, native_count: 0.0, state: None };

    fn merge(&mut self, other: &Self) {
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.heap = self.heap.min(other.heap);
        self.native += other.native;
        self.native_count += other.native_count;
        self.state = self.state.max(other.state);
    }

    fn signal(&self, signal: Signal) -> f64 {
        let native = if self.native_count > 0.0 { self.native / self.native_count } else { f64::NAN };
        match signal {
            Signal::Resident => self.low,
            Signal::Heap => self.heap,
            Signal::Native => native,
            Signal::Footprint => self.heap + native,
        }
    }

    /// The floor within resident memory; `NaN` where it is not known.
    fn floor(&self, signal: Signal) -> f64 {
        let floor = self.signal(signal);
        if floor.is_nan() { floor } else { floor.min(self.high).max(0.0) }
    }
}

/// The course of memory over a recording, coarse enough to stay small.
#[derive(Debug, Default)]
pub(in crate::cli) struct Course {
    first: Option<Steady>,
    last: Steady,
    width: i64,
    stretches: Vec<Stretch>,
}

impl Course {
    /// Takes in the figures of one moment, in bytes; `NaN` where there are none. Moments come in order.
    pub(in crate::cli) fn add(&mut self, at: Steady, resident: f64, heap: f64, native: f64) {
        let (native, native_count) = if native.is_nan() { (0.0, 0.0) } else { (native, 1.0) };
        let stretch = Stretch { low: resident, high: resident, heap, native, native_count, state: None };
        self.last = self.last.max(at);
        if let Some(place) = self.place(at) {
            place.merge(&stretch);
        }
    }

    /// Notes the verdict of an evaluation.
    pub(in crate::cli) fn mark(&mut self, at: Steady, state: LeakState) {
        if let Some(place) = self.place(at) {
            place.state = place.state.max(Some(state));
        }
    }

    fn place(&mut self, at: Steady) -> Option<&mut Stretch> {
        let first = *self.first.get_or_insert_with(|| {
            self.last = at;
            self.width = SHORTEST;
            at
        });
        let offset = at.0.saturating_sub(first.0).max(0);
        let most = i64::try_from(STRETCHES).unwrap_or(i64::MAX);
        while offset / self.width >= most {
            self.stretches = self
                .stretches
                .chunks(2)
                .map(|pair| {
                    let mut both = pair[0];
                    if let Some(second) = pair.get(1) {
                        both.merge(second);
                    }
                    both
                })
                .collect();
            self.width = self.width.saturating_mul(2);
        }
        let index = usize::try_from(offset / self.width).ok()?;
        if self.stretches.len() <= index {
            self.stretches.resize(index + 1, Stretch::EMPTY);
        }
        self.stretches.get_mut(index)
    }

    /// The signal that is the floor: the footprint where the heap was measured at all.
    fn floor(&self) -> Signal {
        let measured = self.stretches.iter().any(|stretch| !stretch.signal(Signal::Footprint).is_nan());
        if measured { Signal::Footprint } else { Signal::Resident }
    }

    /// The course in `columns` columns of a plot, or fewer where there is less to show.
    fn columns(&self, columns: usize) -> Vec<Stretch> {
        let filled = self.stretches.iter().filter(|stretch| !stretch.low.is_nan()).count();
        let columns = columns.min(filled);
        let total = self.stretches.len();
        let mut plot: Vec<Stretch> = (0..columns)
            .map(|column| {
                let (from, to) = (column * total / columns, ((column + 1) * total).div_ceil(columns));
                let mut merged = Stretch::EMPTY;
                for stretch in &self.stretches[from..to] {
                    merged.merge(stretch);
                }
                merged
            })
            .collect();
        // A column between two rows of the recording is no gap.
        for column in 1..plot.len() {
            let before = plot[column - 1];
            let gap = plot[column].low.is_nan();
            if gap && plot[column + 1..].iter().take(1).any(|next| !next.low.is_nan()) {
                plot[column] = Stretch { state: plot[column].state.or(before.state), ..before };
            } else if plot[column].state.is_none() && !gap {
                plot[column].state = before.state;
            }
        }
        plot
    }
}

/// A fitted line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) struct Line {
    /// The signal it is fitted to.
    pub(in crate::cli) signal: Signal,
    /// Where it begins.
    pub(in crate::cli) from: Steady,
    /// Where it ends.
    pub(in crate::cli) to: Steady,
    /// Its slope.
    pub(in crate::cli) bytes_per_second: f64,
}

/// What a chart shows beside the course.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Setting {
    /// Columns of the terminal.
    pub(in crate::cli) width: usize,
    /// Whether colour may be used.
    pub(in crate::cli) color: bool,
    /// The limit.
    pub(in crate::cli) limit: Option<Bytes>,
    /// The fitted line.
    pub(in crate::cli) line: Option<Line>,
    /// The state at the end, which colours the line.
    pub(in crate::cli) state: LeakState,
    /// The labels of both ends of the time.
    pub(in crate::cli) ends: (String, String),
}

/// Draws the chart; empty where there is nothing to show.
pub(in crate::cli) fn draw(course: &Course, setting: &Setting) -> String {
    let plot = course.columns(setting.width.saturating_sub(LABELS + 2).max(10));
    let floor = course.floor();
    let highest = plot.iter().map(|stretch| stretch.high).fold(f64::NAN, f64::max);
    let lowest = plot.iter().map(|stretch| stretch.floor(floor).min(stretch.low)).fold(f64::NAN, f64::min);
    if highest.is_nan() || plot.is_empty() {
        return String::new();
    }
    let limit = setting.limit.map(Bytes::as_f64).filter(|limit| *limit < 1.6 * highest);
    let top = limit.map_or(highest, |limit| limit.max(highest)) * 1.04;
    // Zero belongs on the scale unless the whole course lies far above it.
    let bottom = if lowest < 0.6 * top { 0.0 } else { lowest - 0.25 * (top - lowest) };
    let scale = Scale { bottom, step: ((top - bottom) / as_f64(HEIGHT)).max(1.0) };
    let fitted = setting.line.map_or_else(Vec::new, |line| heights(course, &plot, line));
    let mut text = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            _ if row + 1 == HEIGHT || row == HEIGHT / 2 || row == 0 => scale.label(row),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{label:>LABELS$} {}", if label.is_empty() { '│' } else { '┤' });
        let mut paint = Paint { on: setting.color, now: "" };
        for (column, stretch) in plot.iter().enumerate() {
            let on_line = fitted.get(column).is_some_and(|height| scale.row(*height) == Some(row));
            let on_limit = limit.is_some_and(|limit| scale.row(limit) == Some(row));
            let (ink, character) = match () {
                () if on_line => (state_ink(setting.state), '•'),
                () => cell(scale, row, stretch.floor(floor), stretch.high, on_limit),
            };
            paint.put(&mut text, ink, character);
        }
        paint.end(&mut text);
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    strip(&mut text, &plot, setting);
    text
}

#[derive(Debug, Clone, Copy)]
struct Scale {
    bottom: f64,
    step: f64,
}

impl Scale {
    fn edge(self, row: usize) -> f64 {
        self.bottom + self.step * as_f64(row)
    }

    fn label(self, row: usize) -> String {
        let at = if row == 0 { self.bottom } else { self.edge(row + 1) };
        Bytes::from_f64(at).to_string()
    }

    /// The row that a figure falls into.
    fn row(self, figure: f64) -> Option<usize> {
        (0..HEIGHT).find(|row| figure >= self.edge(*row) && figure < self.edge(row + 1))
    }
}

fn cell(scale: Scale, row: usize, floor: f64, highest: f64, on_limit: bool) -> (&'static str, char) {
    let (low, high) = (scale.edge(row), scale.edge(row + 1));
    if floor >= high {
        return (FLOOR, '█');
    }
    let shaded = highest > f64::midpoint(low, high);
    if floor > low {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, times eight")]
        let eighths = ((floor - low) / (high - low) * 8.0).round() as usize;
        match EIGHTHS.get(eighths) {
            Some(' ') => {}
            // Half a block and shade do not go into one character: the nearer one stands.
            Some(_) if eighths < 4 && shaded => {}
            Some(block) => return (FLOOR, *block),
            None => return (FLOOR, '█'),
        }
    }
    match (shaded, on_limit) {
        (true, _) => (SHADE, '░'),
        (false, true) => (LIMIT, '┄'),
        (false, false) => ("", ' '),
    }
}

/// The fitted line's height in each column of its window, through the middle of the signal.
fn heights(course: &Course, plot: &[Stretch], line: Line) -> Vec<f64> {
    let Some(first) = course.first else { return Vec::new() };
    let each = as_f64(course.stretches.len()) * seconds(course.width) / as_f64(plot.len().max(1));
    let at = |column: usize| each * (as_f64(column) + 0.5);
    let (from, to) = (seconds(line.from.0.saturating_sub(first.0)), seconds(line.to.0.saturating_sub(first.0)));
    let inside = |column: usize| at(column) + each / 2.0 >= from && at(column) - each / 2.0 <= to;
    let mut offsets: Vec<f64> = plot
        .iter()
        .enumerate()
        .filter(|(column, _)| inside(*column))
        .map(|(column, stretch)| stretch.signal(line.signal) - line.bytes_per_second * at(column))
        .filter(|offset| offset.is_finite())
        .collect();
    offsets.sort_unstable_by(f64::total_cmp);
    let Some(middle) = offsets.get(offsets.len() / 2) else { return Vec::new() };
    (0..plot.len())
        .map(|column| if inside(column) { middle + line.bytes_per_second * at(column) } else { f64::NAN })
        .collect()
}

/// The axis with the verdict of each column, and the times below it.
fn strip(text: &mut String, plot: &[Stretch], setting: &Setting) {
    let _infallible = write!(text, "{:>LABELS$} └", "verdict");
    let mut paint = Paint { on: setting.color, now: "" };
    for stretch in plot {
        let (ink, character) = match stretch.state {
            None | Some(LeakState::Learning) => ("", '·'),
            Some(state @ LeakState::Stable) => (state_ink(state), '─'),
            Some(state @ LeakState::Growing) => (state_ink(state), '░'),
            Some(state @ LeakState::Suspect) => (state_ink(state), '▒'),
            Some(state @ LeakState::Leaking) => (state_ink(state), '█'),
        };
        paint.put(text, ink, character);
    }
    paint.end(text);
    let (from, to) = &setting.ends;
    let gap = plot.len().saturating_sub(from.chars().count() + to.chars().count()).max(1);
    let _infallible = writeln!(text, "\n{:LABELS$}  {from}{}{to}", "", " ".repeat(gap));
}

const FLOOR: &str = "\u{1b}[34m";
const SHADE: &str = "\u{1b}[90m";
const LIMIT: &str = "\u{1b}[31m";

/// The colour of a state.
pub(in crate::cli) fn state_ink(state: LeakState) -> &'static str {
    match state {
        LeakState::Learning => "",
        LeakState::Stable => "\u{1b}[32m",
        LeakState::Growing => "\u{1b}[36m",
        LeakState::Suspect => "\u{1b}[33m",
        LeakState::Leaking => "\u{1b}[31m",
    }
}

/// Text in a colour, where colour is wanted.
pub(in crate::cli) fn painted(color: bool, ink: &str, words: &str) -> String {
    if color && !ink.is_empty() { format!("{ink}{words}\u{1b}[0m") } else { words.to_owned() }
}

/// Changes colour only where it changes.
struct Paint {
    on: bool,
    now: &'static str,
}

impl Paint {
    fn put(&mut self, text: &mut String, ink: &'static str, character: char) {
        if self.on && self.now != ink {
            if !self.now.is_empty() {
                text.push_str("\u{1b}[0m");
            }
            text.push_str(ink);
            self.now = ink;
        }
        text.push(character);
    }

    fn end(&mut self, text: &mut String) {
        if self.on && !self.now.is_empty() {
            text.push_str("\u{1b}[0m");
            self.now = "";
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a chart has few columns")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds stay far below 2^53")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(width: usize) -> Setting {
        Setting {
            width,
            color: false,
            limit: None,
            line: None,
            state: LeakState::Leaking,
            ends: ("start".to_owned(), "end".to_owned()),
        }
    }

    fn growing(rows: i64) -> Course {
        let mut course = Course::default();
        for minute in 0..rows {
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let grown = minute as f64 * 1e6;
            let at = Steady(minute * 60_000);
            course.add(at, 160e6 + grown, 40e6 + grown, 60e6);
            course.mark(at, if minute > rows / 2 { LeakState::Leaking } else { LeakState::Stable });
        }
        course
    }

    #[test]
    fn a_chart_shows_floor_memory_line_limit_and_verdict() {
        let line = Line {
            signal: Signal::Footprint,
            from: Steady(60 * 60_000),
            to: Steady(120 * 60_000),
            bytes_per_second: 1e6 / 60.0,
        };
        let setting = Setting { limit: Some(Bytes(320_000_000)), line: Some(line), ..setting(60) };
        insta::assert_snapshot!(draw(&growing(121), &setting));
    }

    #[test]
    fn a_flat_course_far_from_zero_has_its_own_scale_and_a_gap_shows() {
        let mut course = Course::default();
        for minute in (0..40).chain(60..100) {
            course.add(Steady(minute * 60_000), 400e6, f64::NAN, f64::NAN);
        }
        insta::assert_snapshot!(draw(&course, &setting(50)));
    }

    #[test]
    fn any_course_is_drawn_within_the_width_and_in_fixed_memory() {
        for (rows, step) in [(0, 1), (1, 1), (2, 1), (5, 60_000), (3000, 1), (3000, 1_000_000_000), (7, i64::MAX / 10)]
        {
            let mut course = Course::default();
            for row in 0..rows {
                course.add(Steady(row * step), 1e8, f64::NAN, f64::NAN);
            }
            assert!(course.stretches.len() <= STRETCHES);
            for width in [0, 20, 80, 300] {
                let text = draw(&course, &setting(width));
                assert_eq!(text.is_empty(), rows == 0);
                assert!(
                    text.lines().all(|line| line.chars().count() <= width.max(22)),
                    "{rows} {step} {width}\n{text}"
                );
            }
        }
    }

    #[test]
    fn colour_ends_on_every_line() {
        let text = draw(&growing(50), &Setting { color: true, ..setting(60) });
        assert!(text.contains("\u{1b}[34m"));
        assert!(text.lines().filter(|line| line.contains('\u{1b}')).all(|line| line.trim_end().ends_with("\u{1b}[0m")
            || line.matches("\u{1b}[0m").count() * 2 == line.matches('\u{1b}').count()));
    }
}
