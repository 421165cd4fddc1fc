//! Passwords against their bcrypt hashes: away from the threads that serve, few at a time and one at a time for each who
//! asks, and remembered once right. So whoever sends many wrong ones holds up themselves.
//!
//! A user who does not exist costs as much as one who does. Passwords themselves are never kept: what is remembered is a
//! keyed digest that means nothing outside this process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::peer::PeerKey;
use crate::web::Users;

/// Looks at a time; each takes a whole processor.
const AT_A_TIME: usize = 2;
/// Looks of one who asks that are under way or wait; beyond them they are told to come back.
const WAITING: usize = 32;
/// Askers at a time whose passwords are looked at.
const ASKERS: usize = 256;
/// Right passwords that are remembered.
const REMEMBERED: usize = 64;
/// The cost of a look for users who do not exist, where there is no hash to go by.
const USUAL_COST: u32 = 10;
/// What follows the cost in a hash that no password is known for.
const DECOY: &str = "5i1qbbO9lo5P8M.MSs4nYOj4bFoCVkxMl0UzHgqBGn1h.1SV6IDQS";

/// What came of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Too many are being looked at.
    Busy,
}

/// One who asks, as long as a password of theirs is looked at.
struct Asker {
    waiting: Semaphore,
    turn: Semaphore,
}

/// The one who looks.
pub(crate) struct Passwords {
    key: hmac::Key,
    looking: Arc<Semaphore>,
    askers: Mutex<BTreeMap<PeerKey, Arc<Asker>>>,
    right: Mutex<VecDeque<hmac::Tag>>,
}

impl Passwords {
    /// Takes a fresh key; none where the system gives no random bytes.
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?,
            looking: Arc::new(Semaphore::new(AT_A_TIME)),
            askers: Mutex::default(),
            right: Mutex::default(),
        })
    }

    /// Looks whether the password is the user's.
    pub(crate) async fn look(&self, users: &Users, user: &str, password: &[u8], who: PeerKey) -> Looked {
        let known = users.0.get(user);
        let hash = known.cloned().unwrap_or_else(|| decoy(users));
        let parts = parts(user, &hash, password);
        if known.is_some() && self.remembers(&parts) {
            return Looked::Right;
        }
        let Some(asker) = self.asker(who) else { return Looked::Busy };
        let Ok(_place) = asker.waiting.try_acquire() else { return Looked::Busy };
        let Ok(_turn) = asker.turn.acquire().await else { return Looked::Busy };
        let Ok(permit) = self.looking.clone().acquire_owned().await else { return Looked::Busy };
        if known.is_some() && self.remembers(&parts) {
            return Looked::Right;
        }
        let password = password.to_vec();
        // The permit goes along: a look that nobody waits for any more still takes its processor.
        let look = tokio::task::spawn_blocking(move || {
            let matches = bcrypt::verify(password, &hash).unwrap_or(false);
            drop(permit);
            matches
        });
        let matches = look.await.unwrap_or(false);
        if !(matches && known.is_some()) {
            return Looked::Wrong;
        }
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() == REMEMBERED {
            right.pop_front();
        }
        right.push_back(hmac::sign(&self.key, &parts));
        Looked::Right
    }

    /// The places of one who asks; none where too many others have theirs.
    fn asker(&self, who: PeerKey) -> Option<Arc<Asker>> {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        askers.retain(|_, asker| Arc::strong_count(asker) > 1);
        if askers.len() >= ASKERS && !askers.contains_key(&who) {
            return None;
        }
        let fresh = || Arc::new(Asker { waiting: Semaphore::new(WAITING), turn: Semaphore::new(1) });
        Some(askers.entry(who).or_insert_with(fresh).clone())
    }

    /// Whether these were right before; compares in constant time.
    fn remembers(&self, parts: &[u8]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.iter().fold(false, |any, tag| any | hmac::verify(&self.key, parts, tag.as_ref()).is_ok())
    }
}

/// A user, a hash and a password as one text that no other three make.
fn parts(user: &str, hash: &str, password: &[u8]) -> Vec<u8> {
    let mut parts = Vec::with_capacity(16 + user.len() + hash.len() + password.len());
    for part in [user.as_bytes(), hash.as_bytes(), password] {
        parts.extend_from_slice(&(part.len() as u64).to_be_bytes());
        parts.extend_from_slice(part);
    }
    parts
}

/// A hash for users who do not exist, as costly as the costliest there is.
fn decoy(users: &Users) -> String {
    let cost = |hash: &String| hash.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost()).ok();
    let cost = users.0.values().filter_map(cost).max().unwrap_or(USUAL_COST);
    format!("$2b${cost:02}${DECOY}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ADA: PeerKey = PeerKey::User(1);

    fn users(password: &str) -> Users {
        Users(BTreeMap::from([("ops".to_owned(), bcrypt::hash(password, 4).unwrap())]))
    }

    #[tokio::test]
    async fn the_right_password_of_the_right_user_alone_is_right() {
        let (passwords, users) = (Passwords::new().unwrap(), users("correct horse"));
        for (user, password, expected) in [
            ("ops", "correct horse", Looked::Right),
            ("ops", "correct horse", Looked::Right),
            ("ops", "correct horsf", Looked::Wrong),
            ("ops", "", Looked::Wrong),
            ("Ops", "correct horse", Looked::Wrong),
            ("", "correct horse", Looked::Wrong),
            ("op", "scorrect horse", Looked::Wrong),
        ] {
            assert_eq!(passwords.look(&users, user, password.as_bytes(), ADA).await, expected, "{user} {password}");
        }
        assert_eq!(passwords.right.lock().unwrap().len(), 1, "the second look was remembered, wrong ones are not");
        let changed = self::users("battery staple");
        assert_eq!(passwords.look(&changed, "ops", b"correct horse", ADA).await, Looked::Wrong, "the hash has changed");
    }

    #[test]
    fn a_stranger_costs_as_much_as_the_costliest_user() {
        let mut users = users("x");
        assert!(decoy(&users).starts_with("$2b$04$"));
        users.0.insert("slow".to_owned(), decoy(&users).replace("$04$", "$12$"));
        assert!(decoy(&users).starts_with("$2b$12$") && decoy(&users).parse::<bcrypt::HashParts>().is_ok());
        assert!(decoy(&Users::default()).starts_with("$2b$10$"));
    }

    #[tokio::test]
    async fn no_more_than_a_few_are_looked_at_and_the_rest_is_told() {
        let (passwords, users) = (Arc::new(Passwords::new().unwrap()), Arc::new(users("right")));
        let held = passwords.looking.clone().acquire_many_owned(AT_A_TIME.try_into().unwrap()).await.unwrap();
        let mut looks = tokio::task::JoinSet::new();
        for number in 0..WAITING + 5 {
            let (passwords, users) = (passwords.clone(), users.clone());
            looks.spawn(async move { passwords.look(&users, "ops", number.to_string().as_bytes(), ADA).await });
        }
        for _ in 0..5 {
            assert_eq!(looks.join_next().await.unwrap().unwrap(), Looked::Busy);
        }
        let other = passwords.look(&users, "ops", b"right", PeerKey::User(2));
        tokio::pin!(other);
        assert!(futures_util::poll!(other.as_mut()).is_pending(), "somebody else is not told to come back");
        drop(held);
        assert_eq!(other.await, Looked::Right);
        while let Some(looked) = looks.join_next().await {
            assert_eq!(looked.unwrap(), Looked::Wrong);
        }
        assert_eq!(passwords.look(&users, "ops", b"right", ADA).await, Looked::Right);
    }
}
