//! Where the signs of an end are read: pm2's log, its list, its bus, and the error log of the app.
//!
//! The log is found by the daemon's own descriptor, so that it may lie anywhere, and read on from where it was read before. Where
//! the daemon writes to no file (pm2-runtime), its bus is listened to. Files are opened by [`super::home_file`] alone, and only
//! those that belong to the daemon's user. Nothing here decides why something ended.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::bus::Bus;
use super::daemon_log::{self, FullHeaps, LogReader, Stack};
use super::home_file::{Home, within_of};
use super::list::ProcessList;
use super::socket::{Client, Peer};
use super::{DaemonSpec, STEP_LIMIT, Settings};
use crate::model::{DaemonEvent, DaemonLine, WallTime};

/// Bytes of a log that are read at one look.
const PIECE: u64 = 256 << 10;
/// Bytes of a log that are read back at the most.
const FURTHEST_BACK: u64 = 8 << 20;
/// Bytes of a log that the first look ever goes back, …
const FIRST_LOOK: u64 = 64 << 10;
/// … for what is not older than this, in milliseconds.
const SINCE_BEGIN_MS: i64 = 5000;
/// Bytes at the end of an app's error log that are looked at.
const ERROR_TAIL: u64 = 64 << 10;
/// How long the bus is listened to after an end that could not be decided.
const LISTEN: Duration = Duration::from_mins(1);
/// Lines from the bus that may wait.
const WAITING: usize = 1024;
/// Stamps are whole quarters of an hour from UTC.
const QUARTER_MS: i64 = 15 * 60 * 1000;

/// Where a log was read to: what is kept over a restart of the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub inode: u64,
    /// The byte behind the last line that was read.
    pub offset: u64,
}

/// What one look brought.
#[derive(Debug, Default)]
pub struct Look {
    /// What is new, oldest first.
    pub lines: Vec<DaemonLine>,
    /// Whether its log was read to its end, or there is none.
    pub is_read: bool,
    /// Whether the daemon's process is gone; none where its pid is not known.
    pub is_gone: Option<bool>,
}

/// Reads the signs of one daemon.
#[derive(Debug)]
pub struct EndWatch {
    home: PathBuf,
    proc: PathBuf,
    limit: usize,
    deadline: Duration,
    client: Client,
    peer: Option<Peer>,
    tail: Tail,
    bus: Option<Listening>,
    /// Whether a folder that it names has not answered since the last look: no other is asked then.
    is_late: bool,
}

#[derive(Debug)]
struct Listening {
    lines: mpsc::Receiver<DaemonLine>,
    task: JoinHandle<()>,
    until: Option<Instant>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows one log.
#[derive(Debug, Default)]
struct Tail {
    place: Option<Place>,
    reader: LogReader,
    /// Milliseconds from UTC to the daemon's calendar.
    zone_ms: Option<i64>,
    is_file: bool,
    /// Whether the daemon writes to a pipe, as under pm2-runtime.
    is_piped: bool,
    is_at_end: bool,
}

impl EndWatch {
    /// Makes one that goes on from where a log was read to.
    pub fn new(spec: &DaemonSpec, settings: &Settings, place: Option<Place>) -> Self {
        Self {
            home: spec.home.clone(),
            proc: settings.proc.clone(),
            limit: settings.process_limit,
            deadline: settings.deadline,
            client: Client::new(spec.home.join("rpc.sock"), settings.deadlines(), settings.reply_limit)
                .named_by(spec.named_by),
            peer: None,
            tail: Tail { place, ..Tail::default() },
            bus: None,
            is_late: false,
        }
    }

    /// The daemon's pid, once it has answered.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.peer?.pid
    }

    /// The home it watches.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where the log was read to.
    pub fn place(&self) -> Option<Place> {
        self.tail.place
    }

    /// Whether the log is read, so that an end without a line there is unusual.
    pub fn reads_log(&self) -> bool {
        self.tail.is_file
    }

    /// Reads what is new.
    pub async fn look(&mut self, wall: WallTime) -> Look {
        let mut look = Look::default();
        self.is_late = false;
        let Some(peer) = self.peer else { return look };
        if let Some(pid) = peer.pid {
            look.is_gone = Some(!self.proc.join(pid.to_string()).exists());
        }
        let (home, proc, mut tail) = (self.home.clone(), self.proc.clone(), std::mem::take(&mut self.tail));
        let place = tail.place;
        let read = move || {
            let lines = tail.read(&home, &proc, &peer, wall);
            (tail, lines)
        };
        match within_of(Some(peer.user), &self.home, STEP_LIMIT, read).await {
            Ok((tail, lines)) => {
                self.tail = tail;
                (look.lines, look.is_read) = (lines, self.tail.is_at_end);
            }
            Err(_late) => self.tail.place = place,
        }
        let listens_always = self.tail.is_piped && look.is_gone != Some(true);
        self.listen(listens_always, &mut look.lines).await;
        look
    }

