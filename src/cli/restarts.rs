//! Questions and orders to the running sidecar: restarts, their plan, and versions compared.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::{Flags, Format};
use super::compare::{CompareArguments, print_comparison};
use super::output::{clean, print, wrap};
use crate::export::json::LivesView;
use crate::model::{AppName, DaemonName, WallTime};
use crate::policy::PersonCall;
use crate::ui::{RestartsView, TakenView};

/// Time the running sidecar has to answer, and the most it may say.
const DEADLINE: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: usize = 64 << 20;
/// Rehearsals that a plan shows.
const LATEST: usize = 5;
/// The width that text keeps to.
pub(super) const COLUMNS: usize = 80;

/// Ask for a restart of an app: a rolling reload of cluster workers, a restart of anything else.
///
/// The order goes through every gate of the policy; `leakslope plan` tells what holds it. An app that no policy names is
/// never restarted: for it the order is a rehearsal.
#[derive(Debug, Args)]
pub(super) struct RestartArguments {
    /// The app, as pm2 names it.
    #[arg(value_name = "APP")]
    app: String,
    /// The daemon, where several have the app.
    #[arg(long, value_name = "NAME")]
    daemon: Option<String>,
    /// Only this process.
    #[arg(long, value_name = "NUMBER")]
    pm_id: Option<u32>,
    /// All processes, not only those that leak.
    #[arg(long)]
    all: bool,
    /// Do not wait for a window or for the minimum uptime.
    #[arg(long)]
    now: bool,
    /// Restart where a reload would do.
    #[arg(long)]
    hard: bool,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// A file whose first line is a bearer token, where the sidecar asks for one.
    #[arg(long, value_name = "FILE", env = "LEAKSLOPE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Show what was asked, held and done, and why; close a circuit breaker.
#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// Close the circuit breaker of this app: its restarts go on. The answer tells why it had opened.
    #[arg(long, value_name = "APP", conflicts_with = "format")]
    close_breaker: Option<String>,
    /// The daemon of the breaker, where several have the app.
    #[arg(long, value_name = "NAME", requires = "close_breaker")]
    daemon: Option<String>,
    /// A file whose first line is a bearer token, where the sidecar asks for one to close a breaker.
    #[arg(long, value_name = "FILE", env = "LEAKSLOPE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Sentences for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Show what would be restarted now and at the next window, and what holds it.
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Sentences for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn restart(flags: &Flags, arguments: &RestartArguments) -> anyhow::Result<ExitCode> {
    let call = PersonCall {
        daemon: arguments.daemon.as_deref().map(DaemonName::from),
        app: AppName::from(arguments.app.as_str()),
        pm_id: arguments.pm_id,
        all: arguments.all,
        now: arguments.now,
        hard: arguments.hard,
        who: who(),
        why: arguments.why.clone(),
    };
    order(flags, "/api/v1/restarts", &call, arguments.token_file.as_deref())
}

/// Who gives an order, for the record.
fn who() -> String {
    std::env::var("USER").unwrap_or_else(|_unset| "a person".to_owned())
}

/// Gives an order to the running sidecar and prints what follows.
fn order(flags: &Flags, path: &str, order: &impl Serialize, token_file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let beside = super::beside(flags, &super::settings(flags)?, token_file)?;
    let address = &beside.address;
    let sent = beside.post(path, serde_json::to_vec(order)?, DEADLINE, LONGEST_ANSWER);
    let (status, answer) = runtime()?.block_on(sent).with_context(|| no_sidecar(address))?;
    if !(200..300).contains(&status) {
        bail!("not taken: {}", refusal(status, &answer));
    }
    let view: TakenView = serde_json::from_slice(&answer).with_context(|| format!("the answer of {address}"))?;
    print(&format!("{}\n", wrap(&view.sentence, COLUMNS, 0)))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restarts(flags: &Flags, arguments: &ShowArguments) -> anyhow::Result<ExitCode> {
    if let Some(app) = &arguments.close_breaker {
        let close = serde_json::json!({ "app": app, "daemon": arguments.daemon, "who": who() });
        return order(flags, "/api/v1/restarts/breaker", &close, arguments.token_file.as_deref());
    }
    let view: RestartsView = ask(flags, "/api/v1/restarts")?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&view)?))?,
        Format::Text => print(&history(&view))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn plan(flags: &Flags, arguments: &PlanArguments) -> anyhow::Result<ExitCode> {
    let view: RestartsView = ask(flags, "/api/v1/restarts")?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&view.requests)?))?,
        Format::Text => print(&intentions(&view))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn compare(flags: &Flags, arguments: &CompareArguments) -> anyhow::Result<ExitCode> {
    let view: LivesView = ask(flags, &format!("/api/v1/lives?app={}", escaped(&arguments.app)))?;
    print_comparison(arguments, &view.lives, view.now, Duration::from_millis(view.minute_ms))
}

