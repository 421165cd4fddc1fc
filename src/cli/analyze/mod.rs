//! `leakslope analyze`: the verdict over recorded data.
//!
//! Opens files, has them read, judged and printed. Parsing (`csv`, `prometheus`), order (`order`), judgement (`judge`)
//! and words (`text`, `chart`) are pure; this file is the only one that touches the outside. It refuses to tune the
//! detector: what runs here is what runs live.

mod cells;
pub(super) mod chart;
mod csv;
mod judge;
mod order;
mod problem;
mod prometheus;
mod row;
mod text;
mod time;

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::csv::CsvRows;
use self::judge::{Judged, Judgement, Judging, Report};
use self::order::{HELD, Reorder, TooLate};
use self::problem::{Problem, Wrong};
use self::row::Row;
use self::text::Look;
use super::arguments::Format;
use super::exit;
use super::output::{complain, print};
use crate::model::{Bytes, LeakState};
use crate::trend::Settings;

/// Largest JSON taken, in MiB.
const LARGEST_JSON: u64 = 512;
/// Most rows that are sorted in memory.
const MOST_SORTED: usize = 10_000_000;
/// Bytes read from a file at a time.
const BUFFER: usize = 1 << 18;

/// Judge recorded memory, row by row as it would have been judged live.
///
/// A recording is CSV with a header (`time` in unix seconds, milliseconds or RFC 3339, and any of
/// `resident_memory_bytes`, `heap_used_bytes`, `heap_total_bytes`, `post_gc_heap_used_bytes`, `major_gcs`, `life`;
/// other columns are ignored), or two columns without one: time and bytes. Or it is the JSON that Prometheus answers a
/// `query_range` with; each of its series is judged.
///
/// With `--format json` one series gives one object; several files, or a file with several series, give an array of
/// them. The exit code is 3 when a recording ends leaking, 1 when one cannot be read, 0 otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct AnalyzeArguments {
    /// Recordings; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The memory the process may use; without it the time of exhaustion is not projected.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_limit: Option<Bytes>,
    /// The unit of the memory columns.
    #[arg(long, default_value = "B", value_name = "UNIT", value_parser = unit)]
    unit: Bytes,
    /// A chart and sentences for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// When to use colour; `NO_COLOR` in the environment turns `auto` off.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    /// The length of a "minute" of the history; every window scales with it.
    #[arg(long, default_value = "1m", value_name = "SPAN", value_parser = minute)]
    minute: Duration,
    /// Take a fall of resident memory by this share between two rows for a restart, where no column tells.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(10..=99))]
    restart_drop: Option<u8>,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

fn size(text: &str) -> Result<Bytes, String> {
    match crate::config::parse_size(text)? {
        Bytes(0) => Err("a limit of nothing is no limit".to_owned()),
        size => Ok(size),
    }
}

fn unit(text: &str) -> Result<Bytes, String> {
    crate::config::parse_size(&format!("1{text}"))
        .map_err(|_no_size| "write B, KiB, MiB, GiB, TiB, KB, MB, GB or TB".to_owned())
}

fn minute(text: &str) -> Result<Duration, String> {
    let minute = crate::config::parse_duration(text)?;
    let fits = (Duration::from_millis(1)..=Duration::from_hours(366 * 24)).contains(&minute);
    if fits { Ok(minute) } else { Err("write a span from 1ms to 366d".to_owned()) }
}

