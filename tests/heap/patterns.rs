//! Real apps with known leaks, and their healthy twins: the report must name the pattern, the holder and the code.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::heap_support::{analysis_of, node_of, run_app, run_app_with};
use leakslope::evidence::snapshot::diff::{Basis, Diff, compare, digest};
use leakslope::evidence::snapshot::patterns::Pattern;
use leakslope::evidence::snapshot::summary::{Extent, summarise};
use rstest::rstest;

/// App, pattern, what the sentence must name.
const LEAKS: [(&str, Pattern, &[&str]); 13] = [
    (
        "leak-listener",
        Pattern::Listener,
        &["300 more listeners", "'change'", "settings (EventEmitter)", "leak-listener.js:18:"],
    ),
    ("leak-interval", Pattern::Timer, &["300 more intervals", "leak-interval.js:12:"]),
    ("leak-map", Pattern::Map, &["`sessions`", "leak-map.js", "Session × 300"]),
    ("leak-array", Pattern::Array, &["`auditLog`", "leak-array.js", "AuditEntry × 300"]),
    ("leak-closure", Pattern::ClosureScope, &["describe()", "`previous`", "leak-closure.js:14:"]),
    ("leak-promise", Pattern::Promise, &["runJob()", "`unanswered`", "leak-promise.js:20:"]),
    ("leak-console", Pattern::Console, &["300 more Order", "console"]),
    ("leak-scope", Pattern::ClosureScope, &["`retries`", "retry()", "`body`", "leak-scope.js:10:"]),
    ("leak-list", Pattern::List, &["`before`", "latest (Event)", "Event × 300"]),
    ("leak-table", Pattern::Table, &["remembered", "Result × 300"]),
    ("leak-two-holders", Pattern::Array, &["`recent`", "also held by byNumber (Map)", "Order × 300"]),
    ("leak-handler", Pattern::Map, &["`answers`", "leak-handler.js", "Answer × 300"]),
    ("leak-signal", Pattern::Listener, &[" more listeners on ", "leak-signal.js:16:"]),
];

const HEALTHY: [&str; 7] = [
    "healthy-listener",
    "healthy-interval",
    "healthy-map",
    "healthy-array",
    "healthy-closure",
    "healthy-promise",
    "healthy-console",
];

fn three_snapshots(files: &[PathBuf]) -> Diff {
    let first = digest(&analysis_of(&files[0]), "first");
    let second = digest(&analysis_of(&files[1]), "second");
    compare(&[first, second], &analysis_of(&files[2]), "third", Extent::default())
}

#[test]
fn known_leaks_are_named_and_healthy_twins_are_not() {
    assert_eq!(wrong(Path::new("node"), "the machine's Node", &HEALTHY), [""; 0]);
}

#[rstest]
fn known_leaks_are_named_under_every_version_of_node(#[values(16, 18, 22, 24)] version: u32) {
    let node = node_of(version);
    let output = Command::new(&node).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("v{version}.")), "{output:?}");
    assert_eq!(wrong(&node, &format!("Node {version}"), &[]), [""; 0]);
}

/// Runs the apps with this Node, prints the table and returns the apps that were not judged as expected.
#[allow(clippy::print_stdout, reason = "the table is part of the proof")]
fn wrong(node: &Path, name: &str, healthy: &[&'static str]) -> Vec<&'static str> {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    // At once: tests beside each other print their tables whole.
    let mut table = format!("{name}\n{:<18} {:<13} {:<13} sentence\n", "app", "expected", "found");
    for (app, pattern, words) in LEAKS {
        let diff = three_snapshots(&run_app_with(node, app, &folder.path().join(app)));
        let found = diff.findings.first();
        let shown = found.map_or_else(String::new, |finding| format!("{:?}", finding.pattern));
        let sentence = found.map_or("", |finding| finding.sentence.as_str());
        writeln!(table, "{app:<18} {:<13} {shown:<13} {sentence}", format!("{pattern:?}")).unwrap();
        let named = words.iter().all(|word| sentence.contains(word));
        if diff.basis != Basis::Ids || found.is_none_or(|finding| finding.pattern != pattern) || !named {
            wrong.push(app);
        }
    }
    for &app in healthy {
        let diff = three_snapshots(&run_app_with(node, app, &folder.path().join(app)));
        let sentence = diff.findings.first().map_or("", |finding| finding.sentence.as_str());
        let shown = if sentence.is_empty() { "nothing" } else { "wrong" };
        writeln!(table, "{app:<18} {:<13} {shown:<13} {sentence}", "nothing").unwrap();
        if !diff.findings.is_empty() {
            wrong.push(app);
        }
    }
    println!("{table}");
    wrong
}

#[test]
fn ids_of_two_runs_are_not_taken_for_one_session() {
    let folder = tempfile::tempdir().unwrap();
    let one = run_app("leak-map", &folder.path().join("one"));
    let two = run_app("leak-map", &folder.path().join("two"));
    let first = digest(&analysis_of(&one[0]), "first");
    let last = analysis_of(&two[2]);
    let diff = compare(&[first], &last, "last", Extent::default());
    assert_eq!(diff.basis, Basis::ClassesAndPaths, "{}", diff.because);
    assert_eq!(diff.added, None);
    let session = diff.classes.iter().find(|growth| growth.class == "Session" && growth.count_delta() > 100).unwrap();
    assert_eq!(session.count_delta(), 600);
    let finding = diff.findings.first().expect("the Map is found without ids too");
    assert_eq!(finding.pattern, Pattern::Map);
    assert!(finding.sentence.contains("`sessions`"), "{}", finding.sentence);
    let ways = diff.ways.iter().find(|ways| ways.class == "Session").unwrap();
    let way: Vec<String> = ways.ways[0].steps.iter().map(ToString::to_string).collect();
    assert!(way.last().unwrap().contains("Session") && way.iter().any(|step| step.starts_with("sessions (Map)")));
    assert!((595..=600).contains(&ways.ways[0].count), "{:?}", ways.ways[0].count);
}

#[test]
fn a_report_quotes_no_string_of_the_app_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let files = run_app("leak-table", &folder.path().join("table"));
    let text = std::fs::read_to_string(&files[2]).unwrap();
    assert!(text.contains("user7@example.org"), "the snapshot itself holds the app's data");
    let diff = three_snapshots(&files);
    let summary = summarise(&analysis_of(&files[2]), "third", Extent { rows: 10_000, findings: 100 });
    for report in [serde_json::to_string(&diff).unwrap(), serde_json::to_string(&summary).unwrap()] {
        assert!(!report.contains("@example.org"));
    }
}
