//! What `/metrics` looks like, whole, for the captured lists of pm2 5, 6 and 7.
//!
//! A fake daemon serves the list and a fake `/proc` the processes, so every line is the same on every machine; only how long
//! a collection took is left out. The binary then serves the same for everything that comes from the list alone.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::fake_daemon::{Behaviour, FakeDaemon};
use crate::support::fake_proc::{FakeProc, FakeProcess};
use crate::support::sidecar::{Metrics, Place, assert_promtool_is_content};
use leakslope::collect::{Collector, Settings};
use leakslope::export::{Collected, DeathCounts, render_collected};
use leakslope::history::Retention;
use leakslope::model::{Steady, WallTime};
use leakslope::runtime::Pipeline;
use leakslope::trend;
use rstest::rstest;
use serde_json::Value;

/// Families that the list alone decides.
const FROM_THE_LIST: [&str; 13] = [
    "pm2_up",
    "pm2_daemon_info",
    "pm2_app_instances",
    "pm2_process_info",
    "pm2_process_status",
    "pm2_process_heap_used_bytes",
    "pm2_process_heap_total_bytes",
    "pm2_process_event_loop_latency_seconds",
    "pm2_process_active_handles",
    "pm2_process_active_requests",
    "pm2_process_restarts_total",
    "pm2_process_unstable_restarts",
    "pm2_process_custom_metric",
];

/// A captured list, its pids moved beyond those that a machine gives.
fn captured(version: u32) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("crates/pm2-client/tests/fixtures/jlist-pm2-{version}.json"));
    let mut list: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for entry in &mut list {
        if let Some(pid) = entry["pid"].as_u64().filter(|pid| *pid > 0) {
            entry["pid"] = (pid + 4_000_000).into();
        }
    }
    list
}

/// A system in which these processes run, but one that is out of sight and one whose pid is another's now.
fn system(list: &[Value]) -> FakeProc {
    let daemon = std::process::id();
    let mut processes = vec![FakeProcess::new(daemon, 1).resident(60_000)];
    for (entry, pid) in list.iter().filter_map(|entry| Some((entry, u32::try_from(entry["pid"].as_u64()?).ok()?))) {
        let parent = if entry["name"] == "slowboot" { 1 } else { daemon };
        if pid > 0 && entry["name"] != "pyapp" {
            let pm_id = entry["pm_id"].as_u64().unwrap();
            processes.push(FakeProcess::new(pid, parent).resident(50_000 + pm_id));
        }
    }
    let web = processes[1].pid;
    processes.push(FakeProcess::new(3_999_999, web).resident(70_000));
    FakeProc::new(&processes)
}

#[rstest]
#[case(5)]
#[case(6)]
#[case(7)]
#[tokio::test(flavor = "multi_thread")]
async fn the_captured_lists_lead_to_these_metrics(#[case] version: u32) {
    let list = captured(version);
    let daemon = FakeDaemon::start(Behaviour::List(Value::from(list.clone()).to_string()));
    let proc = system(&list);
    let settings = Settings { proc: proc.path().to_owned(), ..Settings::default() };
    let mut collector = Collector::new(vec![daemon.spec("default")], settings);
    let started = list[0]["pm2_env"]["pm_uptime"].as_i64().unwrap();
    let now = started + 50_000;
    let snapshot = collector.collect(Steady(now), WallTime(now)).await;
    let mut pipeline = Pipeline::new(Retention::default(), trend::Settings::default());
    pipeline.take(&snapshot, |_app| std::borrow::Cow::Owned(trend::Settings::default()));
    let verdicts = pipeline.verdicts();
    let body = render_collected(&Collected {
        snapshot: &snapshot,
        verdicts: &verdicts,
        version_slopes: &[],
        restarts: None,
        evidence: &[],
        deaths: &DeathCounts::default(),
    });
    assert_promtool_is_content(&body);
    let metrics = Metrics::parse(&body);
    let told: BTreeSet<&str> =
        metrics.all("pm2_process_info", &[]).iter().map(|(labels, _)| labels["pm_id"].as_str()).collect();
    assert_eq!(told.len(), list.len());

    let redacted: String = body
        .lines()
        .map(|line| match line.rsplit_once(' ') {
            Some((series, _)) if series.starts_with("leakslope_collect_duration_seconds") => format!("{series} TOOK\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    insta::assert_snapshot!(format!("metrics_of_pm2_{version}"), redacted);

    let served = tokio::task::spawn_blocking(move || {
        let place = Place::new(daemon.home(), "");
        place.start().metrics()
    });
    let served = served.await.unwrap();
    for family in FROM_THE_LIST {
        // Whose pid it is cannot be told for this one where the pid does not exist.
        let known = |metrics: &'_ Metrics| {
            let mut all: Vec<_> =
                metrics.all(family, &[]).into_iter().map(|(labels, value)| (labels.clone(), value)).collect();
            all.retain(|(labels, _)| labels.get("app").is_none_or(|app| app != "slowboot"));
            all
        };
        assert!(!known(&metrics).is_empty(), "{family}");
        assert_eq!(known(&served), known(&metrics), "{family}");
    }
}
