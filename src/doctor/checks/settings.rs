//! How an app is set up, from pm2's list, its dump or an ecosystem file.
//!
//! Each field is read alone and leniently, for an app's environment may overwrite pm2's own fields; one of the wrong kind is
//! absent. Fields that are not named here are passed over without being decoded. Of `NODE_OPTIONS`, `node_args` and `args`
//! nothing is kept but a heap limit, and of `NODE_ENV` whether it says production.

use crate::model::{AppName, Bytes, DEFAULT_NAMESPACE, plain};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

const LONGEST_NAME: usize = 128;
const LONGEST_PATH: usize = 1024;
const MOST_ENTRIES: usize = 5000;
/// Where pm2 begins to take a bare number of its settings for mebibytes it does not: it counts bytes.
const KIB: u64 = 1024;

/// How one app is set up.
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of pm2's")]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppSettings {
    /// pm2's number; none in an ecosystem file.
    pub pm_id: Option<u32>,
    /// Its name, with its namespace where that is not pm2's default.
    pub name: String,
    /// Its pid.
    pub pid: Option<u32>,
    /// pm2's word for its state.
    pub status: Option<String>,
    /// Whether pm2 installed it as a module.
    pub module: bool,
    /// Whether it runs in cluster mode.
    pub cluster: bool,
    /// How many processes of it there are to be.
    pub instances: Option<u64>,
    /// The script, or the program.
    pub script: Option<String>,
    /// Its working directory.
    pub folder: Option<String>,
    /// The interpreter's file name.
    pub interpreter: Option<String>,
    /// The heap limit among Node's arguments or `NODE_OPTIONS`.
    pub heap_flag: Option<Bytes>,
    /// The same where it stands in `NODE_OPTIONS` alone.
    pub options_flag: Option<Bytes>,
    /// The heap limit among the script's own arguments, where V8 never sees it.
    pub misplaced_flag: Option<Bytes>,
    /// Whether `NODE_ENV` is `production`.
    pub production: bool,
    /// Whether pm2's agent is loaded.
    pub agent: bool,
    /// pm2's memory limit; zero counts as none.
    pub max_memory_restart: Option<Bytes>,
    /// Milliseconds between SIGINT and SIGKILL.
    pub kill_timeout: Option<u64>,
    /// Milliseconds that pm2 waits for a new worker.
    pub listen_timeout: Option<u64>,
    /// Whether the app says itself when it is ready.
    pub wait_ready: bool,
    /// Milliseconds after which a start counts as stable.
    pub min_uptime: Option<u64>,
    /// Unstable starts after which pm2 gives up.
    pub max_restarts: Option<u64>,
    /// Milliseconds between a death and the next start.
    pub restart_delay: Option<u64>,
    /// Milliseconds of the first of growing pauses.
    pub backoff: Option<u64>,
    /// Whether pm2 starts it again when it ends.
    pub autorestart: bool,
    /// Whether it is started by the clock.
    pub scheduled: bool,
    /// Exit codes that are not restarted.
    pub stop_exit_codes: Vec<i64>,
    /// The folders that are watched, where any are.
    pub watch: Option<Vec<String>>,
    /// What of them is not.
    pub ignore_watch: Vec<String>,
    /// Whether all its processes write one log.
    pub merged_logs: bool,
    /// The log files.
    pub logs: Vec<String>,
    /// The one of errors.
    pub error_log: Option<String>,
    /// Whether children are signalled, too.
    pub kills_tree: bool,
    /// Restarts so far.
    pub restarts: Option<u64>,
    /// Starts that were too short, so far.
    pub unstable_restarts: Option<u64>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    pm_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pid: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    pm2_env: Option<&'a RawValue>,
}

macro_rules! environment {
    ($($name:ident),+ $(,)?) => {
        #[derive(Deserialize, Default)]
        #[allow(non_snake_case, reason = "pm2's own names")]
        struct Environment<'a> {
            $(#[serde(borrow, default)] $name: Option<&'a RawValue>,)+
        }
    };
}

environment! {
    name, namespace, status, pmx_module, exec_mode, instances, pm_exec_path, pm_cwd, exec_interpreter, node_args, args,
    NODE_OPTIONS, NODE_ENV, pmx, max_memory_restart, kill_timeout, listen_timeout, wait_ready, min_uptime, max_restarts,
    restart_delay, exp_backoff_restart_delay, autorestart, cron_restart, stop_exit_codes, watch, ignore_watch, merge_logs,
    pm_out_log_path, pm_err_log_path, treekill, restart_time, unstable_restarts,
}

