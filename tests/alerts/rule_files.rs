//! What the tests of `alerts/`, `dashboards/` and `docs/runbooks/` share: reading those files, and running the tools
//! that judge them. It refuses to decide anything about their contents.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;

/// A Prometheus rule file.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleFile {
    pub(crate) groups: Vec<RuleGroup>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RuleGroup {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule>,
}

/// A recording rule (`record`) or an alert (`alert`).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expr: String,
    #[serde(rename = "for")]
    pub(crate) wait: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a text file below the root.
pub(crate) fn read(path: &str) -> String {
    let full = root().join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("{} is not readable: {error}", full.display()))
}

/// Reads a YAML file below the root.
pub(crate) fn read_yaml<T: serde::de::DeserializeOwned>(path: &str) -> T {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path} is not what it should be: {error}"))
}

/// The files of a folder below the root whose names end in `suffix`, as paths relative to the root, sorted.
pub(crate) fn files(folder: &str, suffix: &str) -> Vec<String> {
    let full = root().join(folder);
    let entries = std::fs::read_dir(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(suffix))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    names.sort();
    names
}

/// Every rule of the two rule files, recording rules first.
pub(crate) fn rules() -> Vec<Rule> {
    ["alerts/leakslope.rules.yml", "alerts/leakslope.alerts.yml"]
        .into_iter()
        .flat_map(|path| read_yaml::<RuleFile>(path).groups)
        .flat_map(|group| group.rules)
        .collect()
}

/// Every alert, by name.
pub(crate) fn alerts() -> BTreeMap<String, Rule> {
    let alerts: Vec<(String, Rule)> =
        rules().into_iter().filter_map(|rule| rule.alert.clone().map(|name| (name, rule))).collect();
    let count = alerts.len();
    let by_name: BTreeMap<String, Rule> = alerts.into_iter().collect();
    assert_eq!(count, by_name.len(), "two alerts share a name");
    by_name
}

/// Runs a tool from the root and returns what it said; fails with the command that installs it where it is missing.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool).args(arguments).current_dir(root()).output().unwrap_or_else(|error| {
        panic!("{tool} cannot be run ({error}): apt-get install prometheus prometheus-alertmanager")
    })
}

/// Runs a tool that must succeed, and shows what it said where it does not.
pub(crate) fn run_well(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {} failed:\n{said}", arguments.join(" "));
    said
}

/// Whether a path below the root exists.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(&root()).join(path).exists()
}
