//! Evidence that the sidecar takes by itself and on request, of a real app that leaks under a real daemon: what it names,
//! what is on record, and who gets the file.
//!
//! Time is compressed in the detector only; sampling and the restart run in real time.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::time::Duration;

use crate::support::pm2::{Pm2, app};
use crate::support::raw::{Answer, exchange};
use crate::support::sidecar::{DEADLINE, Place, Sidecar};
use crate::support::wait_for;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-test-alone";
/// How long a leak may take to be found.
const LEAK_DEADLINE: Duration = Duration::from_mins(6);

fn ask(sidecar: &Sidecar, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
    let address = sidecar.address();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}");
    exchange(address, &format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
        .unwrap()
}

/// Waits for an item of evidence that `is_it`, and returns it.
fn item(sidecar: &Sidecar, what: &str, deadline: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, deadline, || {
        let view = sidecar.json("/api/v1/evidence?daemon=default&pm_id=0");
        let found = view["evidence"].as_array().unwrap().iter().find(|item| is_it(item)).cloned();
        found.ok_or_else(|| format!("{view:#}\n{}", sidecar.log()))
    })
}

#[test]
fn a_leak_is_profiled_once_and_again_before_its_restart() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("leaker.js"), "--name", "leaker"]);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let configuration = format!(
        r#"interval = "1s"
collect.heap_interval = "500ms"
web.token_file = "{}"
trend.minute = "500ms"
[evidence]
on_leak = "profile"
before_restart = "profile"
duration = "2s"
before_restart_duration = "2s"
cooldown = "1s"
[[app]]
name = "leaker"
memory_limit = "600MiB"
[restart]
mode = "enforce"
[[restart.policy]]
apps = ["leaker"]
minimum_uptime = "1s"
take_last_instance = true
leak = {{ enabled = false }}
verify = {{ stable_for = "1s" }}
"#,
        token.display()
    );
    let place = Place::new(&pm2.home(), &configuration);
    let sidecar = place.start();

    // The verdict turns, and the profile names the function.
    let of_leak = item(&sidecar, "a profile of the leak", LEAK_DEADLINE, |item| {
        item["trigger"] == "leak" && item["state"] == "done"
    });
    let sentence = of_leak["sentence"].as_str().unwrap();
    assert!(sentence.contains("still alive, keepForEver at ") && sentence.contains("leaker.js:"), "{of_leak:#}");
    assert_eq!(of_leak["top"][0]["name"], "keepForEver", "{of_leak:#}");
    assert_eq!(sidecar.logged("it was found to leak").len(), 1, "{}", sidecar.log());
    wait_for("the log", DEADLINE, || {
        let told = sidecar.logged(sentence);
        if told.len() == 1 { Ok(()) } else { Err(sidecar.log()) }
    });

    // The cooldown is over at once, and yet this life has had its own.
    let standing = wait_for("the reason why there is no other", DEADLINE, || {
        let view = sidecar.json("/api/v1/evidence?daemon=default&pm_id=0");
        let standing = view["standing"].as_str().unwrap_or_default().to_owned();
        if standing.contains("has had its profile") { Ok(standing) } else { Err(format!("{view:#}")) }
    });
    assert!(standing.contains(of_leak["id"].as_str().unwrap()), "{standing}");

    let (metrics, _) = sidecar.until("the metric", |metrics| {
        let labels = [("app", "leaker"), ("pm_id", "0"), ("kind", "heap_profile")];
        metrics
            .value("pm2_process_evidence_timestamp_seconds", &labels)
            .filter(|at| Some(*at) == of_leak["taken_at"].as_f64())
    });
    assert_eq!(metrics.all("pm2_process_evidence_timestamp_seconds", &[]).len(), 1);

    only_a_token_opens_the_file(&sidecar, of_leak["id"].as_str().unwrap());
    a_person_is_served_and_nobody_else_meanwhile(&sidecar);

    // A restart takes its own first, and its record tells of it.
    let restart = json!({ "app": "leaker", "pm_id": 0, "now": true, "who": "a test", "why": "to see" });
    let answer = ask(&sidecar, "POST", "/api/v1/restarts", Some(TOKEN), &restart.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    let record = wait_for("the restart", DEADLINE * 3, || {
        let view = sidecar.json("/api/v1/restarts");
        let done = |record: &&Value| record["kind"] == "restart" && record["outcome"] == "verified";
        view["audit"]
            .as_array()
            .unwrap()
            .iter()
            .find(done)
            .cloned()
            .ok_or_else(|| format!("{view:#}\n{}", sidecar.log()))
    });
    let before = item(&sidecar, "what was taken before", DEADLINE, |item| item["trigger"] == "before_restart");
    assert_eq!((&before["state"], &record["evidence"]), (&json!("done"), &before["id"]), "{record:#}");
    let told = record["sentence"].as_str().unwrap();
    assert!(told.contains("a heap profile was taken first") && told.contains("keepForEver at "), "{told}");
}

