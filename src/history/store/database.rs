//! The store itself: one file, one owner, blocking calls. No clock: `now` is an argument.

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::anchor::ClockAnchor;
use super::error::{Notice, StoreError, StoreErrorKind};
use super::file::{self, FILE, Opener, PlainFile};
use super::lock::DirectoryLock;
use super::retention::{self, Pruned};
use super::settings::StoreSettings;
use super::tables::{self, Totals};
use super::unsaved::{AuditEntry, LifeFilter, MinuteRow, Unsaved};
use super::{reading, writing};
use crate::model::{Bytes, Life, LifeSummary, Minute, ProcessKey, Steady, WallTime};

/// Files smaller than this are never compacted.
const COMPACT_FROM: u64 = 4 << 20;
/// A file is compacted when it is this many times larger than its content.
const COMPACT_RATIO: u64 = 4;

/// An open store. It holds the state directory until it is dropped.
///
/// Every writing call is one transaction that is on disk when the call returns. After a failure the database is
/// closed and every call answers with an error until [`Store::reopen`] succeeds.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    path: PathBuf,
    settings: StoreSettings,
    opener: Arc<dyn Opener>,
    database: Option<Database>,
    totals: Totals,
    _lock: DirectoryLock,
}

/// What the file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Room the file takes on the disk.
    pub bytes: Bytes,
    /// Minutes; one that was written twice may count twice for an hour.
    pub minutes: u64,
    /// Lives that have minutes.
    pub lives_with_minutes: u64,
    /// Summaries of lives.
    pub lives: u64,
    /// Entries of the audit log.
    pub audit: u64,
    /// About the oldest minute, on the steady line.
    pub oldest_minute: Option<i64>,
}

impl Store {
    /// Opens the history of a state directory, which is made where it is missing.
    ///
    /// A damaged history is renamed and a fresh one started; the notices say so. `wall` dates the renamed file.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`] where another process holds the directory, [`StoreErrorKind::NewerFormat`] where the
    /// file must not be touched, [`StoreErrorKind::Full`] and [`StoreErrorKind::Io`] where the directory cannot be
    /// written.
    pub fn open(directory: &Path, settings: StoreSettings, wall: WallTime) -> Result<(Self, Vec<Notice>), StoreError> {
        Self::open_with(directory, settings, wall, Arc::new(PlainFile))
    }

    pub(crate) fn open_with(
        directory: &Path,
        settings: StoreSettings,
        wall: WallTime,
        opener: Arc<dyn Opener>,
    ) -> Result<(Self, Vec<Notice>), StoreError> {
        file::make_directory(directory)?;
        let lock = DirectoryLock::take(directory)?;
        let mut store = Self {
            directory: directory.to_owned(),
            path: directory.join(FILE),
            settings,
            opener,
            database: None,
            totals: Totals::default(),
            _lock: lock,
        };
        let notices = store.reopen(wall)?;
        Ok((store, notices))
    }

    /// Closes the database and opens it again, after a failure; the directory stays locked all the time.
    pub fn reopen(&mut self, wall: WallTime) -> Result<Vec<Notice>, StoreError> {
        if let Some(database) = self.database.take() {
            // The failure that led here is known already.
            let _ = file::close(database);
        }
        let (database, mut notices) = file::open(&self.directory, &self.settings, &*self.opener, wall)?;
        self.database = Some(database);
        match self.read(tables::read_totals) {
            Ok(totals) => self.totals = totals,
            Err(StoreError { kind: StoreErrorKind::Damaged(reason), .. }) => {
                notices.extend(self.set_aside(wall, reason)?);
                self.totals = self.read(tables::read_totals)?;
            }
            Err(error) => return Err(error),
        }
        Ok(notices)
    }

    /// Renames the file as damaged and starts a fresh one: for damage that only shows in use.
    pub fn set_aside(&mut self, wall: WallTime, reason: String) -> Result<Vec<Notice>, StoreError> {
        if let Some(database) = self.database.take() {
            let _ = file::close(database);
        }
        let mut notices = file::set_aside(&self.directory, &self.settings, wall, reason)?;
        let (database, more) = file::open(&self.directory, &self.settings, &*self.opener, wall)?;
        notices.extend(more);
        self.database = Some(database);
        self.totals = self.read(tables::read_totals)?;
        Ok(notices)
    }

    /// Whether the database is open; not so after a failure.
    pub fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bounds in force.
    pub fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Puts other bounds in force; they take effect at the next pruning.
    pub fn set_settings(&mut self, settings: StoreSettings) {
        self.settings = settings;
    }

    /// Saves minutes in one transaction. A minute of a life that is saved already is replaced.
    pub fn append(&mut self, rows: &[MinuteRow]) -> Result<(), StoreError> {
        let mut unsaved = Unsaved::default();
        unsaved.add_minutes(rows.iter().cloned(), usize::MAX);
        self.save(&unsaved)
    }

    /// Saves or replaces the summary of a life.
    pub fn put_life(&mut self, summary: LifeSummary) -> Result<(), StoreError> {
        let mut unsaved = Unsaved::default();
        unsaved.add_life(summary);
        self.save(&unsaved)
    }

    /// Saves, replaces or (with none) removes a piece of durable state.
    pub fn put_state(&mut self, name: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut unsaved = Unsaved::default();
        unsaved.add_state(name, value).map_err(|kind| StoreError::new(&self.path, kind))?;
        self.save(&unsaved)
    }

    /// Appends to the audit log and returns the entry's place.
    pub fn append_audit(&mut self, at: Steady, body: Vec<u8>) -> Result<u64, StoreError> {
        let sequence = self.next_audit();
        let mut unsaved = Unsaved::default();
        unsaved.add_audit(AuditEntry { sequence, at, body }).map_err(|kind| StoreError::new(&self.path, kind))?;
        self.save(&unsaved)?;
        Ok(sequence)
    }

