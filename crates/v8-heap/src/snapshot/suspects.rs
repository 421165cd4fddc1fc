//! Where memory piles up: the nodes below which many of a kind hang, or the same again and again, and those that grow
//! in themselves.
//!
//! The dominator tree is followed down as long as single nodes weigh; where the weight falls apart into pieces, the node
//! above them is the holder. What was there before is never a piece: where many of a kind grow alike (the arrays of forty
//! tenants), they are followed down together. A chain or a tree of one class is one suspect, not ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::bits::Bits;
use super::heap::{NodeKind, ordinal};
use super::tree::Tree;

/// A place where memory piles up.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The node that alone keeps the pieces alive; of several that grow alike the one that grows most.
    pub holder: usize,
    /// The nodes that keep pieces alike, the holder among them.
    pub holders: Vec<u32>,
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
    /// Objects of one class below each other, as in a tree.
    Web,
    /// There are no pieces: the holder itself grows.
    Inside,
}

/// What counts as a suspect.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// The least weight, in bytes.
    pub bytes: u64,
    /// The fewest pieces that are light each.
    pub count: u64,
    /// The fewest pieces that weigh.
    pub heavy: u64,
}

/// Where suspects are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The heap.
    pub analysis: &'a Analysis,
    /// Its dominator tree.
    pub tree: &'a Tree,
    /// For every node what counts below it, itself included (see `Tree::accumulate`).
    pub weight: &'a [u64],
    /// What counts of a node itself though it is no piece; by node.
    pub inside: &'a BTreeMap<u32, u64>,
    /// Nodes that were there before: none of them is a piece. Without them any node can be one.
    pub known: Option<&'a Bits>,
}

/// The longest pattern a chain may repeat.
const LONGEST_PERIOD: usize = 8;
/// How often a pattern must come before it is a chain.
const REPEATS: usize = 8;
/// How many objects of a class below each other make a web.
const DEEP: usize = 4;
/// What V8 calls a global context: `vm.createContext` makes one.
pub const NATIVE_CONTEXT: &str = "system / NativeContext";
/// How many nodes that grow alike are followed together.
const ALIKE: usize = 4;
/// The most pieces that are looked at closer.
const EXAMPLES: usize = 64;

/// Nodes that are followed down together, with the labels and nodes on the way to the first; the way is cut off at what
/// a chain needs.
struct Front {
    nodes: Vec<u32>,
    way: Vec<(u32, u32)>,
}

