//! Finding pm2 homes that nobody configured: those whose daemon listens and lets us in.
//!
//! Looked for are `~/.pm2` of every user of the machine and the home that a running daemon shows in its title. A
//! home counts only if its socket takes a connection; nothing is sent, and nothing is started. What is found is only
//! ever read by its socket: running the pm2 command in a stranger's home would run as us what belongs to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::home_file::within;
use super::{DaemonSpec, Source, command, join_all, socket};
use crate::model::DaemonName;
use exporter_web::accounts;

const CONNECT_DEADLINE: Duration = Duration::from_millis(500);
/// More homes than these are not tried, …
const MOST_HOMES: usize = 256;
/// … and so many at a time.
const AT_A_TIME: usize = 16;
/// The longest that all of them may take.
const DEADLINE: Duration = Duration::from_secs(2);
const LONGEST_PASSWD: u64 = 1024 * 1024;

/// Finds homes with a live socket that are not among `known`, by name.
pub(super) async fn discover(
    passwd: &Path,
    proc: &Path,
    known: &BTreeSet<PathBuf>,
    names: &BTreeSet<DaemonName>,
) -> Vec<DaemonSpec> {
    let (passwd, proc) = (passwd.to_owned(), proc.to_owned());
    let candidates = tokio::task::spawn_blocking(move || candidates(&passwd, &proc));
    let Ok(Ok(candidates)) = timeout(DEADLINE, candidates).await else { return Vec::new() };
    let mut found = Vec::new();
    let mut taken = names.clone();
    let mut seen = known.clone();
    let trying = async {
        for some in candidates.chunks(AT_A_TIME) {
            let listening = join_all(some.iter().map(|(home, _)| listening(home))).await;
            for (home, (_, user)) in listening.into_iter().zip(some) {
                let Some(home) = home.filter(|home| seen.insert(home.clone())) else { continue };
                let name = name(&home, user.as_deref(), &taken);
                taken.insert(name.clone());
                found.push(DaemonSpec { name, home, source: Source::Socket, pm2_command: Vec::new(), expected: true });
            }
        }
    };
    // What did not answer by then is tried again the next time.
    let _late = timeout(DEADLINE, trying).await;
    found
}

/// The home in its one spelling, if its socket takes a connection. A home on a file server that is gone delays no other.
async fn listening(home: &Path) -> Option<PathBuf> {
    let folder = home.to_owned();
    let home = within(home, CONNECT_DEADLINE, move || folder.canonicalize()).await.ok()?.ok()?;
    socket::connect(&home.join("rpc.sock"), CONNECT_DEADLINE).await.ok().map(|_connection| home)
}

/// Homes that may have a daemon, with the user whose own it is.
fn candidates(passwd: &Path, proc: &Path) -> Vec<(PathBuf, Option<String>)> {
    let users = users(&accounts::read(passwd, LONGEST_PASSWD));
    let own = users.into_iter().map(|(user, home)| (home.join(".pm2"), Some(user)));
    let running = command::daemons(proc).into_iter().map(|(_, home)| (home, None));
    own.chain(running).take(MOST_HOMES).collect()
}

/// Users and their home folders, from the text of `/etc/passwd`; the first user of a folder names it.
fn users(passwd: &str) -> Vec<(String, PathBuf)> {
    let mut homes = BTreeSet::new();
    let known = accounts::entries(passwd).filter_map(|entry| {
        let home = entry.home()?;
        (home.starts_with('/') && homes.insert(home.to_owned())).then(|| (entry.name.to_owned(), PathBuf::from(home)))
    });
    known.collect()
}

/// The user's name, else the path; told apart from names that are taken.
fn name(home: &Path, user: Option<&str>, taken: &BTreeSet<DaemonName>) -> DaemonName {
    let path = home.display().to_string();
    let first = DaemonName::from(user.unwrap_or(&path));
    if taken.contains(&first) { DaemonName::from(path.as_str()) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n# comment\ndeploy:x:1000:1000:,,,:/home/deploy:/bin/sh\nbroken:x\n\
            nobody:x:65534:65534:nobody:/root:/none\nrelative:x:1:1::home:/bin/sh\n";
        let expected = [("root", "/root"), ("deploy", "/home/deploy")];
        assert_eq!(users(passwd), expected.map(|(user, home)| (user.to_owned(), PathBuf::from(home))));
    }

    #[test]
    fn names_are_told_apart() {
        let taken: BTreeSet<_> = [DaemonName::from("default")].into();
        let home = Path::new("/home/deploy/.pm2");
        assert_eq!(name(home, Some("deploy"), &taken).as_str(), "deploy");
        assert_eq!(name(home, Some("default"), &taken).as_str(), "/home/deploy/.pm2");
        assert_eq!(name(home, None, &taken).as_str(), "/home/deploy/.pm2");
    }
}
