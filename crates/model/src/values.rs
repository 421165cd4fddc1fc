//! Quantities as people write them in the configuration: spans of time, sizes, patterns, zones, cron, endpoints.
//!
//! Every type reads and writes one text form, so that a wrong value is refused at the place it stands. This room refuses
//! to give meaning to a quantity: that is for the settings that hold it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{AppName, Bytes};

/// Why a text is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject:?} {kind}")]
pub struct ValueError {
    /// The text.
    pub subject: String,
    /// What is wrong with it.
    pub kind: ValueErrorKind,
}

/// What can be wrong with a quantity's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueErrorKind {
    /// Not a span of time.
    #[error("is not a duration: write \"500ms\", \"15s\", \"5m\", \"12h\" or \"30d\"")]
    Span,
    /// Not a size.
    #[error("is not a size: write \"512MiB\", \"1.5GiB\" or \"800MB\"")]
    Size,
    /// Not a pattern.
    #[error("is not a pattern: it must hold 1 to 256 characters, of which * and ? are wild")]
    Pattern,
    /// Not a time zone this machine knows.
    #[error("is not a time zone this machine knows, like \"UTC\", \"Europe/Berlin\" or \"local\"")]
    Zone,
    /// Not a cron expression.
    #[error("is not a cron expression: {0}")]
    Cron(String),
    /// Not an address.
    #[error("is not an address like \"http://127.0.0.1:9090\": {0}")]
    Endpoint(&'static str),
}

fn wrong(subject: &str, kind: ValueErrorKind) -> ValueError {
    ValueError { subject: subject.chars().take(120).collect(), kind }
}

macro_rules! text_form {
    ($($name:ident)+) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+ };
}

text_form!(Span Size Pattern Zone CronText Endpoint ProbeAddress);

/// A span of time, written with its units: `"90s"`, `"1h30m"`, `"250ms"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Makes a span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Makes a span of whole minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self(Duration::from_secs(minutes * 60))
    }

    /// Makes a span of whole hours.
    pub const fn hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }
}

const SPAN_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || wrong(text, ValueErrorKind::Span);
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let mut last_unit = u64::MAX;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let number: u64 = number.parse().map_err(|_not_a_number| error())?;
            let scale = SPAN_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale).ok_or_else(error)?;
            if scale >= last_unit {
                return Err(error());
            }
            last_unit = scale;
            total = number.checked_mul(scale).and_then(|part| total.checked_add(part)).ok_or_else(error)?;
            rest = after.trim_start();
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return formatter.write_str("0s");
        }
        for (unit, scale) in SPAN_UNITS.into_iter().skip(1) {
            if rest >= scale {
                write!(formatter, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

/// Writes a span for a sentence: two units at most (`2 d 4 h`, `41 h`, `12 min`, `30 s`).
#[derive(Debug, Clone, Copy)]
pub struct Spoken(pub Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(formatter, "{seconds} s"),
            (0, 0, 1..=9) if !seconds.is_multiple_of(60) => write!(formatter, "{minutes} min {} s", seconds % 60),
            (0, 0, _) => write!(formatter, "{minutes} min"),
            (0, 1..=9, _) if !minutes.is_multiple_of(60) => write!(formatter, "{hours} h {} min", minutes % 60),
            (0..=1, _, _) => write!(formatter, "{hours} h"),
            (2..=9, _, _) if !hours.is_multiple_of(24) => write!(formatter, "{days} d {} h", hours % 24),
            _ => write!(formatter, "{days} d"),
        }
    }
}

/// A number of bytes, written with its unit: `"512MiB"`, `"1.5GiB"`, `"200MB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub Bytes);

impl Size {
    /// Makes a size of whole mebibytes.
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(Bytes(mebibytes << 20))
    }
}

const SIZE_UNITS: [(&str, f64); 10] = [
    ("TiB", 1_099_511_627_776.0),
    ("GiB", 1_073_741_824.0),
    ("MiB", 1_048_576.0),
    ("KiB", 1024.0),
    ("TB", 1e12),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("KB", 1e3),
    ("B", 1.0),
];

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || wrong(text, ValueErrorKind::Size);
        let trimmed = text.trim();
        let (unit, scale) = SIZE_UNITS.iter().find(|(unit, _)| trimmed.ends_with(unit)).ok_or_else(error)?;
        let number = trimmed[..trimmed.len() - unit.len()].trim_end();
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(error());
        }
        let number: f64 = number.parse().map_err(|_not_a_number| error())?;
        let bytes = number * scale;
        if bytes < 9.0e15 { Ok(Self(Bytes::from_f64(bytes))) } else { Err(error()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.0;
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if bytes != 0 && bytes.trailing_zeros() >= shift {
                return write!(formatter, "{}{unit}", bytes >> shift);
            }
        }
        write!(formatter, "{bytes}B")
    }
}

