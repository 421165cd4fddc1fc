//! The store against a model, and the keeper on disks that fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use proptest::prelude::*;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::file::Opener;
use super::*;
use model::{Bytes, Life, LifeEnd, LifeSummary, Minute, ProcessKey, Steady, WallTime};

const WALL: WallTime = WallTime(1_750_000_000_000);

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: "default".into(), pm_id }
}

fn life(pid: u32) -> Life {
    Life { pid, started: i64::from(pid) * 1000 }
}

fn minute(minute: i64, resident: f32) -> Minute {
    Minute { resident, ..Minute::empty(minute) }
}

fn summary(pm_id: u32, pid: u32, last: i64) -> LifeSummary {
    LifeSummary {
        key: key(pm_id),
        app: format!("app-{pm_id}").as_str().into(),
        life: life(pid),
        version: None,
        revision: None,
        first: Steady(0),
        last: Steady(last),
        end: LifeEnd::Restarted,
        floors: vec![1.0, f32::NAN],
        resident_floors: vec![2.0],
        resident_max: 3.0,
        slope: None,
    }
}

fn figures(minutes: &[Minute]) -> Vec<(i64, f32)> {
    minutes.iter().map(|minute| (minute.minute, minute.resident)).collect()
}

fn open(directory: &Path) -> Store {
    let (store, notices) = Store::open(directory, StoreSettings::default(), WALL).unwrap();
    assert_eq!(notices, []);
    store
}

/// One step of a random history of the store.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u32, i64, f32)>),
    PutLife(u32, u32, i64),
    PutState(u8, Option<Vec<u8>>),
    Audit(Vec<u8>),
    Prune(i64),
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec((0..4_u32, 0..600_i64, 0.0..1e9_f32), 1..40);
    prop_oneof![
        6 => rows.prop_map(Step::Append),
        2 => (0..3_u32, 0..6_u32, 0..600_i64).prop_map(|(pm_id, pid, last)| Step::PutLife(pm_id, pid, last)),
        2 => (0..3_u8, prop::option::of(prop::collection::vec(any::<u8>(), 0..50)))
            .prop_map(|(name, value)| Step::PutState(name, value)),
        2 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Audit),
        1 => (0..700_i64).prop_map(Step::Prune),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// What the store should hold.
#[derive(Debug, Default)]
struct Model {
    minutes: BTreeMap<u32, BTreeMap<i64, f32>>,
    lives: BTreeMap<(i64, u32, u32), i64>,
    state: BTreeMap<u8, Vec<u8>>,
    audit: BTreeMap<u64, Vec<u8>>,
    audit_last: u64,
}

/// Ages such that a history of ten hours sees all of them.
fn short() -> StoreSettings {
    StoreSettings {
        minutes_age: std::time::Duration::from_mins(200),
        lives_age: std::time::Duration::from_hours(5),
        lives_max: 5,
        audit_max: 6,
        ..StoreSettings::default()
    }
}

impl Model {
    fn prune(&mut self, now: i64) {
        let cutoff = now - 200;
        for minutes in self.minutes.values_mut() {
            minutes.retain(|minute, _| minute.div_euclid(60) * 60 + 59 >= cutoff);
        }
        self.lives.retain(|_, last| *last >= now - 300);
        while self.lives.len() > 5 {
            self.lives.pop_first();
        }
        while self.audit.len() > 6 {
            self.audit.pop_first();
        }
    }