    /// Takes what the bus has told, and begins or ends to listen.
    async fn listen(&mut self, always: bool, lines: &mut Vec<DaemonLine>) {
        if let Some(listening) = &mut self.bus {
            while let Ok(line) = listening.lines.try_recv() {
                // What the log tells, too, is taken from there.
                let is_extra = matches!(line.event, DaemonEvent::Exception { .. } | DaemonEvent::Confirmed { .. });
                if is_extra || !self.tail.is_file {
                    lines.push(line);
                }
            }
            let is_over = listening.until.is_some_and(|until| !always && Instant::now() >= until);
            if is_over || listening.task.is_finished() {
                self.bus = None;
            }
        }
        if always && self.bus.is_none() {
            self.connect(None).await;
            if self.bus.is_some() {
                tracing::info!(home = %self.home.display(), "pm2 writes no log here, so deaths are heard on its bus");
            }
        }
    }

    /// Listens to the bus for a while: the next end tells more.
    pub async fn listen_for_a_while(&mut self) {
        let until = Some(Instant::now() + LISTEN);
        match &mut self.bus {
            Some(listening) if listening.until.is_some() => listening.until = until,
            Some(_always) => {}
            None => self.connect(until).await,
        }
    }

    async fn connect(&mut self, until: Option<Instant>) {
        let Ok(mut bus) = Bus::connect(&self.home).await else { return };
        let (sender, lines) = mpsc::channel(WAITING);
        let listen = async move {
            while let Ok(line) = bus.daemon_line().await {
                // Who reads too slowly loses lines; the daemon must not have to keep them.
                let _full = sender.try_send(line);
                if sender.is_closed() {
                    return;
                }
            }
        };
        #[allow(clippy::disallowed_methods, reason = "it ends with its owner, who looks at its end every second")]
        let task = tokio::spawn(listen);
        self.bus = Some(Listening { lines, task, until });
    }

    /// Asks for the list, and so learns who the daemon is.
    pub async fn list(&mut self) -> Option<(ProcessList, Peer)> {
        let reply = timeout(self.deadline, self.client.list(self.limit)).await.ok()?.ok()?;
        self.peer = Some(reply.peer);
        Some((reply.list.ok()?, reply.peer))
    }

    /// Reads what an app's error log has got since it was so long.
    pub async fn error_log(&mut self, path: &str, since: Option<u64>) -> Option<ErrorLog> {
        let user = self.peer.filter(|_| !self.is_late)?.user;
        let path = PathBuf::from(path);
        let folder = path.parent()?.to_owned();
        let read = move || read_error_log(&path, user, since);
        let read = within_of(Some(user), &folder, STEP_LIMIT, read).await;
        self.is_late = read.is_err();
        read.ok()?
    }

    /// The lengths of error logs now, those of one folder together, up to the first folder that does not answer.
    pub async fn lengths(&mut self, paths: &[String]) -> Vec<(String, u64)> {
        let Some(peer) = self.peer.filter(|_| !self.is_late) else { return Vec::new() };
        let mut folders: std::collections::BTreeMap<PathBuf, Vec<String>> = std::collections::BTreeMap::new();
        for path in paths {
            if let Some(folder) = Path::new(path).parent() {
                folders.entry(folder.to_owned()).or_default().push(path.clone());
            }
        }
        let mut lengths = Vec::new();
        for (folder, paths) in folders {
            let inside = folder.clone();
            let read = move || -> Vec<(String, u64)> {
                let Ok(home) = Home::open(&inside) else { return Vec::new() };
                let length = |path: String| {
                    let length = match home.open_file_of(file_name(Path::new(&path))?, peer.user) {
                        Ok((_, about)) => u64::try_from(about.st_size).ok()?,
                        Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => 0,
                        Err(_) => return None,
                    };
                    Some((path, length))
                };
                paths.into_iter().filter_map(length).collect()
            };
            let Ok(read) = within_of(Some(peer.user), &folder, STEP_LIMIT, read).await else {
                self.is_late = true;
                break;
            };
            lengths.extend(read);
        }
        lengths
    }
}

