//! Which references count: the rules by which DevTools lets an edge keep its target alive.
//!
//! Weak references never do; shortcuts only where they mark the global objects; the two halves of a `WeakMap` entry
//! count as one, from the key; and what the debugger alone holds does not dominate what the app holds.

use std::collections::{BTreeMap, HashMap};

use super::bits::Bits;
use super::heap::{Edge, EdgeKind, Heap, NodeKind};

/// One half of an entry of a `WeakMap`, told by the edge's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ephemeron {
    /// The id of the map's table.
    pub table: u32,
    /// A number that both halves of the entry share.
    pub entry: u32,
}

/// The names with a meaning of their own, found once for a heap.
#[derive(Debug, Default)]
pub struct Names {
    ephemeron_bits: Bits,
    ephemerons: BTreeMap<u32, Ephemeron>,
    sloppy_function_map: Option<u32>,
    native_context: Option<u32>,
    map_descriptors: Option<u32>,
    document_trees: Option<u32>,
    handle_scope: Option<u32>,
    /// `system / ExternalStringData`, counted to its owner like an internal array.
    pub external_string_data: Option<u32>,
    /// `Object`, the name of every plain object.
    pub object: Option<u32>,
    /// `__proto__`.
    pub proto: Option<u32>,
}

impl Names {
    /// Looks through the strings once.
    pub fn of(heap: &Heap) -> Self {
        let mut names = Self { ephemeron_bits: Bits::new(heap.strings.len()), ..Self::default() };
        let mut entries: HashMap<&[u8], u32> = HashMap::new();
        for index in 0..u32::try_from(heap.strings.len()).unwrap_or(u32::MAX) {
            let text = heap.strings.bytes(index);
            let known = match text {
                b"sloppy_function_map" => &mut names.sloppy_function_map,
                b"system / NativeContext" => &mut names.native_context,
                b"(map descriptors)" => &mut names.map_descriptors,
                b"(Document DOM trees)" => &mut names.document_trees,
                b"(Handle scope)" => &mut names.handle_scope,
                b"system / ExternalStringData" => &mut names.external_string_data,
                b"Object" => &mut names.object,
                b"__proto__" => &mut names.proto,
                _ => {
                    if let Some((entry, table)) = ephemeron(text) {
                        let next = u32::try_from(entries.len()).unwrap_or(u32::MAX);
                        let entry = *entries.entry(entry).or_insert(next);
                        names.ephemeron_bits.set(index as usize);
                        names.ephemerons.insert(index, Ephemeron { table, entry });
                    }
                    continue;
                }
            };
            known.get_or_insert(index);
        }
        names
    }

    /// Returns what the name of an internal edge says about a `WeakMap`, if it does.
    #[inline]
    pub fn ephemeron(&self, name: u32) -> Option<Ephemeron> {
        if self.ephemeron_bits.get(name as usize) { self.ephemerons.get(&name).copied() } else { None }
    }

    /// Says whether a child of the root is where DevTools starts to count distances.
    pub fn is_user_root(&self, heap: &Heap, node: usize) -> bool {
        heap.kind(node) != NodeKind::Synthetic || self.is_document_trees(heap, node)
    }

    fn is_document_trees(&self, heap: &Heap, node: usize) -> bool {
        heap.kind(node) == NodeKind::Synthetic && Some(heap.name_index(node)) == self.document_trees
    }

    /// Says whether an edge of the root leads to something the page (in Node: the app) owns.
    pub fn is_page_entry(&self, heap: &Heap, edge: Edge) -> bool {
        match edge.kind {
            EdgeKind::Element => self.is_document_trees(heap, edge.to as usize),
            EdgeKind::Shortcut => true,
            EdgeKind::Context
            | EdgeKind::Property
            | EdgeKind::Internal
            | EdgeKind::Hidden
            | EdgeKind::Weak
            | EdgeKind::Other => false,
        }
    }

