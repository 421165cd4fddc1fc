//! Alertmanager's silences (`GET /api/v2/silences`) and whether one covers a set of labels.
//!
//! A matcher compares one label, or matches it whole against a regular expression; a label that is not there is the
//! empty text; `isEqual: false` turns the answer round. A silence covers when all its matchers agree. An expression that
//! this room cannot read agrees always, so that a silence it may be meant for holds.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LARGEST_BODY;

/// The most silences that are looked at.
const MOST_SILENCES: usize = 20_000;
/// The largest compiled expression, in bytes.
const LARGEST_EXPRESSION: usize = 1 << 20;

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

/// An active silence.
#[derive(Debug, Clone, PartialEq)]
pub struct Silence {
    /// Alertmanager's id.
    pub id: String,
    /// Why somebody made it, cleaned and bounded.
    pub comment: String,
    /// What it covers.
    pub matchers: Vec<Matcher>,
}

/// One condition on one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    value: String,
    equal: bool,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Text,
    Expression(regex_lite::Regex),
    Unreadable,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        let expression = |it: &Self| !matches!(it.rule, Rule::Text);
        (&self.name, &self.value, self.equal, expression(self))
            == (&other.name, &other.value, other.equal, expression(other))
    }
}

impl Silence {
    /// Whether it covers something with these labels. A silence without matchers covers everything.
    pub fn covers(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matchers.iter().all(|matcher| matcher.agrees(labels))
    }
}

impl Matcher {
    /// Makes a matcher; an expression must match a value whole.
    pub fn new(name: &str, value: &str, is_expression: bool, equal: bool) -> Self {
        let rule = if is_expression {
            regex_lite::RegexBuilder::new(&format!("^(?:{value})$"))
                .dot_matches_new_line(true)
                .size_limit(LARGEST_EXPRESSION)
                .build()
                .map_or(Rule::Unreadable, Rule::Expression)
        } else {
            Rule::Text
        };
        Self { name: name.to_owned(), value: value.to_owned(), equal, rule }
    }

    fn agrees(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        match &self.rule {
            Rule::Text => (value == self.value) == self.equal,
            Rule::Expression(expression) => expression.is_match(value) == self.equal,
            Rule::Unreadable => true,
        }
    }
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
            comment: silence.comment.chars().filter(|letter| !letter.is_control()).take(200).collect(),
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
    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        let pairs = [("alertname", "LeakslopeRestart"), ("app", "shop-api"), ("daemon", "default"), ("pm_id", "3")];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn matchers_mean_what_alertmanager_means() {
        for (name, value, expression, equal, agrees) in [
            ("app", "shop-api", false, true, true),
            ("app", "shop", false, true, false),
            ("app", "shop", false, false, true),
            ("app", "shop-.*", true, true, true),
            ("app", "shop", true, true, false),
            ("app", "hop|shop-api", true, true, true),
            ("app", "api$", true, true, false),
            ("app", "blog.*", true, false, true),
            ("region", "", false, true, true),
            ("region", "eu", false, true, false),
            ("region", "eu", false, false, true),
            ("region", ".+", true, true, false),
            ("region", ".*", true, true, true),
            ("app", "(", true, true, true),
            ("app", "(", true, false, true),
        ] {
            let matcher = Matcher::new(name, value, expression, equal);
            assert_eq!(matcher.agrees(&labels()), agrees, "{name} {value} {expression} {equal}");
        }
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
            let _ = Matcher::new("app", &value, true, true).agrees(&labels());
        }
    }
}
