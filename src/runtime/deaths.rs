//! The task that explains each end of a run: once a second it takes what pm2, the kernel and the apps' logs tell, and judges
//! each end as soon as what followed is known.
//!
//! What decides is [`crate::deaths`]; this room reads for it, keeps the newest deaths in memory and in the store, and counts them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::collecting;
use super::restarting;
use super::shared::Shared;
use crate::collect::daemon_log::FullHeaps;
use crate::collect::ends::{EndWatch, ErrorLog, Place};
use crate::collect::list::ProcessList;
use crate::collect::socket::Peer;
use crate::collect::system::kills::Kills;
use crate::collect::{self, DaemonSpec, join_all};
use crate::deaths::tracker::{Ended, Orphaned, Run, Tracker};
use crate::deaths::{self, Asked, ExceptionText, HeapText, KernelWord, Killed, LOOP, Signs, decide};
use crate::export::DeathCounts;
use crate::history::store::StoreHandle;
use crate::model::{
    AppName, Cause, Certainty, DaemonName, Death, LastSeen, Listed, ProcessKey, ProcessSample, Steady, Verdict,
    WallTime,
};
use crate::policy::{Outcome, RecordKind};

/// How often the signs are read.
const EVERY: Duration = Duration::from_secs(1);
/// Deaths that are kept.
const KEPT: usize = 512;
/// The names of the store's entries: one for each death, and where each log was read to.
const DEATHS: &str = "deaths";
const READ_TO: &str = "deaths-read";
/// How long the place in a log may be unsaved.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How long the last death of a process stands in the metrics.
const COUNTED_FOR: i64 = 24 * 60 * 60 * 1000;
/// Series of counts; beyond them counting begins anew, as after a restart.
const COUNTS: usize = 20_000;
/// What the kernel tells this long before an end is read may be about it: it tells at once, and pm2 a moment later.
const KERNEL_BEFORE: Duration = Duration::from_secs(6);
/// What an app writes about its end it writes in this time before pm2 tells of it.
const WRITES_BEFORE: Duration = Duration::from_secs(2);
/// Two lengths of a log that are kept lie so far apart.
const APART: Duration = Duration::from_secs(5);
/// A daemon that has not answered for so long is left alone for the rest of the time: all others wait for each look at it.
const SILENT: Duration = Duration::from_secs(1);
const LEFT_ALONE: Duration = Duration::from_mins(1);
/// An end that is read so long after it was is judged without what the kernel counts now.
const LATE: i64 = 10_000;

/// The deaths that are known.
#[derive(Debug, Default)]
pub struct Deaths {
    inner: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    newest: VecDeque<Death>,
    last_id: u64,
    counts: BTreeMap<(ProcessKey, AppName, Cause), u64>,
}

impl Deaths {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The deaths that pass a filter, the newest first.
    pub fn newest(&self, most: usize, wanted: impl Fn(&Death) -> bool) -> Vec<Death> {
        self.known().newest.iter().rev().filter(|death| wanted(death)).take(most).cloned().collect()
    }

    /// How often and why runs ended, for metrics.
    pub fn counts(&self, now: WallTime) -> DeathCounts {
        let known = self.known();
        let mut last = BTreeMap::new();
        for death in known.newest.iter().filter(|death| now.0.saturating_sub(death.at.0) < COUNTED_FOR) {
            let key = ProcessKey { daemon: death.daemon.clone(), pm_id: death.pm_id };
            last.insert((key, death.app.clone()), (death.finding.cause, death.at));
        }
        let counts = known.counts.iter().map(|((key, app, cause), count)| (key.clone(), app.clone(), *cause, *count));
        DeathCounts {
            counts: counts.collect(),
            last: last.into_iter().map(|((key, app), (cause, at))| (key, app, cause, at)).collect(),
        }
    }

