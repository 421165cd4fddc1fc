//! Versions of an app side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::StatusCode;

use super::tagged;
use crate::export::json::LivesView;
use crate::history::store::LifeFilter;
use crate::http::{Content, Request, Response};
use crate::model::{AppName, DaemonName, LifeEnd, LifeSummary};
use crate::runtime::Shared;
use crate::ui::{Choice, CompareView};

pub(super) async fn versions(shared: Arc<Shared>, request: Request) -> Response {
    let Some(app) = request.query.get("app") else {
        return Response::error(StatusCode::BAD_REQUEST, "bad_query", "parameter app is missing");
    };
    let daemon = request.query.get("daemon").unwrap_or("default");
    let lives = lives(&shared, Some(daemon), app).await;
    if lives.is_empty() {
        let message = format!("no life of an app named \"{app}\" is remembered of daemon {daemon}");
        return Response::error(StatusCode::NOT_FOUND, "unknown_app", &message);
    }
    let app = match one_app(app, &lives) {
        Ok(app) => app,
        Err(refusal) => return *refusal,
    };
    let choice = Choice { before: request.query.get("before"), after: request.query.get("after") };
    let minute = shared.settings.load().trend.minute;
    let offset = shared.clock.wall().0.saturating_sub(shared.clock.now().0);
    match CompareView::new(daemon, &app, &lives, choice, minute, offset) {
        Ok(view) => match serde_json::to_vec(&view) {
            Ok(body) => tagged(&request, Content::Json, body),
            Err(_unwritable) => Response::json(&view),
        },
        Err(error) => Response::error(StatusCode::NOT_FOUND, "unknown_version", &error.to_string()),
    }
}

/// The lives of an app as `leakslope compare` reads them.
pub(super) async fn remembered(shared: Arc<Shared>, request: Request) -> Response {
    let Some(app) = request.query.get("app") else {
        return Response::error(StatusCode::BAD_REQUEST, "bad_query", "parameter app is missing");
    };
    let lives = lives(&shared, request.query.get("daemon"), app).await;
    if let Err(refusal) = one_app(app, &lives) {
        return *refusal;
    }
    let minute = shared.settings.load().trend.minute;
    Response::json(&LivesView::new(lives, shared.clock.now(), minute))
}

/// The app whose lives these are; a refusal where its name alone means apps of several namespaces.
fn one_app(asked: &str, lives: &[LifeSummary]) -> Result<AppName, Box<Response>> {
    let meant: BTreeSet<&AppName> =
        lives.iter().map(|life| &life.app).filter(|app| !app.namespace().is_empty()).collect();
    if meant.len() > 1 {
        let names: Vec<String> = meant.iter().map(|app| app.qualified()).collect();
        let message = format!("several namespaces have an app named {asked}; ask for one of {}", names.join(", "));
        return Err(Box::new(Response::error(StatusCode::CONFLICT, "several_apps", &message)));
    }
    Ok(meant.first().map_or_else(|| AppName::from(asked), |app| (*app).clone()))
}

/// The lives of an app, of every daemon where none is named: those that have ended, from the store (memory where there is
/// none), and those that run, as they stand.
async fn lives(shared: &Shared, daemon: Option<&str>, app: &str) -> Vec<LifeSummary> {
    let (daemon, app) = (daemon.map(DaemonName::from), AppName::from(app));
    let stored = match &shared.store {
        Some(store) => {
            let filter = LifeFilter { app: Some(app.clone()), daemon: daemon.clone(), ..LifeFilter::default() };
            store.lives(filter).await.ok()
        }
        None => None,
    };
    let pipeline = shared.pipeline();
    let histories = || {
        pipeline.histories().filter(|history| {
            daemon.as_ref().is_none_or(|daemon| history.key().daemon == *daemon) && app.means(&history.about().app)
        })
    };
    let running: Vec<LifeSummary> = histories().filter_map(|history| history.summary(LifeEnd::Running)).collect();
    let mut lives = stored
        .unwrap_or_else(|| histories().flat_map(|history| history.earlier().cloned().collect::<Vec<_>>()).collect());
    lives.retain(|life| running.iter().all(|now| (&now.key, now.life) != (&life.key, life.life)));
    lives.extend(running);
    lives
}
