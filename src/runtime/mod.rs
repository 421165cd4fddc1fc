//! Clocks, tasks and signals: the shell around everything else, and the only room that reads the time.

mod clock;
mod collecting;
mod endpoints;
mod logging;
mod narrator;
mod pipeline;
mod published;
mod restarting;
mod restore;
mod shared;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

pub use clock::Clock;
pub use pipeline::{Change, Outcome, Pipeline};
pub use published::Published;
pub use shared::Shared;
pub use supervisor::{Class, Ended, Supervisor};

use crate::collect::ExposedReader;
use crate::config::{ConfigError, Settings, WebSettings};
use crate::export::json::ProcessesView;
use crate::history::store::{StoreError, StoreWorker};
use crate::http::{ActingPolicy, BearerTokens, HttpSettings, Plain, ServeError, ServeErrorKind, Server};
use logging::Logging;

/// Reads the configuration again, flags included.
pub type Reload = Box<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>;

/// The longest that everything may take to end.
const GRACE: Duration = Duration::from_secs(4);
/// The part of it in which answers under way may finish.
const DRAIN: Duration = Duration::from_secs(1);
/// The part of it that is kept for the store.
const STORE_GRACE: Duration = Duration::from_millis(1_500);

/// Why the sidecar could not start or had to stop.
#[derive(Debug, Error)]
pub enum RunError {
    /// The system refused something at the start.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The state directory belongs to another sidecar.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of bearer tokens cannot be used.
    #[error("web.token_file {}: {reason}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A task without which there is no sidecar has ended.
    #[error("{} ended: {}", .0.task, .0.reason)]
    Ended(Ended),
}

/// Watches, judges and serves until told to stop by SIGTERM or SIGINT. SIGHUP reads the configuration again.
///
/// # Errors
/// [`RunError`] when it cannot start or a task that it cannot do without ends.
pub fn run(settings: Settings, state_directory: Option<PathBuf>, reload: Reload) -> Result<(), RunError> {
    let logging = Logging::start(settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { what: "starting the threads", source })?;
    let result = runtime.block_on(serve(settings, state_directory, reload, &logging));
    runtime.shutdown_background();
    result
}

/// Collects once, without history and without serving anything.
pub async fn collect_once(settings: &Settings) -> ProcessesView {
    let clock = Clock::resume(None);
    let mut collector = collecting::collector(settings);
    let mut snapshot = collector.collect(clock.now(), clock.wall()).await;
    collecting::read_exposed(&mut ExposedReader::default(), &mut snapshot, settings).await;
    collecting::lay_settings_over(&mut snapshot, settings);
    Published::new(Arc::new(snapshot), std::collections::BTreeMap::new(), Arc::default(), None).view()
}

