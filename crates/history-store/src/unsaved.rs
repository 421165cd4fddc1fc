//! What is not on disk yet: the write path's only shape, bounded, and readable while it waits. Pure.
//!
//! While the disk works this holds one batch for a moment. While it does not, it is the history.

use std::collections::{BTreeMap, VecDeque};

use super::anchor::ClockAnchor;
use super::error::StoreErrorKind;
use model::{Life, LifeSummary, Minute, ProcessKey, Steady};

/// Summaries that may wait; the ones of the oldest starts go first.
const LIVES_MAX: usize = 4096;
/// Entries of the audit log that may wait; the oldest go first.
const AUDIT_MAX: usize = 4096;
/// Longest name of a piece of durable state, in bytes.
const NAME_MAX: usize = 256;
/// Largest piece of durable state and largest audit entry, in bytes.
const VALUE_MAX: usize = 1 << 20;
/// Bytes of state, and of audit entries, that may wait.
const WAITING_MAX: usize = 4 << 20;

/// One minute of one life of one process.
pub type MinuteRow = (ProcessKey, Life, Minute);

/// What tells one life from all others: start, daemon and `pm_id`, pid. Sorts by start.
pub(crate) type LifeId = (i64, ProcessKey, u32);

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log, from 1. Provisional until it is on disk: an entry that was made while the disk could not
    /// even be read may get a later place.
    pub sequence: u64,
    /// When it was made.
    pub at: Steady,
    /// The entry, opaque here.
    pub body: Vec<u8>,
}

/// Writes that wait for one transaction.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    pub(crate) minutes: VecDeque<MinuteRow>,
    pub(crate) lives: BTreeMap<LifeId, LifeSummary>,
    pub(crate) state: BTreeMap<String, Option<Vec<u8>>>,
    pub(crate) audit: VecDeque<AuditEntry>,
    pub(crate) anchor: Option<ClockAnchor>,
}

/// The identity of a summary's life.
pub(crate) fn life_id(summary: &LifeSummary) -> LifeId {
    (summary.life.started, summary.key.clone(), summary.life.pid)
}

impl Unsaved {
    pub(crate) fn is_empty(&self) -> bool {
        self.minutes.is_empty()
            && self.lives.is_empty()
            && self.state.is_empty()
            && self.audit.is_empty()
            && self.anchor.is_none()
    }

    /// Adds minutes and returns how many of the oldest had to go to stay within `bound`.
    pub(crate) fn add_minutes(&mut self, rows: impl IntoIterator<Item = MinuteRow>, bound: usize) -> u64 {
        let mut dropped = 0;
        for row in rows {
            while self.minutes.len() >= bound.max(1) {
                self.minutes.pop_front();
                dropped += 1;
            }
            self.minutes.push_back(row);
        }
        dropped
    }

    pub(crate) fn add_life(&mut self, summary: LifeSummary) {
        self.lives.insert(life_id(&summary), summary);
        if self.lives.len() > LIVES_MAX {
            self.lives.pop_first();
        }
    }

    pub(crate) fn add_audit(&mut self, entry: AuditEntry) -> Result<(), StoreErrorKind> {
        within("an audit entry", entry.body.len(), VALUE_MAX)?;
        self.audit.push_back(entry);
        let mut bytes: usize = self.audit.iter().map(|entry| entry.body.len()).sum();
        while self.audit.len() > AUDIT_MAX || bytes > WAITING_MAX {
            bytes -= self.audit.pop_front().map_or(0, |entry| entry.body.len());
        }
        Ok(())
    }

    /// Sets or removes a piece of durable state; refuses what is too large instead of dropping what waits.
    pub(crate) fn add_state(&mut self, name: &str, value: Option<Vec<u8>>) -> Result<(), StoreErrorKind> {
        within("a name of durable state", name.len(), NAME_MAX)?;
        within("durable state", value.as_ref().map_or(0, Vec::len), VALUE_MAX)?;
        let waiting: usize = self
            .state
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(other, value)| other.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        within("durable state that waits for the disk", waiting + value.as_ref().map_or(0, Vec::len), WAITING_MAX)?;
        self.state.insert(name.to_owned(), value);
        Ok(())
    }

