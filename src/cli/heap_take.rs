//! `leakslope heap profile`: takes a sampling heap profile of a running app and tells what it shows.
//!
//! It picks the process and prints; what is asked of the app is decided in `evidence::take`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::arguments::Flags;
use super::output::{clean, print};
use super::signals::Signals;
use crate::config;
use crate::evidence::keep::{self, Cost, Road, Trigger};
use crate::evidence::take::{self, LARGEST_PROFILE, ProfileOrder, SAMPLING_INTERVAL, Target};
use crate::model::DaemonName;
use crate::runtime::Clock;

/// `leakslope heap profile`.
#[derive(Debug, Clone, Args)]
pub struct TakeArguments {
    /// The app's name in pm2
    pub app: String,
    /// Only of this daemon
    #[arg(long, value_name = "NAME")]
    pub daemon: Option<String>,
    /// This process of the app; else the one with the largest heap
    #[arg(long, value_name = "N")]
    pub pm_id: Option<u32>,
    /// How long allocations are sampled, from 1s to 1h
    #[arg(long, default_value = "30s", value_parser = config::parse_duration)]
    pub duration: Duration,
    /// Where to keep the profile [default: `evidence` in the state directory, else the current folder]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags, arguments: &TakeArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let kept = config::state_directory(&flags.surroundings()).map(|state| state.join(keep::FOLDER));
    let folder = arguments.output.clone().unwrap_or_else(|| super::evidence_folder(flags));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let taken = runtime.block_on(async {
        let (mut targets, mut failures) = (Vec::new(), Vec::new());
        let named = |name: &DaemonName| arguments.daemon.as_deref().is_none_or(|wanted| name.as_str() == wanted);
        for daemon in settings.daemons.iter().filter(|daemon| named(&daemon.name)) {
            match take::targets(&daemon.name, &daemon.home, &arguments.app).await {
                Ok(found) => targets.extend(found),
                Err(failure) => failures.push(format!("; pm2 {}: {failure}", daemon.name)),
            }
        }
        let count = targets.len();
        let Some(target) = pick(targets, arguments.pm_id) else {
            let app = clean(&arguments.app);
            let number = arguments.pm_id.map(|number| format!(" with pm_id {number}")).unwrap_or_default();
            bail!("no running process of {app}{number}{}", clean(&failures.concat()));
        };
        let (name, seconds) = (clean(target.app.as_str()), arguments.duration.as_secs_f64());
        let why = if count > 1 && arguments.pm_id.is_none() {
            format!(" (of {count} processes the one with the largest heap)")
        } else {
            String::new()
        };
        let what = format!("sampling allocations of {name} ({}){why} for {seconds} s", target.key);
        print(&format!("{what}; the app goes on meanwhile\n"))?;
        let at = Clock::resume(None).wall();
        let (duration, sampling_interval, trigger) = (arguments.duration, SAMPLING_INTERVAL, Trigger::Person);
        let order = ProfileOrder { duration, sampling_interval, at, trigger };
        // Elsewhere than in the state directory nothing is deleted.
        if kept.as_ref() == Some(&folder) {
            for gone in keep::make_room(&folder, settings.evidence.max_disk, LARGEST_PROFILE)? {
                print(&format!("{} was deleted to make room (evidence.max_disk)\n", clean(&gone.file)))?;
            }
        }
        let mut signals = Signals::listen()?;
        // Given up half-way, the profile leaves the app as it was before.
        tokio::select! {
            taken = take::profile(&target, &order, &folder) => taken.map_err(|error| anyhow::anyhow!(clean(&error.to_string()))),
            (name, _) = signals.any() => Err(anyhow::anyhow!("ended by {name}; no profile was taken")),
        }
    })?;
    let mut text = Vec::new();
    super::heap::summarise_profile(&mut text, &taken.path).context("the profile was taken")?;
    print(&String::from_utf8_lossy(&text))?;
    print(&format!("\n{}{} ({})\n", told(taken.cost), taken.path.display(), taken.size))?;
    Ok(ExitCode::SUCCESS)
}

/// How the app was looked into and what that cost it, where there is something to tell.
fn told(cost: Cost) -> String {
    let how = match cost.road {
        Road::Pm2Action => return String::new(),
        Road::Inspector => "Taken through the app's inspector, which is as it was before",
    };
    let pause =
        cost.pause_seconds.map(|pause| format!("; its event loop was {:.0} ms late at the worst", pause * 1000.0));
    format!("{how}{}.\n", pause.unwrap_or_default())
}

/// The process with this number, or the one with the largest heap.
fn pick(targets: Vec<Target>, pm_id: Option<u32>) -> Option<Target> {
    let wanted = targets.into_iter().filter(|target| pm_id.is_none_or(|number| target.key.pm_id == number));
    wanted.max_by_key(|target| (target.heap_used, std::cmp::Reverse(target.key.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Life, ProcessKey};

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