/// A name with wild cards: `*` stands for any run of characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Makes the pattern that every name matches.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Whether the whole of `name` matches; takes time in proportion to the product of both lengths at worst.
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.0.as_str(), name);
        // Where to go on when a run after a star turns out too short: behind the star, one character further.
        let mut retry: Option<(&str, &str)> = None;
        loop {
            let (wanted, found) = (pattern.chars().next(), name.chars().next());
            match (wanted, found) {
                (None, None) => return true,
                (Some('*'), _) => {
                    pattern = &pattern[1..];
                    retry = Some((pattern, name));
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    pattern = &pattern[wanted.len_utf8()..];
                    name = &name[found.len_utf8()..];
                }
                _ => {
                    let Some((after_star, from)) = retry else { return false };
                    let Some(skipped) = from.chars().next() else { return false };
                    pattern = after_star;
                    name = &from[skipped.len_utf8()..];
                    retry = Some((pattern, name));
                }
            }
        }
    }
}

impl Pattern {
    /// Whether it matches an app: by its name in every namespace, or, with a slash, by `namespace/name`.
    pub fn matches_app(&self, app: &AppName) -> bool {
        app.fits(&self.0, |text| self.matches(text))
    }

    /// Whether it names one app or module, and not many by a wildcard.
    pub fn is_plain(&self) -> bool {
        !self.0.contains(['*', '?'])
    }
}

impl FromStr for Pattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.chars().count() {
            1..=256 => Ok(Self(text.to_owned())),
            _ => Err(wrong(text, ValueErrorKind::Pattern)),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A time zone by its IANA name; `local` is the machine's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    name: String,
    zone: jiff::tz::TimeZone,
}

impl Zone {
    /// Returns Coordinated Universal Time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: jiff::tz::TimeZone::UTC }
    }

    /// Returns the zone's rules.
    pub fn rules(&self) -> &jiff::tz::TimeZone {
        &self.zone
    }
}

impl FromStr for Zone {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let zone = match text {
            "UTC" => jiff::tz::TimeZone::UTC,
            "local" => jiff::tz::TimeZone::system(),
            name => jiff::tz::TimeZone::get(name).map_err(|_unknown| wrong(text, ValueErrorKind::Zone))?,
        };
        Ok(Self { name: text.to_owned(), zone })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// A cron expression of five fields (minute, hour, day of month, month, day of week).
#[derive(Clone, PartialEq)]
pub struct CronText {
    text: String,
    cron: croner::Cron,
}

impl fmt::Debug for CronText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CronText({:?})", self.text)
    }
}

impl CronText {
    /// Returns the first instant strictly after `after` that the expression names in `zone`; none when there is none.
    pub fn next_after(&self, after: jiff::Timestamp, zone: &Zone) -> Option<jiff::Timestamp> {
        let start = after.to_zoned(zone.rules().clone());
        self.cron.find_next_occurrence(&start, false).ok().map(|at| at.timestamp())
    }
}

impl FromStr for CronText {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.len() > 200 {
            return Err(wrong(text, ValueErrorKind::Cron("it is longer than 200 bytes".to_owned())));
        }
        let cron =
            croner::Cron::from_str(text).map_err(|error| wrong(text, ValueErrorKind::Cron(error.to_string())))?;
        Ok(Self { text: text.to_owned(), cron })
    }
}

impl fmt::Display for CronText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Where a server is reached over HTTP: scheme, host, port and the path that every request begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port; the scheme's own when the text names none.
    pub port: u16,
    /// Path without a closing slash, empty for the root; a query, where there is one, stays in it.
    pub path: String,
}

