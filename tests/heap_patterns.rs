//! Real apps with known leaks, and their healthy twins: the report must name the pattern, the holder and the code.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod heap_support;

use std::path::PathBuf;

use heap_support::{analysis_of, run_app};
use leakslope::evidence::snapshot::diff::{Basis, Diff, compare, digest};
use leakslope::evidence::snapshot::patterns::Pattern;
use leakslope::evidence::snapshot::summary::{Extent, summarise};

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
    ("leak-signal", Pattern::Listener, &["300 more listeners", "(EventTarget)", "leak-signal.js:16:"]),
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
#[allow(clippy::print_stdout, reason = "the table is part of the proof")]
fn known_leaks_are_named_and_healthy_twins_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    println!("{:<18} {:<13} {:<13} sentence", "app", "expected", "found");
    for (app, pattern, words) in LEAKS {
        let diff = three_snapshots(&run_app(app, &folder.path().join(app)));
        let found = diff.findings.first();
        let shown = found.map_or_else(String::new, |finding| format!("{:?}", finding.pattern));
        let sentence = found.map_or("", |finding| finding.sentence.as_str());
        println!("{app:<18} {:<13} {shown:<13} {sentence}", format!("{pattern:?}"));
        let named = words.iter().all(|word| sentence.contains(word));
        if diff.basis != Basis::Ids || found.is_none_or(|finding| finding.pattern != pattern) || !named {
            wrong.push(app);
        }
    }
    for app in HEALTHY {
        let diff = three_snapshots(&run_app(app, &folder.path().join(app)));
        let sentence = diff.findings.first().map_or("", |finding| finding.sentence.as_str());
        println!(
            "{app:<18} {:<13} {:<13} {sentence}",
            "nothing",
            if sentence.is_empty() { "nothing" } else { "wrong" }
        );
        if !diff.findings.is_empty() {
            wrong.push(app);
        }
    }
    assert!(wrong.is_empty(), "not as expected: {wrong:?}");
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
