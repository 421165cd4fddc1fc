//! Carries the policy's orders out and reports back: the shell around `policy`.
//!
//! | part          | what it is for                                                   | pure |
//! |---------------|------------------------------------------------------------------|------|
//! | `driver`      | the loop: inputs to the policy, its orders to the parts below    | no   |
//! | `pm2`         | one reload or restart by a daemon's socket                       | no   |
//! | `serving`     | sockets and probes: does an instance serve                       | no   |
//! | `hook`        | a command before a replacement                                   | no   |
//! | `http`        | requests to others, with a deadline and a limit on everything    | no   |
//! | `promql`      | an instant query's answer                                        | yes, but for asking |
//! | `fleet_lock`  | the FleetLock protocol                                           | yes, but for asking |
//! | `announce`    | a notice as a webhook's text and as an alert                     | yes  |
//!
//! This room refuses to decide: it does what it is told once, and tells what came of it. It sends a daemon nothing but the
//! two fixed requests that replace one process, and never the same one twice.

mod announce;
mod driver;
mod fleet_lock;
mod hook;
mod http;
mod pm2;
mod promql;
mod serving;

pub use driver::{Clock, Closed, Driver, Handle, Keeper, Spec, Verdicts, Witness};
pub use fleet_lock::{LockStep, encode_lock_request, read_lock_reply};
pub use http::{HttpError, HttpErrorKind};
pub use pm2::{Act, replace};
pub use pm2_client::reload_lock::{read_reload_lock, reload_lock_since};
pub use promql::{encode_query, read_instant};
