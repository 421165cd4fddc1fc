//! The minutes of one life, unpacked into a series for each signal.

use crate::history::ProcessHistory;
use model::{Basis, Signal};

use crate::stats::{Floors, MOST};

/// The minutes of the current life that are still held. Index 0 is the oldest; the life may have begun before.
#[derive(Debug)]
pub(super) struct Frame {
    resident: Vec<f32>,
    native: Vec<f32>,
    heap: Vec<f32>,
    footprint: Vec<f32>,
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
            footprint: Vec::with_capacity(held),
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
            frame.native.push(minute.native);
            frame.heap.push(heap);
            frame.footprint.push(heap + minute.native);
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

    pub(super) fn series(&self, signal: Signal) -> &[f32] {
        match signal {
            Signal::Resident => &self.resident,
            Signal::Heap => &self.heap,
            Signal::Native => &self.native,
            Signal::Footprint => &self.footprint,
        }
    }

    /// The index at which warm-up is over: `least` minutes or a tenth of the age after the start, or the oldest minute.
    pub(super) fn warm(&self, least: u32) -> usize {
        (least as usize).max(self.age() / 10).saturating_sub(self.before)
    }

    /// The newest figure of a series that is not missing.
    pub(super) fn latest(&self, signal: Signal) -> Option<f64> {
        self.series(signal).iter().rev().find(|value| !value.is_nan()).map(|value| f64::from(*value))
    }
}

/// The minimum of `series` in each of `count` equal buckets of `from..to`, with the minute it fell into. Buckets
/// without figures are left out.
pub(super) fn floors(series: &[f32], from: usize, to: usize, count: usize) -> Floors {
    let mut floors = Floors::new();
    let (to, count) = (to.min(series.len()), count.clamp(1, MOST));
    let span = to.saturating_sub(from);
    for bucket in 0..count {
        let (start, end) = (from + bucket * span / count, from + (bucket + 1) * span / count);
        let bucket = &series[start..end];
        let lowest = lowest(bucket);
        if lowest.is_finite() {
            #[allow(clippy::float_cmp, reason = "the minimum is one of the figures")]
            let place = start + bucket.iter().position(|value| *value == lowest).unwrap_or(0);
            #[allow(clippy::cast_precision_loss, reason = "a ring holds a few thousand minutes")]
            floors.push(place as f64, f64::from(lowest));
        }
    }
    floors
}

/// The smallest figure; infinite where there is none. Eight lanes at a time, for this is where most time goes.
pub(super) fn lowest(figures: &[f32]) -> f32 {
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
        let series = [5.0, 4.0, f32::NAN, f32::NAN, 7.0, 6.0];
        let floors = floors(&series, 0, 6, 3);
        assert_eq!(floors.value(), &[4.0, 6.0]);
        assert_eq!(floors.at(), &[1.0, 5.0]);
    }
}
