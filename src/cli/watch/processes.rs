//! The processes of the tree, each with its inspector and its floors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::UnixStream;

use crate::collect::system::{SystemReader, TreeProcess, listening_ports};
use crate::evidence::inspector::{Before, Inspector, InspectorError};
use crate::evidence::original::{Originals, Places};
use crate::evidence::profile::{self, ProfileSummary};
use crate::model::Bytes;
use crate::trend::ShortFloor;

/// Most inspectors that are talked to, and most processes that are judged one by one.
const MOST_INSPECTORS: usize = 16;
const MOST_PROCESSES: usize = 64;
/// The time an app has for one step; a collection of a large heap takes seconds.
const STEP: Duration = Duration::from_secs(20);
/// An app whose inspector was open before inlines again after this time, if nobody comes back.
const LONGEST: Duration = Duration::from_hours(2);
/// The ports that Node takes for an inspector by itself: 9229, and one more for each worker of a cluster.
pub(super) const USUAL_PORTS: RangeInclusive<u16> = 9229..=9329;
/// The average number of bytes between two samples of a profile.
const SAMPLING: Bytes = Bytes(8 << 10);
/// How often the process is asked until V8 has compiled what carries the answers.
const WARMING: usize = 500;
/// What the process runs; empty where that is no file.
const SCRIPT: &str = "process.argv[1] || ''";
/// What it says of its memory, …
const MEMORY: &str = "process.memoryUsage()";
/// … and by way of the preload, right after a collection.
const COLLECTED: &str = "globalThis[Symbol.for('leakslope.watch')]()";

/// Figures of one process at one moment, in bytes; `NaN` where there are none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) resident: f64,
    pub(super) heap_used: f64,
    pub(super) heap_total: f64,
    pub(super) external: f64,
}

/// One process.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pid: u32,
    /// The kernel's name, or the script where it is Node.
    pub(super) name: String,
    session: Option<Inspector>,
    /// Whether the preload is in it.
    prepared: bool,
    /// Whether an inspector was looked for, where none was announced.
    looked: bool,
    /// Why there is no session, or no profile, where there should be one.
    pub(super) failure: Option<String>,
    /// What was known before allocations were sampled, while they are.
    sampling: Option<Before>,
    /// Heap and buffers after garbage collection.
    pub(super) heap: Vec<ShortFloor>,
    /// Resident memory less heap and buffers.
    pub(super) native: Vec<ShortFloor>,
    /// Resident memory.
    pub(super) resident: Vec<ShortFloor>,
}

/// The moment that floors are read at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) work: Option<f64>,
    pub(super) waiting: Option<f64>,
    pub(super) after_load: bool,
}

impl Moment {
    /// A floor read at this moment.
    pub(super) fn floor(&self, bytes: f64) -> ShortFloor {
        ShortFloor { at: self.at, bytes, work: self.work, waiting: self.waiting, after_load: self.after_load }
    }
}

/// All processes that were ever seen in the tree.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) reader: SystemReader,
    pub(super) root: u32,
    pub(super) group: Option<u32>,
    pub(super) known: BTreeSet<(u32, u64)>,
    pub(super) watched: BTreeMap<(u32, u64), Watched>,
    pub(super) left_out: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryUsage {
    rss: f64,
    heap_total: f64,
    heap_used: f64,
    external: f64,
}

