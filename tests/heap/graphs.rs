//! Random graphs: what the analysis computes must be what the definitions say, worked out the slow way.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use crate::heap_support::{Node, VERSIONS, analysis, node, snapshot};
use leakslope::evidence::snapshot::distance::{NONE, SYSTEM};
use leakslope::evidence::snapshot::paths::Ways;
use leakslope::evidence::snapshot::rows::{Members, rows};
use leakslope::evidence::snapshot::tree::Tree;
use proptest::prelude::*;

const KINDS: [&str; 7] = ["object", "object", "closure", "hidden", "array", "synthetic", "native"];
const EDGES: [&str; 6] = ["property", "internal", "element", "weak", "shortcut", "context"];

/// Kinds and targets of a node's edges.
type Edges = Vec<(usize, usize)>;

fn graphs() -> impl Strategy<Value = Vec<Node>> {
    (2_usize..24).prop_flat_map(|count| {
        let edges = prop::collection::vec((0..EDGES.len(), 0..count), 0..5);
        let nodes = prop::collection::vec((0..KINDS.len(), 0_u64..100, edges), count);
        nodes.prop_map(|nodes| {
            let make = |(index, (kind, size, edges)): (usize, (usize, u64, Edges))| Node {
                kind: if index == 0 { "synthetic" } else { KINDS[kind] },
                name: format!("Class{}", kind % 3),
                size,
                edges: edges
                    .into_iter()
                    .enumerate()
                    .map(|(at, (kind, to))| (EDGES[kind], at.to_string(), to))
                    .collect(),
            };
            nodes.into_iter().enumerate().map(make).collect()
        })
    })
}

/// What a walk along some of the edges reaches.
fn reach(
    nodes: &[Node],
    from: &[usize],
    without: Option<usize>,
    follow: impl Fn(usize, &str, usize) -> bool,
) -> Vec<bool> {
    let mut seen = vec![false; nodes.len()];
    let mut stack: Vec<usize> = from.iter().copied().filter(|&node| Some(node) != without).collect();
    for &node in &stack {
        seen[node] = true;
    }
    while let Some(at) = stack.pop() {
        for (kind, _, to) in &nodes[at].edges {
            if !seen[*to] && Some(*to) != without && follow(at, kind, *to) {
                seen[*to] = true;
                stack.push(*to);
            }
        }
    }
    seen
}

fn user_roots(nodes: &[Node]) -> Vec<usize> {
    nodes[0].edges.iter().map(|(_, _, to)| *to).filter(|&to| nodes[to].kind != "synthetic").collect()
}

/// Sizes after internal arrays have been counted to the only object that leads to them.
fn shallow(nodes: &[Node]) -> Vec<u64> {
    let mut sizes: Vec<u64> = nodes.iter().map(|node| node.size).collect();
    let internal = |node: usize| matches!(nodes[node].kind, "hidden" | "array");
    if user_roots(nodes).is_empty() {
        return sizes;
    }
    for target in (0..nodes.len()).filter(|&node| internal(node)) {
        let owners: Vec<usize> = (0..nodes.len())
            .filter(|&owner| !internal(owner))
            .filter(|&owner| {
                reach(nodes, &[owner], None, |at, kind, to| {
                    kind != "weak" && internal(to) && (at == owner || internal(at))
                })[target]
            })
            .collect();
        if let [owner] = owners[..]
            && nodes[owner].kind != "synthetic"
        {
            sizes[owner] += nodes[target].size;
            sizes[target] = 0;
        }
    }
    sizes
}

struct Slow {
    dominator: Vec<usize>,
    retained: Vec<u64>,
    distance: Vec<u32>,
}

