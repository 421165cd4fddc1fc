//! The store on its own thread, as the sidecar uses it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use leakslope::history::store::{
    ClockAnchor, Keeper, LifeFilter, Saved, StoreErrorKind, StoreSettings, StoreStats, StoreWorker,
};
use leakslope::model::{Life, LifeEnd, LifeSummary, Minute, ProcessKey, Steady, WallTime};

const LIFE: Life = Life { pid: 7, started: 1 };
const PATIENCE: Duration = Duration::from_secs(20);

fn key(pm_id: u32) -> ProcessKey {
    ProcessKey { daemon: "default".into(), pm_id }
}

/// A worker whose clock the test turns.
fn start(directory: &std::path::Path) -> (StoreWorker, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(0));
    let keeper = Keeper::open(directory, StoreSettings::default(), Steady(0), WallTime(0)).unwrap();
    let clock = time.clone();
    let read = move || {
        let now = clock.load(Ordering::SeqCst);
        (Steady(now), WallTime(now))
    };
    (StoreWorker::start(keeper, Box::new(read)).unwrap(), time)
}

#[tokio::test]
async fn everything_goes_through_and_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let anchor = ClockAnchor { boot_id: "a".to_owned(), offset: 5, last: Steady(6), last_wall: WallTime(7) };
    for round in 0..2_u64 {
        let (worker, _time) = start(directory.path());
        let store = worker.handle();
        let before = usize::try_from(round).unwrap();
        assert_eq!(store.minutes(&key(0), LIFE, 0).await.unwrap().len(), before);
        assert_eq!(store.state("policy").await.unwrap().is_some(), round > 0);
        let minute = Minute { resident: 1.0, ..Minute::empty(i64::try_from(round).unwrap()) };
        store.append(vec![(key(0), LIFE, minute)]).unwrap();
        store.put_anchor(anchor.clone()).unwrap();
        let summary = LifeSummary {
            key: key(0),
            app: "api".into(),
            life: Life { pid: 1, started: i64::try_from(round).unwrap() },
            version: Some("1.0.0".to_owned()),
            revision: None,
            first: Steady(0),
            last: Steady(1),
            end: LifeEnd::Removed,
            floors: vec![],
            resident_floors: vec![],
            resident_max: 1.0,
            slope: None,
        };
        store.put_lives(vec![summary]).unwrap();
        assert_eq!(store.keep("policy", b"x".to_vec(), Vec::new()).await.unwrap(), Saved::OnDisk);
        let entry = store.append_audit(Steady(3), b"{}".to_vec()).await.unwrap();
        assert_eq!(entry, (round + 1, Saved::OnDisk));
        assert_eq!(store.minutes(&key(0), LIFE, 0).await.unwrap().len(), before + 1);
        assert_eq!(store.lives(LifeFilter::default()).await.unwrap().len(), before + 1);
        assert_eq!(store.audit(0..=u64::MAX, 9).await.unwrap().len(), before + 1);
        let stats: StoreStats = store.stats().await.unwrap();
        assert_eq!((stats.size.lives, stats.unsaved_minutes, stats.degraded), (round + 1, 0, None));
        assert!(stats.size.bytes.0 > 0 && stats.last_saved.is_some());
        assert!(store.prune().await.unwrap().is_some());
        assert_eq!(worker.stop().await.unwrap(), Saved::OnDisk);
        let error = store.append(vec![]).unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::Closed), "{error}");
    }
    let mut keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WallTime(0)).unwrap();
    assert_eq!(keeper.anchor(Steady(0)), Some(anchor));
}

#[tokio::test]
async fn writes_that_come_together_are_saved_together() {
    let directory = tempfile::tempdir().unwrap();
    let (worker, _time) = start(directory.path());
    let store = worker.handle();
    let writes = (0..200).map(|number| {
        let store = store.clone();
        async move { store.keep(&format!("name-{number}"), vec![1], Vec::new()).await.unwrap() }
    });
    let tracker = tokio_util::task::TaskTracker::new();
    let tasks: Vec<_> = writes.map(|write| tracker.spawn(write)).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Saved::OnDisk);
    }
    let stats = store.stats().await.unwrap();
    assert!(stats.saves < 100, "200 writes took {} transactions", stats.saves);
    assert_eq!(store.state("name-199").await.unwrap(), Some(vec![1]));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_degrades_and_is_taken_up_when_it_can() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    std::fs::write(&directory, b"a file in the way").unwrap();
    let (worker, time) = start(&directory);
    let store = worker.handle();
    store.append(vec![(key(0), LIFE, Minute::empty(1))]).unwrap();
    let saved = store.keep("policy", vec![1], Vec::new()).await.unwrap();
    assert!(matches!(&saved, Saved::InMemory(reason) if reason.contains("state")), "{saved:?}");
    assert!(store.stats().await.unwrap().degraded.is_some());
    std::fs::remove_file(&directory).unwrap();
    time.store(3_600_000, Ordering::SeqCst);
    let recovering = async {
        while store.stats().await.unwrap().degraded.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovering).await.unwrap();
    assert_eq!(store.minutes(&key(0), LIFE, 0).await.unwrap().len(), 1);
    assert_eq!(worker.stop().await.unwrap(), Saved::OnDisk);
    assert!(directory.join("history.redb").exists());
}

#[tokio::test]
async fn a_worker_that_is_dropped_saves_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let (worker, _time) = start(directory.path());
    worker.handle().append(vec![(key(0), LIFE, Minute::empty(1))]).unwrap();
    drop(worker);
    let reopening = async {
        loop {
            match Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WallTime(0)) {
                Ok(keeper) => return keeper,
                Err(_still_locked) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let mut keeper = tokio::time::timeout(PATIENCE, reopening).await.unwrap();
    assert_eq!(keeper.minutes(&key(0), LIFE, 0, Steady(0)).len(), 1);
}
