//! What is wrong with the way apps run under pm2: nineteen checks, from facts to findings.
//!
//! | part       | what it is for                                           |
//! |------------|----------------------------------------------------------|
//! | `facts`    | what a check may know of the host, its daemons and apps  |
//! | `settings` | how an app is set up, from pm2's list or an ecosystem file |
//! | `journal`  | what pm2's own log says of the past                      |
//! | `finding`  | the checks by name, and what one finds                   |
//! | `apps`, `memory`, `daemons` | the checks                              |
//! | `restarts` | which apps lose connections when they are restarted      |
//!
//! Everything here is pure: facts come as arguments and findings are returned. A fact that is unknown makes a check silent, and
//! whoever gathers the facts says so. Of an app's environment nothing is read but the few flags that a check is about.

mod apps;
mod daemons;
mod facts;
mod finding;
mod journal;
mod memory;
mod restarts;
mod settings;
#[cfg(test)]
mod tests;

pub use facts::{App, Daemon, Dump, Facts, Group, Host, Live, LogFile, Output, Unit};
pub use finding::{Check, Finding, Severity};
pub use journal::{Journal, Past};
pub use restarts::{Restart, restarts};
pub use settings::{AppSettings, read_dump, read_ecosystem, read_reply};

/// Runs every check. The most severe findings come first, then by check and app; what is the same for several processes of an
/// app is one finding.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for daemon in &facts.daemons {
        daemons::examine(&facts.host, daemon, &mut found);
        memory::examine(&facts.host, daemon, &mut found);
        for app in &daemon.apps {
            apps::examine(daemon, app, &mut found);
        }
    }
    let mut merged: Vec<Finding> = Vec::new();
    for finding in found {
        let same = |other: &&mut Finding| {
            (other.check, &other.daemon, &other.app, &other.what)
                == (finding.check, &finding.daemon, &finding.app, &finding.what)
        };
        match merged.iter_mut().find(same) {
            Some(other) => other.pm_ids.extend(finding.pm_ids),
            None => merged.push(finding),
        }
    }
    merged.sort_by(|one, two| {
        (one.severity, one.check, &one.daemon, &one.app).cmp(&(two.severity, two.check, &two.daemon, &two.app))
    });
    merged
}
