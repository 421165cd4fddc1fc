//! When evidence is taken without a person asking, and in which words it is not: pure.
//!
//! Once for each life that turns out to leak, the most pressing first, with a pause between two of one app, one at a time
//! on a host. It refuses to take anything itself.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::EvidenceSettings;
use super::keep::{Record, Trigger};
use crate::model::{AppName, DaemonName, LeakState, Life, ProcessKey, Verdict, WallTime};

/// After what time at the latest a profile that failed is tried again.
const RETRY: Duration = Duration::from_mins(15);

/// How far one has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is being taken.
    Running,
    /// Its file is there.
    Done,
    /// There is no file, and this is why.
    Failed(String),
}

/// One that was taken, is being taken or came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What is known of it; its file may not be there yet.
    pub record: Record,
    /// How far it has come.
    pub progress: Progress,
}

/// A running process with what is thought of it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Which process.
    pub key: &'a ProcessKey,
    /// Its app.
    pub app: &'a AppName,
    /// Its life.
    pub life: Life,
    /// The verdict on that life; none before there is one.
    pub verdict: Option<&'a Verdict>,
}

/// Why no profile is taken of a process by itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Why {
    /// The settings say so.
    #[error(
        "a profile is taken only when somebody asks, since evidence.on_leak is \"none\"; \"profile\" has one taken when a \
         process is found to leak"
    )]
    Off,
    /// There is nothing to take one for.
    #[error("a profile is taken when this process is found to leak; its verdict is {0}")]
    NotLeaking(&'static str),
    /// Once in a life is enough.
    #[error(
        "this life has had its profile when it was found to leak ({0}); take another one by hand if it is not enough"
    )]
    Had(String),
    /// One was tried and failed.
    #[error("a profile could not be taken ({why}); it is tried again in {}", Rounded(*.left))]
    Failed {
        /// What it said.
        why: String,
        /// Until the next attempt.
        left: Duration,
    },
    /// The app had one not long ago.
    #[error("{app} rests: its latest profile is {file}, and the next one that nobody asks for may come in {} (evidence.cooldown)", Rounded(*.left))]
    Resting {
        /// The app.
        app: AppName,
        /// Its latest profile.
        file: String,
        /// Until the next one.
        left: Duration,
    },
    /// One at a time.
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// One is being taken, and another would have to wait.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a profile of {app} ({process}) is being taken, and one at a time is enough for a host; try again when it is there"
)]
pub struct Busy {
    /// The app whose profile it is.
    pub app: AppName,
    /// The process.
    pub process: ProcessKey,
}

/// A span in its largest unit, rounded up.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64().ceil();
        match seconds {
            _ if seconds >= 3600.0 => write!(out, "{:.0} h", (seconds / 3600.0).ceil()),
            _ if seconds >= 60.0 => write!(out, "{:.0} min", (seconds / 60.0).ceil()),
            _ => write!(out, "{seconds:.0} s"),
        }
    }
}

/// What is being taken now.
///
/// # Errors
/// [`Busy`] with the one that is.
pub fn idle(items: &[Item]) -> Result<(), Busy> {
    match items.iter().find(|item| item.progress == Progress::Running) {
        Some(item) => Err(Busy { app: item.record.app.clone(), process: item.record.key() }),
        None => Ok(()),
    }
}

/// Whether a profile of a process is due because it leaks.
///
/// # Errors
/// [`Why`] not.
pub fn look(settings: &EvidenceSettings, it: &Candidate<'_>, items: &[Item], now: WallTime) -> Result<(), Why> {
    if !settings.on_leak {
        return Err(Why::Off);
    }
    let state = it.verdict.map_or(LeakState::Learning, |verdict| verdict.state);
    if state != LeakState::Leaking {
        return Err(Why::NotLeaking(state.as_str()));
    }
    for item in items {
        let of_process = item.record.key() == *it.key;
        let of_life = of_process && item.record.life == Some(it.life) && item.record.trigger == Trigger::Leak;
        match &item.progress {
            Progress::Running | Progress::Done if of_life => return Err(Why::Had(item.record.file.clone())),
            Progress::Failed(why) if of_process => {
                if let Some(left) = left(item.record.taken_at, settings.cooldown.min(RETRY), now) {
                    return Err(Why::Failed { why: why.clone(), left });
                }
            }
            Progress::Running | Progress::Done | Progress::Failed(_) => {}
        }
    }
    let rests = items.iter().filter(|item| !matches!(item.progress, Progress::Failed(_))).find_map(|item| {
        let of_app = item.record.daemon == it.key.daemon && item.record.app.means(it.app);
        let left = left(item.record.taken_at, settings.cooldown, now).filter(|_| of_app)?;
        Some(Why::Resting { app: it.app.clone(), file: item.record.file.clone(), left })
    });
    rests.map_or(Ok(()), Err)?;
    Ok(idle(items)?)
}

