//! A small explicit table: method and path to handler. Pure.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode, header};

use super::guard::Asker;
use super::guard::Refusal;
use super::peer::Peer;
use super::query::decode;
use super::request::{Identity, Reach, Request};
use super::response::Response;

/// An answer that is being made.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Answers requests. Every `async fn(Arc<State>, Request) -> Response` is one.
///
/// A handler is dropped where it stands when its client goes away or its deadline passes: what must not stop half-way
/// is handed to a task that owns it.
pub trait Handler<State>: Send + Sync + 'static {
    /// Makes the answer.
    fn handle(&self, state: Arc<State>, request: Request) -> Answer;
}

impl<State, Run, Made> Handler<State> for Run
where
    Run: Fn(Arc<State>, Request) -> Made + Send + Sync + 'static,
    Made: Future<Output = Response> + Send + 'static,
{
    fn handle(&self, state: Arc<State>, request: Request) -> Answer {
        Box::pin(self(state, request))
    }
}

/// What a gatekeeper decides: who asks, or the answer that turns them away.
pub type Admission = Pin<Box<dyn Future<Output = Result<Identity, Response>> + Send>>;

/// Checks who asks, before a body is read or a handler sees the request.
pub trait Gatekeeper: Send + Sync + 'static {
    /// Checks the headers of a request; runs under the deadline of the handler.
    fn admit(&self, method: &Method, headers: &HeaderMap, peer: &Peer, reach: Reach) -> Admission;

    /// Decides whether somebody who was let in may act, before the body of a request that acts is read.
    ///
    /// # Errors
    /// The answer that turns them away.
    fn permit(&self, _asker: &Asker<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Adds headers to an answer, or replaces those it has.
    fn adorn(&self, _headers: &mut HeaderMap) {}
}

/// One line of the table.
pub struct Route<State> {
    method: Method,
    pattern: &'static str,
    handler: Arc<dyn Handler<State>>,
    body_bytes: Option<usize>,
    deadline: Option<Duration>,
    /// Whether it does something for whoever asks, without the gatekeeper's leave.
    open: bool,
}

impl<State: 'static> Route<State> {
    /// A route. The pattern is a path in which a whole segment may be `{name}` and stands for any non-empty segment; a
    /// route for GET answers HEAD too.
    ///
    /// # Panics
    /// When the pattern is none; the table is part of the program, so this shows at the first start.
    pub fn new(method: Method, pattern: &'static str, handler: impl Handler<State>) -> Self {
        let open = pattern.split('/').filter(|segment| is_open(segment)).count();
        let braces = pattern.matches(['{', '}']).count();
        assert!(pattern.starts_with('/') && braces == 2 * open, "invariant: {pattern} is a pattern");
        Self { method, pattern, handler: Arc::new(handler), body_bytes: None, deadline: None, open: false }
    }

    /// A route for GET and HEAD.
    pub fn get(pattern: &'static str, handler: impl Handler<State>) -> Self {
        Self::new(Method::GET, pattern, handler)
    }

    /// A route for POST.
    pub fn post(pattern: &'static str, handler: impl Handler<State>) -> Self {
        Self::new(Method::POST, pattern, handler)
    }

    /// Lets bodies have this many bytes, instead of what the server lets them have.
    #[must_use]
    pub fn body_bytes(mut self, most: usize) -> Self {
        self.body_bytes = Some(most);
        self
    }

    /// Gives the handler this much time, instead of what the server gives.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Takes orders from whoever was let in: the handler itself decides.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Whether the gatekeeper has to permit it.
    pub(crate) fn acts(&self) -> bool {
        self.method != Method::GET && !self.open
    }

    /// The pattern, as a label of bounded cardinality.
    pub fn pattern(&self) -> &'static str {
        self.pattern
    }

    pub(crate) fn limits(&self) -> (Option<usize>, Option<Duration>) {
        (self.body_bytes, self.deadline)
    }

    pub(crate) fn handle(&self, state: Arc<State>, request: Request) -> Answer {
        self.handler.handle(state, request)
    }

    /// The raw texts of the open segments, in order, when the path fits.
    fn fits<'path>(&self, path: &'path str) -> Option<Vec<&'path str>> {
        let mut open = Vec::new();
        let mut segments = path.split('/');
        for wanted in self.pattern.split('/') {
            let segment = segments.next()?;
            if is_open(wanted) {
                if segment.is_empty() {
                    return None;
                }
                open.push(segment);
            } else if segment != wanted {
                return None;
            }
        }
        segments.next().is_none().then_some(open)
    }
}

fn is_open(segment: &str) -> bool {
    segment.len() > 2 && segment.starts_with('{') && segment.ends_with('}')
}

impl<State> fmt::Debug for Route<State> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.pattern)
    }
}

/// The table with the state its handlers share.
pub struct Router<State> {
    state: Arc<State>,
    routes: Vec<Route<State>>,
    gatekeeper: Option<Arc<dyn Gatekeeper>>,
    /// Whether anything but reading is let through at all.
    acts: bool,
}

impl<State> fmt::Debug for Router<State> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.routes).finish()
    }
}

