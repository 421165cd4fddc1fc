//! The server against clients that behave, dawdle, break the protocol or leave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use leakslope::http::{
    ActingPolicy, Admission, Content, Gatekeeper, HttpSettings, Identity, OccupancyHandle, Peer, Plain, Request,
    Response, Route, Router, ServeErrorKind, Server, guard_acting,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Far more than anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(20);
/// A deadline that a test waits out.
const SOON: Duration = Duration::from_millis(300);

#[derive(Default)]
struct App {
    begun: AtomicUsize,
    finished: AtomicUsize,
    release: Notify,
}

async fn healthy(_app: Arc<App>, _request: Request) -> Response {
    Response::text("ok\n")
}

async fn echo(_app: Arc<App>, request: Request) -> Response {
    Response::new(StatusCode::OK, Content::Text, request.body)
}

async fn describe(_app: Arc<App>, request: Request) -> Response {
    let query: Vec<_> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Response::text(format!("{:?} {} {:?}", request.parameters.first(), query.join(","), request.identity))
}

/// Counts how often it begins and ends, and waits in between.
async fn slow(app: Arc<App>, _request: Request) -> Response {
    app.begun.fetch_add(1, Ordering::SeqCst);
    app.release.notified().await;
    app.finished.fetch_add(1, Ordering::SeqCst);
    Response::text("done")
}

async fn big(_app: Arc<App>, _request: Request) -> Response {
    Response::new(StatusCode::OK, Content::Text, vec![b'x'; 32 << 20])
}

async fn act(_app: Arc<App>, request: Request) -> Response {
    match guard_acting(&request, &ActingPolicy::default()) {
        Ok(()) => Response::empty(StatusCode::ACCEPTED),
        Err(refusal) => refusal.response(),
    }
}

struct Running {
    address: SocketAddr,
    app: Arc<App>,
    stop: CancellationToken,
    tracker: TaskTracker,
    occupancy: OccupancyHandle,
}

fn routes(app: &Arc<App>, tracker: &TaskTracker) -> Router<App> {
    let spawner = tracker.clone();
    let parts = move |_app: Arc<App>, _request: Request| {
        let spawner = spawner.clone();
        async move {
            let (sender, receiver) = mpsc::channel(2);
            spawner.spawn(async move {
                for part in 0..5 {
                    if sender.send(Bytes::from(format!("part {part}\n"))).await.is_err() {
                        return;
                    }
                }
            });
            Response::parts(Content::Text, receiver, None)
        }
    };
    Router::new(app.clone())
        .route(Route::get("/-/healthy", healthy))
        .route(Route::post("/echo", echo).body_bytes(1000))
        .route(Route::get("/describe/{what}", describe))
        .route(Route::get("/slow", slow))
        .route(Route::post("/hold", slow).body_bytes(1000))
        .route(Route::get("/late", slow).deadline(SOON))
        .route(Route::get("/big", big))
        .route(Route::get("/parts", parts))
        .route(Route::post("/act", act))
}

fn start_with(settings: HttpSettings, change: impl FnOnce(Router<App>) -> Router<App>) -> Running {
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), settings).unwrap();
    let address = server.local_addr().unwrap();
    let (app, stop, tracker) = (Arc::new(App::default()), CancellationToken::new(), TaskTracker::new());
    let occupancy = server.occupancy();
    let router = change(routes(&app, &tracker));
    tracker.spawn(server.serve(router, Plain, tracker.clone(), stop.clone()));
    Running { address, app, stop, tracker, occupancy }
}

fn start(settings: HttpSettings) -> Running {
    start_with(settings, |router| router)
}

impl Running {
    async fn connect(&self) -> TcpStream {
        timeout(PATIENCE, TcpStream::connect(self.address)).await.unwrap().unwrap()
    }

    /// Sends bytes on a new connection and returns all that comes back until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may refuse before all is sent; what it says is what counts.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes()).await
    }

    /// Waits until the server has this many connections.
    async fn wait_for_open(&self, wanted: impl Fn(u64) -> bool) {
        wait_until(|| wanted(self.occupancy.get().open)).await;
    }

    async fn finish(self) {
        self.stop.cancel();
        self.tracker.close();
        timeout(PATIENCE, self.tracker.wait()).await.unwrap();
        assert_eq!(self.occupancy.get().open, 0);
    }
}

