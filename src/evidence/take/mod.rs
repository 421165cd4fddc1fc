//! Taking evidence from a running process: which checks come first, by which road, and how the app is left as it was.
//!
//! | part           | what it is for                                              | pure |
//! |----------------|-------------------------------------------------------------|------|
//! | `action`       | a profile by pm2's own action: no pause, nothing opened     | no   |
//! | `attach`       | into an app by its inspector, and out again                 | no   |
//! | `checks`       | whether SIGUSR1 would open an inspector, or do harm         | yes  |
//! | `private`      | carries a session over to a connection of our own           | no   |
//! | `ledger`       | which inspectors are open, on disk                          | no   |
//! | `left_open`    | closes those of a leakslope that was killed                 | no   |
//! | `own_listener` | whether the app listens for SIGUSR1 itself                  | no   |
//! | `estimate`     | what a snapshot will cost, and what speaks against it       | yes  |
//! | `series`       | snapshots one after the other in one session                | no   |
//!
//! Nothing is asked of an app unless the very life that is meant is online. A profile goes through the inspector only
//! where pm2's agent is missing, and a snapshot is taken only on a person's word. This room refuses to decide when evidence
//! is wanted.

mod action;
mod attach;
mod checks;
pub mod estimate;
mod ledger;
mod left_open;
mod own_listener;
mod private;
pub mod series;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use self::attach::Attached;
pub use self::ledger::Ledger;
pub use self::left_open::{Closer, LeftOpen};
use crate::collect::look::{LOOK_DEADLINE, Look, client, look};
use crate::evidence::keep::{self, Cost, Kind, Record, Road, Trigger};
use crate::evidence::profile;
use crate::model::{AppName, Bytes, DaemonName, Life, Listed, ProcessKey, Status, WallTime};

/// How long allocations may be sampled, …
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);

/// … and what is said of anything else.
///
/// # Errors
/// A sentence where it is too short or too long.
pub fn check_duration(duration: Duration) -> Result<(), &'static str> {
    let fits = (SHORTEST..=LONGEST).contains(&duration);
    if fits { Ok(()) } else { Err("allocations are sampled for a second to an hour") }
}

/// Average bytes between two samples: fewer see more and cost more.
pub const SAMPLING_INTERVAL: Bytes = Bytes(32 << 10);
/// No profile is larger: nothing longer is read from pm2.
pub const LARGEST_PROFILE: Bytes = Bytes(32 << 20);

/// The one life of one process that evidence is wanted of, as the latest list showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The home of its daemon.
    pub home: PathBuf,
    /// Which process.
    pub key: ProcessKey,
    /// The app's name.
    pub app: AppName,
    /// Which life: evidence of another one is worth nothing.
    pub life: Life,
    /// V8's heap in use, where the list told.
    pub heap_used: Option<Bytes>,
}

impl Target {
    /// The record of a file of evidence of this life that a person asked for.
    fn record(&self, file: String, at: WallTime, cost: Option<Cost>) -> Record {
        Record {
            kind: Kind::default(),
            trigger: Trigger::default(),
            daemon: self.key.daemon.clone(),
            app: self.app.clone(),
            pm_id: self.key.pm_id,
            user: None,
            life: Some(self.life),
            taken_at: at,
            sampled_seconds: None,
            cost,
            notes: Vec::new(),
            file,
        }
    }
}

/// What profile to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileOrder {
    /// How long allocations are sampled: from a second to an hour.
    pub duration: Duration,
    /// Average bytes between two samples.
    pub sampling_interval: Bytes,
    /// Now, for the file's name.
    pub at: WallTime,
    /// Why it is taken, for its record.
    pub trigger: Trigger,
    /// Whether the app's inspector may be opened where pm2's agent is off.
    pub opens: bool,
    /// Whether it goes through the inspector even where pm2's agent is in the app.
    pub inspector: bool,
}

impl ProfileOrder {
    /// The name that the file will have.
    pub fn file(&self, target: &Target) -> String {
        file_name(&target.app, target.key.pm_id, None, self.at, "heapprofile")
    }

    /// What is known of the profile, as far as it is; its cost once it was taken.
    pub fn record(&self, target: &Target, cost: Option<Cost>) -> Record {
        Record {
            kind: Kind::HeapProfile,
            trigger: self.trigger,
            sampled_seconds: Some(self.duration.as_secs_f64()),
            ..target.record(self.file(target), self.at, cost)
        }
    }
}

