//! Which node alone keeps which alive: the dominator tree, and from it the retained sizes.
//!
//! Lengauer and Tarjan's algorithm with path compression ("A Fast Algorithm for Finding Dominators in a Flowgraph",
//! 1979), which takes O(edges · log nodes) on any graph, hostile ones too. Nodes are numbered by a depth-first walk and
//! everything happens in those numbers; arrays that are no longer needed take on a second meaning, said where it happens.

use super::bits::Bits;
use super::heap::{Heap, Sizes, ordinal, target_of};
use super::references::Names;

const NONE: u32 = u32::MAX;

/// The dominator tree in the order of a depth-first walk.
///
/// A node's dominator has a smaller number than the node; the root has number 0 and dominates itself.
#[derive(Debug)]
pub struct Dominators {
    /// The node with each number.
    pub order: Vec<u32>,
    /// The number of each number's immediate dominator.
    pub dominator: Vec<u32>,
}

impl Dominators {
    /// Adds up what each node keeps alive, itself included; by number, in bytes.
    pub fn retained_sizes(&self, sizes: &Sizes) -> Vec<u64> {
        let mut retained: Vec<u64> = self.order.iter().map(|&node| sizes.get(node as usize)).collect();
        for number in (1..retained.len()).rev() {
            let size = retained[number];
            let above = &mut retained[self.dominator[number] as usize];
            *above = above.saturating_add(size);
        }
        retained
    }
}

/// Finds every node's immediate dominator. `page` holds the nodes the app owns.
pub fn dominators(heap: &Heap, names: &Names, page: &Bits) -> Dominators {
    let mut walk = Walk::new(heap);
    walk.from(heap.root, 0, |node, edge| names.is_essential(heap, node, heap.edge(edge), page));
    walk.adopt_orphans(names, page);
    let walked = walk.order.len();
    walk.adopt_the_rest();
    let sources = walk.crossings(walked, |node, edge| names.is_essential(heap, node, heap.edge(edge), page));
    let Walk { order, parent, semi, crossing_end, .. } = walk;
    Dominators { order, dominator: link(parent, semi, crossing_end, &sources) }
}

/// The depth-first walk and what it learns on its way.
struct Walk<'a> {
    heap: &'a Heap,
    /// By node: its number.
    number: Vec<u32>,
    /// By number: the node, the number of the node it was reached from, and the smallest number known to lead to it.
    order: Vec<u32>,
    parent: Vec<u32>,
    semi: Vec<u32>,
    /// By number: how many references lead to it from a larger number; later where its list of them ends.
    crossing_end: Vec<u32>,
    stack: Vec<(u32, u32, u32)>,
}

impl<'a> Walk<'a> {
    fn new(heap: &'a Heap) -> Self {
        let count = heap.node_count();
        Self {
            heap,
            number: vec![NONE; count],
            order: Vec::with_capacity(count),
            parent: Vec::with_capacity(count),
            semi: Vec::with_capacity(count),
            crossing_end: Vec::with_capacity(count),
            stack: Vec::new(),
        }
    }

    fn enter(&mut self, node: u32, parent: u32) -> u32 {
        let number = ordinal(self.order.len());
        self.number[node as usize] = number;
        self.order.push(node);
        self.parent.push(parent);
        self.semi.push(parent);
        self.crossing_end.push(0);
        number
    }

    fn from(&mut self, node: u32, parent: u32, essential: impl Fn(usize, usize) -> bool) {
        let heap = self.heap;
        let number = self.enter(node, parent);
        self.stack.push((node, number, heap.first_edge[node as usize]));
        while let Some((node, number, mut next)) = self.stack.pop() {
            let end = heap.first_edge[node as usize + 1];
            while next < end {
                let edge = next as usize;
                next += 1;
                let to = target_of(heap.target[edge]);
                let known = self.number[to];
                if known == NONE {
                    if essential(node as usize, edge) {
                        self.stack.push((node, number, next));
                        let to = ordinal(to);
                        let entered = self.enter(to, number);
                        self.stack.push((to, entered, heap.first_edge[to as usize]));
                        break;
                    }
                } else if known > number {
                    let semi = &mut self.semi[known as usize];
                    if number < *semi && essential(node as usize, edge) {
                        *semi = number;
                    }
                } else if known != 0 && essential(node as usize, edge) {
                    // What leads to the root changes nothing.
                    self.crossing_end[known as usize] += 1;
                }
            }
        }
    }

