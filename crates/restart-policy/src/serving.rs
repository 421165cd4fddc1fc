//! Whether an instance serves: what its sockets show and what a probe says, before and after its replacement.
//!
//! pm2 says ok to a worker that never listened, and its log may lie elsewhere. So the world is asked. A process of its own
//! must listen where the old one listened. A cluster worker has no listening socket (pm2's daemon holds it and hands
//! connections out), so one must reach it by each port by which one reached the old worker. A probe asks what users would
//! ask. This room refuses to ask by itself: it says what to ask and what an answer means.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::gates::Evaluation;
use super::machine::Policy;
use super::observation::{Now, ProcessObservation};
use super::reason::{Gate, Reason};
use super::state::Phase;
use super::values::ProbeAddress;
use model::{AppName, Life, ProcessKey};

/// The time between two questions while a replacement is watched.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What the shell may take on top of a probe's own time-out.
const ASKING_GRACE: Duration = Duration::from_secs(10);
/// Connections that one question makes at the most.
const MOST_ATTEMPTS: usize = 8;
/// Ports from here on may have been given out by the system: the next instance may be given another one.
const FIRST_GIVEN: u16 = 32_768;
/// Where Node's inspector listens. It was opened in the old instance and need not be in the new one.
const INSPECTOR: u16 = 9229;

/// A question about one process.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOrder {
    /// The replacement that is being watched; none before one begins.
    pub step: Option<u64>,
    /// The process.
    pub key: ProcessKey,
    /// The app.
    pub app: AppName,
    /// The life that is asked about; none while there is none.
    pub life: Option<Life>,
    /// What is asked of its sockets.
    pub sockets: Option<SocketQuestion>,
    /// The probe, where one is set.
    pub probe: Option<Probe>,
    /// The port that was found before, for an address that leaves it open.
    pub port: Option<u16>,
    /// The ports by which a connection is to reach it; any where there are none.
    pub ports: BTreeSet<u16>,
    /// How often to connect, so that each of the app's workers has its turn.
    pub attempts: usize,
}

/// What is asked of the sockets of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketQuestion {
    /// Where it and its children listen.
    Ports,
    /// By which ports of pm2's daemon a connection reaches it.
    Connection,
}

/// How to ask as a user would. All that is set must succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// An address that must answer with a status of the 2xx family.
    pub http: Option<ProbeAddress>,
    /// A program and its arguments, which must end with 0.
    pub command: Option<Vec<String>>,
    /// How long each may take.
    pub timeout: Duration,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// What the sockets show, where that was asked.
    pub sockets: Option<Sockets>,
    /// What the probe said, where one is set.
    pub probe: Option<Result<(), String>>,
    /// The port that the probe asked, where its address leaves it open.
    pub port: Option<u16>,
}

/// What the sockets of a process show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sockets {
    /// It listens here.
    Listens(Listening),
    /// The ports by which a connection has reached it.
    Reached(BTreeSet<u16>),
    /// They cannot be seen.
    Unseen(String),
}

/// Where a process listens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listening {
    /// TCP ports.
    pub ports: BTreeSet<u16>,
    /// Whatever else has a name that stays, as a sentence names it: "UDP port 53", "the socket /run/app.sock".
    #[serde(default)]
    pub others: BTreeSet<String>,
}

impl Listening {
    /// Whether it listens nowhere.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.others.is_empty()
    }

    /// What the old instance listened on and the new one does not.
    pub(super) fn missing(&self, after: &Self) -> Self {
        let ports = missing(&self.ports, &after.ports).into_iter().collect();
        Self { ports, others: self.others.difference(&after.others).cloned().collect() }
    }
}

impl From<BTreeSet<u16>> for Listening {
    fn from(ports: BTreeSet<u16>) -> Self {
        Self { ports, others: BTreeSet::new() }
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let tcp = format!("{} {}", if ports.len() == 1 { "port" } else { "ports" }, ports.join(", "));
        let all: Vec<&str> = Some(tcp.as_str())
            .filter(|_| !ports.is_empty())
            .into_iter()
            .chain(self.others.iter().map(String::as_str))
            .collect();
        out.write_str(&all.join(" and "))
    }
}

/// How often a probe was asked during a replacement: did anyone notice?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProbeCount {
    /// How often it was asked.
    pub asked: u32,
    /// How often it failed.
    pub failed: u32,
}

/// The ports of the old instance that the new one does not listen on.
fn missing(before: &BTreeSet<u16>, after: &BTreeSet<u16>) -> Vec<u16> {
    let mut stand_ins = after.difference(before).filter(|port| **port >= FIRST_GIVEN).count();
    let mut missing = Vec::new();
    for port in before.difference(after).filter(|port| **port != INSPECTOR) {
        if *port >= FIRST_GIVEN && stand_ins > 0 {
            stand_ins -= 1;
        } else {
            missing.push(*port);
        }
    }
    missing
}

