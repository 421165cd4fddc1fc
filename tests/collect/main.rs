//! What is read of pm2, `/proc` and the apps, of real daemons and of ones that misbehave.

#[path = "../heap_support/mod.rs"]
mod heap_support;
#[path = "../support/mod.rs"]
mod support;

mod command;
mod exposed;
mod faults;
mod hostile;
mod memory;
mod pm2;
mod preload;
mod reports;
mod system;
