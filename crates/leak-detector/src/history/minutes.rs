//! The ring of minutes: the last hours of one process, packed.
//!
//! A row of five figures takes 14 bytes instead of the 28 of a [`Minute`]: memory is a float with 16 bits of mantissa
//! (a step of 1 KiB at 100 MiB), load one with eight. Three days of minutes so take 59 KiB. The ring refuses to know
//! what a life is or where minutes come from.

use model::Minute;

/// Bytes of one packed row.
const ROW: usize = 14;
/// Rows by which the ring grows until it is full: as many as it holds, but …
const FIRST: usize = 30;
/// … no more than this. Many processes never grow old.
const STEP: usize = 360;

/// A bounded run of consecutive minutes, the newest last. Minutes without figures hold `NaN`.
#[derive(Debug, Clone)]
pub struct MinuteRing {
    rows: Vec<[u8; ROW]>,
    capacity: usize,
    origin: i64,
    newest: Option<i64>,
}

impl MinuteRing {
    /// Makes an empty ring for at most `capacity` minutes (at least one). Memory is taken as it fills.
    pub fn new(capacity: usize) -> Self {
        Self { rows: Vec::new(), capacity: capacity.max(1), origin: 0, newest: None }
    }

    /// Returns the newest minute held.
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    /// Returns the oldest minute held.
    pub fn oldest(&self) -> Option<i64> {
        Some(self.newest? + 1 - i64::try_from(self.rows.len()).unwrap_or(i64::MAX))
    }

    /// Returns how many minutes are held, empty ones included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the bytes of memory taken on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * ROW
    }

    /// Puts a minute in its place: after the newest one (a gap is filled with empty minutes), or into a minute held
    /// already, where only the floors can still sink. Minutes older than the ring are dropped. Returns whether it was
    /// taken.
    pub fn put(&mut self, minute: &Minute) -> bool {
        let Some(newest) = self.newest else {
            self.start(minute);
            return true;
        };
        if minute.minute <= newest {
            return self.merge(minute);
        }
        let gap = minute.minute.saturating_sub(newest).saturating_sub(1);
        if gap >= i64::try_from(self.capacity).unwrap_or(i64::MAX) {
            self.rows.clear();
            self.start(minute);
            return true;
        }
        for empty in newest + 1..minute.minute {
            self.append(&Minute::empty(empty));
        }
        self.append(minute);
        true
    }

    /// Returns the minute, where it is held; empty minutes included.
    pub fn get(&self, minute: i64) -> Option<Minute> {
        let slot = self.slot(minute)?;
        Some(unpack(minute, &self.rows[slot]))
    }

    /// Iterates over the minutes held from `from` on, oldest first, empty ones included.
    pub fn since(&self, from: i64) -> impl Iterator<Item = Minute> + '_ {
        let first = self.oldest().map_or(0, |oldest| from.max(oldest));
        let start = self.slot(first).unwrap_or(self.rows.len());
        let count = self.newest.map_or(0, |newest| usize::try_from(newest + 1 - first).unwrap_or(0));
        // The rows from the first one's slot to the end of the buffer, then those that wrapped around.
        let (wrapped, straight) = self.rows.split_at(start);
        (first..).zip(straight.iter().chain(wrapped).take(count)).map(|(minute, row)| unpack(minute, row))
    }

    fn start(&mut self, minute: &Minute) {
        self.origin = minute.minute;
        self.newest = Some(minute.minute);
        self.rows.reserve_exact(FIRST.min(self.capacity));
        self.rows.push(pack(minute));
    }

    fn append(&mut self, minute: &Minute) {
        self.newest = Some(minute.minute);
        if self.rows.len() < self.capacity {
            if self.rows.len() == self.rows.capacity() {
                let step = self.rows.len().clamp(FIRST, STEP);
                self.rows.reserve_exact(step.min(self.capacity - self.rows.len()));
            }
            self.rows.push(pack(minute));
        } else if let Some(slot) = self.slot(minute.minute) {
            self.rows[slot] = pack(minute);
        }
    }

    fn merge(&mut self, late: &Minute) -> bool {
        let Some(slot) = self.slot(late.minute) else { return false };
        let mut held = unpack(late.minute, &self.rows[slot]);
        held.resident = held.resident.min(late.resident);
        held.heap_floor = held.heap_floor.min(late.heap_floor);
        for (mean, other) in
            [(&mut held.native, late.native), (&mut held.heap_used, late.heap_used), (&mut held.load, late.load)]
        {
            if mean.is_nan() {
                *mean = other;
            }
        }
        self.rows[slot] = pack(&held);
        true
    }

    fn slot(&self, minute: i64) -> Option<usize> {
        let (oldest, newest) = (self.oldest()?, self.newest?);
        if minute < oldest || minute > newest {
            return None;
        }
        let capacity = i64::try_from(self.capacity).unwrap_or(i64::MAX);
        usize::try_from((minute - self.origin).rem_euclid(capacity)).ok()
    }
}

