//! The process list by pm2's command line, where the configuration asks for it.
//!
//! `pm2 -s jlist` costs about a hundred times what the socket costs, and where no daemon runs it starts one, which runs
//! whatever stands in the home. So it is run only as the owner of the home, and only when a daemon has been seen just before:
//! a stream socket on which somebody listens, and where the home is out of reach a process of its owner with pm2's title. A
//! daemon that dies in between may still be revived by it, which pm2 offers no way to forbid: what it leaves behind is looked
//! for afterwards, said, and ended where it carries the mark that this command was given. The command gets a process group of
//! its own, and the whole group is killed at the deadline or when the waiting ends in another way. Its output is bounded.
//!
//! It refuses a home of another user unless the command becomes that user.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::home_file::{Home, HomeFileError, LateError, within};
use crate::socket::{self, SocketErrorKind};

/// How long a daemon may take to accept a connection that only asks whether it lives.
const ALIVE_DEADLINE: Duration = Duration::from_secs(1);
/// How long a daemon that the command started may take to end when it is told to.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// How long the command's own processes may take to be gone after it has ended or was killed.
const GONE_DEADLINE: Duration = Duration::from_millis(500);
/// A command line of `/proc` is read no further than this, …
const LONGEST_TITLE: u64 = 4096;
/// … an environment no further than this, …
const LONGEST_ENVIRONMENT: u64 = 1 << 20;
/// … and a pid file no further than this.
const LONGEST_PID: u64 = 32;
/// What marks the command and whatever it leaves behind.
const MARK: &str = "LEAKSLOPE_JLIST";
const ROOT: u32 = 0;

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
    /// Something else has the socket's name, so the command would start a daemon.
    #[error("not run, as rpc.sock in this home is not pm2's socket: {0}")]
    NotASocket(HomeFileError),
    /// The home does not answer.
    #[error("not run: {0}")]
    Late(#[from] LateError),
    /// The home is another user's, and pm2 would run as us what lies in it.
    #[error(
        "not run, as the home belongs to {owner} and pm2 runs what lies in it: have the command become that user, such as \
         command = [\"sudo\", \"-n\", \"-H\", \"-u\", \"{owner}\", \"pm2\"]"
    )]
    Foreign {
        /// The owner, by name where there is one.
        owner: String,
    },
    /// It once started a daemon, so it is not run again.
    #[error("not run again, as it has started a pm2 daemon (pid {0}); reload the configuration once the cause is gone")]
    Barred(u32),
    /// It started a daemon although one was seen.
    #[error("started a pm2 daemon (pid {daemon}), {}", if *ended { "which is ended again" } else { "which may not be ours to end" })]
    Started {
        /// Its pid.
        daemon: u32,
        /// Whether it is gone again.
        ended: bool,
    },
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

/// A run of `<command> -s jlist` for a home whose daemon is alive.
#[derive(Debug, Clone, Copy)]
pub struct Jlist<'a> {
    /// The command with its first arguments.
    pub command: &'a [String],
    /// The home.
    pub home: &'a Path,
    /// Where the process file system is.
    pub proc: &'a Path,
    /// The name of a user of this machine.
    pub user_name: fn(u32) -> Option<String>,
    /// The longest that it may take.
    pub deadline: Duration,
    /// The most bytes that it may print.
    pub limit: usize,
}

