//! `leakslope doctor`: what is wrong with the way apps run under pm2.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::arguments::Flags;
use super::exit;
use super::output::{clean, columns, print, wrap};
use crate::doctor::{self, Report};

/// Say what is wrong with the way apps run under pm2: limits that kill or never act, crashes that stop an app for good,
/// evidence that is thrown away.
///
/// Each finding says what is wrong, why it hurts and which line to change. Nothing is changed. Exit code 3 when something
/// critical is found.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// An ecosystem file that need not run yet, in the place of the daemons that run. Node.js reads it as its owner, never as
    /// root.
    #[arg(value_name = "ECOSYSTEM")]
    file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &Flags, arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = if let Some(file) = &arguments.file {
        runtime.block_on(doctor::read_ecosystem(file))?.report()
    } else {
        let settings = super::settings(flags)?;
        runtime.block_on(crate::runtime::examine_once(&settings))
    };
    if arguments.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&text(&report, columns()))?;
    }
    Ok(match report {
        Report { critical: 1.., .. } => ExitCode::from(exit::LEAK),
        Report { examined, .. } if examined.is_empty() => ExitCode::from(exit::FAILURE),
        Report { .. } => ExitCode::SUCCESS,
    })
}

fn text(report: &Report, columns: usize) -> String {
    let mut text = String::new();
    let several = report.examined.len() > 1;
    for finding in &report.findings {
        let daemon = clean(&finding.daemon);
        let who = match (&finding.app, several) {
            (Some(app), true) => format!("{daemon}:{}", clean(app)),
            (Some(app), false) => clean(app),
            (None, _) => format!("pm2 {daemon}"),
        };
        let numbers: Vec<String> = finding.pm_ids.iter().map(u32::to_string).collect();
        let numbers = if numbers.is_empty() { String::new() } else { format!(" ({})", numbers.join(", ")) };
        let head = format!("{} {who}{numbers}: {}", finding.severity.as_str().to_uppercase(), finding.what);
        writeln!(text, "{}", wrap(&head, columns, 0)).ok();
        writeln!(text, "{}", wrap(&format!("Why: {}", finding.why), columns, 2)).ok();
        writeln!(text, "{}", wrap(&format!("Change: {}", finding.change), columns, 2)).ok();
        writeln!(text, "  {}\n", finding.link).ok();
    }
    // What is the same for many apps is said once.
    let mut alike: BTreeMap<(&str, &[String]), Vec<&str>> = BTreeMap::new();
    for restart in &report.restarts {
        alike.entry((&restart.what, &restart.change)).or_default().push(&restart.app);
    }
    for ((what, change), apps) in alike {
        writeln!(text, "{}", wrap(&format!("RESTARTS {}: {what}", apps.join(", ")), columns, 0)).ok();
        if !change.is_empty() {
            writeln!(text, "{}", wrap(&format!("Change: {}", change.join(" ")), columns, 2)).ok();
        }
        text.push('\n');
    }
    for sentence in &report.unexamined {
        writeln!(text, "{}\n", wrap(&format!("NOT EXAMINED {sentence}"), columns, 0)).ok();
    }
    let examined = if report.examined.is_empty() { "nothing".to_owned() } else { report.examined.join(", ") };
    let (processes, findings) = (report.processes, report.findings.len());
    let summary = match (findings, report.examined.is_empty()) {
        (_, true) => "Nothing was examined: no pm2 daemon answers.".to_owned(),
        (0, false) => format!("Nothing is wrong with {examined} ({processes} processes)."),
        (_, false) => {
            format!("{findings} findings, {} critical, in {examined} ({processes} processes).", report.critical)
        }
    };
    writeln!(text, "{}", wrap(&summary, columns, 0)).ok();
    text
}
