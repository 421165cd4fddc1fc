//! `leakslope demo`: a throw-away pm2 with a leaking app, its healthy twin and a cache, the sidecar beside it with time
//! compressed, and in a few lines what happens.
//!
//! The sidecar is this very binary in a process of its own, as it would run beside a real pm2. This room refuses to touch
//! any other pm2 and to leave anything behind: see [`place`].

mod place;
mod pm2;
mod story;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use super::arguments::Flags;
use super::output::{clean, print};
use super::signals::Signals;
use crate::config;
use crate::export::json::ProcessesView;
use crate::http::client;
use crate::model::Bytes;
use place::Place;
use pm2::Pm2;
use story::{Seen, Story};

/// The apps, the leaking one first, and what each does with its visitors. The name is that of its file.
const APPS: [(&str, &str); 3] = [
    ("checkout", "leaks: it remembers every visitor and forgets nobody"),
    ("checkout-fixed", "its healthy twin: the same visitors, and it forgets them"),
    ("catalogue-cache", "a cache: it fills for half a minute and stops"),
];
/// Where `checkout` dies, in about ten minutes, far beyond the limit that [`CONFIGURATION`] gives it.
const DIES_AT: Bytes = Bytes(768 << 20);
/// What the sidecar runs with.
const CONFIGURATION: &str = include_str!("leakslope.toml");
const CONFIGURATION_NAME: &str = "leakslope.toml";

/// Where the page is served unless that is taken.
const USUAL_ADDRESS: &str = "127.0.0.1:19209";
/// How often the sidecar is asked how things stand, and what an answer may take and weigh.
const PACE: Duration = Duration::from_secs(1);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 4 << 20;
/// How long the sidecar may be silent before the demo gives up.
const LONGEST_SILENCE: Duration = Duration::from_mins(1);
/// How much of the sidecar's log is repeated when it fails.
const LOG_LINES: usize = 8;

/// Show what leakslope does, in under three minutes, on three small apps made for it.
///
/// It starts a pm2 of its own (an installed one, else `npx --yes pm2`) with an app that leaks, its healthy twin and a cache
/// that fills and stops, and the sidecar beside them with time compressed. It tells where the page is and what happens
/// there, and goes on until Ctrl-C. Your own pm2 and ~/.pm2 are not touched. Everything is in one folder under $TMPDIR
/// and goes with the demo; only what npx downloads stays, in npm's cache. If the demo itself is killed so that it cannot clear
/// up (kill -9), one of its apps notices within seconds and does.
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// The pm2 to use, with its first arguments: "npx --yes pm2@5" or "node /opt/pm2/bin/pm2".
    #[arg(long, value_name = "COMMAND")]
    pm2: Option<String>,
    /// End after this time, such as "5m", instead of at Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    duration: Option<Duration>,
}

