//! The checks of limits: V8's, pm2's, the control group's and the machine's.

use std::collections::BTreeMap;

use crate::model::Bytes;

use super::facts::{App, Daemon, Group, Host};
use super::finding::{Check, Finding, Severity};

const MIB: u64 = 1 << 20;
/// How often pm2 looks at memory, in seconds.
const PM2_LOOKS_EVERY: f64 = 30.0;
/// V8 adds its young generation to the flag; what lies further off is another limit.
const YOUNG: u64 = 512 * MIB;
/// V8's own limit on a machine with much memory.
const MOST_BY_DEFAULT: u64 = 4144 * MIB;

pub(crate) fn examine(host: &Host, daemon: &Daemon, found: &mut Vec<Finding>) {
    groups(host, daemon, found);
    host_memory(host, daemon, found);
    for app in daemon.apps.iter().filter(|app| !app.settings.module) {
        let checks = [heap_flag(daemon, app), memory_restart(host, daemon, app)];
        found.extend(checks.into_iter().flatten().map(|finding| finding.of(&app.settings)));
    }
}

/// V8's limit of a process, as far as it is known: as it reported it, else by its flag.
fn heap_limit(app: &App) -> Option<Bytes> {
    app.live.as_ref().and_then(|live| live.heap_limit).or(app.settings.heap_flag)
}

/// What V8 takes for itself on this machine where nothing is set and it learns of no control group.
fn default_limit(host: &Host) -> Option<Bytes> {
    host.memory.map(|memory| Bytes((memory.0 / 4).min(MOST_BY_DEFAULT)))
}

fn groups(host: &Host, daemon: &Daemon, found: &mut Vec<Finding>) {
    let mut together: BTreeMap<&str, (&Group, Vec<Bytes>)> = BTreeMap::new();
    for app in daemon.apps.iter().filter(|app| !app.settings.module && app.settings.is_node()) {
        let Some(group) = app.live.as_ref().and_then(|live| live.group.as_ref()) else { continue };
        let Some(limit) = group.limit.filter(|limit| host.memory.is_none_or(|memory| *limit < memory)) else {
            continue;
        };
        let by_default = || default_limit(host).filter(|_| !group.is_version_2);
        let known = heap_limit(app);
        let Some(heap) = known.or_else(by_default) else { continue };
        if heap >= limit {
            let whose = if known.is_some() { "its heap limit" } else { "V8's own heap limit" };
            let finding = Finding::new(
                Check::HeapAboveGroup,
                Severity::Critical,
                &daemon.name,
                format!("{whose} of {heap} is not below the {limit} of its control group"),
                "the kernel kills the process long before V8 would collect hard or say that it ran out of heap",
                format!("node_args: \"--max-old-space-size={}\"", (limit.0 / MIB * 7 / 10).max(1)),
            );
            found.push(finding.of(&app.settings));
        } else if let Some(known) = known {
            together.entry(&group.path).or_insert_with(|| (group, Vec::new())).1.push(known);
        }
    }
    for (group, heaps) in together.into_values() {
        let Some(limit) = group.limit else { continue };
        let shares = daemon.group.as_ref().is_some_and(|own| own.path == group.path);
        let own = daemon.resident.filter(|_| shares).unwrap_or_default();
        let sum = heaps.iter().copied().sum::<Bytes>().saturating_add(own);
        if sum >= limit && heaps.len() > 1 {
            let each = (limit.0.saturating_sub(own.0) / MIB * 7 / 10 / heaps.len() as u64).max(1);
            found.push(Finding::new(
                Check::HeapAboveGroup,
                Severity::Warning,
                &daemon.name,
                format!(
                    "the heaps of {} processes may take {sum} together, and their control group has {limit}",
                    heaps.len()
                ),
                "the kernel kills one of them, perhaps another than the one that grew",
                format!("node_args: \"--max-old-space-size={each}\" for each, or fewer instances"),
            ));
        }
    }
}

fn host_memory(host: &Host, daemon: &Daemon, found: &mut Vec<Finding>) {
    let (Some(memory), Some(Bytes(0))) = (host.memory, host.swap) else { return };
    let in_group = |app: &&App| {
        let group = app.live.as_ref().and_then(|live| live.group.as_ref());
        group.is_some_and(|group| group.limit.is_some_and(|limit| limit < memory))
    };
    let heaps: Vec<Bytes> = daemon
        .apps
        .iter()
        .filter(|app| !in_group(app))
        .filter_map(|app| {
            let copies = if app.live.is_some() { 1 } else { app.settings.instances.unwrap_or(1).max(1) };
            Some(Bytes(app.settings.heap_flag?.0.saturating_mul(copies)))
        })
        .collect();
    let sum: Bytes = heaps.iter().copied().sum();
    if sum > memory {
        found.push(Finding::new(
            Check::HostMemory,
            Severity::Warning,
            &daemon.name,
            format!("heaps are allowed {sum}, the host has {memory}, no swap and no limit of a control group"),
            "when they fill, the kernel kills any process of the host, pm2 and sshd included",
            format!(
                "node_args: \"--max-old-space-size=…\" that together stay below {}, or MemoryMax= in pm2's unit",
                Bytes(memory.0 / 10 * 8)
            ),
        ));
    }
}

