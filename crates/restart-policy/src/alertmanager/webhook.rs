//! Alertmanager's webhook, payload version 4, to calls for a restart.
//!
//! An alert calls for a restart with the labels `leakslope_action` (`reload` or `restart`), `daemon`, `app` and, for one
//! process, `pm_id`. Its name among all alerts is a digest of its labels, so that every member of an Alertmanager
//! cluster means the same alert. Annotations and addresses are not looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use model::{AppName, DaemonName, plain};

use super::LARGEST_BODY;
use crate::request::{AlertCall, Wish};

/// The most alerts that one body may hold; more are left out and counted.
const MOST_ALERTS: usize = 20_000;
/// The longest label value that is looked at, in bytes.
const LONGEST_LABEL: usize = 1024;

/// What a webhook body asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Webhook {
    /// Calls for restarts, firing and resolved, in the order of the body.
    pub calls: Vec<AlertCall>,
    /// Alerts that were left alone, by reason.
    pub ignored: BTreeMap<Ignored, usize>,
    /// Alerts that Alertmanager itself cut off (`truncatedAlerts`); its repeats bring them if the group shrinks.
    pub truncated: u64,
}

/// Why an alert was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// It is no object with labels, a status and a start.
    Malformed,
    /// It has no label `leakslope_action`.
    NoAction,
    /// Its `leakslope_action` is neither `reload` nor `restart`.
    UnknownAction,
    /// It names no daemon or no app.
    NoTarget,
    /// Its `pm_id` is not a number: it is not taken to mean the whole app.
    BadProcess,
    /// It came after the most that one body may hold.
    TooMany,
}

impl Ignored {
    /// The word used in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoAction => "no_action",
            Self::UnknownAction => "unknown_action",
            Self::NoTarget => "no_target",
            Self::BadProcess => "bad_process",
            Self::TooMany => "too_many",
        }
    }
}

/// Why a whole body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// It is too large.
    #[error("body of {0} bytes is larger than {LARGEST_BODY}")]
    TooLarge(usize),
    /// It is no webhook body: cut off, no JSON, or without its fields.
    #[error("not a webhook body of Alertmanager: {0}")]
    Malformed(String),
    /// It has another version.
    #[error("payload version {0:?} is not \"4\"")]
    Version(String),
}

#[derive(Deserialize)]
struct Body<'a> {
    version: String,
    #[serde(rename = "truncatedAlerts", default)]
    truncated: Option<u64>,
    #[serde(borrow)]
    alerts: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Alert {
    status: Status,
    labels: BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: jiff::Timestamp,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

/// Reads a webhook body.
pub fn parse_webhook(body: &[u8]) -> Result<Webhook, WebhookError> {
    if body.len() > LARGEST_BODY {
        return Err(WebhookError::TooLarge(body.len()));
    }
    let malformed = |error: serde_json::Error| WebhookError::Malformed(error.to_string());
    let body: Body<'_> = serde_json::from_slice(body).map_err(malformed)?;
    if body.version != "4" {
        return Err(WebhookError::Version(body.version.chars().take(20).collect()));
    }
    let mut webhook = Webhook { truncated: body.truncated.unwrap_or(0), ..Webhook::default() };
    for (index, alert) in body.alerts.into_iter().enumerate() {
        let call = if index < MOST_ALERTS { read_alert(alert) } else { Err(Ignored::TooMany) };
        match call {
            Ok(call) => webhook.calls.push(call),
            Err(why) => *webhook.ignored.entry(why).or_default() += 1,
        }
    }
    Ok(webhook)
}

fn read_alert(alert: &RawValue) -> Result<AlertCall, Ignored> {
    let alert: Alert = serde_json::from_str(alert.get()).map_err(|_not_an_alert| Ignored::Malformed)?;
    let label = |name: &str| alert.labels.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let wish = match label("leakslope_action") {
        None => return Err(Ignored::NoAction),
        Some("reload") => Wish::Gentle,
        Some("restart") => Wish::Hard,
        Some(_) => return Err(Ignored::UnknownAction),
    };
    let target = |name| label(name).filter(|value| value.len() <= LONGEST_LABEL).ok_or(Ignored::NoTarget);
    let namespace = label("namespace").unwrap_or_default();
    let (daemon, app) = (DaemonName::from(target("daemon")?), AppName::new(namespace, target("app")?));
    let pm_id = match label("pm_id") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_not_a_number| Ignored::BadProcess)?),
    };
    Ok(AlertCall {
        id: digest(&alert.labels),
        name: plain(label("alertname").unwrap_or("without a name"), 100),
        starts_at: alert.starts_at.as_millisecond(),
        resolved: alert.status == Status::Resolved,
        daemon,
        app,
        pm_id,
        wish,
    })
}