    /// Takes one in, and returns it as it is kept: one more in a boot loop takes the place of the one before.
    fn record(&self, mut death: Death) -> Death {
        let mut known = self.known();
        let key = ProcessKey { daemon: death.daemon.clone(), pm_id: death.pm_id };
        *known.counts.entry((key, death.app.clone(), death.finding.cause)).or_default() += 1;
        if known.counts.len() > COUNTS {
            known.counts.clear();
        }
        let is_more = |other: &Death| {
            death.in_a_row > LOOP
                && other.in_a_row >= LOOP
                && (&other.daemon, &other.app, other.pm_id) == (&death.daemon, &death.app, death.pm_id)
                && other.finding.cause == death.finding.cause
        };
        let of_it = |other: &Death| other.daemon == death.daemon && other.pm_id == death.pm_id;
        let before = known.newest.iter().rposition(of_it).filter(|place| is_more(&known.newest[*place]));
        death.id = if let Some(before) = before.and_then(|place| known.newest.remove(place)) {
            before.id
        } else {
            known.last_id += 1;
            known.last_id
        };
        known.newest.push_back(death.clone());
        if known.newest.len() > KEPT {
            known.newest.pop_front();
        }
        death
    }

    /// Reads what an earlier run kept.
    async fn restore(&self, store: &StoreHandle) {
        let mut read = Vec::new();
        for slot in 0..KEPT {
            let Ok(Some(entry)) = store.state(&format!("{DEATHS}/{slot}")).await else { continue };
            read.extend(serde_json::from_slice::<Death>(&entry).ok());
        }
        read.sort_by_key(|death| (death.at, death.id));
        let mut known = self.known();
        known.last_id = read.iter().map(|death| death.id).max().unwrap_or(0);
        known.newest = read.into();
    }
}

/// How long a log was at the last two looks that lie far enough apart: what an app writes right before its end may be older than
/// the last one.
#[derive(Debug, Default)]
struct Lengths {
    newest: Option<(u64, Steady)>,
    before: Option<(u64, Steady)>,
}

impl Lengths {
    fn push(&mut self, length: u64, now: Steady) {
        if self.newest.is_some_and(|(_, at)| now.since(at) >= APART) {
            self.before = self.newest;
        }
        self.newest = Some((length, now));
    }

    /// How long it was before an end that was seen then.
    fn before(&self, seen_at: Steady) -> Option<u64> {
        let is_before = |(_, at): &(u64, Steady)| *at + WRITES_BEFORE <= seen_at;
        self.newest.filter(is_before).or(self.before.filter(is_before)).map(|(length, _)| length)
    }
}

/// One daemon.
struct Watched {
    watch: EndWatch,
    tracker: Tracker,
    /// How long the error logs were, and when that was looked at.
    lengths: BTreeMap<String, Lengths>,
    /// Up to when the log has been read.
    read_to: Steady,
    /// The collection that was taken in last.
    seen: Option<Steady>,
    saved: Option<Place>,
    saved_at: Option<Steady>,
    /// Until when it is not asked, since it did not answer.
    silent_until: Option<Steady>,
    /// The last line of each log whose death an earlier run has kept.
    known: BTreeMap<u64, u64>,
}

/// Explains ends until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), String> {
    if let Some(store) = &shared.store {
        shared.deaths.restore(store).await;
    }
    let mut watched: BTreeMap<DaemonName, Watched> = BTreeMap::new();
    let mut kills = None;
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let settings = collecting::collector_settings(&shared.settings.load());
        let specs = shared.daemons.load_full();
        watched.retain(|name, it| specs.iter().any(|spec| spec.name == *name && spec.home == it.watch.home()));
        for spec in specs.iter() {
            if !watched.contains_key(&spec.name) {
                watched.insert(spec.name.clone(), begin(&shared, spec, &settings).await);
            }
        }
        let pids: BTreeSet<u32> =
            watched.values().flat_map(|it| it.tracker.pids().chain(it.watch.daemon_pid())).collect();
        let now = shared.clock.now();
        let proc = settings.proc.clone();
        let before: Option<Kills> = kills.take();
        let look = tokio::task::spawn_blocking(move || {
            let mut kills = before.unwrap_or_else(|| Kills::new(proc));
            kills.look(&pids, now);
            kills
        });
        let Ok(looked) = look.await else { continue };
        let steps = watched.iter_mut().map(|(name, it)| it.step(&shared, name, &looked, &settings.proc));
        if stop.run_until_cancelled(join_all(steps)).await.is_none() {
            break;
        }
        kills = Some(looked);
    }
    Ok(())
}

