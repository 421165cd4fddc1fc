//! One run from its start to its end: waits until the app is ready, reads floors, drives the load, ends everything.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use super::WatchArguments;
use super::command::{Announcements, Group, to_stderr};
use super::load::{Load, LoadEvent};
use super::processes::{Moment, Processes};
use super::report::{FUNCTIONS, LoadReport, Report, Row, judge, judge_tree, overall};
use crate::cli::output::{clean, complain};
use crate::cli::signals::Signals;
use crate::collect::system::listening_ports;
use crate::runtime::Clock;
use crate::trend::{ShortAnswer, ShortFloor};

/// How long a load waits for a port, …
const PORT_WITHIN: Duration = Duration::from_mins(1);
/// … and a run without a load for the first Node process to announce itself.
const NODE_WITHIN: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(100);
/// After a reading the app has this many times as long for itself.
const REST: u32 = 3;
/// The longest part of the run in which the load has ended.
const SETTLE: Duration = Duration::from_secs(10);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) report: Report,
    pub(super) rows: Vec<Row>,
    /// The wall time of the beginning in milliseconds.
    pub(super) start: i64,
}

/// Watches, and ends whatever was started here, however it goes.
pub(super) async fn watch(arguments: &WatchArguments) -> anyhow::Result<Found> {
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
    let result = tokio::select! {
        result = running.go() => result,
        name = signals.any() => Err(anyhow::anyhow!("ended by {name}; the command was ended, too")),
    };
    running.end().await;
    result
}

fn start(arguments: &WatchArguments, announcements: &Announcements) -> anyhow::Result<Group> {
    let (program, rest) = arguments.command.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    let options = announcements.node_options(std::env::var_os("NODE_OPTIONS").as_deref());
    command.args(rest).env("NODE_OPTIONS", options).stdout(to_stderr()).stderr(to_stderr());
    Group::start(command)
}

struct Running<'a> {
    arguments: &'a WatchArguments,
    processes: Processes,
    announcements: Option<Announcements>,
    group: Option<Group>,
    load: Option<Load>,
    rows: Vec<Row>,
    notes: Vec<String>,
    /// How the command ended, where it ended by itself.
    exited: Option<ExitStatus>,
}

