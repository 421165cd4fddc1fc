//! The server when the process has run out of file descriptors, in a process of its own, whose limit it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leakslope::http::{HttpSettings, Plain, Request, Response, Route, Router, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::in_own_process;

const PATIENCE: Duration = Duration::from_secs(20);

async fn healthy(_state: Arc<()>, _request: Request) -> Response {
    Response::text("ok\n")
}

#[tokio::test]
async fn an_idle_connection_gives_its_descriptor() {
    if !in_own_process("http_descriptors::an_idle_connection_gives_its_descriptor") {
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), ..getrlimit(Resource::Nofile) }).unwrap();
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), HttpSettings::default()).unwrap();
    let address = server.local_addr().unwrap();
    let occupancy = server.occupancy();
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let router = Router::new(Arc::new(())).route(Route::get("/-/healthy", healthy));
    tracker.spawn(server.serve(router, Plain, tracker.clone(), stop.clone()));

    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let accepted = async {
        while occupancy.get().open < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, accepted).await.unwrap();
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hoard.pop().is_some(), "one descriptor is left for the client and none for the server");

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    assert!(occupancy.get().evicted >= 1);
    drop(hoard);
    stop.cancel();
    tracker.close();
    timeout(PATIENCE, tracker.wait()).await.unwrap();
}
