//! Taking evidence from a running process: which checks come first, and how the app is left as it was found.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::model::{AppName, Bytes, Life, ProcessKey};

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
    /// Whether pm2's agent is loaded into it.
    pub pmx: bool,
    /// V8's heap in use, where the list told.
    pub heap_used: Option<Bytes>,
}

/// What profile to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileOrder {
    /// How long allocations are sampled.
    pub duration: Duration,
    /// Average bytes between two samples.
    pub sampling_interval: Bytes,
}

/// By which road evidence was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// pm2's own action, answered on its public socket.
    Pm2Action,
    /// V8's inspector.
    Inspector,
}

/// One file of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The file, of mode 0600.
    pub path: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// The road.
    pub method: Method,
    /// How long allocations were sampled; none for a snapshot.
    pub sampled: Option<Duration>,
    /// The event loop's worst pause seen meanwhile, where it could be measured.
    pub pause: Option<Duration>,
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
    /// A check before the start said no.
    #[error("refused: {0}")]
    Refused(String),
    /// It was begun and did not come to its end.
    #[error("failed: {0}")]
    Failed(String),
}

/// Takes a sampling heap profile into a new file under `folder`, by pm2's action where pm2's agent is loaded, else by the inspector.
///
/// # Errors
/// [`TakeError`]: refused before anything was done, or failed with the app left running and its inspector closed.
pub async fn profile(target: &Target, order: &ProfileOrder, folder: &Path) -> Result<Taken, TakeError> {
    let reason = match tokio::fs::create_dir_all(folder).await {
        Ok(()) => format!("profiles of {} s cannot be taken yet", order.duration.as_secs()),
        Err(error) => error.to_string(),
    };
    Err(TakeError { app: target.app.clone(), process: target.key.clone(), kind: TakeErrorKind::Refused(reason) })
}
