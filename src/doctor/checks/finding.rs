//! The checks by name, and what one finds.

use serde::Serialize;

/// Where the checks are explained; a check's name follows as the anchor.
const DOCUMENT: &str = "https://github.com/leakslope/leakslope/blob/main/docs/doctor.md";

/// How bad it is. The worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// An app is down, will be killed, or will not come back.
    Critical,
    /// It will hurt when something else goes wrong.
    Warning,
    /// Something cannot be told, or is worth knowing.
    Note,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! checks {
    ($($name:ident $word:literal $title:literal;)+) => {
        /// One check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $(#[doc = $title] $name,)+
        }

        impl Check {
            /// Every check, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name: the anchor in the document, and never changed.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// What it is about.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

checks! {
    StopExitCodes "stop-exit-codes" "A crash that stops the app for good";
    OomPolicy "oom-policy" "One process out of memory takes all apps";
    HeapAboveGroup "heap-above-group" "V8 may take more than the control group has";
    HeapFlag "heap-flag" "A heap limit that is not in force";
    MemoryRestart "memory-restart" "A memory limit of pm2's that does harm or nothing";
    KillTimeout "kill-timeout" "Killed before it could end";
    ListenTimeout "listen-timeout" "Traffic before the app is ready";
    EndlessRestarts "endless-restarts" "A crash loop that pm2 never gives up";
    HostMemory "host-memory" "Heaps that the host cannot hold";
    Wrapper "wrapper" "pm2 manages a wrapper, not the app";
    Logs "logs" "Logs that fill the disk or hold nothing";
    Journal "journal" "pm2 keeps no record of its own";
    Orphans "orphans" "Processes that outlive pm2";
    Dump "dump" "Apps that do not come back with pm2";
    Watch "watch" "Restarts whenever a file changes";
    OomScore "oom-score" "The kernel may kill pm2 itself";
    Autorestart "autorestart" "Restarts that do not come, or come without a pause";
    CoreFiles "core-files" "Native crashes that leave nothing behind";
    KernelLog "kernel-log" "The kernel's log cannot be read";
}

impl Check {
    /// Its number.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|check| *check == self).map_or(0, |place| place + 1)
    }
}

impl Serialize for Check {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// Its number.
    pub number: usize,
    /// How bad it is.
    pub severity: Severity,
    /// The daemon, or the ecosystem file.
    pub daemon: String,
    /// The app; none where it is about the daemon or the host.
    pub app: Option<String>,
    /// pm2's numbers of its processes.
    pub pm_ids: Vec<u32>,
    /// What is wrong.
    pub what: String,
    /// Why it hurts.
    pub why: String,
    /// The line to change.
    pub change: String,
    /// Where it is explained.
    pub link: String,
}

impl Finding {
    /// Makes a finding about a daemon or the host.
    pub(crate) fn new(
        check: Check,
        severity: Severity,
        daemon: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self {
            check,
            number: check.number(),
            severity,
            daemon: daemon.to_owned(),
            app: None,
            pm_ids: Vec::new(),
            what: what.into(),
            why: why.into(),
            change: change.into(),
            link: format!("{DOCUMENT}#{}", check.as_str()),
        }
    }

    /// The same about an app.
    pub(crate) fn of(self, app: &super::AppSettings) -> Self {
        Self { app: Some(app.name.clone()), pm_ids: app.pm_id.into_iter().collect(), ..self }
    }
}