    /// Saves where the steady line is.
    pub fn put_anchor(&mut self, anchor: ClockAnchor) -> Result<(), StoreError> {
        self.save(&Unsaved { anchor: Some(anchor), ..Unsaved::default() })
    }

    /// The place the next audit entry gets.
    pub(crate) fn next_audit(&self) -> u64 {
        self.totals.audit_last.saturating_add(1)
    }

    /// Saves all that waits, or nothing of it.
    pub(crate) fn save(&mut self, unsaved: &Unsaved) -> Result<(), StoreError> {
        // A file that was deleted under us takes every write and keeps none.
        if let Err(error) = self.file_bytes() {
            self.database = None;
            return Err(error);
        }
        let totals = self.totals;
        self.totals = self.write(|transaction| writing::save(transaction, unsaved, totals))?;
        Ok(())
    }

    /// The minutes of one life from the minute `since` on, in time order.
    pub fn minutes(&mut self, key: &ProcessKey, life: Life, since: i64) -> Result<Vec<Minute>, StoreError> {
        self.read(|transaction| reading::minutes(transaction, key, life, since))
    }

    /// Visits every saved minute from the minute `since` on: in time order within a life, but for late minutes and for
    /// those that were written again, which come again, the later writing last.
    pub fn scan(&mut self, since: i64, mut visit: impl FnMut(&ProcessKey, Life, Minute)) -> Result<(), StoreError> {
        self.read(|transaction| reading::scan(transaction, since, &mut visit))
    }

    /// The summaries that pass the filter, by start.
    pub fn lives(&mut self, filter: &LifeFilter) -> Result<Vec<LifeSummary>, StoreError> {
        self.read(|transaction| reading::lives(transaction, filter))
    }

    /// A piece of durable state.
    pub fn state(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|transaction| reading::state(transaction, name))
    }

    /// Entries of the audit log within a range of places, oldest first; of more than `most` the latest.
    pub fn audit(&mut self, range: RangeInclusive<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|transaction| reading::audit(transaction, range, most))
    }

    /// Where the steady line was last seen.
    pub fn anchor(&mut self) -> Result<Option<ClockAnchor>, StoreError> {
        self.read(reading::anchor)
    }

    /// Forgets what is older or more than the settings allow and gives the room back; call it about once an hour.
    pub fn prune(&mut self, now: Steady) -> Result<Pruned, StoreError> {
        let mut pruned = self.prune_once(now, 0)?;
        let limit = self.settings.bytes_max.0;
        let bytes = self.file_bytes()?.0;
        if bytes > limit || (bytes > COMPACT_FROM && bytes / COMPACT_RATIO > self.totals.content()) {
            pruned.compacted = self.compact()?;
        }
        // A compacted file is still larger than its content; what has to go is guessed and the guess checked.
        for _ in 0..6 {
            let bytes = self.file_bytes()?.0;
            let content = self.totals.content();
            if bytes <= limit || content == 0 {
                break;
            }
            let excess = content
                - u64::try_from(u128::from(content) * u128::from(limit) * 9 / 10 / u128::from(bytes)).unwrap_or(0);
            let more = self.prune_once(now, excess)?;
            pruned.minutes += more.minutes;
            pruned.lives += more.lives;
            pruned.audit += more.audit;
            if !more.is_any() {
                break;
            }
            pruned.compacted |= self.compact()?;
        }
        Ok(pruned)
    }

    fn prune_once(&mut self, now: Steady, excess: u64) -> Result<Pruned, StoreError> {
        let (totals, settings) = (self.totals, self.settings.clone());
        let (totals, pruned) =
            self.write(|transaction| retention::prune(transaction, &settings, now, excess, totals))?;
        self.totals = totals;
        Ok(pruned)
    }

    /// Rewrites the file without its free pages. Returns whether there were any.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        self.with(|database| Ok(database.compact()?))
    }

    /// Room the file takes on the disk. The database doubles the length of its file when it grows, which takes no room
    /// until it is written to.
    pub fn file_bytes(&self) -> Result<Bytes, StoreError> {
        let meta = std::fs::metadata(&self.path).map_err(|error| StoreError::from_io(&self.path, error))?;
        Ok(Bytes(meta.len().min(meta.blocks() * 512)))
    }

    /// What the file holds.
    pub fn size(&mut self) -> Result<StoreSize, StoreError> {
        let oldest_minute = self.read(reading::oldest_minute)?;
        Ok(StoreSize {
            bytes: self.file_bytes()?,
            minutes: self.totals.minutes(),
            lives_with_minutes: self.totals.series,
            lives: self.totals.lives,
            audit: self.totals.audit,
            oldest_minute,
        })
    }

    /// Closes the file and gives the directory up, and tells what went wrong with that.
    pub fn close(mut self) -> Result<(), StoreError> {
        match self.database.take() {
            Some(database) => file::close(database).map_err(|kind| StoreError::new(&self.path, kind)),
            None => Ok(()),
        }
    }

    fn read<T>(&mut self, run: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(|database| run(&database.begin_read()?))
    }

    fn write<T>(&mut self, run: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let result = run(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// Runs one piece of work; a failure closes the database, because redb refuses all work after one.
    fn with<T>(&mut self, run: impl FnOnce(&mut Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let Some(database) = self.database.as_mut() else {
            return Err(StoreError::new(&self.path, StoreErrorKind::Closed));
        };
        file::guarded(|| run(database)).map_err(|kind| {
            if let Some(database) = self.database.take() {
                let _ = file::close(database);
            }
            StoreError::new(&self.path, kind)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            // Everything is saved already; closing only marks the file as clean.
            let _ = file::close(database);
        }
    }
}
