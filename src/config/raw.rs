//! The layout of the file as it is written: every value optional, as text, with its place in the source.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use toml::Spanned;

/// A value with its place, or nothing.
pub(super) type Value<T> = Option<Spanned<T>>;

/// Texts, of which one alone may be written without its brackets.
#[derive(Debug)]
pub(super) struct OneOrMore(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMore;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

macro_rules! layered {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $($(#[$field_meta])* pub(super) $field: $kind,)*
        }
    };
}

layered! {
    /// The whole file.
    struct File {
        interval: Value<String>,
        discover: Value<bool>,
        pm2: Vec<Spanned<Pm2>>,
        collect: Collect,
        web: Web,
        history: History,
        log: Log,
        evidence: Evidence,
        trend: Trend,
        restart: Option<Spanned<crate::policy::RestartSettings>>,
        app: Vec<Spanned<App>>,
    }
}

layered! {
    /// One `[[pm2]]`.
    struct Pm2 {
        name: Value<String>,
        home: Value<String>,
        source: Value<String>,
        command: Value<Vec<String>>,
    }
}

layered! {
    /// `[collect]`.
    struct Collect {
        heap_interval: Value<String>,
        deadline: Value<String>,
        max_reply: Value<String>,
        max_processes: Value<i64>,
    }
}

layered! {
    /// `[web]`.
    struct Web {
        listen_address: Value<OneOrMore>,
        max_connections: Value<i64>,
        token_file: Value<String>,
        config_file: Value<String>,
        acting_users: Value<Vec<String>>,
        acting_groups: Value<Vec<String>>,
        allowed_hosts: Value<Vec<String>>,
        systemd_socket: Value<bool>,
    }
}

layered! {
    /// `[history]`.
    struct History {
        window: Value<String>,
        lives: Value<String>,
        max_size: Value<String>,
    }
}

layered! {
    /// `[log]`.
    struct Log {
        level: Value<String>,
        format: Value<String>,
    }
}

layered! {
    /// `[evidence]`.
    struct Evidence {
        on_leak: Value<String>,
        before_restart: Value<String>,
        before_restart_duration: Value<String>,
        duration: Value<String>,
        cooldown: Value<String>,
        max_disk: Value<String>,
        open_inspector: Value<Vec<String>>,
        path_map: Value<Vec<String>>,
        source_maps: Value<Vec<PathBuf>>,
    }
}

layered! {
    /// `[trend]`.
    struct Trend {
        minute: Value<String>,
    }
}

layered! {
    /// One `[[app]]`.
    struct App {
        name: Value<String>,
        memory_limit: Value<String>,
        metrics_url: Value<String>,
        smallest_growth: Value<String>,
        smallest_share: Value<f64>,
    }
}
