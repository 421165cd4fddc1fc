//! The way to an open database: fresh, repaired, migrated, or set aside when it is damaged.
//!
//! A file of a newer format is neither written nor moved. A file that cannot be read for lack of rights or room is no
//! damaged file and stays where it is.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, WriteTransaction};
use rustix::fs::statvfs;

use super::copy;
use super::error::{Notice, StoreError, StoreErrorKind};
use super::settings::StoreSettings;
use super::tables::{self, FORMAT, META};
use crate::model::{Bytes, WallTime};

/// The database's name in the state directory.
pub(crate) const FILE: &str = "history.redb";
/// Its copy.
pub(crate) const COPY: &str = "history-copy.redb";
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

/// One step of a migration: brings a database from its format to the next.
pub(crate) type Migration = (u32, fn(&WriteTransaction) -> Result<(), redb::Error>);

/// Steps from every older format there ever was. There is only format 1.
const MIGRATIONS: &[Migration] = &[];

/// Makes the state directory where it is missing, for its owner only.
pub(crate) fn make_directory(directory: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| StoreError::from_io(directory, error))
}

/// Opens the database of a directory that is locked already. A damaged one is set aside and its copy takes its place; where
/// there is no good copy either, a fresh one is started.
pub(crate) fn open(
    directory: &Path,
    settings: &StoreSettings,
    opener: &dyn Opener,
    wall: WallTime,
) -> Result<(Database, Vec<Notice>), StoreError> {
    open_with(directory, settings, opener, wall, MIGRATIONS)
}

fn open_with(
    directory: &Path,
    settings: &StoreSettings,
    opener: &dyn Opener,
    wall: WallTime,
    migrations: &[Migration],
) -> Result<(Database, Vec<Notice>), StoreError> {
    let path = directory.join(FILE);
    let mut notices = Vec::new();
    if is_missing(&path)? && copy::take_the_place(directory, &path)? {
        notices.push(Notice::TakenFromCopy);
    }
    // The file, its copy, a fresh one.
    for _ in 0..2 {
        match attempt(&path, settings, opener, migrations, &mut notices) {
            Ok(database) => return Ok((database, notices)),
            Err(StoreErrorKind::Damaged(reason)) => notices.extend(set_aside(directory, settings, wall, reason)?),
            Err(kind) => return Err(StoreError::new(&path, kind)),
        }
    }
    let database =
        attempt(&path, settings, opener, migrations, &mut notices).map_err(|kind| StoreError::new(&path, kind))?;
    Ok((database, notices))
}

fn is_missing(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map(|exists| !exists).map_err(|error| StoreError::from_io(path, error))
}

/// Renames a damaged file, puts its copy in its place where there is one, and deletes the oldest of those that were renamed
/// before.
pub(crate) fn set_aside(
    directory: &Path,
    settings: &StoreSettings,
    wall: WallTime,
    reason: String,
) -> Result<Vec<Notice>, StoreError> {
    let path = directory.join(FILE);
    let stamp = wall.to_rfc3339().replace(['-', ':', ' '], "");
    let mut moved_to = directory.join(format!("{FILE}.corrupt-{stamp}"));
    let mut copy = 1;
    while moved_to.exists() {
        copy += 1;
        moved_to = directory.join(format!("{FILE}.corrupt-{stamp}.{copy}"));
    }
    fs::rename(&path, &moved_to).map_err(|error| StoreError::from_io(&path, error))?;
    let from_copy = copy::take_the_place(directory, &path)?;
    let mut notices = vec![Notice::SetAside { moved_to, reason, from_copy }];
    notices.extend(forget_damaged(directory, settings.damaged_kept.max(1))?);
    Ok(notices)
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

/// One half of the cache is for the file and one for its copy.
fn builder(settings: &StoreSettings) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(usize::try_from(settings.cache.0 / 2).unwrap_or(usize::MAX));
    builder
}

/// Opens a database that may not be there; never repairs what it says of itself by starting afresh.
pub(crate) fn open_existing(
    path: &Path,
    settings: &StoreSettings,
    opener: &dyn Opener,
) -> Result<Option<Database>, StoreErrorKind> {
    let mut builder = builder(settings);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreErrorKind::from_os(error)),
        Ok(meta) => builder.set_check_integrity_on_open(meta.len() <= CHECKED_UP_TO),
    };
    let database = guarded(|| Ok(opener.open(&builder, path)?))?;
    match guarded(|| tables::read_format(&database.begin_read()?))? {
        Some(FORMAT) => Ok(Some(database)),
        Some(_) | None => {
            Err(StoreErrorKind::Damaged("it has another format than the file it is the copy of".to_owned()))
        }
    }
}

/// Makes an empty database for its owner only, in the place of whatever was there.
pub(crate) fn create_empty(
    path: &Path,
    settings: &StoreSettings,
    opener: &dyn Opener,
) -> Result<Database, StoreErrorKind> {
    create_file(path)?;
    guarded(|| Ok(opener.open(&builder(settings), path)?))
}

