//! The policy in situations that matter, one by one: what is ordered, what is held and with which reason, what is kept.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::policy_support::{Code, EVIDENCE, HOUR, MINUTE, OWN_PIDS, Pm2, World, app, daemon, key, settings};
use model::{Bytes, LeakState, Status, WallTime};
use restart_policy::{
    Action, AlertCall, Command, Decision, Event, EvidenceTaken, FleetLock, LockAnswer, Matcher, NoticeKind, Outcome,
    PersonCall, Phase, Policy, RecordKind, RefusalKind, Silence, Sockets, State, Trigger, Wish,
};

const ENFORCE: &str = "mode = 'enforce'\n[[policy]]\napps = ['shop']\n";

fn enforce(more: &str) -> World {
    let mut world = World::new(settings(&format!("{ENFORCE}{more}")));
    world.cluster("shop", 0..3);
    world
}

fn person(now: bool) -> PersonCall {
    PersonCall {
        daemon: None,
        app: app("shop"),
        pm_id: None,
        all: false,
        now,
        hard: false,
        who: "ada".to_owned(),
        why: String::new(),
    }
}

fn alert(id: &str, starts_at: i64, resolved: bool, pm_id: Option<u32>) -> AlertCall {
    AlertCall {
        id: id.to_owned(),
        name: "Leak".to_owned(),
        // Each begins on a day of its own, after the processes have started.
        starts_at: 1_741_608_000_000 + starts_at * 86_400_000,
        resolved,
        daemon: daemon(),
        app: app("shop"),
        pm_id,
        wish: Wish::Gentle,
    }
}

fn ordered(world: &World) -> Vec<u32> {
    world.orders.iter().map(|(_, order)| order.key.pm_id).collect()
}

fn run(world: &mut World) {
    for _ in 0..10 {
        world.look();
        world.until_quiet();
    }
}

#[test]
fn a_roll_takes_only_the_leaking_workers_one_at_a_time_and_the_worst_first() {
    let mut world = enforce("");
    world.cluster("shop", 3..4);
    world.leak(1, 5.0);
    world.leak(3, 50.0);
    world.leak(0, 20.0);
    world.look();
    assert_eq!(ordered(&world), [3]);
    assert_eq!(world.state().steps.len(), 1);
    world.pass(Duration::from_secs(5), Duration::from_secs(1));
    assert_eq!(ordered(&world), [3], "the next one waits until the first is verified");
    run(&mut world);
    assert_eq!(ordered(&world), [3, 0, 1]);
    assert!(world.state().requests.is_empty());
    let ends = world.ends(RecordKind::Restart);
    assert_eq!(ends, [3, 0, 1].map(|pm_id| (Some(pm_id), "verified".to_owned())));
    assert_eq!(world.ends(RecordKind::RequestEnded), [(None, "done".to_owned())]);
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.action, Some(Action::Reload));
    assert_eq!((record.memory_before, record.memory_after), (Some(Bytes(300 << 20)), Some(Bytes(80 << 20))));
    assert_eq!(record.gates.len(), 18);
    assert!(record.sentence.contains("leaking for 1 h at 50 MiB/h"), "{}", record.sentence);
}

#[test]
fn the_default_is_a_dry_run_that_says_once_what_it_would_do() {
    let mut world = World::new(settings(""));
    world.cluster("shop", 0..2);
    world.leak(0, 5.0);
    world.pass(MINUTE * 30, MINUTE);
    assert!(ordered(&world).is_empty());
    assert_eq!(world.ends(RecordKind::Rehearsal).len(), 1);
    let record = world.records.values().find(|record| record.kind == RecordKind::Rehearsal).unwrap();
    assert!(record.sentence.starts_with("would reload default/0 of shop"), "{}", record.sentence);
    world.pass(HOUR, MINUTE);
    assert_eq!(world.ends(RecordKind::Rehearsal).len(), 2, "after the cooldown it says so again");
}

#[test]
fn an_app_that_no_policy_names_is_only_rehearsed_and_a_mode_of_off_does_nothing() {
    let mut world = enforce("");
    world.cluster("blog", 10..12);
    world.leak(10, 5.0);
    world.look();
    assert!(ordered(&world).is_empty());
    assert_eq!(world.ends(RecordKind::Rehearsal), [(Some(10), String::new())]);

    let mut off = World::new(settings("mode = 'off'\n[[policy]]\napps = ['*']\n"));
    off.cluster("shop", 0..2);
    off.leak(0, 5.0);
    off.look();
    assert!(off.state().requests.is_empty() && off.records.is_empty());
    assert_eq!(off.policy.ask(&person(true), off.now).unwrap_err().kind, RefusalKind::Off);
}

#[test]
fn a_fork_app_is_restarted_and_the_record_says_that_connections_drop() {
    let mut world = World::new(settings(&format!("{ENFORCE}take_last_instance = true")));
    world.add(0, "shop", false);
    world.leak(0, 5.0);
    run(&mut world);
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.action, Some(Action::Restart));
    assert!(record.sentence.contains("drops its connections"), "{}", record.sentence);
}

