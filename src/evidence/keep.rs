//! What is known of files of evidence: one short record beside each, in one folder, within a budget.
//!
//! Commands write them and the sidecar reads them, so nothing here is taken for granted: what cannot be read, names a file
//! elsewhere or is too long is passed over. The oldest go when the budget asks for it. It refuses to delete anything but
//! files with a record, and what it has itself begun and could not finish.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::report::{self, SeriesReport};
use crate::model::{AppName, Bytes, DaemonName, Life, ProcessKey, WallTime};

/// The name of the folder below the state directory.
pub const FOLDER: &str = "evidence";
/// Records looked at, at the most.
const RECORDS: usize = 1000;
/// A record is never longer.
const RECORD_BYTES: u64 = 16 << 10;
/// Files kept, whatever their size; more would no longer be read at a glance.
const MOST_KEPT: usize = 500;
const ROOT: u32 = 0;
/// Entries of the folder that are weighed, at the most.
const ENTRIES: usize = 20_000;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A sampling heap profile.
    #[default]
    HeapProfile,
    /// A heap snapshot.
    HeapSnapshot,
}

impl Kind {
    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeapProfile => "heap_profile",
            Self::HeapSnapshot => "heap_snapshot",
        }
    }
}

/// Why it was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person asked.
    #[default]
    Person,
    /// The verdict turned to leaking.
    Leak,
    /// A leaking process was about to be restarted.
    BeforeRestart,
}

impl Trigger {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Leak => "leak",
            Self::BeforeRestart => "before_restart",
        }
    }
}

/// What is known of one file of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// Why it was taken.
    #[serde(default)]
    pub trigger: Trigger,
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// pm2's number.
    pub pm_id: u32,
    /// The user whose app it is, where that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// The life it is of, where that was written down.
    #[serde(default)]
    pub life: Option<Life>,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub taken_at: WallTime,
    /// How long allocations were sampled, in seconds.
    pub sampled_seconds: Option<f64>,
    /// How it was taken; absent from records of older versions.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// What it cannot tell, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// The longest that the app stood still meanwhile, in seconds, where that was seen.
    pub pause_seconds: Option<f64>,
    /// What was expected before.
    #[serde(default)]
    pub expected: Option<Expected>,
}

/// What a snapshot was expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The heap's size just before.
    pub heap_bytes: Bytes,
    /// How long the app would stand still, in seconds.
    pub pause_seconds: f64,
    /// How large the file would get.
    pub file_bytes: Bytes,
}

impl Record {
    /// The process that it is of.
    pub fn key(&self) -> ProcessKey {
        ProcessKey { daemon: self.daemon.clone(), pm_id: self.pm_id }
    }
}

/// The folder has no room within its budget.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoRoom {
    /// What lies there and is not ours to delete takes too much.
    #[error(
        "evidence may take {most} in {}, {needed} is needed for this, and {others} lies there that leakslope has no record \
         of: move that away or raise evidence.max_disk", folder.display()
    )]
    Others {
        /// The folder.
        folder: PathBuf,
        /// The budget.
        most: Bytes,
        /// What is needed.
        needed: Bytes,
        /// What has no record.
        others: Bytes,
    },
    /// Something could not be deleted.
    #[error("{}: {why}; no room can be made for evidence", path.display())]
    Stuck {
        /// What.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

/// Deletes the oldest files with a record until `needed` more fits into `most`. Returns the records of what went.
///
/// # Errors
/// [`NoRoom`] where it does not fit even so.
pub fn make_room(folder: &Path, most: Bytes, needed: Bytes) -> Result<Vec<Record>, NoRoom> {
    let mut newest_first: Vec<(Record, u64)> = records(folder)
        .into_iter()
        .map(|record| {
            let size = belongings(folder, &record).iter().map(|path| size_of(path)).sum();
            (record, size)
        })
        .collect();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES);
    let whole: u64 = entries.map(|entry| size_of(&entry.path())).sum();
    let recorded: u64 = newest_first.iter().map(|(_, size)| size).sum();
    let others = whole.saturating_sub(recorded);
    if others + needed.0 > most.0 {
        return Err(NoRoom::Others { folder: folder.to_owned(), most, needed, others: Bytes(others) });
    }
    let sizes: Vec<u64> = newest_first.iter().map(|(_, size)| *size).collect();
    let gone = newest_first.split_off(staying(&sizes, most.0 - others - needed.0));
    for (record, _) in &gone {
        for path in belongings(folder, record) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(NoRoom::Stuck { path, why: error.to_string() });
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(gone.into_iter().map(|(record, _)| record).collect())
}

/// How many stay of files of these sizes, the newest first, so that they take no more than `most`.
fn staying(sizes: &[u64], most: u64) -> usize {
    let mut taken = 0_u64;
    let fits = sizes.iter().take(MOST_KEPT).take_while(|size| {
        taken = taken.saturating_add(**size);
        taken <= most
    });
    fits.count()
}

/// The size of a file; nothing where it is none.
fn size_of(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file).map_or(0, |about| about.len())
}

