//! The assembled binary beside real daemons: what `/metrics` says of real apps, checked against the system.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a test may panic, print and measure, and the figures compared are exact"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use crate::support::pm2::{Pm2, VERSIONS, app, signal};
use crate::support::sidecar::{DEADLINE, Metrics, Place, Sidecar, assert_promtool_is_content};
use crate::support::{wait_for, wall};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Collections in quick succession.
const QUICK: &str = "interval = \"1s\"\n";
const MIB: f64 = 1_048_576.0;

/// The process of an app, or the process with a number, in `/api/v1/processes`.
fn listed(sidecar: &Sidecar, pm_id: u64) -> Value {
    let view = sidecar.json("/api/v1/processes");
    let processes = view["processes"].as_array().unwrap();
    processes.iter().find(|process| process["pm_id"] == pm_id).unwrap_or_else(|| panic!("{view:#}")).clone()
}

/// A line of `/proc/<pid>/status` as a number; kibibytes as bytes.
fn status(pid: u64, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap().trim();
    match line.strip_suffix(" kB") {
        Some(kibibytes) => kibibytes.parse::<f64>().unwrap() * 1024.0,
        None => line.parse().unwrap(),
    }
}

/// Seconds of CPU time that a process has used.
fn cpu_seconds(pid: u64) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Asserts that a value lies within a part of the expected one.
fn assert_near(what: &str, value: Option<f64>, expected: f64, part: f64) {
    let value = value.unwrap_or_else(|| panic!("{what} is missing"));
    assert!((value - expected).abs() <= expected * part, "{what} is {value}, expected {expected} ± {part}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether everything of `ecosystem.json` is where it is going to be.
fn settled(metrics: &Metrics) -> Option<()> {
    let value = |family, labels: &[(&str, &str)]| metrics.value(family, labels);
    let is = |app, status| value("pm2_app_instances", &[("app", app), ("status", status)]);
    value("pm2_process_tree_resident_memory_bytes", &[("app", "wrapper")]).filter(|bytes| *bytes > 120.0 * MIB)?;
    value("pm2_process_custom_metric", &[("metric", "queue length")])?;
    value("pm2_process_heap_after_major_gc_bytes", &[("app", "custom")])?;
    let measured = |app| metrics.all("pm2_process_event_loop_latency_seconds", &[("app", app), ("percentile", "95")]);
    let all = measured("web").len() == 1 && measured("custom").len() == 1 && measured("api").len() == 2;
    let ended = is("crasher", "errored") == Some(1.0) && is("backoff", "waiting_restart") == Some(1.0);
    (all && ended).then_some(())
}

#[test]
fn every_kind_of_app_has_its_series_with_the_values_of_the_system() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", "ecosystem.json"]);
    pm2.run(&["stop", "stopped"]);
    let place = Place::new(&pm2.home(), QUICK);
    let sidecar = place.start();
    let (metrics, ()) = sidecar.until("every app to settle", settled);
    assert_promtool_is_content(&metrics.body);

    let value = |family: &str, labels: &[(&str, &str)]| metrics.value(family, labels);
    assert_eq!(value("pm2_up", &[("daemon", "default")]), Some(1.0));
    assert_eq!(value("pm2_daemon_info", &[("daemon", "default"), ("version", "7.0.4")]), Some(1.0));
    let daemon = u64::from(pm2.daemon_pid());
    assert_near("the daemon", value("pm2_daemon_resident_memory_bytes", &[]), status(daemon, "VmRSS"), 0.2);
    for collector in ["pm2", "system"] {
        assert_eq!(value("leakslope_collect_success", &[("collector", collector)]), Some(1.0));
        let took = value("leakslope_collect_duration_seconds", &[("collector", collector)]).unwrap();
        assert!(took > 0.0 && took < 5.0, "{took}");
    }
    let now = crate::support::wall().as_seconds();
    assert_near("the last collection", value("leakslope_last_collect_timestamp_seconds", &[]), now, 1e-8);
    assert_near("the host", value("pm2_host_memory_total_bytes", &[]), memory_total(), 0.0);

    // The first process has the number 0 and everything a process has.
    let web = [("daemon", "default"), ("app", "web"), ("pm_id", "0")];
    let about = metrics.all("pm2_process_info", &web)[0].0;
    for (label, expected) in
        [("namespace", "front"), ("exec_mode", "fork"), ("version", "1.4.2"), ("interpreter", "node")]
    {
        assert_eq!(about[label], expected, "{about:?}");
    }
    assert!(about["node_version"].starts_with(char::is_numeric), "{about:?}");
    let heap_used = value("pm2_process_heap_used_bytes", &web).unwrap();
    assert!(heap_used > MIB && heap_used <= value("pm2_process_heap_total_bytes", &web).unwrap());
    let limit = |limit: &'static str| [web[0], web[1], web[2], ("limit", limit)];
    assert_eq!(value("pm2_process_memory_limit_bytes", &limit("max_memory_restart")), Some(300.0 * MIB));
    assert_eq!(value("pm2_process_memory_limit_bytes", &limit("heap")), Some(256.0 * MIB));
    assert!(value("pm2_process_active_handles", &web).is_some_and(|handles| handles >= 1.0));
    assert!(value("pm2_process_active_requests", &web).is_some());
    for percentile in ["50", "95"] {
        let labels = [web[0], web[1], web[2], ("percentile", percentile)];
        assert!(value("pm2_process_event_loop_latency_seconds", &labels).is_some_and(|seconds| seconds < 5.0));
    }

    let workers = metrics.all("pm2_process_info", &[("app", "api"), ("exec_mode", "cluster")]);
    let workers: Vec<u64> = workers.iter().map(|(labels, _)| labels["pm_id"].parse().unwrap()).collect();
    assert_eq!(workers.len(), 2);
    let number = |app: &str| {
        let (labels, _) = metrics.all("pm2_process_info", &[("app", app)])[0];
        labels["pm_id"].parse::<u64>().unwrap()
    };
    let live = ["web", "nopmx", "shell", "custom"].into_iter().map(number).chain(workers);
    for pm_id in live {
        assert_like_the_system(&metrics, &listed(&sidecar, pm_id));
    }

    let plain = [("app", "nopmx")];
    assert_eq!(value("pm2_process_up", &plain), Some(1.0));
    for absent in ["pm2_process_heap_used_bytes", "pm2_process_metrics_frozen", "pm2_process_metrics_age_seconds"] {
        assert_eq!(value(absent, &plain), None, "pmx is off");
        assert_eq!(value(absent, &[("app", "shell")]), None, "no Node");
    }
    assert_eq!(metrics.all("pm2_process_info", &[("app", "shell")])[0].0["interpreter"], "sh");

    for (app, word) in [("crasher", "errored"), ("stopped", "stopped"), ("backoff", "waiting_restart")] {
        assert_eq!(value("pm2_process_up", &[("app", app)]), Some(0.0), "{app}");
        let states = metrics.all("pm2_process_status", &[("app", app)]);
        assert_eq!(states.len(), 1);
        assert_eq!((states[0].0["status"].as_str(), states[0].1), (word, 1.0));
        assert_eq!(value("pm2_process_resident_memory_bytes", &[("app", app)]), None, "{app}");
    }
    assert!(value("pm2_process_restarts_total", &[("app", "crasher")]).is_some_and(|restarts| restarts >= 1.0));
    assert_eq!(value("pm2_app_instances", &[("app", "api"), ("status", "online")]), Some(2.0));

    let own = value("pm2_process_resident_memory_bytes", &[("app", "wrapper")]).unwrap();
    let tree = value("pm2_process_tree_resident_memory_bytes", &[("app", "wrapper")]).unwrap();
    assert!(tree > own + 90.0 * MIB, "{tree} and {own}");

    let told: BTreeMap<_, _> = metrics
        .all("pm2_process_custom_metric", &[("app", "custom")])
        .into_iter()
        .map(|(labels, value)| ((labels["metric"].as_str(), labels["unit"].as_str()), value))
        .collect();
    assert_eq!(told.get(&("queue length", "jobs")), Some(&7.0), "{told:?}");
    assert_eq!(told.get(&("disk used", "MB")), Some(&15.07), "{told:?}");
    assert!(told.iter().any(|((name, _), value)| *name == "orders" && *value == 3.0), "{told:?}");
    assert!(!told.keys().any(|(name, _)| ["broken", "strange", "words"].contains(name)), "{told:?}");
    assert_eq!(value("pm2_process_heap_after_major_gc_bytes", &[("app", "custom")]), Some(5_000_001.0));
    assert_eq!(value("pm2_process_gcs_total", &[("app", "custom"), ("kind", "major")]), Some(4.0));

    // What is stopped loses what only a live process has; what is deleted is gone from every family.
    pm2.run(&["stop", "custom"]);
    pm2.run(&["delete", "web", "nopmx"]);
    let (metrics, ()) = sidecar.until("the deleted to vanish", |metrics| {
        metrics.value("pm2_process_up", &[("app", "custom")]).filter(|up| *up == 0.0)?;
        // pm2 deletes one after the other, and a collection may come between them.
        let gone = |app| metrics.all("pm2_process_info", &[("app", app)]).is_empty();
        (gone("web") && gone("nopmx")).then_some(())
    });
    for (family, series) in metrics.families() {
        for (labels, value) in series {
            let app = labels.get("app").map(String::as_str);
            assert!(!matches!(app, Some("web" | "nopmx")), "{family} {labels:?}");
            let live_only = family.ends_with("_bytes") && !family.contains("limit") && !family.contains("orphans");
            assert!(app != Some("custom") || !live_only, "{family} {labels:?} {value}");
        }
    }
    assert_eq!(sidecar.try_get("/api/v1/processes/default/0/history").unwrap().0, 404);
}

/// Compares everything that the system knows of a live process.
fn assert_like_the_system(metrics: &Metrics, listed: &Value) {
    let (pid, pm_id) = (listed["pid"].as_u64().unwrap(), listed["pm_id"].to_string());
    let labels = [("pm_id", pm_id.as_str()), ("app", listed["app"].as_str().unwrap())];
    let value = |family: &str| metrics.value(&format!("pm2_process_{family}"), &labels);
    let what = |family: &str| format!("{family} of {listed:#}");
    assert_eq!(value("up"), Some(1.0));
    let resident = status(pid, "VmRSS");
    assert_near(&what("resident"), value("resident_memory_bytes"), resident, 0.15);
    assert_near(&what("anonymous"), value("anonymous_memory_bytes"), status(pid, "RssAnon"), 0.25);
    assert_near(&what("swapped"), value("swapped_memory_bytes"), status(pid, "VmSwap"), 0.0);
    assert_near(&what("threads"), value("threads"), status(pid, "Threads"), 0.1);
    assert!(value("tree_resident_memory_bytes") >= value("resident_memory_bytes"), "{}", what("tree"));
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_near(&what("descriptors"), value("open_fds"), f64::from(u32::try_from(open).unwrap()), 0.1);
    let (cpu, now) = (value("cpu_seconds_total").unwrap(), cpu_seconds(pid));
    assert!(cpu <= now && now - cpu < 2.0, "{cpu} and {now}");
    let since_start = wall().as_seconds() - value("start_time_seconds").unwrap();
    assert!((0.0..600.0).contains(&since_start), "{since_start}");
    let uptime = listed["uptime_seconds"].as_f64().unwrap();
    assert!((since_start - uptime).abs() < 5.0, "{since_start} and {uptime}");
}

fn memory_total() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

#[rstest]
#[case("pm2-5")]
#[case("pm2-6")]
fn earlier_versions_are_served_alike(#[case] alias: &'static str) {
    let pm2 = Pm2::start(alias);
    pm2.run(&["start", &app("server.js"), "--name", "web", "--max-memory-restart", "200M"]);
    pm2.run(&["start", &app("server.js"), "--name", "worker", "-i", "1"]);
    pm2.run(&["start", &app("custom.js"), "--name", "custom"]);
    let place = Place::new(&pm2.home(), QUICK);
    let sidecar = place.start();
    let (metrics, ()) = sidecar.until("metrics of all", |metrics| {
        metrics.value("pm2_process_custom_metric", &[("metric", "queue length")])?;
        (metrics.all("pm2_process_heap_used_bytes", &[]).len() == 3).then_some(())
    });
    let version = VERSIONS.iter().find(|(name, _)| *name == alias).unwrap().1;
    assert_eq!(metrics.value("pm2_daemon_info", &[("version", version)]), Some(1.0));
    assert_promtool_is_content(&metrics.body);
    for pm_id in 0..3 {
        assert_like_the_system(&metrics, &listed(&sidecar, pm_id));
    }
    let limit = [("pm_id", "0"), ("limit", "max_memory_restart")];
    assert_eq!(metrics.value("pm2_process_memory_limit_bytes", &limit), Some(200.0 * MIB));
    assert_eq!(metrics.all("pm2_process_info", &[("pm_id", "1")])[0].0["exec_mode"], "cluster");
    assert_eq!(metrics.value("pm2_process_custom_metric", &[("metric", "queue length"), ("unit", "jobs")]), Some(7.0));
}

#[test]
fn a_hostile_name_is_escaped_and_http_traffic_is_told_in_base_units() {
    let pm2 = Pm2::start("pm2-7");
    let port = free_port();
    let described = json!({ "name": "say \"hi\" \\ {a=\"b\"} é\u{7}\n<b>, # 1", "script": app("server.js"), "env": { "PORT": port } });
    pm2.start_app(&described);
    let place = Place::new(&pm2.home(), QUICK);
    let sidecar = place.start();
    let name = "say \"hi\" \\ {a=\"b\"} é<b>, # 1";
    let labels = [("app", name), ("pm_id", "0")];
    let (begun, mut asked) = (Instant::now(), 0.0);
    // pm2 averages over a minute, so after a quarter of it a quarter of the rate is there.
    let (metrics, (rate, actual)) = sidecar.until("the traffic to be told", |metrics| {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
            stream.read_to_end(&mut Vec::new()).ok()?;
            asked += 1.0;
        }
        let actual = asked / begun.elapsed().as_secs_f64();
        metrics.value("pm2_process_http_latency_seconds", &[labels[0], ("percentile", "95")])?;
        let rate = metrics.value("pm2_process_http_requests_per_second", &labels)?;
        (rate > actual / 8.0).then_some((rate, actual))
    });
    assert!(rate < actual * 1.5, "{rate} requests a second are told, {actual} were made");
    for percentile in ["50", "95"] {
        let latency = [labels[0], ("percentile", percentile)];
        assert!(metrics.value("pm2_process_http_latency_seconds", &latency).is_some_and(|seconds| seconds < 2.0));
    }
    assert_eq!(metrics.value("pm2_process_up", &labels), Some(1.0));
    assert_promtool_is_content(&metrics.body);
    assert_eq!(listed(&sidecar, 0)["app"], name);
}

