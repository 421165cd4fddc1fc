//! `leakslope watch` as a pipeline runs it: real Node apps that leak and their healthy twins, loads, endings of every kind,
//! and nothing left behind.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{stranger, wait_for};
use leakslope::collect::system::listening_ports;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far more than ending a group takes on a busy machine.
const GONE_WITHIN: Duration = Duration::from_mins(1);

fn fixture(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folder =
        if name.starts_with("leak-") || name.starts_with("healthy-") { "fixtures/heap/apps" } else { "watch/apps" };
    let file = root.join(folder).join(name);
    assert!(file.exists(), "{}", file.display());
    file.display().to_string()
}

fn needs(tool: &str, install: &str) {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(found.is_ok_and(|status| status.success()), "{tool} is missing: run `{install}`");
}

/// One `leakslope watch` with a folder of its own for all that it could leave behind.
struct Watch {
    folder: TempDir,
    child: Child,
}

impl Watch {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        needs("node", "apt-get install nodejs npm");
        let folder = tempfile::Builder::new().prefix("watch-").tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_leakslope"))
            .arg("watch")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path().join("tmp"))
            .env("XDG_STATE_HOME", folder.path().join("state"))
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits for its end; the code it ended with. Nothing may be left in its folder for temporary files.
    fn code(&mut self) -> i32 {
        let code = wait_for("the end of the run", Duration::from_mins(3), || {
            self.child.try_wait().unwrap().map(|status| status.code().unwrap()).ok_or_else(|| "it runs".to_owned())
        });
        assert_eq!(fs::read_dir(self.path("tmp")).unwrap().count(), 0, "a temporary file was left");
        code
    }

    /// Waits for its end: the code and the report.
    fn report(&mut self) -> (i32, Value) {
        let code = self.code();
        let out = self.said("out");
        let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{}", self.said("err")));
        (code, report)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It ends what it has started, where it is told to in this way.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_process(self.pid(), Signal::TERM).ok();
            self.child.wait().ok();
        }
    }
}

/// A process of the test's own.
struct Own(Child);

