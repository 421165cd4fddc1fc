//! The API of the sidecar itself, beside a real pm2: every answer is what `docs/openapi.yaml` says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use crate::schema::Document;
use crate::support::pm2::{Pm2, app};
use crate::support::raw::{self, Answer};
use crate::support::sidecar::{Place, Sidecar};
use crate::support::wait_for;
use serde_json::{Value, json};

const COMPRESSED: &str = "interval = \"1s\"\n[trend]\nminute = \"1s\"\n";

/// Sends one request with these headers, each with its line end.
fn exchange(sidecar: &Sidecar, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let (host, length) = (sidecar.address(), body.len());
    let head = format!("host: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}");
    raw::exchange(host, &format!("{method} {path} HTTP/1.1\r\n{head}\r\n{body}")).unwrap()
}

/// The body of an answer that says it is JSON.
fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.head);
    serde_json::from_str(&answer.body).unwrap()
}

/// Asserts that a value is what the schema says.
fn holds(schema: &str, value: &Value) {
    let faults = Document::read().faults(schema, value);
    assert!(faults.is_empty(), "this is no {schema}:\n{}\n{value:#}", faults.join("\n"));
}

fn read(sidecar: &Sidecar, schema: &str, path: &str) -> Value {
    let value = sidecar.json(path);
    holds(schema, &value);
    value
}

#[test]
fn what_is_read_is_what_the_document_says() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "shop & <b>", "--max-memory-restart", "200M"]);
    pm2.run(&["start", &app("eater.js"), "--name", "stopped"]);
    pm2.run(&["stop", "stopped"]);
    let place = Place::new(&pm2.home(), COMPRESSED);
    let sidecar = place.start();
    wait_for("a verdict with its slopes", Duration::from_mins(2), || {
        let view = sidecar.json("/api/v1/processes");
        let slopes = view["processes"][0]["verdict"]["slopes"].as_object();
        if slopes.is_some_and(|slopes| !slopes.is_empty()) { Ok(()) } else { Err(format!("{view:#}")) }
    });

    let view = read(&sidecar, "Processes", "/api/v1/processes");
    assert_eq!(view["interval_seconds"], 1.0);
    assert!(view["processes"][0]["sparkline"]["resident_min_bytes"].as_array().is_some_and(|points| points.len() > 5));
    for query in ["", "?from=0", "?span=20", "?span=60&step=5"] {
        let view = read(&sidecar, "History", &format!("/api/v1/processes/default/0/history{query}"));
        assert!(view["time"].as_array().is_some_and(|time| time.len() > 3), "{query}: {view:#}");
    }
    let compared = read(&sidecar, "Compare", "/api/v1/compare?daemon=default&app=shop+%26+%3Cb%3E");
    assert_eq!(compared["versions"].as_array().map(Vec::len), Some(1), "{compared:#}");
    assert_eq!(read(&sidecar, "Evidence", "/api/v1/evidence?daemon=default&pm_id=0")["evidence"], json!([]));
    let folder = place.state().join("leakslope/evidence");
    std::fs::create_dir_all(&folder).unwrap();
    let call = json!({ "functionName": "remember", "scriptId": "1", "url": "file:///app/a.js", "lineNumber": 3, "columnNumber": 0 });
    let root = json!({ "functionName": "(root)", "scriptId": "0", "url": "", "lineNumber": -1, "columnNumber": -1 });
    let profile = json!({ "head": { "callFrame": root, "selfSize": 0, "children": [
        { "callFrame": call, "selfSize": 4096, "children": [] } ] } });
    std::fs::write(folder.join("shop.heapprofile"), profile.to_string()).unwrap();
    for (file, at) in [("shop.heapprofile", 2000), ("gone.heapprofile", 1000)] {
        let record = json!({ "daemon": "default", "app": "shop & <b>", "pm_id": 0, "taken_at": at, "sampled_seconds": 5.0, "file": file });
        std::fs::write(folder.join(format!("{file}.json")), record.to_string()).unwrap();
    }
    let shown = read(&sidecar, "Evidence", "/api/v1/evidence?daemon=default&pm_id=0");
    assert_eq!(
        (&shown["evidence"][0]["state"], &shown["evidence"][0]["top"][0]["name"]),
        (&json!("done"), &json!("remember"))
    );
    assert_eq!(
        (&shown["evidence"][1]["state"], &shown["evidence"][1]["sentence"]),
        (&json!("failed"), &json!("the file is gone"))
    );
    assert_eq!(read(&sidecar, "Evidence", "/api/v1/evidence?pm_id=1")["evidence"], json!([]));
    for (path, status) in [
        ("/api/v1/processes/default/0/history?from=yesterday", 400),
        ("/api/v1/processes/default/x/history", 400),
        ("/api/v1/processes/default/77/history", 404),
        ("/api/v1/processes/nobody/0/history.csv", 404),
        ("/api/v1/compare?daemon=default", 400),
        ("/api/v1/evidence?pm_id=x", 400),
        ("/api/v1/none", 404),
    ] {
        let answer = exchange(&sidecar, "GET", path, "", "");
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        holds("Error", &json_of(&answer));
    }
}

