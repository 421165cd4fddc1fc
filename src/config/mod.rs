//! Configuration: text in, [`Settings`] out, and every error named by file, line and key.
//!
//! The embedded `default.toml` is both the documentation and the lowest layer; a user's file is laid over it key by
//! key. [`Settings`] can be made only by [`parse`], so whoever holds one holds a valid one. Apart from [`load`], which
//! reads the file, and `trust`, which tells whose a file is, this room is pure; it refuses to look at the environment on its
//! own.

mod raw;
mod search;
mod text;
mod tree;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

pub use exporter_web::UNIX_PREFIX;
pub use exporter_web::trust::{Readers, Untrusted, check_ours, read_trusted, read_trusted_text, tighten_folder};
pub use model::{ConfigError, Problem};
pub use search::{
    Candidate, Choice, Found, SYSTEM_RUNTIME_DIRECTORY, Surroundings, control_sockets, find, look_for, state_directory,
};
pub use text::{parse_duration, parse_size};

use crate::collect::{DaemonSpec, MetricsUrl};
use crate::evidence::EvidenceSettings;
use crate::model::{AppName, Bytes};
use crate::policy::{Pattern, RestartSettings};

/// The embedded default file.
pub const DEFAULT: &str = include_str!("default.toml");

/// The name the embedded file goes by in messages.
pub const DEFAULT_NAME: &str = "(embedded default)";

/// Everything a run needs to know, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Time from one collection to the next.
    pub interval: Duration,
    /// Whether to look for further pm2 homes.
    pub discover: bool,
    /// The daemons to watch.
    pub daemons: Vec<DaemonSpec>,
    /// How to collect.
    pub collect: CollectSettings,
    /// How to serve.
    pub web: WebSettings,
    /// What to remember.
    pub history: HistorySettings,
    /// What may be taken from apps as evidence, and kept.
    pub evidence: EvidenceSettings,
    /// How to log.
    pub log: LogSettings,
    /// The detector's thresholds and its unit of time.
    pub trend: crate::trend::Settings,
    /// What may restart a process, and when.
    pub restart: RestartSettings,
    /// Per-app settings, in the order of the file; the first match counts.
    pub apps: Vec<AppSettings>,
}

/// `[collect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectSettings {
    /// Time between list-only polls; none turns them off.
    pub heap_interval: Option<Duration>,
    /// The longest one daemon may take.
    pub deadline: Duration,
    /// The longest reply accepted.
    pub max_reply: Bytes,
    /// Processes watched per daemon.
    pub max_processes: usize,
}

