//! The commands and what they print.

pub mod analyze;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Finds memory leaks in Node.js apps under pm2.
#[derive(Debug, Parser)]
#[command(name = "leakslope", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Analyze(analyze::AnalyzeArguments),
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let Arguments { command: Command::Analyze(analyze) } = Arguments::parse();
    match analyze::run(&analyze) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("leakslope: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
