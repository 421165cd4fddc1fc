//! The structure of the Grafana dashboards and of the files that provision them: what Grafana would only tell by an
//! empty panel. Whether queries answer is asked of a real Prometheus elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule_files::{files, read, read_yaml};
use serde_json::Value;

/// Units of Grafana that the dashboards use, besides free ones (`suffix: MiB/h`).
const UNITS: &[&str] = &["none", "short", "bytes", "s", "percentunit", "reqps", "cps", "ops", "dateTimeFromNow"];

/// A palette that stays apart under every kind of colour blindness (Okabe and Ito), with a grey.
const PALETTE: &[&str] = &["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8A8A8A"];

/// Schemes that run from one such colour to another, or that take one of them.
const SCHEMES: &[&str] = &["thresholds", "fixed", "shades", "continuous-BlYlRd"];

fn dashboards() -> BTreeMap<String, Value> {
    files("dashboards", ".json")
        .into_iter()
        .map(|path| {
            let value = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path, value)
        })
        .collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Every panel that shows something: rows are left out.
fn panels(dashboard: &Value) -> Vec<&Value> {
    list(dashboard, "/panels").iter().filter(|panel| text(panel, "/type") != "row").collect()
}

/// Every value of a key, however deep.
fn values_of<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if name == key {
                    found.push(inner);
                }
                values_of(inner, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(item, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn there_are_three_with_uids_that_stay() {
    let uids: BTreeMap<String, String> =
        dashboards().iter().map(|(path, board)| (path.clone(), text(board, "/uid").to_owned())).collect();
    let expected = [("app", "leakslope-app"), ("fleet", "leakslope-fleet"), ("sidecar", "leakslope-sidecar")];
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(file, uid)| (format!("dashboards/{file}.json"), uid.to_owned())).collect();
    assert_eq!(uids, expected);
}

#[test]
fn each_is_provisioned_by_any_grafana_from_ten_on() {
    for (path, board) in dashboards() {
        assert!(board["id"].is_null(), "{path}: the id is Grafana's to give");
        assert!(board["schemaVersion"].as_u64().is_some_and(|version| (36..=39).contains(&version)), "{path}");
        assert!(!text(&board, "/title").is_empty() && !text(&board, "/description").is_empty(), "{path}");
        let links = list(&board, "/links");
        assert!(links.iter().any(|link| text(link, "/tags/0") == "leakslope"), "{path}: no link to the others");
        assert!(text(&board, "/tags/0") == "leakslope", "{path}: not found by that link");
        // Exports for the dashboard site carry inputs that a provisioned file cannot fill.
        assert!(board.get("__inputs").is_none(), "{path}");
    }
}

#[test]
fn variables_choose_a_data_source_and_any_number_of_hosts_daemons_and_apps() {
    for (path, board) in dashboards() {
        let variables = list(&board, "/templating/list");
        assert_eq!((text(&variables[0], "/name"), text(&variables[0], "/type")), ("ds", "datasource"), "{path}");
        let names: Vec<&str> = variables.iter().map(|variable| text(variable, "/name")).collect();
        assert!(names.starts_with(&["ds", "cluster", "job", "instance", "daemon"]), "{path}: {names:?}");
        for variable in &variables[1..] {
            let name = text(variable, "/name");
            assert_eq!(variable["multi"], Value::Bool(true), "{path}: {name}");
            // The dashboard of an app begins with one.
            let begins_with_all = (path.as_str(), name) != ("dashboards/app.json", "app");
            assert_eq!(variable["includeAll"], Value::Bool(begins_with_all), "{path}: {name}");
            if begins_with_all {
                assert_eq!(text(variable, "/current/value/0"), "$__all", "{path}: {name}");
            }
        }
        for name in names {
            let used = if name == "ds" { "${ds}".to_owned() } else { format!("=~\\\"${name}\\\"") };
            assert!(board.to_string().contains(&used), "{path}: nothing asks for {name}");
        }
    }
}

#[test]
fn what_is_unknown_is_not_drawn_as_zero() {
    for (path, board) in dashboards() {
        assert!(!board.to_string().contains("vector(0)"), "{path}: a zero that nobody measured");
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    for (path, board) in dashboards() {
        let all = list(&board, "/panels");
        let ids: BTreeSet<u64> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), all.len(), "{path}: ids repeat");
        let titles: BTreeSet<&str> = panels(&board).iter().map(|panel| text(panel, "/title")).collect();
        assert_eq!(titles.len(), panels(&board).len(), "{path}: titles repeat");
        let mut taken = BTreeSet::new();
        for panel in all {
            let at = |key: &str| panel.pointer(&format!("/gridPos/{key}")).and_then(Value::as_u64).unwrap();
            assert!(at("x") + at("w") <= 24, "{path}: {} is too far right", panel["title"]);
            for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                assert!(taken.insert((x, y)), "{path}: {} lies on another panel", panel["title"]);
            }
        }
    }
}

