//! Shallow sizes as DevTools shows them: what V8 allocated for an object behind the scenes counts to the object.
//!
//! An internal array or hidden node that is reachable from one object alone, through nothing but others of its kind,
//! gives its size to that object.

use super::heap::{EdgeKind, Heap, NodeKind, Sizes, ordinal};
use super::references::Names;

const UNSEEN: u32 = u32::MAX;
const SHARED: u32 = u32::MAX - 1;

/// Computes the shallow sizes, in bytes.
///
/// A snapshot without user roots was taken with V8's internals exposed: its sizes stay as they are.
pub fn shallow_sizes(heap: &Heap, names: &Names) -> Sizes {
    let mut sizes = heap.size.clone();
    if !heap.edges(heap.root()).any(|edge| names.is_user_root(heap, edge.to as usize)) {
        return sizes;
    }
    let owners = owners(heap, names);
    for (node, &owner) in owners.iter().enumerate() {
        let owner = owner as usize;
        if owner >= SHARED as usize || owner == node || heap.kind(owner) == NodeKind::Synthetic || owner == heap.root()
        {
            continue;
        }
        let moved = sizes.get(node);
        if moved > 0 {
            sizes.set(node, 0);
            let total = sizes.get(owner).saturating_add(moved);
            sizes.set(owner, total);
        }
    }
    sizes
}

fn owners(heap: &Heap, names: &Names) -> Vec<u32> {
    let count = ordinal(heap.node_count());
    let owns_itself = |node: usize| {
        let kind = heap.kind(node);
        let stored = kind == NodeKind::Native && Some(heap.name_index(node)) == names.external_string_data;
        !matches!(kind, NodeKind::Hidden | NodeKind::Array) && !stored
    };
    let mut owners: Vec<u32> = (0..count).map(|node| if owns_itself(node as usize) { node } else { UNSEEN }).collect();
    let mut stack = Vec::new();
    for node in 0..count {
        if owners[node as usize] != node {
            continue;
        }
        stack.push(node);
        // A node is visited once when it gets its owner and once more when it turns out to be shared.
        while let Some(from) = stack.pop() {
            let owner = owners[from as usize];
            for edge in heap.edges(from as usize) {
                if edge.kind == EdgeKind::Weak {
                    continue;
                }
                let found = &mut owners[edge.to as usize];
                if *found == UNSEEN {
                    *found = owner;
                    stack.push(edge.to);
                } else if *found != edge.to && *found != owner && *found != SHARED {
                    *found = SHARED;
                    stack.push(edge.to);
                }
            }
        }
    }
    owners
}
