//! Reading pm2's process list, whether it came by the socket or from the command.
//!
//! The list carries every app's environment twice, with its secrets. So it is read by an allow-list, and nothing else is
//! ever decoded; and since an app's environment can overwrite pm2's own fields, each field is read alone and leniently: a
//! wrong one is absent, a wrong entry is counted, and neither takes others with it. This room refuses to quote a value
//! in an error.

mod arriving;
mod fields;
mod metrics;

use std::collections::BTreeMap;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;
use thiserror::Error;

use self::fields::{Fields, Found, KeyAmong, Lenient, Shape, fields, flag, label, number, read, string, whole, word};
use crate::model::{AppName, Bytes, Listed, Status};

pub use self::arriving::ArrivingReply;
pub use self::metrics::CUSTOM_LIMIT;

const NAME_LIMIT: usize = 128;
const WORD_LIMIT: usize = 64;

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
    reply_argument(json, || Entries { limit })?.ok_or(ListError::Shape { expected: "process list" })
}

/// Reads the list that the pm2 command prints, keeping at most `limit` entries.
pub fn read_list(json: &[u8], limit: usize) -> Result<ProcessList, ListError> {
    parse(json, Entries { limit })?.ok_or(ListError::Shape { expected: "process list" })
}

/// Reads the JSON of a reply to `getVersion`.
pub fn read_version(json: &[u8]) -> Result<String, ListError> {
    #[derive(serde::Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        args: Vec<&'a RawValue>,
    }
    let shape = ListError::Shape { expected: "version" };
    let reply: Reply<'_> = serde_json::from_slice(json).map_err(|_quotes_values| shape)?;
    reply.args.first().and_then(|version| word(version, WORD_LIMIT)).ok_or(shape)
}

/// Reads a text in one pass. The reader's own error is dropped but for its place: its message can quote what it read.
fn parse<'de, T: Shape<'de>>(json: &'de [u8], shape: T) -> Result<T::Value, ListError> {
    let not_json = |offset| ListError::NotJson { offset, length: json.len() };
    let text = std::str::from_utf8(json).map_err(|error| not_json(error.valid_up_to()))?;
    read(text, shape).map_err(|error| not_json(place_of(&error, text)))
}

/// The byte of the text that an error is about.
fn place_of(error: &serde_json::Error, text: &str) -> usize {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    before + error.column()
}

/// Reads the first argument of `{"args":[…]}`, or what the daemon's `{"error":…}` amounts to.
fn reply_argument<'de, T: Shape<'de>>(json: &'de [u8], shape: impl Fn() -> T) -> Result<T::Value, ListError> {
    let reply = parse(json, ReplyShape(shape))?;
    if let Some(length) = reply.error_length {
        return Err(ListError::Refused { length });
    }
    reply.first_argument.ok_or(ListError::Shape { expected: "arguments" })
}

struct ReplyShape<F>(F);

struct ReplyParts<V> {
    first_argument: Option<V>,
    error_length: Option<usize>,
}

impl<V> Default for ReplyParts<V> {
    fn default() -> Self {
        Self { first_argument: None, error_length: None }
    }
}

impl<'de, T: Shape<'de>, F: Fn() -> T> Shape<'de> for ReplyShape<F> {
    type Value = ReplyParts<T::Value>;

    fn of_object<M: MapAccess<'de>>(self, mut object: M) -> Result<Self::Value, M::Error> {
        let mut parts = ReplyParts::default();
        while let Some(key) = object.next_key_seed(KeyAmong(&["args", "error"]))? {
            match key {
                Some(0) => parts.first_argument = object.next_value_seed(Lenient(FirstOf((self.0)())))?,
                Some(_) => parts.error_length = Some(object.next_value::<&RawValue>()?.get().len()),
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(parts)
    }
}

/// The first element of an array.
struct FirstOf<T>(T);

impl<'de, T: Shape<'de>> Shape<'de> for FirstOf<T> {
    type Value = Option<T::Value>;

    fn of_array<S: SeqAccess<'de>>(self, mut array: S) -> Result<Self::Value, S::Error> {
        let first = array.next_element_seed(Lenient(self.0))?;
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}

/// The list as an array of entries, each of which is read alone.
struct Entries {
    limit: usize,
}

impl<'de> Shape<'de> for Entries {
    type Value = Option<ProcessList>;

    fn of_array<S: SeqAccess<'de>>(self, mut array: S) -> Result<Self::Value, S::Error> {
        let mut gathered = Gathered::default();
        while !gathered.holds(self.limit) {
            match array.next_element_seed(Lenient(Entry))? {
                None => break,
                Some(entry) => gathered.add(entry),
            }
        }
        while array.next_element::<IgnoredAny>()?.is_some() {
            gathered.list.over_limit += 1;
        }
        Ok(Some(gathered.into_list()))
    }
}

/// The entries of a list on the way.
#[derive(Debug, Default)]
struct Gathered {
    by_id: BTreeMap<u32, Listed>,
    list: ProcessList,
}

impl Gathered {
    /// Whether so many are kept.
    fn holds(&self, limit: usize) -> bool {
        self.by_id.len() >= limit
    }

    /// Adds what was read of an entry.
    fn add(&mut self, entry: Option<Listed>) {
        match entry {
            None => self.list.unreadable += 1,
            Some(entry) if self.by_id.contains_key(&entry.pm_id) => self.list.repeated += 1,
            Some(entry) => drop(self.by_id.insert(entry.pm_id, entry)),
        }
    }

