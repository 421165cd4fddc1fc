//! The command that is watched: started in a process group of its own, with the preload in its Node processes, and ended
//! whole, however the watching ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::collect::system::{SystemReader, TreeProcess};

const PRELOAD: &str = include_str!("preload.cjs");
/// The time a command has to end in good order.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

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

/// A Node process that has announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// Where its inspector listens.
    pub(super) inspector: SocketAddr,
    /// What it runs; empty where that is no file.
    pub(super) script: String,
}

/// The folder with the preload, in which Node processes announce their inspectors; it is removed when dropped.
#[derive(Debug)]
pub(super) struct Announcements {
    folder: TempDir,
}

impl Announcements {
    pub(super) fn make() -> anyhow::Result<Self> {
        let own = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("leakslope-watch-").permissions(own).tempdir();
        let made = Self { folder: folder.context("a folder for the preload")? };
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
        options.push(format!(" --require \"{path}\" --inspect-publish-uid=http"));
        options
    }

    /// Every process that has announced itself.
    pub(super) fn read(&self) -> BTreeMap<u32, Announced> {
        let Ok(files) = std::fs::read_dir(self.folder.path()) else { return BTreeMap::new() };
        files.flatten().filter_map(|file| announced(&file.path())).collect()
    }
}

fn announced(path: &Path) -> Option<(u32, Announced)> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let text = std::fs::read_to_string(path).ok()?;
    let (port, script) = text.split_once('\n')?;
    let inspector = SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?));
    Some((pid, Announced { inspector, script: script.trim_end().to_owned() }))
}

/// Our standard error, for what a command prints: our own output stays clean.
pub(super) fn to_stderr() -> Stdio {
    std::io::stderr().as_fd().try_clone_to_owned().map_or_else(|_error| Stdio::null(), Stdio::from)
}