fn slow(nodes: &[Node]) -> Slow {
    let count = nodes.len();
    let entries: Vec<usize> =
        nodes[0].edges.iter().filter(|(kind, _, _)| *kind == "shortcut").map(|(_, _, to)| *to).collect();
    let page = reach(nodes, &entries, None, |_, kind, _| kind != "weak");
    let essential = |at: usize, kind: &str, to: usize| {
        kind != "weak" && at != to && (at == 0 || (kind != "shortcut" && (page[at] || !page[to])))
    };
    // Nodes that nothing essential leads to are held by the root too, in order.
    let mut roots = vec![0];
    for node in 0..count {
        let held =
            (0..count).any(|at| nodes[at].edges.iter().any(|(kind, _, to)| *to == node && essential(at, kind, node)));
        if !held && !reach(nodes, &roots, None, essential)[node] {
            roots.push(node);
        }
    }
    let all = reach(nodes, &roots, None, essential);
    let without: Vec<Vec<bool>> = (0..count)
        .map(|gone| if gone == 0 { vec![false; count] } else { reach(nodes, &roots, Some(gone), essential) })
        .collect();
    let dominates = |above: usize, node: usize| above != node && all[node] && !without[above][node];
    let dominator = (0..count)
        .map(|node| {
            // The nearest is the one that all others dominate.
            let all: Vec<usize> = (0..count).filter(|&above| dominates(above, node)).collect();
            all.iter().copied().find(|&near| all.iter().all(|&far| far == near || dominates(far, near))).unwrap_or(0)
        })
        .collect::<Vec<_>>();
    let sizes = shallow(nodes);
    let retained = (0..count)
        .map(|node| match node {
            0 => sizes.iter().sum(),
            _ if !all[node] => sizes[node],
            _ => {
                sizes[node] + (0..count).filter(|&below| dominates(node, below)).map(|below| sizes[below]).sum::<u64>()
            }
        })
        .collect();
    let mut distance = vec![NONE; count];
    let walk = |distance: &mut Vec<u32>, mut front: Vec<usize>| {
        while !front.is_empty() {
            let mut next = Vec::new();
            for at in front {
                for (kind, _, to) in &nodes[at].edges {
                    if *kind != "weak" && distance[*to] == NONE {
                        distance[*to] = distance[at] + 1;
                        next.push(*to);
                    }
                }
            }
            front = next;
        }
    };
    let users = user_roots(nodes);
    for &user in &users {
        distance[user] = 1;
    }
    walk(&mut distance, users.clone());
    distance[0] = if users.is_empty() { 0 } else { SYSTEM };
    walk(&mut distance, vec![0]);
    Slow { dominator, retained, distance }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn dominators_sizes_and_distances_are_what_the_definitions_say(nodes in graphs()) {
        let found = analysis(&snapshot(&nodes, 20));
        let expected = slow(&nodes);
        let sizes: Vec<u64> = (0..nodes.len()).map(|node| found.shallow.get(node)).collect();
        prop_assert_eq!(sizes, shallow(&nodes));
        let dominators: Vec<usize> = found.dominator.iter().map(|&node| node as usize).collect();
        prop_assert_eq!(dominators, expected.dominator);
        prop_assert_eq!(&found.retained, &expected.retained);
        prop_assert_eq!(&found.distance, &expected.distance);
    }

    #[test]
    fn a_class_retains_what_its_topmost_members_do(nodes in graphs()) {
        let found = analysis(&snapshot(&nodes, 20));
        let tree = Tree::of(&found);
        for row in rows(&found, &tree, &Members::of(&found)) {
            let member = |node: usize| found.classes.of[node] == row.index && found.shallow.get(node) > 0;
            let below_another = |node: usize| {
                let mut at = node;
                std::iter::from_fn(|| {
                    let above = found.dominator[at] as usize;
                    (above != at).then(|| { at = above; above })
                }).any(member)
            };
            let expected: u64 = (0..nodes.len())
                .filter(|&node| member(node) && !below_another(node))
                .map(|node| found.retained[node])
                .sum();
            prop_assert_eq!(row.retained_bytes, expected, "{}", row.class);
        }
    }

    #[test]
    fn weights_add_up_along_the_dominator_tree(nodes in graphs()) {
        let found = analysis(&snapshot(&nodes, 20));
        let mut weights: Vec<u64> = (0..nodes.len()).map(|node| found.shallow.get(node)).collect();
        Tree::of(&found).accumulate(&found, &mut weights);
        prop_assert_eq!(&weights, &found.retained);
    }

    #[test]
    fn every_version_of_node_reads_the_same(nodes in graphs()) {
        let expected = analysis(&snapshot(&nodes, 20));
        for version in VERSIONS {
            let found = analysis(&snapshot(&nodes, version));
            prop_assert_eq!(&found.retained, &expected.retained);
            prop_assert_eq!(&found.distance, &expected.distance);
            prop_assert_eq!(&found.classes.list, &expected.classes.list);
        }
    }
}