/// Begins to watch a daemon: from where its log was read to, with the runs that were known.
async fn begin(shared: &Shared, spec: &DaemonSpec, settings: &collect::Settings) -> Watched {
    let saved = match &shared.store {
        Some(store) => store.state(&format!("{READ_TO}/{}", spec.name)).await.ok().flatten(),
        None => None,
    };
    let place = saved.and_then(|saved| serde_json::from_slice::<Place>(&saved).ok());
    let mut tracker = Tracker::default();
    for history in shared.pipeline().histories() {
        let key = history.key();
        if key.daemon != spec.name || key.is_daemon() {
            continue;
        }
        if let Some(current) = history.current() {
            let run = Run { pid: Some(current.life.pid), started: Some(current.life.started), ..Run::default() };
            tracker.seed(key.pm_id, &history.about().app, run);
        }
    }
    let mut known = BTreeMap::new();
    for death in shared.deaths.newest(KEPT, |death| death.daemon == spec.name) {
        if let Some((inode, offset)) = death.read_at {
            let last = known.entry(inode).or_insert(0);
            *last = offset.max(*last);
        }
    }
    Watched {
        watch: EndWatch::new(spec, settings, place),
        tracker,
        lengths: BTreeMap::new(),
        read_to: Steady(0),
        seen: None,
        saved: place,
        saved_at: None,
        silent_until: None,
        known,
    }
}

impl Watched {
    /// Takes what is new and judges what is due.
    async fn step(&mut self, shared: &Shared, name: &DaemonName, kills: &Kills, proc: &Path) {
        let now = shared.clock.now();
        let first = if self.watch.daemon_pid().is_none() { self.list(shared).await } else { None };
        let look = self.watch.look(shared.clock.wall()).await;
        let now_read = shared.clock.now();
        for line in &look.lines {
            let is_known = line.read_at.and_then(|(inode, at)| self.known.get(&inode).map(|last| at <= *last));
            if is_known != Some(true) {
                self.tracker.take_line(line, now_read);
            }
        }
        if look.is_read {
            self.read_to = now;
        }
        if look.is_gone == Some(true) {
            self.tracker.daemon_gone(now_read);
        }
        let published = shared.published.load_full();
        let daemon = published.as_ref().and_then(|it| it.snapshot.daemons.iter().find(|daemon| daemon.name == *name));
        if let (Some(published), Some(daemon)) = (&published, daemon)
            && daemon.up
            && self.seen != Some(published.snapshot.at)
        {
            self.seen = Some(published.snapshot.at);
            let entries = daemon
                .processes
                .iter()
                .filter(|process| !process.key.is_daemon())
                .map(|process| (&process.listed, run_of(process, published.verdicts.get(&process.key))));
            let is_whole = daemon.processes_left_out == 0;
            self.tracker.take_list(entries, published.snapshot.at, is_whole, daemon.pid);
            self.measure_logs(now_read).await;
        }
        let asked_at = if first.is_some() { now } else { shared.clock.now() };
        let list = match first {
            Some(list) => Some(list),
            None if look.is_gone == Some(true) || self.tracker.wants_list(now) => self.list(shared).await,
            None => None,
        };
        if let Some((list, peer)) = list {
            let entries = list.entries.iter().map(|listed| (listed, run_of_entry(listed)));
            self.tracker.take_list(entries, asked_at, list.left_out() == 0, peer.pid);
        }
        let lives = |run: &Run| run.pid.is_some_and(|pid| lives(proc, pid, run.start_ticks));
        let (due, orphaned) = self.tracker.due(shared.clock.now(), shared.clock.wall(), self.read_to, lives);
        self.tell_orphans(name, &orphaned);
        let has_ended = !due.is_empty();
        for ended in due {
            self.judge(shared, name, ended, kills).await;
        }
        if has_ended {
            self.measure_logs(shared.clock.now()).await;
        }
        self.save_place(shared, name);
    }