    /// Lays the waiting minutes of one life over `saved`; a minute written twice counts as written last.
    pub(crate) fn lay_minutes(&self, key: &ProcessKey, life: Life, since: i64, saved: Vec<Minute>) -> Vec<Minute> {
        let waiting = self.minutes.iter().filter(|(k, l, minute)| k == key && *l == life && minute.minute >= since);
        let mut waiting = waiting.peekable();
        if waiting.peek().is_none() {
            return saved;
        }
        let mut rows: BTreeMap<i64, Minute> = saved.into_iter().map(|minute| (minute.minute, minute)).collect();
        rows.extend(waiting.map(|(_, _, minute)| (minute.minute, *minute)));
        rows.into_values().collect()
    }

    /// Lays the waiting summaries over `saved` and returns all by start.
    pub(crate) fn lay_lives(&self, filter: &LifeFilter, saved: Vec<LifeSummary>) -> Vec<LifeSummary> {
        let waiting: Vec<_> = self.lives.iter().filter(|(_, summary)| filter.admits(summary)).collect();
        if waiting.is_empty() {
            return saved;
        }
        let mut rows: BTreeMap<LifeId, LifeSummary> =
            saved.into_iter().map(|summary| (life_id(&summary), summary)).collect();
        rows.extend(waiting.into_iter().map(|(id, summary)| (id.clone(), summary.clone())));
        filter.newest(rows.into_values().collect())
    }
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), StoreErrorKind> {
    if bytes > limit { Err(StoreErrorKind::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// Which summaries are asked for; everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LifeFilter {
    /// Only of this app.
    pub app: Option<model::AppName>,
    /// Only of this daemon.
    pub daemon: Option<model::DaemonName>,
    /// Only of this process.
    pub key: Option<ProcessKey>,
    /// Only those whose last sample is not before this instant.
    pub seen_since: Option<Steady>,
    /// Only this many, those of the latest starts.
    pub newest: Option<usize>,
}

impl LifeFilter {
    pub(crate) fn admits(&self, summary: &LifeSummary) -> bool {
        self.app.as_ref().is_none_or(|app| app.means(&summary.app))
            && self.daemon.as_ref().is_none_or(|daemon| *daemon == summary.key.daemon)
            && self.key.as_ref().is_none_or(|key| *key == summary.key)
            && self.seen_since.is_none_or(|since| summary.last >= since)
    }

    /// Keeps the last `newest` of summaries that are sorted by start.
    pub(crate) fn newest(&self, mut sorted: Vec<LifeSummary>) -> Vec<LifeSummary> {
        if let Some(newest) = self.newest {
            sorted.drain(..sorted.len().saturating_sub(newest));
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pm_id: u16, minute: i64) -> MinuteRow {
        let key = ProcessKey { daemon: "default".into(), pm_id: u32::from(pm_id) };
        (key, Life { pid: 1, started: 0 }, Minute { resident: f32::from(pm_id), ..Minute::empty(minute) })
    }

    #[test]
    fn the_oldest_minutes_make_room() {
        let mut unsaved = Unsaved::default();
        assert_eq!(unsaved.add_minutes((0..10).map(|minute| row(0, minute)), 4), 6);
        let kept: Vec<i64> = unsaved.minutes.iter().map(|row| row.2.minute).collect();
        assert_eq!(kept, [6, 7, 8, 9]);
        assert_eq!(unsaved.add_minutes([row(0, 10)], 0), 4, "a bound of none still holds the latest");
        assert_eq!(unsaved.minutes.len(), 1);
    }

    #[test]
    fn waiting_minutes_win_over_saved_ones() {
        let mut unsaved = Unsaved::default();
        unsaved.add_minutes([row(7, 3), row(8, 4), row(7, 1)], 100);
        let saved =
            vec![Minute { resident: 100.0, ..Minute::empty(2) }, Minute { resident: 100.0, ..Minute::empty(3) }];
        let (key, life, _) = row(7, 0);
        let laid = unsaved.lay_minutes(&key, life, 2, saved);
        assert_eq!(laid.iter().map(|m| (m.minute, m.resident)).collect::<Vec<_>>(), [(2, 100.0), (3, 7.0)]);
    }
}
