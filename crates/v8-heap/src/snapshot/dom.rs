//! What of a page is detached: elements and windows that no document shows any more, though something keeps them.

use std::collections::BTreeMap;

use super::analysis::Analysis;
use super::bits::Bits;
use super::heap::ordinal;
use super::paths::Teller;
use super::patterns::{Finding, Pattern};
use crate::format::thousands;

/// The fewest detached nodes of a class that are told.
const ENOUGH: usize = 2;
/// The prefix of the classes of detached nodes.
const DETACHED: &str = "Detached ";

/// Tells each class of detached elements and windows once, with who keeps the first of them. With `known`, only those
/// that were not there before count.
pub fn detached(analysis: &Analysis, teller: &Teller<'_>, known: Option<&Bits>) -> Vec<Finding> {
    let heap = &analysis.heap;
    let mut by_class: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for node in (0..heap.node_count()).filter(|&node| !known.is_some_and(|known| known.get(node))) {
        let class = analysis.classes.of[node];
        let name = &analysis.classes.list[class as usize].name;
        if name.strip_prefix(DETACHED).is_some_and(|rest| rest.starts_with('<') || rest.contains("Window")) {
            by_class.entry(class).or_default().push(ordinal(node));
        }
    }
    by_class.retain(|_, nodes| nodes.len() >= ENOUGH);
    by_class
        .into_iter()
        .map(|(class, nodes)| {
            let class = analysis.classes.list[class as usize].name.clone();
            let bytes = nodes.iter().map(|&node| analysis.shallow.get(node as usize)).sum();
            let first = nodes[0] as usize;
            let mut way = teller.way(first);
            way.pop();
            let holder = way.last().map(ToString::to_string).unwrap_or_default();
            let count = nodes.len() as u64;
            let what = if class.contains('<') { "elements" } else { "windows" };
            let sentence = format!(
                "{class} × {}: {what} that are in no document any more are kept alive by {holder}",
                thousands(count)
            );
            Finding {
                pattern: Pattern::Detached,
                sentence,
                class,
                count,
                bytes,
                holder,
                also_held_by: Vec::new(),
                way,
                code: None,
                keeps: Vec::new(),
                examples: nodes.iter().take(3).map(|&node| heap.id(node as usize)).collect(),
                id: None,
                sizes: Vec::new(),
                holder_node: None,
                file: None,
                package: None,
            }
        })
        .collect()
}
