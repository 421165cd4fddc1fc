//! Gathers the signs of each end: which run it was of, whether pm2 was asked and by what, and what pm2 did then.
//!
//! pm2's log and its list tell of the same things at different times: a list may show the next run before the line of the end is
//! read, and a line is read before the next list. So a run that a list no longer shows waits for its line, and only where
//! none comes is the list alone believed. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{
    Aftermath, AppName, DaemonEvent, DaemonLine, LastSeen, Listed, Named, Status, StayedDown, Steady, WallTime,
};

use super::{Asked, Asker, DaemonEnd, is_short};

/// What is waited after an end before it is judged: what pm2 does then, and what the kernel and the app have written, is there
/// by then.
const JUDGE_AFTER: Duration = Duration::from_secs(2);
/// How long a run that a list no longer shows waits for its line.
const LINE_AFTER: Duration = Duration::from_secs(3);
/// How long a changed file explains the ends of an app's processes.
const WATCH_HOLDS: Duration = Duration::from_secs(30);
/// How long a measured memory limit explains an end: a new worker may take its time to listen.
const MEMORY_HOLDS: Duration = Duration::from_mins(2);
/// A line tells a start to the second, and a list to the millisecond: what lies this close, in milliseconds, is one start.
const SAME_START: u64 = 2000;
/// Facts about pids that are kept, the newest.
const FACTS: usize = 64;
/// The pause between two lists that are asked for out of turn.
const LIST_PAUSE: Duration = Duration::from_secs(2);

/// One run of a process, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Its pid; none until a list has shown it.
    pub pid: Option<u32>,
    /// Its start in wall-clock milliseconds.
    pub started: Option<i64>,
    /// When pm2 last started it because somebody asked.
    pub created_at: Option<i64>,
    /// What it was doing when it was last seen.
    pub before: LastSeen,
    /// Its start in clock ticks, where the system told.
    pub start_ticks: Option<u64>,
}

impl Run {
    /// Goes on with what a newer list shows; what that does not tell stays as it was.
    fn absorb(&mut self, newer: Self) {
        let old = std::mem::replace(self, newer);
        let (new, old_before) = (&mut self.before, old.before);
        new.resident_memory_bytes = new.resident_memory_bytes.or(old_before.resident_memory_bytes);
        new.heap_used_bytes = new.heap_used_bytes.or(old_before.heap_used_bytes);
        new.heap_limit_bytes = new.heap_limit_bytes.or(old_before.heap_limit_bytes);
        new.limit = new.limit.or(old_before.limit);
        new.slope = new.slope.or(old_before.slope);
        new.state = new.state.or(old_before.state);
        self.start_ticks = self.start_ticks.or(old.start_ticks);
    }
}

/// One end, with what there is to judge it by.
#[derive(Debug, Clone)]
pub struct Ended {
    /// pm2's number.
    pub pm_id: u32,
    /// pm2's last entry, where there was one.
    pub listed: Option<Listed>,
    /// The app.
    pub app: AppName,
    /// The run that ended.
    pub run: Run,
    /// When.
    pub at: WallTime,
    /// The exit code.
    pub code: Option<i64>,
    /// The signal of pm2's log; none where the log does not tell of this end.
    pub signal: Option<String>,
    /// Whether pm2 was asked.
    pub asked: Asked,
    /// The daemon's calendar, as if in UTC, when the cron job was taken off, where that is how it was asked.
    pub cron_off: Option<WallTime>,
    /// What pm2 had waited when it sent SIGKILL.
    pub killed_after: Option<Duration>,
    /// The daemon's own end.
    pub daemon: DaemonEnd,
    /// Whether pm2's own log holds V8's text with this pid.
    pub heap_full: bool,
    /// The text of an exception that the bus told of.
    pub exception: Option<String>,
    /// Whether pm2 has lost some of what a process wrote at that time.
    pub lost_output: bool,
    /// Short runs in a row, this one included; 0 after a long one.
    pub short_in_a_row: u32,
    /// What pm2 did then.
    pub then: Aftermath,
    /// Where the log tells of it.
    pub read_at: Option<(u64, u64)>,
    /// When its line was read, or a list first showed that it is gone.
    pub seen_at: Steady,
    judge_at: Steady,
    was_held: bool,
}

