//! The policy over random histories: what must never happen, whatever happens.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::policy_support::{Code, Pm2, World, app, daemon, settings};
use model::{Bytes, LeakState, ProcessKey, Status, Steady, WallTime};
use proptest::prelude::*;
use restart_policy::{
    AlertCall, BeforeExhaustion, Event, LockAnswer, Mode, PersonCall, RecordKind, Target, TargetState, Trigger, Wish,
};

const PROCESSES: u32 = 5;

/// Histories a property is tried on; more for a long search, by proptest's own variable.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(64)
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Happening {
    Pass { seconds: u32, step: u32 },
    Leak { pm_id: u32, slope: u8, hours_left: u8 },
    Recovers { pm_id: u32 },
    Memory { pm_id: u32, mebibytes: u16 },
    Person { pm_id: Option<u32>, now: bool, all: bool, hard: bool },
    Alert { id: u8, starts_at: u8, resolved: bool, pm_id: Option<u32> },
    RestartedByOthers { pm_id: u32 },
    Removed { pm_id: u32 },
    Added { pm_id: u32 },
    Status { pm_id: u32, status: Status },
    Daemon { up: bool },
    Pm2(Pm2),
    Code(Code),
    Store { works: bool },
    ReloadLock,
    HostMemory { mebibytes: u16 },
    Promql(Result<Vec<bool>, String>),
    FleetLock(LockAnswer),
    Kill { after: usize },
    ResetBreaker,
    WallClock { minutes: i32 },
    Settle,
}

