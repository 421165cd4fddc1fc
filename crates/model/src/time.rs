//! Two kinds of time that never mix.
//!
//! [`Steady`] orders and measures: it never goes back and never jumps, whatever happens to the wall clock. [`WallTime`]
//! is for calendars, logs and people. Only `runtime` makes either of them from a clock; everyone else gets them
//! as arguments.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds on the sidecar's own steady time line.
///
/// The line is anchored near the Unix epoch when a state directory is first used and from then on advances with the
/// system's boot clock, so it survives a restart of the sidecar and ignores steps of the wall clock. To show it to a
/// person, add the offset that `runtime`'s clock publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub i64);

impl Steady {
    /// The minute that contains this instant, as whole minutes on the steady line.
    pub fn minute(self) -> i64 {
        self.0.div_euclid(60_000)
    }

    /// Returns how long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Seconds on the steady line.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay far below 2^53")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl Add<Duration> for Steady {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Steady {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Milliseconds since the Unix epoch as the wall clock says; may step in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// Seconds since the Unix epoch, the base unit of Prometheus timestamps.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 stay far below 2^53")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// RFC 3339 text in UTC, to the second; the number of milliseconds where the calendar does not reach.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .map_or_else(|_out_of_range| format!("{} ms", self.0), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}
