//! What a run found: one answer for each process, one for the whole, and the words for both. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::processes::{Figures, Moment, Watched};
use crate::cli::analyze::chart::{Course, Line, Setting, draw, painted, state_ink};
use crate::cli::output::{clean, wrap};
use crate::cli::pace;
use crate::evidence::profile::report::FunctionRow;
use crate::model::{Bytes, LeakState, Signal, Steady};
use crate::trend::{ShortAnswer, ShortFloor, ShortSettings, ShortVerdict, judge_short};

/// The share of a growth that functions must hold, or it has to be twice as large.
const EXPLAINED: f64 = 0.25;
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
    pub(super) signals: Vec<Judged>,
    /// What was taken of a leak.
    pub(super) evidence: Option<Evidence>,
}

/// The verdict on one signal.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Judged {
    pub(super) signal: Signal,
    #[serde(flatten)]
    pub(super) verdict: ShortVerdict,
}

/// A heap profile of what was allocated since the warm-up and is still alive.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Evidence {
    pub(super) path: String,
    pub(super) total_bytes: u64,
    /// Who allocated most of it: the app's own function with its share, and the package's that it called.
    pub(super) sentence: String,
    /// The app's own functions that allocated most of it, with all they called; any function where none is the app's.
    pub(super) functions: Vec<FunctionRow>,
    /// What it cannot tell, and why.
    pub(super) notes: Vec<String>,
}

impl Evidence {
    /// The functions in words, one a line.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let whole = Bytes(self.total_bytes.max(1)).as_f64();
        self.functions.iter().map(move |row| {
            let held = Bytes(row.total_bytes);
            format!("{:>9}  {:>5.1} %  {}", held.to_string(), held.as_f64() / whole * 100.0, row.frame)
        })
    }
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

/// What a signal is of, as the subject of a sentence.
fn subject(signal: Signal, pid: Option<u32>) -> &'static str {
    match (signal, pid) {
        (Signal::Heap | Signal::Footprint, _) => "the heap with its buffers, after garbage collection,",
        (Signal::Native, _) => "native memory",
        (Signal::Resident, Some(_)) => "resident memory",
        (Signal::Resident, None) => "resident memory of the whole tree",
    }
}

/// Judges a process by the signals that were read of it.
pub(super) fn judge(watched: &Watched, warm_up: Duration, max_slope: Option<f64>) -> ProcessReport {
    let heap = ShortSettings::of_heap(warm_up, max_slope);
    let resident = ShortSettings::of_resident(warm_up, max_slope);
    let judged = |signal, floors: &[ShortFloor], settings| Judged {
        signal,
        verdict: judge_short(subject(signal, Some(watched.pid)), floors, settings),
    };
    let signals = if watched.has_heap() {
        vec![judged(Signal::Heap, &watched.heap, &heap), judged(Signal::Native, &watched.native, &resident)]
    } else {
        vec![judged(Signal::Resident, &watched.resident, &resident)]
    };
    one_answer(Some(watched.pid), watched.name.clone(), signals)
}

/// Judges the whole tree, where no single process lived long enough.
pub(super) fn judge_tree(floors: &[ShortFloor], warm_up: Duration, max_slope: Option<f64>) -> ProcessReport {
    let settings = ShortSettings::of_resident(warm_up, max_slope);
    let verdict = judge_short(subject(Signal::Resident, None), floors, &settings);
    one_answer(None, "the process tree".to_owned(), vec![Judged { signal: Signal::Resident, verdict }])
}

fn one_answer(pid: Option<u32>, name: String, signals: Vec<Judged>) -> ProcessReport {
    // Of several that leak the one that grows most leads. The heap is the main one else: what native memory does not tell is
    // said beside it.
    let pace = |judged: &&Judged| judged.verdict.slope.map_or(f64::MIN, |slope| slope.bytes_per_second);
    let leaks = signals.iter().filter(|judged| judged.verdict.answer == ShortAnswer::Leak);
    let first = leaks.max_by(|one, other| pace(one).total_cmp(&pace(other))).unwrap_or(&signals[0]);
    let Judged { signal, verdict } = first.clone();
    let mut reason = verdict.reason;
    for other in signals.iter().filter(|judged| judged.signal != signal && verdict.answer != ShortAnswer::TooShort) {
        if other.verdict.answer != ShortAnswer::NoLeak {
            reason = format!("{reason}. Besides: {}", other.verdict.reason);
        }
    }
    ProcessReport { pid, name, answer: verdict.answer, signal, reason, signals, evidence: None }
}

impl ProcessReport {
    /// Takes a leak of the heap back that no function explains, unless it is twice as large as a leak must be: what V8
    /// compiles and learns of code in the first minutes grows a heap, too, and no function holds it.
    pub(super) fn ask_for_twice_the_proof(&mut self, heap: &[ShortFloor], settings: ShortSettings) {
        let grown = self.verdict().and_then(|it| Some(it.slope?.bytes_per_second * (it.to_seconds - it.from_seconds)));
        let (Some(grown), Some(evidence), Signal::Heap) = (grown, &self.evidence, self.signal) else { return };
        let twice = ShortSettings {
            least_growth: 2.0 * settings.least_growth,
            least_share: 2.0 * settings.least_share,
            ..settings
        };
        let explained = Bytes(evidence.total_bytes);
        if explained.as_f64() >= grown * EXPLAINED
            || judge_short(subject(Signal::Heap, self.pid), heap, &twice).answer == ShortAnswer::Leak
        {
            return;
        }
        self.answer = ShortAnswer::TooShort;
        self.reason = format!(
            "too short to say: {}. But functions hold only {explained} of it; the rest may be what V8 compiled; run it longer",
            self.reason
        );
    }
}

