//! What the demo tells: a few lines on what changed since it was last asked. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::output::{fit, wrap};
use crate::export::json::{ProcessView, ProcessesView};
use crate::model::Bytes;

/// The width that the lines keep to, and where the text after the time and the name begins.
const COLUMNS: usize = 100;
const INDENT: usize = 23;
/// Between two lines on how much memory is held, while nothing else happens.
const BETWEEN_NOTES: Duration = Duration::from_secs(20);

/// What is said before anything runs.
pub(super) fn opening(address: &str, pm2: &str) -> String {
    let address = crate::http::client::reachable(address);
    let mut text =
        format!("The page: http://{address}/ (in a few seconds)\n\nA pm2 of its own, {pm2}, runs three apps:\n");
    for (name, what) in super::APPS {
        writeln!(text, "  {} {what}", fit(name, 16)).ok();
    }
    text.push_str(
        "\nTime is compressed: a minute of the detector takes a second. Its first answer, which takes it most of an hour\n\
         beside a real app, comes within one minute here, and the leak is proved in about two. Ctrl-C ends the demo.\n\n",
    );
    text
}

/// What one process is seen to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    app: String,
    pm_id: u32,
    state: String,
    reason: String,
    resident: Bytes,
    bytes_per_second: f64,
    left_seconds: Option<f64>,
    restarts: u64,
}

impl Seen {
    /// Takes what the story needs of each process.
    pub(super) fn all(view: &ProcessesView) -> Vec<Self> {
        view.processes.iter().filter_map(Self::of).collect()
    }

    fn of(process: &ProcessView) -> Option<Self> {
        let verdict = process.verdict.as_ref()?;
        Some(Self {
            app: process.app.clone(),
            pm_id: process.pm_id,
            state: verdict.state.clone(),
            reason: verdict.reason.clone(),
            resident: Bytes(process.resident_memory_bytes?),
            bytes_per_second: verdict.slopes.get(&verdict.signal).map_or(0.0, |slope| slope.bytes_per_second),
            left_seconds: verdict.projected_exhaustion_seconds,
            restarts: process.restarts.unwrap_or(0),
        })
    }
}

/// What has been told so far.
#[derive(Debug)]
pub(super) struct Story {
    address: String,
    told: BTreeMap<String, (String, u64)>,
    noted_at: Duration,
    proved: bool,
}

impl Story {
    /// Begins a story about the sidecar at this address.
    pub(super) fn new(address: String) -> Self {
        Self { address, told: BTreeMap::new(), noted_at: Duration::ZERO, proved: false }
    }

    /// The lines that are new, `elapsed` after the start; often none.
    pub(super) fn tell(&mut self, seen: &[Seen], elapsed: Duration) -> String {
        let mut text = String::new();
        if self.told.is_empty() && seen.len() == super::APPS.len() {
            line(&mut text, elapsed, "", "all three run; leakslope learns what is normal for them");
            self.noted_at = elapsed;
        }
        let waiting = self.told.is_empty() && text.is_empty();
        for process in seen.iter().filter(|_| !waiting) {
            let now = (process.state.clone(), process.restarts);
            let before = self.told.insert(process.app.clone(), now.clone());
            let Some((state, restarts)) = before.filter(|before| *before != now) else { continue };
            if restarts != process.restarts {
                let died = format!("died with {} held; pm2 has started it anew, and it begins again", super::DIES_AT);
                line(&mut text, elapsed, &process.app, &died);
            } else if state != process.state {
                line(&mut text, elapsed, &process.app, &verdict(process));
            }
            self.noted_at = elapsed;
            if process.state == "leaking" && !self.proved {
                self.proved = true;
                text.push_str(&self.ending(process));
            }
        }
        if !waiting && !self.proved && elapsed.saturating_sub(self.noted_at) >= BETWEEN_NOTES {
            let held: Vec<String> =
                seen.iter().map(|one| format!("{} {} MiB", one.app, one.resident.0 / Bytes::MIB.0)).collect();
            line(&mut text, elapsed, "", &format!("memory: {}", held.join(", ")));
            self.noted_at = elapsed;
        }
        text
    }

    /// What to do next, said once when the leak is proved.
    fn ending(&self, process: &Seen) -> String {
        let address = &self.address;
        format!(
            "\nThat is the verdict. The chart behind it: http://{address}/#/process/default/{}\n\
             The other two are watched all the same and do not leak. On your own pm2, without configuration:\n\n  \
             cargo run --release\n\n\
             The demo goes on until Ctrl-C. In some ten minutes checkout dies, pm2 starts it anew, and it leaks again.\n\n",
            process.pm_id,
        )
    }
}

/// A verdict in words, with the reason that the sidecar gives.
fn verdict(process: &Seen) -> String {
    let reason = &process.reason;
    let pace = format!("{:.1} MiB a minute", process.bytes_per_second * 60.0 / Bytes::MIB.as_f64());
    let left = process.left_seconds.map(|left| format!(" and meets its limit in {left:.0} s")).unwrap_or_default();
    match process.state.as_str() {
        "leaking" => format!("LEAKING: it grows {pace}{left}. Why: {reason}"),
        "suspect" => format!("suspect: it grows {pace}{left}; being watched on until that is sure"),
        "stable" => format!("stable so far: {reason}"),
        other => other.to_owned(),
    }
}

/// A line with its time since the start and the app it is about.
fn line(text: &mut String, elapsed: Duration, app: &str, what: &str) {
    let seconds = elapsed.as_secs();
    let wrapped = wrap(what, COLUMNS, INDENT);
    let begin = format!("{:>5} {} ", format!("{}:{:02}", seconds / 60, seconds % 60), fit(app, INDENT - 7));
    // Writing to a string cannot fail.
    writeln!(text, "{begin}{}", wrapped.trim_start()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(app: &str, state: &str, mebibytes: u64, restarts: u64) -> Seen {
        Seen {
            app: app.to_owned(),
            pm_id: 0,
            state: state.to_owned(),
            reason: format!("the reason of {state}"),
            resident: Bytes(mebibytes << 20),
            bytes_per_second: 1_100_000.0,
            left_seconds: Some(71.4),
            restarts,
        }
    }

    #[test]
    fn it_tells_what_changes_and_is_silent_otherwise() {
        let mut story = Story::new("127.0.0.1:19209".to_owned());
        let mut text = opening("127.0.0.1:19209", "`pm2`");
        let others = |state| [seen("checkout-fixed", state, 60, 0), seen("catalogue-cache", state, 90, 0)];
        let all = |first: Seen, state| [vec![first], others(state).to_vec()].concat();
        let mut tell = |seconds, seen: &[Seen]| {
            let told = story.tell(seen, Duration::from_secs(seconds));
            text.push_str(&told);
            told
        };
        assert_eq!(tell(1, &others("learning")), "", "they do not all run yet");
        let learning = all(seen("checkout", "learning", 55, 0), "learning");
        tell(2, &learning);
        assert_eq!(tell(3, &learning), "");
        tell(22, &learning);
        tell(31, &all(seen("checkout", "stable", 90, 0), "stable"));
        tell(95, &all(seen("checkout", "suspect", 160, 0), "stable"));
        tell(121, &all(seen("checkout", "leaking", 190, 0), "stable"));
        assert_eq!(tell(160, &all(seen("checkout", "leaking", 230, 0), "stable")), "", "the story is told");
        tell(200, &all(seen("checkout", "learning", 50, 1), "stable"));
        insta::assert_snapshot!(text);
    }
}
