//! The minutes of one life, unpacked into a series for each signal.

use crate::history::ProcessHistory;
use model::{Basis, Signal};

use crate::stats::{Floors, MOST, as_f64, median};

/// The minutes of the current life that are still held. Index 0 is the oldest; the life may have begun before.
#[derive(Debug)]
pub(super) struct Frame {
    resident: Vec<f32>,
    native: Vec<f32>,
    heap: Vec<f32>,
    used: Vec<f32>,
    pub(super) load: Vec<f32>,
    /// Minutes of the life that lie before index 0.
    pub(super) before: usize,
    /// Where heap figures come from.
    pub(super) basis: Basis,
}

impl Frame {
    /// Unpacks the current life; none where there is none or it has no minute yet.
    pub(super) fn of(history: &ProcessHistory) -> Option<Self> {
        let current = history.current()?;
        let ring = history.minutes();
        let from = current.first_minute.max(ring.oldest()?);
        let held = usize::try_from(ring.newest()? + 1 - from).ok().filter(|held| *held > 0)?;
        let mut frame = Self {
            resident: Vec::with_capacity(held),
            native: Vec::with_capacity(held),
            heap: Vec::with_capacity(held),
            used: Vec::with_capacity(held),
            load: Vec::with_capacity(held),
            before: usize::try_from(from - current.first_minute).unwrap_or(0),
            basis: Basis::ResidentOnly,
        };
        let exact_from = current.exact_since.unwrap_or(i64::MIN);
        let load_from = current.requests_since.unwrap_or(i64::MIN);
        let mut has_heap = false;
        for minute in ring.since(from) {
            let heap = if minute.minute < exact_from { f32::NAN } else { minute.heap_floor };
            has_heap |= !heap.is_nan();
            frame.resident.push(minute.resident);
            frame.native.push(current.native_of(&minute));
            frame.heap.push(heap);
            frame.used.push(minute.heap_used);
            frame.load.push(if minute.minute < load_from { f32::NAN } else { minute.load });
        }
        if has_heap {
            frame.basis = if current.exact_since.is_some() { Basis::MajorGc } else { Basis::SampledHeap };
        }
        Some(frame)
    }

    /// Minutes held.
    pub(super) fn len(&self) -> usize {
        self.resident.len()
    }

    /// Minutes since the life began.
    pub(super) fn age(&self) -> usize {
        self.before + self.len()
    }

    pub(super) fn series(&self, signal: Signal) -> Series<'_> {
        match signal {
            Signal::Resident => Series { lowest: Some(&self.resident), middle: None },
            Signal::Heap => Series { lowest: Some(&self.heap), middle: None },
            Signal::Native => Series { lowest: None, middle: Some(&self.native) },
            Signal::Footprint => Series { lowest: Some(&self.heap), middle: Some(&self.native) },
        }
    }

    /// The heap as polled, garbage included, though collections are known.
    pub(super) fn polled(&self, signal: Signal) -> Series<'_> {
        match signal {
            Signal::Heap => Series { lowest: Some(&self.used), middle: None },
            Signal::Footprint => Series { lowest: Some(&self.used), middle: Some(&self.native) },
            Signal::Resident | Signal::Native => self.series(signal),
        }
    }

    /// The index at which warm-up is over: `least` minutes or a tenth of the age after the start, or the oldest minute.
    pub(super) fn warm(&self, least: u32) -> usize {
        (least as usize).max(self.age() / 10).saturating_sub(self.before)
    }

    /// The newest figure of a signal that is not missing.
    pub(super) fn latest(&self, signal: Signal) -> Option<f64> {
        let series = self.series(signal);
        let newest = |figures: &[f32]| figures.iter().rposition(|figure| !figure.is_nan());
        let at = newest(series.lowest.or(series.middle)?)?;
        Some(series.floor(at, at + 1)).filter(|floor| floor.is_finite())
    }
}

/// A signal as two parts, either of which may be missing: one that is read at its lowest, because what lies above is
/// garbage, and one that is read at its middle, because its lowest figure is a glitch of the committed heap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series<'a> {
    lowest: Option<&'a [f32]>,
    middle: Option<&'a [f32]>,
}

/// Least minutes of native memory whose middle is taken.
const MIDDLE_OF: usize = 5;
/// Most figures that a middle is taken of.
const MOST_OF_MIDDLE: usize = 31;

impl Series<'_> {
    /// The floor of the minutes `from..to`; infinite where nothing was measured.
    pub(super) fn floor(&self, from: usize, to: usize) -> f64 {
        let low = self.lowest.map_or(0.0, |figures| f64::from(lowest(&figures[from..to])));
        if low.is_infinite() {
            return low;
        }
        low + self.middle.map_or(0.0, |figures| middle(&figures[from.min(to.saturating_sub(MIDDLE_OF))..to]))
    }

    /// The floor in each of `count` equal buckets of `from..to`, with the minute it fell into. Buckets without figures
    /// are left out.
    pub(super) fn floors(&self, from: usize, to: usize, count: usize) -> Floors {
        let mut floors = Floors::new();
        let count = count.clamp(1, MOST);
        let span = to.saturating_sub(from);
        for bucket in 0..count {
            let (start, end) = (from + bucket * span / count, from + (bucket + 1) * span / count);
            if start == end {
                continue;
            }
            let floor = self.floor(start, end);
            if floor.is_finite() {
                let place = self.lowest.map_or((end - start) / 2, |figures| {
                    let lowest = lowest(&figures[start..end]);
                    #[allow(clippy::float_cmp, reason = "the minimum is one of the figures")]
                    figures[start..end].iter().position(|value| *value == lowest).unwrap_or(0)
                });
                floors.push(as_f64(start + place), floor);
            }
        }
        floors
    }
}

/// The median of at most [`MOST_OF_MIDDLE`] figures spread over the slice; infinite where there is none.
fn middle(figures: &[f32]) -> f64 {
    let mut sample = [0.0; MOST_OF_MIDDLE];
    let mut count = 0;
    let step = figures.len().div_ceil(MOST_OF_MIDDLE).max(1);
    for figure in figures.iter().step_by(step).filter(|figure| !figure.is_nan()) {
        sample[count] = f64::from(*figure);
        count += 1;
    }
    if count == 0 { f64::INFINITY } else { median(&mut sample[..count]) }
}

/// The smallest figure; infinite where there is none. Eight lanes at a time, for this is where most time goes.
fn lowest(figures: &[f32]) -> f32 {
    // A comparison with NaN is false, so missing minutes drop out by themselves.
    let smaller = |lowest: f32, value: f32| if value < lowest { value } else { lowest };
    let mut lanes = [f32::INFINITY; 8];
    let (chunks, rest) = figures.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = smaller(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::INFINITY, smaller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_take_their_minimum_and_skip_gaps() {
        let figures = [5.0, 4.0, f32::NAN, f32::NAN, 7.0, 6.0];
        let floors = Series { lowest: Some(&figures), middle: None }.floors(0, 6, 3);
        assert_eq!(floors.value(), &[4.0, 6.0]);
        assert_eq!(floors.at(), &[1.0, 5.0]);
    }
}
