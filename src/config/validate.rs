//! From layers of text to [`Settings`]: the only road there is, and the place where every problem is collected.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::raw;
use super::tree::{Fault, Tree};
use super::{
    AppSettings, CollectSettings, HistorySettings, LogFormat, LogSettings, Problem, Settings, Surroundings,
    WebSettings, parse_duration, parse_size,
};
use crate::collect::{DaemonSpec, MetricsUrl, Source as ListSource};
use crate::evidence::EvidenceSettings;
use crate::evidence::original::Places;
use crate::model::{Bytes, DaemonName};
use crate::policy::{EvidenceBefore, Pattern, RestartSettings};

/// One file's text with its name, and the problems found in it so far.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    tree: Tree<'a>,
    /// Lines that are not TOML: what else is wrong with them is no use to say.
    broken: BTreeSet<usize>,
    problems: Vec<Problem>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let (tree, faults) = Tree::parse(text);
        let mut source = Self { name, text, tree, broken: BTreeSet::new(), problems: Vec::new() };
        // What is no TOML has no key.
        for (at, message) in faults {
            source.report(at, "", message);
        }
        source.broken = source.problems.iter().map(|problem| problem.line).collect();
        source
    }

    /// Reads the layout, as far as the text has it; what has another is a problem of its own.
    pub(super) fn read(&mut self) -> Option<raw::File> {
        let (file, faults) = self.tree.read();
        self.report_all(faults);
        file
    }

    /// Every problem in the order of the text.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    /// A list of names, each of letters that fit.
    fn names(
        &mut self,
        key: &str,
        value: Option<&Spanned<Vec<String>>>,
        fits: impl Fn(char) -> bool + Copy,
    ) -> Vec<String> {
        let Some(value) = value else { return Vec::new() };
        for name in value.get_ref().iter().filter(|name| name.is_empty() || !name.chars().all(fits)) {
            self.report(value.span().start, key, format!("\"{name}\" is no name: write it without a port or blanks"));
        }
        value.get_ref().clone()
    }

    fn report_all(&mut self, faults: Vec<Fault>) {
        for (at, message) in faults {
            let key = self.tree.key_at(at);
            self.report(at, &key, message);
        }
    }

    fn report(&mut self, offset: usize, key: &str, message: String) {
        let line = 1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
        let problem = Problem { file: self.name.to_owned(), line, key: key.to_owned(), message };
        if !self.broken.contains(&line) && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn duration(&mut self, key: &str, value: &Spanned<String>, least: &str, most: &str) -> Duration {
        let bound = |text| parse_duration(text).expect("invariant: bounds are written by us");
        match parse_duration(value.get_ref()) {
            Ok(duration) if duration >= bound(least) && duration <= bound(most) => return duration,
            Ok(_) => {
                let message = format!("\"{}\" is out of range: from {least} to {most}", value.get_ref());
                self.report(value.span().start, key, message);
            }
            Err(message) => self.report(value.span().start, key, message),
        }
        bound(least)
    }

    fn size(&mut self, key: &str, value: &Spanned<String>, least: Bytes, most: Bytes) -> Bytes {
        match parse_size(value.get_ref()) {
            Ok(size) if size >= least && size <= most => return size,
            Ok(_) => {
                let message = format!("\"{}\" is out of range: from {least} to {most}", value.get_ref());
                self.report(value.span().start, key, message);
            }
            Err(message) => self.report(value.span().start, key, message),
        }
        least
    }

    fn count(&mut self, key: &str, value: &Spanned<i64>, least: usize, most: usize) -> usize {
        match usize::try_from(*value.get_ref()) {
            Ok(count) if count >= least && count <= most => count,
            _ => {
                let message = format!("{} is out of range: from {least} to {most}", value.get_ref());
                self.report(value.span().start, key, message);
                least
            }
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, value: &Spanned<String>, choices: &[(&str, T)]) -> T {
        if let Some((_, choice)) = choices.iter().find(|(word, _)| word == value.get_ref()) {
            return *choice;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let message = format!("\"{}\" is none of {}", value.get_ref(), words.join(", "));
        self.report(value.span().start, key, message);
        choices[0].1
    }
}

/// Builds the settings from the user's file and, below it, the embedded one. Problems go to the source they are in;
/// the settings are good only if there are none.
pub(super) fn build<'text>(
    user: &raw::File,
    user_source: &mut Source<'text>,
    embedded: &raw::File,
    embedded_source: &mut Source<'text>,
    surroundings: &Surroundings,
) -> Settings {
    let mut layers = Layers { user, user_source, embedded, embedded_source };
    let evidence = evidence(&mut layers);
    let before_restart = before_restarts(&evidence);
    let discover = *layers.pick(|file| file.discover.as_ref()).0.get_ref();
    Settings {
        interval: layers.duration("interval", |file| file.interval.as_ref(), "1s", "1h"),
        discover,
        daemons: daemons(&user.pm2, discover, layers.user_source, surroundings),
        collect: collect(&mut layers),
        web: web(&mut layers),
        history: history(&mut layers),
        evidence,
        log: LogSettings {
            level: layers.choice("log.level", |file| file.log.level.as_ref(), &LEVELS),
            format: layers.choice("log.format", |file| file.log.format.as_ref(), &FORMATS),
        },
        trend: crate::trend::Settings {
            minute: layers.duration("trend.minute", |file| file.trend.minute.as_ref(), "100ms", "1h"),
            ..crate::trend::Settings::default()
        },
        restart: RestartSettings { evidence: before_restart, ..restart(user.restart.as_ref(), layers.user_source) },
        apps: apps(&user.app, layers.user_source),
    }
}

/// The words for log levels.
pub(super) const LEVELS: [(&str, tracing::Level); 5] = [
    ("info", tracing::Level::INFO),
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];

/// The words for log formats.
pub(super) const FORMATS: [(&str, LogFormat); 2] = [("human", LogFormat::Human), ("json", LogFormat::Json)];

/// The two files in order of precedence, and the questions asked of both.
struct Layers<'a, 'text> {
    user: &'a raw::File,
    user_source: &'a mut Source<'text>,
    embedded: &'a raw::File,
    embedded_source: &'a mut Source<'text>,
}

impl<'a, 'text> Layers<'a, 'text> {
    /// The value that counts and the source it stands in.
    fn pick<T>(
        &mut self,
        key: impl Fn(&'a raw::File) -> Option<&'a Spanned<T>>,
    ) -> (&'a Spanned<T>, &mut Source<'text>) {
        match key(self.user) {
            Some(value) => (value, self.user_source),
            None => (key(self.embedded).expect("invariant: the embedded file sets every key"), self.embedded_source),
        }
    }

    fn duration(
        &mut self,
        name: &str,
        key: impl Fn(&'a raw::File) -> Option<&'a Spanned<String>>,
        least: &str,
        most: &str,
    ) -> Duration {
        let (value, source) = self.pick(key);
        source.duration(name, value, least, most)
    }

    fn size(
        &mut self,
        name: &str,
        key: impl Fn(&'a raw::File) -> Option<&'a Spanned<String>>,
        least: Bytes,
        most: Bytes,
    ) -> Bytes {
        let (value, source) = self.pick(key);
        source.size(name, value, least, most)
    }

    fn count(
        &mut self,
        name: &str,
        key: impl Fn(&'a raw::File) -> Option<&'a Spanned<i64>>,
        least: usize,
        most: usize,
    ) -> usize {
        let (value, source) = self.pick(key);
        source.count(name, value, least, most)
    }

    fn choice<T: Copy>(
        &mut self,
        name: &str,
        key: impl Fn(&'a raw::File) -> Option<&'a Spanned<String>>,
        choices: &[(&str, T)],
    ) -> T {
        let (value, source) = self.pick(key);
        source.choice(name, value, choices)
    }
}

fn collect(layers: &mut Layers<'_, '_>) -> CollectSettings {
    let heap_interval =
        layers.duration("collect.heap_interval", |file| file.collect.heap_interval.as_ref(), "0s", "1h");
    let (least, most) = (Bytes(64 << 10), Bytes(256 << 20));
    CollectSettings {
        heap_interval: (!heap_interval.is_zero()).then_some(heap_interval),
        deadline: layers.duration("collect.deadline", |file| file.collect.deadline.as_ref(), "100ms", "5m"),
        max_reply: layers.size("collect.max_reply", |file| file.collect.max_reply.as_ref(), least, most),
        max_processes: layers.count("collect.max_processes", |file| file.collect.max_processes.as_ref(), 1, 20_000),
    }
}

fn web(layers: &mut Layers<'_, '_>) -> WebSettings {
    let (value, source) = layers.pick(|file| file.web.listen_address.as_ref());
    let listen_addresses = value.get_ref().0.clone();
    let mut problems: Vec<_> =
        listen_addresses.iter().filter_map(|one| super::check_listen_address(one).err()).collect();
    if listen_addresses.is_empty() {
        problems.push("at least one address is needed".to_owned());
    }
    for message in problems {
        source.report(value.span().start, "web.listen_address", message);
    }
    let is_account = |letter: char| letter.is_ascii_graphic() && !":,".contains(letter);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let (user, source) = (&layers.user.web, &mut *layers.user_source);
    let acting_users = source.names("web.acting_users", user.acting_users.as_ref(), is_account);
    let acting_groups = source.names("web.acting_groups", user.acting_groups.as_ref(), is_account);
    let allowed_hosts = source.names("web.allowed_hosts", user.allowed_hosts.as_ref(), is_name);
    let path = |value: &Option<Spanned<String>>| value.as_ref().map(|path| PathBuf::from(path.get_ref()));
    WebSettings {
        token_file: path(&layers.user.web.token_file),
        config_file: path(&layers.user.web.config_file),
        acting_users,
        acting_groups,
        allowed_hosts,
        systemd_socket: *layers.pick(|file| file.web.systemd_socket.as_ref()).0.get_ref(),
        listen_addresses,
        max_connections: layers.count("web.max_connections", |file| file.web.max_connections.as_ref(), 4, 10_000),
    }
}

fn history(layers: &mut Layers<'_, '_>) -> HistorySettings {
    let (least, most) = (Bytes(4 << 20), Bytes(1 << 40));
    HistorySettings {
        window: layers.duration("history.window", |file| file.history.window.as_ref(), "1h", "30d"),
        lives: layers.duration("history.lives", |file| file.history.lives.as_ref(), "1d", "3650d"),
        max_size: layers.size("history.max_size", |file| file.history.max_size.as_ref(), least, most),
    }
}

/// The words for what is taken without a person asking.
const TAKEN: [(&str, bool); 2] = [("none", false), ("profile", true)];

/// What a profile may take beyond the time it samples for: to begin, to be handed over, to be read.
const HANDING_OVER: Duration = Duration::from_secs(45);

/// What the restart policy has to know of evidence.
fn before_restarts(evidence: &EvidenceSettings) -> Option<EvidenceBefore> {
    evidence.before_restart.then(|| EvidenceBefore { patience: evidence.before_restart_duration + HANDING_OVER })
}

fn evidence(layers: &mut Layers<'_, '_>) -> EvidenceSettings {
    let (least, most) = (Bytes(64 << 20), Bytes(1 << 44));
    let named = layers.user.evidence.open_inspector.as_ref();
    for glob in named.iter().flat_map(|named| named.get_ref()).filter(|glob| glob.trim_matches(['*', '?']).is_empty()) {
        let message =
            format!("\"{glob}\" names no app: while an inspector is open every user of this machine can use it");
        layers.user_source.report(named.map_or(0, |named| named.span().start), "evidence.open_inspector", message);
    }
    let mapped = layers.user.evidence.path_map.as_ref();
    let mut moved = Vec::new();
    for text in mapped.iter().flat_map(|mapped| mapped.get_ref()) {
        match Places::moved(text) {
            Ok(pair) => moved.push(pair),
            Err(why) => layers.user_source.report(
                mapped.map_or(0, |mapped| mapped.span().start),
                "evidence.path_map",
                format!("\"{text}\": {why}"),
            ),
        }
    }
    let maps = layers.user.evidence.source_maps.as_ref().map(|maps| maps.get_ref().clone()).unwrap_or_default();
    EvidenceSettings {
        sources: Places { moved, maps },
        open_inspector: named.map(|named| named.get_ref().clone()).unwrap_or_default(),
        on_leak: layers.choice("evidence.on_leak", |file| file.evidence.on_leak.as_ref(), &TAKEN),
        before_restart: layers.choice("evidence.before_restart", |file| file.evidence.before_restart.as_ref(), &TAKEN),
        before_restart_duration: layers.duration(
            "evidence.before_restart_duration",
            |file| file.evidence.before_restart_duration.as_ref(),
            "1s",
            "5m",
        ),
        duration: layers.duration("evidence.duration", |file| file.evidence.duration.as_ref(), "1s", "1h"),
        cooldown: layers.duration("evidence.cooldown", |file| file.evidence.cooldown.as_ref(), "0s", "30d"),
        max_disk: layers.size("evidence.max_disk", |file| file.evidence.max_disk.as_ref(), least, most),
    }
}

fn daemons(
    tables: &[Spanned<raw::Pm2>],
    discover: bool,
    source: &mut Source<'_>,
    surroundings: &Surroundings,
) -> Vec<DaemonSpec> {
    let usual_home = || {
        let home = surroundings.home.as_ref().map(|home| home.join(".pm2"));
        surroundings.pm2_home.clone().or(home).unwrap_or_else(|| PathBuf::from("/root/.pm2"))
    };
    if tables.is_empty() {
        return vec![DaemonSpec {
            name: DaemonName::from("default"),
            home: usual_home(),
            source: ListSource::Socket,
            pm2_command: usual_command(),
            // Whoever has homes looked for need not have one here.
            expected: !discover || surroundings.pm2_home.is_some(),
            named_by: None,
        }];
    }
    let mut names = BTreeSet::new();
    let mut homes = BTreeSet::new();
    let mut specs = Vec::with_capacity(tables.len());
    for table in tables {
        let at = table.span().start;
        let table = table.get_ref();
        let name = match &table.name {
            Some(name) => {
                if let Err(message) = check_name(name.get_ref()) {
                    source.report(name.span().start, "pm2.name", message);
                }
                name.get_ref().clone()
            }
            None if tables.len() == 1 => "default".to_owned(),
            None => {
                source.report(at, "pm2.name", "every table needs a name when there are several".to_owned());
                continue;
            }
        };
        if !names.insert(name.clone()) {
            source.report(at, "pm2.name", format!("\"{name}\" names two daemons"));
        }
        let home = match &table.home {
            Some(home) => {
                let path = expand_home(home.get_ref(), surroundings);
                if !path.is_absolute() {
                    let message = format!("\"{}\" is not an absolute path", home.get_ref());
                    source.report(home.span().start, "pm2.home", message);
                }
                path
            }
            None => usual_home(),
        };
        if !homes.insert(home.clone()) {
            source.report(at, "pm2.home", format!("{} is watched under two names", home.display()));
        }
        let list_source = table.source.as_ref().map_or(ListSource::Socket, |word| {
            let choices =
                [("auto", ListSource::Auto), ("socket", ListSource::Socket), ("command", ListSource::Command)];
            source.choice("pm2.source", word, &choices)
        });
        let pm2_command = match &table.command {
            Some(words) if words.get_ref().first().is_none_or(String::is_empty) => {
                source.report(words.span().start, "pm2.command", "the command is empty".to_owned());
                usual_command()
            }
            Some(words) => words.get_ref().clone(),
            None => usual_command(),
        };
        specs.push(DaemonSpec {
            name: DaemonName::from(name.as_str()),
            home,
            source: list_source,
            pm2_command,
            expected: true,
            named_by: None,
        });
    }
    specs
}

fn usual_command() -> Vec<String> {
    vec!["pm2".to_owned()]
}

fn restart(table: Option<&Spanned<RestartSettings>>, source: &mut Source<'_>) -> RestartSettings {
    let Some(table) = table else { return RestartSettings::default() };
    for fault in table.get_ref().validate() {
        let at = source.tree.place_of(&fault.key);
        source.report(at, &fault.key, fault.problem);
    }
    table.get_ref().clone()
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err(format!("\"{name}\" is not a name: up to 64 letters, digits, '-', '_' or '.'"));
    }
    Ok(())
}

fn expand_home(text: &str, surroundings: &Surroundings) -> PathBuf {
    match (text.strip_prefix("~/"), &surroundings.home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(text).to_path_buf(),
    }
}

fn apps(tables: &[Spanned<raw::App>], source: &mut Source<'_>) -> Vec<AppSettings> {
    let mut settings = Vec::with_capacity(tables.len());
    for table in tables {
        let at = table.span().start;
        let table = table.get_ref();
        let Some(name) = &table.name else {
            source.report(at, "app.name", "a table needs a name: a glob over app names, \"*\" for all".to_owned());
            continue;
        };
        if let Err(error) = name.get_ref().parse::<Pattern>() {
            source.report(name.span().start, "app.name", error.to_string());
        }
        let mut size = |key: &str, value: &Option<Spanned<String>>, least| {
            value.as_ref().map(|value| source.size(key, value, least, Bytes(1 << 44)))
        };
        let memory_limit = size("app.memory_limit", &table.memory_limit, Bytes(1 << 20));
        let smallest_growth = size("app.smallest_growth", &table.smallest_growth, Bytes(1 << 10));
        let metrics_url = table.metrics_url.as_ref().and_then(|url| {
            let read = MetricsUrl::parse(url.get_ref());
            read.map_err(|message| source.report(url.span().start, "app.metrics_url", message)).ok()
        });
        let smallest_share = table.smallest_share.as_ref().map(|share| {
            if !(0.0..=1.0).contains(share.get_ref()) {
                let message = format!("{} is out of range: from 0.0 to 1.0", share.get_ref());
                source.report(share.span().start, "app.smallest_share", message);
            }
            *share.get_ref()
        });
        settings.push(AppSettings {
            name: name.get_ref().clone(),
            memory_limit,
            metrics_url,
            smallest_growth,
            smallest_share,
        });
    }
    settings
}
