//! From samples of a process to the verdict on it: what is remembered of its memory, and whether that grows without end.
//!
//! Data flows one way: samples enter [`history`], which condenses them to minutes and summaries of earlier lives;
//! [`trend`] reads those and answers with a [`model::Verdict`]. Everything takes its input and `now` as arguments. The
//! crate refuses to read a clock or a file, to know of pm2, and to act on what it finds.

pub mod death;
pub mod history;
mod stats;
pub mod trend;
