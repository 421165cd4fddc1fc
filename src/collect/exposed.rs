//! Apps that expose the default metrics of `prom-client`: fetched side by side, and laid over what pm2 told of them.
//!
//! An app that does not answer in time, answers with too much or with something else costs itself its figures and nobody
//! else anything. This room refuses to follow redirects, and to read one URL for two processes: figures of another
//! process would be worse than none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::exposition::Exposition;
use super::{MetricsTarget, MetricsUrl, join_all};
use crate::http::client;
use crate::model::{
    AppName, Bytes, CollectorName, CollectorReport, DaemonName, GcReport, Life, ProcessKey, ProcessSample, Snapshot,
};

/// The longest body read, in bytes: a hundred times what the default metrics take.
const BODY_LIMIT: usize = 2 << 20;
/// Requests under way at a time.
const AT_A_TIME: usize = 32;
/// Apps whose failure a report tells; the rest are counted.
const APPS_TOLD: usize = 5;

/// What is remembered of one life between two readings.
#[derive(Debug, Clone, Copy)]
struct Memory {
    majors: u64,
    heap_after_major_gc: Option<Bytes>,
}

/// Reads what apps expose. Remembers a few bytes for each life that is listed.
#[derive(Debug, Default)]
pub struct ExposedReader {
    memory: BTreeMap<(ProcessKey, Life), Memory>,
}

/// One process to be asked.
struct Asked {
    daemon: usize,
    process: usize,
    app: AppName,
    target: Result<MetricsTarget, String>,
}

impl ExposedReader {
    /// Reads the metrics of every live process whose app has a URL, within `deadline` for all of them together, and fills
    /// in what pm2 has not told. Failures are in a report of each daemon that has such apps.
    pub async fn read<'a>(
        &mut self,
        snapshot: &mut Snapshot,
        url_of: impl Fn(&AppName) -> Option<&'a MetricsUrl>,
        deadline: Duration,
    ) {
        let begun = Instant::now();
        let mut asked = asked(snapshot, url_of);
        refuse_shared(&mut asked);
        let mut answers = fetch_all(&asked, deadline).await;
        let mut failures: BTreeMap<usize, BTreeMap<AppName, String>> = BTreeMap::new();
        let mut memory = BTreeMap::new();
        for (index, asked) in asked.iter().enumerate() {
            let process = &mut snapshot.daemons[asked.daemon].processes[asked.process];
            let failures = failures.entry(asked.daemon).or_default();
            let remembered = process.life.and_then(|life| self.memory.remove(&(process.key.clone(), life)));
            let remembered = match answers.remove(&index) {
                Some(Ok(exposition)) => lay_over(process, &exposition, remembered).or(remembered),
                Some(Err(reason)) => {
                    failures.entry(asked.app.clone()).or_insert(reason);
                    remembered
                }
                None => remembered,
            };
            if let (Some(life), Some(remembered)) = (process.life, remembered) {
                memory.insert((process.key.clone(), life), remembered);
            }
        }
        // A daemon that was silent this time lists nobody, and its lives may go on.
        let silent: Vec<&DaemonName> =
            snapshot.daemons.iter().filter(|daemon| !daemon.up).map(|daemon| &daemon.name).collect();
        self.memory.retain(|(key, _), _| silent.contains(&&key.daemon));
        self.memory.append(&mut memory);
        let duration = begun.elapsed();
        for (daemon, failures) in failures {
            snapshot.daemons[daemon].reports.push(CollectorReport {
                collector: CollectorName::Exposed,
                duration,
                failure: told(&failures),
            });
        }
    }
}

fn asked<'a>(snapshot: &Snapshot, url_of: impl Fn(&AppName) -> Option<&'a MetricsUrl>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (daemon, sample) in snapshot.daemons.iter().enumerate() {
        for (index, process) in sample.processes.iter().enumerate() {
            let listed = &process.listed;
            let Some(url) = url_of(&listed.app).filter(|_| process.life.is_some()) else { continue };
            let target = url.target(listed.pm_id, listed.instance);
            let unfit = || format!("process {} has no number that fits into metrics_url", listed.pm_id);
            asked.push(Asked { daemon, process: index, app: listed.app.clone(), target: target.ok_or_else(unfit) });
        }
    }
    asked
}

