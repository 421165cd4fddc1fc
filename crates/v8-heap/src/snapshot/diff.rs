//! Two snapshots or more: what was added and stayed, and what grew in itself.
//!
//! Where the ids are of one session an object is the same object in every file, and the three-snapshot technique
//! applies: allocated after the first, in the last but one, and still alive in the last. An object that was there from
//! the first grew in itself where its own size never shrank and rose in most intervals. Whether the ids are of one
//! session is found out, not assumed. Otherwise classes and the ways to them are compared. Of the earlier files only
//! digests are kept.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::analysis::Analysis;
use super::bits::Bits;
use super::classes::Interface;
use super::dom;
use super::heap::{EdgeKind, Heap, NodeKind, ordinal};
use super::namer::{Namer, is_root};
use super::paths::{Step, Teller, Ways};
use super::patterns::{Finding, Pattern, Tense, merge};
use super::rows::{Members, rows};
use super::sources::Sources;
use super::summary::{ClassWays, Extent, class_ways, is_own};
use super::suspects::{Ground, Shape, Suspect, Threshold, suspects};
use super::tree::Tree;

/// What is kept of an earlier snapshot.
#[derive(Debug)]
pub struct Digest {
    file: String,
    /// Every node, by id.
    ids: Vec<Known>,
    /// Nodes that keep much alive, by id.
    heavy: Vec<Heavy>,
    /// The largest objects of each class, in bytes of their own.
    largest: BTreeMap<String, Vec<u64>>,
    classes: BTreeMap<String, Figures>,
    ways: BTreeMap<String, BTreeMap<Vec<Step>, u64>>,
    total: Figures,
    /// Sets of properties that name plain objects: the next snapshot uses them too.
    pub interfaces: Vec<Interface>,
}

/// What is kept of a node.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// V8's id.
    id: u32,
    /// A mark of what it is; zero where a node cannot be compared.
    mark: u32,
    /// Its own size, in bytes.
    size: u32,
}

/// What is kept of a node that keeps much alive.
#[derive(Debug, Clone, Copy)]
struct Heavy {
    id: u32,
    /// References of its own and of the arrays that it stores them in.
    entries: u32,
    /// What would be freed with it, in bytes.
    retained: u64,
}

/// The least that a node keeps alive, in bytes, before a digest keeps its size.
const HEAVY: u64 = 4 << 10;
/// The least own size of an object that is compared with the largest of its class, in bytes.
const LARGE: u64 = 16 << 10;
/// The most objects of a class that are.
const LARGEST: usize = 16;

impl Digest {
    fn known(&self, id: u32) -> Option<&Known> {
        self.ids.binary_search_by_key(&id, |known| known.id).ok().map(|at| &self.ids[at])
    }

    fn heavy(&self, id: u32) -> Option<&Heavy> {
        self.heavy.binary_search_by_key(&id, |heavy| heavy.id).ok().map(|at| &self.heavy[at])
    }
}

/// Lists every node by id.
fn known(analysis: &Analysis) -> Vec<Known> {
    let heap = &analysis.heap;
    let size = |node| u32::try_from(analysis.shallow.get(node)).unwrap_or(u32::MAX);
    let mut known: Vec<Known> = (0..heap.node_count())
        .map(|node| Known { id: heap.id(node), mark: mark(heap, node), size: size(node) })
        .collect();
    known.sort_unstable_by_key(|known| known.id);
    known
}

/// The largest objects of each class, the largest first.
fn largest(analysis: &Analysis) -> BTreeMap<&str, Vec<(u64, usize)>> {
    let mut largest: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for node in (0..analysis.heap.node_count()).filter(|&node| analysis.heap.kind(node) == NodeKind::Object) {
        let size = analysis.shallow.get(node);
        if size >= LARGE {
            let class = &analysis.classes.list[analysis.classes.of[node] as usize].name;
            largest.entry(class).or_default().push((size, node));
        }
    }
    for list in largest.values_mut() {
        list.sort_unstable_by(|one, other| other.cmp(one));
        list.truncate(LARGEST);
    }
    largest
}