#[test]
fn code_that_throws_at_boot_stops_the_roll_and_opens_the_breaker_until_it_is_reset() {
    let mut world = enforce("");
    for pm_id in 0..3 {
        world.leak(pm_id, 5.0);
    }
    world.code = Code::ThrowsAtBoot;
    run(&mut world);
    assert_eq!(ordered(&world).len(), 1);
    assert_eq!(world.ends(RecordKind::Restart)[0].1, "failed");
    assert_eq!(world.ends(RecordKind::BreakerOpened), [(None, "errored".to_owned())]);
    assert!(world.notices.iter().any(|notice| notice.kind == NoticeKind::BreakerOpened));
    world.code = Code::Good;
    world.restart(0);
    world.restart(1);
    world.restart(2);
    world.pass(HOUR * 2, MINUTE);
    world.leak(1, 5.0);
    world.look();
    world.kill();
    world.look();
    assert_eq!(world.holds(), BTreeMap::from([(1, "breaker_open")]), "it stays open across a restart of the sidecar");
    world.policy.reset_breaker(None, &app("shop"), "ada", world.now).unwrap();
    world.carry_out();
    run(&mut world);
    assert_eq!(ordered(&world).last(), Some(&1));
    assert_eq!(world.ends(RecordKind::BreakerClosed).len(), 1);
}

#[test]
fn a_breaker_closes_by_itself_when_its_time_is_over() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.code = Code::NeverOnline;
    run(&mut world);
    assert_eq!(world.ends(RecordKind::BreakerOpened).len(), 1);
    world.pass(HOUR * 25, MINUTE * 10);
    assert_eq!(world.ends(RecordKind::BreakerClosed).len(), 1);
}

#[test]
fn a_new_instance_whose_heap_cannot_be_read_fails() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.code = Code::NoHeap;
    run(&mut world);
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.detail.as_deref(), Some("heap_unreadable"));
}

#[test]
fn restarts_that_do_not_help_open_the_breaker() {
    let mut world = enforce("minimum_uptime = '0s'\ncooldown = '1h'");
    for _ in 0..2 {
        world.leak(0, 5.0);
        world.look();
        world.until_quiet();
        world.process(0).held = Some(Bytes(299 << 20));
        world.pass(HOUR + MINUTE, MINUTE);
    }
    assert_eq!(ordered(&world).len(), 2);
    assert_eq!(world.ends(RecordKind::BreakerOpened), [(None, "unhelpful".to_owned())]);
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.effect.as_ref().and_then(|effect| effect.helped), Some(false));
}

#[test]
fn restarts_that_come_too_close_together_open_the_breaker() {
    let mut world = enforce("minimum_uptime = '0s'\ncooldown = '1h'");
    for _ in 0..4 {
        world.leak(0, 5.0);
        world.process(0).held = Some(Bytes(300 << 20));
        world.look();
        world.until_quiet();
        world.pass(HOUR + MINUTE, MINUTE);
    }
    assert_eq!(ordered(&world).len(), 4);
    assert_eq!(world.ends(RecordKind::BreakerOpened), [(None, "too_close".to_owned())]);
}

#[test]
fn a_request_waits_for_its_window_and_goes_when_it_opens() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]");
    world.leak(0, 5.0);
    world.look();
    assert_eq!(world.holds(), BTreeMap::from([(0, "window_closed")]));
    let plan = world.policy.plan(world.now);
    let entry = &plan.entries[0];
    assert_eq!(entry.next_window, Some(WallTime(1_741_658_400_000)));
    assert!(matches!(entry.then, Some(Decision::Reload(_))), "{entry:?}");
    assert!(entry.sentence.contains("when the window opens in 14 h: reloads default/0 of shop"), "{}", entry.sentence);
    world.pass((HOUR * 14).checked_sub(MINUTE).unwrap(), MINUTE);
    assert!(ordered(&world).is_empty());
    world.pass(MINUTE * 2, MINUTE);
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn exhaustion_before_the_window_lets_a_request_go_early_only_where_that_is_allowed() {
    for (setting, hours_left, early) in [("allow", 5, true), ("allow", 30, false), ("wait", 5, false)] {
        let windows = "windows = [{ start = '02:00', length = '1h' }]";
        let mut world = enforce(&format!("before_exhaustion = '{setting}'\n{windows}"));
        world.verdict(0, LeakState::Leaking, HOUR, 5.0, Some(hours_left));
        world.look();
        assert_eq!(!ordered(&world).is_empty(), early, "{setting} {hours_left}");
    }
}

/// pm2#1628: growth that is no leak projects an end too, and leaves no window for it.
#[test]
fn only_a_leak_leaves_its_window_early() {
    for (state, early) in [(LeakState::Leaking, true), (LeakState::Suspect, false), (LeakState::Stable, false)] {
        let windows =
            "windows = [{ start = '02:00', length = '1h' }]\nmemory = { resident_above = '1MiB', for = '0s' }";
        let mut world = enforce(&format!("before_exhaustion = 'allow'\n{windows}"));
        world.verdict(0, state, MINUTE, 5.0, Some(5));
        world.look();
        assert_eq!(!ordered(&world).is_empty(), early, "{state:?}");
    }
}

