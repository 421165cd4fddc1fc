//! Families about the sidecar itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalogue as family;
use super::families::Families;
use super::process::{count, truth, whole};
use crate::model::{Bytes, DaemonName, SelfSample, WallTime};

/// What the sidecar knows of itself at a scrape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SidecarState {
    /// Configured time between collections.
    pub interval: Duration,
    /// Collections of each daemon since the start.
    pub collections: BTreeMap<DaemonName, Collections>,
    /// Whether the latest load of the configuration succeeded.
    pub config_loaded: bool,
    /// When the configuration was last loaded.
    pub config_loaded_at: WallTime,
    /// Whether the latest load of the web configuration, its certificates and the tokens succeeded.
    pub web_config_loaded: bool,
    /// When they were last loaded.
    pub web_config_loaded_at: WallTime,
    /// Size of the store; none where it is only in memory.
    pub store_size: Option<Bytes>,
    /// Whether the disk refuses the history.
    pub store_degraded: bool,
    /// Lives the store knows.
    pub store_lives: usize,
    /// How long minutes are kept.
    pub store_retention: Duration,
    /// The latest successful write.
    pub store_flushed_at: Option<WallTime>,
    /// Memory that the history takes.
    pub history_memory: Bytes,
    /// Requests answered, by status code.
    pub http_requests: BTreeMap<u16, u64>,
    /// Open connections.
    pub http_connections: u64,
}

/// Collections of one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collections {
    /// It answered.
    pub succeeded: u64,
    /// It did not.
    pub failed: u64,
}

pub(super) fn add(families: &mut Families, state: &SidecarState, own: &SelfSample) {
    families.add(&family::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), crate::REVISION], 1.0);
    families.add(&family::COLLECT_INTERVAL, &[], state.interval.as_secs_f64());
    for (daemon, collections) in &state.collections {
        families.add(&family::COLLECTIONS, &[daemon.as_str(), "success"], whole(collections.succeeded));
        families.add(&family::COLLECTIONS, &[daemon.as_str(), "failure"], whole(collections.failed));
    }
    families.add(&family::CONFIG_SUCCESS, &[], truth(state.config_loaded));
    families.add(&family::CONFIG_TIMESTAMP, &[], state.config_loaded_at.as_seconds());
    families.add(&family::WEB_CONFIG_SUCCESS, &[], truth(state.web_config_loaded));
    families.add(&family::WEB_CONFIG_TIMESTAMP, &[], state.web_config_loaded_at.as_seconds());
    families.add(&family::STORE_SIZE, &[], state.store_size.unwrap_or_default().as_f64());
    families.add(&family::STORE_DEGRADED, &[], truth(state.store_degraded));
    families.add(&family::STORE_LIVES, &[], count(state.store_lives));
    families.add(&family::STORE_RETENTION, &[], state.store_retention.as_secs_f64());
    families.add(&family::STORE_FLUSH, &[], state.store_flushed_at.map_or(0.0, WallTime::as_seconds));
    families.add(&family::HISTORY_MEMORY, &[], state.history_memory.as_f64());
    for (code, requests) in &state.http_requests {
        families.add(&family::HTTP_REQUESTS, &[&code.to_string()], whole(*requests));
    }
    families.add(&family::HTTP_CONNECTIONS, &[], whole(state.http_connections));
    families.add(&family::OWN_CPU, &[], own.cpu_seconds);
    families.add(&family::OWN_RESIDENT, &[], own.resident.as_f64());
    families.add(&family::OWN_VIRTUAL, &[], own.virtual_memory.as_f64());
    families.add(&family::OWN_FDS, &[], whole(own.open_fds));
    families.add(&family::OWN_MAX_FDS, &[], whole(own.max_fds));
    families.add(&family::OWN_THREADS, &[], whole(own.threads));
    families.add(&family::OWN_START, &[], own.start_time_seconds);
}
