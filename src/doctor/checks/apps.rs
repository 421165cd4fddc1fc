//! The checks of one app that need nothing but its own set-up, its past and its processes.

use super::facts::{App, Daemon};
use super::finding::{Check, Finding, Severity};
use super::journal::Past;
use super::settings::AppSettings;

/// What pm2 takes where nothing is set, in milliseconds.
const KILL_TIMEOUT: u64 = 1600;
const LISTEN_TIMEOUT: u64 = 3000;
const MIN_UPTIME: u64 = 1000;
const MAX_RESTARTS: u64 = 16;
/// A timeout below this is a number of seconds in the place of milliseconds.
const UNIT_SLIP: u64 = 100;
/// Who has run for so many seconds does not loop any more.
const SETTLED: f64 = 300.0;
/// Programs that start the app and stay in between.
const WRAPPERS: [&str; 12] =
    ["npm", "npm-cli.js", "npx", "npx-cli.js", "yarn", "yarn.js", "yarnpkg", "pnpm", "pnpm.cjs", "sh", "bash", "dash"];
/// Of these a shell may have become the app itself.
const SHELLS: [&str; 3] = ["sh", "bash", "dash"];

pub(crate) fn examine(daemon: &Daemon, app: &App, found: &mut Vec<Finding>) {
    if app.settings.module {
        return;
    }
    let past = daemon.journal.as_ref().and_then(|journal| journal.of(app.settings.pm_id));
    let checks = [
        stop_exit_codes(daemon, app),
        kill_timeout(daemon, app, past),
        listen_timeout(daemon, app, past),
        endless_restarts(daemon, app, past),
        wrapper(daemon, app),
        orphans_to_be(daemon, app),
        autorestart(daemon, app, past),
        core_files(daemon, app, past),
    ];
    found.extend(checks.into_iter().flatten().map(|finding| finding.of(&app.settings)));
    found.extend(watch(daemon, app).into_iter().map(|finding| finding.of(&app.settings)));
    found.extend(lost_logs(daemon, app).into_iter().map(|finding| finding.of(&app.settings)));
}

fn stop_exit_codes(daemon: &Daemon, app: &App) -> Option<Finding> {
    let codes = &app.settings.stop_exit_codes;
    codes.contains(&0).then(|| {
        let others: Vec<String> = codes.iter().filter(|code| **code != 0).map(i64::to_string).collect();
        let change = match others.len() {
            0 => "remove stop_exit_codes".to_owned(),
            _ => format!("stop_exit_codes: [{}]", others.join(", ")),
        };
        Finding::new(
            Check::StopExitCodes,
            Severity::Critical,
            &daemon.name,
            "stop_exit_codes holds 0",
            "pm2 records code 0 for every death by signal (heap limit, kernel OOM, SIGSEGV) and for every uncaught exception in \
             cluster mode, so each of these stops the app for good, silently",
            change,
        )
    })
}

fn kill_timeout(daemon: &Daemon, app: &App, past: Option<&Past>) -> Option<Finding> {
    let AppSettings { kill_timeout: set, .. } = app.settings;
    let (what, wait) = match (past.and_then(|past| past.killed), set) {
        (Some((times, after)), _) => {
            let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
            (format!("pm2 killed it {times} because it had not ended {after} ms after SIGINT"), after)
        }
        (None, Some(set)) if set < UNIT_SLIP => {
            (format!("kill_timeout is {set} ms: pm2 counts milliseconds, not seconds"), set.max(1) * 1000)
        }
        (None, _) => return None,
    };
    let wait = if wait >= 1000 { wait } else { set.unwrap_or(KILL_TIMEOUT).max(wait) };
    Some(Finding::new(
        Check::KillTimeout,
        Severity::Warning,
        &daemon.name,
        what,
        "after kill_timeout pm2 sends SIGKILL: open requests are cut off and nothing is saved",
        format!("kill_timeout: {}", (wait * 2).clamp(5000, 60_000)),
    ))
}

fn listen_timeout(daemon: &Daemon, app: &App, past: Option<&Past>) -> Option<Finding> {
    let settings = &app.settings;
    let limit = settings.listen_timeout.unwrap_or(LISTEN_TIMEOUT);
    let seconds = i64::try_from(limit / 1000).unwrap_or(i64::MAX);
    let boot = past.and_then(|past| past.boot).filter(|boot| settings.wait_ready && *boot >= seconds.max(1));
    let (severity, what, change) = if settings.listen_timeout.is_some_and(|limit| limit < UNIT_SLIP) {
        let what = format!("listen_timeout is {limit} ms: pm2 counts milliseconds, not seconds");
        (Severity::Warning, what, format!("listen_timeout: {}", limit.max(1) * 1000))
    } else if settings.wait_ready && app.says_ready == Some(false) {
        let what = "wait_ready is set, and its script never sends 'ready'".to_owned();
        (Severity::Warning, what, "process.send('ready') once the app listens, or remove wait_ready".to_owned())
    } else if let Some(boot) = boot {
        let what =
            format!("its last start took {boot} s without the message 'ready', and listen_timeout is {limit} ms");
        let wait = u64::try_from(boot).unwrap_or(0).max(limit / 1000) * 3000;
        (Severity::Warning, what, format!("listen_timeout: {wait}, and process.send('ready') once the app listens"))
    } else {
        return None;
    };
    Some(Finding::new(
        Check::ListenTimeout,
        severity,
        &daemon.name,
        what,
        "after listen_timeout pm2 takes the new process for ready and stops the old one, whether or not anybody answers; until then \
         every start waits in vain",
        change,
    ))
}

