//! Real apps that are looked into by their inspector: one after the other, for all open it on the same port.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Output;

use leakslope::collect::system::listening_ports;

use super::pm2::{Pm2, is_alive};
use super::sidecar::{DEADLINE, Place};
use super::wait_for;

/// Where Node opens its inspector.
pub const PORT: u16 = 9229;

/// Holds the inspector's port against every other test in this network.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is held")] File);

impl Turn {
    /// Waits for its turn.
    pub fn wait() -> Self {
        let network = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let file =
            File::create(std::env::temp_dir().join(format!("leakslope-tests-inspector-{network}.lock"))).unwrap();
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

/// Whether a process is connected to somebody: one that does not listen and asks nobody is only so while its allocations are
/// sampled.
pub fn is_sampled(pid: u32) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: Vec<String> = files
        .filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_str()?.strip_prefix("socket:[")?.to_owned()))
        .collect();
    table.lines().any(|row| {
        let cells: Vec<&str> = row.split_whitespace().collect();
        cells.get(3) == Some(&"01") && open.contains(&format!("{}]", cells[9]))
    })
}

/// Waits until allocations of a process are sampled, with its inspector closed.
pub fn sampled(pid: u32) {
    wait_for("the sampling", DEADLINE, || match (is_sampled(pid), is_open(pid)) {
        (true, false) => Ok(()),
        seen => Err(format!("connected, open: {seen:?}")),
    });
}

/// Waits until nobody samples a process any more, and asserts that it was left as it was.
pub fn left_alone(pid: u32, text: &str) {
    wait_for("the session to end", DEADLINE, || if is_sampled(pid) { Err("connected".to_owned()) } else { Ok(()) });
    assert_untouched(pid, text);
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
