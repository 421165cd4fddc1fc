//! `leakslope status`: what the sidecar sees, from the running one or by a collection of its own.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::arguments::{Flags, Format, StatusArguments};
use super::output::{clean, fit, fit_right, print, span, wrap};
use crate::export::json::{ProcessView, ProcessesView};
use crate::http::client::ClientError;
use crate::model::Bytes;

/// Time the running sidecar has to answer, and the most it may say.
const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 64 << 20;

/// The width that the table keeps to.
const COLUMNS: usize = 80;

pub(super) fn run(flags: &Flags, status: &StatusArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let beside = super::beside(&settings, None)?;
    let address = &beside.address;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (view, source) = runtime.block_on(async {
        match beside.get("/api/v1/processes", DEADLINE, LONGEST_ANSWER).await {
            Ok(body) => {
                let view: ProcessesView =
                    serde_json::from_slice(&body).with_context(|| format!("the answer of {address}"))?;
                Ok::<_, anyhow::Error>((view, format!("the sidecar at {address}")))
            }
            Err(error) => {
                let view = crate::runtime::collect_once(&settings).await;
                let nobody = matches!(error, ClientError::Connect { .. });
                let why = if nobody { format!("no sidecar at {address}") } else { error.to_string() };
                Ok((view, format!("one collection ({why})")))
            }
        }
    })?;
    match status.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&view)?))?,
        Format::Text => print(&table(&view, &source))?,
    }
    Ok(if view.daemons.iter().any(|daemon| daemon.up) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the table: a line for each daemon, a row for each process, and the reason of every verdict that worries.
fn table(view: &ProcessesView, source: &str) -> String {
    let mut text = format!("From {}\n", clean(source));
    for daemon in &view.daemons {
        let version = daemon.version.as_deref().unwrap_or("unknown");
        let line = match (&daemon.failure, daemon.up) {
            (Some(failure), false) => format!("pm2 {}: down: {failure}", daemon.name),
            (Some(failure), true) => format!("pm2 {}: up, version {version}; {failure}", daemon.name),
            (None, up) => format!("pm2 {}: {}, version {version}", daemon.name, if up { "up" } else { "down" }),
        };
        writeln!(text, "{}", wrap(&line, COLUMNS, 0)).ok();
    }
    if view.processes.is_empty() {
        text.push_str(if view.daemons.is_empty() { "No pm2 daemon was found.\n" } else { "No processes.\n" });
        return text;
    }
    let several = view.daemons.len() > 1;
    writeln!(
        text,
        "\n{} {} {} {} {} {} {} VERDICT",
        fit("APP", 17),
        fit_right("ID", 4),
        fit("STATUS", 8),
        fit_right("MEMORY", 9),
        fit_right("HEAP", 8),
        fit_right("GROWS", 12),
        fit_right("UP", 7),
    )
    .ok();
    for process in &view.processes {
        text.push_str(&row(process, several));
    }
    for process in view.processes.iter().filter(|process| worries(process)) {
        if let Some(verdict) = &process.verdict {
            let name = format!("{} ({}):", process.app, process.pm_id);
            writeln!(text, "\n{}", wrap(&format!("{name} {}", verdict.reason), COLUMNS, 0)).ok();
        }
    }
    text
}

fn worries(process: &ProcessView) -> bool {
    process.verdict.as_ref().is_some_and(|verdict| matches!(verdict.state.as_str(), "suspect" | "leaking"))
}

fn row(process: &ProcessView, several: bool) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), |bytes| Bytes(bytes).to_string());
    let name = if several { format!("{}:{}", process.daemon, process.app) } else { process.app.clone() };
    let verdict = process.verdict.as_ref().map_or("–", |verdict| verdict.state.as_str());
    let status = if process.metrics_frozen { "blocked" } else { process.status.as_str() };
    let line = format!(
        "{} {} {} {} {} {} {} {verdict}",
        fit(&name, 17),
        fit_right(&process.pm_id.to_string(), 4),
        fit(status, 8),
        fit_right(&size(process.tree_resident_memory_bytes.or(process.resident_memory_bytes)), 9),
        fit_right(&size(process.heap_used_bytes), 8),
        fit_right(&growth(process), 12),
        fit_right(&process.uptime_seconds.map_or_else(|| "–".to_owned(), span), 7),
    );
    format!("{}\n", clean(line.trim_end()))
}

/// The slope that the verdict rests on, in MiB an hour.
fn growth(process: &ProcessView) -> String {
    let slope = process.verdict.as_ref().and_then(|verdict| verdict.slopes.get(&verdict.signal));
    let Some(slope) = slope else { return "–".to_owned() };
    let hourly = slope.bytes_per_second * 3600.0 / Bytes::MIB.as_f64();
    if hourly.abs() < 0.05 { "0 MiB/h".to_owned() } else { format!("{hourly:+.1} MiB/h") }
}