    fn check(&self, store: &mut Store) {
        for pm_id in 0..4 {
            let expected: Vec<_> =
                self.minutes.get(&pm_id).into_iter().flatten().map(|(minute, value)| (*minute, *value)).collect();
            assert_eq!(figures(&store.minutes(&key(pm_id), life(1), i64::MIN).unwrap()), expected, "process {pm_id}");
            let late: Vec<_> = expected.iter().copied().filter(|row| row.0 >= 130).collect();
            assert_eq!(figures(&store.minutes(&key(pm_id), life(1), 130).unwrap()), late, "process {pm_id}");
        }
        let mut scanned: BTreeMap<u32, BTreeMap<i64, f32>> = BTreeMap::new();
        store
            .scan(i64::MIN, |key, _, minute| {
                scanned.entry(key.pm_id).or_default().insert(minute.minute, minute.resident);
            })
            .unwrap();
        let held = self.minutes.iter().filter(|(_, minutes)| !minutes.is_empty());
        assert_eq!(scanned, held.map(|(pm_id, minutes)| (*pm_id, minutes.clone())).collect());
        let lives = store.lives(&LifeFilter::default()).unwrap();
        let lives: Vec<_> =
            lives.iter().map(|s| ((s.life.started, s.key.pm_id, s.life.pid), s.last.minute())).collect();
        assert_eq!(lives, self.lives.clone().into_iter().collect::<Vec<_>>());
        for name in 0..3_u8 {
            assert_eq!(store.state(&format!("state-{name}")).unwrap(), self.state.get(&name).cloned());
        }
        let audit = store.audit(0..=u64::MAX, 1000).unwrap();
        let audit: BTreeMap<_, _> = audit.into_iter().map(|entry| (entry.sequence, entry.body)).collect();
        assert_eq!(audit, self.audit);
        let size = store.size().unwrap();
        assert_eq!((size.lives, size.audit), (self.lives.len() as u64, self.audit.len() as u64));
        assert!(size.minutes >= self.minutes.values().map(|m| m.len() as u64).sum());
    }

    fn take(&mut self, store: &mut Store, step: Step) {
        match step {
            Step::Append(rows) => {
                for (pm_id, at, value) in &rows {
                    self.minutes.entry(*pm_id).or_default().insert(*at, *value);
                }
                let rows: Vec<_> = rows.iter().map(|(p, at, value)| (key(*p), life(1), minute(*at, *value))).collect();
                store.append(&rows).unwrap();
            }
            Step::PutLife(pm_id, pid, last) => {
                self.lives.insert((life(pid).started, pm_id, pid), last);
                store.put_life(summary(pm_id, pid, last * 60_000)).unwrap();
            }
            Step::PutState(name, value) => {
                match value.clone() {
                    Some(value) => self.state.insert(name, value),
                    None => self.state.remove(&name),
                };
                store.put_state(&format!("state-{name}"), value).unwrap();
            }
            Step::Audit(body) => {
                self.audit_last += 1;
                self.audit.insert(self.audit_last, body.clone());
                assert_eq!(store.append_audit(Steady(600 * 60_000), body).unwrap(), self.audit_last);
            }
            Step::Prune(now) => {
                self.prune(now);
                store.prune(Steady(now * 60_000)).unwrap();
                // Everything is folded now, so the sums must be exact.
                let minutes: u64 = self.minutes.values().map(|m| m.len() as u64).sum();
                assert_eq!(store.size().unwrap().minutes, minutes);
            }
            Step::Compact => drop(store.compact().unwrap()),
            Step::Reopen => assert_eq!(store.reopen(WALL).unwrap(), []),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_map_does(steps in prop::collection::vec(step(), 1..90)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(directory.path(), short(), WALL).unwrap();
        let mut model = Model::default();
        for step in steps {
            model.take(&mut store, step);
        }
        model.check(&mut store);
        store.close().unwrap();
        let (mut store, notices) = Store::open(directory.path(), short(), WALL).unwrap();
        prop_assert_eq!(notices, []);
        model.check(&mut store);
    }
}

#[test]
fn many_batches_are_folded_and_read_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for at in 0..200_u8 {
        let rows: Vec<_> =
            (0..3).map(|pm_id| (key(pm_id), life(9), minute(i64::from(at), f32::from(at) * 10.0))).collect();
        store.append(&rows).unwrap();
    }
    // A late minute and one that is written again.
    store.append(&[(key(1), life(9), minute(-5, 1.0)), (key(1), life(9), minute(3, 7.0))]).unwrap();
    let found = figures(&store.minutes(&key(1), life(9), i64::MIN).unwrap());
    assert_eq!(found.len(), 201);
    assert_eq!(&found[..5], [(-5, 1.0), (0, 0.0), (1, 10.0), (2, 20.0), (3, 7.0)]);
    assert_eq!(store.minutes(&key(1), life(8), i64::MIN).unwrap(), [], "another life of the same process");
    assert_eq!(store.size().unwrap().oldest_minute, Some(0), "the late one is not folded yet");
}

#[test]
fn lives_are_found_by_what_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for (pm_id, pid, last) in [(0, 1, 100), (1, 2, 200), (0, 3, 300), (0, 4, 400)] {
        store.put_life(summary(pm_id, pid, last)).unwrap();
    }
    let mut pids = |filter: LifeFilter| -> Vec<u32> {
        store.lives(&filter).unwrap().iter().map(|summary| summary.life.pid).collect()
    };
    assert_eq!(pids(LifeFilter::default()), [1, 2, 3, 4]);
    assert_eq!(pids(LifeFilter { key: Some(key(0)), ..LifeFilter::default() }), [1, 3, 4]);
    assert_eq!(pids(LifeFilter { app: Some("app-1".into()), ..LifeFilter::default() }), [2]);
    assert_eq!(pids(LifeFilter { seen_since: Some(Steady(200)), newest: Some(2), ..LifeFilter::default() }), [3, 4]);
    assert_eq!(pids(LifeFilter { daemon: Some("other".into()), ..LifeFilter::default() }), [0_u32; 0]);
}

