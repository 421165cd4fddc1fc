//! What a person may set about restarts, each with its default and the checks that no type can make.
//!
//! The default of every field is the careful one; `docs/restarts.md` gives the reason for each. This room refuses to
//! read files and to merge layers: that is for `config`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::serving::Probe;
use super::window::{LONGEST, Window};
use model::{AppName, Bytes, DaemonName};
use model::{CronText, Endpoint, Pattern, ProbeAddress, Size, Span, Zone};

/// How far restarts may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing is decided.
    Off,
    /// Everything is decided and recorded, nothing is done.
    DryRun,
    /// Decisions are carried out.
    Enforce,
}

/// What a request does whose window opens only after memory is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeforeExhaustion {
    /// It waits for the window all the same.
    Wait,
    /// It goes early, inside every other gate.
    Allow,
}

/// When a schedule asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    /// At every time it names.
    Always,
    /// For processes that leak at that time.
    Leaking,
}

/// What follows when a hook fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookFailure {
    /// The restart waits and the hook is run again later.
    Hold,
    /// The restart goes on without it.
    GoOn,
}

/// `[restart]`: everything about restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartSettings {
    /// The most that any policy may do on this host.
    pub mode: Mode,
    /// Restarts of processes on this host in any 24 hours, all apps together.
    pub budget_per_host: u32,
    /// Memory that must stay free on the host when a second instance starts beside the old one.
    pub host_memory_reserve: Size,
    /// After how long a silent Prometheus, Alertmanager or FleetLock server counts as failed.
    pub answer_timeout: Span,
    /// The Prometheus that answers `promql` gates.
    pub prometheus: Option<PrometheusSettings>,
    /// The Alertmanager whose silences are honoured, and that may be told of restarts.
    pub alertmanager: Option<AlertmanagerSettings>,
    /// The FleetLock server that lets one host of a group act at a time.
    pub fleet_lock: Option<FleetLockSettings>,
    /// Where restarts are announced.
    pub notify: Option<NotifySettings>,
    /// Policies; the first whose patterns match an app is the app's.
    pub policy: Vec<PolicySettings>,
    /// Whether evidence is taken before a restart; none where it is not. Set by `[evidence]`.
    #[serde(skip)]
    pub evidence: Option<EvidenceBefore>,
}

/// Evidence before the restart of a process that leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceBefore {
    /// How long a restart waits for it.
    pub patience: Duration,
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            mode: Mode::DryRun,
            budget_per_host: 64,
            host_memory_reserve: Size::mebibytes(256),
            answer_timeout: Span::seconds(10),
            prometheus: None,
            alertmanager: None,
            fleet_lock: None,
            notify: None,
            policy: Vec::new(),
            evidence: None,
        }
    }
}

/// `[restart.prometheus]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusSettings {
    /// Base address; `/api/v1/query` is added.
    pub url: Endpoint,
}

/// `[restart.alertmanager]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerSettings {
    /// Base address; `/api/v2/…` is added.
    pub url: Endpoint,
    /// Whether a silence that matches an app holds its restarts.
    #[serde(default = "yes")]
    pub honour_silences: bool,
    /// Whether restarts and opened breakers are sent to it as alerts, for those who run no Prometheus.
    #[serde(default)]
    pub send_alerts: bool,
    /// Labels added to those that silences are matched against and alerts are sent with, such as `instance`.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// `[restart.fleet_lock]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetLockSettings {
    /// Base address; `/v1/pre-reboot` and `/v1/steady-state` are added.
    pub url: Endpoint,
    /// The group whose members exclude each other.
    #[serde(default = "default_group")]
    pub group: String,
    /// This host's name in the group; it must be its own.
    pub id: String,
}

/// `[restart.notify]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifySettings {
    /// Address that takes `{"text": "…"}` by POST, as Slack's incoming webhooks do.
    pub url: Endpoint,
}

