//! Lives that were cut short, taken together: a leak that daily restarts hide shows in every one of them.

use model::{LifeEnd, LifeSummary, Signal, Steady};

use super::settings::Settings;
use super::shape::halves;
use crate::stats::{Floors, as_f64, kendall, kendall_variance, median, theil_sen};

/// A run that used this share of its limit ended at it.
const AT_LIMIT: f64 = 0.85;
/// Minutes after which a run no longer counts.
const FORGOTTEN: f64 = 14.0 * 1440.0;

/// What the last lives say together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pooled {
    /// Lives that grew, of those looked at.
    pub(super) grew: usize,
    pub(super) lives: usize,
    /// Lives in a row, the newest first, that grew until they met their limit.
    pub(super) at_limit: usize,
    /// Median growth in bytes per minute.
    pub(super) slope: f64,
    /// Minutes the newest of them lasted.
    pub(super) lasted: f64,
}

/// Takes the last four lives together: two in a row that grew until they met their limit, or three that each grew by a
/// tenth without levelling off and whose rank statistics agree. One that met its limit is enough where `now_growing`, the
/// sure pace of the run of today in bytes per minute, is at least half of its pace.
pub(super) fn pooled<'a>(
    earlier: impl DoubleEndedIterator<Item = &'a LifeSummary>,
    signal: Signal,
    limit: Option<f64>,
    now_growing: impl Fn() -> f64,
    now: Steady,
    settings: &Settings,
) -> Option<Pooled> {
    let minutes = |from: Steady, to: Steady| to.since(from).as_secs_f64() / settings.minute_seconds();
    let (mut sum, mut variance, mut grew, mut steady, mut lives, mut at_limit) = (0.0, 0.0, 0, 0, 0, 0);
    let mut lasted = None;
    let mut slopes = [0.0; 4];
    for life in earlier.rev().take(4) {
        let floors = if signal == Signal::Resident { &life.resident_floors } else { &life.floors };
        let duration = minutes(life.first, life.last);
        let mut series = Floors::new();
        for (part, floor) in (0_u32..).zip(floors) {
            series.push(f64::from(part), f64::from(*floor));
        }
        if series.len() < 4 || minutes(life.last, now) >= FORGOTTEN {
            continue;
        }
        lasted.get_or_insert(duration);
        let slope = theil_sen(series.at(), series.value());
        let span = series.at()[series.len() - 1] - series.at()[0];
        let (first, second) = halves(&series);
        let ratio = if first > 0.0 { second / first } else { f64::from(u8::from(second > 0.0)) * 9.0 };
        let rise = slope * span / f64::from(life.resident_max).max(1.0);
        sum += kendall(series.value());
        variance += kendall_variance(series.len());
        grew += usize::from(rise > 0.10);
        steady += usize::from(ratio > 0.5);
        slopes[lives] = slope * as_f64(floors.len()) / (0.8 * duration).max(1.0);
        let full = limit.is_some_and(|limit| f64::from(life.resident_max) >= AT_LIMIT * limit);
        let cut_short = !matches!(life.end, LifeEnd::RestartedByUs | LifeEnd::Stopped | LifeEnd::Removed);
        at_limit += usize::from(at_limit == lives && full && cut_short && rise > 0.25 && ratio > 0.5);
        lives += 1;
    }
    let lasted = lasted?;
    let agree = variance > 0.0 && sum / f64::sqrt(variance) > 3.5;
    let together = grew >= 3 && steady >= 3 && agree;
    let again = at_limit == 1 && now_growing() >= 0.5 * slopes[0];
    (together || at_limit >= 2 || again).then(|| Pooled {
        grew,
        lives,
        at_limit,
        slope: median(&mut slopes[..lives]),
        lasted,
    })
}
