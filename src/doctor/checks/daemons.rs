//! The checks of a daemon, what surrounds it and the host.

use std::collections::BTreeMap;

use crate::model::Bytes;

use super::facts::{Daemon, Dump, Host, Output};
use super::finding::{Check, Finding, Severity};

/// A log of this size is one that nobody rotates.
const LARGE_LOG: u64 = 1 << 30;
/// A daemon that holds this much is larger than it should be.
const LARGE_DAEMON: Bytes = Bytes(256 << 20);
const MOST_NAMED: usize = 5;

pub(crate) fn examine(host: &Host, daemon: &Daemon, found: &mut Vec<Finding>) {
    let checks = [
        oom_policy(daemon),
        large_logs(daemon),
        no_journal(daemon),
        no_stamps(daemon),
        orphans(daemon),
        dump(daemon),
        oom_score(daemon),
        core_pattern(host, daemon),
        kernel_log(host, daemon),
    ];
    found.extend(checks.into_iter().flatten());
}

fn oom_policy(daemon: &Daemon) -> Option<Finding> {
    let unit = daemon.unit.as_ref()?;
    let policy = unit.oom_policy.as_deref()?;
    (policy != "continue").then(|| {
        Finding::new(
            Check::OomPolicy,
            Severity::Warning,
            &daemon.name,
            format!("systemd's unit {} has OOMPolicy={policy}", unit.name),
            "when the kernel kills one process for memory, even a child of an app, systemd ends the whole unit: pm2 and every app",
            format!("[Service] OOMPolicy=continue, by `systemctl edit {}`", unit.name),
        )
    })
}

fn large_logs(daemon: &Daemon) -> Option<Finding> {
    let rotates = daemon.apps.iter().any(|app| app.settings.module && app.settings.name.contains("logrotate"));
    let logs = daemon.apps.iter().flat_map(|app| &app.logs);
    let large: BTreeMap<&str, u64> =
        logs.filter_map(|log| Some((log.path.as_str(), log.size?))).filter(|(_, size)| *size > LARGE_LOG).collect();
    let (path, size) = large.iter().max_by_key(|(_, size)| **size).filter(|_| !rotates)?;
    let more = if large.len() > 1 { format!(" ({} files are as large)", large.len()) } else { String::new() };
    Some(Finding::new(
        Check::Logs,
        Severity::Warning,
        &daemon.name,
        format!("{path} holds {}, and nothing rotates it{more}", Bytes(*size)),
        "it fills the disk; then no app can write, and pm2 cannot save its list",
        "pm2 install pm2-logrotate",
    ))
}

fn no_journal(daemon: &Daemon) -> Option<Finding> {
    let what = match daemon.output.as_ref()? {
        Output::File(_) => return None,
        Output::Nowhere => "the daemon's own output goes to /dev/null",
        Output::Elsewhere => "the daemon writes its own log to no file, but to whoever started it",
    };
    Some(Finding::new(
        Check::Journal,
        Severity::Note,
        &daemon.name,
        what,
        "only there does pm2 name the signal and the reason of each death; leakslope cannot read it afterwards",
        "PM2_LOG_FILE_PATH=/path/to/pm2.log for the daemon; under pm2-runtime keep the container's log",
    ))
}

fn no_stamps(daemon: &Daemon) -> Option<Finding> {
    (daemon.stamps == Some(false)).then(|| {
        Finding::new(
            Check::Journal,
            Severity::Warning,
            &daemon.name,
            "PM2_LOG_DATE_FORMAT is empty",
            "pm2.log carries no times and pm2's bus no lines, so no death can be matched with its reason",
            "remove PM2_LOG_DATE_FORMAT from the daemon's environment",
        )
    })
}

fn orphans(daemon: &Daemon) -> Option<Finding> {
    let orphans = daemon.orphans.as_ref().filter(|orphans| !orphans.is_empty())?;
    let pids: Vec<String> = orphans.iter().take(MOST_NAMED).map(|orphan| orphan.pid.to_string()).collect();
    let sum: Bytes = orphans.iter().map(|orphan| orphan.resident).sum();
    let (processes, hold) = if orphans.len() == 1 { ("process", "holds") } else { ("processes", "hold") };
    Some(Finding::new(
        Check::Orphans,
        Severity::Warning,
        &daemon.name,
        format!(
            "{} {processes} of earlier runs {hold} {sum}; pm2 no longer knows them (pid {})",
            orphans.len(),
            pids.join(", ")
        ),
        "they keep memory, ports and locks, and answer with old code beside the new",
        format!("kill {}", pids.join(" ")),
    ))
}