/// Reads a reply to `getMonitorData`; none where it holds no list.
pub fn read_reply(json: &[u8]) -> Option<Vec<AppSettings>> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow)]
        args: Vec<&'a RawValue>,
    }
    let reply: Reply<'_> = serde_json::from_slice(json).ok()?;
    let entries: Vec<&RawValue> = serde_json::from_str(reply.args.first()?.get()).ok()?;
    Some(entries.into_iter().take(MOST_ENTRIES).filter_map(read_entry).collect())
}

fn read_entry(entry: &RawValue) -> Option<AppSettings> {
    let entry: Entry<'_> = serde_json::from_str(entry.get()).ok()?;
    let environment: Environment<'_> = serde_json::from_str(entry.pm2_env?.get()).ok()?;
    let mut app = read_environment(&environment);
    app.pm_id = Some(u32::try_from(whole(entry.pm_id)?).ok()?);
    app.pid = whole(entry.pid).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    if let Some(name) = text(entry.name, LONGEST_NAME) {
        app.name = named(&environment, &name);
    }
    Some(app)
}

/// Reads the apps of an ecosystem file, given as pm2 would list them: an array of environments.
pub fn read_ecosystem(json: &[u8]) -> Option<Vec<AppSettings>> {
    let entries: Vec<&RawValue> = serde_json::from_slice(json).ok()?;
    let read =
        |entry: &RawValue| serde_json::from_str(entry.get()).ok().map(|environment| read_environment(&environment));
    Some(entries.into_iter().take(MOST_ENTRIES).filter_map(read).collect())
}

/// Reads the names in `dump.pm2`, one for each process; none where it holds no list.
pub fn read_dump(json: &[u8]) -> Option<Vec<String>> {
    let apps = read_ecosystem(json)?;
    Some(apps.into_iter().filter(|app| !app.module).map(|app| app.name).collect())
}

fn named(environment: &Environment<'_>, name: &str) -> String {
    let namespace = text(environment.namespace, LONGEST_NAME).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    AppName::new(&namespace, name).to_string()
}

fn read_environment(environment: &Environment<'_>) -> AppSettings {
    let own_name = text(environment.name, LONGEST_NAME).unwrap_or_else(|| "unnamed".to_owned());
    let options_flag = words(environment.NODE_OPTIONS).and_then(|words| heap_flag(&words));
    let path = |value| text(value, LONGEST_PATH);
    AppSettings {
        pm_id: None,
        name: named(environment, &own_name),
        pid: None,
        status: text(environment.status, LONGEST_NAME),
        module: flag(environment.pmx_module).unwrap_or(false),
        cluster: text(environment.exec_mode, LONGEST_NAME).is_some_and(|mode| mode.starts_with("cluster")),
        instances: whole(environment.instances),
        script: path(environment.pm_exec_path),
        folder: path(environment.pm_cwd),
        interpreter: path(environment.exec_interpreter).and_then(|path| file_name(&path).map(str::to_owned)),
        heap_flag: words(environment.node_args).and_then(|words| heap_flag(&words)).or(options_flag),
        options_flag,
        misplaced_flag: words(environment.args).and_then(|words| heap_flag(&words)),
        production: text(environment.NODE_ENV, LONGEST_NAME).is_some_and(|mode| mode == "production"),
        agent: flag(environment.pmx).unwrap_or(true),
        max_memory_restart: bytes(environment.max_memory_restart),
        kill_timeout: milliseconds(environment.kill_timeout),
        listen_timeout: milliseconds(environment.listen_timeout),
        wait_ready: flag(environment.wait_ready).unwrap_or(false),
        min_uptime: milliseconds(environment.min_uptime),
        max_restarts: whole(environment.max_restarts),
        restart_delay: milliseconds(environment.restart_delay),
        backoff: milliseconds(environment.exp_backoff_restart_delay),
        autorestart: flag(environment.autorestart).unwrap_or(true),
        scheduled: text(environment.cron_restart, LONGEST_NAME).is_some_and(|cron| cron != "0"),
        stop_exit_codes: codes(environment.stop_exit_codes),
        watch: watched(environment.watch),
        ignore_watch: list(environment.ignore_watch),
        merged_logs: flag(environment.merge_logs).unwrap_or(false),
        logs: [environment.pm_out_log_path, environment.pm_err_log_path].into_iter().filter_map(path).collect(),
        error_log: path(environment.pm_err_log_path),
        kills_tree: flag(environment.treekill).unwrap_or(true),
        restarts: whole(environment.restart_time),
        unstable_restarts: whole(environment.unstable_restarts),
    }
}

