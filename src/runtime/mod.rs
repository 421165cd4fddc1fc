//! Clocks, tasks and signals: the shell around everything else, and the only room that reads the time.

mod clock;
mod collecting;
mod deaths;
mod endpoints;
mod evidence;
mod logging;
mod narrator;
mod notify;
mod pipeline;
mod published;
mod restarting;
mod restore;
mod serving;
mod shared;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

pub use clock::Clock;
pub use deaths::Deaths;
pub use endpoints::LinkView;
pub use evidence::{Evidence, NotTaken};
pub use pipeline::{Change, Outcome, Pipeline};
pub use published::Published;
pub use shared::Shared;
pub use supervisor::{Class, Ended, Supervisor};

use crate::collect::ExposedReader;
use crate::config::{self, ConfigError, Settings};
use crate::doctor;
use crate::export::DeathCounts;
use crate::export::json::ProcessesView;
use crate::history::store::{StoreError, StoreWorker};
use crate::http::{Access, AccessSettings, OccupancyHandle, ServeError};
use logging::Logging;

/// Reads the configuration again, flags included.
pub type Reload = Box<dyn FnMut() -> Result<Settings, ConfigError> + Send>;

/// The first pause before a configuration is read again for which no descriptor was left; it doubles with each further one.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const RELOAD_PAUSE_MAX: Duration = Duration::from_mins(1);
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
    /// Others may write to the state directory.
    #[error("state directory {}: {source}", path.display())]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The web configuration or the file of bearer tokens cannot be used.
    #[error(transparent)]
    Access(#[from] ConfigError),
    /// systemd was to pass sockets and passed none.
    #[error("web.systemd_socket is set, and systemd passed no socket: is there a .socket unit of the same name?")]
    NoSockets,
    /// A task without which there is no sidecar has ended.
    #[error("{} ended: {}", .0.task, .0.reason)]
    Ended(Ended),
}

impl RunError {
    /// Whether another configuration is what helps.
    pub fn is_about_configuration(&self) -> bool {
        matches!(self, Self::Access(_) | Self::NoSockets)
    }
}

/// Watches, judges and serves until told to stop by SIGTERM or SIGINT. SIGHUP reads the configuration again. `control` is where
/// the socket for commands goes.
///
/// # Errors
/// [`RunError`] when it cannot start or a task that it cannot do without ends.
pub fn run(
    settings: Settings,
    state_directory: Option<PathBuf>,
    control: Option<PathBuf>,
    reload: Reload,
) -> Result<(), RunError> {
    let inherited = serving::Inherited::take()?;
    let logging = Logging::start(settings.log);
    if let Some(folder) = &state_directory {
        let failed = |source| RunError::StateFolder { path: folder.clone(), source };
        if config::tighten_folder(folder).map_err(failed)? {
            tracing::warn!("{}: others could write to the state directory; that right is taken away", folder.display());
        }
    }
    let runtime = supervisor::runtime().map_err(|source| RunError::System { what: "starting the threads", source })?;
    let result = runtime.block_on(serve(settings, state_directory, control, reload, &logging, inherited));
    runtime.shutdown_background();
    result
}

/// Collects once, without history and without serving anything.
pub async fn collect_once(settings: &Settings) -> ProcessesView {
    let clock = Clock::resume(None);
    let mut collector = collecting::collector(settings, None);
    let mut snapshot = collector.collect(clock.now(), clock.wall()).await;
    collecting::read_exposed(&mut ExposedReader::default(), &mut snapshot, settings).await;
    collecting::lay_settings_over(&mut snapshot, settings);
    Published::new(
        Arc::new(snapshot),
        std::collections::BTreeMap::new(),
        Arc::default(),
        None,
        Vec::new(),
        DeathCounts::default(),
    )
    .view()
}

/// Examines once how every daemon and its apps are set up, without any history.
pub async fn examine_once(settings: &Settings) -> doctor::Report {
    let clock = Clock::resume(None);
    let mut collector = collecting::collector(settings, None);
    let snapshot = collector.collect(clock.now(), clock.wall()).await;
    doctor::gather(&collector, &snapshot, |_unwatched| doctor::Watched::default()).await.report()
}

