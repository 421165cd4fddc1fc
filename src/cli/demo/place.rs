//! The demo's place: one folder that holds all of it, and the one mark that everything it starts carries.
//!
//! The mark is `PM2_HOME` in the environment. Whatever has it was started here, by pm2's command, its daemon or an app,
//! and is ended with the place, also when something fails half-way or panics. This file refuses to end anything else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The longest path under which pm2's sockets still fit into a socket's address.
const LONGEST_FOLDER: usize = 70;
/// How the folder's name begins. `apps/watch.cjs` removes no other.
const PREFIX: &str = "leakslope-demo-";
/// How often the system is asked who is left, at the most, and how long it waits between.
const ROUNDS: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// Everything that is written: the apps, what they share, and the sidecar's configuration.
const FILES: [(&str, &str); 7] = [
    ("traffic.cjs", include_str!("apps/traffic.cjs")),
    ("checkout.cjs", include_str!("apps/checkout.cjs")),
    ("checkout-fixed.cjs", include_str!("apps/checkout-fixed.cjs")),
    ("catalogue-cache.cjs", include_str!("apps/catalogue-cache.cjs")),
    ("watch.cjs", include_str!("apps/watch.cjs")),
    // pm2 takes the version of an app from there.
    ("package.json", "{ \"name\": \"leakslope-demo\", \"version\": \"1.0.0\" }\n"),
    (super::CONFIGURATION_NAME, super::CONFIGURATION),
];

/// The folder and what runs in it, until it is cleared or dropped.
#[derive(Debug)]
pub(super) struct Place {
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Place {
    /// Makes the folder, readable by this user alone, and writes the apps.
    pub(super) fn make() -> anyhow::Result<Self> {
        let usual = std::env::temp_dir();
        let root = if usual.as_os_str().len() <= LONGEST_FOLDER { usual } else { PathBuf::from("/tmp") };
        let own = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(own).tempdir_in(&root);
        let folder = folder.with_context(|| format!("making a folder in {}", root.display()))?;
        let path = folder.path().canonicalize()?;
        let place = Self { folder: Some(folder), path };
        for (name, text) in FILES {
            place.write(name, text)?;
        }
        fs::create_dir(place.state())?;
        Ok(place)
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.path
    }

    /// `PM2_HOME`, the mark.
    pub(super) fn home(&self) -> PathBuf {
        self.path.join("pm2")
    }

    /// The configuration of the sidecar.
    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join(super::CONFIGURATION_NAME)
    }

    /// The sidecar's state directory.
    pub(super) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.path.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Ends everything that carries the mark and removes the folder.
    pub(super) fn clear(mut self) -> anyhow::Result<()> {
        let left = self.end_all();
        let Some(folder) = self.folder.take() else { return Ok(()) };
        let path = self.path.display().to_string();
        folder.close().with_context(|| format!("removing {path}"))?;
        if left.is_empty() {
            return Ok(());
        }
        let left: Vec<String> = left.iter().map(|pid| pid.as_raw_pid().to_string()).collect();
        bail!("these processes of the demo do not end: {}", left.join(", "))
    }

    /// Kills until nobody is left, and returns who is when that takes too long. pm2 goes first: it revives what ends
    /// before it. There is nothing worth saving, so nobody is asked twice.
    fn end_all(&self) -> Vec<Pid> {
        let mut empty = 0;
        for _ in 0..ROUNDS {
            let mut left = marked(&self.home());
            empty = if left.is_empty() { empty + 1 } else { 0 };
            // Whoever started another while we looked may have been gone when its turn came: look once more.
            if empty == 2 {
                return left;
            }
            let daemon = self.daemon();
            left.sort_by_key(|pid| Some(*pid) != daemon);
            for pid in left {
                // One that is gone has done what it should.
                kill_process(pid, Signal::KILL).ok();
            }
            std::thread::sleep(PAUSE);
        }
        marked(&self.home())
    }

    /// The pid that pm2's daemon noted.
    fn daemon(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.home().join("pm2.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.end_all();
        }
    }
}

/// Every living process that was started with this `PM2_HOME`.
fn marked(home: &Path) -> Vec<Pid> {
    let mark = format!("PM2_HOME={}", home.display());
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let has = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            has.then(|| Pid::from_raw(pid)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_with_all_that_carries_its_mark_and_nothing_else() {
        let (place, other) = (Place::make().unwrap(), Place::make().unwrap());
        let (folder, untouched) = (place.folder().to_owned(), other.folder().to_owned());
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o077, 0);
        let sleeper = |place: &Place| {
            let mut command = std::process::Command::new("sleep");
            command.arg("600").env("PM2_HOME", place.home()).spawn().unwrap()
        };
        let (mut own, mut foreign) = (sleeper(&place), sleeper(&other));
        place.clear().unwrap();
        assert!(!own.wait().unwrap().success());
        assert!(!folder.exists());
        assert!(untouched.exists() && foreign.try_wait().unwrap().is_none());
        drop(other);
        assert!(!foreign.wait().unwrap().success());
        assert!(!untouched.exists());
    }
}
