//! The page in a browser, the server behind it, and the API as `docs/openapi.yaml` describes it.

#[path = "../support/mod.rs"]
mod support;

mod openapi;
mod page;
mod schema;
mod server;
