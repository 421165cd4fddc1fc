//! The process list by pm2's command line, for where the socket cannot be opened.
//!
//! `pm2 -s jlist` costs about a hundred times what the socket costs, and when no daemon runs it starts one. So it is run
//! only when a daemon has been seen alive just before; a daemon that dies in between may still be revived by it, which pm2
//! offers no way to forbid. The command gets a process group of its own, and the whole group is killed at the deadline or
//! when the waiting ends in another way. Its output is bounded.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a daemon may take to accept a connection that only asks whether it lives.
const ALIVE_DEADLINE: Duration = Duration::from_secs(1);
/// A command line of `/proc` is read no further than this.
const LONGEST_TITLE: usize = 4096;

/// Why the command brought no list.
#[derive(Debug, Error)]
#[error("`{command}`: {kind}")]
pub struct CommandError {
    /// The command as configured.
    pub command: String,
    /// What went wrong.
    pub kind: CommandErrorKind,
}

/// What went wrong with the command.
#[derive(Debug, Error)]
pub enum CommandErrorKind {
    /// No daemon of this home lives, and the command would start one.
    #[error("not run, as no daemon lives in this home and it would start one")]
    NoDaemon,
    /// No command is configured.
    #[error("no command is configured")]
    Nothing,
    /// It cannot be started.
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    /// Its output cannot be read.
    #[error("output cannot be read: {0}")]
    Output(#[source] io::Error),
    /// It took too long.
    #[error("killed after {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It printed too much.
    #[error("killed after {0} bytes of output")]
    TooLarge(usize),
    /// It ended badly.
    #[error("ended with {0}")]
    Failed(std::process::ExitStatus),
    /// Its output holds no list.
    #[error("printed no process list")]
    NoList,
}

/// Runs `<command> -s jlist` for a home whose daemon is alive and returns what it printed, bounded by `limit` bytes.
pub async fn jlist(
    command: &[String],
    home: &Path,
    proc: &Path,
    deadline: Duration,
    limit: usize,
) -> Result<Vec<u8>, CommandError> {
    let failed = |kind| CommandError { command: command.join(" "), kind };
    let Some((program, arguments)) = command.split_first() else { return Err(failed(CommandErrorKind::Nothing)) };
    if daemon_alive(home, proc).await.is_none() {
        return Err(failed(CommandErrorKind::NoDaemon));
    }
    let mut command = Command::new(program);
    command.args(arguments).args(["-s", "jlist"]).env("PM2_HOME", home).env("PM2_DISCRETE_MODE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    timeout(deadline, run(&mut command, limit))
        .await
        .map_err(|_elapsed| CommandErrorKind::Deadline(deadline))
        .flatten()
        .map_err(failed)
}

async fn run(command: &mut Command, limit: usize) -> Result<Vec<u8>, CommandErrorKind> {
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(CommandErrorKind::Start)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let stdout = child.stdout.take().expect("invariant: stdout is piped");
    let mut output = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    stdout.take(bound).read_to_end(&mut output).await.map_err(CommandErrorKind::Output)?;
    if output.len() > limit {
        return Err(CommandErrorKind::TooLarge(limit));
    }
    let status = child.wait().await.map_err(CommandErrorKind::Output)?;
    // It has been waited for, so its number may already be another's.
    group.0 = None;
    if status.success() { Ok(output) } else { Err(CommandErrorKind::Failed(status)) }
}

/// A process group that is killed when it is let go, whichever way that comes.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that nobody is left in it.
            let _nobody_left = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// A daemon that was seen alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Its pid, where it is known.
    pub pid: Option<u32>,
}

/// Looks whether a daemon of this home lives, without starting one.
///
/// Its socket tells, where we can see it: nobody listening, or no socket in an existing home, means that the command would
/// start a daemon. Only where the home is out of reach do the pid file and the titles of running processes count.
pub async fn daemon_alive(home: &Path, proc: &Path) -> Option<Alive> {
    match timeout(ALIVE_DEADLINE, UnixStream::connect(home.join("rpc.sock"))).await {
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            return Some(Alive { pid: pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0) });
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return None,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound && home.is_dir() => return None,
        Ok(Err(_)) | Err(_) => {}
    }
    off_the_loop(home, proc, running_daemon).await.map(|pid| Alive { pid: Some(pid) })
}

async fn off_the_loop<T: Send + 'static>(
    home: &Path,
    proc: &Path,
    look: impl Fn(&Path, &Path) -> Option<T> + Send + 'static,
) -> Option<T> {
    let (home, proc) = (home.to_owned(), proc.to_owned());
    let task = tokio::task::spawn_blocking(move || look(&home, &proc));
    timeout(ALIVE_DEADLINE, task).await.ok()?.ok()?
}

/// The pid that the daemon noted, if a daemon has it now; else that of a daemon with this home in its title.
fn running_daemon(home: &Path, proc: &Path) -> Option<u32> {
    let noted = std::fs::read_to_string(home.join("pm2.pid")).ok().and_then(|text| text.trim().parse().ok());
    noted
        // A long home is cut off in the title; a whole one must be this one.
        .filter(|pid| {
            title(proc, *pid)
                .is_some_and(|title| is_daemon(&title) && home_in_title(&title).is_none_or(|running| running == home))
        })
        .or_else(|| daemons(proc).into_iter().find(|(_, running)| running == home).map(|(pid, _)| pid))
}

/// Lists the daemons that `/proc` shows, with the home each has in its title.
pub(super) fn daemons(proc: &Path) -> Vec<(u32, std::path::PathBuf)> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, home_in_title(&title(proc, pid)?)?))).collect()
}

/// The title that a process gives itself: its command line as one text.
fn title(proc: &Path, pid: u32) -> Option<String> {
    use std::io::Read;

    let mut bytes = Vec::new();
    let file = std::fs::File::open(proc.join(pid.to_string()).join("cmdline")).ok()?;
    file.take(u64::try_from(LONGEST_TITLE).unwrap_or(u64::MAX)).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(text.trim().to_owned())
}

fn is_daemon(title: &str) -> bool {
    title.starts_with("PM2 ") && title.contains("God Daemon")
}

/// Reads the home out of a daemon's title, `PM2 v7.0.4: God Daemon (/home/deploy/.pm2)`.
fn home_in_title(title: &str) -> Option<std::path::PathBuf> {
    let (_, after) = title.split_once("God Daemon (").filter(|_| is_daemon(title))?;
    let (home, _) = after.rsplit_once(')')?;
    home.starts_with('/').then(|| std::path::PathBuf::from(home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_of_daemons() {
        for (title, home) in [
            ("PM2 v7.0.4: God Daemon (/home/deploy/.pm2)", Some("/home/deploy/.pm2")),
            ("PM2 v5.4.3: God Daemon (/srv/a (b)/.pm2)", Some("/srv/a (b)/.pm2")),
            ("PM2 v5.4.3: God Daemon (relative)", None),
            ("PM2 v5.4.3: God Daemon", None),
            ("grep God Daemon (/x)", None),
            ("node /srv/app.js", None),
            ("", None),
        ] {
            assert_eq!(home_in_title(title).as_deref(), home.map(Path::new), "{title}");
        }
    }
}
