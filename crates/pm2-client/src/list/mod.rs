//! Reading pm2's process list, whether it came by the socket or from the command.
//!
//! The list carries every app's environment twice, with its secrets. So it is read by an allow-list, and nothing else is
//! ever decoded; and since an app's environment can overwrite pm2's own fields, each field is read alone and leniently: a
//! wrong one is absent, a wrong entry is counted, and neither takes others with it. This room refuses to quote a value
//! in an error.

mod arriving;
mod fields;
mod metrics;
mod scan;

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::value::RawValue;
use thiserror::Error;

use self::fields::{fields, flag, label, number, whole, word};
use self::scan::{Json, Names, Scan};
use crate::budget::Budget;
use model::{AppMetrics, AppName, Bytes, DEFAULT_NAMESPACE, Ending, Listed, Status};

pub use self::arriving::ArrivingReply;
pub use self::metrics::CUSTOM_LIMIT;

const NAME_LIMIT: usize = 128;
const WORD_LIMIT: usize = 64;
/// The longest path that is kept.
const PATH_LIMIT: usize = 4096;
/// The most exit codes that are kept.
const CODES: usize = 32;

/// Why a reply holds no process list. No variant quotes any of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ListError {
    /// The text is not JSON.
    #[error("the reply of {length} bytes is not JSON from byte {offset} on")]
    NotJson {
        /// Where reading stopped.
        offset: usize,
        /// How long the reply is.
        length: usize,
    },
    /// The daemon answered with an error of its own.
    #[error("the daemon answered with an error (its text of {length} bytes is withheld, as it may hold secrets)")]
    Refused {
        /// Length of the error's text.
        length: usize,
    },
    /// JSON, but not of the expected shape.
    #[error("the reply is JSON but holds no {expected}")]
    Shape {
        /// What was looked for.
        expected: &'static str,
    },
}

/// What a process list says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessList {
    /// The entries by `pm_id`; of a `pm_id` that stands twice, the first entry.
    pub entries: Vec<Listed>,
    /// Entries beyond the bound.
    pub over_limit: usize,
    /// Metrics of the apps' own beyond the budget.
    pub metrics_left_out: usize,
    /// Entries that could not be read: no object, or without a `pm_id`.
    pub unreadable: usize,
    /// Entries whose `pm_id` had already been seen.
    pub repeated: usize,
}

impl ProcessList {
    /// Entries that the list held and that are not among `entries`.
    pub fn left_out(&self) -> usize {
        self.over_limit + self.unreadable + self.repeated
    }
}

/// Reads the JSON of a reply to `getMonitorData`, keeping at most `limit` entries.
pub fn read_reply(json: &[u8], limit: usize) -> Result<ProcessList, ListError> {
    entries(reply_argument(json)?, limit).ok_or(ListError::Shape { expected: "process list" })
}

/// Reads the list that the pm2 command prints, keeping at most `limit` entries.
pub fn read_list(json: &[u8], limit: usize) -> Result<ProcessList, ListError> {
    entries(parse(json)?, limit).ok_or(ListError::Shape { expected: "process list" })
}

/// Reads the JSON of a reply to `getVersion`.
pub fn read_version(json: &[u8]) -> Result<String, ListError> {
    let version = reply_argument(json).ok().and_then(|version| word(version, WORD_LIMIT));
    version.map(Cow::into_owned).ok_or(ListError::Shape { expected: "version" })
}

/// Checks that a text is JSON. The reader's own error is dropped but for its place: its message can quote what it read.
fn parse(json: &[u8]) -> Result<Json<'_>, ListError> {
    let not_json = |offset| ListError::NotJson { offset, length: json.len() };
    let text = std::str::from_utf8(json).map_err(|error| not_json(error.valid_up_to()))?;
    let checked: &RawValue = serde_json::from_str(text).map_err(|error| not_json(place_of(&error, text)))?;
    Ok(Json(checked.get()))
}

/// The byte of the text that an error is about.
fn place_of(error: &serde_json::Error, text: &str) -> usize {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    before + error.column()
}

/// What is read of a reply.
const REPLY: Names<2> = Names::new(["args", "error"]);

/// Returns the first argument of `{"args":[…]}`, or what the daemon's `{"error":…}` amounts to.
fn reply_argument(json: &[u8]) -> Result<Json<'_>, ListError> {
    let [arguments, error] = fields(parse(json)?, &REPLY);
    if let Some(error) = error {
        return Err(ListError::Refused { length: error.0.len() });
    }
    let first = arguments.and_then(Json::elements).and_then(|mut arguments| arguments.next());
    first.ok_or(ListError::Shape { expected: "arguments" })
}

/// Reads an array of entries, each of which is read alone; none where it is no array.
fn entries(list: Json<'_>, limit: usize) -> Option<ProcessList> {
    let mut gathered = Gathered::default();
    for entry in list.elements()? {
        if gathered.holds(limit) {
            gathered.list.over_limit += 1;
        } else {
            gathered.add(read_entry(&mut Scan::new(entry.0)).ok().flatten());
        }
    }
    Some(gathered.into_list())
}

