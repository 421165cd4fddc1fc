//! A leak that asks for its own restart, with nothing between that is not real: a cluster app on pm2, the sidecar,
//! Prometheus with the shipped rules, Alertmanager with the shipped routes, the webhook with its token, the window, the
//! roll, and the alert that goes away.
//!
//! Time is compressed in the sidecar's detector and in the rules' `for`; windows, gates and the roll run in real time.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::pm2::{Pm2, is_alive, signal};
use crate::support::stack::{self, Listener, Notification, alertmanager, api, impatient_routes, watching};
use crate::support::{wait_for, wall};
use rustix::process::Signal;
use serde_json::Value;

const TOKEN: &str = "a-token-of-the-test-alone";
const APP: &str = "shop";
/// How long a leak may take to be found.
const LEAK_DEADLINE: Duration = Duration::from_mins(6);
const DEADLINE: Duration = Duration::from_mins(3);

/// Only an alert may ask, and only the window beginning at `start` (`HH:MM`, UTC) lets it through.
fn configuration(pm2: &Pm2, token: &Path, start: &str, length: &str) -> String {
    format!(
        r#"interval = "1s"
[collect]
heap_interval = "500ms"
[web]
listen_address = "127.0.0.1:0"
token_file = "{token}"
[trend]
minute = "500ms"
[[pm2]]
home = "{home}"
source = "socket"
[[app]]
name = "{APP}"
memory_limit = "600MiB"
[restart]
mode = "enforce"
host_memory_reserve = "16MiB"
[[restart.policy]]
apps = ["{APP}"]
minimum_uptime = "5s"
cooldown = "1m"
leak = {{ enabled = false }}
windows = [{{ days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], start = "{start}", length = "{length}" }}]
verify = {{ stable_for = "2s" }}
breaker = {{ settle = "3s", minimum_time_bought = "5s" }}
"#,
        token = token.display(),
        home = pm2.home().display(),
    )
}

/// The whole minute that is `ahead` of now: in seconds since 1970, and as `HH:MM` in UTC.
fn minute(ahead: Duration) -> (i64, String) {
    let seconds = (wall().0 / 1000 + i64::try_from(ahead.as_secs()).unwrap()) / 60 * 60;
    (seconds, format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60))
}

struct Stack {
    pm2: Pm2,
    sidecar: SocketAddr,
    sidecar_pid: u32,
    prometheus: SocketAddr,
    people: Listener,
    folder: tempfile::TempDir,
    _running: [stack::Running; 3],
}

