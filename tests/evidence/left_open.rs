//! A leakslope that is killed leaves the app's inspector open; the next one, or a sidecar that runs, closes it.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::inspected::{PORT, Turn, assert_untouched, is_open, left_alone, pid, run, sampled, told};
use crate::support::pm2::{Pm2, app, signal};
use crate::support::raw::exchange;
use crate::support::sidecar::{DEADLINE, Place, Sidecar};
use crate::support::wait_for;
use leakslope::evidence::inspector::Inspector;
use rustix::process::Signal;

const PROFILE: [&str; 5] = ["heap", "profile", "app", "--duration", "2s"];
/// In an app: while there is a file `stall` beside it, the app connects to nobody, so that its inspector stays open until
/// whoever waits for it gives up.
const STALL: &str = "const net = require('net'); const { connect } = net; \
    net.connect = (...to) => require('fs').existsSync(`${__dirname}/stall`) ? new net.Socket() : connect(...to);";
/// A command that has nothing to do but to close what was left open.
const NOBODY: [&str; 3] = ["heap", "profile", "nobody"];

fn started() -> (Pm2, Place, u32) {
    let pm2 = Pm2::start("pm2-7");
    let place = Place::new(&pm2.home(), "interval = \"1s\"\n");
    let stall = place.state().with_file_name("stall.js");
    std::fs::write(&stall, STALL).unwrap();
    let arguments = format!("--require={}", stall.display());
    pm2.run(&["start", &app("leaker.js"), "--name", "app", "--no-pmx", "--node-args", &arguments]);
    let pid = pid(&pm2, "app");
    (pm2, place, pid)
}

fn records(place: &Place) -> Vec<PathBuf> {
    let all = place.state_files().into_iter().map(|(path, _)| path);
    all.filter(|path| path.parent().is_some_and(|folder| folder.ends_with("inspectors"))).collect()
}

/// Runs a command until the inspector is open and written down as such, and stops it there.
fn opened(place: &Place, pid: u32) -> Child {
    let stall = place.state().with_file_name("stall");
    std::fs::write(&stall, "").unwrap();
    let spawn = || place.command(&PROFILE).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut command = spawn();
    wait_for("the inspector", DEADLINE * 2, || {
        if let Some(status) = command.try_wait().unwrap() {
            // It was asked too early in the app's life.
            command = spawn();
            return Err(status.to_string());
        }
        noted(place, pid)
    });
    signal(command.id(), Signal::STOP);
    std::fs::remove_file(stall).unwrap();
    command
}

fn noted(place: &Place, pid: u32) -> Result<(), String> {
    let seen = |path: &PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"port\":9229"));
    let records = records(place);
    if is_open(pid) && records.iter().any(seen) { Ok(()) } else { Err(format!("{records:?}")) }
}

/// SIGKILL, at which nobody can tidy up.
fn killed(mut command: Child, place: &Place, pid: u32) {
    command.kill().unwrap();
    command.wait().unwrap();
    assert!(is_open(pid), "nobody closes it by itself");
    assert_eq!(records(place).len(), 1);
}

fn closed(pid: u32) -> String {
    format!("the inspector of app (default/0, pid {pid}), left open by a leakslope that was killed, is closed again")
}

fn closed_by(sidecar: &Sidecar, place: &Place, pid: u32) {
    let closed = closed(pid);
    wait_for("the inspector to be closed", DEADLINE * 2, || {
        let done = sidecar.logged(&closed).len() == 1 && !is_open(pid);
        if done { Ok(()) } else { Err(sidecar.log()) }
    });
    assert_untouched(pid, &sidecar.log());
    assert_eq!(records(place), [] as [PathBuf; 0]);
}

#[test]
fn the_next_command_closes_it_and_leaves_those_that_are_at_work_alone() {
    let _turn = Turn::wait();
    let (pm2, place, first) = started();
    let command = opened(&place, first);
    let text = told(&place.run(&NOBODY));
    assert!(is_open(first) && !text.contains("inspector"), "it is at work: {text}");
    killed(command, &place, first);
    let text = told(&place.run(&NOBODY));
    assert!(text.contains(&closed(first)) && text.contains("no running process of nobody"), "{text}");
    assert_untouched(first, &text);
    assert_eq!(records(&place), [] as [PathBuf; 0]);
    // The app can be looked into as before.
    let text = run(&place, &PROFILE);
    assert!(text.contains("keepForEver") && text.contains("it is as it was before"), "{text}");

    // Another life of the app is another process: there is nothing to close, and nothing to tell.
    killed(opened(&place, first), &place, first);
    pm2.run(&["restart", "app"]);
    let second = pid(&pm2, "app");
    let text = told(&place.run(&NOBODY));
    assert!(!text.contains("inspector"), "{text}");
    assert_eq!(records(&place), [] as [PathBuf; 0]);
    assert_untouched(second, &text);
}

#[tokio::test]
async fn it_is_not_closed_under_a_debugger() {
    let _turn = Turn::wait();
    let (_pm2, place, pid) = started();
    killed(opened(&place, pid), &place, pid);
    let debugger = Inspector::open((Ipv4Addr::LOCALHOST, PORT).into(), DEADLINE).await.unwrap();
    let text = told(&place.run(&NOBODY));
    assert!(
        text.contains("was left open by a leakslope that was killed: somebody debugs it at 127.0.0.1:9229"),
        "{text}"
    );
    assert!(is_open(pid) && records(&place).len() == 1, "{text}");
    debugger.close(DEADLINE).await;
    let text = told(&place.run(&NOBODY));
    assert!(text.contains(&closed(pid)), "{text}");
    assert_untouched(pid, &text);
}

#[test]
fn a_sidecar_closes_what_it_finds_at_its_start_and_what_is_left_open_while_it_runs() {
    let _turn = Turn::wait();
    let (_pm2, place, pid) = started();
    killed(opened(&place, pid), &place, pid);
    let sidecar = place.start();
    closed_by(&sidecar, &place, pid);
    drop(sidecar);

    let sidecar = place.start();
    let mut command = opened(&place, pid);
    command.kill().unwrap();
    command.wait().unwrap();
    closed_by(&sidecar, &place, pid);

    // The sidecar itself is killed while it takes a profile: its session ends with it.
    let (address, body) = (sidecar.address(), r#"{"app":"app","duration":"30m"}"#);
    let head = format!("POST /api/v1/evidence HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let length = body.len();
    let order = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = exchange(address, &order).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    sampled(pid);
    wait_for(
        "the record to go",
        DEADLINE,
        || if records(&place).is_empty() { Ok(()) } else { Err("noted".to_owned()) },
    );
    // Dropped, it is killed.
    drop(sidecar);
    left_alone(pid, "killed");
    assert_eq!(records(&place), [] as [PathBuf; 0]);
}