#[test]
fn the_file_stays_within_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let bound = Bytes(2 << 20);
    let settings = StoreSettings { bytes_max: bound, ..StoreSettings::default() };
    let (mut store, _) = Store::open(directory.path(), settings, WALL).unwrap();
    for hour in 0..60_i64 {
        let rows: Vec<_> = (0..60_i64)
            .flat_map(|place| (0..30).map(move |pm_id| (pm_id, hour * 60 + place)))
            .map(|(pm_id, at)| (key(pm_id), life(1), minute(at, 5.0)))
            .map(|(key, life, m)| (key, life, Minute { native: 1.0, heap_floor: 2.0, heap_used: 3.0, load: 4.0, ..m }))
            .collect();
        store.append(&rows).unwrap();
    }
    assert!(store.size().unwrap().bytes > bound, "the test writes more than the bound");
    let pruned = store.prune(Steady(3600 * 60_000)).unwrap();
    assert!(pruned.minutes > 0 && pruned.compacted, "{pruned:?}");
    assert!(store.size().unwrap().bytes <= bound, "{:?}", store.size());
    let kept = store.minutes(&key(7), life(1), i64::MIN).unwrap();
    assert_eq!(kept.last().map(|minute| minute.minute), Some(3599), "the newest are kept");
    assert!(kept.len() > 300, "no more was dropped than needed: {} of 3600 minutes are left", kept.len());
    assert_eq!(kept[0].minute % 60, 0, "whole hours go");
    let mut found = 0;
    store.scan(i64::MIN, |_, _, _| found += 1).unwrap();
    assert_eq!(store.size().unwrap().minutes, found, "the sums are those of what is left");
}

#[test]
fn what_is_too_large_is_refused_and_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let error = store.put_state("policy", Some(vec![0; (1 << 20) + 1])).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::TooLarge { limit: 1_048_576, .. }), "{error}");
    assert!(store.append_audit(Steady(0), vec![0; 2 << 20]).is_err());
    assert!(store.put_state(&"n".repeat(300), None).is_err());
    store.put_state("policy", Some(vec![1; 1 << 20])).unwrap();
    assert_eq!(store.state("policy").unwrap().map(|value| value.len()), Some(1 << 20));
}

