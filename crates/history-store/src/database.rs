//! The store itself: one file, one owner, blocking calls. No clock: `now` is an argument.

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Bytes, Life, LifeSummary, Minute, ProcessKey, Steady, WallTime};
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::anchor::ClockAnchor;
use super::error::{Notice, StoreError, StoreErrorKind};
use super::file::{self, FILE, Opener, PlainFile};
use super::lock::DirectoryLock;
use super::retention::{self, Pruned};
use super::salvage;
use super::settings::StoreSettings;
use super::tables::{self, Totals};
use super::unsaved::{AuditEntry, LifeFilter, MinuteRow, Unsaved};
use super::{reading, writing};

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
    path: PathBuf,
    settings: StoreSettings,
    opener: Arc<dyn Opener>,
    /// None after a failure.
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
    /// A damaged history is renamed, and a fresh one begins with what can be read of it; the notices say so. `wall` dates the
    /// renamed file.
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
        let path = directory.join(FILE);
        let mut store = Self { path, settings, opener, database: None, totals: Totals::default(), _lock: lock };
        let notices = store.reopen(wall)?;
        Ok((store, notices))
    }

    /// Closes the database and opens it again, after a failure; the directory stays locked all the time.
    pub fn reopen(&mut self, wall: WallTime) -> Result<Vec<Notice>, StoreError> {
        match self.open_file() {
            Err(StoreError { kind: StoreErrorKind::Damaged(reason), .. }) => self.set_aside(wall, reason),
            other => other.map(|()| Vec::new()),
        }
    }

    /// Renames the file as damaged and goes on with a fresh one and what can be read of the old: for damage that only shows
    /// in use.
    pub fn set_aside(&mut self, wall: WallTime, reason: String) -> Result<Vec<Notice>, StoreError> {
        self.drop_database();
        let moved_to = file::move_aside(&self.path, wall)?;
        self.open_file()?;
        let read = salvage::from(&moved_to, self);
        let mut notices = vec![Notice::SetAside { moved_to, reason, read }];
        let directory = self.path.parent().unwrap_or(Path::new("."));
        notices.extend(file::forget_damaged(directory, self.settings.damaged_kept.max(1))?);
        if !self.is_open() {
            self.open_file()?;
        }
        Ok(notices)
    }

    fn open_file(&mut self) -> Result<(), StoreError> {
        // The failure that led here is known already.
        self.drop_database();
        let opened = file::open(&self.path, &self.settings, &*self.opener);
        self.database = Some(opened.map_err(|kind| StoreError::new(&self.path, kind))?);
        self.totals = self.read(tables::read_totals)?;
        Ok(())
    }

    /// Closes it and forgets how that went: for a file that is known to be bad, or to hold everything already.
    fn drop_database(&mut self) {
        let _ = self.close_file();
    }

    fn close_file(&mut self) -> Result<(), StoreError> {
        let closed = self.database.take().map_or(Ok(()), file::close);
        closed.map_err(|kind| StoreError::new(&self.path, kind))
    }

    /// Whether the database is open; not so after a failure.
    pub fn is_open(&self) -> bool {
        self.database.is_some()
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
        let (settings, totals) = (self.settings.clone(), self.totals);
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

    /// Whether the file has outgrown its bound.
    pub fn is_too_large(&self) -> bool {
        self.file_bytes().is_ok_and(|bytes| bytes > self.settings.bytes_max)
    }

    /// What the file holds.
    pub fn size(&mut self) -> Result<StoreSize, StoreError> {
        let oldest_minute = self.read(reading::oldest_minute)?;
        let totals = self.totals;
        Ok(StoreSize {
            bytes: self.file_bytes()?,
            minutes: totals.minutes(),
            lives_with_minutes: totals.series,
            lives: totals.lives,
            audit: totals.audit,
            oldest_minute,
        })
    }

    /// Closes the file, gives the directory up, and tells what went wrong with it.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.close_file()
    }

    pub(crate) fn read<T>(
        &mut self,
        run: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
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
            self.drop_database();
            StoreError::new(&self.path, kind)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Everything is saved already; closing only marks the file as clean.
        self.drop_database();
    }
}
