//! What is forgotten, by age, by number and by size.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::codec;
use super::settings::StoreSettings;
use super::tables::{AUDIT, HOURS, LIVES, SERIES, Totals, adjust, save_totals};
use super::writing::fold;
use model::Steady;

/// What one pruning removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Minutes.
    pub minutes: u64,
    /// Summaries of lives.
    pub lives: u64,
    /// Entries of the audit log.
    pub audit: u64,
    /// Whether the file was rewritten to give its free pages back.
    pub compacted: bool,
}

impl Pruned {
    /// Whether anything was removed.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// Removes what is older or more than the settings allow, and at least `excess` bytes of content: the oldest minutes
/// first, then the lives of the oldest starts.
pub(crate) fn prune(
    transaction: &WriteTransaction,
    settings: &StoreSettings,
    now: Steady,
    excess: u64,
    totals: Totals,
) -> Result<(Totals, Pruned), redb::Error> {
    let mut totals = totals;
    fold(transaction, &mut totals)?;
    let before = totals;
    let wanted = totals.content().saturating_sub(excess);
    let cutoff = (now - settings.minutes_age).minute();
    forget_hours(transaction, cutoff, wanted, &mut totals)?;
    forget_lives(transaction, settings, now, wanted, &mut totals)?;
    forget_audit(transaction, settings, now, &mut totals)?;
    let pruned = Pruned {
        minutes: before.minutes() - totals.minutes(),
        lives: before.lives - totals.lives,
        audit: before.audit - totals.audit,
        compacted: false,
    };
    save_totals(transaction, &totals)?;
    Ok((totals, pruned))
}

fn forget_hours(
    transaction: &WriteTransaction,
    cutoff: i64,
    wanted: u64,
    totals: &mut Totals,
) -> Result<(), redb::Error> {
    let mut hours = transaction.open_table(HOURS)?;
    let mut first_kept = i64::MIN;
    for row in hours.iter()? {
        let (id, packed) = row?;
        let hour = id.value().0;
        let too_old = hour.saturating_mul(60).saturating_add(59) < cutoff;
        // An hour goes as a whole: the rows of one that was begun follow it.
        if !too_old && hour >= first_kept && totals.content() <= wanted {
            break;
        }
        first_kept = first_kept.max(hour.saturating_add(1));
        totals.hours = totals.hours.saturating_sub(1);
        adjust(&mut totals.hour_bytes, packed.value().len(), 0);
        adjust(&mut totals.hour_minutes, codec::unpack_hour(hour, packed.value()).count(), 0);
    }
    if first_kept > i64::MIN {
        hours.retain_in(..(first_kept, 0), |_, _| false)?;
        forget_series(transaction, first_kept, totals)?;
    }
    Ok(())
}

/// Forgets lives whose last hour is gone.
fn forget_series(transaction: &WriteTransaction, first_kept: i64, totals: &mut Totals) -> Result<(), redb::Error> {
    let mut series = transaction.open_table(SERIES)?;
    series.retain(|_, (_, last)| last >= first_kept)?;
    totals.series = series.len()?;
    Ok(())
}

fn forget_lives(
    transaction: &WriteTransaction,
    settings: &StoreSettings,
    now: Steady,
    wanted: u64,
    totals: &mut Totals,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(LIVES)?;
    let cutoff = (now - settings.lives_age).0;
    let mut removed = (0, 0);
    table.retain(|_, (last, encoded)| {
        let keep = last >= cutoff;
        if !keep {
            removed = (removed.0 + 1, removed.1 + encoded.len());
        }
        keep
    })?;
    totals.lives = totals.lives.saturating_sub(removed.0);
    adjust(&mut totals.life_bytes, removed.1, 0);
    while totals.lives > settings.lives_max || totals.content() > wanted {
        let Some((_, encoded)) = table.pop_first()? else { break };
        totals.lives = totals.lives.saturating_sub(1);
        adjust(&mut totals.life_bytes, encoded.value().1.len(), 0);
    }
    Ok(())
}

fn forget_audit(
    transaction: &WriteTransaction,
    settings: &StoreSettings,
    now: Steady,
    totals: &mut Totals,
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(AUDIT)?;
    let cutoff = (now - settings.audit_age).0;
    let mut last = None;
    for row in table.iter()? {
        let (sequence, value) = row?;
        let (at, body) = value.value();
        if at >= cutoff && totals.audit <= settings.audit_max {
            break;
        }
        last = Some(sequence.value());
        totals.audit = totals.audit.saturating_sub(1);
        adjust(&mut totals.audit_bytes, body.len(), 0);
    }
    if let Some(last) = last {
        table.retain_in(..=last, |_, _| false)?;
    }
    Ok(())
}