#[test]
fn orders_and_their_answers_are_what_the_document_says() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "shop"]);
    let place = Place::new(&pm2.home(), COMPRESSED);
    let sidecar = place.start();
    let own = format!("origin: http://{}\r\n", sidecar.address());
    let json = "content-type: application/json\r\n";
    let send = |path: &str, headers: &str, body: &Value| exchange(&sidecar, "POST", path, headers, &body.to_string());

    let order = json!({ "daemon": "default", "app": "shop", "pm_id": 0, "now": true, "all": false, "who": "the page", "why": "a trial" });
    holds("RestartOrder", &order);
    let answer = send("/api/v1/restarts", &format!("{own}{json}"), &order);
    assert_eq!(answer.status, 202, "{}", answer.body);
    holds("Taken", &json_of(&answer));
    let view = wait_for("the request in the audit", Duration::from_secs(20), || {
        let view = read(&sidecar, "Restarts", "/api/v1/restarts");
        if view["audit"].as_array().is_some_and(|audit| !audit.is_empty()) { Ok(view) } else { Err(view.to_string()) }
    });
    assert_eq!((&view["mode"], &view["acting"]["allowed"]), (&json!("dry-run"), &json!(true)));
    assert_eq!(view["apps"][0]["opted_in"], false);

    for (path, headers, body, status) in [
        ("/api/v1/restarts", own.clone(), order.clone(), 415),
        ("/api/v1/restarts", format!("origin: http://evil.example\r\n{json}"), order.clone(), 403),
        ("/api/v1/restarts", format!("{own}{json}"), json!({ "application": "shop" }), 400),
        ("/api/v1/restarts", format!("{own}{json}"), json!({ "app": "nobody" }), 409),
        ("/api/v1/restarts/withdraw", format!("{own}{json}"), json!({ "request": 99 }), 409),
        ("/api/v1/restarts/breaker", format!("{own}{json}"), json!({ "app": "shop" }), 409),
        ("/api/v1/alerts", format!("{own}{json}"), json!({ "version": "3", "alerts": [] }), 400),
    ] {
        let answer = send(path, &headers, &body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        holds("Error", &json_of(&answer));
    }
    let webhook = json!({ "version": "4", "alerts": [{ "status": "firing", "labels": { "alertname": "other" } }] });
    holds("Webhook", &webhook);
    let answer = send("/api/v1/alerts", &format!("{own}{json}"), &webhook);
    assert_eq!(answer.status, 200, "{}", answer.body);
    holds("WebhookTaken", &json_of(&answer));
}

#[test]
fn an_answer_that_has_not_changed_is_not_sent_twice() {
    let pm2 = Pm2::start("pm2-7");
    // An hour between two collections: nothing changes meanwhile.
    let place = Place::new(&pm2.home(), "interval = \"1h\"\n");
    let sidecar = place.start();
    for path in ["/", "/static/app.js", "/api/v1/processes"] {
        let first = exchange(&sidecar, "GET", path, "", "");
        assert_eq!((first.status, first.body.is_empty()), (200, false), "{path}");
        let page = !path.starts_with("/api/");
        assert_eq!(first.head.contains("script-src 'self'; style-src 'self'"), page, "{path}: {}", first.head);
        let tag = first.header("etag").expect("the answer has a tag");
        let again = exchange(&sidecar, "GET", path, &format!("if-none-match: {tag}\r\n"), "");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}