/// Keeps the upper 24 bits of a float, rounded; `NaN` stays `NaN`.
fn pack24(value: f32) -> [u8; 3] {
    let bits = if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits().saturating_add(0x80) };
    let [a, b, c, _] = bits.to_be_bytes();
    [a, b, c]
}

fn pack16(value: f32) -> [u8; 2] {
    let bits = if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits().saturating_add(0x8000) };
    let [a, b, ..] = bits.to_be_bytes();
    [a, b]
}

fn pack(minute: &Minute) -> [u8; ROW] {
    let mut row = [0; ROW];
    row[0..3].copy_from_slice(&pack24(minute.resident));
    row[3..6].copy_from_slice(&pack24(minute.native));
    row[6..9].copy_from_slice(&pack24(minute.heap_floor));
    row[9..12].copy_from_slice(&pack24(minute.heap_used));
    row[12..14].copy_from_slice(&pack16(minute.load));
    row
}

fn unpack(minute: i64, row: &[u8; ROW]) -> Minute {
    let wide = |at: usize| f32::from_be_bytes([row[at], row[at + 1], row[at + 2], 0]);
    Minute {
        minute,
        resident: wide(0),
        native: wide(3),
        heap_floor: wide(6),
        heap_used: wide(9),
        load: f32::from_be_bytes([row[12], row[13], 0, 0]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(minute: i64, resident: f32) -> Minute {
        Minute { resident, ..Minute::empty(minute) }
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_and_fills_gaps() {
        let mut ring = MinuteRing::new(4);
        for minute in [10, 11, 13, 14, 15] {
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let value = minute as f32;
            assert!(ring.put(&row(minute, value)));
        }
        let seen: Vec<(i64, f32)> = ring.since(0).map(|m| (m.minute, m.resident)).collect();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0].0, 12);
        assert!(seen[0].1.is_nan());
        assert_eq!(&seen[1..], &[(13, 13.0), (14, 14.0), (15, 15.0)]);
        assert_eq!(ring.get(11), None);
        assert!(!ring.put(&row(3, 1.0)), "older than the ring");
    }

    #[test]
    fn late_figures_only_lower_floors() {
        let mut ring = MinuteRing::new(10);
        ring.put(&row(1, 100.0));
        ring.put(&row(2, 100.0));
        assert!(ring.put(&row(1, 90.0)));
        assert!(ring.put(&row(2, 110.0)));
        assert_eq!(ring.since(0).map(|m| m.resident).collect::<Vec<_>>(), [90.0, 100.0]);
    }

    #[test]
    fn a_gap_longer_than_the_ring_starts_it_anew() {
        let mut ring = MinuteRing::new(5);
        ring.put(&row(1, 1.0));
        ring.put(&row(i64::MAX - 1, 2.0));
        assert_eq!(ring.len(), 1);
        assert_eq!(ring.oldest(), Some(i64::MAX - 1));
    }

    #[test]
    fn three_days_take_less_than_sixty_kibibytes() {
        let mut ring = MinuteRing::new(4320);
        for minute in 0..10_000 {
            ring.put(&row(minute, 1.0));
        }
        assert_eq!(ring.heap_bytes(), 4320 * ROW);
        assert!(ring.heap_bytes() < 60 << 10);
    }

    proptest! {
        #[test]
        fn packing_keeps_memory_to_one_part_in_sixty_thousand(value in 1.0e3f32..1.0e13) {
            let back = unpack(0, &pack(&Minute { resident: value, native: -value, ..Minute::empty(0) }));
            prop_assert!((back.resident / value - 1.0).abs() < 1.0 / 60_000.0);
            prop_assert!((back.native / -value - 1.0).abs() < 1.0 / 60_000.0);
            prop_assert!(back.heap_floor.is_nan() && back.load.is_nan());
        }
    }
}
