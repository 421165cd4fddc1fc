//! Tells the crate which source revision it is built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rerun-if-env-changed=LEAKSLOPE_REVISION");
    let revision = std::env::var("LEAKSLOPE_REVISION").ok().or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LEAKSLOPE_REVISION={revision}");
}

fn from_git() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