/// Where it cannot be seen on which ports a process listens, nothing is begun, and the gate says how to make it known.
#[test]
fn what_could_not_be_known_to_serve_is_not_begun() {
    let policy = "minimum_uptime = '0s'\ntake_last_instance = true\n";
    for (verify, label) in [
        ("", Some("readiness_unknown")),
        ("verify = { ready = false }", None),
        ("verify = { command = ['true'] }", None),
    ] {
        let mut world = World::new(settings(&format!("{ENFORCE}{policy}{verify}")));
        world.add(0, "shop", false);
        world.sockets = Some(Sockets::Unseen("permission denied".to_owned()));
        world.look();
        world.policy.ask(&person(true), world.now).unwrap();
        world.carry_out();
        world.look();
        assert_eq!(world.holds().get(&0).copied(), label, "{verify}");
        if label.is_none() {
            world.until_quiet();
            assert_eq!(world.ends(RecordKind::Restart), [(Some(0), "verified".to_owned())], "{verify}");
        } else {
            let plan = world.policy.plan(world.now);
            assert!(plan.entries[0].sentence.contains("set verify.http"), "{}", plan.entries[0].sentence);
        }
    }
}

/// A cluster of which nothing is known is stopped after its first worker, and nobody is told that it was good.
#[test]
fn a_worker_that_is_not_known_to_serve_stops_the_roll() {
    let mut world = enforce("minimum_uptime = '0s'");
    world.sockets = Some(Sockets::Reached([].into()));
    world.look();
    world.policy.ask(&person(true), world.now).unwrap();
    world.carry_out();
    world.until_quiet();
    assert_eq!(world.ends(RecordKind::Restart), [(Some(0), "unverified".to_owned())]);
    assert_eq!(world.ends(RecordKind::BreakerOpened), [(None, "readiness_unknown".to_owned())]);
    assert!(world.notices.iter().all(|notice| !notice.text.contains("was good")));
}

/// A worker that was good and ends by itself minutes later: the roll stops, and the record no longer says that it was good.
#[test]
fn a_worker_that_ends_soon_after_it_was_good_stops_the_roll() {
    let mut world = enforce("minimum_uptime = '0s'");
    world.look();
    world.policy.ask(&person(true), world.now).unwrap();
    world.carry_out();
    while world.ends(RecordKind::Restart) != [(Some(0), "verified".to_owned()), (Some(1), "under_way".to_owned())] {
        world.pass(Duration::from_secs(1), Duration::from_secs(1));
    }
    world.crash(0);
    world.look();
    world.until_quiet();
    let ends = world.ends(RecordKind::Restart);
    assert_eq!(ends, [(Some(0), "failed".to_owned()), (Some(1), "verified".to_owned())]);
    assert_eq!(world.ends(RecordKind::BreakerOpened), [(None, "ended_by_itself".to_owned())]);
    assert_eq!(ordered(&world), [0, 1]);
    assert!(world.policy.state().requests.is_empty());
}

#[test]
fn an_alert_of_an_earlier_life_or_another_apps_process_asks_for_nothing_and_says_so() {
    let mut world = enforce("");
    world.add(7, "blog", false);
    world.look();
    let refused = world.policy.alerts(
        vec![
            AlertCall { starts_at: 1, ..alert("old", 0, false, Some(1)) },
            alert("other", 1, false, Some(7)),
            alert("good", 1, false, Some(1)),
        ],
        world.now,
    );
    let told: Vec<_> = refused.iter().map(|(call, why)| (call.id.as_str(), why.as_str())).collect();
    let other = "no running process of this name is known; process default/7 is of blog";
    let old = "it began to fire before the process started, so it is about an earlier one";
    assert_eq!(told, [("old", old), ("other", other)]);
    assert_eq!(world.policy.state().requests.len(), 1);
}

#[test]
fn each_gate_holds_with_its_own_reason() {
    type Arrange = fn(&mut World);
    let cases: [(&str, &str, Arrange); 11] = [
        ("too_young", "minimum_uptime = '2d'", |_| {}),
        ("app_budget_spent", "budget_per_day = 0", |_| {}),
        ("siblings_away", "", |world| world.process(1).status = Status::Stopping),
        ("last_instance", "max_unavailable = 3", |world| {
            world.process(1).status = Status::Errored;
            world.process(2).status = Status::Errored;
        }),
        ("reload_locked", "", |world| world.reload_lock = Some(world.now.wall)),
        ("host_memory_short", "", |world| world.host.memory_available = Bytes(400 << 20)),
        ("host_memory_unknown", "", |world| world.host.memory_total = Bytes(0)),
        ("not_online", "", |world| world.process(0).status = Status::Stopping),
        ("itself", "", |world| world.process(0).life.as_mut().unwrap().pid = OWN_PIDS[0]),
        ("itself", "", |world| world.process(0).life.as_mut().unwrap().pid = OWN_PIDS[1]),
        ("state_not_kept", "", |world| world.store_works = false),
    ];
    for (label, more, arrange) in cases {
        let mut world = enforce(more);
        if label == "not_online" {
            world.leak(0, 5.0);
            world.reload_lock = Some(world.now.wall);
            world.look();
        }
        arrange(&mut world);
        world.leak(0, 5.0);
        world.look();
        world.now = world.now.later(Duration::from_secs(1));
        world.look();
        assert_eq!(world.holds(), BTreeMap::from([(0, label)]));
        assert!(world.orders.is_empty(), "{label}");
    }
    let mut world = World::new(settings(&format!("budget_per_host = 0\n{ENFORCE}")));
    world.cluster("shop", 0..3);
    world.leak(0, 5.0);
    world.look();
    assert_eq!(world.holds(), BTreeMap::from([(0, "host_budget_spent")]));
}

