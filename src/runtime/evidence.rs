//! The task that takes evidence: one profile at a time on this host, whoever asks for it.
//!
//! What is being taken and what came to nothing is remembered here, what was taken lies on disk (`evidence::keep`), and
//! both are told in one list. Whether one is due is decided in `evidence::when`. Files are read on threads of their own.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io::Read as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::published::Published;
use super::shared::Shared;
use crate::actuate::Witness;
use crate::config::{Settings, matches_glob};
use crate::evidence::export::Export;
use crate::evidence::keep::{self, Kind, Record, Trigger};
use crate::evidence::original::{Originals, Places};
use crate::evidence::profile::Profile;
use crate::evidence::take::{self, Closer, LARGEST_PROFILE, Ledger, ProfileOrder, SAMPLING_INTERVAL, Target};
use crate::evidence::when::{self, Busy, Candidate, Item, Progress};
use crate::evidence::{EvidenceSettings, profile};
use crate::export::EvidenceStamp;
use crate::model::{DaemonName, Life, ProcessKey, WallTime};
use crate::policy::EvidenceTaken;
use crate::ui::EvidenceItemView;

/// Attempts that came to nothing that are remembered, the latest.
const FAILURES: usize = 50;
/// Profiles whose report is remembered, the latest read.
const REPORTS: usize = 32;
/// A folder that changed less than this ago may change again without a newer time.
const SETTLED: Duration = Duration::from_secs(2);
/// Files that are sent at a time.
const DOWNLOADS: usize = 2;

/// What was taken, what is being taken, and the way to have more taken.
#[derive(Debug)]
pub struct Evidence {
    folder: Option<PathBuf>,
    ledger: Ledger,
    clock: Clock,
    settings: ArcSwap<EvidenceSettings>,
    /// The records as they were last read.
    records: ArcSwap<Vec<Record>>,
    inner: Mutex<Inner>,
    reports: Mutex<VecDeque<(u64, EvidenceItemView)>>,
    /// Rung when there is something to do or to look at.
    rung: Notify,
    /// Changes whenever an attempt ends.
    ended: watch::Sender<u64>,
    /// Downloads under way.
    pub(super) downloads: TaskTracker,
    /// How many more may begin.
    pub(super) download_places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What runs (one at the most) and what failed, the newest first.
    attempts: VecDeque<Item>,
    /// What runs has still to be begun.
    job: Option<Job>,
    /// When the folder had last changed, of which the records are known; none where they have to be read again.
    seen: Option<SystemTime>,
}

#[derive(Debug, Clone)]
struct Job {
    target: Target,
    order: ProfileOrder,
    why: String,
}

/// Why nothing is taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// One at a time.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It could not be kept.
    #[error(
        "there is no state directory to keep a profile in: start leakslope where it may write, or set STATE_DIRECTORY"
    )]
    NoPlace,
}

impl Evidence {
    /// Of what lies in a state directory; without one nothing is taken.
    pub fn new(state_directory: Option<&PathBuf>, clock: &Clock, settings: EvidenceSettings) -> Self {
        Self {
            folder: state_directory.map(|state| state.join(keep::FOLDER)),
            ledger: Ledger::new(state_directory.map(PathBuf::as_path)),
            clock: clock.clone(),
            settings: ArcSwap::from_pointee(settings),
            records: ArcSwap::default(),
            inner: Mutex::default(),
            reports: Mutex::default(),
            rung: Notify::new(),
            ended: watch::channel(0).0,
            downloads: TaskTracker::new(),
            download_places: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }

    pub(super) fn configure(&self, settings: &EvidenceSettings) {
        self.settings.store(Arc::new(settings.clone()));
    }

    /// Has the latest collection looked at.
    pub(super) fn collected(&self) {
        self.rung.notify_one();
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<EvidenceSettings> {
        self.settings.load_full()
    }

    /// Where a file lies that has a record of this name; none where no record has it.
    pub fn file(&self, id: &str) -> Option<(PathBuf, Record)> {
        let folder = self.folder.as_ref()?;
        let record = self.records().iter().find(|record| record.file == id)?.clone();
        Some((keep::path(folder, &record), record))
    }

    /// Everything that was taken, is being taken or came to nothing of late, the newest first. Reads the folder where it
    /// has changed.
    pub fn items(&self) -> Vec<Item> {
        let records = self.records();
        let mut items: Vec<Item> = self.lock().attempts.iter().cloned().collect();
        // A file may be there a moment before its attempt is over.
        let known = |record: &Record| items.iter().any(|item| item.record.file == record.file);
        let done: Vec<Item> = records
            .iter()
            .filter(|record| !known(record))
            .map(|record| Item { record: record.clone(), progress: Progress::Done })
            .collect();
        items.extend(done);
        items.sort_by(|one, other| {
            (other.record.taken_at, &other.record.file).cmp(&(one.record.taken_at, &one.record.file))
        });
        items
    }

    /// [`Self::items`], read on a thread of its own; none where that is not to be had any more.
    async fn look(self: &Arc<Self>) -> Option<Vec<Item>> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.items()).await.ok()
    }