#[test]
fn a_busy_event_loop_is_shown_as_frozen_and_an_idle_one_is_not() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("spinner.js"), "--name", "spinner"]);
    pm2.run(&["start", &app("server.js"), "--name", "idle"]);
    let place = Place::new(&pm2.home(), QUICK);
    let sidecar = place.start();
    let frozen = |metrics: &Metrics, app| metrics.value("pm2_process_metrics_frozen", &[("app", app)]);
    sidecar.until("metrics of both", |metrics| {
        (metrics.all("pm2_process_event_loop_latency_seconds", &[("percentile", "95")]).len() == 2).then_some(())
    });
    let pid = listed(&sidecar, 0)["pid"].as_u64().unwrap();
    signal(u32::try_from(pid).unwrap(), Signal::USR2);
    let (metrics, _) = sidecar.until("the block to show", |metrics| {
        assert_eq!(frozen(metrics, "idle"), Some(0.0), "an idle app is not frozen");
        frozen(metrics, "spinner").filter(|frozen| *frozen > 0.0)
    });
    assert_eq!(metrics.value("pm2_process_up", &[("app", "spinner")]), Some(1.0));
    assert!(
        metrics.value("pm2_process_metrics_age_seconds", &[("app", "spinner")]).is_some_and(|age| age >= 10.0),
        "{}",
        metrics.body
    );
    sidecar.collections(2);
    assert_eq!(sidecar.logged("the event loop is blocked").len(), 1, "{}", sidecar.log());
    let shown = place.run(&["status", "--web.listen-address", sidecar.address()]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("blocked"));
    // Another life is not frozen because the one before was.
    pm2.run(&["restart", "spinner"]);
    sidecar.until("the new life", |metrics| {
        frozen(metrics, "spinner").filter(|frozen| *frozen == 0.0)?;
        metrics.value("pm2_process_restarts_total", &[("app", "spinner")]).filter(|restarts| *restarts == 1.0)
    });
}