/// A name for a set of labels: FNV-1a (Fowler, Noll, Vo) of 128 bits over the sorted pairs.
fn digest(labels: &BTreeMap<String, String>) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    };
    for (name, value) in labels {
        feed(name.as_bytes());
        feed(value.as_bytes());
    }
    let mut text = String::with_capacity(32);
    write!(text, "{hash:032x}").expect("invariant: writing to a string does not fail");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn alert(labels: &serde_json::Value) -> serde_json::Value {
        json!({
            "status": "firing", "labels": labels, "annotations": {"summary": "it leaks"},
            "startsAt": "2025-03-10T12:00:00.5Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus/graph", "fingerprint": "c6eadffa33fcdf37",
        })
    }

    fn body(alerts: &[serde_json::Value]) -> Vec<u8> {
        json!({
            "version": "4", "groupKey": "{}:{app=\"shop\"}", "truncatedAlerts": 3, "status": "firing",
            "receiver": "leakslope", "groupLabels": {"app": "shop"}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://alertmanager", "alerts": alerts,
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_firing_alert_calls_for_its_app_or_process() {
        let labels = json!({"alertname": "Leak", "leakslope_action": "reload", "daemon": "default", "app": "shop"});
        let mut one = labels.clone();
        one["pm_id"] = json!("0");
        one["leakslope_action"] = json!("restart");
        let webhook = parse_webhook(&body(&[alert(&labels), alert(&one)])).unwrap();
        assert_eq!(webhook.truncated, 3);
        let [app, process] = webhook.calls.as_slice() else { panic!("two calls") };
        assert_eq!((app.pm_id, app.wish, app.starts_at), (None, Wish::Gentle, 1_741_608_000_500));
        assert_eq!((process.pm_id, process.wish), (Some(0), Wish::Hard));
        assert_ne!(app.id, process.id);
    }

    #[test]
    fn the_rest_of_a_body_survives_a_bad_alert() {
        let good = json!({"leakslope_action": "reload", "daemon": "default", "app": "shop"});
        let with = |name: &str, value: &str| {
            let mut labels = good.clone();
            labels[name] = json!(value);
            alert(&labels)
        };
        let mut unstarted = alert(&good);
        unstarted["startsAt"] = json!("yesterday");
        let webhook = parse_webhook(&body(&[
            json!(null),
            unstarted,
            with("app", ""),
            with("pm_id", "all"),
            with("leakslope_action", "delete"),
            alert(&json!({"app": "shop"})),
            with("pm_id", "7"),
        ]))
        .unwrap();
        assert_eq!(webhook.calls.len(), 1);
        let expected = [
            (Ignored::Malformed, 2),
            (Ignored::NoAction, 1),
            (Ignored::UnknownAction, 1),
            (Ignored::NoTarget, 1),
            (Ignored::BadProcess, 1),
        ];
        assert_eq!(webhook.ignored, BTreeMap::from(expected));
    }

    #[test]
    fn ten_thousand_alerts_in_one_body_are_read() {
        let alerts: Vec<_> = (0..10_000)
            .map(|n| alert(&json!({"leakslope_action": "reload", "daemon": "default", "app": format!("app-{n}")})))
            .collect();
        let webhook = parse_webhook(&body(&alerts)).unwrap();
        assert_eq!(webhook.calls.len(), 10_000);
        let ids: std::collections::BTreeSet<_> = webhook.calls.iter().map(|call| &call.id).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn a_body_that_is_cut_off_of_another_version_or_too_large_is_refused() {
        let whole = body(&[alert(&json!({"leakslope_action": "reload", "daemon": "d", "app": "a"}))]);
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(parse_webhook(&whole[..end]), Err(WebhookError::Malformed(_))), "{end}");
        }
        let other = String::from_utf8(whole).unwrap().replace("\"version\":\"4\"", "\"version\":\"5\"");
        assert_eq!(parse_webhook(other.as_bytes()), Err(WebhookError::Version("5".to_owned())));
        assert_eq!(parse_webhook(&vec![b' '; LARGEST_BODY + 1]), Err(WebhookError::TooLarge(LARGEST_BODY + 1)));
        let deep = format!("{{\"version\":\"4\",\"alerts\":[{}", "[".repeat(100_000));
        assert!(parse_webhook(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_webhook(&bytes);
        }

        #[test]
        fn a_damaged_body_never_makes_it_panic(position in 0_usize..600, byte in any::<u8>()) {
            let mut bytes = body(&[alert(&json!({"leakslope_action": "reload", "daemon": "d", "app": "a"}))]);
            let position = position % bytes.len();
            bytes[position] = byte;
            let _ = parse_webhook(&bytes);
        }

        #[test]
        fn the_digest_tells_labels_apart(a in "[a-z]{0,6}", b in "[a-z]{0,6}") {
            let labels = |x: &str, y: &str| BTreeMap::from([("k".to_owned(), x.to_owned()), ("l".to_owned(), y.to_owned())]);
            prop_assert_eq!(digest(&labels(&a, &b)) == digest(&labels(&b, &a)), a == b);
        }
    }
}
