//! The program as it is run: what it serves, to whom, how it starts and ends, and its commands that need a while.

#[path = "../support/mod.rs"]
mod support;

mod deaths;
mod demo;
mod doctor;
mod golden;
mod http_descriptors;
mod http_server;
mod listeners;
mod live;
mod memory;
mod pm2;
mod prometheus;
mod run;
mod security;
mod watch;
mod web;
mod web_format;
