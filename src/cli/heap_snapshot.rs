//! `leakslope heap snapshot`: takes full snapshots of a running app, one after the other, and compares them.
//!
//! It picks the process, asks a running sidecar for its verdict, and prints each step; what is asked of the app, and what
//! is refused, is decided in `evidence::take`. The comparison is made here, since a sidecar has not the memory for it, and
//! its report is kept beside the last snapshot, where a sidecar finds it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use super::arguments::Flags;
use super::heap::{Format, SnapshotOptions, SourceOptions};
use super::heap_take::{Folder, OfWhom, deleted};
use super::output::{clean, print};
use super::signals::Signals;
use crate::collect::system::{MemoryRoom, SystemReader};
use crate::config::{self, Settings};
use crate::evidence::keep;
use crate::evidence::report::{self, SeriesReport};
use crate::evidence::snapshot::{HeapError, HeapErrorKind, Limits};
use crate::evidence::take::Target;
use crate::evidence::take::estimate::{WARM_UP, seconds};
use crate::evidence::take::series::{SeriesOrder, Snapshot, Step, snapshots};
use crate::export::json::ProcessesView;
use crate::model::{Bytes, LeakState};
use crate::runtime::Clock;

/// Time the running sidecar has to answer, and the most it may say.
const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 64 << 20;

/// The niceness of a comparison: the app comes first.
const LEAST_URGENT: i32 = 19;

/// `leakslope heap snapshot`.
#[derive(Debug, Clone, Args)]
pub struct SnapshotArguments {
    /// Of whom, and whereto
    #[command(flatten)]
    pub of: OfWhom,
    /// How many snapshots: three tell best what leaks
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub count: u32,
    /// How long the app goes on between two of them
    #[arg(long, default_value = "5m", value_parser = config::parse_duration)]
    pub wait: Duration,
    /// How long the app may stand still at each snapshot; without it no pause of more than a second, and none at all of
    /// an app's last healthy process
    #[arg(long = "i-accept-a-pause-of", value_name = "DURATION", value_parser = config::parse_duration)]
    pub accepted_pause: Option<Duration>,
    /// How long the app must have run [default: 5m, and until a running sidecar has learnt how it behaves]
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    pub warm_up: Option<Duration>,
}

