//! Collecting from real daemons: pm2 5, 6 and 7, with apps of every kind.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, print and measure"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::pm2::{Pm2, VERSIONS, app, is_alive, kill, signal};
use crate::support::{steady, wait_until, wall};
use leakslope::collect::{Collector, Settings, Source};
use leakslope::model::{AppMetrics, Bytes, DaemonSample, Life, MemorySource, ProcessSample, Snapshot, Status};
use rstest::rstest;
use rustix::process::Signal;

const DEADLINE: Duration = Duration::from_mins(1);

fn collector(pm2: &Pm2, source: Source) -> Collector {
    Collector::new(vec![pm2.spec(source)], settings())
}

/// A busy machine may take longer than usual to answer.
fn settings() -> Settings {
    Settings { deadline: DEADLINE, ..Settings::default() }
}

async fn collect(collector: &mut Collector) -> DaemonSample {
    collector.collect(steady(), wall()).await.daemons.remove(0)
}

/// Collects until `check` is content with what was seen.
async fn until<T>(
    collector: &mut Collector,
    what: &str,
    mut check: impl FnMut(&DaemonSample) -> Option<T>,
) -> (DaemonSample, T) {
    let shared = tokio::sync::Mutex::new((collector, &mut check));
    wait_until(what, DEADLINE, || async {
        let mut shared = shared.lock().await;
        let (collector, check) = &mut *shared;
        let sample = collect(collector).await;
        match check(&sample) {
            Some(found) => Ok((sample, found)),
            None => Err(format!("{sample:#?}")),
        }
    })
    .await
}

fn by_app<'s>(sample: &'s DaemonSample, app: &str) -> Vec<&'s ProcessSample> {
    sample.processes.iter().filter(|process| process.listed.app.name() == app).collect()
}

fn one<'s>(sample: &'s DaemonSample, app: &str) -> Option<&'s ProcessSample> {
    match by_app(sample, app)[..] {
        [process] => Some(process),
        _ => None,
    }
}

fn life(sample: &DaemonSample, app: &str) -> Option<Life> {
    one(sample, app)?.life
}

