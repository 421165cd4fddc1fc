//! The task that collects: on its own interval, never piling up, independent of whoever reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout_at};
use tokio_util::sync::CancellationToken;

use super::narrator::Narrator;
use super::pipeline::{Outcome, version_slopes};
use super::published::Published;
use super::restarting::{self, Standing};
use super::restore;
use super::shared::Shared;
use crate::collect::{self, Collector, ExposedReader};
use crate::config::Settings;
use crate::export::VersionSlope;
use crate::history::{ProcessHistory, Sample};
use crate::model::{AppName, LifeEnd, ProcessKey, Snapshot, Spoken, Verdict};
use crate::trend::first_verdict_after;

/// How often the summaries of running lives are written, so that their beginnings are known after a restart.
const SUMMARIES_EVERY: Duration = Duration::from_mins(10);

/// How many collections in a row nobody may have scraped before metrics are no longer written ahead. More than a scrape
/// interval of some minutes has at the usual pace.
const UNREAD: u32 = 20;

/// How to collect under these settings.
pub(super) fn collector_settings(settings: &Settings) -> collect::Settings {
    collect::Settings {
        deadline: settings.collect.deadline,
        reply_limit: usize::try_from(settings.collect.max_reply.0).unwrap_or(usize::MAX),
        process_limit: settings.collect.max_processes,
        // One for each minute of the history; the collections do not fall on minutes exactly.
        memory_every: settings.trend.minute.saturating_sub(settings.interval / 2),
        discover: settings.discover,
        ..collect::Settings::default()
    }
}

/// A collector under these settings, which goes on from the one before where there is one.
pub(super) fn collector(settings: &Settings, before: Option<Collector>) -> Collector {
    let (daemons, settings) = (settings.daemons.clone(), collector_settings(settings));
    match before {
        Some(before) => before.reconfigured(daemons, settings),
        None => Collector::new(daemons, settings),
    }
}

/// Adds what the user configured for apps.
pub(super) fn lay_settings_over(snapshot: &mut Snapshot, settings: &Settings) {
    for process in snapshot.daemons.iter_mut().flat_map(|daemon| &mut daemon.processes) {
        process.limits.configured = settings.app(&process.listed.app).and_then(|app| app.memory_limit);
    }
}

/// Reads the metrics that apps expose where the settings say so, and lays them over the collection.
pub(super) async fn read_exposed(reader: &mut ExposedReader, snapshot: &mut Snapshot, settings: &Settings) {
    let url_of = |app: &AppName| settings.app(app).and_then(|app| app.metrics_url.as_ref());
    reader.read(snapshot, url_of, settings.collect.deadline).await;
}

/// Collects until told to stop. Returns when `stop` is cancelled.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<(), String> {
    let mut narrator = Narrator::default();
    let mut exposed = ExposedReader::default();
    let mut version_slopes = Arc::default();
    let mut collector = None;
    // Until somebody comes, metrics are written when they are asked for.
    let mut unread = UNREAD;
    let first = Spoken(first_verdict_after(&shared.settings.load().trend));
    tracing::info!("a process is learned for the first {first} of its run; then comes its first verdict");
    while !stop.is_cancelled() {
        let settings = shared.settings.load_full();
        let mut task = Collecting {
            shared: &shared,
            settings,
            narrator: &mut narrator,
            collector: &mut collector,
            exposed: &mut exposed,
            version_slopes: &mut version_slopes,
            unread: &mut unread,
        };
        task.run(&stop).await;
    }
    Ok(())
}

/// One run under one configuration.
struct Collecting<'a> {
    shared: &'a Shared,
    settings: Arc<Settings>,
    narrator: &'a mut Narrator,
    /// What the configuration before collected with.
    collector: &'a mut Option<Collector>,
    exposed: &'a mut ExposedReader,
    /// Slopes by version as of the last time they were reckoned.
    version_slopes: &'a mut Arc<[VersionSlope]>,
    /// Collections in a row whose metrics nobody asked for.
    unread: &'a mut u32,
}

