//! What can be read of a damaged file, for the fresh one that takes its place.
//!
//! Each table is read row by row from both ends towards the damage, so that one bad page costs what stands on it and no more.
//! What does not decode is left out; nothing is guessed. Nothing here fails: whatever is read is more than nothing.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use model::{Life, ProcessKey, Steady};
use redb::{Builder, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value};

use super::database::Store;
use super::file::guarded;
use super::tables::{AUDIT, HOURS, JOURNAL, LIVES, META, SERIES, STATE};
use super::unsaved::{AuditEntry, MinuteRow, Unsaved};
use super::{codec, error::Salvaged};

/// Minutes that are saved in one go.
const MINUTES_AT_ONCE: usize = 8192;
/// Summaries that are saved in one go.
const LIVES_AT_ONCE: usize = 1000;

/// Saves what can be read of the file in the store, and says how much that was.
pub(crate) fn from(path: &Path, store: &mut Store) -> Salvaged {
    let mut salvaged = Salvaged::default();
    // Where the header cannot be changed, opening says so.
    let _ = forbid_repair(path);
    let Ok(database) = guarded(|| Ok(Builder::new().open_read_only(path)?)) else { return salvaged };
    if let Ok(read) = guarded(|| Ok(database.begin_read()?)) {
        small_tables(&read, store, &mut salvaged);
        lives(&read, store, &mut salvaged);
        minutes(&read, store, &mut salvaged);
    }
    // Closing may meet the damage, too; there is nothing to lose any more.
    let _ = guarded(move || Ok(database.close()?));
    salvaged
}

/// Where redb's header says which commit is the newest, and beside it that the file was left open and wants repair.
const FLAGS_AT: u64 = 9;
/// The flags that are not about repair: which commit is the newest, and how it was made.
const FLAGS_KEPT: u8 = 0b101;

/// Takes from the header that the file wants repair. redb repairs a whole file or none, and a damaged one it refuses.
fn forbid_repair(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut flags = [0];
    file.read_exact_at(&mut flags, FLAGS_AT)?;
    file.write_all_at(&[flags[0] & FLAGS_KEPT], FLAGS_AT)
}

fn small_tables(read: &ReadTransaction, store: &mut Store, salvaged: &mut Salvaged) {
    let mut unsaved = Unsaved::default();
    rows(read, STATE, |name, value| drop(unsaved.add_state(name, Some(value.to_vec()))));
    rows(read, META, |name, value| {
        if name == "anchor" {
            unsaved.anchor = serde_json::from_slice(value).ok();
        }
    });
    let mut entries = BTreeMap::new();
    rows(read, AUDIT, |sequence, (at, body)| {
        entries.insert(sequence, AuditEntry { sequence, at: Steady(at), body: body.to_vec() });
    });
    let audit = entries.len() as u64;
    unsaved.audit.extend(entries.into_values());
    if store.save(&unsaved).is_ok() {
        salvaged.audit = audit;
    }
}

fn lives(read: &ReadTransaction, store: &mut Store, salvaged: &mut Salvaged) {
    let mut unsaved = Unsaved::default();
    let mut save = |unsaved: &mut Unsaved| {
        let lives = std::mem::take(&mut unsaved.lives);
        let count = lives.len() as u64;
        if store.save(&Unsaved { lives, ..Unsaved::default() }).is_ok() {
            salvaged.lives += count;
        }
    };
    rows(read, LIVES, |_, (_, encoded)| {
        if let Ok(summary) = codec::decode_life(encoded) {
            unsaved.add_life(summary);
        }
        if unsaved.lives.len() >= LIVES_AT_ONCE {
            save(&mut unsaved);
        }
    });
    save(&mut unsaved);
}

fn minutes(read: &ReadTransaction, store: &mut Store, salvaged: &mut Salvaged) {
    let mut names: BTreeMap<u32, (ProcessKey, Life)> = BTreeMap::new();
    rows(read, SERIES, |(daemon, pm_id, pid, started), (number, _)| {
        names.insert(number, (ProcessKey { daemon: daemon.into(), pm_id }, Life { pid, started }));
    });
    let mut waiting: Vec<MinuteRow> = Vec::new();
    let mut save = |waiting: &mut Vec<MinuteRow>| {
        if store.append(waiting).is_ok() {
            salvaged.minutes += waiting.len() as u64;
        }
        waiting.clear();
    };
    let mut take = |number: u32, minute| {
        waiting.extend(names.get(&number).map(|(key, life)| (key.clone(), *life, minute)));
        if waiting.len() >= MINUTES_AT_ONCE {
            save(&mut waiting);
        }
    };
    rows(read, HOURS, |(hour, number), packed| {
        codec::unpack_hour(hour, packed).map_while(Result::ok).for_each(|(_, minute)| take(number, minute));
    });
    rows(read, JOURNAL, |_, batch| {
        codec::unpack_batch(batch).map_while(Result::ok).for_each(|(number, minute)| take(number, minute));
    });
    save(&mut waiting);
}

/// Visits every row that can be read: from the front, and where that ends at the damage, from the back.
fn rows<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
    mut visit: impl FnMut(K::SelfType<'_>, V::SelfType<'_>),
) {
    let Ok(table) = guarded(|| Ok(read.open_table(table)?)) else { return };
    for from_the_back in [false, true] {
        let Ok(mut range) = guarded(|| Ok(table.iter()?)) else { return };
        loop {
            let step = guarded(|| {
                let row = if from_the_back { range.next_back() } else { range.next() };
                let Some((key, value)) = row.transpose()? else { return Ok(false) };
                visit(key.value(), value.value());
                Ok(true)
            });
            match step {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => break,
            }
        }
    }
}
