//! What can be wrong with a heap file: always with the file, the byte and the key it was found at.

use crate::format::size;

/// Says why a heap file could not be read, and where in it.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {kind}{}", Place { offset: *.offset, key })]
pub struct HeapError {
    /// Names the file as the caller gave it.
    pub subject: String,
    /// Counts the bytes read before the fault was seen.
    pub offset: u64,
    /// Names the top-level key that was being read, empty before the first.
    pub key: &'static str,
    /// Says what is wrong.
    pub kind: HeapErrorKind,
}

/// Prints ` (at byte 12, in "nodes")`.
struct Place<'a> {
    offset: u64,
    key: &'a &'static str,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            write!(out, " (at byte {})", self.offset)
        } else {
            write!(out, " (at byte {}, in \"{}\")", self.offset, self.key)
        }
    }
}

/// Says what is wrong with a heap file.
#[derive(Debug, thiserror::Error)]
pub enum HeapErrorKind {
    /// The file could not be read.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    /// The file ends before the value does.
    #[error("the file is cut off")]
    Truncated,
    /// The text is not the JSON that belongs here.
    #[error("expected {expected}, found {}", printable(*.found))]
    Unexpected {
        /// Says what belongs here.
        expected: &'static str,
        /// Holds the byte found instead.
        found: u8,
    },
    /// A number does not fit.
    #[error("a number is larger than {limit}")]
    TooLarge {
        /// Holds the largest number that fits.
        limit: u64,
    },
    /// The description of the format lacks something or contradicts itself.
    #[error("this is not a heap snapshot this reader understands: {0}")]
    Header(String),
    /// A key that belongs into every snapshot is missing, or comes too late.
    #[error("the key \"{0}\" is missing")]
    Missing(&'static str),
    /// The counts of the file contradict each other.
    #[error("the file contradicts itself: {0}")]
    Contradiction(String),
    /// Reading on would need more memory than allowed.
    #[error(
        "it needs about {} of memory to analyse and {} are allowed (raise it with --max-memory)",
        size(*.needed),
        size(*.allowed)
    )]
    Memory {
        /// Holds the memory the whole analysis is estimated to take, in bytes.
        needed: u64,
        /// Holds the memory the caller allows, in bytes.
        allowed: u64,
    },
}

fn printable(found: u8) -> String {
    if found.is_ascii_graphic() { format!("'{}'", char::from(found)) } else { format!("byte 0x{found:02x}") }
}