impl Running<'_> {
    async fn go(&mut self) -> anyhow::Result<Found> {
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
        if let Some(status) = self.exited.filter(|status| !status.success()) {
            bail!("the command ended with {status} after {:.0} s", begin.elapsed().as_secs_f64());
        }
        let report = self.report(begin.elapsed()).await;
        Ok(Found { report, rows: std::mem::take(&mut self.rows), start })
    }

    fn command(&self) -> String {
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
                bail!("the command ended before it could be watched");
            }
            let announced = self.announcements.as_ref().map(Announcements::read).unwrap_or_default();
            if self.arguments.load.is_none() {
                if self.arguments.pid.is_some() || !announced.is_empty() || begin.elapsed() >= NODE_WITHIN {
                    return Ok(None);
                }
            } else {
                let inspectors: Vec<u16> = announced.values().map(|(address, _)| address.port()).collect();
                let proc = std::path::Path::new("/proc");
                let mut ports = tree.iter().flat_map(|process| listening_ports(proc, process.pid));
                if let Some(port) = ports.find(|port| !inspectors.contains(port)) {
                    return Ok(Some(port));
                }
                if begin.elapsed() >= PORT_WITHIN {
                    let seconds = PORT_WITHIN.as_secs();
                    bail!("the command listens on no TCP port after {seconds} s, so the load was not started");
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
            self.exited = Some(status);
            if !status.success() {
                bail!("the command ended with {status}");
            }
        }
        Ok(())
    }

    async fn readings(&mut self, begin: Instant) -> anyhow::Result<()> {
        let arguments = self.arguments;
        let end = begin + arguments.duration;
        let settle = if arguments.load.is_some() { SETTLE.min(arguments.duration / 6) } else { Duration::ZERO };
        let mut next = begin;
        loop {
            if !self.wait_until(next.min(end)).await? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let after_load = settle > Duration::ZERO && now >= end - settle;
            if after_load {
                self.end_load().await;
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
            next = (now + arguments.interval()).max(now + took * REST);
        }
    }

    /// Waits, and meanwhile hears the load and the command; false when the command has ended and left nobody.
    async fn wait_until(&mut self, until: Instant) -> anyhow::Result<bool> {
        loop {
            let load = async {
                match &mut self.load {
                    Some(load) => load.event().await,
                    None => std::future::pending().await,
                }
            };
            let exit = async {
                match &mut self.group {
                    Some(group) => group.exited().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(until) => return Ok(true),
                event = load => self.heard(event?)?,
                status = exit => {
                    let status = status?;
                    self.exited = Some(status);
                    if !status.success() {
                        bail!("the command ended with {status}");
                    }
                    if self.processes.tree()?.is_empty() {
                        self.notes.push("the command ended by itself before the time was over".to_owned());
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn heard(&mut self, event: LoadEvent) -> anyhow::Result<()> {
        let Some(load) = &mut self.load else { return Ok(()) };
        match event {
            LoadEvent::Line(line) => {
                if !load.count(&line) {
                    complain(&clean(&line));
                }
                Ok(())
            }
            LoadEvent::Exited(status) if status.success() => {
                load.resting();
                Ok(())
            }
            LoadEvent::Exited(status) => bail!("the load ended with {status}"),
        }
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
        let Some(figures) = self.processes.read(&moment, self.announcements.as_ref(), sampling).await? else {
            return Ok(false);
        };
        self.rows.push(Row {
            at,
            resident: figures.resident,
            heap_used: figures.heap_used,
            heap_total: figures.heap_total,
            external: figures.external,
            work: moment.work,
        });
        Ok(true)
    }

    async fn report(&mut self, lasted: Duration) -> Report {
        let (warm_up, max_slope) = (self.arguments.warm_up(), self.arguments.max_slope);
        let last = self.rows.last().map_or(Duration::ZERO, |row| row.at);
        let through = |first: Duration, end: Duration| {
            first <= warm_up + self.arguments.interval() * 2 && end + self.arguments.interval() * 3 >= last
        };
        let mut reports = Vec::new();
        let mut passing = 0_usize;
        for watched in self.processes.watched.values_mut() {
            let span = watched.resident.first().zip(watched.resident.last());
            if !span.is_some_and(|(first, end)| through(first.at, end.at)) {
                passing += 1;
                continue;
            }
            let mut report = judge(watched, warm_up, max_slope);
            if report.answer == ShortAnswer::Leak
                && let Some(profile) = watched.profile(FUNCTIONS).await
            {
                report.functions = profile.functions;
            }
            if let Some(failure) = watched.failure.as_ref().filter(|_| !self.rows.is_empty()) {
                let name = clean(&watched.name);
                self.notes.push(format!("the heap of {name} (pid {}) could not be read: {failure}", watched.pid));
            }
            reports.push(report);
        }
        if passing > 0 {
            self.notes
                .push(format!("{passing} process(es) did not live through the run and were not judged one by one"));
        }
        if self.processes.left_out > 0 {
            self.notes.push(format!("{} more process(es) were only counted into the tree", self.processes.left_out));
        }
        if reports.is_empty() && !self.rows.is_empty() {
            let floors: Vec<ShortFloor> = self
                .rows
                .iter()
                .map(|row| ShortFloor {
                    at: row.at,
                    bytes: row.resident,
                    work: row.work,
                    waiting: None,
                    after_load: false,
                })
                .collect();
            reports.push(judge_tree(&floors, warm_up, max_slope));
        }
        let (answer, reason) = overall(&reports);
        Report {
            command: self.command(),
            answer,
            reason,
            duration_seconds: lasted.as_secs_f64(),
            warm_up_seconds: warm_up.as_secs_f64(),
            interval_seconds: self.arguments.interval().as_secs_f64(),
            max_slope_bytes_per_second: max_slope,
            load: self.load.as_ref().map(|load| LoadReport {
                command: self.arguments.load.clone().unwrap_or_default(),
                rounds: load.rounds,
                requests: load.requests(),
                waiting: load.waiting(),
            }),
            processes: reports,
            notes: std::mem::take(&mut self.notes),
        }
    }

    async fn end_load(&mut self) {
        if let Some(mut group) = self.load.as_mut().and_then(Load::take) {
            group.end(&mut self.processes.reader, &std::collections::BTreeSet::new()).await;
        }
    }

    /// Ends everything that was started here.
    async fn end(&mut self) {
        self.end_load().await;
        self.processes.close().await;
        if let Some(mut group) = self.group.take() {
            group.end(&mut self.processes.reader, &self.processes.known).await;
        }
    }
}
