//! The npm packages as a user meets them: packed, served by a registry, installed by npm and by pm2, and run.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use crate::support::pm2::{Pm2, is_alive, signal};
use crate::support::sidecar::Place;
use crate::support::{stripped_binary, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_mins(2);

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn done(what: &mut Command) -> Output {
    let output = what.output().unwrap_or_else(|error| panic!("{what:?}: {error}: run `apt-get install nodejs npm`"));
    assert!(output.status.success(), "{what:?}: {}", text(&output));
    output
}

/// What was said on both channels.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The name of this machine in npm's words, and of the other one that there is a package for.
fn platforms() -> (&'static str, &'static str) {
    if cfg!(target_arch = "x86_64") { ("linux-x64", "linux-arm64") } else { ("linux-arm64", "linux-x64") }
}

/// Every package, packed once: this machine's with the binary without what only a debugger wants, the other's with a
/// file that is no program.
static PACKED: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let binary = stripped_binary(folder.path());
    let (here, elsewhere) = platforms();
    done(
        Command::new("node")
            .arg(root("deploy/npm/pack.cjs"))
            .arg(folder.path().join("packages"))
            .arg(format!("{here}={}", binary.display()))
            .arg(format!("{elsewhere}={}", root("LICENSE").display())),
    );
    folder
});

