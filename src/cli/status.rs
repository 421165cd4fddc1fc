//! `leakslope status`: what the sidecar sees, from the running one or by a collection of its own.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use unicode_width::UnicodeWidthStr as _;

use super::arguments::{Flags, Format, StatusArguments};
use super::memory::KINDS;
use super::output::{clean, columns, fit, fit_right, print, span, wrap};
use crate::export::json::{ProcessView, ProcessesView};
use crate::http::client::ClientError;
use crate::model::{AppName, Bytes};

/// Time the running sidecar has to answer, and the most it may say.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
pub(super) const LONGEST_ANSWER: usize = 64 << 20;

/// What a table of one row takes beside the name and the columns that adapt to their figures.
const NARROWEST_NAME: usize = 12;

pub(super) fn run(flags: &Flags, status: &StatusArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let beside = super::beside(flags, &settings, None)?;
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
        Format::Text => {
            print(&table(&view, &source, columns()))?;
            if status.wide {
                print(&memory_table(&view))?;
            }
        }
    }
    Ok(if view.daemons.iter().any(|daemon| daemon.up) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the table: a line for each daemon, a row for each process, and the reason of every verdict that worries. Figures
/// are never cut: a column is as wide as its widest, and the name takes what is left of `columns`.
fn table(view: &ProcessesView, source: &str, columns: usize) -> String {
    let mut text = format!("From {}\n", clean(source));
    for daemon in &view.daemons {
        let version = daemon.version.as_deref().unwrap_or("unknown");
        let line = match (&daemon.failure, daemon.up) {
            (Some(failure), false) => format!("pm2 {}: down: {failure}", daemon.name),
            (Some(failure), true) => format!("pm2 {}: up, version {version}; {failure}", daemon.name),
            (None, up) => format!("pm2 {}: {}, version {version}", daemon.name, if up { "up" } else { "down" }),
        };
        writeln!(text, "{}", wrap(&line, columns, 0)).ok();
        let verdict = daemon.verdict.as_ref().filter(|verdict| alarms(&verdict.state));
        if let Some(verdict) = verdict {
            let line = format!("pm2 {} itself is {}: {}", daemon.name, verdict.state, verdict.reason);
            writeln!(text, "{}", wrap(&line, columns, 0)).ok();
        }
    }
    if view.processes.is_empty() {
        text.push_str(if view.daemons.is_empty() { "No pm2 daemon was found.\n" } else { "No processes.\n" });
        return text;
    }
    let several = view.daemons.len() > 1;
    let head = ["APP", "ID", "STATUS", "MEMORY", "OWN", "HEAP", "GROWS", "UP", "VERDICT"].map(str::to_owned);
    let mut rows: Vec<[String; 9]> = view.processes.iter().map(|process| row(process, several)).collect();
    rows.insert(0, head);
    // The process's own memory is of interest only where it is not all.
    let wrapped = rows.iter().skip(1).any(|row| !row[4].is_empty());
    let widest = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(widest);
    let figures: usize = (1..9).filter(|column| wrapped || *column != 4).map(|column| widths[column] + 1).sum();
    let name = widths[0].min(columns.saturating_sub(figures).max(NARROWEST_NAME));
    for row in &rows {
        let mut line = fit(&row[0], name);
        for (column, cell) in row.iter().enumerate().skip(1).filter(|(column, _)| wrapped || *column != 4) {
            let cell =
                if matches!(column, 2 | 8) { fit(cell, widths[column]) } else { fit_right(cell, widths[column]) };
            write!(line, " {cell}").ok();
        }
        writeln!(text, "{}{}", if row[0] == "APP" && row[1] == "ID" { "\n" } else { "" }, line.trim_end()).ok();
    }
    for daemon in &view.daemons {
        for left in daemon.orphans.iter().flatten() {
            let app = AppName::new(&left.namespace, &left.app);
            let (what, hold) = if left.processes == 1 { ("process", "holds") } else { ("processes", "hold") };
            let line = format!(
                "{app}: {} {what} left behind by earlier runs {hold} {}; pm2 no longer knows them",
                left.processes,
                Bytes(left.resident_memory_bytes)
            );
            writeln!(text, "\n{}", wrap(&line, columns, 0)).ok();
        }
    }
    for process in view.processes.iter().filter(|process| worries(process)) {
        if let Some(verdict) = &process.verdict {
            let name = format!("{} ({}):", app_name(process), process.pm_id);
            writeln!(text, "\n{}", wrap(&format!("{name} {}", verdict.reason), columns, 0)).ok();
        }
    }
    text
}

/// Writes what holds the memory of each process: a column for each kind, or why it is not known.
fn memory_table(view: &ProcessesView) -> String {
    let mut text = format!("\n{:<24} {:>3}", "MEMORY BY KIND", "ID");
    for (head, _) in KINDS {
        write!(text, " {:>9}", head.to_uppercase()).ok();
    }
    text.push_str("   WORKERS\n");
    for process in view.processes.iter().filter(|process| process.pid.is_some()) {
        write!(text, "{} {:>3}", fit(&clean(&app_name(process)), 24), process.pm_id).ok();
        match (&process.memory_by_kind_bytes, &process.memory_by_kind_unknown) {
            (Some(kinds), _) => {
                for (_, kind) in KINDS {
                    let size = kinds.get(kind).map_or_else(|| "–".to_owned(), |size| Bytes(*size).to_string());
                    write!(text, " {}", fit_right(&size, 9)).ok();
                }
                let workers = process.worker_threads.map_or_else(|| "–".to_owned(), |workers| workers.to_string());
                writeln!(text, " {}", fit_right(&workers, 9)).ok();
            }
            (None, why) => {
                writeln!(text, " {}", why.as_deref().map_or("not read yet".to_owned(), clean)).ok();
            }
        }
    }
    text
}

/// The app's name, with its namespace where that is not pm2's default.
pub(super) fn app_name(process: &ProcessView) -> String {
    AppName::new(&process.namespace, &process.app).to_string()
}

fn worries(process: &ProcessView) -> bool {
    process.verdict.as_ref().is_some_and(|verdict| alarms(&verdict.state))
}

fn alarms(state: &str) -> bool {
    matches!(state, "growing" | "suspect" | "leaking")
}

/// The cells of one process, in the order of the table's head.
fn row(process: &ProcessView, several: bool) -> [String; 9] {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), |bytes| Bytes(bytes).to_string());
    let app = app_name(process);
    let app = if process.module { format!("{app} (module)") } else { app };
    let name = if several { format!("{}:{app}", process.daemon) } else { app };
    let held = process.tree_resident_memory_bytes.or(process.resident_memory_bytes);
    let own = process.resident_memory_bytes.filter(|own| held.is_some_and(|held| held > *own));
    [
        clean(&name),
        process.pm_id.to_string(),
        if process.metrics_frozen { "blocked".to_owned() } else { process.status.clone() },
        size(held),
        own.map_or_else(String::new, |own| Bytes(own).to_string()),
        size(process.heap_used_bytes),
        growth(process),
        process.uptime_seconds.map_or_else(|| "–".to_owned(), span),
        process.verdict.as_ref().map_or_else(|| "–".to_owned(), |verdict| verdict.state.clone()),
    ]
}

