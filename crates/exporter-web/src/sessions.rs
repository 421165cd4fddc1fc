//! Browsers that may act: a link that is good once and for two minutes is exchanged for a session. Pure, but for its
//! secrets; the time is an argument.
//!
//! A session that began on this machine is good for the user who began it alone, since a browser sends a cookie to every
//! port of a host, and behind another one somebody else may listen. Nothing of it outlives the process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::peer::PeerKey;
use crate::secret;
use model::Steady;

/// How long a link is good for.
pub const LINK_LASTS: Duration = Duration::from_mins(2);
/// How long a session is.
pub(super) const SESSION_LASTS: Duration = Duration::from_hours(12);
/// Links that wait and sessions at a time; the oldest go first.
const MOST: usize = 32;

/// Links that wait for their browser, and sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    links: Vec<Secret>,
    sessions: Vec<Secret>,
}

struct Secret {
    text: String,
    until: Steady,
    of: Option<PeerKey>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Secret").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Makes the secret of a link; none where the system gives no random bytes.
    pub(super) fn link(&self, now: Steady) -> Option<String> {
        keep(&mut self.lock(now).links, now + LINK_LASTS, None)
    }

    /// Exchanges the secret of a link for that of a session, once.
    pub(super) fn begin(&self, link: &str, of: PeerKey, now: Steady) -> Option<String> {
        let mut kept = self.lock(now);
        let at = kept.links.iter().position(|secret| secret.is(link))?;
        kept.links.remove(at);
        keep(&mut kept.sessions, now + SESSION_LASTS, Some(of))
    }

    /// Whether this is a session, and that of the one who shows it.
    pub(super) fn holds(&self, session: &str, of: PeerKey, now: Steady) -> bool {
        let fits = |began: PeerKey| match began {
            PeerKey::User(_) => began == of,
            PeerKey::Unknown => false,
            // Who goes from one network to another stays who they are; no process of this machine is one of them.
            PeerKey::Address(_) => matches!(of, PeerKey::Address(_)),
        };
        self.lock(now).sessions.iter().any(|secret| secret.is(session) && secret.of.is_some_and(fits))
    }

    fn lock(&self, now: Steady) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.links.retain(|secret| secret.until > now);
        kept.sessions.retain(|secret| secret.until > now);
        kept
    }
}

impl Secret {
    fn is(&self, offered: &str) -> bool {
        self.text.as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

fn keep(all: &mut Vec<Secret>, until: Steady, of: Option<PeerKey>) -> Option<String> {
    let text = secret()?;
    if all.len() == MOST {
        all.remove(0);
    }
    all.push(Secret { text: text.clone(), until, of });
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: PeerKey = PeerKey::User(1000);

    #[test]
    fn a_link_is_good_once_and_not_for_long() {
        let sessions = Sessions::default();
        let link = sessions.link(Steady(0)).unwrap();
        assert_eq!(sessions.begin("another", ADA, Steady(1)), None);
        let session = sessions.begin(&link, ADA, Steady(1)).unwrap();
        assert_eq!(sessions.begin(&link, ADA, Steady(2)), None, "it is spent");
        let late = sessions.link(Steady(0)).unwrap();
        assert_eq!(sessions.begin(&late, ADA, Steady(0) + LINK_LASTS), None);
        assert!(sessions.holds(&session, ADA, Steady(5)) && !sessions.holds(&link, ADA, Steady(5)));
        assert!(!sessions.holds(&session, ADA, Steady(1) + SESSION_LASTS));
        assert!(!format!("{sessions:?}").contains(&session));
    }

    #[test]
    fn a_session_of_this_machine_is_its_users_alone() {
        let sessions = Sessions::default();
        let of = |key| sessions.begin(&sessions.link(Steady(0)).unwrap(), key, Steady(0)).unwrap();
        let (ada, far) = (of(ADA), of(PeerKey::Address("192.0.2.1".parse().unwrap())));
        for (key, adas, fars) in [
            (ADA, true, false),
            (PeerKey::User(1001), false, false),
            (PeerKey::Unknown, false, false),
            (PeerKey::Address("192.0.2.9".parse().unwrap()), false, true),
        ] {
            assert_eq!((sessions.holds(&ada, key, Steady(1)), sessions.holds(&far, key, Steady(1))), (adas, fars));
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let sessions = Sessions::default();
        let links: Vec<String> = (0..=MOST).map(|_| sessions.link(Steady(0)).unwrap()).collect();
        assert_eq!(sessions.begin(&links[0], ADA, Steady(0)), None);
        assert!(sessions.begin(&links[1], ADA, Steady(0)).is_some());
    }
}
