//! Finding pm2 homes that nobody configured: those whose daemon listens and lets us in.
//!
//! Looked for are `~/.pm2` of every user of the machine and the home that a running daemon shows in its title. A
//! home counts only if its socket takes a connection; nothing is sent, and nothing is started. What is found is only
//! ever read by its socket: running the pm2 command in a stranger's home would run as us what belongs to them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::home_file::{Home, within_of};
use super::{DaemonSpec, Source, command, join_all, socket};
use crate::model::DaemonName;
use exporter_web::accounts;

const CONNECT_DEADLINE: Duration = Duration::from_millis(500);
/// More homes than these are not tried, …
const MOST_HOMES: usize = 256;
/// … of one user no more than these, …
const MOST_OF_A_USER: usize = 32;
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
            let listening = join_all(some.iter().map(listening)).await;
            for (home, candidate) in listening.into_iter().zip(some) {
                let Some((home, owner)) = home.filter(|(home, _)| seen.insert(home.clone())) else { continue };
                // What a link leads to has not the name of the one who laid it.
                let own = candidate.name.as_deref().filter(|_| owner == candidate.user || home == candidate.home);
                let name = name(&home, own, &taken);
                taken.insert(name.clone());
                let named_by = Some(candidate.user);
                let (source, pm2_command) = (Source::Socket, Vec::new());
                found.push(DaemonSpec { name, home, source, pm2_command, expected: true, named_by });
            }
        }
    };
    // What did not answer by then is tried again the next time.
    let _late = timeout(DEADLINE, trying).await;
    found
}

/// A home that may have a daemon.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    home: PathBuf,
    /// Who named it.
    user: u32,
    /// The user whose own it is.
    name: Option<String>,
}

/// The home in its one spelling and its owner, if its socket takes a connection. A home on a file server that is gone delays
/// no other.
async fn listening(candidate: &Candidate) -> Option<(PathBuf, u32)> {
    let folder = candidate.home.clone();
    let open = move || {
        let home = folder.canonicalize().ok()?;
        let owner = Home::open(&home).ok()?.owner();
        Some((home, owner))
    };
    let (home, owner) = within_of(Some(candidate.user), &candidate.home, CONNECT_DEADLINE, open).await.ok()??;
    let connected = socket::connect(&home.join("rpc.sock"), Some(candidate.user), CONNECT_DEADLINE).await;
    connected.ok().map(|_connection| (home, owner))
}

fn candidates(passwd: &Path, proc: &Path) -> Vec<Candidate> {
    let own = users(&accounts::read(passwd, LONGEST_PASSWD));
    let running = command::daemons(proc).into_iter().filter_map(|(pid, home)| {
        let user = std::fs::metadata(proc.join(pid.to_string())).ok()?.uid();
        Some(Candidate { home, user, name: None })
    });
    let mut of_users: BTreeMap<u32, usize> = BTreeMap::new();
    let few = own.into_iter().chain(running).filter(|candidate| {
        let count = of_users.entry(candidate.user).or_default();
        *count += 1;
        *count <= MOST_OF_A_USER
    });
    few.take(MOST_HOMES).collect()
}

/// The homes of users, from the text of `/etc/passwd`; the first user of a folder names it.
fn users(passwd: &str) -> Vec<Candidate> {
    let mut homes = BTreeSet::new();
    let known = accounts::entries(passwd).filter_map(|entry| {
        let home = entry.home().filter(|home| home.starts_with('/') && homes.insert((*home).to_owned()))?;
        Some(Candidate { home: Path::new(home).join(".pm2"), user: entry.number?, name: Some(entry.name.to_owned()) })
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
        let expected = [("root", 0, "/root/.pm2"), ("deploy", 1000, "/home/deploy/.pm2")];
        let candidate =
            |(name, user, home): (&str, u32, &str)| Candidate { home: home.into(), user, name: Some(name.to_owned()) };
        assert_eq!(users(passwd), expected.map(candidate));
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
