//! Telling metrics that stand still from metrics that are flat: pure.
//!
//! Values of pm2's metric channel carry no time. While an app's event loop is blocked pm2 repeats the last ones, and a series
//! of them looks like perfect health. But a live Node app cannot hold still: its own agent allocates memory and measures
//! latency about every second. So the values as a whole are compared from one reading to the next, and the time since
//! they last moved is their age.
//!
//! Measured with idle HTTP servers in fork and cluster mode under pm2 5.4.3 and 7.0.4 on Node 20, read four times a second
//! for seven minutes on two busy cores: 2,541 spans between two movements, 1.0 s in the middle, 1.3 s at most. The threshold
//! is eight times that.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::model::{AppMetrics, Life, Listed, Steady};

/// Metrics of a live app that have not moved for this long mean a blocked event loop.
pub const FROZEN_AFTER: Duration = Duration::from_secs(10);

/// What is known of the metrics' age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Time since they were seen to change, at least.
    pub age: Duration,
    /// Whether that means a blocked event loop.
    pub frozen: bool,
}

/// Remembers, for the processes of one daemon, when their metrics last moved.
#[derive(Debug, Default)]
pub struct FreshnessTracker {
    /// By `pm_id`, which is the order of the list.
    processes: Vec<(u32, Seen)>,
}

#[derive(Debug)]
struct Seen {
    life: Option<Life>,
    fingerprint: u64,
    moved: Steady,
}

impl FreshnessTracker {
    /// Takes in one reading of the list, in the order of `pm_id`, and returns the age of the metrics of each process that has
    /// any. Processes that are not in `entries` are forgotten.
    pub fn observe(&mut self, entries: &[Listed], now: Steady) -> BTreeMap<u32, Freshness> {
        let mut ages = BTreeMap::new();
        let mut seen_before = std::mem::take(&mut self.processes).into_iter().peekable();
        let mut seen_now = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| entry.metrics != AppMetrics::default()) {
            let fingerprint = fingerprint(&entry.metrics);
            let life = entry.life();
            while seen_before.next_if(|(pm_id, _)| *pm_id < entry.pm_id).is_some() {}
            let before = seen_before.next_if(|(pm_id, _)| *pm_id == entry.pm_id);
            let moved = match before {
                Some((_, before)) if before.life == life && before.fingerprint == fingerprint => before.moved,
                _ => now,
            };
            seen_now.push((entry.pm_id, Seen { life, fingerprint, moved }));
            let age = now.since(moved);
            let frozen = life.is_some() && beats(&entry.metrics) && age >= FROZEN_AFTER;
            ages.insert(entry.pm_id, Freshness { age, frozen });
        }
        self.processes = seen_now;
        ages
    }
}

/// Whether these metrics move by themselves in a live app. An app that only publishes figures of its own may well repeat
/// them.
fn beats(metrics: &AppMetrics) -> bool {
    metrics.heap_used.is_some() || metrics.event_loop_p50_seconds.is_some()
}

fn fingerprint(metrics: &AppMetrics) -> u64 {
    let AppMetrics {
        heap_used,
        heap_total,
        event_loop_p50_seconds,
        event_loop_p95_seconds,
        active_handles,
        active_requests,
        http_requests_per_second,
        http_p50_seconds,
        http_p95_seconds,
        gc,
        custom,
    } = metrics;
    let mut hasher = DefaultHasher::new();
    (heap_used, heap_total).hash(&mut hasher);
    for value in [
        event_loop_p50_seconds,
        event_loop_p95_seconds,
        active_handles,
        active_requests,
        http_requests_per_second,
        http_p50_seconds,
        http_p95_seconds,
    ] {
        value.map(f64::to_bits).hash(&mut hasher);
    }
    if let Some(gc) = gc {
        (gc.heap_after_major_gc, gc.major_gcs, gc.minor_gcs, gc.gc_seconds.to_bits()).hash(&mut hasher);
        (gc.new_space, gc.old_space, gc.large_object_space, gc.external).hash(&mut hasher);
    }
    for metric in custom {
        (&metric.name, metric.value.to_bits()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::list::read_list;

    fn entries(pid: u32, status: &str, metrics: &serde_json::Value) -> Vec<Listed> {
        let json = serde_json::json!([
            {"pm_id": 3, "pid": pid, "pm2_env": {"status": status, "pm_uptime": 5, "axm_monitor": metrics}}
        ]);
        read_list(json.to_string().as_bytes(), 1).unwrap().entries
    }

    fn heap(value: f64) -> serde_json::Value {
        serde_json::json!({"Used Heap Size": {"value": value, "type": "internal/v8/heap/used", "unit": "MiB"}})
    }

    #[test]
    fn metrics_age_until_they_move() {
        let mut tracker = FreshnessTracker::default();
        let custom = serde_json::json!({"jobs": {"value": 1}});
        for (second, entries, expected) in [
            (0, entries(1, "online", &heap(1.0)), Some((0, false))),
            (5, entries(1, "online", &heap(1.0)), Some((5, false))),
            (10, entries(1, "online", &heap(1.0)), Some((10, true))),
            (11, entries(1, "online", &heap(1.01)), Some((0, false))),
            (25, entries(1, "online", &heap(1.01)), Some((14, true))),
            (26, entries(2, "online", &heap(1.01)), Some((0, false))), // another life
            (90, entries(2, "stopped", &heap(1.01)), Some((0, false))),
            (200, entries(2, "stopped", &heap(1.01)), Some((110, false))), // not live, so not frozen
            (201, entries(2, "online", &serde_json::json!({})), None),
            (202, entries(2, "online", &heap(1.01)), Some((0, false))), // forgotten in between
            (300, entries(2, "online", &custom), Some((0, false))),
            (400, entries(2, "online", &custom), Some((100, false))), // its own figures may stand still
        ] {
            let seen = tracker.observe(&entries, Steady(second * 1000));
            let told = seen.get(&3).map(|freshness| (freshness.age.as_secs(), freshness.frozen));
            assert_eq!(told, expected, "second {second}");
        }
    }
}
