//! Why processes ended, as JSON. What an app wrote may hold its secrets, so it is told to those alone who may act.

use std::sync::Arc;

use hyper::StatusCode;

use super::restarts::may_act;
use super::tagged;
use crate::http::{Content, Request, Response};
use crate::model::{AppName, DaemonName};
use crate::runtime::Shared;
use crate::ui::DeathsView;

/// Deaths in an answer, unless it is asked for fewer.
const MOST: usize = 512;

pub(super) async fn list(shared: Arc<Shared>, request: Request) -> Response {
    let number = |name: &str| request.query.get(name).map(str::parse::<u32>).transpose();
    let (Ok(pm_id), Ok(limit)) = (number("pm_id"), number("limit")) else {
        return Response::error(StatusCode::BAD_REQUEST, "bad_query", "parameters pm_id and limit are numbers");
    };
    let app = request.query.get("app").map(AppName::from);
    let daemon = request.query.get("daemon").map(DaemonName::from);
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MOST).min(MOST);
    let mut deaths = shared.deaths.newest(most, |death| {
        app.as_ref().is_none_or(|app| app.means(&death.app))
            && daemon.as_ref().is_none_or(|daemon| *daemon == death.daemon)
            && pm_id.is_none_or(|pm_id| pm_id == death.pm_id)
    });
    if may_act(&shared, &request).await.0.is_err() {
        for death in &mut deaths {
            death.message = None;
        }
    }
    let view = DeathsView { deaths: deaths.iter().map(Into::into).collect() };
    match serde_json::to_vec(&view) {
        Ok(body) => tagged(&request, Content::Json, body),
        Err(_unwritable) => Response::json(&view),
    }
}
