//! What a handler gets: everything is read, decoded and within its limits.

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AsHeaderName, HeaderMap};

use super::guard::Asker;
use super::peer::Peer;
use super::query::Query;

/// From where a listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only from this machine, by anybody on it, a browser included.
    Loopback,
    /// From other machines too.
    Network,
    /// Only by those who may open a socket file; no browser can.
    Unix,
    /// The same, and only those who may act are answered: the commands' own way.
    Control,
}

/// Who asks, as far as that was checked before the handler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Nobody asked for a name.
    #[default]
    Anonymous,
    /// A user whose password was checked.
    User(String),
    /// Somebody with a bearer token.
    Token,
    /// A browser that was let in by a link.
    Session,
    /// A process of this machine, whose user may act or may not; none where it cannot be told who it is.
    Process {
        /// Its user.
        uid: Option<u32>,
        /// Whether that user may act.
        acts: bool,
    },
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
    /// Who asks, and how.
    pub fn asker(&self) -> Asker<'_> {
        Asker { headers: &self.headers, reach: self.reach, identity: &self.identity }
    }

    /// A header as text; none where it is missing, comes more than once or is not ASCII text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        only_text(&self.headers, name)
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