/// Finds the places where weight piles up, the heaviest first.
pub fn suspects(ground: Ground<'_>, threshold: Threshold) -> Vec<Suspect> {
    let Ground { analysis, weight, .. } = ground;
    let mut found: Vec<Suspect> = Vec::new();
    let mut webs = BTreeSet::new();
    let mut stack = vec![Front { nodes: vec![analysis.heap.root], way: Vec::new() }];
    while let Some(Front { nodes, mut way }) = stack.pop() {
        let Some(&first) = nodes.first() else { continue };
        if way.len() > LONGEST_PERIOD * REPEATS {
            way.remove(0);
        }
        way.push((label(analysis, first as usize), first));
        if way.iter().any(|(_, node)| webs.contains(node)) {
            continue;
        }
        if let Some(period) = period(&way) {
            match branches(ground, &way, period) {
                Some(top) if webs.insert(top) => found.push(web(ground, top as usize)),
                _ => found.push(chain(ground, &way, period)),
            }
            continue;
        }
        if let Some(top) = top_of_web(analysis, &way) {
            webs.insert(top);
            found.push(web(ground, top as usize));
            continue;
        }
        let own: u64 = nodes.iter().filter_map(|node| ground.inside.get(node)).sum();
        if own >= threshold.bytes {
            found.push(ground.suspect(&nodes, Shape::Inside, nodes.clone(), own));
        }
        for ((_, known), members) in ground.groups(&nodes) {
            let bytes: u64 = members.iter().map(|&node| weight[node as usize]).sum();
            if bytes < threshold.bytes {
                continue;
            }
            let heaviest = members.iter().map(|&node| weight[node as usize]).max().unwrap_or(0);
            let alike = heaviest.saturating_mul(2) <= bytes;
            if known {
                if alike && members.len() >= ALIKE {
                    stack.push(Front { nodes: sorted(weight, members), way: way.clone() });
                    continue;
                }
            } else if alike && members.len() as u64 >= threshold.heavy && ground.can_be_heavy(&nodes, &members) {
                found.push(ground.suspect(&nodes, Shape::Fan, members, bytes));
                continue;
            }
            let (heavy, light): (Vec<u32>, Vec<u32>) =
                members.into_iter().partition(|&node| weight[node as usize] >= threshold.bytes);
            let below = heavy.into_iter().map(|node| Front { nodes: vec![node], way: way.clone() });
            stack.extend(below);
            let bytes: u64 = light.iter().map(|&node| weight[node as usize]).sum();
            if !known && bytes >= threshold.bytes && light.len() as u64 >= threshold.count {
                found.push(ground.suspect(&nodes, Shape::Fan, light, bytes));
            }
        }
    }
    found.retain(|suspect| {
        let above = |&node: &u32| (node != analysis.heap.root).then(|| analysis.dominator[node as usize]);
        suspect.shape == Shape::Web
            || webs.is_empty()
            || !std::iter::successors(Some(ordinal(suspect.holder)), above).any(|node| webs.contains(&node))
    });
    join_own_growth(&mut found);
    found.sort_by_key(|suspect| (std::cmp::Reverse(suspect.bytes), suspect.holder, suspect.class));
    found
}

impl Ground<'_> {
    /// The children of the nodes that count, by class and by whether they were there before.
    fn groups(&self, nodes: &[u32]) -> BTreeMap<(u32, bool), Vec<u32>> {
        let mut groups: BTreeMap<(u32, bool), Vec<u32>> = BTreeMap::new();
        for &node in nodes {
            for child in self.tree.children(node as usize).filter(|&child| self.weight[child] > 0) {
                let known = self.known.is_some_and(|known| known.get(child));
                groups.entry((self.analysis.classes.of[child], known)).or_default().push(ordinal(child));
            }
        }
        groups
    }

    /// Says whether a few heavy nodes are pieces of something. Where nothing tells new ones from those that belong
    /// there, only those in a container are: a root and a scope have children of their own kinds.
    fn can_be_heavy(&self, holders: &[u32], members: &[u32]) -> bool {
        let heap = &self.analysis.heap;
        let class = &self.analysis.classes.list[self.analysis.classes.of[members[0] as usize] as usize];
        if matches!(class.kind, NodeKind::Code | NodeKind::ObjectShape | NodeKind::Hidden | NodeKind::Synthetic) {
            return self.known.is_some() && heap.name_bytes(members[0] as usize) == NATIVE_CONTEXT.as_bytes();
        }
        if self.known.is_some() {
            return true;
        }
        let mut holder = holders[0] as usize;
        while heap.kind(holder) == NodeKind::Array {
            holder = self.analysis.dominator[holder] as usize;
        }
        heap.kind(holder) == NodeKind::Object
            && matches!(heap.name_bytes(holder), b"Map" | b"Set" | b"Array")
            && !matches!(class.name.as_str(), "Module" | "ModuleWrap" | "system / Context" | "Function")
    }

    fn suspect(&self, holders: &[u32], shape: Shape, pieces: Vec<u32>, bytes: u64) -> Suspect {
        let class = self.analysis.classes.of[pieces[0] as usize];
        let count = pieces.len() as u64;
        let mut examples = sorted(self.weight, pieces);
        examples.truncate(EXAMPLES);
        Suspect { holder: holders[0] as usize, holders: holders.to_vec(), shape, class, count, bytes, examples }
    }
}

fn sorted(weight: &[u64], mut nodes: Vec<u32>) -> Vec<u32> {
    nodes.sort_by_key(|&node| (std::cmp::Reverse(weight[node as usize]), node));
    nodes
}

