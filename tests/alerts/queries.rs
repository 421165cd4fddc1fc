//! Every query that people are given: of the rules and of the dashboards, as PromQL with its origin.

#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::Value;

use super::rule_files::{files, read, rules};

/// A query and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) origin: String,
    pub(crate) expression: String,
    /// Whether Grafana asks it at one instant.
    pub(crate) instant: bool,
    /// The title of the panel that it fills, if any.
    pub(crate) panel: Option<String>,
}

/// Fills in what Grafana fills in: `to` is the end of the range in seconds.
pub(crate) fn interpolate(expression: &str, rate_interval: &str, range: &str, to: u64) -> String {
    let filled = expression
        .replace("$__rate_interval", rate_interval)
        .replace("$__range", range)
        .replace("${__to:date:seconds}", &to.to_string());
    ["cluster", "job", "instance", "daemon", "namespace", "app", "pm_id"]
        .iter()
        .fold(filled, |text, variable| text.replace(&format!("=~\"${variable}\""), "=~\".*\""))
}

/// The queries of both rule files.
pub(crate) fn of_rules() -> Vec<Query> {
    rules()
        .into_iter()
        .map(|rule| Query {
            origin: format!("rule {}", rule.record.or(rule.alert).unwrap_or_default()),
            expression: rule.expr,
            instant: true,
            panel: None,
        })
        .collect()
}

/// The queries of every panel, annotation and variable of the dashboards, as they stand in the files.
pub(crate) fn of_dashboards() -> Vec<Query> {
    let mut queries = Vec::new();
    for path in files("dashboards", ".json") {
        let board: Value = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        for panel in array(&board, "/panels") {
            let title = string(panel, "/title");
            for target in array(panel, "/targets") {
                queries.push(Query {
                    origin: format!("{path}: {title}: {}", string(target, "/refId")),
                    expression: string(target, "/expr"),
                    instant: target["instant"] == Value::Bool(true),
                    panel: Some(format!("{path}: {title}")),
                });
            }
        }
        for annotation in array(&board, "/annotations/list").iter().filter(|one| one.get("expr").is_some()) {
            queries.push(Query {
                origin: format!("{path}: annotation {}", string(annotation, "/name")),
                expression: string(annotation, "/expr"),
                instant: false,
                panel: None,
            });
        }
        for variable in array(&board, "/templating/list") {
            let definition = string(variable, "/definition");
            let inner = definition.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", "));
            if let Some((selector, label)) = inner {
                queries.push(Query {
                    origin: format!("{path}: variable {}", string(variable, "/name")),
                    expression: format!("count by ({}) ({selector})", label.trim_end_matches(')')),
                    instant: true,
                    panel: None,
                });
            }
        }
    }
    queries
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn string(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