#[test]
fn every_panel_explains_itself_and_asks_the_chosen_data_source() {
    for (path, board) in dashboards() {
        for panel in panels(&board) {
            let title = text(panel, "/title");
            assert!(text(panel, "/description").len() >= 20, "{path}: {title} has no description");
            assert_eq!(text(panel, "/datasource/uid"), "${ds}", "{path}: {title}");
            let targets = list(panel, "/targets");
            assert!(!targets.is_empty(), "{path}: {title} asks nothing");
            let refs: BTreeSet<&str> = targets.iter().map(|target| text(target, "/refId")).collect();
            assert_eq!(refs.len(), targets.len(), "{path}: {title}: refIds repeat");
            for target in targets {
                assert!(!text(target, "/refId").is_empty() && !text(target, "/expr").is_empty(), "{path}: {title}");
                assert_eq!(text(target, "/datasource/uid"), "${ds}", "{path}: {title}");
            }
        }
    }
}

#[test]
fn rates_follow_the_zoom_and_units_are_known() {
    for (path, board) in dashboards() {
        for panel in panels(&board) {
            let title = text(panel, "/title");
            for target in list(panel, "/targets") {
                let expression = text(target, "/expr");
                for function in ["rate(", "increase("] {
                    for (at, _) in expression.match_indices(function) {
                        let range = expression[at..].split('[').nth(1).and_then(|rest| rest.split(']').next());
                        assert!(matches!(range, Some("$__rate_interval" | "$__range")), "{path}: {title}: {range:?}");
                    }
                }
            }
            if text(panel, "/type") != "table" && text(panel, "/type") != "state-timeline" {
                let unit = text(panel, "/fieldConfig/defaults/unit");
                assert!(UNITS.contains(&unit) || unit == "suffix: MiB/h", "{path}: {title}: unit {unit:?}");
            }
        }
    }
}

#[test]
fn nothing_is_told_by_colour_alone() {
    for (path, board) in dashboards() {
        for key in ["color", "fixedColor", "iconColor"] {
            let mut found = Vec::new();
            values_of(&board, key, &mut found);
            for color in found.into_iter().filter_map(Value::as_str) {
                assert!(PALETTE.contains(&color), "{path}: {key} {color} is not of the palette");
            }
        }
        let mut modes = Vec::new();
        values_of(&board, "color", &mut modes);
        for mode in modes.iter().filter_map(|color| color.get("mode")).filter_map(Value::as_str) {
            assert!(SCHEMES.contains(&mode), "{path}: scheme {mode}");
        }
        // A word and a shape stand wherever a state has a colour.
        let mut mappings = Vec::new();
        values_of(&board, "options", &mut mappings);
        for result in mappings.iter().filter_map(|options| options.as_object()).flat_map(|options| options.values()) {
            if let (Some(word), Some(_)) = (result.get("text").and_then(Value::as_str), result.get("color")) {
                let shape = word.chars().next().unwrap();
                assert!("○●▲■".contains(shape) && word.len() > 4, "{path}: {word:?} has no shape or no word");
            }
        }
        for panel in panels(&board).into_iter().filter(|panel| text(panel, "/type") == "timeseries") {
            let title = text(panel, "/title");
            assert_eq!(text(panel, "/options/legend/displayMode"), "table", "{path}: {title}: values in the legend");
            // Where a colour stands for a kind of line, its dash does as well, but for one of them.
            let overrides = list(panel, "/fieldConfig/overrides");
            let plain = overrides.iter().filter(|rule| !rule.to_string().contains("\"dash\":")).count();
            assert!(plain <= 4, "{path}: {title}: {plain} kinds of line look alike");
        }
    }
}

#[test]
fn provisioning_loads_them() {
    let source: Value = read_yaml("deploy/grafana/provisioning/datasources/leakslope.yml");
    assert_eq!(text(&source, "/datasources/0/type"), "prometheus");
    assert!(source.pointer("/datasources/0/jsonData/timeInterval").is_some(), "$__rate_interval rests on it");
    let provider: Value = read_yaml("deploy/grafana/provisioning/dashboards/leakslope.yml");
    assert_eq!(text(&provider, "/providers/0/type"), "file");
    assert!(text(&provider, "/providers/0/options/path").starts_with('/'));
}