    /// The newest file of each kind of each process, for metrics, by the records as they were last read: a slow disk delays
    /// no collection.
    pub fn stamps(&self) -> Vec<EvidenceStamp> {
        let mut newest = BTreeMap::new();
        // The newest are first.
        for record in self.records.load().iter() {
            newest.entry((record.key(), record.app.clone(), record.kind.as_str())).or_insert(record.taken_at);
        }
        let stamp = |((key, app, kind), at)| EvidenceStamp { key, app, kind, at };
        newest.into_iter().map(stamp).collect()
    }

    /// The name of the newest evidence of a run.
    pub fn of_run(&self, daemon: &DaemonName, pm_id: u32, pid: u32) -> Option<String> {
        let records = self.records.load();
        let is_of_it = |record: &&Record| {
            record.daemon == *daemon && record.pm_id == pm_id && record.life.is_some_and(|life| life.pid == pid)
        };
        records.iter().find(is_of_it).map(|record| record.file.clone())
    }

    fn records(&self) -> Arc<Vec<Record>> {
        let Some(folder) = &self.folder else { return Arc::default() };
        let changed = std::fs::metadata(folder).and_then(|about| about.modified()).ok();
        if changed.is_some() && self.lock().seen == changed {
            return self.records.load_full();
        }
        let records = Arc::new(keep::records(folder));
        self.records.store(records.clone());
        let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(self.clock.wall().0).unwrap_or(0));
        let settled = |changed: &SystemTime| now.duration_since(*changed).is_ok_and(|age| age > SETTLED);
        self.lock().seen = changed.filter(settled);
        records
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a profile taken; returns its name at once.
    ///
    /// # Errors
    /// [`NotTaken`] where another one is being taken or this one has nowhere to go.
    pub fn ask(&self, target: Target, trigger: Trigger, duration: Duration, why: &str) -> Result<String, NotTaken> {
        if self.folder.is_none() {
            return Err(NotTaken::NoPlace);
        }
        let named = |glob: &String| target.app.fits(glob, |text| matches_glob(glob, text));
        let opens = trigger == Trigger::Person || self.settings.load().open_inspector.iter().any(named);
        let (sampling_interval, at) = (SAMPLING_INTERVAL, self.clock.wall());
        let order = ProfileOrder { duration, sampling_interval, at, trigger, opens, inspector: false };
        let record = order.record(&target, None);
        let id = record.file.clone();
        let mut inner = self.lock();
        when::idle(inner.attempts.make_contiguous())?;
        inner.attempts.push_front(Item { record, progress: Progress::Running });
        inner.attempts.truncate(FAILURES);
        inner.job = Some(Job { target, order, why: why.to_owned() });
        drop(inner);
        self.rung.notify_one();
        Ok(id)
    }

    /// Waits until one is no longer being taken; none where it is forgotten.
    async fn ended(self: &Arc<Self>, id: &str) -> Option<Item> {
        let mut changes = self.ended.subscribe();
        loop {
            let item = self.look().await?.into_iter().find(|item| item.record.file == id)?;
            if item.progress != Progress::Running {
                return Some(item);
            }
            changes.changed().await.ok()?;
        }
    }

