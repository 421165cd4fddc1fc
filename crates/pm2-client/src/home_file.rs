//! The one door to what lies in a folder of somebody else: the socket and files of a pm2 home, the source of an app.
//!
//! The owner of a home may lay anything there under any name: a pipe that is never written to, a link to a device or to a file
//! of ours, a folder on a file server that no longer answers. So a name is opened without following a link and without
//! waiting, only a regular file is read, only one that belongs to the owner of the home, to root or to us, and no more of it
//! than is asked for. All of it runs on a thread of its own with a deadline ([`within`]): a home that does not answer keeps one
//! thread, and one user's folders together keep a few ([`within_of`]), so nobody else waits for them.
//!
//! It refuses names with a slash, to make or to empty a file that is another's, and to follow a link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

/// Threads that wait for homes at the most, in the whole process: so many homes may fail to answer at one time before another
/// has to wait for its turn.
const MOST_THREADS: usize = 32;
/// How many of them wait for folders that are one user's.
const MOST_OF_A_USER: usize = 4;
const ROOT: u32 = 0;
/// The mode of a file that is made: as pm2 makes its own.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Why a file of a home is not used.
#[derive(Debug, Error)]
pub enum HomeFileError {
    /// The system refused it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another kind of file has its name.
    #[error("it is {0}")]
    Kind(&'static str),
    /// It belongs to somebody who has no business there.
    #[error("it belongs to user {owner}, and the home to user {home}")]
    Foreign {
        /// Its owner.
        owner: u32,
        /// The owner of the home.
        home: u32,
    },
    /// The one who is to be told of it may not read it.
    #[error("it belongs to user {owner}, not to the app's, and is no file of root's that is there for everybody")]
    Private {
        /// Its owner.
        owner: u32,
    },
    /// It has a second name, perhaps outside of the home.
    #[error("it has more than one name")]
    Linked,
}

impl HomeFileError {
    /// The kind of the system's error, where there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(error) => Some(error.kind()),
            Self::Kind(_) | Self::Foreign { .. } | Self::Private { .. } | Self::Linked => None,
        }
    }
}

impl From<rustix::io::Errno> for HomeFileError {
    fn from(errno: rustix::io::Errno) -> Self {
        // What a link is opened with when links are not followed.
        if errno == rustix::io::Errno::LOOP { Self::Kind("a symbolic link") } else { Self::Io(errno.into()) }
    }
}

/// An open folder of somebody else. What is opened in it cannot come to lie elsewhere. All that it does blocks.
#[derive(Debug)]
pub struct Home {
    folder: OwnedFd,
    owner: u32,
    group: u32,
}

/// What a socket of a home was connected to.
#[derive(Debug)]
pub struct Connected {
    /// The connection; it does not block.
    pub stream: UnixStream,
    /// Who made the socket.
    pub socket_owner: u32,
    /// Whose the home is.
    pub home_owner: u32,
}

