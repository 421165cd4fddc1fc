//! One connection from its handshake to its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, Version, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::guard::Asker;
use super::peer::Peer;
use super::query::Query;
use super::registry::{Conversation, Place, Registry, Stage};
use super::request::{Identity, Reach, Request};
use super::response::{Response, ResponseBody};
use super::router::Router;
use super::settings::HttpSettings;
use super::stream::Watched;

/// Bytes of a body that is too large which are still read, so that the client comes to read the refusal.
const DISCARDED_MAX: usize = 1 << 20;
/// Time for reading them.
const DISCARD: Duration = Duration::from_secs(1);
/// The smallest buffer hyper works with.
const BUFFER_MIN: usize = 8192;

/// What all connections of a server share.
pub(crate) struct Shared<State> {
    pub(crate) router: Router<State>,
    pub(crate) settings: HttpSettings,
    pub(crate) reach: Reach,
    pub(crate) stop: CancellationToken,
    pub(crate) registry: Arc<Registry>,
    /// Turns for bodies that take more memory than is at hand for every connection.
    pub(crate) large_bodies: Semaphore,
}

/// Serves one stream until its client leaves, a deadline passes, it has to make room, or the server stops.
pub(crate) async fn converse<State, Stream>(shared: Arc<Shared<State>>, stream: Stream, peer: Peer, place: &Place)
where
    State: Send + Sync + 'static,
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let conversation = place.conversation.clone();
    let settings = &shared.settings;
    let watched = Watched::new(stream, conversation.clone(), settings);
    let service = {
        let (shared, conversation, peer) = (shared.clone(), conversation.clone(), peer.clone());
        service_fn(move |request| {
            let (shared, conversation, peer) = (shared.clone(), conversation.clone(), peer.clone());
            async move { Ok::<_, Infallible>(answer(&shared, &conversation, request, peer).await) }
        })
    };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The stream has its own deadlines, which tell waiting from dawdling.
            .header_read_timeout(None)
            .max_buf_size(settings.header_bytes.max(BUFFER_MIN))
            .max_header_size(settings.header_bytes)
            .max_headers(settings.headers)
            .serve_connection(TokioIo::new(watched), service)
    );
    tokio::select! {
        ended = connection.as_mut() => return note_end(ended, &peer),
        () = conversation.leave.cancelled() => return,
        () = shared.stop.cancelled() => {}
    }
    if conversation.stage().is_idle() {
        return;
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => note_end(ended, &peer),
        () = conversation.leave.cancelled() => {}
    }
}

fn note_end(ended: Result<(), hyper::Error>, peer: &Peer) {
    if let Err(error) = ended {
        // A client's fault or a lost line, never ours: not worth more than this.
        tracing::trace!(?peer, "connection ended: {error}");
    }
}

/// Answers one request.
async fn answer<State: Send + Sync + 'static>(
    shared: &Shared<State>,
    conversation: &Arc<Conversation>,
    request: hyper::Request<Incoming>,
    peer: Peer,
) -> hyper::Response<Sent> {
    conversation.begin();
    let method = request.method().clone();
    let mut response = respond(shared, conversation, request, peer).await.unwrap_or_else(|refusal| *refusal);
    shared.router.adorn(&mut response.headers);
    conversation.enter(Stage::Writing);
    shared.registry.answered(response.status.as_u16());
    response.finish(&method).map(|body| Sent { body, conversation: conversation.clone() })
}

