//! A store that may be unable to write: it never fails to take a minute, and never lies about where it is.
//!
//! Every write is laid down in memory first and saved at the next [`Keeper::flush`]. When that fails, the database is
//! opened again with growing pauses, and everything that can be read is answered from disk and memory together. No clock: the
//! time is an argument.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::anchor::ClockAnchor;
use super::database::{Store, StoreSize};
use super::error::{Notice, StoreError, StoreErrorKind};
use super::file::{self, Opener, PlainFile};
use super::reading;
use super::retention::Pruned;
use super::settings::StoreSettings;
use super::unsaved::{AuditEntry, LifeFilter, MinuteRow, Unsaved};
use model::{Life, LifeSummary, Minute, ProcessKey, Steady, WallTime};

/// The first pause after a failure; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How often old history is forgotten.
const PRUNE_EVERY: Duration = Duration::from_hours(1);
/// How often at most it is forgotten because the file is too large.
const PRUNE_FULL_EVERY: Duration = Duration::from_mins(5);

/// Where a write is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// On disk: it outlives the end of the process.
    OnDisk,
    /// In memory only, for this reason; it goes to disk when that is possible again.
    InMemory(Arc<str>),
}

/// The state of the store, as metrics and the page show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// What the file holds, as of the last time it could be read.
    pub size: StoreSize,
    /// Why nothing can be written now; none while all is well.
    pub degraded: Option<Arc<str>>,
    /// Minutes that wait in memory.
    pub unsaved_minutes: u64,
    /// Minutes that were dropped because too many waited, since the start.
    pub dropped_minutes: u64,
    /// When something was last saved.
    pub last_saved: Option<Steady>,
    /// Transactions that were saved, since the start.
    pub saves: u64,
    /// Attempts to save that failed, since the start.
    pub failures: u64,
    /// Damaged files that were set aside, since the start.
    pub set_aside: u64,
}

#[derive(Debug)]
struct Problem {
    reason: Arc<str>,
    /// The next attempt; none where no attempt can help.
    retry_at: Option<Steady>,
    pause: Duration,
    dropped_before: u64,
}

/// A store with what waits for it.
#[derive(Debug)]
pub struct Keeper {
    directory: PathBuf,
    settings: StoreSettings,
    opener: Arc<dyn Opener>,
    store: Option<Store>,
    unsaved: Unsaved,
    problem: Option<Problem>,
    /// Damage that showed in use; the next flush sets the file aside.
    damage: Option<String>,
    notices: Vec<Notice>,
    last_prune: Option<Steady>,
    stats: StoreStats,
}

impl Keeper {
    /// Opens the history of a state directory; where that cannot be written, history is kept in memory and the
    /// directory tried again. [`Keeper::take_notices`] tells what happened.
    ///
    /// # Errors
    /// Only [`StoreErrorKind::Locked`]: two sidecars never share one state directory.
    pub fn open(directory: &Path, settings: StoreSettings, now: Steady, wall: WallTime) -> Result<Self, StoreError> {
        Self::open_with(directory, settings, now, wall, Arc::new(PlainFile))
    }

