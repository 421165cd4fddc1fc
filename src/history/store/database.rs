//! The store itself: one file and its copy, one owner, blocking calls. No clock: `now` is an argument.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::ReadTransaction;

use super::anchor::ClockAnchor;
use super::copy::SecondCopy;
use super::error::{Notice, StoreError, StoreErrorKind};
use super::file::{self, FILE, Opener, PlainFile};
use super::handle::Handle;
use super::lock::DirectoryLock;
use super::reading;
use super::retention::Pruned;
use super::settings::StoreSettings;
use super::unsaved::{AuditEntry, LifeFilter, MinuteRow, Unsaved};
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
    settings: StoreSettings,
    opener: Arc<dyn Opener>,
    main: Handle,
    copy: SecondCopy,
    /// What happened to the copy since this was last asked.
    notices: Vec<Notice>,
    _lock: DirectoryLock,
}

/// What the file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Room the file and its copy take on the disk.
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
    /// A damaged history is renamed and its copy takes its place, or a fresh one is started; the notices say so. `wall` dates
    /// the renamed file.
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
            settings,
            opener,
            main: Handle::closed(directory.join(FILE)),
            copy: SecondCopy::new(directory),
            notices: Vec::new(),
            _lock: lock,
        };
        let notices = store.reopen(wall)?;
        Ok((store, notices))
    }

    /// Closes the database and opens it again, after a failure; the directory stays locked all the time.
    pub fn reopen(&mut self, wall: WallTime) -> Result<Vec<Notice>, StoreError> {
        // The failure that led here is known already.
        self.main.drop_database();
        self.copy.handle().drop_database();
        let mut notices = Vec::new();
        // The file, its copy, a fresh one.
        for _ in 0..3 {
            let (database, more) = file::open(&self.directory, &self.settings, &*self.opener, wall)?;
            notices.extend(more);
            match self.main.take(database) {
                Ok(()) => break,
                Err(StoreError { kind: StoreErrorKind::Damaged(reason), .. }) => {
                    notices.extend(file::set_aside(&self.directory, &self.settings, wall, reason)?);
                }
                Err(error) => return Err(error),
            }
        }
        notices.extend(self.copy.open(&self.main, &self.settings, &*self.opener));
        Ok(notices)
    }

    /// Renames the file as damaged and goes on with its copy, or with a fresh one: for damage that only shows in use.
    pub fn set_aside(&mut self, wall: WallTime, reason: String) -> Result<Vec<Notice>, StoreError> {
        self.main.drop_database();
        self.copy.handle().drop_database();
        let mut notices = file::set_aside(&self.directory, &self.settings, wall, reason)?;
        notices.extend(self.reopen(wall)?);
        Ok(notices)
    }

    /// What happened to the copy since this was last asked, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Whether the database is open; not so after a failure.
    pub fn is_open(&self) -> bool {
        self.main.is_open()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.main.path()
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
        unsaved.add_state(name, value).map_err(|kind| StoreError::new(self.main.path(), kind))?;
        self.save(&unsaved)
    }

    /// Appends to the audit log and returns the entry's place.
    pub fn append_audit(&mut self, at: Steady, body: Vec<u8>) -> Result<u64, StoreError> {
        let sequence = self.next_audit();
        let mut unsaved = Unsaved::default();
        unsaved.add_audit(AuditEntry { sequence, at, body }).map_err(|kind| StoreError::new(self.main.path(), kind))?;
        self.save(&unsaved)?;
        Ok(sequence)
    }

    /// Saves where the steady line is.
    pub fn put_anchor(&mut self, anchor: ClockAnchor) -> Result<(), StoreError> {
        self.save(&Unsaved { anchor: Some(anchor), ..Unsaved::default() })
    }

    /// The place the next audit entry gets.
    pub(crate) fn next_audit(&self) -> u64 {
        self.main.next_audit()
    }

    /// Saves all that waits, or nothing of it.
    pub(crate) fn save(&mut self, unsaved: &Unsaved) -> Result<(), StoreError> {
        self.main.save(unsaved)?;
        self.follow(|copy| copy.save(unsaved));
        Ok(())
    }

    /// Deletes the copy: a history that goes on is worth more than two that stop. Returns where it was, if there was one. It is
    /// made anew when there is room for both.
    pub(crate) fn give_up_copy(&mut self) -> Option<PathBuf> {
        self.copy.give_way()
    }

    /// Has the copy do what was done to the file. What goes wrong with it is told of and harms nothing.
    fn follow<T>(&mut self, write: impl FnOnce(&mut Handle) -> Result<T, StoreError>) {
        let told = self.copy.follow(&self.main, &self.settings, &*self.opener, write);
        self.notices.extend(told);
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
        let limit = self.limit().0;
        let bytes = self.file_bytes()?.0;
        if bytes > limit || (bytes > COMPACT_FROM && bytes / COMPACT_RATIO > self.main.totals().content()) {
            pruned.compacted = self.compact()?;
        }
        // A compacted file is still larger than its content; what has to go is guessed and the guess checked.
        for _ in 0..6 {
            let bytes = self.file_bytes()?.0;
            let content = self.main.totals().content();
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
        let settings = self.settings.clone();
        let pruned = self.main.prune(&settings, now, excess)?;
        self.follow(|copy| copy.prune(&settings, now, excess));
        Ok(pruned)
    }

    /// Rewrites the file and its copy without their free pages. Returns whether there were any in the file.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let compacted = self.main.compact()?;
        self.follow(Handle::compact);
        Ok(compacted)
    }

    /// Room the file takes on the disk. The database doubles the length of its file when it grows, which takes no room
    /// until it is written to.
    pub fn file_bytes(&self) -> Result<Bytes, StoreError> {
        self.main.file_bytes()
    }

    /// The largest size of the file: the other half is its copy's.
    fn limit(&self) -> Bytes {
        Bytes(self.settings.bytes_max.0 / 2)
    }

    /// Whether the file has outgrown its bound.
    pub fn is_too_large(&self) -> bool {
        self.file_bytes().is_ok_and(|bytes| bytes > self.limit())
    }

    /// What the file holds.
    pub fn size(&mut self) -> Result<StoreSize, StoreError> {
        let oldest_minute = self.read(reading::oldest_minute)?;
        let totals = self.main.totals();
        Ok(StoreSize {
            bytes: Bytes(self.file_bytes()?.0 + self.copy.file_bytes()),
            minutes: totals.minutes(),
            lives_with_minutes: totals.series,
            lives: totals.lives,
            audit: totals.audit,
            oldest_minute,
        })
    }

    /// Closes the file and its copy, gives the directory up, and tells what went wrong with the file.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.main.close()
    }

    pub(crate) fn read<T>(
        &mut self,
        run: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.main.read(run)
    }
}
