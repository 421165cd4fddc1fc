//! Whoever stops a command stops what it has under way, too: the signals that ask for it.

use rustix::process::Signal;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP, from the moment this is made.
#[derive(Debug)]
pub(super) struct Signals([(&'static str, Signal, UnixSignal); 3]);

impl Signals {
    /// Takes the signals over; they no longer end the process by themselves.
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self([
            ("SIGINT", Signal::INT, signal(SignalKind::interrupt())?),
            ("SIGTERM", Signal::TERM, signal(SignalKind::terminate())?),
            ("SIGHUP", Signal::HUP, signal(SignalKind::hangup())?),
        ]))
    }

    /// Waits for one and names it.
    pub(super) async fn any(&mut self) -> (&'static str, Signal) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        let (name, signal, _) = tokio::select! {
            _ = interrupt.2.recv() => interrupt,
            _ = terminate.2.recv() => terminate,
            _ = hang_up.2.recv() => hang_up,
        };
        (*name, *signal)
    }
}
