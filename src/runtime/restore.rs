//! The start: opens the store, goes on with the steady line, and gives windows back the minutes they had.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::clock::Clock;
use super::pipeline::Pipeline;
use crate::config::Settings;
use crate::history::store::{Keeper, LifeFilter, StoreError, StoreSettings, StoreWorker};
use crate::history::{CurrentLife, ProcessHistory, Retention};
use crate::model::{LeakState, LifeEnd, LifeSummary, Minute, ProcessKey, Steady};

/// What the start found.
pub(super) struct Restored {
    /// The clocks, on the line of the run before.
    pub(super) clock: Clock,
    /// The histories that can go on.
    pub(super) pipeline: Pipeline,
    /// The store's thread; none where there is no state directory.
    pub(super) worker: Option<StoreWorker>,
}

/// Opens what an earlier run left.
///
/// # Errors
/// [`StoreError`] where another sidecar holds the directory or the system gives no thread.
pub(super) fn open(directory: Option<&Path>, settings: &Settings) -> Result<Restored, StoreError> {
    let mut pipeline = Pipeline::new(retention(settings), settings.trend.clone());
    let Some(directory) = directory else {
        tracing::warn!(
            "no state directory ($STATE_DIRECTORY, $XDG_STATE_HOME or $HOME): history is kept in memory only"
        );
        return Ok(Restored { clock: Clock::resume(None), pipeline, worker: None });
    };
    let provisional = Clock::resume(None);
    let mut keeper = Keeper::open(directory, store_settings(settings), provisional.now(), provisional.wall())?;
    let clock = Clock::resume(keeper.anchor(provisional.now()).as_ref());
    let now = clock.now();
    let (mut processes, mut minutes) = (0_usize, 0_usize);
    for (key, past) in read(&mut keeper, &clock, retention(settings)) {
        minutes += past.minutes.len();
        let standing = past.standing;
        if let Some(history) = past.into_history(key, retention(settings)) {
            processes += 1;
            pipeline.restore(history, standing, now);
        }
    }
    tracing::info!(directory = %directory.display(), processes, minutes, "history restored");
    let ticking = clock.clone();
    keeper.tick(now, clock.wall());
    let worker = StoreWorker::start(keeper, Box::new(move || (ticking.now(), ticking.wall())))?;
    Ok(Restored { clock, pipeline, worker: Some(worker) })
}

fn retention(settings: &Settings) -> Retention {
    let minute = settings.trend.minute;
    let minutes = settings.history.window.as_secs() / 60;
    // The window is told in real hours; with a shorter minute it holds as many rows in less time.
    Retention { minute, minutes: usize::try_from(minutes).unwrap_or(4320) }
}

fn store_settings(settings: &Settings) -> StoreSettings {
    StoreSettings {
        minutes_age: settings.history.window + Duration::from_hours(24),
        lives_age: settings.history.lives,
        bytes_max: settings.history.max_size,
        ..StoreSettings::default()
    }
}

/// What the store knows of one process.
#[derive(Default)]
struct Past {
    minutes: Vec<Minute>,
    current: Option<CurrentLife>,
    standing: Standing,
    lives: Vec<LifeSummary>,
}

/// The state a running life was in and since when, once it was judged.
type Standing = Option<(LeakState, Steady)>;

/// The name of the store's entries that hold the lives that were running, so many in each.
const RUNNING: &str = "running";
const RUNNING_IN_ONE: usize = 1000;

/// The entries that remember which lives are running, by name; to be saved when one begins and from time to time.
pub(super) fn running(pipeline: &Pipeline) -> Vec<(String, Vec<u8>)> {
    let running: Vec<(&ProcessKey, &CurrentLife, Standing)> = pipeline
        .histories()
        .filter_map(|history| {
            let key = history.key();
            Some((key, history.current()?, pipeline.standing(key)))
        })
        .collect();
    let mut entries: Vec<(String, Vec<u8>)> = running
        .chunks(RUNNING_IN_ONE)
        .enumerate()
        .filter_map(|(part, lives)| Some((format!("{RUNNING}/{part}"), serde_json::to_vec(lives).ok()?)))
        .collect();
    // An empty entry ends the list: what an earlier run left behind it is not read.
    entries.push((format!("{RUNNING}/{}", entries.len()), b"[]".to_vec()));
    entries
}

