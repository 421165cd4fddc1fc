//! What is remembered of a process: in memory (the crate `leak-detector` condenses samples) and on disk.

pub use history_store as store;

pub use leak_detector::history::*;