async fn wait_until(reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("what was waited for never came");
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end like any other.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server never closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the text that came ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with(end) {
        let count = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("nothing came").unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("nothing")
}

#[tokio::test]
async fn ordinary_requests_are_answered() {
    let running = start(HttpSettings::default());
    let answer = running.get("/-/healthy").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    for header in ["x-content-type-options: nosniff", "x-frame-options: DENY", "cache-control: no-store"] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    let answer = running.get("/describe/a%20b?x=1+2&y=%26").await;
    assert!(answer.ends_with("Some(\"a b\") x=1 2,y=& Anonymous"), "{answer}");
    let answer = running.get("/parts").await;
    assert!(answer.contains("transfer-encoding: chunked") && answer.contains("part 4"), "{answer}");
    running.finish().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_as_json() {
    let running = start(HttpSettings::default());
    let answer = running.get("/nowhere").await;
    assert_eq!(status(&answer), "404");
    assert!(answer.ends_with(r#"{"error":{"code":"not_found","message":"there is nothing at this path"}}"#));
    let answer = running.get("/echo").await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("\r\nallow: POST\r\n"), "{answer}");
    let answer = running.get("/describe/%ff").await;
    assert_eq!(status(&answer), "400");
    let answer = running.get("/-/healthy?a=%").await;
    assert_eq!(status(&answer), "400");
    running.finish().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let running = start(HttpSettings::default());
    let answer = running.exchange(b"HEAD /-/healthy HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-length: 3\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = running.exchange(b"HEAD /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(status(&answer) == "404" && answer.ends_with("\r\n\r\n"), "{answer}");
    running.finish().await;
}

#[tokio::test]
async fn connections_are_kept_and_pipelined_requests_answered_in_order() {
    let running = start(HttpSettings::default());
    let mut stream = running.connect().await;
    let requests: String = (0..20)
        .map(|number| format!("GET /describe/{number} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect::<Vec<_>>()
        .concat();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answers = read_until(&mut stream, "Some(\"19\")  Anonymous").await;
    let order: Vec<usize> = (0..20).map(|number| answers.find(&format!("Some(\"{number}\")")).unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "ok\n").await;
    assert_eq!(running.occupancy.get().accepted, 1);
    running.finish().await;
}

#[tokio::test]
async fn broken_requests_are_refused_and_harm_nobody() {
    let running = start(HttpSettings::default());
    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n".to_vec(), &["400", "nothing"]),
        ("no target", b"GET\r\n\r\n".to_vec(), &["400"]),
        ("no version", b"GET /\r\n\r\n".to_vec(), &["400"]),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &["400", "505", "nothing"]),
        ("bad header", b"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n".to_vec(), &["400"]),
        ("no host", b"GET /-/healthy HTTP/1.1\r\n\r\n".to_vec(), &["400"]),
        ("two hosts", b"GET /-/healthy HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(), &["400"]),
        ("bad length", b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_vec(), &["400"]),
        (
            "two lengths",
            b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
            &["400"],
        ),
        ("bad chunk", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(), &["400"]),
        ("one huge header", [b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec(), vec![b'a'; 100_000]].concat(), &["431"]),
        (
            "many headers",
            [b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec(), b"x: y\r\n".repeat(100), b"\r\n".to_vec()].concat(),
            &["431"],
        ),
    ];
    for (name, bytes, expected) in cases {
        let answer = running.exchange(&bytes).await;
        assert!(expected.contains(&status(&answer)), "{name}: {answer:?}");
        assert!(running.get("/-/healthy").await.ends_with("ok\n"), "after {name}");
    }
    let long = format!("/describe/{}", "a".repeat(40_000));
    assert!(["414", "431"].contains(&status(&running.get(&long).await)));
    running.finish().await;
}

#[tokio::test]
async fn bodies_are_bounded_by_their_route() {
    let running = start(HttpSettings { body_deadline: SOON, ..HttpSettings::default() });
    let post = |length: usize| format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n");
    let whole = [post(1000).as_bytes(), b"connection: close\r\n\r\n", &[b'b'; 1000]].concat();
    let answer = running.exchange(&whole).await;
    assert!(status(&answer) == "200" && answer.ends_with(&"b".repeat(1000)), "{answer}");
    for too_much in [1001, 300_000] {
        let answer = running.exchange(&[post(too_much).as_bytes(), b"\r\n", &vec![b'b'; too_much]].concat()).await;
        assert!(status(&answer) == "413" && answer.contains("body_too_large"), "{too_much}: {answer}");
    }
    // Whoever asks first is told before a byte of it is sent.
    let answer = running.exchange(format!("{}expect: 100-continue\r\n\r\n", post(1 << 30)).as_bytes()).await;
    assert_eq!(status(&answer), "413");
    let answer =
        running.exchange(format!("{}expect: 100-continue\r\nconnection: close\r\n\r\n", post(0)).as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    // A body that does not say how long it is.
    let chunks = b"100\r\n".iter().chain(&[b'c'; 256]).chain(b"\r\n").copied().collect::<Vec<_>>().repeat(5);
    let chunked = b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = running.exchange(&[chunked.as_slice(), &chunks, b"0\r\n\r\n"].concat()).await;
    assert_eq!(status(&answer), "413");
    // A body that comes too slowly, or not at all.
    let answer = running.exchange(format!("{}\r\nonly this", post(500)).as_bytes()).await;
    assert!(status(&answer) == "408" && answer.contains("body_deadline"), "{answer}");
    // A body nobody asked for.
    let answer = running.exchange(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!(status(&answer), "404");
    let answer = running
        .exchange(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    assert_eq!(status(&answer), "200");
    running.finish().await;
}

#[tokio::test]
async fn large_bodies_wait_for_their_turn_and_small_ones_do_not() {
    let running = start(HttpSettings { body_bytes: 100, large_bodies: 1, ..HttpSettings::default() });
    let post = |path: &str, length: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'b'; length]].concat()
    };
    let app = running.app.clone();
    let begun = |count| {
        let app = app.clone();
        wait_until(move || app.begun.load(Ordering::SeqCst) == count)
    };
    let mut first = running.connect().await;
    first.write_all(&post("/hold", 1000)).await.unwrap();
    begun(1).await;
    let mut second = running.connect().await;
    second.write_all(&post("/hold", 1000)).await.unwrap();
    let small = running.exchange(&post("/echo", 100)).await;
    assert!(status(&small) == "200" && small.ends_with(&"b".repeat(100)), "{small}");
    assert!(timeout(SOON, begun(2)).await.is_err(), "two large bodies were held at a time");
    running.app.release.notify_one();
    assert_eq!(status(&read_to_end(&mut first).await), "200");
    begun(2).await;
    running.app.release.notify_one();
    assert_eq!(status(&read_to_end(&mut second).await), "200");
    running.finish().await;
}

#[tokio::test]
async fn dripping_headers_meet_their_deadline() {
    let running = start(HttpSettings { header_deadline: SOON, ..HttpSettings::default() });
    let mut stream = running.connect().await;
    let dripping = async {
        stream.write_all(b"GET / HTTP/1.1\r\n").await?;
        loop {
            stream.write_all(b"x: y\r\n").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let end: std::io::Result<()> = timeout(PATIENCE, dripping).await.expect("the server never gave up");
    assert!(end.is_err());
    running.wait_for_open(|open| open == 0).await;
    running.finish().await;
}

#[tokio::test]
async fn silent_connections_meet_the_idle_deadline() {
    let running = start(HttpSettings { idle_deadline: SOON, ..HttpSettings::default() });
    let mut silent = running.connect().await;
    let mut kept = running.connect().await;
    kept.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut kept, "ok\n").await;
    assert_eq!(read_to_end(&mut silent).await, "");
    assert_eq!(read_to_end(&mut kept).await, "");
    running.finish().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let running = start(HttpSettings { write_deadline: SOON, ..HttpSettings::default() });
    let mut stream = running.connect().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    running.wait_for_open(|open| open == 1).await;
    running.wait_for_open(|open| open == 0).await;
    running.finish().await;
}

#[tokio::test]
async fn a_client_that_sips_is_cut_off() {
    // It never stops reading, but takes some five seconds for what has to be taken in two.
    let settings =
        HttpSettings { write_deadline: Duration::from_secs(2), write_rate: 1 << 30, ..HttpSettings::default() };
    let running = start(settings);
    let mut stream = running.connect().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let sipping = async {
        let mut sip = vec![0; 64 * 1024];
        let mut taken = 0;
        while let Ok(count @ 1..) = stream.read(&mut sip).await {
            taken += count;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        taken
    };
    let taken = timeout(PATIENCE, sipping).await.expect("the server never gave up");
    assert!(taken < 32 << 20, "it got all of {taken} bytes");
    running.finish().await;
}

#[tokio::test]
async fn a_client_that_reads_gets_all_of_a_large_answer() {
    let running = start(HttpSettings { write_deadline: Duration::from_secs(5), ..HttpSettings::default() });
    let answer = running.get("/big").await;
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), 32 << 20);
    running.finish().await;
}

#[tokio::test]
async fn a_thousand_dawdlers_do_not_delay_a_scrape() {
    let running = start(HttpSettings { connections: 64, ..HttpSettings::default() });
    let mut dawdlers = Vec::new();
    for number in 0..1000 {
        let mut stream = running.connect().await;
        // Some say nothing, some begin headers, some begin a body.
        let begun: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /-/healthy HTTP/1.1\r\nx: ",
            _ => b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\nb",
        };
        let _ = stream.write_all(begun).await;
        dawdlers.push(stream);
        if number % 50 == 0 {
            assert!(timeout(PATIENCE, running.get("/-/healthy")).await.unwrap().ends_with("ok\n"), "after {number}");
        }
    }
    for _ in 0..20 {
        assert!(timeout(PATIENCE, running.get("/-/healthy")).await.unwrap().ends_with("ok\n"));
    }
    let occupancy = running.occupancy.get();
    assert!(occupancy.open <= 64 && occupancy.evicted > 900 && occupancy.refused == 0, "{occupancy:?}");
    running.finish().await;
}

#[tokio::test]
async fn readers_that_stall_make_room() {
    let running = start(HttpSettings { connections: 4, ..HttpSettings::default() });
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 1];
        timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
        stalled.push(stream);
    }
    wait_until(|| running.occupancy.get().open == 4).await;
    let asking = async {
        // A reader that has only just begun may still count as being answered.
        while !running.get("/-/healthy").await.ends_with("ok\n") {}
    };
    timeout(PATIENCE, asking).await.unwrap();
    running.finish().await;
}

#[tokio::test]
async fn when_every_connection_is_being_answered_the_next_one_is_told() {
    let running = start(HttpSettings { connections: 3, ..HttpSettings::default() });
    let mut busy = Vec::new();
    for number in 1..=3 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        wait_until(|| running.app.begun.load(Ordering::SeqCst) == number).await;
        busy.push(stream);
    }
    let mut refused = running.connect().await;
    let answer = read_to_end(&mut refused).await;
    assert!(status(&answer) == "503" && answer.contains("\"busy\""), "{answer}");
    running.app.release.notify_waiters();
    for stream in &mut busy {
        assert!(read_to_end(stream).await.ends_with("done"));
    }
    assert!(running.get("/-/healthy").await.ends_with("ok\n"));
    assert_eq!(running.occupancy.get().refused, 1);
    running.finish().await;
}

#[tokio::test]
async fn a_handler_stops_when_its_client_leaves_or_its_time_is_up() {
    let running = start(HttpSettings::default());
    let mut leaving = running.connect().await;
    leaving.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    wait_until(|| running.app.begun.load(Ordering::SeqCst) == 1).await;
    drop(leaving);
    running.wait_for_open(|open| open == 0).await;
    let answer = running.get("/late").await;
    assert!(status(&answer) == "503" && answer.contains("\"deadline\""), "{answer}");
    assert_eq!(running.app.finished.load(Ordering::SeqCst), 0);
    running.finish().await;
}

#[tokio::test]
async fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let running = start(HttpSettings::default());
    let whole = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n0123456789012345678901234567890123456789";
    for cut in 0..=whole.len() {
        let mut stream = running.connect().await;
        let _ = stream.write_all(&whole[..cut]).await;
    }
    running.wait_for_open(|open| open == 0).await;
    assert!(running.get("/-/healthy").await.ends_with("ok\n"));
    running.finish().await;
}