    /// Nodes that only weak references lead to hang from the root, with all they lead to.
    fn adopt_orphans(&mut self, names: &Names, page: &Bits) {
        let heap = self.heap;
        let count = heap.node_count();
        if self.order.len() == count {
            return;
        }
        let mut held = Bits::new(count);
        for node in 0..count {
            for ordinal in heap.edge_range(node) {
                let edge = heap.edge(ordinal);
                if self.number[edge.to as usize] == NONE && names.is_essential(heap, node, edge, page) {
                    held.set(edge.to as usize);
                }
            }
        }
        for node in 0..count {
            if self.number[node] == NONE && !held.get(node) {
                let node = ordinal(node);
                self.from(node, 0, |node, edge| names.is_essential(heap, node, heap.edge(edge), page));
            }
        }
    }

    /// What is left are rings that keep each other alive: each hangs from the root on its own.
    fn adopt_the_rest(&mut self) {
        for node in 0..ordinal(self.heap.node_count()) {
            if self.number[node as usize] == NONE {
                self.enter(node, 0);
            }
        }
    }
}

impl Walk<'_> {
    /// Lists for each number the larger numbers that lead to it among the first `walked`, one list after the other; leaves in `crossing_end`
    /// where each ends.
    fn crossings(&mut self, walked: usize, essential: impl Fn(usize, usize) -> bool) -> Vec<u32> {
        let mut total = 0;
        for count in &mut self.crossing_end {
            // Where the list starts: filling it moves this to its end.
            total += std::mem::replace(count, total);
        }
        let mut list = vec![0; total as usize];
        for (number, &node) in (0..).zip(&self.order[..walked]) {
            for edge in self.heap.edge_range(node as usize) {
                let known = self.number[target_of(self.heap.target[edge])];
                if known < number && known != 0 && essential(node as usize, edge) {
                    let place = &mut self.crossing_end[known as usize];
                    list[*place as usize] = number;
                    *place += 1;
                }
            }
        }
        list
    }
}

/// The second half of the algorithm; returns the dominators by number.
fn link(parent: Vec<u32>, mut semi: Vec<u32>, crossing_end: Vec<u32>, crossings: &[u32]) -> Vec<u32> {
    let count = parent.len();
    let mut forest = Forest::of(&parent);
    // Once a number has been processed its parent is not needed: what stands there then is its dominator.
    let mut dominator = parent;
    // Once a number has been processed its crossings are used up: what stands there then is the next in its bucket.
    let mut next = crossing_end;
    for number in (1..count).rev() {
        let this = ordinal(number);
        let mut member = std::mem::replace(&mut forest.links[number].label, this);
        while member != NONE {
            let (label, best) = forest.evaluate(member, this);
            dominator[member as usize] = if best < this { label } else { this };
            member = next[member as usize];
        }
        let mut smallest = semi[number];
        for &from in &crossings[next[number - 1] as usize..next[number] as usize] {
            smallest = smallest.min(forest.evaluate(from, this).1);
            if smallest == 0 {
                break;
            }
        }
        semi[number] = smallest;
        forest.links[number].best = smallest;
        if smallest == 0 {
            dominator[number] = 0;
        } else if smallest != dominator[number] {
            next[number] = std::mem::replace(&mut forest.links[smallest as usize].label, this);
        }
    }
    for number in 1..count {
        let found = dominator[number];
        if found != semi[number] {
            dominator[number] = dominator[found as usize];
        }
    }
    dominator
}

/// The part of the walk's tree that has been processed: the numbers above the one at hand.
struct Forest {
    links: Vec<Link>,
    path: Vec<u32>,
}

/// A number's place in the forest, kept together because it is asked for together.
#[derive(Clone, Copy)]
struct Link {
    /// A number further up, at first the parent.
    ancestor: u32,
    /// The number with the smallest semidominator on the way from here to below the ancestor. Until this number is
    /// processed: the head of its bucket, the numbers whose semidominator it is.
    label: u32,
    /// That semidominator.
    best: u32,
}

impl Forest {
    fn of(parent: &[u32]) -> Self {
        let links = parent.iter().map(|&ancestor| Link { ancestor, label: NONE, best: NONE }).collect();
        Self { links, path: Vec::new() }
    }

    /// Returns the number with the smallest semidominator on the way up from `number`, and that semidominator; shortens
    /// the way.
    #[inline]
    fn evaluate(&mut self, number: u32, this: u32) -> (u32, u32) {
        let link = self.links[number as usize];
        if link.ancestor <= this {
            return (link.label, link.best);
        }
        self.climb(number, this)
    }

    fn climb(&mut self, number: u32, this: u32) -> (u32, u32) {
        let mut at = number;
        let mut above = self.links[at as usize];
        while above.ancestor > this {
            self.path.push(at);
            at = above.ancestor;
            above = self.links[at as usize];
        }
        while let Some(below) = self.path.pop() {
            let own = &mut self.links[below as usize];
            if above.best < own.best {
                (own.label, own.best) = (above.label, above.best);
            }
            own.ancestor = above.ancestor;
            above = *own;
        }
        (above.label, above.best)
    }
}