impl Endpoint {
    /// The value of the `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |why| wrong(text, ValueErrorKind::Endpoint(why));
        if text.len() > 2000 || text.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
            return Err(error("it holds blanks, control characters or more than 2000 bytes"));
        }
        let (tls, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else {
            return Err(error("it must begin with http:// or https://"));
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.contains('@') {
            return Err(error("a password in an address shows in logs: use a file"));
        }
        let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
            let (host, after) = inner.split_once(']').ok_or_else(|| error("the bracket does not close"))?;
            (host, after.strip_prefix(':'))
        } else {
            match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            }
        };
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_not_a_port| error("the port is not a number from 1 to 65535"))?,
            None if tls => 443,
            None => 80,
        };
        if port == 0 || path.contains('#') {
            return Err(error("port 0 and fragments have no meaning here"));
        }
        Ok(Self { tls, host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Where a probe asks over HTTP. The port may be `{port}`: the one that the process listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAddress {
    endpoint: Endpoint,
    port_of_process: bool,
}

const PORT_OF_PROCESS: &str = "{port}";

impl ProbeAddress {
    /// Whether only the port of the process completes it.
    pub fn needs_port(&self) -> bool {
        self.port_of_process
    }

    /// The address, with the port of the process where it is asked for.
    pub fn at(&self, port: u16) -> Endpoint {
        let port = if self.port_of_process { port } else { self.endpoint.port };
        Endpoint { port, ..self.endpoint.clone() }
    }

    /// Whether it asks this machine only.
    pub fn is_loopback(&self) -> bool {
        let host = self.endpoint.host.as_str();
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for ProbeAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let authority = text.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let port_of_process = authority.ends_with(PORT_OF_PROCESS);
        let known = if port_of_process { text.replacen(PORT_OF_PROCESS, "1", 1) } else { text.to_owned() };
        Ok(Self { endpoint: known.parse()?, port_of_process })
    }
}

impl fmt::Display for ProbeAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.endpoint.to_string();
        if !self.port_of_process {
            return formatter.write_str(&text);
        }
        // The port that stands in for it is no scheme's own, so it is written out, before the path.
        let authority = self.endpoint.authority();
        let host = authority.trim_end_matches(":1");
        formatter.write_str(&text.replacen(&authority, &format!("{host}:{PORT_OF_PROCESS}"), 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_asks_a_port_that_is_written_or_that_of_the_process() {
        for (text, needs_port, loopback) in [
            ("http://127.0.0.1:{port}/healthz", true, true),
            ("http://127.0.0.1:3000/healthz?deep=1", false, true),
            ("http://[::1]:{port}", true, true),
            ("http://localhost:{port}/", true, true),
            ("https://shop.example/healthz", false, false),
        ] {
            let address: ProbeAddress = text.parse().unwrap();
            assert_eq!((address.needs_port(), address.is_loopback()), (needs_port, loopback), "{text}");
            assert_eq!(address.to_string().parse::<ProbeAddress>().unwrap(), address, "{text}");
        }
        let address: ProbeAddress = "http://127.0.0.1:{port}/{port}".parse().unwrap();
        assert_eq!(address.at(81).to_string(), "http://127.0.0.1:81/{port}");
        assert!("http://127.0.0.1:{port/".parse::<ProbeAddress>().is_err());
    }

    #[test]
    fn spans_are_read_and_written_back() {
        for (text, milliseconds, canonical) in [
            ("30s", 30_000, "30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("1w", 604_800_000, "7d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(span.to_string(), canonical);
            assert_eq!(canonical.parse::<Span>().unwrap(), span);
        }
        for text in
            ["", "5", "m", "-5m", "1.5h", "5m1h", "5m5m", "99999999999999999999s", "5 m", "5mm", "18446744073709551w"]
        {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, canonical) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("200MB", 200_000_000, "200000000B"),
            ("0B", 0, "0B"),
            ("7 KiB", 7168, "7KiB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, Bytes(bytes), "{text}");
            assert_eq!(size.to_string(), canonical);
            assert_eq!(canonical.parse::<Size>().unwrap(), size);
        }
        for text in ["", "MiB", "-1MiB", "1e9B", "5", "5 mib", "1..5MiB", "99999999TiB", "infB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("shop-*", "shop-api", true),
            ("shop-*", "my-shop-api", false),
            ("*-api", "shop-api", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("é?", "éà", true),
            ("[ab]", "a", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), expected, "{pattern} {name}");
        }
        let slow: Pattern = "*a".repeat(128).parse().unwrap();
        assert!(!slow.matches(&"a".repeat(100)));
        assert!("".parse::<Pattern>().is_err());
    }

    #[test]
    fn endpoints_are_taken_apart() {
        let endpoint: Endpoint = "http://[::1]:9090/prometheus/".parse().unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.path.as_str()), ("::1", 9090, "/prometheus"));
        assert_eq!(endpoint.to_string(), "http://[::1]:9090/prometheus");
        let endpoint: Endpoint = "https://hooks.example/services/a?b=c".parse().unwrap();
        assert!(endpoint.tls);
        assert_eq!((endpoint.authority().as_str(), endpoint.port), ("hooks.example", 443));
        for text in [
            "",
            "ftp://x",
            "http://",
            "http://:80",
            "http://user:secret@x",
            "http://x:0",
            "http://x:99999",
            "http://a b",
            "http://x/\r\ny",
            "http://[::1",
            "http://x/#y",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn spans_are_spoken_with_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (90, "1 min 30 s"),
            (720, "12 min"),
            (3600, "1 h"),
            (9000, "2 h 30 min"),
            (41 * 3600, "41 h"),
            (52 * 3600, "2 d 4 h"),
            (30 * 86_400, "30 d"),
        ] {
            assert_eq!(Spoken(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
