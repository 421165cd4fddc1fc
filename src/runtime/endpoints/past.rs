//! Processes and their past, as JSON and CSV.

use std::sync::Arc;

use hyper::{StatusCode, header};

use super::{not_yet, tagged};
use crate::export::json::ProcessesView;
use crate::export::timeline::{self, HistoryView, Past, Range, TimeScale};
use crate::history::Point;
use crate::http::{Content, Request, Response};
use crate::model::{AppName, DaemonName, LifeEnd, LifeSummary, Minute, ProcessKey, Verdict};
use crate::runtime::{Published, Shared};
use crate::trend::{cause, first_verdict_after};
use crate::ui::plan_of;

/// Points of a sparkline.
const SPARKLINE_POINTS: u16 = 60;
/// Minutes that a sparkline looks back at least, so that it shows something before there is a window.
const SPARKLINE_MINUTES: i64 = 60;

pub(super) async fn processes(shared: Arc<Shared>, request: Request) -> Response {
    match shared.published.load().as_ref() {
        Some(published) => tagged(&request, Content::Json, published.processes(|| view(&shared, published))),
        None => not_yet(),
    }
}

/// The collection with the small drawings of each process's window.
fn view(shared: &Shared, published: &Published) -> ProcessesView {
    let scale = scale(shared);
    let mut view = published.view();
    let settings = shared.settings.load();
    view.interval_seconds = Some(settings.interval.as_secs_f64());
    view.first_verdict_after_seconds = Some(first_verdict_after(&settings.trend).as_secs_f64());
    let pipeline = shared.pipeline();
    for process in &mut view.processes {
        let key = ProcessKey { daemon: DaemonName::from(process.daemon.as_str()), pm_id: process.pm_id };
        let standing = published.restarts.as_ref();
        process.plan = standing.and_then(|standing| plan_of(&standing.plan, &key.daemon, key.pm_id));
        process.memory_cause = pipeline.composition(&key).and_then(cause).map(Into::into);
        let Some(history) = pipeline.history(&key) else { continue };
        let Some(newest) = history.minutes().newest() else { continue };
        let window = published.verdicts.get(&key).map_or(0, |verdict| {
            i64::try_from(verdict.window.as_millis() / scale.minute.as_millis().max(1)).unwrap_or(0)
        });
        let minutes: Vec<Minute> = history.minutes().since(newest - window.max(SPARKLINE_MINUTES)).collect();
        process.sparkline = timeline::sparkline(&minutes, SPARKLINE_POINTS, scale);
    }
    view
}

pub(super) async fn history(shared: Arc<Shared>, request: Request) -> Response {
    match remembered(&shared, &request) {
        Ok((remembered, range)) => {
            let view = HistoryView::new(&remembered.past(scale(&shared)), range);
            match serde_json::to_vec(&view) {
                Ok(body) => tagged(&request, Content::Json, body),
                Err(_unwritable) => Response::json(&view),
            }
        }
        Err(refusal) => *refusal,
    }
}

pub(super) async fn csv(shared: Arc<Shared>, request: Request) -> Response {
    match remembered(&shared, &request) {
        Ok((remembered, range)) => {
            let name = format!("attachment; filename=\"leakslope-{}.csv\"", remembered.key.pm_id);
            let text = timeline::csv(&remembered.past(scale(&shared)), range);
            Response::new(StatusCode::OK, Content::Other("text/csv; charset=utf-8"), text)
                .with(header::CONTENT_DISPOSITION, &name)
        }
        Err(refusal) => *refusal,
    }
}

fn scale(shared: &Shared) -> TimeScale {
    TimeScale {
        minute: shared.settings.load().trend.minute,
        offset_ms: shared.clock.wall().0.saturating_sub(shared.clock.now().0),
    }
}

/// A copy of what is remembered of one process, so that nobody waits while an answer is written.
struct Remembered {
    key: ProcessKey,
    app: AppName,
    minutes: Vec<Minute>,
    lives: Vec<LifeSummary>,
    composition: Vec<Point>,
    verdict: Option<Verdict>,
    exact_since: Option<i64>,
}

impl Remembered {
    fn past(&self, scale: TimeScale) -> Past<'_> {
        Past {
            key: &self.key,
            app: &self.app,
            minutes: &self.minutes,
            lives: &self.lives,
            composition: &self.composition,
            verdict: self.verdict.as_ref(),
            exact_since: self.exact_since,
            scale,
        }
    }
}

fn remembered(shared: &Shared, request: &Request) -> Result<(Remembered, Range), Box<Response>> {
    let wrong = |code: &str, message: &str| Box::new(Response::error(StatusCode::BAD_REQUEST, code, message));
    let [daemon, pm_id] = request.parameters.as_slice() else {
        return Err(wrong("bad_target", "the path names a daemon and a pm_id"));
    };
    let pm_id = pm_id.parse().map_err(|_not_a_number| wrong("bad_target", "pm_id is a number"))?;
    let range = Range::parse(|name| request.query.get(name), shared.clock.wall())
        .map_err(|error| wrong("bad_query", &error.to_string()))?;
    let key = ProcessKey { daemon: DaemonName::from(daemon.as_str()), pm_id };
    let verdict = shared.published.load().as_ref().and_then(|published| published.verdicts.get(&key).cloned());
    let pipeline = shared.pipeline();
    let history = pipeline.history(&key).ok_or_else(|| {
        let message = format!("nothing is remembered of process {key}");
        Box::new(Response::error(StatusCode::NOT_FOUND, "unknown_process", &message))
    })?;
    let mut lives: Vec<LifeSummary> = history.earlier().cloned().collect();
    lives.extend(history.summary(LifeEnd::Running));
    let remembered = Remembered {
        app: history.about().app.clone(),
        minutes: history.minutes().since(i64::MIN).collect(),
        lives,
        composition: pipeline.composition(&key).map(|composition| composition.points().to_vec()).unwrap_or_default(),
        verdict,
        exact_since: history.current().and_then(|current| current.exact_since),
        key,
    };
    Ok((remembered, range))
}
