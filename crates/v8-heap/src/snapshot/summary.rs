//! One snapshot in a report: what the heap is made of, the table by constructor, and where memory piles up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::analysis::Analysis;
use super::dom;
use super::heap::{NodeKind, ordinal};
use super::namer::Namer;
use super::paths::{Step, Teller, Ways};
use super::patterns::{Finding, Tense, merge};
use super::rows::{Members, Row, rows};
use super::sources::Sources;
use super::statistics::{Statistics, statistics};
use super::suspects::{Ground, Suspect, Threshold, suspects};
use super::tree::Tree;

/// How much a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Rows of the table.
    pub rows: usize,
    /// Places where memory piles up.
    pub findings: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { rows: 25, findings: 5 }
    }
}

/// A snapshot in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The file.
    pub file: String,
    /// The number of nodes.
    pub nodes: u64,
    /// The number of edges.
    pub edges: u64,
    /// What the heap is made of.
    pub statistics: Statistics,
    /// The table by constructor, the class that retains most first.
    pub classes: Vec<Row>,
    /// How many more classes there are.
    pub classes_left_out: u64,
    /// The texts that take most, only if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strings: Vec<StringRow>,
    /// Where memory piles up in the app's own objects, the heaviest first.
    pub findings: Vec<Finding>,
    /// The shortest ways from a root to the classes of the table that the app wrote itself.
    pub ways: Vec<ClassWays>,
}

/// A text and how much the strings that hold it take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StringRow {
    /// The beginning of the text.
    pub text: String,
    /// How many strings hold the same.
    pub count: u64,
    /// What they take together, in bytes.
    pub bytes: u64,
}

/// The ways to the objects of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassWays {
    /// The class.
    pub class: String,
    /// The number of objects.
    pub count: u64,
    /// Ways that read the same counted together, the commonest first; counts are scaled up from a sample.
    pub ways: Vec<CountedWay>,
}

/// A way from a root and how many objects are reached by it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CountedWay {
    /// The steps; the last is the object.
    pub steps: Vec<Step>,
    /// How many objects.
    pub count: u64,
}

/// The most objects of a class whose ways are followed.
pub const SAMPLE: usize = 256;

/// Makes the report of one snapshot.
pub fn summarise(analysis: &Analysis, file: &str, extent: Extent) -> Summary {
    let tree = Tree::of(analysis);
    let members = Members::of(analysis);
    let mut table = rows(analysis, &tree, &members);
    let sources = Sources::of(&analysis.heap);
    let ways = Ways::of(analysis);
    let teller = Teller::new(analysis, &ways, &sources);
    let total = analysis.retained[analysis.heap.root()];
    let threshold = Threshold { bytes: (total / 100).max(32 << 10), count: 10, heavy: 4 };
    let namer = Namer::new(analysis, &tree, &analysis.retained, &teller, Tense::Holds);
    let large =
        |node: &usize| analysis.heap.kind(*node) == NodeKind::Object && analysis.shallow.get(*node) >= threshold.bytes;
    let inside =
        (0..analysis.heap.node_count()).filter(large).map(|node| (ordinal(node), analysis.shallow.get(node))).collect();
    let ground = Ground { analysis, tree: &tree, weight: &analysis.retained, inside: &inside, known: None };
    let own = suspects(ground, threshold).into_iter().filter(|suspect| is_own(analysis, &teller, suspect));
    let detached = dom::detached(analysis, &teller, None);
    let findings = merge(own.map(|suspect| namer.finding(&suspect)).chain(detached).collect(), extent.findings);
    let left_out = table.len().saturating_sub(extent.rows) as u64;
    let told: Vec<ClassWays> = table
        .iter()
        .filter(|row| {
            let class = &analysis.classes.list[row.index as usize];
            class.location.is_some_and(|location| sources.is_own(location))
                || (class.kind == NodeKind::Object && class.name.starts_with('{'))
        })
        .map(|row| class_ways(&teller, row.class.clone(), members.nodes(row.index)))
        .filter(|told| told.ways.first().is_some_and(|way| way.steps.iter().any(is_own_place)))
        .take(extent.findings)
        .collect();
    table.truncate(extent.rows);
    place(&mut table, analysis, &sources);
    Summary {
        file: file.to_owned(),
        nodes: analysis.heap.node_count() as u64,
        edges: analysis.heap.edge_count() as u64,
        statistics: statistics(analysis),
        classes: table,
        classes_left_out: left_out,
        strings: if analysis.heap.shows_strings() { strings(analysis, extent.rows) } else { Vec::new() },
        findings,
        ways: told,
    }
}

