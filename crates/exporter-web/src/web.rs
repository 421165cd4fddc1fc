//! The web configuration (`--web.config.file`): the YAML that Prometheus' exporters share, from its text to values.
//!
//! Every problem is named at once with file, line and key, and no message ever quotes a value below `basic_auth_users` or
//! a key. What another server would understand and this one does not do is refused, never ignored. This room is pure: it
//! refuses to open the files that the text names.

mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::yaml::{Node, Place, read};
use model::{ConfigError, Problem, Span};

/// The most expensive password hash that is accepted; beyond it one look at a password takes many seconds.
const COST_MAX: u32 = 16;
/// Headers that may be set, with their only values where those are limited.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];
/// The suites of TLS 1.2 that can be chosen from.
pub const SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// A web configuration, checked as far as its own text goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebConfig {
    /// How connections are encrypted; none where they are not.
    pub tls: Option<TlsSettings>,
    /// Headers for every answer.
    pub headers: Vec<(&'static str, String)>,
    /// Hashes of passwords by user.
    pub users: Users,
    /// How many requests are answered.
    pub rate: Option<Rate>,
}

/// Users and the bcrypt hashes of their passwords, which never show in logs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users(pub BTreeMap<String, String>);

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} users", self.0.len())
    }
}

/// `rate_limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests at once.
    pub burst: u32,
    /// The time after which one more is answered.
    pub interval: Duration,
}

/// `tls_server_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate and those above it.
    pub certificate: Pem,
    /// Its key.
    pub key: Pem,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// Who may have signed them.
    pub client_authorities: Option<Pem>,
    /// The names of which a client's certificate has to have one; empty where any will do.
    pub client_names: BTreeSet<String>,
    /// The versions spoken, the lowest and the highest.
    pub versions: (TlsVersion, TlsVersion),
    /// The suites of TLS 1.2, the best first; empty for the usual ones.
    pub suites: Vec<&'static str>,
    /// The groups of key exchange, the best first; empty for the usual ones.
    pub curves: Vec<Curve>,
    /// Whether our order of suites counts and not the client's.
    pub our_order: bool,
}

/// A text in PEM, and the place that names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The dotted key.
    pub key: &'static str,
    /// The line of the web configuration.
    pub line: usize,
    /// Where the text is.
    pub source: PemSource,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            PemSource::File(path) => write!(formatter, "{}", path.display()),
            PemSource::Inline(_) => formatter.write_str("inline"),
        }
    }
}

/// Where a text in PEM is.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// In a file.
    File(PathBuf),
    /// In the web configuration itself.
    Inline(String),
}

impl std::fmt::Debug for PemSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if matches!(self, Self::File(_)) { "a file" } else { "inline" })
    }
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for.
    None,
    /// They are asked for, and neither needed nor checked.
    Requested,
    /// One is needed, whoever signed it.
    Any,
    /// One that is shown must be good.
    IfGiven,
    /// A good one is needed.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// A group of key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// X25519.
    X25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

impl WebConfig {
    /// Reads the text of the file `name`; relative paths in it are meant from `folder`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader { name, folder, problems: Vec::new() };
        let config = match read(text) {
            Ok(root) => reader.config(&root),
            Err((line, message)) => {
                reader.report(Place { line }, "", message);
                Self::default()
            }
        };
        if reader.problems.is_empty() {
            return Ok(config);
        }
        reader.problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid { problems: reader.problems })
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let all = [Some(&tls.certificate), Some(&tls.key), tls.client_authorities.as_ref()];
        all.into_iter()
            .flatten()
            .filter_map(|pem| match &pem.source {
                PemSource::File(path) => Some(path.as_path()),
                PemSource::Inline(_) => None,
            })
            .collect()
    }
}