#[test]
fn a_weak_map_value_is_kept_by_its_key_and_as_far_as_the_farther() {
    let half = "part of key (Key @9) -> value (Value @11) pair in WeakMap (table @7)";
    let (one, two) = (format!("1 / {half}"), format!("2 / {half}"));
    let nodes = [
        node("synthetic", "", 0, &[("shortcut", "1", 1)]),
        node("object", "global", 8, &[("property", "map", 2), ("property", "way", 6)]),
        node("object", "WeakMap", 8, &[("internal", "table", 3)]),
        node("array", "", 32, &[("internal", &one, 5), ("weak", "key", 4)]),
        node("object", "Key", 8, &[("internal", &two, 5)]),
        node("object", "Value", 64, &[]),
        node("object", "Way", 8, &[("property", "key", 4)]),
    ];
    let found = analysis(&snapshot(&nodes, 20));
    assert_eq!((found.dominator[5], found.retained[4]), (4, 72));
    assert_eq!((found.distance[4], found.distance[5]), (3, 4));
}

/// As V8 24 writes it down while it compiles `handle` in the background.
#[test]
fn what_a_compiler_holds_in_passing_is_no_reason_to_be_alive() {
    let passing: [(&'static str, &str, usize); 3] =
        [("internal", "(Handle scope)", 2), ("internal", "(Strong roots)", 3), ("internal", "(Global handles)", 4)];
    let nodes = [
        node("synthetic", "", 0, &[("element", "1", 1)]),
        node("synthetic", "(GC roots)", 0, &passing),
        node("synthetic", "(Handle scope)", 0, &[("internal", "63", 7), ("internal", "64", 5), ("internal", "65", 8)]),
        node("synthetic", "(Strong roots)", 0, &[("internal", "3 / IdentityMapBase", 7)]),
        node("synthetic", "(Global handles)", 0, &[("internal", "1", 6)]),
        node("code", "(code)", 64, &[("hidden", "0", 7)]),
        node("closure", "handle", 64, &[("internal", "context", 9), ("internal", "code", 5)]),
        node("object", "Array", 16, &[]),
        node("object", "Response", 16, &[]),
        node("object", "system / Context", 32, &[("context", "retries", 7)]),
    ];
    let analysis = analysis(&snapshot(&nodes, 24));
    let ways = Ways::of(&analysis);
    let (holder, edge) = ways.back(&analysis.heap, 7).unwrap();
    assert_eq!((holder, analysis.heap.string(edge.name).as_ref()), (9, "retries"));
    let (holder, _) = ways.back(&analysis.heap, 8).unwrap();
    assert_eq!(holder, 2, "what nothing else holds is held by that");
    assert_eq!(analysis.distance[7], analysis.distance[8], "distances are as DevTools counts them");
}

#[test]
fn plain_objects_are_named_by_what_they_share() {
    let point = |to| node("object", "Object", 32, &[("property", "x", to), ("property", "y", to)]);
    let mut nodes = vec![node("synthetic", "", 0, &[("shortcut", "1", 1)]), node("object", "global", 8, &[])];
    nodes.extend((0..5).map(|_| point(1)));
    nodes.push(node("object", "Object", 32, &[("property", "x", 1), ("property", "y", 1), ("property", "z", 1)]));
    nodes.push(node("object", "Object", 32, &[("property", "q", 1)]));
    let found = analysis(&snapshot(&nodes, 20));
    let names: Vec<&str> =
        (2..nodes.len()).map(|node| found.classes.list[found.classes.of[node] as usize].name.as_str()).collect();
    assert_eq!(names, ["{x, y}", "{x, y}", "{x, y}", "{x, y}", "{x, y}", "{x, y}", "Object"]);
}