impl Ended {
    /// Whether pm2 was asked and by what, once it is known whether that was leakslope, and whether the time fits
    /// `cron_restart`; none where that is not known.
    pub fn asked(&self, is_ours: bool, fits_cron: Option<bool>) -> Asked {
        let has_cron = self.cron_off.is_some();
        match &self.asked {
            Asked::By(_) if is_ours => Asked::By(Asker::Leakslope),
            Asked::By(Asker::Client { confirmed: false, .. }) if fits_cron == Some(true) => Asked::By(Asker::Cron),
            Asked::By(Asker::Client { confirmed: false, .. }) if has_cron && fits_cron.is_none() => {
                Asked::By(Asker::Somebody)
            }
            Asked::By(Asker::Client { command: "", confirmed }) => {
                let command = match self.then {
                    Aftermath::Stopped { .. } => "stop",
                    Aftermath::Removed => "delete",
                    Aftermath::Restarted { .. } | Aftermath::Waiting | Aftermath::Errored | Aftermath::Unknown => {
                        "restart"
                    }
                };
                Asked::By(Asker::Client { command, confirmed: *confirmed })
            }
            asked @ (Asked::Unknown | Asked::No | Asked::By(_)) => asked.clone(),
        }
    }

    /// How long the run lasted.
    pub fn uptime(&self) -> Option<Duration> {
        let started = self.run.started?;
        Some(Duration::from_millis(u64::try_from(self.at.0.saturating_sub(started)).unwrap_or(0)))
    }
}

/// A run that lives on although its daemon is gone.
#[derive(Debug, Clone)]
pub struct Orphaned {
    /// pm2's number of it.
    pub pm_id: u32,
    /// The run.
    pub run: Run,
}

/// What is known of one process.
#[derive(Debug, Default)]
struct Tracked {
    name: Option<AppName>,
    listed: Option<Listed>,
    current: Option<Run>,
    /// The run before, which has no line yet, and since when it waits for one; a rolling reload's old worker waits as long as
    /// it lives.
    previous: Option<(Run, Option<Steady>)>,
    /// When a line last changed what is known, so that an older list cannot undo it.
    changed: Steady,
    ending: bool,
    memory: Option<(model::Bytes, model::Bytes, Steady)>,
    cron_off: Option<WallTime>,
    reloading: bool,
    confirmed: Option<Steady>,
    exception: Option<(String, Steady)>,
    short_in_a_row: u32,
}

/// A changed file of an app, when, and the processes whose end it has explained.
type Change = (String, Steady, BTreeSet<u32>);

/// A run whose daemon is gone, since when, and how that ended, where it said so.
#[derive(Debug)]
struct Lost {
    pm_id: u32,
    run: Run,
    since: Steady,
    end: Option<DaemonEnd>,
}

/// What is known of the processes of one daemon.
#[derive(Debug, Default)]
pub struct Tracker {
    processes: BTreeMap<u32, Tracked>,
    pending: Vec<Ended>,
    changes: Vec<Change>,
    killings: Vec<(u32, Duration)>,
    heap_full: Vec<u32>,
    farewell: bool,
    is_gone: bool,
    daemon_pid: Option<u32>,
    lost: Vec<Lost>,
    listed_at: Option<Steady>,
    wants_pids: bool,
}

impl Tracker {
    /// Takes in a run that an earlier run of the sidecar knew.
    pub fn seed(&mut self, pm_id: u32, app: &AppName, run: Run) {
        let tracked = self.processes.entry(pm_id).or_default();
        tracked.current = Some(run);
        tracked.name = Some(app.clone());
    }

