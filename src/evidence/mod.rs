//! Evidence: which code holds the memory.
//!
//! The reading half: bytes of a `.heapsnapshot` or `.heapprofile` in, tables out. It opens no file, reads no clock and
//! starts nothing: the caller passes a `Read`. It keeps no string contents unless it is told to.

pub mod profile;
pub mod snapshot;