impl AppSettings {
    /// Whether Node.js runs it: by its interpreter, else by the script's ending.
    pub fn is_node(&self) -> bool {
        match self.interpreter.as_deref() {
            Some("none") | None => false,
            Some(name) => name.starts_with("node"),
        }
    }

    /// The script's file name.
    pub(crate) fn script_name(&self) -> &str {
        self.script.as_deref().and_then(file_name).unwrap_or_default()
    }

    /// Whether it is to run now.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.status.as_deref(), Some("online" | "launching"))
    }
}

fn file_name(path: &str) -> Option<&str> {
    path.rsplit(['/', '\\']).next().filter(|name| !name.is_empty())
}

fn value(raw: Option<&RawValue>) -> Option<Value> {
    serde_json::from_str(raw?.get()).ok()
}

/// A string, or a number as it is written, without control characters and cut to `limit` characters.
fn text(raw: Option<&RawValue>, limit: usize) -> Option<String> {
    let written = match value(raw)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let kept = plain(&written, limit);
    (!kept.is_empty()).then_some(kept)
}

fn whole(raw: Option<&RawValue>) -> Option<u64> {
    text(raw, LONGEST_NAME)?.parse().ok()
}

fn flag(raw: Option<&RawValue>) -> Option<bool> {
    match raw?.get() {
        "true" | "\"true\"" => Some(true),
        "false" | "\"false\"" => Some(false),
        _ => None,
    }
}

/// A number with the unit that pm2 takes: `K`, `M`, `G`; without one, bytes.
fn bytes(raw: Option<&RawValue>) -> Option<Bytes> {
    let text = text(raw, LONGEST_NAME)?;
    let (number, unit) = match text.strip_suffix(['K', 'k', 'M', 'm', 'G', 'g']) {
        None => (text.as_str(), 1),
        Some(number) => match text.as_bytes().last() {
            Some(b'K' | b'k') => (number, KIB),
            Some(b'M' | b'm') => (number, KIB * KIB),
            _ => (number, KIB * KIB * KIB),
        },
    };
    number.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0).map(Bytes)
}

/// A number with the unit that pm2 takes: `s`, `m`, `h`; without one, milliseconds.
fn milliseconds(raw: Option<&RawValue>) -> Option<u64> {
    let text = text(raw, LONGEST_NAME)?;
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        None => (text.as_str(), 1),
        Some(number) => match text.as_bytes().last() {
            Some(b's') => (number, 1000),
            Some(b'm') => (number, 60_000),
            _ => (number, 3_600_000),
        },
    };
    number.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// One text or several.
fn list(raw: Option<&RawValue>) -> Vec<String> {
    match value(raw) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => {
            items.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).take(MOST_ENTRIES).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

/// One code or several: pm2's command line leaves a bare number, or a text of several.
fn codes(raw: Option<&RawValue>) -> Vec<i64> {
    let one = |item: &Value| match item {
        Value::Number(number) => number.as_i64().into_iter().collect(),
        Value::String(text) => text.split([',', ' ']).filter_map(|code| code.trim().parse().ok()).collect(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Vec::new(),
    };
    match value(raw) {
        Some(Value::Array(items)) => items.iter().flat_map(one).collect(),
        Some(item) => one(&item),
        None => Vec::new(),
    }
}

/// The folders that are watched: an empty list where it is the app's own.
fn watched(raw: Option<&RawValue>) -> Option<Vec<String>> {
    match flag(raw) {
        Some(true) => Some(Vec::new()),
        Some(false) => None,
        None => Some(list(raw)).filter(|folders| !folders.is_empty()),
    }
}

/// The arguments as words, from an array of strings or from one string.
fn words(raw: Option<&RawValue>) -> Option<Vec<String>> {
    let parts = list(raw);
    (!parts.is_empty())
        .then(|| parts.iter().flat_map(|part| part.split_ascii_whitespace().map(str::to_owned)).collect())
}

/// The last `--max-old-space-size` among arguments, which counts mebibytes.
fn heap_flag(words: &[String]) -> Option<Bytes> {
    let mut limits = words.iter().enumerate().filter_map(|(place, word)| {
        let (name, value) = word.split_once('=').unwrap_or((word, words.get(place + 1).map_or("", String::as_str)));
        (name.replace('_', "-") == "--max-old-space-size")
            .then(|| value.trim_matches('"').parse::<u64>().ok()?.checked_mul(KIB * KIB))
            .flatten()
    });
    limits.rfind(|limit| *limit > 0).map(Bytes)
}
