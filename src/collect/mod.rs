//! What pm2 and the system say now.
//!
//! [`Collector::collect`] asks every daemon for its process list, by its socket or where that is configured by the pm2 command, asks the
//! system about the processes right after, and puts both into one [`Snapshot`]. Daemons are asked side by side, each
//! within its deadline, and none ever affects another: a bad one costs one failed collection of its own.
//!
//! What speaks with pm2 itself is the crate `pm2-client`. Here:
//!
//! | part        | what it is for                                        | pure |
//! |-------------|-------------------------------------------------------|------|
//! | `identity`  | whose a pid is                                        | yes  |
//! | `freshness` | metrics that stand still                              | yes  |
//! | `system`    | `/proc` and control groups; the parsers are pure      | no   |
//! | `target`    | the process that may be acted on, proven              | no   |
//! | `ends`      | where the signs of an end are read                    | no   |
//! | `discover`  | homes that nobody configured                          | no   |
//! | `daemon`    | one daemon's collection                               | no   |
//! | `metrics_url` | where an app exposes metrics                        | yes  |
//! | `exposition` | the few of those metrics that matter                 | yes  |
//! | `exposed`   | fetching them, laid over what pm2 told                | no   |
//!
//! This room refuses to start a daemon, to change one, to read a clock (`now` is an argument; only durations are measured),
//! and to pass on anything of an app's environment.

mod daemon;
mod discover;
pub mod ends;
mod exposed;
pub mod exposition;
pub mod freshness;
pub mod identity;
mod metrics_url;
pub mod system;
pub mod target;

pub use pm2_client::{amp, banner, budget, bus, command, daemon_log, home_file, list, look, socket};

pub use self::exposed::ExposedReader;
pub use self::metrics_url::{MetricsTarget, MetricsUrl};

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use self::budget::Budget;
use self::daemon::Daemon;
use self::socket::Deadlines;
use self::system::SystemReader;
use crate::model::{Bytes, DaemonName, GcReport, HostSample, Life, ProcessKey, Snapshot, Steady, WallTime};

/// How often homes are looked for while `discover` is on.
const DISCOVER_EVERY: Duration = Duration::from_mins(1);
/// The longest that connecting to a daemon and writing a request may take, each.
const STEP_LIMIT: Duration = Duration::from_secs(1);

/// How to reach a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// By the socket; by the command where the socket may not be opened.
    Auto,
    /// By the socket alone.
    #[default]
    Socket,
    /// By the pm2 command alone.
    Command,
}

/// One daemon to collect from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    /// Its name in metrics and logs.
    pub name: DaemonName,
    /// Its `PM2_HOME`.
    pub home: PathBuf,
    /// How to reach it.
    pub source: Source,
    /// The pm2 command with its first arguments, such as `["sudo", "-u", "deploy", "pm2"]`; empty for none.
    pub pm2_command: Vec<String>,
    /// Whether it counts as down before it has answered for the first time; else nothing is told of it until then.
    pub expected: bool,
    /// Who named the home, where it was found and not configured.
    pub named_by: Option<u32>,
}

/// How to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The longest that one daemon's list may take, and again the longest that the system's figures may take. To be kept
    /// below the interval of collections.
    pub deadline: Duration,
    /// The longest reply or command output that is read, in bytes. A longer one is turned away by its announced length.
    pub reply_limit: usize,
    /// The most processes kept of one daemon; the rest is counted.
    pub process_limit: usize,
    /// The least time between two readings of a process's memory by kind.
    pub memory_every: Duration,
    /// Whether to look for homes that nobody configured.
    pub discover: bool,
    /// Where the process file system is mounted.
    pub proc: PathBuf,
    /// The file that lists the machine's users, for `discover`.
    pub passwd: PathBuf,
}

impl Default for Settings {
    /// Five seconds, 32 MiB (5,000 processes of 6.7 kB), 5,000 processes, no discovery.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            reply_limit: 32 << 20,
            process_limit: 5000,
            memory_every: Duration::from_mins(1),
            discover: false,
            proc: PathBuf::from("/proc"),
            passwd: PathBuf::from("/etc/passwd"),
        }
    }
}

impl Settings {
    fn deadlines(&self) -> Deadlines {
        let step = self.deadline.min(STEP_LIMIT);
        Deadlines { connect: step, write: step, reply: self.deadline }
    }
}

/// The heap of one live process at a poll between two collections.
#[derive(Debug, Clone, PartialEq)]
pub struct HeapReading {
    /// The process.
    pub key: ProcessKey,
    /// The life it is in.
    pub life: Life,
    /// V8's used heap.
    pub heap_used: Option<Bytes>,
    /// V8's committed heap.
    pub heap_total: Option<Bytes>,
    /// What the preload reports.
    pub gc: Option<GcReport>,
}

/// Collects from every daemon.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    configured: Vec<Daemon>,
    discovered: Vec<Daemon>,
    last_discovery: Option<Steady>,
    host: HostSample,
}

impl Collector {
    /// Makes a collector that has connected to nothing yet. Names are expected to be distinct.
    pub fn new(daemons: Vec<DaemonSpec>, settings: Settings) -> Self {
        let configured = daemons.into_iter().map(|spec| Daemon::new(spec, &settings)).collect();
        Self { settings, configured, discovered: Vec::new(), last_discovery: None, host: HostSample::default() }
    }

