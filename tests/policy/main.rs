//! What is restarted and why not: in a world without clocks, beside servers that misbehave, and under a real pm2.

#[path = "../policy_support/mod.rs"]
mod policy_support;
#[path = "../support/mod.rs"]
mod support;

mod end_to_end;
mod pm2;
mod random;
mod scenarios;
mod servers;
