//! `leakslope watch`: one command, or one running process, judged over a minute or so; the leak gate of a pull request.
//!
//! | part        | what it is for                                              | pure |
//! |-------------|-------------------------------------------------------------|------|
//! | `run`       | the run itself: waits, reads, ends                          | no   |
//! | `command`   | the command in its own group, the preload                   | no   |
//! | `load`      | the load generator and what it counts                       | no, but for its lines |
//! | `outcome`   | what a run comes to, with the evidence of a leak            | no   |
//! | `processes` | the tree's processes, their inspectors and floors           | no   |
//! | `report`    | answers, words, chart, CSV                                  | yes  |
//! | `junit`     | the same as JUnit XML                                      | yes  |
//!
//! It refuses to judge (that is `trend::judge_short`), to leave anything running that it started, and to send a signal to or
//! open an inspector in a process that it did not start.

mod command;
mod junit;
mod load;
mod outcome;
mod processes;
mod report;
mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::analyze::{Color, look};
use super::arguments::{Flags, Format};
use super::exit;
use super::output::{complain, print};
use crate::trend::ShortAnswer;

/// Judge whether a command leaks, in a minute: the leak gate for CI.
///
/// Runs the command with everything it starts, reads its memory (of Node processes the heap, after a garbage collection,
/// through a socket that nobody else may open) and ends it. Exit code: 0 no leak, 3 a leak, 4 too short to say, 1 the command
/// failed, 2 wrong usage.
#[derive(Debug, Clone, Args)]
pub(super) struct WatchArguments {
    /// The command, after `--`.
    #[arg(last = true, value_name = "CMD", required_unless_present = "pid", conflicts_with = "pid")]
    command: Vec<OsString>,
    /// Watch a running process instead, with its children: resident memory only, and nothing is done to it.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pid: Option<u32>,
    /// How long to watch, once the app is ready.
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = duration)]
    duration: Duration,
    /// The first part of it, which is not judged [default: a quarter of the duration].
    #[arg(long, value_name = "SPAN", value_parser = crate::config::parse_duration)]
    warmup: Option<Duration>,
    /// The time between two readings [default: a sixtieth of the duration, from 250ms to 10s].
    #[arg(long, value_name = "SPAN", value_parser = interval)]
    interval: Option<Duration>,
    /// The growth that is allowed, like 1MiB/h (also /s, /min, /d) [default: any growth that goes on is a leak].
    #[arg(long, value_name = "SIZE/TIME", value_parser = slope)]
    max_slope: Option<f64>,
    /// A load generator to run beside the command once a port is listened on, given as `$LEAKSLOPE_PORT`; run again when
    /// it ends. Lines with `requests=N` (and `sent=N`) on its standard output count the work.
    #[arg(long, value_name = "CMD", conflicts_with = "pid")]
    load: Option<String>,
    /// Write every reading to a file, as `leakslope analyze` reads it.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the answer to a file as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Where the heap profile of a leak is kept [default: `evidence` in the state directory, else the current folder].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A chart and sentences for people, or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// When to use colour; `NO_COLOR` in the environment turns `auto` off.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
}

impl WatchArguments {
    fn warm_up(&self) -> Duration {
        self.warmup.unwrap_or(self.duration / 4)
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or((self.duration / 60).clamp(Duration::from_millis(250), Duration::from_secs(10)))
    }
}

/// Readings of one run, at the most: what is remembered of each has to fit into memory.
const MOST_READINGS: u128 = 20_000;

impl WatchArguments {
    /// What is wrong with the spans together.
    fn wrong(&self) -> Option<String> {
        let readings = self.duration.as_millis() / self.interval().as_millis().max(1);
        if self.warm_up() >= self.duration {
            Some("--warmup leaves nothing of --duration to judge; make it shorter".to_owned())
        } else if readings > MOST_READINGS {
            Some(format!(
                "--interval makes {readings} readings in --duration, {MOST_READINGS} at the most; make it longer"
            ))
        } else {
            None
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = crate::config::parse_duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_hours(24)).contains(&span);
    if fits { Ok(span) } else { Err("write a span from 1s to 24h".to_owned()) }
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = crate::config::parse_duration(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_mins(10)).contains(&span);
    if fits { Ok(span) } else { Err("write a span from 100ms to 10m".to_owned()) }
}

/// Bytes per second of `1MiB/h`.
fn slope(text: &str) -> Result<f64, String> {
    let (size, time) = text.split_once('/').ok_or("write a size and a time, like 1MiB/h")?;
    let seconds = match time.trim() {
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("after the slash write s, min, h or d".to_owned()),
    };
    Ok(crate::config::parse_size(size.trim())?.as_f64() / seconds)
}

/// Runs, judges, writes and prints.
///
/// # Errors
/// The command could not be started or failed, or a file could not be written.
pub(super) fn run(flags: &Flags, arguments: &WatchArguments) -> anyhow::Result<ExitCode> {
    if let Some(wrong) = arguments.wrong() {
        complain(&format!("leakslope: {wrong}"));
        return Ok(ExitCode::from(exit::USAGE));
    }
    let evidence = arguments.output.clone().unwrap_or_else(|| super::evidence_folder(flags));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(run::watch(arguments, &evidence))?;
    let write = |path: &Option<PathBuf>, text: Vec<u8>| match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    };
    write(&arguments.csv, report::csv(&found.rows, found.start).into_bytes())?;
    write(&arguments.junit, junit::document(&found.report)?)?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&found.report)?))?,
        Format::Text => {
            let look = look(arguments.color);
            print(&report::text(&found.report, &found.floors, look.width, look.color))?;
        }
    }
    Ok(match found.report.answer {
        ShortAnswer::Leak => ExitCode::from(exit::LEAK),
        ShortAnswer::TooShort => ExitCode::from(exit::TOO_EARLY),
        ShortAnswer::NoLeak => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_a_size_over_a_time() {
        for (text, bytes) in [("1MiB/h", 1_048_576.0 / 3600.0), ("60KiB/min", 1024.0), ("1MiB / s", 1_048_576.0)] {
            assert!((slope(text).unwrap() - bytes).abs() < 1e-6, "{text}");
        }
        for text in ["1MiB", "1MiB/", "1MiB/year", "/h", "-1MiB/h", "x/h"] {
            assert!(slope(text).is_err(), "{text}");
        }
    }
}
