//! From a real leaking app to a real page: pm2, the sidecar, Prometheus with the shipped rules, Alertmanager with the shipped
//! example, and whoever answers its webhooks. On the way every query of every panel and rule is asked.
//!
//! Time is compressed in the sidecar (a minute of its windows is a second) and in the rules' `for`; nothing else differs
//! from what users copy.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::queries::{Query, interpolate, of_dashboards};
use crate::rule_files::rules;
use crate::support::pm2::{self, Pm2};
use crate::support::stack::{self, Listener, Notification, alertmanager, api, impatient_routes, sidecar, watching};
use crate::support::wait_for;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "a token of the test's own";

/// How long a leak may take to be found, told and paged.
const LEAK_DEADLINE: Duration = Duration::from_mins(8);
const DEADLINE: Duration = Duration::from_mins(2);

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The apps of the test: one leaks, one serves and is well, one cannot start, one has two workers.
fn apps(pm2: &Pm2) {
    let app = |name: &str| root("tests/alerts/apps").join(name).display().to_string();
    let preload = format!("-r {}", root("deploy/node/leakslope-gc.cjs").display());
    let leaker = app("leaker.cjs");
    pm2.run(&["start", &leaker, "--name", "leaker", "--max-memory-restart", "400M", "--node-args", &preload]);
    let args = format!("{preload} --max-old-space-size=512");
    pm2.run(&["start", &app("healthy.cjs"), "--name", "healthy", "--node-args", &args]);
    pm2.start_app(&json!({ "name": "crasher", "script": pm2::app("crasher.js"), "min_uptime": 60_000 }));
    pm2.run(&["start", &pm2::app("server.js"), "--name", "cluster", "-i", "2"]);
}

struct Stack {
    pm2: Pm2,
    sidecar: SocketAddr,
    prometheus: SocketAddr,
    listener: Listener,
    _running: [stack::Running; 3],
    _folder: TempDir,
}

fn start() -> Stack {
    let folder = tempfile::tempdir().unwrap();
    let pm2 = Pm2::start("pm2-7");
    apps(&pm2);
    let configuration = format!(
        "interval = \"1s\"\n[web]\nlisten_address = \"127.0.0.1:0\"\n[trend]\nminute = \"1s\"\n\
         [[pm2]]\nname = \"default\"\nhome = \"{}\"\nsource = \"socket\"\n",
        pm2.home().display()
    );
    let (sidecar_runs, sidecar) = sidecar(folder.path(), &configuration);

    let listener = Listener::start();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let (alertmanager_runs, alertmanager) =
        alertmanager(folder.path(), &impatient_routes(listener.address, listener.address, sidecar, &token));

    let (prometheus_runs, prometheus) = watching(folder.path(), sidecar, alertmanager);
    let running = [sidecar_runs, alertmanager_runs, prometheus_runs];
    Stack { pm2, sidecar, prometheus, listener, _running: running, _folder: folder }
}

#[test]
fn a_leak_becomes_a_page_and_every_query_answers() {
    let stack = start();
    alerts_are_all_evaluated(&stack);

    // A process that cannot start is down, and its app with it: the page names the app, the ticket is inhibited.
    let down = hear(&stack, "the page about the crasher", DEADLINE, |it| {
        it.path == "/page" && it.names().contains("Pm2AppDown") && it.label("app") == "crasher"
    });
    assert_eq!(down.label("severity"), "critical");

    // The leak, as the sidecar is told of it.
    let request = hear(&stack, "the request for a reload", LEAK_DEADLINE, |it| it.path == "/api/v1/alerts");
    assert_eq!(request.authorization.as_deref(), Some(format!("Bearer {TOKEN}").as_str()));
    assert_eq!((&request.body["version"], &request.body["status"]), (&Value::from("4"), &Value::from("firing")));
    let expected = [
        ("app", "leaker"),
        ("daemon", "default"),
        ("pm_id", "0"),
        ("leakslope_action", "reload"),
        ("instance", &stack.sidecar.to_string()),
    ];
    for (name, value) in expected {
        assert_eq!(request.label(name), value, "{request:#?}");
    }
    let description = request.body["alerts"][0]["annotations"]["description"].as_str().unwrap();
    assert!(description.contains(" MiB/h; its limit of 400MiB (max_memory_restart) is "), "{description}");

    // Four hundred MiB are near, so a person is woken as well.
    hear(&stack, "the page about the leak", DEADLINE, |it| {
        it.path == "/page" && it.names().contains("Pm2LeakExhaustionNear") && it.label("app") == "leaker"
    });
    let leaking: BTreeSet<String> = firing(&stack, "Pm2Leak.+").into_iter().map(|alert| alert["app"].clone()).collect();
    assert_eq!(leaking, BTreeSet::from(["leaker".to_owned()]), "only the leaker leaks");

    panels_and_rules_answer(&stack);

    // The process is gone: the request is withdrawn.
    stack.pm2.run(&["delete", "leaker"]);
    hear(&stack, "that it is over", DEADLINE, |it| it.path == "/api/v1/alerts" && it.body["status"] == "resolved");
}