impl<State: 'static> Router<State> {
    /// An empty table.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, routes: Vec::new(), gatekeeper: None, acts: true }
    }

    /// Adds a route. Among routes that fit a path the one with the fewest open segments wins, then the first.
    #[must_use]
    pub fn route(mut self, route: Route<State>) -> Self {
        self.routes.push(route);
        self
    }

    /// Lets this gatekeeper look at every request first; without one everybody is anonymous.
    #[must_use]
    pub fn guarded_by(mut self, gatekeeper: Arc<dyn Gatekeeper>) -> Self {
        self.gatekeeper = Some(gatekeeper);
        self
    }

    /// Only reads: every route that is none for GET answers that nobody can be let through, whatever its handler would
    /// say. For a listener that the network reaches and at which nobody proves who he is.
    #[must_use]
    pub fn reading_only(mut self) -> Self {
        self.acts = false;
        self
    }

    pub(crate) fn admit(&self, method: &Method, headers: &HeaderMap, peer: &Peer, reach: Reach) -> Option<Admission> {
        self.gatekeeper.as_ref().map(|gatekeeper| gatekeeper.admit(method, headers, peer, reach))
    }

    pub(crate) fn permit(&self, asker: &Asker<'_>) -> Result<(), Refusal> {
        self.gatekeeper.as_ref().map_or(Ok(()), |gatekeeper| gatekeeper.permit(asker))
    }

    pub(crate) fn adorn(&self, headers: &mut HeaderMap) {
        if let Some(gatekeeper) = &self.gatekeeper {
            gatekeeper.adorn(headers);
        }
    }

    /// The state the handlers share.
    pub fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Finds the route of a request and the decoded open segments, or the answer where there is none.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<(&Route<State>, Vec<String>), Box<Response>> {
        let mut fitting: Vec<_> =
            self.routes.iter().filter_map(|route| route.fits(path).map(|open| (route, open))).collect();
        fitting.sort_by_key(|(_, open)| open.len());
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        if let Some((route, open)) = fitting.iter().find(|(route, _)| route.method == *wanted) {
            if !self.acts && route.method != Method::GET {
                return Err(Box::new(Refusal::Open.response()));
            }
            let parameters: Result<Vec<String>, _> = open.iter().map(|raw| decode(raw, false)).collect();
            return parameters
                .map(|parameters| (*route, parameters))
                .map_err(|error| Box::new(Response::error(StatusCode::BAD_REQUEST, "bad_target", &error.to_string())));
        }
        if fitting.is_empty() {
            let message = "there is nothing at this path";
            return Err(Box::new(Response::error(StatusCode::NOT_FOUND, "not_found", message)));
        }
        let mut allowed: Vec<&str> = fitting.iter().map(|(route, _)| route.method.as_str()).collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        allowed.dedup();
        let allowed = allowed.join(", ");
        let message = format!("this path takes {allowed}");
        Err(Box::new(
            Response::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message)
                .with(header::ALLOW, &allowed),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_state: Arc<()>, _request: Request) -> Response {
        Response::empty(StatusCode::NO_CONTENT)
    }

    fn table() -> Router<()> {
        Router::new(Arc::new(()))
            .route(Route::get("/", nothing))
            .route(Route::get("/api/v1/processes", nothing))
            .route(Route::get("/api/v1/processes/{app}", nothing))
            .route(Route::get("/api/v1/processes/{app}/minutes", nothing))
            .route(Route::get("/api/v1/processes/{app}/{id}/minutes", nothing))
            .route(Route::get("/api/v1/processes/special", nothing))
            .route(Route::post("/api/v1/restarts", nothing))
            .route(Route::get("/api/v1/restarts", nothing))
    }

    #[test]
    fn paths_find_their_routes() {
        let table = table();
        for (path, expected) in [
            ("/", Some(("/", vec![]))),
            ("/api/v1/processes", Some(("/api/v1/processes", vec![]))),
            ("/api/v1/processes/", None),
            ("/api/v1/processes/special", Some(("/api/v1/processes/special", vec![]))),
            ("/api/v1/processes/my%2Fapp", Some(("/api/v1/processes/{app}", vec!["my/app"]))),
            ("/api/v1/processes/a/minutes", Some(("/api/v1/processes/{app}/minutes", vec!["a"]))),
            ("/api/v1/processes/a/7/minutes", Some(("/api/v1/processes/{app}/{id}/minutes", vec!["a", "7"]))),
            ("/api/v1/processes/a/b", None),
            ("//", None),
            ("", None),
            ("*", None),
        ] {
            let found = table.find(&Method::GET, path);
            let found = found.ok().map(|(route, parameters)| (route.pattern(), parameters));
            let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
            assert_eq!(found, expected.map(|(pattern, texts)| (pattern, owned(texts))), "{path}");
        }
        assert!(table.find(&Method::HEAD, "/").is_ok());
    }

    #[test]
    fn refusals_say_what_is_possible() {
        let table = table();
        for (method, path, status, allow) in [
            (Method::GET, "/nowhere", 404, None),
            (Method::PUT, "/api/v1/restarts", 405, Some("GET, HEAD, POST")),
            (Method::POST, "/", 405, Some("GET, HEAD")),
            (Method::OPTIONS, "/api/v1/processes/x", 405, Some("GET, HEAD")),
            (Method::GET, "/api/v1/processes/%ff", 400, None),
        ] {
            let refusal = table.find(&method, path).unwrap_err();
            assert_eq!(refusal.status.as_u16(), status, "{method} {path}");
            let found = refusal.headers.get(header::ALLOW).map(|value| value.to_str().unwrap());
            assert_eq!(found, allow, "{method} {path}");
        }
    }

    #[test]
    fn a_table_for_reading_refuses_whatever_acts() {
        let table = table().reading_only();
        assert!(table.find(&Method::GET, "/api/v1/restarts").is_ok());
        assert!(table.find(&Method::HEAD, "/").is_ok());
        assert_eq!(table.find(&Method::POST, "/api/v1/restarts").unwrap_err().status, StatusCode::FORBIDDEN);
        assert_eq!(table.find(&Method::POST, "/").unwrap_err().status, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    #[should_panic(expected = "is a pattern")]
    fn a_half_open_segment_is_no_pattern() {
        let _ = Route::<()>::get("/{a}b", nothing);
    }
}