/// The slope that the verdict rests on, in MiB an hour; before there is one, what is seen so far, marked as that.
fn growth(process: &ProcessView) -> String {
    let Some(verdict) = &process.verdict else { return "–".to_owned() };
    let so_far = verdict.provisional.as_ref().map(|so_far| &so_far.slope);
    let (slope, mark) = match verdict.slopes.get(&verdict.signal) {
        Some(slope) => (slope, ""),
        None => match so_far {
            Some(slope) => (slope, "~"),
            None => return "–".to_owned(),
        },
    };
    let hourly = slope.bytes_per_second * 3600.0 / Bytes::MIB.as_f64();
    if hourly.abs() < 0.05 { format!("{mark}0 MiB/h") } else { format!("{mark}{hourly:+.1} MiB/h") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: &str = r#"{
        "daemon": "default", "namespace": "production", "app": "APP", "pm_id": 7, "pid": 9, "status": "waiting_restart",
        "exec_mode": "fork", "version": null, "revision": null, "node_version": null, "started_at": null,
        "uptime_seconds": 273600.0, "restarts": 1, "unstable_restarts": 0, "resident_memory_bytes": OWN,
        "tree_resident_memory_bytes": TREE, "swapped_memory_bytes": null, "heap_used_bytes": 1048576,
        "heap_total_bytes": null, "cpu_seconds": null, "event_loop_latency_p50_seconds": null,
        "event_loop_latency_p95_seconds": null, "metrics_age_seconds": null, "metrics_frozen": false, "limits": {},
        "sparkline": null, "plan": null,
        "verdict": {
            "state": "leaking", "since": 1.0, "reason": "it grows", "signal": "resident", "basis": "resident_only",
            "window_seconds": 60.0, "floor_bytes": null, "limit": null, "limit_bytes": null,
            "slopes": {"resident": {"bytes_per_second": 5823137.0, "low": 1.0, "high": 2.0}},
            "projected_exhaustion_seconds": null, "rejected_by": null
        }
    }"#;

    fn process(app: &str, own: u64, tree: u64) -> serde_json::Value {
        let text = PROCESS.replace("APP", app).replace("OWN", &own.to_string()).replace("TREE", &tree.to_string());
        serde_json::from_str(&text).unwrap()
    }

    fn view(processes: &[serde_json::Value]) -> ProcessesView {
        serde_json::from_value(serde_json::json!({
            "version": "1", "collected_at": 1.0, "interval_seconds": 15.0, "daemons": [], "processes": processes,
            "host": {"memory_total_bytes": 1, "memory_available_bytes": 1},
        }))
        .unwrap()
    }

    #[test]
    fn no_figure_is_cut_however_narrow_it_is_and_the_name_takes_the_rest() {
        let long = "a-name-that-is-much-longer-than-any-column-should-be-for-its-own-good";
        let view = view(&[process(long, 59 << 20, 220 << 20)]);
        for columns in [40, 80, 160] {
            let text = table(&view, "here", columns);
            for figure in ["220 MiB", "59 MiB", "+19992.2 MiB/h", "waiting_restart", "3d 4h", "leaking"] {
                assert!(text.contains(figure), "{columns}: no {figure} in:\n{text}");
            }
        }
        assert!(table(&view, "here", 160).contains(&format!("production/{long}")), "the width there is is used");
        let narrow = table(&view, "here", 80);
        let row = narrow.lines().find(|line| line.contains("waiting_restart")).unwrap();
        assert!(!row.contains(long), "{row}");
    }

    #[test]
    fn memory_by_kind_is_listed_or_the_reason_why_not() {
        let mut known = process("api", 59 << 20, 59 << 20);
        known["memory_by_kind_bytes"] = serde_json::json!({"js_heap": 12 << 20, "files": 47 << 20});
        known["worker_threads"] = 3.into();
        let mut unknown = process("other", 1, 1);
        unknown["memory_by_kind_unknown"] = "its mappings may be read by its own user and by root only".into();
        let text = memory_table(&view(&[known, unknown]));
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[2].contains("12 MiB") && rows[2].contains("47 MiB") && rows[2].ends_with(" 3"), "{text}");
        assert!(rows[3].ends_with("7 its mappings may be read by its own user and by root only"), "{text}");
    }

    #[test]
    fn the_own_memory_stands_beside_the_trees_only_where_they_differ() {
        assert!(!table(&view(&[process("api", 59 << 20, 59 << 20)]), "here", 80).contains("OWN"));
        assert!(table(&view(&[process("api", 59 << 20, 220 << 20)]), "here", 80).contains("OWN"));
    }
}