/// `[[restart.policy]]`: what asks for restarts of some apps and what lets them through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Patterns of app names. An app that no policy names has not opted in: for it everything stays a dry run.
    pub apps: Vec<Pattern>,
    /// Patterns of daemon names.
    pub daemons: Vec<Pattern>,
    /// How far this policy may go; never further than `[restart] mode`.
    pub mode: Mode,

    /// Asks for processes that leak.
    pub leak: LeakTrigger,
    /// Asks for processes above a threshold; none when left out.
    pub memory: Option<MemoryTrigger>,
    /// Asks at times of the calendar.
    pub schedule: Vec<ScheduleTrigger>,
    /// Whether alerts may ask.
    pub alerts: bool,

    /// Maintenance windows; none means that every time is welcome.
    pub windows: Vec<Window>,
    /// Whether a request whose window opens too late may go early.
    pub before_exhaustion: BeforeExhaustion,
    /// How long a process must have run before it is restarted.
    pub minimum_uptime: Span,
    /// Time between two restarts of one process.
    pub cooldown: Span,
    /// Restarts of the app's processes in any 24 hours.
    pub budget_per_day: u32,
    /// Instances of an app that may be away at a time, the one that is being replaced included.
    pub max_unavailable: u32,
    /// Whether the only healthy instance may be replaced.
    pub take_last_instance: bool,
    /// PromQL expressions that must each return at least one sample now; `$app` and `$daemon` stand for the names.
    pub promql: Vec<String>,
    /// Whether the FleetLock server is asked, where one is set.
    pub fleet_lock: bool,
    /// A command to run before each restart.
    pub hook: Option<HookSettings>,

    /// What a new instance must show.
    pub verify: VerifySettings,
    /// When restarts of the app are stopped for good.
    pub breaker: BreakerSettings,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            apps: Vec::new(),
            daemons: vec![Pattern::any()],
            mode: Mode::Enforce,
            leak: LeakTrigger::default(),
            memory: None,
            schedule: Vec::new(),
            alerts: true,
            windows: Vec::new(),
            before_exhaustion: BeforeExhaustion::Wait,
            minimum_uptime: Span::minutes(30),
            cooldown: Span::hours(1),
            budget_per_day: 24,
            max_unavailable: 1,
            take_last_instance: false,
            promql: Vec::new(),
            fleet_lock: true,
            hook: None,
            verify: VerifySettings::default(),
            breaker: BreakerSettings::default(),
        }
    }
}

/// `[restart.policy.leak]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakTrigger {
    /// Whether a leak asks for a restart.
    pub enabled: bool,
    /// How long the verdict must have been `leaking`.
    pub r#for: Span,
    /// Asks only when exhaustion is projected within this span; none means at any distance.
    pub exhaustion_within: Option<Span>,
    /// Asks only when the slope is above this size an hour.
    pub slope_above_per_hour: Option<Size>,
}

impl Default for LeakTrigger {
    fn default() -> Self {
        Self { enabled: true, r#for: Span::minutes(30), exhaustion_within: None, slope_above_per_hour: None }
    }
}

/// `[restart.policy.memory]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryTrigger {
    /// Threshold of held memory (resident and swapped, the whole process tree).
    #[serde(default)]
    pub resident_above: Option<Size>,
    /// Threshold of V8's used heap.
    #[serde(default)]
    pub heap_above: Option<Size>,
    /// For how long every sample must lie above.
    #[serde(default = "fifteen_minutes")]
    pub r#for: Span,
}

/// `[[restart.policy.schedule]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTrigger {
    /// Cron expression: minute, hour, day of month, month, day of week.
    pub cron: CronText,
    /// Its time zone.
    #[serde(default = "Zone::utc")]
    pub time_zone: Zone,
    /// Which processes it asks for.
    #[serde(default = "always")]
    pub only: Only,
    /// Asks only for processes that hold more than this.
    #[serde(default)]
    pub memory_above: Option<Size>,
    /// Asks only for processes that have run longer than this.
    #[serde(default)]
    pub uptime_above: Option<Span>,
}

/// `[restart.policy.hook]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSettings {
    /// Program and arguments; no shell is put between. The process is described in `LEAKSLOPE_*` variables.
    pub command: Vec<String>,
    /// When it is killed with all its children.
    #[serde(default = "one_minute")]
    pub timeout: Span,
    /// What follows when it fails.
    #[serde(default = "hold")]
    pub on_failure: HookFailure,
}

/// `[restart.policy.verify]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// Time the new instance has, on top of pm2's own time-outs, to show everything it must.
    pub timeout: Span,
    /// How long it must be online with an unchanged restart count; never less than the app's `min_uptime`.
    pub stable_for: Span,
    /// Whether its heap must be readable, where the old one's was.
    pub heap: bool,
    /// Whether it must be known to serve: a cluster worker tells pm2 before its `listen_timeout` that it listens or is ready,
    /// or a connection reaches it; any other process listens where the old one did. To be switched off for cluster workers
    /// that never listen.
    pub ready: bool,
    /// An address that must answer with a status of the 2xx family, asked before, during and after each replacement; its port
    /// may be `{port}`, the one that the process listens on.
    pub http: Option<ProbeAddress>,
    /// Whether `http` may name a host other than this machine.
    pub any_host: bool,
    /// A program and its arguments that must end with 0, run at the same times; no shell is put between.
    pub command: Option<Vec<String>>,
    /// How long each probe may take.
    pub probe_timeout: Span,
}