pub(super) fn run(flags: &Flags, arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    if flags.config.is_some() {
        bail!("the demo has a configuration of its own: run it without --config");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal ends what is awaited below, and clearing up follows.
        let mut signals = Signals::listen()?;
        let pm2 = Pm2::choose(arguments.pm2.as_deref(), &std::env::var_os("PATH").unwrap_or_default())?;
        let address = address(&flags.listen_addresses)?;
        let place = Place::make()?;
        let outcome = tokio::select! {
            biased;
            _ = signals.any() => Ok(()),
            () = after(arguments.duration) => Ok(()),
            outcome = show(&place, &pm2, &address, flags) => outcome,
        };
        let folder = place.folder().display().to_string();
        let cleared = place.clear();
        outcome?;
        cleared?;
        print(&format!("\nThe demo is over: its pm2, its apps and {folder} are gone.\n"))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Starts everything and tells what happens, until something fails or this future is dropped.
async fn show(place: &Place, pm2: &Pm2, address: &str, flags: &Flags) -> anyhow::Result<()> {
    print(&story::opening(address, &pm2.describe()))?;
    pm2.start(place).await?;
    let log = place.write("sidecar.log", "")?;
    let mut sidecar = start_sidecar(place, address, flags, &log)?;
    let began = Instant::now();
    let mut answered = began;
    let mut story = Story::new(client::reachable(address));
    loop {
        if let Some(status) = sidecar.try_wait()? {
            bail!("the sidecar ended by itself ({status})\n{}", tail(&log, LOG_LINES));
        }
        match look(address).await {
            Ok(view) => {
                answered = Instant::now();
                print(&story.tell(&Seen::all(&view), began.elapsed()))?;
            }
            Err(error) if answered.elapsed() > LONGEST_SILENCE => {
                return Err(error.context(format!("the sidecar is silent\n{}", tail(&log, LOG_LINES))));
            }
            Err(_not_yet) => {}
        }
        sleep(PACE).await;
    }
}

async fn look(address: &str) -> anyhow::Result<ProcessesView> {
    let address = client::reachable(address);
    let body = client::get(&address, "/api/v1/processes", ANSWERS_WITHIN, LONGEST_ANSWER).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Starts this binary as the sidecar. Its log goes to a file, or is shown where a level was asked for.
fn start_sidecar(place: &Place, address: &str, flags: &Flags, log: &Path) -> anyhow::Result<Child> {
    // What runs, even where the file has been replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("leakslope").args(["run", "--web.listen-address", address]);
    command.arg("--config").arg(place.configuration());
    let mut said: Stdio = std::fs::File::options().append(true).open(log)?.into();
    let wanted = [
        ("--log.level", flags.log_level.as_ref().and_then(word)),
        ("--log.format", flags.log_format.as_ref().and_then(word)),
    ];
    for (flag, value) in wanted {
        if let Some(value) = value {
            command.arg(flag).arg(value);
            said = Stdio::inherit();
        }
    }
    beside(&mut command, place).stderr(said).spawn().context("starting the sidecar")
}

/// A flag's value as it is written.
fn word(value: &impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// Lets a command run in the place: with its mark, no input or output, and in a process group of its own, so that Ctrl-C
/// reaches the demo alone and the demo decides who ends when.
fn beside<'command>(command: &'command mut Command, place: &Place) -> &'command mut Command {
    command
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| pm2::passed_on(name)))
        .env("PM2_HOME", place.home())
        .env("PM2_DISCRETE_MODE", "true")
        .env("STATE_DIRECTORY", place.state())
        .current_dir(place.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
}

/// Waits for the end of a child without holding up anything else.
async fn ended(child: &mut Child) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The last lines of a file, fit for a terminal.
fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| format!("  {}", clean(line)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Where to listen: where the flag says, else at the usual address, else at a port that is free.
fn address(wanted: &[String]) -> anyhow::Result<String> {
    match wanted {
        [] => free(USUAL_ADDRESS).or_else(|_taken| free("127.0.0.1:0")).context("looking for a free port"),
        [_, _, ..] => bail!("the demo listens on one address: give --web.listen-address once"),
        // The page's address is told before the sidecar runs, so the system's choice is made here.
        [wanted] => match wanted.strip_suffix(":0") {
            Some(host) => {
                let lookup = if host.is_empty() { "[::]:0".to_owned() } else { wanted.clone() };
                let port = free(&lookup)?.rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default();
                Ok(format!("{host}:{port}"))
            }
            None => Ok(wanted.clone()),
        },
    }
}

/// An address that could be listened on a moment ago.
fn free(address: &str) -> anyhow::Result<String> {
    let bound: SocketAddr = TcpListener::bind(address).and_then(|listener| listener.local_addr())?;
    Ok(bound.to_string())
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_has_a_limit_for_each_app_and_restarts_nothing() {
        let settings = config::parse(CONFIGURATION_NAME, CONFIGURATION, &config::Surroundings::default());
        let settings = settings.expect("the demo's configuration is valid");
        for (name, _) in APPS {
            let limit = settings.app(&name.into()).and_then(|app| app.memory_limit);
            assert!(limit.is_some_and(|limit| limit < DIES_AT), "{name}: {limit:?}");
        }
        assert_eq!(settings.restart.mode, crate::policy::Mode::DryRun);
    }

    #[test]
    fn the_usual_port_is_left_alone_when_it_is_taken_or_another_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(free(&taken.local_addr().unwrap().to_string()).is_err());
        assert_eq!(address(&["192.0.2.1:80".to_owned()]).unwrap(), "192.0.2.1:80");
        let chosen = address(&["127.0.0.1:0".to_owned()]).unwrap();
        assert!(chosen.starts_with("127.0.0.1:") && !chosen.ends_with(":0"), "{chosen}");
        assert!(address(&[]).unwrap().starts_with("127.0.0.1:"));
    }
}
