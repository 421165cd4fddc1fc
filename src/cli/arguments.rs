//! The command line: flags in Prometheus' style, commands as words.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use super::analyze::AnalyzeArguments;
use super::compare::CompareArguments;
use super::completions::CompletionsArguments;
use super::deaths::DeathsArguments;
use super::demo::DemoArguments;
use super::doctor::DoctorArguments;
use super::heap::HeapArgs;
use super::man::ManArguments;
use super::memory::MemoryArguments;
use super::open::OpenArguments;
use super::output::wrap;
use super::restarts::{PlanArguments, RestartArguments, ShowArguments};
use super::watch::WatchArguments;
use crate::config::{LogFormat, Settings, Surroundings};

/// Finds memory leaks in Node.js apps under pm2: is it leaking, how fast, until when, and which code holds the memory.
///
/// Without a command it runs: it finds the pm2 daemon, watches every process, and serves metrics and a page on
/// <http://127.0.0.1:19209/>. It needs no configuration and changes nothing unless told to.
#[derive(Debug, Parser)]
#[command(name = "leakslope", version, max_term_width = 100, help_template = TEMPLATE)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) flags: Flags,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// The help of `leakslope` itself, with the commands in groups where they would stand in one list.
const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}";

/// Where the lines of the help end, and where what a command is for begins.
const HELP_COLUMNS: usize = 100;
const ABOUT_AT: usize = 24;
/// Which command stands in which group, in this order.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Watch", &["run", "status", "open", "demo"]),
    ("Diagnose", &["doctor", "deaths", "memory", "analyze", "compare", "heap", "watch"]),
    ("Act", &["restart", "restarts", "plan"]),
    ("Set up", &["check-config", "print-default-config", "man", "completions", "help"]),
];

/// The command line, with its help in groups.
pub(super) fn command() -> clap::Command {
    let command = Arguments::command();
    let mut text = String::new();
    for (group, names) in GROUPS {
        writeln!(text, "{group}:").ok();
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            let about = about.unwrap_or_else(|| "Print this message or the help of a command".to_owned());
            let lines = wrap(&about, HELP_COLUMNS, ABOUT_AT);
            writeln!(text, "  {name:<width$}{}", lines.trim_start(), width = ABOUT_AT - 2).ok();
        }
        text.push('\n');
    }
    command.before_help(text)
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Flags {
    /// The configuration file [default: ./leakslope.toml, /etc/leakslope/leakslope.toml, else built in].
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where to serve metrics and the page: HOST:PORT, or `unix:/path` for a Unix socket. May be given several times.
    #[arg(long = "web.listen-address", global = true, value_name = "ADDRESS", value_parser = listen_address)]
    pub(super) listen_addresses: Vec<String>,
    /// The web configuration: TLS, users with passwords, headers.
    #[arg(long = "web.config.file", global = true, value_name = "FILE")]
    pub(super) web_config_file: Option<PathBuf>,
    /// Serve on the sockets that systemd passes, instead of an address.
    #[arg(long = "web.systemd-socket", global = true)]
    pub(super) systemd_socket: bool,
    /// The least severe log level shown.
    #[arg(long = "log.level", global = true, value_enum, value_name = "LEVEL")]
    pub(super) log_level: Option<LevelWord>,
    /// How log lines look.
    #[arg(long = "log.format", global = true, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<FormatWord>,
}

/// What to do.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Watch, judge and serve until told to stop (the default).
    #[default]
    Run,
    Demo(DemoArguments),
    /// Say whether the configuration is valid, with every error at once.
    CheckConfig,
    /// Print the embedded configuration: every setting, its default and what it does.
    PrintDefaultConfig,
    /// Show every process: memory, growth and verdict.
    Status(StatusArguments),
    Memory(MemoryArguments),
    Doctor(DoctorArguments),
    Analyze(AnalyzeArguments),
    Deaths(DeathsArguments),
    Compare(CompareArguments),
    Restart(RestartArguments),
    Restarts(ShowArguments),
    Open(OpenArguments),
    Plan(PlanArguments),
    Watch(WatchArguments),
    Heap(HeapArgs),
    Man(ManArguments),
    Completions(CompletionsArguments),
}

/// `leakslope status`.
#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// Add a table of what holds each process's memory.
    #[arg(long)]
    pub(super) wide: bool,
    /// A table for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelWord {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `--log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatWord {
    Human,
    Json,
}

fn listen_address(text: &str) -> Result<String, String> {
    crate::config::check_listen_address(text).map(|()| text.to_owned())
}

impl Flags {
    /// What this process's environment and flags say about where things are.
    pub(super) fn surroundings(&self) -> Surroundings {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let first = |value: OsString| {
            let text = value.to_string_lossy().into_owned();
            PathBuf::from(text.split(':').next().unwrap_or_default())
        };
        Surroundings {
            flag: self.config.clone(),
            variable: path("LEAKSLOPE_CONFIG"),
            state_directory: variable("STATE_DIRECTORY").map(first),
            runtime_directory: variable("RUNTIME_DIRECTORY").map(first),
            xdg_state_home: path("XDG_STATE_HOME"),
            home: path("HOME"),
            pm2_home: path("PM2_HOME"),
        }
    }

    /// Lays the flags over the settings.
    pub(super) fn lay_over(&self, settings: &mut Settings) {
        if !self.listen_addresses.is_empty() {
            settings.web.listen_addresses.clone_from(&self.listen_addresses);
        }
        if let Some(file) = &self.web_config_file {
            settings.web.config_file = Some(file.clone());
        }
        settings.web.systemd_socket |= self.systemd_socket;
        if let Some(level) = self.log_level {
            settings.log.level = match level {
                LevelWord::Error => tracing::Level::ERROR,
                LevelWord::Warn => tracing::Level::WARN,
                LevelWord::Info => tracing::Level::INFO,
                LevelWord::Debug => tracing::Level::DEBUG,
                LevelWord::Trace => tracing::Level::TRACE,
            };
        }
        if let Some(format) = self.log_format {
            settings.log.format = match format {
                FormatWord::Human => LogFormat::Human,
                FormatWord::Json => LogFormat::Json,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_is_as_shown() {
        command().debug_assert();
        insta::assert_snapshot!(command().render_long_help());
        let grouped: BTreeSet<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let known = command();
        let known: BTreeSet<&str> = known.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
        assert_eq!(grouped, known, "every command stands in one group");
    }
}
