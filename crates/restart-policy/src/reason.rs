//! Gates and the reasons they give: one value for the log, the metric label, the API and the page.
//!
//! Every reason is a whole sentence with figures, and a short label that never varies. This room refuses to decide.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::Spoken;
use model::{Bytes, Status, WallTime};

/// A gate that a restart must pass, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The mode and the app's opting in.
    Mode,
    /// The app's circuit breaker.
    Breaker,
    /// The process can be replaced at all, and we know its state.
    Process,
    /// Maintenance windows.
    Window,
    /// The process has run long enough.
    MinimumUptime,
    /// The time since its last restart.
    Cooldown,
    /// What is left of the app's budget.
    AppBudget,
    /// What is left of the host's budget.
    HostBudget,
    /// Nothing else is under way in the daemon.
    OneAtATime,
    /// The app's other instances.
    Siblings,
    /// pm2's reload lock.
    ReloadLock,
    /// Memory for a second instance.
    HostMemory,
    /// The state can be kept.
    State,
    /// A pause after an attempt that came to nothing.
    Backoff,
    /// Alertmanager's silences.
    Silence,
    /// PromQL expressions.
    Promql,
    /// The probe, and whether it can be known that a new instance serves.
    Readiness,
    /// The FleetLock server; asked only when all others are open.
    FleetLock,
}

impl Gate {
    /// Every gate in the order they are asked.
    pub const ALL: [Self; 18] = [
        Self::Mode,
        Self::Breaker,
        Self::Process,
        Self::Window,
        Self::MinimumUptime,
        Self::Cooldown,
        Self::AppBudget,
        Self::HostBudget,
        Self::OneAtATime,
        Self::Siblings,
        Self::ReloadLock,
        Self::HostMemory,
        Self::State,
        Self::Backoff,
        Self::Silence,
        Self::Promql,
        Self::Readiness,
        Self::FleetLock,
    ];

    /// The word used in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Breaker => "breaker",
            Self::Process => "process",
            Self::Window => "window",
            Self::MinimumUptime => "minimum_uptime",
            Self::Cooldown => "cooldown",
            Self::AppBudget => "app_budget",
            Self::HostBudget => "host_budget",
            Self::OneAtATime => "one_at_a_time",
            Self::Siblings => "siblings",
            Self::ReloadLock => "reload_lock",
            Self::HostMemory => "host_memory",
            Self::Backoff => "backoff",
            Self::State => "state",
            Self::Silence => "silence",
            Self::Promql => "promql",
            Self::Readiness => "readiness",
            Self::FleetLock => "fleet_lock",
        }
    }
}

/// Why a gate holds a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The mode is `off`.
    Off,
    /// The breaker is open.
    BreakerOpen {
        /// Why it opened.
        cause: String,
        /// When it closes by itself.
        closes_in: Duration,
    },
    /// It is the sidecar itself, or what the sidecar runs under.
    Itself,
    /// Its daemon has not answered of late.
    Unseen,
    /// pm2 does not show it as running.
    NotOnline(Status),
    /// No window is open.
    WindowClosed {
        /// When the next one opens.
        opens: Option<WallTime>,
        /// How far off that is.
        opens_in: Option<Duration>,
    },
    /// It is too young.
    TooYoung {
        /// How long it has run.
        uptime: Duration,
        /// How long it must have run.
        minimum: Duration,
    },
    /// It was restarted too recently.
    CoolingDown {
        /// How long ago.
        ago: Duration,
        /// How long the cooldown is.
        cooldown: Duration,
    },
    /// What was kept of earlier restarts was lost, so it may have been restarted just before.
    MemoryLost {
        /// How long ago that was found.
        ago: Duration,
        /// How long the cooldown is.
        cooldown: Duration,
    },
    /// The app's budget is spent.
    AppBudgetSpent {
        /// Restarts a day.
        budget: u32,
        /// When the next one comes free.
        frees_in: Duration,
    },
    /// The host's budget is spent.
    HostBudgetSpent {
        /// Restarts a day.
        budget: u32,
        /// When the next one comes free.
        frees_in: Duration,
    },
    /// Another restart is under way in the daemon.
    Busy {
        /// The app that is being restarted.
        app: String,
    },
    /// Too many other instances are away.
    SiblingsAway {
        /// Instances that are away or too young.
        away: usize,
        /// How many may be, the one to be replaced included.
        allowed: u32,
    },
    /// It is the only healthy instance.
    LastInstance,
    /// Somebody else reloads.
    ReloadLocked {
        /// For how long the lock has been held.
        held: Duration,
    },
    /// The host has too little memory for a second instance.
    HostMemoryShort {
        /// What is available.
        available: Bytes,
        /// What the second instance and the reserve need.
        needed: Bytes,
    },
    /// What the host has is not known.
    HostMemoryUnknown,
    /// An attempt came to nothing a short while ago.
    BackingOff {
        /// When the next attempt may be made.
        tries_in: Duration,
    },
    /// The hook failed.
    HookFailed {
        /// What it said.
        why: String,
        /// When it is run again.
        tries_in: Duration,
    },
    /// The state cannot be kept, so nothing may be begun.
    StateNotKept(String),
    /// A silence covers it.
    Silenced {
        /// The silence's id.
        id: String,
        /// Its comment.
        comment: String,
    },
    /// Whether a silence covers it is not known.
    SilencesUnknown(String),
    /// The answer has been asked for.
    Asking(Gate),
    /// An expression returned nothing.
    PromqlClosed {
        /// The expression.
        expression: String,
    },
    /// An expression could not be answered.
    PromqlFailed(String),
    /// Another host holds the lock.
    FleetLockHeld(String),
    /// The probe fails before anything is done.
    ProbeFails(String),
    /// Whether a new instance would serve cannot be known.
    ReadinessUnknown(String),
    /// The server could not be asked.
    FleetLockFailed(String),
    /// Other gates are closed, so the lock is not asked for.
    FleetLockNotAsked,
}