impl Jlist<'_> {
    /// Runs it, and returns what it printed and the daemon that was seen before.
    ///
    /// # Errors
    /// [`CommandError`]; a daemon that was started is one.
    pub async fn run(&self) -> Result<(Vec<u8>, Alive), CommandError> {
        let failed = |kind| self.failed(kind);
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(failed(CommandErrorKind::Nothing));
        };
        let mut command = Command::new(program);
        command.args(arguments).args(["-s", "jlist"]);
        let owner = owner_of(self.home).await.map_err(failed)?;
        self.become_owner(&mut command, owner).map_err(failed)?;
        let alive = daemon_alive(self.home, self.proc, owner).await.map_err(failed)?;
        let mark = mark();
        command.env("PM2_HOME", self.home).env("PM2_DISCRETE_MODE", "true").env(MARK, &mark);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let before = self.daemons_here().await;
        let ended = timeout(self.deadline, run(&mut command, self.limit))
            .await
            .map_err(|_elapsed| CommandErrorKind::Deadline(self.deadline))
            .flatten();
        if let Some(started) = self.started(&before, &mark).await {
            return Err(failed(started));
        }
        ended.map(|stdout| (stdout, alive)).map_err(failed)
    }

    /// Makes an error of this command.
    pub fn failed(&self, kind: CommandErrorKind) -> CommandError {
        CommandError { command: self.command.join(" "), kind }
    }

    /// Has the command run as the owner of the home: it does so by itself, or we become that user for it as root.
    fn become_owner(&self, command: &mut Command, owner: Owner) -> Result<(), CommandErrorKind> {
        let own = rustix::process::geteuid().as_raw();
        let name = (self.user_name)(owner.user);
        if owner.user == own || becomes(self.command, owner.user, name.as_deref()) {
            return Ok(());
        }
        if own != ROOT {
            return Err(CommandErrorKind::Foreign { owner: name.unwrap_or_else(|| owner.user.to_string()) });
        }
        // Nothing of root's environment is for another user.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.parent().unwrap_or(self.home)).uid(owner.user).gid(owner.group);
        Ok(())
    }

    /// The daemons of this home that `/proc` shows.
    async fn daemons_here(&self) -> BTreeSet<u32> {
        let (home, proc) = (self.home.to_owned(), self.proc.to_owned());
        let look = move || {
            let own = daemons(&proc).into_iter().filter(|(_, running)| *running == home);
            own.map(|(pid, _)| pid).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// What the command has left behind: whatever carries its mark is ended, a new daemon of this home without it only named.
    async fn started(&self, before: &BTreeSet<u32>, mark: &str) -> Option<CommandErrorKind> {
        let marked = || {
            let (proc, mark) = (self.proc.to_owned(), mark.to_owned());
            async move { tokio::task::spawn_blocking(move || marked(&proc, &mark)).await.unwrap_or_default() }
        };
        let mut left = marked().await;
        // Who was killed just now takes a moment to be gone.
        let end = Instant::now() + GONE_DEADLINE;
        while !left.is_empty() && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
            left = marked().await;
        }
        let Some(daemon) = left.iter().next().copied() else {
            let new = self.daemons_here().await.into_iter().find(|pid| !before.contains(pid))?;
            return Some(CommandErrorKind::Started { daemon: new, ended: false });
        };
        let end = Instant::now() + END_DEADLINE;
        while !left.is_empty() && Instant::now() < end + END_DEADLINE {
            let signal = if Instant::now() < end { Signal::TERM } else { Signal::KILL };
            for pid in &left {
                end_marked(self.proc, *pid, mark, signal);
            }
            sleep(Duration::from_millis(100)).await;
            left = marked().await;
        }
        Some(CommandErrorKind::Started { daemon, ended: left.is_empty() })
    }
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

/// The owner of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The home's group.
    pub group: u32,
}

/// A daemon that was seen alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Its pid, where it is known.
    pub pid: Option<u32>,
}

/// Tells whose a home is.
async fn owner_of(home: &Path) -> Result<Owner, CommandErrorKind> {
    let folder = home.to_owned();
    within(home, ALIVE_DEADLINE, move || owner(&folder)).await?.ok_or(CommandErrorKind::NoDaemon)
}

/// Sees whether a daemon of this home lives, without starting one.
///
/// Its socket tells, where we may open it: a stream socket on which somebody listens. Only where the socket or the home is out
/// of reach a process of the home's owner with pm2's title counts.
///
/// # Errors
/// [`CommandErrorKind`]: why the command is not to be run.
pub async fn daemon_alive(home: &Path, proc: &Path, owner: Owner) -> Result<Alive, CommandErrorKind> {
    let pid = match socket::connect(&home.join("rpc.sock"), None, ALIVE_DEADLINE).await {
        Ok((_connection, peer)) => peer.pid,
        Err(SocketErrorKind::NotASocket(why)) => return Err(CommandErrorKind::NotASocket(why)),
        Err(SocketErrorKind::Late(why)) => return Err(why.into()),
        Err(SocketErrorKind::Denied) => {
            let (folder, proc) = (home.to_owned(), proc.to_owned());
            let find = move || running_daemon(&folder, &proc, owner.user);
            let found = timeout(ALIVE_DEADLINE, tokio::task::spawn_blocking(find)).await;
            return match found {
                Ok(Ok(Some(pid))) => Ok(Alive { pid: Some(pid) }),
                Ok(Ok(None) | Err(_)) | Err(_) => Err(CommandErrorKind::NoDaemon),
            };
        }
        Err(_nobody_listens) => return Err(CommandErrorKind::NoDaemon),
    };
    // A daemon notes its pid; one that has died has left it behind.
    let (folder, proc) = (home.to_owned(), proc.to_owned());
    let noted = within(home, ALIVE_DEADLINE, move || {
        let text = Home::open(&folder).and_then(|home| home.read("pm2.pid", LONGEST_PID)).ok()?;
        let pid: u32 = String::from_utf8_lossy(&text).trim().parse().ok()?;
        Some(proc.join(pid.to_string()).exists())
    });
    if noted.await? == Some(false) { Err(CommandErrorKind::NoDaemon) } else { Ok(Alive { pid }) }
}

