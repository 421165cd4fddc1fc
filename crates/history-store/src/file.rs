//! The way to an open database: fresh, repaired, or, where it is damaged, out of the way. What can be read of a damaged one is read.
//!
//! A file of a newer format is neither written nor moved. A file that cannot be read for lack of rights or room is no
//! damaged file and stays where it is.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use model::WallTime;
use redb::{Builder, Database, DatabaseError, ReadableDatabase};

use super::error::{Notice, StoreError, StoreErrorKind};
use super::settings::StoreSettings;
use super::tables::{self, FORMAT};

/// The database's name in the state directory.
pub(crate) const FILE: &str = "history.redb";
/// A file up to this size is read and checked whole at every start; a larger one only after an unclean end.
const CHECKED_UP_TO: u64 = 64 << 20;

/// Opens the database itself. Tests put failing disks under it.
pub(crate) trait Opener: fmt::Debug + Send + Sync {
    /// Opens an existing or empty file for writing.
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError>;
}

/// The ordinary file.
#[derive(Debug)]
pub(crate) struct PlainFile;

impl Opener for PlainFile {
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.create(path)
    }
}

/// Makes the state directory where it is missing, for its owner only.
pub(crate) fn make_directory(directory: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| StoreError::from_io(directory, error))
}

/// Opens the database of a directory that is locked already, or starts a fresh one where there is none.
pub(crate) fn open(path: &Path, settings: &StoreSettings, opener: &dyn Opener) -> Result<Database, StoreErrorKind> {
    let mut builder = Builder::new();
    builder.set_cache_size(usize::try_from(settings.cache.0).unwrap_or(usize::MAX));
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => start_afresh(path, &builder, opener)?,
        Err(error) => return Err(StoreErrorKind::from_os(error)),
        Ok(meta) if meta.len() == 0 => start_afresh(path, &builder, opener)?,
        Ok(meta) => {
            builder.set_check_integrity_on_open(meta.len() <= CHECKED_UP_TO);
            refuse_newer(path, &builder)?;
        }
    }
    let database = guarded(|| Ok(opener.open(&builder, path)?))?;
    match guarded(|| tables::read_format(&database.begin_read()?))? {
        Some(FORMAT) => Ok(database),
        Some(newer) if newer > FORMAT => Err(newer_format(newer)),
        Some(_) | None => Err(StoreErrorKind::Damaged("it has no format number that was ever used".to_owned())),
    }
}

/// Renames a damaged file, and says where it is now.
pub(crate) fn move_aside(path: &Path, wall: WallTime) -> Result<PathBuf, StoreError> {
    let stamp = wall.to_rfc3339().replace(['-', ':', ' '], "");
    let name = |number: u32| match number {
        1 => path.with_file_name(format!("{FILE}.corrupt-{stamp}")),
        more => path.with_file_name(format!("{FILE}.corrupt-{stamp}.{more}")),
    };
    let moved_to = (1..1000).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(1000));
    fs::rename(path, &moved_to).map_err(|error| StoreError::from_io(path, error))?;
    Ok(moved_to)
}

/// Deletes the damaged files that were set aside but for so many of the newest.
pub(crate) fn forget_damaged(directory: &Path, kept: usize) -> Result<Vec<Notice>, StoreError> {
    let mut damaged = damaged_files(directory)?;
    damaged.truncate(damaged.len().saturating_sub(kept));
    damaged
        .into_iter()
        .map(|old| match fs::remove_file(&old) {
            Ok(()) => Ok(Notice::Forgotten(old)),
            Err(error) => Err(StoreError::from_io(&old, error)),
        })
        .collect()
}

/// The files that were set aside, those that were written last at the end.
fn damaged_files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::from_io(directory, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(&format!("{FILE}.corrupt-")) {
            found.push((entry.metadata().and_then(|meta| meta.modified()).map_err(failed)?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Runs what may meet a damaged file: redb answers most damage with an error and some with a panic.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreErrorKind> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(StoreErrorKind::from_redb),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(StoreErrorKind::Damaged(said.unwrap_or_else(|| "the database gave up without a reason".to_owned())))
        }
    }
}

/// Closes a database that may be damaged.
pub(crate) fn close(database: Database) -> Result<(), StoreErrorKind> {
    guarded(move || Ok(database.close()?))
}

fn create_file(path: &Path) -> Result<(), StoreErrorKind> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreErrorKind::from_os(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(StoreErrorKind::from_os)?;
    Ok(())
}

/// Gives a finished file its place, and has the disk know it.
fn rename_in(unfinished: &Path, path: &Path) -> Result<(), StoreErrorKind> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::rename(unfinished, path).and_then(|()| File::open(directory)?.sync_all()).map_err(StoreErrorKind::from_os)
}

fn newer_format(found: u32) -> StoreErrorKind {
    StoreErrorKind::NewerFormat { found: found.to_string(), known: FORMAT }
}

/// Looks at the format number without writing; a file that needs repair is left to the writing open.
fn refuse_newer(path: &Path, builder: &Builder) -> Result<(), StoreErrorKind> {
    let looked = guarded(|| match builder.open_read_only(path) {
        Ok(database) => tables::read_format(&database.begin_read()?),
        Err(DatabaseError::RepairAborted) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    match looked {
        Some(newer) if newer > FORMAT => Err(newer_format(newer)),
        _ => Ok(()),
    }
}

/// Builds an empty database beside its place and renames it in, so that a half-made one is never met.
fn start_afresh(path: &Path, builder: &Builder, opener: &dyn Opener) -> Result<(), StoreErrorKind> {
    let unfinished = path.with_extension("redb.new");
    create_file(&unfinished)?;
    guarded(|| {
        let database = opener.open(builder, &unfinished)?;
        let transaction = database.begin_write()?;
        tables::create(&transaction)?;
        transaction.commit()?;
        Ok(database.close()?)
    })?;
    rename_in(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn open_here(directory: &Path) -> Result<(Store, Vec<Notice>), StoreError> {
        Store::open(directory, StoreSettings::default(), NOW)
    }

    #[test]
    fn a_newer_format_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        drop(open_here(directory.path()).unwrap());
        let database = Builder::new().create(directory.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(tables::META).unwrap().insert("format", 7_u32.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let before = fs::read(directory.path().join(FILE)).unwrap();
        let error = open_here(directory.path()).unwrap_err();
        assert!(matches!(&error.kind, StoreErrorKind::NewerFormat { found, .. } if found == "7"), "{error}");
        assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), before);
        assert_eq!(damaged_files(directory.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_unfinished_first_start_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("history.redb.new"), b"half").unwrap();
        fs::write(directory.path().join(FILE), b"").unwrap();
        assert_eq!(open_here(directory.path()).unwrap().1, []);
    }

    #[test]
    fn few_damaged_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..5_u8 {
            fs::write(directory.path().join(FILE), [round; 9000]).unwrap();
            let (_store, notices) = open_here(directory.path()).unwrap();
            assert!(matches!(&notices[0], Notice::SetAside { .. }), "{notices:?}");
        }
        let mut kept: Vec<u8> =
            damaged_files(directory.path()).unwrap().iter().map(|path| fs::read(path).unwrap()[0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [3, 4]);
    }
}
