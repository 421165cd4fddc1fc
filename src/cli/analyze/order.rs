//! Rows that come a little out of order are put in order, within fixed memory.
//!
//! Pure. It refuses to guess: a row that comes later than the memory reaches is handed back as [`TooLate`].

use std::collections::VecDeque;

use super::row::Row;

/// Rows held back while later ones may still belong before them.
pub(super) const HELD: usize = 1024;

/// A row that belongs before rows that were already given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLate;

/// Holds the last [`HELD`] rows in order of time; rows of the same time stay in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    held: VecDeque<Row>,
    given: Option<i64>,
    moved: u64,
}

impl Reorder {
    /// Takes a row in and gives the oldest out once more than [`HELD`] are held.
    ///
    /// # Errors
    /// [`TooLate`] where the row is older than one that was given out.
    pub(super) fn push(&mut self, row: Row) -> Result<Option<Row>, TooLate> {
        if self.held.back().is_none_or(|last| last.at <= row.at) {
            self.held.push_back(row);
        } else {
            if self.given.is_some_and(|given| row.at.0 < given) {
                return Err(TooLate);
            }
            self.moved += 1;
            let place = self.held.partition_point(|held| held.at <= row.at);
            self.held.insert(place, row);
        }
        Ok(if self.held.len() > HELD { self.pop() } else { None })
    }

    /// Gives out the oldest row that is held.
    pub(super) fn pop(&mut self) -> Option<Row> {
        let row = self.held.pop_front()?;
        self.given = Some(row.at.0);
        Some(row)
    }

    /// Rows that came out of order so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Steady;

    fn through(rows: &[Row]) -> Result<Vec<Row>, TooLate> {
        let mut reorder = Reorder::default();
        let mut out = Vec::new();
        for row in rows {
            out.extend(reorder.push(*row)?);
        }
        out.extend(std::iter::from_fn(|| reorder.pop()));
        Ok(out)
    }

    #[test]
    fn a_row_beyond_the_memory_is_refused() {
        let mut rows: Vec<Row> = (1..=1025).map(|at| Row::empty(Steady(at))).collect();
        rows.push(Row::empty(Steady(1)));
        assert!(through(&rows).is_ok(), "the same time as one given out is no harm");
        rows.push(Row::empty(Steady(0)));
        assert_eq!(through(&rows), Err(TooLate));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_sorted_and_stable(times in prop::collection::vec(0_i64..50, 0..200)) {
            let rows: Vec<Row> =
                (0..).zip(&times).map(|(life, at)| Row { life, resident: 0.0, heap_used: 0.0, heap_total: 0.0, post_gc: 0.0, ..Row::empty(Steady(*at)) }).collect();
            let mut expected = rows.clone();
            expected.sort_by_key(|row| row.at);
            prop_assert_eq!(through(&rows), Ok(expected));
        }
    }
}
