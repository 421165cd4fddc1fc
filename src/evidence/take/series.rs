//! Heap snapshots of one process, one after the other, in one session of its inspector: only within one do the ids of
//! objects mean the same in every file.
//!
//! Before each it looks at the app and the machine afresh and refuses with figures. Nothing is taken unless a person asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufWriter};

use super::attach::{Attached, ENDED, STEP, attach};
use super::estimate::{Estimate, Facts, Measured, Wishes, estimate, objections};
use super::{Ledger, TakeError, TakeErrorKind, Target, file_name, objection};
use crate::collect::look::{LOOK_DEADLINE, Look, client, look};
use crate::collect::system::{MemoryRoom, SystemReader};
use crate::evidence::inspector::Written;
use crate::evidence::keep::{self, Begun, Cost, Expected, Kind, Record, Road};
use crate::model::{Bytes, LimitKind, Status, WallTime};

/// Chunks are gathered to pieces of this size.
const PIECE: usize = 256 << 10;
/// A snapshot may take this many times as long as expected, and a minute, before it is given up; and its file may get
/// this many times as large, and 64 MiB.
const PATIENCE: u32 = 5;

/// What snapshots to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesOrder {
    /// How many.
    pub count: u32,
    /// How long to wait between two.
    pub wait: Duration,
    /// The pause that a person accepted, for each.
    pub accepted_pause: Option<Duration>,
    /// How long the life must have lasted, where a person said so.
    pub warm_up: Option<Duration>,
    /// Whether a sidecar is still learning this life; none where none could be asked.
    pub learning: Option<bool>,
    /// What evidence may take on disk, where it is kept within a budget.
    pub budget: Option<Bytes>,
}

