//! The preload for apps: what it reports through pm2's channel, and that it is silent and harmless everywhere else.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::pm2::{Pm2, VERSIONS};
use crate::support::{steady, wait_until, wall};
use leakslope::collect::{Collector, Settings, Source};
use leakslope::model::ProcessSample;
use rstest::rstest;
use serde_json::{Value, json};

const ALWAYS: [&str; 10] = [
    "leakslope/external",
    "leakslope/heap_physical",
    "leakslope/global_handles",
    "leakslope/gc_seconds",
    "leakslope/heap_size_limit",
    "leakslope/major_gcs",
    "leakslope/minor_gcs",
    "leakslope/space/large_object",
    "leakslope/space/new",
    "leakslope/space/old",
];
const AFTER_MAJOR: &str = "leakslope/heap_after_major_gc";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn preload() -> String {
    file("deploy/node/leakslope-gc.cjs").display().to_string()
}

fn node(arguments: &[&str]) -> String {
    let output = Command::new("node")
        .args(arguments)
        .env_remove("NODE_OPTIONS")
        .env("PRELOAD", preload())
        .output()
        .expect("node is missing: run `apt-get install nodejs npm`");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "node {arguments:?}: {stderr}");
    assert_eq!(stderr, "", "nothing may be said on the app's standard error");
    String::from_utf8(output.stdout).unwrap()
}