impl Home {
    /// Opens a folder; the way to it may lead over links, for whoever configured it chose it.
    ///
    /// # Errors
    /// The system refused it, or it is no folder.
    pub fn open(path: &Path) -> Result<Self, HomeFileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let about = fstat(&folder)?;
        Ok(Self { folder, owner: about.st_uid, group: about.st_gid })
    }

    /// The user whose folder it is.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// The folder's group.
    pub fn group(&self) -> u32 {
        self.group
    }

    /// Reads a file up to `limit` bytes; what follows is left unread.
    ///
    /// # Errors
    /// [`HomeFileError`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, HomeFileError> {
        let mut bytes = Vec::new();
        self.open_file(name)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`HomeFileError`].
    pub fn open_file(&self, name: &str) -> Result<File, HomeFileError> {
        let (file, about) = self.open_regular(name, OFlags::RDONLY)?;
        let own = rustix::process::geteuid().as_raw();
        if [self.owner, ROOT, own].contains(&about.st_uid) {
            Ok(file)
        } else {
            Err(HomeFileError::Foreign { owner: about.st_uid, home: self.owner })
        }
    }

    /// Opens a file for reading that belongs to `user`, whoever the folder belongs to: a log lies where its writer chose.
    ///
    /// # Errors
    /// [`HomeFileError`].
    pub fn open_file_of(&self, name: &str, user: u32) -> Result<(File, Stat), HomeFileError> {
        let (file, about) = self.open_regular(name, OFlags::RDONLY)?;
        if about.st_uid == user {
            Ok((file, about))
        } else {
            Err(HomeFileError::Foreign { owner: about.st_uid, home: user })
        }
    }

    /// Opens a file for reading that `user` may be told of: one of theirs, or one of root's that everybody may read and nobody
    /// else may write.
    ///
    /// # Errors
    /// [`HomeFileError`].
    pub fn open_file_for(&self, name: &str, user: Option<u32>) -> Result<File, HomeFileError> {
        let (file, about) = self.open_regular(name, OFlags::RDONLY)?;
        let mode = Mode::from_raw_mode(about.st_mode);
        // In root's group is nobody else: files that are copied into an image often have it write.
        let writable = mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && about.st_gid != ROOT);
        let is_public = mode.contains(Mode::ROTH) && !writable;
        if user == Some(about.st_uid) || (about.st_uid == ROOT && is_public) {
            Ok(file)
        } else {
            Err(HomeFileError::Private { owner: about.st_uid })
        }
    }

    /// Opens a file for reading and writing that belongs to the owner of the home or to us and has no other name; nothing of it
    /// is changed. One that is not there is made, empty, and given to the owner of the home where we may.
    ///
    /// # Errors
    /// [`HomeFileError`].
    pub fn open_or_make(&self, name: &str) -> Result<File, HomeFileError> {
        let make = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(&self.folder, single(name)?, make, MODE) {
            Ok(file) => {
                if rustix::process::geteuid().is_root() && self.owner != ROOT {
                    let (user, group) = (rustix::fs::Uid::from_raw(self.owner), rustix::fs::Gid::from_raw(self.group));
                    // Root without that right leaves it root's: pm2 reads it all the same.
                    let _left_to_root = rustix::fs::fchown(&file, Some(user), Some(group));
                }
                Ok(file.into())
            }
            Err(rustix::io::Errno::EXIST) => {
                let (file, about) = self.open_regular(name, OFlags::RDWR)?;
                let own = rustix::process::geteuid().as_raw();
                if about.st_uid != self.owner && about.st_uid != own {
                    return Err(HomeFileError::Foreign { owner: about.st_uid, home: self.owner });
                }
                if about.st_nlink == 1 { Ok(file) } else { Err(HomeFileError::Linked) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Connects to a stream socket of this home; whatever else has its name is left alone.
    ///
    /// # Errors
    /// [`HomeFileError`]: no stream socket is there, nobody listens, or it may not be opened.
    pub fn connect(&self, name: &str) -> Result<Connected, HomeFileError> {
        // A handle on what has the name now: it is what is looked at and what is connected to.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(&self.folder, single(name)?, flags, Mode::empty())?;
        let about = fstat(&found)?;
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind != FileType::Socket {
            return Err(HomeFileError::Kind(kind_name(kind)));
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()))?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(rustix::io::Errno::PROTOTYPE) => return Err(HomeFileError::Kind("a socket, but not one of streams")),
            Err(error) => return Err(error.into()),
        }
        Ok(Connected { stream: socket.into(), socket_owner: about.st_uid, home_owner: self.owner })
    }

    fn open_regular(&self, name: &str, access: OFlags) -> Result<(File, Stat), HomeFileError> {
        let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.folder, single(name)?, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::NXIO => HomeFileError::Kind("a socket or a pipe"),
            rustix::io::Errno::ISDIR => HomeFileError::Kind("a folder"),
            errno => errno.into(),
        })?;
        let about = fstat(&file)?;
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind == FileType::RegularFile { Ok((file.into(), about)) } else { Err(HomeFileError::Kind(kind_name(kind))) }
    }
}

fn single(name: &str) -> Result<&str, HomeFileError> {
    let fits = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if fits { Ok(name) } else { Err(HomeFileError::Io(io::ErrorKind::InvalidFilename.into())) }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}