fn alerts_are_all_evaluated(stack: &Stack) {
    wait_for("one evaluation of every rule", DEADLINE, || {
        let data = api(stack.prometheus, "rules", &[])?;
        let groups = data["groups"].as_array().ok_or("no groups")?;
        let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
        let unwell: Vec<&&Value> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
        if rules.len() >= 30 && unwell.is_empty() {
            Ok(())
        } else {
            Err(format!("{} rules, unwell: {unwell:#?}", rules.len()))
        }
    });
}

/// Waits for a notification and returns it.
fn hear(stack: &Stack, what: &str, deadline: Duration, is_it: impl Fn(&Notification) -> bool) -> Notification {
    wait_for(what, deadline, || {
        let heard = stack.listener.heard();
        heard.iter().find(|notification| is_it(notification)).cloned().ok_or_else(|| {
            let seen: Vec<String> =
                heard.iter().map(|it| format!("{} {} {:?}", it.path, it.body["status"], it.names())).collect();
            let state = api(stack.prometheus, "query", &[("query", r#"pm2_process_leak_state{app="leaker"} == 1"#)]);
            format!("heard {seen:#?}; the leaker is {state:?}")
        })
    })
}

fn firing(stack: &Stack, names: &str) -> Vec<BTreeMap<String, String>> {
    let query = format!(r#"ALERTS{{alertstate="firing",alertname=~"{names}"}}"#);
    let data = api(stack.prometheus, "query", &[("query", &query)]).unwrap();
    let series = data["result"].as_array().unwrap();
    series.iter().map(|one| serde_json::from_value(one["metric"].clone()).unwrap()).collect()
}

/// Asks every query of the dashboards, as Grafana would.
fn panels_and_rules_answer(stack: &Stack) {
    // Restarts by the sidecar, deploys, evidence and windows have a series only where there are any, and none is here.
    const MAY_BE_EMPTY: &[&str] = &[
        "annotation Restarts by leakslope",
        "annotation Deploys",
        "app.json: Restarts: B",
        "app.json: Latest evidence: A",
        "app.json: Next window: A",
        "app.json: Freed last: A",
    ];
    let recorded = rules().into_iter().filter_map(|rule| rule.record).map(|name| Query {
        origin: format!("rule {name}"),
        expression: name,
        instant: true,
        panel: None,
    });
    let queries: Vec<Query> = of_dashboards().into_iter().chain(recorded).collect();
    assert!(queries.len() > 100, "{} queries", queries.len());
    wait_for("an answer to every query", DEADLINE, || {
        let mut empty = Vec::new();
        let mut panels: BTreeMap<String, bool> = BTreeMap::new();
        for query in &queries {
            let answered = ask(stack.prometheus, query);
            if let Some(panel) = &query.panel {
                *panels.entry(panel.clone()).or_default() |= answered;
            }
            if !answered && !MAY_BE_EMPTY.iter().any(|known| query.origin.ends_with(known)) {
                empty.push(query.origin.clone());
            }
        }
        let empty_panels: Vec<&String> =
            panels.iter().filter(|(_, answered)| !**answered).map(|(name, _)| name).collect();
        if empty.is_empty() {
            Ok(())
        } else {
            Err(format!("empty panels: {empty_panels:#?}, empty queries: {empty:#?}"))
        }
    });
    println!("{} queries of dashboards and rules answered", queries.len());
}

/// Whether a query has an answer; fails where Prometheus refuses it.
fn ask(prometheus: SocketAddr, query: &Query) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let expression = interpolate(&query.expression, "15s", "2m", now);
    let (start, end) = ((now - 60).to_string(), now.to_string());
    let data = if query.instant {
        api(prometheus, "query", &[("query", &expression), ("time", &end)])
    } else {
        api(prometheus, "query_range", &[("query", &expression), ("start", &start), ("end", &end), ("step", "5")])
    };
    let data = data.unwrap_or_else(|error| panic!("{}: {error}\n{expression}", query.origin));
    data["result"].as_array().is_some_and(|series| !series.is_empty())
}
