//! Recorded samples judged one by one, exactly as live: what `leakslope analyze` and the benches run.

use crate::history::{About, ProcessHistory, Retention, Sample};
use model::{AppName, LeakState, LifeSummary, ProcessKey, Steady, Verdict};

use super::{Detector, Limits, Settings};

/// A stretch of time in one alarming state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// First evaluation in the state.
    pub from: Steady,
    /// Last evaluation in the state.
    pub to: Steady,
    /// [`LeakState::Suspect`] or [`LeakState::Leaking`].
    pub state: LeakState,
}

/// Replays samples: feed them in order of time, then look at the verdict and the episodes.
#[derive(Debug)]
pub struct Replay {
    history: ProcessHistory,
    about: About,
    detector: Detector,
    limits: Limits,
    settings: Settings,
    next: Option<Steady>,
    latest: Option<Verdict>,
    episodes: Vec<Episode>,
    left_out: usize,
}

/// Most episodes that are kept; more are counted only.
const MOST_EPISODES: usize = 10_000;

impl Replay {
    /// Makes a replay of one process. `minutes` is how many minutes of history are kept.
    pub fn new(settings: Settings, limits: Limits, minutes: usize) -> Self {
        let app = AppName::from("replay");
        let retention = Retention { minute: settings.minute, minutes };
        let key = ProcessKey { daemon: "replay".into(), pm_id: 0 };
        Self {
            history: ProcessHistory::new(key, app.clone(), retention),
            about: About { app, version: None, revision: None },
            detector: Detector::new(),
            limits,
            settings,
            next: None,
            latest: None,
            episodes: Vec::new(),
            left_out: 0,
        }
    }

    /// Feeds one sample; samples must come in order of time (older ones only lower floors). Returns the verdict when
    /// an evaluation was due before it, and the life that ended with it.
    pub fn feed(&mut self, sample: &Sample, at: Steady) -> Fed {
        let evaluated = self.advance(at);
        let ended = self.history.push(sample, &self.about, at);
        if self.next.is_none() {
            self.next = Some(self.boundary_after(at));
        }
        Fed { evaluated, ended }
    }

    /// Evaluates at the last sample's minute, so that the end of the record counts. `at` is the end of the record.
    pub fn finish(&mut self, at: Steady) -> Option<&Verdict> {
        self.advance(at);
        self.latest.as_ref()
    }

    /// The newest verdict.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.latest.as_ref()
    }

    /// The alarming stretches so far, oldest first.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Episodes beyond the bound, counted but not kept.
    pub fn episodes_left_out(&self) -> usize {
        self.left_out
    }

    /// The history as it stands.
    pub fn history(&self) -> &ProcessHistory {
        &self.history
    }

    /// The first evaluation at which the state was `state` or worse.
    pub fn first(&self, state: LeakState) -> Option<Steady> {
        self.episodes.iter().find(|episode| episode.state >= state).map(|episode| episode.from)
    }

    fn boundary_after(&self, at: Steady) -> Steady {
        let retention = self.history.retention();
        let every = i64::from(self.settings.evaluate_every.max(1));
        let minute = retention.minute_of(at);
        retention.start_of(minute - minute.rem_euclid(every) + every)
    }

    fn advance(&mut self, at: Steady) -> bool {
        let Some(due) = self.next.filter(|due| at >= *due) else { return false };
        self.history.settle(due);
        let verdict = self.detector.evaluate(&self.history, Vec::new, &self.limits, due, &self.settings);
        self.note(verdict.state, due);
        self.latest = Some(verdict);
        // A gap in the record is not filled with evaluations: nothing was seen in it.
        self.next = Some(self.boundary_after(at));
        true
    }

    fn note(&mut self, state: LeakState, at: Steady) {
        if let Some(last) = self.episodes.last_mut()
            && last.state == state
            && self.latest.as_ref().is_some_and(|latest| latest.state == state)
        {
            last.to = at;
            return;
        }
        if matches!(state, LeakState::Suspect | LeakState::Leaking) {
            if self.episodes.len() >= MOST_EPISODES {
                self.left_out += 1;
                return;
            }
            self.episodes.push(Episode { from: at, to: at, state });
        }
    }
}

/// What came of feeding one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Fed {
    /// Whether an evaluation was made; [`Replay::verdict`] has it.
    pub evaluated: bool,
    /// The life that ended with this sample.
    pub ended: Option<LifeSummary>,
}
