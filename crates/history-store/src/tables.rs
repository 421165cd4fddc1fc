//! The tables of the file and the sums kept of them. Everything here runs inside somebody's transaction.
//!
//! | table     | key                            | value |
//! |-----------|--------------------------------|-------|
//! | `meta`    | name                           | format number, sums, clock anchor |
//! | `series`  | daemon, `pm_id`, pid, start    | a number for this life, and the last hour it has minutes in |
//! | `journal` | sequence                       | a batch of minutes of any lives, as it came |
//! | `hours`   | hour, number of the life       | the packed minutes of that hour |
//! | `lives`   | start, daemon, `pm_id`, pid    | last sample, summary |
//! | `state`   | name                           | opaque |
//! | `audit`   | sequence                       | time, opaque |
//!
//! New minutes go to the journal: one small value at the end of one table a minute, however many processes there are.
//! From time to time the journal is folded into hours, which are written side by side because the hour comes first in
//! the key; the same order makes forgetting old hours a cut at the front.

use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

/// The newest format this program knows, and the one it writes.
pub const FORMAT: u32 = 1;

/// A life as a key: daemon, `pm_id`, pid, start.
pub(crate) type SeriesKey<'a> = (&'a str, u32, u32, i64);
/// A life as a key that sorts by start: start, daemon, `pm_id`, pid.
pub(crate) type LifeKey<'a> = (i64, &'a str, u32, u32);

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const SERIES: TableDefinition<'_, SeriesKey<'_>, (u32, i64)> = TableDefinition::new("series");
pub(crate) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
pub(crate) const HOURS: TableDefinition<'_, (i64, u32), &[u8]> = TableDefinition::new("hours");
pub(crate) const LIVES: TableDefinition<'_, LifeKey<'_>, (i64, &[u8])> = TableDefinition::new("lives");
pub(crate) const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
pub(crate) const AUDIT: TableDefinition<'_, u64, (i64, &[u8])> = TableDefinition::new("audit");

/// Sums over the tables, kept up to date by every transaction so that nothing has to be counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    /// Bytes of the journal.
    pub(crate) journal_bytes: u64,
    /// Minutes in the journal; one that was written twice counts twice until it is folded.
    pub(crate) journal_minutes: u64,
    /// Bytes of the hours.
    pub(crate) hour_bytes: u64,
    /// Minutes in the hours.
    pub(crate) hour_minutes: u64,
    /// Rows of hours.
    pub(crate) hours: u64,
    /// Lives that have minutes.
    pub(crate) series: u64,
    /// The number the next life gets.
    pub(crate) next_series: u32,
    /// Summaries.
    pub(crate) lives: u64,
    /// Bytes of the summaries.
    pub(crate) life_bytes: u64,
    /// Bytes of the durable state.
    pub(crate) state_bytes: u64,
    /// Entries of the audit log.
    pub(crate) audit: u64,
    /// Bytes of the audit log.
    pub(crate) audit_bytes: u64,
    /// The place of the last entry of the audit log.
    pub(crate) audit_last: u64,
}

impl Totals {
    /// Bytes the content needs, keys included; the file is larger by what its pages leave free.
    pub(crate) fn content(&self) -> u64 {
        self.journal_bytes
            + self.hour_bytes
            + self.life_bytes
            + self.state_bytes
            + self.audit_bytes
            + 20 * self.hours
            + 60 * (self.series + self.lives)
            + 24 * self.audit
    }

    /// Minutes kept.
    pub(crate) fn minutes(&self) -> u64 {
        self.journal_minutes + self.hour_minutes
    }
}

/// Changes a sum by the difference of two sizes, never below zero.
pub(crate) fn adjust(sum: &mut u64, removed: usize, added: usize) {
    *sum = sum.saturating_sub(removed as u64).saturating_add(added as u64);
}

/// Makes every table of a new database.
pub(crate) fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(SERIES)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(HOURS)?;
    transaction.open_table(LIVES)?;
    transaction.open_table(STATE)?;
    transaction.open_table(AUDIT)?;
    transaction.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    save_totals(transaction, &Totals { next_series: 1, ..Totals::default() })
}

/// The format number; none where the file has no such table or number.
pub(crate) fn read_format(transaction: &ReadTransaction) -> Result<Option<u32>, redb::Error> {
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        other => other?,
    };
    Ok(meta.get("format")?.and_then(|format| format.value().try_into().ok()).map(u32::from_le_bytes))
}

/// The sums as they were last saved.
pub(crate) fn read_totals(transaction: &ReadTransaction) -> Result<Totals, redb::Error> {
    let meta = transaction.open_table(META)?;
    let saved = meta.get("totals")?.ok_or_else(|| damaged("its sums are missing"))?;
    serde_json::from_slice(saved.value()).map_err(|_not_json| damaged("its sums do not decode"))
}

/// Saves the sums with the rest of a transaction.
pub(crate) fn save_totals(transaction: &WriteTransaction, totals: &Totals) -> Result<(), redb::Error> {
    let encoded = serde_json::to_vec(totals).expect("invariant: numbers always encode as JSON");
    transaction.open_table(META)?.insert("totals", encoded.as_slice())?;
    Ok(())
}

/// Damage that this program sees, in redb's own form.
pub(crate) fn damaged(what: &str) -> redb::Error {
    redb::Error::Corrupted(what.to_owned())
}
