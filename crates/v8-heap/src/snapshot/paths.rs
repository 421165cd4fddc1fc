//! Why something is alive: the shortest way from a root, told in the words of the source.
//!
//! V8's own go-betweens (backing stores, hidden nodes, the sub-roots below `(GC roots)`) are left out, a way that
//! repeats itself is told once, and ways that read the same are counted together. Names of properties are dropped
//! where an object is used as a table: those are the app's data.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::analysis::Analysis;
use super::distance::{NONE, lasting};
use super::heap::{Edge, EdgeKind, Heap, NodeKind, edge_ordinal, ordinal};
use super::privacy::{WITHHELD, quotable};
use super::sources::Sources;
use crate::format::thousands;

/// The reference by which each node is nearest to a root.
#[derive(Debug)]
pub struct Ways {
    /// The edge to each node, `u32::MAX` for roots and what no root leads to.
    edge: Vec<u32>,
    /// The node that edge comes from.
    from: Vec<u32>,
}

/// Nodes told at either end of a long way.
const ENDS: usize = 64;
/// A multiple of one to six.
const PERIODS: usize = 60;
/// The most properties an object has before their names count as data.
const TABLE: usize = 64;

impl Ways {
    /// Finds for every node the most telling among its shortest references that last.
    pub fn of(analysis: &Analysis) -> Self {
        let heap = &analysis.heap;
        let distances = lasting(heap, &analysis.names);
        let mut ways = Self { edge: vec![NONE; heap.node_count()], from: vec![NONE; heap.node_count()] };
        let known_by = |edge: Edge, from: usize| {
            if analysis.names.is_passing(heap, from, edge) { 0 } else { 1 + telling(edge.kind) }
        };
        for (node, &distance) in distances.iter().enumerate() {
            if distance == NONE {
                continue;
            }
            for at in heap.edge_range(node) {
                let edge = heap.edge(at);
                let to = edge.to as usize;
                if edge.kind == EdgeKind::Weak || distances[to] != distance.saturating_add(1) {
                    continue;
                }
                let known = ways.edge[to];
                if known == NONE || known_by(edge, node) > known_by(heap.edge(known as usize), ways.from[to] as usize) {
                    ways.edge[to] = edge_ordinal(at);
                    ways.from[to] = ordinal(node);
                }
            }
        }
        ways
    }

    /// Returns the node and the edge a node is reached by.
    pub fn back(&self, heap: &Heap, node: usize) -> Option<(usize, Edge)> {
        let edge = self.edge[node];
        (edge != NONE).then(|| (self.from[node] as usize, heap.edge(edge as usize)))
    }
}

/// How much a reference tells a reader.
fn telling(kind: EdgeKind) -> u8 {
    match kind {
        EdgeKind::Context | EdgeKind::Property => 3,
        EdgeKind::Element => 2,
        EdgeKind::Internal | EdgeKind::Shortcut => 1,
        EdgeKind::Hidden | EdgeKind::Weak | EdgeKind::Other => 0,
    }
}

/// One step on the way from a root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Step {
    /// The variable, property or index by which it is reached, where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What it is: its class, or a function's name.
    pub what: String,
    /// File, line and column of a function; the file of a scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<String>,
    /// How often the way passes here in a row, if more than once.
    #[serde(skip_serializing_if = "is_one")]
    pub times: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_one(times: &u64) -> bool {
    *times == 1
}

impl std::fmt::Display for Step {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.by {
            Some(by) => write!(out, "{by} ({})", self.what)?,
            None => out.write_str(&self.what)?,
        }
        if let Some(place) = &self.written_at {
            write!(out, " [{}]", short(place))?;
        }
        if self.times > 1 {
            write!(out, " (… {} times)", self.times)?;
        }
        Ok(())
    }
}

/// Steps that are told from the start and the end of a long way.
const START: usize = 2;
const END: usize = 6;