/// How often a minute it dies, where it dies again and again: not where it has come to run since.
fn dies_again_and_again(app: &App, past: Option<&Past>) -> Option<f64> {
    let settled = app.live.as_ref().and_then(|live| live.uptime).is_some_and(|uptime| uptime > SETTLED);
    past.and_then(Past::loop_rate).filter(|rate| *rate >= 0.5 && !settled)
}

fn endless_restarts(daemon: &Daemon, app: &App, past: Option<&Past>) -> Option<Finding> {
    let settings = &app.settings;
    let given_up = matches!(settings.status.as_deref(), Some("errored" | "stopped"));
    let rate = dies_again_and_again(app, past).filter(|_| !given_up)?;
    let deaths = &past?.deaths;
    let min_uptime = settings.min_uptime.unwrap_or(MIN_UPTIME);
    let window = min_uptime.saturating_mul(settings.max_restarts.unwrap_or(MAX_RESTARTS)) / 1000;
    let span = deaths.first().zip(deaths.last()).map_or(0, |(first, last)| last.abs_diff(*first));
    let between = span * 1000 / (deaths.len() as u64).saturating_sub(1).max(1);
    (span > window || between > min_uptime).then(|| {
        Finding::new(
            Check::EndlessRestarts,
            Severity::Critical,
            &daemon.name,
            format!("it dies and is started again {} times a minute, and pm2 does not give it up", rounded(rate)),
            format!(
                "pm2 counts only runs shorter than min_uptime, and only within min_uptime × max_restarts ({window} s) of the first \
                 start: an app that boots slower loops for ever and is never `errored`"
            ),
            format!("min_uptime: {}, exp_backoff_restart_delay: 100", (between * 2).clamp(5000, 600_000)),
        )
    })
}

