//! Whoever stops a command stops what it has under way, too: the signals that ask for it.

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT, from the moment this is made.
#[derive(Debug)]
pub(super) struct Signals([(&'static str, Signal, Arrivals); 4]);

impl Signals {
    /// Takes the signals over; they no longer end the process by themselves.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self([
            ("SIGINT", Signal::INT, signal(SignalKind::interrupt())?),
            ("SIGTERM", Signal::TERM, signal(SignalKind::terminate())?),
            ("SIGHUP", Signal::HUP, signal(SignalKind::hangup())?),
            ("SIGQUIT", Signal::QUIT, signal(SignalKind::quit())?),
        ]))
    }

    /// Waits for one, and returns its name and itself, to be passed on.
    pub(super) async fn any(&mut self) -> (&'static str, Signal) {
        let [interrupt, terminate, hang_up, quit] = &mut self.0;
        let (name, signal, _) = tokio::select! {
            _ = interrupt.2.recv() => interrupt,
            _ = terminate.2.recv() => terminate,
            _ = hang_up.2.recv() => hang_up,
            _ = quit.2.recv() => quit,
        };
        (*name, *signal)
    }
}
