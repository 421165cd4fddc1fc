//! Every limit and deadline of the server.

use std::time::Duration;

/// Limits of one server. The defaults suit scrapers, people and Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Most connections at a time.
    pub connections: usize,
    /// Time for a handshake and for all headers of a request, from its first byte.
    pub header_deadline: Duration,
    /// Time for the whole body of a request.
    pub body_deadline: Duration,
    /// Time for a handler to answer.
    pub handler_deadline: Duration,
    /// Time a connection may wait for its next request.
    pub idle_deadline: Duration,
    /// Time a client may take nothing of a response.
    pub write_deadline: Duration,
    /// Bytes a second that a client must take of a response on average, beyond the first `write_deadline`.
    pub write_rate: u64,
    /// Most bytes of the request line and all headers; at least 8 KiB.
    pub header_bytes: usize,
    /// Most headers of a request.
    pub headers: usize,
    /// Most bytes of a body, where the route does not say.
    pub body_bytes: usize,
    /// Bodies larger than that which may be in memory at a time; further ones wait their turn within their deadline.
    pub large_bodies: usize,
    /// Time for requests that are under way when the server is told to stop.
    pub drain: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connections: 256,
            header_deadline: Duration::from_secs(5),
            body_deadline: Duration::from_secs(10),
            handler_deadline: Duration::from_secs(30),
            idle_deadline: Duration::from_mins(2),
            write_deadline: Duration::from_secs(10),
            write_rate: 16 * 1024,
            header_bytes: 16 * 1024,
            headers: 64,
            body_bytes: 64 * 1024,
            large_bodies: 1,
            drain: Duration::from_secs(3),
        }
    }
}
