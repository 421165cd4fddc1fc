//! What a run found: one answer for each process, one for the whole, and the words for both. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::processes::Watched;
use crate::cli::analyze::chart::{Course, Line, Setting, draw, painted, state_ink};
use crate::cli::output::{clean, wrap};
use crate::cli::pace;
use crate::evidence::profile::report::FunctionRow;
use crate::model::{Bytes, LeakState, Signal, Steady};
use crate::trend::{ShortAnswer, ShortFloor, ShortSettings, ShortVerdict, judge_short};

/// Functions that are printed.
pub(super) const FUNCTIONS: usize = 5;

/// The answer on one process.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ProcessReport {
    pub(super) pid: Option<u32>,
    pub(super) name: String,
    pub(super) answer: ShortAnswer,
    /// What the answer rests on.
    pub(super) signal: Signal,
    pub(super) reason: String,
    /// Every signal that was judged.
    pub(super) signals: Vec<(Signal, ShortVerdict)>,
    /// Functions that allocated what was kept.
    pub(super) functions: Vec<FunctionRow>,
}

/// What the load generator counted.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LoadReport {
    pub(super) command: String,
    pub(super) rounds: u32,
    pub(super) requests: Option<f64>,
    pub(super) waiting: Option<f64>,
}

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) command: String,
    pub(super) answer: ShortAnswer,
    pub(super) reason: String,
    pub(super) duration_seconds: f64,
    pub(super) warm_up_seconds: f64,
    pub(super) interval_seconds: f64,
    pub(super) max_slope_bytes_per_second: Option<f64>,
    pub(super) load: Option<LoadReport>,
    pub(super) processes: Vec<ProcessReport>,
    pub(super) notes: Vec<String>,
}

/// Judges a process by the signals that were read of it.
pub(super) fn judge(watched: &Watched, warm_up: Duration, max_slope: Option<f64>) -> ProcessReport {
    let heap = ShortSettings::of_heap(warm_up, max_slope);
    // What is not on the heap cannot be told as finely: a limit on growth is held against the heap there.
    let native = ShortSettings::of_resident(warm_up, None);
    let resident = ShortSettings::of_resident(warm_up, max_slope);
    let mut signals = Vec::new();
    if watched.has_heap() {
        let subject = "the heap with its buffers, after garbage collection,";
        signals.push((Signal::Heap, judge_short(subject, &watched.heap, &heap)));
        signals.push((Signal::Native, judge_short("native memory", &watched.native, &native)));
    } else {
        signals.push((Signal::Resident, judge_short("resident memory", &watched.resident, &resident)));
    }
    one_answer(Some(watched.pid), watched.name.clone(), signals)
}

/// Judges the whole tree, where no single process lived long enough.
pub(super) fn judge_tree(floors: &[ShortFloor], warm_up: Duration, max_slope: Option<f64>) -> ProcessReport {
    let settings = ShortSettings::of_resident(warm_up, max_slope);
    let verdict = judge_short("resident memory of the whole tree", floors, &settings);
    one_answer(None, "the process tree".to_owned(), vec![(Signal::Resident, verdict)])
}

fn one_answer(pid: Option<u32>, name: String, signals: Vec<(Signal, ShortVerdict)>) -> ProcessReport {
    // The first is the main one; native memory only counts where it says that there is a leak.
    let leak = signals.iter().find(|(_, verdict)| verdict.answer == ShortAnswer::Leak);
    let (signal, verdict) = leak.unwrap_or(&signals[0]).clone();
    ProcessReport { pid, name, answer: verdict.answer, signal, reason: verdict.reason, signals, functions: Vec::new() }
}

/// The answer of the whole: a leak anywhere, else a doubt anywhere, else none.
pub(super) fn overall(processes: &[ProcessReport]) -> (ShortAnswer, String) {
    let worst = processes.iter().rev().max_by_key(|process| process.answer);
    worst.map_or_else(
        || (ShortAnswer::TooShort, "too short to say: no process lived long enough to be judged".to_owned()),
        |process| {
            let words = if processes.len() > 1 {
                format!("{}: {}", process.title(), process.reason)
            } else {
                process.reason.clone()
            };
            (process.answer, words)
        },
    )
}

impl ProcessReport {
    /// Name and pid.
    pub(super) fn title(&self) -> String {
        self.pid.map_or_else(|| self.name.clone(), |pid| format!("{} (pid {pid})", self.name))
    }

    fn verdict(&self) -> Option<&ShortVerdict> {
        self.signals.iter().find(|(signal, _)| *signal == self.signal).map(|(_, verdict)| verdict)
    }
}

/// The state in whose colour an answer is shown.
fn state(answer: ShortAnswer) -> LeakState {
    match answer {
        ShortAnswer::NoLeak => LeakState::Stable,
        ShortAnswer::TooShort => LeakState::Suspect,
        ShortAnswer::Leak => LeakState::Leaking,
    }
}