/// The file is for who shows a token, by its id alone.
fn only_a_token_opens_the_file(sidecar: &Sidecar, id: &str) {
    let file = |id: &str, token| ask(sidecar, "GET", &format!("/api/v1/evidence/{id}/file"), token, "");
    let answer = file(id, Some(TOKEN));
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-disposition"), Some(format!("attachment; filename=\"{id}\"").as_str()));
    assert!(serde_json::from_str::<Value>(&answer.body).unwrap()["head"].is_object());
    assert_eq!((file(id, None).status, file(id, Some("another-token-12345")).status), (401, 401));
    for other in ["none.heapprofile", "..%2F..%2Fleakslope.toml", "%2e%2e", &format!("{id}.json")] {
        let answer = file(other, Some(TOKEN));
        assert!(matches!(answer.status, 400 | 404), "{other}: {} {}", answer.status, answer.body);
    }
}

/// A person asks; nobody else may meanwhile, and what makes no sense is told so.
fn a_person_is_served_and_nobody_else_meanwhile(sidecar: &Sidecar) {
    let post = |token, order: &Value| ask(sidecar, "POST", "/api/v1/evidence", token, &order.to_string());
    let order = json!({ "app": "leaker", "pm_id": 0, "kind": "heap_profile", "duration": "4s", "who": "a test" });
    assert_eq!(post(None, &order).status, 401);
    let answer = post(Some(TOKEN), &order);
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer.status, 202, "{told:#}");
    let running = item(sidecar, "it to run", DEADLINE, |item| item["id"] == told["id"]);
    assert_eq!(running["trigger"], "person");
    let busy = post(Some(TOKEN), &order);
    assert!(busy.status == 409 && busy.body.contains("one at a time is enough for a host"), "{}", busy.body);
    for (order, status, words) in [
        (json!({ "app": "nobody" }), 409, "no running process of nobody is listed"),
        (json!({ "app": "leaker", "kind": "heap_snapshot" }), 409, "on the command line only"),
        (json!({ "app": "leaker", "duration": "2h" }), 400, "a second to an hour"),
        (json!({ "app": "leaker", "duration": "soon" }), 400, "is not a duration"),
        (json!({ "app": "leaker", "kind": "core" }), 400, "the body is no such order"),
    ] {
        let answer = post(Some(TOKEN), &order);
        assert!(answer.status == status && answer.body.contains(words), "{order}: {} {}", answer.status, answer.body);
    }
    item(sidecar, "the person's", DEADLINE, |item| item["id"] == told["id"] && item["state"] == "done");
}

#[test]
fn a_file_goes_to_nobody_where_nobody_has_to_say_who_they_are() {
    let home = tempfile::tempdir().unwrap();
    let place = Place::new(home.path(), "interval = \"1s\"\n");
    let folder = place.state().join("leakslope/evidence");
    fs::create_dir_all(&folder).unwrap();
    let record = json!({ "daemon": "default", "app": "shop", "pm_id": 0, "taken_at": 1, "sampled_seconds": 1.0,
        "file": "shop-0.heapprofile" });
    fs::write(folder.join("shop-0.heapprofile.json"), record.to_string()).unwrap();
    fs::write(folder.join("shop-0.heapprofile"), "{}").unwrap();
    let sidecar = place.start();
    let listed = sidecar.json("/api/v1/evidence");
    assert_eq!(listed["evidence"][0]["id"], "shop-0.heapprofile", "{listed:#}");
    let answer = ask(&sidecar, "GET", "/api/v1/evidence/shop-0.heapprofile/file", Some(TOKEN), "");
    assert_eq!((answer.status, answer.code().as_str()), (403, "authentication_not_set_up"), "{}", answer.body);
    assert!(answer.body.contains("set web.token_file, or basic_auth_users"), "{}", answer.body);
}
