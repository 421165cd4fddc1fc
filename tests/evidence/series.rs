//! Series of full snapshots of real apps, and what stands against them.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::inspected::{PORT, Turn, assert_untouched, is_open, is_sampled, pid, refused, run, told};
use crate::support::pm2::{Pm2, app, is_alive};
use crate::support::sidecar::{DEADLINE, Place};
use crate::support::{stranger, wait_for};
use leakslope::evidence::keep::{self, Kind, Road};

/// What a person says of an app that has just been started and whose pauses hurt nobody.
const WORD: [&str; 7] = ["--warm-up", "1s", "--wait", "1s", "--i-accept-a-pause-of", "10m", "--output"];

#[test]
fn three_snapshots_of_one_session_name_what_leaks() {
    let _turn = Turn::wait();
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("leaker.js"), "--name", "app"]);
    let place = Place::new(&pm2.home(), "");
    let (folder, pid) = (place.state().join("leakslope/evidence"), pid(&pm2, "app"));
    let text = run(&place, &[&["heap", "snapshot", "app"], &WORD[..], &[folder.to_str().unwrap()]].concat());
    assert!(text.contains("1 of 3: a heap of ") && text.contains("expected: a pause of "), "{text}");
    assert_eq!(text.matches("taken: a pause of ").count(), 3, "{text}");
    let delay = text.split("The app's event loop was ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(delay.parse::<u64>().unwrap() > 0, "it stood still three times: {text}");
    assert_untouched(pid, &text);

    let mut records = keep::records(&folder);
    records.reverse();
    assert_eq!(records.len(), 3, "{text}");
    for (number, record) in (1..).zip(&records) {
        let cost = record.cost.unwrap();
        let expected = cost.expected.unwrap();
        assert_eq!((record.kind, cost.road, record.life.unwrap().pid), (Kind::HeapSnapshot, Road::Inspector, pid));
        assert!(cost.pause_seconds.unwrap() > 0.0 && expected.pause_seconds > 0.0, "{record:?}");
        let file = fs::metadata(keep::path(&folder, record)).unwrap();
        assert!(file.len() > 1_000_000 && expected.file_bytes.0 > 1_000_000, "{record:?}");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(record.file.starts_with(&format!("app-0-{pid}-")), "{record:?}");
        assert!(record.file.ends_with(&format!(".{number}.heapsnapshot")), "{record:?}");
    }

    // The report names the leak and who holds it, and lies beside the last of them.
    let last = keep::path(&folder, &records[2]);
    assert_eq!(fs::metadata(keep::report_path(&last)).unwrap().permissions().mode() & 0o777, 0o600);
    let report = keep::report(&last).unwrap().unwrap();
    let growth = report.growth.as_ref().unwrap();
    for said in ["the array `kept` in ", "leaker.js only grows", "alive by ", " → kept (Array) → "] {
        assert!(report.sentence.contains(said), "{said}: {report:#?}");
    }
    assert!(text.contains("Comparing them now, at the lowest priority"), "{text}");
    assert!(text.contains(&format!("Compared: {}.", report.sentence)), "{text}");
    assert!(growth.compared.contains("one session"), "{growth:#?}");
    assert_eq!(growth.files, records.iter().map(|record| record.file.as_str()).collect::<Vec<_>>());
    let first = &growth.classes[0];
    let added = first.added.unwrap();
    assert!(first.count > 0 && first.retained_bytes > 0 && added.count > 0 && added.bytes > 0, "{first:?}");
    assert!(growth.ways.iter().any(|way| way.contains("kept (Array) → {text} × ")), "{growth:#?}");

    // A sidecar that starts afterwards tells the same, at the last of them.
    assert!(text.contains(".3.heapsnapshot.report (a sidecar shows it on the page of the process)"), "{text}");
    let told_by_api = place.start().json("/api/v1/evidence?daemon=default&pm_id=0");
    let items = told_by_api["evidence"].as_array().unwrap();
    assert_eq!(items.len(), 3, "{told_by_api:#}");
    assert_eq!(items[0]["sentence"], report.sentence);
    assert_eq!(items[0]["growth"], serde_json::to_value(growth).unwrap());
    assert!(
        items[1]["growth"].is_null() && items[1]["sentence"].as_str().unwrap().contains("heap summary"),
        "{items:#?}"
    );

    // The command that it names next tells the leak, by ids that hold in all three.
    let next = text.lines().find_map(|line| line.trim().strip_prefix("leakslope heap diff ")).unwrap();
    let files: Vec<&str> = next.split(' ').collect();
    let diff = told(&place.run(&[&["heap", "diff"], &files[..]].concat()));
    assert!(diff.contains("Compared by object id: one session"), "{diff}");
    assert!(diff.contains("the array `kept` in ") && diff.contains("leaker.js only grows"), "{diff}");
}

