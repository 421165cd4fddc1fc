//! Taking evidence from a running process by pm2's own action: which checks come first, and where it is kept.
//!
//! Nothing is asked of an app unless the very life that is meant is online with pm2's agent in it. It refuses every other
//! road into an app: no signal, no inspector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::collect::amp::Request;
use crate::collect::bus::{Bus, BusError};
use crate::collect::look::{LOOK_DEADLINE, client, list, look, refusal};
use crate::evidence::keep::{self, Record};
use crate::evidence::profile;
use crate::model::{AppName, Bytes, DaemonName, Life, Listed, ProcessKey, Status, WallTime};

/// How long pm2's agent may take to begin, and the profile to come after the sampling has ended.
const GRACE: Duration = Duration::from_secs(30);
const NO_REPLY: &str = "pm2's agent in it did not answer: its event loop is blocked, or it has just been started; try again when it answers requests";
const NO_PROFILE: &str =
    "no profile came: its event loop is blocked, or it was reloaded meanwhile; try again when it answers requests";
/// How long allocations may be sampled.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_hours(1);

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

/// What profile to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileOrder {
    /// How long allocations are sampled: from a second to an hour.
    pub duration: Duration,
    /// Average bytes between two samples.
    pub sampling_interval: Bytes,
    /// Now, for the file's name.
    pub at: WallTime,
}

/// One file of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The file, of mode 0600.
    pub path: PathBuf,
    /// Its size.
    pub size: Bytes,
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

/// What stood against it; a refusal comes before anything was done to the app.
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
    let entries = list(&mut client(home, LOOK_DEADLINE)).await?;
    let target = |entry: Listed| {
        let life = entry.life()?;
        let key = ProcessKey { daemon: daemon.clone(), pm_id: entry.pm_id };
        Some(Target { home: home.to_owned(), key, app: entry.app, life, heap_used: entry.metrics.heap_used })
    };
    Ok(entries.into_iter().filter(|entry| entry.app.as_str() == app).filter_map(target).collect())
}

/// Takes a sampling heap profile by pm2's action into a new file under `folder`.
///
/// # Errors
/// [`TakeError`]: refused before anything was done, or failed with the app left running.
pub async fn profile(target: &Target, order: &ProfileOrder, folder: &Path) -> Result<Taken, TakeError> {
    let error = |kind| TakeError { app: target.app.clone(), process: target.key.clone(), kind };
    let text = sample(target, order).await.map_err(error)?;
    let failed = |reason: String| error(TakeErrorKind::Failed(reason));
    profile::read(text.as_bytes(), "the profile that came").map_err(|unreadable| failed(unreadable.to_string()))?;
    let record = Record {
        daemon: target.key.daemon.clone(),
        app: target.app.clone(),
        pm_id: target.key.pm_id,
        taken_at: order.at,
        sampled_seconds: Some(order.duration.as_secs_f64()),
        file: file_name(&target.app, target.key.pm_id, order.at),
    };
    let path = keep::write(folder, &record, text.as_bytes()).map_err(|refused| failed(refused.to_string()))?;
    Ok(Taken { path, size: Bytes(text.len() as u64) })
}

