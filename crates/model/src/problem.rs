//! What can be wrong with a configuration, each problem with its place.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// The system has no descriptor left.
const ENFILE: i32 = 23;
/// The process has none left.
const EMFILE: i32 = 24;

/// A configuration that cannot be used, with every problem that was found.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing stands in a file that had content when it was read before.
    #[error(
        "configuration {}: it is empty and was not before, perhaps because it is being written over: a comment makes an \
         empty one valid", path.display()
    )]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// The text is not a configuration.
    #[error("{}", list(problems))]
    Invalid {
        /// Every problem, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Whether nothing may be wrong with the file: the process or the machine had no descriptor left to open it with.
    pub fn is_passing(&self) -> bool {
        let Self::Unreadable { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(EMFILE | ENFILE))
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from one.
    pub line: usize,
    /// The dotted key, where one is known.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
