//! The command that is watched: started in a process group of its own, with the preload in its Node processes, and ended
//! whole, however the watching ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::collect::system::{SystemReader, TreeProcess};

const PRELOAD: &str = include_str!("preload.cjs");
/// The time a command has to end in good order.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// Sessions that wait to be taken, at the most.
const MOST_SESSIONS: usize = 64;

/// A group of processes that was started here; what is left of it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    pid: u32,
    status: Option<ExitStatus>,
    ended: bool,
}

impl Group {
    /// Starts a command in a group of its own.
    pub(super) fn start(mut command: Command) -> anyhow::Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", super::super::output::clean(&name)))?;
        let pid = child.id().context("it ended before it began")?;
        Ok(Self { child, pid, status: None, ended: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the first process of the group; for ever once that was told.
    pub(super) async fn exited(&mut self) -> anyhow::Result<ExitStatus> {
        if self.status.is_some() {
            return std::future::pending().await;
        }
        let status = self.child.wait().await?;
        self.status = Some(status);
        Ok(status)
    }

    /// Ends the group and whoever of `known` has left it: by `signal`, and after a while by SIGKILL.
    pub(super) async fn end(&mut self, signal: Signal, reader: &mut SystemReader, known: &BTreeSet<(u32, u64)>) {
        let until = Instant::now() + GRACE;
        let mut told = BTreeSet::new();
        loop {
            if self.status.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                self.status = Some(status);
            }
            let mut left: Vec<TreeProcess> = reader.tree(self.pid, Some(self.pid)).unwrap_or_default();
            if self.status.is_some() && left.iter().any(|process| process.pid == self.pid) {
                // The first process was seen to end: whoever has its number now is a stranger.
                left.clear();
            }
            let strays = known.iter().filter(|(pid, start)| reader.is_alive(*pid, *start)).map(|(pid, _)| *pid);
            let pids: BTreeSet<u32> = left.iter().map(|process| process.pid).chain(strays).collect();
            if pids.is_empty() {
                break;
            }
            let late = Instant::now() >= until;
            // Each is told once, also who was started since the others were told.
            for pid in pids.into_iter().filter(|pid| told.insert(*pid) || late) {
                let signal = if late { Signal::KILL } else { signal };
                // Who is gone by now needs no signal.
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    kill_process(pid, signal).ok();
                }
            }
            if Instant::now() >= until + GRACE {
                break;
            }
            sleep(POLL).await;
        }
        self.ended = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once it was seen to end, its number may be a stranger's.
        if !self.ended
            && self.status.is_none()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

/// The folder with the preload and the socket on which Node processes open their inspector to us; nobody else may enter it, and
/// it is removed when dropped.
#[derive(Debug)]
pub(super) struct Announcements {
    folder: TempDir,
    listener: UnixListener,
    /// The sessions that nobody has taken yet, by the process that the kernel names.
    sessions: BTreeMap<u32, UnixStream>,
}

impl Announcements {
    pub(super) fn make() -> anyhow::Result<Self> {
        let own = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("leakslope-watch-").permissions(own).tempdir();
        let folder = folder.context("a folder for the preload")?;
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        let made = Self { folder, listener, sessions: BTreeMap::new() };
        std::fs::write(made.preload(), PRELOAD).with_context(|| made.preload().display().to_string())?;
        Ok(made)
    }

    fn preload(&self) -> PathBuf {
        self.folder.path().join("preload.cjs")
    }

    /// `NODE_OPTIONS` with the preload added to what is there already.
    pub(super) fn node_options(&self, present: Option<&OsStr>) -> OsString {
        let mut options = present.map(OsStr::to_owned).unwrap_or_default();
        let path = self.preload().display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
        options.push(format!(" --require \"{path}\""));
        options
    }

    /// The sessions of every process that has opened one and that nobody has taken yet.
    pub(super) async fn read(&mut self) -> &mut BTreeMap<u32, UnixStream> {
        while self.sessions.len() < MOST_SESSIONS
            && let Ok(Ok((stream, _))) = timeout(Duration::ZERO, self.listener.accept()).await
        {
            let pid = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
            pid.and_then(|pid| self.sessions.insert(pid, stream));
        }
        &mut self.sessions
    }
}

/// Our standard error, for what a command prints: our own output stays clean.
pub(super) fn to_stderr() -> Stdio {
    std::io::stderr().as_fd().try_clone_to_owned().map_or_else(|_error| Stdio::null(), Stdio::from)
}
