//! Taking a profile from real apps under real daemons, with the real binary.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::inspected::told;
use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::wait_for;
use rstest::rstest;

#[rstest]
fn the_leaking_function_is_named(#[values("pm2-5", "pm2-6", "pm2-7")] version: &'static str) {
    let pm2 = Pm2::start(version);
    pm2.run(&["start", &app("leaker.js"), "--name", "leaker"]);
    let place = Place::new(&pm2.home(), "");
    let folder = place.state().join("profiles");
    let arguments = ["heap", "profile", "leaker", "--duration", "3s", "--output", folder.to_str().unwrap()];
    // The agent registers its actions a moment after the start.
    let text = wait_for("a profile", DEADLINE, || {
        let output = place.run(&arguments);
        if output.status.success() { Ok(told(&output)) } else { Err(told(&output)) }
    });
    assert!(text.starts_with("sampling allocations of leaker (default/0) for 3 s; the app goes on meanwhile\n"));
    assert!(text.contains("keepForEver") && text.contains("leaker.js:4"), "{text}");
    let (files, records): (Vec<_>, Vec<_>) = fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .partition(|entry| entry.path().extension().is_some_and(|extension| extension == "heapprofile"));
    assert_eq!((files.len(), records.len()), (1, 1), "{text}");
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(text.contains(files[0].path().to_str().unwrap()), "{text}");
}

#[test]
fn an_app_that_is_not_there_is_named() {
    let pm2 = Pm2::start("pm2-7");
    let place = Place::new(&pm2.home(), "");
    let output = place.run(&["heap", "profile", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("no running process of nobody"), "{}", told(&output));
    assert_eq!(place.state_files(), []);
}

#[test]
fn a_second_profile_is_turned_down_at_once_and_the_end_of_the_app_is_noticed() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("leaker.js"), "--name", "leaker"]);
    let place = Place::new(&pm2.home(), "");
    wait_for("a profile", DEADLINE, || {
        let output = place.run(&["heap", "profile", "leaker", "--duration", "1s"]);
        if output.status.success() { Ok(()) } else { Err(told(&output)) }
    });
    std::thread::scope(|scope| {
        let elsewhere = Place::new(&pm2.home(), "");
        // So long that it ends only because the app does. The other one may have come first, and on a busy machine the agent
        // may be late: then it is tried again.
        let arguments = ["heap", "profile", "leaker", "--duration", "30m"];
        let first = scope.spawn(move || {
            wait_for("the first profile to end with the app", DEADLINE * 2, || {
                let output = elsewhere.run(&arguments);
                let ended = told(&output).contains("the process has ended or was restarted meanwhile; try again");
                if ended { Ok(output) } else { Err(told(&output)) }
            })
        });
        wait_for("the second to be turned down", DEADLINE, || {
            let text = told(&place.run(&["heap", "profile", "leaker", "--duration", "1s"]));
            let refused = "refused: another profile is being taken of it; try again when that one has ended";
            if text.contains(refused) { Ok(()) } else { Err(text) }
        });
        pm2.run(&["restart", "leaker"]);
        assert_eq!(first.join().unwrap().status.code(), Some(1));
    });
}
