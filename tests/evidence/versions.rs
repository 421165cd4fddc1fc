//! Real apps under every version of Node that is promised: the profile and the snapshots that are taken of them.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use crate::heap_support::node_of;
use crate::support::inspected::{Turn, assert_untouched, pid, run};
use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::Place;
use leakslope::evidence::keep;
use leakslope::evidence::profile::{self, summarise};
use rstest::rstest;

#[rstest]
fn evidence_is_taken_and_names_the_leak(#[values(16, 18, 22, 24)] version: u32, #[values(true, false)] agent: bool) {
    let _turn = (!agent).then(Turn::wait);
    let pm2 = Pm2::start("pm2-7");
    let node = node_of(version);
    let without: &[&str] = if agent { &[] } else { &["--no-pmx"] };
    let start = ["start", &app("leaker.js"), "--name", "app", "--interpreter", node.to_str().unwrap()];
    pm2.run(&[&start, without].concat());
    let place = Place::new(&pm2.home(), "");
    let folder = place.state().join("series");
    let (output, pid) = (folder.to_str().unwrap(), pid(&pm2, "app"));
    let running = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(running, node.canonicalize().unwrap());

    // By pm2's agent where it is in the app, else by the inspector.
    let text = run(&place, &["heap", "profile", "app", "--duration", "2s", "--output", output]);
    assert!(text.contains("keepForEver") && text.contains("leaker.js:4"), "{text}");
    assert_eq!(text.contains("Taken through the app's inspector: it is as it was before"), !agent, "{text}");
    assert_eq!(text.contains("taken by pm2's agent"), agent, "{text}");
    assert_untouched(pid, &text);
    if agent {
        return;
    }
    let word = ["--warm-up", "1s", "--wait", "1s", "--i-accept-a-pause-of", "10m", "--output", output];
    let text = run(&place, &[&["heap", "snapshot", "app", "--count", "2"], &word[..]].concat());
    assert!(text.contains("the array `kept` in ") && text.contains("leaker.js only grows"), "{text}");
    assert_untouched(pid, &text);
    assert_eq!(keep::records(&folder).len(), 3, "{text}");
}

#[rstest]
fn a_function_that_v8_inlines_is_named_and_inlined_again(#[values(18, 22, 24)] version: u32) {
    let _turn = Turn::wait();
    let pm2 = Pm2::start("pm2-7");
    let node = node_of(version);
    pm2.run(&["start", &app("hot.js"), "--name", "app", "--no-pmx", "--interpreter", node.to_str().unwrap()]);
    let place = Place::new(&pm2.home(), "");
    let (folder, pid) = (place.state().join("series"), pid(&pm2, "app"));
    let share = |function: &str| {
        let text = run(&place, &["heap", "profile", "app", "--duration", "2s", "--output", folder.to_str().unwrap()]);
        assert_untouched(pid, &text);
        assert!(!text.contains("note: "), "{text}");
        let record = keep::records(&folder).into_iter().max_by_key(|record| record.taken_at).unwrap();
        let file = std::fs::File::open(keep::path(&folder, &record)).unwrap();
        let summary = summarise(&profile::read(file, "it").unwrap(), "it", 9);
        let row = summary.functions.iter().find(|row| row.frame.function == function);
        row.map_or(0.0, |row| row.self_share)
    };
    // The second finds the app as the first did: hot, with everything inlined.
    for _ in 0..2 {
        let found = share("rememberSession");
        assert!(found > 0.6, "{found:.2}");
    }
}