/// The most letters of a text that are quoted.
const QUOTED: usize = 80;

/// Finds the texts that take most.
fn strings(analysis: &Analysis, rows: usize) -> Vec<StringRow> {
    let heap = &analysis.heap;
    let mut texts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for node in (0..heap.node_count()).filter(|&node| heap.kind(node) == NodeKind::String) {
        let (count, bytes) = texts.entry(heap.name_index(node)).or_default();
        *count += 1;
        *bytes += analysis.shallow.get(node);
    }
    let mut texts: Vec<(u32, (u64, u64))> = texts.into_iter().collect();
    texts.sort_by_key(|&(name, (_, bytes))| (std::cmp::Reverse(bytes), name));
    let quote = |name| heap.string(name).chars().take(QUOTED).collect();
    texts.into_iter().take(rows).map(|(name, (count, bytes))| StringRow { text: quote(name), count, bytes }).collect()
}

/// Writes into the rows where their constructors stand.
pub fn place(table: &mut [Row], analysis: &Analysis, sources: &Sources<'_>) {
    for row in table {
        row.written_at = analysis.classes.list[row.index as usize].location.map(|location| sources.place(location));
    }
}

/// Tells and counts the ways to a sample of the nodes, evenly spread.
pub fn class_ways(teller: &Teller<'_>, class: String, nodes: &[u32]) -> ClassWays {
    let stride = nodes.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<u32> = nodes.iter().copied().step_by(stride).collect();
    let (all, some) = (nodes.len() as u64, sample.len().max(1) as u64);
    let ways = teller.ways(&sample).into_iter().take(4);
    let ways = ways.map(|(steps, count)| CountedWay { steps, count: (count * all + some / 2) / some }).collect();
    ClassWays { class, count: all, ways }
}

/// Says whether a suspect has to do with code of the app: what Node itself needs is no finding.
pub fn is_own(analysis: &Analysis, teller: &Teller<'_>, suspect: &Suspect) -> bool {
    let sources = teller.sources();
    let class = &analysis.classes.list[suspect.class as usize];
    if let Some(location) = class.location {
        return sources.file_of(location).is_some_and(|file| !file.starts_with("node:")) || class.name == "Timeout";
    }
    if matches!(class.kind, NodeKind::Code | NodeKind::ObjectShape | NodeKind::Hidden) {
        return false;
    }
    let heap = &analysis.heap;
    let sample = suspect.examples.iter().take(8).map(|&node| node as usize);
    let functions: Vec<bool> = sample
        .filter(|&node| heap.kind(node) == NodeKind::Closure)
        .filter_map(|node| heap.location(node))
        .map(|location| sources.file_of(location).is_some_and(|file| is_app_file(&file)))
        .collect();
    if functions.iter().any(|&own| own) {
        return true;
    }
    if !functions.is_empty() {
        return false;
    }
    // Objects without a place of their own belong to whose their holder is.
    teller.home(suspect.holder).is_some_and(|home| is_app_file(&home.file))
}

fn is_own_place(step: &Step) -> bool {
    step.written_at.as_deref().is_some_and(is_app_file)
}

/// Node's own files are called `node:…`; functions made by `eval` and the like have no path.
fn is_app_file(file: &str) -> bool {
    !file.starts_with("node:") && file.contains(['/', '\\'])
}