    /// Asks for the list, unless the daemon did not answer a moment ago.
    async fn list(&mut self, shared: &Shared) -> Option<(ProcessList, Peer)> {
        let begun = shared.clock.now();
        if self.silent_until.is_some_and(|until| begun < until) {
            return None;
        }
        let list = self.watch.list().await;
        let now = shared.clock.now();
        self.silent_until = (list.is_none() && now.since(begun) >= SILENT).then(|| now + LEFT_ALONE);
        list
    }

    /// Notes how long the error logs are, so that what comes later is known to be new.
    async fn measure_logs(&mut self, now: Steady) {
        let paths: BTreeSet<String> =
            self.tracker.listed().filter_map(|listed| listed.ending.error_log.clone()).collect();
        self.lengths.retain(|path, _| paths.contains(path));
        let paths: Vec<String> = paths.into_iter().collect();
        for (path, length) in self.watch.lengths(&paths).await {
            self.lengths.entry(path).or_default().push(length, now);
        }
    }

    fn tell_orphans(&self, daemon: &DaemonName, orphaned: &[Orphaned]) {
        if !orphaned.is_empty() {
            let pids: Vec<String> = orphaned.iter().filter_map(|it| Some(it.run.pid?.to_string())).collect();
            let (home, pids) = (self.watch.home().display(), pids.join(", "));
            tracing::warn!(%daemon, %home, pids, "pm2's daemon is gone, and these of its processes live on as orphans");
        }
    }

    async fn judge(&mut self, shared: &Shared, daemon: &DaemonName, ended: Ended, kills: &Kills) {
        let wall = shared.clock.wall();
        let is_late = wall.0.saturating_sub(ended.at.0) > LATE;
        let error_log = self.error_log(&ended, is_late).await;
        let is_ours = matches!(ended.asked, Asked::By(_)) && ordered_by_us(shared, daemon, &ended).await;
        let cron = ended.listed.as_ref().and_then(|listed| listed.ending.cron_restart.as_deref());
        let fits_cron = ended.cron_off.zip(cron).map(|(at, cron)| fits(cron, at));
        let kernel = if is_late { KernelWord::default() } else { self.kernel_word(&ended, kills, shared) };
        let signs = self.signs(&ended, ended.asked(is_ours, fits_cron), kernel, error_log.as_ref());
        let finding = decide(&signs);
        let mut before = ended.run.before.clone();
        before.age_seconds = ended.uptime().map(|uptime| uptime.as_secs_f64());
        before.evidence = ended.run.pid.and_then(|pid| shared.evidence.of_run(daemon, ended.pm_id, pid));
        let stack = error_log.and_then(|log| log.stack).map(|stack| stack.message);
        let message = ended.exception.clone().or(stack).filter(|_| finding.cause == Cause::UncaughtException);
        let mut death = Death {
            id: 0,
            at: ended.at,
            daemon: daemon.clone(),
            app: ended.app.clone(),
            pm_id: ended.pm_id,
            pid: ended.run.pid,
            finding,
            then: ended.then,
            in_a_row: ended.short_in_a_row,
            before,
            message,
            sentence: String::new(),
            read_at: ended.read_at,
        };
        death.sentence = deaths::sentence(&death);
        let death = shared.deaths.record(death);
        tell(&death);
        if let Some(store) = &shared.store {
            let slot = death.id % KEPT as u64;
            let kept = serde_json::to_vec(&death).map_err(|error| error.to_string()).and_then(|entry| {
                store.put_state(&format!("{DEATHS}/{slot}"), Some(entry)).map_err(|error| error.to_string())
            });
            if let Err(error) = kept {
                tracing::warn!(error, "a death could not be handed over and is kept in memory only");
            }
        }
        // What repeats can explain itself the next time.
        if death.finding.certainty == Certainty::Undecided || death.finding.cause == Cause::BootLoop {
            self.watch.listen_for_a_while().await;
        }
    }