    /// Says whether distances need to look closer at the edges of this node.
    #[inline]
    pub fn is_special(&self, heap: &Heap, node: usize) -> bool {
        let name = Some(heap.name[node]);
        (name == self.map_descriptors && heap.kind(node) == NodeKind::Array)
            || (name == self.native_context && heap.kind(node) == NodeKind::Hidden)
    }

    /// Says whether an edge of a special node is one that distances go along.
    pub fn counts_for_distance(&self, heap: &Heap, node: usize, edge: Edge) -> bool {
        if heap.kind(node) == NodeKind::Hidden {
            return edge.kind.is_indexed() || Some(edge.name) != self.sloppy_function_map;
        }
        // A descriptor array is shared by several maps; its third of every three entries need not belong to them.
        let index = if edge.kind.is_indexed() {
            Some(u64::from(edge.name))
        } else {
            leading_number(heap.strings.bytes(edge.name))
        };
        index.is_none_or(|index| index < 2 || index % 3 != 1)
    }

    /// Says whether an edge holds its target only while something is under way: code in the making holds its function's
    /// constants, native code the handles on its stack, and V8's compiler what its table of handles names.
    #[inline]
    pub fn is_passing(&self, heap: &Heap, node: usize, edge: Edge) -> bool {
        let kind = heap.kind(node);
        kind == NodeKind::Code
            || kind == NodeKind::Synthetic
                && (Some(heap.name_index(node)) == self.handle_scope
                    || !edge.kind.is_indexed() && heap.strings.bytes(edge.name).ends_with(b"/ IdentityMapBase"))
    }

    /// Says whether an edge keeps its target alive on its own account. `page` holds the nodes the app owns.
    #[inline]
    pub fn is_essential(&self, heap: &Heap, node: usize, edge: Edge, page: &Bits) -> bool {
        let to = edge.to as usize;
        if edge.kind == EdgeKind::Weak || to == node {
            return false;
        }
        if edge.kind == EdgeKind::Internal
            && let Some(half) = self.ephemeron(edge.name)
            && half.table == heap.id(node)
        {
            return false;
        }
        node == heap.root() || (edge.kind != EdgeKind::Shortcut && (page.get(node) || !page.get(to)))
    }
}

/// Splits `12 / part of key (K @3) -> value (V @5) pair in WeakMap (table @7)` into what both halves share and the
/// table's id.
fn ephemeron(text: &[u8]) -> Option<(&[u8], u32)> {
    if !text.first()?.is_ascii_digit() || !text.ends_with(b")") {
        return None;
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let entry = &text[digits..];
    let inner = std::str::from_utf8(entry).ok()?;
    if inner.contains(['\n', '\r', '\u{2028}', '\u{2029}']) {
        return None;
    }
    let rest = inner.strip_prefix(" / part of key (")?;
    let (pair, table) = rest.rsplit_once(" pair in WeakMap (table @")?;
    let table = table.strip_suffix(')')?.parse().ok()?;
    let (key, value) = pair.split_once(") -> value (")?;
    (ends_with_id(key) && ends_with_id(value.strip_suffix(')')?)).then_some((entry, table))
}

fn ends_with_id(text: &str) -> bool {
    text.rsplit_once(" @").is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_a_weak_entry_are_recognised() {
        let first = b"2 / part of key (Session @31) -> value (Object @33) pair in WeakMap (table @7)";
        let second = b"17 / part of key (Session @31) -> value (Object @33) pair in WeakMap (table @7)";
        let (entry, table) = ephemeron(first).unwrap();
        assert_eq!((entry, table), (ephemeron(second).unwrap().0, 7));
        for other in [
            &b"part of key (Session @31) -> value (Object @33) pair in WeakMap (table @7)"[..],
            b"2 / part of key (Session) -> value (Object @33) pair in WeakMap (table @7)",
            b"2 / part of key (Session @31) -> value (Object @33) pair in WeakMap (table @)",
            b"12",
            b"",
        ] {
            assert_eq!(ephemeron(other), None);
        }
    }
}
