//! A notice in the forms that others take: a text for chat webhooks, an alert for Alertmanager.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alertmanager::OutgoingAlert;
use crate::model::WallTime;
use crate::policy::{Notice, NoticeKind, Severity};

/// How long an alert stands that nobody ends.
const ALERT_STANDS: Duration = Duration::from_mins(10);
/// How long an alert about an open breaker stands.
const BREAKER_STANDS: Duration = Duration::from_hours(24);

/// Builds the body that Slack-compatible webhooks take.
pub(super) fn chat_body(notice: &Notice) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Body {
        text: String,
    }
    let mark = if notice.severity == Severity::Warning { "[warning] " } else { "" };
    // Slack reads <, > and & as markup.
    let text = notice.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // One text always becomes JSON.
    serde_json::to_vec(&Body { text: format!("leakslope: {mark}{text}") }).unwrap_or_default()
}

/// Builds the alert for a notice; none for what is no matter of alerts.
pub(super) fn alert(notice: &Notice, extra: &BTreeMap<String, String>, now: WallTime) -> Option<OutgoingAlert> {
    let (name, stands) = match notice.kind {
        NoticeKind::Request | NoticeKind::Rehearsal => return None,
        NoticeKind::Restart => ("LeakslopeRestart", ALERT_STANDS),
        NoticeKind::BreakerOpened => ("LeakslopeRestartsStopped", BREAKER_STANDS),
        NoticeKind::BreakerClosed => ("LeakslopeRestartsStopped", Duration::ZERO),
    };
    // An alert is one by its labels: the end of a breaker must carry those of its beginning.
    let severity = match notice.kind {
        NoticeKind::BreakerOpened | NoticeKind::BreakerClosed => "warning",
        NoticeKind::Restart if notice.severity == Severity::Warning => "warning",
        NoticeKind::Restart | NoticeKind::Rehearsal | NoticeKind::Request => "info",
    };
    let mut labels = extra.clone();
    for (label, value) in [
        ("alertname", name.to_owned()),
        ("severity", severity.to_owned()),
        ("daemon", notice.daemon.to_string()),
        ("namespace", notice.app.namespace().to_owned()),
        ("app", notice.app.name().to_owned()),
    ] {
        labels.insert(label.to_owned(), value);
    }
    if let Some(pm_id) = notice.pm_id {
        labels.insert("pm_id".to_owned(), pm_id.to_string());
    }
    let ends_at = WallTime(now.0.saturating_add(i64::try_from(stands.as_millis()).unwrap_or(i64::MAX)));
    let annotations = BTreeMap::from([("summary".to_owned(), notice.text.clone())]);
    Some(OutgoingAlert { labels, annotations, starts_at: now, ends_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: NoticeKind, severity: Severity) -> Notice {
        Notice {
            severity,
            kind,
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: None,
            text: "a < b & \"c\"".to_owned(),
        }
    }

    #[test]
    fn a_chat_gets_one_line_of_text() {
        let body = chat_body(&notice(NoticeKind::Restart, Severity::Warning));
        assert_eq!(body, br#"{"text":"leakslope: [warning] a &lt; b &amp; \"c\""}"#);
    }

    #[test]
    fn the_end_of_a_breaker_ends_the_alert_of_its_beginning() {
        let none = BTreeMap::new();
        let opened = alert(&notice(NoticeKind::BreakerOpened, Severity::Warning), &none, WallTime(0)).unwrap();
        let closed = alert(&notice(NoticeKind::BreakerClosed, Severity::Info), &none, WallTime(5)).unwrap();
        assert_eq!(opened.labels, closed.labels);
        assert!(closed.ends_at <= WallTime(5) && opened.ends_at > WallTime(5));
        for quiet in [NoticeKind::Request, NoticeKind::Rehearsal] {
            assert!(alert(&notice(quiet, Severity::Info), &none, WallTime(0)).is_none());
        }
    }
}
