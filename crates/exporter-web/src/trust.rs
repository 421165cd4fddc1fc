//! Whose a file is: what says how to run, whom to let in or what to execute must belong to this user or to root, and nobody
//! else may write it. Whoever could write it could otherwise act as us.
//!
//! It refuses to mend anything by itself but modes of what is ours; each refusal names the command that mends it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use thiserror::Error;

use crate::accounts::{self, entries};

/// The largest file of settings that is read.
const LARGEST_FILE: u64 = 1 << 20;
const ROOT: u32 = 0;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;

/// Who may read a file beside its owner and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everybody.
    Everybody,
    /// Nobody: it holds a secret.
    Nobody,
}

/// Why a file or folder is not believed, with the command that mends it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Untrusted {
    /// It is a folder, a pipe, a device or a socket.
    #[error("it is no regular file")]
    NotAFile,
    /// It belongs to another user.
    #[error("it belongs to user {owner}, who could change it; if it is to count: {mend}")]
    Foreign {
        /// The owner's number.
        owner: u32,
        /// The command.
        mend: String,
    },
    /// Others may write it.
    #[error("others may write to it; take that away: {mend}")]
    Writable {
        /// The command.
        mend: String,
    },
    /// Others may read the secret in it.
    #[error("it holds a secret and everybody may read it; take that away: {mend}")]
    Readable {
        /// The command.
        mend: String,
    },
}

/// Checks that a file or folder belongs to this user or to root and is writable by nobody else. A group may write only
/// where it is the owner's private one, of which nobody else is a member.
///
/// # Errors
/// [`Untrusted`], with the command that mends it.
pub fn check_ours(path: &Path, about: &Metadata, readers: Readers) -> Result<(), Untrusted> {
    let (own, owner, mode) = (rustix::process::geteuid().as_raw(), about.uid(), about.mode());
    let place = quoted(path);
    if owner != own && owner != ROOT {
        return Err(Untrusted::Foreign { owner, mend: format!("chown {own} {place}") });
    }
    let group_writes = mode & GROUP_WRITES != 0 && !is_private_group(owner, about.gid());
    let classes = match (group_writes, mode & OTHERS_WRITE != 0) {
        (false, false) => None,
        (true, false) => Some("g-w"),
        (false, true) => Some("o-w"),
        (true, true) => Some("go-w"),
    };
    if let Some(classes) = classes {
        return Err(Untrusted::Writable { mend: format!("chmod {classes} {place}") });
    }
    if readers == Readers::Nobody && mode & OTHERS_READ != 0 {
        return Err(Untrusted::Readable { mend: format!("chmod o= {place}") });
    }
    Ok(())
}

/// Reads a whole file of settings, certificates or tokens, up to 1 MiB, where [`check_ours`] finds nothing against it. A pipe or
/// a device is not waited for; of a secret in a file of our own that everybody may read that right is taken away.
///
/// # Errors
/// It cannot be opened or read, is larger, or is [`Untrusted`].
pub fn read_trusted(path: &Path, readers: Readers) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    let untrusted = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
    if !about.is_file() {
        return Err(untrusted(Untrusted::NotAFile));
    }
    match check_ours(path, &about, readers) {
        Err(Untrusted::Readable { .. }) if is_tightened(&file, &about) => {
            tracing::warn!("{}: everybody could read the secret in it; that right is taken away", path.display());
        }
        checked => checked.map_err(untrusted)?,
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Takes from everybody else what they may do with a file of our own, and returns whether that is done.
fn is_tightened(file: &File, about: &Metadata) -> bool {
    let mode = std::fs::Permissions::from_mode(about.mode() & 0o7770);
    about.uid() == rustix::process::geteuid().as_raw() && file.set_permissions(mode).is_ok()
}

/// [`read_trusted`], as text.
///
/// # Errors
/// As there, and where it is not UTF-8.
pub fn read_trusted_text(path: &Path, readers: Readers) -> io::Result<String> {
    let not_text = |_not_text| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(read_trusted(path, readers)?).map_err(not_text)
}

/// Sees to it that nobody else may write to the folder that we keep state in: takes the right away where the folder is ours,
/// and returns whether it did. One that is not there yet is fine.
///
/// # Errors
/// [`Untrusted`] where it is another's, or the mode could not be changed.
pub fn tighten_folder(path: &Path) -> io::Result<bool> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match check_ours(path, &about, Readers::Everybody) {
        Ok(()) => Ok(false),
        Err(Untrusted::Writable { .. }) if about.uid() == rustix::process::geteuid().as_raw() => {
            let mode = about.mode() & !(GROUP_WRITES | OTHERS_WRITE);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))?;
            Ok(true)
        }
        Err(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
    }
}

/// Whether a group is the private one of a user: it has the user's name, and nobody else is in it.
fn is_private_group(user: u32, group: u32) -> bool {
    let read = |list| accounts::read(list, accounts::LONGEST_LIST);
    is_private(&read(accounts::USERS), &read(accounts::GROUPS), user, group)
}

fn is_private(users: &str, groups: &str, user: u32, group: u32) -> bool {
    let Some(owner) = entries(users).find(|entry| entry.number == Some(user)) else { return false };
    let alone = entries(users).filter(|entry| entry.group() == Some(group)).all(|entry| entry.number == Some(user));
    let mut of_group = entries(groups).filter(|entry| entry.number == Some(group));
    let own = of_group.next().filter(|entry| entry.name == owner.name);
    alone && own.is_some_and(|entry| entry.members().all(|member| member == owner.name))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%,:=".contains(letter);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_private_where_nobody_else_is_in_it() {
        let users = "root:x:0:0:root:/root:/bin/sh\nshop:x:1000:1000::/home/shop:/bin/sh\nmail:x:8:1001::/:/bin/sh\n\
             news:x:9:1001::/:/bin/sh\n";
        let groups = "root:x:0:\nshop:x:1000:shop\nmail:x:1001:\nadmins:x:1002:shop,mail\n";
        for (user, group, private) in
            [(0, 0, true), (1000, 1000, true), (1000, 1002, false), (8, 1001, false), (1000, 0, false), (77, 77, false)]
        {
            assert_eq!(is_private(users, groups, user, group), private, "{user} {group}");
        }
        assert!(!is_private(users, &groups.replace("shop:x:1000:shop", "shop:x:1000:shop,mail"), 1000, 1000));
    }

    #[test]
    fn modes_that_let_others_write_or_read_a_secret_are_refused_with_their_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a token");
        std::fs::write(&path, "text").unwrap();
        let read = |mode, readers| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_trusted_text(&path, readers).map_err(|error| error.to_string())
        };
        for mode in [0o600, 0o640, 0o400] {
            assert_eq!(read(mode, Readers::Nobody).as_deref(), Ok("text"), "{mode:o}");
        }
        assert_eq!(read(0o644, Readers::Everybody).as_deref(), Ok("text"));
        let place = format!("'{}'", path.display());
        assert_eq!(read(0o644, Readers::Nobody).as_deref(), Ok("text"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "tightened, for it is ours");
        assert!(read(0o602, Readers::Everybody).unwrap_err().ends_with(&format!("chmod o-w {place}")));
    }

    #[test]
    fn a_pipe_a_folder_and_a_device_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            let error = read_trusted(path, Readers::Everybody).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_folder_of_our_own_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(tighten_folder(folder.path()).unwrap());
        assert_eq!(std::fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o755);
        assert!(!tighten_folder(folder.path()).unwrap());
        assert!(!tighten_folder(&folder.path().join("absent")).unwrap());
    }
}