/// A disk that can be told to be full, to fail, or to be full from a number of writes on or while a file is there.
#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
    broken: AtomicBool,
    writes_left: AtomicU64,
    limited: AtomicBool,
    full_beside: OnceLock<PathBuf>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.full.load(Ordering::SeqCst) || self.full_beside.get().is_some_and(|file| file.exists()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.limited.load(Ordering::SeqCst) {
            let left = self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_err() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OnDisk(FileBackend, Arc<Disk>);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.1.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.check()?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.check()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.check()?;
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

impl Opener for Arc<Disk> {
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        builder.create_with_backend(OnDisk(FileBackend::new(file)?, self.clone()))
    }
}

/// A keeper on a disk that can fail, with a time line of its own.
struct Bench {
    disk: Arc<Disk>,
    keeper: Keeper,
    now: Steady,
}

impl Bench {
    fn new(directory: &Path, settings: StoreSettings) -> Self {
        let disk = Arc::new(Disk::default());
        let keeper = Keeper::open_with(directory, settings, Steady(0), WALL, Arc::new(disk.clone())).unwrap();
        Self { disk, keeper, now: Steady(0) }
    }

    fn write_minute(&mut self, at: i64) -> Saved {
        self.now = Steady(at * 60_000).max(self.now);
        self.keeper.append([(key(0), life(1), minute(at, 5.0))]);
        self.keeper.flush(self.now, WALL)
    }

    fn minutes(&mut self) -> Vec<i64> {
        self.keeper.minutes(&key(0), life(1), i64::MIN, self.now).iter().map(|minute| minute.minute).collect()
    }
}

#[test]
fn a_full_disk_degrades_to_memory_and_recovers_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path(), StoreSettings::default());
    for at in 0..5 {
        assert_eq!(bench.write_minute(at), Saved::OnDisk);
    }
    bench.disk.full.store(true, Ordering::SeqCst);
    for at in 5..50 {
        assert!(matches!(bench.write_minute(at), Saved::InMemory(_)), "minute {at}");
        for second in 1..60 {
            bench.keeper.tick(Steady(at * 60_000 + second * 1000), WALL);
        }
    }
    bench.keeper.put_life(summary(0, 1, 77));
    bench.keeper.put_state("policy", Some(b"held".to_vec())).unwrap();
    bench.keeper.append_audit(Steady(1), b"entry".to_vec()).unwrap();
    let stats = bench.keeper.stats(bench.now);
    assert_eq!((stats.unsaved_minutes, stats.dropped_minutes, stats.set_aside), (45, 0, 0));
    assert!(stats.degraded.as_deref().unwrap().contains("no room left to write"), "{stats:?}");
    assert!(stats.failures < 60, "attempts are spaced out: {}", stats.failures);
    assert!(bench.minutes().ends_with(&[47, 48, 49]), "what waits is readable");
    assert_eq!(bench.keeper.state("policy", bench.now).unwrap().as_deref(), Some(b"held".as_slice()));
    assert_eq!(bench.keeper.lives(&LifeFilter::default(), bench.now).len(), 1);
    let degraded = bench.keeper.take_notices();
    assert!(matches!(&degraded[..], [Notice::Degraded(_)]), "said once: {degraded:?}");

    bench.disk.full.store(false, Ordering::SeqCst);
    assert_eq!(bench.write_minute(60), Saved::OnDisk);
    assert_eq!(bench.keeper.take_notices(), [Notice::Recovered { minutes: 46, dropped: 0 }]);
    assert_eq!(bench.keeper.stats(bench.now).degraded, None);
    let expected: Vec<i64> = (0..50).chain([60]).collect();
    assert_eq!(bench.minutes(), expected);
    assert_eq!(bench.keeper.close(bench.now, WALL), Saved::OnDisk);

    let mut store = open(directory.path());
    let saved: Vec<i64> = store.minutes(&key(0), life(1), i64::MIN).unwrap().iter().map(|m| m.minute).collect();
    assert_eq!(saved, expected);
    assert_eq!(store.state("policy").unwrap().as_deref(), Some(b"held".as_slice()));
    assert_eq!(store.audit(0..=9, 9).unwrap()[0].body, b"entry");
    assert_eq!(store.lives(&LifeFilter::default()).unwrap().len(), 1);
}

#[test]
fn where_there_is_no_room_what_is_damaged_goes() {
    let directory = tempfile::tempdir().unwrap();
    let aside = directory.path().join("history.redb.corrupt-20260101T000000Z");
    let mut bench = Bench::new(directory.path(), StoreSettings::default());
    fs::write(&aside, "damaged").unwrap();
    bench.disk.full_beside.set(aside.clone()).unwrap();
    assert_eq!(bench.write_minute(0), Saved::OnDisk);
    assert_eq!(bench.keeper.take_notices(), [Notice::Forgotten(aside.clone())]);
    assert!(!aside.exists());
}