/// Chooses of which process a profile is due because it leaks: the one that runs out first.
pub fn due<'a>(
    settings: &EvidenceSettings,
    candidates: impl Iterator<Item = Candidate<'a>>,
    items: &[Item],
    now: WallTime,
) -> Option<Candidate<'a>> {
    let due = candidates.filter(|it| look(settings, it, items, now).is_ok());
    due.min_by_key(|it| (left_of(it.verdict), it.key))
}

/// Chooses of which of an app's processes a profile says most: a leaking one, the one that runs out first; else the first.
pub fn most_telling<'a>(candidates: impl Iterator<Item = Candidate<'a>>) -> Option<Candidate<'a>> {
    let leaks = |it: &Candidate<'_>| it.verdict.is_some_and(|verdict| verdict.state == LeakState::Leaking);
    candidates.min_by_key(|it| (!leaks(it), left_of(it.verdict), it.key))
}

fn left_of(verdict: Option<&Verdict>) -> Duration {
    verdict.and_then(|verdict| verdict.projected_exhaustion).unwrap_or(Duration::MAX)
}

/// What is left of a span that began then; none once it is over, or if it began in the future: a clock was set back.
fn left(began: WallTime, span: Duration, now: WallTime) -> Option<Duration> {
    let passed = Duration::from_millis(u64::try_from(now.0.checked_sub(began.0)?).ok()?);
    span.checked_sub(passed).filter(|left| !left.is_zero())
}

