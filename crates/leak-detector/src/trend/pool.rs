//! Lives that were cut short, taken together: a leak that daily restarts hide shows in every one of them.

use model::{LifeSummary, Signal, Steady};

use super::settings::Settings;
use super::shape::halves;
use crate::stats::{Floors, kendall, kendall_variance, theil_sen};

/// What the last lives say together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooled {
    /// Lives that grew, of those looked at.
    pub(super) grew: usize,
    pub(super) lives: usize,
    /// Median growth in bytes per minute.
    pub(super) slope: f64,
    /// Minutes the newest of them lasted.
    pub(super) lasted: f64,
}

/// Takes the last four lives together: at least three must have grown by a tenth without levelling off, and their
/// rank statistics must agree.
pub(super) fn pooled<'a>(
    earlier: impl DoubleEndedIterator<Item = &'a LifeSummary>,
    signal: Signal,
    now: Steady,
    settings: &Settings,
) -> Option<Pooled> {
    let minutes = |from: Steady, to: Steady| to.since(from).as_secs_f64() / settings.minute_seconds();
    let (mut sum, mut variance, mut grew, mut steady, mut lives) = (0.0, 0.0, 0, 0, 0);
    let mut lasted = None;
    let mut slopes = [0.0; 4];
    for life in earlier.rev().take(4) {
        let floors = if signal == Signal::Resident { &life.resident_floors } else { &life.floors };
        let duration = minutes(life.first, life.last);
        let mut series = Floors::new();
        for (part, floor) in (0_u32..).zip(floors) {
            series.push(f64::from(part), f64::from(*floor));
        }
        if series.len() < 4 || minutes(life.last, now) >= 2880.0 {
            continue;
        }
        lasted.get_or_insert(duration);
        let slope = theil_sen(series.at(), series.value());
        let span = series.at()[series.len() - 1] - series.at()[0];
        let (first, second) = halves(&series);
        let ratio = if first > 0.0 { second / first } else { f64::from(u8::from(second > 0.0)) * 9.0 };
        sum += kendall(series.value());
        variance += kendall_variance(series.len());
        grew += usize::from(slope * span / f64::from(life.resident_max).max(1.0) > 0.10);
        steady += usize::from(ratio > 0.5);
        slopes[lives] = slope * 16.0 / (0.8 * duration).max(1.0);
        lives += 1;
    }
    let lasted = lasted?;
    let agree = variance > 0.0 && sum / f64::sqrt(variance) > 3.5;
    (grew >= 3 && steady >= 3 && agree).then(|| Pooled {
        grew,
        lives,
        slope: crate::stats::median(&mut slopes[..lives]),
        lasted,
    })
}
