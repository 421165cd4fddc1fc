//! Where an app exposes its metrics: a URL with places for what differs between its processes.
//!
//! Plain HTTP only, for apps are asked on the machine itself. Refuses user names and passwords: they would end up in logs.

/// A checked URL that may hold `{pm_id}` and `{instance}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsUrl {
    address: String,
    path: String,
}

/// The URL of one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricsTarget {
    /// `host:port`.
    pub address: String,
    /// The path with its query, from the first slash on.
    pub path: String,
}

impl MetricsUrl {
    /// Checks a URL as the user wrote it.
    ///
    /// # Errors
    /// A sentence that says what such a URL looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Asked first, and the text itself is not repeated: it may hold a password.
        if text.split('/').nth(2).unwrap_or(text).contains('@') {
            return Err("a URL to read holds no user name and no password".to_owned());
        }
        let wrong = |why: &str| format!("\"{text}\" is not a URL to read: {why}");
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(wrong("write \"http://127.0.0.1:9464/metrics\"; only http is read"));
        };
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let printable = |c: char| c.is_ascii_graphic() && c != '#';
        if text.len() > 1024 || !text.chars().all(printable) {
            return Err(wrong("up to 1024 ASCII characters without spaces and without \"#\""));
        }
        let url = Self { address: address.to_owned(), path: if path.is_empty() { "/" } else { path }.to_owned() };
        let example = url.fill("0", "0");
        if example.address.contains(['{', '}']) || example.path.contains(['{', '}']) {
            return Err(wrong("the placeholders are {pm_id} and {instance}"));
        }
        let port = example.address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(wrong("write the host and the port, as in \"http://127.0.0.1:9464/metrics\""));
        }
        Ok(url)
    }

    /// The URL of one process; none where it asks for an instance number and the process has none, or where the
    /// numbers make no port.
    pub fn target(&self, pm_id: u32, instance: Option<u32>) -> Option<MetricsTarget> {
        if instance.is_none() && (self.address.contains("{instance}") || self.path.contains("{instance}")) {
            return None;
        }
        let target = self.fill(&pm_id.to_string(), &instance.unwrap_or_default().to_string());
        let port = target.address.rsplit_once(':').map_or("", |(_, port)| port);
        port.parse::<u16>().is_ok_and(|port| port > 0).then_some(target)
    }

    fn fill(&self, pm_id: &str, instance: &str) -> MetricsTarget {
        let fill = |text: &str| text.replace("{pm_id}", pm_id).replace("{instance}", instance);
        MetricsTarget { address: fill(&self.address), path: fill(&self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_port_and_path() {
        for (text, pm_id, instance, expected) in [
            ("http://127.0.0.1:9464/metrics", 7, None, Some(("127.0.0.1:9464", "/metrics"))),
            ("http://127.0.0.1:946{instance}/metrics", 7, Some(3), Some(("127.0.0.1:9463", "/metrics"))),
            ("http://127.0.0.1:946{instance}/metrics", 7, None, None),
            ("http://[::1]:80/m?worker={pm_id}&x=1", 7, Some(3), Some(("[::1]:80", "/m?worker=7&x=1"))),
            ("http://localhost:6553{pm_id}", 5, None, Some(("localhost:65535", "/"))),
            ("http://localhost:6553{pm_id}", 6, None, None),
        ] {
            let url = MetricsUrl::parse(text).unwrap();
            let target = url.target(pm_id, instance);
            let target = target.as_ref().map(|target| (target.address.as_str(), target.path.as_str()));
            assert_eq!(target, expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in ["http://me:hunter2@127.0.0.1:9464/metrics", "https://me:hunter2@api", "me:hunter2@api:80"] {
            let message = MetricsUrl::parse(text).expect_err("it holds a password");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
