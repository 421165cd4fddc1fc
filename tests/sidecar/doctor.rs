//! `leakslope doctor` on a real pm2 with one mistake an app, on one that is well, and on files that need not run.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leakslope::doctor::Check;
use serde_json::{Value, json};

use crate::support::pm2::Pm2;
use crate::support::sidecar::Place;
use crate::support::{stranger, wait_for};

const SCRIPTS: [(&str, &str); 6] = [
    ("app.js", "require('http').createServer((request, response) => response.end()).listen(0);"),
    ("stubborn.js", "process.on('SIGINT', () => {}); setInterval(() => {}, 1000);"),
    ("loop.js", "setTimeout(() => process.exit(1), 600);"),
    ("child.js", "require('child_process').spawn('sleep', ['1000']); setInterval(() => {}, 1000);"),
    (
        "segfault.js",
        "const fs = require('fs'); const mark = __dirname + '/crashed'; setInterval(() => {}, 1000);\n\
         if (!fs.existsSync(mark)) { fs.writeFileSync(mark, ''); process.kill(process.pid, 'SIGSEGV'); }",
    ),
    (
        "leaver.js",
        "const child = require('child_process').spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });\n\
         require('fs').writeFileSync(__dirname + '/left', String(child.pid)); process.exit(0);",
    ),
];