    /// Goes on with other daemons and settings. A daemon that is to be reached as before keeps its connection and all that was
    /// learned of it.
    #[must_use]
    pub fn reconfigured(self, daemons: Vec<DaemonSpec>, settings: Settings) -> Self {
        let mut before: Vec<Daemon> = self.configured.into_iter().chain(self.discovered).collect();
        let go_on = |spec: DaemonSpec| match before.iter().position(|daemon| daemon.spec.home == spec.home) {
            Some(place) => before.swap_remove(place).reconfigured(spec, &settings),
            None => Daemon::new(spec, &settings),
        };
        let configured = daemons.into_iter().map(go_on).collect();
        // Homes that were found are found again at once, where they are still looked for.
        Self { configured, discovered: Vec::new(), last_discovery: None, host: self.host, settings }
    }

    /// The daemons it collects from, those that were found among them.
    pub fn daemons(&self) -> Vec<DaemonSpec> {
        self.configured.iter().chain(&self.discovered).map(|daemon| daemon.spec.clone()).collect()
    }

    /// Collects once from every daemon and from the system. Never fails as a whole; failures are in the reports. Returns
    /// within about twice [`Settings::deadline`].
    ///
    /// Must run within a tokio runtime with time and IO enabled.
    pub async fn collect(&mut self, now: Steady, wall: WallTime) -> Snapshot {
        self.discover(now).await;
        let collections =
            self.configured.iter_mut().chain(&mut self.discovered).map(|daemon| daemon.collect(now, wall));
        let (mut daemons, hosts): (Vec<_>, Vec<_>) = join_all(collections).await.into_iter().unzip();
        let unseen = |name: &DaemonName| {
            let daemon = self.configured.iter().find(|daemon| daemon.spec.name == *name);
            daemon.is_some_and(|daemon| !daemon.spec.expected && !daemon.was_seen())
        };
        daemons.retain(|daemon| !unseen(&daemon.name));
        // Those that are configured come first, so that one which was only found takes nothing from them.
        let mut budget = Budget::OF_ALL;
        for daemon in &mut daemons {
            let listed = daemon.processes.len();
            daemon.processes.retain_mut(|process| match budget.admit(&mut process.listed) {
                Some(left_out) => {
                    daemon.app_metrics_left_out += left_out;
                    true
                }
                None => false,
            });
            daemon.processes_left_out += listed - daemon.processes.len();
        }
        daemons.sort_by(|left, right| left.name.cmp(&right.name));
        // The machine's figures of the last collection are better than none.
        let host = match hosts.into_iter().flatten().last() {
            None => self.read_host().await,
            read => read,
        };
        self.host = host.unwrap_or(self.host);
        Snapshot { at: now, wall, daemons, host: self.host }
    }

    /// The homes of all daemons, by name.
    pub fn homes(&self) -> BTreeMap<DaemonName, PathBuf> {
        let daemons = self.configured.iter().chain(&self.discovered);
        daemons.map(|daemon| (daemon.spec.name.clone(), daemon.spec.home.clone())).collect()
    }

    /// Reads the machine's memory by itself, where it was not read beside the processes of a daemon.
    async fn read_host(&self) -> Option<HostSample> {
        let proc = self.settings.proc.clone();
        let reading = tokio::task::spawn_blocking(move || SystemReader::new(proc).host());
        tokio::time::timeout(self.settings.deadline, reading).await.ok()?.ok()?.ok()
    }

    /// Reads the heap of every live process from the lists alone, for a closer look at the heap's floor between two
    /// collections. Daemons that failed the last time, or that are reached by the command, are passed over.
    pub async fn poll_heap(&mut self, now: Steady) -> Vec<HeapReading> {
        let polls = self.configured.iter_mut().chain(&mut self.discovered).map(|daemon| daemon.poll(now));
        join_all(polls).await.into_iter().flatten().collect()
    }

    /// Looks for new homes when it is time, and lets go of found ones whose daemon has gone.
    async fn discover(&mut self, now: Steady) {
        let due = self.last_discovery.is_none_or(|last| now < last || now.since(last) >= DISCOVER_EVERY);
        if !self.settings.discover || !due {
            return;
        }
        self.last_discovery = Some(now);
        self.discovered.retain(Daemon::answered);
        let daemons = || self.configured.iter().chain(&self.discovered);
        let spelled = |home: PathBuf| async move {
            let folder = home.clone();
            let one = home_file::within(&home, STEP_LIMIT, move || folder.canonicalize()).await;
            one.ok().and_then(Result::ok).unwrap_or(home)
        };
        let known: BTreeSet<PathBuf> =
            join_all(daemons().map(|daemon| spelled(daemon.spec.home.clone()))).await.into_iter().collect();
        let names = daemons().map(|daemon| daemon.spec.name.clone()).collect();
        let found = discover::discover(&self.settings.passwd, &self.settings.proc, &known, &names).await;
        self.discovered.extend(found.into_iter().map(|spec| Daemon::new(spec, &self.settings)));
    }
}

/// Drives all futures side by side in one task and returns what they yield, in their order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Option<Pin<Box<F>>>> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (slot, output) in futures.iter_mut().zip(&mut outputs) {
            if let Some(Poll::Ready(value)) = slot.as_mut().map(|future| future.as_mut().poll(context)) {
                *output = Some(value);
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