/// Counts the references of a node and of the arrays in which V8 stores its content.
fn entries(heap: &Heap, node: usize) -> u32 {
    let strong = |node: usize| heap.edges(node).filter(|edge| edge.kind != EdgeKind::Weak);
    let count: usize = strong(node)
        .map(|edge| match edge.to as usize {
            array if heap.kind(array) == NodeKind::Array => strong(array).count(),
            _ => 1,
        })
        .sum();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Counts and sizes of a class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// The number of objects.
    pub count: u64,
    /// What they take themselves, in bytes.
    pub shallow_bytes: u64,
    /// What would be freed with them, in bytes.
    pub retained_bytes: u64,
}

/// How objects of different files were told to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// By V8's ids: the files are of one session.
    Ids,
    /// By class and retainer path: the ids are of different sessions.
    ClassesAndPaths,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// The files, the oldest first.
    pub files: Vec<String>,
    /// How objects were compared.
    pub basis: Basis,
    /// Why: how well the ids agree.
    pub because: String,
    /// Totals of each file.
    pub totals: Vec<Figures>,
    /// Objects added (in three files: between the first two, and still alive in the last), their number and bytes.
    pub added: Option<Figures>,
    /// Classes that grew, the one that grew most first.
    pub classes: Vec<Growth>,
    /// How many more classes changed.
    pub classes_left_out: u64,
    /// Where the added memory piles up.
    pub findings: Vec<Finding>,
    /// The ways from a root to the added objects of the classes that grew most.
    pub ways: Vec<ClassWays>,
}

impl Diff {
    /// Tells how objects were compared and why so.
    pub fn compared(&self) -> String {
        let how = match self.basis {
            Basis::Ids => "object id: one session",
            Basis::ClassesAndPaths => "class and retainer path: not of one session",
        };
        format!("Compared by {how} ({})", self.because)
    }
}

/// A class in every file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Growth {
    /// The class.
    pub class: String,
    /// Its figures in each file.
    pub figures: Vec<Figures>,
    /// Objects that were added and stayed, where ids tell.
    pub added: Option<Figures>,
}

impl Growth {
    /// Returns by how many objects the class grew from the first file to the last.
    pub fn count_delta(&self) -> i64 {
        delta(&self.figures, |figures| figures.count)
    }

    /// Returns by how many bytes of their own the class grew from the first file to the last.
    pub fn shallow_delta(&self) -> i64 {
        delta(&self.figures, |figures| figures.shallow_bytes)
    }

    /// Returns by how many bytes what the class keeps alive grew from the first file to the last.
    pub fn retained_delta(&self) -> i64 {
        delta(&self.figures, |figures| figures.retained_bytes)
    }
}

fn delta(figures: &[Figures], of: impl Fn(&Figures) -> u64) -> i64 {
    let of = |figures: Option<&Figures>| figures.map_or(0, &of);
    of(figures.last()).cast_signed().saturating_sub(of(figures.first()).cast_signed())
}

/// The most classes whose ways a digest keeps.
const CLASSES_WITH_WAYS: usize = 64;

/// Takes from an earlier snapshot what a comparison needs.
pub fn digest(analysis: &Analysis, file: &str) -> Digest {
    let tree = Tree::of(analysis);
    let members = Members::of(analysis);
    let table = rows(analysis, &tree, &members);
    let heap = &analysis.heap;
    let mut heavy: Vec<Heavy> = (0..heap.node_count())
        .filter(|&node| analysis.retained[node] >= HEAVY && heap.kind(node) == NodeKind::Object)
        .map(|node| Heavy { id: heap.id(node), entries: entries(heap, node), retained: analysis.retained[node] })
        .collect();
    heavy.sort_unstable_by_key(|heavy| heavy.id);
    let largest = largest(analysis)
        .into_iter()
        .map(|(class, list)| (class.to_owned(), list.into_iter().map(|(size, _)| size).collect()))
        .collect();
    let mut classes: BTreeMap<String, Figures> = BTreeMap::new();
    for row in &table {
        let figures = classes.entry(row.class.clone()).or_default();
        figures.count += row.count;
        figures.shallow_bytes += row.shallow_bytes;
        figures.retained_bytes = figures.retained_bytes.saturating_add(row.retained_bytes);
    }
    let sources = Sources::of(&analysis.heap);
    let ways = Ways::of(analysis);
    let teller = Teller::new(analysis, &ways, &sources);
    let mut told: BTreeMap<String, BTreeMap<Vec<Step>, u64>> = BTreeMap::new();
    let objects = table.iter().filter(|row| analysis.classes.list[row.index as usize].kind == NodeKind::Object);
    for row in objects.take(CLASSES_WITH_WAYS) {
        let ways = class_ways(&teller, row.class.clone(), members.nodes(row.index));
        let known = told.entry(row.class.clone()).or_default();
        for way in ways.ways {
            *known.entry(way.steps).or_default() += way.count;
        }
    }
    Digest {
        file: file.to_owned(),
        ids: known(analysis),
        heavy,
        largest,
        classes,
        ways: told,
        total: total(analysis),
        interfaces: analysis.classes.interfaces.clone(),
    }
}

