//! Which pm2 the demo runs, in which environment, and what it is told to run.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::DIES_AT;
use super::place::Place;

/// The longest that an installed pm2 may take to start, and one that npx has to download first.
const STARTS: Duration = Duration::from_mins(2);
const DOWNLOADS: Duration = Duration::from_mins(5);
/// How much of what a failed command said is repeated.
const REPEATED_LINES: usize = 12;

/// A pm2 to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pm2 {
    command: Vec<String>,
    downloads: bool,
}

impl Pm2 {
    /// Chooses the command: the one that was named, else an installed pm2, else npx.
    pub(super) fn choose(named: Option<&str>, path: &OsStr) -> anyhow::Result<Self> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match named.map(words) {
            Some(command) if command.is_empty() => bail!("--pm2 names no command"),
            Some(command) => return Ok(Self { downloads: command[0].ends_with("npx"), command }),
            None => {}
        }
        if on_path("pm2", path) {
            return Ok(Self { command: words("pm2"), downloads: false });
        }
        if on_path("npx", path) {
            return Ok(Self { command: words("npx --yes pm2"), downloads: true });
        }
        bail!(
            "the demo needs pm2, or npx to fetch it, and neither is on the PATH: install Node.js with \
             `sudo apt-get install nodejs npm`, or name a pm2 with --pm2"
        )
    }

    /// What is run, for people.
    pub(super) fn describe(&self) -> String {
        let command = self.command.join(" ");
        let note = if self.downloads { ", which may download it first" } else { "" };
        format!("`{command}`{note}")
    }

    /// Starts the daemon and the apps, and waits until the command is done.
    pub(super) async fn start(&self, place: &Place) -> anyhow::Result<()> {
        let apps = place.write("ecosystem.json", &ecosystem(place.folder(), std::process::id()).to_string())?;
        let said = place.write("pm2.out", "")?;
        // A file, not a pipe: the daemon that it starts would hold a pipe open.
        let file = std::fs::File::options().append(true).open(&said)?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg("start").arg(&apps);
        let mut child = super::beside(&mut command, place)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", self.describe()))?;
        let deadline = if self.downloads { DOWNLOADS } else { STARTS };
        let outcome = tokio::time::timeout(deadline, super::ended(&mut child)).await;
        let what = match outcome {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => ending(status),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("it was not done after {} s", deadline.as_secs()),
        };
        bail!("{} could not start the apps: {what}\n{}", self.command.join(" "), super::tail(&said, REPEATED_LINES))
    }
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(127) => "a command was not found (exit code 127)".to_owned(),
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn on_path(name: &str, path: &OsStr) -> bool {
    let runs = |file: &Path| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).any(|folder| runs(&folder.join(name)))
}

/// The three apps as pm2 reads them. `demo` is the process whose end `watch.cjs` looks for.
fn ecosystem(folder: &Path, demo: u32) -> serde_json::Value {
    let apps: Vec<_> = super::APPS
        .iter()
        .map(|(name, _)| {
            json!({
                "name": name, "script": folder.join(format!("{name}.cjs")), "cwd": folder, "vizion": false,
                "env": { "DEMO_DIES_AT_BYTES": DIES_AT.0.to_string(), "DEMO_PID": demo.to_string() },
            })
        })
        .collect();
    json!({ "apps": apps })
}

/// Whether a variable of our own environment is passed on: nothing that steers pm2, an app of pm2 or Node.js. pm2 takes
/// variables for fields of its own, which are in small letters.
pub(super) fn passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let small = name.starts_with(|first: char| first.is_ascii_lowercase());
    let network = name.starts_with("npm_config_") || name.ends_with("_proxy");
    let steers = ["PM2_", "NODE_OPTIONS", "NODE_CHANNEL_", "NODE_APP_INSTANCE", "LEAKSLOPE_", "NOTIFY_", "WATCHDOG_"];
    (!small || network) && !steers.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_pm2_comes_before_npx_and_a_named_one_before_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        let add = |name: &str, mode: u32| {
            let file = folder.path().join(name);
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let chosen = |named| Pm2::choose(named, path).map(|pm2| pm2.describe()).map_err(|error| error.to_string());
        assert!(chosen(None).unwrap_err().contains("`sudo apt-get install nodejs npm`"));
        add("npx", 0o755);
        add("pm2", 0o644);
        assert_eq!(chosen(None).unwrap(), "`npx --yes pm2`, which may download it first");
        add("pm2", 0o755);
        assert_eq!(chosen(None).unwrap(), "`pm2`");
        assert_eq!(chosen(Some("node /opt/pm2/bin/pm2")).unwrap(), "`node /opt/pm2/bin/pm2`");
        assert_eq!(chosen(Some(" ")).unwrap_err(), "--pm2 names no command");
    }

    #[test]
    fn what_steers_pm2_is_not_passed_on() {
        for (name, passed) in [
            ("PATH", true),
            ("HOME", true),
            ("https_proxy", true),
            ("npm_config_registry", true),
            ("PM2_HOME", false),
            ("PM2_SOMETHING", false),
            ("NODE_OPTIONS", false),
            ("NODE_APP_INSTANCE", false),
            ("max_memory_restart", false),
            ("pm_id", false),
            ("LEAKSLOPE_CONFIG", false),
        ] {
            assert_eq!(passed_on(OsStr::new(name)), passed, "{name}");
        }
    }
}
