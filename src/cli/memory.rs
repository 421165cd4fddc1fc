//! `leakslope memory`: what holds the memory of an app, and what its growth comes from, as the running sidecar sees it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::arguments::{Flags, Format};
use super::output::{clean, columns, print, wrap};
use super::status::{DEADLINE, LONGEST_ANSWER, app_name};
use crate::export::json::{ProcessView, ProcessesView};
use crate::model::Bytes;

/// The kinds of memory, as they are written and as they are named in JSON.
pub(super) const KINDS: [(&str, &str); 8] = [
    ("JS heap", "js_heap"),
    ("malloc", "malloc"),
    ("add-on", "own_allocator"),
    ("wasm", "wasm"),
    ("code", "code_and_stacks"),
    ("files", "files"),
    ("shared", "shared_memory"),
    ("children", "children"),
];

/// Say what holds the memory of an app and which kind of it grows.
///
/// The running sidecar knows: it reads the mappings of each process once a minute. Where the figures decide it, the cause of
/// growth outside the heap is named (Buffers, workers, WebAssembly, mapped files and more); else it says what would decide it.
#[derive(Debug, Args)]
pub(super) struct MemoryArguments {
    /// The app, as pm2 names it; every app where it is left out.
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// Text for people or JSON for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(flags: &Flags, arguments: &MemoryArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let beside = super::beside(flags, &settings, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime
        .block_on(beside.get("/api/v1/processes", DEADLINE, LONGEST_ANSWER))
        .context("growth shows over time, so a running sidecar is asked")?;
    let view: ProcessesView = serde_json::from_slice(&body).context("the sidecar's answer")?;
    let meant = |process: &&ProcessView| {
        arguments.app.as_ref().is_none_or(|app| process.app == *app || app_name(process) == *app)
    };
    let processes: Vec<&ProcessView> = view.processes.iter().filter(meant).collect();
    if let Some(app) = arguments.app.as_ref().filter(|_| processes.is_empty()) {
        let there: BTreeSet<String> = view.processes.iter().map(app_name).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        bail!("pm2 lists no app {app:?}; there are: {}", clean(&there.join(", ")));
    }
    match arguments.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&processes)?))?,
        Format::Text => print(&text(&processes, columns()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(processes: &[&ProcessView], columns: usize) -> String {
    let mut text = String::new();
    for process in processes {
        let held =
            process.resident_memory_bytes.map_or_else(|| "not running".to_owned(), |held| Bytes(held).to_string());
        writeln!(text, "{} ({}): {held}", clean(&app_name(process)), process.pm_id).ok();
        let parts = process.memory_by_kind_bytes.as_ref().map(|kinds| {
            let size = |(name, kind): (&str, &str)| {
                kinds.get(kind).filter(|size| **size > 0).map(|size| format!("{name} {}", Bytes(*size)))
            };
            let workers =
                process.worker_threads.filter(|workers| *workers > 0).map(|workers| format!("{workers} workers"));
            KINDS.into_iter().filter_map(size).chain(workers).collect::<Vec<_>>().join(", ")
        });
        let unknown = process.memory_by_kind_unknown.as_ref().map(|why| format!("by kind: not known, {why}"));
        let cause = process.memory_cause.as_ref().map(|cause| {
            let harmless = if cause.harmless && cause.cause != "none" { "; it does no harm" } else { "" };
            format!("{}{harmless}. {}", cause.sentence, cause.advice)
        });
        let early = || parts.as_ref().map(|_| "what grows is not known yet: it takes some minutes to see".to_owned());
        for line in [parts.clone(), unknown, cause.or_else(early)].into_iter().flatten() {
            writeln!(text, "{}", wrap(&line, columns, 2)).ok();
        }
    }
    text
}
