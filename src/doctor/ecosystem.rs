//! Facts of an ecosystem file that need not run: Node.js reads it, as its owner.
//!
//! Such a file is a program. It is run by the `node` of the path, never as root: root runs one of another user as that user,
//! in the group that the list of users gives them (a file's own group may be one they are not in), and one of its own as
//! nobody, which then finds no other file that only root may read. It gets nothing of our environment but the path, no
//! terminal that it could type into, ten seconds, and a bounded heap; its output is bounded, too.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use exporter_web::accounts;
use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::checks::{App, Daemon, Facts};
use super::gather::{host, says_ready};
use super::{Gathered, parted};
use crate::collect::home_file::Home;
use crate::model::plain;

const READER: &str = include_str!("ecosystem.cjs");
const DEADLINE: Duration = Duration::from_secs(10);
const LARGEST_FILE: u64 = 1 << 20;
const LARGEST_ANSWER: u64 = 4 << 20;
const LONGEST_COMPLAINT: usize = 300;
const ROOT: u32 = 0;
const NOBODY: u32 = 65_534;
/// Stands before the answer, among whatever else the file prints.
const MARK: &str = "leakslope-doctor:";

/// Why an ecosystem file could not be read.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct EcosystemError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: String,
}

/// Reads an ecosystem file.
///
/// # Errors
/// [`EcosystemError`]: it is not there, is another user's, fails, or takes too long.
pub async fn read(path: &Path) -> Result<Gathered, EcosystemError> {
    let failed = |kind: String| EcosystemError { path: path.to_owned(), kind };
    let whole = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
    let (text, owner) = text(&whole).map_err(failed)?;
    let answer = timeout(DEADLINE, run(&whole, &text, owner))
        .await
        .map_err(|_elapsed| failed(format!("it was stopped after {} s", DEADLINE.as_secs())))?
        .map_err(failed)?;
    let apps = super::checks::read_ecosystem(&answer).ok_or_else(|| failed("it lists no apps".to_owned()))?;
    if apps.is_empty() {
        return Err(failed("it lists no apps".to_owned()));
    }
    let apps =
        apps.into_iter().map(|settings| App { says_ready: says_ready(&settings, owner), settings, ..App::default() });
    let daemon = Daemon { name: path.display().to_string(), apps: apps.collect(), ..Daemon::default() };
    Ok(Gathered { facts: Facts { host: host().await, daemons: vec![daemon] }, unexamined: Vec::new() })
}

/// The text of the file, as JSON where it is YAML, and whose it is.
fn text(path: &Path) -> Result<(String, u32), String> {
    let (folder, name) = path.to_str().and_then(parted).ok_or("its name is no text")?;
    let file = Home::open(&folder).and_then(|home| home.open_file(&name)).map_err(|error| error.to_string())?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if about.len() > LARGEST_FILE {
        return Err(format!("it is larger than {} MiB", LARGEST_FILE >> 20));
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, LARGEST_FILE), &mut text)
        .map_err(|error| error.to_string())?;
    if matches!(path.extension().and_then(|kind| kind.to_str()), Some("yml" | "yaml")) {
        let value: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|_quotes_the_text| "it is no YAML that can be read".to_owned())?;
        text = value.to_string();
    }
    Ok((text, about.uid()))
}

async fn run(path: &Path, text: &str, user: u32) -> Result<Vec<u8>, String> {
    // A session of its own has no terminal, and is a process group, too.
    let mut command = Command::new("setsid");
    command.args(["node", "--max-old-space-size=256", "--no-warnings", "-e", READER]).arg(path).arg(MARK);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let own = rustix::process::geteuid().as_raw();
    match (own, user) {
        (ROOT, ROOT) => command.uid(NOBODY).gid(NOBODY),
        (ROOT, _) => command.uid(user).gid(accounts::group_of(user).filter(|group| *group != ROOT).unwrap_or(NOBODY)),
        (own, user) if own == user || user == ROOT => &mut command,
        _ => return Err("it is another user's, and a program: run this as that user".to_owned()),
    };
    let mut child = command.spawn().map_err(|error| format!("setsid and node cannot be started: {error}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let mut input = child.stdin.take().ok_or("it takes no input")?;
    let feed = async {
        // A reader that is gone says why itself.
        let _gone = input.write_all(text.as_bytes()).await;
        drop(input);
    };
    let ((), answer, complaint) = tokio::join!(feed, bounded(child.stdout.take()), bounded(child.stderr.take()));
    let status = child.wait().await.map_err(|error| error.to_string())?;
    drop(group);
    let found =
        memchr::memmem::rfind(&answer, MARK.as_bytes()).map(|at| answer[at + MARK.len()..].trim_ascii().to_vec());
    found.filter(|_| status.success()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&complaint).into_owned();
        let last = said.lines().rev().find(|line| line.contains("Error")).unwrap_or("node says nothing");
        format!("node cannot read it: {}", plain(last, LONGEST_COMPLAINT))
    })
}

async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _what_came_counts = stream.take(LARGEST_ANSWER).read_to_end(&mut bytes).await;
    }
    bytes
}

/// The process group of the reader, which ends with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error means that nobody is left in it.
            let _nobody_left = kill_process_group(leader, Signal::KILL);
        }
    }
}
