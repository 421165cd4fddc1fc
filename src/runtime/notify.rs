//! What systemd is told where it waits for it (`Type=notify`, `WatchdogSec=`): that the sidecar serves, reads its
//! configuration again, ends, and that collections go on. Without systemd nothing here does anything.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::config::Settings;
use crate::model::Steady;

/// What a collection may take beyond its deadlines, on a machine that is busy.
const ALLOWANCE: Duration = Duration::from_secs(10);

/// It serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("collecting and serving")]);
}

/// It reads its configuration again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock that systemd asks for cannot be read"),
    }
}

/// It ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// The time after which systemd ends this process if it hears nothing; none where it does not wait.
pub(super) fn patience() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
}

/// Tells systemd that all is well, for as long as collections go on: a sidecar that serves old figures is not well.
pub(super) async fn watchdog(shared: Arc<Shared>, patience: Duration, stop: CancellationToken) -> Result<(), String> {
    let mut worried = false;
    loop {
        let goes_on = goes_on(shared.clock.now(), shared.collected_at(), &shared.settings.load());
        if goes_on {
            tell(&[NotifyState::Watchdog]);
        } else if !worried {
            tracing::error!(
                "collections have stopped; systemd is told nothing any more and will start the sidecar anew"
            );
        }
        worried = !goes_on;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(patience / 3) => {}
        }
    }
}

/// Whether the latest collection is as recent as it must be: one may be missed, and each has its deadlines.
fn goes_on(now: Steady, latest: Steady, settings: &Settings) -> bool {
    now.since(latest) <= settings.interval * 2 + settings.collect.deadline * 3 + ALLOWANCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, parse};

    #[test]
    fn one_collection_may_be_missed_and_not_many() {
        let text = "interval = \"1m\"\n[collect]\ndeadline = \"5s\"\n";
        let settings = parse("leakslope.toml", text, &Surroundings::default()).unwrap();
        for (silent, expected) in [(0, true), (61_000, true), (140_000, true), (150_000, false)] {
            assert_eq!(goes_on(Steady(1_000_000 + silent), Steady(1_000_000), &settings), expected, "{silent}");
        }
    }
}
