//! Families about daemons, their processes and the host.

use std::collections::{BTreeMap, BTreeSet};

use super::DeathCounts;
use super::catalogue as family;
use super::families::Families;
use crate::model::{
    AppMetrics, AppName, Bytes, Cause, DaemonName, DaemonSample, GcReport, MemoryKind, ProcessKey, ProcessSample,
    Snapshot, Status, WallTime,
};

/// The kind under which the memory of a process's descendants is shown: it is no part of its own.
pub(super) const CHILDREN: &str = "children";

pub(super) fn add(families: &mut Families, snapshot: &Snapshot) {
    for daemon in &snapshot.daemons {
        add_daemon(families, daemon);
        add_orphans(families, daemon);
        for process in &daemon.processes {
            add_process(families, process);
        }
    }
    if snapshot.host.memory_total > Bytes(0) {
        families.add(&family::HOST_TOTAL, &[], snapshot.host.memory_total.as_f64());
        families.add(&family::HOST_AVAILABLE, &[], snapshot.host.memory_available.as_f64());
    }
}

fn add_daemon(families: &mut Families, daemon: &DaemonSample) {
    let name = daemon.name.as_str();
    families.add(&family::UP, &[name], truth(daemon.up));
    if let Some(version) = &daemon.version {
        families.add(&family::DAEMON_INFO, &[name, version], 1.0);
    }
    families.add_some(&family::DAEMON_RESIDENT, &[name], daemon.resident.map(Bytes::as_f64));
    families.add(&family::LEFT_OUT, &[name], count(daemon.processes_left_out));
    families.add(&family::METRICS_LEFT_OUT, &[name], count(daemon.app_metrics_left_out));
    families.add(&family::LAST_COLLECT, &[name], daemon.last_success.map_or(0.0, WallTime::as_seconds));
    for report in &daemon.reports {
        let labels = [name, report.collector.as_str()];
        families.add(&family::COLLECT_SUCCESS, &labels, truth(report.failure.is_none()));
        families.add(&family::COLLECT_DURATION, &labels, report.duration.as_secs_f64());
    }
    let mut instances: BTreeMap<&AppName, BTreeMap<Status, usize>> = BTreeMap::new();
    for process in &daemon.processes {
        let by_status = instances.entry(&process.listed.app).or_default();
        *by_status.entry(process.listed.status).or_default() += 1;
    }
    for (app, by_status) in instances {
        for status in Status::ALL {
            let instances = by_status.get(&status).copied().unwrap_or(0);
            families.add(
                &family::APP_INSTANCES,
                &[name, app.namespace(), app.name(), status.as_str()],
                count(instances),
            );
        }
    }
}

fn add_orphans(families: &mut Families, daemon: &DaemonSample) {
    for (app, (orphans, resident)) in daemon.orphans_by_app().unwrap_or_default() {
        let labels = [daemon.name.as_str(), app.namespace(), app.name()];
        families.add(&family::APP_ORPHANS, &labels, count(orphans));
        families.add(&family::APP_ORPHANS_RESIDENT, &labels, resident.as_f64());
    }
}

/// The labels `daemon`, `namespace`, `app`, `pm_id` of one process, with room for what a family adds.
struct Labels<'a> {
    process: [&'a str; 4],
}

