//! The only place that reads a clock.

use rustix::time::{ClockId, clock_gettime};

use crate::collect::system::boot_id;
use crate::history::store::ClockAnchor;
use crate::model::{Steady, WallTime};

/// The steady line and the wall clock of this run.
///
/// The steady line follows the boot clock, which also counts while the machine sleeps and never steps.
#[derive(Debug, Clone)]
pub struct Clock {
    anchor: ClockAnchor,
}

impl Clock {
    /// Starts the line, or goes on with the one an earlier run of the sidecar left.
    pub fn resume(earlier: Option<&ClockAnchor>) -> Self {
        Self { anchor: ClockAnchor::resume(earlier, &boot_id(), boot_clock(), wall_clock()) }
    }

    /// The present instant on the steady line.
    pub fn now(&self) -> Steady {
        self.anchor.at(boot_clock())
    }

    /// The present wall time.
    pub fn wall(&self) -> WallTime {
        wall_clock()
    }

    /// The anchor to save, as of now.
    pub fn anchor(&self) -> ClockAnchor {
        ClockAnchor { last: self.now(), last_wall: wall_clock(), ..self.anchor.clone() }
    }
}

fn boot_clock() -> i64 {
    let at = clock_gettime(ClockId::Boottime);
    at.tv_sec.saturating_mul(1000).saturating_add(at.tv_nsec / 1_000_000)
}

/// Asks the C library, as logs do, so that a clock that steps can be put before this one where faults are tried.
fn wall_clock() -> WallTime {
    WallTime(jiff::Timestamp::now().as_millisecond())
}
