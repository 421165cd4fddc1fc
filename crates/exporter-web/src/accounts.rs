//! The users and groups of this machine, as `/etc/passwd` and `/etc/group` list them.
//!
//! It refuses to ask anything but these files: no name service is called, since one may block and may be told what to say.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The list of users.
pub const USERS: &str = "/etc/passwd";
/// The list of groups.
pub const GROUPS: &str = "/etc/group";
/// A list is read no further than this many bytes.
pub const LONGEST_LIST: u64 = 4 << 20;

/// A line of either list: `name:password:number:rest`.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a str,
    /// The number of the user or group; none where it is no number.
    pub number: Option<u32>,
    /// A user's `group:comment:home:shell`; a group's members, parted by commas.
    pub rest: &'a str,
}

impl<'a> Entry<'a> {
    /// The number of a user's first group.
    pub fn group(&self) -> Option<u32> {
        self.rest.split(':').next().and_then(|group| group.parse().ok())
    }

    /// A user's home.
    pub fn home(&self) -> Option<&'a str> {
        self.rest.split(':').nth(2)
    }

    /// A group's members.
    pub fn members(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.rest.split(',').filter(|member| !member.is_empty())
    }
}

/// Reads a list up to `limit` bytes; one that cannot be read is empty.
pub fn read(path: impl AsRef<Path>, limit: u64) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        let _unreadable_is_empty = file.take(limit).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The number of a user's first group, where the list has the user.
pub fn group_of(user: u32) -> Option<u32> {
    entries(&read(USERS, LONGEST_LIST)).find(|entry| entry.number == Some(user))?.group()
}

/// The name of a user of this machine, where they have one.
pub fn user_name(user: u32) -> Option<String> {
    entries(&read(USERS, LONGEST_LIST)).find(|entry| entry.number == Some(user)).map(|entry| entry.name.to_owned())
}

/// The entries of a list; what is no entry is left out.
pub fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut cells = line.splitn(4, ':');
        let (name, _password, number) = (cells.next()?, cells.next()?, cells.next()?);
        Some(Entry { name, number: number.parse().ok(), rest: cells.next().unwrap_or_default() })
    })
}
