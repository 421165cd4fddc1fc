//! The slope and the verdict: is a process leaking, how fast, until when, and why we say so.
//!
//! Pure: a [`crate::history::ProcessHistory`], limits, settings and `now` go in, a [`model::Verdict`] comes out. The design and
//! its measured figures are in `docs/detection.md`. This room refuses to read a clock, to know of pm2 and to act.

mod cause;
pub mod compare;
mod detector;
mod frame;
mod limits;
mod pool;
mod reason;
mod reference;
mod replay;
mod settings;
mod shape;
mod short_run;
mod trial;

pub use cause::cause;
pub use detector::{Detector, first_verdict_after};
pub use limits::Limits;
pub use replay::{Episode, Fed, Replay};
pub use settings::{Grade, Settings};
pub use short_run::{
    FEWEST as FEWEST_FLOORS, PerWork, ShortAnswer, ShortFloor, ShortSettings, ShortVerdict, judge_short, pause_share,
};
pub use trial::TESTS;
