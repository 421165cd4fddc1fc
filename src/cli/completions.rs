//! `leakslope completions SHELL`: what a shell needs to complete this command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::arguments::Arguments;
use super::output::print;

/// Print completions for a shell, to be put where it looks for them.
#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions.
pub(super) fn run(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    print(&render(arguments.shell)?)?;
    Ok(ExitCode::SUCCESS)
}

fn render(shell: Shell) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "leakslope", &mut text);
    Ok(String::from_utf8(text)?)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_is_told_of_every_command_and_flag() {
        let command = Arguments::command();
        for shell in Shell::value_variants() {
            let text = render(*shell).unwrap();
            for known in command.get_subcommands().filter(|known| !known.is_hide_set()) {
                assert!(text.contains(known.get_name()), "{shell}: {}", known.get_name());
            }
            assert!(text.contains("web.listen-address"), "{shell}");
        }
    }
}
