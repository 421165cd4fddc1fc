//! Alertmanager's list of silences (`GET /api/v2/silences`).

use serde::Deserialize;

use super::LARGEST_BODY;
use crate::silence::{Matcher, Silence};
use model::plain;

/// The most silences that are looked at.
const MOST_SILENCES: usize = 20_000;

/// Why a list of silences is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilencesError {
    /// It is too large.
    #[error("list of {0} bytes is larger than {LARGEST_BODY}")]
    TooLarge(usize),
    /// It holds too many.
    #[error("list of {0} silences is longer than {MOST_SILENCES}")]
    TooMany(usize),
    /// It is no list of silences.
    #[error("not a list of silences: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    comment: String,
    matchers: Vec<ListedMatcher>,
    status: ListedStatus,
}

#[derive(Deserialize)]
struct ListedStatus {
    state: String,
}

#[derive(Deserialize)]
struct ListedMatcher {
    name: String,
    value: String,
    #[serde(rename = "isRegex")]
    is_expression: bool,
    #[serde(rename = "isEqual", default = "yes")]
    equal: bool,
}

fn yes() -> bool {
    true
}

/// Reads the list that `GET /api/v2/silences` answers with, and keeps the active ones.
pub fn parse_silences(body: &[u8]) -> Result<Vec<Silence>, SilencesError> {
    if body.len() > LARGEST_BODY {
        return Err(SilencesError::TooLarge(body.len()));
    }
    let listed: Vec<Listed> =
        serde_json::from_slice(body).map_err(|error| SilencesError::Malformed(error.to_string()))?;
    if listed.len() > MOST_SILENCES {
        return Err(SilencesError::TooMany(listed.len()));
    }
    let active = listed.into_iter().filter(|silence| silence.status.state == "active");
    Ok(active
        .map(|silence| Silence {
            id: silence.id.chars().take(64).collect(),
            comment: plain(&silence.comment, 200),
            matchers: silence
                .matchers
                .iter()
                .map(|matcher| Matcher::new(&matcher.name, &matcher.value, matcher.is_expression, matcher.equal))
                .collect(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("app", "shop-api"), ("daemon", "default")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn only_active_silences_count_and_all_their_matchers_must_agree() {
        let body = r#"[
            {"id":"one","comment":"deploy\u0007","createdBy":"me","startsAt":"x","endsAt":"y","updatedAt":"z",
             "matchers":[{"name":"app","value":"shop-.*","isRegex":true},{"name":"daemon","value":"default","isRegex":false,"isEqual":true}],
             "status":{"state":"active"}},
            {"id":"two","matchers":[{"name":"app","value":"shop-api","isRegex":false}],"status":{"state":"expired"}},
            {"id":"three","matchers":[{"name":"app","value":"shop-api","isRegex":false}],"status":{"state":"pending"}}
        ]"#;
        let silences = parse_silences(body.as_bytes()).unwrap();
        assert_eq!(silences.len(), 1);
        assert_eq!((silences[0].id.as_str(), silences[0].comment.as_str()), ("one", "deploy"));
        assert!(silences[0].covers(&labels()));
        let mut other = labels();
        other.insert("daemon".to_owned(), "blue".to_owned());
        assert!(!silences[0].covers(&other));
    }

    #[test]
    fn what_is_no_list_of_silences_is_refused() {
        for body in ["", "{}", "null", "[{}]", r#"[{"id":"x","matchers":[{}],"status":{"state":"active"}}]"#] {
            assert!(matches!(parse_silences(body.as_bytes()), Err(SilencesError::Malformed(_))), "{body}");
        }
        assert!(matches!(parse_silences(&vec![b' '; LARGEST_BODY + 1]), Err(SilencesError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn no_list_and_no_expression_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), value in ".{0,40}") {
            let _ = parse_silences(&bytes);
            let matchers = vec![Matcher::new("app", &value, true, true)];
            let _ = Silence { id: String::new(), comment: String::new(), matchers }.covers(&labels());
        }
    }
}
