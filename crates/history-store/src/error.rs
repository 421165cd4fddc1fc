//! What can go wrong with the store, and what a person should know that is not an error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store, with the file or directory it is about.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {kind}", path = .path.display())]
pub struct StoreError {
    /// The file or directory.
    pub path: PathBuf,
    /// What happened.
    pub kind: StoreErrorKind,
}

/// Kinds of failure; each asks for another answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreErrorKind {
    /// Another process holds the state directory. Nobody may write here.
    #[error("the state directory is in use by another leakslope{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// The file was written by a newer leakslope: it is neither written nor moved.
    #[error("the history was written by a newer leakslope (format {found}, this one knows up to {known})")]
    NewerFormat {
        /// The format of the file, in words because the file decides how much can be known of it.
        found: String,
        /// The newest format this program knows.
        known: u32,
    },
    /// The content is damaged.
    #[error("the history is damaged: {0}")]
    Damaged(String),
    /// There is no room: disk, quota or file size limit.
    #[error("no room left to write: {0}")]
    Full(io::Error),
    /// Reading or writing failed for another reason.
    #[error("{0}")]
    Io(io::Error),
    /// A value is larger than the store takes.
    #[error("{what} of {bytes} bytes is more than the {limit} allowed")]
    TooLarge {
        /// What was to be stored.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The thread that owns the store does not take any more work now.
    #[error("the store is busy: its queue is full")]
    Busy,
    /// The thread that owns the store did not answer in time.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The thread that owns the store has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Puts a path to a kind.
    pub(crate) fn new(path: &Path, kind: impl Into<StoreErrorKind>) -> Self {
        Self { path: path.to_owned(), kind: kind.into() }
    }

    /// Puts a path to an error of the file system.
    pub(crate) fn from_io(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), kind: StoreErrorKind::from_os(error) }
    }

    /// Whether the file or its directory is gone.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether deleting something else on the disk would help.
    pub(crate) fn wants_room(&self) -> bool {
        matches!(&self.kind, StoreErrorKind::Full(error) if error.kind() != io::ErrorKind::FileTooLarge)
    }

    /// Whether trying again later may help without anybody's doing.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Full(_) | StoreErrorKind::Io(_) | StoreErrorKind::Damaged(_))
    }
}

impl StoreErrorKind {
    /// Tells a full disk from other failures of the file system.
    pub(crate) fn from_os(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            Self::Full(error)
        } else {
            Self::Io(error)
        }
    }

    /// Sorts redb's errors by what has to follow. Only what can be nothing but damage counts as such.
    #[allow(clippy::wildcard_enum_match_arm, reason = "redb may add kinds; an unknown one must not cost the history")]
    pub(crate) fn from_redb(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        use redb::Error as E;
        match error {
            E::Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => Self::Damaged(error.to_string()),
            E::Io(error) => Self::from_os(error),
            E::DatabaseAlreadyOpen | E::LockProtocolMismatch => Self::Locked { pid: None },
            E::Corrupted(message) if is_of_a_later_redb(&message) => {
                Self::NewerFormat { found: message, known: crate::FORMAT }
            }
            error @ (E::Corrupted(_)
            | E::UpgradeRequired(_)
            | E::TableTypeMismatch { .. }
            | E::TableIsMultimap(_)
            | E::TableIsNotMultimap(_)
            | E::TypeDefinitionChanged { .. }
            | E::TableDoesNotExist(_)) => Self::Damaged(error.to_string()),
            other => Self::Io(io::Error::other(other.to_string())),
        }
    }
}

/// Whether redb says that a file is of a later redb, for which it has no kind of its own. A version far beyond the present
/// one is no version but noise.
fn is_of_a_later_redb(message: &str) -> bool {
    message
        .strip_prefix("Expected file format version")
        .and_then(|rest| rest.rsplit_once("found "))
        .and_then(|(_, found)| found.parse::<u32>().ok())
        .is_some_and(|found| found < 16)
}

/// How much of a damaged file could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Minutes.
    pub minutes: u64,
    /// Summaries of lives.
    pub lives: u64,
    /// Entries of the audit log.
    pub audit: u64,
}

/// Something that happened while opening or keeping the store and that belongs in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A damaged file was renamed, and a fresh one was begun with what could be read of it.
    SetAside {
        /// Where the damaged file is now.
        moved_to: PathBuf,
        /// What was wrong with it.
        reason: String,
        /// What could be read of it.
        read: Salvaged,
    },
    /// An old damaged file was deleted, because only a few are kept.
    Forgotten(PathBuf),
    /// Nothing can be written; what is new stays in memory.
    Degraded(String),
    /// Writing works again.
    Recovered {
        /// Minutes that waited in memory and are saved now.
        minutes: u64,
        /// Minutes that had to be dropped meanwhile because the bound on waiting ones was reached.
        dropped: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside { moved_to, reason, read } => {
                let Salvaged { minutes, lives, audit } = read;
                write!(
                    formatter,
                    "the history could not be used ({reason}); it was set aside as {} and a fresh one was begun with what could \
                     be read of it: {minutes} minutes, {lives} lives and {audit} entries of the audit log",
                    moved_to.display()
                )
            }
            Self::Forgotten(path) => write!(
                formatter,
                "the damaged history {} was deleted: only a few are kept, and none where the disk has no room",
                path.display()
            ),
            Self::Degraded(reason) => {
                write!(formatter, "history is kept in memory only until the disk can be written again: {reason}")
            }
            Self::Recovered { minutes, dropped } => {
                write!(formatter, "history is written to disk again; {minutes} waiting minutes saved, {dropped} lost")
            }
        }
    }
}