impl Collecting<'_> {
    /// Collects until the configuration changes or everything stops.
    async fn run(&mut self, stop: &CancellationToken) {
        let mut collector = collector(&self.settings, self.collector.take());
        self.shared.pipeline().set_trend(self.settings.trend.clone());
        let mut collect = interval(self.settings.interval);
        collect.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let pause = self.settings.collect.heap_interval.unwrap_or(Duration::MAX);
        let mut between =
            interval_at(Instant::now() + pause.min(Duration::from_hours(24)), pause.min(Duration::from_hours(24)));
        between.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let every = self.settings.trend.minute * self.settings.trend.evaluate_every;
        let mut versions = interval(every.max(Duration::from_secs(1)));
        versions.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut summaries = interval(SUMMARIES_EVERY);
        summaries.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut next = Instant::now();
        while Arc::ptr_eq(&self.settings, &self.shared.settings.load()) {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.shared.reloaded.notified() => {}
                due = collect.tick() => {
                    next = due + self.settings.interval;
                    // A daemon that is slow to answer does not delay the end.
                    stop.run_until_cancelled(self.collect(&mut collector)).await;
                    // The look that would follow at once adds nothing.
                    between.reset();
                }
                _ = between.tick(), if self.settings.collect.heap_interval.is_some() => {
                    // A look at a daemon that hangs makes no collection late.
                    stop.run_until_cancelled(timeout_at(next, self.look(&mut collector))).await;
                }
                _ = versions.tick() => *self.version_slopes = version_slopes(self.shared.pipeline().histories()).into(),
                _ = summaries.tick() => self.save_running(),
            }
        }
        if stop.is_cancelled() {
            self.save_running();
        }
        *self.collector = Some(collector);
    }

    async fn collect(&mut self, collector: &mut Collector) {
        let clock = &self.shared.clock;
        let mut snapshot = collector.collect(clock.now(), clock.wall()).await;
        read_exposed(self.exposed, &mut snapshot, &self.settings).await;
        lay_settings_over(&mut snapshot, &self.settings);
        self.narrator.collection(&snapshot, &self.settings.daemons);
        let daemons = collector.daemons();
        if **self.shared.daemons.load() != daemons {
            self.shared.daemons.store(Arc::new(daemons));
        }
        let (outcome, verdicts) = {
            let mut pipeline = self.shared.pipeline();
            let outcome = pipeline.take(&snapshot, |app| self.settings.trend_of(app));
            (outcome, pipeline.verdicts())
        };
        self.narrator.verdicts(&outcome.changes);
        let turned = outcome.begun || !outcome.changes.is_empty();
        self.save(outcome);
        if turned {
            self.save_running();
        }
        let snapshot = Arc::new(snapshot);
        let standing = self.tell_policy(&snapshot, &verdicts).await;
        let evidence = self.shared.evidence.stamps();
        let deaths = self.shared.deaths.counts(snapshot.wall);
        let published =
            Published::new(snapshot.clone(), verdicts, self.version_slopes.clone(), standing, evidence, deaths);
        self.write_ahead(&published);
        self.shared.published.store(Some(Arc::new(published)));
        self.shared.evidence.collected();
        self.shared.collected(&snapshot.daemons);
    }

    /// Writes the metrics ahead of the next scrape while somebody scrapes: where nobody has for [`UNREAD`] collections, the
    /// first who comes waits for it.
    fn write_ahead(&mut self, published: &Published) {
        let scraped = self.shared.published.load().as_ref().is_some_and(|before| before.was_scraped());
        *self.unread = if scraped { 0 } else { self.unread.saturating_add(1) };
        if *self.unread < UNREAD {
            published.write_metrics();
        }
    }

    /// Tells the restart policy what was seen, and asks how it stands. It has a second; nothing here waits longer for it.
    async fn tell_policy(
        &self,
        snapshot: &Arc<Snapshot>,
        verdicts: &BTreeMap<ProcessKey, Verdict>,
    ) -> Option<Standing> {
        let policy = self.shared.policy.as_ref()?;
        let lives = snapshot.processes().filter_map(|process| Some((&process.key, process.life?)));
        let with_lives =
            lives.filter_map(|(key, life)| Some((key.clone(), (life, verdicts.get(key)?.clone())))).collect();
        let told = policy.observed(snapshot.clone(), Arc::new(with_lives));
        tokio::time::timeout(Duration::from_secs(1), told).await.ok()?.ok()?;
        restarting::standing(policy).await
    }

    async fn look(&mut self, collector: &mut Collector) {
        let now = self.shared.clock.now();
        let readings = collector.poll_heap(now).await;
        let samples = readings.into_iter().map(|reading| {
            let sample = Sample {
                heap_used: reading.heap_used,
                heap_total: reading.heap_total,
                heap_after_major_gc: reading.gc.and_then(|gc| gc.heap_after_major_gc),
                major_gcs: reading.gc.map(|gc| gc.major_gcs),
                ..Sample::empty(reading.life)
            };
            (reading.key, sample)
        });
        self.shared.pipeline().take_between(samples, now);
    }

    /// Hands what is over to the store, which saves it at once; without one it stays in memory.
    fn save(&self, outcome: Outcome) {
        let Some(store) = &self.shared.store else { return };
        let mut handed = Ok(());
        if !outcome.minutes.is_empty() {
            handed = store.append(outcome.minutes).and_then(|()| store.put_anchor(self.shared.clock.anchor()));
        }
        if !outcome.ended.is_empty() {
            handed = handed.and_then(|()| store.put_lives(outcome.ended));
        }
        if let Err(error) = handed {
            tracing::warn!(%error, "the history of a minute could not be handed over and is kept in memory only");
        }
    }

    /// Hands over which lives are running and how they stand, so that the next run of the sidecar goes on with them. Does not
    /// wait: a slow disk must not delay collections.
    fn save_running(&self) {
        let Some(store) = &self.shared.store else { return };
        let (summaries, entries) = {
            let pipeline = self.shared.pipeline();
            let running = |history: &ProcessHistory| history.summary(LifeEnd::Running);
            (pipeline.histories().filter_map(running).collect::<Vec<_>>(), restore::running(&pipeline))
        };
        let mut handed = store.put_lives(summaries);
        for (name, entry) in entries {
            if handed.is_ok() {
                handed = store.put_state(&name, Some(entry));
            }
        }
        if let Err(error) = handed {
            tracing::warn!(%error, "the running lives could not be saved; after a restart their windows may start anew");
        }
    }
}
