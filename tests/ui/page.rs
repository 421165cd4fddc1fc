//! The page in Debian's Chromium: each file of `tests/ui` run by Node's own test runner, one at a time.
//!
//! A file passes only if all of its tests ran and passed; none may be skipped.

#![allow(clippy::print_stdout, reason = "the runner's counts are part of the result")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One browser at a time: the figures that are measured would suffer.
static ALONE: Mutex<()> = Mutex::new(());

fn run(file: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    for (path, install) in [
        (folder.join("node_modules/playwright-core"), "npm ci --prefix tests/ui"),
        (folder.join("../pm2/node_modules/pm2-7"), "npm ci --prefix tests/pm2"),
        (PathBuf::from("/usr/bin/chromium"), "apt-get install chromium"),
    ] {
        assert!(path.exists(), "{} is missing: run `{install}`", path.display());
    }
    let output = Command::new("node")
        .args(["--test", "--test-reporter=tap", "--test-timeout=900000", file])
        .env("LEAKSLOPE", env!("CARGO_BIN_EXE_leakslope"))
        .current_dir(folder)
        .output()
        .expect("node is missing: run `apt-get install nodejs npm`");
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("# {word} ")));
        line.and_then(|number| number.trim().parse::<usize>().ok())
    };
    println!("{file}: {:?} passed, {:?} failed, {:?} skipped", count("pass"), count("fail"), count("skipped"));
    let whole = count("pass") > Some(0) && count("fail") == Some(0) && count("skipped") == Some(0);
    assert!(output.status.success() && whole, "{file}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn overview() {
    run("overview.test.mjs");
}

#[test]
fn process() {
    run("process.test.mjs");
}

#[test]
fn restarts() {
    run("restarts.test.mjs");
}

#[test]
fn access() {
    run("access.test.mjs");
}

#[test]
fn a_day_of_updates() {
    run("leak.test.mjs");
}

#[test]
fn beside_a_real_pm2() {
    run("real.test.mjs");
}

#[test]
fn behind_a_proxy_under_a_path() {
    run("proxy.test.mjs");
}

#[test]
fn a_link_that_lets_a_browser_act() {
    run("open.test.mjs");
}

#[test]
fn a_deploy() {
    run("deploy.test.mjs");
}

#[test]
fn no_file_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let own = include_str!("page.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".test.mjs") || own.contains(&format!("run(\"{name}\")")), "{name} is not run");
    }
}