impl VerifySettings {
    /// The probe; none where nothing is set.
    pub(super) fn probe(&self) -> Option<Probe> {
        (self.http.is_some() || self.command.is_some()).then(|| Probe {
            http: self.http.clone(),
            command: self.command.clone(),
            timeout: self.probe_timeout.0,
        })
    }
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self {
            timeout: Span::minutes(1),
            stable_for: Span::seconds(10),
            heap: true,
            ready: true,
            http: None,
            any_host: false,
            command: None,
            probe_timeout: Span::seconds(5),
        }
    }
}

/// `[restart.policy.breaker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// How long it stays open when nobody resets it.
    pub open_for: Span,
    /// Restarts in a row that did not help until it opens.
    pub unhelpful: u32,
    /// When the memory freed by a restart is measured.
    pub settle: Span,
    /// A restart helps only if it frees at least this share of the memory held before.
    pub minimum_freed_ratio: f64,
    /// A restart helps only if memory takes at least this long to come back to where it was.
    pub minimum_time_bought: Span,
    /// It opens at this many restarts of one process within `too_close`.
    pub too_many: u32,
    /// The span for `too_many`.
    pub too_close: Span,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            open_for: Span::hours(24),
            unhelpful: 2,
            settle: Span::minutes(10),
            minimum_freed_ratio: 0.05,
            minimum_time_bought: Span::hours(1),
            too_many: 4,
            too_close: Span::hours(8),
        }
    }
}

fn yes() -> bool {
    true
}

fn always() -> Only {
    Only::Always
}

fn hold() -> HookFailure {
    HookFailure::Hold
}

fn one_minute() -> Span {
    Span::minutes(1)
}

fn fifteen_minutes() -> Span {
    Span::minutes(15)
}

fn default_group() -> String {
    "default".to_owned()
}

/// Something in the settings that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Fault {
    /// Full key, such as `restart.policy[0].windows[1].length`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl RestartSettings {
    /// Finds everything that cannot be meant, in the order of the file.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        faults.check(
            !self.answer_timeout.0.is_zero() && self.answer_timeout <= Span::minutes(5),
            "restart.answer_timeout",
            "must lie between 1ms and 5m",
        );
        if let Some(lock) = &self.fleet_lock {
            faults.check(
                !lock.id.is_empty() && lock.id.len() <= 256,
                "restart.fleet_lock.id",
                "must hold 1 to 256 bytes",
            );
            faults.check(
                !lock.group.is_empty()
                    && lock.group.len() <= 256
                    && lock.group.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)),
                "restart.fleet_lock.group",
                "must hold 1 to 256 letters, digits, dots, dashes and underscores",
            );
        }
        for (index, policy) in self.policy.iter().enumerate() {
            policy.validate(&format!("restart.policy[{index}]"), self, &mut faults);
        }
        faults.0
    }

    /// Returns the policy of an app with its place in the list: the first whose patterns match. A module of pm2's own is
    /// matched only by a pattern that names it.
    pub fn policy_of(&self, daemon: &DaemonName, app: &AppName, module: bool) -> Option<(usize, &PolicySettings)> {
        self.policy.iter().enumerate().find(|(_, policy)| {
            policy.apps.iter().any(|pattern| pattern.matches_app(app) && (!module || pattern.is_plain()))
                && policy.daemons.iter().any(|pattern| pattern.matches(daemon.as_str()))
        })
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    fn check(&mut self, fine: bool, key: &str, problem: &str) {
        if !fine {
            self.0.push(Fault { key: key.to_owned(), problem: problem.to_owned() });
        }
    }
}