fn total(analysis: &Analysis) -> Figures {
    let bytes = analysis.retained[analysis.heap.root()];
    Figures { count: analysis.heap.node_count() as u64, shallow_bytes: bytes, retained_bytes: bytes }
}

/// A number for what a node is that is the same in every file; zero for what changes or is not kept.
fn mark(heap: &Heap, node: usize) -> u32 {
    if !matches!(heap.kind(node), NodeKind::Object | NodeKind::Closure) {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (heap.kind_name(node), heap.name_bytes(node)).hash(&mut hasher);
    #[allow(clippy::cast_possible_truncation, reason = "any 32 bits of the hash will do")]
    let mark = hasher.finish() as u32;
    mark.max(1)
}

/// The least share of common ids that must stand for the same class before files count as of one session.
///
/// Measured with Node 20: one session 1.000, two runs of the same app 0.75, two apps 0.10 (`docs/evidence.md`).
const SAME_SESSION: f64 = 0.99;
/// The fewest common ids that say anything.
const ENOUGH: usize = 100;

/// Finds out whether the ids of two files are of one session, and says why.
fn same_session(earlier: &[Known], later: &[Known]) -> (bool, String) {
    let mut common = 0_usize;
    let mut same = 0_usize;
    let mut rest = later;
    for one in earlier.iter().filter(|one| one.mark != 0) {
        let at = rest.partition_point(|other| other.id < one.id);
        rest = &rest[at..];
        if let Some(other) = rest.first()
            && other.id == one.id
            && other.mark != 0
        {
            common += 1;
            same += usize::from(one.mark == other.mark);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "counts of nodes stay far below 2^53")]
    let share = if common == 0 { 0.0 } else { same as f64 / common as f64 };
    let text = format!("{:.1} % of {common} common ids stand for the same class", share * 100.0);
    (common >= ENOUGH && share >= SAME_SESSION, text)
}

/// Compares earlier snapshots with the last.
pub fn compare(earlier: &[Digest], last: &Analysis, file: &str, extent: Extent) -> Diff {
    let tree = Tree::of(last);
    let members = Members::of(last);
    let table = rows(last, &tree, &members);
    let heap = &last.heap;
    let ids = known(last);
    let verdicts: Vec<(bool, String)> = earlier.iter().map(|digest| same_session(&digest.ids, &ids)).collect();
    let same = !verdicts.is_empty() && verdicts.iter().all(|(same, _)| *same);
    let reasons: Vec<String> = verdicts.into_iter().map(|(_, text)| text).collect();
    let mut because = if reasons.is_empty() { "there is no earlier file".to_owned() } else { reasons.join("; ") };
    let newest = |ids: &[Known]| ids.iter().map(|known| known.id).filter(|id| id % 2 == 1).max().unwrap_or(0);
    let ages: Vec<u32> = earlier.iter().map(|digest| newest(&digest.ids)).chain([newest(&ids)]).collect();
    if same && !ages.is_sorted() {
        because.push_str("; a file is older than one before it: the order is probably wrong");
    }
    drop(ids);
    let basis = if same { Basis::Ids } else { Basis::ClassesAndPaths };
    let growth = Growing::of(earlier, last, basis);
    let mut classes = classes(earlier, last, &table, &growth);
    let weight_of = |growth: &Growth| match growth.added {
        Some(added) => added.shallow_bytes.cast_signed(),
        None => growth.shallow_delta(),
    };
    classes.sort_by(|one, other| (weight_of(other), &one.class).cmp(&(weight_of(one), &other.class)));

    let sources = Sources::of(heap);
    let ways = Ways::of(last);
    let teller = Teller::new(last, &ways, &sources);
    let mut weight = growth.weight.clone();
    tree.accumulate(last, &mut weight);
    let total_growth = weight[heap.root()];
    let heavy = if earlier.len() > 1 { 2 } else { 3 };
    let threshold = Threshold { bytes: (total_growth / 50).max(2 << 10), count: 10, heavy };
    let known = growth.known.as_ref();
    let mut found =
        suspects(Ground { analysis: last, tree: &tree, weight: &weight, inside: &growth.inside, known }, threshold);
    let namer = Namer::new(last, &tree, &weight, &teller, Tense::Grew);
    found.retain(|suspect| {
        let own = || is_own(last, &teller, suspect) || namer.loose(suspect).is_some();
        match basis {
            Basis::Ids => growth.is_lasting(last, &tree, suspect) && (is_content(last, suspect, total_growth) || own()),
            Basis::ClassesAndPaths => own(),
        }
    });
    for suspect in found.iter_mut().filter(|suspect| suspect.shape != Shape::Inside) {
        if let Some(&share) = growth.share.get(suspect.class as usize) {
            suspect.count = (suspect.count * share).div_ceil(1000);
        }
    }
    let mut findings = Vec::new();
    for suspect in &found {
        let mut finding = namer.finding(suspect);
        growth.measure(last, earlier, suspect, &mut finding);
        if !finding.holder.is_empty() && !finding.way.is_empty() {
            findings.push(finding);
        }
    }
    if let Some(known) = known {
        findings.extend(dom::detached(last, &teller, Some(known)));
    }
    let findings = merge(findings, extent.findings);
    let ways = grown_ways(&classes, &table, &members, last, &growth, &teller, earlier, extent);
    let left_out = classes.len().saturating_sub(extent.rows) as u64;
    classes.truncate(extent.rows);
    Diff {
        files: earlier.iter().map(|digest| digest.file.clone()).chain([file.to_owned()]).collect(),
        basis,
        because,
        totals: earlier.iter().map(|digest| digest.total).chain([total(last)]).collect(),
        added: growth.added,
        classes,
        classes_left_out: left_out,
        findings,
        ways,
    }
}

/// Says whether a suspect can be more than what V8 and Node add of their own accord: code, descriptions, a few objects
/// without a holder.
fn is_content(last: &Analysis, suspect: &Suspect, total: u64) -> bool {
    let kind = last.classes.list[suspect.class as usize].kind;
    let internal = matches!(kind, NodeKind::Code | NodeKind::ObjectShape | NodeKind::Hidden);
    if internal || is_root(last, suspect.holder) { suspect.bytes * 4 >= total && suspect.count >= 50 } else { true }
}

/// What counts as growth in the last snapshot, node by node.
struct Growing {
    /// Bytes by node that were added and stayed.
    weight: Vec<u64>,
    /// The part of it by which objects grew in themselves.
    inside: BTreeMap<u32, u64>,
    /// With ids: nodes that the first file has.
    known: Option<Bits>,
    /// With three files of one session or more: nodes added after the last but one.
    newest: Option<Bits>,
    added: Option<Figures>,
    /// Without ids: how much of each class was added, in thousandths.
    share: Vec<u64>,
}

impl Growing {
    fn of(earlier: &[Digest], last: &Analysis, basis: Basis) -> Self {
        match basis {
            Basis::Ids => Self::by_id(earlier, last),
            Basis::ClassesAndPaths => Self::by_class(earlier, last),
        }
    }

    fn by_id(earlier: &[Digest], last: &Analysis) -> Self {
        let heap = &last.heap;
        let count = heap.node_count();
        let mut newest = (earlier.len() > 1).then(|| Bits::new(count));
        let mut known = Bits::new(count);
        let mut inside = BTreeMap::new();
        let mut weight = vec![0; count];
        let mut added = Figures::default();
        for (node, weight) in weight.iter_mut().enumerate() {
            let id = heap.id(node);
            if let Some(first) = earlier.first().and_then(|first| first.known(id)) {
                known.set(node);
                let size = last.shallow.get(node);
                if size > u64::from(first.size) && heap.kind(node) == NodeKind::Object {
                    let grown = by_itself(earlier, id, size);
                    if grown > 0 {
                        inside.insert(ordinal(node), grown);
                        *weight = grown;
                    }
                }
                continue;
            }
            if let (Some(newest), Some(before)) = (&mut newest, earlier.last())
                && before.known(id).is_none()
            {
                newest.set(node);
                continue;
            }
            *weight = last.shallow.get(node);
            added.count += u64::from(*weight > 0);
            added.shallow_bytes += *weight;
        }
        added.retained_bytes = added.shallow_bytes;
        Self { weight, inside, known: Some(known), newest, added: Some(added), share: Vec::new() }
    }

    /// Without ids every object of a class that grew stands for its share of the growth.
    fn by_class(earlier: &[Digest], last: &Analysis) -> Self {
        let mut counts = vec![0_u64; last.classes.list.len()];
        for &class in &last.classes.of {
            counts[class as usize] += 1;
        }
        let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
        for (class, &count) in last.classes.list.iter().zip(&counts) {
            *by_name.entry(&class.name).or_default() += count;
        }
        // Grown in every step, in thousandths of the present number.
        let share: Vec<u64> = last
            .classes
            .list
            .iter()
            .map(|class| {
                if matches!(class.kind, NodeKind::Code | NodeKind::ObjectShape | NodeKind::Hidden) {
                    return 0;
                }
                let now = by_name[class.name.as_str()];
                let before =
                    earlier.iter().map(|digest| digest.classes.get(&class.name).map_or(0, |known| known.count));
                let most = before.max().unwrap_or(0);
                now.saturating_sub(most) * 1000 / now.max(1)
            })
            .collect();
        let mut weight: Vec<u64> = (0..last.heap.node_count())
            .map(|node| last.shallow.get(node) * share[last.classes.of[node] as usize] / 1000)
            .collect();
        // The largest of a class is held against the largest before, the second against the second.
        let mut inside = BTreeMap::new();
        for (class, list) in largest(last) {
            for (rank, (size, node)) in list.into_iter().enumerate() {
                let before = earlier.iter().filter_map(|digest| digest.largest.get(class)?.get(rank)).max();
                let grown = size.saturating_sub(before.copied().unwrap_or(LARGE));
                if grown > weight[node] {
                    inside.insert(ordinal(node), grown);
                    weight[node] = grown;
                }
            }
        }
        Self { weight, inside, known: None, newest: None, added: None, share }
    }

    /// Tells how large the holder was in each file, and takes back what its figures do not bear out.
    fn measure(&self, last: &Analysis, earlier: &[Digest], suspect: &Suspect, finding: &mut Finding) {
        let Some(holder) = finding.holder_node.filter(|_| self.known.is_some()) else { return };
        let id = last.heap.id(holder);
        let retained = last.retained[holder];
        let before: Option<Vec<Heavy>> = earlier.iter().map(|digest| digest.heavy(id).copied()).collect();
        let Some(before) = before else { return };
        let Some(first) = before.first() else { return };
        if suspect.holders.len() == 1 && retained.saturating_sub(first.retained).saturating_mul(2) >= finding.bytes {
            finding.sizes = before.iter().map(|heavy| heavy.retained).chain([retained]).collect();
        }
        let more = u64::from(entries(&last.heap, holder).saturating_sub(first.entries));
        let container = matches!(finding.pattern, Pattern::Map | Pattern::Set | Pattern::Array | Pattern::Table);
        if container && suspect.shape == Shape::Fan && suspect.holders.len() == 1 && more * 2 < suspect.count {
            finding.bound(first.entries);
        }
    }

    /// With three files: pieces must have come in the second interval too, else it grew once and stopped.
    fn is_lasting(&self, last: &Analysis, tree: &Tree, suspect: &Suspect) -> bool {
        let Some(newest) = &self.newest else { return true };
        let class = suspect.class;
        let newer = |node: usize| last.classes.of[node] == class && newest.get(node);
        let count = match suspect.shape {
            Shape::Fan => {
                let children = suspect.holders.iter().flat_map(|&holder| tree.children(holder as usize));
                children.filter(|&node| newer(node)).count() as u64
            }
            // A chain may grow at either end: any newer node of its class will do.
            Shape::Chain(_) | Shape::Web => (0..last.heap.node_count()).filter(|&node| newer(node)).count() as u64,
            Shape::Inside => return true,
        };
        count > 0 && count * 4 >= suspect.count
    }
}

/// The least that an object must have grown in the last interval, where it stood still before, in bytes: tables double.
const LATE: u64 = 64 << 10;

/// Returns by how much an object grew in itself since the first file: nothing where it ever shrank, or stood still in
/// more than a third of the intervals and in the last.
fn by_itself(earlier: &[Digest], id: u32, now: u64) -> u64 {
    let mut sizes: Vec<u64> = Vec::new();
    for digest in earlier {
        let Some(known) = digest.known(id) else { return 0 };
        sizes.push(u64::from(known.size));
    }
    sizes.push(now);
    let intervals = sizes.len() - 1;
    let rose = sizes.windows(2).filter(|pair| pair[0] < pair[1]).count();
    let grown = now - sizes[0].min(now);
    let goes_on = sizes[intervals] > sizes[intervals - 1] && grown >= LATE;
    let still = intervals > 1 && sizes[intervals] == sizes[intervals - 2];
    if sizes.is_sorted() && (goes_on || rose * 3 >= intervals * 2 && !still) { grown } else { 0 }
}

fn classes(earlier: &[Digest], last: &Analysis, table: &[super::rows::Row], growth: &Growing) -> Vec<Growth> {
    let mut now: BTreeMap<&str, Figures> = BTreeMap::new();
    for row in table {
        let figures = now.entry(&row.class).or_default();
        figures.count += row.count;
        figures.shallow_bytes += row.shallow_bytes;
        figures.retained_bytes = figures.retained_bytes.saturating_add(row.retained_bytes);
    }
    let mut added: BTreeMap<&str, Figures> = BTreeMap::new();
    if growth.added.is_some() {
        for (node, &weight) in growth.weight.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            let figures = added.entry(&last.classes.list[last.classes.of[node] as usize].name).or_default();
            figures.count += 1;
            figures.shallow_bytes += weight;
            figures.retained_bytes = figures.shallow_bytes;
        }
    }
    let mut names: Vec<&str> = now.keys().copied().collect();
    names.extend(earlier.iter().flat_map(|digest| digest.classes.keys().map(String::as_str)));
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| Growth {
            class: name.to_owned(),
            figures: earlier
                .iter()
                .map(|digest| digest.classes.get(name).copied().unwrap_or_default())
                .chain([now.get(name).copied().unwrap_or_default()])
                .collect(),
            added: growth.added.map(|_| added.get(name).copied().unwrap_or_default()),
        })
        .filter(|growth| {
            growth.count_delta() != 0
                || growth.shallow_delta() != 0
                || growth.added.is_some_and(|added| added.count > 0)
        })
        .collect()
}