    /// What the app's own error log says, where it can be read and it is of use.
    async fn error_log(&mut self, ended: &Ended, is_late: bool) -> Option<ErrorLog> {
        // Where it matters what the app wrote: pm2's word alone does not tell.
        let signal = ended.signal.as_deref();
        let tells = matches!(signal, None | Some("SIGINT" | "SIGABRT" | "SIGTRAP" | "SIGILL"));
        if !tells || matches!(ended.asked, Asked::By(_)) {
            return None;
        }
        let path = ended.listed.as_ref()?.ending.error_log.clone()?;
        let since = self.lengths.get(&path).and_then(|lengths| lengths.before(ended.seen_at)).filter(|_| !is_late);
        let mut log = self.watch.error_log(&path, since).await?;
        // What is old cannot be told from what is new.
        if let Some(stack) = log.stack.as_mut().filter(|_| since.is_none()) {
            stack.is_last = false;
        }
        Some(log)
    }

    fn kernel_word(&self, ended: &Ended, kills: &Kills, shared: &Shared) -> KernelWord {
        let since = shared.clock.now() - KERNEL_BEFORE;
        let daemon_pid = self.watch.daemon_pid();
        // The kernel's log has the pids of the machine, and pm2's list those of its own namespace.
        let pid = ended.run.pid.filter(|_| daemon_pid.is_some_and(|daemon| kills.names_pids_of(daemon)));
        let kill = pid.and_then(|pid| kills.of_pid(pid, since));
        // A run whose group was not read in time had that of its daemon, as a rule.
        let group = pid.and_then(|pid| kills.group_of(pid)).or_else(|| kills.group_of(daemon_pid?));
        KernelWord {
            killed: kill.map(|kill| Killed { in_control_group: kill.in_control_group, held: kill.held }),
            log_read: pid.is_some(),
            counted: group.and_then(|group| kills.counted(group, since)),
        }
    }

    fn signs(&self, ended: &Ended, asked: Asked, kernel: KernelWord, error_log: Option<&ErrorLog>) -> Signs {
        let listed = ended.listed.as_ref();
        let path = listed.and_then(|listed| listed.ending.error_log.as_deref());
        let is_shared = self.tracker.listed().filter(|it| it.ending.error_log.as_deref() == path).count() > 1;
        let cluster = listed.is_some_and(|listed| listed.exec_mode == "cluster");
        let is_ours = |heaps: &FullHeaps| ended.run.pid.is_some_and(|pid| heaps.pids.contains(&pid));
        let is_somebodys = |heaps: &FullHeaps| heaps.is_nameless || (ended.run.pid.is_none() && !heaps.pids.is_empty());
        // V8's text of a worker goes to pm2's own log.
        let heap_text = match error_log {
            _ if ended.heap_full => HeapText::Ours,
            Some(log) if is_ours(&log.full_heaps) => HeapText::Ours,
            Some(log) if is_somebodys(&log.full_heaps) && !is_shared => HeapText::Somebodys,
            _ if cluster && self.watch.reads_log() && ended.run.pid.is_some() => HeapText::None,
            Some(_) if !cluster && ended.run.pid.is_some() && !ended.lost_output => HeapText::None,
            Some(_) | None => HeapText::Unreadable,
        };
        let exception = match error_log {
            _ if ended.exception.is_some() => ExceptionText::Told,
            Some(ErrorLog { stack: Some(stack), .. }) if stack.is_last && !is_shared => ExceptionText::Stack,
            Some(ErrorLog { stack: Some(_), .. }) => ExceptionText::SomeStack,
            Some(log) if log.is_whole && !ended.lost_output => ExceptionText::None,
            Some(_) | None => ExceptionText::Unreadable,
        };
        let before = &ended.run.before;
        let heap_share =
            before.heap_used_bytes.zip(before.heap_limit_bytes).map(|(used, limit)| used.as_f64() / limit.as_f64());
        Signs {
            daemon: ended.daemon,
            asked,
            killed_after: ended.killed_after,
            code: ended.code,
            signal: ended.signal.clone(),
            cluster,
            heap_text,
            heap_share,
            kernel,
            exception,
            uptime: ended.uptime(),
            short_in_a_row: ended.short_in_a_row,
        }
    }