/// A container grows with what it holds: that is told once.
fn join_own_growth(found: &mut Vec<Suspect>) {
    let mut own: BTreeMap<usize, u64> = BTreeMap::new();
    for suspect in found.iter().filter(|suspect| suspect.shape == Shape::Inside) {
        own.insert(suspect.holder, suspect.bytes);
    }
    for suspect in found.iter_mut().filter(|suspect| suspect.shape == Shape::Fan) {
        if let Some(bytes) = own.remove(&suspect.holder) {
            suspect.bytes += bytes;
        }
    }
    found.retain(|suspect| suspect.shape != Shape::Inside || own.contains_key(&suspect.holder));
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

/// Returns the first of several objects of one class on the way whose last node is another of them. A row, where each
/// follows the one before at the same distance, is left to be a chain.
fn top_of_web(analysis: &Analysis, way: &[(u32, u32)]) -> Option<u32> {
    let &(last, node) = way.last()?;
    let heap = &analysis.heap;
    let name = heap.name_bytes(node as usize);
    if heap.kind(node as usize) != NodeKind::Object
        || matches!(name, b"Object" | b"Array" | b"Map" | b"Set" | b"Promise" | b"Module" | b"system / Context")
    {
        return None;
    }
    let places: Vec<usize> = (0..way.len()).filter(|&place| way[place].0 == last).collect();
    let first = *places.get(places.len().checked_sub(DEEP)?)?;
    let even = places.windows(2).all(|pair| pair[1] - pair[0] == places[1] - places[0]);
    let tail = &way[first..];
    let period = tail.len() / (DEEP - 1);
    let chained = even && tail.iter().zip(tail.iter().skip(period)).all(|(one, next)| one.0 == next.0);
    (!chained).then(|| way[places[0]].1)
}

/// Returns where a chain starts that is none, since the last turn of it goes on in more than one place.
fn branches(ground: Ground<'_>, way: &[(u32, u32)], period: usize) -> Option<u32> {
    let start = way.len() - period * REPEATS;
    let class = |node: u32| ground.analysis.classes.of[node as usize];
    let forks = way[start..].iter().zip(&way[start + 1..]).filter(|(above, next)| {
        let mut beside = ground.tree.children(above.1 as usize).map(ordinal).filter(|&child| child != next.1);
        beside.any(|child| class(child) == class(next.1) && ground.weight[child as usize] > 0)
    });
    let first = way.iter().find(|(label, _)| *label == way[start].0)?;
    (forks.count() * 2 >= period * REPEATS && ground.analysis.heap.kind(first.1 as usize) == NodeKind::Object)
        .then_some(first.1)
}

/// Makes all objects of the top's class below it one suspect.
fn web(ground: Ground<'_>, top: usize) -> Suspect {
    let class = ground.analysis.classes.of[top];
    let is_piece =
        |node: usize| ground.analysis.classes.of[node] == class && !ground.known.is_some_and(|known| known.get(node));
    let mut pieces = Vec::new();
    let mut stack = vec![top];
    while let Some(node) = stack.pop() {
        if ground.weight[node] > 0 {
            if is_piece(node) {
                pieces.push(ordinal(node));
            }
            stack.extend(ground.tree.children(node));
        }
    }
    let count = pieces.len() as u64;
    if pieces.is_empty() {
        pieces.push(ordinal(top));
    }
    let suspect = ground.suspect(&[ordinal(top)], Shape::Web, pieces, ground.weight[top]);
    Suspect { count, ..suspect }
}

/// Follows a chain to its end and makes it one suspect.
fn chain(ground: Ground<'_>, way: &[(u32, u32)], period: usize) -> Suspect {
    let Ground { analysis, tree, weight, .. } = ground;
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
    Suspect {
        holder: first,
        holders: vec![ordinal(first)],
        shape: Shape::Chain(period),
        class,
        count,
        bytes: weight[first],
        examples: turn,
    }
}
