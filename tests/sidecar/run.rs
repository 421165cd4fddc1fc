//! The assembled binary: it starts with nothing there, obeys signals, refuses to be two, and keeps answering.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "a test may panic, print and measure, and the figures compared are exact"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::fake_daemon::{self, Behaviour, FakeDaemon};
use crate::support::pm2::{Pm2, app, is_alive};
use crate::support::sidecar::{DEADLINE, Metrics, Place, assert_promtool_is_content};
use crate::support::wait_for;
use rstest::rstest;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use unicode_width::UnicodeWidthStr;

/// Collections in quick succession.
const QUICK: &str = "interval = \"1s\"\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A daemon with one list of `count` processes.
fn daemon(count: usize) -> FakeDaemon {
    FakeDaemon::start(Behaviour::List(fake_daemon::list(count)))
}

#[test]
fn log_page_and_readme_name_the_same_time_for_the_first_verdict() {
    let daemon = daemon(1);
    let place = Place::new(daemon.home(), QUICK);
    let sidecar = place.start();
    sidecar.collections(1);
    let told = sidecar.json("/api/v1/processes")["first_verdict_after_seconds"].as_f64().unwrap();
    let minutes = told / 60.0;
    assert_eq!(
        sidecar.logged(&format!("learned for the first {minutes} min of its run")).len(),
        1,
        "{}",
        sidecar.log()
    );
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&format!("For the first {minutes} minutes of a process the answer is")), "{minutes}");
}

