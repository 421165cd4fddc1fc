//! `leakslope compare`: whether a new version of an app still leaks.
//!
//! Takes the lives as an argument and prints; it refuses to open a store. `select` chooses what is compared and `words`
//! words it, both pure; `trend` decides.

mod select;
mod words;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use self::select::Split;
use super::arguments::Format;
use super::exit;
use super::output::{clean, print};
use crate::model::{LifeSummary, Steady};
use crate::trend::compare::{Outcome, compare};

/// Compare how fast an app grew before and after a change: fixed, not fixed, or too early to say.
///
/// The versions are pm2's `version` of the app, or its git revision. Without options the newest version is compared
/// with the one before it; of an app without versions, the newest life of each process with those before. The exit code is 0 when it is fixed or did not leak before, 3 when it is not fixed, 4 when
/// it is too early to say.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArguments {
    /// The app, as pm2 names it.
    #[arg(value_name = "APP")]
    pub(crate) app: String,
    /// The version with the leak.
    #[arg(long, value_name = "VERSION", conflicts_with = "since")]
    before: Option<String>,
    /// The version that should have fixed it.
    #[arg(long, value_name = "VERSION", conflicts_with = "since")]
    after: Option<String>,
    /// Compare what began within this span with what began earlier, whatever the version.
    #[arg(long, value_name = "SPAN", value_parser = crate::config::parse_duration)]
    since: Option<Duration>,
    /// Sentences for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Compares `lives` (of any app; those of others are left out) at `now` and prints the answer. `minute` is the length
/// of a minute of the history.
///
/// # Errors
/// Where one side has no life, or standard output cannot be written.
pub(crate) fn print_comparison(
    arguments: &CompareArguments,
    lives: &[LifeSummary],
    now: Steady,
    minute: Duration,
) -> anyhow::Result<ExitCode> {
    let split = match arguments.since {
        Some(since) => Split::Since(since),
        None => Split::Versions { before: arguments.before.clone(), after: arguments.after.clone() },
    };
    let (before, after) = select::select(&arguments.app, lives, &split, now)
        .with_context(|| format!("nothing to compare of {}", clean(&arguments.app)))?;
    let outcome = compare(&before.trend, &after.trend, minute);
    let report = words::report(&arguments.app, &before, &after, outcome);
    match arguments.format {
        Format::Text => print(&words::text(&report))?,
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
    }
    Ok(match outcome {
        Outcome::Fixed | Outcome::NoLeak => ExitCode::SUCCESS,
        Outcome::NotFixed => ExitCode::from(exit::LEAK),
        Outcome::TooEarly { .. } => ExitCode::from(exit::TOO_EARLY),
    })
}
