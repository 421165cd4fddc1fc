//! The table by constructor: how many, how large, what they keep alive and how far from a root they are.

use serde::Serialize;

use super::analysis::Analysis;
use super::distance::{NONE, SYSTEM};
use super::heap::{NodeKind, ordinal};
use super::tree::Tree;

/// One class in the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What DevTools calls the class.
    pub class: String,
    /// File, line and column of the constructor, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<String>,
    /// The number of objects.
    pub count: u64,
    /// What the objects take themselves, in bytes.
    pub shallow_bytes: u64,
    /// What would be freed with them, in bytes.
    pub retained_bytes: u64,
    /// The fewest references from a root; none where only the system holds them.
    pub distance_min: Option<u32>,
    /// The middle one of the distances.
    pub distance_median: Option<u32>,
    /// Objects that are nearer or farther than their siblings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// The class's place in the analysis.
    #[serde(skip)]
    pub index: u32,
}

/// Objects whose distance differs from that of most objects of their class: worth a look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outliers {
    /// How many there are.
    pub count: u64,
    /// Up to three of them, by V8's id, with their distance.
    pub examples: Vec<(u32, Option<u32>)>,
}

/// The nodes of each class, class after class.
#[derive(Debug)]
pub struct Members {
    first: Vec<u32>,
    nodes: Vec<u32>,
}

impl Members {
    /// Sorts the nodes that take any memory by class.
    pub fn of(analysis: &Analysis) -> Self {
        let counted = |node: usize| analysis.shallow.get(node) > 0;
        let mut first = vec![0_u32; analysis.classes.list.len() + 1];
        for (node, &class) in analysis.classes.of.iter().enumerate() {
            if counted(node) {
                first[class as usize + 1] += 1;
            }
        }
        for class in 1..first.len() {
            first[class] += first[class - 1];
        }
        let mut nodes = vec![0; first.last().map_or(0, |&count| count as usize)];
        let mut next = first.clone();
        for (node, &class) in analysis.classes.of.iter().enumerate() {
            if counted(node) {
                let place = &mut next[class as usize];
                nodes[*place as usize] = ordinal(node);
                *place += 1;
            }
        }
        Self { first, nodes }
    }

    /// Returns the members of a class, in the order of the file.
    pub fn nodes(&self, class: u32) -> &[u32] {
        let class = class as usize;
        &self.nodes[self.first[class] as usize..self.first[class + 1] as usize]
    }
}

/// Makes the table, the class that retains most first.
pub fn rows(analysis: &Analysis, tree: &Tree, members: &Members) -> Vec<Row> {
    let retained = tree.retained_by_class(analysis);
    let mut rows = Vec::new();
    let mut distances = Vec::new();
    for (index, class) in (0_u32..).zip(&analysis.classes.list) {
        let nodes = members.nodes(index);
        if nodes.is_empty() {
            continue;
        }
        distances.clear();
        distances.extend(nodes.iter().map(|&node| analysis.distance[node as usize]));
        let middle = distances.len() / 2;
        let (_, &mut median, _) = distances.select_nth_unstable(middle);
        rows.push(Row {
            class: class.name.clone(),
            written_at: None,
            count: nodes.len() as u64,
            shallow_bytes: nodes.iter().map(|&node| analysis.shallow.get(node as usize)).sum(),
            retained_bytes: retained[index as usize],
            distance_min: shown(distances.iter().copied().min().unwrap_or(NONE)),
            distance_median: shown(median),
            outliers: outliers(analysis, nodes, &mut distances, median),
            index,
        });
    }
    rows.sort_by(|one, other| {
        (other.retained_bytes, other.shallow_bytes, &one.class, one.index).cmp(&(
            one.retained_bytes,
            one.shallow_bytes,
            &other.class,
            other.index,
        ))
    });
    rows
}

/// A distance as people read it: none for what only the system holds.
pub fn shown(distance: u32) -> Option<u32> {
    (distance < SYSTEM).then_some(distance)
}

/// The fewest objects of which one can stand out.
const ENOUGH: usize = 20;

/// Finds those farther from the median than four times the median deviation (and at least three references), if they
/// are no more than one in twenty.
fn outliers(analysis: &Analysis, nodes: &[u32], distances: &mut [u32], median: u32) -> Option<Outliers> {
    if nodes.len() < ENOUGH
        || analysis.classes.list[analysis.classes.of[nodes[0] as usize] as usize].kind != NodeKind::Object
    {
        return None;
    }
    for distance in distances.iter_mut() {
        *distance = distance.abs_diff(median);
    }
    let middle = distances.len() / 2;
    let (_, &mut deviation, _) = distances.select_nth_unstable(middle);
    let allowed = deviation.saturating_mul(4).max(2);
    let far = |node: u32| analysis.distance[node as usize].abs_diff(median) > allowed;
    let count = distances.iter().filter(|&&distance| distance > allowed).count();
    if count == 0 || count * 20 > nodes.len() {
        return None;
    }
    let examples = nodes.iter().filter(|&&node| far(node)).take(3);
    let examples =
        examples.map(|&node| (analysis.heap.id(node as usize), shown(analysis.distance[node as usize]))).collect();
    Some(Outliers { count: count as u64, examples })
}
