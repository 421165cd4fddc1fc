//! What is known of files of evidence: one short record beside each, in one folder.
//!
//! Commands write them and the sidecar reads them, so nothing here is taken for granted: what cannot be read, names a file
//! elsewhere or is too long is passed over. This room refuses to delete anything.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    /// The file's name in the same folder.
    pub file: String,
}

/// Writes the record of a file that lies in `folder` already, readable by its owner alone.
///
/// # Errors
/// What the system says.
pub fn write(folder: &Path, record: &Record) -> std::io::Result<()> {
    let path = folder.join(format!("{}.json", record.file));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(record)?)
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
            file: file.to_owned(),
        }
    }

    #[test]
    fn records_come_back_newest_first_and_wrong_ones_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(records(&folder.path().join("none")), []);
        for record in [made("a.heapprofile", 1), made("b.heapprofile", 2)] {
            write(folder.path(), &record).unwrap();
        }
        assert!(write(folder.path(), &made("a.heapprofile", 9)).is_err(), "a record is never written over");
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("c.heapprofile.json"), "{").unwrap();
        std::fs::write(place("d.json"), serde_json::to_vec(&made("../secret", 3)).unwrap()).unwrap();
        std::fs::write(place("e.heapprofile"), "no record").unwrap();
        assert_eq!(records(folder.path()), [made("b.heapprofile", 2), made("a.heapprofile", 1)]);
        let mode = std::fs::metadata(place("a.heapprofile.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