#[test]
fn no_secret_of_an_app_gets_out_on_any_road() {
    const SECRET: &str = "hunter2-s3cr3t";
    let pm2 = Pm2::start("pm2-7");
    let environment: BTreeMap<String, String> = (0..60)
        .map(|index| (format!("API_TOKEN_{index}"), format!("{SECRET}-{index}-{}", "x".repeat(index * 7))))
        .chain([("DATABASE_URL".to_owned(), format!("postgres://root:{SECRET}@db/shop"))])
        // Flattened, these overwrite what pm2 itself knows.
        .chain(
            ["exec_mode_note", "max_memory_restart", "unstable_restarts"]
                .map(|key| (key.to_owned(), SECRET.to_owned())),
        )
        .collect();
    for (name, script, more) in [
        ("forked", "custom.js", json!({})),
        ("clustered", "server.js", json!({ "exec_mode": "cluster", "instances": 2 })),
        ("crashing", "crasher.js", json!({ "max_restarts": 1, "min_uptime": 60_000 })),
        ("argued", "server.js", json!({ "args": ["--password", SECRET], "pmx": false })),
    ] {
        let mut described = json!({ "name": name, "script": app(script), "env": environment });
        described.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pm2.start_app(&described);
    }
    let known = pm2.run(&["jlist"]);
    assert!(String::from_utf8_lossy(&known.stdout).matches(SECRET).count() > 200, "pm2 knows them, twice each");

    let by_command = format!(
        "{QUICK}trend.minute = \"1s\"\n[[pm2]]\nsource = \"command\"\ncommand = {}\n",
        serde_json::to_string(&pm2.command()).unwrap()
    );
    for configuration in [format!("{QUICK}trend.minute = \"1s\"\n"), by_command] {
        let place = Place::new(&pm2.home(), &configuration);
        let mut sidecar = place.start_with(&["--log.level", "trace"]);
        sidecar.until("all apps", |metrics| {
            metrics.value("pm2_process_custom_metric", &[("metric", "queue length")])?;
            (metrics.all("pm2_process_up", &[]).len() == 5).then_some(())
        });
        wait_for("some history", DEADLINE, || {
            let history = sidecar.json("/api/v1/processes/default/0/history?step=1");
            if history["time"].as_array().is_some_and(|times| times.len() > 3) {
                Ok(())
            } else {
                Err(history.to_string())
            }
        });
        let paths = [
            "/metrics",
            "/",
            "/api/v1/processes",
            "/api/v1/processes/default/0/history",
            "/api/v1/processes/default/0/history.csv",
        ];
        let mut told: Vec<(String, Vec<u8>)> =
            paths.iter().map(|path| ((*path).to_owned(), sidecar.get(path).into_bytes())).collect();
        let address = sidecar.address().to_owned();
        let status = |format| place.run(&["status", "--web.listen-address", &address, "--format", format]);
        let commands = |told: &mut Vec<(String, Vec<u8>)>, what: &str| {
            for format in ["text", "json"] {
                let output = status(format);
                assert!(output.status.success(), "{output:?}");
                told.push((format!("status as {format} {what}"), [output.stdout, output.stderr].concat()));
            }
        };
        commands(&mut told, "from the sidecar");
        // A daemon that is gone leads to errors, which are words too.
        pause(&pm2, || sidecar.until("the silence", |metrics| metrics.value("pm2_up", &[]).filter(|up| *up == 0.0)));
        sidecar.until("the daemon again", |metrics| metrics.value("pm2_up", &[]).filter(|up| *up > 0.0));
        let (ended, _) = sidecar.stop(Signal::TERM);
        assert!(ended.success());
        commands(&mut told, "by itself");
        told.push(("the log".to_owned(), sidecar.log().into_bytes()));
        let files = place.state_files();
        assert!(files.iter().any(|(_, content)| content.len() > 4096), "the history is on the disk");
        told.extend(files.into_iter().map(|(path, content)| (path.display().to_string(), content)));
        assert!(told.iter().find(|(name, _)| name == "the log").is_some_and(|(_, log)| log.len() > 200));
        for (name, content) in told {
            assert!(!String::from_utf8_lossy(&content).contains("s3cr3t"), "a secret got into {name}");
            assert!(!String::from_utf8_lossy(&content).contains("hunter2"), "a secret got into {name}");
        }
    }
}