fn heap_flag(daemon: &Daemon, app: &App) -> Option<Finding> {
    let settings = &app.settings;
    let live = app.live.as_ref();
    let why = "the limit that was meant to protect the host does not hold, and the projected end is another";
    let finding = |what: String, change: String| {
        Some(Finding::new(Check::HeapFlag, Severity::Warning, &daemon.name, what, why, change))
    };
    if let Some(misplaced) = settings.misplaced_flag {
        return finding(
            format!("--max-old-space-size stands in args, where the script gets it and V8 does not ({misplaced})"),
            format!("node_args: \"--max-old-space-size={}\"", misplaced.0 / MIB),
        );
    }
    let flag = settings.heap_flag?;
    let in_arguments = settings.options_flag != Some(flag);
    if in_arguments && !settings.is_node() && settings.interpreter.is_some() {
        return finding(
            format!("node_args sets a heap limit of {flag}, and no Node.js reads it: the interpreter is another"),
            format!("env: {{ NODE_OPTIONS: \"--max-old-space-size={}\" }}", flag.0 / MIB),
        );
    }
    if let Some(reported) = live.and_then(|live| live.heap_limit) {
        let off = reported < flag || reported.0 > flag.0.saturating_add(YOUNG);
        if !off {
            return None;
        }
        return finding(
            format!("a heap limit of {flag} is configured, and the process reports {reported}"),
            format!("`pm2 restart {} --update-env`, or pm2 delete and start where node_args changed", settings.name),
        );
    }
    let used = live.and_then(|live| live.heap_used);
    if let Some(used) = used.filter(|used| used.0 > flag.0.saturating_add(YOUNG)) {
        return finding(
            format!("a heap limit of {flag} is configured, and {used} of heap are in use"),
            format!("pm2 delete {0} and start it again", settings.name),
        );
    }
    if !in_arguments && live.and_then(|live| live.has_options_flag) == Some(false) {
        return finding(
            format!("NODE_OPTIONS sets a heap limit of {flag} in pm2's list, and the running process does not have it"),
            format!("`pm2 restart {} --update-env`", settings.name),
        );
    }
    None
}

fn memory_restart(host: &Host, daemon: &Daemon, app: &App) -> Option<Finding> {
    let limit = app.settings.max_memory_restart?;
    let live = app.live.as_ref();
    let group = live.and_then(|live| live.group.as_ref()).and_then(|group| group.limit);
    let ceiling = [group, host.memory].into_iter().flatten().min();
    let floor = live.and_then(|live| live.floor.or(live.resident));
    let finding = |severity, what: String, why: &str, change: String| {
        Some(Finding::new(Check::MemoryRestart, severity, &daemon.name, what, why, change))
    };
    if limit.0 < MIB {
        return finding(
            Severity::Critical,
            format!("max_memory_restart is {} bytes: a number without a unit counts bytes", limit.0),
            "every process is larger than that, so pm2 restarts it every 30 seconds",
            format!("max_memory_restart: \"{}M\"", limit.0.max(1)),
        );
    }
    if let Some(floor) = floor.filter(|floor| limit <= *floor) {
        return finding(
            Severity::Critical,
            format!("max_memory_restart is {limit}, and the app needs {floor}"),
            "pm2 looks every 30 seconds and restarts it each time",
            format!("max_memory_restart: \"{}M\"", (floor.0 / MIB * 2).max(1)),
        );
    }
    let ceiling = ceiling?;
    if limit >= ceiling {
        let whose = if group == Some(ceiling) { "its control group has" } else { "the host has" };
        return finding(
            Severity::Warning,
            format!("max_memory_restart is {limit}, and {whose} {ceiling}"),
            "it never acts: the kernel kills the app first",
            format!("max_memory_restart: \"{}M\"", (ceiling.0 / MIB * 7 / 10).max(1)),
        );
    }
    let growth = live.and_then(|live| live.growth).filter(|growth| *growth > 0.0)?;
    let headroom = ceiling.0 - limit.0;
    (growth * PM2_LOOKS_EVERY > Bytes(headroom).as_f64()).then(|| {
        Finding::new(
            Check::MemoryRestart,
            Severity::Warning,
            &daemon.name,
            format!("it grows faster than pm2 looks: {} are left above max_memory_restart", Bytes(headroom)),
            "pm2 looks every 30 seconds; the kernel kills the app in between",
            format!("max_memory_restart: \"{}M\"", (limit.0 / MIB / 2).max(1)),
        )
    })
}
