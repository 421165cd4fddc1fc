//! Other lives as the reference: where did an earlier life, or another worker of the same version, level off?
//!
//! Growth below a level at which the same code has been seen to stop is no leak. A life that was still growing when it
//! was last seen says nothing.

use std::cell::LazyCell;

use crate::history::ProcessHistory;
use model::{LifeSummary, Signal};

use super::frame::Frame;
use super::settings::Settings;
use crate::stats::median;

/// The running lives of an app's other processes. Condensing them reads all their minutes, so it is done for those only whose
/// growth needs a reference.
pub(super) type Siblings<'a> = LazyCell<Vec<LifeSummary>, Box<dyn FnOnce() -> Vec<LifeSummary> + 'a>>;

/// Whether an earlier life or a sibling of the same version, at least as old as this life is now, levelled off at a
/// floor that this life has not yet passed by a tenth.
pub(super) fn explained(
    history: &ProcessHistory,
    siblings: &Siblings<'_>,
    frame: &Frame,
    signal: Signal,
    settings: &Settings,
) -> bool {
    let about = history.about();
    let Some(floor) = frame.latest(if signal == Signal::Resident { signal } else { Signal::Footprint }) else {
        return false;
    };
    let age = settings.span(crate::stats::as_f64(frame.age()));
    let explains = |life: &LifeSummary| {
        life.version == about.version
            && life.revision == about.revision
            && life.last.since(life.first) >= age
            && plateau(life, signal).is_some_and(|plateau| floor <= 1.1 * plateau)
    };
    history.earlier().any(explains) || siblings.iter().any(explains)
}

/// The level at which a life stopped growing; none where it did not.
fn plateau(life: &LifeSummary, signal: Signal) -> Option<f64> {
    let floors = match signal {
        Signal::Resident => &life.resident_floors,
        // Without heap figures the summary repeats resident memory, which is no reference for the others.
        Signal::Heap | Signal::Native | Signal::Footprint if life.floors == life.resident_floors => return None,
        Signal::Heap | Signal::Native | Signal::Footprint => &life.floors,
    };
    let known: Vec<f64> = floors.iter().filter(|floor| !floor.is_nan()).map(|floor| f64::from(*floor)).collect();
    if known.len() < 8 {
        return None;
    }
    let quarter = known.len() / 4;
    let level = |part: &[f64]| median(&mut part.to_vec());
    let (middle, end) =
        (level(&known[known.len() / 2 - quarter / 2..][..quarter]), level(&known[known.len() - quarter..]));
    let risen = end - level(&known[..quarter]);
    // The second half added less than a tenth of what the life added, or less than a fiftieth of its level.
    (end - middle <= (0.1 * risen).max(0.02 * end)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Life, LifeEnd, ProcessKey, Steady};

    fn life(floors: impl Fn(f32) -> f32) -> LifeSummary {
        let floors: Vec<f32> = (0_u8..16).map(|part| floors(f32::from(part))).collect();
        LifeSummary {
            key: ProcessKey { daemon: "d".into(), pm_id: 0 },
            app: "app".into(),
            life: Life { pid: 1, started: 1 },
            version: None,
            revision: None,
            first: Steady(0),
            last: Steady(1),
            end: LifeEnd::Restarted,
            resident_floors: floors.iter().map(|floor| floor + 1.0).collect(),
            floors,
            resident_max: 0.0,
            slope: None,
        }
    }

    #[test]
    fn only_a_life_that_stopped_growing_is_a_reference() {
        let filled = plateau(&life(|part| 100.0 + 10.0 * part.min(6.0)), Signal::Footprint);
        assert_eq!(filled, Some(160.0));
        assert_eq!(plateau(&life(|part| 100.0 + 10.0 * part), Signal::Footprint), None);
        assert!(plateau(&life(|part| 100.0 + part / 100.0), Signal::Resident).is_some());
    }
}
