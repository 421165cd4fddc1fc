//! The rules of the decision, and its traps.

use model::{DaemonEvent, DaemonLine, DaemonName, Limit, LimitKind, Named, Slope, Steady, WallTime};

use super::tracker::{Ended, Tracker};
use super::*;

fn by_itself(code: i64, signal: &str) -> Signs {
    Signs {
        asked: Asked::No,
        code: Some(code),
        signal: Some(signal.to_owned()),
        uptime: Some(Duration::from_mins(5)),
        ..Signs::default()
    }
}

fn client(command: &'static str) -> Asked {
    Asked::By(Asker::Client { command, confirmed: false })
}

fn said(signs: &Signs) -> (Cause, String, Certainty) {
    let finding = decide(signs);
    (finding.cause, finding.detail, finding.certainty)
}

#[test]
fn each_rule_of_the_table() {
    let none = HeapText::None;
    let killed = Killed { in_control_group: true, held: None };
    let kernel = |killed, log_read, counted| KernelWord { killed, log_read, counted };
    let memory = Asker::Memory { measured: Bytes(2 << 20), limit: Bytes::MIB };
    let cases = [
        (
            Signs { asked: Asked::By(Asker::Leakslope), ..by_itself(0, "SIGINT") },
            Cause::Leakslope,
            "",
            Certainty::Certain,
        ),
        (Signs { asked: Asked::By(memory), ..by_itself(0, "SIGINT") }, Cause::MaxMemoryRestart, "", Certainty::Certain),
        (Signs { asked: Asked::By(Asker::Watch), ..by_itself(0, "SIGINT") }, Cause::Watch, "", Certainty::Certain),
        (Signs { asked: Asked::By(Asker::Cron), ..by_itself(0, "SIGINT") }, Cause::Cron, "", Certainty::Likely),
        (Signs { asked: client("stop"), ..by_itself(0, "SIGINT") }, Cause::Pm2Command, "stop", Certainty::Certain),
        (
            Signs { asked: client("restart"), ..by_itself(0, "SIGKILL") },
            Cause::KillTimeout,
            "restart",
            Certainty::Certain,
        ),
        (Signs { heap_text: HeapText::Ours, ..by_itself(0, "SIGABRT") }, Cause::V8HeapLimit, "", Certainty::Certain),
        (
            Signs { heap_text: HeapText::Somebodys, ..by_itself(0, "SIGABRT") },
            Cause::V8HeapLimit,
            "",
            Certainty::Likely,
        ),
        (Signs { heap_share: Some(0.95), ..by_itself(0, "SIGABRT") }, Cause::V8HeapLimit, "", Certainty::Likely),
        (Signs { heap_text: none, ..by_itself(0, "SIGABRT") }, Cause::Abort, "SIGABRT", Certainty::Likely),
        (by_itself(0, "SIGABRT"), Cause::Undecided, "", Certainty::Undecided),
        (
            Signs { kernel: kernel(Some(killed), true, None), ..by_itself(0, "SIGKILL") },
            Cause::KernelOomKill,
            "control group",
            Certainty::Certain,
        ),
        (
            Signs { kernel: kernel(None, false, Some(true)), ..by_itself(0, "SIGKILL") },
            Cause::KernelOomKill,
            "control group",
            Certainty::Likely,
        ),
        (
            Signs { kernel: kernel(None, false, Some(false)), ..by_itself(0, "SIGKILL") },
            Cause::Signal,
            "SIGKILL",
            Certainty::Likely,
        ),
        (by_itself(0, "SIGKILL"), Cause::Undecided, "", Certainty::Undecided),
        (by_itself(0, "SIGSEGV"), Cause::NativeCrash, "SIGSEGV", Certainty::Certain),
        (by_itself(0, "SIGTERM"), Cause::Signal, "SIGTERM", Certainty::Certain),
        (
            Signs { exception: ExceptionText::Stack, ..by_itself(1, "SIGINT") },
            Cause::UncaughtException,
            "",
            Certainty::Likely,
        ),
        (Signs { exception: ExceptionText::None, ..by_itself(1, "SIGINT") }, Cause::Exit, "1", Certainty::Certain),
        (by_itself(1, "SIGINT"), Cause::Undecided, "", Certainty::Undecided),
        (by_itself(130, "SIGINT"), Cause::Exit, "130", Certainty::Certain),
        (Signs { daemon: DaemonEnd::Killed, ..Signs::default() }, Cause::DaemonKilled, "", Certainty::Certain),
        (
            Signs { daemon: DaemonEnd::Stopped, asked: client("delete"), ..by_itself(0, "SIGINT") },
            Cause::DaemonStopped,
            "",
            Certainty::Certain,
        ),
    ];
    for (signs, cause, detail, certainty) in cases {
        assert_eq!(said(&signs), (cause, detail.to_owned(), certainty), "{signs:?}");
    }
}

