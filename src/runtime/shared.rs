//! What tasks share: the latest publication, the history, and what the sidecar knows of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::clock::Clock;
use super::deaths::Deaths;
use super::endpoints::{Examination, Rates};
use super::evidence::Evidence;
use super::pipeline::Pipeline;
use super::published::Published;
use crate::actuate::Handle;
use crate::collect::DaemonSpec;
use crate::config::Settings;
use crate::export::{Collections, SidecarState};
use crate::history::store::{StoreHandle, StoreStats};
use crate::http::{Access, OccupancyHandle};
use crate::model::{Bytes, DaemonName, DaemonSample, Steady, WallTime};

/// How long a scrape waits for the store.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// Everything that more than one task looks at.
#[derive(Debug)]
pub struct Shared {
    /// The clocks.
    pub clock: Clock,
    /// The settings in force.
    pub settings: ArcSwap<Settings>,
    /// The latest collection; none before the first.
    pub published: ArcSwapOption<Published>,
    /// The way to the store; none where there is no state directory.
    pub store: Option<StoreHandle>,
    /// The way to the restart policy; none where its kept state cannot be read.
    pub policy: Option<Handle>,
    /// How many orders are taken.
    pub rates: Rates,
    /// What was last found to be wrong with their set-up.
    pub(super) examination: Examination,
    /// The daemons that are collected from, those that were found among them.
    pub daemons: ArcSwap<Vec<DaemonSpec>>,
    /// Why runs ended.
    pub deaths: Deaths,
    /// What was taken of apps, and the way to have more taken.
    pub evidence: Arc<Evidence>,
    /// Who is let in.
    pub access: Arc<Access>,
    /// The server's connections and answers; none before it listens.
    pub occupancy: OnceLock<OccupancyHandle>,
    /// Rung when the settings have changed.
    pub reloaded: Notify,
    collected_at: AtomicI64,
    collections: Mutex<BTreeMap<DaemonName, Collections>>,
    pipeline: Mutex<Pipeline>,
    configuration: Mutex<Configuration>,
    known_stats: Mutex<Option<StoreStats>>,
}

#[derive(Debug, Clone, Copy)]
struct Configuration {
    loaded: bool,
    loaded_at: WallTime,
}

impl Shared {
    /// Puts the parts together at the start.
    pub fn new(
        clock: Clock,
        settings: Settings,
        pipeline: Pipeline,
        store: Option<StoreHandle>,
        policy: Option<Handle>,
        access: Arc<Access>,
        evidence: Arc<Evidence>,
    ) -> Self {
        let loaded_at = clock.wall();
        Self {
            collected_at: AtomicI64::new(clock.now().0),
            clock,
            settings: ArcSwap::from_pointee(settings),
            published: ArcSwapOption::empty(),
            store,
            policy,
            rates: Rates::default(),
            examination: Examination::default(),
            daemons: ArcSwap::default(),
            deaths: Deaths::default(),
            evidence,
            access,
            occupancy: OnceLock::new(),
            reloaded: Notify::new(),
            collections: Mutex::default(),
            pipeline: Mutex::new(pipeline),
            configuration: Mutex::new(Configuration { loaded: true, loaded_at }),
            known_stats: Mutex::default(),
        }
    }