    async fn carry_out(self: &Arc<Self>, job: Job, stop: &CancellationToken) {
        let (app, process) = (&job.target.app, &job.target.key);
        let (daemon, pm_id, id) = (&process.daemon, process.pm_id, job.order.file(&job.target));
        let seconds = job.order.duration.as_secs_f64();
        tracing::info!(%daemon, %app, pm_id, evidence = id, "taking a heap profile for {seconds} s: {}", job.why);
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => Err("the sidecar was stopped before it came".to_owned()),
            taken = self.take(&job) => taken,
        };
        // What it says is read before it counts as there, so that whoever waits for it can tell.
        let said = match &taken {
            Ok(()) => self.told(&id).await,
            Err(why) => why.clone(),
        };
        let failed = taken.is_err();
        let mut inner = self.lock();
        inner.seen = None;
        match taken {
            Ok(()) => inner.attempts.retain(|item| item.record.file != id),
            Err(why) => {
                for item in inner.attempts.iter_mut().filter(|item| item.record.file == id) {
                    item.progress = Progress::Failed(why.clone());
                }
            }
        }
        drop(inner);
        self.ended.send_modify(|revision| *revision += 1);
        if failed {
            tracing::warn!(%daemon, %app, pm_id, evidence = id, "no heap profile: {said}");
        } else {
            tracing::info!(%daemon, %app, pm_id, evidence = id, "heap profile: {said}");
        }
    }

    async fn take(&self, job: &Job) -> Result<(), String> {
        let folder = self.folder.clone().ok_or_else(|| NotTaken::NoPlace.to_string())?;
        let (place, most) = (folder.clone(), self.settings.load().max_disk);
        let room = tokio::task::spawn_blocking(move || keep::make_room(&place, most, LARGEST_PROFILE));
        let gone = room.await.map_err(|error| error.to_string())?.map_err(|no_room| no_room.to_string())?;
        for record in gone {
            tracing::info!(app = %record.app, evidence = record.file, "deleted to make room (evidence.max_disk)");
        }
        take::profile(&job.target, &job.order, &self.ledger, &folder)
            .await
            .map(drop)
            .map_err(|error| error.kind.to_string())
    }

    /// What a file says, as a sentence.
    async fn told(self: &Arc<Self>, id: &str) -> String {
        let (this, id) = (self.clone(), id.to_owned());
        let reading = tokio::task::spawn_blocking(move || {
            let record = this.records().iter().find(|record| record.file == id).cloned();
            record.map_or_else(|| "it was deleted".to_owned(), |record| this.report(&record).sentence)
        });
        reading.await.unwrap_or_else(|error| error.to_string())
    }

    async fn testimony(self: &Arc<Self>, how: &str, id: String) -> EvidenceTaken {
        let sentence = format!("{how} ({id}): {}", self.told(&id).await);
        EvidenceTaken { id: Some(id), sentence }
    }

    /// The view of one item. Reads the file where its report is not remembered: not for a thread that serves others.
    pub fn view(&self, item: &Item) -> EvidenceItemView {
        match &item.progress {
            Progress::Running => {
                let seconds = item.record.sampled_seconds.unwrap_or_default();
                EvidenceItemView::running(&item.record, format!("allocations are being sampled for {seconds} s"))
            }
            Progress::Failed(why) => EvidenceItemView::of_profile(&item.record, None, Err(why.clone())),
            Progress::Done => self.report(&item.record),
        }
    }

    /// A profile in another form, with the author's own lines. Reads the disk.
    ///
    /// # Errors
    /// A sentence where it cannot be read.
    pub(super) fn exported(&self, record: &Record, export: Export) -> Result<Vec<u8>, String> {
        let folder = self.folder.as_ref().ok_or("the file is gone")?;
        let file = std::fs::File::open(keep::path(folder, record)).map_err(|error| error.to_string())?;
        let profile = profile::read(file.take(LARGEST_PROFILE.0), &record.file).map_err(|error| error.to_string())?;
        let (profile, _notes) = with_originals(profile, &self.settings().sources, record.user);
        export.write(&profile, &record.file).map_err(|error| error.to_string())
    }

    /// The report of a file that was taken. A file is never written twice, so its name and size say which it is; what
    /// cannot be read is tried again.
    fn report(&self, record: &Record) -> EvidenceItemView {
        let failed = |size, reason| EvidenceItemView::of_profile(record, size, Err(reason));
        let Some(folder) = &self.folder else { return failed(None, "the file is gone".to_owned()) };
        let path = keep::path(folder, record);
        let size = match std::fs::symlink_metadata(&path) {
            Ok(about) if about.is_file() => about.len(),
            _ => return failed(None, "the file is gone".to_owned()),
        };
        let known = |(of, view): &&(u64, EvidenceItemView)| *of == size && view.id == record.file;
        let reports = || self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, view)) = reports().iter().find(known) {
            return view.clone();
        }
        let (whole, view) = match record.kind {
            Kind::HeapProfile if size > LARGEST_PROFILE.0 => {
                return failed(Some(size), format!("a file of {size} bytes is not read here"));
            }
            Kind::HeapProfile => {
                let read = std::fs::File::open(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|file| profile::read(file, &record.file).map_err(|error| error.to_string()));
                let read = read.map(|profile| with_originals(profile, &self.settings().sources, record.user));
                (read.is_ok(), EvidenceItemView::of_profile(record, Some(size), read))
            }
            // Only its report is read; it may still come.
            Kind::HeapSnapshot => {
                let report = keep::report(&path);
                (matches!(report, Some(Ok(_))), EvidenceItemView::of_snapshot(record, size, report))
            }
        };
        if whole {
            let mut reports = reports();
            reports.push_front((size, view.clone()));
            reports.truncate(REPORTS);
        }
        view
    }
}

