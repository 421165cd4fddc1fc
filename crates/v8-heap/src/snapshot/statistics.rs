//! The heap by kind of content, in the words of DevTools, and the things Node leaks most: listeners, timers, promises.

use serde::Serialize;

use super::analysis::Analysis;
use super::heap::{EdgeKind, NodeKind};

/// A count and a size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How large themselves, in bytes.
    pub bytes: u64,
}

impl Statistics {
    /// The parts that every node is counted to once: their bytes add up to the total's.
    pub fn parts(&self) -> [(&'static str, Amount); 9] {
        [
            ("objects and collections", self.objects),
            ("JS arrays", self.arrays),
            ("strings", self.strings),
            ("closures", self.closures),
            ("contexts", self.contexts),
            ("code", self.code),
            ("native, with Buffers", self.native),
            ("system", self.system),
            ("other", self.other),
        ]
    }

    /// Kinds that are counted among the parts, too.
    pub fn among(&self) -> [(&'static str, Amount); 6] {
        [
            ("detached contexts", self.detached_contexts),
            ("Buffers and typed arrays", self.typed_arrays),
            ("listeners", self.listeners),
            ("timers", self.timers),
            ("promises", self.promises),
            ("pending promises", self.pending_promises),
        ]
    }
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What the heap is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Everything in the snapshot, with what is held outside the heap.
    pub total: Amount,
    /// Compiled code and its descriptions.
    pub code: Amount,
    /// Strings.
    pub strings: Amount,
    /// JavaScript arrays with their elements.
    pub arrays: Amount,
    /// Functions.
    pub closures: Amount,
    /// Scopes that functions keep.
    pub contexts: Amount,
    /// Global contexts beyond the first: `vm` contexts and realms that are still alive.
    pub detached_contexts: Amount,
    /// Memory of `Buffer`, `ArrayBuffer` and typed arrays.
    pub typed_arrays: Amount,
    /// Native objects, those included; what belongs to no object counts here too.
    pub native: Amount,
    /// V8's own objects.
    pub system: Amount,
    /// All other objects: the app's own, collections, plain objects; timers and promises are among them.
    pub objects: Amount,
    /// What is none of these: internal arrays that several objects share, numbers, symbols, regular expressions.
    pub other: Amount,
    /// Functions that listen to events of an `EventEmitter`.
    pub listeners: Amount,
    /// Timeouts, intervals and immediates.
    pub timers: Amount,
    /// Promises.
    pub promises: Amount,
    /// Promises that somebody waits for.
    pub pending_promises: Amount,
}

/// Goes through the nodes once.
pub fn statistics(analysis: &Analysis) -> Statistics {
    let heap = &analysis.heap;
    let mut found = Statistics::default();
    let extra = heap.extra_native_bytes();
    found.native.bytes = extra;
    found.total.bytes = extra;
    let mut native_contexts = Vec::new();
    for node in 0..heap.node_count() {
        let bytes = analysis.shallow.get(node);
        found.total.add(bytes);
        match heap.kind(node) {
            NodeKind::Hidden => found.system.add(bytes),
            NodeKind::Code | NodeKind::ObjectShape => found.code.add(bytes),
            NodeKind::String | NodeKind::ConcatenatedString | NodeKind::SlicedString => found.strings.add(bytes),
            NodeKind::Closure => found.closures.add(bytes),
            NodeKind::Native => {
                found.native.add(bytes);
                if heap.name_bytes(node) == b"system / JSArrayBufferData" {
                    found.typed_arrays.add(bytes);
                }
            }
            NodeKind::Object => match heap.name_bytes(node) {
                b"Array" => found.arrays.add(bytes),
                b"system / Context" => found.contexts.add(bytes),
                b"system / NativeContext" => {
                    found.system.add(bytes);
                    native_contexts.push(bytes);
                }
                b"Timeout" | b"Immediate" => {
                    found.objects.add(bytes);
                    found.timers.add(bytes);
                }
                b"Promise" => {
                    found.objects.add(bytes);
                    found.promises.add(bytes);
                    let waits = heap.child(node, "reactions_or_result").map(|reaction| heap.name_bytes(reaction));
                    if waits == Some(b"system / PromiseReaction") {
                        found.pending_promises.add(bytes);
                    }
                }
                _ => found.objects.add(bytes),
            },
            NodeKind::Array
            | NodeKind::RegExp
            | NodeKind::Number
            | NodeKind::Synthetic
            | NodeKind::Symbol
            | NodeKind::BigInt
            | NodeKind::Other => found.other.add(bytes),
        }
        if heap.kind(node) == NodeKind::Hidden && heap.name_bytes(node) == b"system / NativeContext" {
            native_contexts.push(bytes);
        }
        if heap.kind(node) == NodeKind::Object
            && let Some(events) = heap.child(node, "_events")
        {
            listeners(analysis, events, &mut found.listeners);
        }
    }
    for bytes in native_contexts.into_iter().skip(1) {
        found.detached_contexts.add(bytes);
    }
    found
}

/// Counts what an `_events` object holds: a function for each event, or an array of functions.
fn listeners(analysis: &Analysis, events: usize, found: &mut Amount) {
    let heap = &analysis.heap;
    for edge in heap.edges(events).filter(|edge| edge.kind == EdgeKind::Property) {
        let held = edge.to as usize;
        if heap.kind(held) == NodeKind::Closure {
            if heap.string(edge.name) != "__proto__" {
                found.add(analysis.shallow.get(held));
            }
        } else if heap.name_bytes(held) == b"Array" {
            let elements = heap.edges(held).filter(|edge| edge.kind == EdgeKind::Element);
            for element in elements.map(|edge| edge.to as usize).filter(|&node| heap.kind(node) == NodeKind::Closure) {
                found.add(analysis.shallow.get(element));
            }
        }
    }
}
