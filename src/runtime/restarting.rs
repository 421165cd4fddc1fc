//! The restart policy's place among the tasks: its kept state, its task, and what others see of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle as Tokio;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::evidence::Evidence;
use super::shared::Shared;
use crate::actuate::{Driver, Handle, Keeper, Spec};
use crate::config::Settings;
use crate::history::store::{Saved, StoreHandle};
use crate::model::Steady;
use crate::policy::{AuditRecord, Now, Plan, State};

/// The name of the policy's state in the store.
const STATE: &str = "restarts";
/// How long the policy may take to say how it stands.
const LOOK: Duration = Duration::from_secs(1);
/// Records shown at the most.
const RECORDS: usize = 200;

/// How the policy stands, as of a collection.
#[derive(Debug)]
pub struct Standing {
    /// What would happen now.
    pub plan: Plan,
    /// What it has kept.
    pub state: State,
}

/// The state that an earlier run kept; of a history that was found damaged what could be read of it, with when that was.
///
/// # Errors
/// A sentence where it cannot be known: then nothing may be restarted, since it might be done a second time.
pub(super) async fn kept(store: Option<&StoreHandle>, lost_at: Option<Steady>) -> Result<Option<State>, String> {
    let Some(store) = store else { return Ok(None) };
    let bytes = store.state(STATE).await.map_err(|error| error.to_string())?;
    let state = bytes.map(|bytes| serde_json::from_slice::<State>(&bytes)).transpose();
    match lost_at {
        None => state.map_err(|error| error.to_string()),
        Some(_) => Ok(Some(State { lost_at, ..state.ok().flatten().unwrap_or_default() })),
    }
}

/// Makes the policy's task and the way to it.
pub(super) fn driver(
    settings: &Settings,
    kept: Option<State>,
    store: Option<StoreHandle>,
    clock: &Clock,
    evidence: Arc<Evidence>,
) -> (Driver, Handle) {
    let clock = clock.clone();
    Driver::new(Spec {
        settings: settings.restart.clone(),
        daemons: settings.daemons.clone(),
        kept,
        keeper: Arc::new(StoreKeeper { store, tokio: Tokio::current() }),
        witness: Some(Arc::new(evidence)),
        clock: Arc::new(move || Now { steady: clock.now(), wall: clock.wall() }),
    })
}

/// Keeps the policy's state and records in the store.
struct StoreKeeper {
    store: Option<StoreHandle>,
    tokio: Tokio,
}

impl Keeper for StoreKeeper {
    fn keep(&self, state: &State, records: &[AuditRecord]) -> Result<(), String> {
        let store = self.store.as_ref().ok_or("there is no state directory to keep it in")?;
        let value = serde_json::to_vec(state).map_err(|error| error.to_string())?;
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            let mut entry = serde_json::to_vec(record).map_err(|error| error.to_string())?;
            // There are thousands after a flood of alerts, and they wait while the disk is full.
            entry.shrink_to_fit();
            entries.push((record.at, entry));
        }
        match self.tokio.block_on(store.keep(STATE, value, entries)) {
            Ok(Saved::OnDisk) => Ok(()),
            Ok(Saved::InMemory(reason)) => Err(reason.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Asks how the policy stands; none where it does not say in time.
pub(super) async fn standing(handle: &Handle) -> Option<Standing> {
    let (plan, state) = tokio::time::timeout(LOOK, handle.look()).await.ok()?.ok()?;
    Some(Standing { plan, state })
}

/// The audit log, the newest record first: of each number the latest word.
pub(super) async fn audit(shared: &Shared) -> Vec<AuditRecord> {
    let Some(store) = &shared.store else { return Vec::new() };
    let entries = store.audit(0..=u64::MAX, RECORDS * 4).await.unwrap_or_default();
    let mut records: Vec<AuditRecord> = Vec::new();
    for entry in entries.iter().rev() {
        let Ok(record) = serde_json::from_slice::<AuditRecord>(&entry.body) else { continue };
        if records.len() < RECORDS && records.iter().all(|known| known.id != record.id) {
            records.push(record);
        }
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.id));
    records
}

/// Runs the driver; it is not started again, since its state is verified only by a new run of the sidecar.
pub(super) async fn run(driver: Option<Driver>, stop: CancellationToken) -> Result<(), String> {
    let driver = driver.ok_or("the policy's task ended before")?;
    driver.run(stop).await;
    Ok(())
}