/// The process whose answer is that of the whole: a leak anywhere, else a doubt anywhere, else none.
pub(super) fn decisive(processes: &[ProcessReport]) -> Option<&ProcessReport> {
    processes.iter().rev().max_by_key(|process| process.answer)
}

/// The answer of the whole.
pub(super) fn overall(processes: &[ProcessReport]) -> (ShortAnswer, String) {
    match decisive(processes) {
        Some(process) if processes.len() > 1 => (process.answer, format!("{}: {}", process.title(), process.reason)),
        Some(process) => (process.answer, process.reason.clone()),
        None => {
            let text = "too short to say: no process lived long enough to be judged; watch one that stays";
            (ShortAnswer::TooShort, text.to_owned())
        }
    }
}

impl ProcessReport {
    /// Name and pid.
    pub(super) fn title(&self) -> String {
        self.pid.map_or_else(|| self.name.clone(), |pid| format!("{} (pid {pid})", self.name))
    }

    fn verdict(&self) -> Option<&ShortVerdict> {
        self.signals.iter().find(|judged| judged.signal == self.signal).map(|judged| &judged.verdict)
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

/// The figures of the whole tree at one moment, for the CSV.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) moment: Moment,
    pub(super) figures: Figures,
}

/// The report for people: a chart of the floors that the answer rests on, answer, reason, figures, evidence.
pub(super) fn text(report: &Report, floors: &[ShortFloor], width: usize, color: bool) -> String {
    let mut course = Course::default();
    let at = |span: Duration| Steady(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    for floor in floors {
        course.add(at(floor.at), floor.bytes, f64::NAN, f64::NAN);
        let judged = floor.at.as_secs_f64() >= report.warm_up_seconds && !floor.after_load;
        course.mark(at(floor.at), if judged { state(report.answer) } else { LeakState::Learning });
    }
    let judged = decisive(&report.processes);
    let line = judged.and_then(ProcessReport::verdict).and_then(|verdict| {
        let [from, to] =
            [verdict.from_seconds, verdict.to_seconds].map(|at_second| at(Duration::from_secs_f64(at_second)));
        Some(Line { signal: Signal::Resident, from, to, bytes_per_second: verdict.slope?.bytes_per_second })
    });
    let end = floors.last().map_or(0.0, |floor| floor.at.as_secs_f64());
    let setting = Setting {
        width,
        color,
        limit: None,
        line,
        state: state(report.answer),
        ends: ("0 s".to_owned(), format!("{end:.0} s")),
    };
    let shown = judged.map_or_else(String::new, |process| {
        format!("{} of {}\n", subject(process.signal, process.pid), clean(&process.title()))
    });
    let mut text = shown + &draw(&course, &setting);
    let answer = painted(color, state_ink(state(report.answer)), headline(report.answer));
    // Writing to a string cannot fail.
    let _infallible = write!(text, "\n{answer}\n{}\n", wrap(&report.reason, width, 2));
    for process in &report.processes {
        figures(&mut text, process);
    }
    if let Some(load) = &report.load {
        let requests = load.requests.map_or_else(
            || "it counted no requests (see docs/ci.md)".to_owned(),
            |requests| format!("{requests:.0} requests answered"),
        );
        let outran = judged.and_then(ProcessReport::verdict).and_then(|verdict| verdict.backlog);
        let outran = outran.map_or("", |_more| ": the load outran the app");
        let waiting = load.waiting.map_or_else(String::new, |waiting| format!(", {waiting:.0} waiting at the end"));
        let _infallible = writeln!(text, "\nload      started {} time(s), {requests}{waiting}{outran}", load.rounds);
    }
    for note in &report.notes {
        let _infallible = writeln!(text, "{}", wrap(&format!("note: {note}"), width, 0));
    }
    text
}

fn figures(text: &mut String, process: &ProcessReport) {
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
    let Some(evidence) = &process.evidence else { return };
    let _infallible = writeln!(text, "  profile   {}", clean(&evidence.path));
    let _infallible = writeln!(text, "  {}", clean(&evidence.sentence));
    let _infallible = writeln!(text, "  allocated after the warm-up and still alive, by function with all it called:");
    for line in evidence.lines() {
        let _infallible = writeln!(text, "    {}", clean(&line));
    }
    for note in &evidence.notes {
        let _infallible = writeln!(text, "  note: {}", clean(note));
    }
}

/// The rows as CSV, in the form that `leakslope analyze` reads. `start` is the wall time of the beginning in milliseconds.
pub(super) fn csv(rows: &[Row], start: i64) -> String {
    let mut text = "time,resident_memory_bytes,heap_used_bytes,heap_total_bytes,external_memory_bytes,\
        post_gc_heap_used_bytes,major_gcs,requests\n"
        .to_owned();
    let cell = |figure: f64| if figure.is_nan() { String::new() } else { format!("{figure:.0}") };
    for (number, Row { moment, figures }) in rows.iter().enumerate() {
        let at = start.saturating_add(i64::try_from(moment.at.as_millis()).unwrap_or(0));
        let gcs = if figures.heap_used.is_nan() { String::new() } else { (number + 1).to_string() };
        let _infallible = writeln!(
            text,
            "{at},{},{},{},{},{},{gcs},{}",
            cell(figures.resident),
            cell(figures.heap_used),
            cell(figures.heap_total),
            cell(figures.external),
            cell(figures.heap_used),
            cell(moment.work.unwrap_or(f64::NAN)),
        );
    }
    text
}
