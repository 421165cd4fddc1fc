//! What must survive: the durable state of the policy.
//!
//! It is written down before anything is done that it speaks of, so that after a kill at any point it is known what may
//! have been done. It holds names, numbers and sentences, nothing of an app's environment. This room refuses to decide.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::audit::{AuditRecord, Outcome};
use super::breaker::Breaker;
use super::command::Answer;
use super::effect::EffectWatch;
use super::request::{Action, AlertCall, Request, Trigger};
use super::verify::Verification;
use super::world::World;
use model::{AppName, DaemonName, Life, ProcessKey, Slope, Steady, WallTime};

/// The format of [`State`] that this version writes.
pub(super) const FORMAT: u32 = 1;

/// Counters kept at the most; apps that come and go without end lose the oldest.
const MOST_COUNTERS: usize = 5000;

/// Everything the policy remembers across restarts of the sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The format; a state of another format is not understood.
    pub format: u32,
    /// Goes up by one with every state written.
    pub revision: u64,
    /// The last number given to a request, a step or a record.
    pub last_number: u64,
    /// Open requests by number.
    pub requests: BTreeMap<u64, Request>,
    /// The replacement under way in each daemon.
    pub steps: BTreeMap<DaemonName, Step>,
    /// Replacements begun in the last days, the oldest first: what cooldowns and budgets count.
    pub ledger: Vec<LedgerEntry>,
    /// Breakers that are open or remember something.
    pub breakers: Vec<Breaker>,
    /// Restarts whose effect is being watched.
    pub effects: Vec<EffectWatch>,
    /// The newest word on every alert, by its id.
    pub alerts: BTreeMap<String, AlertMemory>,
    /// Up to when schedules have been looked at.
    pub schedules_until: Option<WallTime>,
    /// Where the fleet lock stands.
    pub fleet_lock: FleetLock,
    /// When what was kept before was lost, or may have been.
    #[serde(default)]
    pub lost_at: Option<Steady>,
    /// Counters for metrics.
    pub totals: Totals,
}

impl Default for State {
    fn default() -> Self {
        Self {
            format: FORMAT,
            revision: 0,
            last_number: 0,
            requests: BTreeMap::new(),
            steps: BTreeMap::new(),
            ledger: Vec::new(),
            breakers: Vec::new(),
            effects: Vec::new(),
            alerts: BTreeMap::new(),
            schedules_until: None,
            fleet_lock: FleetLock::Free,
            lost_at: None,
            totals: Totals::default(),
        }
    }
}

/// The replacement of one life of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number.
    pub id: u64,
    /// The request it serves.
    pub request: u64,
    /// The process.
    pub key: ProcessKey,
    /// The life that is to end.
    pub life: Life,
    /// How.
    pub action: Action,
    /// How far it has come.
    pub phase: Phase,
    /// The audit record it writes.
    pub record: AuditRecord,
    /// Slope before.
    pub slope_before: Option<Slope>,
    /// Whether it uses the fleet lock.
    pub fleet_lock: bool,
    /// Whether the sidecar was restarted in the middle of it.
    pub interrupted: bool,
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Evidence is being taken; pm2 has been told nothing.
    Evidence {
        /// When it is given up.
        deadline: Steady,
    },
    /// The hook runs; pm2 has been told nothing.
    Hook {
        /// When it is given up.
        deadline: Steady,
    },
    /// pm2 has been told, or is about to be: from here on it counts as done.
    Ordered {
        /// Whether an answer has come, and what it said.
        answer: Option<Answer>,
        /// What is being watched.
        verification: Box<Verification>,
    },
}

/// One replacement that was begun or rehearsed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The step.
    pub step: u64,
    /// The process.
    pub key: ProcessKey,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// The life that ended.
    pub life: Life,
    /// When.
    pub at: Steady,
    /// Whether it was only rehearsed.
    pub rehearsal: bool,
}

/// The newest word on one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertMemory {
    /// The word.
    pub call: AlertCall,
    /// When it came.
    pub seen: Steady,
    /// Whether this episode has had its request, so that a repeat asks for nothing.
    pub served: bool,
    /// Why it asks for nothing, where it does not.
    #[serde(default)]
    pub refused: Option<String>,
    /// The lives it asks for, once the app has been seen; a repeat adds none.
    pub targets: Option<BTreeMap<u32, Life>>,
}

/// Where the fleet lock stands, as far as we can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FleetLock {
    /// It is not ours.
    Free,
    /// We asked, or are about to: it may be ours.
    Asked {
        /// When.
        since: Steady,
    },
    /// It is ours.
    Held {
        /// Since when.
        since: Steady,
    },
    /// We gave it back, or are about to: it may still be ours.
    Releasing {
        /// When it is tried again.
        next: Steady,
        /// Attempts so far.
        attempts: u32,
    },
}

