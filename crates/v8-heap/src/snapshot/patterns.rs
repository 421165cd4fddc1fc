//! The ways in which Node apps leak, and what a report says of a place where memory piles up.
//!
//! Only words: who is what is found out in `namer`.

use serde::{Deserialize, Serialize};

use super::paths::Step;

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
}

/// A class of objects that pieces keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The class.
    pub class: String,
    /// The bytes such objects take per piece, over the examples looked at.
    pub bytes_per_piece: u64,
}