/// How long the folders of an app may take to tell where its code was written.
const SOURCES: Duration = Duration::from_secs(20);

/// Names the author's own lines, with what could not be named; the app's folders may lie on a file server that is gone.
fn with_originals(profile: Profile, places: &Places, user: Option<u32>) -> (Profile, Vec<String>) {
    let (ends, end) = mpsc::channel();
    let (mut named, mut originals) = (profile.clone(), Originals::new(places.clone(), user));
    let naming = std::thread::Builder::new().name("source maps".to_owned()).spawn(move || {
        originals.of_profile(&mut named);
        // Nobody waits any more where it comes too late.
        let _late = ends.send((named, originals.notes().map(str::to_owned).collect()));
    });
    let late = || "the folders of its code did not answer, so no source map was read".to_owned();
    match naming.ok().and_then(|_running| end.recv_timeout(SOURCES).ok()) {
        Some(named) => named,
        None => (profile, vec![late()]),
    }
}

/// Takes evidence until told to stop. It reads the disk, and at the end may wait for an inspector to close: to be run on a thread
/// of its own.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), String> {
    let evidence = &shared.evidence;
    // What an earlier run of this task was at when it ended badly will not come any more.
    let orphaned = {
        let mut inner = evidence.lock();
        let job = inner.job.is_some();
        let running = inner.attempts.iter_mut().filter(|item| item.progress == Progress::Running && !job);
        running.map(|item| item.progress = Progress::Failed("the task that took it ended badly".to_owned())).count()
    };
    if orphaned > 0 {
        evidence.ended.send_modify(|revision| *revision += 1);
    }
    let mut closer = Closer::new(evidence.ledger.clone());
    loop {
        // First of all, and after every collection: what a command that was killed has left open is seen soon.
        let left = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            left = closer.close(evidence.clock.wall()) => left,
        };
        for left in left {
            if left.closed {
                tracing::info!("{}", left.sentence);
            } else {
                tracing::warn!("{}", left.sentence);
            }
        }
        let job = evidence.lock().job.take();
        if let Some(job) = job {
            evidence.carry_out(job, &stop).await;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = evidence.rung.notified() => ask_for_what_leaks(&shared),
        }
    }
}

/// What evidence is there of a process that leaks and is about to be restarted; taken now, unless one is still good.
async fn before_restart(evidence: Arc<Evidence>, target: Target) -> EvidenceTaken {
    // One at a time: what is being taken is waited for, as long as the restart has patience.
    let gone = || EvidenceTaken::none("the sidecar is being stopped");
    let Some(mut items) = evidence.look().await else { return gone() };
    if let Some(running) = items.iter().find(|item| item.progress == Progress::Running) {
        let ended = evidence.ended(&running.record.file).await;
        let same = |item: &Item| (item.record.key(), item.record.life) == (target.key.clone(), Some(target.life));
        if let Some(ended) = ended.filter(|item| item.progress == Progress::Done && same(item)) {
            return evidence.testimony("a heap profile had just been taken", ended.record.file).await;
        }
        let Some(now) = evidence.look().await else { return gone() };
        items = now;
    }
    let settings = evidence.settings();
    let name = (&target.key.daemon, &target.app);
    if let Some(recent) = when::still_good(&settings, &items, name, evidence.clock.wall()) {
        let how = "a heap profile of this app was taken before an earlier restart";
        return evidence.testimony(how, recent.record.file.clone()).await;
    }
    let why = "it leaks and is about to be restarted";
    let id = match evidence.ask(target, Trigger::BeforeRestart, settings.before_restart_duration, why) {
        Ok(id) => id,
        Err(why) => return EvidenceTaken::none(&why.to_string()),
    };
    match evidence.ended(&id).await.map(|item| item.progress) {
        Some(Progress::Done) => evidence.testimony("a heap profile was taken first", id).await,
        Some(Progress::Failed(why)) => EvidenceTaken::none(&why),
        Some(Progress::Running) | None => EvidenceTaken::none("it was deleted"),
    }
}

