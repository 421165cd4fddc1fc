//! What each path answers: the table of routes, and handlers that only look at what is published.

use std::fmt::Write as _;
use std::sync::Arc;

use hyper::StatusCode;

use super::shared::Shared;
use crate::collect::system::own_sample;
use crate::export;
use crate::http::{Content, Request, Response, Route, Router};

/// The table of routes.
pub(super) fn router(shared: Arc<Shared>) -> Router<Shared> {
    Router::new(shared)
        .route(Route::get("/", landing))
        .route(Route::get("/metrics", metrics))
        .route(Route::get("/-/healthy", healthy))
        .route(Route::get("/-/ready", ready))
        .route(Route::get("/api/v1/processes", processes))
}

async fn metrics(shared: Arc<Shared>, _request: Request) -> Response {
    let own = own_sample(shared.clock.wall()).unwrap_or_default();
    let sidecar = export::render_sidecar(&shared.sidecar_state().await, &own);
    let collected = shared.published.load().as_ref().map(|published| published.metrics()).unwrap_or_default();
    let mut body = Vec::with_capacity(sidecar.len() + collected.len());
    body.extend_from_slice(&collected);
    body.extend_from_slice(sidecar.as_bytes());
    Response::new(StatusCode::OK, Content::Other(export::TEXT_FORMAT), body)
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

async fn processes(shared: Arc<Shared>, _request: Request) -> Response {
    match shared.published.load().as_ref() {
        Some(published) => Response::new(StatusCode::OK, Content::Json, published.processes()),
        None => not_yet(),
    }
}

fn not_yet() -> Response {
    Response::error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the first collection is not complete")
}

async fn landing(shared: Arc<Shared>, _request: Request) -> Response {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>leakslope</title><h1>leakslope</h1>\
         <p><a href=\"/metrics\">Metrics</a> · <a href=\"/api/v1/processes\">Processes as JSON</a></p>",
    );
    if let Some(published) = shared.published.load().as_ref() {
        let processes = published.snapshot.processes().count();
        write!(page, "<p>Watching {processes} processes.</p>").ok();
    }
    Response::html(page)
}
