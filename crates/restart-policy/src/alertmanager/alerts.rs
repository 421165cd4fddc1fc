//! Alerts for Alertmanager's v2 API (`POST /api/v2/alerts`), for those who run no Prometheus.

use std::collections::BTreeMap;

use serde::Serialize;

use model::WallTime;

/// An alert to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingAlert {
    /// Labels: its identity. Empty values are left out, as Alertmanager would do.
    pub labels: BTreeMap<String, String>,
    /// Annotations: its text.
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    pub starts_at: WallTime,
    /// When it ends: in the future while it fires, so that it ends by itself if nobody says so.
    pub ends_at: WallTime,
}

#[derive(Serialize)]
struct Posted<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

/// Builds the body of `POST /api/v2/alerts`.
pub fn build_alerts(alerts: &[OutgoingAlert]) -> Vec<u8> {
    let posted: Vec<Posted<'_>> = alerts
        .iter()
        .map(|alert| Posted {
            labels: alert
                .labels
                .iter()
                .filter(|(name, value)| is_label_name(name) && !value.is_empty())
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            annotations: &alert.annotations,
            starts_at: alert.starts_at.to_rfc3339(),
            ends_at: alert.ends_at.to_rfc3339(),
        })
        .collect();
    // Maps of text always become JSON; an empty list would only be refused by the server.
    serde_json::to_vec(&posted).unwrap_or_default()
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_built_as_alertmanager_reads_it() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let alert = OutgoingAlert {
            labels: map(&[("alertname", "LeakslopeBreakerOpen"), ("app", "shop \"1\""), ("empty", ""), ("0bad", "x")]),
            annotations: map(&[("summary", "restarts of shop are stopped")]),
            starts_at: WallTime(1_741_608_000_000),
            ends_at: WallTime(1_741_611_600_000),
        };
        assert_eq!(
            String::from_utf8(build_alerts(&[alert])).unwrap(),
            "[{\"labels\":{\"alertname\":\"LeakslopeBreakerOpen\",\"app\":\"shop \\\"1\\\"\"},\
             \"annotations\":{\"summary\":\"restarts of shop are stopped\"},\
             \"startsAt\":\"2025-03-10T12:00:00Z\",\"endsAt\":\"2025-03-10T13:00:00Z\"}]"
        );
    }
}
