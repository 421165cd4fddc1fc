//! The history on disk: minutes, lives, durable state and the audit log in one embedded database.
//!
//! One file, `history.redb`, in the state directory, with one owner. A write is on disk when the call returns, so an end at any
//! instant loses at most the minute that was being gathered. A damaged file is renamed, and a fresh one begins with what can be
//! read of it; a file of a newer leakslope is left alone; when the disk cannot be written, what is new waits in memory within a
//! bound. The layout of the file is in `tables`.
//!
//! | file        | what it is for                                            | pure |
//! |-------------|-----------------------------------------------------------|------|
//! | `codec`     | bytes of minutes and summaries                            | yes  |
//! | `unsaved`   | what waits to be written, readable meanwhile              | yes  |
//! | `anchor`    | the steady line across restarts                           | yes  |
//! | `tables`    | layout of the file, sums                                  | no   |
//! | `reading`, `writing`, `retention` | work inside one transaction         | no   |
//! | `file`, `lock` | the way to an open database                            | no   |
//! | `salvage`   | what can be read of a damaged file                        | no   |
//! | `database`  | [`Store`]: the file with blocking calls                   | no   |
//! | `keeper`    | [`Keeper`]: a store that may be unable to write           | no clock |
//! | `worker`    | [`StoreWorker`]: a keeper on its own thread               | no   |
//!
//! This crate refuses to decide anything about processes and to look into the state and audit entries it keeps.

mod anchor;
mod codec;
mod database;
mod error;
mod file;
mod keeper;
mod lock;
mod reading;
mod retention;
mod salvage;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod unsaved;
mod worker;
mod writing;

pub use anchor::ClockAnchor;
pub use database::{Store, StoreSize};
pub use error::{Notice, Salvaged, StoreError, StoreErrorKind};
pub use keeper::{Keeper, Saved, StoreStats};
pub use retention::Pruned;
pub use settings::StoreSettings;
pub use tables::FORMAT;
pub use unsaved::{AuditEntry, LifeFilter, MinuteRow};
pub use worker::{Clock, StoreHandle, StoreWorker};
