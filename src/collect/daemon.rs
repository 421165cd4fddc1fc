//! One daemon: its list by the best road, the system's word on its processes, and both put together.
//!
//! Everything about a daemon lives here and is touched by no other daemon's collection. This room refuses to remember
//! processes: after a failed collection there are none, rather than stale ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use exporter_web::accounts::user_name;
use thiserror::Error;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};

use super::amp::Request;
use super::banner::find_list;
use super::command::{CommandError, CommandErrorKind, Jlist};
use super::freshness::{Freshness, FreshnessTracker};
use super::identity::{Standing, standing};
use super::list::{ListError, ProcessList, read_list, read_version};
use super::socket::{Client, ListReply, SocketError};
use super::system::{SystemReader, SystemReading};
use super::{DaemonSpec, HeapReading, Settings, Source};
use crate::model::{
    CollectorName, CollectorReport, DaemonName, DaemonSample, HostSample, Life, Listed, MemoryLimits, MemorySource,
    ProcessKey, ProcessSample, Status, Steady, WallTime,
};

/// A daemon that gives its list but not its version is not waited for longer than this.
const VERSION_DEADLINE: Duration = Duration::from_secs(1);
/// What the end of a command that was killed may take.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// Why a daemon's list could not be had.
#[derive(Debug, Error)]
enum FetchError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Both roads failed; the command was only the second choice.
    #[error("{socket}; and the command as a fallback: {command}")]
    Both { socket: SocketError, command: CommandError },
    #[error("{}: {error}", home.display())]
    List { home: PathBuf, error: ListError },
    #[error("no complete answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("the list that was too long for its deadline of {} ms is still being read: raise collect.deadline", .0.as_millis())]
    StillReading(Duration),
    #[error("reading the list ended in a panic, which is a defect of this program")]
    Panicked,
}

/// What a daemon answered.
enum Answer {
    /// Read while it arrived.
    Socket(ListReply),
    /// Not yet read.
    Command { stdout: Vec<u8>, daemon_pid: Option<u32> },
}

/// Reads what the command printed.
fn read_printed(stdout: &[u8], limit: usize) -> Result<ProcessList, ListError> {
    match find_list(stdout) {
        Some(line) => read_list(line, limit),
        None => Err(ListError::Shape { expected: "process list" }),
    }
}

/// What is kept of one daemon between collections.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) spec: DaemonSpec,
    settings: Settings,
    client: Client,
    /// The version, and the connection it was told on: another connection may lead to another daemon.
    version: Option<(u64, String)>,
    freshness: FreshnessTracker,
    system: SystemState,
    /// A list that is still being read since its deadline passed. No other is fetched, so they never pile up.
    reading: Option<AbortHandle>,
    last_success: Option<WallTime>,
    answered: bool,
    /// The daemon that the command started although one ran: it is not run again.
    started_by_command: Option<u32>,
}

/// Where the reader of the system is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it for each daemon")]
enum SystemState {
    /// At hand.
    Idle(SystemReader),
    /// On a blocking thread, since a reading that outlived its deadline. No other is begun, so they never pile up.
    Busy(JoinHandle<SystemTask>),
}

/// What a reading of the system brings back from its thread.
type SystemTask = (SystemReader, Result<SystemReading, String>);

impl Daemon {
    pub(super) fn new(spec: DaemonSpec, settings: &Settings) -> Self {
        let client =
            Client::new(spec.home.join("rpc.sock"), settings.deadlines(), settings.reply_limit).named_by(spec.named_by);
        Self {
            spec,
            settings: settings.clone(),
            client,
            version: None,
            freshness: FreshnessTracker::default(),
            system: SystemState::Idle(SystemReader::new(settings.proc.clone())),
            reading: None,
            last_success: None,
            answered: false,
            started_by_command: None,
        }
    }

    /// Goes on with another specification of the same home.
    pub(super) fn reconfigured(self, spec: DaemonSpec, settings: &Settings) -> Self {
        if self.spec == spec && self.settings == *settings {
            return self;
        }
        Self { last_success: self.last_success, ..Self::new(spec, settings) }
    }

    /// Whether it answered when it was last asked.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// Whether it has ever answered.
    pub(super) fn was_seen(&self) -> bool {
        self.last_success.is_some()
    }

