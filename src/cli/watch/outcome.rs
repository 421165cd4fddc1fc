//! What a run comes to: an answer for each process, the evidence of a leak, and what could not be done, as notes.

use std::path::Path;
use std::time::Duration;

use super::processes::Watched;
use super::report::{Evidence, FUNCTIONS, LoadReport, ProcessReport, Report, judge, judge_tree, overall};
use super::run::Running;
use crate::cli::output::clean;
use crate::evidence::{keep, take};
use crate::model::{Signal, WallTime};
use crate::trend::{ShortAnswer, ShortFloor};

impl Running<'_> {
    /// Judges everyone who lived through the run, takes evidence of who leaks into the folder `evidence`, and returns the
    /// report with the floors that its answer rests on.
    pub(super) async fn report(
        &mut self,
        lasted: Duration,
        evidence: &Path,
        now: WallTime,
    ) -> (Report, Vec<ShortFloor>) {
        let (warm_up, max_slope) = (self.arguments.warm_up(), self.arguments.max_slope);
        let interval = self.arguments.interval();
        let last = self.rows.last().map_or(Duration::ZERO, |row| row.moment.at);
        let mut reports = Vec::new();
        let mut passing = 0_usize;
        for watched in self.processes.watched.values_mut() {
            let lived = watched.resident.first().zip(watched.resident.last());
            let through = |(first, end): (&ShortFloor, &ShortFloor)| {
                first.at <= warm_up + interval * 2 && end.at + interval * 3 >= last
            };
            if !lived.is_some_and(through) {
                passing += 1;
                continue;
            }
            let mut report = judge(watched, warm_up, max_slope);
            if let Some(failure) = &watched.failure {
                let name = clean(&watched.name);
                self.notes.push(format!("the heap of {name} (pid {}) could not be read: {failure}", watched.pid));
            }
            if report.answer == ShortAnswer::Leak && watched.has_heap() {
                match take_profile(watched, evidence, now).await {
                    Ok(taken) => report.evidence = Some(taken),
                    Err(why) => self.notes.push(format!("no heap profile of pid {}: {}", watched.pid, clean(&why))),
                }
            }
            reports.push(report);
        }
        if passing > 0 {
            self.notes
                .push(format!("{passing} process(es) did not live through the run and were not judged one by one"));
        }
        if self.processes.left_out > 0 {
            self.notes.push(format!("{} more process(es) were only counted into the tree", self.processes.left_out));
        }
        if reports.is_empty() && !self.rows.is_empty() {
            reports.push(judge_tree(&self.tree_floors(), warm_up, max_slope));
        }
        let (answer, reason) = overall(&reports);
        let floors = reports.iter().rev().max_by_key(|report| report.answer).map(|report| self.floors_of(report));
        let report = Report {
            command: self.command(),
            answer,
            reason,
            duration_seconds: lasted.as_secs_f64(),
            warm_up_seconds: warm_up.as_secs_f64(),
            interval_seconds: interval.as_secs_f64(),
            max_slope_bytes_per_second: max_slope,
            load: self.load.as_ref().map(|load| LoadReport {
                command: self.arguments.load.clone().unwrap_or_default(),
                rounds: load.rounds,
                requests: load.requests(),
                waiting: load.waiting(),
            }),
            processes: reports,
            notes: std::mem::take(&mut self.notes),
        };
        (report, floors.unwrap_or_default())
    }

    fn floors_of(&self, report: &ProcessReport) -> Vec<ShortFloor> {
        let watched = self.processes.watched.values().find(|watched| Some(watched.pid) == report.pid);
        watched.map_or_else(
            || self.tree_floors(),
            |watched| match report.signal {
                Signal::Heap => watched.heap.clone(),
                Signal::Native => watched.native.clone(),
                Signal::Resident | Signal::Footprint => watched.resident.clone(),
            },
        )
    }

    fn tree_floors(&self) -> Vec<ShortFloor> {
        let floor = |row: &super::report::Row| row.moment.floor(row.figures.resident);
        self.rows.iter().map(floor).collect()
    }
}

async fn take_profile(watched: &mut Watched, folder: &Path, now: WallTime) -> Result<Evidence, String> {
    let (profile, summary, notes) = watched.profile(FUNCTIONS).await?;
    let script = Path::new(&watched.name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = script.unwrap_or_else(|| watched.name.clone());
    let file = take::file_name(&name.as_str().into(), watched.pid, None, now, "heapprofile");
    let path = keep::write_alone(folder, &file, &profile).map_err(|error| error.to_string())?;
    let functions = if summary.own.is_empty() { summary.functions } else { summary.own };
    Ok(Evidence {
        path: path.display().to_string(),
        total_bytes: summary.total_bytes,
        sentence: summary.sentence,
        functions,
        notes,
    })
}