impl PolicySettings {
    fn validate(&self, key: &str, all: &RestartSettings, faults: &mut Faults) {
        let mut check = |fine: bool, field: &str, problem: &str| faults.check(fine, &format!("{key}.{field}"), problem);
        check(!self.apps.is_empty(), "apps", "names no app: write apps = [\"*\"] to mean all");
        check(!self.daemons.is_empty(), "daemons", "names no daemon");
        check(self.max_unavailable >= 1, "max_unavailable", "must be at least 1, or nothing could ever be restarted");
        check(self.cooldown >= Span::minutes(1), "cooldown", "must be at least 1m");
        check(self.cooldown <= Span::hours(24 * 30), "cooldown", "must be at most 30d");
        check(self.budget_per_day <= 10_000, "budget_per_day", "must be at most 10000");
        if let Some(memory) = &self.memory {
            check(
                memory.resident_above.is_some() || memory.heap_above.is_some(),
                "memory",
                "needs resident_above or heap_above",
            );
            let positive = |size: Option<Size>| size.is_none_or(|size| size.0 > Bytes(0));
            check(positive(memory.resident_above), "memory.resident_above", "must be more than nothing");
            check(positive(memory.heap_above), "memory.heap_above", "must be more than nothing");
        }
        check(self.schedule.len() <= 32, "schedule", "holds more than 32 schedules");
        check(self.windows.len() <= 32, "windows", "holds more than 32 windows");
        for (index, window) in self.windows.iter().enumerate() {
            check(!window.days.is_empty(), &format!("windows[{index}].days"), "names no day, so it never opens");
            check(
                window.length >= Span::minutes(1) && window.length.0 <= LONGEST,
                &format!("windows[{index}].length"),
                "must lie between 1m and 7d",
            );
        }
        check(self.promql.is_empty() || all.prometheus.is_some(), "promql", "needs [restart.prometheus] with its url");
        check(self.promql.len() <= 16, "promql", "holds more than 16 expressions");
        for (index, expression) in self.promql.iter().enumerate() {
            let field = format!("promql[{index}]");
            check(!expression.trim().is_empty() && expression.len() <= 4096, &field, "must hold 1 to 4096 bytes");
            check(
                !has_bool_modifier(expression),
                &field,
                "uses `bool`, which returns a sample even when it is false: leave the word out to filter",
            );
        }
        if let Some(hook) = &self.hook {
            check(hook.command.first().is_some_and(|program| !program.is_empty()), "hook.command", "names no program");
            check(
                !hook.timeout.0.is_zero() && hook.timeout <= Span::hours(1),
                "hook.timeout",
                "must lie between 1ms and 1h",
            );
        }
        check(self.verify.timeout >= Span::seconds(1), "verify.timeout", "must be at least 1s");
        check(self.verify.timeout <= Span::hours(1), "verify.timeout", "must be at most 1h");
        check(self.verify.stable_for <= Span::hours(1), "verify.stable_for", "must be at most 1h");
        check(
            self.verify.any_host || self.verify.http.as_ref().is_none_or(ProbeAddress::is_loopback),
            "verify.http",
            "names another machine: set any_host = true if that is meant",
        );
        check(
            self.verify
                .command
                .as_ref()
                .is_none_or(|command| command.first().is_some_and(|program| !program.is_empty())),
            "verify.command",
            "names no program",
        );
        check(
            !self.verify.probe_timeout.0.is_zero() && self.verify.probe_timeout <= Span::minutes(1),
            "verify.probe_timeout",
            "must lie between 1ms and 1m",
        );
        check(self.breaker.unhelpful >= 1, "breaker.unhelpful", "must be at least 1");
        check(self.breaker.too_many >= 2, "breaker.too_many", "must be at least 2");
        check(self.breaker.too_close <= Span::hours(24 * 30), "breaker.too_close", "must be at most 30d");
        check(self.breaker.open_for >= Span::minutes(1), "breaker.open_for", "must be at least 1m");
        check(
            (0.0..=1.0).contains(&self.breaker.minimum_freed_ratio),
            "breaker.minimum_freed_ratio",
            "must lie between 0 and 1",
        );
    }
}

