//! One replacement by a daemon's socket.
//!
//! Just before it is sent the list is read afresh: unless the very life that is to end is online, and pm2's reload lock is
//! free, nothing is sent. What the daemon answers is not believed (it says ok to a worker that never listened); whether a
//! cluster worker reported in time is told by how long pm2 took and by what its log says of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::reload_lock::{Held, read_reload_lock};
use crate::collect::amp::Request;
use crate::collect::look::{LOOK_DEADLINE, client, look, refusal};
use crate::model::{Listed, Status, WallTime};
use crate::policy::{Action, Answer, Order};

/// The longest stretch of pm2's log that is read after a reload.
const LONGEST_LOG: u64 = 256 << 10;
/// How long pm2's reload lock is honoured.
const LOCK_LIFE: Duration = Duration::from_secs(30);
/// What pm2 logs when a new worker listens, or says that it is ready.
const LISTENING: &[u8] = b"New worker listening";

/// What to do in which home.
#[derive(Debug, Clone)]
pub struct Act {
    /// The daemon's home.
    pub home: PathBuf,
    /// How.
    pub action: Action,
    /// What.
    pub order: Order,
}

/// Replaces one life of one process, at most once, and tells what is known of it.
pub async fn replace(act: &Act, wall: impl Fn() -> WallTime) -> Answer {
    let seen = look(&mut client(&act.home, LOOK_DEADLINE)).await;
    let listed = match seen.and_then(|look| look.find(act.order.key.pm_id).cloned()) {
        Ok(listed) => listed,
        Err(why) => return Answer::NotSent(why),
    };
    if listed.status != Status::Online || listed.life() != Some(act.order.life) {
        return Answer::NotSent("it is no longer online in the life that was to end".to_owned());
    }
    let cluster = listed.exec_mode == "cluster";
    if act.action == Action::Reload && !cluster {
        return Answer::NotSent("it is no cluster worker any more".to_owned());
    }
    if let Some(since) = read_reload_lock(&act.home)
        && u128::from(since.0.abs_diff(wall().0)) < LOCK_LIFE.as_millis()
    {
        return Answer::NotSent("somebody else holds pm2's reload lock".to_owned());
    }
    let held = match Held::take(&act.home, wall()) {
        Ok(held) => held,
        Err(error) => return Answer::NotSent(format!("pm2's reload lock cannot be taken: {error}")),
    };
    let log = Log::at_its_end(&act.home);
    let answer = order(act, &listed, log).await;
    drop(held);
    answer
}

async fn order(act: &Act, listed: &Listed, log: Option<Log>) -> Answer {
    let request = match act.action {
        Action::Reload => Request::ReloadProcessId(act.order.key.pm_id),
        Action::Restart => Request::RestartProcessId(act.order.key.pm_id),
    };
    let begun = Instant::now();
    let reply = match client(&act.home, act.order.deadline).act(request).await {
        Ok(reply) => reply,
        Err(error) if error.sent => return Answer::Unknown(error.to_string()),
        Err(error) => return Answer::NotSent(error.to_string()),
    };
    let took = begun.elapsed();
    if let Some(why) = refusal(reply.json()) {
        return Answer::Refused(why);
    }
    let listen_timeout = Duration::from_millis(listed.listen_timeout_ms.unwrap_or(3000));
    let ready = match act.action {
        Action::Restart => None,
        Action::Reload if took < listen_timeout => Some(true),
        // pm2 has either waited in vain, or the old worker was slow to end: its log tells which.
        Action::Reload => log.and_then(|log| log.grown_with(LISTENING)),
    };
    Answer::Accepted { ready }
}

/// pm2's own log, from a point on.
struct Log {
    path: PathBuf,
    from: u64,
}

impl Log {
    fn at_its_end(home: &Path) -> Option<Self> {
        let path = home.join("pm2.log");
        let from = std::fs::metadata(&path).ok()?.len();
        Some(Self { path, from })
    }

    /// Whether what was added holds `words`; none when that cannot be told.
    fn grown_with(&self, words: &[u8]) -> Option<bool> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = std::fs::File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        if length <= self.from {
            // Nothing was added although a reload always adds something: the log is elsewhere, or was rotated.
            return None;
        }
        file.seek(SeekFrom::Start(self.from)).ok()?;
        let mut added = Vec::new();
        file.take(LONGEST_LOG).read_to_end(&mut added).ok()?;
        let found = added.windows(words.len()).any(|window| window == words);
        if found || length - self.from <= LONGEST_LOG { Some(found) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_from_where_it_ended() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pm2.log");
        assert!(Log::at_its_end(home.path()).is_none());
        std::fs::write(&path, "-reload- New worker listening\n").unwrap();
        let log = Log::at_its_end(home.path()).unwrap();
        assert_eq!(log.grown_with(LISTENING), None);
        std::fs::write(&path, "-reload- New worker listening\nStopping app\n").unwrap();
        assert_eq!(log.grown_with(LISTENING), Some(false));
        std::fs::write(&path, "-reload- New worker listening\nx -reload- New worker listening\n").unwrap();
        assert_eq!(log.grown_with(LISTENING), Some(true));
    }
}
