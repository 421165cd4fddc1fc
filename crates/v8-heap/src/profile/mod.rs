//! Sampling heap profiles (`.heapprofile`): which functions allocated what is still alive.
//!
//! The tree of calls is read from a stream without recursion, however deep it is. This room refuses to guess: a profile
//! knows only what was allocated while it ran, and only a sample of that.

pub mod export;
pub mod read;
pub mod report;

pub use read::{Frame, Profile, package, read};
pub use report::{ProfileDiff, ProfileSummary, diff, folded, folded_diff, summarise};
