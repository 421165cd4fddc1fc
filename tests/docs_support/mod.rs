//! What the tests of the documents share: the Markdown of the project taken apart, and the table that says how each command
//! in it is proven. `place.rs`, where commands run, belongs to `docs_commands.rs` alone.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

pub mod checks;
pub mod markdown;
pub mod table;
