//! The steady time line across restarts of the sidecar and of the machine. Pure: the clocks are arguments.

use serde::{Deserialize, Serialize};

use model::{Steady, WallTime};

/// Where the steady line was last seen, so that the next start can go on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAnchor {
    /// The kernel's name for this boot of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Milliseconds to add to the boot clock to get the steady line, valid within that boot.
    pub offset: i64,
    /// The latest instant known.
    pub last: Steady,
    /// The wall clock at that instant.
    pub last_wall: WallTime,
}

impl ClockAnchor {
    /// Starts or resumes the line.
    ///
    /// Within one boot the line goes on exactly, whatever the wall clock did. After a reboot nothing steady spans the
    /// gap, so the wall clock's advance is taken for it; a wall clock that went back counts as no time at all. The
    /// result never lies before the last instant known. Without an earlier anchor the line starts at the wall clock.
    pub fn resume(earlier: Option<&Self>, boot_id: &str, boot_clock: i64, wall: WallTime) -> Self {
        let now = match earlier {
            Some(earlier) if earlier.boot_id == boot_id => {
                Steady(boot_clock.saturating_add(earlier.offset)).max(earlier.last)
            }
            Some(earlier) => Steady(earlier.last.0.saturating_add(wall.0.saturating_sub(earlier.last_wall.0).max(0))),
            None => Steady(wall.0),
        };
        Self { boot_id: boot_id.to_owned(), offset: now.0.saturating_sub(boot_clock), last: now, last_wall: wall }
    }

    /// The steady instant of a reading of the boot clock.
    pub fn at(&self, boot_clock: i64) -> Steady {
        Steady(boot_clock.saturating_add(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_goes_on() {
        let first = ClockAnchor::resume(None, "a", 500, WallTime(1_000_000));
        assert_eq!((first.at(500), first.at(560)), (Steady(1_000_000), Steady(1_000_060)));
        let saved = ClockAnchor { last: Steady(1_000_060), last_wall: WallTime(1_000_060), ..first };
        for (name, boot_id, boot_clock, wall, expected) in [
            ("same boot", "a", 700, 1_000_200, 1_000_200),
            ("same boot, wall clock a year ahead", "a", 700, 1_000_000_000, 1_000_200),
            ("same boot, wall clock back", "a", 700, 3, 1_000_200),
            ("same boot, boot clock before the last instant", "a", 510, 1_000_200, 1_000_060),
            ("reboot", "b", 10, 1_000_100, 1_000_100),
            ("reboot, wall clock back", "b", 10, 5, 1_000_060),
            ("extremes", "b", i64::MIN, i64::MAX, i64::MAX),
        ] {
            let resumed = ClockAnchor::resume(Some(&saved), boot_id, boot_clock, WallTime(wall));
            assert_eq!(resumed.last, Steady(expected), "{name}");
            assert!(resumed.last >= saved.last, "{name}");
        }
    }
}
