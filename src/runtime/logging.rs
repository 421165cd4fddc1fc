//! Log lines: human or JSON on standard error, with a level that can change while running.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, LogSettings};

/// The handle by which the level is changed later.
#[derive(Debug, Clone)]
pub(super) struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
}

impl Logging {
    /// Sets up logging for the process; call it once.
    pub(super) fn start(settings: LogSettings) -> Self {
        let (filter, level) = reload::Layer::new(LevelFilter::from_level(settings.level));
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let lines = match settings.format {
            LogFormat::Human => {
                tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(ansi).boxed()
            }
            LogFormat::Json => {
                tracing_subscriber::fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed()
            }
        };
        if let Err(error) = tracing_subscriber::registry().with(filter).with(lines).try_init() {
            tracing::debug!(%error, "logging was set up before");
        }
        Self { level }
    }

    /// Changes the level.
    pub(super) fn set_level(&self, level: tracing::Level) {
        if let Err(error) = self.level.modify(|filter| *filter = LevelFilter::from_level(level)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}
