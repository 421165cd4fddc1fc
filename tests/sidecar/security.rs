//! Who may act, asked of the real binary: web pages of others, programs of this machine, holders of a token, the network.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::raw::{Answer, exchange};
use crate::support::sidecar::{DEADLINE, Place, Sidecar};
use crate::support::wait_for;

const TOKEN: &str = "the-token-of-this-test";
/// Every path that acts, with an order that each understands.
const ORDERS: [(&str, &str); 4] = [
    ("/api/v1/restarts", r#"{"app":"app-0"}"#),
    ("/api/v1/restarts/withdraw", r#"{"request":77}"#),
    ("/api/v1/restarts/breaker", r#"{"app":"nobody"}"#),
    ("/api/v1/alerts", r#"{"version":"4","status":"firing","alerts":[]}"#),
];

fn daemon() -> FakeDaemon {
    FakeDaemon::start(Behaviour::List(fake_daemon::list(2)))
}

/// Sends an order with these headers (without the usual ones) and returns the answer.
fn order(sidecar: &Sidecar, path: &str, body: &str, headers: &str) -> Answer {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    exchange(sidecar.address(), &format!("{head}{body}")).unwrap()
}

#[test]
fn on_loopback_without_a_token_a_program_acts_and_a_web_page_does_not() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    let sidecar = place.start();
    let own = sidecar.address().to_owned();
    let json = "content-type: application/json\r\n";
    for (path, body) in ORDERS {
        for (what, headers, status, code) in [
            ("a name that was rebound", format!("host: evil.example\r\n{json}"), 403, "foreign_host"),
            ("another page", format!("host: {own}\r\norigin: http://evil.example\r\n{json}"), 403, "foreign_origin"),
            ("a page in a frame", format!("host: {own}\r\norigin: null\r\n{json}"), 403, "foreign_origin"),
            ("a fetch", format!("host: {own}\r\nsec-fetch-site: cross-site\r\n{json}"), 403, "foreign_origin"),
            ("a form", format!("host: {own}\r\ncontent-type: text/plain\r\n"), 415, "content_type"),
            ("no type", format!("host: {own}\r\n"), 415, "content_type"),
        ] {
            let answer = order(&sidecar, path, body, &headers);
            assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{what} at {path}: {answer:?}");
        }
        let answer = order(&sidecar, path, body, &format!("host: {own}\r\n{json}"));
        assert!(matches!(answer.status, 200 | 202 | 409), "a program at {path}: {answer:?}");
    }
    assert_eq!(sidecar.json("/api/v1/restarts")["acting"]["allowed"], true);
    let asked = sidecar.json("/api/v1/restarts")["audit"].clone();
    let requests = asked.as_array().unwrap().iter().filter(|record| record["kind"] == "requested").count();
    assert_eq!(requests, 1, "one order was good, one was taken down: {asked:#}");
}

#[test]
fn where_there_is_a_token_it_alone_acts() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    fs::write(&file, format!("# ours\n{TOKEN}\n")).unwrap();
    place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{}\"\n", file.display()));
    let sidecar = place.start();
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    for (path, body) in ORDERS {
        for (what, credentials, expected) in [
            ("none", String::new(), "token_missing"),
            ("wrong", "authorization: Bearer the-token-of-another-test\r\n".to_owned(), "token_wrong"),
            ("a part", format!("authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]), "token_wrong"),
            ("a password", "authorization: Basic b3BzOnNlY3JldA==\r\n".to_owned(), "token_missing"),
            ("two", format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n"), "token_missing"),
        ] {
            let answer = order(&sidecar, path, body, &format!("{usual}{credentials}"));
            assert_eq!((answer.status, answer.code()), (401, expected.to_owned()), "{what} at {path}: {answer:?}");
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{answer:?}");
        }
        // Who has the token may come from anywhere: no browser sends it by itself.
        let foreign = format!("host: monitor.example\r\nauthorization: Bearer {TOKEN}\r\n");
        let answer = order(&sidecar, path, body, &foreign);
        assert!(matches!(answer.status, 200 | 202 | 409), "the token at {path}: {answer:?}");
    }
    assert!(!sidecar.log().contains(TOKEN), "{}", sidecar.log());

    // Another token takes its place without a restart; a file that is none changes nothing.
    let (path, body) = ORDERS[3];
    let with = |token: &str| order(&sidecar, path, body, &format!("{usual}authorization: Bearer {token}\r\n")).status;
    fs::write(&file, "another-token-of-this-test").unwrap();
    wait_for("the new token", DEADLINE, || match with("another-token-of-this-test") {
        200 => Ok(()),
        status => Err(format!("{status} {}", sidecar.log())),
    });
    assert_eq!(with(TOKEN), 401);
    fs::write(&file, "short").unwrap();
    wait_for("the complaint", DEADLINE, || {
        assert_eq!(with("another-token-of-this-test"), 200);
        if sidecar.log().contains("at least 16 characters") { Ok(()) } else { Err(sidecar.log()) }
    });
}

#[test]
fn beyond_loopback_nothing_acts_without_authentication_and_the_start_says_so_once() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n[restart]\nmode = \"enforce\"\n");
    let sidecar = place.start_on("0.0.0.0:0");
    assert!(sidecar.get("/metrics").contains("\npm2_up{daemon=\"default\"} 1\n"), "metrics stay readable");
    let told = sidecar.logged("no authentication is set up");
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("web.token_file"), "{}", sidecar.log());
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    for (path, body) in ORDERS {
        let answer = order(&sidecar, path, body, &usual);
        assert_eq!((answer.status, answer.code()), (403, "authentication_not_set_up".to_owned()), "{path}: {answer:?}");
        // Not even a large body is read for it.
        let answer = exchange(
            sidecar.address(),
            &format!("POST {path} HTTP/1.1\r\n{usual}expect: 100-continue\r\ncontent-length: 16000000\r\n\r\n"),
        );
        assert_eq!(answer.unwrap().status, 403);
    }
    assert_eq!(sidecar.json("/api/v1/restarts")["acting"]["allowed"], false);
    assert_eq!(sidecar.json("/api/v1/restarts")["audit"].as_array().map(Vec::len), Some(0));
    drop(sidecar);

    // With a token the same listener takes orders, and there is nothing to warn of.
    let file = place.state().join("tokens");
    fs::write(&file, TOKEN).unwrap();
    place.configure(&format!("interval = \"1s\"\n[web]\ntoken_file = \"{}\"\n", file.display()));
    let sidecar = place.start_on("0.0.0.0:0");
    assert!(sidecar.logged("no authentication is set up").is_empty(), "{}", sidecar.log());
    let (path, body) = ORDERS[0];
    assert_eq!(order(&sidecar, path, body, &usual).status, 401);
    assert_eq!(order(&sidecar, path, body, &format!("{usual}authorization: Bearer {TOKEN}\r\n")).status, 202);
}