/// Judges every file and prints the answers.
///
/// # Errors
/// Only where standard output cannot be written; a file that cannot be read is named on standard error and counts into
/// the exit code.
pub(crate) fn run(arguments: &AnalyzeArguments) -> anyhow::Result<ExitCode> {
    let judgement = Judgement {
        memory_limit: arguments.memory_limit,
        settings: Settings::with_minute(arguments.minute),
        restart_drop: arguments.restart_drop.map(|percent| f64::from(percent) / 100.0),
    };
    let look = look(arguments.color);
    let mut answers = Vec::new();
    let (mut leaking, mut failed) = (false, false);
    for file in &arguments.files {
        let piped = file.as_os_str() == "-";
        let name = if piped { "standard input".to_owned() } else { file.display().to_string() };
        match analyze(file, &name, arguments.unit.as_f64(), &judgement) {
            Ok(judged) => {
                for judged in judged {
                    leaking |= judged.report.verdict == LeakState::Leaking;
                    match arguments.format {
                        Format::Text => print(&format!("{}\n", text::answer(&judged, look)))?,
                        Format::Json => answers.push(Answer::Report(Box::new(judged.report))),
                    }
                }
            }
            Err(problem) => {
                failed = true;
                complain(&format!("leakslope: {}: {problem}", super::output::clean(&name)));
                answers.push(Answer::Failure { file: name, error: problem.to_string() });
            }
        }
    }
    if arguments.format == Format::Json {
        let json = match answers.as_slice() {
            [answer] if arguments.files.len() == 1 => serde_json::to_string_pretty(answer)?,
            answers => serde_json::to_string_pretty(answers)?,
        };
        print(&format!("{json}\n"))?;
    }
    Ok(match (leaking, failed) {
        (true, _) => ExitCode::from(exit::LEAK),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

/// One element of the JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Report(Box<Report>),
    Failure { file: String, error: String },
}

pub(super) fn look(color: Color) -> Look {
    let terminal = std::io::stdout().is_terminal();
    let width = if terminal { rustix::termios::tcgetwinsize(std::io::stdout()).ok() } else { None };
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Look {
        width: width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80).clamp(40, 160),
        color: match color {
            Color::Auto => terminal && !plain,
            Color::Always => true,
            Color::Never => false,
        },
    }
}

fn analyze(file: &Path, name: &str, unit: f64, judgement: &Judgement) -> Result<Vec<Judged>, Problem> {
    if file.as_os_str() == "-" {
        return judge_source(std::io::stdin().lock(), name, None, unit, judgement);
    }
    let (source, again) = open(file)?;
    judge_source(source, name, again.then_some(file), unit, judgement)
}

/// Opens a file; with it, whether it can be read a second time.
fn open(file: &Path) -> Result<(BufReader<File>, bool), Problem> {
    let failed = |error: std::io::Error| Problem::whole(Wrong::Read(error.to_string()));
    let source = File::open(file).map_err(failed)?;
    let again = source.metadata().map_err(failed)?.is_file();
    Ok((BufReader::with_capacity(BUFFER, source), again))
}

fn judge_source(
    mut source: impl BufRead,
    name: &str,
    again: Option<&Path>,
    unit: f64,
    judgement: &Judgement,
) -> Result<Vec<Judged>, Problem> {
    let failed = |error: std::io::Error| Problem::whole(Wrong::Read(error.to_string()));
    let start = source.fill_buf().map_err(failed)?;
    let start = start.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(start);
    if !matches!(start.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return judge_csv(source, name, again, unit, judgement).map(|judged| vec![judged]);
    }
    let mut text = String::new();
    source.take((LARGEST_JSON << 20) + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LARGEST_JSON << 20 {
        return Err(Problem::whole(Wrong::LargeJson(LARGEST_JSON)));
    }
    let series = prometheus::read(&text, unit)?;
    drop(text);
    Ok(series
        .into_iter()
        .map(|series| {
            let mut judging = Judging::new(series.has, judgement);
            for row in &series.rows {
                judging.feed(row);
            }
            judging.finish(name, Some(series.name), time::TimeForm::Seconds, Vec::new())
        })
        .collect())
}

/// Judges the rows of a CSV as they are read; where they are too far out of order for that, reads it once more and
/// sorts it.
fn judge_csv(
    source: impl BufRead,
    name: &str,
    again: Option<&Path>,
    unit: f64,
    judgement: &Judgement,
) -> Result<Judged, Problem> {
    let mut rows = CsvRows::open(source, unit)?;
    let mut judging = Judging::new(rows.has(), judgement);
    let mut reorder = Reorder::default();
    while let Some(row) = rows.next()? {
        match reorder.push(row) {
            Ok(Some(row)) => judging.feed(&row),
            Ok(None) => {}
            Err(TooLate) => {
                let line = rows.line();
                let unsorted = |why| Problem::line(line, Wrong::Unsorted { held: HELD, why });
                let file = again.ok_or_else(|| unsorted("what is piped in cannot be read twice"))?;
                return judge_sorted(file, name, unit, judgement, || {
                    unsorted("it has too many rows to sort them here")
                });
            }
        }
    }
    while let Some(row) = reorder.pop() {
        judging.feed(&row);
    }
    let mut notes = Vec::new();
    if reorder.moved() > 0 {
        notes.push(format!("{} rows were out of order and were put in order", reorder.moved()));
    }
    if rows.cut_off() {
        notes.push("the last line is cut off and was left out".to_owned());
    }
    Ok(judging.finish(name, None, rows.form(), notes))
}

fn judge_sorted(
    file: &Path,
    name: &str,
    unit: f64,
    judgement: &Judgement,
    too_many: impl Fn() -> Problem,
) -> Result<Judged, Problem> {
    let (source, _) = open(file)?;
    let mut rows = CsvRows::open(source, unit)?;
    let mut all: Vec<Row> = Vec::new();
    while let Some(row) = rows.next()? {
        if all.len() >= MOST_SORTED {
            return Err(too_many());
        }
        all.push(row);
    }
    all.sort_by_key(|row| row.at);
    let mut judging = Judging::new(rows.has(), judgement);
    for row in &all {
        judging.feed(row);
    }
    let mut notes = vec!["the rows were out of order and were sorted".to_owned()];
    if rows.cut_off() {
        notes.push("the last line is cut off and was left out".to_owned());
    }
    Ok(judging.finish(name, None, rows.form(), notes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(text: &[u8]) -> Result<Vec<Judged>, Problem> {
        let judgement =
            Judgement { memory_limit: Some(Bytes::MIB), settings: Settings::default(), restart_drop: Some(0.5) };
        judge_source(text, "test", None, 1.0, &judgement)
    }

    fn printed(text: &[u8]) {
        for judged in judged(text).unwrap_or_default() {
            let words = text::answer(&judged, Look { width: 80, color: false });
            assert!(words.contains(judged.report.verdict.as_str()));
            serde_json::to_string(&judged.report).expect("a report is JSON");
        }
    }

    proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]

            #[test]
            fn any_times_and_figures_are_judged_and_printed(
                rows in prop::collection::vec((
                    prop_oneof![Just(0_i64), -1000_i64..1000, -900_000_000_000_i64..900_000_000_000],
                    prop_oneof![Just(0.0), 0.0..1e14, 0.0..1e9],
                    0_u8..3,
                    0_u32..5,
                ), 0..40),
            ) {
                let mut text = "time,resident_memory_bytes,heap_used_bytes,post_gc_heap_used_bytes,major_gcs,life\n".to_owned();
                for (at, figure, life, gcs) in rows {
    let row = format!("{at},{figure},{},{},{gcs},{life}\n", figure / 2.0, figure / 3.0);
     text.push_str(&row);
                }
                printed(text.as_bytes());
            }

            #[test]
            fn any_json_is_judged_or_refused(
                values in prop::collection::vec((any::<f64>(), "[0-9.eNa+-]{0,6}"), 0..20),
            ) {
                let values: Vec<_> = values.into_iter().filter(|(at, _)| at.is_finite()).collect();
                let series = serde_json::json!([{"metric": {"a": "b"}, "values": values}]);
                printed(series.to_string().as_bytes());
            }
        }

    #[test]
    fn a_recording_of_one_life_shifted_by_whole_evaluations_gets_the_same_verdict() {
        let text = |start: i64| -> String {
            (0..600_i64)
                .map(|minute| format!("{},{}\n", start + minute * 60, 100_000_000 + minute * 500_000))
                .collect::<Vec<_>>()
                .concat()
        };
        let report = |start| judged(text(start).as_bytes()).expect("valid").remove(0).report;
        let (zero, epoch) = (report(0), report(1_767_225_600));
        assert_eq!((zero.verdict, &zero.reason), (epoch.verdict, &epoch.reason));
        assert_eq!(zero.episodes.len(), epoch.episodes.len());
    }
}