    /// Collects once, and tells the machine's memory where that was read on the way. Never fails: what failed is in the
    /// sample's reports.
    pub(super) async fn collect(&mut self, now: Steady, wall: WallTime) -> (DaemonSample, Option<HostSample>) {
        let begun = Instant::now();
        let listed = self.list().await;
        let list_took = begun.elapsed();
        self.answered = listed.is_ok();
        let (list, daemon_pid) = match listed {
            Ok(listed) => listed,
            Err(error) => return (self.failed(error.to_string(), list_took), None),
        };
        self.last_success = Some(wall);
        let begun = Instant::now();
        let (reading, failure) = match self.read_system(daemon_pid, &list.entries, now, wall).await {
            Ok(reading) => (reading, None),
            Err(reason) => (SystemReading::default(), Some(reason)),
        };
        let system_took = begun.elapsed();
        let ages = self.freshness.observe(&list.entries, now);
        let (processes_left_out, app_metrics_left_out) = (list.left_out(), list.metrics_left_out);
        let sample = DaemonSample {
            name: self.spec.name.clone(),
            up: true,
            version: self.version.as_ref().map(|(_, version)| version.clone()),
            pid: daemon_pid,
            life: daemon_pid
                .zip(reading.daemon_start_ticks)
                .map(|(pid, ticks)| Life { pid, started: i64::try_from(ticks).unwrap_or(i64::MAX) }),
            resident: reading.daemon_resident,
            orphans: reading.orphans.clone(),
            processes: assemble(&self.spec.name, list.entries, daemon_pid, &reading, &ages),
            processes_left_out,
            app_metrics_left_out,
            reports: vec![
                CollectorReport { collector: CollectorName::Pm2, duration: list_took, failure: None },
                CollectorReport { collector: CollectorName::System, duration: system_took, failure },
            ],
            last_success: self.last_success,
        };
        (sample, reading.host)
    }

    /// Reads the heap of every live process, without the system. Only by the socket, and only while the last collection
    /// succeeded; else there is nothing.
    pub(super) async fn poll(&mut self, now: Steady) -> Vec<HeapReading> {
        if !self.answered || self.spec.source == Source::Command || self.nothing_is_read().is_err() {
            return Vec::new();
        }
        let fetched = timeout(self.settings.deadline, self.client.list(self.settings.process_limit)).await;
        let Ok(Ok(reply)) = fetched else {
            self.answered = false;
            return Vec::new();
        };
        let Ok(list) = reply.list else { return Vec::new() };
        self.freshness.observe(&list.entries, now);
        list.entries.iter().filter_map(|entry| heap_reading(&self.spec.name, entry)).collect()
    }

    fn failed(&self, reason: String, duration: Duration) -> DaemonSample {
        DaemonSample {
            name: self.spec.name.clone(),
            up: false,
            version: None,
            pid: None,
            life: None,
            resident: None,
            orphans: None,
            processes: Vec::new(),
            processes_left_out: 0,
            app_metrics_left_out: 0,
            reports: vec![CollectorReport { collector: CollectorName::Pm2, duration, failure: Some(reason) }],
            last_success: self.last_success,
        }
    }

    /// Fetches the list and reads it, each within the deadline; the version on the way, if it is not known yet.
    async fn list(&mut self) -> Result<(ProcessList, Option<u32>), FetchError> {
        let (deadline, limit) = (self.settings.deadline, self.settings.process_limit);
        self.nothing_is_read()?;
        // The command is killed at the deadline and says so itself; this ends what does not.
        let answer =
            timeout(deadline + KILL_GRACE, self.fetch()).await.map_err(|_elapsed| FetchError::Deadline(deadline))??;
        let (list, daemon_pid) = match answer {
            Answer::Socket(ListReply { list, peer, connection }) => {
                self.learn_version(connection).await;
                (list, peer.pid)
            }
            Answer::Command { stdout, daemon_pid } => {
                (self.read_aside(move || read_printed(&stdout, limit)).await?, daemon_pid)
            }
        };
        let list = list.map_err(|error| FetchError::List { home: self.spec.home.clone(), error })?;
        Ok((list, daemon_pid))
    }