#[test]
fn a_reload_lock_that_was_left_behind_holds_for_half_a_minute_at_most() {
    let mut world = enforce("");
    world.reload_lock = Some(world.now.wall);
    world.leak(0, 5.0);
    world.pass(Duration::from_secs(29), Duration::from_secs(1));
    assert!(ordered(&world).is_empty());
    world.pass(Duration::from_secs(1), Duration::from_secs(1));
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn memory_must_be_above_the_threshold_without_a_break() {
    let mut world = enforce("leak = { enabled = false }\nmemory = { resident_above = '350MiB', for = '10m' }");
    world.process(0).held = Some(Bytes(400 << 20));
    world.pass(MINUTE * 9, MINUTE);
    world.process(0).held = Some(Bytes(300 << 20));
    world.pass(MINUTE, MINUTE);
    world.process(0).held = Some(Bytes(400 << 20));
    world.pass(MINUTE * 10, MINUTE);
    assert!(ordered(&world).is_empty());
    world.pass(MINUTE, MINUTE);
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn a_leak_asks_only_as_the_policy_says() {
    for (leak, asked) in [
        ("{ for = '2h' }", false),
        ("{ for = '1h' }", true),
        ("{ exhaustion_within = '12h' }", false),
        ("{ exhaustion_within = '50h' }", true),
        ("{ slope_above_per_hour = '6MiB' }", false),
        ("{ slope_above_per_hour = '4MiB' }", true),
        ("{ enabled = false }", false),
    ] {
        let mut world = enforce(&format!("leak = {leak}"));
        world.leak(0, 5.0);
        world.look();
        assert_eq!(!ordered(&world).is_empty(), asked, "{leak}");
    }
}

#[test]
fn a_leak_that_is_over_withdraws_its_request() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]");
    world.leak(0, 5.0);
    world.look();
    world.verdict(0, LeakState::Stable, MINUTE, 0.0, None);
    world.look();
    assert_eq!(world.state().requests.len(), 1, "a verdict that has just changed takes nothing back");
    world.verdict(0, LeakState::Stable, HOUR, 0.0, None);
    world.look();
    assert_eq!(world.ends(RecordKind::RequestEnded), [(None, "withdrawn".to_owned())]);
}

#[test]
fn a_schedule_asks_at_its_time_in_its_zone_and_not_for_what_it_leaves_out() {
    let schedule = "leak = { enabled = false }\nschedule = [{ cron = '30 14 * * *', time_zone = 'Europe/Berlin', memory_above = '250MiB' }]";
    let mut world = enforce(schedule);
    world.process(1).held = Some(Bytes(100 << 20));
    world.look();
    // 14:30 in Berlin is 13:30 UTC, an hour and a half from noon.
    world.pass(MINUTE * 89, MINUTE);
    assert!(world.state().requests.is_empty());
    world.pass(MINUTE, MINUTE);
    run(&mut world);
    assert_eq!(ordered(&world), [0, 2]);
    world.pass(HOUR * 3, MINUTE);
    assert_eq!(ordered(&world), [0, 2]);
}

#[test]
fn a_time_missed_by_less_than_an_hour_is_made_up_and_a_clock_that_goes_back_repeats_nothing() {
    let mut world = enforce("leak = { enabled = false }\nschedule = [{ cron = '0 13 * * *' }]");
    world.look();
    world.pass(HOUR.checked_sub(MINUTE).unwrap(), MINUTE);
    world.now = world.now.later(MINUTE * 30);
    world.kill();
    run(&mut world);
    assert_eq!(ordered(&world).len(), 3);
    world.now.wall = WallTime(world.now.wall.0 - 45 * 60_000);
    world.pass(HOUR, MINUTE);
    assert_eq!(ordered(&world).len(), 3);
}

#[test]
fn a_person_who_asks_for_now_waits_for_no_window_but_for_every_other_gate() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]\nminimum_uptime = '2d'");
    world.look();
    let first = world.policy.ask(&person(false), world.now).unwrap();
    assert_eq!(world.policy.ask(&person(false), world.now).unwrap(), first, "asking twice is asking once");
    world.carry_out();
    assert_eq!(world.holds()[&0], "window_closed");
    world.reload_lock = Some(world.now.wall);
    world.look();
    world.policy.ask(&PersonCall { pm_id: Some(1), ..person(true) }, world.now).unwrap();
    world.carry_out();
    assert!(ordered(&world).is_empty());
    world.reload_lock = None;
    run(&mut world);
    assert_eq!(ordered(&world), [1]);
    let unknown = PersonCall { app: app("nothing"), ..person(true) };
    assert_eq!(
        world.policy.ask(&unknown, world.now).unwrap_err().kind,
        RefusalKind::Unknown { there: "pm2 lists shop".to_owned() }
    );
    world.policy.withdraw(first[0], "ada", world.now).unwrap();
    world.carry_out();
    assert!(world.state().requests.is_empty());
}