#[test]
fn code_zero_by_sigint_is_undecided_between_what_it_may_be() {
    let finding = decide(&by_itself(0, "SIGINT"));
    assert_eq!((finding.cause, finding.between), (Cause::Undecided, vec!["exit".to_owned(), "signal".to_owned()]));
    // An exception in a worker of cluster mode ends in code 0, and one at its boot reaches no file.
    let worker = Signs { cluster: true, exception: ExceptionText::None, ..by_itself(0, "SIGINT") };
    assert!(!decide(&worker).between.contains(&"uncaught_exception".to_owned()), "its log would tell");
    let young = Signs { uptime: Some(Duration::from_millis(300)), ..worker.clone() };
    assert!(decide(&young).between.contains(&"uncaught_exception".to_owned()));
    let told = Signs { exception: ExceptionText::Told, ..young };
    assert_eq!(said(&told), (Cause::UncaughtException, String::new(), Certainty::Likely));
    let stack = Signs { exception: ExceptionText::Stack, ..worker };
    assert_eq!(said(&stack), (Cause::UncaughtException, String::new(), Certainty::Likely));
    let fork = Signs { exception: ExceptionText::Stack, ..by_itself(0, "SIGINT") };
    assert_eq!(decide(&fork).cause, Cause::Undecided, "a rejected promise leaves a stack and does not end it");
}

#[test]
fn the_list_alone_tells_a_code_and_no_signal() {
    let listed = |code| Signs { signal: None, asked: Asked::No, code, uptime: None, ..Signs::default() };
    assert_eq!(said(&listed(Some(3))), (Cause::Exit, "3".to_owned(), Certainty::Certain));
    let between = decide(&listed(Some(0))).between;
    for cause in ["exit", "signal", "v8_heap_limit", "kernel_oom_kill", "native_crash"] {
        assert!(between.contains(&cause.to_owned()), "{cause}");
    }
    let full = Signs { heap_text: HeapText::Ours, ..listed(Some(0)) };
    assert_eq!(said(&full), (Cause::V8HeapLimit, String::new(), Certainty::Certain));
}

#[test]
fn what_cannot_be_told_three_times_in_a_row_is_a_boot_loop_and_what_can_keeps_its_cause() {
    let looped = |times, signs: Signs| Signs { short_in_a_row: times, ..signs };
    assert_eq!(decide(&looped(2, by_itself(0, "SIGINT"))).cause, Cause::Undecided);
    let finding = decide(&looped(3, by_itself(0, "SIGINT")));
    assert_eq!((finding.cause, finding.certainty, finding.between.len()), (Cause::BootLoop, Certainty::Certain, 2));
    assert_eq!(decide(&looped(3, by_itself(7, "SIGINT"))).cause, Cause::Exit);
    assert!(is_short(Duration::from_secs(4), None) && !is_short(Duration::from_secs(5), None));
    assert!(is_short(Duration::from_secs(8), Some(Duration::from_secs(9))));
}

#[test]
fn the_sentence_tells_the_whole_story() {
    let finding = decide(&Signs { heap_text: HeapText::Ours, ..by_itself(0, "SIGABRT") });
    let before = LastSeen {
        heap_limit_bytes: Some(Bytes(256 << 20)),
        limit: Some(Limit { kind: LimitKind::Heap, bytes: Bytes(256 << 20) }),
        slope: Some(Slope { bytes_per_second: 903.0, low: 1.0, high: 2.0 }),
        state: Some(LeakState::Leaking),
        age_seconds: Some(61.0 * 3600.0),
        evidence: Some("2.heapprofile".to_owned()),
        ..LastSeen::default()
    };
    let mut death = Death {
        id: 1,
        at: WallTime(1_795_400_000_000),
        daemon: DaemonName::from("default"),
        app: "api".into(),
        pm_id: 2,
        pid: Some(9),
        finding,
        then: Aftermath::Restarted { seconds: 1 },
        in_a_row: 0,
        before,
        message: None,
        sentence: String::new(),
        read_at: None,
    };
    assert_eq!(
        sentence(&death),
        "api-2 died at 02:13:20: V8 ran out of heap (limit 256 MiB; it had leaked 3.1 MiB/h for 61 h); pm2 started it again \
         after 1 s; evidence of that run: 2.heapprofile."
    );
    death.finding = decide(&Signs { asked: client("stop"), ..by_itself(0, "SIGINT") });
    (death.then, death.before) = (Aftermath::Stopped { by: None }, LastSeen::default());
    let stopped =
        "api-2 ended at 02:13:20: pm2 was asked to stop it, by its command line or another client; it stays stopped.";
    assert_eq!(sentence(&death), stopped);
}