impl Processes {
    pub(super) fn new(root: u32, group: Option<u32>) -> Self {
        Self {
            reader: SystemReader::new("/proc".into()),
            root,
            group,
            known: BTreeSet::new(),
            watched: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Reads who is in the tree now.
    pub(super) fn tree(&mut self) -> anyhow::Result<Vec<TreeProcess>> {
        let tree = self.reader.tree(self.root, self.group)?;
        self.known.extend(tree.iter().map(|process| (process.pid, process.start_ticks)));
        Ok(tree)
    }

    /// Collects garbage where that can be done, reads every process, and returns the figures of the whole tree; none
    /// when nobody is left.
    pub(super) async fn read(
        &mut self,
        moment: &Moment,
        mut announced: Option<&mut BTreeMap<u32, UnixStream>>,
        sample_allocations: bool,
    ) -> anyhow::Result<Option<Figures>> {
        let tree = self.tree()?;
        let mut left_out = 0;
        let mut sum = Figures { resident: 0.0, heap_used: f64::NAN, heap_total: f64::NAN, external: f64::NAN };
        for process in &tree {
            let key = (process.pid, process.start_ticks);
            if !self.watched.contains_key(&key) && self.watched.len() >= MOST_PROCESSES {
                left_out += 1;
                sum.resident += process.held.as_f64();
                continue;
            }
            let sessions = self.watched.values().filter(|watched| watched.session.is_some()).count();
            let watched = self.watched.entry(key).or_insert_with(|| Watched::new(process));
            if watched.session.is_none() && watched.failure.is_none() && sessions < MOST_INSPECTORS {
                watched.attach(announced.as_deref_mut()).await;
            }
            let figures = watched.read(moment, process, sample_allocations).await;
            let add = |sum: &mut f64, figure: f64| {
                if !figure.is_nan() {
                    *sum = if sum.is_nan() { figure } else { *sum + figure };
                }
            };
            add(&mut sum.resident, figures.resident);
            add(&mut sum.heap_used, figures.heap_used);
            add(&mut sum.heap_total, figures.heap_total);
            add(&mut sum.external, figures.external);
        }
        self.left_out = self.left_out.max(left_out);
        let alive: BTreeSet<(u32, u64)> = tree.iter().map(|process| (process.pid, process.start_ticks)).collect();
        for (key, watched) in &mut self.watched {
            if !alive.contains(key) {
                // Whoever has ended cannot be read, which is no failure.
                (watched.session, watched.failure) = (None, None);
            }
        }
        // The memory of a process that was gone before it said anything counts for nobody.
        self.watched.retain(|key, watched| alive.contains(key) || watched.resident.len() > 2);
        Ok((!tree.is_empty()).then_some(sum))
    }

    /// The end of all sessions.
    pub(super) async fn close(&mut self) {
        for watched in self.watched.values_mut() {
            if let Some(session) = watched.session.take() {
                session.close(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Watched {
    fn new(process: &TreeProcess) -> Self {
        Self {
            pid: process.pid,
            name: process.name.clone(),
            session: None,
            prepared: false,
            looked: false,
            failure: None,
            sampling: None,
            heap: Vec::new(),
            native: Vec::new(),
            resident: Vec::new(),
        }
    }

    /// Whether its heap was read.
    pub(super) fn has_heap(&self) -> bool {
        !self.heap.is_empty()
    }

    /// Takes the session that the process opened to us; where none can, attaches to an inspector that is open already.
    async fn attach(&mut self, announced: Option<&mut BTreeMap<u32, UnixStream>>) {
        let attached = match announced {
            Some(announced) => match announced.remove(&self.pid) {
                Some(stream) => self.opened_to_us(stream).await,
                None => return,
            },
            None if self.looked => return,
            None => {
                self.looked = true;
                let ports = listening_ports(Path::new("/proc"), self.pid);
                let Some(port) = ports.into_iter().find(|port| USUAL_PORTS.contains(port)) else { return };
                self.open_already((Ipv4Addr::LOCALHOST, port).into()).await
            }
        };
        match attached {
            Ok(session) => self.session = Some(session),
            Err(failure) => self.failure = Some(failure),
        }
    }

    async fn opened_to_us(&mut self, stream: UnixStream) -> Result<Inspector, String> {
        let mut session = Inspector::over(stream, format!("pid {}", self.pid));
        // What carries our messages is code in the process, too: V8 compiles it now, and not while the app is measured.
        let mut script = serde_json::Value::Null;
        for _ in 0..WARMING {
            script = session.evaluate(SCRIPT, false, STEP).await.map_err(|error| error.to_string())?;
        }
        if let Some(script) = script.as_str().filter(|script| !script.is_empty()) {
            script.clone_into(&mut self.name);
        }
        self.prepared = true;
        Ok(session)
    }

    async fn open_already(&self, address: SocketAddr) -> Result<Inspector, String> {
        let attached = async {
            let mut session = Inspector::open(address, STEP).await?;
            let pid = session.process_pid(STEP).await?;
            Ok::<_, InspectorError>((session, pid))
        };
        match attached.await {
            // A port may have gone to someone else meanwhile.
            Ok((_, pid)) if pid != self.pid => Err(format!("{address} belongs to pid {pid}")),
            Ok((session, _)) => Ok(session),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn read(&mut self, moment: &Moment, process: &TreeProcess, sample_allocations: bool) -> Figures {
        let mut figures =
            Figures { resident: process.held.as_f64(), heap_used: f64::NAN, heap_total: f64::NAN, external: f64::NAN };
        if let Some(session) = &mut self.session {
            match memory_of(session, self.prepared).await {
                Ok(memory) => {
                    let external = memory.external;
                    self.heap.push(moment.floor(memory.heap_used + external));
                    let rest = (memory.rss - memory.heap_total - external).max(0.0);
                    self.native.push(moment.floor(rest));
                    figures = Figures {
                        resident: memory.rss,
                        heap_used: memory.heap_used,
                        heap_total: memory.heap_total,
                        external,
                    };
                    if sample_allocations && self.sampling.is_none() {
                        // A second reading tries again.
                        self.sampling = start_sampling(session, self.prepared, &memory).await.ok();
                    }
                }
                Err(error) => {
                    self.failure = Some(error);
                    self.session = None;
                }
            }
        }
        self.resident.push(moment.floor(figures.resident));
        figures
    }

    /// The profile of what was allocated since the warm-up and is still alive, as a file and as read.
    pub(super) async fn profile(&mut self, rows: usize) -> Result<(Vec<u8>, ProfileSummary, Vec<String>), String> {
        let (Some(session), Some(before)) = (self.session.as_mut(), self.sampling.take()) else {
            return Err("allocations were not sampled".to_owned());
        };
        session.collect_garbage(STEP).await.map_err(|error| error.to_string())?;
        let stopped = session.stop_sampling(STEP).await.map_err(|error| error.to_string())?;
        let after = session.resume_inlining(STEP).await.map_err(|error| error.to_string())?;
        let mut profile = profile::read(stopped.profile.as_slice(), &self.name).map_err(|error| error.to_string())?;
        let own = rustix::process::geteuid().as_raw();
        let mut originals = Originals::new(Places::default(), Some(own));
        originals.of_profile(&mut profile);
        let summary = profile::summarise(&profile, &self.name, rows);
        let notes = before.notes(&after).into_iter().chain(originals.notes().map(str::to_owned));
        Ok((stopped.profile, summary, notes.collect()))
    }
}

/// Starts to sample, so that each function counts what it allocates: where the preload is in it, nothing was ever inlined.
async fn start_sampling(
    session: &mut Inspector,
    prepared: bool,
    memory: &MemoryUsage,
) -> Result<Before, InspectorError> {
    let before = if prepared {
        Before::exact(memory.heap_used, memory.external)
    } else {
        session.stop_inlining(LONGEST, STEP).await?
    };
    session.start_sampling(SAMPLING, STEP).await?;
    Ok(before)
}

/// Collects garbage and reads the memory: in one step where the preload is there.
async fn memory_of(session: &mut Inspector, prepared: bool) -> Result<MemoryUsage, String> {
    let read = async {
        if prepared {
            return session.evaluate(COLLECTED, false, STEP).await;
        }
        session.collect_garbage(STEP).await?;
        session.evaluate(MEMORY, false, STEP).await
    };
    let memory = read.await.map_err(|error| error.to_string())?;
    serde_json::from_value(memory).map_err(|error| format!("process.memoryUsage() cannot be read: {error}"))
}
