//! How much is kept and for how long.

use std::time::Duration;

use model::Bytes;

/// Bounds of the store. Every one is enforced; none is a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Minutes older than this are deleted, a whole hour at a time.
    pub minutes_age: Duration,
    /// Summaries of lives that ended longer ago than this are deleted.
    pub lives_age: Duration,
    /// Most summaries of lives; the ones that ended first go first.
    pub lives_max: u64,
    /// Entries of the audit log older than this are deleted.
    pub audit_age: Duration,
    /// Most entries of the audit log; the oldest go first.
    pub audit_max: u64,
    /// Largest size of the file. When it is reached the oldest minutes go first, then the oldest lives.
    pub bytes_max: Bytes,
    /// Most minutes that wait in memory while the disk cannot be written; the oldest go first. One takes 72 bytes.
    pub unsaved_minutes_max: usize,
    /// Damaged files that are kept for a person to look at.
    pub damaged_kept: usize,
    /// Memory for cached pages of the file.
    pub cache: Bytes,
}

impl Default for StoreSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            minutes_age: 4 * DAY,
            lives_age: 180 * DAY,
            lives_max: 20_000,
            audit_age: 365 * DAY,
            audit_max: 20_000,
            bytes_max: Bytes(256 << 20),
            unsaved_minutes_max: 65_536,
            damaged_kept: 2,
            cache: Bytes::MIB,
        }
    }
}