#[test]
fn an_alert_asks_once_an_episode_and_its_end_takes_back_what_has_not_begun() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]\nleak = { enabled = false }");
    world.look();
    world.policy.handle(Event::Alerts(vec![alert("a", 1, false, Some(1)), alert("a", 1, false, Some(1))]), world.now);
    world.carry_out();
    assert_eq!(world.holds(), BTreeMap::from([(1, "window_closed")]));
    world.policy.handle(Event::Alerts(vec![alert("a", 1, true, Some(1))]), world.now);
    world.carry_out();
    assert_eq!(world.ends(RecordKind::RequestEnded), [(None, "withdrawn".to_owned())]);
    world.policy.handle(Event::Alerts(vec![alert("a", 1, false, Some(1))]), world.now);
    world.carry_out();
    assert!(world.state().requests.is_empty(), "a late delivery of the beginning asks for nothing");
    world.policy.handle(Event::Alerts(vec![alert("a", 2, false, Some(1))]), world.now);
    world.pass(HOUR * 15, MINUTE);
    assert_eq!(ordered(&world), [1]);
    world.policy.handle(Event::Alerts(vec![alert("a", 2, false, Some(1))]), world.now);
    world.pass(HOUR * 24, MINUTE * 10);
    assert_eq!(ordered(&world), [1], "a repeat of an episode that has been served asks for nothing");
}

#[test]
fn an_alert_for_what_is_not_there_is_refused_once() {
    let mut world = enforce("");
    world.look();
    let unknown = AlertCall { app: app("nothing"), ..alert("x", 1, false, None) };
    let elsewhere = AlertCall { daemon: "blue".into(), ..alert("y", 1, false, None) };
    for _ in 0..3 {
        world.policy.handle(Event::Alerts(vec![unknown.clone(), elsewhere.clone()]), world.now);
        world.carry_out();
    }
    assert_eq!(world.ends(RecordKind::RequestEnded), vec![(None, "refused".to_owned()); 2]);
}

#[test]
fn a_flood_of_alerts_neither_displaces_one_that_was_served_nor_outgrows_what_can_be_saved() {
    let mut world = enforce("leak = { enabled = false }");
    world.look();
    world.policy.handle(Event::Alerts(vec![alert("served", 1, false, Some(1))]), world.now);
    run(&mut world);
    assert_eq!(ordered(&world), [1]);
    let strange = |number: usize| AlertCall {
        name: "n".repeat(128),
        app: app(&format!("{number:0>128}")),
        ..alert(&format!("{number:0>64}"), 2, false, None)
    };
    world.policy.handle(Event::Alerts((0..10_000).map(strange).collect()), world.now);
    world.carry_out();
    assert!(world.state().alerts.len() < 10_000 && world.state().alerts.contains_key("served"));
    let saved = serde_json::to_vec(world.state()).unwrap();
    assert!(saved.len() < 1 << 20, "{} bytes, and one piece of durable state holds a mebibyte", saved.len());
    world.policy.handle(Event::Alerts(vec![alert("served", 1, false, Some(1))]), world.now);
    world.pass(HOUR * 24, MINUTE * 10);
    assert_eq!(ordered(&world), [1]);
}

#[test]
fn an_alert_that_comes_while_the_daemon_is_down_waits_for_it() {
    let mut world = enforce("leak = { enabled = false }");
    world.up = false;
    world.look();
    world.policy.handle(Event::Alerts(vec![alert("a", 1, false, Some(1))]), world.now);
    world.carry_out();
    world.kill();
    world.look();
    assert!(world.records.is_empty());
    world.up = true;
    run(&mut world);
    assert_eq!(ordered(&world), [1]);
}

#[test]
fn a_life_that_ends_by_itself_is_not_ended_again() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]");
    world.leak(0, 5.0);
    world.leak(1, 4.0);
    world.look();
    world.restart(0);
    world.pass(MINUTE, MINUTE);
    assert_eq!(world.holds(), BTreeMap::from([(1, "window_closed")]));
    world.processes.remove(&1);
    world.look();
    assert_eq!(world.ends(RecordKind::RequestEnded), [(None, "moot".to_owned())]);
}

#[test]
fn a_daemon_that_is_down_ends_nothing_and_begins_nothing() {
    let mut world = enforce("windows = [{ start = '12:30', length = '30m' }]");
    world.leak(0, 5.0);
    world.look();
    world.up = false;
    world.pass(MINUTE * 45, MINUTE);
    assert!(ordered(&world).is_empty());
    assert_eq!(world.holds(), BTreeMap::from([(0, "unseen")]));
    world.up = true;
    world.look();
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn a_daemon_that_dies_during_a_roll_stops_it() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.leak(1, 4.0);
    world.pm2 = Pm2::DoesAndIsSilent;
    world.look();
    world.up = false;
    world.until_quiet();
    assert_eq!(ordered(&world), [0]);
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.detail.as_deref(), Some("daemon_lost"));
    assert_eq!(world.ends(RecordKind::BreakerOpened).len(), 1);
}