impl Reason {
    /// The word used in the label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Itself => "itself",
            Self::Unseen => "unseen",
            Self::NotOnline(_) => "not_online",
            Self::WindowClosed { .. } => "window_closed",
            Self::TooYoung { .. } => "too_young",
            Self::CoolingDown { .. } => "cooling_down",
            Self::MemoryLost { .. } => "memory_lost",
            Self::AppBudgetSpent { .. } => "app_budget_spent",
            Self::HostBudgetSpent { .. } => "host_budget_spent",
            Self::Busy { .. } => "busy",
            Self::SiblingsAway { .. } => "siblings_away",
            Self::LastInstance => "last_instance",
            Self::ReloadLocked { .. } => "reload_locked",
            Self::HostMemoryShort { .. } => "host_memory_short",
            Self::HostMemoryUnknown => "host_memory_unknown",
            Self::BackingOff { .. } => "backing_off",
            Self::HookFailed { .. } => "hook_failed",
            Self::StateNotKept(_) => "state_not_kept",
            Self::Silenced { .. } => "silenced",
            Self::SilencesUnknown(_) => "silences_unknown",
            Self::Asking(_) => "asking",
            Self::PromqlClosed { .. } => "promql_closed",
            Self::PromqlFailed(_) => "promql_failed",
            Self::ProbeFails(_) => "probe_fails",
            Self::ReadinessUnknown(_) => "readiness_unknown",
            Self::FleetLockHeld(_) => "fleet_lock_held",
            Self::FleetLockFailed(_) => "fleet_lock_failed",
            Self::FleetLockNotAsked => "fleet_lock_not_asked",
        }
    }

    /// When the gate may open by itself; none when that depends on others.
    pub fn opens_in(&self) -> Option<Duration> {
        match self {
            Self::BreakerOpen { closes_in, .. } => Some(*closes_in),
            Self::WindowClosed { opens_in, .. } => *opens_in,
            Self::TooYoung { uptime, minimum } => Some(minimum.saturating_sub(*uptime)),
            Self::CoolingDown { ago, cooldown } | Self::MemoryLost { ago, cooldown } => {
                Some(cooldown.saturating_sub(*ago))
            }
            Self::AppBudgetSpent { frees_in, .. } | Self::HostBudgetSpent { frees_in, .. } => Some(*frees_in),
            Self::BackingOff { tries_in } | Self::HookFailed { tries_in, .. } => Some(*tries_in),
            Self::ReloadLocked { held } => Some(Duration::from_secs(30).saturating_sub(*held)),
            Self::Off
            | Self::Itself
            | Self::Unseen
            | Self::NotOnline(_)
            | Self::Busy { .. }
            | Self::SiblingsAway { .. }
            | Self::LastInstance
            | Self::HostMemoryShort { .. }
            | Self::HostMemoryUnknown
            | Self::StateNotKept(_)
            | Self::Silenced { .. }
            | Self::SilencesUnknown(_)
            | Self::Asking(_)
            | Self::PromqlClosed { .. }
            | Self::PromqlFailed(_)
            | Self::ProbeFails(_)
            | Self::ReadinessUnknown(_)
            | Self::FleetLockHeld(_)
            | Self::FleetLockFailed(_)
            | Self::FleetLockNotAsked => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(out, "restarts are switched off (mode = \"off\")"),
            Self::BreakerOpen { cause, closes_in } => write!(
                out,
                "the circuit breaker is open: {cause}; it closes by itself in {}, or when a person resets it",
                Spoken(*closes_in)
            ),
            Self::Itself => write!(out, "it is leakslope itself, or what leakslope runs under"),
            Self::Unseen => write!(out, "its daemon has not answered of late, so its state is not known"),
            Self::NotOnline(status) => write!(out, "pm2 shows it as {}", status.as_str()),
            Self::WindowClosed { opens: Some(opens), opens_in: Some(span) } => {
                write!(
                    out,
                    "no maintenance window is open; the next one opens in {} ({})",
                    Spoken(*span),
                    opens.to_rfc3339()
                )
            }
            Self::WindowClosed { .. } => write!(out, "no maintenance window is open, and none will open"),
            Self::TooYoung { uptime, minimum } => {
                write!(out, "it has run for {} of at least {}", Spoken(*uptime), Spoken(*minimum))
            }
            Self::CoolingDown { ago, cooldown } => {
                write!(out, "it was restarted {} ago and the cooldown is {}", Spoken(*ago), Spoken(*cooldown))
            }
            Self::MemoryLost { ago, cooldown } => write!(
                out,
                "the history of restarts was found damaged {} ago, so one cooldown of {} is waited",
                Spoken(*ago),
                Spoken(*cooldown)
            ),
            Self::AppBudgetSpent { budget, frees_in } => {
                write!(
                    out,
                    "the app has had its {budget} restarts in 24 hours; the next comes free in {}",
                    Spoken(*frees_in)
                )
            }
            Self::HostBudgetSpent { budget, frees_in } => {
                write!(
                    out,
                    "the host has had its {budget} restarts in 24 hours; the next comes free in {}",
                    Spoken(*frees_in)
                )
            }
            Self::Busy { app } => write!(out, "a restart of {app} is under way in the same daemon"),
            Self::SiblingsAway { away, allowed } => write!(
                out,
                "{away} other instances of the app are not healthy yet; with this one at most {allowed} may be away"
            ),
            Self::LastInstance => write!(
                out,
                "it is the only healthy instance of the app, and the policy does not say take_last_instance = true"
            ),
            Self::ReloadLocked { held } => write!(out, "pm2's reload lock has been held for {}", Spoken(*held)),
            Self::HostMemoryShort { available, needed } => {
                write!(out, "a second instance needs {needed} with the reserve, and the host has {available}")
            }
            Self::HostMemoryUnknown => write!(out, "how much memory the host has left is not known"),
            Self::BackingOff { tries_in } => {
                write!(out, "the last attempt came to nothing; the next is made in {}", Spoken(*tries_in))
            }
            Self::HookFailed { why, tries_in } => {
                write!(out, "the hook failed ({why}); it is run again in {}", Spoken(*tries_in))
            }
            Self::StateNotKept(why) => write!(out, "the restart cannot be written down first ({why})"),
            Self::Silenced { id, comment } => write!(out, "silence {id} covers it: {comment}"),
            Self::SilencesUnknown(why) => write!(out, "whether a silence covers it is not known ({why})"),
            Self::Asking(Gate::Readiness) => write!(out, "how it serves is asked as soon as nothing else holds it"),
            Self::Asking(gate) => write!(out, "the answer of {} is awaited", gate.as_str()),
            Self::PromqlClosed { expression } => write!(out, "the expression returns nothing: {expression}"),
            Self::PromqlFailed(why) => write!(out, "Prometheus could not answer ({why})"),
            Self::ProbeFails(why) => {
                write!(
                    out,
                    "the probe fails before anything is done ({why}): whether a restart does harm could not be seen"
                )
            }
            Self::ReadinessUnknown(why) => write!(
                out,
                "whether the new instance would serve cannot be known ({why}): set verify.http or verify.command, or \
                 verify.ready = false for an app that nobody connects to"
            ),
            Self::FleetLockHeld(why) => write!(out, "the fleet lock is not granted ({why})"),
            Self::FleetLockFailed(why) => write!(out, "the fleet lock could not be asked for ({why})"),
            Self::FleetLockNotAsked => write!(out, "the fleet lock is asked for once every other gate is open"),
        }
    }
}

