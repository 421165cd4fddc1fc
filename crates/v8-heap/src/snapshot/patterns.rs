//! The ways in which Node apps leak, and what a report says of a place where memory piles up.
//!
//! Only words: who is what is found out in `namer`.

use serde::{Deserialize, Serialize};

use super::paths::{Step, told};
use crate::format::{size, thousands};

/// The ways in which Node apps leak that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Event listeners are added and never removed.
    Listener,
    /// Intervals (or timeouts) are set and never cleared.
    Timer,
    /// Callers wait for promises that never settle.
    Promise,
    /// What was passed to `console` while an inspector was attached stays.
    Console,
    /// Functions keep the variables of their scope.
    ClosureScope,
    /// A `Map` only grows.
    Map,
    /// A `Set` only grows.
    Set,
    /// An array only grows.
    Array,
    /// A plain object used as a table only grows.
    Table,
    /// A linked list only grows.
    List,
    /// Elements or windows of a page that no document shows any more.
    Detached,
    /// None of these.
    #[serde(other)]
    Other,
}

/// Whether a report tells of what is there or of what was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tense {
    /// One snapshot: large is not yet growing.
    Holds,
    /// Several: the pieces were added between them.
    Grew,
}

/// A suspect in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Which pattern it fits.
    pub pattern: Pattern,
    /// What happens, in one sentence.
    pub sentence: String,
    /// The class of the pieces.
    pub class: String,
    /// The number of pieces.
    pub count: u64,
    /// What they take with all they keep alive, in bytes.
    pub bytes: u64,
    /// The variable, property or class that holds them.
    pub holder: String,
    /// What else holds the pieces, if the holder is not the only one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_held_by: Vec<String>,
    /// The way from a root to the holder.
    pub way: Vec<Step>,
    /// The function or constructor to look at first: file, line and column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What the pieces keep alive, by class, the heaviest first.
    pub keeps: Vec<Kept>,
    /// V8's ids of some of the pieces, for DevTools.
    pub examples: Vec<u32>,
    /// V8's id of the holder, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// What the holder kept alive in each file, the oldest first, in bytes; empty where that is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<u64>,
    /// The file of the class, function or scope that the holder belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The package whose code holds the pieces, with its version, where somebody has looked it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The holder's place among the nodes.
    #[serde(skip)]
    pub holder_node: Option<usize>,
}

impl Finding {
    /// Says whether another finding is of the same place: the same way, whatever it passes through several times.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let key = |finding: &Self| {
            let mut way: Vec<(Option<String>, String)> = Vec::new();
            for step in &finding.way {
                match way.last_mut() {
                    Some(last) if last.1 == step.what => last.0 = None,
                    _ => way.push((step.by.clone(), step.what.clone())),
                }
            }
            way
        };
        self.id.is_some() && self.id == other.id || self.pattern == other.pattern && key(self) == key(other)
    }

    /// Says that the holder has no more entries than before, so that something else keeps the pieces.
    pub fn bound(&mut self, entries: u32) {
        self.pattern = Pattern::List;
        let (holder, class, count) = (&self.holder, &self.class, thousands(self.count));
        self.sentence = format!(
            "{holder} has no more entries than before (about {}), yet keeps {class} × {count} more alive: its entries refer to what was taken out of it",
            thousands(u64::from(entries))
        );
    }

    /// The way from a root to the pieces as a line; to the holder where it has none.
    pub fn told_way(&self) -> String {
        let inside = self.id.is_some() && self.examples.first().copied() == self.id;
        match self.way.split_last() {
            Some((last, way)) if inside => told(way, &last.to_string(), 1).trim_end_matches(" × 1").to_owned(),
            _ => told(&self.way, &self.class, self.count),
        }
    }

    /// The holder's sizes as people read them, if they are known: `10 MiB → 21 MiB → 42 MiB`.
    pub fn course(&self) -> Option<String> {
        let sizes: Vec<String> = self.sizes.iter().map(|&bytes| size(bytes)).collect();
        (!sizes.is_empty()).then(|| sizes.join(" → "))
    }
}

/// Tells what hangs at the same holder once, and leaves out what is small beside the rest.
pub fn merge(findings: Vec<Finding>, most: usize) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    for finding in findings {
        match told.iter_mut().find(|other| other.is_same_place(&finding)) {
            Some(known) => known.bytes += finding.bytes,
            None => told.push(finding),
        }
    }
    told.sort_by_key(|finding| std::cmp::Reverse(finding.bytes));
    let least = told.first().map_or(0, |first| first.bytes / SMALL);
    told.retain(|finding| finding.bytes >= least || finding.pattern == Pattern::Detached);
    told.truncate(most);
    told
}

/// A finding that is so many times smaller than the largest is left out.
const SMALL: u64 = 20;

/// A class of objects that pieces keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The class.
    pub class: String,
    /// The bytes such objects take per piece, over the examples looked at.
    pub bytes_per_piece: u64,
}
