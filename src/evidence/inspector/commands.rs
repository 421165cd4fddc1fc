//! The commands that leakslope sends: the heap's size, a collection, a sampling profile, a snapshot, who it is, how
//! late its event loop ran.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWrite;

use super::session::{Chunks, Sent, quoted};
use super::{Inspector, InspectorError, InspectorErrorKind};
use crate::model::Bytes;

const EVALUATE: &str = "Runtime.evaluate";
const CALL_ON: &str = "Runtime.callFunctionOn";
const RELEASE: &str = "Runtime.releaseObject";
const HEAP_USAGE: &str = "Runtime.getHeapUsage";
const START: &str = "HeapProfiler.startSampling";
const STOP: &str = "HeapProfiler.stopSampling";
const SNAPSHOT: &str = "HeapProfiler.takeHeapSnapshot";
/// Seconds since the process started, by its own steady clock.
const OWN_CLOCK: &str = "process.uptime()";
/// A timer every 20 ms that notes how late it came. It never keeps the app alive and ends after two hours by itself, should
/// nobody read it. (Node's own monitor of the event loop's delay stays in memory for ever, 77 kB of it for each.)
const WATCH_LOOP: &str = "((interval, ticks) => { let last = process.uptime(), worst = 0; \
    const late = () => { const now = process.uptime(); worst = Math.max(worst, now - last - interval / 1000); last = now; }; \
    const timer = setInterval(() => { late(); if (--ticks <= 0) clearInterval(timer); }, interval); timer.unref(); \
    return () => { late(); clearInterval(timer); return worst; }; })(20, 360000)";
/// Turns V8's inlining off until somebody calls what it leaves behind.
const INLINING: &str = include_str!("inlining.js");
const RESUME: &str = "(globalThis[Symbol.for('leakslope.inlining')]?.(), process.memoryUsage())";
const READ_LOOP: &str = "function () { return this(); }";

/// What V8 says of its heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapUsage {
    /// In use.
    pub used: Bytes,
    /// Taken from the system.
    pub total: Bytes,
    /// Held by what embeds V8; from Node 22 on.
    pub embedder: Option<Bytes>,
    /// Backing stores of array buffers, outside the heap; from Node 22 on.
    pub backing_stores: Option<Bytes>,
}

/// A sampling profile and how long the app stood still while it was put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The profile, a whole `.heapprofile`.
    pub profile: Vec<u8>,
    /// By the app's own clock.
    pub pause: Duration,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its size.
    pub size: Bytes,
    /// How long the app stood still, by its own clock; to 20 ms.
    pub pause: Duration,
}

/// What an app said before its allocations were sampled.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Before {
    /// Whether inlining is off: each function counts what it allocates.
    exact: bool,
    /// Worker threads.
    workers: u32,
    #[serde(flatten)]
    memory: Outside,
}

/// What an app said of its memory.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outside {
    heap_used: f64,
    external: f64,
}

impl Before {
    /// Of an app in which nothing is inlined, with its memory in bytes.
    pub fn exact(heap_used: f64, external: f64) -> Self {
        Self { exact: true, workers: 0, memory: Outside { heap_used, external } }
    }

    /// What the profile that was taken since cannot tell.
    pub fn notes(&self, after: &Outside) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.exact {
            notes.push(
                "flags or a coverage of its own say how V8 inlines in it, so a small function may count to its caller"
                    .to_owned(),
            );
        }
        if self.workers > 0 {
            let threads = self.workers;
            notes.push(format!(
                "{threads} worker threads ran in it, and their heaps are in no profile of the main thread"
            ));
        }
        let grown = |after: f64, before: f64| bytes((after - before).max(0.0));
        let heap = grown(after.heap_used, self.memory.heap_used);
        let buffers = grown(after.external, self.memory.external);
        if buffers > heap.max(Bytes(1 << 20)) {
            notes.push(format!(
                "buffers outside of the heap grew by {buffers} meanwhile, the heap by {heap}: no profile samples buffers; two \
                 snapshots and `leakslope heap diff` tell who holds them"
            ));
        }
        notes
    }
}

/// An eye on the event loop from inside the app.
#[derive(Debug)]
pub struct LoopDelay {
    object: String,
}

