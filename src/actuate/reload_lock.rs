//! pm2's reload lock: `$PM2_HOME/reload.lock` holds the time in milliseconds at which somebody began to reload, or nothing.
//!
//! Only pm2's command line honours it, and we do. It is not a lock that the system keeps: two who look at the same moment
//! both find it free, and a holder that dies leaves it behind for half a minute.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::WallTime;

/// The file is read no further than this.
const LONGEST: u64 = 64;

/// Reads the text of a lock file: when it was taken, or none when it is free or holds no time.
pub fn reload_lock_since(text: &str) -> Option<WallTime> {
    text.trim().parse().ok().filter(|at| *at > 0).map(WallTime)
}

/// Reads when the lock of a home was taken; none when it is free, missing or unreadable.
pub fn read_reload_lock(home: &Path) -> Option<WallTime> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path(home)).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    reload_lock_since(&text)
}

fn path(home: &Path) -> PathBuf {
    home.join("reload.lock")
}

/// The lock while it is ours; it is freed when this is let go, whichever way that comes.
#[derive(Debug)]
pub(super) struct Held {
    home: PathBuf,
    at: WallTime,
}

impl Held {
    /// Takes the lock.
    pub(super) fn take(home: &Path, now: WallTime) -> io::Result<Self> {
        fs::write(path(home), now.0.to_string())?;
        Ok(Self { home: home.to_owned(), at: now })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Somebody who forced a reload meanwhile has written a time of their own: theirs to free.
        if read_reload_lock(&self.home) == Some(self.at) {
            let _left_to_expire = fs::write(path(&self.home), "");
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_lock_is_freed_unless_somebody_else_has_taken_it() {
        let home = tempfile::tempdir().unwrap();
        let held = Held::take(home.path(), WallTime(1000)).unwrap();
        assert_eq!(read_reload_lock(home.path()), Some(WallTime(1000)));
        drop(held);
        assert_eq!(fs::read_to_string(home.path().join("reload.lock")).unwrap(), "");
        let held = Held::take(home.path(), WallTime(2000)).unwrap();
        fs::write(home.path().join("reload.lock"), "3000").unwrap();
        drop(held);
        assert_eq!(read_reload_lock(home.path()), Some(WallTime(3000)));
    }
}