impl Policy {
    /// Asks whether a target serves, where that is all that is missing.
    pub(super) fn ask_before(&mut self, key: &ProcessKey, app: &AppName, evaluation: &Evaluation, now: Now) {
        if evaluation.hold(Gate::Readiness) != Some(&Reason::Asking(Gate::Readiness)) {
            return;
        }
        let verify = &self.policy_settings(&key.daemon, app).verify;
        let patience = verify.probe_timeout.0 * 2 + ASKING_GRACE;
        if self.asking.probes.get(key).is_some_and(|at| now.steady.since(*at) <= patience) {
            return;
        }
        let Some(process) = self.world.process(key) else { return };
        let order = ProbeOrder {
            step: None,
            key: key.clone(),
            app: app.clone(),
            life: process.life,
            sockets: verify.ready.then_some(if process.cluster {
                SocketQuestion::Connection
            } else {
                SocketQuestion::Ports
            }),
            probe: verify.probe(),
            port: None,
            ports: BTreeSet::new(),
            attempts: self.attempts(process),
        };
        self.asking.probes.insert(key.clone(), now.steady);
        self.order(Command::Probe(order));
        self.wake_by(now.steady + patience);
    }

    /// Asks again about a replacement that is being watched.
    pub(super) fn ask_meanwhile(&mut self, step: u64, now: Now) {
        let Some(current) = self.state.steps.values().find(|it| it.id == step) else { return };
        let Phase::Ordered { verification, .. } = &current.phase else { return };
        let (key, app) = (current.key.clone(), current.record.app.clone());
        let process = self.world.process(&key);
        let life = process.and_then(|process| process.life).filter(|life| *life != current.life);
        let verify = &self.policy_settings(&key.daemon, &app).verify;
        let sockets = verification.socket_question().filter(|_| life.is_some());
        let ports = verification.ports_to_reach();
        let probe = verify.probe();
        if sockets.is_none() && probe.is_none() {
            return;
        }
        let patience = verify.probe_timeout.0 * 2 + ASKING_GRACE;
        let asked = self.asking.steps.get(&step).copied();
        if let Some((at, answered)) = asked
            && now.steady.since(at) < if answered { ASK_EVERY } else { patience }
        {
            self.wake_by(at + if answered { ASK_EVERY } else { patience });
            return;
        }
        let attempts = process.map_or(1, |process| self.attempts(process));
        let port = self.answers.probes.get(&key).and_then(|(_, _, answer)| answer.port);
        self.asking.steps.insert(step, (now.steady, false));
        self.order(Command::Probe(ProbeOrder {
            step: Some(step),
            key,
            app,
            life,
            sockets,
            probe,
            port,
            ports,
            attempts,
        }));
        self.wake_by(now.steady + patience);
    }

    /// Connections to make so that each worker of a cluster has its turn.
    fn attempts(&self, process: &ProcessObservation) -> usize {
        let workers = self.world.processes_of(&process.key.daemon, &process.app).count();
        if process.cluster { workers.clamp(1, MOST_ATTEMPTS) } else { 1 }
    }

    /// Takes in what was found out about a process.
    pub(super) fn probed(
        &mut self,
        step: Option<u64>,
        key: &ProcessKey,
        life: Option<Life>,
        answer: ProbeAnswer,
        now: Now,
    ) {
        let Some(step) = step else {
            self.asking.probes.remove(key);
            if let Some(life) = life {
                self.answers.probes.insert(key.clone(), (now.steady, life, answer));
            }
            return;
        };
        let Some(current) = self.state.steps.values_mut().find(|it| it.id == step) else { return };
        let asked_at = self.asking.steps.get(&step).map_or(now.steady, |(at, _)| *at);
        self.asking.steps.insert(step, (asked_at, true));
        let Phase::Ordered { verification, .. } = &mut current.phase else { return };
        if let Some(said) = &answer.probe {
            let count = current.record.probes.get_or_insert_default();
            count.asked += 1;
            count.failed += u32::from(said.is_err());
        }
        verification.probed(life, &answer, asked_at);
        self.touch();
    }

    /// Forgets what was found out before a replacement: before the next one it is asked anew.
    pub(super) fn forget_probes(&mut self, step: u64, key: &ProcessKey) {
        self.asking.steps.remove(&step);
        self.answers.probes.retain(|known, _| known.daemon != key.daemon);
    }

    /// What the sockets of the process showed when it was last asked.
    pub(super) fn sockets_before(&self, key: &ProcessKey, life: Life) -> Option<&Sockets> {
        let (_, known, answer) = self.answers.probes.get(key)?;
        answer.sockets.as_ref().filter(|_| *known == life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_system_gave_may_be_another_and_the_inspector_need_not_be_there() {
        for (before, after, expected) in [
            (vec![3000], vec![3000], vec![]),
            (vec![3000, 9229], vec![3000], vec![]),
            (vec![3000], vec![], vec![3000]),
            (vec![3000], vec![40_000], vec![3000]),
            (vec![3000, 40_000], vec![3000, 50_000], vec![]),
            (vec![40_000, 41_000], vec![50_000], vec![41_000]),
            (vec![], vec![80], vec![]),
        ] {
            let set = |ports: &Vec<u16>| ports.iter().copied().collect::<BTreeSet<u16>>();
            assert_eq!(missing(&set(&before), &set(&after)), expected, "{before:?} {after:?}");
        }
    }
}