impl Witness for Arc<Evidence> {
    fn testify(&self, target: Target) -> Pin<Box<dyn Future<Output = EvidenceTaken> + Send>> {
        Box::pin(before_restart(self.clone(), target))
    }
}

/// Looks at what lies there, and has a profile taken of a process that was found to leak by the latest collection.
fn ask_for_what_leaks(shared: &Shared) {
    let evidence = &shared.evidence;
    let items = evidence.items();
    let settings = evidence.settings();
    let Some(published) = shared.published.load_full() else { return };
    if !settings.on_leak {
        return;
    }
    let Some(due) = when::due(&settings, candidates(&published), &items, evidence.clock.wall()) else { return };
    let Some(target) = target_of(&shared.settings.load(), &due) else { return };
    if let Err(why) = evidence.ask(target, Trigger::Leak, settings.duration, "it was found to leak") {
        tracing::warn!(daemon = %due.key.daemon, app = %due.app, pm_id = due.key.pm_id, "no heap profile: {why}");
    }
}

/// The running processes with what is thought of them.
pub(super) fn candidates(published: &Published) -> impl Iterator<Item = Candidate<'_>> {
    published.snapshot.processes().filter_map(|process| {
        let (app, key) = (&process.listed.app, &process.key);
        Some(Candidate { key, app, life: process.life?, verdict: published.verdicts.get(key) })
    })
}

/// The process as `take` wants to know it; none where the home of its daemon is not known.
pub(super) fn target_of(settings: &Settings, it: &Candidate<'_>) -> Option<Target> {
    let spec = settings.daemons.iter().find(|spec| spec.name == it.key.daemon)?;
    Some(target(spec.home.clone(), it.key.clone(), it.app.clone(), it.life))
}

fn target(home: PathBuf, key: ProcessKey, app: crate::model::AppName, life: Life) -> Target {
    Target { home, key, app, life, heap_used: None }
}

impl Evidence {
    /// Why no profile of this process is taken by itself, or that one is next.
    pub fn standing(&self, published: &Published, key: &ProcessKey, items: &[Item], now: WallTime) -> Option<String> {
        let it = candidates(published).find(|it| it.key == key)?;
        let look = when::look(&self.settings.load(), &it, items, now);
        Some(look.map_or_else(|why| why.to_string(), |()| "it leaks, and a profile of it is next".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AppName;

    const PROFILE: &str = r#"{"head":{"callFrame":{"functionName":"remember","scriptId":"1","url":"file:///app/a.js",
        "lineNumber":9,"columnNumber":0},"selfSize":5000,"children":[]}}"#;

    fn settings() -> EvidenceSettings {
        let text = crate::config::parse("test", "", &crate::config::Surroundings::default());
        text.expect("the default is valid").evidence
    }

    fn shop(pm_id: u32) -> Target {
        let key = ProcessKey { daemon: "default".into(), pm_id };
        target(PathBuf::from("/nowhere"), key, AppName::from("shop"), Life { pid: 7, started: 1 })
    }

    fn record(file: &str) -> Record {
        Record {
            kind: Kind::HeapProfile,
            trigger: Trigger::Leak,
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 0,
            user: None,
            life: None,
            taken_at: WallTime(5),
            sampled_seconds: None,
            cost: None,
            notes: Vec::new(),
            file: file.to_owned(),
        }
    }

    fn evidence(state: Option<&PathBuf>) -> Evidence {
        Evidence::new(state, &Clock::resume(None), settings())
    }

