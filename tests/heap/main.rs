//! Heap snapshots and recordings that are analysed: their graphs, the leaks that are found in them, files that are damaged.

#[path = "../heap_support/mod.rs"]
mod heap_support;

mod analyze;
mod cli;
mod graphs;
mod patterns;
mod robust;
