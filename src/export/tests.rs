//! What the text looks like, whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::model::{
    AppMetrics, AppName, Basis, Bytes, CollectorName, CollectorReport, CustomMetric, DaemonName, DaemonSample, Ending,
    GcReport, HostSample, LeakState, Limit, LimitKind, Listed, MemoryByKind, MemoryKind, MemoryLimits, MemorySource,
    ProcessSample, Rejection, Signal, Slope, Status, Steady, SystemSample, WallTime,
};

fn listed(pm_id: u32, app: &str, status: Status) -> Listed {
    Listed {
        pm_id,
        app: AppName::new("default", app),
        pid: status.has_live_pid().then_some(4_000 + pm_id),
        status,
        pm_uptime: Some(1_795_393_607_794),
        restarts: Some(3),
        unstable_restarts: Some(0),
        module: false,
        exec_mode: "fork",
        version: Some("1.4.2".to_owned()),
        revision: None,
        node_version: Some("20.20.2".to_owned()),
        interpreter: Some("node".to_owned()),
        pmx: true,
        instance: Some(0),
        max_memory_restart: Some(Bytes(300 << 20)),
        max_old_space: None,
        kill_timeout_ms: None,
        listen_timeout_ms: None,
        min_uptime_ms: None,
        wait_ready: false,
        autorestart: true,
        ending: Ending::default(),
        created_at: None,
        monit_memory: None,
        monit_cpu_percent: None,
        metrics: AppMetrics::default(),
    }
}

fn sample(listed: Listed) -> ProcessSample {
    ProcessSample {
        key: ProcessKey { daemon: DaemonName::from("default"), pm_id: listed.pm_id },
        life: listed.life(),
        limits: MemoryLimits { max_memory_restart: listed.max_memory_restart, ..MemoryLimits::default() },
        listed,
        system: None,
        resident: None,
        resident_source: None,
        metrics_age_seconds: None,
        metrics_frozen: false,
    }
}

fn rich() -> ProcessSample {
    let mut process = sample(listed(0, "say \"hi\"\\\n<b>", Status::Online));
    process.listed.metrics = AppMetrics {
        heap_used: Some(Bytes(20 << 20)),
        heap_total: Some(Bytes(30 << 20)),
        event_loop_p50_seconds: Some(0.00026),
        event_loop_p95_seconds: Some(0.00104),
        active_handles: Some(2.0),
        active_requests: Some(0.0),
        http_requests_per_second: Some(1.5),
        http_p50_seconds: Some(0.003),
        http_p95_seconds: Some(0.012),
        gc: Some(GcReport {
            heap_after_major_gc: Some(Bytes(18 << 20)),
            major_gcs: 12,
            minor_gcs: 345,
            gc_seconds: 0.75,
            heap_size_limit: Some(Bytes(256 << 20)),
            new_space: Some(Bytes(1 << 20)),
            old_space: Some(Bytes(17 << 20)),
            large_object_space: Some(Bytes(0)),
            external: Some(Bytes(2 << 20)),
            heap_physical: Some(Bytes(28 << 20)),
            global_handles: Some(Bytes(8 << 10)),
        }),
        custom: vec![
            CustomMetric { name: "queue".to_owned(), value: 7.0, unit: String::new() },
            CustomMetric { name: "queue".to_owned(), value: 8.0, unit: String::new() },
            CustomMetric { name: "size".to_owned(), value: 15.07, unit: "MB".to_owned() },
        ],
    };
    let mut memory = MemoryByKind::default();
    memory.workers = 1;
    for (mebibytes, kind) in [22, 9, 0, 0, 3, 26, 0].into_iter().zip(MemoryKind::ALL) {
        memory.add(kind, Bytes(mebibytes << 20));
    }
    process.system = Some(SystemSample {
        resident: Bytes(60 << 20),
        anonymous: Some(Bytes(40 << 20)),
        swapped: Some(Bytes(0)),
        cpu_milliseconds: 12_340,
        start_ticks: 99,
        started_at_ms: 1_795_393_607_000,
        open_fds: Some(23),
        threads: Some(11),
        tree_resident: Bytes(90 << 20),
        tree_swapped: Bytes(0),
        tree_processes: 2,
        memory: Some(memory),
        memory_unknown: None,
        outside_v8: None,
    });
    process.resident = Some(Bytes(60 << 20));
    process.resident_source = Some(MemorySource::System);
    process.limits.cgroup = Some(Bytes(512 << 20));
    process.metrics_age_seconds = Some(1.0);
    process
}