    /// The history and its verdicts. Hold it briefly: the collecting task waits for it.
    pub fn pipeline(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a collection has come to its end, whatever it found. Daemons that are no longer collected from are forgotten.
    pub fn collected(&self, daemons: &[DaemonSample]) {
        let mut collections = self.collections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *collections);
        for daemon in daemons {
            let mut counts = before.remove(&daemon.name).unwrap_or_default();
            *(if daemon.up { &mut counts.succeeded } else { &mut counts.failed }) += 1;
            collections.insert(daemon.name.clone(), counts);
        }
        drop(collections);
        self.collected_at.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// When the latest collection came to its end; the start of the sidecar before the first.
    pub fn collected_at(&self) -> Steady {
        Steady(self.collected_at.load(Ordering::Relaxed))
    }

    /// Puts new settings in force, or notes that they were bad and the old ones stay.
    pub fn configured(&self, settings: Option<Settings>) {
        let mut configuration = self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        configuration.loaded = settings.is_some();
        if let Some(settings) = settings {
            configuration.loaded_at = self.clock.wall();
            self.evidence.configure(&settings.evidence);
            self.settings.store(Arc::new(settings));
            self.reloaded.notify_one();
        }
    }

    /// How the store stands, or stood when it last said so in time: a disk that is slow must not delay a scrape.
    async fn store_stats(&self) -> Option<StoreStats> {
        let asked = tokio::time::timeout(STORE_PATIENCE, self.store.as_ref()?.stats()).await;
        let mut known = self.known_stats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(stats)) = asked {
            *known = Some(stats);
        }
        known.clone()
    }

    /// What the sidecar knows of itself, for its own metrics.
    pub async fn sidecar_state(&self) -> SidecarState {
        let settings = self.settings.load();
        let configuration = *self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        let access = self.access.latest_load();
        let access_age = i64::try_from(access.age.as_millis()).unwrap_or(i64::MAX);
        let stats = self.store_stats().await;
        let offset = self.clock.wall().0 - self.clock.now().0;
        SidecarState {
            interval: settings.interval,
            collections: self.collections.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            config_loaded: configuration.loaded,
            config_loaded_at: configuration.loaded_at,
            web_config_loaded: access.successful,
            web_config_loaded_at: WallTime(self.clock.wall().0.saturating_sub(access_age)),
            store_size: stats.as_ref().map(|stats| stats.size.bytes),
            store_degraded: stats.as_ref().is_none_or(|stats| stats.degraded.is_some()),
            store_lives: stats.as_ref().map_or(0, |stats| usize::try_from(stats.size.lives).unwrap_or(usize::MAX)),
            store_retention: settings.history.window,
            store_flushed_at: stats.and_then(|stats| stats.last_saved).map(|at| WallTime(at.0 + offset)),
            history_memory: Bytes(self.pipeline().heap_bytes() as u64),
            http_requests: self.occupancy.get().map(OccupancyHandle::answers).unwrap_or_default(),
            http_connections: self.occupancy.get().map_or(0, |handle| handle.get().open),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::config::{self, Surroundings};
    use crate::history::Retention;
    use crate::history::store::{Keeper, StoreSettings, StoreWorker};
    use crate::http::AccessSettings;

    #[tokio::test]
    async fn a_store_that_does_not_answer_delays_no_scrape() {
        let directory = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(directory.path(), StoreSettings::default(), Steady(0), WallTime(0)).unwrap();
        let stuck = Arc::new(AtomicBool::new(false));
        let held = stuck.clone();
        let clock = move || {
            while held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            (Steady(0), WallTime(0))
        };
        let worker = StoreWorker::start(keeper, Box::new(clock)).unwrap();
        let surroundings = Surroundings { pm2_home: Some(directory.path().to_owned()), ..Surroundings::default() };
        let settings = config::parse("test", "", &surroundings).unwrap();
        let pipeline = Pipeline::new(Retention::default(), settings.trend.clone());
        let (store, access) = (Some(worker.handle()), Access::open(AccessSettings::default()).unwrap());
        let clock = Clock::resume(None);
        let evidence = Arc::new(Evidence::new(None, &clock, settings.evidence.clone()));
        let shared = Shared::new(clock, settings, pipeline, store, None, access, evidence);

        let before = shared.sidecar_state().await;
        assert!(before.store_size.is_some() && !before.store_degraded);
        stuck.store(true, Ordering::SeqCst);
        let state = tokio::time::timeout(Duration::from_secs(5), shared.sidecar_state()).await;
        stuck.store(false, Ordering::SeqCst);
        assert_eq!(state.expect("a scrape waited for the store").store_size, before.store_size, "as it last stood");
        worker.stop().await.unwrap();
    }
}
