//! Every family the sidecar exports, declared once.

/// What kind of series a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only goes up, until a restart of what it counts.
    Counter,
}

/// A family: its name, kind, labels in order, and what it means to a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The full name, with its base unit.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// The label names of every series.
    pub labels: &'static [&'static str],
    /// The HELP text.
    pub help: &'static str,
}

macro_rules! families {
    ($($(#[$meta:meta])* $id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $($(#[$meta])* pub(super) const $id: Descriptor = Descriptor {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        const ALL: &[Descriptor] = &[$($id),*];
    };
}

/// Every family, grouped by what it describes.
pub fn catalogue() -> &'static [Descriptor] {
    ALL
}

families! {
    UP = Gauge "pm2_up" ["daemon"] "Whether the pm2 daemon answered the latest collection (1) or not (0).";
    DAEMON_INFO = Gauge "pm2_daemon_info" ["daemon", "version"] "The pm2 daemon's version; always 1.";
    DAEMON_RESIDENT = Gauge "pm2_daemon_resident_memory_bytes" ["daemon"] "Resident memory of the pm2 daemon itself.";
    DAEMON_LEAK_STATE = Gauge "pm2_daemon_leak_state" ["daemon", "state"]
        "How sure the sidecar is that the pm2 daemon itself leaks: 1 for the current state, 0 for the others.";
    DAEMON_LEAK_SLOPE = Gauge "pm2_daemon_leak_slope_bytes_per_second" ["daemon"]
        "Growth of the pm2 daemon's own memory over its window.";
    DAEMON_LEAK_SLOPE_LOW = Gauge "pm2_daemon_leak_slope_bytes_per_second_low" ["daemon"]
        "Lower bound of the confidence interval of the daemon's slope.";
    DAEMON_LEAK_SLOPE_HIGH = Gauge "pm2_daemon_leak_slope_bytes_per_second_high" ["daemon"]
        "Upper bound of the confidence interval of the daemon's slope.";
    APP_INSTANCES = Gauge "pm2_app_instances" ["daemon", "namespace", "app", "status"] "Processes of an app by status; online ones have a live process.";

    APP_ORPHANS = Gauge "pm2_app_orphans" ["daemon", "namespace", "app"]
        "Processes that earlier runs of an app left behind; pm2 no longer knows them.";
    APP_ORPHANS_RESIDENT = Gauge "pm2_app_orphans_resident_memory_bytes" ["daemon", "namespace", "app"]
        "Resident memory of the processes that earlier runs of an app left behind.";

    INFO = Gauge "pm2_process_info"
        ["daemon", "namespace", "app", "pm_id", "exec_mode", "version", "node_version", "interpreter", "module"]
        "What pm2 knows of a process; always 1.";
    PROCESS_UP = Gauge "pm2_process_up" ["daemon", "namespace", "app", "pm_id"]
        "Whether the process is online by pm2 and alive by the system.";
    STATUS = Gauge "pm2_process_status" ["daemon", "namespace", "app", "pm_id", "status"]
        "The pm2 status of a process, as a label; always 1.";
    RESIDENT = Gauge "pm2_process_resident_memory_bytes" ["daemon", "namespace", "app", "pm_id"]
        "Resident memory (RSS) of the process, from the system at the collection's instant.";
    TREE_RESIDENT = Gauge "pm2_process_tree_resident_memory_bytes" ["daemon", "namespace", "app", "pm_id"]
        "Resident memory of the process and all its descendants: npm start hides the app in a child.";
    ANONYMOUS = Gauge "pm2_process_anonymous_memory_bytes" ["daemon", "namespace", "app", "pm_id"]
        "The anonymous part of resident memory: heap and stacks, without mapped files.";
    SWAPPED = Gauge "pm2_process_swapped_memory_bytes" ["daemon", "namespace", "app", "pm_id"]
        "Memory of the process that was pushed out to swap.";
    MEMORY_KIND = Gauge "pm2_process_memory_bytes" ["daemon", "namespace", "app", "pm_id", "kind"]
        "Resident memory of the process by what holds it, read once a minute; without kind=\"children\" the sum is its resident memory.";
    WORKERS = Gauge "pm2_process_worker_threads" ["daemon", "namespace", "app", "pm_id"]
        "Worker threads of the process.";
    HEAP_USED = Gauge "pm2_process_heap_used_bytes" ["daemon", "namespace", "app", "pm_id"]
        "V8 heap in use, garbage not yet collected included.";
    HEAP_TOTAL = Gauge "pm2_process_heap_total_bytes" ["daemon", "namespace", "app", "pm_id"] "V8 heap committed.";
    CPU = Counter "pm2_process_cpu_seconds_total" ["daemon", "namespace", "app", "pm_id"]
        "CPU time used by the process since its start.";
    START_TIME = Gauge "pm2_process_start_time_seconds" ["daemon", "namespace", "app", "pm_id"]
        "Start of the process in seconds since the Unix epoch.";
    OPEN_FDS = Gauge "pm2_process_open_fds" ["daemon", "namespace", "app", "pm_id"] "Open file descriptors.";
    THREADS = Gauge "pm2_process_threads" ["daemon", "namespace", "app", "pm_id"] "Threads.";
    RESTARTS = Counter "pm2_process_restarts_total" ["daemon", "namespace", "app", "pm_id"]
        "Restarts pm2 has counted since the process was added or reset.";
    UNSTABLE_RESTARTS = Gauge "pm2_process_unstable_restarts" ["daemon", "namespace", "app", "pm_id"]
        "Restarts in a row that came before min_uptime.";
    DEATHS = Counter "pm2_process_deaths_total" ["daemon", "namespace", "app", "pm_id", "cause"]
        "Ends of runs since the sidecar's start, by what ended them.";
    LAST_DEATH = Gauge "pm2_process_last_death_timestamp_seconds" ["daemon", "namespace", "app", "pm_id", "cause"]
        "Time of the last end of a run of the process, with what ended it; for a day.";
    MEMORY_LIMIT = Gauge "pm2_process_memory_limit_bytes" ["daemon", "namespace", "app", "pm_id", "limit"]
        "Memory ceilings that apply to the process, by where they come from: max_memory_restart is held against its own resident memory, heap against the V8 heap, the others against the tree.";
    EVENT_LOOP_LATENCY = Gauge "pm2_process_event_loop_latency_seconds" ["daemon", "namespace", "app", "pm_id", "percentile"]
        "Event-loop latency by percentile, as the app reports it.";
    ACTIVE_HANDLES = Gauge "pm2_process_active_handles" ["daemon", "namespace", "app", "pm_id"] "Active libuv handles.";
    ACTIVE_REQUESTS = Gauge "pm2_process_active_requests" ["daemon", "namespace", "app", "pm_id"] "Active libuv requests.";
    HTTP_RATE = Gauge "pm2_process_http_requests_per_second" ["daemon", "namespace", "app", "pm_id"]
        "HTTP requests per second, as the app reports them.";
    HTTP_LATENCY = Gauge "pm2_process_http_latency_seconds" ["daemon", "namespace", "app", "pm_id", "percentile"]
        "HTTP latency by percentile.";
    CUSTOM = Gauge "pm2_process_custom_metric" ["daemon", "namespace", "app", "pm_id", "metric", "unit"]
        "A metric that the app itself publishes through pm2, in the unit it states.";
    METRICS_AGE = Gauge "pm2_process_metrics_age_seconds" ["daemon", "namespace", "app", "pm_id"]
        "Time since the values that the app reports last moved.";
    METRICS_FROZEN = Gauge "pm2_process_metrics_frozen" ["daemon", "namespace", "app", "pm_id"]
        "Whether the app's own values stand still (1): its event loop is blocked.";
    HEAP_AFTER_GC = Gauge "pm2_process_heap_after_major_gc_bytes" ["daemon", "namespace", "app", "pm_id"]
        "V8 heap right after the latest major collection; needs the preload.";
    GCS = Counter "pm2_process_gcs_total" ["daemon", "namespace", "app", "pm_id", "kind"]
        "Garbage collections by kind; needs the preload.";
    GC_SECONDS = Counter "pm2_process_gc_seconds_total" ["daemon", "namespace", "app", "pm_id"]
        "Time spent in garbage collection; needs the preload.";
    HEAP_SPACE = Gauge "pm2_process_heap_space_used_bytes" ["daemon", "namespace", "app", "pm_id", "space"]
        "Used size of a V8 heap space; needs the preload.";
    EXTERNAL = Gauge "pm2_process_external_memory_bytes" ["daemon", "namespace", "app", "pm_id"]
        "Memory of buffers and other objects outside the V8 heap; needs the preload.";

    LEAK_SLOPE = Gauge "pm2_process_leak_slope_bytes_per_second" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Growth of a signal over its window: 0 when flat, negative when shrinking.";
    LEAK_SLOPE_LOW = Gauge "pm2_process_leak_slope_bytes_per_second_low" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Lower bound of the slope's confidence interval.";
    LEAK_SLOPE_HIGH = Gauge "pm2_process_leak_slope_bytes_per_second_high" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Upper bound of the slope's confidence interval.";
    LEAK_SO_FAR = Gauge "pm2_process_leak_provisional_slope_bytes_per_second" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Growth so far of a run that is too young for a verdict, from its third minute on; no state rests on it.";
    LEAK_SO_FAR_LOW = Gauge "pm2_process_leak_provisional_slope_bytes_per_second_low" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Lower bound of the confidence interval of growth so far.";
    LEAK_SO_FAR_HIGH = Gauge "pm2_process_leak_provisional_slope_bytes_per_second_high" ["daemon", "namespace", "app", "pm_id", "signal"]
        "Upper bound of the confidence interval of growth so far.";
    LEAK_STATE = Gauge "pm2_process_leak_state" ["daemon", "namespace", "app", "pm_id", "state"]
        "How sure the sidecar is of a leak: 1 for the current state, 0 for the others.";
    LEAK_EXHAUSTION = Gauge "pm2_process_leak_projected_exhaustion_seconds" ["daemon", "namespace", "app", "pm_id"]
        "Time until the nearest limit at the present pace; +Inf when memory is not growing for certain, absent while that is not known.";
    LEAK_WINDOW = Gauge "pm2_process_leak_window_seconds" ["daemon", "namespace", "app", "pm_id"]
        "The span that the slope is fitted over.";
    MEMORY_FLOOR = Gauge "pm2_process_memory_floor_bytes" ["daemon", "namespace", "app", "pm_id"]
        "Memory that garbage collection cannot free, as last seen.";
    LEAK_LIMIT = Gauge "pm2_process_leak_limit_bytes" ["daemon", "namespace", "app", "pm_id", "limit"]
        "The nearest limit, the one the projection looks at, by its name; max_memory_restart counts the process alone, the others its whole tree.";
    LEAK_REJECTION = Gauge "pm2_process_leak_rejection" ["daemon", "namespace", "app", "pm_id", "signal", "test"]
        "The test that spoke against a leak at the latest evaluation; always 1.";
    EVIDENCE = Gauge "pm2_process_evidence_timestamp_seconds" ["daemon", "namespace", "app", "pm_id", "kind"]
        "Time of the latest evidence of a process, by kind; absent where none was taken.";
    VERSION_SLOPE = Gauge "pm2_app_version_leak_slope_bytes_per_second" ["daemon", "namespace", "app", "version"]
        "Growth of an app's footprint by version, over the lives that are remembered.";

    HOST_TOTAL = Gauge "pm2_host_memory_total_bytes" [] "Memory of the host.";
    HOST_AVAILABLE = Gauge "pm2_host_memory_available_bytes" [] "Memory of the host that new work could get.";

    BUILD_INFO = Gauge "leakslope_build_info" ["version", "revision"] "The sidecar's build; always 1.";
    COLLECT_DURATION = Gauge "leakslope_collect_duration_seconds" ["daemon", "collector"]
        "Time the collector took in the latest collection.";
    COLLECT_SUCCESS = Gauge "leakslope_collect_success" ["daemon", "collector"]
        "Whether the collector succeeded in the latest collection.";
    LAST_COLLECT = Gauge "leakslope_last_collect_timestamp_seconds" ["daemon"]
        "Time of the latest successful collection; 0 before the first.";
    COLLECTIONS = Counter "leakslope_collections_total" ["daemon", "outcome"]
        "Collections since the sidecar's start, by whether the daemon answered (success) or not (failure).";
    COLLECT_INTERVAL = Gauge "leakslope_collect_interval_seconds" [] "Configured time between collections.";
    LEFT_OUT = Gauge "leakslope_processes_left_out" ["daemon"]
        "Processes not watched because the daemon lists more than collect.max_processes.";
    METRICS_LEFT_OUT = Gauge "leakslope_app_metrics_left_out" ["daemon"]
        "Metrics of the apps' own that are left out because all of the daemon's exceed what one may take.";
    CONFIG_SUCCESS = Gauge "leakslope_config_last_reload_successful" []
        "Whether the latest attempt to load the configuration succeeded.";
    CONFIG_TIMESTAMP = Gauge "leakslope_config_last_reload_success_timestamp_seconds" []
        "Time of the latest successful load of the configuration.";
    WEB_CONFIG_SUCCESS = Gauge "leakslope_web_config_last_reload_successful" []
        "Whether the latest attempt to load the web configuration, its certificates and the tokens succeeded.";
    WEB_CONFIG_TIMESTAMP = Gauge "leakslope_web_config_last_reload_success_timestamp_seconds" []
        "Time of the latest successful load of the web configuration, its certificates and the tokens.";
    STORE_SIZE = Gauge "leakslope_store_size_bytes" [] "Size of the history on disk.";
    STORE_DEGRADED = Gauge "leakslope_store_degraded" []
        "Whether history is kept in memory only (1) because the disk refuses it.";
    STORE_LIVES = Gauge "leakslope_store_lives" [] "Lives of processes that the store knows.";
    STORE_RETENTION = Gauge "leakslope_store_retention_seconds" [] "How long minutes of a process are kept.";
    STORE_FLUSH = Gauge "leakslope_store_last_flush_timestamp_seconds" []
        "Time of the latest successful write of the history; 0 before the first.";
    HISTORY_MEMORY = Gauge "leakslope_history_memory_bytes" [] "Memory that the history of all processes takes.";
    HTTP_REQUESTS = Counter "leakslope_http_requests_total" ["code"] "HTTP requests answered, by status code.";
    HTTP_CONNECTIONS = Gauge "leakslope_http_connections" [] "Open HTTP connections.";

    RESTART_REQUESTS = Counter "leakslope_restart_requests_total" ["trigger"] "Requests for a restart, by what asked.";
    RESTARTS_DONE = Counter "leakslope_restarts_total" ["daemon", "namespace", "app", "action", "outcome"]
        "Replacements of processes that ended, by what was done and how it went.";
    RESTART_BLOCKED = Gauge "leakslope_restart_blocked" ["daemon", "namespace", "app", "reason"]
        "Processes whose restart is asked for and held, by reason; not where it is a dry run.";
    RESTART_BUDGET = Gauge "leakslope_restart_budget_remaining" ["daemon", "namespace", "app"]
        "Restarts that the app's and the host's budgets of 24 hours have left.";
    RESTART_BREAKER = Gauge "leakslope_restart_breaker_open" ["daemon", "namespace", "app", "reason"]
        "Whether restarts of the app are stopped (1) because they failed or did not help, with what opened the breaker.";
    RESTART_FREED = Gauge "leakslope_restart_memory_freed_bytes" ["daemon", "namespace", "app"]
        "Memory that the latest measured restart freed; negative when more is held than before.";
    RESTART_WINDOW = Gauge "leakslope_restart_next_window_timestamp_seconds" ["daemon", "namespace", "app"]
        "When the next maintenance window opens; absent while one is open or none is set.";

    OWN_CPU = Counter "process_cpu_seconds_total" [] "CPU time used by the sidecar.";
    OWN_RESIDENT = Gauge "process_resident_memory_bytes" [] "Resident memory of the sidecar.";
    OWN_VIRTUAL = Gauge "process_virtual_memory_bytes" [] "Virtual memory of the sidecar.";
    OWN_FDS = Gauge "process_open_fds" [] "Open file descriptors of the sidecar.";
    OWN_MAX_FDS = Gauge "process_max_fds" [] "The most file descriptors the sidecar may open.";
    OWN_THREADS = Gauge "process_threads" [] "Threads of the sidecar.";
    OWN_START = Gauge "process_start_time_seconds" [] "Start of the sidecar in seconds since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for family in catalogue() {
            assert!(names.insert(family.name), "{} stands twice", family.name);
            assert!(
                ["pm2_", "leakslope_", "process_"].iter().any(|prefix| family.name.starts_with(prefix)),
                "{}",
                family.name
            );
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(family.help.ends_with('.') && family.help.len() > 5, "{}", family.name);
            for label in family.labels {
                assert!(!["instance", "job", "pid"].contains(label), "{}", family.name);
            }
            if family.labels.contains(&"app") {
                assert_eq!(&family.labels[..3], ["daemon", "namespace", "app"], "{}", family.name);
            }
            if family.name.starts_with("pm2_process_") {
                assert_eq!(&family.labels[..4], ["daemon", "namespace", "app", "pm_id"], "{}", family.name);
            }
        }
    }
}