fn snapshot() -> Snapshot {
    let daemon = |name: &str, up: bool, processes: Vec<ProcessSample>| DaemonSample {
        name: DaemonName::from(name),
        up,
        version: up.then(|| "7.0.4".to_owned()),
        pid: up.then_some(99),
        life: None,
        resident: up.then_some(Bytes(58 << 20)),
        processes,
        processes_left_out: 0,
        orphans: None,
        app_metrics_left_out: 0,
        reports: vec![CollectorReport {
            collector: CollectorName::Pm2,
            duration: Duration::from_micros(1_400),
            failure: (!up).then(|| "connection refused".to_owned()),
        }],
        last_success: up.then_some(WallTime(1_795_400_000_000)),
    };
    Snapshot {
        at: Steady(1_795_400_000_000),
        wall: WallTime(1_795_400_000_000),
        daemons: vec![
            daemon("default", true, vec![rich(), sample(listed(4, "crasher", Status::Errored))]),
            daemon("other", false, Vec::new()),
        ],
        host: HostSample { memory_total: Bytes(8 << 30), memory_available: Bytes(3 << 30) },
    }
}

fn verdict() -> Verdict {
    Verdict {
        state: LeakState::Suspect,
        since: Steady(0),
        at: Steady(0),
        signal: Signal::Footprint,
        basis: Basis::MajorGc,
        slopes: BTreeMap::from([
            (Signal::Resident, Slope { bytes_per_second: 900.0, low: 700.5, high: 1_100.0 }),
            (Signal::Heap, Slope { bytes_per_second: -3.0, low: -9.0, high: 0.0 }),
        ]),
        window: Duration::from_hours(8),
        floor: Some(Bytes(70 << 20)),
        limit: Some(Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes(300 << 20) }),
        projected_exhaustion: None,
        provisional: None,
        first_verdict_at: None,
        previous: None,
        rejection: Some(Rejection { signal: Signal::Native, test: "plateau" }),
        reason: "grew".to_owned(),
    }
}

#[test]
fn the_whole_body() {
    let snapshot = snapshot();
    let verdicts = BTreeMap::from([(snapshot.daemons[0].processes[0].key.clone(), verdict())]);
    let version_slopes = [VersionSlope {
        daemon: "default".to_owned(),
        app: AppName::new("default", "web"),
        version: "1.4.2".to_owned(),
        bytes_per_second: 12.5,
    }];
    let collected = Collected {
        snapshot: &snapshot,
        verdicts: &verdicts,
        version_slopes: &version_slopes,
        restarts: None,
        evidence: &[],
        deaths: &DeathCounts::default(),
    };
    insta::assert_snapshot!(render_collected(&collected));
}

#[test]
fn the_sidecars_own_families() {
    let state = SidecarState {
        interval: Duration::from_secs(15),
        config_loaded: true,
        web_config_loaded: true,
        http_requests: BTreeMap::from([(200, 17), (404, 1)]),
        ..SidecarState::default()
    };
    let body = render_sidecar(&state, &SelfSample { threads: 3, ..SelfSample::default() });
    let body = body.replace(crate::REVISION, "REVISION").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(body);
}

#[test]
fn no_series_stands_twice_and_each_is_declared() {
    let snapshot = snapshot();
    let verdicts = BTreeMap::from([(snapshot.daemons[0].processes[0].key.clone(), verdict())]);
    let collected = Collected {
        snapshot: &snapshot,
        verdicts: &verdicts,
        version_slopes: &[],
        restarts: None,
        evidence: &[],
        deaths: &DeathCounts::default(),
    };
    let body = render_collected(&collected);
    let mut seen = std::collections::BTreeSet::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').expect("a series and a value").0;
        assert!(seen.insert(series.to_owned()), "{series} stands twice");
        let name = series.split('{').next().expect("a name");
        assert!(catalogue().iter().any(|family| family.name == name), "{name} is not declared");
    }
}