/// The ways to what was added, for the classes that grew most. Without ids: ways that more objects have than before.
#[allow(clippy::too_many_arguments, reason = "the parts of one report")]
fn grown_ways(
    classes: &[Growth],
    table: &[super::rows::Row],
    members: &Members,
    last: &Analysis,
    growth: &Growing,
    teller: &Teller<'_>,
    earlier: &[Digest],
    extent: Extent,
) -> Vec<ClassWays> {
    let mut told = Vec::new();
    for class in classes {
        if told.len() == extent.findings {
            break;
        }
        let own: Vec<u32> = table
            .iter()
            .filter(|row| row.class == class.class && last.classes.list[row.index as usize].kind == NodeKind::Object)
            .flat_map(|row| members.nodes(row.index).iter().copied())
            .filter(|&node| growth.weight[node as usize] > 0)
            .collect();
        if own.len() < 10 {
            continue;
        }
        let mut ways = class_ways(teller, class.class.clone(), &own);
        if growth.added.is_none() {
            let before = |steps: &Vec<Step>| {
                earlier
                    .iter()
                    .filter_map(|digest| digest.ways.get(&class.class)?.get(steps))
                    .max()
                    .copied()
                    .unwrap_or(0)
            };
            for way in &mut ways.ways {
                way.count = way.count.saturating_sub(before(&way.steps));
            }
            ways.ways.retain(|way| way.count > 0);
            ways.ways.sort_by_key(|way| std::cmp::Reverse(way.count));
            ways.count = ways.ways.iter().map(|way| way.count).sum();
        }
        if !ways.ways.is_empty() {
            told.push(ways);
        }
    }
    told
}