#[tokio::test]
async fn stopping_lets_answers_finish_and_closes_the_rest() {
    let settings = HttpSettings { drain: PATIENCE * 2, header_deadline: PATIENCE * 2, ..HttpSettings::default() };
    let running = start(settings);
    let mut silent = running.connect().await;
    let mut begun = running.connect().await;
    begun.write_all(b"GET /-/hea").await.unwrap();
    let mut kept = running.connect().await;
    kept.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut kept, "ok\n").await;
    let mut answered = running.connect().await;
    answered.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    wait_until(|| running.app.begun.load(Ordering::SeqCst) == 1).await;
    running.stop.cancel();
    assert_eq!(read_to_end(&mut silent).await, "");
    assert_eq!(read_to_end(&mut begun).await, "");
    assert_eq!(read_to_end(&mut kept).await, "");
    let address = running.address;
    wait_until(|| std::net::TcpStream::connect(address).is_err()).await;
    running.app.release.notify_waiters();
    assert!(read_to_end(&mut answered).await.ends_with("done"));
    running.finish().await;
}

#[tokio::test]
async fn stopping_does_not_wait_longer_than_its_grace() {
    let running = start(HttpSettings { drain: SOON, ..HttpSettings::default() });
    let mut stuck = running.connect().await;
    stuck.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    wait_until(|| running.app.begun.load(Ordering::SeqCst) == 1).await;
    let app = running.app.clone();
    running.finish().await;
    assert_eq!(app.finished.load(Ordering::SeqCst), 0);
    assert_eq!(read_to_end(&mut stuck).await, "");
}