/// What happens, to be told to who waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    /// The next one is about to be taken.
    Expected {
        /// Its number, from 1.
        number: u32,
        /// The heap's size.
        heap: Bytes,
        /// What it may cost.
        estimate: Estimate,
    },
    /// Older evidence was deleted to keep within the budget.
    MadeRoom(&'a Record),
    /// It was taken.
    Taken(&'a Snapshot),
    /// The app goes on until the next one.
    Waiting(Duration),
    /// The session has ended; how late the app's event loop was at the worst while it lasted.
    Ended(Duration),
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number in the series, from 1.
    pub number: u32,
    /// The file, of mode 0600.
    pub path: PathBuf,
    /// What it did cost.
    pub measured: Measured,
    /// What the process held before and after.
    pub resident: [Bytes; 2],
}

/// Takes the snapshots into new files under `folder`, telling each step; `wall` reads the clock. The inspector stands in the
/// ledger meanwhile.
///
/// # Errors
/// [`TakeError`]: refused with every reason at once, or failed. The snapshots before stay; the inspector is closed again.
pub async fn snapshots(
    target: &Target,
    order: &SeriesOrder,
    ledger: &Ledger,
    folder: &Path,
    wall: impl Fn() -> WallTime,
    tell: &mut impl FnMut(Step<'_>),
) -> Result<Vec<Snapshot>, TakeError> {
    let error = |kind| TakeError { app: target.app.clone(), process: target.key.clone(), kind };
    let mut series = Series { target, order, folder, wall, user: None };
    let look = series.look().await.map_err(TakeErrorKind::Refused).map_err(error)?;
    series.user = look.user_of(target.life.pid);
    // Where the list tells the heap's size, much is refused before anything is opened.
    let heap = target.heap_used.unwrap_or_default();
    series.check(&look, &[], &estimate(heap, None)).await.map_err(TakeErrorKind::Refused).map_err(error)?;
    let mut attached = attach(target, &look, ledger, (series.wall)(), true).await.map_err(error)?;
    let run = series.run(&mut attached, tell).await;
    if let Err(TakeErrorKind::Failed(why)) = run {
        return Err(error(attached.given_up(why).await));
    }
    let released = attached.release().await;
    if let Some(delay) = released.worst_delay {
        tell(Step::Ended(delay));
    }
    match (run, released.still_open) {
        (Ok(_), Some(open)) => Err(TakeErrorKind::Failed(open)),
        (Err(TakeErrorKind::Refused(why)), Some(open)) => Err(TakeErrorKind::Refused(format!("{why}; {open}"))),
        (run, _) => run,
    }
    .map_err(error)
}

struct Series<'a, Wall> {
    target: &'a Target,
    order: &'a SeriesOrder,
    folder: &'a Path,
    wall: Wall,
    user: Option<u32>,
}

impl<Wall: Fn() -> WallTime> Series<'_, Wall> {
    async fn run(
        &self,
        attached: &mut Attached,
        tell: &mut impl FnMut(Step<'_>),
    ) -> Result<Vec<Snapshot>, TakeErrorKind> {
        let mut taken: Vec<Snapshot> = Vec::new();
        for number in 1..=self.order.count {
            if number > 1 {
                tell(Step::Waiting(self.order.wait));
                attached.wait(self.order.wait).await.map_err(TakeErrorKind::Failed)?;
            }
            let failed = |why: String| TakeErrorKind::Failed(why);
            let collected = attached.inspector().collect_garbage(STEP).await;
            collected.map_err(|error| failed(attached.because(&error)))?;
            let usage = attached.inspector().heap_usage(STEP).await;
            let heap = usage.map_err(|error| failed(attached.because(&error)))?.used;
            let estimate = estimate(heap, taken.last().map(|snapshot| &snapshot.measured));
            tell(Step::Expected { number, heap, estimate });
            let look = self.look().await.map_err(TakeErrorKind::Refused)?;
            let machine = self.check(&look, &taken, &estimate).await.map_err(TakeErrorKind::Refused)?;
            self.make_room(estimate.size, tell).await.map_err(TakeErrorKind::Refused)?;
            let (path, written) = self.take(attached, number, heap, &estimate).await.map_err(failed)?;
            let measured = Measured { heap, pause: written.pause, size: written.size };
            let after = self.machine(&look).await.map_err(failed)?.resident;
            let snapshot = Snapshot { number, path, measured, resident: [machine.resident, after] };
            tell(Step::Taken(&snapshot));
            taken.push(snapshot);
        }
        Ok(taken)
    }

    async fn take(
        &self,
        attached: &mut Attached,
        number: u32,
        heap: Bytes,
        estimate: &Estimate,
    ) -> Result<(PathBuf, Written), String> {
        let (target, at) = (self.target, (self.wall)());
        let ending = format!("{number}.heapsnapshot");
        let file = file_name(&target.app, target.key.pm_id, Some(target.life.pid), at, &ending);
        let begun = Begun::new(self.folder, &file).map_err(|error| error.to_string())?;
        let handle = begun.handle().map_err(|error| error.to_string())?;
        let mut writer = BufWriter::with_capacity(PIECE, tokio::fs::File::from_std(handle));
        let limit = Bytes(estimate.size.0.saturating_mul(PATIENCE.into()).saturating_add(64 << 20));
        let deadline = estimate.pause.saturating_mul(PATIENCE) + Duration::from_mins(1);
        let written = attached.inspector().take_snapshot(&mut writer, limit, deadline).await;
        let written = written.map_err(|error| attached.because(&error))?;
        writer.flush().await.map_err(|error| error.to_string())?;
        let expected =
            Expected { heap_bytes: heap, pause_seconds: estimate.pause.as_secs_f64(), file_bytes: estimate.size };
        let pause_seconds = Some(written.pause.as_secs_f64());
        let cost = Cost { road: Road::Inspector, pause_seconds, expected: Some(expected) };
        let record = Record { kind: Kind::HeapSnapshot, user: self.user, ..target.record(file, at, Some(cost)) };
        let finishing = tokio::task::spawn_blocking(move || begun.finish(Some(&record)));
        let finished = finishing.await.map_err(|panicked| panicked.to_string())?;
        Ok((finished.map_err(|error| error.to_string())?, written))
    }

    /// Reads the list afresh: the very life that is meant must be online.
    async fn look(&self) -> Result<Look, String> {
        let look = look(&mut client(&self.target.home, LOOK_DEADLINE)).await?;
        match objection(look.find(self.target.key.pm_id)?, self.target) {
            Some(objection) => Err(objection),
            None => Ok(look),
        }
    }

    /// Refuses with every reason at once.
    async fn check(&self, look: &Look, taken: &[Snapshot], estimate: &Estimate) -> Result<Machine, String> {
        let listed = look.find(self.target.key.pm_id)?;
        let machine = self.machine(look).await?;
        let others = look.entries.iter().filter(|entry| {
            entry.app == self.target.app && entry.pm_id != listed.pm_id && entry.status == Status::Online
        });
        let age = (self.wall)().0.saturating_sub(self.target.life.started);
        let pm2 = listed.max_memory_restart.map(|limit| (LimitKind::MaxMemoryRestart, limit));
        let facts = Facts {
            uptime: Duration::from_millis(u64::try_from(age).unwrap_or_default()),
            learning: self.order.learning,
            others_online: others.count(),
            room: machine.room,
            resident: machine.resident,
            limits: pm2.into_iter().chain(machine.cgroup_limit.map(|limit| (LimitKind::Cgroup, limit))).collect(),
            disk_available: machine.disk_available,
            // The snapshots before are not deleted for the next.
            budget_left: self
                .order
                .budget
                .map(|budget| budget.saturating_sub(taken.iter().map(|snapshot| snapshot.measured.size).sum())),
        };
        let snapshots = self.order.count - u32::try_from(taken.len()).unwrap_or(self.order.count);
        let wishes = Wishes { snapshots, accepted_pause: self.order.accepted_pause, warm_up: self.order.warm_up };
        let objections = objections(&facts, &wishes, estimate);
        if objections.is_empty() { Ok(machine) } else { Err(objections.join("; ")) }
    }

    /// Deletes older evidence where there is a budget.
    async fn make_room(&self, needed: Bytes, tell: &mut impl FnMut(Step<'_>)) -> Result<(), String> {
        let Some(budget) = self.order.budget else { return Ok(()) };
        let folder = self.folder.to_owned();
        let deleting = tokio::task::spawn_blocking(move || keep::make_room(&folder, budget, needed));
        let gone = deleting.await.map_err(|panicked| panicked.to_string())?.map_err(|error| error.to_string())?;
        for record in &gone {
            tell(Step::MadeRoom(record));
        }
        Ok(())
    }

    /// Asks the system about the process, the memory and the disk.
    async fn machine(&self, look: &Look) -> Result<Machine, String> {
        let (folder, pid, daemon, wall) = (self.folder.to_owned(), self.target.life.pid, look.peer.pid, (self.wall)());
        let asking = move || Machine::read(&folder, pid, daemon, wall);
        tokio::task::spawn_blocking(asking).await.map_err(|panicked| panicked.to_string())?
    }
}

/// What the system says.
struct Machine {
    resident: Bytes,
    cgroup_limit: Option<Bytes>,
    room: MemoryRoom,
    disk_available: Bytes,
}

impl Machine {
    fn read(folder: &Path, pid: u32, daemon: Option<u32>, wall: WallTime) -> Result<Self, String> {
        let mut reader = SystemReader::new("/proc".into());
        let reading = reader.read(daemon, &[pid].into(), wall).map_err(|error| error.to_string())?;
        let process = reading.processes.get(&pid).ok_or(ENDED)?;
        let room = reader.room(pid).map_err(|error| error.to_string())?;
        // A folder that is not there yet will be made on the disk of the nearest one that is.
        let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(existing).map_err(|error| format!("{}: {error}", existing.display()))?;
        Ok(Self {
            resident: process.sample.resident,
            cgroup_limit: process.cgroup_limit,
            room,
            disk_available: Bytes(disk.f_bavail.saturating_mul(disk.f_frsize)),
        })
    }
}
