//! What the tests of the documents share: the Markdown of the project taken apart, the table that says how each command in
//! it is proven, and a prepared place to run commands in.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test may panic and measure")]

pub mod markdown;
