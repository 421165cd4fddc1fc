//! What can be wrong with a recording, each with its place.

use std::fmt;

/// Something wrong in a file, with the line and the column where they are known.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    /// Counted from one.
    pub(super) line: Option<u64>,
    /// The column's name.
    pub(super) column: Option<String>,
    /// What it is.
    pub(super) wrong: Wrong,
}

impl Problem {
    /// Something wrong with a file as a whole.
    pub(super) fn whole(wrong: Wrong) -> Self {
        Self { line: None, column: None, wrong }
    }

    /// Something wrong in a line.
    pub(super) fn line(line: u64, wrong: Wrong) -> Self {
        Self { line: Some(line), column: None, wrong }
    }

    /// Something wrong in one cell.
    pub(super) fn cell(line: u64, column: &str, wrong: Wrong) -> Self {
        Self { line: Some(line), column: Some(column.to_owned()), wrong }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(formatter, "line {line}: ")?;
        }
        if let Some(column) = &self.column {
            write!(formatter, "{column}: ")?;
        }
        write!(formatter, "{}", self.wrong)
    }
}

impl std::error::Error for Problem {}

/// What is wrong.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("there is nothing in it")]
    Empty,
    #[error("there is a header but no row")]
    NoRows,
    #[error("it is compressed: write `zcat FILE | leakslope analyze -`")]
    Compressed,
    #[error("it is UTF-16 text: save it as UTF-8")]
    Utf16,
    #[error("it is not text")]
    Binary,
    #[error("not valid UTF-8")]
    NotUtf8,
    #[error("longer than {0} bytes")]
    TooLong(usize),
    #[error("no header, and {0} columns: only time and bytes can go without one")]
    NoHeader(usize),
    #[error("the header has no column \"time\"")]
    NoTime,
    #[error(
        "the header names nothing to judge: \"resident_memory_bytes\", \"heap_used_bytes\", \"heap_total_bytes\" or \
         \"post_gc_heap_used_bytes\""
    )]
    NoMemory,
    #[error("named twice in the header")]
    Twice,
    #[error("{found} columns instead of {expected}")]
    Columns {
        /// Cells in this line.
        found: usize,
        /// Cells in the header or the first line.
        expected: usize,
    },
    #[error("a quote is not closed")]
    Quote,
    #[error("\"{0}\" is not a number")]
    NotANumber(String),
    #[error("\"{0}\" is negative")]
    Negative(String),
    #[error("\"{0}\" is more memory than any machine has: is `--unit` right?")]
    TooLarge(String),
    #[error("\"{0}\" is not a count")]
    NotACount(String),
    #[error("\"{0}\" is not a time: write unix seconds or RFC 3339 like 2026-01-31T12:00:00Z")]
    NotATime(String),
    #[error("\"{text}\" is not a time in {form}, as in the rows before")]
    OtherTime {
        /// The cell.
        text: String,
        /// What the first row had.
        form: &'static str,
    },
    #[error("\"{0}\" lies too far away: write unix seconds")]
    FarTime(String),
    #[error("more than {0} lives")]
    Lives(u32),
    #[error("its time lies before rows more than {held} lines earlier, and {why}: sort the recording by time first")]
    Unsorted {
        /// Rows within which order is mended.
        held: usize,
        /// Why it cannot be sorted here.
        why: &'static str,
    },
    #[error("not the JSON of a Prometheus range query: {0}")]
    Json(String),
    #[error("Prometheus answered with an error: {0}")]
    Answer(String),
    #[error("a result of the kind \"{0}\" has no course of time: ask for a range with `query_range`")]
    Instant(String),
    #[error("the query found no series")]
    NoSeries,
    #[error("larger than {0} MiB: ask for a shorter range or a longer step")]
    LargeJson(u64),
    #[error("cannot be read: {0}")]
    Read(String),
}
