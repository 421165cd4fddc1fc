//! What `docs/restarts.md` says of settings and gates is what the code has.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use leakslope::policy::{Gate, PolicySettings, RestartSettings, Trigger};

const TEXT: &str = include_str!("../../docs/restarts.md");

/// The cells of every row of every table.
fn rows() -> Vec<Vec<String>> {
    TEXT.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn every_gate_has_its_row() {
    let first: Vec<String> = rows().into_iter().map(|row| row[0].clone()).collect();
    for gate in Gate::ALL {
        assert!(first.contains(&format!("`{}`", gate.as_str())), "{gate:?} has no row");
    }
    for trigger in Trigger::ALL {
        let word = match trigger {
            Trigger::Schedule => "the calendar",
            Trigger::Person => "a person",
            Trigger::Alert => "an alert",
            Trigger::Memory => "memory above a threshold",
            Trigger::Leak => "a leak",
        };
        assert!(first.iter().any(|cell| cell == word), "{trigger:?} has no row");
    }
}

#[test]
fn every_setting_is_named_and_a_default_that_is_shown_is_the_default() {
    let policy = toml::Table::try_from(PolicySettings::default()).unwrap();
    let restart = toml::Table::try_from(RestartSettings::default()).unwrap();
    for key in policy.keys().chain(restart.keys()).filter(|key| !["daemons", "policy"].contains(&key.as_str())) {
        assert!(TEXT.contains(key.as_str()), "{key} is not named");
    }
    let value = |table: &toml::Table, path: &str| {
        let mut value = toml::Value::Table(table.clone());
        for part in path.split('.') {
            value = value.get(part)?.clone();
        }
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let mut checked = 0;
    for row in rows().iter().filter(|row| row.len() >= 3) {
        let Some(setting) = row[1].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else { continue };
        let Some(shown) = row[2].strip_prefix('`').and_then(|cell| cell.strip_suffix('`')) else { continue };
        let found = match setting.strip_prefix("[restart] ") {
            Some(setting) => value(&restart, setting),
            None => value(&policy, setting),
        };
        if let Some(found) = found {
            assert_eq!(found, shown, "{setting}");
            checked += 1;
        }
    }
    assert!(checked >= 18, "only {checked} defaults were found in the tables");
}

#[test]
fn the_example_is_valid() {
    #[derive(serde::Deserialize)]
    struct File {
        restart: RestartSettings,
    }
    let example = TEXT.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file: File = toml::from_str(example).unwrap();
    assert_eq!(file.restart.validate(), []);
    assert_eq!(file.restart.policy.len(), 1);
}
