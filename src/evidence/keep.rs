//! What is known of files of evidence: one short record beside each, in one folder.
//!
//! Commands write them and the sidecar reads them, so nothing here is taken for granted: what cannot be read, names a file
//! elsewhere or is too long is passed over. It refuses to delete anything
//! but what it has itself begun and could not finish.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{AppName, DaemonName, WallTime};

/// The name of the folder below the state directory.
pub const FOLDER: &str = "evidence";
/// Records looked at, at the most.
const RECORDS: usize = 1000;
/// A record is never longer.
const RECORD_BYTES: u64 = 16 << 10;

/// What is known of one sampling heap profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    pub app: AppName,
    /// pm2's number.
    pub pm_id: u32,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub taken_at: WallTime,
    /// How long allocations were sampled, in seconds.
    pub sampled_seconds: Option<f64>,
    /// How it was taken; absent from records of older versions.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// The file's name in the same folder.
    pub file: String,
}

/// By which road evidence was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Road {
    /// pm2's own action, by its agent in the app.
    Pm2Action,
    /// V8's inspector.
    Inspector,
}

/// How evidence was taken and what that cost the app.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// By which road.
    pub road: Road,
    /// The longest that the event loop was late meanwhile, in seconds, where that was seen.
    pub pause_seconds: Option<f64>,
}

/// Writes a file of evidence into `folder`, which is made where there is none, and its record beside it. Both are readable
/// by their owner alone, reach the disk before this returns, and are never written over others.
///
/// # Errors
/// What the system says, with the path; then neither of the two is left behind.
pub fn write(folder: &Path, record: &Record, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let path = write_alone(folder, &record.file, bytes)?;
    let beside = folder.join(format!("{}.json", record.file));
    let recorded = serde_json::to_vec(record).map_err(std::io::Error::from).and_then(|text| create(&beside, &text));
    recorded.inspect_err(|_no_record| drop(std::fs::remove_file(&path)))?;
    Ok(path)
}

/// Writes a file of evidence of which there is nothing to record, for no daemon knows of its process; else as [`write`].
///
/// # Errors
/// What the system says, with the path; then nothing is left behind.
pub fn write_alone(folder: &Path, file: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| named(folder, &error))?;
    let path = folder.join(file);
    create(&path, bytes)?;
    Ok(path)
}

/// Writes a new file; what was begun and not finished is taken away again.
fn create(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| named(path, &error))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_half| drop(std::fs::remove_file(path))).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads the records of a folder, the newest first; none where there is no such folder.
pub fn records(folder: &Path) -> Vec<Record> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut records: Vec<Record> = records.take(RECORDS).filter_map(|path| record(&path)).collect();
    records.sort_by(|one, other| (other.taken_at, &other.file).cmp(&(one.taken_at, &one.file)));
    records
}

/// The path of a record's file.
pub fn path(folder: &Path, record: &Record) -> PathBuf {
    folder.join(&record.file)
}

fn record(path: &Path) -> Option<Record> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(RECORD_BYTES).read_to_end(&mut text).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let beside = path.file_stem().is_some_and(|stem| stem == record.file.as_str());
    (beside && !record.file.contains('/')).then_some(record)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn made(file: &str, at: i64) -> Record {
        Record {
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 3,
            taken_at: WallTime(at),
            sampled_seconds: Some(30.0),
            cost: None,
            file: file.to_owned(),
        }
    }

    #[test]
    fn records_come_back_newest_first_and_wrong_ones_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(records(&folder.path().join("none")), []);
        for record in [made("a.heapprofile", 1), made("b.heapprofile", 2)] {
            assert_eq!(write(folder.path(), &record, b"{}").unwrap(), path(folder.path(), &record));
        }
        let error = write(folder.path(), &made("a.heapprofile", 9), b"other").unwrap_err();
        assert!(error.to_string().contains("a.heapprofile: File exists"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("a.heapprofile")).unwrap(), b"{}", "it is never written over");
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("c.heapprofile.json"), "{").unwrap();
        std::fs::write(place("d.json"), serde_json::to_vec(&made("../secret", 3)).unwrap()).unwrap();
        std::fs::write(place("e.heapprofile"), "no record").unwrap();
        assert_eq!(records(folder.path()), [made("b.heapprofile", 2), made("a.heapprofile", 1)]);
        for name in ["a.heapprofile", "a.heapprofile.json"] {
            let mode = std::fs::metadata(place(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_file_whose_record_cannot_be_written_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.heapprofile.json"), "another's").unwrap();
        assert!(write(folder.path(), &made("a.heapprofile", 1), b"{}").is_err());
        assert!(!folder.path().join("a.heapprofile").exists());
        assert_eq!(std::fs::read(folder.path().join("a.heapprofile.json")).unwrap(), b"another's");
    }
}
