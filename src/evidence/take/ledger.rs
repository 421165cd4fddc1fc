//! Which inspectors leakslope has opened in apps and not closed yet: a short record of each in the state directory, written
//! before the signal is sent.
//!
//! Whoever opened an inspector holds the lock on its record for as long as it lives, and takes the record away when the
//! inspector is closed. A record that nobody holds is that of a leakslope that was killed: `left_open` closes what it names.
//! It refuses to say anything about a process but which it was, and to touch a record that is held.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Target;
use crate::collect::system::boot_id;
use crate::model::{AppName, DaemonName, ProcessKey, WallTime};

/// The name of the folder below the state directory.
const FOLDER: &str = "inspectors";
/// A record is never longer, …
const LONGEST: u64 = 64 << 10;
/// … and more of them are not looked at in one go.
const RECORDS: usize = 100;
/// The ending of a record, and of one that is being written: of that no signal was sent yet.
const ENDING: &str = "json";
const BEGUN: &str = "new";

/// Where it is kept which inspectors are open.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    folder: Option<PathBuf>,
}

/// An inspector that was asked for, and in whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) daemon: DaemonName,
    #[serde(flatten)]
    pub(super) app: AppName,
    pub(super) pm_id: u32,
    pub(super) pid: u32,
    /// The start in clock ticks after boot: with the pid and the boot it names one life.
    pub(super) start_ticks: u64,
    pub(super) boot: String,
    /// Ports that the process listened on before; the inspector's is none of them.
    pub(super) before: Vec<u16>,
    /// Where the inspector listens, once that was seen.
    pub(super) port: Option<u16>,
    /// When it was asked for.
    pub(super) at: WallTime,
}

/// A record that is held.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) path: PathBuf,
    // The lock lasts as long as this is open.
    #[expect(dead_code, reason = "it is held")]
    file: File,
}

impl Ledger {
    /// Of this state directory; without one nothing is written down, and nothing found.
    pub fn new(state_directory: Option<&Path>) -> Self {
        Self { folder: state_directory.map(|state| state.join(FOLDER)) }
    }

    /// Writes down that an inspector is about to be opened; none where there is no state directory.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(super) fn write(&self, entry: &Entry) -> std::io::Result<Option<Noted>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let name = format!("{}-{}-{}", entry.pid, entry.start_ticks, std::process::id());
        write(folder, &name, entry).map(Some)
    }

    /// The records that nobody holds, which now are held here.
    pub(super) fn left(&self) -> Vec<(Noted, Entry)> {
        let entries = self.folder.iter().flat_map(std::fs::read_dir).flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == ENDING));
        paths.take(RECORDS).filter_map(|path| left(&path)).collect()
    }
}

impl Entry {
    pub(super) fn new(target: &Target, start_ticks: u64, before: Vec<u16>, at: WallTime) -> Self {
        let ProcessKey { daemon, pm_id } = target.key.clone();
        let (app, pid, boot) = (target.app.clone(), target.life.pid, boot_id());
        Self { daemon, app, pm_id, pid, start_ticks, boot, before, port: None, at }
    }

    /// Whether the machine was started anew since: then its process is gone, whoever has its pid.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot == boot_id()
    }
}

impl Noted {
    /// Writes the record anew. The one before, which says enough to find the inspector, holds where that fails.
    pub(super) fn rewrite(self, entry: &Entry) -> Self {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_stem()) else { return self };
        write(folder, &name.to_string_lossy(), entry).unwrap_or(self)
    }

    /// The inspector is closed, or its process gone.
    pub(super) fn strike_out(self) {
        // What cannot be deleted is looked at again next time, and no more than untidy.
        std::fs::remove_file(&self.path).ok();
    }
}

fn write(folder: &Path, name: &str, entry: &Entry) -> std::io::Result<Noted> {
    let named =
        |path: &Path, error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| named(folder, error))?;
    let path = folder.join(format!("{name}.{ENDING}"));
    let begun = folder.join(format!("{name}.{BEGUN}"));
    let put = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        std::fs::rename(&begun, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    let file = put().map_err(|error| named(&begun, error))?;
    Ok(Noted { path, file })
}

fn left(path: &Path) -> Option<(Noted, Entry)> {
    let mut file = File::open(path).ok()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
    }
    // Between the two its holder may have taken it away or written it anew, and holds that one.
    if file.metadata().ok()?.ino() != std::fs::metadata(path).ok()?.ino() {
        return None;
    }
    let mut text = Vec::new();
    (&mut file).take(LONGEST).read_to_end(&mut text).ok()?;
    Some((Noted { path: path.to_owned(), file }, serde_json::from_slice(&text).ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry() -> Entry {
        let (daemon, app, boot) = ("default".into(), "shop".into(), boot_id());
        Entry { daemon, app, pm_id: 3, pid: 4711, start_ticks: 99, boot, before: vec![80], port: None, at: WallTime(1) }
    }

    #[test]
    fn only_what_nobody_holds_is_found_and_it_is_gone_when_it_is_struck_out() {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Some(state.path()));
        assert!(ledger.left().is_empty(), "there is no folder yet");
        let held = ledger.write(&entry()).unwrap().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&held.path), mode(&state.path().join(FOLDER))), (0o600, 0o700));
        assert!(ledger.left().is_empty(), "it is held");
        let seen = Entry { port: Some(9229), ..entry() };
        let held = held.rewrite(&seen);
        assert!(ledger.left().is_empty(), "it is still held");
        drop(held);
        let left = ledger.left();
        assert_eq!(left.iter().map(|(_, entry)| entry).collect::<Vec<_>>(), [&seen]);
        assert!(ledger.left().is_empty(), "one at a time");
        drop(left);
        for (held, entry) in ledger.left() {
            assert!(entry.is_of_this_boot() && !Entry { boot: "another".into(), ..entry }.is_of_this_boot());
            held.strike_out();
        }
        assert_eq!(std::fs::read_dir(state.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_record_is_left_alone_and_without_a_place_nothing_is_written() {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Some(state.path()));
        let folder = state.path().join(FOLDER);
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in [("1-1-1.json", "{"), ("2-2-2.new", "{}"), ("notes.txt", "mine")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        assert!(ledger.left().is_empty());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
        assert!(Ledger::default().write(&entry()).unwrap().is_none() && Ledger::default().left().is_empty());
        let error = Ledger::new(Some(&folder.join("notes.txt"))).write(&entry()).unwrap_err().to_string();
        assert!(error.contains("notes.txt/inspectors: "), "{error}");
    }
}