async fn sample(target: &Target, order: &ProfileOrder) -> Result<String, TakeErrorKind> {
    let request = request(target.key.pm_id, order).map_err(TakeErrorKind::Refused)?;
    let mut client = client(&target.home, LOOK_DEADLINE);
    let listed = look(&mut client, target.key.pm_id).await.map_err(TakeErrorKind::Refused)?;
    if let Some(reason) = objection(&listed, target) {
        return Err(TakeErrorKind::Refused(reason));
    }
    let connecting = timeout(LOOK_DEADLINE, Bus::connect(&target.home)).await;
    let mut bus = connecting
        .map_err(|_elapsed| TakeErrorKind::Refused("pm2's public socket takes no connection".to_owned()))?
        .map_err(|error| TakeErrorKind::Refused(error.to_string()))?;
    let ask = async {
        let reply = client.act(request).await.map_err(|error| {
            let kind = if error.sent { TakeErrorKind::Failed } else { TakeErrorKind::Refused };
            kind(error.to_string())
        })?;
        refusal(reply.json()).map_or(Ok(()), |why| Err(TakeErrorKind::Refused(format!("pm2 says: {why}"))))
    };
    let answer = async {
        let pm_id = target.key.pm_id;
        let broken = |error: BusError| TakeErrorKind::Failed(error.to_string());
        let silent = || TakeErrorKind::Failed(NO_REPLY.to_owned());
        let began = timeout(GRACE, bus.sampling(pm_id)).await.map_err(|_elapsed| silent())?;
        let name = began.map_err(broken)?.map_err(|why| TakeErrorKind::Refused(turned_down(&why)))?;
        let profile = timeout(order.duration + GRACE, bus.heap_profile(pm_id, &name)).await;
        profile.map_err(|_elapsed| TakeErrorKind::Failed(NO_PROFILE.to_owned()))?.map_err(broken)
    };
    // Both at once: whoever is connected must read.
    let ((), profile) = tokio::try_join!(ask, answer)?;
    Ok(profile)
}

fn request(pm_id: u32, order: &ProfileOrder) -> Result<Request, String> {
    if !(SHORTEST..=LONGEST).contains(&order.duration) {
        return Err("allocations are sampled for a second to an hour".to_owned());
    }
    let timeout_ms = u32::try_from(order.duration.as_millis()).map_err(|error| error.to_string())?;
    let sampling_interval = u32::try_from(order.sampling_interval.0).ok().filter(|bytes| *bytes > 0);
    let sampling_interval = sampling_interval.ok_or("the sampling interval is not a number of bytes")?;
    Ok(Request::SampleHeap { pm_id, timeout_ms, sampling_interval })
}

/// What pm2's agent said against sampling, with what to do about it.
fn turned_down(words: &str) -> String {
    if words.contains("already running") {
        return "another profile is being taken of it; try again when that one has ended".to_owned();
    }
    format!("pm2's agent in it says: {words}; pm2's log of the app may tell more")
}

/// What speaks against asking this process, in a sentence.
fn objection(listed: &Listed, target: &Target) -> Option<String> {
    if listed.life() != Some(target.life) || listed.app != target.app {
        return Some("it has been restarted or stopped since it was chosen".to_owned());
    }
    if listed.status != Status::Online {
        return Some(format!("it is {}, not online", listed.status.as_str()));
    }
    let off = "pm2's agent is not loaded into it (pmx is off), and a profile is only taken through the agent";
    (!listed.pmx).then(|| off.to_owned())
}

/// `<app>-<number>-<time>.heapprofile`, with nothing of the app's name that means something to a file system. The number is
/// pm2's, or the pid where pm2 knows nothing of the process.
pub fn file_name(app: &AppName, number: u32, at: WallTime) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '_' };
    let app: String = app.as_str().chars().take(80).map(safe).collect();
    let time = jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_out_of_range| at.0.to_string(), |time| time.strftime("%Y%m%dT%H%M%S%3fZ").to_string());
    format!("{app}-{number}-{time}.heapprofile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_holds_no_path() {
        let name = file_name(&"../a b/ü".into(), 3, WallTime(1_700_000_000_123));
        assert_eq!(name, "___a_b__-3-20231114T221320123Z.heapprofile");
    }

    #[test]
    fn only_checked_numbers_are_sent() {
        let order = |duration, bytes| ProfileOrder { duration, sampling_interval: Bytes(bytes), at: WallTime(0) };
        assert!(request(1, &order(Duration::from_secs(30), 32_768)).is_ok());
        assert!(request(1, &order(Duration::ZERO, 32_768)).is_err());
        assert!(request(1, &order(LONGEST * 2, 32_768)).is_err());
        assert!(request(1, &order(SHORTEST, 0)).is_err());
        assert!(request(1, &order(SHORTEST, u64::MAX)).is_err());
    }
}
