//! Which connections there are, and which one goes when there are too many. Pure: its time is a count of events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It waits for a request, or for its handshake.
    Waiting,
    /// A request has begun to come in.
    Head,
    /// The headers are here, the body is coming.
    Body,
    /// A handler works.
    Handling,
    /// The answer goes out.
    Writing,
    /// The answer goes out and the client does not take it.
    Stalled,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Waiting, Self::Head, Self::Body, Self::Handling, Self::Writing, Self::Stalled];

    /// Whether nothing of ours is under way: such a connection can be closed at any time.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Self::Waiting | Self::Head)
    }
}

/// How many connections there are and what became of others, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Connections now.
    pub open: u64,
    /// Connections that were taken since the start.
    pub accepted: u64,
    /// Connections that were closed while idle to make room for new ones.
    pub evicted: u64,
    /// Connections that were turned away because none could be closed.
    pub refused: u64,
}

/// One connection as the registry and the connection itself see it.
#[derive(Debug)]
pub(crate) struct Conversation {
    stage: AtomicU8,
    /// The count of events when the stage last changed.
    changed: AtomicU64,
    events: Arc<AtomicU64>,
    /// Whether the whole answer has been handed to the stream.
    answered: AtomicBool,
    /// Cancelled when the connection has to go at once.
    pub(crate) leave: CancellationToken,
}

impl Conversation {
    pub(crate) fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire)) % Stage::ALL.len()]
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.changed.store(self.events.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Notes that a handler begins.
    pub(crate) fn begin(&self) {
        self.answered.store(false, Ordering::Release);
        self.enter(Stage::Handling);
    }

    /// Notes that the last byte of an answer was handed to the stream.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Notes that the stream has passed on all it was handed: after a whole answer the connection waits again.
    pub(crate) fn flushed(&self) {
        let writing = matches!(self.stage(), Stage::Writing | Stage::Stalled);
        if writing && self.answered.swap(false, Ordering::AcqRel) {
            self.enter(Stage::Waiting);
        }
    }

    /// Order of going: what waits before what reads before what stalls, each the longest first; none for what must
    /// stay.
    fn goes(&self) -> Option<(u8, u64)> {
        let class = match self.stage() {
            Stage::Waiting | Stage::Head | Stage::Body => 0,
            Stage::Stalled => 1,
            Stage::Handling | Stage::Writing => return None,
        };
        Some((class, self.changed.load(Ordering::Relaxed)))
    }
}

/// All connections of a server.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Connections at a time by the settings.
    most: usize,
    /// Connections that the process has descriptors for now.
    room: AtomicUsize,
    events: Arc<AtomicU64>,
    places: Mutex<Places>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, Arc<Conversation>>,
    occupancy: Occupancy,
    answers: BTreeMap<u16, u64>,
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    number: u64,
    pub(crate) conversation: Arc<Conversation>,
}

impl Registry {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            room: AtomicUsize::new(usize::MAX),
            events: Arc::new(AtomicU64::new(0)),
            places: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to a new connection; when all are taken the one that can best be spared goes. None when every
    /// connection is being answered.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place> {
        let most = self.most.min(self.room.load(Ordering::Relaxed));
        let mut places = self.lock();
        while places.taken.len() >= most {
            if !places.evict() {
                places.occupancy.refused += 1;
                return None;
            }
        }
        let conversation = Arc::new(Conversation {
            stage: AtomicU8::new(Stage::Waiting as u8),
            changed: AtomicU64::new(self.events.fetch_add(1, Ordering::Relaxed)),
            events: self.events.clone(),
            answered: AtomicBool::new(false),
            leave: CancellationToken::new(),
        });
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, conversation.clone());
        places.occupancy.accepted += 1;
        Some(Place { registry: self.clone(), number, conversation })
    }

    /// Notes for how many connections there is room, one at the least, and closes those that can be spared beyond it.
    pub(crate) fn bound(&self, room: usize) {
        let room = room.max(1);
        self.room.store(room, Ordering::Relaxed);
        let mut places = self.lock();
        while places.taken.len() > room && places.evict() {}
    }

    /// Closes the connection that can best be spared. Returns whether there was one.
    pub(crate) fn evict(&self) -> bool {
        self.lock().evict()
    }

    /// Closes every connection.
    pub(crate) fn evict_all(&self) {
        for conversation in self.lock().taken.values() {
            conversation.leave.cancel();
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn wait_until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().taken.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Counts an answer with this status.
    pub(crate) fn answered(&self, status: u16) {
        *self.lock().answers.entry(status).or_default() += 1;
    }

    /// Answers since the start, by status.
    pub(crate) fn answers(&self) -> BTreeMap<u16, u64> {
        self.lock().answers.clone()
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let places = self.lock();
        Occupancy { open: places.taken.len() as u64, ..places.occupancy }
    }
}

impl Places {
    fn evict(&mut self) -> bool {
        let spared = self.taken.iter().filter_map(|(number, c)| c.goes().map(|order| (order, *number))).min();
        let Some((_, number)) = spared else { return false };
        if let Some(conversation) = self.taken.remove(&number) {
            conversation.leave.cancel();
            self.occupancy.evicted += 1;
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.registry.lock();
        places.taken.remove(&self.number);
        if places.taken.is_empty() {
            self.registry.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|index| places[*index].conversation.leave.is_cancelled()).collect()
    }

    #[test]
    fn the_longest_idle_makes_room_and_work_is_left_alone() {
        let registry = Registry::new(4);
        let mut places: Vec<_> = (0..4).map(|_| registry.admit().unwrap()).collect();
        places[0].conversation.enter(Stage::Handling);
        places[1].conversation.enter(Stage::Stalled);
        places[2].conversation.enter(Stage::Head);
        places[3].conversation.enter(Stage::Waiting);
        places[2].conversation.enter(Stage::Waiting);
        for expected in [vec![3], vec![2, 3]] {
            let place = registry.admit().unwrap();
            place.conversation.enter(Stage::Writing);
            places.push(place);
            assert_eq!(left(&places), expected);
        }
        places.push(registry.admit().unwrap());
        assert_eq!(left(&places), [1, 2, 3], "who does not read goes when nobody idles");
        places[6].conversation.enter(Stage::Handling);
        assert!(registry.admit().is_none());
        let occupancy = registry.occupancy();
        assert_eq!((occupancy.open, occupancy.accepted, occupancy.evicted, occupancy.refused), (4, 7, 3, 1));
        drop(places);
        assert_eq!(registry.occupancy().open, 0);
        assert!(registry.admit().is_some());
    }
    #[test]
    fn connections_beyond_the_room_are_closed_and_none_takes_their_place() {
        let registry = Registry::new(8);
        let mut places: Vec<_> = (0..6).map(|_| registry.admit().unwrap()).collect();
        places[0].conversation.enter(Stage::Handling);
        registry.bound(3);
        assert_eq!(left(&places), [1, 2, 3], "the longest idle go, work is left alone");
        places.push(registry.admit().unwrap());
        assert_eq!(left(&places), [1, 2, 3, 4]);
        registry.bound(0);
        assert_eq!(left(&places), [1, 2, 3, 4, 5, 6]);
        assert!(registry.admit().is_none(), "the only place is taken by work");
        registry.bound(100);
        assert!(registry.admit().is_some());
    }
}