    /// The last entry of a process.
    pub fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.processes.values().filter(|tracked| tracked.current.is_some()).filter_map(|it| it.listed.as_ref())
    }

    /// The pids of the runs that are known.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.values().filter_map(|tracked| tracked.current.as_ref()?.pid)
    }

    /// Whether nothing waits to be judged.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.lost.is_empty()
    }

    /// Whether a list is worth asking for now: a run has begun whose pid is not known, or an end waits for what became of it.
    pub fn wants_list(&self, now: Steady) -> bool {
        let rested = self.listed_at.is_none_or(|at| now < at || now.since(at) >= LIST_PAUSE);
        let asks = |ended: &Ended| ended.then == Aftermath::Unknown && ended.judge_at <= now;
        !self.is_gone && ((self.wants_pids && rested) || self.pending.iter().any(asks))
    }

    /// Takes in what the log or the bus tells.
    pub fn take_line(&mut self, line: &DaemonLine, now: Steady) {
        match &line.event {
            DaemonEvent::Exited { process, code, signal } => self.exited(process, *code, signal, line, now),
            // The old worker of a rolling reload shares its number with one that may end by itself meanwhile.
            DaemonEvent::Ending(process) => self.process(process.pm_id).ending |= !process.replaced,
            DaemonEvent::OutputLost => {
                let recent = self.pending.iter_mut().filter(|ended| now.since(ended.seen_at) < JUDGE_AFTER);
                recent.for_each(|ended| ended.lost_output = true);
            }
            DaemonEvent::OverMemory { pm_id, measured, limit } => {
                self.process(*pm_id).memory = Some((*measured, *limit, now));
            }
            DaemonEvent::Changed { app } => {
                self.changes.retain(|(_, at, _)| now.since(*at) < WATCH_HOLDS);
                if self.changes.len() < FACTS {
                    self.changes.push((app.clone(), now, BTreeSet::new()));
                }
            }
            DaemonEvent::CronOff { pm_id, calendar } => self.process(*pm_id).cron_off = *calendar,
            DaemonEvent::Reloading { pm_id } => self.process(*pm_id).reloading = true,
            DaemonEvent::Killing { pid, after } => keep(&mut self.killings, (*pid, *after)),
            DaemonEvent::HeapFull { pid } => keep(&mut self.heap_full, *pid),
            DaemonEvent::Starting(process) => self.starting(process, line.at, now),
            DaemonEvent::GaveUp => {
                if let Some(ended) = self.pending.last_mut() {
                    ended.then = Aftermath::Errored;
                }
            }
            DaemonEvent::Exception { pm_id, message } => {
                self.process(*pm_id).exception = Some((message.clone(), now));
                let mut open = self.pending.iter_mut().rev();
                if let Some(ended) = open.find(|ended| ended.pm_id == *pm_id && ended.exception.is_none()) {
                    ended.exception = Some(message.clone());
                }
            }
            DaemonEvent::Confirmed { pm_id } => {
                self.process(*pm_id).confirmed = Some(now);
                for ended in self.pending.iter_mut().filter(|ended| ended.pm_id == *pm_id) {
                    if let Asked::By(Asker::Client { confirmed, .. }) = &mut ended.asked {
                        *confirmed = true;
                    }
                }
            }
            DaemonEvent::Farewell => {
                self.farewell = true;
                for lost in &mut self.lost {
                    lost.end.get_or_insert(DaemonEnd::Stopped);
                }
                for ended in self.pending.iter_mut().filter(|ended| is_client(&ended.asked)) {
                    ended.daemon = DaemonEnd::Stopped;
                }
            }
            DaemonEvent::Began => {
                // What runs of the daemon before were known ended with it, if no line told of them.
                self.farewell = false;
                self.heap_full.clear();
                self.killings.clear();
            }
        }
    }

    fn process(&mut self, pm_id: u32) -> &mut Tracked {
        self.processes.entry(pm_id).or_default()
    }

    fn starting(&mut self, process: &Named, at: WallTime, now: Steady) {
        let tracked = self.process(process.pm_id);
        tracked.changed = now;
        // The list may have shown this run before its line was read.
        let is_same = |run: &Run| run.pid.is_some() && run.started.is_some_and(|it| it.abs_diff(at.0) <= SAME_START);
        if tracked.current.as_ref().is_some_and(is_same) {
            // A run before that has no line yet is the old worker of a rolling reload, which lives on for a while.
            if let Some((_, since)) = &mut tracked.previous {
                *since = None;
            }
            return;
        }
        // A rolling reload starts the new worker before it ends the old one.
        if let Some(old) = tracked.current.take() {
            tracked.previous = Some((old, None));
        }
        let created_at = tracked.previous.as_ref().and_then(|(old, _)| old.created_at);
        tracked.current = Some(Run { started: Some(at.0), created_at, ..Run::default() });
        (tracked.ending, tracked.exception) = (false, None);
        self.wants_pids = true;
        let mut ended = self.pending.iter_mut().rev().filter(|ended| ended.pm_id == process.pm_id);
        if let Some(ended) = ended.next()
            && matches!(ended.then, Aftermath::Unknown | Aftermath::Waiting)
        {
            let seconds = at.0.saturating_sub(ended.at.0).max(0) / 1000;
            ended.then = Aftermath::Restarted { seconds: seconds.unsigned_abs() };
        }
    }

    fn exited(&mut self, process: &Named, code: i64, signal: &str, line: &DaemonLine, now: Steady) {
        let (farewell, gone) = (self.farewell, self.is_gone);
        let changes = &mut self.changes;
        // One restart is for all changes before it.
        let mut watched = |pm_id: u32| {
            let explains = |change: &&mut Change| change.0 == process.app && now.since(change.1) < WATCH_HOLDS;
            changes.iter_mut().filter(explains).filter_map(|change| change.2.insert(pm_id).then_some(())).count() > 0
        };
        let tracked = self.processes.entry(process.pm_id).or_default();
        tracked.changed = now;
        let is_other = tracked.name.as_ref().is_some_and(|name| name.name() != process.app);
        let waits = tracked.previous.as_ref().is_some_and(|(_, since)| process.replaced || since.is_some());
        let run = if waits { tracked.previous.take().map(|(run, _)| run) } else { tracked.current.take() };
        let run = run.filter(|_| !is_other).unwrap_or_default();
        let listed = tracked.listed.clone().filter(|_| !is_other);
        let name = tracked.name.clone().filter(|_| !is_other);
        let app = name.unwrap_or_else(|| AppName::from(process.app.as_str()));
        let memory = tracked.memory.take().filter(|(_, _, at)| now.since(*at) < MEMORY_HOLDS);
        let cron_off = tracked.cron_off.take();
        let reloading = std::mem::take(&mut tracked.reloading) || process.replaced;
        let was_asked = std::mem::take(&mut tracked.ending) || process.replaced;
        let asked = match memory {
            _ if !was_asked => Asked::No,
            Some((measured, limit, _)) => Asked::By(Asker::Memory { measured, limit }),
            None if watched(process.pm_id) => Asked::By(Asker::Watch),
            None => {
                let confirmed = tracked.confirmed.take().is_some_and(|at| now.since(at) < JUDGE_AFTER);
                Asked::By(Asker::Client { command: if reloading { "reload" } else { "" }, confirmed })
            }
        };
        let exception = tracked.exception.take().filter(|(_, at)| now.since(*at) < LINE_AFTER).map(|(text, _)| text);
        let daemon = if farewell && is_client(&asked) { DaemonEnd::Stopped } else { DaemonEnd::None };
        let mut ended = Ended {
            pm_id: process.pm_id,
            listed,
            app,
            at: line.at,
            code: Some(code),
            signal: Some(signal.to_owned()),
            cron_off: cron_off.filter(|_| is_client(&asked)),
            asked,
            killed_after: None,
            daemon,
            heap_full: false,
            exception,
            lost_output: false,
            short_in_a_row: 0,
            then: if process.replaced { Aftermath::Restarted { seconds: 0 } } else { Aftermath::Unknown },
            read_at: line.read_at,
            seen_at: now,
            judge_at: now + JUDGE_AFTER,
            was_held: gone,
            run,
        };
        count_short(tracked, &mut ended);
        self.pending.push(ended);
    }

    /// Takes in a list that was asked for at `asked_at`, with what each process was doing.
    pub fn take_list<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a Listed, Run)>,
        asked_at: Steady,
        is_whole: bool,
        daemon_pid: Option<u32>,
    ) {
        let is_other = self.daemon_pid.zip(daemon_pid).is_some_and(|(before, now)| before != now);
        if is_other {
            self.daemon_gone(asked_at);
            self.farewell = false;
        }
        self.daemon_pid = daemon_pid;
        (self.is_gone, self.wants_pids) = (false, false);
        self.listed_at = Some(asked_at);
        let mut seen = BTreeSet::new();
        for (listed, run) in entries {
            seen.insert(listed.pm_id);
            self.take_entry(listed, run, asked_at);
        }
        if !is_whole {
            return;
        }
        for (pm_id, tracked) in &mut self.processes {
            if seen.contains(pm_id) || asked_at < tracked.changed {
                continue;
            }
            if let Some(run) = tracked.current.take() {
                tracked.previous = Some((run, Some(asked_at)));
            }
            // What it held is about an end before.
            if let Some(listed) = &mut tracked.listed {
                listed.ending.exit_code = None;
            }
            for ended in self.pending.iter_mut().filter(|ended| ended.pm_id == *pm_id) {
                if ended.then == Aftermath::Unknown {
                    ended.then = Aftermath::Removed;
                }
            }
        }
        let waits: BTreeSet<u32> = self.pending.iter().map(|ended| ended.pm_id).collect();
        self.processes.retain(|pm_id, tracked| {
            seen.contains(pm_id) || tracked.previous.is_some() || tracked.current.is_some() || waits.contains(pm_id)
        });
    }

    fn take_entry(&mut self, listed: &Listed, run: Run, asked_at: Steady) {
        let tracked = self.processes.entry(listed.pm_id).or_default();
        if asked_at < tracked.changed {
            return;
        }
        let is_live = listed.life().is_some();
        match &mut tracked.current {
            Some(current) if is_live && current.pid == run.pid => current.absorb(run),
            // A run that a line has told of, and whose pid is new.
            Some(current) if is_live && current.pid.is_none() => current.absorb(run),
            // pm2 has only begun to start it.
            Some(current) if current.pid.is_none() => {}
            Some(_) => {
                tracked.previous = tracked.current.take().map(|old| (old, Some(asked_at)));
                tracked.current = is_live.then_some(run);
            }
            None => tracked.current = is_live.then_some(run),
        }
        for ended in self.pending.iter_mut().filter(|ended| ended.pm_id == listed.pm_id) {
            if ended.then == Aftermath::Unknown {
                ended.then = aftermath(listed, ended);
            }
        }
        tracked.name = Some(listed.app.clone());
        tracked.listed = Some(listed.clone());
    }

    /// Takes in that the daemon is gone.
    pub fn daemon_gone(&mut self, now: Steady) {
        if std::mem::replace(&mut self.is_gone, true) {
            return;
        }
        let end = self.farewell.then_some(DaemonEnd::Stopped);
        for (pm_id, tracked) in &mut self.processes {
            let old = tracked.previous.take().map(|(run, _)| run);
            for run in tracked.current.take().into_iter().chain(old) {
                self.lost.push(Lost { pm_id: *pm_id, run, since: now, end });
            }
        }
    }

    /// The ends that are to be judged now, and the runs that live on although their daemon is gone. `lives` tells whether a run
    /// still lives; it is asked only after the daemon has gone. `read_to` is the time up to which the log has been read.
    pub fn due(
        &mut self,
        now: Steady,
        wall: WallTime,
        read_to: Steady,
        lives: impl Fn(&Run) -> bool,
    ) -> (Vec<Ended>, Vec<Orphaned>) {
        let (lost, wait) =
            std::mem::take(&mut self.lost).into_iter().partition(|lost: &Lost| now.since(lost.since) >= JUDGE_AFTER);
        self.lost = wait;
        let mut orphaned = Vec::new();
        for Lost { pm_id, run, end, .. } in lost {
            if lives(&run) {
                orphaned.push(Orphaned { pm_id, run });
                continue;
            }
            let end = end.unwrap_or(if self.farewell { DaemonEnd::Stopped } else { DaemonEnd::Killed });
            let ended = self.without_line(pm_id, run, wall, now, end);
            self.pending.push(ended);
        }
        let mut without_line = Vec::new();
        for (pm_id, tracked) in &mut self.processes {
            let late = |since: &Option<Steady>| since.is_some_and(|at| read_to.since(at) >= LINE_AFTER);
            if let Some((run, _)) = tracked.previous.take_if(|(run, since)| late(since) && !lives(run)) {
                without_line.push((*pm_id, run));
            }
        }
        for (pm_id, run) in without_line {
            let ended = self.without_line(pm_id, run, wall, now, DaemonEnd::None);
            self.pending.push(ended);
        }
        // `pm2 kill` deletes the apps first and says farewell after the last.
        let nobody_lives = self.processes.values().all(|tracked| tracked.current.is_none());
        for ended in &mut self.pending {
            let may_be_farewell = nobody_lives && is_client(&ended.asked) && ended.daemon == DaemonEnd::None;
            if ended.judge_at <= now && may_be_farewell && !std::mem::replace(&mut ended.was_held, true) {
                ended.judge_at = now + JUDGE_AFTER;
            }
        }
        let (mut due, wait): (Vec<Ended>, _) =
            std::mem::take(&mut self.pending).into_iter().partition(|ended| ended.judge_at <= now);
        self.pending = wait;
        for ended in &mut due {
            // A list may have come only after the end.
            if ended.listed.is_none()
                && let Some(listed) = self.processes.get(&ended.pm_id).and_then(|tracked| tracked.listed.as_ref())
                && ended.app.means(&listed.app)
            {
                ended.app = listed.app.clone();
                ended.listed = Some(listed.clone());
            }
            let Some(pid) = ended.run.pid else { continue };
            ended.heap_full = self.heap_full.contains(&pid);
            ended.killed_after = self.killings.iter().rev().find(|(killed, _)| *killed == pid).map(|(_, after)| *after);
        }
        (due, orphaned)
    }

    /// An end that no line tells of.
    fn without_line(&mut self, pm_id: u32, run: Run, wall: WallTime, now: Steady, daemon: DaemonEnd) -> Ended {
        let tracked = self.processes.entry(pm_id).or_default();
        let listed = tracked.listed.clone();
        let next = tracked.current.as_ref();
        let asked = match (run.created_at, next.and_then(|next| next.created_at)) {
            (Some(before), Some(after)) if before == after => Asked::No,
            (Some(_), Some(_)) => Asked::By(Asker::Somebody),
            _ => Asked::Unknown,
        };
        let app = tracked.name.clone().unwrap_or_else(|| AppName::from(pm_id.to_string().as_str()));
        let at = next.and_then(|next| next.started).map_or(wall, |started| WallTime(started.min(wall.0)));
        let mut ended = Ended {
            pm_id,
            code: listed.as_ref().and_then(|listed| listed.ending.exit_code),
            app,
            at,
            signal: None,
            asked,
            cron_off: None,
            killed_after: None,
            daemon,
            heap_full: false,
            lost_output: false,
            exception: tracked.exception.take().map(|(text, _)| text),
            short_in_a_row: 0,
            then: Aftermath::Unknown,
            read_at: None,
            seen_at: now - LINE_AFTER,
            judge_at: now,
            was_held: true,
            listed,
            run,
        };
        if let Some(listed) = &ended.listed
            && daemon == DaemonEnd::None
        {
            ended.then = aftermath(listed, &ended);
        }
        count_short(tracked, &mut ended);
        ended
    }
}

