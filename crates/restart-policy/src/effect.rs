//! The effect of a restart: memory freed, slope after against slope before, and the time it bought.
//!
//! A restart that frees nothing, or whose memory is back within the hour, only hides the leak behind dropped
//! connections. This room measures and judges; it refuses to draw the consequence.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::AuditRecord;
use super::observation::ProcessObservation;
use super::settings::BreakerSettings;
use super::values::Spoken;
use model::{Bytes, LeakState, Life, ProcessKey, Slope, Status, Steady};

/// After this time a restart has bought all that is worth counting.
const LONGEST_WATCH: Duration = Duration::from_hours(168);
/// Memory is back once it has reached this share of what was held before.
const BACK: f64 = 0.95;

/// What a restart did, as far as it is known yet.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Effect {
    /// Memory held before.
    pub before: Option<Bytes>,
    /// Memory held when it had settled.
    pub after: Option<Bytes>,
    /// Memory freed, in bytes; negative when more is held than before.
    pub freed: Option<i64>,
    /// Slope before.
    pub slope_before: Option<Slope>,
    /// Slope of the new life, once it is known.
    pub slope_after: Option<Slope>,
    /// Time until memory was back where it was, or until the watch ended.
    pub time_bought: Option<Duration>,
    /// Whether memory did come back within that time.
    pub came_back: bool,
    /// Whether the restart helped; none while that is open.
    pub helped: Option<bool>,
}

impl Effect {
    /// The effect as a sentence.
    pub fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if let (Some(before), Some(after)) = (self.before, self.after) {
            parts.push(format!("memory went from {before} to {after}"));
        }
        if let (Some(before), Some(after)) = (self.slope_before, self.slope_after) {
            parts.push(format!("it grows by {} where it grew by {}", an_hour(after), an_hour(before)));
        }
        match self.time_bought {
            Some(span) if self.came_back => parts.push(format!("it was back after {}", Spoken(span))),
            Some(span) => parts.push(format!("it bought at least {}", Spoken(span))),
            None => {}
        }
        match self.helped {
            Some(true) => parts.push("the restart helped".to_owned()),
            Some(false) => parts.push("the restart did not help".to_owned()),
            None => parts.push("whether it helped is not known yet".to_owned()),
        }
        parts.join("; ")
    }
}

fn an_hour(slope: Slope) -> String {
    let bytes = slope.bytes_per_second * 3600.0;
    let sign = if bytes < 0.0 { "-" } else { "" };
    format!("{sign}{}/h", Bytes::from_f64(bytes.abs()))
}

/// A restart whose effect is being watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectWatch {
    /// The audit record it belongs to, to be written again when more is known.
    pub record: AuditRecord,
    /// The process.
    pub key: ProcessKey,
    /// The new life.
    pub life: Life,
    /// When the old one was replaced.
    pub since: Steady,
    /// What pm2 said then of when its start was asked for.
    #[serde(default)]
    pub created_at: Option<i64>,
    /// Whether the request was about memory, so that a useless restart speaks against the next.
    pub counts: bool,
    /// What is known.
    pub effect: Effect,
}

/// What a look at the process changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth writing down.
    None,
    /// A figure.
    Figure,
    /// It is now known whether it helped.
    Judged(bool),
    /// Nothing more will be learned; with the judgement if it fell only now.
    Ended(Option<bool>),
}

impl EffectWatch {
    /// Looks at the process; `None` when it has left the list.
    pub fn observe(&mut self, process: Option<&ProcessObservation>, settings: &BreakerSettings, now: Steady) -> Change {
        let elapsed = now.since(self.since);
        // Between two lives nothing shows yet who ended the first.
        let between = process.is_some_and(|process| process.life.is_none() && process.status != Status::Errored);
        if between && elapsed < settings.settle.0 {
            return Change::None;
        }
        let Some(process) = process.filter(|process| process.life == Some(self.life)) else {
            self.effect.time_bought.get_or_insert(elapsed);
            let long_enough = elapsed >= settings.minimum_time_bought.0;
            return Change::Ended(long_enough.then(|| self.judge(true)).flatten());
        };
        let (Some(before), Some(held)) = (self.effect.before, process.held) else { return Change::None };
        if let Some(verdict) = process.verdict.as_ref().filter(|verdict| verdict.state != LeakState::Learning) {
            self.effect.slope_after = verdict.slope.or(self.effect.slope_after);
        }
        if elapsed < settings.settle.0 {
            return Change::None;
        }
        if self.effect.after.is_none() {
            self.effect.after = Some(held);
            self.effect.freed = Some(difference(before, held));
            if held.as_f64() > before.as_f64() * (1.0 - settings.minimum_freed_ratio) {
                self.effect.time_bought = Some(Duration::ZERO);
                self.effect.came_back = true;
                return Change::Ended(self.judge(false));
            }
            return Change::Figure;
        }
        if held.as_f64() >= before.as_f64() * BACK || elapsed >= LONGEST_WATCH {
            self.effect.time_bought = Some(elapsed);
            self.effect.came_back = elapsed < LONGEST_WATCH;
            return Change::Ended(self.judge(elapsed >= settings.minimum_time_bought.0));
        }
        if elapsed >= settings.minimum_time_bought.0 && self.effect.helped.is_none() {
            return self.judge(true).map_or(Change::None, Change::Judged);
        }
        Change::None
    }

