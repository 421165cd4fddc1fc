//! What is restarted and why not: beside servers that misbehave, and under a real pm2.

#[path = "../support/mod.rs"]
mod support;

mod end_to_end;
mod pm2;
mod servers;