/// On a busy machine some looks may come to nothing just when the time is up.
#[test]
fn a_daemon_that_misses_some_looks_is_not_lost() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.pm2 = Pm2::DoesAndIsSilent;
    world.look();
    let second = Duration::from_secs(1);
    world.pass(second * 70, second);
    world.up = false;
    world.pass(second * 10, second);
    world.up = true;
    world.until_quiet();
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.outcome, Some(Outcome::Verified), "{}", record.sentence);
}

#[test]
fn an_order_that_was_refused_is_tried_again_later_and_does_not_count() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.pm2 = Pm2::Refuses;
    world.look();
    world.until_quiet();
    assert_eq!(world.ends(RecordKind::Restart), [(Some(0), "not_carried_out".to_owned())]);
    assert!(world.state().ledger.is_empty());
    assert_eq!(world.holds(), BTreeMap::from([(0, "backing_off")]));
    world.pm2 = Pm2::Obeys;
    world.pass(MINUTE, MINUTE);
    run(&mut world);
    assert_eq!(ordered(&world), [0, 0]);
    assert_eq!(world.ends(RecordKind::Restart)[1].1, "verified");
}

#[test]
fn an_order_without_an_answer_counts_even_when_nothing_came_of_it() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.pm2 = Pm2::Hangs;
    world.look();
    world.until_quiet();
    assert_eq!(world.ends(RecordKind::Restart), [(Some(0), "not_carried_out".to_owned())]);
    world.pm2 = Pm2::Obeys;
    world.pass(MINUTE * 50, MINUTE);
    assert_eq!(ordered(&world), [0]);
    assert_eq!(world.holds(), BTreeMap::from([(0, "cooling_down")]));
    world.pass(MINUTE * 15, MINUTE);
    assert_eq!(ordered(&world), [0, 0]);
}

#[test]
fn after_what_was_kept_is_lost_one_cooldown_is_waited() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    let kept = State { lost_at: Some(world.now.steady), ..State::default() };
    world.policy = Policy::new(world.settings.clone(), Some(kept), OWN_PIDS.into(), world.now);
    world.pass(MINUTE * 50, MINUTE);
    assert_eq!(ordered(&world), [0_u32; 0]);
    assert_eq!(world.holds(), BTreeMap::from([(0, "memory_lost")]));
    world.pass(MINUTE * 15, MINUTE);
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn after_a_kill_an_order_is_watched_to_its_end_and_never_given_again() {
    for commands in 0..12 {
        let mut world = enforce("");
        for pm_id in 0..3 {
            world.leak(pm_id, f64::from(pm_id + 1));
        }
        world.killed_after = Some(commands);
        run(&mut world);
        world.pass(HOUR * 2, MINUTE);
        run(&mut world);
        let mut taken = ordered(&world);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2], "killed after {commands} commands");
        assert!(world.kills == 1 && world.state().requests.is_empty(), "killed after {commands} commands");
    }
}

#[test]
fn a_kill_between_the_writing_and_the_order_leaves_the_old_life_and_the_request() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.look();
    let mut early = enforce("");
    early.leak(0, 5.0);
    early.pm2 = Pm2::Hangs;
    early.look();
    let state = early.kept_state().unwrap();
    assert!(state.steps.values().all(|step| matches!(step.phase, Phase::Ordered { .. })));
    early.kill();
    early.until_quiet();
    assert_eq!(early.state().requests.len(), 1, "the request is not lost");
    assert_eq!(ordered(&early), [0], "and the order is not repeated");
}

#[test]
fn the_store_that_fails_holds_everything_and_lets_go_when_it_works_again() {
    let mut world = enforce("");
    world.look();
    world.store_works = false;
    world.leak(0, 5.0);
    world.pass(MINUTE * 10, Duration::from_secs(15));
    assert!(ordered(&world).is_empty());
    world.store_works = true;
    world.pass(MINUTE * 2, Duration::from_secs(15));
    assert_eq!(ordered(&world), [0]);
}

#[test]
fn the_promql_gate_fails_closed() {
    let text = format!("mode = 'enforce'\n[prometheus]\nurl = 'http://127.0.0.1:9090'\n{}", &ENFORCE[17..]);
    for (answer, label) in [
        (Ok(vec![false]), Some("promql_closed")),
        (Ok(vec![]), Some("promql_failed")),
        (Err("connection refused".to_owned()), Some("promql_failed")),
        (Ok(vec![true]), None),
    ] {
        let mut world = World::new(settings(&format!("{text}promql = ['up{{app=\"$app\"}}']")));
        world.cluster("shop", 0..3);
        world.promql = answer;
        world.leak(0, 5.0);
        world.look();
        assert_eq!(world.holds().get(&0).copied(), label);
        assert_eq!(world.orders.is_empty(), label.is_some());
        let asked =
            Command::AskPromql { daemon: daemon(), app: app("shop"), expressions: vec!["up{app=\"shop\"}".to_owned()] };
        assert_eq!(world.asked(), [asked]);
    }
}