    #[test]
    fn a_report_is_read_once_and_few_are_remembered() {
        let state = tempfile::tempdir().unwrap();
        let evidence = evidence(Some(&state.path().to_owned()));
        let folder = state.path().join(keep::FOLDER);
        for number in 0..=REPORTS {
            keep::write(&folder, &record(&format!("{number}.heapprofile")), PROFILE.as_bytes()).unwrap();
        }
        let said = |file: &str| evidence.report(&record(file)).sentence;
        assert!(said("0.heapprofile").contains("remember at /app/a.js:10"), "{}", said("0.heapprofile"));
        // As long as before and no profile: it is not read again.
        std::fs::write(folder.join("0.heapprofile"), "x".repeat(PROFILE.len())).unwrap();
        assert!(said("0.heapprofile").contains("remember at"));
        for number in 1..=REPORTS {
            said(&format!("{number}.heapprofile"));
        }
        assert_eq!(evidence.report(&record("0.heapprofile")).state, "failed", "the oldest is forgotten");
        assert_eq!(evidence.reports.lock().unwrap().len(), REPORTS);
        std::fs::remove_file(folder.join("0.heapprofile")).unwrap();
        assert_eq!(said("0.heapprofile"), "the file is gone");
    }

    #[test]
    fn the_report_of_a_series_is_told_as_soon_as_it_is_whole() {
        let state = tempfile::tempdir().unwrap();
        let evidence = evidence(Some(&state.path().to_owned()));
        let folder = state.path().join(keep::FOLDER);
        let snapshot = Record { kind: Kind::HeapSnapshot, ..record("3.heapsnapshot") };
        let path = keep::write(&folder, &snapshot, b"not read here").unwrap();
        let said = || evidence.report(&snapshot).sentence;
        assert_eq!(said(), "leakslope heap summary 3.heapsnapshot tells what holds the memory");
        std::fs::write(keep::report_path(&path), r#"{"sentence":"it gr"#).unwrap();
        assert!(said().starts_with("3.heapsnapshot.report cannot be read: it is no whole report: EOF"), "{}", said());
        std::fs::write(keep::report_path(&path), r#"{"sentence":"it grows"}"#).unwrap();
        assert_eq!(said(), "it grows");
        assert_eq!(evidence.items().len(), 1, "a report is no record");
        assert!(evidence.file("3.heapsnapshot.report").is_none());
    }

    #[test]
    fn what_lies_in_the_folder_is_seen_when_it_comes() {
        let state = tempfile::tempdir().unwrap();
        let evidence = evidence(Some(&state.path().to_owned()));
        assert_eq!(evidence.items(), []);
        let folder = state.path().join(keep::FOLDER);
        for number in 1..4 {
            keep::write(&folder, &record(&format!("{number}.heapprofile")), PROFILE.as_bytes()).unwrap();
            assert_eq!(evidence.items().len(), number);
            assert_eq!(evidence.stamps().len(), 1, "the newest of a process is enough for metrics");
        }
        assert!(evidence.file("2.heapprofile").is_some());
        for id in ["", "..", "../evidence/2.heapprofile", "2.heapprofile.json", "9.heapprofile"] {
            assert!(evidence.file(id).is_none(), "{id}");
        }
    }

    #[test]
    fn one_at_a_time_and_only_where_there_is_a_place() {
        let second = Duration::from_secs(1);
        let refused = evidence(None).ask(shop(0), Trigger::Person, second, "a test");
        assert_eq!(refused, Err(NotTaken::NoPlace));
        let state = tempfile::tempdir().unwrap();
        let evidence = evidence(Some(&state.path().to_owned()));
        let id = evidence.ask(shop(0), Trigger::Person, second, "a test").unwrap();
        let items = evidence.items();
        assert_eq!((items[0].record.file.as_str(), &items[0].progress), (id.as_str(), &Progress::Running));
        let busy = evidence.ask(shop(1), Trigger::Leak, second, "a test").unwrap_err().to_string();
        assert!(busy.starts_with("a profile of shop (default/0) is being taken"), "{busy}");
        assert_eq!(evidence.view(&items[0]).sentence, "allocations are being sampled for 1 s");
    }

    #[tokio::test]
    async fn what_failed_is_told_with_its_reason() {
        let state = tempfile::tempdir().unwrap();
        let evidence = Arc::new(evidence(Some(&state.path().to_owned())));
        let id = evidence.ask(shop(0), Trigger::Person, Duration::from_secs(1), "a test").unwrap();
        let job = evidence.lock().job.take().unwrap();
        evidence.carry_out(job, &CancellationToken::new()).await;
        let Some(Progress::Failed(why)) = evidence.ended(&id).await.map(|item| item.progress) else {
            panic!("it ended")
        };
        assert!(why.contains("refused: the daemon is not running"), "{why}");
        assert_eq!(evidence.view(&evidence.items()[0]).state, "failed");
        evidence.ask(shop(1), Trigger::Person, Duration::from_secs(1), "another").unwrap();
    }
}