    /// Fails while a list is still being read that was too slow.
    fn nothing_is_read(&self) -> Result<(), FetchError> {
        match &self.reading {
            Some(reading) if !reading.is_finished() => Err(FetchError::StillReading(self.settings.deadline)),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads on a blocking thread, within the deadline. What takes longer is remembered until it has come to its end.
    async fn read_aside<T: Send + 'static>(
        &mut self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, FetchError> {
        let deadline = self.settings.deadline;
        let mut task = tokio::task::spawn_blocking(read);
        match timeout(deadline, &mut task).await {
            Ok(read) => read.map_err(|_panicked| FetchError::Panicked),
            Err(_elapsed) => {
                // Where it waits for its thread it need not begin.
                task.abort();
                self.reading = Some(task.abort_handle());
                Err(FetchError::Deadline(deadline))
            }
        }
    }

    async fn fetch(&mut self) -> Result<Answer, FetchError> {
        if self.spec.source == Source::Command {
            return Ok(self.by_command().await?);
        }
        match self.client.list(self.settings.process_limit).await {
            Ok(reply) => Ok(Answer::Socket(reply)),
            Err(socket) if self.spec.source == Source::Auto && socket.kind.is_out_of_reach() => {
                match self.by_command().await {
                    Ok(answer) => Ok(answer),
                    // Nothing new is learned from a second road that leads nowhere for the same reason.
                    Err(CommandError { kind: CommandErrorKind::NoDaemon | CommandErrorKind::Nothing, .. }) => {
                        Err(socket.into())
                    }
                    Err(command) => Err(FetchError::Both { socket, command }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn by_command(&mut self) -> Result<Answer, CommandError> {
        let Settings { proc, deadline, reply_limit, .. } = &self.settings;
        let DaemonSpec { home, pm2_command: command, .. } = &self.spec;
        let order = Jlist { command, home, proc, user_name, deadline: *deadline, limit: *reply_limit };
        if let Some(daemon) = self.started_by_command {
            return Err(order.failed(CommandErrorKind::Barred(daemon)));
        }
        match order.run().await {
            Ok((stdout, alive)) => Ok(Answer::Command { stdout, daemon_pid: alive.pid }),
            Err(error) => {
                if let CommandErrorKind::Started { daemon, .. } = &error.kind {
                    self.started_by_command = Some(*daemon);
                }
                Err(error)
            }
        }
    }

    /// Asks for the version once a connection. A daemon that does not tell is no less alive.
    async fn learn_version(&mut self, connection: u64) {
        if self.version.as_ref().is_some_and(|(told_on, _)| *told_on == connection) {
            return;
        }
        self.version = match timeout(VERSION_DEADLINE, self.client.call(Request::GetVersion)).await {
            Ok(Ok(reply)) => read_version(reply.json()).ok().map(|version| (reply.connection, version)),
            Ok(Err(_)) | Err(_) => None,
        };
    }

    /// Reads the system on a blocking thread, within the deadline.
    async fn read_system(
        &mut self,
        daemon_pid: Option<u32>,
        entries: &[Listed],
        now: Steady,
        wall: WallTime,
    ) -> Result<SystemReading, String> {
        let pids = live_pids(entries);
        let fresh = || SystemState::Idle(SystemReader::new(self.settings.proc.clone()));
        let mut reader = match std::mem::replace(&mut self.system, fresh()) {
            SystemState::Idle(reader) => reader,
            SystemState::Busy(task) if !task.is_finished() => {
                self.system = SystemState::Busy(task);
                return Err("the reading that was too slow the last time has still not come to an end".to_owned());
            }
            SystemState::Busy(_finished) => SystemReader::new(self.settings.proc.clone()),
        };
        let (home, every) = (self.spec.home.clone(), self.settings.memory_every);
        let mut task = tokio::task::spawn_blocking(move || {
            let reading = reader.read(daemon_pid, &pids, wall).map_err(|error| error.to_string());
            let reading = reading.map(|mut reading| {
                reader.read_memory(&mut reading, daemon_pid, now, every);
                reading
            });
            let orphans = reader.orphans(&home, daemon_pid, &pids);
            (reader, reading.map(|reading| SystemReading { orphans, ..reading }))
        });
        match timeout(self.settings.deadline, &mut task).await {
            Ok(Ok((reader, reading))) => {
                self.system = SystemState::Idle(reader);
                reading
            }
            Ok(Err(_panicked)) => {
                Err("reading the system ended in a panic, which is a defect of this program".to_owned())
            }
            Err(_elapsed) => {
                self.system = SystemState::Busy(task);
                Err(format!("the system could not be read within {} ms", self.settings.deadline.as_millis()))
            }
        }
    }
}

fn live_pids(entries: &[Listed]) -> BTreeSet<u32> {
    entries.iter().filter(|entry| entry.status.has_live_pid()).filter_map(|entry| entry.pid).collect()
}

fn heap_reading(daemon: &DaemonName, entry: &Listed) -> Option<HeapReading> {
    let key = ProcessKey { daemon: daemon.clone(), pm_id: entry.pm_id };
    let life = entry.life()?;
    let metrics = &entry.metrics;
    Some(HeapReading { key, life, heap_used: metrics.heap_used, heap_total: metrics.heap_total, gc: metrics.gc })
}

/// Puts the list and the system's word together.
fn assemble(
    daemon: &DaemonName,
    entries: Vec<Listed>,
    daemon_pid: Option<u32>,
    system: &SystemReading,
    ages: &BTreeMap<u32, Freshness>,
) -> Vec<ProcessSample> {
    entries
        .into_iter()
        .map(|mut listed| {
            let standing = standing(&listed, daemon_pid, system);
            // pm2 shows no pid, or another process has it now. What is only out of sight may live.
            if listed.status == Status::Online && matches!(standing, Standing::Foreign | Standing::None) {
                listed.status = Status::NoProcess;
            }
            let own = if let Standing::Own(reading) = standing { Some(reading) } else { None };
            let resident = match standing.memory_source() {
                _ if listed.status == Status::NoProcess => None,
                Some(MemorySource::System) => own.map(|reading| reading.sample.resident),
                Some(MemorySource::Pm2) => listed.monit_memory,
                None => None,
            };
            let freshness = ages.get(&listed.pm_id);
            let heap = listed.metrics.gc.and_then(|gc| gc.heap_size_limit).or(listed.max_old_space);
            ProcessSample {
                key: ProcessKey { daemon: daemon.clone(), pm_id: listed.pm_id },
                life: listed.life().filter(|_| standing != Standing::Foreign),
                system: own.map(|reading| reading.sample.clone()),
                resident,
                resident_source: standing.memory_source().filter(|_| resident.is_some()),
                limits: MemoryLimits {
                    max_memory_restart: listed.max_memory_restart,
                    cgroup: own.and_then(|reading| reading.cgroup_limit),
                    heap,
                    configured: None,
                },
                metrics_age_seconds: freshness.map(|freshness| freshness.age.as_secs_f64()),
                metrics_frozen: freshness.is_some_and(|freshness| freshness.frozen),
                listed,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn online_is_only_what_has_a_live_process() {
        let entries = |pid: u32| {
            let json = format!(
                r#"[{{"pm_id":0,"pid":{pid},"pm2_env":{{"status":"online","pm_uptime":5}},"monit":{{"memory":9}}}}]"#
            );
            crate::collect::list::read_list(json.as_bytes(), 1).unwrap().entries
        };
        let seen = |pid, daemon_seen| {
            let system = SystemReading { daemon_seen, ..SystemReading::default() };
            let process = assemble(&"default".into(), entries(pid), Some(7), &system, &BTreeMap::new()).remove(0);
            (process.listed.status, process.life.is_some(), process.resident)
        };
        assert_eq!(seen(0, false), (Status::NoProcess, false, None), "it never started: pm2 shows pid 0");
        assert_eq!(seen(41, true), (Status::Online, true, Some(crate::model::Bytes(9))), "it is out of sight");
        assert_eq!(seen(41, false), (Status::Online, true, Some(crate::model::Bytes(9))), "nobody can be seen");
    }

    #[tokio::test]
    async fn while_a_list_is_still_being_read_no_other_is_fetched() {
        let home = tempfile::tempdir().unwrap();
        let spec = DaemonSpec {
            name: DaemonName::from("slow"),
            home: home.path().to_owned(),
            source: Source::Socket,
            pm2_command: Vec::new(),
            expected: true,
            named_by: None,
        };
        let settings = Settings { deadline: Duration::from_secs(2), ..Settings::default() };
        let mut daemon = Daemon::new(spec, &settings);
        let reason = |sample: &DaemonSample| sample.reports[0].failure.clone().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let (begin, started) = mpsc::channel::<()>();
        let task = daemon.read_aside(move || {
            begin.send(()).unwrap();
            released.recv().unwrap();
        });
        assert!(matches!(task.await, Err(FetchError::Deadline(_))));
        started.recv().expect("it was begun before its deadline");
        let failed = reason(&daemon.collect(Steady(0), WallTime(0)).await.0);
        assert!(failed.contains("still being read: raise collect.deadline"), "{failed}");
        release.send(()).unwrap();
        let done = async {
            while reason(&daemon.collect(Steady(0), WallTime(0)).await.0).contains("still being read") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_mins(1), done).await.expect("it is asked again once the list has been read");
    }
}