/// Why nothing came out of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LateError {
    /// It did not answer in time.
    #[error("its folder did not answer within {} ms (a file server that is gone?)", .0.as_millis())]
    Deadline(Duration),
    /// An earlier call has not come back.
    #[error("its folder has still not answered an earlier call (a file server that is gone?)")]
    Stuck,
    /// No thread could be had for it.
    #[error("no thread can be had to look into its folder")]
    NoThread,
}

/// One folder's turn: a call at a time, none while one is late.
#[derive(Debug)]
struct Turn {
    free: Arc<Semaphore>,
    call: Mutex<Call>,
}

/// How it stands with the call of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    Running,
    Late,
}

impl Turn {
    fn call(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders in which something is going on. A call that hangs keeps a thread of the process, so the process keeps count.
static TURNS: Mutex<BTreeMap<PathBuf, Arc<Turn>>> = Mutex::new(BTreeMap::new());
static THREADS: Mutex<Option<Arc<Semaphore>>> = Mutex::new(None);
static OF_USERS: Mutex<BTreeMap<u32, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

fn turn(folder: &Path) -> Arc<Turn> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    let new = || Arc::new(Turn { free: Arc::new(Semaphore::new(1)), call: Mutex::new(Call::None) });
    Arc::clone(turns.entry(folder.to_owned()).or_insert_with(new))
}

fn threads() -> Arc<Semaphore> {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(threads.get_or_insert_with(|| Arc::new(Semaphore::new(MOST_THREADS))))
}

/// The share of a user.
fn share(user: u32) -> Arc<Semaphore> {
    let mut users = OF_USERS.lock().unwrap_or_else(PoisonError::into_inner);
    users.retain(|_, share| Arc::strong_count(share) > 1);
    Arc::clone(users.entry(user).or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_A_USER))))
}

/// What a call keeps until it has come back, however late that is.
struct Kept {
    turn: Arc<Turn>,
    _own: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
    _thread: OwnedSemaphorePermit,
}

impl Drop for Kept {
    fn drop(&mut self) {
        *self.turn.call() = Call::None;
    }
}

/// Does something that may block in a folder of somebody else, on a thread of its own. What has not come back by the deadline
/// is waited for no longer, and until it does nothing else is begun in that folder. For folders that we were told of; those
/// that another user named are for [`within_of`].
///
/// # Errors
/// [`LateError`].
pub async fn within<T: Send + 'static>(
    folder: &Path,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LateError> {
    within_of(None, folder, deadline, work).await
}