/// A way to so many objects of a class, as a line.
pub fn told(steps: &[Step], class: &str, count: u64) -> String {
    let mut shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
    if shown.len() > START + END + 1 {
        shown.splice(START..shown.len() - END, ["…".to_owned()]);
    }
    shown.push(format!("{class} × {}", thousands(count)));
    shown.join(" → ")
}

/// The last two parts of a path.
fn short(place: &str) -> &str {
    let mut slashes = place.rmatch_indices('/').map(|(index, _)| index + 1);
    slashes.next();
    slashes.next().map_or(place, |index| &place[index..])
}

/// Whose a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The class that it belongs to; none where it is a function's or a scope's.
    pub class: Option<String>,
    /// The file in which that class, function or scope was written.
    pub file: String,
}

/// The most nodes on the way back in which the home of a node is looked for.
const NEAR: usize = 64;

/// Tells ways.
#[derive(Debug)]
pub struct Teller<'a> {
    analysis: &'a Analysis,
    ways: &'a Ways,
    sources: &'a Sources<'a>,
    known: RefCell<HashMap<u32, Checkpoint>>,
}

impl<'a> Teller<'a> {
    /// Starts to tell.
    pub fn new(analysis: &'a Analysis, ways: &'a Ways, sources: &'a Sources<'a>) -> Self {
        Self { analysis, ways, sources, known: RefCell::default() }
    }

    /// Returns what there is to know about the sources.
    pub fn sources(&self) -> &'a Sources<'a> {
        self.sources
    }

    /// Returns the node and the edge a node is reached by.
    pub fn back(&self, node: usize) -> Option<(usize, Edge)> {
        self.ways.back(&self.analysis.heap, node)
    }

    /// Tells the way from a root to `node`, which is the last step.
    pub fn way(&self, node: usize) -> Vec<Step> {
        let (nodes, gap) = self.nodes(node);
        let mut told = Vec::new();
        let mut gap_after = None;
        let mut carried = None;
        for (index, &at) in nodes.iter().enumerate() {
            let at = at as usize;
            let before = self.back(at);
            let name = before.and_then(|(from, edge)| self.edge_name(from, edge)).or(carried.take());
            if at == node || !self.is_go_between(at) {
                told.push(self.step(at, name));
            } else {
                carried = name;
            }
            if gap.is_some_and(|gap| gap.at == index + 1) {
                gap_after = gap.map(|gap| Gap { at: told.len(), ..gap });
                carried = None;
            }
        }
        fold(&told, gap_after)
    }

    /// Returns the nodes on the way to `node`, the root first; of a long way only its two ends.
    fn nodes(&self, node: usize) -> (Vec<u32>, Option<Gap>) {
        let mut back: Vec<u32> = Vec::new();
        let mut at = Some(node);
        let mut start = Checkpoint::default();
        let mut known = self.known.borrow_mut();
        while let Some(node) = at {
            let number = ordinal(node);
            if back.len() >= ENDS + PERIODS
                && let Some(found) = known.get(&number)
            {
                start = found.clone();
                break;
            }
            back.push(number);
            at = self.back(node).map(|(from, _)| from);
        }
        back.reverse();
        let before = start.length;
        let mut head = start.head.to_vec();
        head.extend(back.iter().copied().take(ENDS.saturating_sub(head.len())));
        let whole: std::rc::Rc<[u32]> = head.into();
        let length = before + back.len();
        for (index, &node) in back.iter().enumerate() {
            // The way to this node has that many nodes, itself included.
            let length = before + index + 1;
            if length.is_multiple_of(ENDS) {
                known.insert(node, Checkpoint { head: whole.clone(), length });
            }
        }
        if length < 2 * ENDS + PERIODS {
            let mut nodes = whole[..before.min(whole.len())].to_vec();
            nodes.extend_from_slice(&back);
            return (nodes, None);
        }
        let mut nodes = whole.to_vec();
        // What is left out is a multiple of every short period, so that a repetition goes on behind the gap.
        let tail = (ENDS + (length - 2 * ENDS) % PERIODS).min(back.len());
        nodes.extend_from_slice(&back[back.len() - tail..]);
        (nodes, Some(Gap { at: ENDS, left_out: length - ENDS - tail }))
    }