/// What an app's error log says of an end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorLog {
    /// V8's text about a full heap.
    pub full_heaps: FullHeaps,
    /// The last stack.
    pub stack: Option<Stack>,
    /// Whether all that was written since was read.
    pub is_whole: bool,
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn read_error_log(path: &Path, user: u32, since: Option<u64>) -> Option<ErrorLog> {
    let (mut file, about) = Home::open(path.parent()?).ok()?.open_file_of(file_name(path)?, user).ok()?;
    let length = u64::try_from(about.st_size).ok()?;
    let from = since.filter(|since| *since <= length).unwrap_or(0).max(length.saturating_sub(ERROR_TAIL));
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).ok()?;
    file.take(ERROR_TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let is_whole = from <= since.unwrap_or(0);
    Some(ErrorLog { full_heaps: daemon_log::full_heaps(&text), stack: daemon_log::last_stack(&text), is_whole })
}

impl Tail {
    /// Reads the lines that are new. Blocks.
    fn read(&mut self, home: &Path, proc: &Path, peer: &Peer, wall: WallTime) -> Vec<DaemonLine> {
        let output = peer.pid.and_then(|pid| std::fs::read_link(proc.join(pid.to_string()).join("fd/1")).ok());
        self.is_piped = output.as_ref().is_some_and(|output| !output.is_absolute());
        let opened = log_of(&output.unwrap_or_else(|| home.join("pm2.log")), peer.user);
        (self.is_at_end, self.is_file) = (true, opened.is_some());
        let Some((mut file, inode, length, changed_ms)) = opened else { return Vec::new() };
        let place = match self.place {
            Some(place) if place.inode == inode && place.offset <= length => place,
            // It was emptied, or another has its place.
            Some(_) => Place { inode, offset: 0 },
            // The first look ever is for what has ended since it was to begin.
            None => Place { inode, offset: length.saturating_sub(FIRST_LOOK) },
        };
        let is_first = self.place.is_none();
        if self.zone_ms.is_none() || place.inode != self.place.map_or(0, |before| before.inode) {
            self.learn_zone(&mut file, length, changed_ms);
        }
        let from = place.offset.max(length.saturating_sub(FURTHEST_BACK));
        self.place = Some(Place { inode, offset: from });
        let Some(bytes) = piece(&mut file, from, PIECE) else { return Vec::new() };
        let is_whole = bytes.len() as u64 == PIECE;
        self.is_at_end = !is_whole;
        let end = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            // A line without an end is passed over.
            None if is_whole => bytes.len(),
            None => return Vec::new(),
        };
        let mut lines = Vec::new();
        let mut offset = from;
        let mut latest = None;
        for line in bytes[..end].split_inclusive(|byte| *byte == b'\n') {
            offset += line.len() as u64;
            let Some(told) = self.reader.line(String::from_utf8_lossy(line).trim_end_matches('\n')) else { continue };
            latest = told.calendar.or(latest);
            let is_old = |calendar: WallTime| calendar.0 - self.zone_ms.unwrap_or(0) < wall.0 - SINCE_BEGIN_MS;
            if is_first && latest.is_none_or(is_old) {
                continue;
            }
            let at = latest.map_or(wall, |calendar| WallTime((calendar.0 - self.zone_ms.unwrap_or(0)).min(wall.0)));
            lines.extend(told.events.into_iter().map(|event| DaemonLine { at, event, read_at: Some((inode, offset)) }));
        }
        self.place = Some(Place { inode, offset });
        lines
    }

    /// Learns how far the daemon's calendar is from UTC: by the last stamp and when the file was last written to.
    fn learn_zone(&mut self, file: &mut File, length: u64, changed_ms: i64) {
        let Some(bytes) = piece(file, length.saturating_sub(PIECE), PIECE) else { return };
        let mut reader = LogReader::default();
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().filter_map(|line| reader.line(line)?.calendar).last();
        if let Some(last) = last {
            self.zone_ms = Some((last.0 - changed_ms + QUARTER_MS / 2).div_euclid(QUARTER_MS) * QUARTER_MS);
        }
    }
}

fn piece(file: &mut File, from: u64, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).ok()?;
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A log with its inode, its length and when it was last written to; none where it is no file of this user's.
fn log_of(path: &Path, user: u32) -> Option<(File, u64, u64, i64)> {
    let (file, _) = Home::open(path.parent()?).ok()?.open_file_of(file_name(path)?, user).ok()?;
    let about = file.metadata().ok()?;
    Some((file, about.ino(), about.len(), about.mtime() * 1000))
}