/// Whether a PromQL expression holds the word `bool` outside of quoted text.
fn has_bool_modifier(expression: &str) -> bool {
    let mut quote = None;
    let mut escaped = false;
    let mut word = String::new();
    for letter in expression.chars().chain([' ']) {
        if let Some(open) = quote {
            if escaped {
                escaped = false;
            } else if letter == '\\' && open != '`' {
                escaped = true;
            } else if letter == open {
                quote = None;
            }
            continue;
        }
        if letter.is_alphanumeric() || letter == '_' || letter == ':' {
            word.push(letter.to_ascii_lowercase());
            continue;
        }
        if word == "bool" {
            return true;
        }
        word.clear();
        if matches!(letter, '"' | '\'' | '`') {
            quote = Some(letter);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RestartSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn the_defaults_are_valid_and_never_act() {
        let settings = RestartSettings::default();
        assert_eq!(settings.validate(), []);
        assert_eq!(settings.mode, Mode::DryRun);
        assert_eq!(read("").unwrap(), settings);
    }

    #[test]
    fn a_full_table_is_read_and_written_back() {
        let text = r#"
            mode = "enforce"
            budget_per_host = 10
            [prometheus]
            url = "http://127.0.0.1:9090"
            [alertmanager]
            url = "http://127.0.0.1:9093"
            [fleet_lock]
            url = "http://127.0.0.1:3333"
            id = "host-1"
            [[policy]]
            apps = ["shop-*"]
            before_exhaustion = "allow"
            promql = ["sum(rate(http_requests_total{app=\"$app\"}[5m])) < 100"]
            leak = { for = "10m", exhaustion_within = "12h", slope_above_per_hour = "1MiB" }
            memory = { resident_above = "900MiB", for = "5m" }
            [[policy.windows]]
            days = ["sat", "sun"]
            start = "02:00"
            length = "3h"
            time_zone = "Europe/Berlin"
            [[policy.schedule]]
            cron = "0 4 * * *"
            only = "leaking"
            [policy.hook]
            command = ["/usr/local/bin/drain", "--now"]
        "#;
        let settings = read(text).unwrap();
        assert_eq!(settings.validate(), []);
        let policy = &settings.policy[0];
        assert_eq!(policy.leak.r#for, Span::minutes(10));
        assert_eq!(policy.windows[0].length, Span::hours(3));
        assert_eq!(policy.hook.as_ref().unwrap().timeout, Span::minutes(1));
        assert_eq!(policy.cooldown, Span::hours(1));
        let again = read(&toml::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
        let found = settings.policy_of(&"default".into(), &"shop-api".into(), false).map(|(index, _)| index);
        assert_eq!(found, Some(0));
        assert!(
            settings.policy_of(&"default".into(), &"shop-api".into(), true).is_none(),
            "a module is not meant by *"
        );
        assert!(settings.policy_of(&"default".into(), &"blog".into(), false).is_none());
    }

    #[test]
    fn a_pattern_with_a_slash_names_a_namespace_and_a_module_is_named_or_left_alone() {
        let settings = read("[[policy]]\napps = ['staging/*', 'pm2-logrotate']\n[[policy]]\napps = ['*']").unwrap();
        let of = |namespace: &str, name: &str, module| {
            settings.policy_of(&"default".into(), &AppName::new(namespace, name), module).map(|(index, _)| index)
        };
        assert_eq!(of("staging", "api", false), Some(0));
        assert_eq!(of("production", "api", false), Some(1));
        assert_eq!(of("default", "pm2-logrotate", true), Some(0));
        assert_eq!(of("default", "pm2-server-monit", true), None);
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused() {
        for (text, part) in [
            ("modus = 'off'", "unknown field"),
            ("mode = 'on'", "unknown variant"),
            ("[[policy]]\napps = ['*']\ncooldown = '5'", "is not a duration"),
            ("[[policy]]\napps = ['*']\nwindows = [{ start = '25:00', length = '1h' }]", ""),
            (
                "[[policy]]\napps = ['*']\nwindows = [{ start = '02:00', length = '1h', time_zone = 'Mars/Base' }]",
                "time zone",
            ),
            ("[[policy]]\napps = ['*']\nschedule = [{ cron = '99 * * * *' }]", "cron"),
            ("[fleet_lock]\nurl = 'http://x'", "missing field `id`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn every_fault_is_named_with_its_key() {
        let text = r#"
            [[policy]]
            apps = []
            max_unavailable = 0
            cooldown = "1s"
            promql = ["up > bool 0"]
            memory = { for = "1m" }
            windows = [{ days = [], start = "02:00", length = "8d" }]
            hook = { command = [] }
            verify = { http = "http://10.0.0.1:80/", command = [], probe_timeout = "0s" }
            breaker = { minimum_freed_ratio = 1.5 }
        "#;
        let keys: Vec<String> = read(text).unwrap().validate().into_iter().map(|fault| fault.key).collect();
        let expected = [
            "apps",
            "max_unavailable",
            "cooldown",
            "memory",
            "windows[0].days",
            "windows[0].length",
            "promql",
            "promql[0]",
            "hook.command",
            "verify.http",
            "verify.command",
            "verify.probe_timeout",
            "breaker.minimum_freed_ratio",
        ];
        assert_eq!(keys, expected.map(|field| format!("restart.policy[0].{field}")));
    }

    #[test]
    fn the_word_bool_is_found_only_where_promql_reads_it() {
        for (expression, found) in [
            ("a > bool 1", true),
            ("a >bool(1)", true),
            ("a{x=\"bool\"} > 1", false),
            ("a{x='\\' bool '} > 1", false),
            ("is_bool > 1", false),
            ("a{x=`\\`} > bool 1", true),
        ] {
            assert_eq!(has_bool_modifier(expression), found, "{expression}");
        }
    }
}