impl Stack {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pm2 = Pm2::start("pm2-7");
        let own = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string();
        let preload = format!("-r {}", own("deploy/node/leakslope-gc.cjs"));
        let app = own("tests/alerts/apps/leaky-server.cjs");
        pm2.run(&["start", &app, "--name", APP, "-i", "2", "--node-args", &preload]);
        let token = folder.path().join("token");
        fs::write(&token, TOKEN).unwrap();
        // Half a day away: closed for as long as this test takes.
        let closed = configuration(&pm2, &token, &minute(Duration::from_hours(12)).1, "1m");
        let (sidecar_runs, sidecar) = stack::sidecar(folder.path(), &closed);
        let people = Listener::start();
        let routes = impatient_routes(people.address, sidecar, sidecar, &token);
        let (alertmanager_runs, alertmanager) = alertmanager(folder.path(), &routes);
        let (prometheus_runs, prometheus) = watching(folder.path(), sidecar, alertmanager);
        let sidecar_pid = sidecar_runs.pid();
        let running = [sidecar_runs, alertmanager_runs, prometheus_runs];
        Self { pm2, sidecar, sidecar_pid, prometheus, people, folder, _running: running }
    }

    fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_str(&stack::get(self.sidecar, path)?).map_err(|error| error.to_string())
    }

    fn restarts(&self) -> Result<Value, String> {
        self.json("/api/v1/restarts")
    }

    /// The audit records of a kind, the oldest first.
    fn audit(&self, kind: &str) -> Result<Vec<Value>, String> {
        let restarts = self.restarts()?;
        let mut records = restarts["audit"].as_array().ok_or("no audit")?.clone();
        records.retain(|record| record["kind"] == kind);
        records.sort_by_key(|record| record["id"].as_u64());
        Ok(records)
    }

    /// The processes of the app by `pm_id`: pid and resident memory.
    fn processes(&self) -> Result<BTreeMap<u64, (u64, u64)>, String> {
        let view = self.json("/api/v1/processes")?;
        let processes = view["processes"].as_array().ok_or_else(|| view.to_string())?;
        let of = |process: &Value| {
            Some((process["pm_id"].as_u64()?, (process["pid"].as_u64()?, process["resident_memory_bytes"].as_u64()?)))
        };
        Ok(processes.iter().filter(|process| process["app"] == APP).filter_map(of).collect())
    }

    fn firing(&self) -> Result<Vec<Value>, String> {
        let query =
            format!(r#"ALERTS{{alertstate="firing",alertname=~"Pm2Leak.*",leakslope_action="reload",app="{APP}"}}"#);
        let data = api(self.prometheus, "query", &[("query", &query)])?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    fn heard(&self, is_it: impl Fn(&Notification) -> bool) -> bool {
        self.people.heard().iter().any(is_it)
    }
}

#[test]
fn a_leak_asks_through_alertmanager_and_is_rolled_in_its_window() {
    let begun = Instant::now();
    let stack = Stack::start();
    let told = |what: &str| println!("{:5.1} s: {what}", begun.elapsed().as_secs_f64());
    told("everything runs");

    // Both workers leak, both alerts have come through, and the window alone holds them.
    wait_for("both workers to wait for their window", LEAK_DEADLINE, || {
        let view = stack.restarts()?;
        let targets: Vec<&Value> = view["requests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|request| request["trigger"] == "alert" && request["app"] == APP)
            .flat_map(|request| request["targets"].as_array().unwrap())
            .collect();
        let closed = |target: &Value| -> Vec<String> {
            let gates = target["gates"].as_array().into_iter().flatten();
            // What is asked last is not asked yet.
            let held = gates.filter(|gate| gate["open"] == false && gate["reason"] != "asking");
            held.map(|gate| gate["gate"].as_str().unwrap().to_owned()).collect()
        };
        let held = targets.len() == 2 && targets.iter().all(|target| closed(target) == ["window"]);
        if held { Ok(()) } else { Err(format!("{:#}; {}", view["requests"], stack.json("/api/v1/processes")?)) }
    });
    told("both workers wait for their window");
    let before = stack.processes().unwrap();
    assert!(stack.audit("restart").unwrap().is_empty(), "nothing is done outside the window");
    assert!(!stack.firing().unwrap().is_empty());
    wait_for("people to hear of it as well", DEADLINE, || {
        let heard = stack.heard(|it| it.body["status"] == "firing" && it.label("app") == APP);
        if heard { Ok(()) } else { Err(format!("{:?}", stack.people.heard())) }
    });

    // The window is moved to the next minute; everything else stays.
    let (opens, start) = minute(Duration::from_mins(1));
    let token = stack.folder.path().join("token");
    let text = configuration(&stack.pm2, &token, &start, "2h");
    fs::write(stack::configuration_file(stack.folder.path()), text).unwrap();
    signal(stack.sidecar_pid, Signal::HUP);
    told("the window was moved");

    let restarts = wait_for("the roll", DEADLINE, || {
        let records = stack.audit("restart")?;
        let verified = records.iter().filter(|record| record["outcome"] == "verified").count();
        if verified == 2 { Ok(records) } else { Err(format!("{records:#?}; {:#}", stack.restarts()?["requests"])) }
    });
    told("both workers are replaced");
    let order: Vec<u64> = restarts.iter().map(|record| record["pm_id"].as_u64().unwrap()).collect();
    assert_eq!(order, [1, 0], "the worst slope first");
    for record in &restarts {
        assert_eq!((&record["action"], &record["trigger"]), (&Value::from("reload"), &Value::from("alert")));
        #[allow(clippy::cast_precision_loss, reason = "seconds of the calendar fit")]
        let opens = opens as f64;
        assert!(record["at"].as_f64().unwrap() >= opens, "not before the window opened at {opens}: {record:#}");
        let bytes = |field: &str| record[field].as_u64().unwrap_or_else(|| panic!("no {field}: {record:#}"));
        let (held, holds) = (bytes("memory_before_bytes"), bytes("memory_after_bytes"));
        assert!(holds < held / 2, "memory is back: {holds} of {held}");
    }

    // Memory is back where it began, by what pm2 and the system say, under new pids.
    let after = wait_for("both new workers in the list", DEADLINE, || {
        let now = stack.processes()?;
        let new = |(pm_id, (pid, held)): (&u64, &(u64, u64))| {
            before.get(pm_id).is_some_and(|(old, much)| old != pid && held < much)
        };
        if now.len() == 2 && now.iter().all(new) { Ok(now) } else { Err(format!("{before:?}, now {now:?}")) }
    });
    println!("before: {before:?}, after: {after:?}");
    for (pid, _) in before.values() {
        assert!(!is_alive(u32::try_from(*pid).unwrap()), "the old worker {pid} is gone");
    }

    // The alerts go away, also for people, and nothing asks any more.
    wait_for("the alerts to resolve", DEADLINE, || {
        let firing = stack.firing()?;
        let resolved = stack.heard(|it| {
            it.body["status"] == "resolved"
                && it.label("app") == APP
                && it.names().iter().any(|name| name.starts_with("Pm2Leak"))
        });
        if firing.is_empty() && resolved { Ok(()) } else { Err(format!("{firing:#?} {:#?}", stack.people.heard())) }
    });
    told("the alerts are resolved");

    // The record tells the whole story: who asked, what every gate said, what was done, how it went, what it brought.
    let (asked, ended) = wait_for("a complete record", DEADLINE, || {
        let (asked, ended) = (stack.audit("requested")?, stack.audit("request_ended")?);
        let helped = stack.audit("restart")?.iter().all(|record| record["helped"] == true);
        let open = stack.restarts()?["requests"].as_array().map_or(0, Vec::len);
        if helped && open == 0 && !ended.is_empty() {
            Ok((asked, ended))
        } else {
            Err(format!("{open} open; {:#}", stack.restarts()?["audit"]))
        }
    });
    assert!(asked.iter().all(|record| record["trigger"] == "alert"), "{asked:#?}");
    assert!(restarts.iter().all(|record| asked.iter().any(|asked| asked["request"] == record["request"])));
    assert!(restarts.iter().all(|record| ended.iter().any(|ended| ended["request"] == record["request"])));
    let metrics = stack::get(stack.sidecar, "/metrics").unwrap();
    let counted = format!(
        "leakslope_restarts_total{{daemon=\"default\",namespace=\"default\",app=\"{APP}\",action=\"reload\",outcome=\"verified\"}} 2\n"
    );
    assert!(metrics.contains(&counted), "no {counted} in {metrics}");
    told("the record is complete");
}
