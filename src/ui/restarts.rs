//! How restarts stand, from the policy's plan, its state and its audit log.

use super::views::{
    ActingView, AppPolicyView, AuditView, BreakerView, GateView, PreviewTargetView, PreviewView, RequestView,
    RestartsView, TargetView,
};
use crate::export::json::PlanView;
use crate::model::{DaemonName, Steady, WallTime};
use crate::policy::{
    AppPlan, AuditRecord, GateResult, Mode, Plan, PlanEntry, Preview, PreviewTarget, RecordKind, Request,
    RestartSettings, State, TargetState,
};

/// What the policy says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The settings in force.
    pub settings: &'a RestartSettings,
    /// What would happen now.
    pub plan: &'a Plan,
    /// What is kept.
    pub state: &'a State,
    /// The audit log, the newest first.
    pub audit: &'a [AuditRecord],
    /// Milliseconds from the steady line to the wall clock.
    pub offset_ms: i64,
}

impl RestartsView {
    /// Builds the view for one who may or may not act.
    pub fn new(said: &Said<'_>, acting: ActingView) -> Self {
        Self {
            mode: mode(said.settings.mode).to_owned(),
            acting,
            requests: said.state.requests.values().map(|request| request_view(said, request)).collect(),
            apps: said.plan.apps.iter().map(|app| app_view(said, app)).collect(),
            audit: said.audit.iter().map(audit_view).collect(),
        }
    }
}

impl From<&Preview> for PreviewView {
    fn from(preview: &Preview) -> Self {
        let target = |target: &PreviewTarget| PreviewTargetView {
            daemon: target.daemon.to_string(),
            pm_id: target.pm_id,
            decision: target.decision.as_str().to_owned(),
        };
        Self { targets: preview.targets.iter().map(target).collect(), sentences: preview.sentences.clone() }
    }
}

/// The word for a mode, as the configuration writes it.
fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::DryRun => "dry-run",
        Mode::Enforce => "enforce",
    }
}

fn request_view(said: &Said<'_>, request: &Request) -> RequestView {
    RequestView {
        id: request.id,
        trigger: request.trigger.as_str().to_owned(),
        daemon: request.daemon.to_string(),
        namespace: request.app.namespace().to_owned(),
        app: request.app.name().to_owned(),
        made_at: request.made_wall.as_seconds(),
        reason: request.reason.clone(),
        begun: request.started(),
        targets: request
            .targets
            .iter()
            .map(|(pm_id, target)| {
                let entry = said.plan.entries.iter().find(|entry| entry.request == request.id && entry.pm_id == *pm_id);
                TargetView {
                    pm_id: *pm_id,
                    state: target_state(target.state).to_owned(),
                    plan: entry.map(plan_view),
                    gates: entry.map(|entry| entry.gates.iter().map(gate_view).collect()).unwrap_or_default(),
                }
            })
            .collect(),
    }
}

/// The word for how far a target has come.
fn target_state(state: TargetState) -> &'static str {
    match state {
        TargetState::Waiting => "waiting",
        TargetState::Acting => "acting",
        TargetState::Done => "done",
        TargetState::Failed => "failed",
        TargetState::Rehearsed => "rehearsed",
        TargetState::Ended | TargetState::Left => "ended",
    }
}

/// What would happen to one process, in short.
pub fn plan_view(entry: &PlanEntry) -> PlanView {
    PlanView {
        decision: entry.now.as_str().to_owned(),
        sentence: entry.sentence.clone(),
        at: entry.next_window.map(WallTime::as_seconds),
    }
}

fn gate_view(result: &GateResult) -> GateView {
    GateView {
        gate: result.gate.as_str().to_owned(),
        open: result.hold.is_none(),
        reason: result.hold.as_ref().map(|reason| reason.label().to_owned()),
        sentence: result.sentence.clone(),
    }
}

fn app_view(said: &Said<'_>, app: &AppPlan) -> AppPolicyView {
    let breaker = said.state.breaker(&app.daemon, &app.app).and_then(|breaker| breaker.open.as_ref());
    let wall = |at: Steady| WallTime(at.0.saturating_add(said.offset_ms)).as_seconds();
    AppPolicyView {
        daemon: app.daemon.to_string(),
        namespace: app.app.namespace().to_owned(),
        app: app.app.name().to_owned(),
        opted_in: app.policy.is_some(),
        mode: mode(app.mode).to_owned(),
        next_window_at: app.gauges.next_window.map(WallTime::as_seconds),
        budget_left: app.gauges.budget_left,
        host_budget_left: app.gauges.host_budget_left,
        breaker: BreakerView {
            open: breaker.is_some(),
            cause: breaker.map(|open| open.cause.clone()),
            closes_at: breaker.map(|open| wall(open.until)),
        },
        memory_freed_bytes: app.gauges.memory_freed,
    }
}

fn audit_view(record: &AuditRecord) -> AuditView {
    let effect = record.effect.as_ref();
    let pace = |slope: Option<crate::model::Slope>| slope.map(|slope| slope.bytes_per_second);
    AuditView {
        id: record.id,
        at: record.wall.as_seconds(),
        kind: match record.kind {
            RecordKind::Requested => "requested",
            RecordKind::RequestEnded => "request_ended",
            RecordKind::Restart => "restart",
            RecordKind::Rehearsal => "rehearsal",
            RecordKind::BreakerOpened => "breaker_opened",
            RecordKind::BreakerClosed => "breaker_closed",
        }
        .to_owned(),
        request: record.request,
        trigger: record.trigger.map(|trigger| trigger.as_str().to_owned()),
        daemon: record.daemon.to_string(),
        namespace: record.app.namespace().to_owned(),
        app: record.app.name().to_owned(),
        pm_id: record.pm_id,
        action: record.action.map(|action| action.as_str().to_owned()),
        outcome: record.outcome.map(|outcome| outcome.as_str().to_owned()),
        detail: record.detail.clone(),
        sentence: record.sentence.clone(),
        memory_before_bytes: record.memory_before.map(|bytes| bytes.0),
        memory_after_bytes: record.memory_after.map(|bytes| bytes.0),
        slope_before: effect.and_then(|effect| pace(effect.slope_before)),
        slope_after: effect.and_then(|effect| pace(effect.slope_after)),
        time_bought_seconds: effect.and_then(|effect| effect.time_bought).map(|span| span.as_secs_f64()),
        helped: effect.and_then(|effect| effect.helped),
        evidence: record.evidence.clone(),
        probes_asked: record.probes.map(|probes| probes.asked),
        probes_failed: record.probes.map(|probes| probes.failed),
    }
}

/// What the policy is about to do with one process; none when nothing asks for it.
pub fn plan_of(plan: &Plan, daemon: &DaemonName, pm_id: u32) -> Option<PlanView> {
    plan.entries.iter().find(|entry| entry.daemon == *daemon && entry.pm_id == pm_id).map(plan_view)
}
