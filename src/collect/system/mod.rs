//! What the operating system says of pm2's processes, at the instant it is asked.
//!
//! The host's memory comes from `sysinfo`. The processes come from `/proc` itself, because `sysinfo` does not reach what is
//! needed here (start in ticks, anonymous and swapped memory, the tree) and would read the rest a second time. One pass over
//! `/proc` reads one small file of each process of the machine, which tells who is whose child; the dearer files are read
//! only of pm2's processes and their descendants. Whoever is no kin of pm2's will not become it, and is passed over by the
//! next readings; and while the machine gives no new pid, nobody is there who was not there before, and `/proc` is listed once
//! more and then not again. Where nothing of the machine is in swap, memory comes from a file of one line instead of one of sixty.
//!
//! This room refuses to say whose pid it is: that is `identity`'s business. It reads what every user may read, and figures
//! that the system keeps from us (open files of another user) are absent. Everything here blocks, so it is to be run off the
//! event loop.

pub mod cgroup;
mod close_up;
mod credentials;
pub mod kills;
mod listening;
mod orphans;
mod own;
pub mod parse;
mod setup;
mod smaps;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RawDir};
use thiserror::Error;

pub use self::close_up::CloseUp;
pub use self::credentials::Credentials;
pub use self::listening::{connections, cut_off, listening_ports, other_sockets, seen_ports, taken_ports};
pub use self::own::{own_pids, own_sample};
pub use self::setup::Setup;
pub use self::tree::TreeProcess;
use crate::model::{Bytes, HostSample, Orphan, SystemSample, WallTime};

/// A `/proc` file that is read whole is never longer than this.
const LONGEST_FILE: usize = 256 * 1024;
const READ_SIZE: usize = 4096;
/// Room for some hundred entries of a folder at a time.
const FOLDER_SIZE: usize = 16 * 1024;
/// A tree larger than this is summed no further: a fork bomb must not stall a collection.
const LARGEST_TREE: usize = 10_000;
/// The boot time is reckoned from the wall clock and jitters with it; only a larger step is believed.
const BOOT_STEP_MS: i64 = 1000;
/// How many readings what was learned is relied upon.
const FORGET_EVERY: u32 = 20;
/// How many readings a group's limit is relied upon: a minute at the usual pace.
const LIMITS_EVERY: u32 = 4;

/// Why the system could not be read at all.
#[derive(Debug, Error)]
#[error("{}: {kind}", path.display())]
pub struct SystemError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: SystemErrorKind,
}

/// What is wrong with a file of `/proc`.
#[derive(Debug, Error)]
pub enum SystemErrorKind {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It does not hold what it should.
    #[error("holds no {0}")]
    Unexpected(&'static str),
}

/// What the system says of one pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PidReading {
    /// The figures.
    pub sample: SystemSample,
    /// The pid it has here; another than pm2 lists where the daemon lives in a pid namespace below ours.
    pub pid: u32,
    /// The parent's pid.
    pub parent: u32,
    /// The smallest cgroup limit that applies.
    pub cgroup_limit: Option<Bytes>,
}

/// What memory a process may take yet, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRoom {
    /// How much.
    pub left: Bytes,
    /// The limit of the control group that leaves no more; none where it is the machine that has no more.
    pub group_limit: Option<Bytes>,
}

impl std::fmt::Display for MemoryRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { left, group_limit } = self;
        match group_limit {
            Some(limit) => write!(f, "its control group has {left} left of {limit}"),
            None => write!(f, "the machine has {left} available"),
        }
    }
}

/// What the system says of one daemon and its processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemReading {
    /// The readings, by the pid that pm2 lists.
    pub processes: BTreeMap<u32, PidReading>,
    /// The daemon's own resident memory.
    pub daemon_resident: Option<Bytes>,
    /// When the daemon started, in clock ticks since the system did.
    pub daemon_start_ticks: Option<u64>,
    /// Whether the daemon's pid is that of a process we can see.
    pub daemon_seen: bool,
    /// What apps of this daemon have left behind, where it could be looked for.
    pub orphans: Option<Vec<Orphan>>,
    /// The machine's memory, where it could be read.
    pub host: Option<HostSample>,
}

