//! The `leakslope` binary.

fn main() {}