#[tokio::test]
async fn a_second_server_on_the_port_says_so_in_one_line() {
    let running = start(HttpSettings::default());
    let error = Server::bind(running.address, HttpSettings::default()).unwrap_err();
    assert!(matches!(error.kind, ServeErrorKind::InUse));
    let expected = format!("cannot listen on {}: it is in use, perhaps by another leakslope", running.address);
    assert_eq!(error.to_string(), expected);
    running.finish().await;
}

#[tokio::test]
async fn a_web_page_cannot_act_through_a_browser() {
    let running = start(HttpSettings::default());
    let post =
        |headers: &str| format!("POST /act HTTP/1.1\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\n{{}}");
    for (headers, expected) in [
        ("host: 127.0.0.1:9\r\ncontent-type: application/json\r\n", "202"),
        ("host: rebound.example\r\ncontent-type: application/json\r\n", "403"),
        ("host: 127.0.0.1:9\r\norigin: http://evil.example\r\ncontent-type: application/json\r\n", "403"),
        ("host: 127.0.0.1:9\r\ncontent-type: text/plain\r\n", "415"),
    ] {
        let answer = running.exchange(post(headers).as_bytes()).await;
        assert_eq!(status(&answer), expected, "{headers}");
    }
    let preflight = "OPTIONS /act HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example\r\n\
                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    let answer = running.exchange(preflight.as_bytes()).await;
    assert!(status(&answer) == "405" && !answer.contains("access-control-allow"), "{answer}");
    running.finish().await;
}