/// Counters for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Requests by trigger.
    pub requests: BTreeMap<Trigger, u64>,
    /// Replacements that ended.
    pub restarts: Vec<RestartTotal>,
    /// What the latest measured replacement of each app freed.
    pub freed: Vec<Freed>,
}

/// Memory that the latest measured replacement of an app freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// In bytes; negative when more was held afterwards.
    pub bytes: i64,
}

/// One counter of replacements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartTotal {
    /// The daemon.
    pub daemon: DaemonName,
    /// The app.
    #[serde(flatten)]
    pub app: AppName,
    /// What was done.
    pub action: Action,
    /// How it went.
    pub outcome: Outcome,
    /// How often.
    pub count: u64,
}

impl State {
    /// Gives out the next number.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Gives what an older version kept without a namespace to the app that it means among those listed now, and says
    /// whether anything changed. Where several have that name, a breaker holds for each of them, and the rest waits.
    pub(super) fn adopt_namespaces(&mut self, world: &World) -> bool {
        let mut changed = false;
        let mut adopt = |daemon: &DaemonName, app: &mut AppName, pm_id: Option<u32>| {
            if !app.namespace().is_empty() {
                return;
            }
            let meant = Some(world.meant(daemon, app, pm_id)).filter(|meant| !meant.is_empty());
            let mut meant = meant.unwrap_or_else(|| world.meant(daemon, app, None)).into_iter();
            if let (Some(only), None) = (meant.next(), meant.next()) {
                *app = only;
                changed = true;
            }
        };
        for request in self.requests.values_mut() {
            adopt(&request.daemon, &mut request.app, request.targets.keys().next().copied());
        }
        for record in self.steps.values_mut().map(|step| &mut step.record) {
            adopt(&record.daemon, &mut record.app, record.pm_id);
        }
        for entry in &mut self.ledger {
            adopt(&entry.key.daemon, &mut entry.app, Some(entry.key.pm_id));
        }
        for record in self.effects.iter_mut().map(|watch| &mut watch.record) {
            adopt(&record.daemon, &mut record.app, record.pm_id);
        }
        for total in &mut self.totals.restarts {
            adopt(&total.daemon, &mut total.app, None);
        }
        for freed in &mut self.totals.freed {
            adopt(&freed.daemon, &mut freed.app, None);
        }
        let meant = |breaker: &Breaker| match breaker.app.namespace() {
            "" => world.meant(&breaker.daemon, &breaker.app, None),
            _named => BTreeSet::new(),
        };
        let adopted: Vec<Breaker> = self
            .breakers
            .iter()
            .flat_map(|breaker| meant(breaker).into_iter().map(|app| Breaker { app, ..breaker.clone() }))
            .collect();
        changed |= !adopted.is_empty();
        self.breakers.retain(|breaker| meant(breaker).is_empty());
        self.breakers.extend(adopted);
        changed
    }

    /// Returns the breaker of an app, where there is anything to remember.
    pub fn breaker(&self, daemon: &DaemonName, app: &AppName) -> Option<&Breaker> {
        self.breakers.iter().find(|breaker| breaker.daemon == *daemon && breaker.app == *app)
    }

    pub(super) fn breaker_mut(&mut self, daemon: &DaemonName, app: &AppName) -> &mut Breaker {
        let found = self.breakers.iter().position(|breaker| breaker.daemon == *daemon && breaker.app == *app);
        let index = found.unwrap_or_else(|| {
            self.breakers.push(Breaker::closed(daemon, app));
            self.breakers.len() - 1
        });
        &mut self.breakers[index]
    }

    pub(super) fn note_freed(&mut self, daemon: &DaemonName, app: &AppName, bytes: i64) {
        match self.totals.freed.iter_mut().find(|freed| freed.daemon == *daemon && freed.app == *app) {
            Some(freed) => freed.bytes = bytes,
            None => self.totals.freed.push(Freed { daemon: daemon.clone(), app: app.clone(), bytes }),
        }
        let surplus = self.totals.freed.len().saturating_sub(MOST_COUNTERS);
        self.totals.freed.drain(..surplus);
    }

    pub(super) fn count_restart(&mut self, daemon: &DaemonName, app: &AppName, action: Action, outcome: Outcome) {
        let same = |total: &&mut RestartTotal| {
            total.daemon == *daemon && total.app == *app && total.action == action && total.outcome == outcome
        };
        if let Some(total) = self.totals.restarts.iter_mut().find(same) {
            total.count += 1;
        } else {
            let total = RestartTotal { daemon: daemon.clone(), app: app.clone(), action, outcome, count: 1 };
            self.totals.restarts.push(total);
        }
        let surplus = self.totals.restarts.len().saturating_sub(MOST_COUNTERS);
        self.totals.restarts.drain(..surplus);
    }
}
