//! The commands and what they print.
//!
//! This room turns arguments into calls and results into text and exit codes; it refuses to decide anything else.

mod analyze;
mod arguments;
mod compare;
pub mod heap;
pub mod heap_take;
mod output;
mod pace;
mod restarts;
mod run;
mod status;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command, Flags};

use crate::config::{self, ConfigError, Settings};

/// Exit codes, the same for every command.
pub mod exit {
    /// Something failed at run time.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// A leak was found, from commands that answer that question.
    pub const LEAK: u8 = 3;
    /// Too little has been seen for an answer.
    pub const TOO_EARLY: u8 = 4;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 64;
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("leakslope: {error:#}"));
            let code = if error.is::<ConfigError>() { exit::CONFIG } else { exit::FAILURE };
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
        Command::Compare(arguments) => restarts::compare(&flags, &arguments),
        Command::Restart(arguments) => restarts::restart(&flags, &arguments),
        Command::Restarts(arguments) => restarts::restarts(&flags, &arguments),
        Command::Plan(arguments) => restarts::plan(&flags, &arguments),
        Command::Heap(heap::HeapArgs { command: heap::HeapCommand::Profile(arguments) }) => {
            heap_take::run(&flags, &arguments)
        }
        Command::Heap(arguments) => heap::run(&arguments),
        Command::Status(status) => status::run(&flags, &status),
    }
}

/// The settings this invocation runs with: the configuration file, then the flags.
fn settings(flags: &Flags) -> Result<Settings, ConfigError> {
    let surroundings = flags.surroundings();
    let mut settings = config::load(&config::find(&surroundings, present), &surroundings)?;
    flags.lay_over(&mut settings);
    Ok(settings)
}

fn present(candidate: &str) -> bool {
    std::path::Path::new(candidate).exists()
}

fn check_config(flags: &Flags) -> anyhow::Result<ExitCode> {
    let surroundings = flags.surroundings();
    let found = config::find(&surroundings, present);
    let settings = settings(flags)?;
    let name = match &found {
        config::Found::Named(path) | config::Found::Present(path) => path.display().to_string(),
        config::Found::Embedded => config::DEFAULT_NAME.to_owned(),
    };
    let daemons: Vec<String> =
        settings.daemons.iter().map(|daemon| format!("{} ({})", daemon.name, daemon.home.display())).collect();
    output::print(&format!("{name}: valid; watches {}\n", daemons.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}
