//! What a handler gets: everything is read, decoded and within its limits.

use std::net::SocketAddr;

use hyper::body::Bytes;
use hyper::header::{AsHeaderName, HeaderMap};
use hyper::{Method, header};

use super::query::Query;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process that may open our Unix socket.
    Unix,
}

/// From where a listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only from this machine, by anybody on it, a browser included.
    Loopback,
    /// From other machines too.
    Network,
    /// Only by those who may open a socket file; no browser can.
    Unix,
}

/// Who asks, as far as that was checked before the handler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Nobody asked for a name.
    #[default]
    Anonymous,
    /// A user whose password was checked.
    User(String),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as it came, not decoded.
    pub path: String,
    /// The decoded parts of the path that a route leaves open with `{name}`, in order.
    pub parameters: Vec<String>,
    /// The decoded query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The other end.
    pub peer: Peer,
    /// From where the listener can be reached.
    pub reach: Reach,
    /// Who asks.
    pub identity: Identity,
}

impl Request {
    /// A header as text; none where it is missing, comes more than once or is not ASCII text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        only_text(&self.headers, name)
    }

    /// The media type of the body without its parameters, in lower case.
    pub fn content_type(&self) -> Option<String> {
        let value = self.header(header::CONTENT_TYPE)?;
        Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
    }
}

/// The text of a header that must not come twice.
pub(crate) fn only_text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    first.to_str().ok()
}
