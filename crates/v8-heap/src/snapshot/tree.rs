//! The dominator tree from above: who is kept alive by a node, and what a class retains.

use super::analysis::Analysis;
use super::bits::Bits;
use super::heap::ordinal;

const NONE: u32 = u32::MAX;

/// The children of each node in the dominator tree.
#[derive(Debug)]
pub struct Tree {
    root: u32,
    first: Vec<u32>,
    next: Vec<u32>,
}

impl Tree {
    /// Turns the list of dominators round.
    pub fn of(analysis: &Analysis) -> Self {
        let count = analysis.dominator.len();
        let root = analysis.heap.root;
        let mut tree = Self { root, first: vec![NONE; count], next: vec![NONE; count] };
        for (node, &above) in analysis.dominator.iter().enumerate().rev() {
            if node != root as usize {
                let node = ordinal(node);
                tree.next[node as usize] = std::mem::replace(&mut tree.first[above as usize], node);
            }
        }
        tree
    }

    /// Returns the nodes that this node alone keeps alive, those directly below it.
    pub fn children(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let step = |node: u32| if node == NONE { None } else { Some(node) };
        std::iter::successors(step(self.first[node]), move |&child| step(self.next[child as usize]))
            .map(|child| child as usize)
    }

    /// Adds up for each class what its members retain, without counting a member below another one twice; in bytes.
    pub fn retained_by_class(&self, analysis: &Analysis) -> Vec<u64> {
        let mut retained = vec![0_u64; analysis.classes.list.len()];
        let mut open = Bits::new(retained.len());
        let mut opened = Bits::new(self.first.len());
        let mut node = self.root;
        loop {
            let at = node as usize;
            let class = analysis.classes.of[at] as usize;
            if !open.get(class) && analysis.shallow.get(at) > 0 {
                retained[class] = retained[class].saturating_add(analysis.retained[at]);
                open.set(class);
                opened.set(at);
            }
            if self.first[at] != NONE {
                node = self.first[at];
                continue;
            }
            // Up until a node has a sibling left.
            loop {
                let at = node as usize;
                if opened.get(at) {
                    open.clear(analysis.classes.of[at] as usize);
                }
                if node == self.root {
                    return retained;
                }
                if self.next[at] != NONE {
                    node = self.next[at];
                    break;
                }
                node = analysis.dominator[at];
            }
        }
    }

    /// Adds up weights from the leaves to the root, in place.
    pub fn accumulate(&self, analysis: &Analysis, weights: &mut [u64]) {
        let mut node = self.root;
        loop {
            let at = node as usize;
            if self.first[at] != NONE {
                node = self.first[at];
                continue;
            }
            loop {
                let at = node as usize;
                if node == self.root {
                    return;
                }
                let above = analysis.dominator[at];
                weights[above as usize] = weights[above as usize].saturating_add(weights[at]);
                if self.next[at] != NONE {
                    node = self.next[at];
                    break;
                }
                node = above;
            }
        }
    }
}