#[derive(Debug)]
struct KnowsAda;

impl Gatekeeper for KnowsAda {
    fn admit(&self, headers: &hyper::HeaderMap, _peer: Peer) -> Admission {
        let known = headers.get("authorization").is_some_and(|value| value == "Ada");
        Box::pin(async move {
            if known {
                return Ok(Identity::User("Ada".to_owned()));
            }
            Err(Response::error(StatusCode::UNAUTHORIZED, "unauthorized", "who are you"))
        })
    }
}

#[tokio::test]
async fn a_gatekeeper_sees_every_request_first() {
    let running = start_with(HttpSettings::default(), |router| router.guarded_by(Arc::new(KnowsAda)));
    assert_eq!(status(&running.get("/-/healthy").await), "401");
    assert_eq!(status(&running.get("/nowhere").await), "401");
    let answer = running
        .exchange(b"GET /describe/x HTTP/1.1\r\nhost: a\r\nauthorization: Ada\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.ends_with("User(\"Ada\")"), "{answer}");
    running.finish().await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_a_dead_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leakslope.sock");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind_unix(&path, HttpSettings::default()).unwrap();
    let taken = Server::bind_unix(&path, HttpSettings::default()).unwrap_err();
    assert!(matches!(taken.kind, ServeErrorKind::InUse));
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let app = Arc::new(App::default());
    tracker.spawn(server.serve(routes(&app, &tracker), Plain, tracker.clone(), stop.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    stop.cancel();
    tracker.close();
    timeout(PATIENCE, tracker.wait()).await.unwrap();
    assert!(!path.exists());
}