    /// How long after the replacement the new instance, which had been good, ended by itself; none where it still runs,
    /// somebody asked for its end, or it came so late that the replacement has nothing to do with it.
    pub(super) fn ended_by_itself(
        &self,
        process: Option<&ProcessObservation>,
        settings: &BreakerSettings,
        now: Steady,
    ) -> Option<Duration> {
        let process = process.filter(|process| process.life != Some(self.life))?;
        let by_itself = match process.status {
            // pm2 forgets when it was asked for once it gives up.
            Status::Errored => true,
            Status::Stopped | Status::Stopping | Status::Unknown => false,
            Status::Online | Status::Launching | Status::WaitingRestart | Status::OneLaunch | Status::NoProcess => {
                self.created_at.is_some() && process.created_at == self.created_at
            }
        };
        let after = now.since(self.since);
        (by_itself && after < settings.settle.0).then_some(after)
    }

    /// Settles whether it helped, unless that is settled already.
    fn judge(&mut self, helped: bool) -> Option<bool> {
        if self.effect.helped.is_some() || self.effect.before.is_none() {
            return None;
        }
        self.effect.helped = Some(helped);
        Some(helped)
    }
}

fn difference(before: Bytes, after: Bytes) -> i64 {
    i64::try_from(before.0).unwrap_or(i64::MAX).saturating_sub(i64::try_from(after.0).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::RecordKind;
    use crate::observation::Now;
    use model::{Status, WallTime};

    const LIFE: Life = Life { pid: 7, started: 1 };

    fn watch() -> EffectWatch {
        let now = Now { steady: Steady(0), wall: WallTime(0) };
        EffectWatch {
            record: AuditRecord::new(1, RecordKind::Restart, &"default".into(), &"shop".into(), String::new(), now),
            key: ProcessKey { daemon: "default".into(), pm_id: 0 },
            life: LIFE,
            since: Steady(0),
            created_at: Some(1),
            counts: true,
            effect: Effect { before: Some(Bytes(1000 << 20)), ..Effect::default() },
        }
    }

    fn process(life: Life, mebibytes: u64) -> ProcessObservation {
        ProcessObservation {
            module: false,
            key: ProcessKey { daemon: "default".into(), pm_id: 0 },
            app: "shop".into(),
            status: Status::Online,
            life: Some(life),
            cluster: true,
            restarts: None,
            unstable_restarts: None,
            held: Some(Bytes(mebibytes << 20)),
            heap_used: None,
            frozen: false,
            min_uptime: Duration::ZERO,
            listen_timeout: Duration::ZERO,
            kill_timeout: Duration::ZERO,
            wait_ready: false,
            autorestart: true,
            created_at: Some(1),
            verdict: None,
        }
    }

    fn look(watch: &mut EffectWatch, minutes: i64, mebibytes: u64) -> Change {
        let settings = BreakerSettings::default();
        watch.observe(Some(&process(LIFE, mebibytes)), &settings, Steady(minutes * 60_000))
    }

    #[test]
    fn a_restart_that_frees_memory_for_an_hour_helps() {
        let mut watch = watch();
        assert_eq!(look(&mut watch, 5, 100), Change::None);
        assert_eq!(look(&mut watch, 10, 200), Change::Figure);
        assert_eq!(watch.effect.freed, Some(800 << 20));
        assert_eq!(look(&mut watch, 59, 500), Change::None);
        assert_eq!(look(&mut watch, 60, 500), Change::Judged(true));
        assert_eq!(look(&mut watch, 600, 960), Change::Ended(None));
        assert_eq!(watch.effect.time_bought, Some(Duration::from_hours(10)));
        let text = "memory went from 1000 MiB to 200 MiB; it was back after 10 h; the restart helped";
        assert_eq!(watch.effect.sentence(), text);
    }

    #[test]
    fn a_restart_that_frees_nothing_or_whose_memory_is_soon_back_does_not_help() {
        let mut nothing = watch();
        assert_eq!(look(&mut nothing, 10, 990), Change::Ended(Some(false)));
        let mut back = watch();
        look(&mut back, 10, 300);
        assert_eq!(look(&mut back, 40, 955), Change::Ended(Some(false)));
        assert_eq!(back.effect.time_bought, Some(Duration::from_mins(40)));
    }

    #[test]
    fn only_what_ends_early_and_by_itself_has_failed() {
        let settings = BreakerSettings::default();
        let new = process(Life { pid: 8, started: 2 }, 100);
        let with = |status, created_at| ProcessObservation { status, created_at, ..new.clone() };
        let gave_up = ProcessObservation { life: None, ..with(Status::Errored, None) };
        for (seen, minutes, expected) in [
            (Some(new.clone()), 1, true),
            (Some(with(Status::WaitingRestart, Some(1))), 1, true),
            (Some(gave_up), 1, true),
            (Some(new.clone()), 11, false),
            (Some(with(Status::Online, Some(2))), 1, false),
            (Some(with(Status::Stopped, Some(1))), 1, false),
            (Some(process(LIFE, 100)), 1, false),
            (None, 1, false),
        ] {
            let ended = watch().ended_by_itself(seen.as_ref(), &settings, Steady(minutes * 60_000));
            assert_eq!(ended.is_some(), expected, "{seen:?} after {minutes} minutes");
        }
    }

    #[test]
    fn a_life_that_ends_early_speaks_neither_for_nor_against() {
        let mut early = watch();
        let other = process(Life { pid: 8, started: 2 }, 100);
        let settings = BreakerSettings::default();
        assert_eq!(early.observe(Some(&other), &settings, Steady(60_000)), Change::Ended(None));
        let mut late = watch();
        assert_eq!(late.observe(None, &settings, Steady(2 * 3_600_000)), Change::Ended(Some(true)));
    }
}