/// What a parent in pm2's place is told by an app that loads the preload and does `deed`.
fn told(deed: &str, environment: &Value) -> Vec<Value> {
    let plan = json!({
        "file": file("tests/preload/app.cjs"),
        "args": [deed],
        "execArgv": ["--expose-gc", "-r", preload()],
        "env": environment,
    });
    let parent = file("tests/preload/parent.cjs").display().to_string();
    node(&[&parent, &plan.to_string()]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// pm2's variables, as an app in fork mode has them.
fn under_pm2() -> Value {
    json!({"pm_id": "3", "PM2_HOME": "/nowhere", "pm2_env": null, "LEAKSLOPE_GC_SPEAKER": null})
}

/// The reports among what was told, as maps from type to value.
fn reports(told: &[Value]) -> Vec<std::collections::BTreeMap<String, f64>> {
    told.iter()
        .filter(|one| one["message"]["type"] == "axm:monitor")
        .map(|one| {
            let data = one["message"]["data"].as_object().unwrap();
            data.values().map(|it| (it["type"].as_str().unwrap().to_owned(), it["value"].as_f64().unwrap())).collect()
        })
        .collect()
}

fn others(told: &[Value]) -> Vec<&Value> {
    told.iter().filter_map(|one| one.get("message")).filter(|message| message["type"] != "axm:monitor").collect()
}

fn ended_well(told: &[Value]) -> bool {
    told.last() == Some(&json!({"exit": 0, "signal": null}))
}

#[test]
fn reports_about_every_second_by_the_types_the_sidecar_reads() {
    let told = told("collect", &under_pm2());
    let reports = reports(&told);
    assert!((2..=3).contains(&reports.len()), "{} reports in 2.6 s", reports.len());
    let types: BTreeSet<&str> = reports[0].keys().map(String::as_str).collect();
    assert_eq!(types, ALWAYS.into_iter().chain([AFTER_MAJOR]).collect());
    let last = reports.last().unwrap();
    assert!((1.0..=2.0).contains(&last["leakslope/major_gcs"]), "{last:?}");
    assert!((5.0..=40.0).contains(&last["leakslope/minor_gcs"]), "{last:?}");
    assert!((0.0005..=2.0).contains(&last["leakslope/gc_seconds"]), "{last:?}");
    // A hundred thousand small objects are kept, and little else.
    assert!((5e6..2e7).contains(&last[AFTER_MAJOR]), "{last:?}");
    assert!(last["leakslope/space/old"] > 3e6 && last["leakslope/heap_size_limit"] > 1e8, "{last:?}");
    assert!(ended_well(&told) && others(&told).is_empty());
}

#[test]
fn says_nothing_of_the_heap_after_a_collection_that_was_not() {
    let told = told("wait", &under_pm2());
    let first = &reports(&told)[0];
    assert_eq!(first.keys().map(String::as_str).collect::<BTreeSet<_>>(), ALWAYS.into());
    assert!(first["leakslope/major_gcs"].abs() < f64::EPSILON);
}

#[test]
fn speaks_for_a_cluster_worker_whose_variables_pm2_unpacks_later() {
    let environment = json!({"pm2_env": "{\"pm_id\":0,\"name\":\"x\"}", "pm_id": null, "PM2_HOME": null});
    assert!(reports(&told("wait", &environment)).len() >= 2);
}

#[rstest]
#[case::no_pm2(json!({"pm_id": null, "PM2_HOME": null, "pm2_env": null}))]
#[case::only_a_number(json!({"pm_id": "1", "PM2_HOME": null, "pm2_env": null}))]
#[case::garbage(json!({"pm2_env": "{no json", "pm_id": "1", "PM2_HOME": "/x"}))]
#[case::no_object(json!({"pm2_env": "null", "pm_id": "1", "PM2_HOME": "/x"}))]
fn is_silent_where_the_parent_is_not_pm2(#[case] environment: Value) {
    let told = told("wait", &environment);
    assert!(ended_well(&told) && told.len() == 1, "{told:?}");
}

#[test]
fn is_silent_without_a_channel_and_keeps_nothing_alive() {
    let (preload, app) = (preload(), file("tests/preload/app.cjs").display().to_string());
    assert_eq!(node(&["-r", &preload, &app, "nothing"]), "");
    let told = told("nothing", &under_pm2());
    assert!(
        ended_well(&told) && told.len() == 1,
        "an app with nothing left to do ends before the first report: {told:?}"
    );
}

#[test]
fn children_and_threads_of_the_app_do_not_speak() {
    let told_of_fork = told("fork", &under_pm2());
    // The app's own reports arrive, and the app got none of its children's.
    let heard: BTreeSet<String> = others(&told_of_fork).into_iter().map(ToString::to_string).collect();
    assert_eq!(heard, BTreeSet::from([r#"{"fromFork":0}"#.to_owned(), r#"{"fromShell":0}"#.to_owned()]));
    assert!(reports(&told_of_fork).len() >= 2 && ended_well(&told_of_fork));

    let told_of_thread = told("thread", &under_pm2());
    assert!((2..=4).contains(&reports(&told_of_thread).len()), "one of them speaks: {told_of_thread:?}");
    assert!(ended_well(&told_of_thread));
}

#[test]
fn a_claim_of_a_process_that_is_gone_or_elsewhere_is_no_claim() {
    // A pid that cannot be, and one that lives but is no ancestor.
    let neighbour = Command::new("sleep").arg("20").spawn().unwrap();
    for pid in ["4194305".to_owned(), neighbour.id().to_string()] {
        let mut environment = under_pm2();
        environment["LEAKSLOPE_GC_SPEAKER"] = json!(format!("3:{pid}"));
        assert!(reports(&told("wait", &environment)).len() >= 2, "claimed by {pid}");
    }
    let mut neighbour = neighbour;
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
}

#[test]
fn an_app_that_uses_the_channel_itself_is_not_disturbed() {
    let told_of_talk = told("talk", &under_pm2());
    // Three messages went through its wrapper: the question, what it made of the answer, and the count of those two.
    assert_eq!(
        others(&told_of_talk),
        [&json!("please answer"), &json!({"answer": "an answer"}), &json!({"wrapped": 2})]
    );
    assert!(reports(&told_of_talk).len() >= 2 && ended_well(&told_of_talk));

    let told_of_disconnect = told("disconnect", &under_pm2());
    assert!(reports(&told_of_disconnect).is_empty() && ended_well(&told_of_disconnect), "{told_of_disconnect:?}");
}

#[rstest]
#[tokio::test]
async fn arrives_with_the_list_of_a_real_pm2(#[values("pm2-5", "pm2-6", "pm2-7")] alias: &'static str) {
    assert!(VERSIONS.iter().any(|(known, _)| *known == alias));
    let pm2 = Pm2::start(alias);
    let app = file("tests/preload/keeper.cjs").display().to_string();
    let load = format!("-r {} --expose-gc", preload());
    pm2.run(&["start", &app, "--name", "forked", "--no-pmx", "--node-args", &load]);
    pm2.run(&["start", &app, "--name", "clustered", "-i", "2", "--node-args", &load]);

    let mut collector = Collector::new(vec![pm2.spec(Source::Socket)], Settings::default());
    let shared = tokio::sync::Mutex::new(&mut collector);
    let seen = wait_until("reports of all three", Duration::from_mins(1), || async {
        let mut collector = shared.lock().await;
        let sample = collector.collect(steady(), wall()).await.daemons.remove(0);
        let told: Vec<ProcessSample> = sample.processes.into_iter().filter(has_told).collect();
        if told.len() == 3 { Ok(told) } else { Err(format!("{} of 3", told.len())) }
    })
    .await;
    for process in seen {
        let report = process.listed.metrics.gc.unwrap();
        let after = report.heap_after_major_gc.unwrap().as_f64();
        assert!((5e6..5e7).contains(&after), "{}: {report:?}", process.listed.app);
        assert!(report.major_gcs >= 1 && report.gc_seconds > 0.0, "{report:?}");
        // What goes in as a metric of leakslope's is none of the app's own.
        assert!(process.listed.metrics.custom.iter().all(|metric| !metric.name.starts_with("GC ")), "{process:?}");
    }
}

fn has_told(process: &ProcessSample) -> bool {
    process.listed.metrics.gc.is_some_and(|report| report.heap_after_major_gc.is_some())
}

#[test]
fn costs_an_idle_app_next_to_nothing() {
    let app = file("benches/preload/app.cjs").display().to_string();
    let cpu = |loaded: bool| {
        let exec: Vec<String> = if loaded { vec!["-r".to_owned(), preload()] } else { Vec::new() };
        let plan = json!({"file": app, "args": ["idle", "6"], "execArgv": exec, "env": under_pm2()});
        let parent = file("tests/preload/parent.cjs").display().to_string();
        let output = node(&[&parent, &plan.to_string()]);
        let line = output.lines().find(|line| line.contains("cpuSeconds")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["cpuSeconds"].as_f64().unwrap()
    };
    let share = (cpu(true) - cpu(false)) / 6.0;
    println!("an idle app pays {:.3} % of a core", share * 100.0);
    // The bench measures it at a twentieth of a percent; a machine under test load inflates CPU time.
    assert!(share < 0.003, "{share}");
}