#[test]
fn a_history_that_cannot_be_written_from_the_start_is_kept_in_memory_and_unknown_is_not_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path(), StoreSettings::default());
    bench.keeper.put_state("policy", Some(b"held".to_vec())).unwrap();
    bench.keeper.append_audit(Steady(1), b"first".to_vec()).unwrap();
    (0..70).for_each(|at| assert_eq!(bench.write_minute(at), Saved::OnDisk));
    bench.keeper.close(bench.now, WALL);

    let disk = Arc::new(Disk::default());
    disk.full.store(true, Ordering::SeqCst);
    let settings = StoreSettings::default();
    let keeper = Keeper::open_with(directory.path(), settings, Steady(0), WALL, Arc::new(disk.clone())).unwrap();
    let mut bench = Bench { disk, keeper, now: Steady(0) };
    assert!(matches!(&bench.keeper.take_notices()[..], [Notice::Degraded(_)]), "it is said");
    let error = bench.keeper.state("policy", bench.now).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Closed), "{error}");
    assert!(matches!(bench.write_minute(70), Saved::InMemory(_)));
    bench.keeper.append_audit(Steady(2), b"second".to_vec()).unwrap();
    assert_eq!((bench.minutes(), bench.keeper.prune(bench.now)), (vec![70], None));

    bench.disk.full.store(false, Ordering::SeqCst);
    assert_eq!(bench.write_minute(90), Saved::OnDisk);
    assert_eq!(bench.minutes(), (0..=70).chain([90]).collect::<Vec<_>>());
    assert_eq!(bench.keeper.state("policy", bench.now).unwrap().as_deref(), Some(b"held".as_slice()));
    let audit: Vec<_> = bench.keeper.audit(0..=9, 9, bench.now).into_iter().map(|entry| entry.body).collect();
    assert_eq!(audit, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn the_bound_on_waiting_minutes_drops_the_oldest_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path(), StoreSettings { unsaved_minutes_max: 10, ..StoreSettings::default() });
    bench.disk.full.store(true, Ordering::SeqCst);
    for at in 0..30 {
        bench.write_minute(at);
    }
    assert_eq!(bench.minutes(), (20..30).collect::<Vec<_>>());
    bench.disk.full.store(false, Ordering::SeqCst);
    bench.now = Steady(40 * 60_000);
    bench.keeper.tick(bench.now, WALL);
    assert_eq!(bench.minutes(), (20..30).collect::<Vec<_>>());
    let notices = bench.keeper.take_notices();
    assert!(notices.contains(&Notice::Recovered { minutes: 10, dropped: 20 }), "{notices:?}");
}

#[test]
fn a_disk_that_fills_up_at_any_write_loses_nothing_that_was_saved() {
    for writes in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(directory.path(), StoreSettings::default());
        assert_eq!(bench.write_minute(0), Saved::OnDisk);
        bench.disk.writes_left.store(writes, Ordering::SeqCst);
        bench.disk.limited.store(true, Ordering::SeqCst);
        for at in 1..8 {
            bench.write_minute(at);
        }
        assert!(bench.minutes().ends_with(&[7]), "after {writes} writes");
        bench.disk.limited.store(false, Ordering::SeqCst);
        bench.now = Steady(20 * 60_000);
        assert_eq!(bench.keeper.flush(bench.now, WALL), Saved::OnDisk, "after {writes} writes");
        assert_eq!(bench.minutes(), (0..8).collect::<Vec<_>>(), "after {writes} writes");
        let stats = bench.keeper.stats(bench.now);
        assert_eq!((stats.set_aside, stats.dropped_minutes), (0, 0), "a full disk is no damage");
    }
}

#[test]
fn an_unreadable_disk_is_not_taken_for_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(directory.path(), StoreSettings::default());
    bench.keeper.put_state("policy", Some(b"budget".to_vec())).unwrap();
    bench.write_minute(0);
    bench.disk.broken.store(true, Ordering::SeqCst);
    bench.write_minute(1);
    let error = bench.keeper.state("policy", bench.now).unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Closed), "{error}");
    bench.disk.broken.store(false, Ordering::SeqCst);
    bench.now = Steady(10 * 60_000);
    assert_eq!(bench.keeper.flush(bench.now, WALL), Saved::OnDisk);
    assert_eq!(bench.keeper.state("policy", bench.now).unwrap().as_deref(), Some(b"budget".as_slice()));
    assert_eq!(bench.minutes(), [0, 1]);
}

