//! What is wrong with the way apps run: the checks, made when somebody asks and kept for a minute.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::Mutex;

use super::tagged;
use crate::doctor::{self, Watched};
use crate::http::{Content, Request, Response};
use crate::model::{ProcessKey, Signal, Steady};
use crate::runtime::{Shared, collecting};

/// How long an examination is good.
const KEPT: Duration = Duration::from_mins(1);

/// The latest examination. Who asks while one is made waits for it.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Examination(Mutex<Option<(Steady, Bytes)>>);

pub(super) async fn report(shared: Arc<Shared>, request: Request) -> Response {
    let mut kept = shared.examination.0.lock().await;
    let now = shared.clock.now();
    let body = match &*kept {
        Some((at, body)) if now >= *at && now.since(*at) < KEPT => body.clone(),
        Some(_) | None => {
            let report = examine(&shared).await;
            let body = serde_json::to_vec(&report).map_or_else(|_unwritable| Bytes::new(), Bytes::from);
            *kept = Some((shared.clock.now(), body.clone()));
            body
        }
    };
    drop(kept);
    tagged(&request, Content::Json, body)
}

/// Examines with a collector of its own, so that the collecting task waits for nothing.
async fn examine(shared: &Shared) -> doctor::Report {
    let settings = shared.settings.load_full();
    let mut collector = collecting::collector(&settings, None);
    let snapshot = collector.collect(shared.clock.now(), shared.clock.wall()).await;
    let published = shared.published.load_full();
    let watched = |key: &ProcessKey| {
        let verdict = published.as_ref().and_then(|published| published.verdicts.get(key));
        let growth = verdict.and_then(|verdict| verdict.slopes.get(&Signal::Resident)).map(|slope| slope.low);
        let floor = verdict.filter(|verdict| verdict.signal == Signal::Resident).and_then(|verdict| verdict.floor);
        Watched { floor, growth }
    };
    doctor::gather(&collector, &snapshot, watched).await.report()
}
