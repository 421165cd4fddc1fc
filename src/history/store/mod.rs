//! The history on disk: minutes, lives, durable state and the audit log in one embedded database.
//!
//! One file, `history.redb`, in the state directory, with one owner, and its copy, `history-copy.redb`. A write is on disk when
//! the call returns, so an end at any instant loses at most the minute that was being gathered. A damaged file is renamed,
//! never deleted, and its copy takes its place; a file of a newer leakslope is left alone; when the disk cannot be written,
//! what is new waits in memory within a bound. The layout of the file is in `tables`.
//!
//! | file        | what it is for                                            | pure |
//! |-------------|-----------------------------------------------------------|------|
//! | `codec`     | bytes of minutes and summaries                            | yes  |
//! | `unsaved`   | what waits to be written, readable meanwhile              | yes  |
//! | `anchor`    | the steady line across restarts                           | yes  |
//! | `tables`    | layout of the file, sums                                  | no   |
//! | `reading`, `writing`, `retention` | work inside one transaction         | no   |
//! | `file`, `lock` | the way to an open database                            | no   |
//! | `handle`    | one open database with its sums                           | no   |
//! | `copy`      | the second database, for the case that the first is damaged | no |
//! | `look`      | a database on a disk that cannot be written, to be read   | no   |
//! | `database`  | [`Store`]: both with blocking calls                       | no   |
//! | `keeper`    | [`Keeper`]: a store that may be unable to write           | no clock |
//! | `worker`    | [`StoreWorker`]: a keeper on its own thread               | no   |
//!
//! This room refuses to decide anything about processes and to look into the state and audit entries it keeps.

mod anchor;
mod codec;
mod copy;
mod database;
mod error;
mod file;
mod handle;
mod keeper;
mod lock;
mod look;
mod reading;
mod retention;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod unsaved;
mod worker;
mod writing;

pub use anchor::ClockAnchor;
pub use database::{Store, StoreSize};
pub use error::{Notice, StoreError, StoreErrorKind};
pub use keeper::{Keeper, Saved, StoreStats};
pub use retention::Pruned;
pub use settings::StoreSettings;
pub use tables::FORMAT;
pub use unsaved::{AuditEntry, LifeFilter, MinuteRow};
pub use worker::{Clock, StoreHandle, StoreWorker};
