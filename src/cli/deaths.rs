//! `leakslope deaths`: why processes ended, asked of the running sidecar.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::arguments::{Flags, Format};
use super::output::{clean, print, wrap};
use super::restarts::{COLUMNS, ask, escaped, instant};
use crate::ui::DeathsView;

/// Show why processes ended, the newest first: what ended each, how sure that is, and what pm2 did then.
#[derive(Debug, Args)]
pub(super) struct DeathsArguments {
    /// Only this app, as pm2 names it.
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// Only so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: u32,
    /// Sentences for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

pub(super) fn run(flags: &Flags, arguments: &DeathsArguments) -> anyhow::Result<ExitCode> {
    let app = arguments.app.as_deref().map_or(String::new(), |app| format!("&app={}", escaped(app)));
    let view: DeathsView = ask(flags, &format!("/api/v1/deaths?limit={}{app}", arguments.limit))?;
    if arguments.json || arguments.format == Format::Json {
        print(&format!("{}\n", serde_json::to_string_pretty(&view)?))?;
    } else {
        print(&text(&view, arguments.app.as_deref()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(view: &DeathsView, app: Option<&str>) -> String {
    if view.deaths.is_empty() {
        let of = app.map_or(String::new(), |app| format!(" of {}", clean(app)));
        return format!("The sidecar knows of no process{of} that has ended.\n");
    }
    let mut text = String::new();
    for death in &view.deaths {
        let message = death.message.as_ref().map_or(String::new(), |message| format!(" It wrote: {message:?}"));
        let line = format!("{} {}{message}", instant(death.at), death.sentence);
        writeln!(text, "{}", wrap(&line, COLUMNS, 0)).ok();
    }
    text
}