#[test]
fn a_newer_history_is_left_alone_and_the_rest_goes_on_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let database = Database::create(directory.path().join("history.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::META).unwrap().insert("format", 2_u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = fs::read(directory.path().join("history.redb")).unwrap();
    let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
    for at in 0..100 {
        keeper.append([(key(0), life(1), minute(at, 1.0))]);
        let Saved::InMemory(reason) = keeper.flush(Steady(at * 60_000), WALL) else { panic!("it was written") };
        assert!(reason.contains("newer leakslope (format 2"), "{reason}");
    }
    assert_eq!(keeper.minutes(&key(0), life(1), 0, Steady(0)).len(), 100);
    assert_eq!(keeper.take_notices().len(), 1);
    assert!(matches!(keeper.close(Steady(1 << 40), WALL), Saved::InMemory(_)));
    assert_eq!(fs::read(directory.path().join("history.redb")).unwrap(), before);
}

#[test]
fn damage_that_shows_in_use_sets_the_file_aside_and_keeps_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    store.append(&[(key(0), life(1), minute(1, 1.0))]).unwrap();
    drop(store);
    let database = Database::create(directory.path().join("history.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::JOURNAL).unwrap().insert(2, b"no batch".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WALL).unwrap();
    assert_eq!(keeper.take_notices(), []);
    keeper.append([(key(0), life(1), minute(2, 2.0))]);
    assert_eq!(figures(&keeper.minutes(&key(0), life(1), 0, Steady(0))), [(2, 2.0)], "the read meets the damage");
    assert_eq!(keeper.flush(Steady(0), WALL), Saved::OnDisk);
    let notices = keeper.take_notices();
    assert!(
        matches!(&notices[..], [Notice::SetAside { reason, read, .. }]
            if reason.contains("does not decode") && read.minutes == 1),
        "{notices:?}"
    );
    assert_eq!(
        figures(&keeper.minutes(&key(0), life(1), 0, Steady(0))),
        [(1, 1.0), (2, 2.0)],
        "what could be read was read"
    );
    assert_eq!(keeper.stats(Steady(0)).set_aside, 1);
}

#[test]
fn a_state_directory_that_appears_later_is_taken_up() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    fs::write(&directory, b"a file in the way").unwrap();
    let mut keeper = Keeper::open(&directory, StoreSettings::default(), Steady(0), WALL).unwrap();
    keeper.append([(key(0), life(1), minute(1, 1.0))]);
    assert!(matches!(keeper.flush(Steady(500), WALL), Saved::InMemory(_)));
    let early = keeper.append_audit(Steady(0), b"early".to_vec()).unwrap();
    fs::remove_file(&directory).unwrap();
    assert_eq!(keeper.flush(Steady(120_000), WALL), Saved::OnDisk);
    let late = keeper.append_audit(Steady(0), b"late".to_vec()).unwrap();
    assert_eq!((early, late), (1, 2));
    assert!(matches!(
        Keeper::open(&directory, StoreSettings::default(), Steady(0), WALL),
        Err(StoreError { kind: StoreErrorKind::Locked { pid: Some(_) }, .. })
    ));
}

#[test]
fn a_history_that_is_deleted_under_us_is_begun_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let mut bench = Bench::new(&directory, StoreSettings::default());
    assert_eq!(bench.write_minute(1), Saved::OnDisk);
    fs::remove_dir_all(&directory).unwrap();
    assert!(matches!(bench.write_minute(2), Saved::InMemory(_)));
    assert_eq!(bench.write_minute(10), Saved::OnDisk);
    assert_eq!(bench.minutes(), [2, 10]);
    assert!(matches!(
        Store::open(&directory, StoreSettings::default(), WALL),
        Err(StoreError { kind: StoreErrorKind::Locked { .. }, .. })
    ));
}