fn dump(daemon: &Daemon) -> Option<Finding> {
    // Under pm2-runtime the list comes from the ecosystem file each time.
    if !matches!(daemon.output, Some(Output::File(_))) {
        return None;
    }
    let mut listed: BTreeMap<&str, i64> = BTreeMap::new();
    for app in daemon.apps.iter().filter(|app| !app.settings.module) {
        *listed.entry(&app.settings.name).or_default() += 1;
    }
    if listed.is_empty() {
        return None;
    }
    let what = match daemon.dump.as_ref()? {
        Dump::Missing => "the list was never saved: there is no dump.pm2".to_owned(),
        Dump::Broken => "dump.pm2 holds no list".to_owned(),
        Dump::Names(names) => {
            for name in names {
                *listed.entry(name).or_default() -= 1;
            }
            let differ: Vec<&str> =
                listed.into_iter().filter(|(_, number)| *number != 0).map(|(name, _)| name).collect();
            if differ.is_empty() {
                return None;
            }
            let shown = differ.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if differ.len() > MOST_NAMED { ", …" } else { "" };
            format!("the saved list differs from what runs: {shown}{more}")
        }
    };
    Some(Finding::new(
        Check::Dump,
        Severity::Warning,
        &daemon.name,
        what,
        "after a reboot, or when the daemon dies, `pm2 resurrect` brings back what was saved and nothing else",
        "pm2 save",
    ))
}

fn oom_score(daemon: &Daemon) -> Option<Finding> {
    let own = daemon.oom_adjustment?;
    let why =
        "a dead daemon takes its cluster workers with it at once and leaves the rest without anybody who restarts them";
    let live = || daemon.apps.iter().filter_map(|app| app.live.as_ref());
    let finding = |what: String, change: &str| {
        Some(Finding::new(Check::OomScore, Severity::Warning, &daemon.name, what, why, change))
    };
    let least = live().filter_map(|live| live.oom_adjustment).min();
    if let Some(least) = least.filter(|least| own > *least) {
        return finding(
            format!("the kernel kills the daemon (oom_score_adj {own}) rather than an app ({least})"),
            "OOMScoreAdjust=-500 in pm2's unit, or `choom -p $(cat ~/.pm2/pm2.pid) -n -500`",
        );
    }
    let group = daemon.group.as_ref().filter(|group| group.limit.is_some())?;
    let shared = live().any(|live| live.group.as_ref().is_some_and(|other| other.path == group.path));
    if shared && group.dies_together {
        return finding(
            "the daemon and its apps share a control group that the kernel kills as a whole (memory.oom.group)"
                .to_owned(),
            "a limit for each app (max_memory_restart below the group's), or one container for each app",
        );
    }
    let largest = live().filter_map(|live| live.resident).max();
    let held = daemon.resident.filter(|held| *held > LARGE_DAEMON && largest.is_none_or(|largest| *held > largest))?;
    if !shared {
        return None;
    }
    finding(
        format!("the daemon holds {held}, more than any app in its control group, so the kernel kills it first"),
        "pm2 update, and oom_score_adj below the apps'",
    )
}

fn core_pattern(host: &Host, daemon: &Daemon) -> Option<Finding> {
    let pattern = host.core_pattern.as_deref()?;
    let crashes = |app: &super::App| {
        let past = daemon.journal.as_ref().and_then(|journal| journal.of(app.settings.pm_id));
        past.is_some_and(|past| past.native_crashes > 0)
    };
    let names: Vec<&str> =
        daemon.apps.iter().filter(|app| crashes(app)).map(|app| app.settings.name.as_str()).take(MOST_NAMED).collect();
    (pattern.is_empty() && !names.is_empty()).then(|| {
        Finding::new(
            Check::CoreFiles,
            Severity::Warning,
            &daemon.name,
            format!("{} died of a native crash, and the kernel writes core files nowhere", names.join(", ")),
            "SIGSEGV leaves no line in any log: only a core file names the add-on",
            "sysctl kernel.core_pattern=/var/crash/core.%e.%p",
        )
    })
}

fn kernel_log(host: &Host, daemon: &Daemon) -> Option<Finding> {
    let runs = daemon.pid.is_some() && daemon.apps.iter().any(|app| app.settings.runs());
    (runs && host.reads_kernel_log == Some(false)).then(|| {
        Finding::new(
            Check::KernelLog,
            Severity::Note,
            &daemon.name,
            "the kernel's log may not be read (dmesg_restrict is 1, and leakslope has no CAP_SYSLOG)",
            "whether the kernel killed an app for memory is then likely at best, never certain",
            "AmbientCapabilities=CAP_SYSLOG in leakslope's unit, or sysctl kernel.dmesg_restrict=0",
        )
    })
}
