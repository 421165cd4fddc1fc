//! The start: opens the store, goes on with the steady line, and gives windows back the minutes they had.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::clock::Clock;
use super::pipeline::Pipeline;
use crate::config::Settings;
use crate::history::store::{Keeper, StoreError, StoreSettings, StoreWorker};
use crate::history::{CurrentLife, ProcessHistory, Retention};
use crate::model::{LeakState, LifeEnd, ProcessKey, Steady};

/// What the start found.
pub(super) struct Restored {
    /// The clocks, on the line of the run before.
    pub(super) clock: Clock,
    /// The histories that can go on.
    pub(super) pipeline: Pipeline,
    /// The store's thread; none where there is no state directory.
    pub(super) worker: Option<StoreWorker>,
    /// Whether the history was found damaged, so that some of what was kept may be missing.
    pub(super) damaged: bool,
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
        return Ok(Restored { clock: Clock::resume(None), pipeline, worker: None, damaged: false });
    };
    let provisional = Clock::resume(None);
    let mut keeper = Keeper::open(directory, store_settings(settings), provisional.now(), provisional.wall())?;
    let clock = Clock::resume(keeper.anchor(provisional.now()).as_ref());
    let now = clock.now();
    let (mut processes, mut minutes) = (0_usize, 0_usize);
    for (history, standing) in read(&mut keeper, &clock, retention(settings)).into_values() {
        minutes += history.minutes().len();
        processes += 1;
        pipeline.restore(history, standing, now);
    }
    tracing::info!(directory = %directory.display(), processes, minutes, "history restored");
    let ticking = clock.clone();
    keeper.tick(now, clock.wall());
    let damaged = keeper.stats(now).set_aside > 0;
    let worker = StoreWorker::start(keeper, Box::new(move || (ticking.now(), ticking.wall())))?;
    Ok(Restored { clock, pipeline, worker: Some(worker), damaged })
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

/// The histories of the processes that were there when the store was last written. Everything is taken in as it is read: what
/// a window holds is large before it is packed, and so are the histories of all that has come and gone.
fn read(keeper: &mut Keeper, clock: &Clock, retention: Retention) -> BTreeMap<ProcessKey, (ProcessHistory, Standing)> {
    let now = clock.now();
    let newest = retention.minute_of(now);
    let mut running = read_running(keeper, now);
    running.retain(|_, (current, _)| current.first_minute <= newest);
    let mut past: BTreeMap<ProcessKey, (ProcessHistory, Standing)> = BTreeMap::new();
    // pm2 gives numbers again: everything up to when a process was removed is another's. Lives come by start.
    let mut removed: BTreeMap<ProcessKey, Steady> = BTreeMap::new();
    keeper.visit_lives(now, |life| {
        if life.end == LifeEnd::Removed {
            past.remove(&life.key);
            removed.insert(life.key, life.last);
            return;
        }
        let ended = |(current, _): &Running| current.life == life.life && life.end != LifeEnd::Running;
        if running.get(&life.key).is_some_and(ended) {
            running.remove(&life.key);
        }
        let fresh = || (ProcessHistory::new(life.key.clone(), life.app.clone(), retention), None);
        past.entry(life.key.clone()).or_insert_with(fresh).0.restore_life(life);
    });
    let since = newest - i64::try_from(retention.minutes).unwrap_or(4320);
    keeper.scan(since, now, |key, _life, minute| {
        // A run that began while nothing could be read had a line of its own. What lies ahead on this one would push
        // everything else out of the window, and keep out what comes.
        if minute.minute <= newest
            && let Some((history, _)) = past.get_mut(key)
            && removed.get(key).is_none_or(|removed| *removed < retention.start_of(minute.minute))
        {
            history.restore_minute(&minute);
        }
    });
    for (key, (current, state)) in running {
        if let Some((history, standing)) = past.get_mut(&key) {
            history.resume(current);
            *standing = state;
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::store::MinuteRow;
    use crate::model::{Life, LifeSummary, Minute};

    const YEAR: i64 = 365 * 24 * 60;

    fn key(pm_id: u32) -> ProcessKey {
        ProcessKey { daemon: "default".into(), pm_id }
    }

    fn life(pm_id: u32, started: i64, end: LifeEnd) -> LifeSummary {
        LifeSummary {
            key: key(pm_id),
            app: "api".into(),
            life: Life { pid: 1, started },
            version: None,
            revision: None,
            first: Steady(started),
            last: Steady(started),
            end,
            floors: Vec::new(),
            resident_floors: Vec::new(),
            resident_max: 0.0,
            slope: None,
        }
    }

    fn kept(lives: &[LifeSummary], minutes: &[(u32, i64)]) -> BTreeMap<u32, Vec<i64>> {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::resume(None);
        let retention = Retention { minute: Duration::from_mins(1), minutes: 4320 };
        let newest = retention.minute_of(clock.now());
        let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), clock.now(), clock.wall()).unwrap();
        lives.iter().cloned().for_each(|life| keeper.put_life(life));
        keeper.append(minutes.iter().map(|(pm_id, at)| -> MinuteRow {
            (key(*pm_id), Life { pid: 1, started: 1 }, Minute { resident: 1.0, ..Minute::empty(newest + at) })
        }));
        keeper.flush(clock.now(), clock.wall());
        read(&mut keeper, &clock, retention)
            .into_iter()
            .map(|(key, (history, _))| {
                (key.pm_id, history.minutes().since(i64::MIN).map(|minute| minute.minute - newest).collect())
            })
            .collect()
    }

    #[test]
    fn rows_ahead_of_the_line_neither_push_others_out_nor_keep_new_ones_out() {
        let past = kept(&[life(0, 1, LifeEnd::Running)], &[(0, -2), (0, -1), (0, YEAR)]);
        assert_eq!(past, [(0, vec![-2, -1])].into());
    }

    #[test]
    fn what_was_removed_does_not_come_back() {
        let now = Clock::resume(None).now().0;
        let ago = |minutes: i64| now - minutes * 60_000;
        let lives = [
            life(0, ago(50), LifeEnd::Running),
            life(1, ago(50), LifeEnd::Removed),
            life(2, ago(50), LifeEnd::Removed),
            life(2, ago(2), LifeEnd::Running),
            life(3, ago(50), LifeEnd::Stopped),
        ];
        let past = kept(&lives, &[(0, -1), (1, -1), (2, -50), (2, -1), (3, -1), (4, -1)]);
        assert_eq!(past.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!((&past[&2], &past[&3]), (&vec![-1], &vec![-1]), "a number that was given again begins anew");
    }
}