struct Reader<'a> {
    name: &'a str,
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn report(&mut self, place: Place, key: &str, message: impl Into<String>) {
        let (file, key, message) = (self.name.to_owned(), key.to_owned(), message.into());
        self.problems.push(Problem { file, line: place.line, key, message });
    }

    /// The entries of a table, each of which must have one of these names; empty where there is nothing.
    fn table<'n>(&mut self, node: &'n Node, key: &str, names: &[&'static str]) -> BTreeMap<&'static str, &'n Node> {
        let mut known = BTreeMap::new();
        for (name, place, value) in self.entries(node, key) {
            match names.iter().find(|known| **known == name) {
                Some(name) => {
                    known.insert(*name, value);
                }
                None => self.report(place, &dotted(key, name), format!("unknown key: {} are known", names.join(", "))),
            }
        }
        known
    }

    fn entries<'n>(&mut self, node: &'n Node, key: &str) -> Vec<(&'n str, Place, &'n Node)> {
        match node {
            Node::Table(_, entries) => {
                entries.iter().map(|(name, place, value)| (name.as_str(), *place, value)).collect()
            }
            Node::Nothing(_) => Vec::new(),
            Node::Text(..) | Node::Plain(..) | Node::Bool(..) | Node::List(..) => {
                self.report(node.place(), key, "a table is needed here: `key: value` lines");
                Vec::new()
            }
        }
    }

    fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        let text = node.as_text();
        if text.is_none() {
            self.report(node.place(), key, "a text is needed here");
        }
        text
    }

    fn flag(&mut self, node: &Node, key: &str) -> bool {
        if let Node::Bool(_, flag) = node {
            return *flag;
        }
        self.report(node.place(), key, "true or false is needed here");
        false
    }

    /// One of several words.
    fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node, key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.report(node.place(), key, format!("\"{text}\" is not supported: {} are", words.join(", ")));
        }
        found
    }

    /// A list of words, each one of several.
    fn words<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&'static str, T)]) -> Vec<T> {
        if let Node::List(_, items) = node {
            return items.iter().filter_map(|item| self.word(item, key, words)).collect();
        }
        self.report(node.place(), key, "a list is needed here");
        Vec::new()
    }

    fn config(&mut self, root: &Node) -> WebConfig {
        let names = ["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"];
        let top = self.table(root, "", &names);
        WebConfig {
            tls: top.get(names[0]).and_then(|node| self.tls(node)),
            headers: top.get(names[1]).map(|node| self.http(node)).unwrap_or_default(),
            users: top.get(names[2]).map(|node| self.users(node)).unwrap_or_default(),
            rate: top.get(names[3]).and_then(|node| self.rate(node)),
        }
    }

    fn http(&mut self, node: &Node) -> Vec<(&'static str, String)> {
        let table = self.table(node, "http_server_config", &["headers", "http2"]);
        if let Some(http2) = table.get("http2") {
            // Understood and without effect: HTTP/1.1 is what is spoken either way.
            self.flag(http2, "http_server_config.http2");
        }
        let Some(headers) = table.get("headers") else { return Vec::new() };
        let mut found = Vec::new();
        for (name, value) in self.table(headers, "http_server_config.headers", &HEADERS.map(|(name, _)| name)) {
            let key = dotted("http_server_config.headers", name);
            let Some(text) = self.text(value, &key) else { continue };
            let allowed = HEADERS.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, allowed)| *allowed);
            if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                self.report(value.place(), &key, "holds characters that no header can carry");
            } else if text.is_empty() {
                // As good as not set.
            } else if allowed.is_empty() || allowed.contains(&text) {
                found.push((name, text.to_owned()));
            } else {
                self.report(value.place(), &key, format!("\"{text}\" is not accepted: {} is", allowed.join(" or ")));
            }
        }
        found
    }

    fn users(&mut self, node: &Node) -> Users {
        let mut users = BTreeMap::new();
        for (name, place, hash) in self.entries(node, "basic_auth_users") {
            let key = dotted("basic_auth_users", name);
            if name.is_empty() || name.contains(':') || name.contains(char::is_control) {
                self.report(place, "basic_auth_users", "a user's name has at least one character and no colon");
                continue;
            }
            let parts = hash.as_text().and_then(|text| {
                let parts = text.parse::<bcrypt::HashParts>().ok()?;
                Some((text, parts.get_cost()))
            });
            match parts {
                Some((text, cost)) if (4..=COST_MAX).contains(&cost) => {
                    users.insert(name.to_owned(), text.to_owned());
                }
                Some((_, cost)) => {
                    let message = format!("cost {cost} is out of range: from 4 to {COST_MAX}; 10 is usual");
                    self.report(place, &key, message);
                }
                None => self.report(place, &key, "is not a bcrypt hash: make one with `htpasswd -nBC 10 \"\"`"),
            }
        }
        Users(users)
    }

    fn rate(&mut self, node: &Node) -> Option<Rate> {
        let table = self.table(node, "rate_limit", &["burst", "interval"]);
        let node_of_interval = *table.get("interval")?;
        if matches!(node_of_interval, Node::Plain(_, text) if text == "0") {
            return None;
        }
        let text = node_of_interval.as_text().ok_or_else(|| "a duration such as \"100ms\" is needed here".to_owned());
        let interval =
            match text.and_then(|text| text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string())) {
                Ok(interval) => interval,
                Err(message) => {
                    self.report(node_of_interval.place(), "rate_limit.interval", message);
                    return None;
                }
            };
        if interval.is_zero() {
            return None;
        }
        let burst = match table.get("burst") {
            Some(Node::Plain(_, text)) => text.parse().ok().filter(|burst| *burst >= 1),
            _ => None,
        };
        if burst.is_none() {
            let place = table.get("burst").map_or(node.place(), |node| node.place());
            self.report(
                place,
                "rate_limit.burst",
                "a number of requests from 1 is needed, or nothing would be answered",
            );
        }
        Some(Rate { burst: burst?, interval })
    }
}