/// Counts short runs that ended by themselves.
fn count_short(tracked: &mut Tracked, ended: &mut Ended) {
    let min_uptime = ended.listed.as_ref().and_then(|listed| listed.min_uptime_ms).map(Duration::from_millis);
    let short = ended.uptime().is_some_and(|uptime| is_short(uptime, min_uptime));
    let by_itself = !matches!(ended.asked, Asked::By(_)) && ended.daemon == DaemonEnd::None;
    tracked.short_in_a_row = if short && by_itself { tracked.short_in_a_row.saturating_add(1) } else { 0 };
    ended.short_in_a_row = tracked.short_in_a_row;
}

fn is_client(asked: &Asked) -> bool {
    matches!(asked, Asked::By(Asker::Client { .. }))
}

/// What an entry that was listed after an end says of it.
fn aftermath(listed: &Listed, ended: &Ended) -> Aftermath {
    match listed.status {
        Status::Errored => Aftermath::Errored,
        Status::WaitingRestart => Aftermath::Waiting,
        Status::Online | Status::Launching | Status::OneLaunch => {
            let seconds = listed.pm_uptime.map_or(0, |started| started.saturating_sub(ended.at.0).max(0) / 1000);
            Aftermath::Restarted { seconds: seconds.unsigned_abs() }
        }
        Status::Stopped if matches!(ended.asked, Asked::By(_)) => Aftermath::Stopped { by: None },
        Status::Stopped if ended.code.is_some_and(|code| listed.ending.stop_exit_codes.contains(&code)) => {
            Aftermath::Stopped { by: Some(StayedDown::StopExitCodes) }
        }
        Status::Stopped if listed.ending.stays_down => Aftermath::Stopped { by: Some(StayedDown::AutorestartOff) },
        Status::Stopped => Aftermath::Stopped { by: None },
        Status::Stopping | Status::NoProcess | Status::Unknown => Aftermath::Unknown,
    }
}

/// Adds a fact; the oldest makes room.
fn keep<T>(facts: &mut Vec<T>, fact: T) {
    if facts.len() >= FACTS {
        facts.remove(0);
    }
    facts.push(fact);
}
