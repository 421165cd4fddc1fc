//! What each path answers: the table of routes, and handlers that only look at what is published.

mod compare;
mod deaths;
mod doctor;
mod evidence;
mod metrics;
mod page;
mod past;
mod restarts;
mod session;

pub(super) use doctor::Examination;
pub(super) use restarts::Rates;
pub use session::LinkView;

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::{StatusCode, header};

use super::shared::Shared;
use crate::alertmanager::LARGEST_BODY;
use crate::http::{Content, Request, Response, Route, Router};
use crate::ui;

/// The table of routes.
pub(super) fn router(shared: Arc<Shared>) -> Router<Shared> {
    Router::new(shared)
        .route(Route::get("/", page::file))
        .route(Route::get("/favicon.ico", page::file))
        .route(Route::get("/static/{file}", page::file))
        .route(Route::get("/metrics", metrics::metrics))
        .route(Route::get("/-/healthy", healthy))
        .route(Route::get("/-/ready", ready))
        .route(Route::get("/api/v1/processes", past::processes))
        .route(Route::get("/api/v1/doctor", doctor::report))
        .route(Route::get("/api/v1/restarts", restarts::list))
        .route(Route::post("/api/v1/restarts", restarts::ask))
        .route(Route::get("/api/v1/restarts/preview", restarts::preview))
        .route(Route::post("/api/v1/restarts/withdraw", restarts::withdraw))
        .route(Route::post("/api/v1/restarts/breaker", restarts::reset_breaker))
        .route(Route::post("/api/v1/alerts", restarts::alerts).body_bytes(LARGEST_BODY))
        .route(Route::get("/api/v1/evidence", evidence::list))
        .route(Route::post("/api/v1/evidence", evidence::ask))
        .route(Route::get("/api/v1/evidence/{id}/file", evidence::file))
        .route(Route::post("/api/v1/session", session::begin).open())
        .route(Route::post("/api/v1/session/link", session::link))
        .route(Route::get("/api/v1/lives", compare::remembered))
        .route(Route::get("/api/v1/compare", compare::versions))
        .route(Route::get("/api/v1/deaths", deaths::list))
        .route(Route::get("/api/v1/processes/{daemon}/{pm_id}/history", past::history))
        .route(Route::get("/api/v1/processes/{daemon}/{pm_id}/history.csv", past::csv))
}

async fn healthy(_shared: Arc<Shared>, _request: Request) -> Response {
    Response::text("leakslope is healthy.\n")
}

async fn ready(shared: Arc<Shared>, _request: Request) -> Response {
    if shared.published.load().is_some() {
        Response::text("leakslope is ready.\n")
    } else {
        Response::new(StatusCode::SERVICE_UNAVAILABLE, Content::Text, "leakslope has not collected yet.\n")
    }
}

/// A body with its tag, or only that it has not changed since the reader last asked.
fn tagged(request: &Request, content: Content, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let tag = ui::etag(&body);
    let known = request.header(header::IF_NONE_MATCH).is_some_and(|tags| ui::not_modified(tags, &tag));
    let response =
        if known { Response::empty(StatusCode::NOT_MODIFIED) } else { Response::new(StatusCode::OK, content, body) };
    response.with(header::ETAG, &tag).with(header::CACHE_CONTROL, "no-cache")
}

fn not_yet() -> Response {
    Response::error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the first collection is not complete")
}
