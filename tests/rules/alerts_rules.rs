//! The rule files and the Alertmanager example, judged by Prometheus' own tools and by what a person needs of an alert.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule_files::{alerts, exists, files, read, read_yaml, rules, run_well};
use serde::Deserialize;

const RUNBOOKS: &str = "https://github.com/leakslope/leakslope/blob/main/docs/runbooks";

#[derive(Debug, Deserialize)]
struct TestFile {
    tests: Vec<TestCase>,
}

#[derive(Debug, Deserialize)]
struct TestCase {
    name: String,
    #[serde(default)]
    alert_rule_test: Vec<AlertCheck>,
    #[serde(default)]
    promql_expr_test: Vec<ExpressionCheck>,
}

#[derive(Debug, Deserialize)]
struct AlertCheck {
    alertname: String,
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Deserialize)]
struct ExpectedAlert {
    exp_labels: BTreeMap<String, String>,
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct ExpressionCheck {
    expr: String,
}

#[derive(Debug, Deserialize)]
struct Alertmanager {
    inhibit_rules: Vec<Inhibition>,
    receivers: Vec<Receiver>,
}

#[derive(Debug, Deserialize)]
struct Inhibition {
    source_matchers: Vec<String>,
    target_matchers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Receiver {
    name: String,
    #[serde(default)]
    webhook_configs: Vec<Webhook>,
}

#[derive(Debug, Deserialize)]
struct Webhook {
    url: String,
    #[serde(default)]
    send_resolved: bool,
    http_config: Option<HttpConfig>,
}

#[derive(Debug, Deserialize)]
struct HttpConfig {
    authorization: Authorization,
}

#[derive(Debug, Deserialize)]
struct Authorization {
    credentials_file: String,
}

fn cases() -> Vec<TestCase> {
    files("tests/alerts", ".test.yml").iter().flat_map(|path| read_yaml::<TestFile>(path).tests).collect()
}

#[test]
fn promtool_accepts_the_rule_files() {
    let mut arguments = vec!["check", "rules"];
    let paths: Vec<String> = files("alerts", ".rules.yml").into_iter().chain(files("alerts", ".alerts.yml")).collect();
    assert_eq!(paths.len(), 2, "rule files: {paths:?}");
    arguments.extend(paths.iter().map(String::as_str));
    run_well("promtool", &arguments);
}

#[test]
fn every_promtool_case_passes() {
    let paths = files("tests/alerts", ".test.yml");
    assert!(paths.len() >= 6, "cases are missing: {paths:?}");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(paths.iter().map(String::as_str));
    let said = run_well("promtool", &arguments);
    assert_eq!(said.matches("SUCCESS").count(), paths.len(), "{said}");
}

#[test]
fn amtool_accepts_the_alertmanager_example() {
    run_well("amtool", &["check-config", "alerts/alertmanager.example.yml"]);
}

#[test]
fn every_alert_says_who_is_disturbed_what_happened_and_what_to_do() {
    for (name, rule) in alerts() {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: severity {severity:?}");
        assert!(rule.wait.is_some(), "{name} has no `for`: one sample would be enough");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(rule.annotations.get(annotation).is_some_and(|text| !text.is_empty()), "{name}: no {annotation}");
        }
        assert_eq!(rule.annotations["runbook_url"], format!("{RUNBOOKS}/{name}.md"), "{name}: another runbook");
        assert!(exists(&format!("docs/runbooks/{name}.md")), "{name}: its runbook is missing");
    }
}

#[test]
fn every_runbook_has_its_alert_and_answers_the_five_questions() {
    let alerts = alerts();
    for path in files("docs/runbooks", ".md") {
        let name = path.trim_start_matches("docs/runbooks/").trim_end_matches(".md");
        if name == "README" {
            continue;
        }
        assert!(alerts.contains_key(name), "{path} belongs to no alert");
        let text = read(&path);
        assert!(text.starts_with(&format!("# {name}\n")), "{path} does not begin with its name");
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(
            headings,
            ["What it means", "Real or false alarm", "What to do now", "Find the cause", "Confirm the fix"],
            "{path}"
        );
        for section in text.split("\n## ").skip(1) {
            assert!(section.split_whitespace().count() >= 25, "{path}: too thin:\n{section}");
        }
    }
}

#[test]
fn commands_in_alerts_are_understood() {
    // `docs_commands.rs` does the same for the runbooks.
    let text = read("alerts/leakslope.alerts.yml");
    let commands: Vec<&str> = text.split("`leakslope ").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(!commands.is_empty(), "no alert names a command");
    for command in commands {
        // What an app is called cannot be known in an alert's text.
        let understood = leakslope::cli::check_usage(command.split_whitespace().chain(["--help"]));
        assert_eq!(understood, Ok(()), "leakslope {command}");
    }
}

#[test]
fn the_index_of_runbooks_names_every_alert() {
    let index = read("docs/runbooks/README.md");
    for name in alerts().keys() {
        assert!(index.contains(&format!("({name}.md)")), "docs/runbooks/README.md does not name {name}");
    }
}

#[test]
fn leak_alerts_tell_slope_limit_and_time_and_ask_for_a_reload() {
    for (name, rule) in alerts().into_iter().filter(|(name, _)| name.starts_with("Pm2Leak")) {
        let text = &rule.annotations["description"];
        for piece in ["$labels.app", "MiB/h", "pm2_process_leak_limit_bytes", "humanizeDuration"] {
            assert!(text.contains(piece), "{name}: nothing of {piece}");
        }
        let action = rule.labels.get("leakslope_action").map(String::as_str);
        let expected = (name != "Pm2LeakSuspected").then_some("reload");
        assert_eq!(action, expected, "{name}: only a leak asks for a reload");
    }
}

#[test]
fn every_alert_is_seen_silent_and_seen_firing_with_exact_words() {
    let mut silent = BTreeSet::new();
    let mut firing = BTreeSet::new();
    for check in cases().into_iter().flat_map(|case| case.alert_rule_test) {
        if check.exp_alerts.is_empty() {
            silent.insert(check.alertname);
            continue;
        }
        for expected in check.exp_alerts {
            assert!(expected.exp_labels.contains_key("severity"), "{}: labels not spelled out", check.alertname);
            let written: Vec<&str> = expected.exp_annotations.keys().map(String::as_str).collect();
            assert_eq!(written, ["description", "runbook_url", "summary"], "{}", check.alertname);
        }
        firing.insert(check.alertname);
    }
    let all: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(firing, all, "seen firing, and all alerts there are");
    assert_eq!(silent, all, "seen silent, and all alerts there are");
}

#[test]
fn everyday_life_is_asked_of_every_alert() {
    let cases = cases();
    for name in [
        "a restart",
        "a deploy that steps up",
        "a scrape gap of four minutes",
        "a cache that fills and stops",
        "a sidecar that restarts",
        "an app scaled down from four to two, and another stopped on purpose",
    ] {
        let case = cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case: {name}"));
        let asked = case.promql_expr_test.iter().any(|check| check.expr.contains(r#"ALERTS{alertstate="firing"}"#));
        assert!(asked, "{name} does not ask all alerts");
    }
}

#[test]
fn every_recording_rule_has_a_value_in_a_case() {
    let asked: String = cases().into_iter().flat_map(|case| case.promql_expr_test).map(|check| check.expr).collect();
    for rule in rules().into_iter().filter_map(|rule| rule.record) {
        // LeakslopeDown's cases hold the memory of sidecars.
        assert!(rule == "instance:leakslope_seen:group" || asked.contains(&rule), "{rule} is in no case");
    }
}

/// The alerts that matchers such as `alertname =~ "A|B"` name.
fn named(matchers: &[String]) -> Vec<String> {
    let [matcher] = matchers else { panic!("one matcher by alertname is enough: {matchers:?}") };
    let Some((key, names)) = matcher.split_once('=') else { panic!("{matcher} is no matcher") };
    assert_eq!(key.trim(), "alertname", "{matcher}");
    names.trim_start_matches('~').trim().trim_matches('"').split('|').map(str::to_owned).collect()
}

#[test]
fn no_inhibition_takes_a_request_away_from_the_sidecar() {
    let alerts = alerts();
    let action = |name: &String| {
        let rule = alerts.get(name).unwrap_or_else(|| panic!("an inhibition names {name}, which is no alert"));
        rule.labels.get("leakslope_action").cloned()
    };
    for rule in read_yaml::<Alertmanager>("alerts/alertmanager.example.yml").inhibit_rules {
        for target in named(&rule.target_matchers) {
            for source in named(&rule.source_matchers) {
                let wanted = action(&target);
                assert!(wanted.is_none() || wanted == action(&source), "{source} would keep {target} from the sidecar");
            }
        }
    }
}

#[test]
fn the_sidecar_is_told_with_credentials_and_hears_when_it_is_over() {
    let receivers = read_yaml::<Alertmanager>("alerts/alertmanager.example.yml").receivers;
    let here = receivers.iter().find(|receiver| receiver.name == "leakslope-here").unwrap();
    let webhook = &here.webhook_configs[0];
    assert_eq!(webhook.url, "http://127.0.0.1:19209/api/v1/alerts");
    assert!(webhook.send_resolved);
    let file = &webhook.http_config.as_ref().unwrap().authorization.credentials_file;
    assert!(file.starts_with('/'), "{file}");
    // amtool's own view of where an alert goes: a leak reaches the sidecar and a person.
    let route = |labels: &[&str]| {
        let mut arguments = vec!["config", "routes", "test", "--config.file", "alerts/alertmanager.example.yml"];
        arguments.extend(labels);
        run_well("amtool", &arguments)
    };
    let here = ["leakslope_action=reload", "instance=127.0.0.1:19209"];
    assert!(route(&[here[0], here[1], "severity=warning"]).contains("leakslope-here,people-tickets"));
    assert!(route(&[here[0], here[1], "severity=critical"]).contains("leakslope-here,people-pages"));
    assert!(!route(&["severity=critical", "instance=127.0.0.1:19209"]).contains("leakslope-here"));
    assert!(!route(&[here[0], "instance=elsewhere:19209"]).contains("leakslope-here"));
}