#[derive(Deserialize)]
struct UsageAnswer {
    #[serde(rename = "usedSize")]
    used: f64,
    #[serde(rename = "totalSize")]
    total: f64,
    #[serde(rename = "embedderHeapUsedSize")]
    embedder: Option<f64>,
    #[serde(rename = "backingStorageSize")]
    backing_stores: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Evaluated {
    result: Option<RemoteObject>,
    exception_details: Option<ExceptionDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoteObject {
    value: Option<Value>,
    object_id: Option<String>,
}

#[derive(Deserialize)]
struct ExceptionDetails {
    text: String,
    exception: Option<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    description: Option<String>,
}

#[derive(Deserialize)]
struct ProfileAnswer<'a> {
    #[serde(borrow)]
    profile: &'a serde_json::value::RawValue,
}

impl Inspector {
    /// The size of V8's heap.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn heap_usage(&mut self, deadline: Duration) -> Result<HeapUsage, InspectorError> {
        let answer = self.call(HEAP_USAGE, json!({}), deadline).await?;
        let answer: UsageAnswer =
            serde_json::from_value(answer).map_err(|error| self.unreadable(HEAP_USAGE, &error))?;
        Ok(HeapUsage {
            used: bytes(answer.used),
            total: bytes(answer.total),
            embedder: answer.embedder.map(bytes),
            backing_stores: answer.backing_stores.map(bytes),
        })
    }