fn headline(answer: ShortAnswer) -> &'static str {
    match answer {
        ShortAnswer::NoLeak => "NO LEAK",
        ShortAnswer::TooShort => "TOO SHORT TO SAY",
        ShortAnswer::Leak => "LEAK",
    }
}

/// The figures of the whole tree at each moment, for the chart and the CSV.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) at: Duration,
    pub(super) resident: f64,
    pub(super) heap_used: f64,
    pub(super) heap_total: f64,
    pub(super) external: f64,
    pub(super) work: Option<f64>,
}

/// The report for people: chart, answer, reason, figures, evidence.
pub(super) fn text(report: &Report, rows: &[Row], width: usize, color: bool) -> String {
    let mut course = Course::default();
    let at = |span: Duration| Steady(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    for row in rows {
        // The chart's floor is the heap with its buffers where those were read.
        let native = if row.heap_used.is_nan() { f64::NAN } else { 0.0 };
        course.add(at(row.at), row.resident, row.heap_used + row.external, native);
        let warm = row.at.as_secs_f64() >= report.warm_up_seconds;
        course.mark(at(row.at), if warm { state(report.answer) } else { LeakState::Learning });
    }
    let judged = report.processes.iter().find(|process| process.answer == report.answer);
    let line = judged.and_then(ProcessReport::verdict).and_then(|verdict| {
        let slope = verdict.slope.filter(|_| report.processes.len() == 1)?;
        let signal = if judged?.signal == Signal::Heap { Signal::Heap } else { Signal::Resident };
        Some(Line { signal, from: at(verdict.from), to: at(verdict.to), bytes_per_second: slope.bytes_per_second })
    });
    let end = rows.last().map_or(0.0, |row| row.at.as_secs_f64());
    let setting = Setting {
        width,
        color,
        limit: None,
        line,
        state: state(report.answer),
        ends: ("0 s".to_owned(), format!("{end:.0} s")),
    };
    let mut text = draw(&course, &setting);
    let answer = painted(color, state_ink(state(report.answer)), headline(report.answer));
    // Writing to a string cannot fail.
    let _infallible = write!(text, "\n{answer}\n{}\n", wrap(&report.reason, width, 2));
    for process in &report.processes {
        figures(&mut text, process, width);
    }
    if let Some(load) = &report.load {
        let requests = load.requests.map_or_else(
            || "it counted no requests (see docs/ci.md)".to_owned(),
            |requests| format!("{requests:.0} requests answered"),
        );
        let waiting = load.waiting.map_or_else(String::new, |waiting| format!(", {waiting:.0} waiting at the end"));
        let _infallible = writeln!(text, "\nload      started {} time(s), {requests}{waiting}", load.rounds);
    }
    for note in &report.notes {
        let _infallible = writeln!(text, "{}", wrap(&format!("note: {note}"), width, 0));
    }
    text
}

fn figures(text: &mut String, process: &ProcessReport, width: usize) {
    let _infallible = writeln!(text, "\n{}: {}", clean(&process.title()), process.answer.as_str());
    if let Some(verdict) = process.verdict() {
        if let Some(slope) = verdict.slope {
            let words = pace::pace(slope.bytes_per_second, slope.low, slope.high);
            let _infallible = writeln!(text, "  growth    {words} in {} floors", verdict.floors);
        }
        if let Some(per) = verdict.per_work {
            let [bytes, low, high] = [per.bytes, per.low, per.high].map(|bytes| format!("{bytes:.0}"));
            let _infallible = writeln!(text, "  a request {bytes} B kept ({low} to {high}), {:.0} requests", per.count);
        }
    }
    if !process.functions.is_empty() {
        let _infallible = writeln!(text, "  allocated after the warm-up and still alive, by function:");
    }
    for row in &process.functions {
        let size = Bytes(row.self_bytes).to_string();
        let words = format!("{size:>9}  {:>5.1} %  {}", row.self_share * 100.0, row.frame);
        let _infallible = writeln!(text, "{}", wrap(&words, width.max(60), 4));
    }
}

/// The rows as CSV, in the form that `leakslope analyze` reads. `start` is the wall time of the beginning in milliseconds.
pub(super) fn csv(rows: &[Row], start: i64) -> String {
    let mut text = "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,external_memory_bytes,\
        post_gc_heap_used_bytes,major_gcs,requests\n"
        .to_owned();
    let cell = |figure: f64| if figure.is_nan() { String::new() } else { format!("{figure:.0}") };
    for (number, row) in rows.iter().enumerate() {
        let at = start.saturating_add(i64::try_from(row.at.as_millis()).unwrap_or(0));
        let gcs = if row.heap_used.is_nan() { String::new() } else { (number + 1).to_string() };
        let _infallible = writeln!(
            text,
            "{at},{},{},{},{},{},{gcs},{}",
            cell(row.resident),
            cell(row.heap_used),
            cell(row.heap_total),
            cell(row.external),
            cell(row.heap_used),
            cell(row.work.unwrap_or(f64::NAN)),
        );
    }
    text
}
