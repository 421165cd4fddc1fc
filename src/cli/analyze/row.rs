//! One row of a recording, and how rows become the samples of one life after another.
//!
//! Pure. It knows nothing of files or formats; it refuses to judge.

use std::collections::BTreeSet;

use crate::history::Sample;
use crate::model::{Bytes, Life, Steady};

/// One look at a process as it was recorded. `NaN` means that a figure was not measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// When, on the recording's own line of time.
    pub(super) at: Steady,
    /// Which life, numbered in the order in which the file names them; zero where it names none.
    pub(super) life: u32,
    /// Major collections so far; `u32::MAX` where they were not measured.
    pub(super) major_gcs: u32,
    /// Resident memory in bytes.
    pub(super) resident: f64,
    /// V8's used heap in bytes.
    pub(super) heap_used: f64,
    /// V8's committed heap in bytes.
    pub(super) heap_total: f64,
    /// Heap right after the latest major collection in bytes; zero before the first.
    pub(super) post_gc: f64,
}

/// The value of [`Row::major_gcs`] where they were not measured.
pub(super) const NO_GCS: u32 = u32::MAX;

impl Row {
    /// A row in which nothing was measured.
    pub(super) const fn empty(at: Steady) -> Self {
        Self {
            at,
            life: 0,
            major_gcs: NO_GCS,
            resident: f64::NAN,
            heap_used: f64::NAN,
            heap_total: f64::NAN,
            post_gc: f64::NAN,
        }
    }
}

/// What a recording can hold beside the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Column {
    Resident,
    HeapUsed,
    HeapTotal,
    PostGc,
    MajorGcs,
    Life,
}

impl Column {
    /// Every column, in the order the documentation names them.
    pub(super) const ALL: [Self; 6] =
        [Self::Resident, Self::HeapUsed, Self::HeapTotal, Self::PostGc, Self::MajorGcs, Self::Life];

    /// The name in a header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident_memory_bytes",
            Self::HeapUsed => "heap_used_bytes",
            Self::HeapTotal => "heap_total_bytes",
            Self::PostGc => "post_gc_heap_used_bytes",
            Self::MajorGcs => "major_gcs",
            Self::Life => "life",
        }
    }
}

/// Turns rows, in order of time, into samples.
#[derive(Debug)]
pub(super) struct Intake {
    has: BTreeSet<Column>,
    restart_drop: Option<f64>,
    life: u32,
    named: Option<u32>,
    over: BTreeSet<u32>,
    gcs: Option<u32>,
    counted: u32,
    post_gc: f64,
    resident: f64,
    most_used: f64,
    down: bool,
    returns: u64,
    falls: u64,
}

impl Intake {
    /// Makes an intake for a recording with the columns of `has`. Where `restart_drop` is given, a fall of resident
    /// memory by that share from one row to the next starts a new life.
    pub(super) fn new(has: BTreeSet<Column>, restart_drop: Option<f64>) -> Self {
        Self {
            has,
            restart_drop,
            life: 1,
            named: None,
            over: BTreeSet::new(),
            gcs: None,
            counted: 0,
            post_gc: 0.0,
            resident: f64::NAN,
            most_used: f64::NAN,
            down: false,
            returns: 0,
            falls: 0,
        }
    }

    /// Returns the sample of a row; none where the row says that the process did not run (no resident memory at all).
    pub(super) fn sample(&mut self, row: &Row) -> Option<Sample> {
        if row.resident == 0.0 {
            self.down = true;
            return None;
        }
        if self.restarted(row) {
            self.life += 1;
            (self.gcs, self.counted, self.post_gc, self.most_used) = (None, 0, 0.0, f64::NAN);
        }
        if row.major_gcs != NO_GCS {
            self.gcs = Some(row.major_gcs);
        }
        if !row.resident.is_nan() {
            self.resident = row.resident;
        }
        let mut sample = Sample::empty(Life { pid: self.life, started: i64::from(self.life) });
        sample.held = bytes(row.resident);
        if !self.has.contains(&Column::Resident) {
            // Heap figures alone: the committed heap stands for the whole process, so that nothing of it is native.
            let heap = [row.heap_total, row.heap_used, row.post_gc].into_iter().find(|figure| *figure > 0.0);
            sample.held = heap.and_then(bytes);
            sample.heap_total = sample.held;
        } else if self.has.contains(&Column::HeapTotal) {
            sample.heap_total = bytes(row.heap_total);
        } else if self.has.contains(&Column::HeapUsed) {
            // The committed heap follows the most that was ever used of it. Where it has shrunk since, native memory
            // is taken for less than it is, which never looks like growth.
            self.most_used = self.most_used.max(row.heap_used);
            sample.heap_total = bytes(self.most_used).filter(|_| !row.heap_used.is_nan());
        } else {
            // Nobody can tell the heap from native memory: resident memory has to do.
            return Some(sample);
        }
        sample.heap_used = bytes(row.heap_used);
        if self.has.contains(&Column::PostGc) {
            sample.heap_after_major_gc = bytes(row.post_gc).filter(|heap| *heap > Bytes(0));
            sample.major_gcs = self.collections(row).map(u64::from);
        }
        Some(sample)
    }

    /// Lives begun so far.
    pub(super) fn lives(&self) -> u32 {
        self.life
    }

    /// Times that a life was named again after another one had begun.
    pub(super) fn returns(&self) -> u64 {
        self.returns
    }

    /// Falls of resident memory to less than half from one row to the next, in a recording that does not tell lives
    /// apart.
    pub(super) fn falls(&self) -> u64 {
        self.falls
    }

