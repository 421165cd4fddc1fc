//! V8 heap snapshots: read once as a stream into flat arrays, then asked who holds what.
//!
//! ```text
//!   bytes ── source ── read ──▶ Heap ──┬─ edges ───── which references count
//!                                      ├─ distance ── hops from the user's roots
//!                                      ├─ dominators  who alone keeps whom, retained sizes
//!                                      ├─ shallow ─── internal arrays counted to their owner
//!                                      └─ classes ─── names as DevTools prints them
//! ```
//!
//! Sizes, distances and names follow the algorithm of Chrome DevTools (2025) number for number.
//! This room refuses to hold the file in memory and to trust any number in it.

pub mod analysis;
pub mod bits;
pub mod classes;
pub mod detached;
pub mod diff;
pub mod distance;
pub mod dom;
pub mod dominators;
pub mod error;
pub mod header;
pub mod heap;
pub mod namer;
pub mod paths;
pub mod patterns;
pub mod privacy;
pub mod read;
pub mod references;
pub mod rows;
pub mod shallow;
pub mod source;
pub mod sources;
pub mod statistics;
pub mod strings;
pub mod summary;
pub mod suspects;
pub mod tree;

pub use error::{HeapError, HeapErrorKind};
pub use heap::{EdgeKind, Heap, NodeKind};
pub use read::{Limits, read};
