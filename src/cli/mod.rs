//! The commands and what they print.
//!
//! This room turns arguments into calls and results into text and exit codes; it refuses to decide anything else.

mod analyze;
mod arguments;
mod compare;
mod completions;
mod deaths;
mod demo;
mod doctor;
pub mod heap;
mod heap_snapshot;
pub mod heap_take;
mod man;
mod memory;
mod open;
mod output;
mod pace;
mod restarts;
mod run;
mod signals;
mod status;
mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{FromArgMatches as _, Parser as _};

use arguments::{Arguments, Command, Flags};

use crate::config::{self, ConfigError, Loaded, Settings};
use crate::evidence::keep;
use crate::http::client::{self, Beside};
use crate::http::{own_certificate, token_lines};
use crate::runtime::{self, RunError};

/// Exit codes, the same for every command.
pub mod exit {
    /// Something failed at run time.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// A leak was found, or something critical, from commands that answer that question.
    pub const LEAK: u8 = 3;
    /// Too little has been seen for an answer.
    pub const TOO_EARLY: u8 = 4;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 64;
}

/// Says whether the words after `leakslope` make a command line, without running it.
///
/// # Errors
/// What is wrong with them, as the command itself would say it.
pub fn check_usage<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    match Arguments::try_parse_from(std::iter::once("leakslope").chain(words)) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        // Help and the version are asked for by an error of clap's that is none.
        _ => Ok(()),
    }
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let arguments = match Arguments::from_arg_matches(&arguments::command().get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("leakslope: {error:#}"));
            let misconfigured = error.is::<ConfigError>()
                || error.downcast_ref::<RunError>().is_some_and(RunError::is_about_configuration);
            let code = if misconfigured { exit::CONFIG } else { exit::FAILURE };
            ExitCode::from(code)
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { flags, command } = arguments;
    match command.unwrap_or_default() {
        Command::Run => run::run(flags),
        Command::CheckConfig => check_config(&flags),
        Command::PrintDefaultConfig => {
            output::print(config::DEFAULT)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Demo(arguments) => demo::run(&flags, &arguments),
        Command::Deaths(arguments) => deaths::run(&flags, &arguments),
        Command::Compare(arguments) => restarts::compare(&flags, &arguments),
        Command::Memory(arguments) => memory::run(&flags, &arguments),
        Command::Restart(arguments) => restarts::restart(&flags, &arguments),
        Command::Open(arguments) => open::run(&flags, &arguments),
        Command::Restarts(arguments) => restarts::restarts(&flags, &arguments),
        Command::Plan(arguments) => restarts::plan(&flags, &arguments),
        Command::Doctor(arguments) => doctor::run(&flags, &arguments),
        Command::Heap(arguments) => heap::run(&flags, &arguments),
        Command::Watch(arguments) => watch::run(&flags, &arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Status(status) => status::run(&flags, &status),
    }
}

/// The settings this invocation runs with: the configuration file, then the flags.
fn settings(flags: &Flags) -> Result<Settings, ConfigError> {
    Ok(load(flags)?.settings)
}

/// [`settings`], with what has to be known when they are read again.
fn load(flags: &Flags) -> Result<Loaded, ConfigError> {
    let surroundings = flags.surroundings();
    let mut loaded = config::load(&found(&surroundings), &surroundings)?;
    flags.lay_over(&mut loaded.settings);
    Ok(loaded)
}

/// The running sidecar, as far as the settings tell where and how it serves. A token comes from the file that a command
/// names, else from the sidecar's own where this user may read it; but unasked it goes only over a Unix socket or to the
/// holder of our certificate, for on a port of this machine anybody may listen while the sidecar does not; for the same reason
/// one that is named is sent only once it is seen who listens.
fn beside(flags: &Flags, settings: &Settings, token_file: Option<&std::path::Path>) -> anyhow::Result<Beside> {
    let web = &settings.web;
    let certificate = match &web.config_file {
        Some(file) => own_certificate(file)?,
        None => None,
    };
    let first = |text: &str| token_lines(text).next().map(|(_, token)| token.to_owned());
    let address = nearest(flags, &web.listen_addresses);
    let sure = certificate.is_some() || address.starts_with(config::UNIX_PREFIX);
    let token = match (token_file, web.token_file.as_ref().filter(|_| sure)) {
        (Some(path), _) => {
            let text =
                config::read_trusted_text(path, config::Readers::Nobody).with_context(|| path.display().to_string())?;
            Some(first(&text).with_context(|| format!("{}: holds no token", path.display()))?)
        }
        (None, Some(path)) => config::read_trusted_text(path, config::Readers::Nobody).ok().as_deref().and_then(first),
        (None, None) => None,
    };
    let otherwise = web.listen_addresses.first().map(|first| client::reachable(first));
    // Root alone makes it, for the user of the service.
    let service = std::fs::metadata(config::SYSTEM_RUNTIME_DIRECTORY).ok().map(|about| about.uid());
    Ok(Beside { address: client::reachable(&address), otherwise, certificate, token, service })
}

/// Of the addresses that the sidecar listens on the one to reach it at: a Unix socket that answers, the one for commands before
/// the others, for nobody else can listen there, else the first.
fn nearest(flags: &Flags, addresses: &[String]) -> String {
    let answers = |address: &String| {
        address.strip_prefix(config::UNIX_PREFIX).is_some_and(|path| UnixStream::connect(path).is_ok())
    };
    let first = addresses.first().cloned().unwrap_or_default();
    let control = config::control_sockets(&flags.surroundings(), &first);
    let control = control.iter().map(|path| format!("{}{}", config::UNIX_PREFIX, path.display()));
    control.chain(addresses.iter().cloned()).find(answers).unwrap_or(first)
}

/// Where evidence is kept unless a command is told otherwise.
fn evidence_folder(flags: &Flags) -> std::path::PathBuf {
    config::state_directory(&flags.surroundings()).map_or_else(|| ".".into(), |state| state.join(keep::FOLDER))
}

/// The configuration file to read; says where one of the current folder is passed over.
fn found(surroundings: &config::Surroundings) -> config::Found {
    let config::Choice { found, passed_over } = config::find(surroundings, config::look_for);
    if let Some((candidate, why)) = passed_over {
        output::complain(&output::clean(&format!("leakslope: {candidate} is passed over: {why}")));
    }
    found
}

fn check_config(flags: &Flags) -> anyhow::Result<ExitCode> {
    let surroundings = flags.surroundings();
    let config::Choice { found, .. } = config::find(&surroundings, config::look_for);
    let settings = settings(flags)?;
    runtime::access(&settings)?;
    let name = match &found {
        config::Found::Named(path) | config::Found::Present(path) => path.display().to_string(),
        config::Found::Embedded => config::DEFAULT_NAME.to_owned(),
    };
    let daemons: Vec<String> =
        settings.daemons.iter().map(|daemon| format!("{} ({})", daemon.name, daemon.home.display())).collect();
    output::print(&format!("{name}: valid; watches {}\n", daemons.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
