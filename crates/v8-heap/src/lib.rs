//! Reads what V8 writes about its heap: snapshots (`.heapsnapshot`) and sampling profiles (`.heapprofile`).
//!
//! | part       | answers                                                                       |
//! |------------|-------------------------------------------------------------------------------|
//! | `snapshot` | what the heap holds, what grew between snapshots, and who keeps it alive      |
//! | `profile`  | which functions allocated what is still alive                                 |
//!
//! Bytes in, tables out. This crate opens no file, reads no clock and starts nothing: the caller passes a `Read`. It
//! trusts no number in a file, takes no more memory than the caller allows, and refuses to keep the texts of strings
//! unless it is asked to.

pub mod format;
pub mod kind;
pub mod profile;
pub mod snapshot;