#[rstest]
#[case("pm2-5")]
#[case("pm2-6")]
#[case("pm2-7")]
#[tokio::test]
async fn every_kind_of_app_is_collected(#[case] alias: &'static str) {
    let pm2 = Pm2::start(alias);
    pm2.run(&["start", "ecosystem.json"]);
    pm2.run(&["stop", "stopped"]);
    let mut collector = collector(&pm2, Source::Auto);
    let mut last = String::new();
    let settled = |sample: &DaemonSample| {
        let system = |app| one(sample, app).and_then(|process| process.system.as_ref());
        let metrics = |app| one(sample, app).map(|process| &process.listed.metrics);
        let status = |app| one(sample, app).map(|process| process.listed.status);
        // The event loop is the last to be measured.
        let measured = |app, instances| {
            let of = by_app(sample, app);
            of.len() == instances && of.iter().all(|process| process.listed.metrics.event_loop_p95_seconds.is_some())
        };
        let queue = |metrics: &AppMetrics| metrics.custom.iter().any(|metric| metric.name == "queue length");
        let open: Vec<&str> = [
            ("the wrapper's child", system("wrapper").is_some_and(|system| system.tree_resident > Bytes(120 << 20))),
            ("web's event loop", measured("web", 1)),
            ("api's event loops", measured("api", 2)),
            ("custom's event loop", measured("custom", 1)),
            ("a report on garbage collection", metrics("custom").is_some_and(|metrics| metrics.gc.is_some())),
            ("a custom metric", metrics("custom").is_some_and(queue)),
            ("crasher given up", status("crasher") == Some(Status::Errored)),
            ("backoff waiting", status("backoff") == Some(Status::WaitingRestart)),
        ]
        .into_iter()
        .filter_map(|(what, is_so)| (!is_so).then_some(what))
        .collect();
        let waits = open.join(", ");
        if waits != last {
            println!("waits for: {waits}");
            last = waits;
        }
        open.is_empty().then_some(())
    };
    let (sample, ()) = until(&mut collector, "all apps to settle", settled).await;

    let version = VERSIONS.iter().find(|(name, _)| *name == alias).unwrap().1;
    assert_eq!((sample.up, sample.version.as_deref(), sample.pid), (true, Some(version), Some(pm2.daemon_pid())));
    assert!(sample.resident.is_some_and(|resident| resident > Bytes(20 << 20)), "{:?}", sample.resident);
    assert!(sample.reports.iter().all(|report| report.failure.is_none()), "{:?}", sample.reports);
    assert_eq!((sample.processes.len(), sample.processes_left_out), (10, 0));

    let web = one(&sample, "web").unwrap();
    assert_eq!(web.key.pm_id, 0, "the first process is one like any other");
    assert_eq!((web.listed.status, web.listed.exec_mode), (Status::Online, "fork"));
    assert_eq!(web.listed.app.namespace(), "front");
    assert_eq!(web.limits.max_memory_restart, Some(Bytes(300 << 20)));
    assert_eq!(web.limits.heap, Some(Bytes(256 << 20)));
    assert!(web.listed.metrics.heap_used <= web.listed.metrics.heap_total);
    assert!(web.listed.metrics.event_loop_p95_seconds.is_some_and(|latency| latency < 5.0));
    assert!(web.listed.metrics.active_handles.is_some());
    assert_eq!(web.listed.node_version, Some(node_version()));
    assert_eq!((web.listed.interpreter.as_deref(), web.listed.version.as_deref()), (Some("node"), Some("1.4.2")));
    let system = web.system.as_ref().unwrap();
    assert_eq!((web.resident, web.resident_source), (Some(system.resident), Some(MemorySource::System)));
    let pid = web.listed.pid.unwrap();
    let resident = resident_now(pid);
    assert!(system.resident.0.abs_diff(resident) < resident / 5, "{} and {resident}", system.resident.0);
    assert!(system.anonymous.is_some_and(|anonymous| anonymous < system.resident), "{system:?}");
    assert!(system.threads.is_some_and(|threads| threads > 4) && system.open_fds.is_some_and(|fds| fds > 10));
    assert!(system.cpu_milliseconds > 10 && system.cpu_milliseconds < 60_000, "{system:?}");
    let noted = web.listed.pm_uptime.unwrap();
    assert!(noted.abs_diff(system.started_at_ms) < 5000, "{noted} and {}", system.started_at_ms);

    let workers = by_app(&sample, "api");
    let told: Vec<_> = workers
        .iter()
        .map(|worker| (worker.listed.exec_mode, worker.system.is_some(), worker.listed.instance))
        .collect();
    assert_eq!(told, [("cluster", true, Some(0)), ("cluster", true, Some(1))]);

    let plain = one(&sample, "nopmx").unwrap();
    assert!(!plain.listed.pmx && plain.listed.metrics.heap_used.is_none() && plain.system.is_some());
    assert_eq!((plain.metrics_age_seconds, plain.metrics_frozen), (None, false));

    for (name, status) in
        [("crasher", Status::Errored), ("stopped", Status::Stopped), ("backoff", Status::WaitingRestart)]
    {
        let ended = one(&sample, name).unwrap();
        assert_eq!((ended.listed.status, ended.life, ended.system.is_some()), (status, None, false), "{name}");
        assert_eq!((ended.resident, ended.resident_source, ended.metrics_frozen), (None, None, false), "{name}");
    }
    assert!(one(&sample, "backoff").unwrap().listed.pid.is_some(), "pm2 keeps the dead pid, and it is not looked at");
    assert!(one(&sample, "crasher").unwrap().listed.restarts.is_some_and(|restarts| restarts > 0));

    let shell = one(&sample, "shell").unwrap();
    assert_eq!(shell.listed.interpreter.as_deref(), Some("sh"));
    assert!(shell.system.is_some() && shell.listed.metrics.heap_used.is_none());

    let wrapper = one(&sample, "wrapper").unwrap();
    let system = wrapper.system.as_ref().unwrap();
    assert!(system.tree_processes >= 2, "{system:?}");
    assert!(system.tree_resident.0 > system.resident.0 + (90 << 20), "{system:?}");

    let custom = &one(&sample, "custom").unwrap().listed.metrics;
    let told: BTreeMap<_, _> =
        custom.custom.iter().map(|metric| (metric.name.as_str(), (metric.value, metric.unit.as_str()))).collect();
    assert_eq!(told.get("queue length"), Some(&(7.0, "jobs")), "{told:?}");
    assert_eq!(told.get("orders").map(|(value, _)| *value), Some(3.0), "{told:?}");
    assert_eq!(told.get("disk used"), Some(&(15.07, "MB")), "{told:?}");
    assert!(["broken", "strange", "words"].iter().all(|name| !told.contains_key(name)), "{told:?}");
    let report = custom.gc.unwrap();
    assert_eq!((report.heap_after_major_gc, report.major_gcs), (Some(Bytes(5_000_001)), 4));
    assert_eq!(one(&sample, "custom").unwrap().limits.heap, Some(Bytes(256 << 20)));

    for text in [format!("{sample:?}"), format!("{collector:?}"), serde_json::to_string(&sample).unwrap()] {
        assert!(!text.contains("s3cr3t"), "an environment got out");
    }
    let heaps = collector.poll_heap(steady()).await;
    let polled: Vec<_> = heaps.iter().filter(|heap| heap.heap_used.is_some()).map(|heap| heap.key.pm_id).collect();
    assert!(polled.contains(&0) && polled.len() >= 4, "{heaps:?}");
    assert!(heaps.iter().all(|heap| sample.processes.iter().any(|process| process.life == Some(heap.life))));

    // The command tells the same.
    let mut by_command = self::collector(&pm2, Source::Command);
    let second = collect(&mut by_command).await;
    assert_eq!(second.reports[0].failure, None);
    assert_eq!(second.pid, Some(pm2.daemon_pid()));
    let lives = |sample: &DaemonSample| {
        sample.processes.iter().map(|process| (process.key.clone(), process.life)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(lives(&second), lives(&sample));
    assert!(by_command.poll_heap(steady()).await.is_empty());
}

fn node_version() -> String {
    let output = std::process::Command::new("node").arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().trim_start_matches('v').to_owned()
}

fn resident_now(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[rstest]
#[case("pm2-5")]
#[case("pm2-6")]
#[case("pm2-7")]
#[tokio::test]
async fn a_daemon_killed_under_the_collector_and_brought_back(#[case] alias: &'static str) {
    let pm2 = Pm2::start(alias);
    pm2.run(&["start", &app("server.js"), "--name", "web"]);
    let mut collector = collector(&pm2, Source::Auto);
    let (_, first) = until(&mut collector, "the app", |sample| life(sample, "web")).await;

    pm2.kill_daemon();
    for _ in 0..2 {
        let dead = collect(&mut collector).await;
        assert!(!dead.up && dead.processes.is_empty() && dead.last_success.is_some(), "{dead:?}");
        let reason = dead.reports[0].failure.as_deref().unwrap();
        assert!(reason.ends_with("nobody listens (pm2 has died or is restarting)"), "{reason}");
    }
    assert!(!is_alive(pm2.daemon_pid()), "collecting must not start a daemon");

    kill(first.pid);
    pm2.run(&["start", &app("server.js"), "--name", "web"]);
    let (back, second) = until(&mut collector, "the app again", |sample| life(sample, "web")).await;
    assert_eq!((back.up, back.pid, second == first), (true, Some(pm2.daemon_pid()), false));

    // `pm2 update` and `pm2 kill` close the kept connection in good order, and must not have to wait for it.
    pm2.run(&["kill"]);
    let gone = collect(&mut collector).await;
    assert!(!gone.up, "{gone:?}");
}

#[tokio::test]
async fn nothing_is_ever_started() {
    let pm2 = Pm2::new("pm2-7");
    for source in [Source::Auto, Source::Socket, Source::Command] {
        let mut collector = collector(&pm2, source);
        let sample = collect(&mut collector).await;
        assert!(!sample.up && sample.reports[0].failure.is_some(), "{sample:?}");
    }
    assert!(!pm2.home().exists() && pm2.processes().is_empty());
    fs::create_dir(pm2.home()).unwrap();
    let sample = collect(&mut collector(&pm2, Source::Command)).await;
    let reason = sample.reports[0].failure.as_deref().unwrap();
    assert!(reason.ends_with("not run, as no daemon lives in this home and it would start one"), "{reason}");
    assert_eq!(fs::read_dir(pm2.home()).unwrap().count(), 0);
}

#[rstest]
#[case("pm2-5")]
#[case("pm2-6")]
#[case("pm2-7")]
#[tokio::test]
async fn a_process_keeps_its_key_and_changes_its_life(#[case] alias: &'static str) {
    let pm2 = Pm2::start(alias);
    pm2.run(&["start", &app("server.js"), "--name", "web", "-i", "1"]);
    let mut collector = collector(&pm2, Source::Socket);
    let (_, first) = until(&mut collector, "the app", |sample| life(sample, "web")).await;

    // A restart is another life of the same process, and a reset changes no life.
    pm2.run(&["restart", "web"]);
    let (sample, second) =
        until(&mut collector, "the restart", |sample| life(sample, "web").filter(|life| *life != first)).await;
    let web = one(&sample, "web").unwrap();
    assert_eq!((web.key.pm_id, web.listed.restarts), (0, Some(1)));
    assert_ne!((second.pid, second.started), (first.pid, first.started));
    pm2.run(&["reset", "web"]);
    let sample = collect(&mut collector).await;
    assert_eq!((life(&sample, "web"), one(&sample, "web").unwrap().listed.restarts), (Some(second), Some(0)));

    // Scaling up adds processes, scaling down removes the newest.
    pm2.run(&["scale", "web", "3"]);
    let (sample, ()) = until(&mut collector, "three workers", |sample| {
        let workers = by_app(sample, "web");
        (workers.len() == 3 && workers.iter().all(|worker| worker.life.is_some())).then_some(())
    })
    .await;
    let ids: Vec<u32> = sample.processes.iter().map(|process| process.key.pm_id).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert_eq!(sample.processes[0].life, Some(second));
    pm2.run(&["scale", "web", "1"]);
    until(&mut collector, "one worker", |sample| one(sample, "web").map(|_| ())).await;

    // Deleted and started again it is another life.
    pm2.run(&["delete", "web"]);
    pm2.run(&["start", &app("server.js"), "--name", "renamed"]);
    let (sample, _) = until(&mut collector, "the new one", |sample| life(sample, "renamed")).await;
    // pm2 may give the number of the deleted one again: then only the life tells them apart.
    assert_eq!(sample.processes.len(), 1);
    assert_ne!(sample.processes[0].life, Some(second));

    // Renamed it is the same process.
    let id = sample.processes[0].key.pm_id.to_string();
    pm2.run(&["restart", &id, "--name", "other", "--update-env"]);
    let (sample, _) = until(&mut collector, "the other name", |sample| {
        sample.processes[0].life.filter(|_| sample.processes[0].listed.status == Status::Online)
    })
    .await;
    assert_eq!(sample.processes[0].key.pm_id.to_string(), id);
}

#[tokio::test]
async fn a_blocked_event_loop_shows_as_frozen_and_an_idle_one_does_not() {
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &app("server.js"), "--name", "blocked"]);
    pm2.run(&["start", &app("server.js"), "--name", "idle"]);
    let mut collector = collector(&pm2, Source::Socket);
    let (_, life) = until(&mut collector, "metrics of both", |sample| {
        one(sample, "idle")?.listed.metrics.heap_used?;
        one(sample, "blocked")?.listed.metrics.heap_used?;
        life(sample, "blocked")
    })
    .await;
    signal(life.pid, Signal::USR2);
    let (sample, ()) = until(&mut collector, "the block to show", |sample| {
        let idle = one(sample, "idle")?;
        assert!(!idle.metrics_frozen, "an idle app is not frozen: {idle:?}");
        one(sample, "blocked")?.metrics_frozen.then_some(())
    })
    .await;
    let blocked = one(&sample, "blocked").unwrap();
    assert!(blocked.metrics_age_seconds.is_some_and(|age| (10.0..50.0).contains(&age)), "{blocked:?}");
    assert!(blocked.system.is_some(), "the system still tells");
}

#[tokio::test]
async fn two_versions_side_by_side_and_discovered() {
    let (old, new) = (Pm2::start("pm2-5"), Pm2::start("pm2-7"));
    old.run(&["start", &app("server.js"), "--name", "web"]);
    let passwd = tempfile::NamedTempFile::new().unwrap();
    let user_home = new.home().parent().unwrap().display().to_string();
    let dead_home = Pm2::new("pm2-7").home();
    fs::write(
        passwd.path(),
        format!("deploy:x:1000:1000::{user_home}:/bin/sh\ngone:x:1001:1001::{}:/bin/sh\n", dead_home.display()),
    )
    .unwrap();
    let settings = Settings { discover: true, passwd: passwd.path().to_owned(), ..settings() };
    let mut collector = Collector::new(vec![old.spec(Source::Auto)], settings);
    let snapshot: Snapshot = collector.collect(steady(), wall()).await;
    let told: BTreeMap<&str, Option<&str>> =
        snapshot.daemons.iter().map(|daemon| (daemon.name.as_str(), daemon.version.as_deref())).collect();
    assert_eq!(told.get("default"), Some(&Some("5.4.3")), "{told:?}");
    assert_eq!(told.get("deploy"), Some(&Some("7.0.4")), "{told:?}");
    assert!(!told.contains_key("gone"));
    let homes = snapshot.daemons.iter().filter(|daemon| daemon.name.as_str().contains(&user_home)).count();
    assert_eq!(homes, 0, "each home once, though its daemon's title shows it too");
    assert!(Path::new(&user_home).exists());

    // Who links to the home of another lends it no name.
    let eve = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(new.home(), eve.path().join(".pm2")).unwrap();
    fs::write(passwd.path(), format!("eve:x:65534:65534::{}:/bin/sh\n", eve.path().display())).unwrap();
    let settings = Settings { discover: true, passwd: passwd.path().to_owned(), ..self::settings() };
    let snapshot = Collector::new(vec![old.spec(Source::Auto)], settings).collect(steady(), wall()).await;
    let names: Vec<&str> = snapshot.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
    assert!(names.contains(&new.home().to_str().unwrap()) && !names.contains(&"eve"), "{names:?}");
}
