//! A small exporter on 127.0.0.1:9876, with TLS, users and limits by a web configuration:
//! `cargo run --example exporter -- web.yml`.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exporter_web::{Access, AccessSettings, HttpSettings, Request, Response, Route, Router, Server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

async fn metrics(scrapes: Arc<AtomicU64>, _request: Request) -> Response {
    Response::text(format!("scrapes_total {}\n", scrapes.fetch_add(1, Ordering::Relaxed) + 1))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let web_config = std::env::args_os().nth(1).map(Into::into);
    let access = Access::open(AccessSettings { web_config, ..AccessSettings::default() })?;
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 9876)), HttpSettings::default())?;
    let router = Router::new(Arc::default()).route(Route::get("/metrics", metrics)).guarded_by(access.gatekeeper());
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let serving = server.serve(router, access.transport(), tracker, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        _ = tokio::signal::ctrl_c() => stop.cancel(),
    }
    serving.await;
    Ok(())
}