#[test]
fn a_token_file_that_cannot_be_meant_stops_the_start_and_is_named() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "");
    let file = place.state().join("tokens");
    place.configure(&format!("[web]\ntoken_file = \"{}\"\n", file.display()));
    for (text, reason) in [
        (None, "No such file"),
        (Some("# none\n"), "no token"),
        (Some("guess-me\n"), "tokens:1: web.token_file: a token"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let output = place.run(&["--web.listen-address", "127.0.0.1:0"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("web.token_file") && said.contains(&file.display().to_string()), "{said}");
        assert!(said.contains(reason) && !said.contains("guess-me"), "{said}");
    }
}

#[test]
fn what_is_kept_is_for_its_user_alone() {
    let daemon = daemon();
    let place = Place::new(daemon.home(), "interval = \"1s\"\n");
    // Started by somebody who shares whatever they write.
    let mut sharing = place.program("bash");
    let binary = env!("CARGO_BIN_EXE_leakslope");
    sharing.args(["-c", &format!("umask 0; exec {binary} --web.listen-address 127.0.0.1:0")]);
    let mut sidecar = place.spawn(sharing).ready();
    let usual = format!("host: {}\r\ncontent-type: application/json\r\n", sidecar.address());
    let (path, body) = ORDERS[0];
    assert_eq!(order(&sidecar, path, body, &usual).status, 202);
    sidecar.collections(2);
    assert!(sidecar.stop(rustix::process::Signal::TERM).0.success());
    let files = place.state_files();
    assert!(files.iter().any(|(_, content)| !content.is_empty()), "nothing is kept: {}", sidecar.log());
    for (path, _) in files {
        for kept in path.ancestors().take_while(|kept| *kept != place.state()) {
            let mode = fs::metadata(kept).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is for others: {mode:o}", kept.display());
        }
    }
}
