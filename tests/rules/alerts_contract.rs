//! Names and labels of metrics mean the same in the code, the alerts, the dashboards and the documents, both ways: what
//! is asked for is exported, and what is exported is shown and explained.

use std::collections::{BTreeMap, BTreeSet};

use crate::queries::{Query, interpolate, of_dashboards, of_rules};
use crate::rule_files::{files, read, rules};
use leakslope::export::{Descriptor, Kind, catalogue};
use leakslope::model::{LeakState, LimitKind, Signal, Status};
use promql_parser::label::Matcher;
use promql_parser::parser::{Expr, LabelModifier};
use promql_parser::util::{ExprVisitor, walk_expr};

/// What Prometheus puts on every series of a target: itself, or where it is told to.
const TARGET: &[&str] = &["cluster", "instance", "job"];

/// Words that look like a family and are none.
const NO_FAMILY: &[&str] = &["leakslope_action", "leakslope_gc", "pm2_env", "pm2_id"];

#[derive(Default)]
struct Asked {
    /// Family to the labels that its matchers name, with the values they accept.
    matchers: Vec<(String, Matcher)>,
    families: BTreeSet<String>,
    /// Labels of `by`, `on`, `group_left` and the like.
    labels: BTreeSet<String>,
}

impl ExprVisitor for Asked {
    type Error = String;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, String> {
        let mut modifier = |modifier: &Option<LabelModifier>| {
            self.labels.extend(modifier.iter().flat_map(|labels| labels.labels().labels.clone()));
        };
        if let Expr::Aggregate(aggregate) = expression {
            modifier(&aggregate.modifier);
        }
        if let Expr::Binary(binary) = expression
            && let Some(how) = &binary.modifier
        {
            modifier(&how.matching);
            self.labels.extend(how.card.labels().iter().flat_map(|labels| labels.labels.clone()));
        }
        let mut selector = None;
        if let Expr::VectorSelector(instant) = expression {
            selector = Some(instant);
        }
        if let Expr::MatrixSelector(range) = expression {
            selector = Some(&range.vs);
        }
        if let Some(selector) = selector {
            let name = selector.name.clone().ok_or("a selector without a name")?;
            self.matchers.extend(selector.matchers.matchers.iter().map(|matcher| (name.clone(), matcher.clone())));
            self.families.insert(name);
        }
        Ok(true)
    }
}

/// What a query asks for; fails where it is no PromQL.
fn asked(query: &Query) -> Asked {
    let expression = interpolate(&query.expression, "1m", "1h", 1_700_000_000);
    let parsed = promql_parser::parser::parse(&expression)
        .unwrap_or_else(|error| panic!("{}: {error}\n{expression}", query.origin));
    let mut asked = Asked::default();
    if let Err(error) = walk_expr(&mut asked, &parsed) {
        panic!("{}: {error}", query.origin);
    }
    asked
}

fn queries() -> Vec<Query> {
    of_rules().into_iter().chain(of_dashboards()).collect()
}

/// Family to labels: what is exported, what the rules record, and what Prometheus keeps itself.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let exported = catalogue().iter().map(|family| (family.name, family.labels));
    let mut known: BTreeMap<String, BTreeSet<String>> = exported
        .map(|(name, labels)| (name.to_owned(), labels.iter().chain(TARGET).map(|&label| label.to_owned()).collect()))
        .collect();
    let all: BTreeSet<String> = known.values().flatten().cloned().collect();
    known.extend(rules().into_iter().filter_map(|rule| rule.record).map(|name| (name, all.clone())));
    let own = |labels: &[&str]| labels.iter().chain(TARGET).map(|&label| label.to_owned()).collect();
    known.insert("up".to_owned(), own(&[]));
    known.insert("ALERTS".to_owned(), own(&["alertname", "alertstate", "severity"]));
    known
}

#[test]
fn whatever_is_asked_for_is_exported_with_these_labels() {
    let known = known();
    let all: BTreeSet<&String> = known.values().flatten().collect();
    for query in queries() {
        let asked = asked(&query);
        for family in &asked.families {
            assert!(known.contains_key(family), "{} asks for {family}, which nobody exports", query.origin);
        }
        for (family, matcher) in &asked.matchers {
            let label = &matcher.name;
            assert!(known[family].contains(label), "{}: {family} has no label {label}", query.origin);
        }
        for label in &asked.labels {
            assert!(all.contains(label), "{}: nothing has a label {label}", query.origin);
        }
    }
}