    fn restarted(&mut self, row: &Row) -> bool {
        let mut restarted = std::mem::take(&mut self.down) && self.resident > 0.0;
        if row.life != 0 {
            if let Some(named) = self.named.filter(|named| *named != row.life) {
                restarted = true;
                self.over.insert(named);
                self.returns += u64::from(self.over.contains(&row.life));
            }
            self.named = Some(row.life);
        } else if !self.has.contains(&Column::Life) {
            restarted |= row.major_gcs != NO_GCS && self.gcs.is_some_and(|before| row.major_gcs < before);
            restarted |= self.restart_drop.is_some_and(|share| row.resident < (1.0 - share) * self.resident);
            self.falls += u64::from(!restarted && row.resident < 0.5 * self.resident);
        }
        restarted
    }

    /// Major collections so far: as recorded, or, where nobody counted, the times the heap after one was seen to
    /// change.
    fn collections(&mut self, row: &Row) -> Option<u32> {
        if self.has.contains(&Column::MajorGcs) {
            return (row.major_gcs != NO_GCS).then_some(row.major_gcs);
        }
        if row.post_gc.is_nan() {
            return None;
        }
        if row.post_gc > 0.0 && row.post_gc.to_bits() != self.post_gc.to_bits() {
            self.counted += 1;
            self.post_gc = row.post_gc;
        }
        Some(self.counted)
    }
}

fn bytes(figure: f64) -> Option<Bytes> {
    (!figure.is_nan()).then(|| Bytes::from_f64(figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(has: &[Column], drop: Option<f64>, rows: &[Row]) -> Vec<Option<u32>> {
        let mut intake = Intake::new(has.iter().copied().collect(), drop);
        rows.iter().map(|row| intake.sample(row).map(|sample| sample.life.pid)).collect()
    }

    fn row(resident: f64, life: u32, major_gcs: u32) -> Row {
        Row { life, major_gcs, resident, ..Row::empty(Steady(0)) }
    }

    #[test]
    fn a_life_ends_by_name_by_counter_by_a_stop_and_by_a_fall_where_told() {
        use Column::{Life, MajorGcs, Resident};
        let named = [row(5.0, 1, 9), row(5.0, 1, 2), row(5.0, 0, 2), row(5.0, 2, 3)];
        assert_eq!(lives(&[Resident, MajorGcs, Life], None, &named), [Some(1), Some(1), Some(1), Some(2)]);
        let counted = [row(5.0, 0, 9), row(5.0, 0, NO_GCS), row(5.0, 0, 9), row(5.0, 0, 0), row(5.0, 0, 1)];
        assert_eq!(lives(&[Resident, MajorGcs], None, &counted), [Some(1), Some(1), Some(1), Some(2), Some(2)]);
        let stopped = [row(0.0, 0, NO_GCS), row(5.0, 0, NO_GCS), row(0.0, 0, NO_GCS), row(6.0, 0, NO_GCS)];
        assert_eq!(lives(&[Resident], None, &stopped), [None, Some(1), None, Some(2)]);
        let fallen = [row(100.0, 0, NO_GCS), row(f64::NAN, 0, NO_GCS), row(30.0, 0, NO_GCS), row(29.0, 0, NO_GCS)];
        assert_eq!(lives(&[Resident], Some(0.6), &fallen), [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(lives(&[Resident], None, &fallen), [Some(1), Some(1), Some(1), Some(1)]);
    }

    #[test]
    fn collections_are_counted_where_the_recording_does_not() {
        let mut intake = Intake::new([Column::Resident, Column::HeapTotal, Column::PostGc].into(), None);
        let seen: Vec<_> = [0.0, 7.0, 7.0, f64::NAN, 8.0]
            .into_iter()
            .map(|post_gc| {
                let row = Row { resident: 9.0, heap_total: 8.0, post_gc, ..Row::empty(Steady(0)) };
                let sample = intake.sample(&row).expect("running");
                (sample.major_gcs, sample.heap_after_major_gc.map(|heap| heap.0))
            })
            .collect();
        assert_eq!(seen, [(Some(0), None), (Some(1), Some(7)), (Some(1), Some(7)), (None, None), (Some(2), Some(8))]);
    }

    #[test]
    fn heap_figures_alone_leave_nothing_native_and_resident_memory_without_the_heap_s_size_stands_alone() {
        let row = Row { resident: 9.0, heap_used: 4.0, post_gc: 3.0, ..Row::empty(Steady(0)) };
        let heap = Intake::new([Column::HeapUsed].into(), None).sample(&row).expect("running");
        assert_eq!((heap.held, heap.heap_total, heap.heap_used), (Some(Bytes(4)), Some(Bytes(4)), Some(Bytes(4))));
        let partly = Intake::new([Column::Resident, Column::PostGc].into(), None).sample(&row).expect("running");
        assert_eq!((partly.held, partly.heap_total, partly.heap_used), (Some(Bytes(9)), None, None));
    }

    #[test]
    fn the_most_that_was_used_stands_for_the_heap_s_size() {
        let mut intake = Intake::new([Column::Resident, Column::HeapUsed].into(), None);
        let sizes: Vec<_> = [4.0, 6.0, f64::NAN, 5.0]
            .into_iter()
            .map(|heap_used| {
                let row = Row { resident: 9.0, heap_used, ..Row::empty(Steady(0)) };
                intake.sample(&row).and_then(|sample| sample.heap_total).map(|size| size.0)
            })
            .collect();
        assert_eq!(sizes, [Some(4), Some(6), None, Some(6)]);
    }

    #[test]
    fn a_life_that_comes_back_is_counted() {
        let mut intake = Intake::new([Column::Resident, Column::Life].into(), None);
        for life in [1, 2, 1, 2] {
            intake.sample(&row(5.0, life, NO_GCS));
        }
        assert_eq!((intake.lives(), intake.returns()), (4, 2));
    }
}
