//! A throw-away pm2 daemon of a pinned version, with a home of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use leakslope::collect::{DaemonSpec, Source};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait_for;

/// The versions that the tests run against, by their alias in `tests/pm2/package.json`, with the number each reports.
pub const VERSIONS: [(&str, &str); 3] = [("pm2-5", "5.4.3"), ("pm2-6", "6.0.14"), ("pm2-7", "7.0.4")];

const COMMAND_DEADLINE: Duration = Duration::from_mins(1);

/// The folder with the pinned versions of pm2 and the test apps.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pm2")
}

/// The path of one test app.
pub fn app(name: &str) -> String {
    folder().join("apps").join(name).display().to_string()
}

/// A pm2 home; its daemon runs from the first command to the drop.
#[derive(Debug)]
pub struct Pm2 {
    alias: &'static str,
    folder: TempDir,
}

impl Pm2 {
    /// Prepares a home for the version behind `alias` (`pm2-7`); no daemon runs yet.
    pub fn new(alias: &'static str) -> Self {
        let script = folder().join("node_modules").join(alias).join("bin/pm2");
        assert!(script.exists(), "{} is missing: run `npm ci --prefix tests/pm2`", script.display());
        let node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
        assert!(node.is_ok_and(|status| status.success()), "node is missing: run `apt-get install nodejs npm`");
        // A socket's path is short by nature, so is the folder's name.
        let folder = tempfile::Builder::new().prefix("pm2-").tempdir_in("/tmp").unwrap();
        Self { alias, folder }
    }

    /// Prepares a home and starts its daemon.
    pub fn start(alias: &'static str) -> Self {
        let pm2 = Self::new(alias);
        pm2.run(&["ping"]);
        pm2
    }

    /// The `PM2_HOME`.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join(".pm2")
    }

    /// The command line that runs this version.
    pub fn command(&self) -> Vec<String> {
        let script = folder().join("node_modules").join(self.alias).join("bin/pm2");
        vec!["node".to_owned(), script.display().to_string()]
    }

    /// How a collector reaches this daemon.
    pub fn spec(&self, source: Source) -> DaemonSpec {
        DaemonSpec {
            name: "default".into(),
            home: self.home(),
            source,
            pm2_command: self.command(),
            expected: true,
            named_by: None,
        }
    }

    /// Runs a pm2 command and asserts that it succeeds.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.try_run(arguments);
        assert!(output.status.success(), "pm2 {arguments:?}: {output:?}");
        output
    }

    /// Starts one app as an ecosystem file describes it. Whoever is to be given up on needs a generous `min_uptime` there:
    /// pm2 counts crashes within `min_uptime` times `max_restarts` of the first start only.
    pub fn start_app(&self, app: &serde_json::Value) {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        fs::write(file.path(), serde_json::json!({ "apps": [app] }).to_string()).unwrap();
        self.run(&["start", file.path().to_str().unwrap()]);
    }

    /// Runs a pm2 command, which is given a minute.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.try_run_with(arguments, &[])
    }

    /// The same with more variables, which an app that is started gets too.
    pub fn try_run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let command = self.command();
        let files = tempfile::tempdir_in(self.folder.path()).unwrap();
        let (out, err) = (files.path().join("out"), files.path().join("err"));
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .args(arguments)
            .env("PM2_HOME", self.home())
            .env("PM2_DISCRETE_MODE", "true")
            .env("PORT", "0")
            .envs(variables.iter().copied())
            .current_dir(folder().join("apps"))
            .stdin(Stdio::null())
            // Files, not pipes: a daemon started by the command would hold a pipe open for ever.
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let status = wait_for(&format!("pm2 {arguments:?}"), COMMAND_DEADLINE, || {
            child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
        });
        Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
    }

    /// The daemon's pid.
    pub fn daemon_pid(&self) -> u32 {
        let file = self.home().join("pm2.pid");
        wait_for("pm2.pid", Duration::from_secs(10), || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            text.trim().parse().map_err(|_no_number| format!("it reads {text:?}"))
        })
    }

    /// Kills the daemon without a warning, as the system would when it runs out of memory. The apps live on.
    pub fn kill_daemon(&self) {
        let pid = self.daemon_pid();
        kill(pid);
        // Its threads end one after the other, and the last of them closes the socket.
        wait_for("the daemon's end", Duration::from_secs(10), || {
            if is_alive(pid) {
                return Err(format!("{pid} lives"));
            }
            match UnixStream::connect(self.home().join("rpc.sock")) {
                Ok(_) => Err("somebody listens still".to_owned()),
                Err(_) => Ok(()),
            }
        });
    }

    /// Every process that was started with this home: the daemon, the apps, and what they started.
    pub fn processes(&self) -> Vec<u32> {
        let marker = format!("PM2_HOME={}", self.home().display());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let environment = fs::read(entry.path().join("environ")).ok()?;
                environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()).then_some(pid)
            })
            .collect()
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        // The daemon revives what is killed before it, so again until nobody is left.
        for _ in 0..50 {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            let noted = fs::read_to_string(self.home().join("pm2.pid")).ok().and_then(|pid| pid.trim().parse().ok());
            noted.filter(|daemon| processes.contains(daemon)).into_iter().for_each(kill);
            processes.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Ends a process at once.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal; a process that is gone is no matter.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// Whether a process runs (a dead one that nobody has waited for does not).
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
