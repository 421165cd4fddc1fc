//! The one transaction that saves what waits, and the folding of the journal into hours.

use std::collections::BTreeMap;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::codec::{self, Hour};
use super::tables::{
    AUDIT, HOURS, JOURNAL, LIVES, META, SERIES, STATE, SeriesKey, Totals, adjust, damaged, save_totals,
};
use super::unsaved::{MinuteRow, Unsaved};
use model::{Life, ProcessKey};

/// Batches after which the journal is folded.
const JOURNAL_BATCHES: u64 = 60;
/// Bytes after which the journal is folded; bounds the memory that takes.
const JOURNAL_BYTES: u64 = 1 << 20;
/// Minutes in one value of the journal.
const BATCH_ROWS: usize = 4096;

/// Writes everything that waits and returns the new sums; they count once the transaction is committed.
pub(crate) fn save(transaction: &WriteTransaction, unsaved: &Unsaved, totals: Totals) -> Result<Totals, redb::Error> {
    let mut totals = totals;
    if !unsaved.minutes.is_empty() {
        let rows: Vec<&MinuteRow> = unsaved.minutes.iter().collect();
        let batches = append_journal(transaction, &rows, &mut totals)?;
        if batches >= JOURNAL_BATCHES || totals.journal_bytes >= JOURNAL_BYTES {
            fold(transaction, &mut totals)?;
        }
    }
    save_lives(transaction, unsaved, &mut totals)?;
    save_state(transaction, unsaved, &mut totals)?;
    save_audit(transaction, unsaved, &mut totals)?;
    if let Some(anchor) = &unsaved.anchor {
        let encoded = serde_json::to_vec(anchor).expect("invariant: text and numbers always encode as JSON");
        transaction.open_table(META)?.insert("anchor", encoded.as_slice())?;
    }
    save_totals(transaction, &totals)?;
    Ok(totals)
}

/// Appends minutes to the journal and returns how many batches it has.
fn append_journal(
    transaction: &WriteTransaction,
    rows: &[&MinuteRow],
    totals: &mut Totals,
) -> Result<u64, redb::Error> {
    let mut series_table = transaction.open_table(SERIES)?;
    let mut journal = transaction.open_table(JOURNAL)?;
    let mut next = journal.last()?.map_or(1, |(sequence, _)| sequence.value().saturating_add(1));
    let mut batches = journal.len()?;
    let mut known: BTreeMap<(&ProcessKey, Life), u32> = BTreeMap::new();
    for rows in rows.chunks(BATCH_ROWS) {
        let mut packed = Vec::with_capacity(rows.len() * 33);
        for (key, life, minute) in rows {
            let series = match known.get(&(key, *life)) {
                Some(series) => *series,
                None => number_of(&mut series_table, key, *life, minute.minute, totals)?,
            };
            known.insert((key, *life), series);
            codec::push_batch(&mut packed, series, minute);
        }
        journal.insert(next, packed.as_slice())?;
        totals.journal_bytes += packed.len() as u64;
        totals.journal_minutes += rows.len() as u64;
        next = next.saturating_add(1);
        batches += 1;
    }
    Ok(batches)
}

/// The number of a life, a new one where it has none yet.
fn number_of(
    table: &mut Table<'_, SeriesKey<'static>, (u32, i64)>,
    key: &ProcessKey,
    life: Life,
    minute: i64,
    totals: &mut Totals,
) -> Result<u32, redb::Error> {
    let id = (key.daemon.as_str(), key.pm_id, life.pid, life.started);
    if let Some(found) = table.get(id)? {
        return Ok(found.value().0);
    }
    let number = totals.next_series;
    totals.next_series = number.checked_add(1).ok_or_else(|| damaged("it has run out of numbers for lives"))?;
    totals.series += 1;
    table.insert(id, (number, codec::hour_of(minute).0))?;
    Ok(number)
}