#[test]
fn a_silence_holds_what_it_covers_and_an_unreachable_alertmanager_holds_all() {
    let text = format!("mode = 'enforce'\n[alertmanager]\nurl = 'http://127.0.0.1:9093'\n{}", &ENFORCE[17..]);
    let silence = |value: &str| Silence {
        id: "1".to_owned(),
        comment: "launch".to_owned(),
        matchers: vec![Matcher::new("app", value, true, true)],
    };
    for (answer, label) in [
        (Ok(vec![silence("sh.*")]), Some("silenced")),
        (Ok(vec![silence("blog")]), None),
        (Err("connection refused".to_owned()), Some("silences_unknown")),
    ] {
        let mut world = World::new(settings(&text));
        world.cluster("shop", 0..3);
        world.silences = answer;
        world.leak(0, 5.0);
        world.look();
        assert_eq!(world.holds().get(&0).copied(), label);
    }
}

fn fleet(more: &str) -> World {
    let lock = "[fleet_lock]\nurl = 'http://127.0.0.1:3333'\nid = 'host-1'";
    let mut world = World::new(settings(&format!("mode = 'enforce'\n{lock}\n{}{more}", &ENFORCE[17..])));
    world.cluster("shop", 0..3);
    world
}

#[test]
fn the_fleet_lock_is_asked_for_only_when_every_other_gate_is_open_and_given_back_after_the_roll() {
    let mut world = fleet("");
    world.reload_lock = Some(world.now.wall);
    world.leak(0, 5.0);
    world.leak(1, 4.0);
    world.look();
    assert_eq!(world.lock_requests, 0);
    world.reload_lock = None;
    world.look();
    assert_eq!((world.lock_requests, ordered(&world).len()), (1, 1));
    assert!(world.lock_is_ours);
    run(&mut world);
    assert_eq!((world.lock_requests, ordered(&world)), (1, vec![0, 1]), "one lock serves the roll");
    assert!(!world.lock_is_ours);
    assert_eq!(world.state().fleet_lock, FleetLock::Free);
}

#[test]
fn a_gate_that_closes_between_two_steps_gives_the_fleet_lock_back() {
    let mut world = fleet("");
    world.leak(0, 5.0);
    world.leak(1, 4.0);
    world.look();
    world.host.memory_available = Bytes(1);
    world.until_quiet();
    assert_eq!((ordered(&world), world.lock_is_ours), (vec![0], false));
    world.host.memory_available = Bytes(8 << 30);
    run(&mut world);
    assert_eq!((ordered(&world), world.lock_requests), (vec![0, 1], 2));
}

#[test]
fn a_fleet_lock_that_is_refused_or_silent_holds_and_is_asked_for_again() {
    for (answer, label) in [
        (LockAnswer::Denied("failed_lock: held by host-2".to_owned()), "fleet_lock_held"),
        (LockAnswer::Failed("time-out".to_owned()), "fleet_lock_failed"),
    ] {
        let mut world = fleet("");
        world.lock_answer = answer;
        world.leak(0, 5.0);
        world.look();
        assert_eq!(world.holds(), BTreeMap::from([(0, label)]));
        world.pass(MINUTE * 3, Duration::from_secs(15));
        assert!((2..=4).contains(&world.lock_requests), "{}", world.lock_requests);
        world.lock_answer = LockAnswer::Granted;
        world.pass(MINUTE * 7, Duration::from_secs(15));
        assert_eq!(ordered(&world), [0]);
    }
}

#[test]
fn a_lock_that_may_be_ours_after_a_kill_is_given_back() {
    for commands in 0..10 {
        let mut world = fleet("");
        world.leak(0, 5.0);
        world.killed_after = Some(commands);
        run(&mut world);
        world.pass(HOUR * 2, MINUTE);
        run(&mut world);
        assert_eq!((ordered(&world), world.lock_is_ours), (vec![0], false), "killed after {commands} commands");
    }
}

#[test]
fn a_hook_runs_before_the_order_and_its_failure_holds() {
    let mut world = enforce("hook = { command = ['drain'] }");
    world.leak(0, 5.0);
    world.look();
    assert!(matches!(world.asked().as_slice(), [Command::RunHook(order)] if order.key == key(0)));
    assert_eq!(ordered(&world), [0]);

    let mut failing = enforce("hook = { command = ['drain'] }");
    failing.leak(0, 5.0);
    let observation = failing.observation();
    failing.policy.observe(&observation, failing.now);
    let mut step = None;
    while let Some(command) = failing.policy.next_command() {
        if let Command::Persist { revision, .. } = command {
            failing.policy.handle(Event::Persisted { revision }, failing.now);
        } else if let Command::RunHook(order) = command {
            step = Some(order.step);
        } else if let Command::Probe(order) = command {
            failing.answer(order);
        } else {
            assert!(matches!(command, Command::Notify(_)), "{command:?}");
        }
    }
    let failed = Event::HookEnded { step: step.unwrap(), result: Err("exit 1".to_owned()) };
    failing.policy.handle(failed, failing.now);
    failing.carry_out();
    assert_eq!(failing.holds(), BTreeMap::from([(0, "hook_failed")]));
    failing.pass(MINUTE * 5, MINUTE);
    assert_eq!(ordered(&failing), [0]);
}

