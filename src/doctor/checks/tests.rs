//! Each check with facts that it is about, and a host on which none finds anything.

use crate::model::{Bytes, Orphan};

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn app(json: &str) -> App {
    let mut environment: serde_json::Map<String, serde_json::Value> = serde_json::from_str(
        r#"{"name":"shop","status":"online","exec_mode":"cluster_mode","pm_exec_path":"/srv/shop/app.js","pm_cwd":"/srv/shop",
            "exec_interpreter":"node","pm_out_log_path":"/home/a/.pm2/logs/out.log","pm_err_log_path":"/home/a/.pm2/logs/err.log"}"#,
    )
    .unwrap();
    environment.extend(serde_json::from_str::<serde_json::Map<_, _>>(json).unwrap());
    let entry = serde_json::json!([{ "pm_id": 3, "pid": 77, "name": environment["name"], "pm2_env": environment }]);
    let reply = serde_json::json!({ "args": [entry] }).to_string();
    App { settings: read_reply(reply.as_bytes()).unwrap().remove(0), live: Some(live()), ..App::default() }
}

fn live() -> Live {
    Live {
        uptime: Some(120.0),
        resident: Some(Bytes(60 * MIB)),
        oom_adjustment: Some(0),
        core_limit: Some(0),
        listens: Some(true),
        group: Some(group("/pm2", None)),
        ..Live::default()
    }
}

fn group(path: &str, limit: Option<u64>) -> Group {
    Group { path: path.to_owned(), limit: limit.map(Bytes), is_version_2: true, dies_together: false }
}

fn host() -> Host {
    Host {
        memory: Some(Bytes(16 * GIB)),
        swap: Some(Bytes(0)),
        core_pattern: Some("core".to_owned()),
        reads_kernel_log: Some(true),
    }
}

fn daemon(app: App) -> Daemon {
    Daemon {
        name: "default".to_owned(),
        pid: Some(50),
        resident: Some(Bytes(70 * MIB)),
        oom_adjustment: Some(0),
        group: Some(group("/pm2", None)),
        unit: Some(Unit { name: "pm2-a.service".to_owned(), oom_policy: Some("continue".to_owned()) }),
        output: Some(Output::File("/home/a/.pm2/pm2.log".to_owned())),
        stamps: Some(true),
        dump: Some(Dump::Names(vec![app.settings.name.clone()])),
        orphans: Some(Vec::new()),
        journal: Some(Journal::default()),
        apps: vec![app],
    }
}

fn found(host: Host, daemon: Daemon) -> Vec<Finding> {
    examine(&Facts { host, daemons: vec![daemon] })
}

/// A daemon whose one app is set up by `json` and otherwise as `change` makes it.
fn with(json: &str, change: impl FnOnce(&mut App)) -> Daemon {
    let mut app = app(json);
    change(&mut app);
    daemon(app)
}

fn logged(lines: &str) -> Daemon {
    let stamped = |line: &str| format!("2026-12-01T04:{}: PM2 log: {}", &line[..5], &line[6..]);
    let text: Vec<String> = lines.lines().map(stamped).collect();
    Daemon { journal: Some(Journal::read(&text.join("\n"))), ..with("{}", |_| {}) }
}

const CRASHES: &str = "59:00 App [shop:3] exited with code [1] via signal [SIGINT]\n\
    59:20 App [shop:3] exited with code [1] via signal [SIGINT]\n\
    59:40 App [shop:3] exited with code [1] via signal [SIGINT]";

