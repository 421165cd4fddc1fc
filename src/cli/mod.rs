//! Commands and what they print.

pub mod heap;