    /// Collects garbage, all of it: the app stands still meanwhile.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn collect_garbage(&mut self, deadline: Duration) -> Result<(), InspectorError> {
        self.call("HeapProfiler.collectGarbage", json!({}), deadline).await.map(drop)
    }

    /// The process's own id, in its own pid namespace.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn process_pid(&mut self, deadline: Duration) -> Result<u32, InspectorError> {
        let value = self.evaluate("process.pid", false, deadline).await?;
        let pid = value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| self.unreadable(EVALUATE, &"no pid"))
    }

    /// Evaluates an expression of ours in the app and returns its value; `commands` lends it `require` meanwhile.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn evaluate(
        &mut self,
        expression: &str,
        commands: bool,
        deadline: Duration,
    ) -> Result<Value, InspectorError> {
        let sent = self.send_evaluation(expression, commands, deadline).await?;
        let object = self.evaluated(sent).await?;
        Ok(object.value.unwrap_or(Value::Null))
    }

    /// Keeps V8 from inlining, so that each function counts what it allocates: what is hot already is compiled anew. The app
    /// takes it back after `limit` by itself.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn stop_inlining(&mut self, limit: Duration, deadline: Duration) -> Result<Before, InspectorError> {
        let expression = format!("{INLINING}(require, {})", limit.as_millis());
        let sent = self.send_evaluation(&expression, true, deadline).await?;
        let object = self.evaluated(sent).await?;
        serde_json::from_value(object.value.unwrap_or(Value::Null)).map_err(|error| self.unreadable(EVALUATE, &error))
    }

    /// Takes back what [`Self::stop_inlining`] did, and says how its memory is now.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn resume_inlining(&mut self, deadline: Duration) -> Result<Outside, InspectorError> {
        let value = self.evaluate(RESUME, false, deadline).await?;
        serde_json::from_value(value).map_err(|error| self.unreadable(EVALUATE, &error))
    }

    /// Starts to sample allocations, one for every `interval` bytes on average.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn start_sampling(&mut self, interval: Bytes, deadline: Duration) -> Result<(), InspectorError> {
        self.call(START, json!({"samplingInterval": interval.0}), deadline).await.map(drop)
    }

    /// Ends the sampling and returns the profile of what is still alive.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn stop_sampling(&mut self, deadline: Duration) -> Result<Stopped, InspectorError> {
        let (answer, pause) = self.timed(STOP, json!({}), deadline).await?;
        let answer: ProfileAnswer<'_> =
            serde_json::from_str(answer.get()).map_err(|error| self.unreadable(STOP, &error))?;
        Ok(Stopped { profile: answer.profile.get().as_bytes().to_vec(), pause })
    }

    /// Takes a snapshot and writes it on piece by piece, `limit` at most. The app stands still until V8 has walked its
    /// whole heap. Pieces are written as they come; the caller flushes.
    ///
    /// # Errors
    /// [`InspectorError`]; what was written then is no snapshot.
    pub async fn take_snapshot(
        &mut self,
        writer: &mut (dyn AsyncWrite + Unpin + Send),
        limit: Bytes,
        deadline: Duration,
    ) -> Result<Written, InspectorError> {
        let mut chunks = Chunks { writer, written: 0, limit: limit.0 };
        let params = json!({"reportProgress": false, "captureNumericValue": false});
        // Newer versions of V8 answer other commands before they begin, so the app itself must say how long it stood still.
        let watch = self.watch_loop(deadline).await?;
        let sent = self.send(SNAPSHOT, params, deadline).await?;
        self.reply(sent, Some(&mut chunks)).await?;
        let pause = self.worst_delay(watch, deadline).await?;
        Ok(Written { size: Bytes(chunks.written), pause })
    }

    /// Starts to watch how late the app's event loop runs.
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn watch_loop(&mut self, deadline: Duration) -> Result<LoopDelay, InspectorError> {
        let params = json!({"expression": WATCH_LOOP, "silent": true});
        let sent = self.send(EVALUATE, params, deadline).await?;
        let object = self.evaluated(sent).await?.object_id;
        object.map(|object| LoopDelay { object }).ok_or_else(|| self.unreadable(EVALUATE, &"no object"))
    }

    /// The longest that the event loop was late since [`Self::watch_loop`].
    ///
    /// # Errors
    /// [`InspectorError`].
    pub async fn worst_delay(&mut self, watch: LoopDelay, deadline: Duration) -> Result<Duration, InspectorError> {
        let params = json!({"functionDeclaration": READ_LOOP, "objectId": &watch.object, "returnByValue": true,
            "silent": true});
        let sent = self.send(CALL_ON, params, deadline).await?;
        let object = self.evaluated(sent).await?;
        // Else it stays in the app, and in its snapshots, as long as the session lasts.
        self.call(RELEASE, json!({"objectId": watch.object}), deadline).await?;
        let seconds = object.value.and_then(|value| value.as_f64());
        seconds
            .map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
            .ok_or_else(|| self.unreadable(CALL_ON, &"no number"))
    }

    /// Sends a command that V8 carries out before the next between two looks at the app's own clock, all three at once, so that
    /// no time of ours is in it.
    async fn timed(
        &mut self,
        method: &'static str,
        params: Value,
        deadline: Duration,
    ) -> Result<(Box<serde_json::value::RawValue>, Duration), InspectorError> {
        let before = self.send_evaluation(OWN_CLOCK, false, deadline).await?;
        let sent = self.send(method, params, deadline).await?;
        let after = self.send_evaluation(OWN_CLOCK, false, deadline).await?;
        let before = self.evaluated(before).await?.value.and_then(|value| value.as_f64());
        let answer = self.reply(sent, None).await?;
        let after = self.evaluated(after).await?.value.and_then(|value| value.as_f64());
        let (Some(before), Some(after)) = (before, after) else {
            return Err(self.unreadable(EVALUATE, &"no time"));
        };
        Ok((answer, Duration::try_from_secs_f64(after - before).unwrap_or_default()))
    }

    async fn send_evaluation(
        &mut self,
        expression: &str,
        commands: bool,
        deadline: Duration,
    ) -> Result<Sent, InspectorError> {
        let params = json!({"expression": expression, "includeCommandLineAPI": commands, "returnByValue": true,
            "silent": true});
        self.send(EVALUATE, params, deadline).await
    }

    async fn evaluated(&mut self, sent: Sent) -> Result<RemoteObject, InspectorError> {
        let answer = self.reply(sent, None).await?;
        let answer: Evaluated =
            serde_json::from_str(answer.get()).map_err(|error| self.unreadable(EVALUATE, &error))?;
        if let Some(details) = answer.exception_details {
            let words = details.exception.and_then(|exception| exception.description).unwrap_or(details.text);
            return Err(self.failed(InspectorErrorKind::Thrown(quoted(&words))));
        }
        answer.result.ok_or_else(|| self.unreadable(EVALUATE, &"no result"))
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates; sizes are below 2^53")]
fn bytes(number: f64) -> Bytes {
    Bytes(number as u64)
}
