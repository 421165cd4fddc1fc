//! One run from its start to its end: waits until the app is ready, reads floors, drives the load, ends everything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::WatchArguments;
use super::command::{Announcements, Group, to_stderr};
use super::load::{Load, LoadEvent};
use super::processes::{Moment, Processes, USUAL_PORTS};
use super::report::{Report, Row};
use crate::cli::output::{clean, complain};
use crate::cli::signals::Signals;
use crate::collect::system::listening_ports;
use crate::runtime::Clock;
use crate::trend::{FEWEST_FLOORS, ShortFloor, pause_share};

/// How long a load waits for a port, …
const PORT_WITHIN: Duration = Duration::from_mins(1);
/// … and a run without a load for the first Node process to announce itself.
const NODE_WITHIN: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(100);
/// After a reading the app has this many times as long for itself.
const REST: u32 = 3;
/// Lines of the load that are read at once.
const MOST_LINES: usize = 1000;
/// The longest part of the run in which the load has ended.
const SETTLE: Duration = Duration::from_secs(10);

/// How many times as long as it was meant to a run goes on at the most, until it has its floors.
const LONGER: u32 = 4;

/// What came of a run.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) report: Report,
    /// The floors that the answer rests on.
    pub(super) floors: Vec<ShortFloor>,
    pub(super) rows: Vec<Row>,
    /// The wall time of the beginning in milliseconds.
    pub(super) start: i64,
}

/// Watches, and ends whatever was started here, however it goes.
pub(super) async fn watch(arguments: &WatchArguments, evidence: &Path) -> anyhow::Result<Found> {
    let mut signals = Signals::listen()?;
    let announcements = if arguments.command.is_empty() { None } else { Some(Announcements::make()?) };
    let group = match &announcements {
        Some(announcements) => Some(start(arguments, announcements)?),
        None => None,
    };
    let root = group.as_ref().map_or(arguments.pid.unwrap_or_default(), Group::pid);
    let mut running = Running {
        arguments,
        processes: Processes::new(root, group.as_ref().map(Group::pid)),
        announcements,
        group,
        load: None,
        rows: Vec::new(),
        notes: Vec::new(),
        exited: None,
    };
    let mut how = Signal::TERM;
    let result = tokio::select! {
        result = running.go(evidence) => result,
        (name, signal) = signals.any() => {
            how = signal;
            let rest = if arguments.pid.is_some() {
                "the process goes on as it was"
            } else {
                "whatever it had started was told and has ended"
            };
            Err(anyhow::anyhow!("ended by {name} before the run was over; {rest}"))
        }
    };
    running.end(how).await;
    result
}

fn start(arguments: &WatchArguments, announcements: &Announcements) -> anyhow::Result<Group> {
    let (program, rest) = arguments.command.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    let options = announcements.node_options(std::env::var_os("NODE_OPTIONS").as_deref());
    command.args(rest).env("NODE_OPTIONS", options).stdout(to_stderr()).stderr(to_stderr());
    Group::start(command)
}

/// A run that is going on.
pub(super) struct Running<'a> {
    pub(super) arguments: &'a WatchArguments,
    pub(super) processes: Processes,
    announcements: Option<Announcements>,
    group: Option<Group>,
    pub(super) load: Option<Load>,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
    /// How the command ended, where it ended by itself.
    exited: Option<ExitStatus>,
}

