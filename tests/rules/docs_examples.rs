//! Configurations and other files that the documents show are understood by what reads them: leakslope, Prometheus,
//! systemd, Node.js.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docs_support::markdown::{Block, documents, root};
use crate::support::certificates::Authority;
use crate::support::sidecar::Place;
use tempfile::TempDir;

/// A folder with the files that the examples name.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let (certificate, key) = authority.certify("server");
        let at = |name: &str| folder.path().join(name);
        fs::copy(authority.certificate(), at("authority.pem")).unwrap();
        fs::copy(authority.certificate(), at("clients.pem")).unwrap();
        fs::copy(certificate, at("server.pem")).unwrap();
        fs::copy(key, at("server.key")).unwrap();
        fs::write(at("leakslope.password"), "a password").unwrap();
        for rules in ["leakslope.rules.yml", "leakslope.alerts.yml"] {
            fs::copy(root().join("alerts").join(rules), at(rules)).unwrap();
        }
        Self(folder)
    }

    /// Writes a block into a file.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Whether leakslope takes a configuration; `more` are further flags.
    fn check_config(&self, configuration: &str, more: &[&str]) -> Result<(), String> {
        let place = Place::new(self.0.path(), configuration);
        good(place.command(&["check-config"]).args(more), "cargo build")
    }
}

/// Whether a program ends well; else what it said.
fn good(command: &mut Command, install: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start ({error}): {install}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
}

/// Holds every block of a kind against a check; fails where there is none.
fn every(info: &str, check: impl Fn(&Block) -> Result<(), String>) {
    let blocks: Vec<Block> = documents().into_iter().flat_map(|document| document.blocks).collect();
    let of_kind: Vec<&Block> = blocks.iter().filter(|block| block.info == info).collect();
    assert!(!of_kind.is_empty(), "no block of {info}");
    let wrong: Vec<String> = of_kind
        .into_iter()
        .filter_map(|block| Some(format!("{}: {}", block.piece.spot, check(block).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn toml_is_configuration_that_leakslope_takes() {
    let desk = Desk::new();
    every("toml", |block| desk.check_config(&block.piece.text, &[]));
}

#[test]
fn yaml_is_taken_by_its_reader() {
    let desk = Desk::new();
    every("yaml", |block| {
        let text = &block.piece.text;
        let document: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let has = |keys: &[&str]| keys.iter().any(|key| document.get(key).is_some());
        if has(&["scrape_configs", "rule_files"]) {
            let file = desk.write("prometheus.yml", text);
            return good(Command::new("promtool").args(["check", "config"]).arg(file), "apt-get install prometheus");
        }
        if has(&["tls_server_config", "basic_auth_users", "http_server_config"]) {
            let hash = bcrypt::hash("a password", 4).map_err(|error| error.to_string())?;
            let file = desk.write("web.yml", &text.replace("$2y$10$…", &hash));
            return desk.check_config("", &["--web.config.file", file.to_str().unwrap()]);
        }
        if has(&["jobs"]) {
            // A part of a workflow; when it runs is up to its reader.
            let file = desk.write("workflow.yml", &format!("on: push\n{text}"));
            let lint = root().join("tests/workflows/lint.mjs");
            return good(Command::new("node").arg(lint).arg(file), "npm ci --prefix tests/workflows");
        }
        if document.as_object().is_some_and(|jobs| jobs.values().all(|job| job["script"].is_array())) {
            // GitLab's: its steps are held by docs_commands.rs, the rest by nobody here.
            return Ok(());
        }
        Err("whose file is this? Add its reader to tests/rules/docs_examples.rs".to_owned())
    });
}

#[test]
fn systemd_takes_the_drop_ins() {
    let desk = Desk::new();
    let unit = fs::read_to_string(root().join("deploy/systemd/leakslope.service")).unwrap();
    // The program is looked for where the unit says; nothing is installed here.
    let unit = desk.write("leakslope.service", &unit.replace("/usr/bin/leakslope", env!("CARGO_BIN_EXE_leakslope")));
    every("ini", |block| {
        assert!(block.piece.text.starts_with("# systemctl edit leakslope\n"), "{}: of which unit?", block.piece.spot);
        desk.write("leakslope.service.d/example.conf", &block.piece.text);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&unit);
        // It ends well whatever it finds, as long as the unit can be started; what it finds it says.
        let output = verify.output().unwrap_or_else(|error| panic!("{error}: run `apt-get install systemd`"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("leakslope.service")).collect();
        if ours.is_empty() && output.status.success() { Ok(()) } else { Err(said) }
    });
}

#[test]
fn javascript_is_read_by_node_and_names_what_is_there() {
    let desk = Desk::new();
    every("js", |block| {
        let module = block.piece.text.lines().any(|line| line.starts_with("import "));
        let file = desk.write(if module { "example.mjs" } else { "example.cjs" }, &block.piece.text);
        good(Command::new("node").arg("--check").arg(&file), "apt-get install nodejs")?;
        let named = block.piece.text.split(['\'', '"', ' ']).filter(|word| word.starts_with("/opt/leakslope/"));
        let missing = named.map(|word| word.replace("/opt/leakslope/", "deploy/node/"));
        match missing.into_iter().find(|path| !root().join(path).exists()) {
            Some(path) => Err(format!("{path} is not there")),
            None => Ok(()),
        }
    });
}

#[test]
fn the_sudo_rule_allows_what_the_sidecar_runs_and_nothing_else() {
    let source = fs::read_to_string(root().join("crates/pm2-client/src/command.rs")).unwrap();
    every("sudoers", |block| {
        let rule = block.piece.text.trim();
        let (head, command) = rule.split_once(" NOPASSWD: ").ok_or("no rule")?;
        let words: Vec<&str> = command.split(' ').collect();
        let arguments = format!("[\"{}\"]", words[1..].join("\", \""));
        let fits = head == "leakslope ALL=(shop)" && source.contains(&format!(".args({arguments})"));
        if fits && Path::new(words[0]).is_absolute() { Ok(()) } else { Err(format!("{rule}: not what is run")) }
    });
}