    /// Tells whose a node is: the nearest class on its way whose code is not Node's own, or the function or scope that
    /// comes first.
    pub fn home(&self, node: usize) -> Option<Home> {
        let heap = &self.analysis.heap;
        let mut at = node;
        for _ in 0..NEAR {
            if heap.kind(at) == NodeKind::Object
                && let Some(location) = heap.location(at)
                && let Some(file) = self.sources.file_of(location)
                && !file.starts_with("node:")
            {
                return Some(Home { class: Some(self.what(at)), file });
            }
            let file = if heap.kind(at) == NodeKind::Closure {
                heap.location(at).and_then(|location| self.sources.file_of(location))
            } else if heap.name_bytes(at) == CONTEXT.as_bytes() {
                self.sources.of_scope(at)
            } else {
                None
            };
            if let Some(file) = file {
                return Some(Home { class: None, file });
            }
            at = self.back(at)?.0;
        }
        None
    }

    /// Counts ways that read the same, the commonest first. How often a way repeats itself makes no difference: the most
    /// often is told.
    pub fn ways(&self, nodes: &[u32]) -> Vec<(Vec<Step>, u64)> {
        let mut counts: BTreeMap<Vec<Step>, (Vec<Step>, u64)> = BTreeMap::new();
        for &node in nodes {
            let way = self.way(node as usize);
            let mut key = way.clone();
            for step in &mut key {
                step.times = step.times.min(2);
            }
            let (told, count) = counts.entry(key).or_insert_with(|| (way.clone(), 0));
            for (told, step) in told.iter_mut().zip(&way) {
                told.times = told.times.max(step.times);
            }
            *count += 1;
        }
        let mut ways: Vec<_> = counts.into_values().collect();
        ways.sort_by_key(|(way, count)| (std::cmp::Reverse(*count), way.len()));
        ways
    }

    /// Describes a node.
    pub fn step(&self, node: usize, by: Option<String>) -> Step {
        let heap = &self.analysis.heap;
        let what = self.what(node);
        let written_at = if heap.kind(node) == NodeKind::Closure {
            self.sources.of_node(node)
        } else if what == CONTEXT {
            self.sources.of_scope(node)
        } else {
            None
        };
        Step { by: by.filter(|by| *by != what), what, written_at, times: 1 }
    }

    /// Returns what a node is called: a function's name or its class.
    pub fn what(&self, node: usize) -> String {
        let heap = &self.analysis.heap;
        let kind = heap.kind(node);
        if kind == NodeKind::Closure {
            let original = heap.location(node).and_then(|place| heap.original(place)?.name.clone());
            let name = original.map_or_else(|| heap.name(node), std::borrow::Cow::Owned);
            return if name.is_empty() { "(anonymous function)".to_owned() } else { format!("{name}()") };
        }
        if kind == NodeKind::Synthetic || (kind == NodeKind::Hidden && !heap.name_bytes(node).is_empty()) {
            return heap.name(node).into_owned();
        }
        let name = &self.analysis.classes.list[self.analysis.classes.of[node] as usize].name;
        // V8 adds the place of the page, which Node has none of.
        name.strip_suffix(" / ").unwrap_or(name).to_owned()
    }