#[test]
fn values_of_labels_are_words_that_the_code_uses() {
    let limits =
        [LimitKind::MaxMemoryRestart, LimitKind::Cgroup, LimitKind::Heap, LimitKind::Host, LimitKind::Configured];
    // The labels of reasons have no list of their own in the code but the function that gives them.
    let source = read("crates/restart-policy/src/reason.rs");
    let reasons = source.split("pub fn label(").nth(1).and_then(|rest| rest.split("pub fn").next()).unwrap_or_default();
    assert!(reasons.contains("window_closed"), "the labels of reasons are elsewhere now");
    let words: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        ("state", LeakState::ALL.map(LeakState::as_str).to_vec()),
        ("signal", Signal::ALL.map(Signal::as_str).to_vec()),
        ("status", Status::ALL.map(Status::as_str).to_vec()),
        ("limit", limits.map(LimitKind::as_str).to_vec()),
        ("percentile", vec!["50", "95"]),
        ("alertstate", vec!["firing"]),
        ("reason", reasons.lines().filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()).collect()),
    ]);
    for query in queries() {
        for (family, matcher) in asked(&query).matchers {
            let Some(words) = words.get(matcher.name.as_str()) else { continue };
            for value in matcher.value.split('|') {
                assert!(words.contains(&value), "{}: {family}: {} is never {value}", query.origin, matcher.name);
            }
        }
    }
}

#[test]
fn counters_are_asked_for_their_growth_and_gauges_are_not() {
    let kinds: BTreeMap<&str, Kind> = catalogue().iter().map(|family| (family.name, family.kind)).collect();
    for query in queries() {
        for function in ["rate(", "increase("] {
            for (at, _) in query.expression.match_indices(function) {
                let rest = &query.expression[at + function.len()..];
                let name: String = rest.chars().take_while(|&one| one.is_ascii_alphanumeric() || one == '_').collect();
                if let Some(kind) = kinds.get(name.as_str()) {
                    assert_eq!(*kind, Kind::Counter, "{}: {function}{name})", query.origin);
                }
            }
        }
    }
}

#[test]
fn texts_of_alerts_name_families_that_exist() {
    let known = known();
    for rule in rules() {
        for text in rule.annotations.values().chain(rule.labels.values()) {
            for word in words(text) {
                assert!(known.contains_key(&word), "{:?} names {word}", rule.alert);
            }
        }
    }
}

#[test]
fn whatever_is_exported_is_on_a_dashboard() {
    let shown: BTreeSet<String> = of_dashboards().iter().flat_map(|query| asked(query).families).collect();
    let names = catalogue().iter().map(|family| family.name);
    let missing: Vec<&str> = names.filter(|&name| !shown.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "families that no panel shows");
}

#[test]
fn documents_name_no_family_that_does_not_exist() {
    let known = known();
    let mut paths = files("docs", ".md");
    paths.extend(files("docs/runbooks", ".md"));
    paths.extend(["README.md", "alerts/README.md", "dashboards/README.md", "deploy/node/README.md"].map(str::to_owned));
    for path in paths {
        for word in words(&read(&path)) {
            assert!(known.contains_key(&word), "{path} names {word}, which nobody exports");
        }
    }
}

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let (path, opening) = ("docs/metrics.md", "| name | kind | labels | what it is |\n|---|---|---|---|\n");
    let written = read(path);
    let (head, after) = written.split_once(opening).unwrap_or_else(|| panic!("{path} has no table"));
    let tail = after.split_once("\n\n").map_or(String::new(), |(_, tail)| format!("\n{tail}"));
    let rows: String = catalogue().iter().map(|family| row(family) + "\n").collect();
    let expected = format!("{head}{opening}{rows}{tail}");
    if std::env::var_os("WRITE_METRICS_TABLE").is_some() {
        std::fs::write(crate::rule_files::root().join(path), &expected)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let rewrite = "WRITE_METRICS_TABLE=1 cargo test --test rules the_table";
    assert_eq!(read(path), expected, "{path} is behind the code; write it with: {rewrite}");
}

fn row(family: &Descriptor) -> String {
    let kind = match family.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    format!("| `{}` | {kind} | {} | {} |", family.name, labels(family), family.help)
}

fn labels(family: &Descriptor) -> String {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    labels.join(", ")
}

/// Words of a text that look like the name of a family.
fn words(text: &str) -> BTreeSet<String> {
    text.split(|one: char| !(one.is_ascii_alphanumeric() || one == '_' || one == ':'))
        .map(|word| word.trim_matches(':'))
        .filter(|word| {
            ["pm2_", "leakslope_"].iter().any(|prefix| word.starts_with(prefix) || word.contains(&format!(":{prefix}")))
        })
        .filter(|word| word.len() > 5 && !word.ends_with('_') && !NO_FAMILY.contains(word))
        .map(str::to_owned)
        .collect()
}
