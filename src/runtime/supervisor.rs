//! One owner for all tasks: each has a name and a class, its end is seen, and shutdown has a deadline.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the end of a task means while nobody has asked it to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The sidecar is of no use without it: everything stops.
    Fatal,
    /// It is started again after a pause that doubles from a second to a minute.
    Restarted,
}

/// Why the sidecar ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The name of the task.
    pub task: &'static str,
    /// What it said, or that it panicked.
    pub reason: String,
}

type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The owner of the tasks.
#[derive(Debug)]
pub struct Supervisor {
    tracker: TaskTracker,
    stop: CancellationToken,
    fatal: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
}

/// Threads of a runtime at the most, beside its own, for what blocks.
const BLOCKING_THREADS: usize = 8;
/// How long such a thread waits for more to do: longer than the usual pause between collections, so that none is started for
/// each.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Default for Supervisor {
    fn default() -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), fatal: mpsc::channel(4) }
    }
}

impl Supervisor {
    /// Returns the token that is cancelled when everything is to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns the tracker for short tasks that a task of its own accord answers for, such as one connection.
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Starts a task. `make` is called once for every start.
    pub fn start<F>(&self, task: &'static str, class: Class, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, fatal) = (self.stop.clone(), self.fatal.0.clone());
        self.tracker.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let began = tokio::time::Instant::now();
                let work: Work = Box::pin(make());
                let reason = match CatchPanic(AssertUnwindSafe(work)).await {
                    Ok(Ok(())) => "ended by itself".to_owned(),
                    Ok(Err(reason)) => reason,
                    Err(panic) => format!("panicked: {panic}"),
                };
                if stop.is_cancelled() {
                    return;
                }
                if class == Class::Fatal {
                    fatal.try_send(Ended { task, reason }).ok();
                    return;
                }
                if began.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                tracing::error!(task, reason, pause_seconds = pause.as_secs(), "a task ended and is started again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                }
            }
        });
    }

    /// Starts a task on a thread and a runtime of its own: it neither waits for the others nor they for it.
    pub fn start_apart<F>(&self, task: &'static str, class: Class, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.start(task, class, move || apart(task, Box::pin(make())));
    }

    /// Waits for a fatal end.
    pub async fn ended(&mut self) -> Ended {
        match self.fatal.1.recv().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Tells every task to end and waits for them, at most for `grace`. Returns whether all of them ended.
    pub async fn shut_down(self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// A runtime for one thread.
///
/// # Errors
/// What the system says.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()
}

async fn apart(task: &'static str, work: Work) -> Result<(), String> {
    let (end, ended) = oneshot::channel();
    let refused = |error: std::io::Error| format!("the system refuses it a thread of its own: {error}");
    let run = move || {
        let done = runtime().map_err(refused).and_then(|runtime| {
            let done = runtime.block_on(CatchPanic(AssertUnwindSafe(work)));
            runtime.shutdown_background();
            done.unwrap_or_else(|panic| Err(format!("panicked: {panic}")))
        });
        // Nobody waits once everything ends.
        end.send(done).ok();
    };
    std::thread::Builder::new().name(task.to_owned()).spawn(run).map_err(refused)?;
    ended.await.unwrap_or_else(|_gone| Err("its thread ended".to_owned()))
}

/// Polls a future and turns its panic into an error with the panic's message.
struct CatchPanic(AssertUnwindSafe<Work>);

impl Future for CatchPanic {
    type Output = Result<Result<(), String>, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let work = &mut self.0.0;
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Ok(std::task::Poll::Ready(result)) => std::task::Poll::Ready(Ok(result)),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "without a message".to_owned());
                std::task::Poll::Ready(Err(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_restarted_task_comes_back_after_a_panic_and_after_an_error() {
        let supervisor = Supervisor::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let (counted, stop) = (starts.clone(), supervisor.stop_token());
        supervisor.start("worker", Class::Restarted, move || {
            let (start, stop) = (counted.fetch_add(1, Ordering::SeqCst), stop.clone());
            async move {
                match start {
                    0 => panic!("first"),
                    1 => Err("second".to_owned()),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert!(supervisor.shut_down(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_task_apart_blocks_nobody_and_its_end_is_seen() {
        let mut supervisor = Supervisor::default();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let mut wait = Some(wait);
        supervisor.start_apart("apart", Class::Fatal, move || {
            let wait = wait.take();
            async move {
                // On the thread of the test this would never end.
                wait.unwrap().recv().unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                panic!("worn out")
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        go_on.send(()).unwrap();
        let ended = supervisor.ended().await;
        assert_eq!(ended, Ended { task: "apart", reason: "panicked: worn out".to_owned() });
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_fatal_task_is_told_with_its_reason() {
        let mut supervisor = Supervisor::default();
        supervisor.start("server", Class::Fatal, || async { Err("port lost".to_owned()) });
        let ended = supervisor.ended().await;
        assert_eq!(ended, Ended { task: "server", reason: "port lost".to_owned() });
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_for_ever() {
        let supervisor = Supervisor::default();
        supervisor.start("stubborn", Class::Restarted, || async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(!supervisor.shut_down(Duration::from_secs(5)).await);
    }
}