/// A registry with what was packed, and a folder that is a home to npm and pm2.
struct Registry {
    server: Child,
    folder: TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("registry.log")).unwrap();
        let packages = PACKED.path().join("packages");
        let server = Command::new("node").arg(root("tests/npm/registry.mjs")).arg(packages).stdout(log).spawn();
        Self { server: server.expect("node is missing: run `apt-get install nodejs npm`"), folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("registry.log")).unwrap()
    }

    fn address(&self) -> String {
        wait_for("the registry", DEADLINE, || {
            let log = self.log();
            let line = log.split_inclusive('\n').next().filter(|line| line.ends_with('\n'));
            line.and_then(|line| line.trim().strip_prefix("serving on ").map(str::to_owned)).ok_or(log)
        })
    }

    /// What makes npm take everything from here and leave nothing elsewhere.
    fn variables(&self) -> [(&'static str, String); 3] {
        let inside = |name: &str| self.folder.path().join(name).display().to_string();
        [("npm_config_registry", self.address()), ("npm_config_cache", inside("cache")), ("HOME", inside(""))]
    }

    /// `npm install --global leakslope`; where its folder and its command are.
    fn install(&self) -> (PathBuf, PathBuf) {
        let prefix = self.folder.path().join("global");
        let install = ["install", "--global", "--prefix", prefix.to_str().unwrap(), "leakslope"];
        done(Command::new("npm").args(install).envs(self.variables()));
        (prefix.join("lib/node_modules/leakslope"), prefix.join("bin/leakslope"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended_already = self.server.kill();
        let _status = self.server.wait();
    }
}

/// A command that is started as the sidecar's place would start its own.
fn in_place(place: &Place, program: &Path) -> Command {
    let own = place.command(&[]);
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn npm_installs_the_binary_of_this_machine_and_the_launcher_is_as_the_binary() {
    let registry = Registry::start();
    let (folder, command) = registry.install();
    let (here, elsewhere) = platforms();
    let fetched = registry.log();
    assert!(fetched.contains(&format!("GET files/leakslope-{here}-")), "{fetched}");
    assert!(!fetched.contains(&format!("GET files/leakslope-{elsewhere}-")), "{fetched}");
    for file in ["README.md", "LICENSE", "leakslope-gc.cjs", "ecosystem.config.cjs"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    let version = done(Command::new(&command).arg("--version"));
    assert_eq!(text(&version), format!("leakslope {}\n", env!("CARGO_PKG_VERSION")));

    // A collection of its own, from a pm2 that runs.
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", "server.js", "--name", "shop"]);
    let place = Place::new(&pm2.home(), "[web]\nlisten_address = \"127.0.0.1:0\"\n");
    let status = done(in_place(&place, &command).args(["status", "--format", "json"]));
    let view: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(view["processes"][0]["app"], "shop", "{view}");

    // The exit code is the binary's.
    let broken = in_place(&place, &command).args(["check-config", "--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(broken.status.code(), Some(64), "{}", text(&broken));

    // Signals arrive, and the end is the binary's.
    for (sent, code, signalled) in [(Signal::TERM, Some(0), None), (Signal::KILL, None, Some(9))] {
        let mut sidecar = place.spawn(in_place(&place, &command));
        sidecar.announced("http://");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", sidecar.pid())).unwrap();
        let binary: u32 = children.trim().parse().unwrap_or_else(|_| panic!("one child: {children:?}"));
        if signalled.is_none() {
            sidecar.signal(Signal::HUP);
            wait_for("the configuration to be read again", DEADLINE, || {
                let told = sidecar.logged("the configuration was read again");
                if told.is_empty() { Err(sidecar.log()) } else { Ok(()) }
            });
            sidecar.signal(sent);
        } else {
            signal(binary, sent);
        }
        let status = sidecar.wait();
        assert_eq!(status.code(), code, "{status:?}: {}", sidecar.log());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), signalled, "{status:?}");
        assert!(!is_alive(binary));
    }
}

#[test]
fn where_there_is_no_binary_the_launcher_says_what_to_do() {
    let registry = Registry::start();
    let (folder, command) = registry.install();
    let index = folder.join("index.cjs");
    let pretend = format!(
        "Object.defineProperty(process, 'platform', {{ value: 'darwin' }}); require({:?}).binary()",
        index.display().to_string()
    );
    let elsewhere = Command::new("node").args(["-e", &pretend]).output().unwrap();
    let said = text(&elsewhere);
    assert!(!elsewhere.status.success() && said.contains("there is no binary for darwin-"), "{said}");
    assert!(said.contains("linux-x64") && said.contains("build it from source"), "{said}");

    fs::remove_dir_all(folder.join("node_modules")).unwrap();
    let missing = Command::new(command).arg("--version").output().unwrap();
    let (said, here) = (text(&missing), platforms().0);
    assert_eq!(missing.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("npm install @leakslope/{here}@{}", env!("CARGO_PKG_VERSION"))), "{said}");
}

/// Settings under which everything may be restarted, by a sidecar that listens on a socket in this folder.
fn bold(folder: &Path) -> PathBuf {
    let settings = format!(
        r#"interval = "1s"
[web]
listen_address = "unix:{}"
[restart]
mode = "enforce"
host_memory_reserve = "16MiB"
[[restart.policy]]
apps = ["*"]
take_last_instance = true
verify = {{ stable_for = "2s" }}
"#,
        folder.join("http.sock").display()
    );
    let file = folder.join("leakslope.toml");
    fs::write(&file, settings).unwrap();
    file
}

/// pid and count of restarts of an app, as pm2 has them.
fn listed(pm2: &Pm2, app: &str) -> Result<(u64, u64), String> {
    let output = pm2.run(&["jlist"]);
    let list = text(&output);
    let list: Value =
        serde_json::from_str(list.lines().last().unwrap_or_default()).map_err(|error| error.to_string())?;
    let process = list.as_array().into_iter().flatten().find(|process| process["name"] == app);
    let process = process.ok_or_else(|| format!("no {app} in {list}"))?;
    let number = |value: &Value| value.as_u64().ok_or_else(|| process.to_string());
    Ok((number(&process["pid"])?, number(&process["pm2_env"]["restart_time"])?))
}

/// Orders through the sidecar that these settings belong to.
fn order(settings: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leakslope"));
    command.arg("--config").arg(settings).args(words).output().unwrap()
}

/// A sidecar under the pm2 that it watches restarts its neighbour on demand, and never itself.
fn never_restarts_itself(pm2: &Pm2, settings: &Path) {
    wait_for("the sidecar to see both", DEADLINE, || {
        let status = order(settings, &["status", "--format", "json"]);
        let seen = text(&status);
        if seen.contains("\"leakslope\"") && seen.contains("\"shop\"") { Ok(()) } else { Err(seen) }
    });
    let (own, neighbour) = (listed(pm2, "leakslope").unwrap(), listed(pm2, "shop").unwrap());
    for app in ["leakslope", "shop"] {
        let ordered = order(settings, &["restart", app, "--all", "--now"]);
        assert!(ordered.status.success(), "{app}: {}", text(&ordered));
    }
    wait_for("its own restart to be refused, and the neighbour's to be done", DEADLINE, || {
        let shown: Value = serde_json::from_slice(&order(settings, &["restarts", "--format", "json"]).stdout)
            .map_err(|error| error.to_string())?;
        let refused = shown["requests"].to_string().contains("it is leakslope itself, or what leakslope runs under");
        let audit = &shown["audit"];
        let verified = audit.as_array().into_iter().flatten().any(|record| record["outcome"] == "verified");
        let now = listed(pm2, "shop")?;
        let replaced = verified && now.0 != neighbour.0 && now.1 == neighbour.1 + 1;
        if refused && replaced {
            Ok(())
        } else {
            Err(format!("refused {refused}, {neighbour:?} to {now:?}: {audit:#}"))
        }
    });
    assert_eq!(listed(pm2, "leakslope").unwrap(), own, "the same life");
}

#[test]
fn under_pm2_by_the_ecosystem_file_it_never_restarts_itself() {
    let registry = Registry::start();
    let (folder, _) = registry.install();
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", "server.js", "--name", "shop"]);
    let settings = bold(registry.folder.path());
    let variables = [("HOME", registry.folder.path()), ("LEAKSLOPE_CONFIG", &settings)];
    let variables = variables.map(|(name, path)| (name, path.to_str().unwrap()));
    let started = pm2.try_run_with(&["start", folder.join("ecosystem.config.cjs").to_str().unwrap()], &variables);
    assert!(started.status.success(), "{}", text(&started));
    never_restarts_itself(&pm2, &settings);
    let (pid, _) = listed(&pm2, "leakslope").unwrap();
    let runs = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(runs.ends_with(format!("@leakslope/{}/leakslope", platforms().0)), "no Node.js around it: {runs:?}");

    // A wrong configuration is said once, not again and again.
    fs::write(&settings, "intervall = 1\n").unwrap();
    pm2.run(&["restart", "leakslope"]);
    wait_for("pm2 to leave it ended", DEADLINE, || {
        let list = text(&pm2.run(&["jlist"]));
        if list.contains("\"exit_code\":64") && list.contains("\"status\":\"stopped\"") { Ok(()) } else { Err(list) }
    });
    let (_, restarts) = listed(&pm2, "leakslope").unwrap();
    assert_eq!(restarts, 1, "by us, once");
}

#[test]
fn pm2_installs_and_uninstalls_it_as_a_module() {
    let registry = Registry::start();
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", "server.js", "--name", "shop"]);
    let settings = bold(registry.folder.path());
    let variables = registry.variables();
    let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("LEAKSLOPE_CONFIG", settings.to_str().unwrap()));
    let installed = pm2.try_run_with(&["install", "leakslope"], &variables);
    assert!(installed.status.success(), "{}", text(&installed));
    never_restarts_itself(&pm2, &settings);

    let (launcher, _) = listed(&pm2, "leakslope").unwrap();
    let removed = pm2.try_run_with(&["uninstall", "leakslope"], &variables);
    assert!(removed.status.success(), "{}", text(&removed));
    assert!(!is_alive(u32::try_from(launcher).unwrap()));
    wait_for("the binary to be gone with it", DEADLINE, || {
        let status = order(&settings, &["restarts"]);
        if status.status.success() { Err(text(&status)) } else { Ok(()) }
    });
    assert!(listed(&pm2, "leakslope").is_err());
}
