//! `leakslope demo` as a newcomer runs it: the verdict forms in time, the healthy apps are left in peace, and nothing stays
//! behind, however it ends.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{pm2, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// How long clearing up may take.
const CLEARED_WITHIN: Duration = Duration::from_secs(15);

/// A demo in a place of its own: `TMPDIR`, `HOME` and what it says are in a folder that goes with the test.
#[derive(Debug)]
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    /// Starts it with the pinned pm2 on the `PATH`, as an installed one would be.
    fn start(arguments: &[&str]) -> Self {
        let tools = pm2::folder().join("node_modules/.bin");
        assert!(tools.join("pm2").exists(), "{} is missing: run `npm ci --prefix tests/pm2`", tools.display());
        let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
        assert!(node.is_ok_and(|status| status.success()), "node is missing: run `apt-get install nodejs npm`");
        let mut path = tools.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Self::start_on(path, "127.0.0.1:0", arguments)
    }

    /// Starts it with this `PATH`, and with variables around it that would lead pm2 astray.
    fn start_on(path: OsString, address: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("demo-").tempdir_in("/tmp").unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_leakslope"))
            .args(["demo", "--web.listen-address", address])
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path().join("tmp"))
            .env("PM2_HOME", folder.path().join("not-this-one"))
            .env("max_memory_restart", "5K")
            .env("NODE_OPTIONS", "--require=/nowhere.js")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn said(&self) -> String {
        ["out", "err"].map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap()).concat()
    }

    /// Waits until it has said something.
    fn until(&self, what: &str, deadline: Duration, found: impl Fn(&str) -> bool) -> String {
        wait_for(what, deadline, || {
            let said = self.said();
            if found(&said) { Ok(said) } else { Err(said) }
        })
    }

    /// The folder it works in, once there is one.
    fn place(&self) -> Option<PathBuf> {
        fs::read_dir(self.folder.path().join("tmp")).unwrap().flatten().map(|entry| entry.path()).next()
    }

    /// Every process that works in its folder or has it in its environment: the sidecar, pm2, the apps.
    fn processes(&self) -> Vec<u32> {
        let place = self.folder.path().join("tmp").join("leakslope-demo-").display().to_string();
        let mark = format!("PM2_HOME={place}");
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                let works = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
                works.display().to_string().starts_with(&place)
                    || environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Waits for its end.
    fn wait(&mut self) -> ExitStatus {
        wait_for("the demo's end", CLEARED_WITHIN, || {
            self.child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        })
    }

    /// Sends a signal and asserts that it ends well.
    fn end(&mut self, signal: Signal) {
        pm2::signal(self.child.id(), signal);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// Asserts that nobody and nothing is left.
    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), Vec::<u32>::new(), "{}", self.said());
        assert_eq!(self.place(), None);
        let kept: Vec<_> = fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let expected = |name: &OsString| ["tmp", "out", "err"].iter().any(|own| name == own);
        assert!(kept.iter().all(expected), "the home of the user was touched: {kept:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
        // The daemon revives what is killed before it, so again until nobody is left.
        for _ in 0..50 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(pm2::kill);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The page's address as the demo tells it.
fn address(said: &str) -> String {
    let (_, rest) = said.split_once("The page: http://").unwrap_or_else(|| panic!("no address in {said}"));
    rest.split('/').next().unwrap().to_owned()
}

fn get(address: &str, path: &str) -> Result<String, String> {
    let told = |error: std::io::Error| format!("{path}: {error}");
    let mut stream = TcpStream::connect(address).map_err(told)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(told)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| answer.clone())?;
    if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(answer) }
}

