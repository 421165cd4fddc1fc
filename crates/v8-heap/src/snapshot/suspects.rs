//! Where memory piles up: the nodes below which many of a kind hang, or the same again and again.
//!
//! The dominator tree is followed down as long as single nodes weigh; where the weight falls apart into many small
//! pieces, the node above them is the holder. A chain that repeats itself is one suspect, not ten thousand.

use std::collections::BTreeMap;

use super::analysis::Analysis;
use super::heap::{NodeKind, ordinal};
use super::tree::Tree;

/// A place where memory piles up.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The node that alone keeps the pieces alive.
    pub holder: usize,
    /// How the pieces hang together.
    pub shape: Shape,
    /// The class most of the weight belongs to.
    pub class: u32,
    /// The number of pieces of that class.
    pub count: u64,
    /// The weight of those pieces with what they keep alive, in bytes.
    pub bytes: u64,
    /// Some of the pieces, the heaviest first.
    pub examples: Vec<u32>,
}

/// How the pieces hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Side by side below the holder.
    Fan,
    /// Each below the one before; every so many nodes the same comes again.
    Chain(usize),
}

/// What counts as a suspect.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// The least weight, in bytes.
    pub bytes: u64,
    /// The fewest pieces.
    pub count: u64,
}

/// The longest pattern a chain may repeat.
const LONGEST_PERIOD: usize = 8;
/// How often a pattern must come before it is a chain.
const REPEATS: usize = 8;
/// The most pieces that are looked at closer.
const EXAMPLES: usize = 64;

/// Finds the places where `weight` piles up, the heaviest first.
///
/// `weight` holds for every node what counts below it, itself included (see `Tree::accumulate`).
pub fn suspects(analysis: &Analysis, tree: &Tree, weight: &[u64], threshold: Threshold) -> Vec<Suspect> {
    let mut found = Vec::new();
    // Nodes with the labels on the way to them; the way is cut off at what a chain needs.
    let mut stack: Vec<(usize, Vec<(u32, u32)>)> = vec![(analysis.heap.root(), Vec::new())];
    while let Some((node, mut way)) = stack.pop() {
        if way.len() > LONGEST_PERIOD * REPEATS {
            way.remove(0);
        }
        way.push((label(analysis, node), ordinal(node)));
        if let Some(period) = period(&way) {
            found.push(chain(analysis, tree, weight, &way, period));
            continue;
        }
        let mut groups: BTreeMap<u32, Suspect> = BTreeMap::new();
        for child in tree.children(node) {
            let bytes = weight[child];
            if bytes >= threshold.bytes {
                stack.push((child, way.clone()));
                continue;
            }
            if bytes == 0 {
                continue;
            }
            let class = analysis.classes.of[child];
            let group = groups.entry(class).or_insert_with(|| Suspect {
                holder: node,
                shape: Shape::Fan,
                class,
                count: 0,
                bytes: 0,
                examples: Vec::new(),
            });
            group.count += 1;
            group.bytes += bytes;
            if group.examples.len() < EXAMPLES {
                group.examples.push(ordinal(child));
            }
        }
        found.extend(
            groups.into_values().filter(|group| group.bytes >= threshold.bytes && group.count >= threshold.count),
        );
    }
    for suspect in &mut found {
        suspect.examples.sort_by_key(|&node| (std::cmp::Reverse(weight[node as usize]), node));
    }
    found.sort_by_key(|suspect| (std::cmp::Reverse(suspect.bytes), suspect.holder, suspect.class));
    found
}

/// Functions are told apart by their code, everything else by its class.
fn label(analysis: &Analysis, node: usize) -> u32 {
    let heap = &analysis.heap;
    let class = analysis.classes.of[node];
    if heap.kind(node) == NodeKind::Closure { class ^ heap.name_index(node).rotate_left(16) } else { class }
}

/// Finds the shortest pattern that the end of the way repeats often enough.
fn period(way: &[(u32, u32)]) -> Option<usize> {
    (1..=LONGEST_PERIOD).find(|&period| {
        let Some(start) = way.len().checked_sub(period * REPEATS) else { return false };
        let tail = &way[start..];
        tail.iter().zip(&tail[period..]).all(|(one, next)| one.0 == next.0)
    })
}

/// Follows a chain to its end and makes it one suspect.
fn chain(analysis: &Analysis, tree: &Tree, weight: &[u64], way: &[(u32, u32)], period: usize) -> Suspect {
    let start = way.len() - period * REPEATS;
    let pattern: Vec<u32> = way[way.len() - period..].iter().map(|&(label, _)| label).collect();
    let heaviest = |node: usize| tree.children(node).max_by_key(|&child| weight[child]);
    let own = |node: usize| weight[node].saturating_sub(heaviest(node).map_or(0, |child| weight[child]));
    // Of the nodes of one turn, the one that brings the most of its own is what the chain is made of.
    let turn: Vec<u32> = way[way.len() - period..].iter().map(|&(_, node)| node).collect();
    let piece = turn.iter().copied().max_by_key(|&node| own(node as usize)).unwrap_or_default();
    let class = analysis.classes.of[piece as usize];
    let counts = |node: usize| analysis.classes.of[node] == class && own(node) > 0;
    let mut count = way[start..].iter().filter(|&&(_, node)| counts(node as usize)).count() as u64;
    let mut last = way.last().map_or(0, |&(_, node)| node as usize);
    for wanted in pattern.iter().cycle() {
        let Some(child) = heaviest(last).filter(|&child| weight[child] > 0) else { break };
        if label(analysis, child) != *wanted {
            break;
        }
        count += u64::from(counts(child));
        last = child;
    }
    // It starts where its pieces do, not at the scope they happen to share a class with.
    let first = way[start..].iter().map(|&(_, node)| node as usize).find(|&node| analysis.classes.of[node] == class);
    let first = first.unwrap_or(way[start].1 as usize);
    Suspect { holder: first, shape: Shape::Chain(period), class, count, bytes: weight[first], examples: turn }
}