/// Text as a value of a query.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        write!(escaped, "%{byte:02X}").ok();
        escaped
    })
}

/// Why the sidecar did not do what it was asked for.
pub(super) fn refusal(status: u16, answer: &[u8]) -> String {
    let told: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let message = told["error"]["message"].as_str().unwrap_or("no reason was given");
    format!("{} (status {status})", clean(message))
}

fn history(view: &RestartsView) -> String {
    if view.audit.is_empty() {
        return format!("Nothing was asked or done yet (mode {}).\n", view.mode);
    }
    let mut text = String::new();
    for record in &view.audit {
        let at = instant(record.at);
        let freed = match (record.memory_before_bytes, record.memory_after_bytes) {
            (Some(before), Some(after)) => {
                format!(" ({} before, {} after)", crate::model::Bytes(before), crate::model::Bytes(after))
            }
            _ => String::new(),
        };
        writeln!(text, "{}", wrap(&format!("{at} {}{freed}", record.sentence), COLUMNS, 0)).ok();
    }
    text
}

#[allow(clippy::cast_possible_truncation, reason = "seconds of the calendar fit")]
pub(super) fn instant(seconds: f64) -> String {
    WallTime((seconds * 1000.0) as i64).to_rfc3339()
}

fn intentions(view: &RestartsView) -> String {
    let mut text = format!("Mode {}.\n", view.mode);
    if view.requests.is_empty() {
        text.push_str("Nothing asks for a restart.\n");
    }
    for request in &view.requests {
        writeln!(text, "\n{}", wrap(&format!("Request {}: {}", request.id, request.reason), COLUMNS, 0)).ok();
        for target in &request.targets {
            let sentence = target.plan.as_ref().map_or(target.state.as_str(), |plan| plan.sentence.as_str());
            let app = AppName::new(&request.namespace, &request.app);
            let line = format!("{}/{} of {app}: {sentence}", request.daemon, target.pm_id);
            writeln!(text, "{}", wrap(&line, COLUMNS, 2)).ok();
        }
        // Before the first of a roll: how it is known that a new instance serves, and what pm2 does to one that is slow.
        let readiness = request.targets.iter().flat_map(|target| &target.gates).find(|gate| gate.gate == "readiness");
        if let Some(gate) = readiness.filter(|gate| gate.open && !request.begun) {
            writeln!(text, "{}", wrap(&format!("Readiness: {}", gate.sentence), COLUMNS, 2)).ok();
        }
    }
    let rehearsed: Vec<_> = view.audit.iter().filter(|record| record.kind == "rehearsal").take(LATEST).collect();
    if !rehearsed.is_empty() {
        text.push_str("\nDRY RUN, the latest: nothing was done.\n");
    }
    for record in rehearsed {
        let request = record.request.map_or(String::new(), |request| format!("Request {request}: "));
        writeln!(text, "{}", wrap(&format!("{} {request}{}", instant(record.at), record.sentence), COLUMNS, 2)).ok();
    }
    for app in view.apps.iter().filter(|app| app.breaker.open) {
        let cause = app.breaker.cause.as_deref().unwrap_or("for a reason that is not known");
        let name = AppName::new(&app.namespace, &app.app);
        writeln!(text, "\n{}", wrap(&format!("Breaker of {name} is open: {cause}"), COLUMNS, 0)).ok();
    }
    text
}

pub(super) fn ask<T: DeserializeOwned>(flags: &Flags, path: &str) -> anyhow::Result<T> {
    let beside = super::beside(flags, &super::settings(flags)?, None)?;
    let address = &beside.address;
    let answer =
        runtime()?.block_on(beside.get(path, DEADLINE, LONGEST_ANSWER)).with_context(|| no_sidecar(address))?;
    serde_json::from_slice(&answer).with_context(|| format!("the answer of {address}"))
}

/// A runtime for one request.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What an error says where nobody answers.
pub(super) fn no_sidecar(address: &str) -> String {
    format!("this needs the running sidecar, which is looked for at {address}")
}