    pub(crate) fn open_with(
        directory: &Path,
        settings: StoreSettings,
        now: Steady,
        wall: WallTime,
        opener: Arc<dyn Opener>,
    ) -> Result<Self, StoreError> {
        let mut keeper = Self {
            directory: directory.to_owned(),
            settings,
            opener,
            store: None,
            unsaved: Unsaved::default(),
            problem: None,
            damage: None,
            notices: Vec::new(),
            last_prune: None,
            stats: StoreStats::default(),
        };
        match keeper.ensure_open(wall) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, StoreErrorKind::Locked { .. }) => return Err(error),
            Err(error) => keeper.note(&error, now),
        }
        Ok(keeper)
    }

    /// The state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What happened since this was last asked, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Puts other bounds in force.
    pub fn set_settings(&mut self, settings: StoreSettings) {
        self.settings = settings.clone();
        if let Some(store) = &mut self.store {
            store.set_settings(settings);
        }
    }

    /// Takes minutes; they are saved at the next flush.
    pub fn append(&mut self, rows: impl IntoIterator<Item = MinuteRow>) {
        self.stats.dropped_minutes += self.unsaved.add_minutes(rows, self.settings.unsaved_minutes_max);
    }

    /// Takes a summary; it is saved at the next flush.
    pub fn put_life(&mut self, summary: LifeSummary) {
        self.unsaved.add_life(summary);
    }

    /// Takes a piece of durable state, or removes it; it is saved at the next flush.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`].
    pub fn put_state(&mut self, name: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.unsaved.add_state(name, value).map_err(|kind| StoreError::new(&self.directory, kind))
    }

    /// Takes an audit entry and returns its place; it is saved at the next flush.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`].
    pub fn append_audit(&mut self, at: Steady, body: Vec<u8>) -> Result<u64, StoreError> {
        let waiting = self.unsaved.audit.back().map_or(0, |entry| entry.sequence);
        let saved = self.store.as_ref().map_or(1, Store::next_audit);
        let sequence = saved.max(waiting.saturating_add(1));
        self.unsaved
            .add_audit(AuditEntry { sequence, at, body })
            .map_err(|kind| StoreError::new(&self.directory, kind))?;
        Ok(sequence)
    }

    /// Takes where the steady line is; it is saved at the next flush.
    pub fn put_anchor(&mut self, anchor: ClockAnchor) {
        self.unsaved.anchor = Some(anchor);
    }

    /// Saves what waits, unless a failure was too short ago.
    pub fn flush(&mut self, now: Steady, wall: WallTime) -> Saved {
        // A time further off than any pause is on another line: that of a start at which this one was not known yet.
        let waits = |at: Steady| now < at && at.since(now) <= PAUSE_MAX;
        if let Some(problem) = &self.problem
            && problem.retry_at.is_none_or(waits)
        {
            return Saved::InMemory(problem.reason.clone());
        }
        if self.is_at_rest() {
            return Saved::OnDisk;
        }
        match self.try_flush(wall) {
            Ok(()) => {
                let minutes = self.unsaved.minutes.len() as u64;
                self.unsaved = Unsaved::default();
                self.stats.saves += 1;
                self.stats.last_saved = Some(now);
                if let Some(problem) = self.problem.take() {
                    let dropped = self.stats.dropped_minutes - problem.dropped_before;
                    self.notices.push(Notice::Recovered { minutes, dropped });
                }
                Saved::OnDisk
            }
            Err(error) => {
                self.note(&error, now);
                Saved::InMemory(self.problem.as_ref().map_or_else(|| error.to_string().into(), |p| p.reason.clone()))
            }
        }
    }

    fn try_flush(&mut self, wall: WallTime) -> Result<(), StoreError> {
        let saved = self.save(wall);
        if !saved.as_ref().is_err_and(StoreError::wants_room) {
            return saved;
        }
        // What is damaged makes room.
        let forgotten = file::forget_damaged(&self.directory, 0).unwrap_or_default();
        if forgotten.is_empty() {
            return saved;
        }
        self.notices.extend(forgotten);
        self.save(wall)
    }

    fn save(&mut self, wall: WallTime) -> Result<(), StoreError> {
        self.ensure_open(wall)?;
        // The file, and a fresh one.
        for _ in 0..2 {
            if let Some(reason) = self.damage.take() {
                self.set_aside(wall, reason)?;
            }
            let Some(store) = &mut self.store else { break };
            match store.save(&self.unsaved) {
                Err(StoreError { kind: StoreErrorKind::Damaged(reason), .. }) => self.damage = Some(reason),
                other => return other,
            }
        }
        let reason = self.damage.clone().unwrap_or_else(|| "a fresh history cannot be used".to_owned());
        Err(StoreError::new(&self.directory, StoreErrorKind::Damaged(reason)))
    }

    fn set_aside(&mut self, wall: WallTime, reason: String) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let notices = store.set_aside(wall, reason)?;
        self.take_in(notices);
        Ok(())
    }

    fn take_in(&mut self, notices: Vec<Notice>) {
        let aside = notices.iter().filter(|notice| matches!(notice, Notice::SetAside { .. })).count();
        self.stats.set_aside += aside as u64;
        self.notices.extend(notices);
    }

    fn ensure_open(&mut self, wall: WallTime) -> Result<(), StoreError> {
        let notices = match &mut self.store {
            Some(store) if store.is_open() => return Ok(()),
            Some(_) if self.damage.is_some() => return Ok(()),
            Some(store) => store.reopen(wall)?,
            None => {
                let (store, notices) =
                    Store::open_with(&self.directory, self.settings.clone(), wall, self.opener.clone())?;
                self.store = Some(store);
                notices
            }
        };
        self.take_in(notices);
        Ok(())
    }

    /// Remembers a failure and when to try again.
    fn note(&mut self, error: &StoreError, now: Steady) {
        self.stats.failures += 1;
        if error.is_missing() {
            // The lock is gone with the directory, so everything has to be made anew.
            self.store = None;
        }
        let reason: Arc<str> = error.to_string().into();
        let (pause, known, dropped_before) = match &self.problem {
            None => (PAUSE_FIRST, None, self.stats.dropped_minutes),
            Some(problem) => ((problem.pause * 2).min(PAUSE_MAX), Some(problem.reason.clone()), problem.dropped_before),
        };
        if known.as_ref() != Some(&reason) {
            self.notices.push(Notice::Degraded(reason.to_string()));
        }
        let may_pass = error.is_passing() || matches!(error.kind, StoreErrorKind::Locked { .. });
        let retry_at = may_pass.then(|| now + pause);
        self.problem = Some(Problem { reason, retry_at, pause, dropped_before });
    }

    /// Whether all is saved and well, so that nothing is due but to forget what is old.
    pub fn is_at_rest(&self) -> bool {
        self.problem.is_none() && self.damage.is_none() && self.unsaved.is_empty()
    }

    /// What is due by now: another attempt to save, forgetting what is old. Call it every few seconds, or every minute while
    /// the keeper [is at rest](Self::is_at_rest).
    pub fn tick(&mut self, now: Steady, wall: WallTime) {
        if self.flush(now, wall) != Saved::OnDisk {
            return;
        }
        let since = self.last_prune.map(|last| now.since(last));
        let too_large = || self.store.as_ref().is_some_and(Store::is_too_large);
        let due = since.is_none_or(|since| since >= PRUNE_EVERY || (since >= PRUNE_FULL_EVERY && too_large()));
        if due {
            self.prune(now);
        }
    }

    /// Forgets what is older or more than the settings allow. None where the disk cannot be written now.
    pub fn prune(&mut self, now: Steady) -> Option<Pruned> {
        self.last_prune = Some(now);
        self.ask(now, |store| store.prune(now))
    }

    /// Asks the store; a failure is remembered and leads to another attempt to open it.
    fn ask<T>(&mut self, now: Steady, ask: impl FnOnce(&mut Store) -> Result<T, StoreError>) -> Option<T> {
        let store = self.store.as_mut().filter(|store| store.is_open())?;
        match ask(store) {
            Ok(answer) => Some(answer),
            Err(error) => {
                if let StoreErrorKind::Damaged(reason) = &error.kind {
                    // Set aside by the next flush, which must not wait: a damaged file does not heal.
                    self.damage = Some(reason.clone());
                    self.stats.failures += 1;
                } else {
                    self.note(&error, now);
                }
                None
            }
        }
    }

    /// The minutes of one life from the minute `since` on, in time order: saved ones as far as the disk can be read,
    /// and all that wait.
    pub fn minutes(&mut self, key: &ProcessKey, life: Life, since: i64, now: Steady) -> Vec<Minute> {
        let saved =
            self.ask(now, |store| store.read(|read| reading::minutes(read, key, life, since))).unwrap_or_default();
        self.unsaved.lay_minutes(key, life, since, saved)
    }

    /// Visits every minute from the minute `since` on; see [`Store::scan`]. Those that wait come last.
    pub fn scan(&mut self, since: i64, now: Steady, mut visit: impl FnMut(&ProcessKey, Life, Minute)) {
        self.ask(now, |store| store.read(|read| reading::scan(read, since, &mut visit)));
        for (key, life, minute) in self.unsaved.minutes.iter().filter(|row| row.2.minute >= since) {
            visit(key, *life, *minute);
        }
    }

    /// The summaries that pass the filter, by start: saved ones as far as the disk can be read, and all that wait.
    pub fn lives(&mut self, filter: &LifeFilter, now: Steady) -> Vec<LifeSummary> {
        let saved = self.ask(now, |store| store.read(|read| reading::lives(read, filter))).unwrap_or_default();
        self.unsaved.lay_lives(filter, saved)
    }

    /// Visits every summary, by start, those that wait at the end; one at a time, since all together may be large.
    pub fn visit_lives(&mut self, now: Steady, mut visit: impl FnMut(LifeSummary)) {
        self.ask(now, |store| store.read(|read| reading::visit_lives(read, &mut visit)));
        self.unsaved.lives.values().cloned().for_each(visit);
    }

    /// A piece of durable state.
    ///
    /// # Errors
    /// [`StoreErrorKind::Closed`] where the disk cannot be read now: "not known" is not "none".
    pub fn state(&mut self, name: &str, now: Steady) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(waiting) = self.unsaved.state.get(name) {
            return Ok(waiting.clone());
        }
        self.ask(now, |store| store.read(|read| reading::state(read, name)))
            .ok_or_else(|| StoreError::new(&self.directory, StoreErrorKind::Closed))
    }

    /// Entries of the audit log within a range of places, oldest first; of more than `most` the latest.
    pub fn audit(&mut self, range: RangeInclusive<u64>, most: usize, now: Steady) -> Vec<AuditEntry> {
        let mut entries =
            self.ask(now, |store| store.read(|read| reading::audit(read, range.clone(), most))).unwrap_or_default();
        entries.extend(self.unsaved.audit.iter().filter(|entry| range.contains(&entry.sequence)).cloned());
        entries.drain(..entries.len().saturating_sub(most));
        entries
    }

    /// Where the steady line was last seen; none where that is not known.
    pub fn anchor(&mut self, now: Steady) -> Option<ClockAnchor> {
        self.unsaved.anchor.clone().or_else(|| self.ask(now, |store| store.read(reading::anchor)).flatten())
    }

    /// The state of the store.
    pub fn stats(&mut self, now: Steady) -> StoreStats {
        if let Some(size) = self.ask(now, Store::size) {
            self.stats.size = size;
        }
        self.stats.degraded = self.problem.as_ref().map(|problem| problem.reason.clone());
        self.stats.unsaved_minutes = self.unsaved.minutes.len() as u64;
        self.stats.clone()
    }

    /// Saves what waits, closes the file and gives the directory up.
    pub fn close(mut self, now: Steady, wall: WallTime) -> Saved {
        if let Some(problem) = &mut self.problem
            && problem.retry_at.is_some()
        {
            problem.retry_at = Some(now);
        }
        self.flush(now, wall)
    }
}