/// Moves the journal into hours.
pub(crate) fn fold(transaction: &WriteTransaction, totals: &mut Totals) -> Result<(), redb::Error> {
    let mut journal = transaction.open_table(JOURNAL)?;
    let mut gathered: BTreeMap<(i64, u32), Hour> = BTreeMap::new();
    for batch in journal.iter()? {
        for row in codec::unpack_batch(batch?.1.value()) {
            let (series, minute) = row.map_err(|malformed| damaged(&malformed.to_string()))?;
            let (hour, place) = codec::hour_of(minute.minute);
            gathered.entry((hour, series)).or_default().insert(place, minute);
        }
    }
    let mut latest: BTreeMap<u32, i64> = BTreeMap::new();
    let mut hours = transaction.open_table(HOURS)?;
    for ((hour, series), new) in gathered {
        let mut merged = Hour::new();
        let mut before = 0;
        if let Some(saved) = hours.get((hour, series))? {
            before = saved.value().len();
            for row in codec::unpack_hour(hour, saved.value()) {
                let (place, minute) = row.map_err(|malformed| damaged(&malformed.to_string()))?;
                merged.insert(place, minute);
            }
        } else {
            totals.hours += 1;
        }
        let minutes_before = merged.len();
        merged.extend(new);
        let packed = codec::pack_hour(&merged);
        adjust(&mut totals.hour_bytes, before, packed.len());
        adjust(&mut totals.hour_minutes, minutes_before, merged.len());
        hours.insert((hour, series), packed.as_slice())?;
        let last = latest.entry(series).or_insert(hour);
        *last = hour.max(*last);
    }
    note_latest_hours(transaction, &latest)?;
    journal.retain(|_, _| false)?;
    totals.journal_bytes = 0;
    totals.journal_minutes = 0;
    Ok(())
}

fn note_latest_hours(transaction: &WriteTransaction, latest: &BTreeMap<u32, i64>) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(SERIES)?;
    let mut changed = Vec::new();
    for row in table.iter()? {
        let (id, value) = row?;
        let (number, last) = value.value();
        if let Some(hour) = latest.get(&number).filter(|hour| **hour > last) {
            let (daemon, pm_id, pid, started) = id.value();
            changed.push(((daemon.to_owned(), pm_id, pid, started), (number, *hour)));
        }
    }
    for ((daemon, pm_id, pid, started), value) in changed {
        table.insert((daemon.as_str(), pm_id, pid, started), value)?;
    }
    Ok(())
}

fn save_lives(transaction: &WriteTransaction, unsaved: &Unsaved, totals: &mut Totals) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(LIVES)?;
    for ((started, key, pid), summary) in &unsaved.lives {
        let encoded = codec::encode_life(summary);
        let id = (*started, key.daemon.as_str(), key.pm_id, *pid);
        let before = table.insert(id, (summary.last.0, encoded.as_slice()))?.map(|old| old.value().1.len());
        totals.lives += u64::from(before.is_none());
        adjust(&mut totals.life_bytes, before.unwrap_or(0), encoded.len());
    }
    Ok(())
}

fn save_state(transaction: &WriteTransaction, unsaved: &Unsaved, totals: &mut Totals) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(STATE)?;
    for (name, value) in &unsaved.state {
        let size = value.as_ref().map_or(0, |value| name.len() + value.len());
        let old = match value {
            Some(value) => table.insert(name.as_str(), value.as_slice())?,
            None => table.remove(name.as_str())?,
        };
        let before = old.map_or(0, |old| name.len() + old.value().len());
        adjust(&mut totals.state_bytes, before, size);
    }
    Ok(())
}

fn save_audit(transaction: &WriteTransaction, unsaved: &Unsaved, totals: &mut Totals) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(AUDIT)?;
    for entry in &unsaved.audit {
        totals.audit_last = entry.sequence.max(totals.audit_last.saturating_add(1));
        table.insert(totals.audit_last, (entry.at.0, entry.body.as_slice()))?;
        totals.audit += 1;
        totals.audit_bytes += entry.body.len() as u64;
    }
    Ok(())
}
