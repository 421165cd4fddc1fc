//! The copy of the history: a second database beside the first, written after it with the same writes, so that damage to one
//! file never takes the other along.
//!
//! When the first file is found damaged, or is gone, the copy takes its place. Whatever goes wrong with the copy itself
//! (damage, no room, a crash between the two writes) is mended by making it anew, row by row, from the first; until then the
//! file that was there stays, unless it is damaged. Where there is no room for both, damaged files that were set aside go, and
//! then the copy gives way. The two hold the same when their sums are the same, and the sums count every write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value};

use super::error::{Notice, StoreError, StoreErrorKind};
use super::file::{self, COPY, Opener};
use super::handle::Handle;
use super::settings::StoreSettings;
use super::tables::{AUDIT, HOURS, JOURNAL, LIVES, META, SERIES, STATE};

/// Rows and their bytes that are copied in one transaction; bounds the memory that takes.
const ROWS: usize = 512;
const BYTES: usize = 256 << 10;
/// Most writes that pass between two attempts to make it anew.
const PASSED_MAX: u32 = 64;

/// The copy, and how it stands.
#[derive(Debug)]
pub(crate) struct SecondCopy {
    handle: Handle,
    /// Writes that have to pass before the next attempt to make it anew, and how many it will be after a failure.
    to_pass: u32,
    pause: u32,
    /// Whether a failure was told of and its end was not.
    failing: bool,
}

impl SecondCopy {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { handle: Handle::closed(directory.join(COPY)), to_pass: 0, pause: 1, failing: false }
    }

    /// The database that is written after the first, while it holds the same.
    pub(crate) fn handle(&mut self) -> &mut Handle {
        &mut self.handle
    }

    /// Room it takes on the disk.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.handle.file_bytes().map_or(0, |bytes| bytes.0)
    }

    /// Opens the copy that an earlier run left, where it is whole and holds the same as the first; else it is made anew with
    /// the next write.
    pub(crate) fn open(&mut self, first: &Handle, settings: &StoreSettings, opener: &dyn Opener) -> Vec<Notice> {
        self.handle.drop_database();
        self.to_pass = 0;
        let taken = file::open_existing(self.handle.path(), settings, opener)
            .map_err(|kind| StoreError::new(self.handle.path(), kind))
            .and_then(|database| database.map_or(Ok(()), |database| self.handle.take(database)));
        if self.handle.totals() != first.totals() {
            self.handle.drop_database();
        }
        match taken {
            Err(StoreError { kind: StoreErrorKind::Damaged(reason), .. }) => {
                // The one that is made anew needs the room, and nobody needs this.
                let _ = fs::remove_file(self.handle.path());
                vec![Notice::CopyDamaged(reason)]
            }
            // Any other failure shows again, and is told of, when it is made anew.
            Err(_) | Ok(()) => Vec::new(),
        }
    }

    /// Has the copy take a write that the first took, or makes it anew.
    pub(crate) fn follow<T>(
        &mut self,
        first: &Handle,
        settings: &StoreSettings,
        opener: &dyn Opener,
        write: impl FnOnce(&mut Handle) -> Result<T, StoreError>,
    ) -> Vec<Notice> {
        if self.handle.is_open() {
            let written = write(&mut self.handle);
            if written.is_ok() && self.handle.totals() == first.totals() {
                return Vec::new();
            }
            self.handle.drop_database();
        }
        if self.to_pass > 0 {
            self.to_pass -= 1;
            return Vec::new();
        }
        let mut notices = Vec::new();
        let mut made = self.make_anew(first, settings, opener);
        if made.as_ref().is_err_and(StoreError::wants_room) {
            notices = self.make_room();
            if !notices.is_empty() {
                made = self.make_anew(first, settings, opener);
            }
        }
        match made {
            Ok(()) => {
                self.pause = 1;
                notices.extend(std::mem::take(&mut self.failing).then_some(Notice::CopyRestored));
            }
            Err(error) => {
                self.to_pass = self.pause;
                self.pause = (self.pause * 2).min(PASSED_MAX);
                let told = std::mem::replace(&mut self.failing, true);
                notices.extend((!told).then(|| Notice::CopyFailed(error.to_string())));
            }
        }
        notices
    }

    /// Deletes the damaged files that were kept for a person to look at: a good copy is worth more.
    fn make_room(&self) -> Vec<Notice> {
        let directory = self.handle.path().parent().unwrap_or(Path::new("."));
        file::forget_damaged(directory, 0).unwrap_or_default()
    }

    /// Deletes the copy, so that the first has its room. Returns where it was, if there was one.
    pub(crate) fn give_way(&mut self) -> Option<PathBuf> {
        self.handle.drop_database();
        self.failing = true;
        let path = self.handle.path();
        fs::remove_file(path).is_ok().then(|| path.to_owned())
    }

    /// Copies the first beside its place and renames it in, so that a half-made copy is never met.
    fn make_anew(&mut self, first: &Handle, settings: &StoreSettings, opener: &dyn Opener) -> Result<(), StoreError> {
        let path = self.handle.path().to_owned();
        let unfinished = path.with_extension("redb.new");
        let failed = |kind| StoreError::new(&path, kind);
        let Some(from) = first.database() else { return Err(failed(StoreErrorKind::Closed)) };
        file::room_for(&path, first.file_bytes()?).map_err(failed)?;
        let made = file::create_empty(&unfinished, settings, opener).and_then(|to| {
            let filled = file::guarded(|| fill(from, &to));
            filled.and(file::close(to))
        });
        let placed = made.and_then(|()| file::rename_in(&unfinished, &path));
        if let Err(kind) = placed {
            // The room it took is needed by others.
            let _ = fs::remove_file(&unfinished);
            return Err(failed(kind));
        }
        if let Some(database) = file::open_existing(&path, settings, opener).map_err(failed)? {
            self.handle.take(database)?;
        }
        Ok(())
    }
}

/// Puts the copy in the place of the first, which is gone. Returns whether there was one.
pub(crate) fn take_the_place(directory: &Path, first: &Path) -> Result<bool, StoreError> {
    match file::rename_in(&directory.join(COPY), first) {
        Ok(()) => Ok(true),
        Err(StoreErrorKind::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(kind) => Err(StoreError::new(first, kind)),
    }
}

/// Copies every table; the one with the sums last, since they tell that the rest is there.
fn fill(from: &Database, to: &Database) -> Result<(), redb::Error> {
    let from = from.begin_read()?;
    fill_table(&from, to, SERIES)?;
    fill_table(&from, to, JOURNAL)?;
    fill_table(&from, to, HOURS)?;
    fill_table(&from, to, LIVES)?;
    fill_table(&from, to, STATE)?;
    fill_table(&from, to, AUDIT)?;
    fill_table(&from, to, META)
}

fn fill_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &Database,
    table: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let source = from.open_table(table)?;
    let mut rows = source.iter()?.peekable();
    loop {
        let transaction = to.begin_write()?;
        {
            let mut target = transaction.open_table(table)?;
            let mut bytes = 0;
            for row in rows.by_ref().take(ROWS) {
                let (key, value) = row?;
                target.insert(key.value(), value.value())?;
                bytes += V::as_bytes(&value.value()).as_ref().len();
                if bytes >= BYTES {
                    break;
                }
            }
        }
        transaction.commit()?;
        if rows.peek().is_none() {
            return Ok(());
        }
    }
}
