//! YAML as a tree in which every value knows its line, so that whoever reads it can name all problems at once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line, counted from one.
    pub(crate) line: usize,
}

/// A value with its place.
#[derive(Clone)]
pub(crate) enum Node {
    /// Nothing.
    Nothing(Place),
    /// True or false.
    Bool(Place, bool),
    /// A number, as text.
    Plain(Place, String),
    /// A text.
    Text(Place, String),
    /// A list.
    List(Place, Vec<Node>),
    /// A table, in its order.
    Table(Place, Vec<(String, Place, Node)>),
}

impl Node {
    /// The text, where it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(_, text) = self { Some(text) } else { None }
    }

    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Nothing(place)
            | Self::Bool(place, _)
            | Self::Plain(place, _)
            | Self::Text(place, _)
            | Self::List(place, _)
            | Self::Table(place, _) => *place,
        }
    }
}

/// Reads a text; an error is a line and a sentence that quotes nothing of the text.
pub(crate) fn read(text: &str) -> Result<Node, (usize, String)> {
    if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
        return Ok(Node::Nothing(Place { line: 1 }));
    }
    match serde_saphyr::from_str::<Spanned<Loose>>(text) {
        Ok(root) => Ok(placed(root)),
        Err(error) => {
            let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
            // Messages of its own may quote the text.
            #[allow(clippy::wildcard_enum_match_arm, reason = "a foreign enum of many kinds that all mean the same")]
            let what = match error.without_snippet() {
                serde_saphyr::Error::DuplicateMappingKey { .. } => "a key stands twice in one table",
                serde_saphyr::Error::MultipleDocuments { .. } => "there is more than one document",
                serde_saphyr::Error::UnknownAnchor { .. } => "an alias names nothing",
                _ => "this is not YAML; is a quote, a bracket or an indentation amiss?",
            };
            Err((line.max(1), what.to_owned()))
        }
    }
}

/// A value whose place its owner knows.
enum Loose {
    Nothing,
    Bool(bool),
    Plain(String),
    Text(String),
    List(Vec<Spanned<Loose>>),
    Table(Vec<(Spanned<String>, Spanned<Loose>)>),
}

fn placed(spanned: Spanned<Loose>) -> Node {
    let place = |location: serde_saphyr::Location| Place { line: usize::try_from(location.line()).unwrap_or(1).max(1) };
    let at = place(spanned.referenced);
    match spanned.value {
        Loose::Nothing => Node::Nothing(at),
        Loose::Bool(flag) => Node::Bool(at, flag),
        Loose::Plain(text) => Node::Plain(at, text),
        Loose::Text(text) => Node::Text(at, text),
        Loose::List(items) => Node::List(at, items.into_iter().map(placed).collect()),
        Loose::Table(entries) => {
            let entry = |(name, value): (Spanned<String>, _)| (name.value, place(name.referenced), placed(value));
            Node::Table(at, entries.into_iter().map(entry).collect())
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Loose;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Loose, E> {
        Ok(Loose::Plain(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
        Ok(Loose::Plain(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Loose, E> {
        Ok(Loose::Plain(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_none<E>(self) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Loose, D::Error> {
        Loose::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Loose::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Loose, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Loose::Table(table))
    }
}