async fn serve(
    settings: Settings,
    state_directory: Option<PathBuf>,
    reload: Reload,
    logging: &Logging,
) -> Result<(), RunError> {
    let signals = |kind| signal(kind).map_err(|source| RunError::System { what: "listening for signals", source });
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut hang_up = signals(SignalKind::hangup())?;

    let server = listen(&settings.web).await?;
    let address = server.address().to_owned();
    let restored = restore::open(state_directory.as_deref(), &settings)?;
    let (store, worker) = match restored.worker {
        Some(worker) => (Some(worker.handle()), Some(worker)),
        None => (None, None),
    };
    let acting = acting(&settings.web)?;
    let (driver, policy) = match restarting::kept(store.as_ref()).await {
        Ok(kept) => {
            let (driver, handle) = restarting::driver(&settings, kept, store.clone(), &restored.clock);
            (Some(driver), Some(handle))
        }
        Err(reason) => {
            tracing::error!(reason, "what was restarted before cannot be known, so nothing is restarted in this run");
            (None, None)
        }
    };
    let shared =
        Arc::new(Shared::new(restored.clock, settings, restored.pipeline, store, policy, acting, state_directory));

    let mut supervisor = Supervisor::default();
    if let Some(driver) = driver {
        let (mut driver, stop) = (Some(driver), supervisor.stop_token());
        supervisor.start("restarts", Class::Fatal, move || restarting::run(driver.take(), stop.clone()));
    }
    let (collected, stop) = (shared.clone(), supervisor.stop_token());
    supervisor.start("collect", Class::Restarted, move || collecting::run(collected.clone(), stop.clone()));
    shared.occupancy.set(server.occupancy()).ok();
    let (tracker, stop) = (supervisor.tracker(), supervisor.stop_token());
    let mut serving = Some(server.serve(endpoints::router(shared.clone()), Plain, tracker, stop));
    supervisor.start("http", Class::Fatal, move || {
        let serving = serving.take();
        async move {
            serving.ok_or_else(|| "the listener is gone".to_owned())?.await;
            Ok(())
        }
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving metrics and the page on http://{address}/");

    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hang_up.recv() => reconfigure(&shared, &reload, logging, &supervisor.tracker()),
            ended = supervisor.ended() => break Err(RunError::Ended(ended)),
        }
    };
    tracing::info!("stopping");
    if !supervisor.shut_down(GRACE.saturating_sub(STORE_GRACE)).await {
        tracing::warn!("some tasks did not end in time");
    }
    if let Some(worker) = worker {
        close(worker).await;
    }
    result
}

/// Reads the tokens of those who may act.
fn acting(web: &WebSettings) -> Result<ActingPolicy, RunError> {
    let Some(path) = &web.token_file else { return Ok(ActingPolicy::default()) };
    let wrong = |reason: String| RunError::Tokens { path: path.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let tokens = BearerTokens::parse(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(ActingPolicy { tokens: Some(tokens) })
}

/// Listens where the settings say; a name that stands for several addresses is tried in their order.
async fn listen(web: &WebSettings) -> Result<Server<TcpListener>, RunError> {
    let address = &web.listen_address;
    let settings = HttpSettings { connections: web.max_connections, drain: DRAIN, ..HttpSettings::default() };
    // An empty host stands for every address, IPv4 among them.
    let lookup = address.strip_prefix(':').map_or_else(|| address.clone(), |port| format!("[::]:{port}"));
    let failed = |error| ServeError { address: address.clone(), kind: ServeErrorKind::Io(error) };
    let mut refusal = None;
    for address in tokio::net::lookup_host(&lookup).await.map_err(failed)? {
        match Server::bind(address, settings.clone()) {
            Ok(server) => return Ok(server),
            Err(error) => refusal = Some(error),
        }
    }
    let nothing = || failed(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "no such host"));
    Err(refusal.unwrap_or_else(nothing).into())
}

async fn close(worker: StoreWorker) {
    match tokio::time::timeout(STORE_GRACE, worker.stop()).await {
        Ok(Ok(_saved)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the history was not closed cleanly"),
        Err(_elapsed) => tracing::warn!("the history could not be closed in time"),
    }
}

/// Puts a changed configuration in force as a whole, or keeps the old one as a whole.
fn reconfigure(shared: &Shared, reload: &Reload, logging: &Logging, tracker: &TaskTracker) {
    match reload() {
        Ok(settings) => {
            let before = shared.settings.load();
            if before.web != settings.web || before.log.format != settings.log.format {
                tracing::warn!("[web] and log.format take effect at the next start");
            }
            if before.history != settings.history || before.trend.minute != settings.trend.minute {
                tracing::warn!("[history] and trend.minute take effect at the next start");
            }
            logging.set_level(settings.log.level);
            drop(before);
            let restart = settings.restart.clone();
            shared.configured(Some(settings));
            if let Some(policy) = shared.policy.clone() {
                tracker.spawn(async move {
                    if let Err(error) = policy.settings(restart).await {
                        tracing::warn!(%error, "the new restart settings did not reach the policy");
                    }
                });
            }
            tracing::info!("the configuration was read again");
        }
        Err(error) => {
            shared.configured(None);
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            tracing::error!("the configuration is wrong; the one before stays in force");
        }
    }
}
