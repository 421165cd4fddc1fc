//! When a process is restarted, and why not: a pure state machine.
//!
//! ```text
//!   verdicts, thresholds, schedules, alerts, people      what asks   (triggers)
//!                      │
//!                  requests ── targets: lives, not processes         (request)
//!                      │
//!                    gates ─── Hold(Reason) ── log, label, API, page (gates, reason)
//!                      │
//!                     step ─── evidence, hook, order, verification   (before, steps, verify)
//!                      │
//!              audit, effect, breaker                                (audit, effect, breaker)
//! ```
//!
//! Observations and events go in with the time they are of; orders come out ([`Policy::next_command`]), and a time at
//! which to be called again ([`Policy::wake_at`]). An order that changes the world comes out only after the state that
//! speaks of it has been kept. This crate refuses clocks, files, sockets and tasks, and depends on nothing that has them: the
//! sidecar's `actuate` does. `alertmanager` reads and writes Alertmanager's formats in the policy's types.

pub mod alertmanager;
mod audit;
mod before;
mod breaker;
mod command;
mod effect;
mod fleet;
mod gates;
mod machine;
mod observation;
mod plan;
mod reason;
mod request;
mod serving;
pub mod settings;
mod silence;
mod state;
mod steps;
mod triggers;
mod values;
mod verify;
mod window;
mod world;

pub use audit::{AuditRecord, Outcome, RecordKind};
pub use breaker::{Breaker, Open, Trouble};
pub use command::{
    Answer, Command, Event, EvidenceOrder, EvidenceTaken, HookOrder, LockAnswer, Notice, NoticeKind, Order, Severity,
};
pub use effect::{Effect, EffectWatch};
pub use machine::Policy;
pub use observation::{DaemonObservation, Now, Observation, ProcessObservation, VerdictView};
pub use plan::{AppGauges, AppPlan, Plan, PlanEntry, Preview, PreviewTarget};
pub use reason::{Decision, Gate, GateResult, Reason};
pub use request::{Action, AlertCall, PersonCall, Request, RequestEnd, Target, TargetState, Trigger, Wish};
pub use serving::{Listening, Probe, ProbeAnswer, ProbeCount, ProbeOrder, SocketQuestion, Sockets};
pub use settings::{BeforeExhaustion, EvidenceBefore, Mode, PolicySettings, RestartSettings};
pub use silence::{Matcher, Silence};
pub use state::{AlertMemory, FleetLock, Freed, LedgerEntry, Phase, RestartTotal, State, Step, Totals};
pub use triggers::{Refusal, RefusalKind};
pub use values::{CronText, Endpoint, Pattern, ProbeAddress, Size, Span, Spoken, ValueError, ValueErrorKind, Zone};
pub use verify::{Failure, Stage, Verification};
pub use window::{Day, Opening, Window};