impl<'a> Labels<'a> {
    fn with<const N: usize>(&self, more: [&'a str; N]) -> Vec<&'a str> {
        self.process.iter().copied().chain(more).collect()
    }
}

fn add_process(families: &mut Families, process: &ProcessSample) {
    let listed = &process.listed;
    let pm_id = process.key.pm_id.to_string();
    let labels = Labels { process: process_labels(&process.key.daemon, &listed.app, &pm_id) };
    let own = &labels.process[..];

    let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
    let (version, node_version, interpreter) =
        (text(&listed.version), text(&listed.node_version), text(&listed.interpreter));
    let module = if listed.module { "true" } else { "" };
    families.add(&family::INFO, &labels.with([listed.exec_mode, &version, &node_version, &interpreter, module]), 1.0);
    families.add(&family::PROCESS_UP, own, truth(is_up(process)));
    families.add(&family::STATUS, &labels.with([listed.status.as_str()]), 1.0);
    families.add_some(&family::RESIDENT, own, process.resident.map(Bytes::as_f64));
    families.add_some(&family::RESTARTS, own, listed.restarts.map(whole));
    families.add_some(&family::UNSTABLE_RESTARTS, own, listed.unstable_restarts.map(whole));
    add_system(families, process, own);
    add_memory(families, process, &labels);
    let limits = [
        ("max_memory_restart", process.limits.max_memory_restart),
        ("cgroup", process.limits.cgroup),
        ("heap", process.limits.heap),
        ("configured", process.limits.configured),
    ];
    for (limit, bytes) in limits {
        families.add_some(&family::MEMORY_LIMIT, &labels.with([limit]), bytes.map(Bytes::as_f64));
    }
    if process.life.is_some() {
        families.add_some(&family::METRICS_AGE, own, process.metrics_age_seconds);
        if process.metrics_age_seconds.is_some() {
            families.add(&family::METRICS_FROZEN, own, truth(process.metrics_frozen));
        }
        add_app_metrics(families, &listed.metrics, &labels);
    }
}

fn is_up(process: &ProcessSample) -> bool {
    process.listed.status == Status::Online && process.life.is_some() && process.resident.is_some()
}

fn add_system(families: &mut Families, process: &ProcessSample, own: &[&str]) {
    let started = |milliseconds: i64| WallTime(milliseconds).as_seconds();
    let Some(system) = &process.system else {
        families.add_some(&family::START_TIME, own, process.life.map(|life| started(life.started)));
        return;
    };
    families.add(&family::TREE_RESIDENT, own, system.tree_resident.as_f64());
    families.add_some(&family::ANONYMOUS, own, system.anonymous.map(Bytes::as_f64));
    families.add_some(&family::SWAPPED, own, system.swapped.map(Bytes::as_f64));
    families.add(&family::CPU, own, whole(system.cpu_milliseconds) / 1000.0);
    families.add(&family::START_TIME, own, started(system.started_at_ms));
    families.add_some(&family::OPEN_FDS, own, system.open_fds.map(whole));
    families.add_some(&family::THREADS, own, system.threads.map(whole));
}

fn add_memory(families: &mut Families, process: &ProcessSample, labels: &Labels<'_>) {
    let Some((system, memory)) = process.system.as_ref().and_then(|system| Some((system, system.memory?))) else {
        return;
    };
    for kind in MemoryKind::ALL {
        families.add(&family::MEMORY_KIND, &labels.with([kind.as_str()]), memory.of(kind).as_f64());
    }
    families.add(&family::MEMORY_KIND, &labels.with([CHILDREN]), system.children_resident().as_f64());
    families.add(&family::WORKERS, &labels.process, f64::from(memory.workers));
}

fn add_app_metrics(families: &mut Families, metrics: &AppMetrics, labels: &Labels<'_>) {
    let own = &labels.process[..];
    families.add_some(&family::HEAP_USED, own, metrics.heap_used.map(Bytes::as_f64));
    families.add_some(&family::HEAP_TOTAL, own, metrics.heap_total.map(Bytes::as_f64));
    families.add_some(&family::EVENT_LOOP_LATENCY, &labels.with(["50"]), metrics.event_loop_p50_seconds);
    families.add_some(&family::EVENT_LOOP_LATENCY, &labels.with(["95"]), metrics.event_loop_p95_seconds);
    families.add_some(&family::ACTIVE_HANDLES, own, metrics.active_handles);
    families.add_some(&family::ACTIVE_REQUESTS, own, metrics.active_requests);
    families.add_some(&family::HTTP_RATE, own, metrics.http_requests_per_second);
    families.add_some(&family::HTTP_LATENCY, &labels.with(["50"]), metrics.http_p50_seconds);
    families.add_some(&family::HTTP_LATENCY, &labels.with(["95"]), metrics.http_p95_seconds);
    if let Some(gc) = &metrics.gc {
        add_gc(families, gc, labels);
    }
    let mut seen = BTreeSet::new();
    for custom in &metrics.custom {
        if seen.insert((&custom.name, &custom.unit)) {
            families.add(&family::CUSTOM, &labels.with([&custom.name, &custom.unit]), custom.value);
        }
    }
}

fn add_gc(families: &mut Families, gc: &GcReport, labels: &Labels<'_>) {
    let own = &labels.process[..];
    families.add_some(&family::HEAP_AFTER_GC, own, gc.heap_after_major_gc.map(Bytes::as_f64));
    families.add(&family::GCS, &labels.with(["major"]), whole(gc.major_gcs));
    families.add(&family::GCS, &labels.with(["minor"]), whole(gc.minor_gcs));
    families.add(&family::GC_SECONDS, own, gc.gc_seconds);
    let spaces = [("new", gc.new_space), ("old", gc.old_space), ("large_object", gc.large_object_space)];
    for (space, bytes) in spaces {
        families.add_some(&family::HEAP_SPACE, &labels.with([space]), bytes.map(Bytes::as_f64));
    }
    families.add_some(&family::EXTERNAL, own, gc.external.map(Bytes::as_f64));
}

/// Deaths of processes that pm2 may still list: what was deleted has no series, as nothing else of it has.
pub(super) fn add_deaths(families: &mut Families, snapshot: &Snapshot, deaths: &DeathCounts) {
    let mut lists = BTreeMap::new();
    for daemon in snapshot.daemons.iter().filter(|daemon| daemon.up && daemon.processes_left_out == 0) {
        let listed: BTreeSet<_> = daemon.processes.iter().map(|it| (it.key.pm_id, &it.listed.app)).collect();
        lists.insert(&daemon.name, listed);
    }
    let gone = |key: &ProcessKey, app: &AppName| {
        lists.get(&key.daemon).is_some_and(|listed| !listed.contains(&(key.pm_id, app)))
    };
    let mut add = |family, key: &ProcessKey, app: &AppName, cause: Cause, value| {
        if gone(key, app) {
            return;
        }
        let pm_id = key.pm_id.to_string();
        families.add(
            family,
            &Labels { process: process_labels(&key.daemon, app, &pm_id) }.with([cause.as_str()]),
            value,
        );
    };
    for (key, app, cause, count) in &deaths.counts {
        add(&family::DEATHS, key, app, *cause, whole(*count));
    }
    for (key, app, cause, at) in &deaths.last {
        add(&family::LAST_DEATH, key, app, *cause, at.as_seconds());
    }
}

/// The values of the labels that every series of a process begins with.
pub(super) fn process_labels<'a>(daemon: &'a DaemonName, app: &'a AppName, pm_id: &'a str) -> [&'a str; 4] {
    [daemon.as_str(), app.namespace(), app.name(), pm_id]
}

pub(super) fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn whole(value: u64) -> f64 {
    value as f64
}

pub(super) fn count(value: usize) -> f64 {
    whole(value as u64)
}
