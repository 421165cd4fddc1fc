//! The API of the sidecar itself, beside a real pm2: every answer is what `docs/openapi.yaml` says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "ui_openapi/schema.rs"]
mod schema;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use schema::Document;
use serde_json::Value;
use support::pm2::{Pm2, app};
use support::wait_for;

/// The sidecar on a port of its own; ended on drop.
struct Sidecar {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Sidecar {
    fn beside(pm2: &Pm2) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leakslope.toml");
        let home = pm2.home().display().to_string();
        let text = format!(
            "interval = \"1s\"\n[[pm2]]\nname = \"default\"\nhome = {home:?}\n[web]\nlisten_address = \"127.0.0.1:0\"\n\
             [trend]\nminute = \"1s\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_leakslope"))
            .args(["run", "--config"])
            .arg(&file)
            .env("STATE_DIRECTORY", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("http://") {
                    tell.send(rest.split('/').next().unwrap_or_default().to_owned()).ok();
                }
            }
        });
        let address = told.recv_timeout(Duration::from_secs(20)).expect("the sidecar tells its address");
        Self { child, address, _folder: folder }
    }

    /// Asks for a path; returns the status, the head and the body.
    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.address).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let (status, head, body) = self.get(path, "");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains("content-type: application/json"), "{path}: {head}");
        serde_json::from_str(&body).unwrap()
    }

    fn holds(&self, schema: &str, path: &str) -> Value {
        let value = self.json(path);
        let faults = Document::read().faults(schema, &value);
        assert!(faults.is_empty(), "{path} is no {schema}:\n{}\n{value:#}", faults.join("\n"));
        value
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn every_answer_is_what_the_document_says() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "shop & <b>", "--max-memory-restart", "200M"]);
    pm2.run(&["start", &app("eater.js"), "--name", "stopped"]);
    pm2.run(&["stop", "stopped"]);
    let sidecar = Sidecar::beside(&pm2);
    let judged = |view: &Value| view["processes"][0]["verdict"]["slopes"].as_object().is_some_and(|it| !it.is_empty());
    wait_for("a verdict with its slopes", Duration::from_mins(2), || {
        let (status, _, body) = sidecar.get("/api/v1/processes", "");
        let view: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if status == 200 && judged(&view) { Ok(()) } else { Err(body) }
    });

    let view = sidecar.holds("Processes", "/api/v1/processes");
    assert!(view["processes"][0]["sparkline"]["resident_min_bytes"].as_array().is_some_and(|points| points.len() > 5));
    for query in ["", "?from=0", "?span=20", "?span=60&step=5"] {
        let view = sidecar.holds("History", &format!("/api/v1/processes/default/0/history{query}"));
        assert!(view["time"].as_array().is_some_and(|time| time.len() > 3), "{query}: {view:#}");
    }
    let compared = sidecar.holds("Compare", "/api/v1/compare?daemon=default&app=shop+%26+%3Cb%3E");
    assert_eq!(compared["versions"].as_array().map(Vec::len), Some(1), "{compared:#}");
    for (path, status) in [
        ("/api/v1/processes/default/0/history?from=yesterday", 400),
        ("/api/v1/processes/default/x/history", 400),
        ("/api/v1/processes/default/77/history", 404),
        ("/api/v1/processes/nobody/0/history.csv", 404),
        ("/api/v1/compare?daemon=default", 400),
        ("/api/v1/none", 404),
    ] {
        let (answered, _, body) = sidecar.get(path, "");
        assert_eq!(answered, status, "{path}: {body}");
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(Document::read().faults("Error", &value), Vec::<String>::new(), "{path}: {body}");
    }
}

#[test]
fn an_answer_that_has_not_changed_is_not_sent_twice() {
    let pm2 = Pm2::start("pm2-7");
    let sidecar = Sidecar::beside(&pm2);
    let tag_of = |head: &str| head.lines().find_map(|line| line.strip_prefix("etag: ")).map(str::to_owned);
    for path in ["/", "/static/app.js"] {
        let (status, head, body) = sidecar.get(path, "");
        assert_eq!((status, body.is_empty()), (200, false), "{path}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        let tag = tag_of(&head).unwrap();
        let (status, _, body) = sidecar.get(path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((status, body.as_str()), (304, ""), "{path}");
    }
}
