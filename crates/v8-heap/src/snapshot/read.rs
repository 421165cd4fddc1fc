//! From bytes to a `Heap`, in one pass.
//!
//! Every count is checked against what the file announces and against the memory allowed before room is made for it.

use std::collections::HashMap;
use std::io::Read;

use super::bits::Bits;
use super::error::{HeapError, HeapErrorKind};
use super::header::{self, Layout};
use super::heap::{Heap, Location, MAX_NODES, NodeKind, Sizes, pack};
use super::source::Source;

/// What a reader may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most memory the whole analysis may take, in bytes.
    pub memory: u64,
    /// The most bytes kept of one string.
    pub string_bytes: usize,
    /// Whether the texts of the app's strings are kept.
    pub show_strings: bool,
}

impl Default for Limits {
    /// Two gibibytes: enough for a snapshot of about 1 GB.
    fn default() -> Self {
        Self { memory: 2 << 30, string_bytes: 4096, show_strings: false }
    }
}

/// The most bytes the objects of a heap may take together: sums and shares of it cannot overflow.
const MAX_BYTES: u64 = 1 << 53;
/// Memory the whole analysis takes for a node, in bytes (measured, rounded up; see `docs/evidence.md`).
const BYTES_PER_NODE: u64 = 70;
/// Memory the whole analysis takes for an edge, in bytes.
const BYTES_PER_EDGE: u64 = 9;

impl Limits {
    fn check(&self, nodes: u64, edges: u64, strings: u64) -> Result<(), HeapErrorKind> {
        let needed = nodes
            .saturating_mul(BYTES_PER_NODE)
            .saturating_add(edges.saturating_mul(BYTES_PER_EDGE))
            .saturating_add(strings);
        if needed > self.memory {
            return Err(HeapErrorKind::Memory { needed, allowed: self.memory });
        }
        Ok(())
    }
}

/// Reads a heap snapshot; `subject` names it in errors.
///
/// Fails on anything that is not a complete snapshot, and before it takes more memory than `limits` allows.
pub fn read(reader: impl Read, subject: &str, limits: &Limits) -> Result<Heap, HeapError> {
    let mut source = Source::new(reader);
    let mut reading = Reading { limits: *limits, layout: None, heap: Heap::default(), seen: Seen::default() };
    match reading.run(&mut source) {
        Ok(()) => Ok(reading.heap),
        Err(kind) => Err(source.error(subject, kind)),
    }
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "one for each key of the file")]
struct Seen {
    nodes: bool,
    edges: bool,
    locations: bool,
    strings: bool,
    /// The largest index of a string that a node or an edge names.
    largest_name: u32,
}

struct Reading {
    limits: Limits,
    layout: Option<Layout>,
    heap: Heap,
    seen: Seen,
}

type Outcome<T> = Result<T, HeapErrorKind>;

