//! What tasks share: the latest publication, the history, and what the sidecar knows of itself.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use super::clock::Clock;
use super::endpoints::Rates;
use super::evidence::Evidence;
use super::pipeline::Pipeline;
use super::published::Published;
use crate::actuate::Handle;
use crate::config::Settings;
use crate::export::SidecarState;
use crate::history::store::StoreHandle;
use crate::http::{ActingPolicy, OccupancyHandle};
use crate::model::{Bytes, Steady, WallTime};

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
    /// What was taken of apps, and the way to have more taken.
    pub evidence: Arc<Evidence>,
    /// What endpoints that act ask for.
    pub acting: ActingPolicy,
    /// The server's connections and answers; none before it listens.
    pub occupancy: OnceLock<OccupancyHandle>,
    /// Rung when the settings have changed.
    pub reloaded: Notify,
    collected_at: AtomicI64,
    pipeline: Mutex<Pipeline>,
    configuration: Mutex<Configuration>,
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
        acting: ActingPolicy,
        evidence: Arc<Evidence>,
    ) -> Self {
        let loaded_at = clock.wall();
        let rates = Rates::new(clock.now());
        Self {
            collected_at: AtomicI64::new(clock.now().0),
            clock,
            settings: ArcSwap::from_pointee(settings),
            published: ArcSwapOption::empty(),
            store,
            policy,
            rates,
            evidence,
            acting,
            occupancy: OnceLock::new(),
            reloaded: Notify::new(),
            pipeline: Mutex::new(pipeline),
            configuration: Mutex::new(Configuration { loaded: true, loaded_at }),
        }
    }

    /// The history and its verdicts. Hold it briefly: the collecting task waits for it.
    pub fn pipeline(&self) -> MutexGuard<'_, Pipeline> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a collection has come to its end, whatever it found.
    pub fn collected(&self) {
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

    /// What the sidecar knows of itself, for its own metrics.
    pub async fn sidecar_state(&self) -> SidecarState {
        let settings = self.settings.load();
        let configuration = *self.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = match &self.store {
            Some(store) => store.stats().await.ok(),
            None => None,
        };
        let offset = self.clock.wall().0 - self.clock.now().0;
        SidecarState {
            interval: settings.interval,
            config_loaded: configuration.loaded,
            config_loaded_at: configuration.loaded_at,
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
