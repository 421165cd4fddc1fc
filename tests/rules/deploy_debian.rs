//! The Debian package: built by cargo-deb, and installed, run and purged under a real systemd, over a copy of this machine
//! that is thrown away; there too are tried the recipes of deploy/systemd/README.md, as they stand in it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use crate::docs_support::markdown::read;
use crate::support::stripped_binary;

fn root(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Writes what the document has for its reader to type, each into a file of its own, told by what it holds.
fn recipes(folder: &Path) {
    let path = "deploy/systemd/README.md";
    let document = read(path);
    std::fs::create_dir(folder.join("recipes")).unwrap();
    for (name, info, holds) in [
        ("by-hand", "sh", "sudo useradd"),
        ("group", "ini", "SupplementaryGroups=shop mail"),
        ("lists", "sh", "sudo setfacl"),
        ("command", "toml", "source = \"command\""),
        ("sudoers", "sudoers", "leakslope ALL=(shop)"),
        ("unhardened", "ini", "NoNewPrivileges=no"),
        ("all-of-them", "toml", "name = \"mail\""),
    ] {
        let fits: Vec<_> =
            document.blocks.iter().filter(|block| block.info == info && block.piece.text.contains(holds)).collect();
        assert_eq!(fits.len(), 1, "{path}: {holds}");
        std::fs::write(folder.join("recipes").join(name), &fits[0].piece.text).unwrap();
    }
}

#[test]
fn the_package_is_installed_started_and_purged() {
    for (tool, package) in [
        ("systemd-nspawn", "systemd-container"),
        ("systemctl", "systemd"),
        ("adduser", "adduser"),
        ("curl", "curl"),
        ("setfacl", "acl"),
        ("sudo", "sudo"),
    ] {
        let there = Command::new(tool).arg("--version").output().is_ok();
        assert!(there, "{tool} is missing: run `apt-get install {package}`");
    }
    assert!(rustix::process::geteuid().is_root(), "run this as root: it mounts a copy of this machine and boots it");

    let folder = tempfile::tempdir().unwrap();
    let binary = stripped_binary(folder.path());
    let built = said(Command::new(root("deploy/debian/build")).arg(&binary).arg("--fast"));
    let package = built.lines().last().unwrap();
    assert!(Path::new(package).exists(), "{built}");

    let holds = said(Command::new("dpkg-deb").args(["--contents", package]));
    for file in [
        "/usr/bin/leakslope",
        "/usr/lib/systemd/system/leakslope.service",
        "/usr/share/man/man1/leakslope.1.gz",
        "/usr/share/zsh/vendor-completions/_leakslope",
        "/usr/share/fish/vendor_completions.d/leakslope.fish",
        "/usr/share/leakslope/leakslope-gc.cjs",
        "/usr/share/leakslope/alerts/leakslope.alerts.yml",
        "/usr/share/leakslope/dashboards/fleet.json",
        "/usr/share/doc/leakslope/copyright",
    ] {
        assert!(holds.lines().any(|line| line.ends_with(&format!(" .{file}"))), "{file}: {holds}");
    }
    let settings = said(Command::new("dpkg-deb").args(["--info", package, "conffiles"]));
    assert_eq!(settings.trim(), "/etc/default/leakslope\n/etc/leakslope/leakslope.toml");

    recipes(folder.path());
    let life = said(
        Command::new("unshare").arg("--mount").arg(root("tests/debian/boot")).args([Path::new(package), folder.path()]),
    );
    assert!(life.lines().any(|line| line == "+ : all of it was seen"), "{life}");
}