/// Fails where the disk has less room than twice this many bytes: what is begun all the same would take the room that others
/// need.
pub(crate) fn room_for(path: &Path, bytes: Bytes) -> Result<(), StoreErrorKind> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let disk = statvfs(directory).map_err(|error| StoreErrorKind::from_os(error.into()))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.0.saturating_mul(2) {
        return Err(StoreErrorKind::Full(io::ErrorKind::StorageFull.into()));
    }
    Ok(())
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
pub(crate) fn rename_in(unfinished: &Path, path: &Path) -> Result<(), StoreErrorKind> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::rename(unfinished, path).and_then(|()| File::open(directory)?.sync_all()).map_err(StoreErrorKind::from_os)
}

fn attempt(
    path: &Path,
    settings: &StoreSettings,
    opener: &dyn Opener,
    migrations: &[Migration],
    notices: &mut Vec<Notice>,
) -> Result<Database, StoreErrorKind> {
    let mut builder = builder(settings);
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
    let format = guarded(|| tables::read_format(&database.begin_read()?))?;
    match format {
        Some(FORMAT) => Ok(database),
        Some(newer) if newer > FORMAT => Err(newer_format(newer)),
        Some(older) => {
            guarded(|| migrate(&database, older, FORMAT, migrations))?;
            notices.push(Notice::Migrated { from: older, to: FORMAT });
            Ok(database)
        }
        None => Err(StoreErrorKind::Damaged("it has no format number".to_owned())),
    }
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

/// Takes every step from `found` to `wanted` in one transaction.
fn migrate(database: &Database, found: u32, wanted: u32, steps: &[Migration]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for format in found..wanted {
        let Some((_, step)) = steps.iter().find(|(from, _)| *from == format) else {
            return Err(redb::Error::Corrupted(format!("its format {format} was never used")));
        };
        step(&transaction)?;
    }
    transaction.open_table(META)?.insert("format", wanted.to_le_bytes().as_slice())?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_700_000_000_000);

    fn set_format(directory: &Path, format: u32) {
        let database = Builder::new().create(directory.join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", format.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    }

    fn open_here(directory: &Path, steps: &[Migration]) -> Result<(Database, Vec<Notice>), StoreError> {
        open_with(directory, &StoreSettings::default(), &PlainFile, NOW, steps)
    }

    #[test]
    fn an_older_format_is_migrated_and_keeps_its_content() {
        let directory = tempfile::tempdir().unwrap();
        drop(open_here(directory.path(), &[]).unwrap());
        set_format(directory.path(), 0);
        let step: Migration = (0, |transaction| {
            transaction.open_table(META)?.insert("migrated", b"yes".as_slice())?;
            Ok(())
        });
        let (database, notices) = open_here(directory.path(), &[step]).unwrap();
        assert_eq!(notices, [Notice::Migrated { from: 0, to: FORMAT }]);
        let meta = database.begin_read().unwrap().open_table(META).unwrap();
        assert_eq!(meta.get("migrated").unwrap().unwrap().value(), b"yes");
        drop((database, meta));
        assert_eq!(open_here(directory.path(), &[]).unwrap().1, [], "the second start finds nothing to do");
    }

    #[test]
    fn a_failing_migration_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(open_here(directory.path(), &[]).unwrap());
        set_format(directory.path(), 0);
        let step: Migration = (0, |transaction| {
            transaction.open_table(META)?.insert("migrated", b"half".as_slice())?;
            Err(redb::Error::Io(io::ErrorKind::StorageFull.into()))
        });
        let error = open_here(directory.path(), &[step]).unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::Full(_)), "{error}");
        let database = Builder::new().create(directory.path().join(FILE)).unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(tables::read_format(&read).unwrap(), Some(0));
        assert!(read.open_table(META).unwrap().get("migrated").unwrap().is_none());
    }

    #[test]
    fn a_newer_format_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        drop(open_here(directory.path(), &[]).unwrap());
        set_format(directory.path(), 7);
        let before = fs::read(directory.path().join(FILE)).unwrap();
        let error = open_here(directory.path(), &[]).unwrap_err();
        assert!(matches!(&error.kind, StoreErrorKind::NewerFormat { found, .. } if found == "7"), "{error}");
        assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), before);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_first_start_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("history.redb.new"), b"half").unwrap();
        fs::write(directory.path().join(FILE), b"").unwrap();
        let (_database, notices) = open_here(directory.path(), &[]).unwrap();
        assert_eq!(notices, []);
    }

    #[test]
    fn few_damaged_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..5_u8 {
            fs::write(directory.path().join(FILE), [round; 9000]).unwrap();
            let (database, notices) = open_here(directory.path(), &[]).unwrap();
            assert!(matches!(&notices[0], Notice::SetAside { .. }), "{notices:?}");
            drop(database);
        }
        let mut kept: Vec<u8> =
            damaged_files(directory.path()).unwrap().iter().map(|path| fs::read(path).unwrap()[0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [3, 4]);
    }
}