async fn respond<State: Send + Sync + 'static>(
    shared: &Shared<State>,
    conversation: &Conversation,
    request: hyper::Request<Incoming>,
    peer: Peer,
) -> Result<Response, Box<Response>> {
    let (head, body) = request.into_parts();
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version >= Version::HTTP_11) {
        return Err(bad_request("bad_host", "a request needs exactly one Host header"));
    }
    let polite = head.headers.contains_key(header::EXPECT);
    let identity = match shared.router.admit(&head.method, &head.headers, &peer, shared.reach) {
        None => Identity::Anonymous,
        Some(admission) => match timeout(shared.settings.handler_deadline, admission).await {
            Ok(Ok(identity)) => identity,
            Ok(Err(refusal)) => return Err(dismiss(body, polite, Box::new(refusal)).await),
            Err(_late) => return Err(dismiss(body, polite, Box::new(too_long())).await),
        },
    };
    let found = shared.router.find(&head.method, head.uri.path());
    let query = Query::parse(head.uri.query().unwrap_or(""));
    let ((route, parameters), query) = match (found, query) {
        (Ok(found), Ok(query)) => (found, query),
        (Err(refusal), _) => return Err(dismiss(body, polite, refusal).await),
        (Ok(_), Err(error)) => {
            let refusal = bad_request("bad_target", &error.to_string());
            return Err(dismiss(body, polite, refusal).await);
        }
    };
    if route.acts() {
        let asker = Asker { headers: &head.headers, reach: shared.reach, identity: &identity };
        if let Err(refusal) = shared.router.permit(&asker) {
            return Err(dismiss(body, polite, Box::new(refusal.response())).await);
        }
    }
    let (body_bytes, deadline) = route.limits();
    // The turn lasts until the answer is made.
    let (body, _turn) = if head.method == Method::GET || head.method == Method::HEAD {
        (Bytes::new(), None)
    } else {
        conversation.enter(Stage::Body);
        let most = body_bytes.unwrap_or(shared.settings.body_bytes);
        let body = read_body(body, most, shared, polite).await?;
        conversation.enter(Stage::Handling);
        body
    };
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        parameters,
        query,
        headers: head.headers,
        body,
        peer,
        reach: shared.reach,
        identity,
    };
    let handling = route.handle(shared.router.state(), request);
    match timeout(deadline.unwrap_or(shared.settings.handler_deadline), handling).await {
        Ok(response) => Ok(response),
        Err(_late) => {
            tracing::warn!(route = route.pattern(), "an answer took too long and was given up");
            Err(Box::new(too_long()))
        }
    }
}

fn too_long() -> Response {
    Response::error(StatusCode::SERVICE_UNAVAILABLE, "deadline", "making the answer took too long")
}

fn bad_request(code: &str, message: &str) -> Box<Response> {
    Box::new(Response::error(StatusCode::BAD_REQUEST, code, message).last())
}

/// A body with the turn that it took where it is a large one.
type ReadBody<'a> = (Bytes, Option<SemaphorePermit<'a>>);

/// Reads a whole body of at most `most` bytes before the deadline. What goes beyond the usual size waits for its turn
/// first, so that many clients together cannot fill our memory.
async fn read_body<State>(
    mut body: Incoming,
    most: usize,
    shared: &Shared<State>,
    polite: bool,
) -> Result<ReadBody<'_>, Box<Response>> {
    let settings = &shared.settings;
    let too_large = || {
        let message = format!("the body of the request is larger than {most} bytes");
        Box::new(Response::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &message))
    };
    if body.size_hint().lower() > most as u64 {
        return Err(dismiss(body, polite, too_large()).await);
    }
    // Where the length was announced it is believed once it is this body's turn, and the buffer grows no more.
    let announced = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let read = timeout(settings.body_deadline, async {
        let (mut whole, mut turn) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let length = whole.len() + data.len();
            if length > most {
                return Ok(None);
            }
            if turn.is_none() && length > settings.body_bytes {
                // It is never closed; where it were, the body would be read without a turn.
                turn = shared.large_bodies.acquire().await.ok();
            }
            if whole.capacity() < length {
                let doubled = (2 * whole.len()).clamp(length, most);
                let room = announced.filter(|announced| turn.is_some() && *announced >= length).unwrap_or(doubled);
                whole.reserve_exact(room - whole.len());
            }
            whole.extend_from_slice(&data);
        }
        Ok::<_, hyper::Error>(Some((Bytes::from(whole), turn)))
    });
    match read.await {
        Ok(Ok(Some(whole))) => Ok(whole),
        Ok(Ok(None)) => Err(dismiss(body, false, too_large()).await),
        Ok(Err(_broken)) => Err(bad_request("bad_body", "the body of the request is broken")),
        Err(_late) => {
            let message = "the body of the request took too long";
            Err(Box::new(Response::error(StatusCode::REQUEST_TIMEOUT, "body_deadline", message).last()))
        }
    }
}

/// Refuses a request whose body is not wanted. Reads on for a moment, because a client that is still sending would lose
/// the answer with the connection; one that asked first (`polite`) is not sending yet.
async fn dismiss(mut body: Incoming, polite: bool, refusal: Box<Response>) -> Box<Response> {
    if body.is_end_stream() {
        return refusal;
    }
    if !polite {
        let mut left = DISCARDED_MAX;
        let discarding = async {
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        // Whether it came to its end makes no difference: the connection closes.
        let _ = timeout(DISCARD, discarding).await;
    }
    Box::new(refusal.last())
}

/// A body that tells its connection when it has been handed over whole.
#[derive(Debug)]
struct Sent {
    body: ResponseBody,
    conversation: Arc<Conversation>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.conversation.answered();
    }
}