/// The profile that makes another one before a restart needless: of the same app, taken before an earlier restart within
/// the cooldown, as in a roll from worker to worker.
pub fn still_good<'a>(
    settings: &EvidenceSettings,
    items: &'a [Item],
    (daemon, app): (&DaemonName, &AppName),
    now: WallTime,
) -> Option<&'a Item> {
    items.iter().find(|item| {
        item.record.trigger == Trigger::BeforeRestart
            && item.progress == Progress::Done
            && item.record.daemon == *daemon
            && item.record.app.means(app)
            && left(item.record.taken_at, settings.cooldown, now).is_some()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evidence::keep::Kind;
    use crate::model::{Basis, Bytes, Signal, Steady};

    const HOUR: i64 = 3_600_000;

    fn settings() -> EvidenceSettings {
        EvidenceSettings {
            sources: crate::evidence::original::Places::default(),
            open_inspector: Vec::new(),
            on_leak: true,
            before_restart: true,
            before_restart_duration: Duration::from_secs(30),
            duration: Duration::from_mins(5),
            cooldown: Duration::from_hours(6),
            max_disk: Bytes(256 << 20),
        }
    }

    fn verdict(state: LeakState, hours_left: u64) -> Verdict {
        Verdict {
            state,
            since: Steady(0),
            at: Steady(0),
            signal: Signal::Footprint,
            basis: Basis::SampledHeap,
            slopes: BTreeMap::new(),
            window: Duration::ZERO,
            floor: None,
            limit: None,
            projected_exhaustion: Some(Duration::from_hours(hours_left)),
            provisional: None,
            first_verdict_at: None,
            previous: None,
            rejection: None,
            reason: String::new(),
        }
    }

    struct Process(ProcessKey, AppName, Life, Verdict);

    fn process(pm_id: u32, app: &str, state: LeakState, hours_left: u64) -> Process {
        let key = ProcessKey { daemon: "default".into(), pm_id };
        Process(key, app.into(), Life { pid: 100 + pm_id, started: 1 }, verdict(state, hours_left))
    }

    fn candidate(it: &Process) -> Candidate<'_> {
        Candidate { key: &it.0, app: &it.1, life: it.2, verdict: Some(&it.3) }
    }

    fn item(of: &Process, trigger: Trigger, progress: Progress, hour: i64) -> Item {
        let record = Record {
            kind: Kind::HeapProfile,
            trigger,
            daemon: of.0.daemon.clone(),
            app: of.1.clone(),
            pm_id: of.0.pm_id,
            user: None,
            life: Some(of.2),
            taken_at: WallTime(hour * HOUR),
            sampled_seconds: None,
            cost: None,
            notes: Vec::new(),
            file: format!("profile-of-hour-{hour}"),
        };
        Item { record, progress }
    }

    fn failed() -> Progress {
        Progress::Failed("the agent did not answer".to_owned())
    }

    fn chosen(processes: &[Process], items: &[Item], hour: i64) -> Option<u32> {
        let all = processes.iter().map(candidate);
        due(&settings(), all, items, WallTime(hour * HOUR)).map(|it| it.key.pm_id)
    }

    #[test]
    fn the_leaking_process_that_runs_out_first_is_next() {
        let processes = [
            process(0, "shop", LeakState::Suspect, 1),
            process(1, "shop", LeakState::Leaking, 9),
            process(2, "api", LeakState::Leaking, 4),
        ];
        assert_eq!(chosen(&processes, &[], 0), Some(2));
        let of_api = item(&processes[2], Trigger::Leak, Progress::Done, 0);
        assert_eq!(chosen(&processes, &[of_api], 0), Some(1));
        assert_eq!(most_telling(processes.iter().map(candidate)).map(|it| it.key.pm_id), Some(2));
        assert_eq!(most_telling(processes[..1].iter().map(candidate)).map(|it| it.key.pm_id), Some(0));
    }

    fn said(settings: &EvidenceSettings, process: &Process, items: &[Item]) -> String {
        let found = look(settings, &candidate(process), items, WallTime(10 * HOUR));
        found.map_or_else(|why| why.to_string(), |()| "due".to_owned())
    }

    #[test]
    fn whatever_speaks_against_it_is_said_with_what_to_do() {
        use Progress::{Done, Running};
        use Trigger::{BeforeRestart, Leak, Person};
        let leaks = |pm_id, app| process(pm_id, app, LeakState::Leaking, 9);
        let (one, other) = (leaks(1, "shop"), leaks(2, "shop"));
        // It is ten o'clock, and an app rests for six hours.
        let table = [
            ("nothing yet", vec![], "due"),
            ("it had its own", vec![item(&one, Leak, Done, 1)], "when it was found to leak (profile-of-hour-1)"),
            (
                "it has its own now",
                vec![item(&one, Leak, Running, 10)],
                "when it was found to leak (profile-of-hour-10)",
            ),
            (
                "another worker had one",
                vec![item(&other, Leak, Done, 9)],
                "shop rests: its latest profile is profile-of-hour-9, and the next one that nobody asks for may come in 5 h",
            ),
            ("another worker had one long ago", vec![item(&other, Leak, Done, 4)], "due"),
            ("a person's counts for the rest", vec![item(&one, Person, Done, 9)], "may come in 5 h"),
            ("a person's is not the life's own", vec![item(&one, Person, Done, 1)], "due"),
            ("a record of the future", vec![item(&other, BeforeRestart, Done, 400)], "due"),
            ("it failed on another worker", vec![item(&other, Leak, failed(), 10)], "due"),
            (
                "it failed just now",
                vec![item(&one, Leak, failed(), 10)],
                "(the agent did not answer); it is tried again in 15 min",
            ),
            ("it failed a while ago", vec![item(&one, Leak, failed(), 9)], "due"),
            (
                "busy",
                vec![item(&leaks(7, "api"), Leak, Running, 10)],
                "a profile of api (default/7) is being taken, and one at a time",
            ),
        ];
        for (name, items, words) in table {
            let said = said(&settings(), &one, &items);
            assert!(said.contains(words), "{name}: {said}");
        }
        let reborn = Process(one.0.clone(), one.1.clone(), Life { pid: 500, started: 9 }, one.3.clone());
        assert_eq!(said(&settings(), &reborn, &[item(&one, Leak, Done, 1)]), "due", "another life has its own");
        let healthy = said(&settings(), &process(1, "shop", LeakState::Stable, 9), &[]);
        assert!(healthy.contains("its verdict is stable"), "{healthy}");
        let off = said(&EvidenceSettings { on_leak: false, ..settings() }, &one, &[]);
        assert!(off.contains("evidence.on_leak is \"none\""), "{off}");
    }

    #[test]
    fn in_a_roll_the_first_workers_profile_is_enough() {
        let worker = process(1, "shop", LeakState::Leaking, 9);
        let name = (&worker.0.daemon, &worker.1);
        let found = |items: &[Item], hour: i64| still_good(&settings(), items, name, WallTime(hour * HOUR)).is_some();
        let before = |progress| vec![item(&worker, Trigger::BeforeRestart, progress, 0)];
        assert!(found(&before(Progress::Done), 5) && !found(&before(Progress::Done), 6));
        assert!(!found(&before(failed()), 1));
        assert!(!found(&[item(&worker, Trigger::Leak, Progress::Done, 0)], 1));
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (61, "2 min"), (3600, "1 h"), (3700, "2 h")] {
            assert_eq!(Rounded(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
