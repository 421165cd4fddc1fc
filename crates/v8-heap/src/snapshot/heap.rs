//! A heap in flat arrays: nodes by ordinal, their edges end to end.
//!
//! It holds what the file says and answers questions about it; it computes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::sources::Sources;
use super::strings::Strings;

/// What a node is, in V8's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are V8's own")]
pub enum NodeKind {
    Hidden,
    Array,
    String,
    Object,
    Code,
    Closure,
    RegExp,
    Number,
    Native,
    Synthetic,
    ConcatenatedString,
    SlicedString,
    Symbol,
    BigInt,
    ObjectShape,
    /// A kind this reader does not know; its name is printed as it is.
    Other,
}

impl NodeKind {
    /// Finds the kind by V8's name for it.
    pub fn from_name(name: &str) -> Self {
        match name {
            "hidden" => Self::Hidden,
            "array" => Self::Array,
            "string" => Self::String,
            "object" => Self::Object,
            "code" => Self::Code,
            "closure" => Self::Closure,
            "regexp" => Self::RegExp,
            "number" => Self::Number,
            "native" => Self::Native,
            "synthetic" => Self::Synthetic,
            "concatenated string" => Self::ConcatenatedString,
            "sliced string" => Self::SlicedString,
            "symbol" => Self::Symbol,
            "bigint" => Self::BigInt,
            "object shape" => Self::ObjectShape,
            _ => Self::Other,
        }
    }

    /// Says whether the node's name is the text of a string the app holds.
    pub fn is_string(self) -> bool {
        matches!(self, Self::String | Self::ConcatenatedString | Self::SlicedString)
    }
}

/// What a reference is, in V8's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are V8's own")]
#[repr(u8)]
pub enum EdgeKind {
    Context = 0,
    Element = 1,
    Property = 2,
    Internal = 3,
    Hidden = 4,
    Shortcut = 5,
    Weak = 6,
    /// A kind this reader does not know.
    Other = 7,
}

impl EdgeKind {
    const ALL: [Self; 8] = [
        Self::Context,
        Self::Element,
        Self::Property,
        Self::Internal,
        Self::Hidden,
        Self::Shortcut,
        Self::Weak,
        Self::Other,
    ];

    /// Finds the kind by V8's name for it.
    pub fn from_name(name: &str) -> Self {
        match name {
            "context" => Self::Context,
            "element" => Self::Element,
            "property" => Self::Property,
            "internal" => Self::Internal,
            "hidden" => Self::Hidden,
            "shortcut" => Self::Shortcut,
            "weak" => Self::Weak,
            _ => Self::Other,
        }
    }

    /// Says whether the edge carries a number instead of a name.
    pub fn is_indexed(self) -> bool {
        matches!(self, Self::Element | Self::Hidden)
    }
}

/// The most nodes a heap may have: an edge keeps its kind in the three bits above the node it leads to.
pub const MAX_NODES: u64 = 1 << 29;
const NODE_MASK: u32 = (1 << 29) - 1;

/// A place in a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// V8's number of the script.
    pub script: u32,
    /// The line, counted from zero.
    pub line: u32,
    /// The column, counted from zero.
    pub column: u32,
}

/// Where generated code was written, as a source map tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The source.
    pub file: String,
    /// The line, counted from zero.
    pub line: u32,
    /// The column, counted from zero.
    pub column: u32,
    /// The function that starts there, if its text tells.
    pub name: Option<String>,
    /// Whether the map says that the source is somebody else's.
    pub ignored: bool,
}

/// Sizes in bytes, of which few need more than 32 bits.
#[derive(Debug, Default, Clone)]
pub struct Sizes {
    small: Vec<u32>,
    large: BTreeMap<u32, u64>,
}

impl Sizes {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { small: Vec::with_capacity(count), large: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, size: u64) {
        let index = self.small.len();
        self.small.push(0);
        self.set(index, size);
    }

    pub(super) fn set(&mut self, index: usize, size: u64) {
        let key = ordinal(index);
        match u32::try_from(size) {
            Ok(small) if small < u32::MAX => {
                if std::mem::replace(&mut self.small[index], small) == u32::MAX {
                    self.large.remove(&key);
                }
            }
            _ => {
                self.small[index] = u32::MAX;
                self.large.insert(key, size);
            }
        }
    }

    /// Returns the size of the node with this ordinal.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        match self.small[index] {
            u32::MAX => self.large.get(&u32::try_from(index).unwrap_or(0)).copied().unwrap_or_default(),
            small => u64::from(small),
        }
    }
}

/// A reference from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// What kind of reference it is.
    pub kind: EdgeKind,
    /// The string that names it, or its number if the kind is indexed.
    pub name: u32,
    /// The node it leads to.
    pub to: u32,
}

/// A heap as the file describes it.
///
/// Nodes are named by their ordinal, `0..node_count()`.
#[derive(Debug, Default)]
pub struct Heap {
    pub(super) kinds: Vec<NodeKind>,
    pub(super) kind_names: Vec<String>,
    pub(super) kind: Vec<u8>,
    pub(super) name: Vec<u32>,
    pub(super) id: Vec<u32>,
    pub(super) size: Sizes,
    pub(super) detached: BTreeMap<u32, u8>,
    pub(super) first_edge: Vec<u32>,
    pub(super) target: Vec<u32>,
    pub(super) edge_name: Vec<u32>,
    pub(super) located: Vec<(u32, u32)>,
    pub(super) locations: Vec<Location>,
    pub(super) strings: Strings,
    pub(super) root: u32,
    pub(super) extra_native_bytes: u64,
    pub(super) shows_strings: bool,
    pub(super) originals: BTreeMap<Location, Original>,
}

