//! A client of V8's inspector in a Node process: one session over a WebSocket on loopback, or over a Unix socket on which the
//! process itself opened it to us and to nobody else.
//!
//! | part       | what it is for                                             | pure |
//! |------------|------------------------------------------------------------|------|
//! | `session`  | the connection: calls, replies, streamed chunks, deadlines | no   |
//! | `commands` | the few commands leakslope sends                           | no   |
//!
//! Every step has a deadline and every message a size limit; a snapshot's chunks go to a writer as they come and are not
//! kept. Events that nobody asked for are dropped. One session is used by one caller at a time, so nothing is queued here.
//!
//! It refuses to open an inspector (that is `take`'s, after its checks), to debug (no breakpoint, no pause, no `Debugger`
//! domain at all) and to follow an address the app hands out: only the target's id is taken from its answer.

mod commands;
mod session;

use std::time::Duration;

use thiserror::Error;

pub use self::commands::{Before, HeapUsage, LoopDelay, Outside, Stopped, Written};
pub use self::session::{Inspector, Stream};

/// Why a step of a session failed.
#[derive(Debug, Error)]
#[error("the inspector at {address}: {kind}")]
pub struct InspectorError {
    /// Where it listens, or which process it is in.
    pub address: String,
    /// What happened.
    pub kind: InspectorErrorKind,
}

/// What happened.
#[derive(Debug, Error)]
pub enum InspectorErrorKind {
    /// Nobody listens, or what listens is no inspector.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It lists no target that could be talked to.
    #[error("it offers nothing to attach to")]
    NoTarget,
    /// A step took too long.
    #[error("no answer to {step} within {} ms", limit.as_millis())]
    Deadline {
        /// Which step.
        step: &'static str,
        /// Its deadline.
        limit: Duration,
    },
    /// The connection ended: the process has exited, or its inspector was closed.
    #[error("the connection ended during {step}: {reason}")]
    Closed {
        /// Which step.
        step: &'static str,
        /// What the system or the other side said.
        reason: String,
    },
    /// It said no.
    #[error("{method} was turned down: {message}")]
    Refused {
        /// The command.
        method: &'static str,
        /// V8's words.
        message: String,
    },
    /// What was evaluated threw.
    #[error("what was evaluated threw: {0}")]
    Thrown(String),
    /// An answer of another shape than documented.
    #[error("the answer to {method} cannot be read: {reason}")]
    Unreadable {
        /// The command.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// More came than was allowed.
    #[error("the answer to {method} is longer than {limit} bytes")]
    TooLarge {
        /// The command.
        method: &'static str,
        /// The limit.
        limit: u64,
    },
    /// What came could not be written on.
    #[error("writing failed: {0}")]
    Write(#[source] std::io::Error),
}