/// Reads the processes of one daemon. What it keeps from one reading to the next only saves work: everything is forgotten
/// every [`FORGET_EVERY`] readings, so nothing wrong lasts.
#[derive(Debug)]
pub struct SystemReader {
    proc: PathBuf,
    is_procfs: bool,
    /// Whether `loadavg` is the kernel's own and speaks of the processes that `proc` lists, once that was asked.
    tells_births: Option<bool>,
    milliseconds_per_tick: f64,
    host: Option<sysinfo::System>,
    mounts: Option<Vec<cgroup::Mount>>,
    boot_ms: Option<i64>,
    readings: u32,
    /// The daemon and the processes that were looked for the last time.
    roots: BTreeSet<u32>,
    /// Those who do not descend from them, threads of the kernel among them. A process is only ever handed down to its own
    /// forebears, so none of their children will be pm2's and they are not read again.
    strangers: HashSet<u32>,
    /// Everyone else, and the pid that had been given last when they were listed, where that is known.
    known: Vec<u32>,
    last_pid: Option<u32>,
    /// Whether whoever has that pid is among them for certain.
    is_settled: bool,
    /// The groups of processes, by pid and start: hardly any process is ever moved.
    groups: HashMap<(u32, u64), Arc<str>>,
    /// The limits of groups.
    limits: HashMap<Arc<str>, Option<Bytes>>,
    /// The daemon, by pid and start, and whether it lives in a pid namespace below ours.
    daemon_below: Option<((u32, u64), bool)>,
    /// The processes that apps have left behind, where they could be looked for.
    orphans: Option<Vec<Orphan>>,
    /// Memory by kind as it was read last, by pid and start.
    memory: HashMap<(u32, u64), smaps::LastReading>,
    /// Whether anything of the machine may be in swap; asked anew for each reading.
    swapping: bool,
    page: u64,
    path: String,
    buffer: Vec<u8>,
}

