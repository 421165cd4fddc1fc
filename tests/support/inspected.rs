//! Real apps that are looked into by their inspector: one after the other, for all open it on the same port.

use std::fs::File;
use std::path::Path;
use std::process::Output;

use leakslope::collect::system::listening_ports;

use super::pm2::{Pm2, is_alive};
use super::sidecar::{DEADLINE, Place};
use super::wait_for;

/// Where Node opens its inspector.
pub const PORT: u16 = 9229;

/// Holds the inspector's port against every other test of this machine.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held")] File);

impl Turn {
    /// Waits for its turn.
    pub fn wait() -> Self {
        let file = File::create(std::env::temp_dir().join("leakslope-tests-inspector.lock")).unwrap();
        file.lock().unwrap();
        Self(file)
    }
}

/// The pid of an app's only process.
pub fn pid(pm2: &Pm2, name: &str) -> u32 {
    String::from_utf8(pm2.run(&["pid", name]).stdout).unwrap().trim().parse().unwrap()
}

/// Everything a command printed.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether the inspector of a process listens.
pub fn is_open(pid: u32) -> bool {
    listening_ports(Path::new("/proc"), pid).contains(&PORT)
}

/// Asserts that an app was left as it was: alive, with its inspector closed.
pub fn assert_untouched(pid: u32, text: &str) {
    assert!(is_alive(pid), "{text}");
    assert!(!is_open(pid), "{text}");
}

/// Runs a command until it succeeds: an app that has just been started may not be ready.
pub fn run(place: &Place, arguments: &[&str]) -> String {
    wait_for("the command", DEADLINE * 2, || {
        let output = place.run(arguments);
        if output.status.success() { Ok(told(&output)) } else { Err(told(&output)) }
    })
}

/// Runs a command until it says this; it must fail.
pub fn refused(place: &Place, arguments: &[&str], words: &str) -> String {
    wait_for(words, DEADLINE * 2, || {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        if told(&output).contains(words) { Ok(told(&output)) } else { Err(told(&output)) }
    })
}