/// The owner of a home; of one that we may not see the owner of the folder around it.
fn owner(home: &Path) -> Option<Owner> {
    match std::fs::metadata(home) {
        Ok(about) => Some(Owner { user: about.uid(), group: about.gid() }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => owner(home.parent()?),
        Err(_) => None,
    }
}

/// The daemon with this home in its title that runs as the home's owner.
fn running_daemon(home: &Path, proc: &Path, owner: u32) -> Option<u32> {
    let runs_as_owner =
        |pid: u32| std::fs::metadata(proc.join(pid.to_string())).is_ok_and(|about| about.uid() == owner);
    daemons(proc).into_iter().find(|(pid, running)| running == home && runs_as_owner(*pid)).map(|(pid, _)| pid)
}

/// Whether a command becomes this user before it runs pm2: it names the user to one of the programs that do.
fn becomes(command: &[String], user: u32, name: Option<&str>) -> bool {
    const PROGRAMS: [&str; 8] = ["sudo", "doas", "runuser", "su", "setpriv", "gosu", "su-exec", "chpst"];
    let program = command.first().and_then(|program| Path::new(program).file_name()).unwrap_or_default();
    let number = user.to_string();
    let names_user = |word: &String| {
        let word = ["--user=", "--reuid=", "-u"].iter().find_map(|flag| word.strip_prefix(flag)).unwrap_or(word);
        let word = word.split_once(':').map_or(word, |(user, _group)| user).trim_start_matches('#');
        !word.is_empty() && (word == number || Some(word) == name)
    };
    PROGRAMS.iter().any(|known| program == *known) && command[1..].iter().any(names_user)
}

/// A text that nobody else can know before the command runs.
fn mark() -> String {
    let mut bytes = [0_u8; 16];
    let filled = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    let random = u128::from_ne_bytes(bytes);
    if filled.is_ok() { format!("{random:032x}") } else { format!("{:x}-{:p}", std::process::id(), &raw const bytes) }
}

/// The live processes that carry a mark in their environment, as far as we may see.
fn marked(proc: &Path, mark: &str) -> BTreeSet<u32> {
    pids(proc).into_iter().filter(|pid| is_marked(proc, *pid, mark)).collect()
}

fn is_marked(proc: &Path, pid: u32, mark: &str) -> bool {
    let entry = format!("{MARK}={mark}");
    let text = proc_file(proc, pid, "environ", LONGEST_ENVIRONMENT).unwrap_or_default();
    text.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
}

/// Signals a process that carries the mark, on a handle that was taken before it was looked at.
fn end_marked(proc: &Path, pid: u32, mark: &str, signal: Signal) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return };
    if is_marked(proc, pid, mark) {
        let _has_ended = pidfd_send_signal(&handle, signal);
    }
}

/// Lists the daemons that `/proc` shows, with the home each has in its title.
pub fn daemons(proc: &Path) -> Vec<(u32, PathBuf)> {
    pids(proc).into_iter().filter_map(|pid| Some((pid, home_in_title(&title(proc, pid)?)?))).collect()
}

fn pids(proc: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).collect()
}

/// The title that a process gives itself: its command line as one text.
fn title(proc: &Path, pid: u32) -> Option<String> {
    let text = proc_file(proc, pid, "cmdline", LONGEST_TITLE)?;
    Some(String::from_utf8_lossy(&text).replace('\0', " ").trim().to_owned())
}

fn proc_file(proc: &Path, pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(proc.join(pid.to_string()).join(name)).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads the home out of a daemon's title, `PM2 v7.0.4: God Daemon (/home/deploy/.pm2)`.
fn home_in_title(title: &str) -> Option<PathBuf> {
    let (_, after) = title.split_once("God Daemon (").filter(|_| title.starts_with("PM2 "))?;
    let (home, _) = after.rsplit_once(')')?;
    home.starts_with('/').then(|| PathBuf::from(home))
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

    #[test]
    fn a_command_becomes_a_user_only_where_it_names_them_to_a_program_that_does() {
        let becomes = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            super::becomes(&words, 1000, Some("shop"))
        };
        for words in [
            "sudo -n -H -u shop pm2",
            "/usr/bin/sudo -ushop pm2",
            "sudo --user=shop pm2",
            "sudo -u #1000 pm2",
            "doas -u shop pm2",
            "runuser -u shop -- pm2",
            "setpriv --reuid 1000 --clear-groups pm2",
            "setpriv --reuid=1000 pm2",
            "gosu shop pm2",
            "su-exec 1000:1000 pm2",
        ] {
            assert!(becomes(words), "{words}");
        }
        for words in ["pm2", "sudo pm2", "sudo -u mail pm2", "pm2 shop", "/home/shop/bin/tool -u shop", "sudo -u"] {
            assert!(!becomes(words), "{words}");
        }
    }
}