    /// Returns the name a reference has in the source, if it has one that is no data.
    pub fn edge_name(&self, from: usize, edge: Edge) -> Option<String> {
        let heap = &self.analysis.heap;
        match edge.kind {
            EdgeKind::Context => Some(heap.string(edge.name).into_owned()),
            EdgeKind::Property => {
                // Only plain objects serve as tables.
                let plain = heap.kind(from) == NodeKind::Object && heap.name_bytes(from) == b"Object";
                let table =
                    plain && heap.edges(from).filter(|edge| edge.kind == EdgeKind::Property).nth(TABLE).is_some();
                Some(if table && !heap.shows_strings() {
                    WITHHELD.to_owned()
                } else {
                    quotable(heap.string(edge.name), heap.shows_strings()).into_owned()
                })
            }
            EdgeKind::Internal | EdgeKind::Shortcut => {
                let name = heap.string(edge.name);
                // Embedders label what they hold: `3 / DevTools console`.
                name.split_once(" / ")
                    .filter(|(_, label)| !label.starts_with("part of key"))
                    .map(|(_, label)| label.to_owned())
            }
            EdgeKind::Element | EdgeKind::Hidden | EdgeKind::Weak | EdgeKind::Other => None,
        }
    }

    /// Says whether a node is only V8's way of storing its neighbour.
    pub fn is_go_between(&self, node: usize) -> bool {
        let heap = &self.analysis.heap;
        let name = heap.name_bytes(node);
        match heap.kind_name(node) {
            "array" | "code" | "object shape" => true,
            "hidden" => name != b"system / PromiseReaction",
            "synthetic" => name != b"(GC roots)",
            _ => false,
        }
    }
}

/// What V8 calls the variables of a scope.
pub const CONTEXT: &str = "system / Context";

/// Where a way was followed before: the nodes it starts with and how many there are up to this one.
#[derive(Debug, Clone, Default)]
struct Checkpoint {
    head: std::rc::Rc<[u32]>,
    length: usize,
}

/// Steps of a long way that were left out.
#[derive(Debug, Clone, Copy)]
struct Gap {
    at: usize,
    left_out: usize,
}

/// Tells a way that repeats itself once: up to four steps that come again in the same order.
fn fold(steps: &[Step], gap: Option<Gap>) -> Vec<Step> {
    let mut told: Vec<Step> = Vec::new();
    let mut at = 0;
    let mut gap = gap;
    while at < steps.len() {
        if gap.is_some_and(|gap| gap.at == at)
            && let Some(gap) = gap.take()
        {
            let what = format!("{} more", gap.left_out);
            told.push(Step { by: None, what, written_at: None, times: 1 });
        }
        let repeated = (1..=4).find_map(|period| {
            let one = steps.get(at..at + period)?;
            let mut times = 1;
            while steps.get(at + times * period..at + (times + 1) * period) == Some(one) {
                times += 1;
            }
            (times > 2).then_some((period, times))
        });
        let (period, mut times) = repeated.unwrap_or((1, 1));
        told.extend_from_slice(&steps[at..at + period]);
        at += period * times;
        // What was left out in the middle of a repetition is taken for more of it.
        if times > 1
            && let Some(left_out) = gap.filter(|gap| gap.at <= at).map(|gap| gap.left_out)
        {
            times += left_out / period;
            gap = None;
        }
        if let Some(last) = told.last_mut() {
            last.times = times as u64;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        text.split(' ').map(|what| Step { by: None, what: what.to_owned(), written_at: None, times: 1 }).collect()
    }

    #[test]
    fn a_way_that_repeats_itself_is_told_once() {
        for (given, told) in [
            ("a b c", "a b c"),
            ("a b b c", "a b b c"),
            ("a b b b c", "a b (… 3 times) c"),
            ("a b c b c b c d", "a b c (… 3 times) d"),
        ] {
            let shown: Vec<String> = fold(&steps(given), None).iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), told);
        }
    }

    #[test]
    fn a_place_is_shortened_to_its_last_two_parts() {
        assert_eq!(short("/srv/shop/src/server.js:12:3"), "src/server.js:12:3");
        assert_eq!(short("server.js:12:3"), "server.js:12:3");
    }
}
