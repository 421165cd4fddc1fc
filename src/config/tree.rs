//! The text as a tree whose keys and values know where they stand: every error of its syntax and its layout at once, and the
//! place of any key.

#![allow(clippy::wildcard_enum_match_arm, reason = "what is neither a table nor an array holds nothing")]

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// What is wrong, and at which byte.
pub(super) type Fault = (usize, String);

pub(super) struct Tree<'text>(Spanned<DeTable<'text>>);

impl<'text> Tree<'text> {
    /// Parses a text as far as that is possible.
    pub(super) fn parse(text: &'text str) -> (Self, Vec<Fault>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        (Self(root), errors.iter().map(fault).collect())
    }

    /// Reads the layout. What does not fit is told and left out, and the rest is read without it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> (Option<T>, Vec<Fault>) {
        let (mut root, mut faults) = (self.0.clone(), Vec::new());
        loop {
            match T::deserialize(toml::Deserializer::from(root.clone())) {
                Ok(read) => return (Some(read), faults),
                Err(error) => {
                    let fault = fault(&error);
                    let cut = cut(root.get_mut(), fault.0);
                    faults.push(fault);
                    if !cut {
                        return (None, faults);
                    }
                }
            }
        }
    }

    /// The dotted key that stands at a place, or whose value does.
    pub(super) fn key_at(&self, at: usize) -> String {
        path(self.0.get_ref(), at).unwrap_or_default()
    }

    /// Where a key stands, such as `restart.policy[1].leak.for`; of one that is not there, its table.
    pub(super) fn place_of(&self, key: &str) -> usize {
        let (mut table, mut at) = (self.0.get_ref(), 0);
        for part in key.split('.') {
            let (name, index) = part
                .split_once('[')
                .map_or((part, None), |(name, index)| (name, index.trim_end_matches(']').parse::<usize>().ok()));
            let Some((key, mut value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
            at = key.span().start;
            if let (Some(index), DeValue::Array(items)) = (index, value.get_ref())
                && let Some(item) = items.get(index)
            {
                at = item.span().start;
                value = item;
            }
            let DeValue::Table(inner) = value.get_ref() else { break };
            table = inner;
        }
        at
    }
}

fn fault(error: &Error) -> Fault {
    (error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', " "))
}

fn holds<T>(spanned: &Spanned<T>, at: usize) -> bool {
    let span = spanned.span();
    span.start <= at && at < span.end.max(span.start + 1)
}

/// Removes the innermost key or item that stands at a place; a table's own place may be no more than its head.
fn cut(table: &mut DeTable<'_>, at: usize) -> bool {
    if table.iter_mut().any(|(_, value)| cut_within(value, at)) {
        return true;
    }
    let found = table.iter().find(|(key, value)| holds(key, at) || holds(value, at)).map(|(key, _)| key.clone());
    found.is_some_and(|key| table.remove(&key).is_some())
}

fn cut_within(value: &mut Spanned<DeValue<'_>>, at: usize) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => cut(table, at),
        DeValue::Array(items) => {
            if items.iter_mut().any(|item| cut_within(item, at)) {
                return true;
            }
            let before = items.len();
            let all = std::mem::replace(items, std::iter::empty().collect());
            *items = all.into_iter().filter(|item| !holds(item, at)).collect();
            items.len() < before
        }
        _ => false,
    }
}

fn path(table: &DeTable<'_>, at: usize) -> Option<String> {
    let within = |name: &str, value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Table(table) => path(table, at).map(|rest| format!("{name}.{rest}")),
        _ => None,
    };
    let deeper = table.iter().find_map(|(key, value)| match value.get_ref() {
        DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let name = format!("{}[{index}]", key.get_ref());
            within(&name, item).or_else(|| holds(item, at).then_some(name))
        }),
        _ => within(key.get_ref(), value),
    });
    let here = || table.iter().find(|(key, value)| holds(key, at) || holds(value, at));
    deeper.or_else(|| here().map(|(key, _)| key.get_ref().to_string()))
}
