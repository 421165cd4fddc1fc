//! Facts of the daemons that run.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::{App, AppSettings, Daemon, Dump, Facts, Group, Host, Journal, Live, LogFile, Output, Unit};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Gathered, parted};
use crate::collect::amp::Request;
use crate::collect::home_file::{Home, HomeFileError, within};
use crate::collect::system::{Setup, SystemReader, seen_ports};
use crate::collect::{Collector, look};
use crate::model::{Bytes, DaemonSample, ProcessKey, ProcessSample, Snapshot};

const DEADLINE: Duration = Duration::from_secs(5);
/// What is read of pm2's log, from its end, …
const LOG_TAIL: u64 = 1 << 20;
/// … of the saved list, …
const LARGEST_DUMP: u64 = 16 << 20;
/// … and of a script.
const LARGEST_SCRIPT: u64 = 1 << 20;
const PROC: &str = "/proc";
const MS: f64 = 1000.0;

/// What somebody who watched a process knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watched {
    /// The least memory that it held after it warmed up.
    pub floor: Option<Bytes>,
    /// Bytes a second by which it grows.
    pub growth: Option<f64>,
}

/// Gathers the facts of every daemon of a collection that `collector` has just made. Never fails: what could not be had is said.
pub async fn gather(collector: &Collector, snapshot: &Snapshot, watched: impl Fn(&ProcessKey) -> Watched) -> Gathered {
    let homes = collector.homes();
    let mut gathered = Gathered { facts: Facts { host: host().await, daemons: Vec::new() }, unexamined: Vec::new() };
    for sample in &snapshot.daemons {
        if !sample.up {
            let why = sample.reports.iter().find_map(|report| report.failure.clone());
            gathered.unexamined.push(format!(
                "daemon {}: {}",
                sample.name,
                why.unwrap_or_else(|| "it is down".to_owned())
            ));
            continue;
        }
        let Some(home) = homes.get(&sample.name) else { continue };
        match settings(home).await {
            Ok((settings, user)) => {
                let daemon = daemon(home, user, sample, settings, snapshot.wall.0, &watched).await;
                if daemon.pid.is_some() && daemon.output.is_none() {
                    gathered.unexamined.push(format!(
                        "daemon {}: its environment and its output are not ours to see; run this as its user or as root",
                        sample.name
                    ));
                }
                gathered.facts.daemons.push(daemon);
            }
            Err(why) => gathered.unexamined.push(format!("daemon {}: {why}", sample.name)),
        }
    }
    gathered
}

/// The machine, as an ecosystem file is held against it, too.
pub(super) async fn host() -> Host {
    let read = || {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kibibytes = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(Bytes(line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024)))
        };
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").ok();
        Host {
            memory: kibibytes("MemTotal"),
            swap: kibibytes("SwapTotal"),
            core_pattern: pattern.map(|pattern| pattern.trim().to_owned()),
            reads_kernel_log: reads_kernel_log(),
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Opening the kernel's log tells whether it may be read; where there is none, nothing can be told.
fn reads_kernel_log() -> Option<bool> {
    match std::fs::File::open("/dev/kmsg") {
        Ok(_open) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Some(false),
        Err(_absent) => None,
    }
}

/// How the apps are set up, and whose daemon says so.
async fn settings(home: &Path) -> Result<(Vec<AppSettings>, u32), String> {
    let mut client = look::client(home, DEADLINE);
    let reply = client.call(Request::GetMonitorData).await.map_err(|error| error.to_string())?;
    let settings = super::checks::read_reply(reply.json()).ok_or_else(|| "its list cannot be read".to_owned())?;
    Ok((settings, reply.peer.user))
}

async fn daemon(
    home: &Path,
    user: u32,
    sample: &DaemonSample,
    settings: Vec<AppSettings>,
    now: i64,
    watched: &impl Fn(&ProcessKey) -> Watched,
) -> Daemon {
    let processes: BTreeMap<u32, ProcessSample> =
        sample.processes.iter().map(|process| (process.key.pm_id, process.clone())).collect();
    let known: BTreeMap<u32, Watched> =
        sample.processes.iter().map(|process| (process.key.pm_id, watched(&process.key))).collect();
    let (pid, folder) = (sample.pid, home.to_owned());
    let read = move || read(&folder, user, pid, settings, now, &processes, &known);
    let mut daemon = within(home, DEADLINE, read).await.unwrap_or_default();
    if let Some(unit) = &mut daemon.unit {
        unit.oom_policy = oom_policy(&unit.name).await;
    }
    Daemon { name: sample.name.to_string(), resident: sample.resident, orphans: sample.orphans.clone(), ..daemon }
}

/// Reads all that lies in files. Blocks.
fn read(
    home: &Path,
    user: u32,
    pid: Option<u32>,
    settings: Vec<AppSettings>,
    now: i64,
    processes: &BTreeMap<u32, ProcessSample>,
    known: &BTreeMap<u32, Watched>,
) -> Daemon {
    let mut reader = SystemReader::new(PathBuf::from(PROC));
    let setup = pid.map(|pid| reader.setup(pid)).unwrap_or_default();
    let output = setup.output.as_deref().map(|output| match output {
        "/dev/null" => Output::Nowhere,
        path if path.starts_with('/') && !path.starts_with("/dev/") => Output::File(path.to_owned()),
        _ => Output::Elsewhere,
    });
    let journal = match &output {
        Some(Output::File(path)) => tail(path, user),
        Some(Output::Nowhere | Output::Elsewhere) => None,
        None => tail(&home.join("pm2.log").to_string_lossy(), user),
    };
    let stamps = pid.and_then(|pid| {
        reader.variable(pid, "PM2_LOG_DATE_FORMAT", |format| format.is_none_or(|format| !format.is_empty()))
    });
    let apps = settings.into_iter().map(|settings| {
        let number = settings.pm_id.unwrap_or_default();
        let sample = processes.get(&number).filter(|process| process.listed.status.has_live_pid());
        let watched = known.get(&number).copied().unwrap_or_default();
        let live = sample.and_then(|process| live(&mut reader, process, &settings, now, watched));
        let logs = settings.logs.iter().filter(|path| !path.starts_with("/dev/")).map(|path| log(path, user)).collect();
        App { live, logs, says_ready: says_ready(&settings, user), settings }
    });
    Daemon {
        apps: apps.collect(),
        pid,
        oom_adjustment: setup.oom_adjustment,
        unit: unit(&setup.groups),
        group: group(&setup),
        output,
        stamps,
        dump: dump(home),
        journal,
        ..Daemon::default()
    }
}

fn live(
    reader: &mut SystemReader,
    process: &ProcessSample,
    settings: &AppSettings,
    now: i64,
    watched: Watched,
) -> Option<Live> {
    let pid = process.listed.pid?;
    let setup = reader.setup(pid);
    let tree = reader.tree(pid, None).unwrap_or_default();
    let ports: Result<Vec<_>, _> = tree.iter().map(|process| seen_ports(Path::new(PROC), process.pid)).collect();
    let flagged = |options: Option<&[u8]>| {
        options
            .is_some_and(|options| String::from_utf8_lossy(options).replace('_', "-").contains("--max-old-space-size"))
    };
    let own = process.system.as_ref().map(|system| system.tree_resident).or(process.resident);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of an uptime")]
    let uptime = process.listed.pm_uptime.map(|started| now.saturating_sub(started) as f64 / MS);
    Some(Live {
        uptime,
        resident: own,
        floor: watched.floor,
        growth: watched.growth,
        heap_limit: process.listed.metrics.gc.and_then(|gc| gc.heap_size_limit),
        heap_used: process.listed.metrics.heap_used,
        has_options_flag: settings.options_flag.and_then(|_| reader.variable(pid, "NODE_OPTIONS", flagged)),
        group: group(&setup),
        oom_adjustment: setup.oom_adjustment,
        core_limit: setup.core_limit,
        children: tree.len().saturating_sub(1),
        listens: ports.ok().map(|ports| ports.iter().any(|ports| !ports.is_empty())),
    })
}

fn group(setup: &Setup) -> Option<Group> {
    let path = setup.groups.clone();
    (!path.is_empty()).then_some(Group {
        path,
        limit: setup.group_limit,
        is_version_2: setup.is_version_2,
        dies_together: setup.dies_together,
    })
}

/// The system's unit that a process belongs to, by its control groups. Units of users are asked of nobody.
fn unit(groups: &str) -> Option<Unit> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let name = paths.filter(|path| !path.contains("user@")).find_map(|path| {
        path.split('/').rev().find(|part| Path::new(part).extension().is_some_and(|kind| kind == "service"))
    })?;
    Some(Unit { name: name.to_owned(), oom_policy: None })
}