impl SystemReader {
    /// Makes a reader of the file system at `proc`, which is `/proc` but in tests and where the host's is mounted elsewhere.
    pub fn new(proc: PathBuf) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a hundred, or a thousand")]
        let milliseconds_per_tick = 1000.0 / rustix::param::clock_ticks_per_second().max(1) as f64;
        Self {
            is_procfs: is_kernels(&proc),
            proc,
            tells_births: None,
            milliseconds_per_tick,
            host: None,
            mounts: None,
            boot_ms: None,
            readings: 0,
            roots: BTreeSet::new(),
            strangers: HashSet::new(),
            known: Vec::new(),
            last_pid: None,
            is_settled: false,
            groups: HashMap::new(),
            limits: HashMap::new(),
            daemon_below: None,
            orphans: None,
            memory: HashMap::new(),
            swapping: true,
            page: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            path: String::new(),
            buffer: Vec::new(),
        }
    }

    /// Reads the processes with the pids that pm2 lists, and the daemon itself.
    ///
    /// Where the daemon lives in a pid namespace below ours, its list speaks of pids inside of it: they are matched with
    /// the daemon's children by the pid each knows itself by.
    pub fn read(
        &mut self,
        daemon_pid: Option<u32>,
        listed: &BTreeSet<u32>,
        wall: WallTime,
    ) -> Result<SystemReading, SystemError> {
        let boot_ms = self.boot_time(wall)?;
        let roots: BTreeSet<u32> = listed.iter().copied().chain(daemon_pid).collect();
        let forget = self.readings.is_multiple_of(FORGET_EVERY);
        if forget {
            self.groups.clear();
            self.daemon_below = None;
        }
        if self.readings.is_multiple_of(LIMITS_EVERY) {
            self.limits.clear();
        }
        if forget || roots != self.roots {
            self.strangers.clear();
            self.last_pid = None;
        }
        self.roots = roots;
        self.readings = self.readings.wrapping_add(1);
        self.swapping = self.is_swapping();
        let everyone = self.scan()?;
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for stat in everyone.values().filter(|stat| !stat.is_dead) {
            children.entry(stat.parent).or_default().push(stat.pid);
        }
        let kin = descendants(&self.roots, &children);
        if kin.len() < LARGEST_TREE {
            self.strangers.extend(everyone.keys().filter(|pid| !kin.contains(pid) && !self.roots.contains(pid)));
            self.known.retain(|pid| !self.strangers.contains(pid));
        }
        let daemon = daemon_pid.and_then(|pid| everyone.get(&pid));
        let outer_pids = match daemon {
            Some(daemon) if self.is_below(daemon) => Some(self.outer_pids(children.get(&daemon.pid))),
            _ => None,
        };
        let mut reading = SystemReading {
            daemon_resident: daemon.and_then(|daemon| self.memory(daemon.pid)).map(|memory| memory.resident),
            daemon_start_ticks: daemon.map(|daemon| daemon.start_ticks),
            daemon_seen: daemon.is_some(),
            ..SystemReading::default()
        };
        for pid in listed {
            let outer = outer_pids.as_ref().map_or(Some(pid), |pids| pids.get(pid));
            let Some(outer) = outer else { continue };
            let Some(stat) = everyone.get(outer).filter(|stat| !stat.is_dead) else { continue };
            let Some(sample) = self.sample(stat, &children, boot_ms) else { continue };
            let cgroup_limit = self.cgroup_limit(stat);
            reading.processes.insert(*pid, PidReading { sample, pid: stat.pid, parent: stat.parent, cgroup_limit });
        }
        reading.host = self.host().ok();
        Ok(reading)
    }

    /// Reads the machine's memory: by `sysinfo`, or from the reader's own `/proc` where it was told of another one.
    pub fn host(&mut self) -> Result<HostSample, SystemError> {
        if self.proc == Path::new("/proc") && self.host.is_none() {
            self.host = sysinfo::System::new().ok();
        }
        if let Some(system) = &mut self.host {
            system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
            return Ok(HostSample {
                memory_total: Bytes(system.total_memory()),
                memory_available: Bytes(system.available_memory()),
            });
        }
        let path = self.proc.join("meminfo");
        let text = read_text(&path)?;
        let (memory_total, memory_available) =
            parse::meminfo(&text).ok_or(SystemError { path, kind: SystemErrorKind::Unexpected("memory figures") })?;
        Ok(HostSample { memory_total, memory_available })
    }

    /// Reads what memory a process may take yet: what the machine has left, or less where a control group leaves it less.
    ///
    /// # Errors
    /// The machine's memory cannot be read.
    pub fn room(&mut self, pid: u32) -> Result<MemoryRoom, SystemError> {
        let machine = MemoryRoom { left: self.host()?.memory_available, group_limit: None };
        let membership = self.pid_file(pid, "cgroup").map(|text| String::from_utf8_lossy(text).into_owned());
        let group = cgroup::room(self.mounts(), &membership.unwrap_or_default(), |file| read_text(file).ok());
        let group = group.map(|room| MemoryRoom { left: room.left, group_limit: Some(room.limit) });
        Ok(group.filter(|group| group.left < machine.left).unwrap_or(machine))
    }

    /// Wall-clock milliseconds of the boot, kept steady against the jitter of the two clocks it is reckoned from.
    fn boot_time(&mut self, wall: WallTime) -> Result<i64, SystemError> {
        let uptime = if self.is_procfs {
            // By the clock that processes' starts are told by. The file may be a container's own.
            let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            clock.tv_sec.saturating_mul(1000).saturating_add(clock.tv_nsec / 1_000_000)
        } else {
            let path = self.proc.join("uptime");
            let text = read_text(&path)?;
            parse::uptime_ms(&text).ok_or(SystemError { path, kind: SystemErrorKind::Unexpected("uptime") })?
        };
        let fresh = wall.0.saturating_sub(uptime);
        let kept = self.boot_ms.filter(|kept| (kept - fresh).abs() <= BOOT_STEP_MS).unwrap_or(fresh);
        self.boot_ms = Some(kept);
        Ok(kept)
    }

    /// Reads who runs on this machine and whose child each is, but for known strangers.
    fn scan(&mut self) -> Result<HashMap<u32, parse::Stat>, SystemError> {
        // Asked first: who is born while the others are listed is looked for by the next reading.
        let last_pid = self.last_pid();
        let nobody_new = last_pid.is_some() && last_pid == self.last_pid;
        if !nobody_new || !self.is_settled {
            self.known = self.listed()?;
            self.last_pid = last_pid;
            // A pid is given an instant before its process is listed, so the newest is looked for once more.
            self.is_settled = nobody_new;
        }
        let known = std::mem::take(&mut self.known);
        let mut everyone = HashMap::with_capacity(known.len());
        for pid in &known {
            // A process may be gone by now; then its file is, too.
            let Some(stat) = self.pid_file(*pid, "stat").and_then(parse::stat) else { continue };
            everyone.insert(*pid, stat);
        }
        self.known = known;
        Ok(everyone)
    }

    /// The pid that was given last, to a process or a thread; none where that is not told.
    fn last_pid(&mut self) -> Option<u32> {
        let path = self.proc.join("loadavg");
        let tells_births = *self.tells_births.get_or_insert_with(|| {
            // A file system that is laid over it tells something else there, and another namespace's `proc` tells of others.
            let own = std::fs::read_link(self.proc.join("self"));
            is_kernels(&path) && own.is_ok_and(|own| own == Path::new(&std::process::id().to_string()))
        });
        if tells_births { self.file(&path).and_then(parse::last_pid) } else { None }
    }

    /// Lists who runs on this machine, but for known strangers.
    fn listed(&self) -> Result<Vec<u32>, SystemError> {
        let unreadable = |error| SystemError { path: self.proc.clone(), kind: SystemErrorKind::Unreadable(error) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.proc, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
        let mut room = [MaybeUninit::uninit(); FOLDER_SIZE];
        let mut entries = RawDir::new(folder, &mut room);
        let mut pids: Vec<u32> = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| unreadable(error.into()))?;
            let pid = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok());
            pids.extend(pid.filter(|pid| !self.strangers.contains(pid)));
        }
        Ok(pids)
    }

    /// Whether the daemon lives in a pid namespace below ours.
    fn is_below(&mut self, daemon: &parse::Stat) -> bool {
        let name = (daemon.pid, daemon.start_ticks);
        if let Some((known, below)) = self.daemon_below
            && known == name
        {
            return below;
        }
        let Some(status) = self.status(daemon.pid) else { return false };
        let below = status.namespaces > 1;
        self.daemon_below = Some((name, below));
        below
    }

    fn outer_pids(&mut self, children: Option<&Vec<u32>>) -> BTreeMap<u32, u32> {
        let mut pids = BTreeMap::new();
        for outer in children.into_iter().flatten() {
            if let Some(inner) = self.status(*outer).and_then(|status| status.innermost_pid) {
                pids.insert(inner, *outer);
            }
        }
        pids
    }

    fn sample(&mut self, stat: &parse::Stat, children: &HashMap<u32, Vec<u32>>, boot_ms: i64) -> Option<SystemSample> {
        let own = self.memory(stat.pid)?;
        let mut sample = SystemSample {
            resident: own.resident,
            anonymous: own.anonymous,
            swapped: own.swapped,
            cpu_milliseconds: self.milliseconds(stat.cpu_ticks).unsigned_abs(),
            start_ticks: stat.start_ticks,
            started_at_ms: boot_ms.saturating_add(self.milliseconds(stat.start_ticks)),
            open_fds: self.open_fds(stat.pid),
            threads: Some(stat.threads),
            tree_resident: own.resident,
            tree_swapped: own.swapped.unwrap_or_default(),
            tree_processes: 1,
            memory: None,
            memory_unknown: None,
            outside_v8: None,
        };
        if children.contains_key(&stat.pid) {
            for pid in descendants(&BTreeSet::from([stat.pid]), children) {
                if let Some(memory) = self.memory(pid) {
                    sample.tree_resident = sample.tree_resident.saturating_add(memory.resident);
                    sample.tree_swapped = sample.tree_swapped.saturating_add(memory.swapped.unwrap_or_default());
                    sample.tree_processes += 1;
                }
            }
        }
        Some(sample)
    }

    /// Whether anything of the machine may be in swap; then only the dearer file tells how much of a process is.
    fn is_swapping(&mut self) -> bool {
        let path = self.proc.join("swaps");
        !self.is_procfs || self.file(&path).and_then(parse::swaps_are_used) != Some(false)
    }

    /// The memory of a process.
    fn memory(&mut self, pid: u32) -> Option<Memory> {
        if !self.swapping {
            let page = self.page;
            let statm = self.pid_file(pid, "statm").and_then(|text| parse::statm(text, page))?;
            return Some(Memory {
                resident: statm.resident,
                anonymous: Some(statm.anonymous),
                swapped: Some(Bytes(0)),
            });
        }
        let parse::Status { resident, anonymous, swapped, .. } = self.status(pid)?;
        Some(Memory { resident, anonymous, swapped })
    }

    fn status(&mut self, pid: u32) -> Option<parse::Status> {
        self.pid_file(pid, "status").map(parse::status)
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "ticks since boot stay below 2^53")]
    fn milliseconds(&self, ticks: u64) -> i64 {
        (ticks as f64 * self.milliseconds_per_tick) as i64
    }

    /// Counts open files: since Linux 6.2 the folder's size tells, and every user may ask for it; before that only its
    /// entries do.
    fn open_fds(&mut self, pid: u32) -> Option<u64> {
        self.name_file(pid, "fd")?;
        let about = rustix::fs::stat(self.path.as_str()).ok()?;
        match u64::try_from(about.st_size).unwrap_or_default() {
            size if size > 0 && self.is_procfs => Some(size),
            _ => u64::try_from(std::fs::read_dir(&self.path).ok()?.count()).ok(),
        }
    }

    fn cgroup_limit(&mut self, stat: &parse::Stat) -> Option<Bytes> {
        let name = (stat.pid, stat.start_ticks);
        let groups = if let Some(groups) = self.groups.get(&name) {
            Arc::clone(groups)
        } else {
            let groups = String::from_utf8_lossy(self.pid_file(stat.pid, "cgroup")?).into();
            self.groups.insert(name, Arc::clone(&groups));
            groups
        };
        if let Some(limit) = self.limits.get(&groups) {
            return *limit;
        }
        let files = cgroup::limit_files(self.mounts(), &groups);
        let limit = cgroup::read_limit(&files, |file| read_text(file).ok());
        self.limits.insert(groups, limit);
        limit
    }

    fn mounts(&mut self) -> &[cgroup::Mount] {
        let mountinfo = || read_text(&self.proc.join("self/mountinfo")).unwrap_or_default();
        self.mounts.get_or_insert_with(|| cgroup::mounts(&mountinfo()))
    }

    /// Reads a short file of one process into the reader's own buffer.
    fn pid_file(&mut self, pid: u32, name: &str) -> Option<&[u8]> {
        self.name_file(pid, name)?;
        let path = std::mem::take(&mut self.path);
        self.file(Path::new(&path))?;
        self.path = path;
        Some(&self.buffer)
    }

    fn name_file(&mut self, pid: u32, name: &str) -> Option<()> {
        use std::fmt::Write;

        self.path.clear();
        write!(self.path, "{}/{pid}/{name}", self.proc.display()).ok()
    }

    /// Reads a short file into the reader's own buffer.
    fn file(&mut self, path: &Path) -> Option<&[u8]> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        self.buffer.clear();
        // The kernel gives such a file whole, so what is shorter than the room for it needs no second question.
        loop {
            self.buffer.reserve(READ_SIZE);
            let room = self.buffer.capacity() - self.buffer.len();
            let taken = rustix::io::read(&file, rustix::buffer::spare_capacity(&mut self.buffer)).ok()?;
            if taken < room || self.buffer.len() > LONGEST_FILE {
                return Some(&self.buffer);
            }
        }
    }
}

/// What is read of a process's memory.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: Bytes,
    anonymous: Option<Bytes>,
    swapped: Option<Bytes>,
}

/// Whether a file or folder is that of the kernel's process file system.
fn is_kernels(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The kernel's name for the time since the machine was started; `unknown` where it does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_unreadable| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn read_text(path: &Path) -> Result<String, SystemError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(u64::try_from(LONGEST_FILE).unwrap_or(u64::MAX)).read_to_string(&mut text))
        .map_err(|error| SystemError { path: path.to_owned(), kind: error.into() })?;
    Ok(text)
}

/// All processes below any of `roots`, each once; the roots themselves are not among them.
fn descendants(roots: &BTreeSet<u32>, children: &HashMap<u32, Vec<u32>>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut open: Vec<u32> = roots.iter().copied().collect();
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if !roots.contains(child) && found.len() < LARGEST_TREE && found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}
