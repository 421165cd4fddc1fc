//! Tells the crate which source revision it is built from, and adds what settles the C library's allocator.

use std::process::Command;

/// `mallopt` cannot be called from Rust that forbids what is unsafe.
const ALLOCATOR: &str = "src/allocator.c";

fn main() {
    println!("cargo::rerun-if-env-changed=LEAKSLOPE_REVISION");
    let revision = std::env::var("LEAKSLOPE_REVISION").ok().or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LEAKSLOPE_REVISION={revision}");
    println!("cargo::rerun-if-changed={ALLOCATOR}");
    // Nothing refers to it: it runs before `main`, so the linker is to take it as a whole.
    cc::Build::new().file(ALLOCATOR).link_lib_modifier("+whole-archive").compile("leakslope_allocator");
}

/// The commit that is checked out; asked anew when another is.
fn from_git() -> Option<String> {
    // Where git keeps these depends on the checkout. A path that is not there would mean a build from scratch each time.
    for name in ["HEAD", "refs/heads"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