/// A folder with the scripts; what one of them leaves behind ends with it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("doctor-").tempdir().unwrap();
        for (name, text) in SCRIPTS {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::write(folder.path().join("start.sh"), "#!/bin/sh\nnode app.js\necho ended\n").unwrap();
        fs::create_dir(folder.path().join("quiet")).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ecosystem(&self, apps: &Value) -> String {
        let file = self.path().join("ecosystem.config.js");
        fs::write(&file, format!("module.exports = {}\n", json!({ "apps": apps }))).unwrap();
        file.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.path().join("left")) {
            let _gone = rustix::process::kill_process(
                rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

fn doctor(place: &Place, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = place.command(&[&["doctor", "--json"], arguments].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report, said)
}

/// The findings as `check app`; of the host or a daemon, the check alone.
fn found(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let name = |finding: &Value| {
        format!("{} {}", finding["check"].as_str().unwrap(), finding["app"].as_str().unwrap_or_default())
            .trim()
            .to_owned()
    };
    findings.iter().map(name).collect()
}

fn seeds() -> Value {
    json!([
        { "name": "codes", "script": "app.js", "stop_exit_codes": [0] },
        { "name": "small", "script": "app.js", "max_memory_restart": "100" },
        { "name": "stubborn", "script": "stubborn.js", "kill_timeout": 300 },
        { "name": "ready", "script": "app.js", "wait_ready": true, "listen_timeout": 300 },
        { "name": "loops", "script": "loop.js", "min_uptime": 200 },
        { "name": "huge", "script": "app.js", "node_args": "--max-old-space-size=9999999" },
        { "name": "tree", "script": "child.js", "treekill": false },
        { "name": "wrapped", "script": "start.sh" },
        { "name": "null", "script": "app.js", "error_file": "/dev/null" },
        { "name": "agentless", "script": "app.js", "pmx": false, "exec_mode": "fork" },
        { "name": "watched", "script": "app.js", "watch": ["quiet"], "env": { "NODE_ENV": "production", "TOKEN": "hunter2" } },
        { "name": "flag", "script": "app.js", "args": "--max-old-space-size=300" },
        { "name": "crashed", "script": "segfault.js" },
        { "name": "leaver", "script": "leaver.js", "autorestart": false },
    ])
}

const EXPECTED: [&str; 20] = [
    "stop-exit-codes codes",
    "memory-restart small",
    "kill-timeout stubborn",
    "listen-timeout ready",
    "endless-restarts loops",
    "host-memory",
    "heap-flag flag",
    "wrapper tree",
    "wrapper wrapped",
    "logs",
    "logs null",
    "journal",
    "orphans",
    "orphans agentless",
    "dump",
    "watch watched",
    "oom-score",
    "autorestart leaver",
    "autorestart loops",
    "core-files crashed",
];

#[test]
fn each_mistake_is_found_on_a_running_pm2_and_none_on_one_that_is_well() {
    let folder = Folder::new();
    let pm2 = Pm2::new("pm2-7");
    let place = Place::new(&pm2.home(), "");
    let no_core = ["sh", "-c", "ulimit -c 0; exec \"$@\"", "sh"];
    let command = [no_core.map(str::to_owned).to_vec(), pm2.command()].concat();
    let ecosystem = folder.ecosystem(&seeds());
    let started = place
        .program(&command[0])
        .args(&command[1..])
        .args(["start", &ecosystem])
        .current_dir(folder.path())
        .env("PM2_HOME", pm2.home())
        .output()
        .unwrap();
    assert!(started.status.success(), "{started:?}");
    pm2.run(&["restart", "stubborn"]);
    let log = fs::File::options().append(true).open(pm2.home().join("logs/codes-out.log")).unwrap();
    log.set_len(2 << 30).unwrap();
    fs::write(format!("/proc/{}/oom_score_adj", pm2.daemon_pid()), "500").unwrap();

    // A second one, whose log carries no times, and a third that is well.
    let stampless = Pm2::new("pm2-6");
    let app = folder.path().join("app.js").display().to_string();
    stampless.try_run_with(&["start", &app], &[("PM2_LOG_DATE_FORMAT", "")]);
    let (_, report, _) = doctor(&Place::new(&stampless.home(), ""), &[]);
    assert_eq!(found(&report), BTreeSet::from(["dump".to_owned(), "journal".to_owned()]), "{report:#}");

    let report = wait_for("every mistake", Duration::from_mins(1), || {
        let (code, report, said) = doctor(&place, &[]);
        let mut found = found(&report);
        found.insert("journal".to_owned());
        let missing: Vec<_> = EXPECTED.into_iter().filter(|one| !found.contains(*one)).collect();
        let dismal = code == Some(3) && report["critical"].as_u64() >= Some(3);
        if missing.is_empty() && dismal { Ok(report) } else { Err(format!("{missing:?}: {code:?} {said}\n{report:#}")) }
    });
    assert!(!report.to_string().contains("hunter2"));
    let losing = report["restarts"].as_array().unwrap().iter().find(|app| app["app"] == "codes").unwrap();
    assert_eq!(losing["change"][0], "exec_mode: \"cluster\",");

    let well = Pm2::start("pm2-5");
    well.run(&["start", &app, "--name", "fork", "--max-memory-restart", "900M"]);
    well.run(&["start", &app, "--name", "cluster", "-i", "2"]);
    well.run(&["save"]);
    let sidecar = Place::new(&well.home(), "");
    let (code, report, _) = doctor(&sidecar, &[]);
    assert_eq!((code, found(&report)), (Some(0), BTreeSet::new()), "{report:#}");
    let sidecar = sidecar.spawn(sidecar.command(&["--web.listen-address", "127.0.0.1:0"])).ready();
    let served = sidecar.json("/api/v1/doctor");
    assert_eq!(served["findings"], json!([]));
    assert_eq!(served["restarts"][0]["app"], "fork", "{served:#}");
}

#[test]
fn a_file_that_need_not_run_is_read_never_as_root_and_bounded_in_time() {
    let folder = Folder::new();
    let place = Place::new(&folder.path().join("no-home"), "");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let apps = "{ apps: [{ name: 'api', script: 'app.js', stop_exit_codes: [0, 2], max_memory_restart: '300M' }] }";
    for (name, text) in [
        ("a.config.js", format!("console.log('loading'); module.exports = {apps};")),
        ("a.config.mjs", format!("export default {apps};")),
        ("b.config.js", format!("export default {apps};")),
        (
            "a.json",
            r#"{"apps":[{"name":"api","script":"app.js","stop_exit_codes":[0,2]}] /* pm2 takes comments */}"#
                .to_owned(),
        ),
        ("a.yml", "apps:\n  - name: api\n    script: app.js\n    stop_exit_codes: [0, 2]\n".to_owned()),
    ] {
        let (code, report, said) = doctor(&place, &[&write(name, &text)]);
        assert_eq!(code, Some(3), "{name}: {said}{report:#}");
        assert_eq!(found(&report), BTreeSet::from(["stop-exit-codes api".to_owned()]), "{name}");
        assert_eq!(report["findings"][0]["change"], "stop_exit_codes: [2]");
    }
    let whose = write("whose.config.js", "throw new Error(`I run as ${process.getuid()} with ${process.env.SECRET}`);");
    let output = place.command(&["doctor", &whose]).env("SECRET", "hunter2").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("I run as ") && !said.contains("I run as 0 ") && said.contains("undefined"), "{said}");
    // One of another user in a folder that gives its files a group which that user is not in.
    let theirs = Folder::new();
    let file = theirs.path().join("theirs.config.js");
    let tells = "let terminal = 'one'; try { require('fs').openSync('/dev/tty', 'r+'); } catch { terminal = 'none'; }\n\
        throw new Error(`I run as ${process.getuid()} in ${process.getgroups()} ${process.getgid()} with terminal ${terminal}`);";
    fs::write(&file, tells).unwrap();
    for of_root in [theirs.path(), &file] {
        let chown = std::os::unix::fs::chown(of_root, Some(stranger::UID), Some(0));
        chown.expect("this test needs a second user: run it as root");
    }
    let program = format!("{} doctor {}", env!("CARGO_BIN_EXE_leakslope"), file.display());
    let output = Command::new("script").args(["-qec", &program, "/dev/null"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("I run as 65534 in 65534 65534 with terminal none"), "{said}");
    let (code, _, said) = doctor(&place, &[&write("endless.config.js", "for (;;);")]);
    assert!(code == Some(1) && said.contains("stopped after 10 s"), "{said}");
    let (code, _, said) = doctor(&place, &[]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn every_check_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/doctor.md")).unwrap();
    for check in Check::ALL {
        assert!(document.contains(&format!("\n## {}\n", check.as_str())), "docs/doctor.md does not explain {check:?}");
    }
    assert_eq!(Check::ALL.len(), 19);
}