    fn into_list(self) -> ProcessList {
        ProcessList { entries: self.by_id.into_values().collect(), ..self.list }
    }
}

/// One entry; none where it is no object or has no `pm_id`.
struct Entry;

impl<'de> Shape<'de> for Entry {
    type Value = Option<Listed>;

    fn of_object<M: MapAccess<'de>>(self, mut object: M) -> Result<Self::Value, M::Error> {
        let mut environment = Found::default();
        let mut outer = Found::default();
        // The environment is nearly all of an entry, so it is read in place; the others are a few bytes each.
        while let Some(index) = object.next_key_seed(KeyAmong(&OUTER))? {
            match index {
                Some(0) => environment = object.next_value_seed(Lenient(Fields(&ENVIRONMENT)))?,
                Some(index) => outer.0[index] = Some(object.next_value()?),
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(read_entry(&outer, &environment))
    }
}

/// The only names that are read out of an entry.
const OUTER: [&str; 5] = ["pm2_env", "pid", "name", "pm_id", "monit"];

fn read_entry(outer: &Found<'_, 5>, environment: &Found<'_, 22>) -> Option<Listed> {
    let [_, pid, name, pm_id, monit] = &outer.0;
    let [
        inner_name,
        inner_id,
        status,
        uptime,
        restarts,
        unstable,
        namespace,
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
        axm,
    ] = &environment.0;
    let [monit_memory, monit_cpu] = monit.map_or([None; 2], |monit| fields(monit, &["memory", "cpu"]));
    let pm_id = pm_id.and_then(whole).or_else(|| inner_id.and_then(whole))?;
    let pm_id = u32::try_from(pm_id).ok()?;
    let app = name.and_then(named).or_else(|| inner_name.and_then(named)).unwrap_or_else(|| pm_id.to_string());
    Some(Listed {
        pm_id,
        app: AppName::from(app.as_str()),
        pid: pid.and_then(whole).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        status: status.and_then(string).map_or(Status::Unknown, |status| Status::from_pm2(&status)),
        pm_uptime: uptime.and_then(whole).and_then(|uptime| i64::try_from(uptime).ok()).filter(|uptime| *uptime > 0),
        restarts: restarts.and_then(whole),
        unstable_restarts: unstable.and_then(whole),
        namespace: namespace.and_then(named),
        exec_mode: exec_mode(*mode),
        version: version.and_then(|version| word(version, WORD_LIMIT)),
        revision: versioning
            .and_then(|versioning| fields(versioning, &["revision"])[0])
            .and_then(|revision| word(revision, WORD_LIMIT))
            .filter(|revision| revision.bytes().all(|byte| byte.is_ascii_hexdigit())),
        node_version: node.and_then(|node| word(node, WORD_LIMIT)),
        interpreter: interpreter.and_then(file_name),
        pmx: pmx.and_then(flag).unwrap_or(true),
        instance: instance.and_then(whole).and_then(|instance| u32::try_from(instance).ok()),
        max_memory_restart: memory.and_then(whole).filter(|bytes| *bytes > 0).map(Bytes),
        max_old_space: arguments
            .and_then(node_arguments)
            .and_then(|arguments| max_old_space(&arguments))
            .or_else(|| node_options.and_then(string).and_then(|options| max_old_space(&words(&options)))),
        kill_timeout_ms: kill.and_then(whole),
        listen_timeout_ms: listen.and_then(whole),
        min_uptime_ms: min_uptime.and_then(whole),
        wait_ready: wait_ready.and_then(flag).unwrap_or(false),
        monit_memory: monit_memory.and_then(whole).filter(|bytes| *bytes > 0).map(Bytes),
        monit_cpu_percent: monit_cpu.and_then(number).filter(|percent| *percent >= 0.0),
        metrics: axm.map(metrics::read_metrics).unwrap_or_default(),
    })
}

/// The only names that are read out of `pm2_env`, in the order in which [`read_entry`] takes them apart. Of `NODE_OPTIONS`
/// and `node_args` nothing is kept but the heap limit.
const ENVIRONMENT: [&str; 22] = [
    "name",
    "pm_id",
    "status",
    "pm_uptime",
    "restart_time",
    "unstable_restarts",
    "namespace",
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
    "axm_monitor",
];

fn named(raw: &RawValue) -> Option<String> {
    label(raw, NAME_LIMIT)
}

fn exec_mode(raw: Option<&RawValue>) -> &'static str {
    match raw.and_then(string).as_deref() {
        Some("fork_mode" | "fork") => "fork",
        Some("cluster_mode" | "cluster") => "cluster",
        _ => "unknown",
    }
}

fn file_name(raw: &RawValue) -> Option<String> {
    let path = label(raw, usize::MAX)?;
    let name = path.rsplit(['/', '\\']).next()?;
    fields::clean(name, WORD_LIMIT)
}

/// The arguments as words, from an array of strings or from one string.
fn node_arguments(raw: &RawValue) -> Option<Vec<String>> {
    if let Some(line) = string(raw) {
        return Some(words(&line));
    }
    let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    Some(parts.into_iter().filter_map(string).flat_map(|part| words(&part)).collect())
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