#[allow(clippy::too_many_lines, reason = "a table")]
fn seeds() -> Vec<(Check, &'static str, Host, Daemon)> {
    let run = |json: &str, change: fn(&mut Live)| with(json, |app| change(app.live.as_mut().unwrap()));
    let mut seeds = Vec::new();
    let mut seed = |check, what: &'static str, daemon| seeds.push((check, what, host(), daemon));
    for codes in ["[0]", "0", "[2, 0]", "\"0\"", "[\"0\"]"] {
        seed(
            Check::StopExitCodes,
            "stop_exit_codes holds 0",
            with(&format!(r#"{{"stop_exit_codes":{codes}}}"#), |_| {}),
        );
    }
    for policy in ["stop", "kill"] {
        let unit = Unit { name: "pm2-a.service".to_owned(), oom_policy: Some(policy.to_owned()) };
        seed(Check::OomPolicy, "pm2-a.service", Daemon { unit: Some(unit), ..with("{}", |_| {}) });
    }
    let small = |live: &mut Live| live.group = Some(group("/shop", Some(400 * MIB)));
    seed(
        Check::HeapAboveGroup,
        "its heap limit of 512 MiB",
        run(r#"{"node_args":["--max-old-space-size=512"]}"#, small),
    );
    seed(
        Check::HeapAboveGroup,
        "its heap limit of 2 GiB",
        run("{}", |live| {
            live.group = Some(group("/shop", Some(GIB)));
            live.heap_limit = Some(Bytes(2 * GIB));
        }),
    );
    seed(
        Check::HeapAboveGroup,
        "V8's own heap limit of 4 GiB",
        run("{}", |live| {
            live.group = Some(Group { is_version_2: false, ..group("/shop", Some(400 * MIB)) });
        }),
    );
    let mut two = run(r#"{"node_args":["--max-old-space-size=300"]}"#, small);
    two.apps.push(two.apps[0].clone());
    two.dump = Some(Dump::Names(vec!["shop".to_owned(); 2]));
    seed(Check::HeapAboveGroup, "the heaps of 2 processes", two);
    seed(
        Check::HeapFlag,
        "the process reports 4 GiB",
        run(r#"{"node_args":"--max_old_space_size 512"}"#, |live| {
            live.heap_limit = Some(Bytes(4 * GIB));
        }),
    );
    seed(Check::HeapFlag, "stands in args", with(r#"{"args":["--max-old-space-size=512"]}"#, |_| {}));
    seed(
        Check::HeapFlag,
        "of heap are in use",
        run(r#"{"node_args":["--max-old-space-size=512"]}"#, |live| {
            live.heap_used = Some(Bytes(2 * GIB));
        }),
    );
    seed(
        Check::HeapFlag,
        "does not have it",
        run(r#"{"NODE_OPTIONS":"--max-old-space-size=512"}"#, |live| {
            live.has_options_flag = Some(false);
        }),
    );
    seed(Check::MemoryRestart, "100 bytes", with(r#"{"max_memory_restart":100}"#, |_| {}));
    seed(Check::MemoryRestart, "the app needs 60 MiB", with(r#"{"max_memory_restart":"40M"}"#, |_| {}));
    seed(Check::MemoryRestart, "the host has 16 GiB", with(r#"{"max_memory_restart":"32G"}"#, |_| {}));
    seed(Check::MemoryRestart, "its control group has 400 MiB", run(r#"{"max_memory_restart":"500M"}"#, small));
    seed(
        Check::MemoryRestart,
        "grows faster than pm2 looks",
        run(r#"{"max_memory_restart":"15G"}"#, |live| {
            live.growth = Some(Bytes(50 * MIB).as_f64());
        }),
    );
    let killed = "59:00 Stopping app:shop id:3\n59:01 Process with pid 77 still alive after 700ms, sending it SIGKILL now...\n\
                  59:01 App [shop:3] exited with code [0] via signal [SIGKILL]";
    seed(Check::KillTimeout, "killed it once because it had not ended 700 ms", logged(killed));
    seed(Check::KillTimeout, "kill_timeout is 5 ms", with(r#"{"kill_timeout":5}"#, |_| {}));
    seed(
        Check::ListenTimeout,
        "never sends 'ready'",
        with(r#"{"wait_ready":true}"#, |app| app.says_ready = Some(false)),
    );
    let mut slow = logged("59:00 App [shop:3] starting in -cluster mode-\n59:03 App [shop:3] online");
    slow.apps[0].settings.wait_ready = true;
    seed(Check::ListenTimeout, "its last start took 3 s", slow);
    seed(Check::ListenTimeout, "listen_timeout is 8 ms", with(r#"{"listen_timeout":8}"#, |_| {}));
    seed(Check::EndlessRestarts, "3 times a minute", logged(CRASHES));
    seed(
        Check::HostMemory,
        "heaps are allowed 20 GiB",
        with(r#"{"node_args":["--max-old-space-size=20480"]}"#, |_| {}),
    );
    seed(Check::Wrapper, "treekill is false", run(r#"{"treekill":false}"#, |live| live.children = 1));
    for (script, interpreter) in [("/usr/bin/npm", "node"), ("/usr/bin/bash", "none"), ("/srv/start.sh", "bash")] {
        let json = format!(r#"{{"pm_exec_path":"{script}","exec_interpreter":"{interpreter}"}}"#);
        seed(Check::Wrapper, "which runs the app", run(&json, |live| live.children = 1));
    }
    seed(
        Check::Logs,
        "nothing rotates it",
        with("{}", |app| {
            app.logs = vec![LogFile { path: "/l".to_owned(), size: Some(2 * GIB), unreadable: None }];
        }),
    );
    seed(Check::Logs, "/dev/null", with(r#"{"pm_err_log_path":"/dev/null"}"#, |_| {}));
    seed(Check::Logs, "merge_logs is on", with(r#"{"merge_logs":true,"instances":2}"#, |_| {}));
    seed(Check::Journal, "no file", Daemon { output: Some(Output::Elsewhere), ..with("{}", |_| {}) });
    seed(Check::Journal, "PM2_LOG_DATE_FORMAT", Daemon { stamps: Some(false), ..with("{}", |_| {}) });
    seed(
        Check::Journal,
        "cannot be read: permission denied",
        with("{}", |app| {
            let unreadable = Some("permission denied".to_owned());
            app.logs = vec![LogFile { path: "/l".to_owned(), size: Some(1), unreadable }];
        }),
    );
    let orphan = Orphan { pid: 9, pm_id: 3, resident: Bytes(MIB) };
    seed(Check::Orphans, "pid 9", Daemon { orphans: Some(vec![orphan]), ..with("{}", |_| {}) });
    seed(Check::Orphans, "pmx: false", with(r#"{"pmx":false,"exec_mode":"fork_mode"}"#, |_| {}));
    seed(Check::Orphans, "no Node.js app", with(r#"{"exec_interpreter":"python3","exec_mode":"fork_mode"}"#, |_| {}));
    seed(Check::Dump, "never saved", Daemon { dump: Some(Dump::Missing), ..with("{}", |_| {}) });
    let other = Dump::Names(vec!["shop".to_owned(), "old".to_owned()]);
    seed(Check::Dump, "differs from what runs: old", Daemon { dump: Some(other), ..with("{}", |_| {}) });
    seed(Check::Watch, "NODE_ENV is production", with(r#"{"watch":true,"NODE_ENV":"production"}"#, |_| {}));
    let logs = r#"{"watch":["./"],"pm_err_log_path":"/srv/shop/logs/err.log"}"#;
    seed(Check::Watch, "/srv/shop/logs/err.log", with(logs, |_| {}));
    seed(Check::OomScore, "oom_score_adj 500", Daemon { oom_adjustment: Some(500), ..with("{}", |_| {}) });
    let mut together = run("{}", |live| live.group = Some(group("/pm2", Some(GIB))));
    together.group = Some(Group { dies_together: true, ..group("/pm2", Some(GIB)) });
    seed(Check::OomScore, "memory.oom.group", together);
    seed(Check::Autorestart, "autorestart is false", with(r#"{"autorestart":false}"#, |_| {}));
    seed(Check::Autorestart, "without a pause", logged(CRASHES));
    seed(Check::Autorestart, "gave it up", with(r#"{"status":"errored"}"#, |_| {}));
    let segfault = "59:00 App [shop:3] exited with code [0] via signal [SIGSEGV]";
    seed(Check::CoreFiles, "may write no core file", logged(segfault));
    let mut host_of = |check, what, host, daemon| seeds.push((check, what, host, daemon));
    host_of(Check::CoreFiles, "nowhere", Host { core_pattern: Some(String::new()), ..host() }, logged(segfault));
    host_of(Check::KernelLog, "dmesg_restrict", Host { reads_kernel_log: Some(false), ..host() }, with("{}", |_| {}));
    seeds
}

#[test]
fn every_check_finds_what_it_is_about() {
    for (check, what, host, daemon) in seeds() {
        let found = found(host, daemon);
        let told = found.iter().filter(|one| one.check == check).any(|one| one.what.contains(what));
        assert!(told, "{}: no {what:?} in {found:#?}", check.as_str());
    }
    let seeded: std::collections::BTreeSet<Check> = seeds().into_iter().map(|seed| seed.0).collect();
    assert_eq!(seeded.len(), 19, "{seeded:?}");
}

#[test]
fn nothing_is_found_on_a_host_that_is_well() {
    let well = [
        "{}",
        r#"{"exec_mode":"fork_mode","stop_exit_codes":[3],"max_memory_restart":"300M","node_args":["--max-old-space-size=512"]}"#,
        r#"{"watch":["src"],"pm_err_log_path":"/srv/shop/logs/err.log"}"#,
        r#"{"watch":true,"ignore_watch":["logs","node_modules"],"pm_err_log_path":"/srv/shop/logs/err.log"}"#,
        r#"{"autorestart":false,"cron_restart":"0 3 * * *"}"#,
        r#"{"kill_timeout":8000,"listen_timeout":10000,"wait_ready":true,"min_uptime":"5s","namespace":"eu"}"#,
        r#"{"max_memory_restart":"5X","kill_timeout":"soon","watch":{},"stop_exit_codes":{"0":0},"args":7,"pmx":"no"}"#,
    ];
    for json in well {
        assert_eq!(found(host(), with(json, |_| {})), Vec::new(), "{json}");
    }
    // What was seen of the past is over, and what is unknown is no finding.
    let settled = Daemon {
        journal: logged(CRASHES).journal,
        ..with("{}", |app| {
            app.live.as_mut().unwrap().uptime = Some(86_400.0);
        })
    };
    assert_eq!(found(host(), settled), Vec::new());
    assert_eq!(
        found(Host::default(), Daemon { apps: vec![App { live: None, ..app("{}") }], ..Daemon::default() }),
        Vec::new()
    );
}

#[test]
fn an_ecosystem_file_is_held_to_the_same_and_of_its_variables_nothing_is_told() {
    let json = r#"[{"name":"shop","exec_interpreter":"node","exec_mode":"fork_mode","instances":3,"stop_exit_codes":[0],
        "max_memory_restart":"1","NODE_ENV":"production","SECRET":"hunter2","watch":true,"pm_cwd":"/srv",
        "node_args":"--require /srv/hunter2.js --max-old-space-size=8000"}]"#;
    let apps = read_ecosystem(json.as_bytes()).unwrap();
    let apps = apps.into_iter().map(|settings| App { settings, ..App::default() }).collect();
    let facts = Facts {
        host: host(),
        daemons: vec![Daemon { name: "ecosystem.config.js".to_owned(), apps, ..Daemon::default() }],
    };
    let found = examine(&facts);
    let checks: Vec<Check> = found.iter().map(|one| one.check).collect();
    assert_eq!(checks, [Check::StopExitCodes, Check::MemoryRestart, Check::HostMemory, Check::Watch], "{found:#?}");
    assert!(!serde_json::to_string(&found).unwrap().contains("hunter2"));
    let lost = restarts(&facts);
    assert_eq!(lost[0].change, ["exec_mode: \"cluster\",", "instances: 3,"]);
    assert!(lost[0].what.starts_with("if it listens"), "{lost:?}");
}

#[test]
fn only_who_listens_in_fork_mode_loses_connections() {
    let lost = |json: &str, listens| {
        let daemon = with(json, |app| app.live.as_mut().unwrap().listens = listens);
        restarts(&Facts { host: host(), daemons: vec![daemon] })
    };
    assert_eq!(lost("{}", Some(true)), []);
    assert_eq!(lost(r#"{"exec_mode":"fork_mode"}"#, Some(false)), []);
    assert_eq!(lost(r#"{"exec_mode":"fork_mode"}"#, None), []);
    assert_eq!(lost(r#"{"exec_mode":"fork_mode"}"#, Some(true))[0].change.len(), 2);
    assert_eq!(lost(r#"{"exec_mode":"fork_mode","exec_interpreter":"python3"}"#, Some(true))[0].change.len(), 0);
}
