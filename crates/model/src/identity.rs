//! Who is who: a daemon, an app, a process and one of its lives.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The configured name of one pm2 daemon, `default` unless told otherwise. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DaemonName(pub Arc<str>);

/// An app of one daemon, as pm2 tells apps apart: by namespace and name. Several processes share it in cluster mode or by
/// accident. Cheap to clone.
///
/// The namespace is empty where nobody gave one: in what a person or an alert asks for, and in records of versions that
/// did not keep it. Such a name is compared by [`Self::means`]. A struct that holds one flattens it, so that its JSON has
/// `app` and `namespace` side by side; text alone is read as a name without a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AppName {
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: Arc<str>,
    #[serde(rename = "app")]
    name: Arc<str>,
}

/// The namespace that pm2 puts an app into when it is given none.
pub const DEFAULT_NAMESPACE: &str = "default";

impl AppName {
    /// Makes the name of an app in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: Arc::from(namespace), name: Arc::from(name) }
    }

    /// Returns the name without the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespace; empty where nobody gave one.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns `namespace/name`, which names the app beyond doubt; the name alone where no namespace was given.
    pub fn qualified(&self) -> String {
        if self.namespace.is_empty() { self.name.to_string() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// Writes [`Self::qualified`] as text, for what asks for an app.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize_qualified<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.qualified())
    }

    /// Whether this name, as somebody gave it, means the listed app: `api` means every namespace's, `staging/api` one.
    pub fn means(&self, listed: &Self) -> bool {
        if self.namespace.is_empty() {
            let split = self.name.split_once('/').filter(|(namespace, _)| !namespace.starts_with('@'));
            return self.name == listed.name
                || split.is_some_and(|(namespace, name)| Self::new(namespace, name).means(listed));
        }
        self.name == listed.name && (self.namespace == listed.namespace || listed.namespace.is_empty())
    }

    /// Whether a pattern fits the app, by the rule `fits` for texts: a pattern without a slash is held against the name in
    /// every namespace, one with a slash against `namespace/name` too.
    pub fn fits(&self, pattern: &str, fits: impl Fn(&str) -> bool) -> bool {
        fits(&self.name) || (pattern.contains('/') && fits(&self.qualified()))
    }
}

impl From<&str> for AppName {
    fn from(text: &str) -> Self {
        Self::new("", text)
    }
}

/// Writes the namespace only where it is not pm2's own default.
impl fmt::Display for AppName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            "" | DEFAULT_NAMESPACE => formatter.write_str(&self.name),
            namespace => write!(formatter, "{namespace}/{}", self.name),
        }
    }
}

impl<'de> Deserialize<'de> for AppName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AppNameVisitor)
    }
}

struct AppNameVisitor;

impl<'de> Visitor<'de> for AppNameVisitor {
    type Value = AppName;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of an app")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AppName, E> {
        Ok(AppName::from(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AppName, A::Error> {
        let (mut namespace, mut name) = (None, None);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "namespace" => namespace = map.next_value::<Option<Arc<str>>>()?,
                "app" => name = Some(map.next_value::<Arc<str>>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let name = name.ok_or_else(|| de::Error::missing_field("app"))?;
        Ok(AppName { namespace: namespace.unwrap_or_default(), name })
    }
}

impl DaemonName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for DaemonName {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for DaemonName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One entry of one pm2 list: pm2 never gives a `pm_id` to two entries at a time. It outlives restarts, and zero is
/// an id like any other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The daemon that lists it.
    pub daemon: DaemonName,
    /// pm2's number for it.
    pub pm_id: u32,
}

impl ProcessKey {
    /// The pm2 daemon itself, which is judged like its processes. pm2 gives this number to none of them.
    pub fn of_daemon(daemon: &DaemonName) -> Self {
        Self { daemon: daemon.clone(), pm_id: u32::MAX }
    }

    /// Whether it is the pm2 daemon itself.
    pub fn is_daemon(&self) -> bool {
        self.pm_id == u32::MAX
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_daemon() {
            write!(formatter, "{} (the daemon)", self.daemon)
        } else {
            write!(formatter, "{}/{}", self.daemon, self.pm_id)
        }
    }
}

/// One life of a process, from a start to its end: no series may run across two of them.
///
/// A pid alone is reused by the system, a start alone is shared by workers that start together; the pair is unique
/// within a [`ProcessKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// The operating system's process id.
    pub pid: u32,
    /// `pm_uptime` as pm2 recorded it at the start: milliseconds since the epoch by the wall clock of that moment. A
    /// name, not a time to reckon with.
    pub started: i64,
}

impl fmt::Display for Life {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.pid, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_alone_means_every_namespace_and_a_qualified_one_means_one() {
        let (production, staging) = (AppName::new("production", "api"), AppName::new("staging", "api"));
        let scoped = AppName::new(DEFAULT_NAMESPACE, "@shop/api");
        for (asked, expected) in [
            (AppName::from("api"), [true, true, false]),
            (AppName::from("staging/api"), [false, true, false]),
            (AppName::from("@shop/api"), [false, false, true]),
            (AppName::from("default/@shop/api"), [false, false, true]),
            (AppName::from("other/api"), [false, false, false]),
            (production.clone(), [true, false, false]),
        ] {
            let meant = [&production, &staging, &scoped].map(|listed| asked.means(listed));
            assert_eq!(meant, expected, "{asked:?}");
        }
        for asked in [production.clone(), AppName::from("staging/api")] {
            assert!(asked.means(&AppName::from("api")), "{asked}: a record without a namespace");
        }
        assert_eq!([&production, &scoped].map(ToString::to_string), ["production/api", "@shop/api"]);
    }

    #[test]
    fn a_flattened_name_reads_what_was_written_before_there_were_namespaces() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Record {
            #[serde(flatten)]
            app: AppName,
            count: u32,
        }
        let old: Record = serde_json::from_str(r#"{"app":"api","count":3}"#).unwrap();
        assert_eq!(old, Record { app: AppName::from("api"), count: 3 });
        let new = Record { app: AppName::new("staging", "api"), count: 3 };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(text, r#"{"namespace":"staging","app":"api","count":3}"#);
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), new);
        assert_eq!(serde_json::from_str::<AppName>("\"api\"").unwrap(), AppName::from("api"));
        assert!(serde_json::from_str::<Record>(r#"{"count":3}"#).is_err());
    }
}
