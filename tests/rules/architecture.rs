//! The walls that docs/architecture.md draws are there: by what the crates depend on, and by what their code names.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::docs_support::markdown::root;

/// Crates that decide and compute, and reach nothing outside.
const PURE: [&str; 4] = ["leak-detector", "model", "restart-policy", "v8-heap"];
/// Rooms of the sidecar that are as pure.
const PURE_ROOMS: [&str; 1] = ["src/doctor/checks"];

/// All that a pure crate may be built of.
const ALLOWED: [&str; 10] =
    ["croner", "jiff", "libm", "memchr", "model", "regex-lite", "serde", "serde_json", "thiserror", "quick-xml"];

/// What a pure crate does not name.
const OUTSIDE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

fn crates() -> Vec<String> {
    let folders = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = folders.map(|folder| folder.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn dependencies(name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&text).unwrap();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

/// The files of a crate that are built into others, without their tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(sources(&entry));
        } else if entry.file_name().is_some_and(|name| name != "tests.rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            found.push((entry, code));
        }
    }
    found
}

#[test]
fn pure_crates_reach_neither_files_nor_clocks_nor_sockets() {
    for name in PURE {
        let others: Vec<String> =
            dependencies(name).into_iter().filter(|one| !ALLOWED.contains(&one.as_str())).collect();
        assert_eq!(others, Vec::<String>::new(), "{name} depends on more than a pure crate may");
    }
    let folders = PURE.map(|name| format!("crates/{name}/src")).into_iter().chain(PURE_ROOMS.map(str::to_owned));
    for (path, code) in folders.flat_map(|folder| sources(&root().join(folder))) {
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        // An address is a value, not a socket.
        let reaches = |line: &&str| {
            let line = line.replace("std::net::IpAddr", "");
            OUTSIDE.iter().any(|word| line.contains(word))
        };
        let named: Vec<&str> = lines.filter(reaches).collect();
        assert_eq!(named, Vec::<&str>::new(), "{}", path.display());
    }
}

/// What only the server is built of. The sidecar's own code has no way around it.
const OF_THE_SERVER: [&str; 3] = ["bcrypt", "hyper-util", "x509-cert"];

#[test]
fn only_the_crate_of_the_server_has_what_a_server_needs() {
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let of_the_sidecar = manifest["dependencies"].as_table().unwrap();
    for name in OF_THE_SERVER {
        assert!(!of_the_sidecar.contains_key(name), "the sidecar itself depends on {name}");
        let others = crates().into_iter().filter(|one| one != "exporter-web");
        for other in others {
            assert!(!dependencies(&other).iter().any(|one| one == name), "{other} depends on {name}");
        }
    }
}

#[test]
fn crates_that_are_published_have_a_document_and_an_example() {
    for name in crates() {
        let folder = root().join("crates").join(&name);
        let manifest: toml::Table = toml::from_str(&fs::read_to_string(folder.join("Cargo.toml")).unwrap()).unwrap();
        let package = manifest["package"].as_table().unwrap();
        if package.get("publish").is_none() {
            for key in ["description", "keywords", "categories", "license", "readme"] {
                assert!(package.contains_key(key), "{name} has no {key}");
            }
            assert!(folder.join("README.md").is_file(), "{name} has no README.md");
            assert!(fs::read_dir(folder.join("examples")).unwrap().count() > 0, "{name} has no example");
        }
    }
}

#[test]
fn crates_stand_on_the_model_alone() {
    for name in crates() {
        let ours = dependencies(&name).into_iter().filter(|one| crates().contains(one) && one != "model");
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<String>::new(), "{name} depends on another crate beside the model");
    }
}

#[test]
fn the_document_has_a_row_for_every_crate() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for name in crates() {
        assert!(text.contains(&format!("| `{name}` |")), "docs/architecture.md has no row for {name}");
    }
}