impl Running<'_> {
    async fn go(&mut self, evidence: &Path) -> anyhow::Result<Found> {
        let clock = Clock::resume(None);
        let port = self.ready().await?;
        if let Some(words) = &self.arguments.load {
            self.load = Some(Load::start(words, port)?);
        }
        let start = clock.wall().0;
        let begin = Instant::now();
        complain(&format!(
            "leakslope: watching {} for {} s, the first {} s of it as warm-up",
            self.command(),
            self.arguments.duration.as_secs_f64(),
            self.arguments.warm_up().as_secs_f64()
        ));
        self.readings(begin).await?;
        let (report, floors) = self.report(begin.elapsed(), evidence, clock.wall()).await;
        Ok(Found { report, floors, rows: std::mem::take(&mut self.rows), start })
    }

    /// What is watched, for people.
    pub(super) fn command(&self) -> String {
        let words: Vec<String> =
            self.arguments.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        match self.arguments.pid {
            Some(pid) => format!("pid {pid}"),
            None => clean(&words.join(" ")),
        }
    }

    /// Waits until there is something to watch; with a load, until the app listens. Returns the port.
    async fn ready(&mut self) -> anyhow::Result<Option<u16>> {
        let begin = Instant::now();
        loop {
            let tree = self.processes.tree()?;
            if tree.is_empty() && self.arguments.pid.is_some() {
                bail!("there is no process {}", self.processes.root);
            }
            self.look_at_exit()?;
            if self.exited.is_some() && tree.is_empty() {
                bail!(
                    "the command ended by itself before it could be watched: watch one that stays, or give it more to do"
                );
            }
            if self.arguments.load.is_none() {
                let opened = match &mut self.announcements {
                    Some(announcements) => !announcements.read().await.is_empty(),
                    None => true,
                };
                if opened || begin.elapsed() >= NODE_WITHIN {
                    return Ok(None);
                }
            } else {
                let mut ports = tree.iter().flat_map(|process| listening_ports(Path::new("/proc"), process.pid));
                if let Some(port) = ports.find(|port| !USUAL_PORTS.contains(port)) {
                    return Ok(Some(port));
                }
                if begin.elapsed() >= PORT_WITHIN {
                    let seconds = PORT_WITHIN.as_secs();
                    bail!(
                        "the command listens on no TCP port after {seconds} s, so the load was not started; \
                        without --load it is watched as it is"
                    );
                }
            }
            sleep(POLL).await;
        }
    }

    fn look_at_exit(&mut self) -> anyhow::Result<()> {
        if self.exited.is_none()
            && let Some(group) = &mut self.group
            && let Some(status) = group.child().try_wait()?
        {
            self.ended(status)?;
        }
        Ok(())
    }

    async fn readings(&mut self, begin: Instant) -> anyhow::Result<()> {
        let arguments = self.arguments;
        let (mut end, longest) = (begin + arguments.duration, begin + arguments.duration * LONGER);
        let settle = if arguments.load.is_some() { SETTLE.min(arguments.duration / 6) } else { Duration::ZERO };
        let (mut next, mut reading) = (begin, 0_u32);
        loop {
            // A busy machine reads slowly: without its floors the run would end without an answer.
            if next + settle >= end && self.judged() < FEWEST_FLOORS && end < longest {
                end = (next + settle + arguments.interval()).min(longest);
            }
            if !self.wait_until(next.min(end)).await? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= end {
                let more = end.duration_since(begin).saturating_sub(arguments.duration).as_secs();
                if more > 0 {
                    let floors = self.judged();
                    self.notes
                        .push(format!("readings were slow: it went on for {more} s more, and has {floors} floors"));
                }
                return Ok(());
            }
            let after_load = settle > Duration::ZERO && now >= end - settle;
            if after_load {
                self.end_load(Signal::TERM).await;
            }
            if !self.read(begin, after_load).await? {
                self.look_at_exit()?;
                if self.exited.is_none() && self.arguments.pid.is_some() {
                    bail!("process {} ended", self.processes.root);
                }
                self.notes.push(format!("the command ended after {:.0} s", begin.elapsed().as_secs_f64()));
                return Ok(());
            }
            let took = now.elapsed();
            reading += 1;
            next = (now + arguments.interval().mul_f64(pause_share(reading))).max(now + took * REST);
        }
    }

    /// Floors so far that will be judged.
    fn judged(&self) -> usize {
        let warm_up = self.arguments.warm_up();
        self.rows.iter().filter(|row| row.moment.at >= warm_up && !row.moment.after_load).count()
    }

    /// Waits, and meanwhile hears the load and the command; false when the command has ended and left nobody.
    async fn wait_until(&mut self, until: Instant) -> anyhow::Result<bool> {
        loop {
            let exit = async {
                match &mut self.group {
                    Some(group) => group.exited().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(until) => break,
                event = next_event(&mut self.load) => self.heard(event?).await?,
                status = exit => {
                    self.ended(status?)?;
                    if self.processes.tree()?.is_empty() {
                        self.notes.push("the command ended by itself before the time was over".to_owned());
                        return Ok(false);
                    }
                }
            }
        }
        // What the load has counted by now belongs to the reading that comes.
        for _ in 0..MOST_LINES {
            let Ok(event) = timeout(Duration::ZERO, next_event(&mut self.load)).await else { break };
            self.heard(event?).await?;
        }
        Ok(true)
    }

    async fn heard(&mut self, event: LoadEvent) -> anyhow::Result<()> {
        match event {
            LoadEvent::Line(line) => {
                if self.load.as_mut().is_some_and(|load| !load.count(&line)) {
                    complain(&clean(&line));
                }
                Ok(())
            }
            LoadEvent::Exited(status) if status.success() => {
                self.end_load(Signal::TERM).await;
                Ok(())
            }
            LoadEvent::Exited(status) => bail!("the load ended with {status}; what it printed is above"),
        }
    }

    /// Notes that the command ended by itself; an error where it failed.
    fn ended(&mut self, status: ExitStatus) -> anyhow::Result<()> {
        self.exited = Some(status);
        if !status.success() {
            bail!("the command ended with {status}; what it printed is above");
        }
        Ok(())
    }

    async fn read(&mut self, begin: Instant, after_load: bool) -> anyhow::Result<bool> {
        if let Some(load) = &mut self.load
            && !after_load
        {
            load.start_if_resting()?;
        }
        let at = begin.elapsed();
        let moment = Moment {
            at,
            work: self.load.as_ref().and_then(Load::requests),
            waiting: self.load.as_ref().and_then(Load::waiting),
            after_load,
        };
        let sampling = at >= self.arguments.warm_up();
        let opened = match &mut self.announcements {
            Some(announcements) => Some(announcements.read().await),
            None => None,
        };
        let Some(figures) = self.processes.read(&moment, opened, sampling).await? else {
            return Ok(false);
        };
        self.rows.push(Row { moment, figures });
        Ok(true)
    }

    async fn end_load(&mut self, signal: Signal) {
        if let Some(mut group) = self.load.as_mut().and_then(Load::take) {
            group.end(signal, &mut self.processes.reader, &BTreeSet::new()).await;
        }
    }

    /// Ends everything that was started here.
    async fn end(&mut self, signal: Signal) {
        self.end_load(signal).await;
        self.processes.close().await;
        if let Some(mut group) = self.group.take() {
            group.end(signal, &mut self.processes.reader, &self.processes.known).await;
        }
    }
}

/// The load's next event; for ever where there is none.
async fn next_event(load: &mut Option<Load>) -> anyhow::Result<LoadEvent> {
    match load {
        Some(load) => load.event().await,
        None => std::future::pending().await,
    }
}