impl Reading {
    fn run<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.expect(b'{', "'{'")?;
        let mut first = true;
        while source.next(b'}', &mut first)? {
            let key = source.short_string(64)?;
            source.expect(b':', "':'")?;
            match key.as_str() {
                "snapshot" => self.header(source)?,
                "nodes" => self.nodes(source)?,
                "edges" => self.edges(source)?,
                "locations" => self.locations(source)?,
                "strings" => self.strings(source)?,
                _ => {
                    source.key = "another key";
                    source.skip(|_| Ok(()))?;
                }
            }
            source.key = "";
        }
        if !source.at_end()? {
            return Err(HeapErrorKind::Unexpected { expected: "the end of the file", found: source.peek()? });
        }
        self.finish()
    }

    fn header<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.key = "snapshot";
        if self.layout.is_some() {
            return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
        }
        let mut text = Vec::new();
        source.skip(|piece| {
            if text.len() + piece.len() > header::MAX_HEADER {
                return Err(HeapErrorKind::TooLarge { limit: header::MAX_HEADER as u64 });
            }
            text.extend_from_slice(piece);
            Ok(())
        })?;
        let layout = header::parse(&text)?;
        self.limits.check(layout.node_count.unwrap_or(0), layout.edge_count.unwrap_or(0), 0)?;
        self.heap.kinds = layout.node_kinds();
        self.heap.kind_names.clone_from(&layout.node_types);
        self.heap.extra_native_bytes = layout.extra_native_bytes;
        self.heap.shows_strings = self.limits.show_strings;
        self.layout = Some(layout);
        Ok(())
    }

    fn nodes<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.key = "nodes";
        let layout = self.layout.as_ref().ok_or(HeapErrorKind::Missing("snapshot"))?;
        if std::mem::replace(&mut self.seen.nodes, true) {
            return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
        }
        let announced = layout.node_count.unwrap_or(MAX_NODES).min(MAX_NODES);
        let room = usize::try_from(layout.node_count.unwrap_or(0).min(MAX_NODES)).unwrap_or(0);
        let heap = &mut self.heap;
        heap.kind = Vec::with_capacity(room);
        heap.name = Vec::with_capacity(room);
        heap.id = Vec::with_capacity(room);
        heap.size = Sizes::with_capacity(room);
        heap.first_edge = Vec::with_capacity(room + 1);
        let types = heap.kinds.len() as u64;
        let mut bytes = 0_u64;
        let mut edges = 0_u64;
        let mut count = 0_u64;
        let mut largest = 0_u32;
        source.rows(layout.node_width, |row| {
            count += 1;
            if count > announced {
                return Err(HeapErrorKind::Contradiction(format!(
                    "there are more nodes than the {announced} announced"
                )));
            }
            if count.is_multiple_of(1 << 16) {
                self.limits.check(count, edges, 0)?;
            }
            let kind = row[layout.node_type];
            if kind >= types {
                return Err(HeapErrorKind::Contradiction(format!("a node has the type {kind}, there are {types}")));
            }
            #[allow(clippy::cast_possible_truncation, reason = "at most 255 types")]
            heap.kind.push(kind as u8);
            let name = word(row[layout.node_name])?;
            largest = largest.max(name);
            heap.name.push(name);
            heap.id.push(word(row[layout.node_id])?);
            heap.size.push(row[layout.node_size]);
            bytes = bytes.saturating_add(row[layout.node_size]);
            if bytes > MAX_BYTES {
                return Err(HeapErrorKind::TooLarge { limit: MAX_BYTES });
            }
            heap.first_edge.push(word(edges)?);
            edges = edges.saturating_add(row[layout.node_edges]);
            if let Some(column) = layout.node_detached
                && row[column] != 0
            {
                let node = word(count - 1)?;
                heap.detached.insert(node, u8::try_from(row[column]).unwrap_or(0));
            }
            Ok(())
        })?;
        if layout.node_count.is_some_and(|announced| announced != count) {
            return Err(HeapErrorKind::Contradiction(format!("{announced} nodes are announced, there are {count}")));
        }
        if count == 0 {
            return Err(HeapErrorKind::Contradiction("there are no nodes".to_owned()));
        }
        if layout.edge_count.is_some_and(|announced| announced != edges) {
            let announced = layout.edge_count.unwrap_or(0);
            return Err(HeapErrorKind::Contradiction(format!(
                "{announced} edges are announced, the nodes claim {edges}"
            )));
        }
        heap.first_edge.push(word(edges)?);
        let width = layout.node_width as u64;
        let root_node = layout.root_index / width;
        if !layout.root_index.is_multiple_of(width) || root_node >= count {
            return Err(HeapErrorKind::Contradiction(format!("the root {} is no node", layout.root_index)));
        }
        heap.root = word(root_node)?;
        self.seen.largest_name = self.seen.largest_name.max(largest);
        self.limits.check(count, edges, 0)
    }

    fn edges<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.key = "edges";
        let layout = self.layout.as_ref().ok_or(HeapErrorKind::Missing("snapshot"))?;
        if !self.seen.nodes {
            return Err(HeapErrorKind::Missing("nodes"));
        }
        if std::mem::replace(&mut self.seen.edges, true) {
            return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
        }
        let heap = &mut self.heap;
        let claimed = heap.first_edge.last().copied().unwrap_or(0) as usize;
        let nodes = heap.kind.len() as u64;
        let kinds = layout.edge_kinds();
        let width = Reciprocal::new(layout.node_width as u64);
        heap.target = Vec::with_capacity(claimed);
        heap.edge_name = Vec::with_capacity(claimed);
        let mut largest = 0_u32;
        source.rows(layout.edge_width, |row| {
            if heap.target.len() == claimed {
                return Err(HeapErrorKind::Contradiction(format!("there are more edges than the {claimed} claimed")));
            }
            let kind = usize::try_from(row[layout.edge_type]).ok().and_then(|kind| kinds.get(kind));
            let Some(&kind) = kind else {
                let found = row[layout.edge_type];
                return Err(HeapErrorKind::Contradiction(format!(
                    "an edge has the type {found}, there are {}",
                    kinds.len()
                )));
            };
            let to = row[layout.edge_to];
            let node = width.divide(to).filter(|&node| node < nodes);
            let Some(node) = node else {
                return Err(HeapErrorKind::Contradiction(format!("an edge leads to {to}, which is no node")));
            };
            let name = word(row[layout.edge_name])?;
            if !kind.is_indexed() {
                largest = largest.max(name);
            }
            heap.target.push(pack(kind, word(node)?));
            heap.edge_name.push(name);
            Ok(())
        })?;
        let found = heap.target.len();
        if found != claimed {
            return Err(HeapErrorKind::Contradiction(format!("the nodes claim {claimed} edges, there are {found}")));
        }
        self.seen.largest_name = self.seen.largest_name.max(largest);
        // V8 lists only strings that something names, so there are never many more strings than names.
        let names = 4 * (nodes + found as u64) + 1024;
        if u64::from(self.seen.largest_name) > names {
            return Err(HeapErrorKind::TooLarge { limit: names });
        }
        Ok(())
    }

    fn locations<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.key = "locations";
        let layout = self.layout.as_ref().ok_or(HeapErrorKind::Missing("snapshot"))?;
        let Some(columns) = layout.location else { return source.skip(|_| Ok(())) };
        if !self.seen.nodes {
            return Err(HeapErrorKind::Missing("nodes"));
        }
        if std::mem::replace(&mut self.seen.locations, true) {
            return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
        }
        let heap = &mut self.heap;
        let nodes = heap.kind.len();
        let width = Reciprocal::new(layout.node_width as u64);
        let mut known: HashMap<Location, u32> = HashMap::new();
        source.rows(columns.width, |row| {
            let node = width.divide(row[columns.node]).filter(|&node| node < nodes as u64);
            let Some(node) = node else {
                let found = row[columns.node];
                return Err(HeapErrorKind::Contradiction(format!("a location belongs to {found}, which is no node")));
            };
            if heap.located.len() >= nodes {
                return Err(HeapErrorKind::Contradiction("there are more locations than nodes".to_owned()));
            }
            let location = Location {
                script: word(row[columns.script])?,
                line: word(row[columns.line])?,
                column: word(row[columns.column])?,
            };
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            let index = *known.entry(location).or_insert_with(|| {
                heap.locations.push(location);
                next
            });
            heap.located.push((word(node)?, index));
            Ok(())
        })?;
        heap.located.sort_unstable_by_key(|&(node, _)| node);
        Ok(())
    }

    fn strings<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.key = "strings";
        if std::mem::replace(&mut self.seen.strings, true) {
            return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
        }
        let wanted = (self.seen.edges && !self.limits.show_strings).then(|| self.names());
        let room = if wanted.is_some() { self.limits.string_bytes } else { self.limits.string_bytes.min(256) };
        let nodes = self.heap.kind.len() as u64;
        let edges = self.heap.target.len() as u64;
        let strings = &mut self.heap.strings;
        source.expect(b'[', "a list of strings")?;
        let mut first = true;
        let mut index = 0_usize;
        while source.next(b']', &mut first)? {
            let keep = wanted.as_ref().is_none_or(|bits| bits.get(index));
            let mut left = if keep { room } else { 0 };
            source.string(|piece| {
                let piece = &piece[..piece.len().min(left)];
                left -= piece.len();
                strings.extend(piece);
            })?;
            if !strings.finish() {
                return Err(HeapErrorKind::TooLarge { limit: u64::from(u32::MAX) });
            }
            index += 1;
            if index.is_multiple_of(1 << 12) {
                self.limits.check(nodes, edges, strings.memory() as u64)?;
            }
        }
        Ok(())
    }

    /// Marks the strings that name a class, a property, a variable or a function, as against the app's own texts.
    fn names(&self) -> Bits {
        let mut wanted = Bits::new(self.seen.largest_name as usize + 1);
        let heap = &self.heap;
        for node in 0..heap.node_count() {
            if !heap.kind(node).is_string() {
                wanted.set(heap.name[node] as usize);
            }
        }
        for edge in 0..heap.edge_count() {
            let edge = heap.edge(edge);
            if !edge.kind.is_indexed() {
                wanted.set(edge.name as usize);
            }
        }
        wanted
    }

    fn finish(&mut self) -> Outcome<()> {
        for (seen, key) in [
            (self.layout.is_some(), "snapshot"),
            (self.seen.nodes, "nodes"),
            (self.seen.edges, "edges"),
            (self.seen.strings, "strings"),
        ] {
            if !seen {
                return Err(HeapErrorKind::Missing(key));
            }
        }
        let strings = self.heap.strings.len();
        if self.seen.largest_name as usize >= strings {
            let name = self.seen.largest_name;
            return Err(HeapErrorKind::Contradiction(format!("a name is string {name}, there are {strings}")));
        }
        self.join_names()
    }

    /// Gives nodes of a kind one name where V8 writes each its own: scopes with their number, elements of a page with
    /// their attributes, which are the page's data.
    fn join_names(&mut self) -> Outcome<()> {
        let heap = &mut self.heap;
        let count = word(heap.strings.len() as u64)?;
        let kinds: HashMap<u32, Vec<u8>> =
            (0..count).filter_map(|index| Some((index, name_of_kind(heap.strings.bytes(index))?))).collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let mut known: HashMap<&[u8], Option<u32>> = kinds.values().map(|kind| (kind.as_slice(), None)).collect();
        for index in 0..count {
            if let Some(first) = known.get_mut(heap.strings.bytes(index)) {
                first.get_or_insert(index);
            }
        }
        for node in 0..heap.kind.len() {
            if matches!(heap.kind(node), NodeKind::Hidden | NodeKind::Object | NodeKind::Native)
                && let Some(kind) = kinds.get(&heap.name[node])
                && let Some(place) = known.get_mut(kind.as_slice())
            {
                let index = match *place {
                    Some(index) => index,
                    None => heap.strings.add(kind).ok_or(HeapErrorKind::TooLarge { limit: u64::from(u32::MAX) })?,
                };
                *place = Some(index);
                heap.name[node] = index;
            }
        }
        Ok(())
    }
}

