//! Tells the crate which source revision it is built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LEAKSLOPE_REVISION");
    // The log of the checked-out commit, wherever git keeps it. A path that is not there would rebuild everything each time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| std::path::Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let named = std::env::var("LEAKSLOPE_REVISION").ok();
    let revision = named.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LEAKSLOPE_REVISION={revision}");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
