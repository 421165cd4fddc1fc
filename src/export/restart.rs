//! Families about restarts.

use super::catalogue as family;
use super::families::Families;
use super::process::{count, truth, whole};
use crate::model::{AppName, DaemonName, WallTime};
use crate::policy::{Plan, State, Trigger};

/// What the restart policy says of itself at a collection.
#[derive(Debug, Clone, Copy)]
pub struct Restarts<'a> {
    /// What would happen now, and every app's figures.
    pub plan: &'a Plan,
    /// What it has counted.
    pub state: &'a State,
}

pub(super) fn add(families: &mut Families, restarts: Restarts<'_>) {
    let totals = &restarts.state.totals;
    for trigger in Trigger::ALL {
        let requests = totals.requests.get(&trigger).copied().unwrap_or(0);
        families.add(&family::RESTART_REQUESTS, &[trigger.as_str()], whole(requests));
    }
    for total in &totals.restarts {
        let [daemon, namespace, app] = app_labels(&total.daemon, &total.app);
        let labels = [daemon, namespace, app, total.action.as_str(), total.outcome.as_str()];
        families.add(&family::RESTARTS_DONE, &labels, whole(total.count));
    }
    for app in &restarts.plan.apps {
        let labels = app_labels(&app.daemon, &app.app);
        let gauges = &app.gauges;
        families.add(&family::RESTART_BUDGET, &labels, f64::from(gauges.budget_left.min(gauges.host_budget_left)));
        let reason = gauges.breaker_open.as_deref().unwrap_or_default();
        families.add(&family::RESTART_BREAKER, &[labels[0], labels[1], labels[2], reason], truth(!reason.is_empty()));
        for (reason, targets) in &gauges.blocked {
            families.add(&family::RESTART_BLOCKED, &[labels[0], labels[1], labels[2], reason], count(*targets));
        }
        #[allow(clippy::cast_precision_loss, reason = "memory stays far below 2^53")]
        let freed = gauges.memory_freed.map(|bytes| bytes as f64);
        families.add_some(&family::RESTART_FREED, &labels, freed);
        families.add_some(&family::RESTART_WINDOW, &labels, gauges.next_window.map(WallTime::as_seconds));
    }
}

/// The values of the labels that every series of an app begins with.
fn app_labels<'a>(daemon: &'a DaemonName, app: &'a AppName) -> [&'a str; 3] {
    [daemon.as_str(), app.namespace(), app.name()]
}
