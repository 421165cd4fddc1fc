//! The server: limits, deadlines, routes, and who may act. It knows no page, metric or endpoint.
//!
//! ```text
//!   Listener ─ Transport ─ connection (deadlines, registry) ─ Router ─ handler ─ Response
//! ```
//!
//! | file         | what it is for                                                    | pure |
//! |--------------|-------------------------------------------------------------------|------|
//! | `settings`   | every limit and deadline                                          | yes  |
//! | `request`, `query`, `response` | what a handler gets and gives                   | yes  |
//! | `router`     | method and path to handler                                        | yes  |
//! | `guard`      | who may ask for something that acts                               | yes  |
//! | `web`, `yaml` | the web configuration: its text to values, every problem with its line | yes |
//! | `trust`, `accounts` | whose a file is; the users and groups of this machine | no |
//! | `peer`       | who is at the other end, and as which user of this machine        | no   |
//! | `actors`     | which users of this machine may act                               | no   |
//! | `sessions`   | browsers that were let in by a link                               | yes  |
//! | `access`     | who is let in: users, tokens, encryption, by files that are read again | no |
//! | `passwords`  | passwords against their hashes, few at a time                     | no   |
//! | `tls`, `clients` | certificates and keys to what a handshake needs; whose are accepted | yes |
//! | `client`, `exchange`, `pin` | one request to a server that is known             | no   |
//! | `registry`   | which connections there are and which one goes when there are too many | yes |
//! | `stream`     | deadlines under a connection                                      | no   |
//! | `connection` | one connection from its handshake to its end                      | no   |
//! | `server`     | listening, accepting, draining                                    | no   |
//!
//! HTTP/1.1 only. A client that is slow, silent, broken or hostile costs a bounded amount of memory for a bounded time
//! and never delays another one: when every place is taken, the connection that has been idle longest makes room.

mod access;
pub mod accounts;
mod actors;
pub mod client;
mod clients;
mod connection;
mod exchange;
mod guard;
mod passwords;
pub mod peer;
mod pin;
mod query;
mod registry;
mod request;
mod response;
mod router;
mod server;
mod sessions;
mod settings;
mod stream;
mod tls;
pub mod trust;
pub mod web;
mod yaml;

pub use access::{Access, AccessSettings, Encrypted, LatestLoad, own_certificate};
pub use actors::Actors;
pub use exchange::{ExchangeError, exchange};
pub use guard::{
    Asker, BearerTokens, HostNames, RateLimits, Refusal, TokenError, guard_acting, guard_browsers, guard_secrets,
    token_lines, who_acts,
};
pub use peer::Peer;
pub use query::Query;
pub use registry::Occupancy;
pub use request::{Identity, Reach, Request};
pub use response::{Content, Response, ResponseBody};
pub use router::{Admission, Answer, Gatekeeper, Handler, Route, Router};
pub use server::{Listener, OccupancyHandle, Plain, ServeError, ServeErrorKind, Server, Transport};
pub use sessions::LINK_LASTS;
pub use settings::HttpSettings;

/// How many hexadecimal digits a secret has.
pub const SECRET_DIGITS: usize = 64;

/// A random text that nobody guesses; none where the system gives no random bytes.
pub fn secret() -> Option<String> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; SECRET_DIGITS / 2];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::with_capacity(SECRET_DIGITS), |text, byte| text + &format!("{byte:02x}")))
}

/// What the address of a Unix socket begins with.
pub const UNIX_PREFIX: &str = "unix:";