/// The state of each app, by name.
fn states(address: &str) -> Vec<(String, String)> {
    let view: Value = serde_json::from_str(&get(address, "/api/v1/processes").unwrap()).unwrap();
    let processes = view["processes"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    processes.iter().map(|process| (text(&process["app"]), text(&process["verdict"]["state"]))).collect()
}

#[test]
fn the_leak_is_named_the_others_are_not_and_nothing_is_left() {
    let begun = Instant::now();
    let mut demo = Demo::start(&[]);
    let said = demo.until("the apps", Duration::from_mins(2), |said| said.contains("all three run"));
    let address = address(&said);
    assert!(get(&address, "/").unwrap().contains("<title>leakslope</title>"));
    assert_eq!(demo.processes().len(), 5, "the sidecar, pm2 and three apps");

    let said = wait_for("the verdict", Duration::from_mins(5), || {
        for (app, state) in states(&address) {
            assert!(app == "checkout" || state != "leaking", "{app} is called leaking: {}", demo.said());
        }
        let said = demo.said();
        if said.contains("LEAKING") { Ok(said) } else { Err(said) }
    });
    println!("told after {:?}:\n{said}", begun.elapsed());
    let line = said.lines().find(|line| line.contains("LEAKING")).unwrap();
    assert!(line.contains(" checkout ") && line.contains("MiB a minute"), "{line}");
    for other in ["checkout-fixed", "catalogue-cache"] {
        let told = said.lines().any(|line| line.contains(&format!(" {other} ")) && line.contains("stable so far:"));
        assert!(told, "{other} is told to be stable: {said}");
    }
    assert!(said.contains("cargo run --release"), "{said}");

    demo.end(Signal::INT);
    demo.assert_nothing_is_left();
    assert!(demo.said().contains("The demo is over"), "{}", demo.said());
    assert!(get(&address, "/").is_err(), "the page is gone");
}

#[test]
fn without_pm2_and_npx_it_names_the_command_that_installs_them() {
    let empty = tempfile::tempdir().unwrap();
    let mut demo = Demo::start_on(empty.path().into(), "127.0.0.1:0", &[]);
    assert_eq!(demo.wait().code(), Some(1));
    let said = demo.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("pm2") && said.contains("`sudo apt-get install nodejs npm`"), "{said}");
    demo.assert_nothing_is_left();
}

#[test]
fn a_signal_at_any_moment_of_the_start_leaves_nothing() {
    // At once; as soon as the folder is there; while pm2 starts; when the apps run.
    let moments: [fn(&Demo) -> bool; 4] = [
        |_| true,
        |demo| demo.place().is_some(),
        |demo| demo.processes().len() > 1,
        |demo| demo.said().contains("all three run"),
    ];
    for (number, moment) in moments.into_iter().enumerate() {
        let mut demo = Demo::start(&[]);
        wait_for(&format!("moment {number}"), Duration::from_mins(2), || {
            if moment(&demo) { Ok(()) } else { Err(demo.said()) }
        });
        pm2::signal(demo.child.id(), Signal::TERM);
        let status = demo.wait();
        // Before it listens for signals it has made nothing, and just dies.
        assert!(status.success() || number == 0, "moment {number}: {status}: {}", demo.said());
        demo.assert_nothing_is_left();
    }
}

#[test]
fn what_fails_half_way_is_told_and_leaves_nothing() {
    let script = |demo: &Path, text: &str| {
        let file = demo.join("pm2.sh");
        fs::write(&file, text).unwrap();
        format!("sh {}", file.display())
    };
    let scripts = tempfile::tempdir().unwrap();
    // It leaves a process behind and fails, as pm2 may when it has begun.
    let failing = script(scripts.path(), "sleep 600 & echo 'no space left on this planet'; exit 7\n");
    let mut demo = Demo::start(&["--pm2", &failing]);
    assert_eq!(demo.wait().code(), Some(1));
    let said = demo.said();
    assert!(said.contains("exit code 7") && said.contains("no space left on this planet"), "{said}");
    demo.assert_nothing_is_left();

    // The address that was asked for belongs to somebody else.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let done = script(scripts.path(), "sleep 600 & exit 0\n");
    let path = std::env::var_os("PATH").unwrap();
    let mut demo = Demo::start_on(path, &taken.to_string(), &["--pm2", &done]);
    assert_eq!(demo.wait().code(), Some(1));
    let said = demo.said();
    assert!(said.contains("the sidecar ended by itself") && said.contains(&taken.to_string()), "{said}");
    demo.assert_nothing_is_left();
}

#[test]
fn it_ends_by_itself_after_its_duration() {
    let mut demo = Demo::start(&["--duration", "3s"]);
    let status =
        wait_for("its end", Duration::from_mins(1), || demo.child.try_wait().unwrap().ok_or_else(|| demo.said()));
    assert!(status.success(), "{}", demo.said());
    demo.assert_nothing_is_left();
}

#[test]
fn when_it_is_killed_an_app_clears_up_for_it() {
    let mut demo = Demo::start(&[]);
    demo.until("the apps", Duration::from_mins(2), |said| said.contains("all three run"));
    assert!(demo.place().is_some());
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    wait_for("the end of all", Duration::from_mins(1), || {
        let left = (demo.processes(), demo.place());
        if left == (Vec::new(), None) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    demo.assert_nothing_is_left();
}