/// What one gate said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// The gate.
    pub gate: Gate,
    /// Why it holds; none when it is open.
    pub hold: Option<Reason>,
    /// The answer as a sentence.
    pub sentence: String,
}

impl GateResult {
    pub(super) fn open(gate: Gate, sentence: impl Into<String>) -> Self {
        Self { gate, hold: None, sentence: sentence.into() }
    }

    pub(super) fn held(gate: Gate, reason: Reason) -> Self {
        Self { gate, sentence: reason.to_string(), hold: Some(reason) }
    }
}

/// What is to be done with one target, with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Not now.
    Hold(Reason),
    /// Replace a worker; the sentence says why.
    Reload(String),
    /// Restart a process; the sentence says why and that connections drop.
    Restart(String),
    /// It is being replaced at this moment; only a plan says so.
    UnderWay(String),
    /// Everything is open, but the mode or the missing opting in says not to act.
    WouldReload(String),
    /// The same for a restart.
    WouldRestart(String),
}

impl Decision {
    /// The word used in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Hold(_) => "hold",
            Self::Reload(_) => "reload",
            Self::Restart(_) => "restart",
            Self::UnderWay(_) => "under_way",
            Self::WouldReload(_) => "would_reload",
            Self::WouldRestart(_) => "would_restart",
        }
    }
}
