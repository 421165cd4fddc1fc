//! `leakslope heap profile`: takes a sampling heap profile of a running app and tells what it shows.
//!
//! It picks the process and prints; what is asked of the app is decided in `evidence::take`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::arguments::Flags;
use super::output::{clean, print};
use super::signals::Signals;
use crate::config::{self, Settings};
use crate::evidence::keep::{self, Record, Road, Trigger};
use crate::evidence::take::{self, Closer, LARGEST_PROFILE, Ledger, ProfileOrder, SAMPLING_INTERVAL, Taken, Target};
use crate::model::{Bytes, DaemonName};
use crate::runtime::Clock;

/// Which process of which app, and where its evidence goes.
#[derive(Debug, Clone, Args)]
pub struct OfWhom {
    /// The app's name in pm2
    pub app: String,
    /// Only of this daemon
    #[arg(long, value_name = "NAME")]
    pub daemon: Option<String>,
    /// This process of the app; else the one with the largest heap
    #[arg(long, value_name = "N")]
    pub pm_id: Option<u32>,
    /// Where to keep it [default: `evidence` in the state directory, else the current folder]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// `leakslope heap profile`.
#[derive(Debug, Clone, Args)]
pub struct TakeArguments {
    /// Of whom, and whereto
    #[command(flatten)]
    pub of: OfWhom,
    /// How long allocations are sampled, from 1s to 1h
    #[arg(long, default_value = "30s", value_parser = config::parse_duration)]
    pub duration: Duration,
    /// Go through the app's inspector even where pm2's agent is in it: inlined functions are told apart then
    #[arg(long)]
    pub inspector: bool,
}

/// A folder for evidence.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// What evidence may take there; none elsewhere than in the state directory, where nothing is deleted.
    pub(super) budget: Option<Bytes>,
}

impl OfWhom {
    /// Where the evidence goes.
    pub(super) fn folder(&self, flags: &Flags, settings: &Settings) -> Folder {
        let kept = super::evidence_folder(flags);
        let path = self.output.clone().unwrap_or_else(|| kept.clone());
        let budget = (path == kept && config::state_directory(&flags.surroundings()).is_some())
            .then_some(settings.evidence.max_disk);
        Folder { path, budget }
    }

    /// Finds the process, and says why it is this one where there was a choice.
    pub(super) async fn find(&self, settings: &Settings) -> anyhow::Result<(Target, String)> {
        let (mut targets, mut failures) = (Vec::new(), Vec::new());
        let named = |name: &DaemonName| self.daemon.as_deref().is_none_or(|wanted| name.as_str() == wanted);
        for daemon in settings.daemons.iter().filter(|daemon| named(&daemon.name)) {
            match take::targets(&daemon.name, &daemon.home, &self.app).await {
                Ok(found) => targets.extend(found),
                Err(failure) => failures.push(format!("; pm2 {}: {failure}", daemon.name)),
            }
        }
        let count = targets.len();
        let Some(target) = pick(targets, self.pm_id) else {
            let app = clean(&self.app);
            let number = self.pm_id.map(|number| format!(" with pm_id {number}")).unwrap_or_default();
            bail!("no running process of {app}{number}{}", clean(&failures.concat()));
        };
        let why = if count > 1 && self.pm_id.is_none() {
            format!(" (of {count} processes the one with the largest heap)")
        } else {
            String::new()
        };
        let who = format!("{} ({}){why}", clean(&target.app.to_string()), target.key);
        Ok((target, who))
    }
}

pub(super) fn run(flags: &Flags, arguments: &TakeArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let folder = arguments.of.folder(flags, &settings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ledger = ledger(flags);
    let taken = runtime.block_on(async {
        close_left_open(&ledger).await?;
        let (target, who) = arguments.of.find(&settings).await?;
        let seconds = arguments.duration.as_secs_f64();
        print(&format!("sampling allocations of {who} for {seconds} s; the app goes on meanwhile\n"))?;
        let at = Clock::resume(None).wall();
        let (duration, sampling_interval, trigger) = (arguments.duration, SAMPLING_INTERVAL, Trigger::Person);
        let inspector = arguments.inspector;
        let order = ProfileOrder { duration, sampling_interval, at, trigger, opens: true, inspector };
        if let Some(budget) = folder.budget {
            for gone in keep::make_room(&folder.path, budget, LARGEST_PROFILE)? {
                print(&deleted(&gone))?;
            }
        }
        let mut signals = Signals::listen()?;
        // Given up half-way, the profile leaves the app as it was before.
        tokio::select! {
            taken = take::profile(&target, &order, &ledger, &folder.path) => {
                taken.map_err(|error| anyhow!(clean(&error.to_string())))
            }
            (name, _) = signals.any() => Err(anyhow!("ended by {name}; no profile was taken")),
        }
    })?;
    let mut text = Vec::new();
    super::heap::summarise_profile(&mut text, &taken.path).context("the profile was taken")?;
    print(&String::from_utf8_lossy(&text))?;
    for note in &taken.notes {
        print(&format!("\nnote: {}\n", clean(note)))?;
    }
    print(&format!("\n{}{} ({})\n", told(&taken), taken.path.display(), taken.size))?;
    Ok(ExitCode::SUCCESS)
}

/// Where it is kept which inspectors are open.
pub(super) fn ledger(flags: &Flags) -> Ledger {
    Ledger::new(config::state_directory(&flags.surroundings()).as_deref())
}

/// Closes the inspectors that a command which was killed has left open, and tells of it.
pub(super) async fn close_left_open(ledger: &Ledger) -> anyhow::Result<()> {
    for left in Closer::new(ledger.clone()).close(Clock::resume(None).wall()).await {
        print(&format!("{}\n", clean(&left.sentence)))?;
    }
    Ok(())
}

/// Tells that older evidence is gone.
pub(super) fn deleted(record: &Record) -> String {
    format!("{} was deleted to make room (evidence.max_disk)\n", clean(&record.file))
}

/// How the app was looked into and what that cost it, where there is something to tell.
fn told(taken: &Taken) -> String {
    let cost = taken.cost;
    let after = match (cost.road, &taken.still_open) {
        (Road::Pm2Action, _) => return String::new(),
        (Road::Inspector, None) => "it is as it was before",
        (Road::Inspector, Some(still_open)) => still_open,
    };
    let pause =
        cost.pause_seconds.map(|pause| format!("; its event loop was {:.0} ms late at the worst", pause * 1000.0));
    format!("Taken through the app's inspector: {after}{}.\n", pause.unwrap_or_default())
}

/// The process with this number, or the one with the largest heap.
fn pick(targets: Vec<Target>, pm_id: Option<u32>) -> Option<Target> {
    let wanted = targets.into_iter().filter(|target| pm_id.is_none_or(|number| target.key.pm_id == number));
    wanted.max_by_key(|target| (target.heap_used, std::cmp::Reverse(target.key.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Life, ProcessKey};

    #[test]
    fn the_largest_heap_is_picked_unless_a_process_is_named() {
        let target = |pm_id, heap: Option<u64>| Target {
            home: PathBuf::new(),
            key: ProcessKey { daemon: "default".into(), pm_id },
            app: "api".into(),
            life: Life { pid: 1, started: 1 },
            heap_used: heap.map(Bytes),
        };
        let all = vec![target(0, None), target(1, Some(9)), target(2, Some(5))];
        assert_eq!(pick(all.clone(), None).unwrap().key.pm_id, 1);
        assert_eq!(pick(all.clone(), Some(2)).unwrap().key.pm_id, 2);
        assert_eq!(pick(all, Some(7)), None);
    }
}