/// `[web]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    /// Where to listen, one at least: `host:port`, or `unix:` and an absolute path.
    pub listen_addresses: Vec<String>,
    /// Whether to listen on the sockets that systemd passes instead.
    pub systemd_socket: bool,
    /// The web configuration: encryption, users, headers.
    pub config_file: Option<PathBuf>,
    /// Connections at a time, of each address.
    pub max_connections: usize,
    /// The file with the bearer tokens that endpoints that act ask for.
    pub token_file: Option<PathBuf>,
    /// Users of this machine who may act beside root and the sidecar's own, by name or number.
    pub acting_users: Vec<String>,
    /// Groups of this machine whose members may.
    pub acting_groups: Vec<String>,
    /// Names that requests may be addressed to, beside those that only this machine has.
    pub allowed_hosts: Vec<String>,
}

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// Minutes kept of each process.
    pub window: Duration,
    /// How long summaries of lives are kept.
    pub lives: Duration,
    /// Bound on the store's file.
    pub max_size: Bytes,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe level shown.
    pub level: tracing::Level,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[[app]]`: what differs for apps whose name matches.
#[derive(Debug, Clone, PartialEq)]
pub struct AppSettings {
    /// Glob over app names: `*` any text, `?` one character.
    pub name: String,
    /// A memory limit that counts beside pm2's and the system's.
    pub memory_limit: Option<Bytes>,
    /// Where each process exposes the metrics of `prom-client`.
    pub metrics_url: Option<MetricsUrl>,
    /// In place of [`crate::trend::Settings::smallest_growth`].
    pub smallest_growth: Option<Bytes>,
    /// In place of [`crate::trend::Settings::smallest_share`].
    pub smallest_share: Option<f64>,
}

impl Settings {
    /// The settings of the first `[[app]]` table whose glob matches the app's name.
    pub fn app(&self, app: &AppName) -> Option<&AppSettings> {
        self.apps.iter().find(|table| app.fits(&table.name, |text| matches_glob(&table.name, text)))
    }

    /// The detector's settings for an app: those of all, with what its `[[app]]` table sets otherwise.
    pub fn trend_of(&self, app: &AppName) -> std::borrow::Cow<'_, crate::trend::Settings> {
        use std::borrow::Cow;
        let Some(app) = self.app(app).filter(|app| app.smallest_growth.is_some() || app.smallest_share.is_some())
        else {
            return Cow::Borrowed(&self.trend);
        };
        let mut trend = self.trend.clone();
        trend.smallest_growth = app.smallest_growth.unwrap_or(trend.smallest_growth);
        trend.smallest_share = app.smallest_share.unwrap_or(trend.smallest_share);
        Cow::Owned(trend)
    }
}

/// Settings, with what has to be known of their file when it is read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the file says.
    pub settings: Settings,
    /// The file, where it has no bytes at all.
    empty: Option<PathBuf>,
}

impl Loaded {
    /// Takes the place of what was loaded before. A file without a byte in the place of one with content is most likely
    /// just being written over, so it is refused; one that holds a comment is meant.
    ///
    /// # Errors
    /// [`ConfigError::Emptied`], and then the one before stays.
    pub fn replace(&mut self, next: Self) -> Result<(), ConfigError> {
        if let (None, Some(path)) = (&self.empty, &next.empty) {
            return Err(ConfigError::Emptied { path: path.clone() });
        }
        *self = next;
        Ok(())
    }
}

/// Reads and checks the file that [`find`] chose.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load(found: &Found, surroundings: &Surroundings) -> Result<Loaded, ConfigError> {
    match found {
        Found::Embedded => Ok(Loaded { settings: parse(DEFAULT_NAME, DEFAULT, surroundings)?, empty: None }),
        Found::Named(path) | Found::Present(path) => {
            let text = read_trusted_text(path, Readers::Everybody)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            let settings = parse(&path.display().to_string(), &text, surroundings)?;
            Ok(Loaded { settings, empty: text.is_empty().then(|| path.clone()) })
        }
    }
}

/// Checks a text and lays it over the embedded default. `name` is what messages call it.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem.
pub fn parse(name: &str, text: &str, surroundings: &Surroundings) -> Result<Settings, ConfigError> {
    let mut user_source = validate::Source::new(name, text);
    let mut embedded_source = validate::Source::new(DEFAULT_NAME, DEFAULT);
    let (user, embedded) = (user_source.read(), embedded_source.read());
    let settings = match (user, embedded) {
        (Some(user), Some(embedded)) => {
            Some(validate::build(&user, &mut user_source, &embedded, &mut embedded_source, surroundings))
        }
        _ => None,
    };
    let mut problems = embedded_source.into_problems();
    problems.extend(user_source.into_problems());
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(ConfigError::Invalid { problems }),
    }
}

/// The longest path that the system takes for a Unix socket.
const UNIX_PATH_MAX: usize = 107;

/// Checks `host:port`, where an empty host means every address, or `unix:/path`.
///
/// # Errors
/// A sentence that says what an address looks like.
pub fn check_listen_address(address: &str) -> Result<(), String> {
    if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
        if !path.starts_with('/') || path.ends_with('/') || path.len() > UNIX_PATH_MAX {
            let shape = format!("write \"unix:/run/leakslope/http.sock\", with at most {UNIX_PATH_MAX} bytes of path");
            return Err(format!("\"{address}\" is not an absolute path of a socket: {shape}"));
        }
        return Ok(());
    }
    let wrong = || {
        format!(
            "\"{address}\" is not an address: write \"127.0.0.1:19209\", \"[::1]:19209\", \":19209\" or \"unix:/path\""
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_not_a_port| wrong())?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if bare_v6 || host.contains(char::is_whitespace) { Err(wrong()) } else { Ok(()) }
}

/// Whether `name` matches `glob`: `*` stands for any text, `?` for one character.
pub fn matches_glob(glob: &str, name: &str) -> bool {
    glob.parse::<Pattern>().is_ok_and(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings() -> Surroundings {
        Surroundings { home: Some(PathBuf::from("/home/shop")), ..Surroundings::default() }
    }

    fn problems(text: &str) -> String {
        parse("leakslope.toml", text, &surroundings()).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn the_embedded_default_is_valid_and_watches_the_usual_home() {
        let settings = parse(DEFAULT_NAME, DEFAULT, &surroundings()).expect("the default is valid");
        assert_eq!(settings.interval, Duration::from_secs(15));
        assert_eq!(settings.daemons.len(), 1);
        assert_eq!(settings.daemons[0].name.as_str(), "default");
        assert_eq!(settings.daemons[0].home, PathBuf::from("/home/shop/.pm2"));
        assert_eq!(settings.web.listen_addresses, ["127.0.0.1:19209"]);
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let empty = parse("leakslope.toml", "", &surroundings()).expect("an empty file is valid");
        assert_eq!(empty, parse(DEFAULT_NAME, DEFAULT, &surroundings()).expect("the default is valid"));
    }

    #[test]
    fn pm2_home_from_the_environment_comes_before_the_users_home() {
        let surroundings = Surroundings { pm2_home: Some(PathBuf::from("/srv/pm2")), ..surroundings() };
        let settings = parse("leakslope.toml", "", &surroundings).expect("an empty file is valid");
        assert_eq!(settings.daemons[0].home, PathBuf::from("/srv/pm2"));
    }

    #[test]
    fn every_problem_is_named_at_once_with_file_line_and_key() {
        insta::assert_snapshot!(problems(
            "interval = \"100ms\"\ndiscover = true\n\n[[pm2]]\nname = \"a b\"\nhome = \"relative\"\nsource = \"guess\"\n\n\
             [[pm2]]\nhome = \"/x\"\n\n[collect]\nmax_reply = \"many\"\nmax_processes = 0\n\n[web]\n\
             listen_address = \"here\"\n\n[[app]]\nmemory_limit = \"1B\"\n\n[[app]]\nname = \"api\"\nmemory_limit = \"lots\"\n"
        ));
    }

    #[test]
    fn wrong_settings_of_apps_are_named_with_file_line_and_key() {
        insta::assert_snapshot!(problems(
            "[[app]]\nname = \"a\"\nmetrics_url = \"https://127.0.0.1:9464/metrics\"\n\n\
             [[app]]\nname = \"b\"\nmetrics_url = \"http://127.0.0.1/metrics\"\n\n\
             [[app]]\nname = \"c\"\nmetrics_url = \"http://127.0.0.1:9464/{pid}\"\nsmallest_growth = \"0B\"\n\n\
             [[app]]\nname = \"d\"\nmetrics_url = \"http://user:pass@127.0.0.1:94{pm_id}/\"\nsmallest_share = 1.5\n"
        ));
    }

    #[test]
    fn evidence_is_taken_only_where_told_and_a_restart_knows_how_long_it_waits_for_it() {
        let usual = parse("leakslope.toml", "", &surroundings()).expect("an empty file is valid");
        assert!(!usual.evidence.on_leak && !usual.evidence.before_restart);
        assert_eq!(usual.restart.evidence, None);
        let text = "[evidence]\nbefore_restart = \"profile\"\nbefore_restart_duration = \"10s\"\n";
        let settings = parse("leakslope.toml", text, &surroundings()).expect("the text is right");
        let before = settings.restart.evidence.expect("it was told");
        assert!(before.patience > Duration::from_secs(10) && before.patience < Duration::from_mins(2));
    }

    #[test]
    fn wrong_settings_of_evidence_are_named_with_file_line_and_key() {
        insta::assert_snapshot!(problems(
            "[evidence]\non_leak = \"snapshot\"\nbefore_restart = \"yes\"\nbefore_restart_duration = \"1h\"\nduration = \"2h\"\ncooldown = \"soon\"\nmax_disk = \"1KiB\"\n"
        ));
    }

    #[test]
    fn an_app_sets_its_own_thresholds_and_leaves_the_rest() {
        let text = "[[app]]\nname = \"api-*\"\nsmallest_growth = \"32MiB\"\nsmallest_share = 0.1\n";
        let settings = parse("leakslope.toml", text, &surroundings()).expect("the text is right");
        let of = |app: &str| {
            let trend = settings.trend_of(&app.into());
            (trend.smallest_growth, trend.smallest_share, trend.slope_window)
        };
        let usual = &settings.trend;
        assert_eq!(of("api-1"), (Bytes(32 << 20), 0.1, usual.slope_window));
        assert_eq!(of("web"), (usual.smallest_growth, usual.smallest_share, usual.slope_window));
    }

    #[test]
    fn a_wrong_layout_is_named_with_its_line_and_key() {
        insta::assert_snapshot!(
            [
                problems("intervall = \"15s\"\n"),
                problems("\n[collect]\ndeadline = 5\n"),
                problems("[collect\n"),
                problems("[[pm2]]\nname = \"a\"\npassword = \"hunter2\"\n"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn what_is_no_toml_has_a_line_and_no_key_and_nothing_is_told_twice() {
        let told = problems("interval = \"5s\"\n[web\nlisten_address = \"x\"\n[[restart.policy]]\napps = [\"a\"\n");
        assert!(told.contains("leakslope.toml:2: unclosed table"), "{told}");
        let told = problems("[[limit]]\napp = \"x\"\nbytes = \"1\"\n");
        assert_eq!(told.lines().count(), 1, "{told}");
    }

    #[test]
    fn every_error_is_named_at_once_at_its_own_line() {
        let places = |text: &str| -> Vec<String> {
            let told = problems(text);
            told.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect()
        };
        let commented = "intervall = \"15s\"\n[collect]\ndeadline = 5\nmax_processes = 0\n[restart]\nmode = \"enforce\"\n\
             # [[restart.policy]]\n# apps = [\"no\"]\n[[restart.policy]]\napps = [\"*\"]\ncooldown = \"5\"\n\
             [[restart.policy]]\napps = [\n  \"a\",\n]\nbudget_per_day = \"many\"\ncooldown = \"1s\"\n";
        let expected = [
            "leakslope.toml:1 intervall",
            "leakslope.toml:3 collect.deadline",
            "leakslope.toml:4 collect.max_processes",
            "leakslope.toml:11 restart.policy[0].cooldown",
            "leakslope.toml:16 restart.policy[1].budget_per_day",
            "leakslope.toml:17 restart.policy[1].cooldown",
        ];
        assert_eq!(places(commented), expected);
        let inline = "[restart]\npolicy = [\n  { apps = [\"a\"] },\n  { apps = [\"b\"], cooldown = \"1s\" },\n]\n";
        assert_eq!(places(inline), ["leakslope.toml:4 restart.policy[1].cooldown"]);
        let untidy = "interval = \n[web]\nlisten_address = \"here\"\n[log\nlevel = \"loud\"\n";
        let lines: Vec<String> =
            places(untidy).iter().map(|place| place.split(' ').next().unwrap_or("").to_owned()).collect();
        assert_eq!(lines, [1, 3, 4, 5].map(|line| format!("leakslope.toml:{line}")));
    }

    #[test]
    fn listen_addresses() {
        for address in ["127.0.0.1:0", "[::1]:19209", ":19209", "localhost:1", "unix:/run/leakslope/http.sock"] {
            assert_eq!(check_listen_address(address), Ok(()), "{address}");
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_MAX));
        for address in
            ["", "here", "127.0.0.1", "::1:5", "a b:5", "h:99999", "unix:", "unix:a.sock", "unix:/run/", &long]
        {
            assert!(check_listen_address(address).is_err(), "{address}");
        }
    }

    #[test]
    fn one_address_or_several() {
        let of = |value: &str| {
            let settings = parse("leakslope.toml", &format!("[web]\nlisten_address = {value}\n"), &surroundings());
            settings.expect("the text is right").web.listen_addresses
        };
        assert_eq!(of("\":1\""), [":1"]);
        assert_eq!(of("[\n  \"[::1]:1\",\n  \"unix:/run/a.sock\",\n]"), ["[::1]:1", "unix:/run/a.sock"]);
        insta::assert_snapshot!(
            ["[]", "5", "[\"here\", \":1\", 5]", "[\"here\", \"unix:there\"]"]
                .map(|value| problems(&format!("[web]\nlisten_address = {value}\n")))
                .join("\n")
        );
    }

    #[test]
    fn globs() {
        for (glob, name, matches) in [
            ("*", "", true),
            ("*", "api", true),
            ("api", "api", true),
            ("api", "api2", false),
            ("api*", "api-v2", true),
            ("*-worker", "mail-worker", true),
            ("*-worker", "worker", false),
            ("a?c", "abc", true),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxcxxb", false),
            ("", "a", false),
            ("*é*", "caféx", true),
        ] {
            assert_eq!(matches_glob(glob, name), matches, "{glob} {name}");
        }
    }
}