/// Writes a file of evidence into `folder`, which is made where there is none, and its record beside it. Both are readable
/// by their owner alone, reach the disk before this returns, and are never written over others.
///
/// # Errors
/// What the system says, with the path; then neither of the two is left behind.
pub fn write(folder: &Path, record: &Record, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let mut begun = Begun::new(folder, &record.file)?;
    begun.write(bytes)?;
    begun.finish(Some(record))
}

/// Writes a file of evidence of which there is nothing to record, for no daemon knows of its process; else as [`write`].
///
/// # Errors
/// What the system says, with the path; then nothing is left behind.
pub fn write_alone(folder: &Path, file: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    let mut begun = Begun::new(folder, file)?;
    begun.write(bytes)?;
    begun.finish(None)
}

/// A file of evidence that is being written; it is taken away again unless it is finished.
#[derive(Debug)]
pub struct Begun {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Begun {
    /// Begins a file in `folder`, which is made where there is none, readable by its owner alone.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn new(folder: &Path, file: &str) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| named(folder, &error))?;
        let path = folder.join(file);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| named(&path, &error))?;
        Ok(Self { path, file, finished: false })
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes).map_err(|error| named(&self.path, &error))
    }

    /// A second handle on the file, for who writes it piece by piece.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn handle(&self) -> std::io::Result<File> {
        self.file.try_clone().map_err(|error| named(&self.path, &error))
    }

    /// Ends the file: it and its record beside it have reached the disk when this returns.
    ///
    /// # Errors
    /// What the system says, with the path; then neither of the two is left behind.
    pub fn finish(mut self, record: Option<&Record>) -> std::io::Result<PathBuf> {
        self.file.sync_all().map_err(|error| named(&self.path, &error))?;
        if let (Some(record), Some(folder)) = (record, self.path.parent()) {
            let beside = record_path(folder, record);
            let name = beside.file_name().unwrap_or_default().to_string_lossy();
            let mut begun = Self::new(folder, &name)?;
            begun.write(&serde_json::to_vec(record)?)?;
            begun.finish(None)?;
        }
        self.finished = true;
        Ok(self.path.clone())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be deleted is no more than untidy.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn named(path: &Path, error: &std::io::Error) -> std::io::Error {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    let why = if full { format!("no room left to write ({error}): make some on that disk") } else { error.to_string() };
    std::io::Error::new(error.kind(), format!("{}: {why}", path.display()))
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

/// The user whose app a file is of: as its record tells where the file is ours, else whoever has made it. None where that is
/// root, who may have it from anybody.
pub fn user(file: &Path) -> Option<u32> {
    let owner = std::fs::metadata(file).ok()?.uid();
    let mut beside = file.as_os_str().to_owned();
    beside.push(".json");
    let told = || record(Path::new(&beside))?.user;
    let is_ours = owner == ROOT || owner == rustix::process::geteuid().as_raw();
    told().filter(|_| is_ours).or_else(|| (owner != ROOT).then_some(owner))
}

/// The path of a record's file.
pub fn path(folder: &Path, record: &Record) -> PathBuf {
    folder.join(&record.file)
}

fn record_path(folder: &Path, record: &Record) -> PathBuf {
    folder.join(format!("{}.json", record.file))
}

/// Everything that goes with a record, which is the last: what a deletion that was broken off leaves is known to the next.
fn belongings(folder: &Path, record: &Record) -> [PathBuf; 3] {
    let file = path(folder, record);
    [report_path(&file), file, record_path(folder, record)]
}

/// Where the report of a series lies: beside the last of its snapshots, and it goes with that.
pub fn report_path(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.as_os_str().to_owned();
    name.push(".report");
    PathBuf::from(name)
}

/// Reads what lies beside a snapshot as the report of its series; none where nothing does.
///
/// # Errors
/// Why it cannot be read, with its name.
pub fn report(snapshot: &Path) -> Option<Result<SeriesReport, String>> {
    let path = report_path(snapshot);
    let about = std::fs::symlink_metadata(&path).ok()?;
    let read = || {
        if !about.is_file() {
            return Err("it is no file".to_owned());
        }
        let mut bytes = Vec::new();
        let file = File::open(&path).and_then(|file| file.take(report::LONGEST + 1).read_to_end(&mut bytes));
        file.map_err(|error| error.to_string())?;
        SeriesReport::read(&bytes).map_err(|error| error.to_string())
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Some(read().map_err(|why| format!("{name} cannot be read: {why}")))
}

fn record(path: &Path) -> Option<Record> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(RECORD_BYTES).read_to_end(&mut text).ok()?;
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
            kind: Kind::HeapProfile,
            trigger: Trigger::Person,
            user: None,
            life: None,
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 3,
            taken_at: WallTime(at),
            sampled_seconds: Some(30.0),
            cost: None,
            notes: Vec::new(),
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

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let text = r#"{"daemon":"default","app":"shop","pm_id":3,"taken_at":1,"sampled_seconds":30.0,"file":"a"}"#;
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), made("a", 1));
    }

    /// What is left after room was made in a folder of five files of 1000 bytes and one of somebody else's.
    fn left(most: u64, needed: u64) -> (Result<usize, NoRoom>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..5 {
            write(folder.path(), &made(&format!("{number}.heapsnapshot"), number), &[b'x'; 1000]).unwrap();
        }
        std::fs::write(folder.path().join("a-persons.heapprofile"), [b'y'; 300]).unwrap();
        let gone = make_room(folder.path(), Bytes(most), Bytes(needed)).map(|gone| gone.len());
        assert!(folder.path().join("a-persons.heapprofile").exists(), "it is not ours");
        let left: Vec<Record> = records(folder.path());
        assert!(left.iter().all(|record| path(folder.path(), record).exists()));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            2 * left.len() + 1,
            "files go with their records"
        );
        (gone, left.into_iter().map(|record| record.file).collect())
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_must() {
        assert_eq!(left(1 << 20, 0).0, Ok(0));
        // With its record each takes a bit more than 1000 bytes.
        assert_eq!(
            left(4000, 0),
            (Ok(2), ["4.heapsnapshot", "3.heapsnapshot", "2.heapsnapshot"].map(String::from).into())
        );
        assert_eq!(left(4000, 1200), (Ok(3), ["4.heapsnapshot", "3.heapsnapshot"].map(String::from).into()));
        assert_eq!(left(1300, 1000), (Ok(5), Vec::new()));
        let (refused, untouched) = left(1000, 900);
        let sentence = refused.unwrap_err().to_string();
        assert!(sentence.contains("300 bytes lies there") || sentence.contains("300 B lies there"), "{sentence}");
        assert_eq!(untouched.len(), 5, "nothing is deleted in vain");
    }

    #[test]
    fn a_report_is_read_if_it_is_one_and_goes_with_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let [first, last] = [1, 2].map(|at| made(&format!("{at}.heapsnapshot"), at));
        let size = |record: &Record| belongings(folder.path(), record).iter().map(|path| size_of(path)).sum::<u64>();
        for record in [&first, &last] {
            write(folder.path(), record, &[b'x'; 1000]).unwrap();
        }
        let snapshot = path(folder.path(), &last);
        assert!(report(&snapshot).is_none(), "nothing is there");
        let before = size(&last);
        let whole = br#"{"sentence":"it grows","growth":null}"#;
        let beside = report_path(&snapshot);
        for (bytes, told) in [
            (whole.to_vec(), Ok("it grows")),
            (whole[..20].to_vec(), Err("it is no whole report: EOF")),
            (vec![b' '; 300 << 10], Err("it is longer than any report (256 KiB at the most)")),
        ] {
            std::fs::write(&beside, &bytes).unwrap();
            assert_eq!(size(&last), before + bytes.len() as u64, "it counts");
            match (report(&snapshot).unwrap(), told) {
                (Ok(report), Ok(sentence)) => assert_eq!(report.sentence, sentence),
                (Err(why), Err(told)) => {
                    assert!(why.starts_with("2.heapsnapshot.report cannot be read: ") && why.contains(told), "{why}");
                }
                (read, told) => panic!("{read:?} | {told:?}"),
            }
        }
        let gone = make_room(folder.path(), Bytes(size(&last)), Bytes(0)).unwrap();
        assert_eq!((gone, beside.exists()), (vec![first], true), "it stays as long as the last snapshot does");
        assert_eq!(make_room(folder.path(), Bytes(0), Bytes(0)), Ok(vec![last]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::create_dir(&beside).unwrap();
        assert_eq!(report(&snapshot).unwrap(), Err("2.heapsnapshot.report cannot be read: it is no file".to_owned()));
    }

    #[test]
    fn more_files_than_anybody_reads_are_not_kept() {
        assert_eq!(staying(&[1; 700], u64::MAX), MOST_KEPT);
        assert_eq!((staying(&[], 0), staying(&[0, 0], 0), staying(&[1], 0)), (0, 2, 0));
        assert_eq!(staying(&[u64::MAX, u64::MAX], u64::MAX - 1), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_has_room() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(make_room(&folder.path().join("none"), Bytes(10), Bytes(10)), Ok(Vec::new()));
    }
}