async fn oom_policy(unit: &str) -> Option<String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=OOMPolicy", "--", unit]).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let output = timeout(DEADLINE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let policy = text.lines().find_map(|line| line.strip_prefix("OOMPolicy="))?.trim();
    let is_word = !policy.is_empty() && policy.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then(|| policy.to_owned())
}

/// The end of pm2's log.
fn tail(path: &str, user: u32) -> Option<Journal> {
    let (folder, name) = parted(path)?;
    let (mut file, about) = Home::open(&folder).ok()?.open_file_of(&name, user).ok()?;
    file.seek(SeekFrom::Start(u64::try_from(about.st_size).ok()?.saturating_sub(LOG_TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes).ok()?;
    Some(Journal::read(&String::from_utf8_lossy(&bytes)))
}

fn log(path: &str, user: u32) -> LogFile {
    let opened = || -> Result<u64, HomeFileError> {
        let missing = || HomeFileError::Io(std::io::ErrorKind::InvalidFilename.into());
        let (folder, name) = parted(path).ok_or_else(missing)?;
        Ok(Home::open(&folder)?.open_file_of(&name, user)?.0.metadata()?.len())
    };
    let (size, unreadable) = match opened() {
        Ok(size) => (Some(size), None),
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => (None, Some(error.to_string())),
        Err(_absent_or_odd) => (None, None),
    };
    LogFile { path: path.to_owned(), size, unreadable }
}

fn dump(home: &Path) -> Option<Dump> {
    match Home::open(home).ok()?.read("dump.pm2", LARGEST_DUMP) {
        Ok(bytes) => Some(super::checks::read_dump(&bytes).map_or(Dump::Broken, Dump::Names)),
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => Some(Dump::Missing),
        Err(_unreadable) => None,
    }
}

/// Whether a script can say that it is ready; none where it loads others, which may.
pub(super) fn says_ready(settings: &AppSettings, user: u32) -> Option<bool> {
    if !settings.wait_ready {
        return None;
    }
    let (folder, name) = parted(settings.script.as_deref()?)?;
    let file = Home::open(&folder).ok()?.open_file_for(&name, Some(user)).ok()?;
    let mut bytes = Vec::new();
    file.take(LARGEST_SCRIPT).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let loads =
        ["require('.", "require(\".", "from '.", "from \".", "import('.", "import(\".", "import '.", "import \"."];
    if text.contains("ready") {
        Some(true)
    } else if bytes.len() as u64 == LARGEST_SCRIPT || loads.iter().any(|load| text.contains(load)) {
        None
    } else {
        Some(false)
    }
}
