//! What is remembered of processes, in memory and on disk.

pub mod store;
