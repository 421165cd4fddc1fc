//! `leakslope heap snapshot`: takes full snapshots of a running app, one after the other, for `heap diff`.
//!
//! It picks the process, asks a running sidecar for its verdict, and prints each step; what is asked of the app, and what
//! is refused, is decided in `evidence::take`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use super::arguments::Flags;
use super::heap_take::{OfWhom, deleted};
use super::output::{clean, print};
use super::signals::Signals;
use crate::config::{self, Settings};
use crate::evidence::take::Target;
use crate::evidence::take::estimate::{WARM_UP, seconds};
use crate::evidence::take::series::{SeriesOrder, Snapshot, Step, snapshots};
use crate::export::json::ProcessesView;
use crate::model::LeakState;
use crate::runtime::Clock;

/// Time the running sidecar has to answer, and the most it may say.
const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 64 << 20;

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
    let taken = runtime.block_on(async {
        let (target, who) = arguments.of.find(&settings).await?;
        let order = SeriesOrder {
            count: arguments.count,
            wait: arguments.wait,
            accepted_pause: arguments.accepted_pause,
            warm_up: arguments.warm_up,
            learning: learning(&settings, &target).await,
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
        let taken = tokio::select! {
            taken = snapshots(&target, &order, &folder.path, || clock.wall(), &mut tell) => {
                taken.map_err(|error| anyhow!(clean(&error.to_string())))
            }
            (name, _) = signals.any() => Err(anyhow!("ended by {name}; the snapshots that were taken are complete")),
        };
        unprinted.map_or(taken, Err)
    })?;
    print(&next(&taken))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the running sidecar is still learning this very life; none where there is no sidecar or no verdict.
async fn learning(settings: &Settings, target: &Target) -> Option<bool> {
    let beside = super::beside(settings, None).ok()?;
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
    }
}

/// What to do with the files.
fn next(taken: &[Snapshot]) -> String {
    // The last three are what a comparison takes.
    let files: Vec<String> =
        taken[taken.len().saturating_sub(3)..].iter().map(|snapshot| snapshot.path.display().to_string()).collect();
    let command = if files.len() > 1 { "diff" } else { "summary" };
    format!(
        "\nThe app's inspector is as it was before. Its memory stays larger for a while: restart it when that suits.\n\
         The files hold everything the app had in memory, secrets, too. Next:\n  leakslope heap {command} {}\n",
        files.join(" ")
    )
}
