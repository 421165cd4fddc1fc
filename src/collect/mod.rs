//! x
pub mod amp;
pub mod banner;
pub mod list;