/// One URL answers for one process only: with two behind it nobody knows whose figures came.
fn refuse_shared(asked: &mut [Asked]) {
    let mut shares: BTreeMap<MetricsTarget, usize> = BTreeMap::new();
    for target in asked.iter().filter_map(|asked| asked.target.as_ref().ok()) {
        *shares.entry(target.clone()).or_default() += 1;
    }
    for asked in asked {
        let Ok(target) = &asked.target else { continue };
        let count = shares.get(target).copied().unwrap_or(1);
        if count > 1 {
            asked.target = Err(format!(
                "{count} processes share http://{}{}: tell them apart with {{pm_id}} or {{instance}} in metrics_url",
                target.address, target.path
            ));
        }
    }
}

/// Asks all, a bounded number at a time, and returns the answers by their place in `asked`.
async fn fetch_all(asked: &[Asked], deadline: Duration) -> BTreeMap<usize, Result<Exposition, String>> {
    let until = Instant::now() + deadline;
    let next = AtomicUsize::new(0);
    let workers = (0..AT_A_TIME.min(asked.len())).map(|_| async {
        let mut answers = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(asked) = asked.get(index) else { return answers };
            let answer = match &asked.target {
                Ok(target) => timeout_at(until, fetch(target, deadline))
                    .await
                    .unwrap_or_else(|_elapsed| Err(late(target, deadline))),
                Err(reason) => Err(reason.clone()),
            };
            answers.push((index, answer));
        }
    });
    join_all(workers).await.into_iter().flatten().collect()
}

fn late(target: &MetricsTarget, deadline: Duration) -> String {
    format!("{}: no answer within {} s", target.address, deadline.as_secs_f64())
}

async fn fetch(target: &MetricsTarget, deadline: Duration) -> Result<Exposition, String> {
    let body = client::get(&target.address, &target.path, deadline, BODY_LIMIT).await.map_err(|error| match error {
        client::ClientError::Deadline { .. } => late(target, deadline),
        client::ClientError::Connect { .. }
        | client::ClientError::Status { .. }
        | client::ClientError::Broken { .. } => error.to_string(),
    })?;
    let exposition = Exposition::read(&body);
    if exposition.is_empty() {
        return Err(format!("{}{}: nothing there is a metric of Node.js's heap", target.address, target.path));
    }
    Ok(exposition)
}

/// Fills in what pm2 has not told. Returns what is to be remembered until the next reading.
///
/// The heap after a major collection is not among the metrics, but the count of such collections is. At the first
/// reading after the count has risen, all that lies outside the new space is what survived the collection and what has
/// been promoted or grown since: an upper bound of the heap right after it, and a close one, because young garbage, the
/// bulk of what fluctuates, is left out. Until the count rises again the figure is carried on, as the app itself would.
fn lay_over(process: &mut ProcessSample, exposition: &Exposition, before: Option<Memory>) -> Option<Memory> {
    let metrics = &mut process.listed.metrics;
    metrics.heap_used = metrics.heap_used.or(exposition.heap_used);
    metrics.heap_total = metrics.heap_total.or(exposition.heap_total);
    let (collections, outside) = (exposition.collections?, exposition.outside_new_space?);
    let heap_after_major_gc = match before {
        Some(before) if collections.major > before.majors => Some(outside),
        Some(before) if collections.major == before.majors => before.heap_after_major_gc,
        // Seen for the first time, or a count that fell: when the latest collection was, is not known.
        _ => None,
    };
    metrics.gc.get_or_insert(GcReport {
        heap_after_major_gc,
        major_gcs: collections.major,
        minor_gcs: collections.minor,
        gc_seconds: collections.seconds,
        heap_size_limit: None,
        new_space: exposition.new_space,
        old_space: exposition.old_space,
        large_object_space: exposition.large_object_space,
        external: exposition.external,
        heap_physical: None,
        global_handles: None,
    });
    Some(Memory { majors: collections.major, heap_after_major_gc })
}

/// One reason for each app, in one line; none where there is no failure.
fn told(failures: &BTreeMap<AppName, String>) -> Option<String> {
    let mut told: Vec<String> =
        failures.iter().take(APPS_TOLD).map(|(app, reason)| format!("{app}: {reason}")).collect();
    if failures.len() > APPS_TOLD {
        told.push(format!("and {} more apps", failures.len() - APPS_TOLD));
    }
    (!told.is_empty()).then(|| told.join("; "))
}
