//! A place where the documents' commands mean something: a real pm2 with the apps they name, a sidecar beside it, a
//! Prometheus that scrapes it, a desk with the project's files and the recordings, snapshots and profiles they name, and a
//! system of folders instead of the machine's own.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::docs_support::markdown::root;
use crate::heap_support::{run_app, run_script};
use crate::support::pm2::{Pm2, app};
use crate::support::sidecar::{Place, Sidecar};
use crate::support::stack;

/// What the documents say and what is meant here. Addresses and folders of the system are added when they are known.
const MEANT: &[(&str, &str)] = &[
    ("2026-03-01T00:00:00Z", "$(date -d '-10 minutes' +%s)"),
    ("2026-03-04T00:00:00Z", "$(date +%s)"),
    ("step=60", "step=1"),
    ("--duration 30s", "--duration 1s"),
    ("APP", "shop"),
    ("ID", "0"),
];

/// Folders of the system that commands may write into.
const SYSTEM: [&str; 7] = [
    "etc/default",
    "etc/grafana/provisioning",
    "etc/leakslope",
    "etc/systemd/system",
    "home/shop",
    "usr/bin",
    "var/lib/grafana",
];

/// The place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    // Ended in this order.
    _prometheus: stack::Running,
    _sidecar: Sidecar,
    place: Place,
    pub(crate) pm2: Pm2,
    folder: TempDir,
    meant: Vec<(String, String)>,
}

impl Prepared {
    /// Prepares everything: `shop` leaks, `api` serves in its second version.
    pub(crate) fn new() -> Self {
        let pm2 = Pm2::start("pm2-7");
        pm2.run(&["start", &app("leaker.js"), "--name", "shop"]);
        let address = stack::free_address().to_string();
        let place = Place::new(
            &pm2.home(),
            &format!("interval = \"1s\"\n[trend]\nminute = \"1s\"\n[web]\nlisten_address = \"{address}\"\n"),
        );
        let sidecar = place.spawn(place.command(&[])).ready();
        let folder = tempfile::Builder::new().prefix("docs-").tempdir().unwrap();
        let target = format!(
            "scrape_configs: [{{job_name: leakslope, scrape_interval: 1s, static_configs: [{{targets: ['{address}']}}]}}]\n"
        );
        let (prometheus, prometheus_address) = stack::prometheus(folder.path(), &target);
        deploy_twice(&pm2, &sidecar, folder.path());
        let system = folder.path().join("system");
        for path in SYSTEM {
            fs::create_dir_all(system.join(path)).unwrap();
        }
        let mut meant: Vec<(String, String)> =
            MEANT.iter().map(|&(said, meant)| (said.to_owned(), meant.to_owned())).collect();
        meant.push(("127.0.0.1:19209".to_owned(), address));
        meant.push(("127.0.0.1:9090".to_owned(), prometheus_address.to_string()));
        for top in ["etc", "home", "usr", "var"] {
            meant.push((format!(" /{top}/"), format!(" {}/{top}/", system.display())));
        }
        let prepared = Self { _prometheus: prometheus, _sidecar: sidecar, place, pm2, folder, meant };
        prepared.lay_out_the_desk();
        prepared.install_programs();
        prepared
    }

    /// Runs a command of the documents with the shell, each word of it as it is meant here.
    pub(crate) fn run(&self, command: &str) -> Output {
        let command =
            self.meant.iter().fold(command.to_owned(), |text, (said, meant)| replace_word(&text, said, meant));
        let mut shell = self.place.program("timeout");
        // A command that reads what nobody says or goes on for ever is ended.
        shell.args(["60", "bash", "-euo", "pipefail", "-c", &command]);
        self.equip(&mut shell);
        shell.output().unwrap()
    }

    /// Starts a sidecar as the documents do, on a port of the system's choice, and waits until it has collected.
    pub(crate) fn serve(&self, command: &str) -> (Place, Sidecar) {
        let place = Place::new(&self.pm2.home(), "[web]\nlisten_address = \"127.0.0.1:0\"\n");
        let mut shell = place.program("bash");
        shell.args(["-c", &format!("exec {command}")]);
        self.equip(&mut shell);
        let sidecar = place.spawn(shell).ready();
        (place, sidecar)
    }

