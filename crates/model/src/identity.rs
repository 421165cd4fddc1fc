//! Who is who: a daemon, an app, a process and one of its lives.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The configured name of one pm2 daemon, `default` unless told otherwise. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DaemonName(pub Arc<str>);

/// The name pm2 gives an app; several processes share it in cluster mode or by accident. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppName(pub Arc<str>);

macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_name!(DaemonName);
text_name!(AppName);

/// One entry of one pm2 list: pm2 never gives a `pm_id` to two entries at a time. It outlives restarts, and zero is
/// an id like any other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The daemon that lists it.
    pub daemon: DaemonName,
    /// pm2's number for it.
    pub pm_id: u32,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.daemon, self.pm_id)
    }
}

/// One life of a process, from a start to its end: no series may run across two of them.
///
/// A pid alone is reused by the system, a start alone is shared by workers that start together; the pair is unique
/// within a [`ProcessKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The operating system's process id.
    pub pid: u32,
    /// `pm_uptime` as pm2 recorded it at the start: milliseconds since the epoch by the wall clock of that moment. A
    /// name, not a time to reckon with.
    pub started: i64,
}

impl fmt::Display for Life {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.pid, self.started)
    }
}