/// A running life with its standing.
type Running = (CurrentLife, Standing);

fn read_running(keeper: &mut Keeper, now: Steady) -> BTreeMap<ProcessKey, Running> {
    let mut running = BTreeMap::new();
    for part in 0.. {
        let Ok(Some(entry)) = keeper.state(&format!("{RUNNING}/{part}"), now) else { break };
        match serde_json::from_slice::<Vec<(ProcessKey, CurrentLife, Standing)>>(&entry) {
            Ok(lives) if lives.is_empty() => break,
            Ok(lives) => running.extend(lives.into_iter().map(|(key, life, state)| (key, (life, state)))),
            Err(error) => tracing::warn!(%error, "the list of running lives cannot be read; their windows start anew"),
        }
    }
    running
}

fn read(keeper: &mut Keeper, clock: &Clock, retention: Retention) -> BTreeMap<ProcessKey, Past> {
    let mut past: BTreeMap<ProcessKey, Past> = BTreeMap::new();
    let now = clock.now();
    let newest = retention.minute_of(now);
    for (key, (current, standing)) in read_running(keeper, now) {
        let past = past.entry(key).or_default();
        if current.first_minute <= newest {
            (past.current, past.standing) = (Some(current), standing);
        }
    }
    let since = newest - i64::try_from(retention.minutes).unwrap_or(4320);
    keeper.scan(since, now, |key, _life, minute| {
        // A run that began while the store could not be read had a line of its own. What lies ahead on this one would push
        // everything else out of the window, and keep out what comes.
        if minute.minute <= newest {
            past.entry(key.clone()).or_default().minutes.push(minute);
        }
    });
    for summary in keeper.lives(&LifeFilter::default(), now) {
        if let Some(past) = past.get_mut(&summary.key) {
            past.lives.push(summary);
        }
    }
    past
}

impl Past {
    /// The history of a process that was running or has lived before; none where only minutes are left.
    fn into_history(mut self, key: ProcessKey, retention: Retention) -> Option<ProcessHistory> {
        let app = self.lives.last().map(|summary| summary.app.clone())?;
        self.minutes.sort_by_key(|minute| minute.minute);
        let ended = |life: &CurrentLife| {
            self.lives.iter().any(|summary| summary.life == life.life && summary.end != LifeEnd::Running)
        };
        let current = self.current.filter(|life| !ended(life));
        let earlier = self.lives.iter().filter(|summary| summary.end != LifeEnd::Running).cloned();
        let mut history = ProcessHistory::new(key, app, retention);
        history.restore(current, self.minutes, earlier);
        Some(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::store::MinuteRow;
    use crate::model::Life;

    #[test]
    fn rows_ahead_of_the_line_neither_push_others_out_nor_keep_new_ones_out() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::resume(None);
        let retention = Retention { minute: Duration::from_mins(1), minutes: 4320 };
        let newest = retention.minute_of(clock.now());
        let key = ProcessKey { daemon: "default".into(), pm_id: 0 };
        let year = 365 * 24 * 60;
        let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), clock.now(), clock.wall()).unwrap();
        let row = |minute| -> MinuteRow { (key.clone(), Life { pid: 1, started: 1 }, Minute::empty(minute)) };
        keeper.append([newest - 2, newest - 1, newest + year].map(row));
        let minutes: Vec<i64> =
            read(&mut keeper, &clock, retention)[&key].minutes.iter().map(|minute| minute.minute).collect();
        assert_eq!(minutes, [newest - 2, newest - 1]);
    }
}
