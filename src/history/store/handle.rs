//! One open database file with the sums of its content, and the work that is done to it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::error::{StoreError, StoreErrorKind};
use super::file;
use super::look::ReadOnlyFile;
use super::retention::{self, Pruned};
use super::settings::StoreSettings;
use super::tables::{self, Totals};
use super::unsaved::Unsaved;
use super::writing;
use crate::model::{Bytes, Steady};

/// A database that is open, or was closed by a failure.
#[derive(Debug)]
pub(crate) struct Handle {
    path: PathBuf,
    database: Option<Database>,
    totals: Totals,
}

impl Handle {
    /// A database that is not open yet.
    pub(crate) fn closed(path: PathBuf) -> Self {
        Self { path, database: None, totals: Totals::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// The sums of what it holds, as of the last time it was open.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// The place the next audit entry gets.
    pub(crate) fn next_audit(&self) -> u64 {
        self.totals.audit_last.saturating_add(1)
    }

    /// The database itself, while it is open.
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// What can be read of a history that cannot be written, of the file or else of its copy. Nothing is written, and whoever
    /// may write the file now is not noticed: read it only as long as that is nobody.
    pub(crate) fn look(directory: &Path, settings: &StoreSettings) -> Option<Self> {
        [file::FILE, file::COPY].into_iter().find_map(|name| {
            let path = directory.join(name);
            let database = file::open_existing(&path, settings, &ReadOnlyFile).ok().flatten()?;
            let mut handle = Self::closed(path);
            handle.take(database).ok()?;
            Some(handle)
        })
    }

    /// Takes an open database and reads its sums.
    pub(crate) fn take(&mut self, database: Database) -> Result<(), StoreError> {
        self.database = Some(database);
        self.totals = self.read(tables::read_totals)?;
        Ok(())
    }

    /// Closes it and forgets how that went: for a file that is known to be bad, or to hold everything already.
    pub(crate) fn drop_database(&mut self) {
        let _ = self.close();
    }

    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        match self.database.take() {
            Some(database) => file::close(database).map_err(|kind| StoreError::new(&self.path, kind)),
            None => Ok(()),
        }
    }

    /// Room the file takes on the disk. The database doubles the length of its file when it grows, which takes no room
    /// until it is written to.
    pub(crate) fn file_bytes(&self) -> Result<Bytes, StoreError> {
        let meta = std::fs::metadata(&self.path).map_err(|error| StoreError::from_io(&self.path, error))?;
        Ok(Bytes(meta.len().min(meta.blocks() * 512)))
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

    /// Removes what is old, and at least `excess` bytes of content.
    pub(crate) fn prune(&mut self, settings: &StoreSettings, now: Steady, excess: u64) -> Result<Pruned, StoreError> {
        let totals = self.totals;
        let (totals, pruned) =
            self.write(|transaction| retention::prune(transaction, settings, now, excess, totals))?;
        self.totals = totals;
        Ok(pruned)
    }

    /// Rewrites the file without its free pages. Returns whether there were any.
    pub(crate) fn compact(&mut self) -> Result<bool, StoreError> {
        self.with(|database| Ok(database.compact()?))
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

impl Drop for Handle {
    fn drop(&mut self) {
        // Everything is saved already; closing only marks the file as clean.
        self.drop_database();
    }
}