/// Stops the daemon from running while `during` does; its apps and its sockets stay.
fn pause<T>(pm2: &Pm2, during: impl FnOnce() -> T) -> T {
    signal(pm2.daemon_pid(), Signal::STOP);
    let outcome = during();
    signal(pm2.daemon_pid(), Signal::CONT);
    outcome
}

/// The last resident memory of each minute, by the minute's time in milliseconds.
fn minutes(sidecar: &Sidecar) -> BTreeMap<i64, u64> {
    let history = sidecar.json("/api/v1/processes/default/0/history?span=600&step=1");
    let (times, values) = (&history["time"], &history["resident"]["last"]);
    let pairs = times.as_array().unwrap().iter().zip(values.as_array().unwrap());
    pairs.filter_map(|(time, value)| Some(((time.as_f64()? * 1000.0).round() as i64, value.as_u64()?))).collect()
}

#[test]
fn history_outlives_a_sidecar_that_was_killed() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "web"]);
    let place = Place::new(&pm2.home(), "interval = \"1s\"\n[trend]\nminute = \"1s\"\n");
    let mut sidecar = place.start();
    let wait = |sidecar: &Sidecar, count: usize| {
        wait_for("minutes", DEADLINE, || {
            let minutes = minutes(sidecar);
            if minutes.len() >= count { Ok(minutes) } else { Err(format!("{minutes:?}")) }
        })
    };
    let before = wait(&sidecar, 8);
    let (status, _) = sidecar.stop(Signal::KILL);
    assert_eq!(status.code(), None, "killed, not ended");

    let sidecar = place.start();
    assert_eq!(sidecar.logged("history restored").len(), 1, "{}", sidecar.log());
    let after = wait(&sidecar, before.len() + 3);
    // The last minute may have been under way, and the one before on its way to the disk.
    let kept = before.iter().take(before.len() - 2);
    for (at, resident) in kept {
        let same = after.range(at - 500..=at + 500).any(|(_, value)| value == resident);
        assert!(same, "{resident} bytes at {at} are lost\nbefore {before:?}\nafter {after:?}");
    }
    let history = sidecar.json("/api/v1/processes/default/0/history");
    let lives = history["lives"].as_array().unwrap();
    assert_eq!(lives.len(), 1, "the app went on living: {history:#}");
    let stored = sidecar.metrics();
    assert!(stored.value("leakslope_store_size_bytes", &[]).is_some_and(|bytes| bytes > 0.0));
    assert_eq!(stored.value("leakslope_store_degraded", &[]), Some(0.0));
}
