//! The FleetLock protocol: one request before acting, one afterwards.
//!
//! `POST {base}/v1/pre-reboot` asks for the lock and `POST {base}/v1/steady-state` gives it back, both with the header
//! `fleet-lock-protocol: true` and the names of the host and its group. 200 grants. The server counts a host once, however
//! often it asks, and giving back what one does not hold is fine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::http::Ask;
use crate::policy::LockAnswer;
use crate::policy::settings::FleetLockSettings;

use crate::model::plain;

/// The longest answer that is read.
const LARGEST_ANSWER: usize = 64 << 10;

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStep {
    /// For the lock.
    PreReboot,
    /// To take it back.
    SteadyState,
}

impl LockStep {
    fn path(self) -> &'static str {
        match self {
            Self::PreReboot => "/v1/pre-reboot",
            Self::SteadyState => "/v1/steady-state",
        }
    }
}

/// Builds the body of either request.
pub fn encode_lock_request(id: &str, group: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        client_params: Params<'a>,
    }
    #[derive(Serialize)]
    struct Params<'a> {
        id: &'a str,
        group: &'a str,
    }
    // Two texts always become JSON; an empty body would only be refused.
    serde_json::to_vec(&Body { client_params: Params { id, group } }).unwrap_or_default()
}

/// Reads what the server answered. A refusal for a reason of the client's side is a refusal; after anything else the lock
/// may be ours.
pub fn read_lock_reply(status: u16, body: &[u8]) -> LockAnswer {
    #[derive(Deserialize)]
    struct Error {
        kind: String,
        value: String,
    }
    let why = match serde_json::from_slice::<Error>(body) {
        Ok(error) => format!("{}: {}", plain(&error.kind, 200), plain(&error.value, 200)),
        Err(_no_reason) => format!("status {status} without a reason"),
    };
    match status {
        200 => LockAnswer::Granted,
        400..=499 => LockAnswer::Denied(why),
        _ => LockAnswer::Failed(why),
    }
}

/// Asks the server.
pub(super) async fn ask(settings: &FleetLockSettings, step: LockStep, deadline: Duration) -> LockAnswer {
    let ask = Ask {
        endpoint: &settings.url,
        path: step.path(),
        body: Some(("application/json", encode_lock_request(&settings.id, &settings.group))),
        headers: &[("fleet-lock-protocol", "true")],
        deadline,
        limit: LARGEST_ANSWER,
    };
    match ask.send().await {
        Ok(reply) => read_lock_reply(reply.status, &reply.body),
        Err(error) => LockAnswer::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_names_the_host_and_its_group() {
        let body = String::from_utf8(encode_lock_request("host-\"1\"", "web")).unwrap();
        assert_eq!(body, r#"{"client_params":{"id":"host-\"1\"","group":"web"}}"#);
    }

    #[test]
    fn only_200_grants() {
        let reason = br#"{"kind":"failed_lock","value":"semaphore currently full"}"#;
        for (status, body, answer) in [
            (200, b"".as_slice(), LockAnswer::Granted),
            (409, reason, LockAnswer::Denied("failed_lock: semaphore currently full".to_owned())),
            (404, b"<html>", LockAnswer::Denied("status 404 without a reason".to_owned())),
            (500, reason, LockAnswer::Failed("failed_lock: semaphore currently full".to_owned())),
            (204, b"", LockAnswer::Failed("status 204 without a reason".to_owned())),
            (302, b"", LockAnswer::Failed("status 302 without a reason".to_owned())),
        ] {
            assert_eq!(read_lock_reply(status, body), answer, "{status}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_grants(status in 201_u16..600, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_ne!(read_lock_reply(status, &bytes), LockAnswer::Granted);
        }
    }
}
