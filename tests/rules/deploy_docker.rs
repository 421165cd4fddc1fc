//! The files of deploy/docker, as far as they can be proven where no image can be fetched: the compose file by the schema
//! of its specification, what it mounts and copies by what is there, each configuration by its own reader, and the apps of
//! the demo under a real pm2 with the settings that the sidecar gets beside them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::pm2::Pm2;
use crate::support::sidecar::Place;
use serde_json::Value;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap()
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("deploy/docker/compose.yml")).unwrap()
}

/// Whether a command ends well, and what it said.
fn said(command: &mut Command, install: &str) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run `{install}`"));
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_compose_file_is_valid_by_the_schema() {
    let check = |file: &Path| {
        let mut command = Command::new("node");
        said(command.arg(root("tests/docker/check.mjs")).arg(file), "apt-get install nodejs")
    };
    let (valid, told) = check(&root("deploy/docker/compose.yml"));
    assert!(valid, "{told}");
    assert_eq!(told.lines().count(), compose()["services"].as_object().unwrap().len(), "{told}");

    // The check can fail: by a wrong value and by a key that nobody knows.
    let text = read("deploy/docker/compose.yml");
    for (from, to) in [("read_only: true", "read_only: perhaps"), ("cap_drop:", "cap_dropped:")] {
        assert!(text.contains(from), "{from}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text.replace(from, to)).unwrap();
        let (valid, told) = check(file.path());
        assert!(!valid, "{to}: {told}");
    }
}

#[test]
fn what_is_mounted_built_and_copied_is_there() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        let mounts = service["volumes"].as_array().into_iter().flatten();
        for mount in mounts.map(|mount| mount.as_str().unwrap()) {
            let (source, _) = mount.split_once(':').unwrap();
            let there = if source.starts_with('.') {
                root("deploy/docker").join(source).exists()
            } else {
                compose["volumes"].as_object().unwrap().contains_key(source)
            };
            assert!(there, "{name}: {mount}");
        }
        if let Some(file) = service["build"]["dockerfile"].as_str() {
            assert_eq!(service["build"]["context"], "../..", "{name}");
            assert!(root(file).exists(), "{name}: {file}");
        }
    }
    // The two containers see the same processes and the same home, as the same user.
    let home = services["app"]["environment"]["PM2_HOME"].as_str().unwrap();
    assert_eq!(services["leakslope"]["pid"], "service:app");
    for name in ["app", "leakslope"] {
        let mounts = services[name]["volumes"].as_array().unwrap();
        assert!(mounts.contains(&format!("pm2:{home}").into()), "{name}: {mounts:?}");
    }
    assert!(read("deploy/docker/leakslope.toml").contains(&format!("home = \"{home}\"")));

    let hidden = read(".dockerignore");
    let hidden: Vec<&str> = hidden.lines().filter_map(|line| line.strip_prefix('/')).collect();
    for file in ["deploy/docker/Dockerfile", "deploy/docker/demo/Dockerfile"] {
        let text = read(file);
        assert!(text.lines().any(|line| line == "USER 1000:1000"), "{file}");
        for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for source in &words[1..words.len() - 1] {
                let (folder, name) = source.rsplit_once('/').unwrap_or((".", source));
                let glob = wildmatch::WildMatch::new(name);
                let found = fs::read_dir(root(folder)).unwrap().flatten();
                let found = found.filter(|entry| glob.matches(&entry.file_name().to_string_lossy())).count();
                assert!(found > 0, "{file}: {line}: {source}");
                let first = source.split('/').next().unwrap();
                assert!(!hidden.contains(&first), "{file}: .dockerignore hides {source}");
            }
        }
    }
}

#[test]
fn what_the_image_copies_is_all_that_the_build_looks_at() {
    let folder = tempfile::tempdir().unwrap();
    let text = read("deploy/docker/Dockerfile");
    for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (sources, target) = (&words[1..words.len() - 1], folder.path().join(words[words.len() - 1]));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        for source in sources {
            // A folder's content, or files into a folder.
            let mut copy = Command::new("cp");
            let content = if root(source).is_dir() { root(source).join(".") } else { root(source) };
            let (copied, told) = said(copy.arg("-r").arg(content).arg(&target), "apt-get install coreutils");
            assert!(copied, "{line}: {told}");
        }
    }
    // cargo knows every target's file, and the manifest and its lock fit each other.
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1", "--no-deps"]);
    let output = metadata.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = found["packages"].as_array().unwrap();
    let targets = packages.iter().flat_map(|package| package["targets"].as_array().unwrap());
    let targets: Vec<&Value> = targets.filter(|target| target["kind"][0] != "test").collect();
    for target in &targets {
        let path = Path::new(target["src_path"].as_str().unwrap());
        assert!(path.starts_with(folder.path().canonicalize().unwrap()) && path.exists(), "{}", path.display());
    }
    assert!(targets.iter().any(|target| target["kind"][0] == "bin"));
    // What sources take in lies beside them.
    assert!(folder.path().join("src/allocator.c").exists() && folder.path().join("deploy/release/build").exists());
}

#[test]
fn each_configuration_is_taken_by_its_reader() {
    let rules = root("alerts").display().to_string();
    let prometheus = read("deploy/docker/prometheus.yml").replace("/etc/prometheus/rules", &rules);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), prometheus).unwrap();
    let mut promtool = Command::new("promtool");
    let (valid, told) = said(promtool.args(["check", "config"]).arg(file.path()), "apt-get install prometheus");
    assert!(valid && told.contains("2 rule files found"), "{told}");
    let mut amtool = Command::new("amtool");
    let (valid, told) = said(
        amtool.arg("check-config").arg(root("deploy/docker/alertmanager.yml")),
        "apt-get install prometheus-alertmanager",
    );
    assert!(valid, "{told}");
}

#[test]
fn the_apps_of_the_demo_are_watched_with_the_settings_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let (app, preload) = (root("deploy/docker/demo"), root("deploy/node/leakslope-gc.cjs"));
    let mut ecosystem = read("deploy/docker/demo/ecosystem.config.cjs")
        .replace("/app/", &format!("{}/", app.display()))
        .replace("/opt/leakslope/leakslope-gc.cjs", &preload.display().to_string());
    let held: Vec<TcpListener> = ["3000", "3001"].map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).into();
    for (listener, port) in held.iter().zip(["3000", "3001"]) {
        let free = listener.local_addr().unwrap().port();
        ecosystem = ecosystem.replace(&format!("'{port}'"), &format!("'{free}'"));
    }
    drop(held);
    let file = folder.path().join("ecosystem.config.cjs");
    fs::write(&file, ecosystem).unwrap();
    let pm2 = Pm2::start("pm2-7");
    pm2.run(&["start", &file.display().to_string()]);

    let settings = read("deploy/docker/leakslope.toml").replace("/pm2", &pm2.home().display().to_string());
    let place = Place::new(&pm2.home(), &settings);
    let sidecar = place.start();
    for name in ["shop", "steady"] {
        let labels = [("daemon", "demo"), ("app", name)];
        sidecar.until(name, |metrics| {
            metrics.value("pm2_process_up", &labels).filter(|up| *up > 0.0)?;
            metrics.value("pm2_process_resident_memory_bytes", &labels).filter(|bytes| *bytes > 0.0)?;
            metrics.value("pm2_process_gcs_total", &[&labels[..], &[("kind", "minor")]].concat())
        });
    }
}
