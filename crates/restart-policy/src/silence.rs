//! Whether a silence of Alertmanager covers a set of labels.
//!
//! A matcher compares one label, or matches it whole against a regular expression; a label that is not there is the
//! empty text; `isEqual: false` turns the answer round. A silence covers when all its matchers agree. An expression that
//! cannot be read here agrees always, so that a silence it may be meant for holds.

use std::collections::BTreeMap;

/// The largest compiled expression, in bytes.
const LARGEST_EXPRESSION: usize = 1 << 20;

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

#[cfg(test)]
mod tests {
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
}