/// The entries of a list on the way.
#[derive(Debug, Default)]
struct Gathered {
    numbers: BTreeSet<u32>,
    list: ProcessList,
    budget: Budget,
}

impl Gathered {
    /// Whether so many are kept.
    fn holds(&self, limit: usize) -> bool {
        self.numbers.len() >= limit
    }

    /// Adds what was read of an entry.
    fn add(&mut self, entry: Option<Listed>) {
        match entry {
            None => self.list.unreadable += 1,
            Some(entry) if self.numbers.insert(entry.pm_id) => self.keep(entry),
            Some(_again) => self.list.repeated += 1,
        }
    }

    /// Keeps an entry and its own metrics as far as the budget goes.
    fn keep(&mut self, mut entry: Listed) {
        match self.budget.admit(&mut entry) {
            Some(left_out) => {
                self.list.metrics_left_out += left_out;
                self.list.entries.push(entry);
            }
            None => self.list.over_limit += 1,
        }
    }

    fn into_list(mut self) -> ProcessList {
        self.list.entries.sort_by_key(|entry| entry.pm_id);
        self.list
    }
}

/// The only names that are read out of an entry.
const OUTER: Names<5> = Names::new(["pm2_env", "pid", "name", "pm_id", "monit"]);

/// The text ends too early or is no JSON.
#[derive(Debug)]
struct Stopped;

/// Reads the entry that comes next; none where it is no object or has no `pm_id`.
fn read_entry(scan: &mut Scan<'_>) -> Result<Option<Listed>, Stopped> {
    let mut outer = [None; 5];
    let mut environment = [None; 28];
    let mut metrics = AppMetrics::default();
    let read = scan.object(|name, scan| {
        match OUTER.place(name) {
            // The environment is nearly all of an entry, so it is read on the way; the others are a few bytes each.
            Some(0) => (environment, metrics) = read_environment(scan)?,
            Some(place) => outer[place] = Some(scan.value()?),
            None => scan.skip()?,
        }
        Some(())
    });
    read.ok_or(Stopped)?;
    Ok(listed(&outer, &environment, metrics))
}