fn happening() -> impl Strategy<Value = Happening> {
    let pm_id = 0..PROCESSES;
    let some_process = proptest::option::of(0..PROCESSES);
    prop_oneof![
        12 => (1_u32..20_000, 1_u32..1800).prop_map(|(seconds, step)| Happening::Pass { seconds, step }),
        6 => Just(Happening::Settle),
        10 => (pm_id.clone(), 1_u8..50, 1_u8..60).prop_map(|(pm_id, slope, hours_left)| Happening::Leak { pm_id, slope, hours_left }),
        2 => pm_id.clone().prop_map(|pm_id| Happening::Recovers { pm_id }),
        3 => (pm_id.clone(), 50_u16..800).prop_map(|(pm_id, mebibytes)| Happening::Memory { pm_id, mebibytes }),
        4 => (some_process.clone(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(pm_id, now, all, hard)| Happening::Person { pm_id, now, all, hard }),
        5 => (0_u8..4, 0_u8..4, any::<bool>(), some_process)
            .prop_map(|(id, starts_at, resolved, pm_id)| Happening::Alert { id, starts_at, resolved, pm_id }),
        3 => pm_id.clone().prop_map(|pm_id| Happening::RestartedByOthers { pm_id }),
        1 => pm_id.clone().prop_map(|pm_id| Happening::Removed { pm_id }),
        1 => pm_id.clone().prop_map(|pm_id| Happening::Added { pm_id }),
        2 => (pm_id, proptest::sample::select(vec![Status::Online, Status::Stopped, Status::Errored, Status::Launching, Status::WaitingRestart]))
            .prop_map(|(pm_id, status)| Happening::Status { pm_id, status }),
        3 => any::<bool>().prop_map(|up| Happening::Daemon { up }),
        4 => proptest::sample::select(vec![Pm2::Obeys, Pm2::Obeys, Pm2::Refuses, Pm2::Unreachable, Pm2::DoesAndIsSilent, Pm2::Hangs])
            .prop_map(Happening::Pm2),
        2 => proptest::sample::select(vec![Code::Good, Code::Good, Code::Good, Code::ThrowsAtBoot, Code::NeverOnline, Code::NoHeap])
            .prop_map(Happening::Code),
        2 => any::<bool>().prop_map(|works| Happening::Store { works }),
        2 => Just(Happening::ReloadLock),
        1 => (0_u16..9000).prop_map(|mebibytes| Happening::HostMemory { mebibytes }),
        2 => proptest::sample::select(vec![Ok(vec![true]), Ok(vec![true]), Ok(vec![false]), Err("down".to_owned())]).prop_map(Happening::Promql),
        2 => proptest::sample::select(vec![LockAnswer::Granted, LockAnswer::Granted, LockAnswer::Denied("held".to_owned()), LockAnswer::Failed("down".to_owned())])
            .prop_map(Happening::FleetLock),
        5 => (0_usize..12).prop_map(|after| Happening::Kill { after }),
        2 => Just(Happening::ResetBreaker),
        1 => (-90_i32..90).prop_map(|minutes| Happening::WallClock { minutes }),
    ]
}

fn policies() -> impl Strategy<Value = String> {
    (
        proptest::sample::select(vec![
            Mode::Off,
            Mode::DryRun,
            Mode::Enforce,
            Mode::Enforce,
            Mode::Enforce,
            Mode::Enforce,
        ]),
        proptest::sample::select(vec![
            "",
            "windows = [{ start = '02:00', length = '3h', time_zone = 'Europe/Berlin' }]",
            "windows = [{ days = ['mon', 'wed'], start = '22:00', length = '8h' }]",
        ]),
        proptest::sample::select(vec!["wait", "allow"]),
        proptest::sample::select(vec!["0s", "20m"]),
        proptest::sample::select(vec!["10m", "1h", "5h"]),
        (1_u32..6, 3_u32..8),
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(mode, windows, before, uptime, cooldown, (budget, host_budget), (promql, lock, hook, cron, evidence))| {
                let head = format!(
                    "mode = '{}'\nbudget_per_host = {host_budget}\n[prometheus]\nurl = 'http://127.0.0.1:9090'\n{}",
                    match mode {
                        Mode::Off => "off",
                        Mode::DryRun => "dry-run",
                        Mode::Enforce => "enforce",
                    },
                    if lock { "[fleet_lock]\nurl = 'http://127.0.0.1:3333'\nid = 'host-1'\n" } else { "" },
                );
                format!(
                    "{}{head}[[policy]]\napps = ['shop']\ntake_last_instance = true\nmax_unavailable = 2\n{windows}\n\
                 before_exhaustion = '{before}'\nminimum_uptime = '{uptime}'\ncooldown = '{cooldown}'\n\
                 budget_per_day = {budget}\nmemory = {{ resident_above = '500MiB', for = '10m' }}\n{}\n{}\n{}\n\
                 breaker = {{ open_for = '6h' }}\n",
                    if evidence { crate::policy_support::EVIDENCE } else { "" },
                    if promql { "promql = ['up']" } else { "" },
                    if hook { "hook = { command = ['drain'] }" } else { "" },
                    if cron { "schedule = [{ cron = '0 */3 * * *' }]" } else { "" },
                )
            },
        )
}

fn happens(world: &mut World, happening: &Happening) {
    match happening {
        Happening::Pass { seconds, step } => {
            let step = (*step).max(seconds / 60);
            world.pass(Duration::from_secs(u64::from(*seconds)), Duration::from_secs(u64::from(step)));
        }
        Happening::Settle => {
            for _ in 0..30 {
                world.pass(Duration::from_secs(1), Duration::from_secs(1));
            }
        }
        Happening::Leak { pm_id, slope, hours_left } => {
            if world.processes.contains_key(pm_id) {
                let hour = Duration::from_hours(1);
                world.verdict(*pm_id, LeakState::Leaking, hour, f64::from(*slope), Some(u64::from(*hours_left)));
            }
        }
        Happening::Recovers { pm_id } => {
            if world.processes.contains_key(pm_id) {
                world.verdict(*pm_id, LeakState::Stable, Duration::from_hours(2), 0.0, None);
            }
        }
        Happening::Memory { pm_id, mebibytes } => {
            if let Some(process) = world.processes.get_mut(pm_id) {
                process.observation.held = Some(Bytes(u64::from(*mebibytes) << 20));
            }
        }
        Happening::Person { pm_id, now, all, hard } => {
            let call = PersonCall {
                daemon: None,
                app: app("shop"),
                pm_id: *pm_id,
                all: *all,
                now: *now,
                hard: *hard,
                who: String::new(),
                why: String::new(),
            };
            let _ = world.policy.ask(&call, world.now);
        }
        Happening::Alert { id, starts_at, resolved, pm_id } => {
            world.policy.handle(Event::Alerts(vec![alert(*id, *starts_at, *resolved, *pm_id)]), world.now);
        }
        Happening::RestartedByOthers { pm_id } => world.restart(*pm_id),
        Happening::Removed { pm_id } => {
            world.processes.remove(pm_id);
        }
        Happening::Added { pm_id } => {
            if !world.processes.contains_key(pm_id) {
                world.add(*pm_id, "shop", pm_id % 2 == 0);
            }
        }
        Happening::Status { pm_id, status } => {
            if let Some(process) = world.processes.get_mut(pm_id)
                && process.observation.life.is_some()
            {
                process.observation.status = *status;
                if !status.has_live_pid() {
                    process.observation.life = None;
                }
            }
        }
        Happening::Daemon { up } => world.up = *up,
        Happening::Pm2(pm2) => world.pm2 = *pm2,
        Happening::Code(code) => world.code = *code,
        Happening::Store { works } => world.store_works = *works,
        Happening::ReloadLock => world.reload_lock = Some(world.now.wall),
        Happening::HostMemory { mebibytes } => world.host.memory_available = Bytes(u64::from(*mebibytes) << 20),
        Happening::Promql(answer) => world.promql.clone_from(answer),
        Happening::FleetLock(answer) => world.lock_answer = answer.clone(),
        Happening::Kill { after } => world.killed_after = Some(*after),
        Happening::ResetBreaker => {
            let _ = world.policy.reset_breaker(None, &app("shop"), "ada", world.now);
        }
        Happening::WallClock { minutes } => world.now.wall = WallTime(world.now.wall.0 + i64::from(*minutes) * 60_000),
    }
    world.look();
}

fn alert(id: u8, starts_at: u8, resolved: bool, pm_id: Option<u32>) -> AlertCall {
    AlertCall {
        id: format!("alert-{id}"),
        name: "Leak".to_owned(),
        // Each begins on a day of its own, the first after the processes have started.
        starts_at: 1_741_608_000_000 + i64::from(starts_at) * 86_400_000,
        resolved,
        daemon: daemon(),
        app: app("shop"),
        // A label belongs to the alert's identity.
        pm_id: pm_id.filter(|_| id == 0).map(|_| 1),
        wish: if id == 3 { Wish::Hard } else { Wish::Gentle },
    }
}

/// Checks every order that was given against the rules, with a clock of its own.
fn check_orders(world: &World) {
    let policy = &world.settings.policy[0];
    if world.settings.mode != Mode::Enforce {
        assert!(world.orders.is_empty(), "acted in {:?}", world.settings.mode);
    }
    let mut last: BTreeMap<&ProcessKey, Steady> = BTreeMap::new();
    let mut counted: Vec<Steady> = Vec::new();
    for (now, order) in &world.orders {
        let record = world
            .records
            .values()
            .filter(|record| {
                record.life_before == Some(order.life) && record.kind == RecordKind::Restart && record.at <= now.steady
            })
            .max_by_key(|record| record.id)
            .unwrap_or_else(|| panic!("no record of {order:?}"));
        let request = record.request.expect("an order serves a request");
        let by_person_now = record.trigger == Some(Trigger::Person)
            && record.gates.iter().any(|gate| gate.sentence.contains("a person asked not to wait for a window"));
        let early = policy.before_exhaustion == BeforeExhaustion::Allow
            && record.gates.iter().any(|gate| gate.sentence.starts_with("it goes early"));
        let in_window =
            policy.windows.is_empty() || policy.windows.iter().any(|window| window.open_at(now.timestamp()).is_some());
        assert!(in_window || by_person_now || early, "request {request} acted outside of every window: {record:?}");
        // What was certainly not done does not count.
        let done = !world.undone.contains(&order.step);
        if let Some(last) = last.get(&order.key) {
            let ago = now.steady.since(*last);
            assert!(ago >= policy.cooldown.0, "{} again after {ago:?}", order.key);
        }
        let within_a_day = counted.iter().filter(|at| now.steady.since(**at) < Duration::from_hours(24)).count();
        assert!(within_a_day < usize::try_from(policy.budget_per_day).unwrap(), "past the app's budget");
        assert!(within_a_day < usize::try_from(world.settings.budget_per_host).unwrap(), "past the host's budget");
        if done {
            last.insert(&order.key, now.steady);
            counted.push(now.steady);
        }
    }
    let mut lives = BTreeSet::new();
    for (key, life) in &world.ended_by_us {
        assert!(lives.insert((key, life)), "{key} {life} was ended twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_a_rule(text in policies(), history in proptest::collection::vec(happening(), 1..60)) {
        let mut world = World::new(settings(&text));
        for pm_id in 0..PROCESSES {
            world.add(pm_id, "shop", pm_id % 2 == 0);
        }
        world.look();
        for happening in &history {
            happens(&mut world, happening);
            let plan = world.policy.plan(world.now);
            for entry in &plan.entries {
                prop_assert!(!entry.sentence.is_empty() && entry.gates.len() == 18);
            }
            prop_assert!(world.state().steps.len() <= 1);
        }
        check_orders(&world);
    }

    #[test]
    fn a_held_request_goes_as_soon_as_nothing_holds_it(history in proptest::collection::vec(happening(), 1..40)) {
        let mut world = World::new(settings(
            "mode = 'enforce'\nbudget_per_host = 100000\n[[policy]]\napps = ['shop']\nminimum_uptime = '0s'\ncooldown = '10m'\n\
             budget_per_day = 10000\nmax_unavailable = 100\ntake_last_instance = true\nbreaker = { open_for = '1h' }\n\
             leak = { enabled = false }\n",
        ));
        for pm_id in 0..PROCESSES {
            world.add(pm_id, "shop", pm_id % 2 == 0);
        }
        world.look();
        for happening in &history {
            happens(&mut world, happening);
        }
        world.up = true;
        world.pm2 = Pm2::Obeys;
        world.code = Code::Good;
        world.store_works = true;
        world.killed_after = None;
        world.host.memory_available = Bytes(8 << 30);
        world.pass(Duration::from_hours(12), Duration::from_secs(10));
        prop_assert!(world.state().requests.is_empty(), "{:?}\n{:?}", world.state().requests, world.policy.plan(world.now).entries.iter().map(|e| &e.sentence).collect::<Vec<_>>());
        prop_assert!(world.state().steps.is_empty());
    }

    #[test]
    fn any_order_of_webhook_deliveries_gives_the_same_end(
        deliveries in proptest::collection::vec((0_u8..4, 0_u8..4, any::<bool>()), 1..20),
        seed in any::<u64>(),
        kill in any::<bool>(),
    ) {
        let end = |deliveries: &[(u8, u8, bool)], kill: bool| {
            let mut world = World::new(settings(
                "mode = 'enforce'\n[[policy]]\napps = ['shop']\nwindows = [{ start = '02:00', length = '1h' }]\n",
            ));
            for pm_id in 0..PROCESSES {
                world.add(pm_id, "shop", true);
            }
            world.look();
            for (id, starts_at, resolved) in deliveries {
                world.policy.handle(Event::Alerts(vec![alert(*id, *starts_at, *resolved, Some(1))]), world.now);
                world.carry_out();
                if kill {
                    world.kill();
                    world.look();
                }
            }
            let requests: Vec<(BTreeMap<u32, Target>, Wish, String)> = world
                .state()
                .requests
                .values()
                .map(|request| (request.targets.clone(), request.wish, request.reason.clone()))
                .collect();
            let alerts: Vec<(String, i64, bool)> = world
                .state()
                .alerts
                .values()
                .map(|memory| (memory.call.id.clone(), memory.call.starts_at, memory.call.resolved))
                .collect();
            (requests, alerts)
        };
        let mut shuffled = deliveries.clone();
        let mut state = seed;
        for index in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(index, usize::try_from(state >> 33).unwrap() % (index + 1));
        }
        shuffled.extend(deliveries.iter().take(3).copied());
        let (requests, alerts) = end(&deliveries, false);
        prop_assert!(requests.iter().all(|(targets, _, _)| targets.values().all(|it| it.state == TargetState::Waiting)));
        prop_assert_eq!((requests, alerts), end(&shuffled, kill));
    }
}
