//! Inspectors that a leakslope which was killed has left open in apps are closed again, with the care with which they were
//! opened: only in the very process that was written down, and not while somebody debugs it.
//!
//! It refuses to open anything, and to close an inspector of which there is no record.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attach::{Held, Opened, PORTS, PROC, is_in, is_inspector, undebugged};
use super::checks;
use super::ledger::{Entry, Ledger, Noted};
use crate::collect::system::{SystemReader, listening_ports};
use crate::model::WallTime;

/// How long an inspector that was asked for and never seen may take to open; what opens later is somebody else's.
const LATEST: Duration = Duration::from_hours(1);

/// Closes what was left open; each is tried once for as long as this lives.
#[derive(Debug)]
pub struct Closer {
    ledger: Ledger,
    tried: BTreeSet<PathBuf>,
}

/// What became of an inspector that was left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOpen {
    /// Whether it is closed now.
    pub closed: bool,
    /// That, with the process and the reason, as a sentence.
    pub sentence: String,
}

/// How it stands with one of them.
enum Standing {
    /// Nothing is open, and nothing will be.
    Done,
    /// It may open yet: its process was blocked.
    NotYet,
    /// It was closed, or why not.
    Told(Result<(), String>),
}

impl Closer {
    /// Of what this ledger has.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, tried: BTreeSet::new() }
    }

    /// Looks through the records that nobody holds any more, closes what they name, and says what became of each of which
    /// there is something to say. Takes up to a minute for an app whose event loop is blocked, and reads the disk on the
    /// thread that asks: it is to have nothing else to do.
    pub async fn close(&mut self, now: WallTime) -> Vec<LeftOpen> {
        let mut told = Vec::new();
        // What cannot be read now is looked for again.
        for (noted, entry) in self.ledger.left() {
            if self.tried.contains(&noted.path) {
                continue;
            }
            let path = noted.path.clone();
            let who = format!("{} ({}/{}, pid {})", entry.app, entry.daemon, entry.pm_id, entry.pid);
            let Standing::Told(closed) = close(noted, &entry, now).await else { continue };
            let sentence = match &closed {
                Ok(()) => format!("the inspector of {who}, left open by a leakslope that was killed, is closed again"),
                Err(why) => format!(
                    "the inspector of {who} was left open by a leakslope that was killed: {why}; the next start of the sidecar \
                     and the next `leakslope heap profile` look at it again"
                ),
            };
            if closed.is_err() {
                self.tried.insert(path);
            }
            told.push(LeftOpen { closed: closed.is_ok(), sentence });
        }
        told
    }
}

async fn close(noted: Noted, entry: &Entry, now: WallTime) -> Standing {
    let looking = {
        let entry = entry.clone();
        tokio::task::spawn_blocking(move || process(&entry))
    };
    let (process, objection) = match looking.await {
        Ok(Some(found)) => found,
        Ok(None) => {
            noted.strike_out();
            return Standing::Done;
        }
        Err(panicked) => return Standing::Told(Err(panicked.to_string())),
    };
    if let Some(objection) = objection {
        return Standing::Told(Err(objection));
    }
    let before: BTreeSet<u16> = entry.before.iter().copied().collect();
    let Some(port) = port(entry, &before).await else {
        let age = Duration::from_millis(u64::try_from(now.0.saturating_sub(entry.at.0)).unwrap_or_default());
        if entry.port.is_none() && age < LATEST {
            return Standing::NotYet;
        }
        noted.strike_out();
        return Standing::Done;
    };
    let ours = async {
        undebugged(entry.pid, port).await?;
        is_in(entry.pid, port).await
    };
    if let Err(why) = ours.await {
        return Standing::Told(Err(why));
    }
    let mut opened = Opened { process, port: Some(port), before, ours: true, noted: Some(noted) };
    Standing::Told(opened.shut().await)
}

/// The process that was written down, and what speaks against looking into it; none where it is gone.
fn process(entry: &Entry) -> Option<(Held, Option<String>)> {
    if !entry.is_of_this_boot() {
        return None;
    }
    let seen = SystemReader::new(PROC.into()).close_up(entry.pid)?;
    let process = Held { pid: entry.pid, start_ticks: seen.start_ticks };
    (seen.start_ticks == entry.start_ticks).then(|| (process, checks::against_looking(&seen)))
}

/// Where the inspector listens now: where it was seen, else where none listened before.
async fn port(entry: &Entry, before: &BTreeSet<u16>) -> Option<u16> {
    let now = listening_ports(Path::new(PROC), entry.pid);
    let may_be = |port: &u16| match entry.port {
        Some(seen) => *port == seen,
        None => PORTS.contains(port) && !before.contains(port),
    };
    for port in now.into_iter().filter(may_be) {
        if is_inspector(port).await {
            return Some(port);
        }
    }
    None
}