/// What a log with these events, one a second, comes to.
fn ends(events: impl IntoIterator<Item = DaemonEvent>) -> Vec<Ended> {
    let mut tracker = Tracker::default();
    let mut now = 1000;
    for event in events {
        tracker.take_line(&DaemonLine { at: WallTime(now), event, read_at: None }, Steady(now));
        now += 1000;
    }
    // Ends that may belong to a farewell wait once more.
    let mut due = || {
        now += 10_000;
        tracker.due(Steady(now), WallTime(now), Steady(now), |_run| false).0
    };
    let mut ends = [due(), due()].concat();
    ends.sort_by_key(|ended| ended.at);
    ends
}

fn named(replaced: bool) -> Named {
    Named { app: "api".to_owned(), pm_id: 3, replaced }
}

fn exited(replaced: bool, signal: &str) -> DaemonEvent {
    DaemonEvent::Exited { process: named(replaced), code: 0, signal: signal.to_owned() }
}

#[test]
fn a_new_worker_that_crashes_while_the_old_one_is_ended_was_not_asked() {
    let found = ends([
        DaemonEvent::Starting(named(false)),
        DaemonEvent::Starting(named(false)),
        DaemonEvent::Ending(named(true)),
        exited(false, "SIGSEGV"),
        exited(true, "SIGINT"),
    ]);
    assert_eq!(found[0].asked, Asked::No);
    assert_eq!(found[0].run.started, Some(2000), "the run of the new worker");
    assert_eq!((found[1].asked(false, Some(false)), found[1].run.started), (client("reload"), Some(1000)));
}

#[test]
fn a_reason_holds_for_one_end() {
    let changed = || DaemonEvent::Changed { app: "api".to_owned() };
    let memory = DaemonEvent::OverMemory { pm_id: 3, measured: Bytes(2), limit: Bytes(1) };
    let (start, end) = (|| DaemonEvent::Starting(named(false)), || DaemonEvent::Ending(named(false)));
    let found = ends([
        start(),
        changed(),
        changed(),
        end(),
        exited(false, "SIGINT"),
        start(),
        end(),
        exited(false, "SIGINT"),
        start(),
        memory,
        end(),
        exited(false, "SIGINT"),
        start(),
        exited(false, "SIGTERM"),
    ]);
    let asked: Vec<Asked> = found.iter().map(|ended| ended.asked(false, Some(false))).collect();
    let memory = Asked::By(Asker::Memory { measured: Bytes(2), limit: Bytes(1) });
    assert_eq!(asked, [Asked::By(Asker::Watch), client("restart"), memory, Asked::No]);
    assert_eq!(found[0].then, Aftermath::Restarted { seconds: 1 });
}

#[test]
fn what_pm2_lost_of_an_output_is_said_of_the_ends_of_that_time() {
    let found = ends([exited(false, "SIGABRT"), DaemonEvent::OutputLost]);
    assert!(found[0].lost_output);
    assert!(!ends([exited(false, "SIGABRT")])[0].lost_output);
}

#[test]
fn a_farewell_makes_the_ends_that_follow_the_daemons() {
    let found = ends([DaemonEvent::Farewell, DaemonEvent::Ending(named(false)), exited(false, "SIGINT")]);
    assert_eq!(found[0].daemon, DaemonEnd::Stopped);
    let again = [DaemonEvent::Farewell, DaemonEvent::Began, DaemonEvent::Ending(named(false)), exited(false, "SIGINT")];
    assert_eq!(ends(again)[0].daemon, DaemonEnd::None);
}

#[test]
fn a_restart_while_a_cron_job_is_taken_off_is_undecided_where_its_expression_is_not_known() {
    let off = DaemonEvent::CronOff { pm_id: 3, calendar: Some(WallTime(0)) };
    let found = ends([off, DaemonEvent::Ending(named(false)), exited(false, "SIGINT")]);
    assert_eq!(found[0].asked(false, None), Asked::By(Asker::Somebody));
    assert_eq!(found[0].asked(false, Some(true)), Asked::By(Asker::Cron));
    assert_eq!(found[0].asked(true, None), Asked::By(Asker::Leakslope));
    assert!(matches!(found[0].asked(false, Some(false)), Asked::By(Asker::Client { .. })));
}
