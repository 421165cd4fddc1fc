//! Two or three snapshots: what was added, and what of it stayed.
//!
//! Where the ids are of one session an object is the same object in every file, and the three-snapshot technique
//! applies: allocated between the first and the second, still alive in the third. Whether they are is found out, not
//! assumed. Otherwise classes and the ways to them are compared. Of the earlier files only digests are kept.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

use super::analysis::Analysis;
use super::classes::Interface;
use super::heap::{Heap, NodeKind};
use super::namer::{Namer, is_root};
use super::paths::{Step, Teller, Ways};
use super::patterns::{Finding, Tense};
use super::rows::{Members, rows};
use super::sources::Sources;
use super::summary::{ClassWays, Extent, class_ways, is_own};
use super::suspects::{Suspect, Threshold, suspects};
use super::tree::Tree;

/// What is kept of an earlier snapshot.
#[derive(Debug)]
pub struct Digest {
    file: String,
    /// V8's ids, sorted, each with a mark of what the node is; zero where a node cannot be compared.
    ids: Vec<(u32, u32)>,
    classes: BTreeMap<String, Figures>,
    ways: BTreeMap<String, BTreeMap<Vec<Step>, u64>>,
    total: Figures,
    /// Sets of properties that name plain objects: the next snapshot uses them too.
    pub interfaces: Vec<Interface>,
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
    let mut ids: Vec<(u32, u32)> =
        (0..analysis.heap.node_count()).map(|node| (analysis.heap.id(node), mark(&analysis.heap, node))).collect();
    ids.sort_unstable();
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
        ids,
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
fn same_session(earlier: &[(u32, u32)], later: &[(u32, u32)]) -> (bool, String) {
    let mut common = 0_usize;
    let mut same = 0_usize;
    let mut rest = later;
    for &(id, mark) in earlier.iter().filter(|(_, mark)| *mark != 0) {
        let at = rest.partition_point(|&(other, _)| other < id);
        rest = &rest[at..];
        if let Some(&(other, other_mark)) = rest.first()
            && other == id
            && other_mark != 0
        {
            common += 1;
            same += usize::from(mark == other_mark);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "counts of nodes stay far below 2^53")]
    let share = if common == 0 { 0.0 } else { same as f64 / common as f64 };
    let text = format!("{:.1} % of {common} common ids stand for the same class", share * 100.0);
    (common >= ENOUGH && share >= SAME_SESSION, text)
}

/// Compares one or two earlier snapshots with the last.
pub fn compare(earlier: &[Digest], last: &Analysis, file: &str, extent: Extent) -> Diff {
    let tree = Tree::of(last);
    let members = Members::of(last);
    let table = rows(last, &tree, &members);
    let heap = &last.heap;
    let mut ids: Vec<(u32, u32)> = (0..heap.node_count()).map(|node| (heap.id(node), mark(heap, node))).collect();
    ids.sort_unstable();
    let mut verdicts = earlier.iter().map(|digest| same_session(&digest.ids, &ids));
    let (mut same, mut because) = verdicts.next().unwrap_or((false, "there is no earlier file".to_owned()));
    if let Some((also, text)) = verdicts.next() {
        same &= also;
        because = format!("{because}; {text}");
    }
    drop(verdicts);
    let newest = ids.iter().map(|&(id, _)| id).filter(|id| id % 2 == 1).max().unwrap_or(0);
    let before = earlier.iter().flat_map(|digest| &digest.ids).map(|&(id, _)| id).filter(|id| id % 2 == 1).max();
    if same && before.is_some_and(|before| before > newest) {
        because.push_str("; the last file is older than one before it: the order is probably wrong");
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
    let threshold = Threshold { bytes: (total_growth / 50).max(2 << 10), count: 10 };
    let mut found = suspects(last, &tree, &weight, threshold);
    found.retain(|suspect| match basis {
        Basis::Ids => {
            growth.is_lasting(last, &tree, suspect)
                && (is_content(last, suspect, total_growth) || is_own(last, &teller, suspect))
        }
        Basis::ClassesAndPaths => is_own(last, &teller, suspect),
    });
    for suspect in &mut found {
        if let Some(&share) = growth.share.get(suspect.class as usize) {
            suspect.count = suspect.count * share / 1000;
        }
    }
    found.retain(|suspect| suspect.count >= threshold.count);
    let namer = Namer::new(last, &tree, &weight, &teller, Tense::Grew);
    let findings = namer.findings(&found, extent.findings);
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
    /// With three files of one session: nodes added after the second.
    newest: Option<super::bits::Bits>,
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
        let knows = |digest: &Digest, id: u32| digest.ids.binary_search_by_key(&id, |&(id, _)| id).is_ok();
        let mut newest = (earlier.len() > 1).then(|| super::bits::Bits::new(count));
        let mut weight = vec![0; count];
        let mut added = Figures::default();
        for (node, weight) in weight.iter_mut().enumerate() {
            let id = heap.id(node);
            if earlier.first().is_some_and(|first| knows(first, id)) {
                continue;
            }
            if let (Some(newest), Some(second)) = (&mut newest, earlier.get(1))
                && !knows(second, id)
            {
                newest.set(node);
                continue;
            }
            *weight = last.shallow.get(node);
            added.count += u64::from(*weight > 0);
            added.shallow_bytes += *weight;
        }
        added.retained_bytes = added.shallow_bytes;
        Self { weight, newest, added: Some(added), share: Vec::new() }
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
        let weight = (0..last.heap.node_count())
            .map(|node| last.shallow.get(node) * share[last.classes.of[node] as usize] / 1000)
            .collect();
        Self { weight, newest: None, added: None, share }
    }

    /// With three files: pieces must have come in the second interval too, else it grew once and stopped.
    fn is_lasting(&self, last: &Analysis, tree: &Tree, suspect: &Suspect) -> bool {
        let Some(newest) = &self.newest else { return true };
        let class = suspect.class;
        let newer = |node: usize| last.classes.of[node] == class && newest.get(node);
        let count = match suspect.shape {
            super::suspects::Shape::Fan => tree.children(suspect.holder).filter(|&node| newer(node)).count() as u64,
            // A chain may grow at either end: any newer node of its class will do.
            super::suspects::Shape::Chain(_) => (0..last.heap.node_count()).filter(|&node| newer(node)).count() as u64,
        };
        count * 4 >= suspect.count
    }
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
