//! What can be asked of the saved history.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use redb::{ReadTransaction, ReadableTable};

use super::anchor::ClockAnchor;
use super::codec;
use super::tables::{AUDIT, HOURS, JOURNAL, LIVES, META, SERIES, STATE, damaged};
use super::unsaved::{AuditEntry, LifeFilter};
use model::{Life, LifeSummary, Minute, ProcessKey, Steady};

/// The number of a life, where it has minutes.
fn number_of(transaction: &ReadTransaction, key: &ProcessKey, life: Life) -> Result<Option<u32>, redb::Error> {
    let series = transaction.open_table(SERIES)?;
    let found = series.get((key.daemon.as_str(), key.pm_id, life.pid, life.started))?;
    Ok(found.map(|found| found.value().0))
}

/// The minutes of one life from `since` on, in time order.
pub(crate) fn minutes(
    transaction: &ReadTransaction,
    key: &ProcessKey,
    life: Life,
    since: i64,
) -> Result<Vec<Minute>, redb::Error> {
    let Some(number) = number_of(transaction, key, life)? else {
        return Ok(Vec::new());
    };
    let mut rows = BTreeMap::new();
    let hours = transaction.open_table(HOURS)?;
    // Jumps from hour to hour: each step either lands on this life's row or tells the next hour that has any row.
    let mut seek = (codec::hour_of(since).0, number);
    loop {
        let Some(row) = hours.range(seek..)?.next().transpose()? else { break };
        let (hour, found) = row.0.value();
        if found == number {
            for row in codec::unpack_hour(hour, row.1.value()) {
                let (_, minute) = row.map_err(|malformed| damaged(&malformed.to_string()))?;
                rows.insert(minute.minute, minute);
            }
        }
        seek = if found < number { (hour, number) } else { (hour.saturating_add(1), number) };
        if hour == i64::MAX && found >= number {
            break;
        }
    }
    for batch in transaction.open_table(JOURNAL)?.iter()? {
        for row in codec::unpack_batch(batch?.1.value()) {
            let (series, minute) = row.map_err(|malformed| damaged(&malformed.to_string()))?;
            if series == number {
                rows.insert(minute.minute, minute);
            }
        }
    }
    Ok(rows.into_values().filter(|minute| minute.minute >= since).collect())
}

/// Visits every saved minute from `since` on: hour by hour, then what is still in the journal. A minute that was
/// written again comes again, the later writing last.
pub(crate) fn scan(
    transaction: &ReadTransaction,
    since: i64,
    visit: &mut dyn FnMut(&ProcessKey, Life, Minute),
) -> Result<(), redb::Error> {
    let names = names(transaction)?;
    let mut show = |series: u32, minute: Minute| {
        if minute.minute >= since
            && let Some((key, life)) = names.get(&series)
        {
            visit(key, *life, minute);
        }
    };
    for row in transaction.open_table(HOURS)?.range((codec::hour_of(since).0, 0)..)? {
        let (id, packed) = row?;
        let (hour, series) = id.value();
        for row in codec::unpack_hour(hour, packed.value()) {
            show(series, row.map_err(|malformed| damaged(&malformed.to_string()))?.1);
        }
    }
    for batch in transaction.open_table(JOURNAL)?.iter()? {
        for row in codec::unpack_batch(batch?.1.value()) {
            let (series, minute) = row.map_err(|malformed| damaged(&malformed.to_string()))?;
            show(series, minute);
        }
    }
    Ok(())
}

fn names(transaction: &ReadTransaction) -> Result<BTreeMap<u32, (ProcessKey, Life)>, redb::Error> {
    let mut names = BTreeMap::new();
    let mut daemons: BTreeMap<String, model::DaemonName> = BTreeMap::new();
    for row in transaction.open_table(SERIES)?.iter()? {
        let (id, value) = row?;
        let (daemon, pm_id, pid, started) = id.value();
        let daemon = daemons.entry(daemon.to_owned()).or_insert_with(|| daemon.into()).clone();
        names.insert(value.value().0, (ProcessKey { daemon, pm_id }, Life { pid, started }));
    }
    Ok(names)
}

/// The summaries that pass a filter, by start.
pub(crate) fn lives(transaction: &ReadTransaction, filter: &LifeFilter) -> Result<Vec<LifeSummary>, redb::Error> {
    let mut found = Vec::new();
    let most = filter.newest.unwrap_or(usize::MAX);
    for row in transaction.open_table(LIVES)?.iter()?.rev() {
        if found.len() >= most {
            break;
        }
        let (_, value) = row?;
        let (last, encoded) = value.value();
        if filter.seen_since.is_some_and(|since| Steady(last) < since) {
            continue;
        }
        let summary = life(encoded)?;
        if filter.admits(&summary) {
            found.push(summary);
        }
    }
    found.reverse();
    Ok(found)
}

/// Visits every summary, by start.
pub(crate) fn visit_lives(
    transaction: &ReadTransaction,
    visit: &mut dyn FnMut(LifeSummary),
) -> Result<(), redb::Error> {
    for row in transaction.open_table(LIVES)?.iter()? {
        visit(life(row?.1.value().1)?);
    }
    Ok(())
}

fn life(encoded: &[u8]) -> Result<LifeSummary, redb::Error> {
    codec::decode_life(encoded).map_err(|malformed| damaged(&malformed.to_string()))
}

/// A piece of durable state.
pub(crate) fn state(transaction: &ReadTransaction, name: &str) -> Result<Option<Vec<u8>>, redb::Error> {
    Ok(transaction.open_table(STATE)?.get(name)?.map(|value| value.value().to_vec()))
}

/// Entries of the audit log within a range of places, oldest first; of more than `most` the latest.
pub(crate) fn audit(
    transaction: &ReadTransaction,
    range: RangeInclusive<u64>,
    most: usize,
) -> Result<Vec<AuditEntry>, redb::Error> {
    let mut found = Vec::new();
    for row in transaction.open_table(AUDIT)?.range(range)?.rev().take(most) {
        let (sequence, value) = row?;
        let (at, body) = value.value();
        found.push(AuditEntry { sequence: sequence.value(), at: Steady(at), body: body.to_vec() });
    }
    found.reverse();
    Ok(found)
}

/// The clock anchor, where one was saved.
pub(crate) fn anchor(transaction: &ReadTransaction) -> Result<Option<ClockAnchor>, redb::Error> {
    let meta = transaction.open_table(META)?;
    let Some(saved) = meta.get("anchor")? else { return Ok(None) };
    serde_json::from_slice(saved.value()).map(Some).map_err(|_not_json| damaged("its clock anchor does not decode"))
}

/// The first minute of the oldest hour that is kept; of the journal where nothing is folded yet.
pub(crate) fn oldest_minute(transaction: &ReadTransaction) -> Result<Option<i64>, redb::Error> {
    if let Some((id, packed)) = transaction.open_table(HOURS)?.first()? {
        let (hour, _) = id.value();
        let first = codec::unpack_hour(hour, packed.value()).next();
        return Ok(Some(first.and_then(Result::ok).map_or(codec::minute_in(hour, 0), |(_, minute)| minute.minute)));
    }
    let journal = transaction.open_table(JOURNAL)?;
    let first = journal.first()?;
    Ok(first
        .and_then(|(_, batch)| codec::unpack_batch(batch.value()).next())
        .and_then(Result::ok)
        .map(|row| row.1.minute))
}