impl Own {
    fn start(program: &str, arguments: &[&str]) -> Self {
        Self(Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until every process with these pids is gone.
fn gone(pids: &[i32]) {
    wait_for("everything that was started to be gone", GONE_WITHIN, || {
        let alive = pids.iter().filter(|pid| test_kill_process(Pid::from_raw(**pid).unwrap()).is_ok());
        let left: Vec<&i32> = alive.collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are alive")) }
    });
}

const JSON: [&str; 4] = ["--duration", "20s", "--format", "json"];

fn watch_app(name: &str, variables: &[(&str, &str)]) -> Watch {
    let variables = [&[("WORK_PER_SECOND", "100")], variables].concat();
    Watch::start(&[&JSON[..], &["--", "node", &fixture(name)]].concat(), &variables)
}

#[test]
fn patterns_that_leak_are_told_from_their_healthy_twins() {
    let leaks: Vec<_> =
        ["leak-map.js", "leak-closure.js", "leak-table.js"].map(|name| (name, watch_app(name, &[]))).into();
    let twins: Vec<_> = ["healthy-map.js", "healthy-closure.js"].map(|name| (name, watch_app(name, &[]))).into();
    let mut cache = watch_app("cache-fills.js", &[("FILL_SECONDS", "10")]);
    let mut backlog = watch_app("backlog-drains.js", &[("BURST_SECONDS", "8")]);
    for (name, mut watch) in leaks {
        let (code, report) = watch.report();
        assert_eq!((code, report["answer"].as_str()), (3, Some("leak")), "{name}: {report}");
        let process = &report["processes"][0];
        assert_eq!(process["signal"], "heap", "{name}: {report}");
        let profile = process["evidence"]["path"].as_str().unwrap();
        assert!(Path::new(profile).starts_with(watch.path("state/leakslope/evidence")), "{profile}");
        let functions = process["evidence"]["functions"].to_string();
        assert!(functions.contains(name), "{name}: the functions are of another file: {functions}");
        let read =
            Command::new(env!("CARGO_BIN_EXE_leakslope")).args(["heap", "profile-summary", profile]).output().unwrap();
        assert!(read.status.success(), "{name}: {}", String::from_utf8_lossy(&read.stderr));
    }
    for (name, mut watch) in twins {
        let (code, report) = watch.report();
        assert_eq!((code, report["answer"].as_str()), (0, Some("no_leak")), "{name}: {report}");
        assert!(!watch.path("state").exists(), "{name}: evidence of no leak");
    }
    for watch in [&mut cache, &mut backlog] {
        let (code, report) = watch.report();
        assert!(code == 0 || code == 4, "{report}");
    }
}

#[test]
fn a_load_is_driven_and_counted_and_told_where_it_outran_the_app() {
    let load = format!("node {}", fixture("load.js"));
    let serve = |mode: &str, more: &[&str]| {
        let server = fixture("server.js");
        let arguments = [&["--duration", "24s", "--load", &load][..], more, &["--", "node", &server]].concat();
        Watch::start(&arguments, &[("MODE", mode), ("RATE", "150")])
    };
    let mut leaking = serve("leak", &["--format", "json"]);
    let mut slow = serve("slow", &[]);
    let (code, report) = leaking.report();
    assert_eq!(code, 3, "{report}");
    // Of every request an array of 60 places is kept.
    let per_request = &report["processes"][0]["signals"][0]["per_work"];
    let [low, high] = ["low", "high"].map(|bound| per_request[bound].as_f64().unwrap());
    assert!(low < 700.0 && high > 450.0 && per_request["count"].as_f64().unwrap() > 300.0, "{report}");
    assert_eq!(report["load"]["rounds"], 1, "{report}");
    assert_eq!(slow.code(), 4, "{}", slow.said("out"));
    let said = slow.said("out").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("too short to say: the load outran the app"), "{said}");
    assert!(said.contains("run it with less load"), "{said}");
}

#[test]
fn a_running_process_is_watched_and_left_as_it_was() {
    needs("python3", "apt-get install python3");
    let growing = Own::start("python3", &[&fixture("grow.py")]);
    let closed = Own::start("node", &[&fixture("server.js")]);
    let free = (9229..9329).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let leak = fixture("leak-closure.js");
    let open = Command::new("node")
        .args([&format!("--inspect=127.0.0.1:{free}"), &leak])
        .env("WORK_PER_SECOND", "100")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let open = Own(open.unwrap());
    wait_for("the inspector", GONE_WITHIN, || {
        TcpStream::connect(("127.0.0.1", free)).map(drop).map_err(|error| error.to_string())
    });
    let pids = [&growing, &closed, &open].map(|own| own.0.id());
    let mut runs = pids.map(|pid| Watch::start(&[&JSON[..], &["--pid", &pid.to_string()]].concat(), &[]));
    let [growing_report, closed_report, open_report] = runs.each_mut().map(Watch::report);
    assert_eq!(growing_report.0, 3, "{}", growing_report.1);
    for (report, signal) in [(&growing_report.1, "resident"), (&closed_report.1, "resident"), (&open_report.1, "heap")]
    {
        assert_eq!(report["processes"][0]["signal"], signal, "{report}");
    }
    assert_eq!(open_report.0, 3, "{}", open_report.1);
    for own in &mut [growing, closed, open] {
        assert!(own.0.try_wait().unwrap().is_none(), "a process that was only watched has ended");
    }
}

#[test]
fn the_answer_is_written_for_other_programs() {
    needs("python3", "apt-get install python3");
    let files = ["--duration", "16s", "--interval", "500ms", "--junit", "junit.xml", "--csv", "run.csv"];
    let app = fixture("leak-closure.js");
    let mut watch =
        Watch::start(&[&files[..], &["--output", "kept", "--", "node", &app]].concat(), &[("WORK_PER_SECOND", "100")]);
    assert_eq!(watch.code(), 3, "{}{}", watch.said("out"), watch.said("err"));
    // Another reader of XML than the one it was written with.
    let script = "import sys, xml.etree.ElementTree as tree\nroot = tree.parse(sys.argv[1]).getroot()\n\
        case = root.find('testsuite').find('testcase')\n\
        print(root.tag, root.get('tests'), root.get('failures'), root.get('errors'), case.find('failure').get('type'))";
    let read = Command::new("python3").args(["-c", script]).arg(watch.path("junit.xml")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "testsuites 1 1 0 leak", "{}", watch.said("junit.xml"));
    let kept: Vec<_> = fs::read_dir(watch.path("kept")).unwrap().flatten().collect();
    assert!(kept.len() == 1 && kept[0].path().extension().is_some_and(|kind| kind == "heapprofile"), "{kept:?}");
    let profile = kept[0].file_name().to_string_lossy().into_owned();
    assert!(watch.said("junit.xml").contains(&profile));
    let out = watch.said("out");
    assert!(
        out.contains("LEAK") && out.contains("█") && out.replace(char::is_whitespace, "").contains(&profile),
        "{out}"
    );
    let analyzed = Command::new(env!("CARGO_BIN_EXE_leakslope"))
        .args(["analyze", "--format", "json"])
        .arg(watch.path("run.csv"))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&analyzed.stdout).unwrap();
    assert!(analyzed.status.code().is_some_and(|code| code != 1), "{report}");
    assert!(watch.said("run.csv").lines().count() > 10, "{}", watch.said("run.csv"));
}

#[test]
fn whatever_is_not_node_is_judged_by_what_the_system_says() {
    needs("python3", "apt-get install python3");
    let mut growing = Watch::start(&[&JSON[..], &["--", "python3", &fixture("grow.py")]].concat(), &[]);
    let mut idle = Watch::start(&[&JSON[..], &["--", "sh", "-c", "while :; do sleep 1; done"]].concat(), &[]);
    let (code, report) = growing.report();
    assert_eq!(code, 3, "{report}");
    assert_eq!(report["processes"][0]["evidence"], Value::Null, "{report}");
    let (code, report) = idle.report();
    assert_eq!(code, 0, "{report}");
}

fn ends(arguments: &[&str]) -> (i32, String) {
    let mut watch = Watch::start(arguments, &[]);
    (watch.code(), watch.said("err"))
}

#[test]
fn a_command_that_cannot_be_watched_says_why() {
    let (code, said) = ends(&["--", "sh", "-c", "echo out of order; exit 7"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("out of order") && said.contains("the command ended with exit status: 7"), "{said}");
    let (code, said) = ends(&["--", "true"]);
    assert!(code == 1 && said.contains("before it could be watched"), "{code} {said}");
    let (code, said) = ends(&["--", "/nowhere/at-all"]);
    assert!(code == 1 && said.contains("cannot start /nowhere/at-all"), "{code} {said}");
    let (code, said) = ends(&["--load", "exit 5", "--", "node", &fixture("server.js")]);
    assert!(code == 1 && said.contains("the load ended with exit status: 5"), "{code} {said}");
    let (code, said) = ends(&["--pid", "4194304"]);
    assert!(code == 1 && said.contains("there is no process 4194304"), "{code} {said}");
    let (code, said) = ends(&["--duration", "10s", "--warmup", "10s", "--", "true"]);
    assert!(code == 2 && said.contains("--warmup leaves nothing"), "{code} {said}");
    let (code, said) = ends(&["--duration", "24h", "--interval", "100ms", "--", "true"]);
    assert!(code == 2 && said.contains("--interval makes 864000 readings"), "{code} {said}");
    for arguments in [&[][..], &["--max-slope", "1MiB", "--", "true"], &["--pid", "1", "--", "true"]] {
        assert_eq!(ends(arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn a_command_that_ends_early_is_too_short_to_say() {
    let (code, said) = ends(&["--duration", "60s", "--", "sh", "-c", "sleep 7"]);
    assert_eq!(code, 4, "{said}");
}

/// The pids that a shell wrote into a file, one a line.
fn pids(path: &Path, count: usize) -> Vec<i32> {
    wait_for("the pids", GONE_WITHIN, || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if pids.len() == count { Ok(pids) } else { Err(text) }
    })
}

#[test]
fn a_signal_is_handed_on_and_nothing_stays_behind() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let app = fixture("stubborn.js");
        // One child in the group, one that leaves it, one whose parent is gone, and an app that does not want to end.
        let script = "echo $$ >>pids; sleep 600 & echo $! >>pids; setsid sleep 600 & echo $! >>pids; \
            (sleep 600 & echo $! >>pids); FILE=told node \"$0\" & echo $! >>pids; wait; sleep 600";
        let mut watch = Watch::start(&["--duration", "10m", "--", "sh", "-c", script, &app], &[]);
        let started = pids(&watch.path("pids"), 5);
        wait_for("the app", GONE_WITHIN, || {
            let (up, watching) = (watch.said("told") == "up\n", watch.said("err").contains("watching sh"));
            if up && watching { Ok(()) } else { Err(watch.said("err")) }
        });
        kill_process(watch.pid(), signal).unwrap();
        let code = watch.code();
        assert_eq!(code, 1);
        assert!(watch.said("err").contains(&format!("ended by {name}")), "{}", watch.said("err"));
        assert_eq!(watch.said("told"), format!("up\n{name}\n"));
        gone(&started);
    }
}

#[test]
fn another_user_finds_nothing_to_use_and_a_kill_leaves_nothing_behind() {
    let script = "node \"$0\" & echo $! >>pids; node \"$0\" & echo $! >>pids; wait";
    let app = fixture("leak-map.js");
    let mut watch = Watch::start(&["--duration", "10m", "--", "sh", "-c", script, &app], &[("WORK_PER_SECOND", "100")]);
    let started = pids(&watch.path("pids"), 2);
    let folder = wait_for("the sessions", GONE_WITHIN, || {
        let ready = watch.said("err").contains("watching sh");
        let folder = fs::read_dir(watch.path("tmp")).unwrap().flatten().next();
        folder.filter(|_| ready).map(|folder| folder.path()).ok_or_else(|| watch.said("err"))
    });
    // Whatever the rights of the folders around it.
    for around in folder.ancestors().skip(1).take(2) {
        fs::set_permissions(around, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let dial =
        "require('net').connect(process.argv[1], () => console.log('in')).on('error', ({ code }) => console.log(code))";
    let socket = folder.join("socket");
    for _ in 0..10 {
        for pid in &started {
            let ports = listening_ports(Path::new("/proc"), u32::try_from(*pid).unwrap());
            assert!(ports.is_empty(), "{ports:?}");
        }
        let output = stranger::command("node").args(["-e", dial]).arg(&socket).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "EACCES");
    }
    watch.child.kill().unwrap();
    watch.child.wait().unwrap();
    gone(&started);
    let left = || fs::read_dir(watch.path("tmp")).unwrap().count();
    wait_for("the folder to go", GONE_WITHIN, || if left() == 0 { Ok(()) } else { Err(left().to_string()) });
}

#[test]
fn who_is_started_in_answer_to_a_signal_is_told_too() {
    // The shell would go on only when its new child has ended, and is killed after a while.
    let script = "trap 'sleep 600 & echo $! >>pids; wait $!; echo ended >told; exit' TERM; \
        echo $$ >>pids; while :; do sleep 1; done";
    let mut watch = Watch::start(&["--duration", "10m", "--", "sh", "-c", script], &[]);
    pids(&watch.path("pids"), 1);
    wait_for("the watch", GONE_WITHIN, || {
        if watch.said("err").contains("watching sh") { Ok(()) } else { Err(watch.said("err")) }
    });
    kill_process(watch.pid(), Signal::TERM).unwrap();
    assert_eq!(watch.code(), 1);
    assert_eq!(watch.said("told"), "ended\n");
    gone(&pids(&watch.path("pids"), 2));
}

#[test]
fn nothing_stays_behind_when_the_time_is_over() {
    let script = "echo $$ >>pids; setsid sleep 600 & echo $! >>pids; (sleep 600 & echo $! >>pids); wait; sleep 600";
    let load = "echo $$ >>load-pids; echo requests=5 sent=5; sleep 600 & echo $! >>load-pids; wait";
    let server = fixture("server.js");
    let mut shell = Watch::start(&["--duration", "4s", "--", "sh", "-c", script], &[]);
    let mut driven = Watch::start(&["--duration", "4s", "--load", load, "--", "node", &server], &[]);
    assert_eq!((shell.code(), driven.code()), (4, 4));
    gone(&pids(&shell.path("pids"), 3));
    gone(&pids(&driven.path("load-pids"), 2));
}

#[test]
fn the_help_says_what_the_exit_codes_mean() {
    let Output { status, stdout, .. } =
        Command::new(env!("CARGO_BIN_EXE_leakslope")).args(["watch", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(status.success() && help.contains("Exit code: 0 no leak, 3 a leak, 4 too short to say"), "{help}");
}
