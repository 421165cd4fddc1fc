//! One sidecar per state directory: an operating-system lock that dies with its holder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{StoreError, StoreErrorKind};

const FILE: &str = "history.lock";

/// Holds the directory until it is dropped. The file stays; only the lock on it counts.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`] with the holder's pid where another process has it; an error of the file system
    /// where the lock file cannot be made.
    pub(crate) fn take(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| StoreError::from_io(&path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::new(directory, StoreErrorKind::Locked { pid: read_pid(&mut file) }));
            }
            Err(error) => return Err(StoreError::from_io(&path, error.into())),
        }
        // The pid is for people; a disk too full for it does not stop the lock from holding.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_learns_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path()).unwrap();
        let refused = DirectoryLock::take(directory.path()).unwrap_err();
        assert!(matches!(refused.kind, StoreErrorKind::Locked { pid: Some(pid) } if pid == std::process::id()));
        assert!(refused.to_string().contains(&*directory.path().to_string_lossy()), "{refused}");
        drop(first);
        DirectoryLock::take(directory.path()).unwrap();
    }
}
