//! A keeper on a thread of its own, so that a slow disk delays nobody but the disk.
//!
//! Commands wait in a bounded queue. Writes that wait together are saved together. Nothing here decides anything.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::anchor::ClockAnchor;
use super::error::{Notice, StoreError, StoreErrorKind};
use super::keeper::{Keeper, Saved, StoreStats};
use super::retention::Pruned;
use super::settings::StoreSettings;
use super::unsaved::{AuditEntry, LifeFilter, MinuteRow};
use model::{Life, LifeSummary, Minute, ProcessKey, Steady, WallTime};

/// Commands that may wait.
const QUEUE: usize = 1024;
/// Commands that are taken together before what they wrote is saved.
const TOGETHER: usize = 256;
/// Longest pause between two ticks of the keeper while it has something to do, …
const TICK: Duration = Duration::from_secs(1);
/// … and while it has not: whatever gives it something to do wakes it.
const TICK_AT_REST: Duration = Duration::from_mins(1);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Reads both clocks; given by `runtime`.
pub type Clock = Box<dyn Fn() -> (Steady, WallTime) + Send>;

type Reply<T> = oneshot::Sender<T>;

enum Command {
    Append(Vec<MinuteRow>),
    PutLives(Vec<LifeSummary>),
    PutAnchor(ClockAnchor),
    PutState(String, Option<Vec<u8>>),
    Keep(Box<Kept>, Reply<Result<Saved, StoreError>>),
    AppendAudit(Steady, Vec<u8>, Reply<Result<(u64, Saved), StoreError>>),
    Minutes(ProcessKey, Life, i64, Reply<Vec<Minute>>),
    Lives(LifeFilter, Reply<Vec<LifeSummary>>),
    State(String, Reply<Result<Option<Vec<u8>>, StoreError>>),
    Audit(RangeInclusive<u64>, usize, Reply<Vec<AuditEntry>>),
    Stats(Reply<StoreStats>),
    Flush(Reply<Saved>),
    Prune(Reply<Option<Pruned>>),
    Settings(Box<StoreSettings>),
    Stop(Reply<Saved>),
}

/// A piece of durable state with the audit entries that speak of it.
struct Kept {
    name: String,
    value: Vec<u8>,
    audit: Vec<(Steady, Vec<u8>)>,
}

/// Answers that are owed once what was written is saved.
enum Owed {
    State(Reply<Result<Saved, StoreError>>),
    Audit(u64, Reply<Result<(u64, Saved), StoreError>>),
    Flush(Reply<Saved>),
}

/// The thread that owns the store.
pub struct StoreWorker {
    handle: StoreHandle,
    thread: thread::JoinHandle<()>,
}

/// The way to the store from any task. Cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    commands: SyncSender<Command>,
    directory: Arc<PathBuf>,
}