pub(super) fn run(flags: &Flags, arguments: &SnapshotArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let folder = arguments.of.folder(flags, &settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ledger = super::heap_take::ledger(flags);
    let done = runtime.block_on(async {
        super::heap_take::close_left_open(&ledger).await?;
        let (target, who) = arguments.of.find(&settings).await?;
        let order = SeriesOrder {
            count: arguments.count,
            wait: arguments.wait,
            accepted_pause: arguments.accepted_pause,
            warm_up: arguments.warm_up,
            learning: learning(flags, &settings, &target).await,
            budget: folder.budget,
        };
        let few = if order.count == 1 { "one snapshot".to_owned() } else { format!("{} snapshots", order.count) };
        print(&format!("{few} of {who}; the app stands still during each\n"))?;
        if order.learning.is_none() {
            let warm_up = seconds(order.warm_up.unwrap_or(WARM_UP));
            print(&format!("no sidecar could be asked about it: {warm_up} of uptime count as warmed up\n"))?;
        }
        let clock = Clock::resume(None);
        let mut unprinted = None;
        let mut tell = |step: Step<'_>| {
            if let Err(error) = print(&text(step, order.count)) {
                unprinted.get_or_insert(error);
            }
        };
        let mut signals = Signals::listen()?;
        let ended = |(name, _)| anyhow!("ended by {name}; the snapshots that were taken are complete");
        let taken = tokio::select! {
            taken = snapshots(&target, &order, &ledger, &folder.path, || clock.wall(), &mut tell) => {
                taken.map_err(|error| anyhow!(clean(&error.to_string())))
            }
            signal = signals.any() => Err(ended(signal)),
        };
        let files = files(unprinted.map_or(taken, Err)?);
        print(AFTERWARDS)?;
        if files.len() > 1 {
            print("Comparing them now, at the lowest priority; they stay if you end that.\n")?;
        }
        let said = tokio::select! {
            said = reported(&files, &folder) => said,
            signal = signals.any() => return Err(ended(signal)),
        };
        print(&format!("{said}Next:\n  {}\n", by_hand(&files)))
    });
    // A comparison that was given up goes on until the process ends, which is now.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// Whether the running sidecar is still learning this very life; none where there is no sidecar or no verdict.
async fn learning(flags: &Flags, settings: &Settings, target: &Target) -> Option<bool> {
    let beside = super::beside(flags, settings, None).ok()?;
    let body = beside.get("/api/v1/processes", DEADLINE, LONGEST_ANSWER).await.ok()?;
    let view: ProcessesView = serde_json::from_slice(&body).ok()?;
    let same = view.processes.into_iter().find(|process| {
        process.daemon == target.key.daemon.as_str()
            && process.pm_id == target.key.pm_id
            && process.pid == Some(target.life.pid)
    });
    Some(same?.verdict?.state == LeakState::Learning.as_str())
}

fn text(step: Step<'_>, count: u32) -> String {
    match step {
        Step::Expected { number, heap, estimate } => format!(
            "{number} of {count}: a heap of {heap}; expected: a pause of {}, a file of {}, {} of memory meanwhile\n",
            seconds(estimate.pause),
            estimate.size,
            estimate.memory
        ),
        Step::MadeRoom(record) => deleted(record),
        Step::Taken(Snapshot { path, measured, resident: [before, after], .. }) => format!(
            "        taken: a pause of {:.1}s, a file of {}, resident memory {before} → {after}\n        {}\n",
            measured.pause.as_secs_f64(),
            measured.size,
            path.display()
        ),
        Step::Waiting(wait) => format!("        the app goes on for {}\n", seconds(wait)),
        Step::Ended(delay) => format!("\nThe app's event loop was {} ms late at the worst.\n", delay.as_millis()),
    }
}

/// What holds whatever the comparison says.
const AFTERWARDS: &str = "The app's inspector is as it was before. Its memory stays larger for a while: restart it when that suits.\n\
     The files hold everything the app had in memory, secrets, too.\n";

/// The last three are what a comparison takes.
fn files(taken: Vec<Snapshot>) -> Vec<PathBuf> {
    let first = taken.len().saturating_sub(3);
    taken.into_iter().skip(first).map(|snapshot| snapshot.path).collect()
}

/// What to do with the files.
fn by_hand(files: &[PathBuf]) -> String {
    let command = if files.len() > 1 { "diff" } else { "summary" };
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    format!("leakslope heap {command} {}", files.join(" "))
}

/// Compares the snapshots on a thread that gives way to everything else, and keeps the report beside the last of them.
/// Returns what to print: a report that cannot be kept is no reason to call the series failed.
async fn reported(files: &[PathBuf], folder: &Folder) -> String {
    let [_, .., last] = files else { return String::new() };
    let compared = files.to_owned();
    let comparing = tokio::task::spawn_blocking(move || {
        // Where that is not allowed it is done all the same.
        rustix::process::nice(LEAST_URGENT).ok();
        // It is this very process that takes the memory.
        match SystemReader::new("/proc".into()).room(std::process::id()) {
            Ok(room) => compare(&compared, room),
            Err(error) => SeriesReport::none(&error.to_string(), &by_hand(&compared)),
        }
    });
    let report = comparing.await.unwrap_or_else(|panicked| SeriesReport::none(&panicked.to_string(), &by_hand(files)));
    let kept = match keep_report(last, &report, folder) {
        Ok((path, gone)) => {
            let page = if folder.budget.is_some() { " (a sidecar shows it on the page of the process)" } else { "" };
            format!("{gone}The report: {}{page}\n", path.display())
        }
        Err(error) => format!("The report could not be kept: {}\n", clean(&format!("{error:#}"))),
    };
    format!("\nCompared: {}.\n{kept}", clean(&report.sentence))
}

/// Makes the report in half of the memory that is left, 2 GiB at the most, or says in it why it was not made.
fn compare(files: &[PathBuf], room: MemoryRoom) -> SeriesReport {
    let (half, most) = (Bytes(room.left.0 / 2), Bytes(Limits::default().memory));
    let options = SnapshotOptions {
        format: Format::Json,
        rows: report::CLASSES,
        findings: report::PLACES,
        show_strings: false,
        max_memory: half.min(most).0 >> 20,
        sources: SourceOptions::default(),
    };
    super::heap::diff(files, &options).map_or_else(
        |error| {
            let mut why = format!("{error:#}");
            if matches!(error.downcast_ref(), Some(HeapError { kind: HeapErrorKind::Memory { .. }, .. })) {
                let bound = if half < most {
                    format!("half of what the command may take: {room}")
                } else {
                    "the most that is taken without asking".to_owned()
                };
                why = format!("{why}, {bound}");
            }
            SeriesReport::none(&why, &by_hand(files))
        },
        |diff| SeriesReport::of(&diff),
    )
}

/// Writes the report beside its snapshot; with its path comes what was deleted for it.
fn keep_report(snapshot: &Path, report: &SeriesReport, folder: &Folder) -> anyhow::Result<(PathBuf, String)> {
    let bytes = report.write()?;
    let gone = match folder.budget {
        Some(budget) => keep::make_room(&folder.path, budget, Bytes(bytes.len() as u64))?,
        None => Vec::new(),
    };
    let path = keep::report_path(snapshot);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let path = keep::write_alone(&folder.path, &name, &bytes)?;
    Ok((path, gone.iter().map(deleted).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compared_is_told_with_figures_and_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let meta = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/heap/meta/node-20.json");
        let mut header: serde_json::Value = serde_json::from_slice(&std::fs::read(meta).unwrap()).unwrap();
        (header["node_count"], header["edge_count"]) = (1_000_000.into(), 0.into());
        let files = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&files[0], format!(r#"{{"snapshot":{header},"nodes":["#)).unwrap();
        let command = by_hand(&files);
        assert!(command.starts_with("leakslope heap diff /"), "{command}");
        let machine = |left| MemoryRoom { left: Bytes(left), group_limit: None };
        let group = MemoryRoom { group_limit: Some(Bytes(512 << 20)), ..machine(20 << 20) };
        for (room, why) in [
            (machine(20 << 20), "it needs about 66.8 MiB of memory to analyse and 10 MiB are allowed"),
            (
                machine(20 << 20),
                ", half of what the command may take: the machine has 20 MiB available; to do it by hand: ",
            ),
            (
                group,
                ", half of what the command may take: its control group has 20 MiB left of 512 MiB; to do it by hand: ",
            ),
            (machine(2 << 30), ": the file is cut off"),
        ] {
            let report = compare(&files, room);
            assert!(report.sentence.contains(why) && report.sentence.ends_with(&command), "{}", report.sentence);
            assert_eq!(report.growth, None);
        }
    }

    #[test]
    fn a_report_makes_room_for_itself_and_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let snapshot = place.path().join("a.3.heapsnapshot");
        std::fs::write(&snapshot, "").unwrap();
        let folder = |budget| Folder { path: place.path().to_owned(), budget };
        let report = SeriesReport::none("a test", "a command");
        let refused = keep_report(&snapshot, &report, &folder(Some(Bytes(10)))).unwrap_err().to_string();
        assert!(refused.contains("evidence may take 10 B"), "{refused}");
        let (path, gone) = keep_report(&snapshot, &report, &folder(Some(Bytes(4096)))).unwrap();
        assert_eq!((path.as_path(), gone.as_str()), (keep::report_path(&snapshot).as_path(), ""));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(keep::report(&snapshot).unwrap().unwrap(), report);
        let twice = keep_report(&snapshot, &report, &folder(None)).unwrap_err().to_string();
        assert!(twice.contains("a.3.heapsnapshot.report: File exists"), "{twice}");
    }
}