fn rounded(rate: f64) -> String {
    if rate >= 10.0 || rate.fract() < 0.05 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

fn wrapper(daemon: &Daemon, app: &App) -> Option<Finding> {
    let settings = &app.settings;
    let script = settings.script_name();
    let interpreter = settings.interpreter.as_deref().unwrap_or_default();
    let named = [script, interpreter].into_iter().find(|name| WRAPPERS.contains(name));
    let children = app.live.as_ref().map(|live| live.children);
    // A shell that has no child has become the app itself.
    let wraps = named.filter(|name| match children {
        Some(children) => children > 0,
        None => !SHELLS.contains(name),
    });
    if let Some(name) = wraps {
        return Some(Finding::new(
            Check::Wrapper,
            Severity::Warning,
            &daemon.name,
            format!("pm2 runs {name}, which runs the app"),
            "memory limits, signals, the heap flag and pm2's figures are about the wrapper; the app behind it is neither measured \
             by pm2 nor told that it is to end",
            "script: the file that `npm start` runs, such as \"server.js\"",
        ));
    }
    let children = children.filter(|children| *children > 0 && !settings.kills_tree)?;
    let (number, stay) =
        if children == 1 { ("a child".to_owned(), "stays") } else { (format!("{children} children"), "stay") };
    Some(Finding::new(
        Check::Wrapper,
        Severity::Warning,
        &daemon.name,
        format!("treekill is false, and it has {number}"),
        format!("pm2 signals the parent alone, so whatever that does not end itself {stay} behind at every restart"),
        "treekill: true",
    ))
}

fn orphans_to_be(daemon: &Daemon, app: &App) -> Option<Finding> {
    let settings = &app.settings;
    let (what, change) = match (settings.cluster, settings.is_node(), settings.agent) {
        (false, true, false) => ("it runs in fork mode with pmx: false", "remove pmx: false"),
        (false, false, _) if settings.interpreter.is_some() => (
            "it is no Node.js app, so nothing tells it when pm2 dies",
            "end it when its parent is gone (prctl PR_SET_PDEATHSIG), and run pm2 under systemd with KillMode=control-group",
        ),
        _ => return None,
    };
    Some(Finding::new(
        Check::Orphans,
        Severity::Note,
        &daemon.name,
        what,
        "when pm2's daemon is killed it lives on, and `pm2 resurrect` starts a second copy beside it",
        change,
    ))
}

fn autorestart(daemon: &Daemon, app: &App, past: Option<&Past>) -> Option<Finding> {
    let settings = &app.settings;
    if !settings.autorestart && !settings.scheduled {
        return Some(Finding::new(
            Check::Autorestart,
            Severity::Warning,
            &daemon.name,
            "autorestart is false",
            "whatever ends it, a crash or the kernel, pm2 leaves it down",
            "autorestart: true",
        ));
    }
    let errored = settings.status.as_deref() == Some("errored");
    let loops = dies_again_and_again(app, past).is_some() || errored;
    let paused = settings.restart_delay.unwrap_or(0) > 0 || settings.backoff.unwrap_or(0) > 0;
    (loops && !paused).then(|| {
        let what = if errored {
            "pm2 gave it up after too many short runs, one right after the other"
        } else {
            "it dies again and again, and pm2 starts it again without a pause"
        };
        Finding::new(
            Check::Autorestart,
            if errored { Severity::Critical } else { Severity::Warning },
            &daemon.name,
            what,
            "a database that is away for ten seconds is enough: sixteen starts are used up in that time, and the app stays down; and \
             the loop takes a core",
            "exp_backoff_restart_delay: 100",
        )
    })
}

fn core_files(daemon: &Daemon, app: &App, past: Option<&Past>) -> Option<Finding> {
    let crashes = past?.native_crashes;
    let limit = app.live.as_ref().and_then(|live| live.core_limit);
    (crashes > 0 && limit == Some(0)).then(|| {
        Finding::new(
            Check::CoreFiles,
            Severity::Warning,
            &daemon.name,
            format!("it died of a native crash ({crashes} in pm2's log), and it may write no core file"),
            "SIGSEGV leaves no line in any log: only a core file names the add-on",
            "LimitCORE=infinity in pm2's unit (or `ulimit -c unlimited` before pm2 starts), and a core_pattern",
        )
    })
}

fn watch(daemon: &Daemon, app: &App) -> Vec<Finding> {
    let settings = &app.settings;
    let Some(folders) = &settings.watch else { return Vec::new() };
    let mut found = Vec::new();
    if settings.production {
        found.push(Finding::new(
            Check::Watch,
            Severity::Warning,
            &daemon.name,
            "watch is on, and NODE_ENV is production",
            "whatever writes into its folder (a deployment half done, an upload, chown) restarts it, with all its connections",
            "watch: false",
        ));
    }
    let base = settings.folder.as_deref().unwrap_or_default();
    let absolute = |path: &str| joined(base, path);
    let watched: Vec<String> = if folders.is_empty() {
        vec![base.to_owned()]
    } else {
        folders.iter().map(|folder| absolute(folder)).collect()
    };
    let ignored = |path: &str| {
        let hidden = settings.ignore_watch.is_empty() && (path.contains("/.") || path.contains("node_modules"));
        hidden || settings.ignore_watch.iter().any(|part| names(part, path))
    };
    let own = |path: &&String| {
        watched.iter().any(|folder| {
            path.strip_prefix(folder.trim_end_matches('/'))
                .is_some_and(|rest| rest.starts_with('/') && !folder.is_empty() && !ignored(rest))
        })
    };
    if let Some(log) = settings.logs.iter().find(own) {
        found.push(Finding::new(
            Check::Watch,
            Severity::Critical,
            &daemon.name,
            format!("it is restarted by its own log: {log} lies in a folder that is watched"),
            "every line that it writes restarts it",
            format!("ignore_watch: [\"node_modules\", \"{}\"]", log.rsplit('/').nth(1).unwrap_or("logs")),
        ));
    }
    found
}

/// Whether a pattern of `ignore_watch` (a name, a path or a glob) is about a path.
fn names(pattern: &str, path: &str) -> bool {
    let plain = pattern.trim_start_matches("./").trim_matches(['*', '/']);
    !plain.is_empty() && path.split('/').any(|part| part == plain)
        || (plain.contains('.') && path.ends_with(plain))
        || { plain.contains('/') && path.contains(plain) }
}

fn joined(base: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = base.split('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn lost_logs(daemon: &Daemon, app: &App) -> Vec<Finding> {
    let settings = &app.settings;
    let mut found = Vec::new();
    if settings.error_log.as_deref() == Some("/dev/null") {
        found.push(Finding::new(
            Check::Logs,
            Severity::Warning,
            &daemon.name,
            "its errors go to /dev/null",
            "the text of a crash, V8's own included, is written there and nowhere else",
            "remove error_file",
        ));
    }
    let several = daemon.apps.iter().filter(|other| other.settings.name == settings.name).count() > 1
        || settings.instances.is_some_and(|instances| instances > 1);
    if settings.merged_logs && several {
        found.push(Finding::new(
            Check::Logs,
            Severity::Note,
            &daemon.name,
            "merge_logs is on, and it has several processes",
            "all write one file, so nobody can tell which of them an error is of",
            "merge_logs: false",
        ));
    }
    for log in &app.logs {
        if let Some(why) = &log.unreadable {
            found.push(Finding::new(
                Check::Journal,
                Severity::Note,
                &daemon.name,
                format!("its log {} cannot be read: {why}", log.path),
                "why it died stands there, and leakslope cannot look it up",
                "run leakslope as pm2's user, or let its group read the file",
            ));
        }
    }
    found
}
