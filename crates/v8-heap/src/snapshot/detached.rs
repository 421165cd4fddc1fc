//! Which native objects have been detached from what they belonged to.
//!
//! Node marks some of its native objects itself; those they alone lead to are detached with them, unless something
//! attached leads there too.

use super::bits::Bits;
use super::heap::{EdgeKind, Heap, NodeKind};

const ATTACHED: u8 = 1;
const DETACHED: u8 = 2;

/// Returns the detached native nodes.
pub fn detached(heap: &Heap) -> Bits {
    let count = heap.node_count();
    let mut found = Bits::new(count);
    if heap.detached.is_empty() {
        return found;
    }
    let mut attached = Bits::new(count);
    let mut seen = Bits::new(count);
    let mut from_attached = Vec::new();
    let mut from_detached = Vec::new();
    for (&node, &state) in &heap.detached {
        seen.set(node as usize);
        if heap.kind(node as usize) != NodeKind::Native {
            continue;
        }
        match state {
            ATTACHED => {
                attached.set(node as usize);
                from_attached.push(node);
            }
            DETACHED => {
                found.set(node as usize);
                from_detached.push(node);
            }
            _ => {}
        }
    }
    spread(heap, from_attached, &mut seen, &mut attached);
    spread(heap, from_detached, &mut seen, &mut found);
    found
}

/// Marks the unseen native nodes that named references lead to; the way goes through native nodes only.
fn spread(heap: &Heap, mut stack: Vec<u32>, seen: &mut Bits, marked: &mut Bits) {
    while let Some(node) = stack.pop() {
        for edge in heap.edges(node as usize) {
            let to = edge.to as usize;
            if matches!(edge.kind, EdgeKind::Hidden | EdgeKind::Weak) || seen.get(to) {
                continue;
            }
            seen.set(to);
            if heap.kind(to) == NodeKind::Native {
                marked.set(to);
                stack.push(edge.to);
            }
        }
    }
}