async fn serve(
    settings: Settings,
    state_directory: Option<PathBuf>,
    control: Option<PathBuf>,
    mut reload: Reload,
    logging: &Logging,
    inherited: serving::Inherited,
) -> Result<(), RunError> {
    let signals = |kind| signal(kind).map_err(|source| RunError::System { what: "listening for signals", source });
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut hang_up = signals(SignalKind::hangup())?;

    let access = access(&settings)?;
    let mut listening = serving::listen(&settings.web, inherited).await?;
    let restored = restore::open(state_directory.as_deref(), &settings)?;
    listening.extend(control.and_then(|path| serving::listen_to_commands(&path, &access)));
    let (store, worker) = match restored.worker {
        Some(worker) => (Some(worker.handle()), Some(worker)),
        None => (None, None),
    };
    let evidence = Evidence::new(state_directory.as_ref(), &restored.clock, settings.evidence.clone());
    let evidence = Arc::new(evidence);
    let (driver, policy) = match restarting::kept(store.as_ref(), restored.damaged.then(|| restored.clock.now())).await
    {
        Ok(kept) => {
            let (driver, handle) =
                restarting::driver(&settings, kept, store.clone(), &restored.clock, evidence.clone());
            (Some(driver), Some(handle))
        }
        Err(reason) => {
            tracing::error!(reason, "what was restarted before cannot be known, so nothing is restarted in this run");
            (None, None)
        }
    };
    let shared =
        Arc::new(Shared::new(restored.clock, settings, restored.pipeline, store, policy, access.clone(), evidence));

    let mut supervisor = Supervisor::default();
    if let Some(driver) = driver {
        let (mut driver, stop) = (Some(driver), supervisor.stop_token());
        supervisor.start("restarts", Class::Fatal, move || restarting::run(driver.take(), stop.clone()));
    }
    let (taking, stop) = (shared.clone(), supervisor.stop_token());
    supervisor.start_apart("evidence", Class::Restarted, move || evidence::run(taking.clone(), stop.clone()));
    let (collected, stop) = (shared.clone(), supervisor.stop_token());
    supervisor.start_apart("collect", Class::Restarted, move || collecting::run(collected.clone(), stop.clone()));
    let (explained, stop) = (shared.clone(), supervisor.stop_token());
    supervisor.start_apart("deaths", Class::Restarted, move || deaths::run(explained.clone(), stop.clone()));
    shared.occupancy.set(OccupancyHandle::together(listening.iter().map(serving::Listening::occupancy))).ok();
    for listener in listening {
        let mut serving = Some(listener.serve(&shared, &access, supervisor.tracker(), supervisor.stop_token()));
        supervisor.start("http", Class::Fatal, move || {
            let serving = serving.take();
            async move {
                serving.ok_or_else(|| "the listener is gone".to_owned())?.await;
                Ok(())
            }
        });
    }
    if let Some(patience) = notify::patience() {
        let (watched, stop) = (shared.clone(), supervisor.stop_token());
        supervisor
            .start("watchdog", Class::Restarted, move || notify::watchdog(watched.clone(), patience, stop.clone()));
    }
    notify::ready();

    let mut again: Option<Duration> = None;
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hang_up.recv() => {}
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            ended = supervisor.ended() => break Err(RunError::Ended(ended)),
        }
        notify::reloading();
        let passing = reconfigure(&shared, &mut reload, logging, &supervisor.tracker());
        again = passing.then(|| again.map_or(RELOAD_PAUSE, |pause| (pause * 2).min(RELOAD_PAUSE_MAX)));
        notify::ready();
    };
    notify::stopping();
    tracing::info!("stopping");
    if !supervisor.shut_down(GRACE.saturating_sub(STORE_GRACE)).await {
        tracing::warn!("some tasks did not end in time");
    }
    if let Some(worker) = worker {
        close(worker).await;
    }
    result
}

/// Reads the files that say who is let in.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn access(settings: &Settings) -> Result<Arc<Access>, ConfigError> {
    let web = settings.web.clone();
    Access::open(AccessSettings {
        web_config: web.config_file,
        tokens: web.token_file,
        acting_users: web.acting_users,
        acting_groups: web.acting_groups,
        listen_addresses: web.listen_addresses,
        allowed_hosts: web.allowed_hosts,
    })
}

async fn close(worker: StoreWorker) {
    match tokio::time::timeout(STORE_GRACE, worker.stop()).await {
        Ok(Ok(_saved)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the history was not closed cleanly"),
        Err(_elapsed) => tracing::warn!("the history could not be closed in time"),
    }
}

/// Puts a changed configuration in force as a whole, or keeps the old one as a whole. Returns whether it is to be tried again
/// though nobody asks: a signal is sent once, and no answer to it tells that no descriptor was left.
fn reconfigure(shared: &Shared, reload: &mut Reload, logging: &Logging, tracker: &TaskTracker) -> bool {
    let read = reload();
    let again = read.as_ref().is_err_and(ConfigError::is_passing);
    match read {
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
            let then = if again { "cannot be read now and is read again soon" } else { "is wrong" };
            tracing::error!("the configuration {then}; the one before stays in force");
        }
    }
    again
}