#[test]
fn without_pm2_it_starts_says_so_once_and_picks_the_daemon_up_when_it_appears() {
    let pm2 = Pm2::new("pm2-7");
    let place = Place::new(&pm2.home(), QUICK);
    let sidecar = place.start();
    sidecar.collections(3);
    let metrics = sidecar.metrics();
    assert_eq!(metrics.value("pm2_up", &[("daemon", "default")]), Some(0.0));
    assert_eq!(metrics.value("leakslope_collect_success", &[("collector", "pm2")]), Some(0.0));
    assert_eq!(metrics.value("leakslope_last_collect_timestamp_seconds", &[]), Some(0.0));
    assert!(metrics.value("pm2_host_memory_total_bytes", &[]).is_some_and(|bytes| bytes > 1e8));
    assert_promtool_is_content(&metrics.body);
    let told = sidecar.logged("no pm2 daemon answers");
    assert!(told.len() == 1 && told[0].contains(&pm2.home().display().to_string()), "{}", sidecar.log());
    assert!(!pm2.home().exists(), "looking for a daemon must not make its home");

    pm2.run(&["start", &app("server.js"), "--name", "web"]);
    let web = [("app", "web"), ("pm_id", "0")];
    let (metrics, _) = sidecar.until("the app", |metrics| {
        metrics.value("pm2_process_up", &web).filter(|up| *up > 0.0)?;
        metrics.value("pm2_process_heap_used_bytes", &web)
    });
    assert_eq!(metrics.value("pm2_up", &[]), Some(1.0));
    assert_eq!(metrics.value("pm2_daemon_info", &[("version", "7.0.4")]), Some(1.0));

    // Killed under the sidecar: down, said once, and nothing is told of processes that nobody vouches for.
    pm2.kill_daemon();
    let (metrics, _) = sidecar.until("the death", |metrics| metrics.value("pm2_up", &[]).filter(|up| *up < 1.0));
    let left: Vec<_> = metrics.families().filter(|(name, _)| name.starts_with("pm2_process_")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(metrics.value("leakslope_last_collect_timestamp_seconds", &[]).is_some_and(|at| at > 1.7e9));
    sidecar.collections(3);
    assert_eq!(sidecar.logged("pm2 does not answer").len(), 1, "{}", sidecar.log());
    assert!(!is_alive(pm2.daemon_pid()), "the sidecar must not start a daemon");

    pm2.run(&["start", &app("server.js"), "--name", "back"]);
    let (metrics, _) = sidecar.until("the daemon again", |metrics| {
        metrics.value("pm2_process_up", &[("app", "back")]).filter(|up| *up > 0.0)
    });
    assert_eq!(metrics.value("pm2_up", &[]), Some(1.0));
    assert_eq!(sidecar.logged("pm2 answers").len(), 2, "{}", sidecar.log());
    let lines = sidecar.log().lines().count();
    sidecar.collections(3);
    assert_eq!(sidecar.log().lines().count(), lines, "a quiet interval logs nothing: {}", sidecar.log());
}

#[rstest]
#[case(Signal::TERM)]
#[case(Signal::INT)]
fn a_signal_ends_it_in_time_and_in_good_order(#[case] signal: Signal) {
    let daemon = daemon(2);
    let place = Place::new(daemon.home(), QUICK);
    let mut sidecar = place.start();
    // A connection that waits, one in the middle of a request, and a daemon that is just being asked for ever.
    let mut waiting = TcpStream::connect(sidecar.address()).unwrap();
    waiting.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
    let mut begun = TcpStream::connect(sidecar.address()).unwrap();
    begun.write_all(b"GET /metrics HTTP/1.1\r\nhost:").unwrap();
    daemon.behave(Behaviour::Silence);
    let asked = daemon.methods().len();
    wait_for("a request that gets no answer", Duration::from_secs(20), || {
        if daemon.methods().len() > asked { Ok(()) } else { Err(format!("{asked} before")) }
    });
    let (status, took) = sidecar.stop(signal);
    assert_eq!(status.code(), Some(0), "{}", sidecar.log());
    assert!(took < Duration::from_secs(5), "{took:?}: {}", sidecar.log());
    assert!(!sidecar.log().contains("did not end in time"), "{}", sidecar.log());
    assert!(TcpStream::connect(sidecar.address()).is_err());
}

#[test]
fn a_hang_up_puts_a_good_configuration_in_force_and_keeps_the_old_one_at_a_bad_one() {
    let daemon = daemon(1);
    let place = Place::new(daemon.home(), QUICK);
    let sidecar = place.start();
    let reload = |configuration: &str, loaded: f64, interval: f64| {
        place.configure(configuration);
        sidecar.signal(Signal::HUP);
        sidecar
            .until("the reload", |metrics| {
                let success = metrics.value("leakslope_config_last_reload_successful", &[])?;
                let seconds = metrics.value("leakslope_collect_interval_seconds", &[])?;
                (success == loaded && seconds == interval).then_some(())
            })
            .0
    };
    let since = "leakslope_config_last_reload_success_timestamp_seconds";
    let first = sidecar.metrics().value(since, &[]).unwrap();
    let good = reload("interval = \"2s\"\n[[pm2]]\nname = \"shop\"\n", 1.0, 2.0).value(since, &[]).unwrap();
    assert!(good >= first, "{good} and {first}");
    // The daemon goes by its new name, and only by that.
    sidecar.until("the new name", |metrics| {
        metrics.value("pm2_up", &[("daemon", "shop")]).filter(|up| *up > 0.0)?;
        metrics.value("pm2_up", &[("daemon", "default")]).is_none().then_some(())
    });

    let bad = reload("interval = \"never\"\n\n[web]\nmax_connections = 1\n[log]\nlevel = \"loud\"\n", 0.0, 2.0);
    assert_eq!(bad.value(since, &[]), Some(good));
    let file = place.configuration().display().to_string();
    for problem in [":1: interval: ", ":4: web.max_connections: ", ":6: log.level: "] {
        let lines = sidecar.logged(&format!("{file}{problem}"));
        assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{problem}: {}", sidecar.log());
    }
    sidecar.collections(2);
    assert_eq!(sidecar.metrics().value("pm2_up", &[("daemon", "shop")]), Some(1.0));

    // One that is being written over is empty for a moment.
    let empty = reload("", 0.0, 2.0);
    assert_eq!(empty.value(since, &[]), Some(good));
    let told = "it is empty and was not before, perhaps because it is being written over";
    wait_for("the refusal", DEADLINE, || match &sidecar.logged(told)[..] {
        [line] if line.contains(&file) => Ok(()),
        _ => Err(sidecar.log()),
    });

    let again = reload("interval = \"3s\"\n", 1.0, 3.0).value(since, &[]).unwrap();
    assert!(again >= good);
    // A comment is meant.
    reload("# nothing but the defaults\n", 1.0, 15.0);
    // What cannot change while running is said.
    reload("interval = \"1s\"\n[history]\nwindow = \"1h\"\n", 1.0, 1.0);
    assert_eq!(sidecar.logged("[history] and trend.minute take effect at the next start").len(), 1);
}

#[test]
fn a_hang_up_while_no_descriptor_is_left_is_obeyed_once_there_is_one() {
    let daemon = daemon(1);
    let place = Place::new(daemon.home(), QUICK);
    let sidecar = place.start();
    sidecar.collections(1);
    let limit = |current| {
        let pid = Pid::from_raw(sidecar.pid().cast_signed()).unwrap();
        let limit = Rlimit { current: Some(current), ..getrlimit(Resource::Nofile) };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    };
    let last_collection = |metrics: &Metrics| metrics.value("leakslope_last_collect_timestamp_seconds", &[]).unwrap();
    let last = last_collection(&sidecar.metrics());
    place.configure("interval = \"2s\"\n");
    limit(3);
    sidecar.signal(Signal::HUP);
    wait_for("the refusal", DEADLINE, || match &sidecar.logged("the configuration cannot be read now")[..] {
        [] => Err(sidecar.log()),
        _ => Ok(()),
    });
    assert!(!sidecar.logged("Too many open files").is_empty(), "{}", sidecar.log());
    // What is known of a daemon outlives the reload, though it is gone by now.
    drop(daemon);
    limit(1024);
    let (metrics, _) = sidecar.until("the configuration to be in force", |metrics| {
        metrics.value("leakslope_config_last_reload_successful", &[]).filter(|success| *success == 1.0)?;
        metrics.value("pm2_up", &[]).filter(|up| *up == 0.0)?;
        metrics.value("leakslope_collect_interval_seconds", &[]).filter(|seconds| *seconds == 2.0)
    });
    assert!(last > 0.0 && last_collection(&metrics) >= last, "{last} and {}", last_collection(&metrics));
}

#[test]
fn where_homes_are_looked_for_the_usual_one_is_told_of_once_it_is_there() {
    let home = tempfile::tempdir().unwrap();
    let place = Place::new(&home.path().join("unused"), "interval = \"1s\"\ndiscover = true\n");
    let mut command = place.command(&["--web.listen-address", "127.0.0.1:0"]);
    command.env_remove("PM2_HOME").env("HOME", home.path());
    let sidecar = place.spawn(command).ready();
    sidecar.collections(2);
    let metrics = sidecar.metrics();
    assert_eq!(metrics.value("pm2_up", &[("daemon", "default")]), None, "nobody asked for it");
    assert_eq!(sidecar.logged("default").len(), 0, "{}", sidecar.log());

    // Once it has answered it is missed.
    let daemon = daemon(1);
    std::os::unix::fs::symlink(daemon.home(), home.path().join(".pm2")).unwrap();
    sidecar.until("the daemon", |metrics| (metrics.value("pm2_up", &[("daemon", "default")])? == 1.0).then_some(()));
    drop(daemon);
    sidecar.until("its end", |metrics| (metrics.value("pm2_up", &[("daemon", "default")])? == 0.0).then_some(()));

    // Whoever names it by its variable is told that it is not there.
    let place = Place::new(&home.path().join("named"), "interval = \"1s\"\ndiscover = true\n");
    assert_eq!(place.start().metrics().value("pm2_up", &[("daemon", "default")]), Some(0.0));
}

#[test]
fn a_second_one_says_in_one_line_why_it_cannot_run() {
    let daemon = daemon(1);
    let (place, elsewhere) = (Place::new(daemon.home(), QUICK), Place::new(daemon.home(), QUICK));
    let sidecar = place.start();
    let refused = |output: Output, parts: &[&str]| {
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        assert_eq!(text(&output.stdout), "");
    };
    let same_port = elsewhere.run(&["--web.listen-address", sidecar.address()]);
    refused(same_port, &["leakslope: ", sidecar.address(), "it is in use, perhaps by another leakslope"]);
    let same_state = place.run(&["--web.listen-address", "127.0.0.1:0"]);
    let state = place.state().join("leakslope").display().to_string();
    let pid = format!("in use by another leakslope (pid {})", sidecar.pid());
    refused(same_state, &["leakslope: ", &state, &pid]);
    assert_eq!(sidecar.metrics().value("pm2_up", &[]), Some(1.0), "the first one runs on");
}

#[test]
fn the_configuration_is_checked_and_its_default_is_valid() {
    let place = Place::new("/nowhere".as_ref(), "");
    let printed = place.run(&["print-default-config"]);
    assert_eq!(printed.status.code(), Some(0));
    place.configure(&text(&printed.stdout));
    let checked = place.run(&["check-config"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let file = place.configuration().display().to_string();
    assert_eq!(text(&checked.stdout), format!("{file}: valid; watches default (/nowhere)\n"));

    place.configure("interval = \"15\"\ndiscover = true\n[collect]\ndeadline = \"1h\"\n[[pm2]]\nhome = \"x\"\n");
    for arguments in [&["check-config"][..], &["run"], &[], &["status"]] {
        let refused = place.run(arguments);
        let told = text(&refused.stderr);
        assert_eq!((refused.status.code(), told.lines().count()), (Some(64), 3), "{arguments:?}: {told}");
        for problem in [":1: interval: ", ":4: collect.deadline: ", ":6: pm2.home: "] {
            assert!(told.contains(&format!("{file}{problem}")), "{problem}: {told}");
        }
        assert_eq!(text(&refused.stdout), "");
    }
    place.configure("intervall = \"15s\"\n");
    let misspelt = text(&place.run(&["check-config"]).stderr);
    assert!(misspelt.contains(&format!("{file}:1: intervall: ")), "{misspelt}");
    std::fs::remove_file(place.configuration()).unwrap();
    let missing = place.run(&["check-config"]);
    assert_eq!(missing.status.code(), Some(64), "{missing:?}");
    assert!(text(&missing.stderr).contains(&file), "{missing:?}");
    assert_eq!(place.run(&["--no-such-flag"]).status.code(), Some(2));
}

/// A list with names that are long, wide, or mean to rewrite the terminal.
fn hostile_list() -> String {
    let names = ["x".repeat(200), "宽字名称".repeat(9), "red\u{1b}[31m\u{202e}\r\nname".to_owned(), "web".to_owned()];
    let entries: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(pm_id, name)| {
            let mut entry = fake_daemon::entry(pm_id, 4_000_000);
            entry["name"] = name.as_str().into();
            entry["pm2_env"]["name"] = name.as_str().into();
            entry["pm2_env"]["restart_time"] = u64::MAX.into();
            entry["monit"]["memory"] = (u64::MAX / 3).into();
            entry
        })
        .collect();
    serde_json::to_string(&entries).unwrap()
}

#[test]
fn status_is_a_table_of_eighty_columns_with_and_without_a_sidecar() {
    let daemon = FakeDaemon::start(Behaviour::List(hostile_list()));
    let place = Place::new(daemon.home(), QUICK);
    let mut sidecar = place.start();
    let address = sidecar.address().to_owned();
    let ask = |more: &[&str]| place.run(&[&["status", "--web.listen-address", &address], more].concat());
    let check = |source: &str| {
        let shown = ask(&[]);
        let table = text(&shown.stdout);
        assert_eq!((shown.status.code(), text(&shown.stderr).as_str()), (Some(0), ""), "{table}");
        assert!(table.lines().next().is_some_and(|line| line.contains(source)), "{table}");
        assert!(table.lines().all(|line| line.width() <= 80), "{table}");
        assert!(table.chars().all(|c| c == '\n' || !c.is_control()) && !table.contains('\u{202e}'), "{table:?}");
        assert!(table.contains("pm2 default: up, version 9.8.7"), "{table}");
        let row = table.lines().find(|line| line.starts_with("web ")).unwrap_or_else(|| panic!("{table}"));
        assert!(row.contains("online") && row.contains("24.5 MiB"), "{table}");
        let json: serde_json::Value = serde_json::from_slice(&ask(&["--format", "json"]).stdout).unwrap();
        let names: Vec<_> = json["processes"].as_array().unwrap().iter().map(|process| &process["app"]).collect();
        assert_eq!(names.len(), 4, "{json}");
        assert_eq!((names[3].as_str(), &json["processes"][3]["pm_id"]), (Some("web"), &3.into()), "{json}");
        assert_eq!(json["processes"][0]["heap_used_bytes"], 25_690_112, "{json}");
    };
    check(&format!("the sidecar at {address}"));
    sidecar.stop(Signal::TERM);
    check(&format!("one collection (no sidecar at {address})"));
    daemon.die();
    let down = ask(&[]);
    let table = text(&down.stdout);
    assert_eq!(down.status.code(), Some(1), "{table}");
    assert!(table.contains("pm2 default: down: ") && table.contains("No processes."), "{table}");
    assert!(table.lines().all(|line| line.width() <= 80), "{table}");
}

#[test]
fn slow_and_hostile_clients_delay_neither_a_scrape_nor_a_collection() {
    let daemon = daemon(200);
    let place = Place::new(daemon.home(), QUICK);
    let sidecar = place.start();
    // More than there are places: silent ones, halves of requests, noise, and some that ask much and take nothing.
    let beginnings: [&[u8]; 5] = [
        b"",
        b"GET /metrics HTT",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is no HTTP at all",
        b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\nGET /api/v1/processes HTTP/1.1\r\nhost: x\r\n\r\n",
    ];
    let mut clients = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..400 {
        let mut client = TcpStream::connect(sidecar.address()).unwrap();
        let _turned_away = client.write_all(beginnings[round % beginnings.len()]);
        clients.push(client);
        if round % 20 == 19 {
            let begun = Instant::now();
            assert_eq!(sidecar.metrics().all("pm2_process_up", &[]).len(), 200);
            slowest = slowest.max(begun.elapsed());
        }
    }
    // Some drip a byte at a time meanwhile; the collections go on at their pace.
    let begun = Instant::now();
    let mut collected = BTreeMap::new();
    while begun.elapsed() < Duration::from_secs(4) {
        clients.iter_mut().step_by(7).for_each(|client| drop(client.write(b"x")));
        let asked = Instant::now();
        *collected.entry(sidecar.json("/api/v1/processes")["collected_at"].to_string()).or_insert(0) += 1;
        slowest = slowest.max(asked.elapsed());
    }
    assert!(collected.len() >= 3, "{collected:?}");
    println!("the slowest answer among {} hostile clients took {slowest:?}", clients.len());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // A client that never reads the answer to an endless row of requests is cut off in the end, not buffered for.
    let held = sidecar.metrics().value("process_resident_memory_bytes", &[]).unwrap();
    assert!(held < 100e6, "{held} bytes");
    let mut refusal = String::new();
    let mut oversized = TcpStream::connect(sidecar.address()).unwrap();
    oversized.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    oversized.write_all(format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000)).as_bytes()).unwrap();
    let _reset = oversized.read_to_string(&mut refusal);
    assert!(refusal.starts_with("HTTP/1.1 431"), "{refusal}");
}