    /// Saves where the log was read to, while no death waits that would have to be read again.
    fn save_place(&mut self, shared: &Shared, daemon: &DaemonName) {
        let (Some(store), Some(place)) = (&shared.store, self.watch.place()) else { return };
        let now = shared.clock.now();
        let rests = self.saved_at.is_some_and(|at| now.since(at) < SAVE_EVERY);
        if self.saved == Some(place) || !self.tracker.is_idle() || rests {
            return;
        }
        if let Ok(entry) = serde_json::to_vec(&place) {
            store.put_state(&format!("{READ_TO}/{daemon}"), Some(entry)).ok();
            (self.saved, self.saved_at) = (Some(place), Some(now));
        }
    }
}

/// Writes the log line: what nobody asked for is a warning. A boot loop is told of ever more rarely.
fn tell(death: &Death) {
    if death.in_a_row > LOOP && !death.in_a_row.is_power_of_two() {
        return;
    }
    let (daemon, app, pm_id) = (death.daemon.as_str(), death.app.to_string(), death.pm_id);
    let (cause, certainty) = (death.finding.cause.as_str(), death.finding.certainty.as_str());
    if death.finding.cause.is_asked() {
        tracing::info!(daemon, app, pm_id, cause, certainty, "{}", death.sentence);
    } else {
        tracing::warn!(daemon, app, pm_id, cause, certainty, "{}", death.sentence);
    }
}

/// A run as a collection shows it, with what was thought of it.
fn run_of(process: &ProcessSample, verdict: Option<&Verdict>) -> Run {
    let entry = run_of_entry(&process.listed);
    let before = LastSeen {
        resident_memory_bytes: process.resident,
        heap_limit_bytes: process.limits.heap,
        limit: verdict.and_then(|verdict| verdict.limit),
        slope: verdict.and_then(|verdict| verdict.slopes.get(&verdict.signal).copied()),
        state: verdict.map(|verdict| verdict.state),
        ..entry.before
    };
    Run { before, start_ticks: process.system.as_ref().map(|system| system.start_ticks), ..entry }
}

/// A run as pm2's list alone shows it.
fn run_of_entry(listed: &Listed) -> Run {
    let heap_limit = listed.metrics.gc.and_then(|gc| gc.heap_size_limit).or(listed.max_old_space);
    let before =
        LastSeen { heap_used_bytes: listed.metrics.heap_used, heap_limit_bytes: heap_limit, ..LastSeen::default() };
    let life = listed.life();
    Run {
        pid: life.map(|life| life.pid),
        started: life.map(|life| life.started),
        created_at: listed.created_at,
        before,
        start_ticks: None,
    }
}

/// Whether the process with this pid lives and is the one that began then.
fn lives(proc: &Path, pid: u32, start_ticks: Option<u64>) -> bool {
    let stat = std::fs::read(proc.join(pid.to_string()).join("stat")).ok();
    let stat = stat.as_deref().and_then(collect::system::parse::stat);
    stat.is_some_and(|stat| !stat.is_dead && start_ticks.is_none_or(|ticks| ticks == stat.start_ticks))
}

/// Whether leakslope's own record says that it restarted this run.
async fn ordered_by_us(shared: &Shared, daemon: &DaemonName, ended: &Ended) -> bool {
    let records = restarting::audit(shared).await;
    records.iter().any(|record| {
        let is_order = record.kind == RecordKind::Restart
            && !matches!(record.outcome, Some(Outcome::Cancelled | Outcome::NotCarriedOut));
        let is_same = match (record.life_before, ended.run.pid) {
            (Some(life), Some(pid)) => life.pid == pid && ended.run.started.is_none_or(|at| at == life.started),
            _ => record.wall.0.abs_diff(ended.at.0) < LATE.unsigned_abs(),
        };
        is_order && is_same && record.daemon == *daemon && record.pm_id == Some(ended.pm_id)
    })
}

/// Whether a time of the daemon's calendar lies within two seconds of one that a cron expression means.
fn fits(cron: &str, calendar: WallTime) -> bool {
    let Ok(cron) = croner::Cron::from_str(cron) else { return false };
    (-2..=2).any(|second: i64| {
        let at = jiff::Timestamp::from_millisecond(calendar.0.saturating_add(second * 1000));
        at.is_ok_and(|at| cron.is_time_matching(&at.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or(false))
    })
}