/// Returns what is left of a name without what tells one node from its siblings, if it has such a part.
fn name_of_kind(name: &[u8]) -> Option<Vec<u8>> {
    let element = name.strip_prefix(b"Detached ").unwrap_or(name);
    if element.starts_with(b"<") {
        let end = element.iter().position(u8::is_ascii_whitespace)?;
        let prefix = name.len() - element.len();
        return Some([&name[..prefix + end], b">"].concat());
    }
    let mark = b" / scope @";
    let found = name.starts_with(b"system / ").then(|| name.windows(mark.len()).rposition(|part| part == mark))?;
    found.map(|end| name[..end].to_vec())
}

/// Division by the same small number, many times.
struct Reciprocal {
    divisor: u64,
    factor: u64,
}

impl Reciprocal {
    fn new(divisor: u64) -> Self {
        Self { divisor, factor: (1 << 40_u64) / divisor + 1 }
    }

    /// Divides a number below 2³² that the divisor divides; anything else is none.
    #[inline]
    fn divide(&self, number: u64) -> Option<u64> {
        if number > u64::from(u32::MAX) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "a quotient of a number below 2^32")]
        let quotient = ((u128::from(number) * u128::from(self.factor)) >> 40) as u64;
        (quotient * self.divisor == number).then_some(quotient)
    }
}

#[inline]
fn word(number: u64) -> Outcome<u32> {
    u32::try_from(number).map_err(|_out_of_range| HeapErrorKind::TooLarge { limit: u64::from(u32::MAX) })
}
