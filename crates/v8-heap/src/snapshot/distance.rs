//! How many references lie between the app's roots and a node, and which nodes the app owns.
//!
//! Counted as DevTools counts: the global objects are at 1; what only V8 and Node themselves hold starts at a hundred
//! million. One breadth-first walk also finds the nodes reachable from the app's own roots.
//!
//! DevTools' figures are for tables. For telling why something is alive a second walk leaves out what holds things only in
//! passing: while V8 compiles a function in the background, roots of the compiler hold the app's own array, for a moment,
//! and would hide the variable that keeps it alive.

use std::collections::HashSet;

use super::bits::Bits;
use super::heap::{EdgeKind, Heap};
use super::references::Names;

/// The distance of the root when the app has roots of its own: everything only the system holds is farther.
pub const SYSTEM: u32 = 100_000_000;
/// The distance of a node no root leads to.
pub const NONE: u32 = u32::MAX;

/// Distances, the way back, and what the app owns.
#[derive(Debug)]
pub struct Distances {
    /// The number of references from a root, by node.
    pub distance: Vec<u32>,
    /// Nodes reachable from the app's own roots.
    pub page: Bits,
}

/// Walks the heap breadth first.
pub fn distances(heap: &Heap, names: &Names) -> Distances {
    let count = heap.node_count();
    let root = heap.root();
    let mut walk = Walk::new(heap, names, None);
    let mut user_roots = Vec::new();
    let mut page_roots = Vec::new();
    for edge in heap.edges(root) {
        if names.is_user_root(heap, edge.to as usize) {
            user_roots.push(edge.to);
        }
        if names.is_page_entry(heap, edge) {
            page_roots.push(edge.to);
        }
    }
    for list in [&mut user_roots, &mut page_roots] {
        list.sort_unstable();
        list.dedup();
    }
    walk.run_from(&user_roots);
    let mut page = Bits::new(count);
    let from = if user_roots == page_roots {
        for &node in &walk.queue {
            page.set(node as usize);
        }
        std::mem::take(&mut walk.passed_over)
    } else {
        page_roots
    };
    flood(heap, from, &mut page);
    walk.run_from_the_root(&user_roots);
    Distances { distance: walk.distance, page }
}

/// The number of references from a root, by node, where what holds in passing ([`Names::is_passing`]) counts only for what
/// nothing else leads to.
pub fn lasting(heap: &Heap, names: &Names) -> Vec<u32> {
    let mut walk = Walk::new(heap, names, Some(Vec::new()));
    let user_roots: Vec<u32> =
        heap.edges(heap.root()).map(|edge| edge.to).filter(|node| names.is_user_root(heap, *node as usize)).collect();
    walk.run_from(&user_roots);
    walk.run_from_the_root(&user_roots);
    walk.queue = walk.put_off.take().unwrap_or_default();
    walk.run();
    walk.distance
}

struct Walk<'a> {
    heap: &'a Heap,
    names: &'a Names,
    distance: Vec<u32>,
    queue: Vec<u32>,
    /// Entries of weak maps of which one half has been seen.
    pending: HashSet<u32>,
    /// Where edges lead that distances do not go along.
    passed_over: Vec<u32>,
    /// Nodes with edges that hold in passing; none where those are like all others.
    put_off: Option<Vec<u32>>,
}

impl<'a> Walk<'a> {
    fn new(heap: &'a Heap, names: &'a Names, put_off: Option<Vec<u32>>) -> Self {
        let count = heap.node_count();
        Self {
            heap,
            names,
            distance: vec![NONE; count],
            queue: Vec::with_capacity(count),
            pending: HashSet::new(),
            passed_over: Vec::new(),
            put_off,
        }
    }

    /// Walks from the app's own roots, which are at 1.
    fn run_from(&mut self, user_roots: &[u32]) {
        for &node in user_roots {
            if std::mem::replace(&mut self.distance[node as usize], 1) == NONE {
                self.queue.push(node);
            }
        }
        self.run();
    }

    /// Walks on from the root: to all that the app's own roots do not lead to.
    fn run_from_the_root(&mut self, user_roots: &[u32]) {
        let root = self.heap.root;
        self.distance[root as usize] = if user_roots.is_empty() { 0 } else { SYSTEM };
        self.queue.clear();
        self.queue.push(root);
        self.run();
    }

    fn run(&mut self) {
        let (heap, names) = (self.heap, self.names);
        let mut at = 0;
        while let Some(&node) = self.queue.get(at) {
            at += 1;
            let node = node as usize;
            let next = self.distance[node].saturating_add(1).min(NONE - 1);
            let special = names.is_special(heap, node);
            for ordinal in heap.edge_range(node) {
                let edge = heap.edge(ordinal);
                let to = edge.to as usize;
                if edge.kind == EdgeKind::Weak || self.distance[to] != NONE {
                    continue;
                }
                if let Some(put_off) = &mut self.put_off
                    && names.is_passing(heap, node, edge)
                {
                    if put_off.last() != Some(&self.queue[at - 1]) {
                        put_off.push(self.queue[at - 1]);
                    }
                    continue;
                }
                if special && !names.counts_for_distance(heap, node, edge) {
                    self.passed_over.push(edge.to);
                    continue;
                }
                // The value of a weak entry needs the map and the key: it is as far as the farther of the two.
                if edge.kind == EdgeKind::Internal
                    && let Some(half) = names.ephemeron(edge.name)
                    && !self.pending.remove(&half.entry)
                {
                    self.pending.insert(half.entry);
                    self.passed_over.push(edge.to);
                    continue;
                }
                self.distance[to] = next;
                self.queue.push(edge.to);
            }
        }
    }
}

/// Marks everything that strong references lead to.
fn flood(heap: &Heap, from: Vec<u32>, marked: &mut Bits) {
    let mut stack = from;
    stack.retain(|&node| {
        let fresh = !marked.get(node as usize);
        marked.set(node as usize);
        fresh
    });
    while let Some(node) = stack.pop() {
        for edge in heap.edges(node as usize) {
            if edge.kind != EdgeKind::Weak && !marked.get(edge.to as usize) {
                marked.set(edge.to as usize);
                stack.push(edge.to);
            }
        }
    }
}
