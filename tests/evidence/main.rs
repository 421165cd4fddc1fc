//! Profiles and snapshots that are taken of real apps: how they are asked, what is left behind, where they are kept.

#[path = "../heap_support/mod.rs"]
mod heap_support;
#[path = "../support/mod.rs"]
mod support;

mod attach;
mod disk;
mod inspector;
mod left_open;
mod policy;
mod series;
mod take;
mod versions;