/// Turns a place in a list of nodes into their number.
#[inline]
pub(super) fn ordinal(node: usize) -> u32 {
    u32::try_from(node).expect("invariant: fewer than 2^29 nodes")
}

/// Turns a place in a list of edges into their number.
#[inline]
pub(super) fn edge_ordinal(edge: usize) -> u32 {
    u32::try_from(edge).expect("invariant: fewer than 2^32 edges")
}

#[inline]
pub(super) fn pack(kind: EdgeKind, to: u32) -> u32 {
    (kind as u32) << 29 | to
}

#[inline]
pub(super) fn target_of(packed: u32) -> usize {
    (packed & NODE_MASK) as usize
}

#[inline]
pub(super) fn kind_of(packed: u32) -> EdgeKind {
    EdgeKind::ALL[(packed >> 29) as usize]
}

impl Heap {
    /// Returns the number of nodes.
    pub fn node_count(&self) -> usize {
        self.kind.len()
    }

    /// Returns the number of edges.
    pub fn edge_count(&self) -> usize {
        self.target.len()
    }

    /// Returns the root's ordinal.
    pub fn root(&self) -> usize {
        self.root as usize
    }

    /// Returns what the node is.
    #[inline]
    pub fn kind(&self, node: usize) -> NodeKind {
        self.kinds[usize::from(self.kind[node])]
    }

    /// Returns V8's own word for what the node is.
    pub fn kind_name(&self, node: usize) -> &str {
        &self.kind_names[usize::from(self.kind[node])]
    }

    /// Returns the index of the node's name among the strings.
    pub fn name_index(&self, node: usize) -> u32 {
        self.name[node]
    }

    /// Returns the node's name; empty for the text of a string, unless strings were asked for.
    pub fn name(&self, node: usize) -> Cow<'_, str> {
        self.strings.get(self.name[node])
    }

    /// Returns the node's name as it stands in the file.
    pub fn name_bytes(&self, node: usize) -> &[u8] {
        self.strings.bytes(self.name[node])
    }

    /// Returns V8's number of the object: stable only within one inspector session.
    pub fn id(&self, node: usize) -> u32 {
        self.id[node]
    }

    /// Returns the size V8 reports for the node itself, in bytes.
    pub fn self_size(&self, node: usize) -> u64 {
        self.size.get(node)
    }

    /// Returns the sizes V8 reports, by node.
    pub fn self_sizes(&self) -> &Sizes {
        &self.size
    }

    /// Returns the ordinals of a node's edges.
    #[inline]
    pub fn edge_range(&self, node: usize) -> std::ops::Range<usize> {
        self.first_edge[node] as usize..self.first_edge[node + 1] as usize
    }

    /// Returns an edge by its ordinal.
    #[inline]
    pub fn edge(&self, edge: usize) -> Edge {
        let packed = self.target[edge];
        Edge { kind: kind_of(packed), name: self.edge_name[edge], to: packed & NODE_MASK }
    }

    /// Returns a node's edges.
    pub fn edges(&self, node: usize) -> impl Iterator<Item = Edge> + '_ {
        self.edge_range(node).map(|edge| self.edge(edge))
    }

    /// Returns the first node a node refers to by this name (not by a number and not weakly).
    pub fn child(&self, node: usize, name: &str) -> Option<usize> {
        self.edges(node)
            .find(|edge| {
                !edge.kind.is_indexed()
                    && edge.kind != EdgeKind::Weak
                    && self.strings.bytes(edge.name) == name.as_bytes()
            })
            .map(|edge| edge.to as usize)
    }

    /// Returns a string by its index.
    pub fn string(&self, index: u32) -> Cow<'_, str> {
        self.strings.get(index)
    }

    /// Returns where the node's function or constructor was written, if the file says so.
    pub fn location(&self, node: usize) -> Option<Location> {
        let node = u32::try_from(node).ok()?;
        let found = self.located.binary_search_by_key(&node, |&(node, _)| node).ok()?;
        self.locations.get(self.located[found].1 as usize).copied()
    }

    /// Returns every place that functions and constructors were written at, with its file.
    pub fn places(&self) -> Vec<(String, Location)> {
        let sources = Sources::of(self);
        self.locations.iter().filter_map(|&place| Some((sources.file(place.script)?, place))).collect()
    }

    /// Tells where places of generated code were written: reports name those instead.
    pub fn set_originals(&mut self, originals: BTreeMap<Location, Original>) {
        self.originals = originals;
    }

    /// Returns where a place was written, if that was told.
    pub fn original(&self, place: Location) -> Option<&Original> {
        self.originals.get(&place)
    }

    /// Returns bytes held outside the heap that belong to no node.
    pub fn extra_native_bytes(&self) -> u64 {
        self.extra_native_bytes
    }

    /// Says whether the texts of strings were kept.
    pub fn shows_strings(&self) -> bool {
        self.shows_strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_four_gibibytes_are_kept_exactly() {
        let mut sizes = Sizes::with_capacity(2);
        for size in [16, u64::from(u32::MAX), 1 << 40] {
            sizes.push(size);
        }
        assert_eq!([sizes.get(0), sizes.get(1), sizes.get(2)], [16, u64::from(u32::MAX), 1 << 40]);
        sizes.set(2, 8);
        assert_eq!(sizes.get(2), 8);
    }

    #[test]
    fn an_edge_keeps_its_kind_beside_its_target() {
        for kind in EdgeKind::ALL {
            let packed = pack(kind, NODE_MASK);
            assert_eq!((kind_of(packed), target_of(packed)), (kind, NODE_MASK as usize));
        }
    }
}