#[test]
fn a_report_quotes_nothing_that_the_app_was_told() {
    let _turn = Turn::wait();
    let pm2 = Pm2::start("pm2-7");
    let place = Place::new(&pm2.home(), "");
    let script = place.state().join("secrets.js");
    let secrets = "class Visit { constructor(n) { this.card = ['4111-1111', n, 'hush'].join('-'); this.list = [n, n + 1, n + 2]; } }
        const visits = Object.create(null); let n = 0;
        setInterval(() => { for (let i = 0; i < 500; i++, n++) visits[`visitor${n}@example.org`] = new Visit(n); }, 50);";
    fs::write(&script, secrets).unwrap();
    pm2.run(&["start", script.to_str().unwrap(), "--name", "app"]);
    let folder = place.state().join("series");
    let output = folder.to_str().unwrap();
    let text = run(&place, &[&["heap", "snapshot", "app", "--count", "2"], &WORD[..], &[output]].concat());
    let snapshot = keep::path(&folder, &keep::records(&folder)[0]);
    let held = fs::read_to_string(&snapshot).unwrap();
    assert!(held.contains("4111-1111-7-hush") && held.contains("visitor7@example.org"), "the snapshot has both");
    let report = keep::report(&snapshot).unwrap().unwrap();
    assert!(report.sentence.contains("visits") && report.sentence.contains("Visit × "), "{report:#?}");
    let kept = fs::read_to_string(keep::report_path(&snapshot)).unwrap();
    for secret in ["4111", "hush", "example.org"] {
        assert!(!kept.contains(secret) && !text.contains(secret), "{secret}: {kept}\n{text}");
    }
    assert!(!text.contains("a sidecar shows it"), "no sidecar looks into another folder: {text}");
}

#[test]
fn everything_that_stands_against_it_is_told_before_anything_is_done() {
    let _turn = Turn::wait();
    let pm2 = Pm2::start("pm2-7");
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("large.js");
    let large = "const kept = Array.from({ length: 400_000 }, (_, i) => ({ i })); setInterval(() => kept, 1000);";
    fs::write(&script, large).unwrap();
    pm2.run(&["start", script.to_str().unwrap(), "--name", "app", "--max-memory-restart", "150M"]);
    let place = Place::new(&pm2.home(), "[evidence]\nmax_disk = \"64MiB\"\n");
    let sidecar = place.start();
    let pid = pid(&pm2, "app");
    let address = sidecar.address().to_string();
    let snapshot = ["--web.listen-address", &address, "heap", "snapshot", "app", "--wait", "1s"];
    // pm2's agent tells the heap's size a moment after the start.
    let text = refused(&place, &snapshot, "(max_memory_restart)");
    for against in [
        "refused: it has run for",
        "still learning how it behaves",
        "it is the last healthy process of its app and may stand still for",
        "raise evidence.max_disk",
    ] {
        assert!(text.contains(against), "{against}: {text}");
    }
    assert_untouched(pid, &text);
    let evidence = place.state().join("leakslope/evidence");
    assert!(!evidence.exists() || fs::read_dir(evidence).unwrap().next().is_none(), "{text}");
}

#[test]
fn an_app_that_ends_between_two_snapshots_leaves_the_first_one_whole() {
    let _turn = Turn::wait();
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("leaker.js"), "--name", "app", "--no-pmx"]);
    let place = Place::new(&pm2.home(), "");
    let (folder, first) = (place.state().join("series"), pid(&pm2, "app"));
    let mut command = place.command(&["heap", "snapshot", "app", "--warm-up", "1s", "--wait", "30m"]);
    command.args(["--i-accept-a-pause-of", "10m", "--output", folder.to_str().unwrap()]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut running = command.spawn().unwrap();
    wait_for("the first snapshot", DEADLINE * 2, || {
        if let Some(status) = running.try_wait().unwrap() {
            // It was asked too early in the app's life.
            running = command.spawn().unwrap();
            return Err(status.to_string());
        }
        if keep::records(&folder).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    });
    // The session lasts until the last one, and its inspector is closed all the while.
    assert!(is_sampled(first) && !is_open(first));
    let answer = stranger::exchange(&format!("127.0.0.1:{PORT}"), "GET /json/list HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.is_err(), "{answer:?}");
    pm2.run(&["restart", "app"]);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("failed: it ended meanwhile; try again when it runs"), "{}", told(&output));
    let files = fs::read_dir(&folder).unwrap().count();
    assert_eq!((files, keep::records(&folder).len()), (2, 1), "a whole snapshot and its record");
    assert!(is_alive(pid(&pm2, "app")));
}
