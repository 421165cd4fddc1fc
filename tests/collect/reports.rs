//! What people who run pm2 reported, on real daemons: namespaces, wrappers, apps without a process, what is left behind.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::pm2::Pm2;
use crate::support::{steady, wait_until, wall};
use leakslope::collect::{Collector, Settings, Source};
use leakslope::export::{Collected, DeathCounts, render_collected};
use leakslope::model::{AppName, Bytes, DaemonSample, ProcessSample, Snapshot, Status};
use leakslope::trend::Limits;
use rstest::rstest;
use serde_json::json;

const DEADLINE: Duration = Duration::from_mins(1);

/// An app whose child holds memory and outlives it, for as long as its own file is there.
const PARENT: &str = "
    const { spawn } = require('child_process');
    const hold = `const b = Buffer.alloc(64 << 20, 1);
      setInterval(() => { if (!b[0] || !require('fs').existsSync(process.argv[1])) process.exit() }, 200)`;
    spawn(process.execPath, ['-e', hold, __filename], { stdio: 'ignore', detached: true });
    setInterval(() => {}, 1000);
";

fn named<'s>(sample: &'s DaemonSample, namespace: &str, app: &str) -> Option<&'s ProcessSample> {
    let app = AppName::new(namespace, app);
    sample.processes.iter().find(|process| process.listed.app == app)
}

fn metrics(snapshot: &Snapshot) -> String {
    let verdicts = std::collections::BTreeMap::new();
    render_collected(&Collected {
        snapshot,
        verdicts: &verdicts,
        version_slopes: &[],
        restarts: None,
        evidence: &[],
        deaths: &DeathCounts::default(),
    })
}

#[rstest]
#[case("pm2-5")]
#[case("pm2-6")]
#[case("pm2-7")]
#[tokio::test]
async fn an_app_is_its_namespace_and_name_and_its_limits_processes_and_orphans_are_what_they_are(
    #[case] alias: &'static str,
) {
    let pm2 = Pm2::start(alias);
    let scripts = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = scripts.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let idle = script("idle.js", "setInterval(() => {}, 1000)");
    let api = |namespace: &str| json!({"name": "api", "namespace": namespace, "script": idle});
    let both = script("api.json", &json!({ "apps": [api("production"), api("staging")] }).to_string());
    pm2.run(&["start", &both]);
    let parent = script("parent.js", PARENT);
    pm2.start_app(&json!({"name": "parent", "script": parent, "treekill": false, "max_memory_restart": "100M"}));
    // pm2#5992: what cannot be executed is online in pm2's list, without a pid.
    let dead = script("dead.sh", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(&dead, fs::Permissions::from_mode(0o644)).unwrap();
    let dead = json!({"name": "dead", "script": dead, "interpreter": "none", "autorestart": false});
    let file = script("dead.json", &json!({ "apps": [dead] }).to_string());
    pm2.try_run(&["start", &file]);

    let settings = Settings { deadline: DEADLINE, ..Settings::default() };
    let collector = tokio::sync::Mutex::new(Collector::new(vec![pm2.spec(Source::Socket)], settings));
    let collect = async || collector.lock().await.collect(steady(), wall()).await;
    let whole = wait_until("the parent's child to hold its memory", DEADLINE, || async {
        let snapshot = collect().await;
        let parent = named(&snapshot.daemons[0], "default", "parent").and_then(|process| process.system.clone());
        let holds = parent.is_some_and(|system| system.tree_resident > Bytes(90 << 20));
        if holds { Ok(snapshot) } else { Err(format!("{snapshot:#?}")) }
    })
    .await;
    let sample = &whole.daemons[0];
    let (production, staging) = (named(sample, "production", "api").unwrap(), named(sample, "staging", "api").unwrap());
    assert_ne!(production.key, staging.key);
    // Its own memory is far from pm2's limit, whatever its child holds.
    let parent = named(sample, "default", "parent").unwrap();
    assert!(parent.resident < Some(Bytes(100 << 20)) && parent.held() > Some(Bytes(90 << 20)), "{parent:#?}");
    let limits = Limits::of(&parent.limits, Some(whole.host.memory_total)).with_own(parent.resident, parent.held());
    assert_ne!(limits, Limits::of(&parent.limits, Some(whole.host.memory_total)));
    let text = metrics(&whole);
    for series in [
        "pm2_app_instances{daemon=\"default\",namespace=\"production\",app=\"api\",status=\"online\"} 1",
        "pm2_app_instances{daemon=\"default\",namespace=\"staging\",app=\"api\",status=\"online\"} 1",
        "pm2_app_orphans{daemon=\"default\",namespace=\"default\",app=\"parent\"} 0",
    ] {
        assert!(text.contains(series), "no {series} in:\n{text}");
    }
    if let Some(dead) = named(sample, "default", "dead") {
        assert_ne!(dead.listed.status, Status::Online, "{dead:#?}");
        let online = "pm2_app_instances{daemon=\"default\",namespace=\"default\",app=\"dead\",status=\"online\"} 0";
        assert!(text.contains(online), "{text}");
    }

    // pm2#5223: each restart leaves the child of the run before.
    pm2.run(&["restart", "parent"]);
    let after = wait_until("the child left behind to be found", DEADLINE, || async {
        let snapshot = collect().await;
        let found: Vec<u32> = snapshot.daemons[0].orphans.iter().flatten().map(|orphan| orphan.pid).collect();
        if found.len() == 1 { Ok(snapshot) } else { Err(format!("{found:?}")) }
    })
    .await;
    let left = after.daemons[0].orphans_by_app().unwrap();
    let (count, resident) = left[&AppName::new("default", "parent")];
    assert!(count == 1 && resident > Bytes(60 << 20), "{left:?}");
    assert!(left.iter().all(|(app, (count, _))| app.name() == "parent" || *count == 0), "{left:?}");
}
