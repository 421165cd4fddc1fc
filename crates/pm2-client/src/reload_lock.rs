//! pm2's reload lock: `$PM2_HOME/reload.lock` holds the time in milliseconds at which somebody began to reload, or nothing.
//!
//! Only pm2's command line honours it, and we do. It is not a lock that the system keeps: two who look at the same moment
//! both find it free, and a holder that dies leaves it behind for half a minute. pm2 keeps the file and empties it when it is
//! free, so a free one is written into, and one that is missing is made.
//!
//! It refuses to follow a link, to write into a file of somebody else's, and to empty a lock that is not ours.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::home_file::{Home, HomeFileError, LateError, within};
use model::WallTime;

/// The file's name in a home.
const NAME: &str = "reload.lock";
/// The file is read no further than this.
const LONGEST: u64 = 64;
/// How long a lock is honoured.
const LIFE: Duration = Duration::from_secs(30);
/// How long a home may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("somebody else holds pm2's reload lock")]
    Held,
    /// Something is wrong with the file.
    #[error("pm2's reload lock cannot be taken: {0}")]
    File(#[from] HomeFileError),
    /// The home does not answer.
    #[error("pm2's reload lock cannot be taken: {0}")]
    Late(#[from] LateError),
}

/// Reads the text of a lock file: when it was taken, or none when it is free or holds no time.
pub fn reload_lock_since(text: &str) -> Option<WallTime> {
    text.trim().parse().ok().filter(|at| *at > 0).map(WallTime)
}

/// Reads when the lock of a home was taken; none when it is free, missing or unreadable. It may block.
pub fn read_reload_lock(home: &Path) -> Option<WallTime> {
    let text = Home::open(home).and_then(|home| home.read(NAME, LONGEST)).ok()?;
    reload_lock_since(&String::from_utf8_lossy(&text))
}

/// [`read_reload_lock`] off the event loop; none as well where the home does not answer by the deadline.
pub async fn reload_lock(home: &Path, deadline: Duration) -> Option<WallTime> {
    let folder = home.to_owned();
    within(home, deadline, move || read_reload_lock(&folder)).await.ok().flatten()
}

/// The lock while it is ours; it is freed when this is let go, whichever way that comes.
#[derive(Debug)]
pub struct Held {
    home: PathBuf,
    file: Option<File>,
    at: WallTime,
}

impl Held {
    /// Takes the lock, unless somebody else has it.
    pub async fn take(home: &Path, now: WallTime) -> Result<Self, LockError> {
        let folder = home.to_owned();
        let file = within(home, DEADLINE, move || take(&folder, now)).await??;
        Ok(Self { home: home.to_owned(), file: Some(file), at: now })
    }

    /// Frees the lock, and waits until that is done or the home does not answer.
    pub async fn free(mut self) {
        let (home, at) = (self.home.clone(), self.at);
        if let Some(file) = self.file.take() {
            let folder = home.clone();
            // What could not be freed expires.
            let _late = within(&home, DEADLINE, move || free(&folder, &file, at)).await;
        }
    }
}

impl Drop for Held {
    /// Whoever gives up half-way does not wait for it.
    fn drop(&mut self) {
        let (home, at) = (self.home.clone(), self.at);
        if let Some(file) = self.file.take() {
            let freeing = std::thread::Builder::new().name("home".to_owned()).spawn(move || free(&home, &file, at));
            let _left_to_expire = freeing;
        }
    }
}

fn take(home: &Path, now: WallTime) -> Result<File, LockError> {
    let mut file = Home::open(home)?.open_or_make(NAME)?;
    let held = text(&mut file)?;
    if reload_lock_since(&held).is_some_and(|since| u128::from(since.0.abs_diff(now.0)) < LIFE.as_millis()) {
        return Err(LockError::Held);
    }
    write(&mut file, &now.0.to_string()).map_err(HomeFileError::Io)?;
    Ok(file)
}

/// Empties the file where it still has the name and says what we wrote: somebody who forced a reload meanwhile has written a
/// time of their own, which is theirs to free.
fn free(home: &Path, ours: &File, at: WallTime) {
    let emptied = || -> Result<(), HomeFileError> {
        let mut there = Home::open(home)?.open_or_make(NAME)?;
        let (one, other) = (ours.metadata()?, there.metadata()?);
        if (one.dev(), one.ino()) == (other.dev(), other.ino()) && reload_lock_since(&text(&mut there)?) == Some(at) {
            write(&mut there, "")?;
        }
        Ok(())
    };
    let _left_to_expire = emptied();
}

fn text(file: &mut File) -> Result<String, HomeFileError> {
    let mut bytes = Vec::new();
    Read::take(file, LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_text_is_a_time_or_nothing() {
        for (text, since) in [
            ("1741608000000", Some(1_741_608_000_000)),
            ("1741608000000\n", Some(1_741_608_000_000)),
            ("", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
        ] {
            assert_eq!(reload_lock_since(text), since.map(WallTime), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_lock_is_freed_unless_somebody_else_has_taken_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(NAME);
        let held = Held::take(home.path(), WallTime(1000)).await.unwrap();
        assert_eq!(read_reload_lock(home.path()), Some(WallTime(1000)));
        assert!(matches!(Held::take(home.path(), WallTime(2000)).await, Err(LockError::Held)));
        held.free().await;
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        let held = Held::take(home.path(), WallTime(2000)).await.unwrap();
        fs::write(&file, "3000").unwrap();
        held.free().await;
        assert_eq!(read_reload_lock(home.path()), Some(WallTime(3000)));
        let held = Held::take(home.path(), WallTime(100_000)).await.expect("an old one has expired");
        drop(held);
        let emptied = async {
            while read_reload_lock(home.path()).is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), emptied).await.expect("it is freed when it is let go");
    }

    #[tokio::test]
    async fn a_link_is_not_written_through_and_not_emptied() {
        let home = tempfile::tempdir().unwrap();
        let precious = home.path().join("precious");
        fs::write(&precious, "text").unwrap();
        std::os::unix::fs::symlink(&precious, home.path().join(NAME)).unwrap();
        let refused = Held::take(home.path(), WallTime(1000)).await.expect_err("it is a link");
        assert!(refused.to_string().contains("a symbolic link"), "{refused}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
    }
}
