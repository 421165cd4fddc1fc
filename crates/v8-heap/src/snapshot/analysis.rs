//! A heap with everything that is computed from it.

use super::classes::{self, Classes, Interface};
use super::distance;
use super::dominators::dominators;
use super::heap::{Heap, Sizes};
use super::references::Names;
use super::shallow::shallow_sizes;

/// A heap and what follows from it; all lists are by node.
#[derive(Debug)]
pub struct Analysis {
    /// The heap itself.
    pub heap: Heap,
    /// Names with a meaning of their own.
    pub names: Names,
    /// Sizes of the objects with what V8 allocated for them, in bytes.
    pub shallow: Sizes,
    /// References from a root; `distance::NONE` where no root leads to the node.
    pub distance: Vec<u32>,
    /// The node that alone keeps each node alive; the root's is the root.
    pub dominator: Vec<u32>,
    /// What would be freed with the node, in bytes.
    pub retained: Vec<u64>,
    /// The classes.
    pub classes: Classes,
}

/// Computes everything. `known` are interfaces found in an earlier snapshot.
pub fn analyse(heap: Heap, known: &[Interface]) -> Analysis {
    let names = Names::of(&heap);
    let shallow = shallow_sizes(&heap, &names);
    let distances = distance::distances(&heap, &names);
    let tree = dominators(&heap, &names, &distances.page);
    let by_number = tree.retained_sizes(&shallow);
    let count = heap.node_count();
    let mut dominator = vec![0; count];
    let mut retained = vec![0; count];
    for (number, &node) in tree.order.iter().enumerate() {
        dominator[node as usize] = tree.order[tree.dominator[number] as usize];
        retained[node as usize] = by_number[number];
    }
    drop((tree, by_number));
    let classes = classes::classes(&heap, &names, known);
    Analysis { heap, names, shallow, distance: distances.distance, dominator, retained, classes }
}