/// What was ordered of a kind, and in which order.
fn asked(world: &World) -> Vec<&str> {
    let words = world.questions.iter().filter_map(|command| {
        let hook = matches!(command, Command::RunHook(_)).then_some("hook");
        matches!(command, Command::TakeEvidence(_)).then_some("evidence").or(hook)
    });
    words.collect()
}

#[test]
fn evidence_of_a_leaking_process_comes_before_the_hook_and_is_on_record() {
    let mut world = enforce(&format!("hook = {{ command = ['drain'] }}\n{EVIDENCE}"));
    world.leak(0, 5.0);
    world.look();
    assert_eq!((asked(&world), ordered(&world)), (vec!["evidence", "hook"], vec![0]));
    world.until_quiet();
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.evidence.as_deref(), Some("profile-1"));
    assert!(record.sentence.contains("; seen; the new instance was good"), "{}", record.sentence);
}

#[test]
fn what_does_not_leak_is_restarted_without_evidence() {
    let mut world = enforce(EVIDENCE);
    world.look();
    world.policy.ask(&person(true), world.now).unwrap();
    world.look();
    assert_eq!((asked(&world), ordered(&world)), (vec![], vec![0]));
}

#[test]
fn evidence_that_fails_or_never_comes_holds_nothing() {
    let mut failing = enforce(EVIDENCE);
    failing.evidence = Some(EvidenceTaken { id: None, sentence: "no heap profile before it: no room".to_owned() });
    failing.leak(0, 5.0);
    failing.look();
    failing.until_quiet();
    let record = failing.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert!(record.evidence.is_none() && record.sentence.contains("no room"), "{}", record.sentence);

    let mut silent = enforce(EVIDENCE);
    silent.evidence = None;
    silent.leak(0, 5.0);
    silent.look();
    assert!(silent.policy.watched().is_empty(), "there is nothing to watch yet");
    assert_eq!((asked(&silent), ordered(&silent)), (vec!["evidence"], vec![]));
    silent.pass(MINUTE * 3, Duration::from_secs(10));
    assert_eq!(ordered(&silent), [0]);
    let late = EvidenceTaken { id: Some("late".to_owned()), sentence: "late".to_owned() };
    let step = silent.records.values().find(|record| record.kind == RecordKind::Restart).unwrap().id;
    silent.policy.handle(Event::EvidenceEnded { step, taken: late }, silent.now);
    silent.carry_out();
    assert!(silent.records.values().all(|record| record.evidence.is_none()));
}

#[test]
fn a_process_that_ends_while_evidence_is_taken_is_not_restarted_again() {
    let mut world = enforce(EVIDENCE);
    world.evidence = None;
    world.leak(0, 5.0);
    world.look();
    let Some(Command::TakeEvidence(order)) = world.asked().first().cloned() else { panic!("{:?}", world.questions) };
    world.restart(0);
    world.look();
    let taken = EvidenceTaken { id: None, sentence: "no heap profile before it: it exited".to_owned() };
    world.policy.handle(Event::EvidenceEnded { step: order.step, taken }, world.now);
    world.carry_out();
    world.pass(MINUTE * 5, MINUTE);
    assert_eq!(ordered(&world), [0_u32; 0]);
}

#[test]
fn a_kill_while_evidence_is_taken_leads_to_one_restart() {
    for commands in 0..8 {
        let mut world = enforce(EVIDENCE);
        world.leak(0, 5.0);
        world.killed_after = Some(commands);
        world.look();
        world.pass(HOUR * 3, MINUTE);
        assert_eq!(ordered(&world), [0], "killed after {commands} commands");
    }
}

#[test]
fn the_triggers_are_counted() {
    let mut world = enforce("windows = [{ start = '02:00', length = '1h' }]");
    world.leak(0, 5.0);
    world.look();
    world.policy.ask(&person(false), world.now).unwrap();
    let totals = &world.state().totals.requests;
    assert_eq!(totals, &BTreeMap::from([(Trigger::Person, 1), (Trigger::Leak, 1)]));
}

#[test]
fn somebody_elses_restart_during_ours_is_waited_for_and_told() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.look();
    world.pass(Duration::from_secs(4), Duration::from_secs(1));
    world.restart(0);
    // pm2 counts the end that was asked for, since the life was young.
    world.process(0).unstable_restarts = Some(1);
    world.until_quiet();
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert!(record.sentence.contains("somebody else restarted it too: 2 starts"), "{}", record.sentence);
    assert!(world.ends(RecordKind::BreakerOpened).is_empty());
}

/// A whole collection takes longer than the looks at a replacement, and arrives after some that were begun later.
#[test]
fn a_list_that_arrives_late_brings_no_dead_life_back() {
    let mut world = enforce("");
    world.leak(0, 5.0);
    world.look();
    world.pass(Duration::from_secs(4), Duration::from_secs(1));
    let late = world.observation();
    world.restart(0);
    world.pass(Duration::from_secs(1), Duration::from_secs(1));
    world.policy.observe(&late, world.now);
    world.until_quiet();
    let record = world.records.values().find(|record| record.kind == RecordKind::Restart).unwrap();
    assert_eq!(record.outcome, Some(Outcome::Verified), "{}", record.sentence);
    assert!(record.sentence.contains(": 2 starts were seen"), "{}", record.sentence);
}