impl fmt::Debug for StoreWorker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreWorker").field("directory", &self.handle.directory).finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreHandle").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl StoreWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StoreErrorKind::Io`] where the system gives no thread.
    pub fn start(keeper: Keeper, clock: Clock) -> Result<Self, StoreError> {
        let (commands, queue) = sync_channel(QUEUE);
        let directory = keeper.directory().to_owned();
        let thread = thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || run(keeper, &queue, &clock))
            .map_err(|error| StoreError::from_io(&directory, error))?;
        Ok(Self { handle: StoreHandle { commands, directory: Arc::new(directory) }, thread })
    }

    /// A way to the store.
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Saves what waits, closes the file and ends the thread. Call it last, with a deadline around it: a disk that
    /// hangs holds the thread.
    ///
    /// # Errors
    /// [`StoreErrorKind::Closed`] where the thread is gone already, [`StoreErrorKind::Busy`] and
    /// [`StoreErrorKind::TimedOut`] where it does not come to it.
    pub async fn stop(self) -> Result<Saved, StoreError> {
        let saved = self.handle.ask(Command::Stop).await?;
        // The answer is the thread's last deed, so this does not wait for the disk.
        let _ = self.thread.join();
        Ok(saved)
    }
}

impl StoreHandle {
    fn error(&self, kind: StoreErrorKind) -> StoreError {
        StoreError::new(&self.directory, kind)
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        self.commands.try_send(command).map_err(|refused| {
            self.error(match refused {
                TrySendError::Full(_) => StoreErrorKind::Busy,
                TrySendError::Disconnected(_) => StoreErrorKind::Closed,
            })
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_gone)) => Err(self.error(StoreErrorKind::Closed)),
            Err(_late) => Err(self.error(StoreErrorKind::TimedOut)),
        }
    }

    /// Hands minutes over; call it once a minute with those of all processes. Does not wait.
    pub fn append(&self, rows: Vec<MinuteRow>) -> Result<(), StoreError> {
        self.send(Command::Append(rows))
    }

    /// Hands summaries over. Does not wait.
    pub fn put_lives(&self, summaries: Vec<LifeSummary>) -> Result<(), StoreError> {
        self.send(Command::PutLives(summaries))
    }

    /// Hands over where the steady line is. Does not wait.
    pub fn put_anchor(&self, anchor: ClockAnchor) -> Result<(), StoreError> {
        self.send(Command::PutAnchor(anchor))
    }

    /// Hands a piece of durable state over, or that it is to be removed. Does not wait; one that is too large is told of in
    /// the log.
    pub fn put_state(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.send(Command::PutState(name.to_owned(), value))
    }

    /// Sets a piece of durable state and appends to the audit log in one transaction, and waits until both are on disk, or
    /// tells that they are not.
    pub async fn keep(&self, name: &str, value: Vec<u8>, audit: Vec<(Steady, Vec<u8>)>) -> Result<Saved, StoreError> {
        let kept = Box::new(Kept { name: name.to_owned(), value, audit });
        self.ask(|reply| Command::Keep(kept, reply)).await?
    }

    /// Appends to the audit log and waits until it is on disk, or tells that it is not. Returns the entry's place.
    pub async fn append_audit(&self, at: Steady, body: Vec<u8>) -> Result<(u64, Saved), StoreError> {
        self.ask(|reply| Command::AppendAudit(at, body, reply)).await?
    }

    /// The minutes of one life from the minute `since` on, in time order.
    pub async fn minutes(&self, key: &ProcessKey, life: Life, since: i64) -> Result<Vec<Minute>, StoreError> {
        self.ask(|reply| Command::Minutes(key.clone(), life, since, reply)).await
    }

    /// The summaries that pass the filter, by start.
    pub async fn lives(&self, filter: LifeFilter) -> Result<Vec<LifeSummary>, StoreError> {
        self.ask(|reply| Command::Lives(filter, reply)).await
    }

    /// A piece of durable state; [`StoreErrorKind::Closed`] where it cannot be known now.
    pub async fn state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(|reply| Command::State(name.to_owned(), reply)).await?
    }

    /// Entries of the audit log within a range of places, oldest first; of more than `most` the latest.
    pub async fn audit(&self, range: RangeInclusive<u64>, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.ask(|reply| Command::Audit(range, most, reply)).await
    }

    /// The state of the store.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.ask(Command::Stats).await
    }

    /// Saves what waits and tells where it is.
    pub async fn flush(&self) -> Result<Saved, StoreError> {
        self.ask(Command::Flush).await
    }

    /// Forgets what is old now; it happens by itself once an hour. None where the disk cannot be written.
    pub async fn prune(&self) -> Result<Option<Pruned>, StoreError> {
        self.ask(Command::Prune).await
    }

    /// Puts other bounds in force.
    pub fn set_settings(&self, settings: StoreSettings) -> Result<(), StoreError> {
        self.send(Command::Settings(Box::new(settings)))
    }
}

fn run(mut keeper: Keeper, queue: &Receiver<Command>, clock: &Clock) {
    report(keeper.take_notices());
    loop {
        let first = match queue.recv_timeout(if keeper.is_at_rest() { TICK_AT_REST } else { TICK }) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let (now, wall) = clock();
        let mut owed = Vec::new();
        let mut stop = None;
        for command in first.into_iter().chain(queue.try_iter().take(TOGETHER)) {
            if let Command::Stop(reply) = command {
                stop = Some(reply);
                break;
            }
            serve(&mut keeper, command, now, &mut owed);
        }
        let saved = keeper.flush(now, wall);
        pay(owed, &saved);
        keeper.tick(now, wall);
        report(keeper.take_notices());
        if let Some(reply) = stop {
            let (now, wall) = clock();
            // Whoever asked may have given up waiting.
            let _ = reply.send(keeper.close(now, wall));
            return;
        }
    }
    let (now, wall) = clock();
    keeper.close(now, wall);
}

/// Carries one command out. An answer that nobody waits for any more is dropped.
fn serve(keeper: &mut Keeper, command: Command, now: Steady, owed: &mut Vec<Owed>) {
    match command {
        Command::Append(rows) => keeper.append(rows),
        Command::PutLives(summaries) => summaries.into_iter().for_each(|summary| keeper.put_life(summary)),
        Command::PutAnchor(anchor) => keeper.put_anchor(anchor),
        Command::PutState(name, value) => {
            if let Err(error) = keeper.put_state(&name, value) {
                tracing::warn!(%error, name, "a piece of state is not saved");
            }
        }
        Command::Keep(kept, reply) => {
            let Kept { name, value, audit } = *kept;
            let taken = keeper.put_state(&name, Some(value)).and_then(|()| {
                audit.into_iter().try_for_each(|(at, body)| keeper.append_audit(at, body).map(|_place| ()))
            });
            match taken {
                Ok(()) => owed.push(Owed::State(reply)),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        Command::AppendAudit(at, body, reply) => match keeper.append_audit(at, body) {
            Ok(sequence) => owed.push(Owed::Audit(sequence, reply)),
            Err(error) => drop(reply.send(Err(error))),
        },
        Command::Minutes(key, life, since, reply) => drop(reply.send(keeper.minutes(&key, life, since, now))),
        Command::Lives(filter, reply) => drop(reply.send(keeper.lives(&filter, now))),
        Command::State(name, reply) => drop(reply.send(keeper.state(&name, now))),
        Command::Audit(range, most, reply) => drop(reply.send(keeper.audit(range, most, now))),
        Command::Stats(reply) => drop(reply.send(keeper.stats(now))),
        Command::Flush(reply) => owed.push(Owed::Flush(reply)),
        Command::Prune(reply) => drop(reply.send(keeper.prune(now))),
        Command::Settings(settings) => keeper.set_settings(*settings),
        Command::Stop(reply) => drop(reply),
    }
}

fn pay(owed: Vec<Owed>, saved: &Saved) {
    for debt in owed {
        match debt {
            Owed::State(reply) => drop(reply.send(Ok(saved.clone()))),
            Owed::Audit(sequence, reply) => drop(reply.send(Ok((sequence, saved.clone())))),
            Owed::Flush(reply) => drop(reply.send(saved.clone())),
        }
    }
}

fn report(notices: Vec<Notice>) {
    for notice in notices {
        match notice {
            Notice::SetAside { .. } | Notice::Degraded(_) => tracing::warn!("{notice}"),
            Notice::Forgotten(_) | Notice::Recovered { .. } => tracing::info!("{notice}"),
        }
    }
}