/// Reads `pm2_env`: the values of its names but for the last, which are the metrics.
fn read_environment<'t>(scan: &mut Scan<'t>) -> Option<([Option<Json<'t>>; 28], AppMetrics)> {
    let mut environment = [None; 28];
    let mut metrics = AppMetrics::default();
    scan.object(|name, scan| {
        match ENVIRONMENT.place(name) {
            None => scan.skip()?,
            Some(place) => match environment.get_mut(place) {
                Some(slot) => *slot = Some(scan.value()?),
                None => metrics = metrics::read_metrics(scan)?,
            },
        }
        Some(())
    })?;
    Some((environment, metrics))
}

fn listed(outer: &[Option<Json<'_>>; 5], environment: &[Option<Json<'_>>; 28], metrics: AppMetrics) -> Option<Listed> {
    const MONIT: Names<2> = Names::new(["memory", "cpu"]);
    const VERSIONING: Names<1> = Names::new(["revision"]);
    let [_, pid, name, pm_id, monit] = *outer;
    let [
        inner_name,
        inner_id,
        status,
        uptime,
        restarts,
        unstable,
        namespace,
        module,
        mode,
        version,
        versioning,
        node,
        interpreter,
        pmx,
        instance,
        memory,
        arguments,
        node_options,
        kill,
        listen,
        min_uptime,
        wait_ready,
        autorestart,
        stop_exit_codes,
        exit_code,
        created,
        cron_restart,
        error_log,
    ] = *environment;
    let [monit_memory, monit_cpu] = monit.map_or([None; 2], |monit| fields(monit, &MONIT));
    let pm_id = pm_id.and_then(whole).or_else(|| inner_id.and_then(whole))?;
    let pm_id = u32::try_from(pm_id).ok()?;
    let app = name.and_then(named).or_else(|| inner_name.and_then(named));
    let namespace = namespace.and_then(named).unwrap_or(Cow::Borrowed(DEFAULT_NAMESPACE));
    let app = AppName::new(&namespace, &app.unwrap_or_else(|| Cow::Owned(pm_id.to_string())));
    Some(Listed {
        pm_id,
        app,
        pid: pid.and_then(whole).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        status: status.and_then(Json::string).map_or(Status::Unknown, |status| Status::from_pm2(&status)),
        pm_uptime: uptime.and_then(moment),
        created_at: created.and_then(moment),
        restarts: restarts.and_then(whole),
        unstable_restarts: unstable.and_then(whole),
        module: module.and_then(flag).unwrap_or(false),
        exec_mode: exec_mode(mode),
        version: version.and_then(|version| word(version, WORD_LIMIT)).map(Cow::into_owned),
        revision: versioning
            .and_then(|versioning| fields(versioning, &VERSIONING)[0])
            .and_then(|revision| word(revision, WORD_LIMIT))
            .filter(|revision| revision.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .map(Cow::into_owned),
        node_version: node.and_then(|node| word(node, WORD_LIMIT)).map(Cow::into_owned),
        interpreter: interpreter.and_then(file_name),
        pmx: pmx.and_then(flag).unwrap_or(true),
        instance: instance.and_then(whole).and_then(|instance| u32::try_from(instance).ok()),
        max_memory_restart: memory.and_then(whole).filter(|bytes| *bytes > 0).map(Bytes),
        max_old_space: arguments
            .and_then(node_arguments)
            .and_then(|arguments| max_old_space(&arguments))
            .or_else(|| node_options.and_then(Json::string).and_then(|options| max_old_space(&words(&options)))),
        kill_timeout_ms: kill.and_then(whole),
        listen_timeout_ms: listen.and_then(whole),
        min_uptime_ms: min_uptime.and_then(whole),
        wait_ready: wait_ready.and_then(flag).unwrap_or(false),
        autorestart: autorestart.and_then(flag).unwrap_or(true) && stop_exit_codes.is_none(),
        ending: Ending {
            exit_code: exit_code.and_then(whole).and_then(|code| i64::try_from(code).ok()),
            stop_exit_codes: stop_exit_codes.map(codes).unwrap_or_default(),
            stays_down: !autorestart.and_then(flag).unwrap_or(true),
            cron_restart: cron_restart.and_then(|cron| label(cron, WORD_LIMIT)).map(Cow::into_owned),
            error_log: error_log.and_then(Json::string).map(Cow::into_owned).filter(|path| path.len() <= PATH_LIMIT),
        },
        monit_memory: monit_memory.and_then(whole).filter(|bytes| *bytes > 0).map(Bytes),
        monit_cpu_percent: monit_cpu.and_then(number).filter(|percent| *percent >= 0.0),
        metrics,
    })
}

/// The only names that are read out of `pm2_env`, in the order in which [`listed`] takes them apart. Of `NODE_OPTIONS`
/// and `node_args` nothing is kept but the heap limit.
const ENVIRONMENT: Names<29> = Names::new([
    "name",
    "pm_id",
    "status",
    "pm_uptime",
    "restart_time",
    "unstable_restarts",
    "namespace",
    "pmx_module",
    "exec_mode",
    "version",
    "versioning",
    "node_version",
    "exec_interpreter",
    "pmx",
    "NODE_APP_INSTANCE",
    "max_memory_restart",
    "node_args",
    "NODE_OPTIONS",
    "kill_timeout",
    "listen_timeout",
    "min_uptime",
    "wait_ready",
    "autorestart",
    "stop_exit_codes",
    "exit_code",
    "created_at",
    "cron_restart",
    "pm_err_log_path",
    "axm_monitor",
]);

/// Milliseconds since the epoch.
fn moment(json: Json<'_>) -> Option<i64> {
    whole(json).and_then(|moment| i64::try_from(moment).ok()).filter(|moment| *moment > 0)
}

fn named(json: Json<'_>) -> Option<Cow<'_, str>> {
    label(json, NAME_LIMIT)
}

fn exec_mode(json: Option<Json<'_>>) -> &'static str {
    match json.and_then(Json::string).as_deref() {
        Some("fork_mode" | "fork") => "fork",
        Some("cluster_mode" | "cluster") => "cluster",
        _ => "unknown",
    }
}

/// Exit codes, one or an array of them, as numbers or text.
fn codes(json: Json<'_>) -> Vec<i64> {
    let code = |json| whole(json).and_then(|code| i64::try_from(code).ok());
    match json.elements() {
        Some(elements) => elements.filter_map(code).take(CODES).collect(),
        None => code(json).into_iter().collect(),
    }
}

fn file_name(json: Json<'_>) -> Option<String> {
    let path = label(json, usize::MAX)?;
    let name = path.rsplit(['/', '\\']).next()?;
    fields::clean(name, WORD_LIMIT).map(Cow::into_owned)
}

/// The arguments as words, from an array of strings or from one string.
fn node_arguments(json: Json<'_>) -> Option<Vec<String>> {
    if let Some(line) = json.string() {
        return Some(words(&line));
    }
    Some(json.elements()?.filter_map(Json::string).flat_map(|part| words(&part)).collect())
}

fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Returns the last `--max-old-space-size` among Node's arguments, which it counts in mebibytes.
fn max_old_space(arguments: &[String]) -> Option<Bytes> {
    let mut limit = None;
    for (index, argument) in arguments.iter().enumerate() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (argument.as_str(), arguments.get(index + 1).map(String::as_str)),
        };
        if flag.replace('_', "-") == "--max-old-space-size" {
            let mebibytes = value.and_then(|value| value.trim_matches('"').parse::<u64>().ok());
            limit = mebibytes.filter(|size| *size > 0).and_then(|size| size.checked_mul(1 << 20)).map(Bytes).or(limit);
        }
    }
    limit
}

#[cfg(test)]
mod tests;