    fn equip(&self, shell: &mut Command) {
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()));
        shell.env("PM2_DISCRETE_MODE", "true").current_dir(self.desk());
    }

    fn desk(&self) -> PathBuf {
        self.folder.path().join("desk")
    }

    /// The project's files, and what the documents' commands read.
    fn lay_out_the_desk(&self) {
        let desk = self.desk();
        fs::create_dir_all(desk.join("target/release")).unwrap();
        symlink(env!("CARGO_BIN_EXE_leakslope"), desk.join("target/release/leakslope")).unwrap();
        for entry in fs::read_dir(root()).unwrap().flatten().filter(|entry| entry.file_name() != "target") {
            symlink(entry.path(), desk.join(entry.file_name())).unwrap();
        }
        for (name, trace) in [("api", "leak_10"), ("before", "leak_10"), ("after", "steady")] {
            fs::write(desk.join(format!("{name}.csv")), recording(trace)).unwrap();
        }
        assert!(self.run("gzip -k api.csv").status.success());
        let taken = self.folder.path().join("taken");
        for (snapshot, name) in run_app("leak-map", &taken).iter().zip(["a", "b", "c"]) {
            fs::rename(snapshot, desk.join(format!("{name}.heapsnapshot"))).unwrap();
        }
        run_script(Path::new("node"), "profile", &taken);
        for (number, name) in [(1, "early"), (2, "late")] {
            let profile = format!("{}-{number}.heapprofile", taken.display());
            fs::rename(profile, desk.join(format!("{name}.heapprofile"))).unwrap();
        }
    }

    /// The programs by the names that the documents call them.
    fn install_programs(&self) {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_leakslope"), bin.join("leakslope")).unwrap();
        let cargo =
            "[ \"$1 $2\" = 'run --release' ] || exit 99; shift 2; [ \"${1-}\" != -- ] || shift; exec leakslope \"$@\"";
        let pm2 = format!("exec {} \"$@\"", self.pm2.command().join(" "));
        for (name, script) in [("cargo", cargo), ("pm2", &pm2), ("sudo", "exec \"$@\"")] {
            fs::write(bin.join(name), format!("#!/bin/bash\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Starts `api` and replaces it by its next version, so that there is something to compare.
fn deploy_twice(pm2: &Pm2, sidecar: &Sidecar, folder: &Path) {
    let (script, package) = (folder.join("api/app.js"), folder.join("api/package.json"));
    fs::create_dir(script.parent().unwrap()).unwrap();
    fs::write(&script, format!("require('{}');\n", app("server.js"))).unwrap();
    let start = ["start", script.to_str().unwrap(), "--name", "api"];
    for (version, order) in [("1.4.0", start.as_slice()), ("1.4.1", &["restart", "api"])] {
        fs::write(&package, format!("{{\"name\":\"api\",\"version\":\"{version}\"}}")).unwrap();
        pm2.run(order);
        sidecar.until("the version to be seen", |metrics| {
            let seen = metrics.all("pm2_process_info", &[("app", "api"), ("version", version)]);
            (!seen.is_empty()).then_some(())
        });
    }
}

/// A trace of the fixtures with a row a minute.
fn recording(trace: &str) -> String {
    let text = fs::read_to_string(root().join(format!("tests/fixtures/traces/{trace}.csv"))).unwrap();
    let mut lines = text.lines();
    let mut timed = format!("time,{}\n", lines.next().unwrap());
    for (minute, line) in lines.enumerate() {
        writeln!(timed, "{},{line}", minute * 60).unwrap();
    }
    timed
}

/// Replaces a text where it stands as words of its own.
fn replace_word(text: &str, said: &str, meant: &str) -> String {
    let joins = |one: Option<char>| one.is_some_and(|one| one.is_ascii_alphanumeric() || one == '_');
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(said) {
        let inside = joins(said.chars().next()) && joins(before.chars().last())
            || joins(said.chars().last()) && joins(after.chars().next());
        replaced += before;
        replaced += if inside { said } else { meant };
        rest = after;
    }
    replaced + rest
}
