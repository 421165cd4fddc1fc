//! The whole sidecar on a real pm2, with time compressed a hundred and twenty times: a leaking app turns `leaking`, its
//! healthy twin and one that fills a cache never do, and the fix is proved. Windows outlive a restart of the sidecar.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{Place, Sidecar};
use crate::support::wait_for;
use rustix::process::Signal;
use serde_json::Value;

/// A minute of the detector takes half a second, and memory is asked for every second.
const CONFIGURATION: &str = "interval = \"1s\"\n[collect]\nheap_interval = \"500ms\"\n[trend]\nminute = \"500ms\"\n\
                             [[app]]\nname = \"*\"\nmemory_limit = \"400MiB\"\n";

/// Writes a version of the app that does with its work what `fate` says.
fn deploy(folder: &Path, version: &str, fate: &str) {
    let memory = app("memory.js");
    fs::write(folder.join("package.json"), format!("{{\"name\":\"shop\",\"version\":\"{version}\"}}")).unwrap();
    fs::write(folder.join("app.js"), format!("process.env.MEMORY = '{fate}';\nrequire('{memory}');\n")).unwrap();
}

const LEAKY: u64 = 0;
const OTHERS: [&str; 2] = ["twin", "cache"];

fn state(process: &Value) -> &str {
    process["verdict"]["state"].as_str().unwrap_or("none")
}

fn process(sidecar: &Sidecar, pm_id: u64) -> Result<Value, String> {
    let list = sidecar.json("/api/v1/processes");
    let found = list["processes"].as_array().into_iter().flatten().find(|process| process["pm_id"] == pm_id);
    found.cloned().ok_or_else(|| format!("no process {pm_id}: {list}"))
}

/// Asks for the leaking app, and holds the others to what they are: healthy.
fn leaky(sidecar: &Sidecar) -> Result<Value, String> {
    for pm_id in 1..=OTHERS.len() as u64 {
        let other = process(sidecar, pm_id)?;
        assert!(!matches!(state(&other), "suspect" | "leaking"), "{other:#}");
    }
    process(sidecar, LEAKY)
}

/// The lines of the log that tell of a suspicion or more.
fn worries(sidecar: &Sidecar, app: &str) -> Vec<String> {
    let of_it = sidecar.logged(&format!("app=\"{app}\""));
    of_it.into_iter().filter(|line| line.contains("WARN") && line.contains("verdict")).collect()
}

/// No line of the log may tell of a worry about a healthy app, whenever it was written.
fn assert_others_never_worried(sidecar: &Sidecar) {
    for app in OTHERS {
        assert_eq!(worries(sidecar, app), Vec::<String>::new());
    }
}

fn history(sidecar: &Sidecar) -> Value {
    sidecar.json(&format!("/api/v1/processes/default/{LEAKY}/history"))
}

#[test]
fn a_leak_is_found_outlives_a_restart_and_its_fix_is_proved() {
    let (pm2, folder) = (Pm2::start("pm2-7"), tempfile::tempdir().unwrap());
    let place = Place::new(&pm2.home(), CONFIGURATION);
    deploy(folder.path(), "1.0.0", "keep");
    pm2.run(&["start", &folder.path().join("app.js").display().to_string(), "--name", "shop"]);
    for (name, fate) in OTHERS.iter().zip(["drop", "cache"]) {
        let own = folder.path().join(name);
        fs::create_dir(&own).unwrap();
        deploy(&own, "1.0.0", fate);
        pm2.run(&["start", &own.join("app.js").display().to_string(), "--name", name]);
    }
    let begun = Instant::now();

    let mut sidecar = place.start();
    wait_for("a first window", Duration::from_mins(1), || {
        let process = leaky(&sidecar)?;
        let window = process["verdict"]["window_seconds"].as_f64().unwrap_or(0.0);
        if window >= 12.0 { Ok(()) } else { Err(process.to_string()) }
    });
    assert_others_never_worried(&sidecar);
    let oldest = history(&sidecar)["oldest"].as_f64().unwrap();
    assert!(sidecar.stop(Signal::TERM).0.success());

    let restarted = Instant::now();
    let mut sidecar = place.start();
    wait_for("the window of before", Duration::from_secs(20), || {
        let process = leaky(&sidecar)?;
        let window = process["verdict"]["window_seconds"].as_f64().unwrap_or(0.0);
        if window >= 12.0 { Ok(()) } else { Err(process.to_string()) }
    });
    let took = restarted.elapsed();
    assert!(took < Duration::from_secs(11), "the window may have begun anew, after {took:?}");
    let still = history(&sidecar)["oldest"].as_f64().unwrap();
    assert!((still - oldest).abs() < 2.0, "history began at {oldest}, now at {still}");

    let verdict = wait_for("the leak to be found", Duration::from_secs(100), || {
        let process = leaky(&sidecar)?;
        if state(&process) == "leaking" { Ok(process["verdict"].clone()) } else { Err(process.to_string()) }
    });
    println!("leaking after {:?}: {verdict:#}", begun.elapsed());
    let slope = verdict["slopes"][verdict["signal"].as_str().unwrap()]["bytes_per_second"].as_f64().unwrap();
    assert!((2.0e6..8.0e6).contains(&slope), "it leaks 4 MiB a second, not {slope}");
    let metrics = sidecar.get("/metrics");
    let leaking = |app: &str, pm_id: u64, value: u8| {
        let line = format!(
            "pm2_process_leak_state{{daemon=\"default\",namespace=\"default\",app=\"{app}\",pm_id=\"{pm_id}\",state=\"leaking\"}} {value}\n"
        );
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    };
    leaking("shop", LEAKY, 1);
    leaking("twin", 1, 0);
    leaking("cache", 2, 0);

    assert!(!worries(&sidecar, "shop").is_empty(), "the log tells of the leak: {}", sidecar.log());

    deploy(folder.path(), "2.0.0", "drop");
    pm2.run(&["restart", "shop"]);
    let lives = wait_for("the new life", Duration::from_secs(30), || {
        let history = history(&sidecar);
        let found =
            history["marks"].as_array().into_iter().flatten().any(|mark| {
                mark["kind"] == "deploy" && mark["version_before"] == "1.0.0" && mark["version"] == "2.0.0"
            });
        if found { Ok(history["lives"].clone()) } else { Err(history["marks"].to_string()) }
    });
    let lives = lives.as_array().unwrap();
    assert_eq!(lives.iter().map(|life| life["end"].as_str().unwrap()).collect::<Vec<_>>(), ["restarted", "running"]);
    assert_ne!(lives[0]["pid"], lives[1]["pid"]);
    let process = wait_for("the new life in the list", Duration::from_secs(20), || {
        let process = leaky(&sidecar)?;
        if process["version"] == "2.0.0" { Ok(process) } else { Err(process.to_string()) }
    });
    assert_eq!(state(&process), "learning", "nothing is known of the new life yet: {process:#}");

    let early = sidecar.json("/api/v1/compare?app=shop");
    assert_eq!(early["comparison"]["outcome"], "too_early", "{early:#}");
    let proved = wait_for("the proof of the fix", Duration::from_mins(2), || {
        leaky(&sidecar)?;
        let answer = sidecar.json("/api/v1/compare?app=shop");
        if answer["comparison"]["outcome"] == "too_early" { Err(answer.to_string()) } else { Ok(answer) }
    });
    println!("after {:?}: {proved:#}", begun.elapsed());
    assert_eq!(proved["comparison"]["outcome"], "fixed", "{proved:#}");
    assert_others_never_worried(&sidecar);
    assert!(sidecar.stop(Signal::TERM).0.success());
}
