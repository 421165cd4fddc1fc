//! The words every crate of leakslope shares: what a daemon, a process, one run of a process and one collection are.
//!
//! Pure data with the few questions that can be asked of it. This crate refuses to read anything (no clock, no
//! file, no socket) and to decide anything: verdicts live in `leak-detector`, restarts in `restart-policy`.

mod death;
mod history;
mod host;
mod identity;
mod memory;
mod problem;
mod process;
mod snapshot;
mod text;
mod time;
mod units;
mod values;
mod verdict;

pub use death::{Aftermath, Cause, Certainty, DaemonEvent, DaemonLine, Death, Finding, LastSeen, Named, StayedDown};
pub use history::{LifeEnd, LifeSummary, Minute};
pub use host::{HostSample, SelfSample};
pub use identity::{AppName, DEFAULT_NAMESPACE, DaemonName, Life, ProcessKey};
pub use memory::{MemoryByKind, MemoryCause, MemoryKind};
pub use problem::{ConfigError, Problem};
pub use process::{
    AppMetrics, CustomMetric, Ending, GcReport, Listed, MemoryLimits, MemorySource, ProcessSample, Status, SystemSample,
};
pub use snapshot::{CollectorName, CollectorReport, DaemonSample, Orphan, Snapshot};
pub use text::plain;
pub use time::{Steady, WallTime};
pub use units::Bytes;
pub use values::{CronText, Endpoint, Pattern, ProbeAddress, Size, Span, Spoken, ValueError, ValueErrorKind, Zone};
pub use verdict::{Basis, LeakState, Limit, LimitKind, Provisional, Rejection, Signal, Slope, Verdict};
