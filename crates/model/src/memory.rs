//! Resident memory of one process by the kind of what holds it.

use std::time::Duration;

use serde::Serialize;

use crate::Bytes;

/// What a part of resident memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryKind {
    /// Heaps of V8: the main thread's and every worker's.
    JsHeap,
    /// What `malloc` took, in use or free: Buffers, native objects, V8's own helpers.
    Malloc,
    /// Segments of an allocator that an add-on brought along (mimalloc).
    OwnAllocator,
    /// Memories of WebAssembly.
    Wasm,
    /// Machine code that was compiled at run time, and stacks of threads.
    CodeAndStacks,
    /// Pages of files: Node.js, libraries, files mapped by the app.
    Files,
    /// Shared memory.
    SharedMemory,
}

impl MemoryKind {
    /// Every kind, in the order they are stacked and listed.
    pub const ALL: [Self; 7] = [
        Self::JsHeap,
        Self::Malloc,
        Self::OwnAllocator,
        Self::Wasm,
        Self::CodeAndStacks,
        Self::Files,
        Self::SharedMemory,
    ];

    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsHeap => "js_heap",
            Self::Malloc => "malloc",
            Self::OwnAllocator => "own_allocator",
            Self::Wasm => "wasm",
            Self::CodeAndStacks => "code_and_stacks",
            Self::Files => "files",
            Self::SharedMemory => "shared_memory",
        }
    }
}

/// The resident memory of one process by kind, as its mappings stood at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MemoryByKind {
    resident: [Bytes; MemoryKind::ALL.len()],
    /// What V8 holds, in memory or in swap: its heaps and the code it compiled.
    pub v8_held: Bytes,
    /// What the process holds, in memory or in swap.
    pub held: Bytes,
    /// Worker threads.
    pub workers: u32,
}

impl MemoryByKind {
    /// Adds resident memory of one kind.
    pub fn add(&mut self, kind: MemoryKind, resident: Bytes) {
        let place = &mut self.resident[kind as usize];
        *place = place.saturating_add(resident);
    }

    /// The resident memory of one kind.
    pub fn of(&self, kind: MemoryKind) -> Bytes {
        self.resident[kind as usize]
    }

    /// The sum of all kinds: the process's resident memory when they were read.
    pub fn resident(&self) -> Bytes {
        self.resident.iter().copied().sum()
    }
}

/// What the growth of a process's memory comes from, as far as that can be seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCause {
    /// A word for it; `none` where nothing grows, `undecided` where the figures do not decide it.
    pub cause: &'static str,
    /// Whether such growth does no harm: it ends by itself, or is given up when memory is short.
    pub harmless: bool,
    /// By how much the kind of memory that grows the most has grown.
    pub grown: Bytes,
    /// Over how long.
    pub over: Duration,
    /// What is seen, as a sentence without its full stop.
    pub sentence: String,
    /// What to do next; empty where nothing is to be done.
    pub advice: &'static str,
}