fn dotted(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$5i1qbbO9lo5P8M.MSs4nYOj4bFoCVkxMl0UzHgqBGn1h.1SV6IDQS";

    fn parse(text: &str) -> Result<WebConfig, ConfigError> {
        WebConfig::parse("web.yml", text, Path::new("/etc/leakslope"))
    }

    fn problems(text: &str) -> String {
        parse(text).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn nothing_is_a_configuration_too() {
        for text in ["", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n", "---\n{}\n"] {
            assert_eq!(parse(text).unwrap(), WebConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn every_key_is_understood() {
        let text = format!(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: /keys/server.key\n  client_ca_file: ca.pem\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [ops, '::1', ops@example.org]\n  min_version: TLS13\n  max_version: TLS13\n  \
             cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  \
             prefer_server_cipher_suites: false\n  curve_preferences: [CurveP256]\n\
             http_server_config:\n  http2: true\n  headers:\n    Strict-Transport-Security: max-age=31536000\n    \
             X-Frame-Options: sameorigin\n    X-XSS-Protection: ''\n\
             basic_auth_users:\n  ops: {HASH}\n  '42': '{HASH}'\n\
             rate_limit:\n  interval: 100ms\n  burst: 20\n"
        );
        let config = parse(&text).unwrap();
        let tls = config.tls.clone().unwrap();
        assert_eq!(tls.certificate.source, PemSource::File(PathBuf::from("/etc/leakslope/server.pem")));
        assert_eq!(tls.key.source, PemSource::File(PathBuf::from("/keys/server.key")));
        assert_eq!((tls.clients, tls.versions), (ClientCertificates::Required, (TlsVersion::Tls13, TlsVersion::Tls13)));
        assert_eq!(tls.client_names.into_iter().collect::<Vec<_>>(), ["::1", "ops", "ops@example.org"]);
        assert_eq!(tls.suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!((tls.curves, tls.our_order), (vec![Curve::P256], false));
        let headers = [("Strict-Transport-Security", "max-age=31536000"), ("X-Frame-Options", "sameorigin")];
        assert_eq!(config.headers, headers.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(config.users.0.keys().collect::<Vec<_>>(), ["42", "ops"]);
        assert_eq!(config.rate, Some(Rate { burst: 20, interval: Duration::from_millis(100) }));
        let shown = format!("{config:?}");
        assert!(!shown.contains("$2b$"), "{shown}");
    }

    #[test]
    fn every_problem_is_named_at_once_with_file_line_and_key() {
        insta::assert_snapshot!(problems(
            "tls_server_config:\n  cert_file: a.pem\n  certificate: b.pem\n  key: |\n    secret\n  key_file: a.key\n  \
             client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [ops, 5]\n  min_version: TLS10\n  \
             cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n  curve_preferences: CurveP521\n\
             http_server_config:\n  http2: maybe\n  headers:\n    X-Frame-Options: never\n    Set-Cookie: a=b\n\
             basic_auth_users:\n  ops: hunter2\n  'a:b': hunter2\n  \
             slow: $2b$18$5i1qbbO9lo5P8M.MSs4nYOj4bFoCVkxMl0UzHgqBGn1h.1SV6IDQS\n\
             rate_limit: {interval: fast, burst: 0}\nbasic_auth: {}\n"
        ));
    }

    #[test]
    fn what_is_half_said_is_a_problem() {
        insta::assert_snapshot!(
            [
                problems("tls_server_config: {min_version: TLS13}\n"),
                problems("tls_server_config: {cert_file: a, key_file: b, client_auth_type: VerifyClientCertIfGiven}\n"),
                problems("tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}\n"),
                problems("tls_server_config: {cert_file: a, key_file: b, client_auth_type: Anybody}\n"),
                problems(
                    "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequestClientCert, client_ca: c}\n"
                ),
                problems("tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [ops]}\n"),
                problems(
                    "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert, \
                     client_ca_file: c, client_allowed_sans: []}\n"
                ),
                problems("tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}\n"),
                problems("basic_auth_users: ops hunter2\n"),
                problems("basic_auth_users: [hunter2]\n"),
                problems("basic_auth_users: {ops: 5}\n"),
                problems("rate_limit: {interval: 1s}\n"),
                problems("- a\n- b\n"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn a_text_that_is_no_yaml_is_named_with_its_line_and_quotes_no_secret() {
        for (text, line) in [
            ("basic_auth_users:\n  ops: \"hunter2\n", 2),
            ("basic_auth_users:\n  ops: hunter2\n  ops: hunter2\n", 3),
            ("a: b\n---\nc: hunter2\n", 2),
            ("basic_auth_users: {ops: hunter2\n", 1),
            ("basic_auth_users:\n\tops: hunter2\n", 2),
            ("a: *hunter2\n", 1),
        ] {
            let told = problems(text);
            assert!(told.starts_with("web.yml:"), "{told}");
            let named: usize = told.split(':').nth(1).unwrap().parse().unwrap();
            assert!(named.abs_diff(line) <= 1, "{told}");
            assert!(!told.contains("hunter2") && told.lines().count() == 1, "{told}");
        }
    }
}
