//! A look at one daemon just before something is asked of it: is the process that is meant still there?
//!
//! Whoever acts on a process (a restart, a profile) goes by a list of seconds ago. So each reads the list afresh by this
//! part, and by it reads whether pm2 turned the request down. It sends nothing but the request for the list.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::socket::{Client, Deadlines, Peer, SocketErrorKind};
use model::{Listed, plain};

/// How long a step that only looks may take.
pub const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// The longest list or reply that is read.
const LARGEST_REPLY: usize = 32 << 20;
/// The most processes that are looked at.
const MOST_PROCESSES: usize = 20_000;

/// Makes a client of the daemon in `home` whose replies may take as long as `reply`.
pub fn client(home: &Path, reply: Duration) -> Client {
    let deadlines = Deadlines { connect: LOOK_DEADLINE, write: LOOK_DEADLINE, reply };
    Client::new(home.join("rpc.sock"), deadlines, LARGEST_REPLY)
}

/// What a daemon lists now.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Its processes.
    pub entries: Vec<Listed>,
    /// Who told, by the system's word.
    pub peer: Peer,
}

impl Look {
    /// The user whose app it is: the daemon's, and of root's daemon, which may start apps as anybody, the process's.
    pub fn user_of(&self, pid: u32) -> Option<u32> {
        let process = || std::fs::metadata(format!("/proc/{pid}")).ok().map(|about| about.uid());
        if self.peer.user == 0 { process() } else { Some(self.peer.user) }
    }

    /// Finds a process by its number.
    ///
    /// # Errors
    /// A sentence where it is no longer listed.
    pub fn find(&self, pm_id: u32) -> Result<&Listed, String> {
        self.entries.iter().find(|entry| entry.pm_id == pm_id).ok_or_else(|| "it left pm2's list".to_owned())
    }
}

/// Reads the list.
///
/// # Errors
/// A sentence: the daemon does not answer.
pub async fn look(client: &mut Client) -> Result<Look, String> {
    let reply = timeout(LOOK_DEADLINE * 2, client.list(MOST_PROCESSES))
        .await
        .map_err(|_elapsed| "the daemon did not answer in time".to_owned())?
        .map_err(|error| match error.kind {
            SocketErrorKind::Missing | SocketErrorKind::Refused => "the daemon is not running".to_owned(),
            SocketErrorKind::Denied
            | SocketErrorKind::NotASocket(_)
            | SocketErrorKind::Late(_)
            | SocketErrorKind::Unproven(_)
            | SocketErrorKind::Connect(_)
            | SocketErrorKind::Deadline { .. }
            | SocketErrorKind::Broken(_)
            | SocketErrorKind::Closed { .. }
            | SocketErrorKind::Frame(_)
            | SocketErrorKind::WrongId
            | SocketErrorKind::NotJson => error.to_string(),
        })?;
    let list = reply.list.map_err(|error| error.to_string())?;
    Ok(Look { entries: list.entries, peer: reply.peer })
}

/// Returns what pm2 said against a request. The rest of a reply holds the app's environment and is passed over.
pub fn refusal(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        error: Option<serde_json::Value>,
    }
    match serde_json::from_slice::<Reply>(json) {
        Ok(Reply { error: None | Some(serde_json::Value::Null) }) => None,
        Ok(Reply { error: Some(serde_json::Value::String(text)) }) => Some(plain(&text, 200)),
        Ok(Reply { error: Some(_) }) => Some("an error without words".to_owned()),
        Err(_no_json) => Some("a reply that is no JSON".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_reply_without_its_environment() {
        for (json, refused) in [
            (r#"{"args":[null,{"pm2_env":{"SECRET":"x"}}]}"#, None),
            (r#"{"error":"God db process id unknown","stack":"Error: …"}"#, Some("God db process id unknown")),
            (r#"{"error":{"code":1}}"#, Some("an error without words")),
            (r#"{"error":null,"args":[]}"#, None),
            ("nonsense", Some("a reply that is no JSON")),
        ] {
            assert_eq!(refusal(json.as_bytes()).as_deref(), refused, "{json}");
        }
    }
}
