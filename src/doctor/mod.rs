//! What is wrong with the way apps run under pm2: facts about the daemons that run, or an ecosystem file, for the checks of
//! `checks`, which are pure.
//!
//! It reads what the collectors read, files of a home by `home_file` alone, and of variables only whether a flag stands in
//! them. It refuses to change anything, and to run an ecosystem file as root.

pub mod checks;
mod ecosystem;
mod gather;

use std::path::PathBuf;

pub use self::checks::Check;
use self::checks::{Finding, Restart, Severity};
use serde::Serialize;

pub use self::ecosystem::{EcosystemError, read as read_ecosystem};
pub use self::gather::{Watched, gather};

/// What was found, as the command prints it and the API tells it. The number grows when a field changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this shape.
    pub schema: u32,
    /// The daemons that were examined, or the ecosystem file.
    pub examined: Vec<String>,
    /// How many processes of theirs, or apps of the file.
    pub processes: usize,
    /// How many findings are critical.
    pub critical: usize,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
    /// The apps that lose connections when they are restarted.
    pub restarts: Vec<Restart>,
    /// What could not be examined, one sentence each.
    pub unexamined: Vec<String>,
}

/// What was gathered.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// The facts.
    pub facts: checks::Facts,
    /// What could not be had.
    pub unexamined: Vec<String>,
}

impl Gathered {
    /// Runs every check.
    pub fn report(self) -> Report {
        let findings = checks::examine(&self.facts);
        Report {
            schema: 1,
            examined: self.facts.daemons.iter().map(|daemon| daemon.name.clone()).collect(),
            processes: self.facts.daemons.iter().map(|daemon| daemon.apps.len()).sum(),
            critical: findings.iter().filter(|finding| finding.severity == Severity::Critical).count(),
            findings,
            restarts: checks::restarts(&self.facts),
            unexamined: self.unexamined,
        }
    }
}

/// Splits a path into its folder and its name.
fn parted(path: &str) -> Option<(PathBuf, String)> {
    let path = PathBuf::from(path);
    let name = path.file_name()?.to_str()?.to_owned();
    path.parent().map(|folder| (folder.to_owned(), name))
}