/// One file of evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The file, of mode 0600.
    pub path: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// By which road, and what that cost the app.
    pub cost: Cost,
    /// That the app's inspector is still open, and until when: its event loop is blocked.
    pub still_open: Option<String>,
    /// What it cannot tell, and why.
    pub notes: Vec<String>,
}

/// A profile that came.
struct Sampled {
    profile: Vec<u8>,
    road: Road,
    /// How late the event loop was at the worst, where that was seen.
    pause: Option<Duration>,
    /// That the app's inspector is still open.
    still_open: Option<String>,
    /// What it cannot tell, and why.
    notes: Vec<String>,
}

/// Why nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{app} ({process}): {kind}")]
pub struct TakeError {
    /// The app.
    pub app: AppName,
    /// Which of its processes.
    pub process: ProcessKey,
    /// What stood against it.
    pub kind: TakeErrorKind,
}

/// What stood against it; a refusal comes before anything that costs the app something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TakeErrorKind {
    /// A check before the start, or pm2 itself, said no.
    #[error("refused: {0}")]
    Refused(String),
    /// It was begun and did not come to its end.
    #[error("failed: {0}")]
    Failed(String),
}

/// Finds the running processes of an app in one daemon's list.
///
/// # Errors
/// A sentence where the daemon does not answer.
pub async fn targets(daemon: &DaemonName, home: &Path, app: &str) -> Result<Vec<Target>, String> {
    let Look { entries, .. } = look(&mut client(home, LOOK_DEADLINE)).await?;
    let target = |entry: Listed| {
        let life = entry.life()?;
        let key = ProcessKey { daemon: daemon.clone(), pm_id: entry.pm_id };
        Some(Target { home: home.to_owned(), key, app: entry.app, life, heap_used: entry.metrics.heap_used })
    };
    Ok(entries.into_iter().filter(|entry| AppName::from(app).means(&entry.app)).filter_map(target).collect())
}

/// Takes a sampling heap profile into a new file under `folder`: by pm2's action where pm2's agent is in the app, else by
/// its inspector, which stands in the ledger meanwhile.
///
/// # Errors
/// [`TakeError`]: refused before anything was done, or failed with the app left running.
pub async fn profile(
    target: &Target,
    order: &ProfileOrder,
    ledger: &Ledger,
    folder: &Path,
) -> Result<Taken, TakeError> {
    let error = |kind| TakeError { app: target.app.clone(), process: target.key.clone(), kind };
    let (sampled, user) = sample(target, order, ledger).await.map_err(error)?;
    let still_open = sampled.still_open;
    let pause_seconds = sampled.pause.map(|pause| pause.as_secs_f64());
    let cost = Cost { road: sampled.road, pause_seconds, expected: None };
    let notes = sampled.notes;
    let record = Record { user, notes: notes.clone(), ..order.record(target, Some(cost)) };
    let (folder, size) = (folder.to_owned(), Bytes(sampled.profile.len() as u64));
    let keeping = move || -> Result<PathBuf, String> {
        let profile = sampled.profile.as_slice();
        if size > LARGEST_PROFILE {
            return Err(format!("the profile is {size} long, over {LARGEST_PROFILE}: sample for a shorter time"));
        }
        profile::read(profile, "the profile that came").map_err(|unreadable| unreadable.to_string())?;
        keep::write(&folder, &record, profile).map_err(|unwritten| unwritten.to_string())
    };
    let kept = tokio::task::spawn_blocking(keeping).await.map_err(|panicked| panicked.to_string());
    let path = kept.and_then(|kept| kept).map_err(|why| error(TakeErrorKind::Failed(why)))?;
    Ok(Taken { path, size, cost, still_open, notes })
}