/// [`within`] in a folder that this user named: of those that do not answer a few keep a thread, and no other user waits.
///
/// # Errors
/// [`LateError`].
pub async fn within_of<T: Send + 'static>(
    user: Option<u32>,
    folder: &Path,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LateError> {
    let turn = turn(folder);
    if *turn.call() == Call::Late {
        return Err(LateError::Stuck);
    }
    let begun = {
        let turn = Arc::clone(&turn);
        async move {
            let own = Arc::clone(&turn.free).acquire_owned().await.ok()?;
            let share = match user {
                Some(user) => Some(share(user).acquire_owned().await.ok()?),
                None => None,
            };
            let thread = threads().acquire_owned().await.ok()?;
            *turn.call() = Call::Running;
            let kept = Kept { turn, _own: own, _share: share, _thread: thread };
            let (done, told) = oneshot::channel();
            let run = move || {
                let result = work();
                drop(kept);
                let _nobody_waits = done.send(result);
            };
            std::thread::Builder::new().name("home".to_owned()).spawn(run).ok()?;
            told.await.ok()
        }
    };
    match timeout(deadline, begun).await {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(LateError::NoThread),
        Err(_elapsed) => {
            let mut call = turn.call();
            if *call == Call::Running {
                *call = Call::Late;
            }
            Err(LateError::Deadline(deadline))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    use super::*;

    fn said<T>(result: Result<T, HomeFileError>) -> String {
        result.err().expect("it is refused").to_string()
    }

    #[test]
    fn only_a_regular_file_of_the_home_is_read_and_no_further_than_asked() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("file"), "0123456789").unwrap();
        assert_eq!(home.read("file", 4).unwrap(), b"0123");
        symlink("/dev/zero", place("zero")).unwrap();
        symlink(place("file"), place("link")).unwrap();
        std::fs::create_dir(place("folder")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, place("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixDatagram::bind(place("socket")).unwrap();
        for (name, why) in [
            ("zero", "a symbolic link"),
            ("link", "a symbolic link"),
            ("folder", "a folder"),
            ("pipe", "a pipe"),
            ("socket", "a socket"),
        ] {
            assert!(said(home.read(name, 10)).contains(why), "{name}: {}", said(home.read(name, 10)));
            assert!(said(home.open_or_make(name)).contains(why), "{name}: {}", said(home.open_or_make(name)));
        }
        assert_eq!(home.read("absent", 10).unwrap_err().io_kind(), Some(io::ErrorKind::NotFound));
        for name in ["../x", "", ".", "..", "/etc/passwd"] {
            assert_eq!(home.read(name, 10).unwrap_err().io_kind(), Some(io::ErrorKind::InvalidFilename), "{name}");
        }
    }

    #[test]
    fn a_file_with_a_name_elsewhere_is_not_written_and_nothing_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("precious"), "text").unwrap();
        std::fs::hard_link(folder.path().join("precious"), folder.path().join("lock")).unwrap();
        assert!(said(home.open_or_make("lock")).contains("more than one name"));
        std::fs::write(folder.path().join("own"), "text").unwrap();
        home.open_or_make("own").unwrap();
        home.open_or_make("new").unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((text("precious"), text("own"), text("new")), ("text".into(), "text".into(), String::new()));
    }

    #[test]
    fn only_a_stream_socket_is_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let place = |name: &str| folder.path().join(name);
        let _datagrams = std::os::unix::net::UnixDatagram::bind(place("datagrams")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(place("good")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(place("dead")).unwrap());
        symlink(place("good"), place("link")).unwrap();
        std::fs::write(place("file"), "").unwrap();
        assert!(home.connect("good").is_ok());
        for (name, why) in [
            ("datagrams", "not one of streams"),
            ("link", "a symbolic link"),
            ("file", "a regular file"),
            ("dead", "Connection refused"),
            ("absent", "No such file"),
        ] {
            assert!(said(home.connect(name)).contains(why), "{name}: {}", said(home.connect(name)));
        }
    }

    #[tokio::test]
    async fn a_folder_that_does_not_answer_keeps_one_thread_and_no_other_folder() {
        let (release, released) = mpsc::channel::<()>();
        let (dead, other, short) = (Path::new("/dead"), Path::new("/other"), Duration::from_millis(50));
        let long = Duration::from_secs(30);
        let stuck = within(dead, short, move || released.recv().is_ok());
        assert_eq!(stuck.await, Err(LateError::Deadline(short)));
        for _ in 0..100 {
            assert_eq!(
                within(dead, long, || unreachable!("nothing else is begun there")).await,
                Err::<(), _>(LateError::Stuck)
            );
        }
        assert_eq!(within(other, long, || 5).await, Ok(5));
        // A user whose folders hang one and all keeps a few threads, and no more than themselves waiting.
        let (eve, ada) = (Some(4_000_001), Some(4_000_002));
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut gates = Vec::new();
        for number in 0..3 * MOST_OF_A_USER {
            let ((gate, opened), count) = (mpsc::channel::<()>(), Arc::clone(&count));
            gates.push(gate);
            let hang = move || {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                opened.recv().is_ok()
            };
            assert!(within_of(eve, Path::new(&format!("/eve/{number}")), short, hang).await.is_err());
        }
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), MOST_OF_A_USER);
        assert_eq!(within_of(ada, Path::new("/ada"), long, || 6).await, Ok(6));
        drop(gates);
        assert_eq!(within_of(eve, Path::new("/eve/home"), long, || 7).await, Ok(7));

        release.send(()).unwrap();
        let again = async {
            while within(dead, long, || ()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(long, again).await.expect("it is asked again once it has answered");
    }
}