/// A profile, and the user whose app it is of.
async fn sample(
    target: &Target,
    order: &ProfileOrder,
    ledger: &Ledger,
) -> Result<(Sampled, Option<u32>), TakeErrorKind> {
    check_duration(order.duration).map_err(|why| TakeErrorKind::Refused(why.to_owned()))?;
    if !(1..=u64::from(u32::MAX)).contains(&order.sampling_interval.0) {
        return Err(TakeErrorKind::Refused("the sampling interval is from 1 byte to 4 GiB".to_owned()));
    }
    let mut client = client(&target.home, LOOK_DEADLINE);
    let look = look(&mut client).await.map_err(TakeErrorKind::Refused)?;
    let listed = look.find(target.key.pm_id).map_err(TakeErrorKind::Refused)?;
    if let Some(reason) = objection(listed, target) {
        return Err(TakeErrorKind::Refused(reason));
    }
    let user = look.user_of(target.life.pid);
    if listed.pmx && !order.inspector {
        return Ok((action::sample(&mut client, target, order).await?, user));
    }
    let mut attached = attach::attach(target, &look, ledger, order.at, order.opens).await?;
    match sample_attached(&mut attached, order).await {
        Ok((profile, notes)) => {
            let released = attached.release().await;
            let (pause, still_open) = (released.worst_delay, released.still_open);
            Ok((Sampled { profile, road: Road::Inspector, pause, still_open, notes }, user))
        }
        Err(why) => Err(attached.given_up(why).await),
    }
}

async fn sample_attached(attached: &mut Attached, order: &ProfileOrder) -> Result<(Vec<u8>, Vec<String>), String> {
    let before = attached.inspector().stop_inlining(order.duration + LEFT_ALONE, attach::STEP).await;
    let before = before.map_err(|error| attached.because(&error))?;
    let started = attached.inspector().start_sampling(order.sampling_interval, attach::STEP).await;
    started.map_err(|error| attached.because(&error))?;
    attached.wait(order.duration).await?;
    let stopped = attached.inspector().stop_sampling(attach::STEP).await;
    let profile = stopped.map_err(|error| attached.because(&error))?.profile;
    let after = attached.inspector().resume_inlining(attach::STEP).await;
    let after = after.map_err(|error| attached.because(&error))?;
    Ok((profile, before.notes(&after)))
}

/// The app turns inlining on again by itself when nobody has, so long after its allocations should have been sampled.
const LEFT_ALONE: Duration = Duration::from_mins(2);

/// What speaks against asking this process, in a sentence.
fn objection(listed: &Listed, target: &Target) -> Option<String> {
    if listed.life() != Some(target.life) || listed.app != target.app {
        return Some("it has been restarted or stopped since it was chosen; try again".to_owned());
    }
    let status = listed.status.as_str();
    (listed.status != Status::Online).then(|| format!("it is {status}, not online; try again when it is"))
}

/// `<app>-<number>-<time>.<ending>`, with a pid before the time where there is one, and with nothing of the app's name
/// that means something to a file system. The number is pm2's, or the pid where pm2 knows nothing of the process.
pub fn file_name(app: &AppName, number: u32, pid: Option<u32>, at: WallTime, ending: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '_' };
    let app: String = app.to_string().chars().take(80).map(safe).collect();
    let time = jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_out_of_range| at.0.to_string(), |time| time.strftime("%Y%m%dT%H%M%S%3fZ").to_string());
    let pid = pid.map(|pid| format!("{pid}-")).unwrap_or_default();
    format!("{app}-{number}-{pid}{time}.{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_holds_no_path() {
        let (app, at) = ("../a b/ü".into(), WallTime(1_700_000_000_123));
        assert_eq!(file_name(&app, 3, None, at, "heapprofile"), "___a_b__-3-20231114T221320123Z.heapprofile");
        let numbered = file_name(&app, 3, Some(4711), at, "2.heapsnapshot");
        assert_eq!(numbered, "___a_b__-3-4711-20231114T221320123Z.2.heapsnapshot");
    }

    #[tokio::test]
    async fn only_checked_numbers_are_sent() {
        let target = Target {
            home: "/nonexistent".into(),
            key: ProcessKey { daemon: "default".into(), pm_id: 1 },
            app: "api".into(),
            life: Life { pid: 1, started: 1 },
            heap_used: None,
        };
        let (at, trigger) = (WallTime(0), Trigger::Person);
        for (duration, bytes, why) in [
            (Duration::from_secs(30), 32_768, "the daemon is not running"),
            (LONGEST, u64::from(u32::MAX), "the daemon is not running"),
            (Duration::ZERO, 32_768, "a second to an hour"),
            (LONGEST * 2, 32_768, "a second to an hour"),
            (SHORTEST, 0, "1 byte to 4 GiB"),
            (SHORTEST, u64::MAX, "1 byte to 4 GiB"),
        ] {
            let order =
                ProfileOrder { duration, sampling_interval: Bytes(bytes), at, trigger, opens: true, inspector: false };
            let error = profile(&target, &order, &Ledger::default(), Path::new("/nonexistent")).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error} | {why}");
        }
    }
}
