//! What a handler gives, and the headers that every answer carries.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// The policy of a page: scripts and styles from here only, nothing framed, nothing from elsewhere.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                           frame-ancestors 'none'";
/// The policy of everything that is no page.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Media types the server knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A page.
    Html,
    /// JSON.
    Json,
    /// Plain text.
    Text,
    /// A style sheet.
    Css,
    /// A script.
    JavaScript,
    /// A vector image.
    Svg,
    /// Any other media type.
    Other(&'static str),
}

impl Content {
    /// The value of the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::JavaScript => "text/javascript; charset=utf-8",
            Self::Svg => "image/svg+xml",
            Self::Other(media_type) => media_type,
        }
    }
}

/// The bytes of an answer.
#[derive(Debug)]
pub enum ResponseBody {
    /// All at once.
    Full(Bytes),
    /// In parts, as fast as the client takes them; the channel's bound is the memory it may take. Ends with the
    /// channel; an end before `length` bytes breaks the connection off so that the client notices.
    Parts {
        /// The parts.
        parts: mpsc::Receiver<Bytes>,
        /// How many bytes will come, where that is known.
        length: Option<u64>,
    },
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Headers; those that every answer carries are added where they are missing.
    pub headers: HeaderMap,
    /// The bytes.
    pub body: ResponseBody,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
}

impl Response {
    /// An answer with a body.
    pub fn new(status: StatusCode, content: Content, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.as_str()));
        Self { status, headers, body: ResponseBody::Full(body.into()) }
    }

    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: ResponseBody::Full(Bytes::new()) }
    }

    /// Text with status 200.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, Content::Text, body)
    }

    /// A page with status 200.
    pub fn html(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, Content::Html, body)
    }

    /// A value as JSON with status 200; an error where it does not encode.
    pub fn json(value: &impl Serialize) -> Self {
        Self::json_with(StatusCode::OK, value)
    }

    /// A value as JSON; an error where it does not encode.
    pub fn json_with(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, Content::Json, body),
            Err(error) => {
                tracing::error!("an answer does not encode as JSON: {error}");
                Self::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be encoded")
            }
        }
    }

    /// An error as JSON: `{"error":{"code","message"}}`. The code is for programs and never changes; the message is for
    /// people.
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        // Two texts always encode; an empty body is what is left should that ever change.
        let body = serde_json::to_vec(&ErrorBody { error: ErrorFields { code, message } }).unwrap_or_default();
        Self::new(status, Content::Json, body)
    }

    /// Another place to look.
    pub fn redirect(location: &'static str) -> Self {
        Self::empty(StatusCode::SEE_OTHER).with(header::LOCATION, location)
    }

    /// Bytes in parts.
    pub fn parts(content: Content, parts: mpsc::Receiver<Bytes>, length: Option<u64>) -> Self {
        let mut response = Self::new(StatusCode::OK, content, Bytes::new());
        response.body = ResponseBody::Parts { parts, length };
        response
    }

    /// Adds or replaces a header; one with characters that no header may have is left out.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Lets browsers keep the answer for this many seconds; without it nothing is kept.
    #[must_use]
    pub fn cached_for(self, seconds: u32) -> Self {
        self.with(header::CACHE_CONTROL, &format!("public, max-age={seconds}"))
    }

    /// Ends the connection after this answer.
    #[must_use]
    pub(crate) fn last(self) -> Self {
        self.with(header::CONNECTION, "close")
    }

    /// Completes the headers and makes hyper's answer of it; of an answer to HEAD the bytes are left out and the
    /// length stays.
    pub(crate) fn finish(self, method: &Method) -> hyper::Response<ResponseBody> {
        let Self { status, mut headers, mut body } = self;
        let page = headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
        let policy = if page { PAGE_POLICY } else { DATA_POLICY };
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, policy),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if *method == Method::HEAD {
            if let Some(length) = body.size_hint().exact() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            body = ResponseBody::Full(Bytes::new());
        }
        let mut response = hyper::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Parts { parts, .. } => parts.poll_recv(context).map(|part| part.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Parts { length: Some(length), .. } => SizeHint::with_exact(*length),
            Self::Parts { length: None, .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(response: &'a hyper::Response<ResponseBody>, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn every_answer_carries_the_guarding_headers() {
        for (response, policy) in [
            (Response::html("<p>"), PAGE_POLICY),
            (Response::text("a"), DATA_POLICY),
            (Response::error(StatusCode::NOT_FOUND, "a", "b"), DATA_POLICY),
            (Response::empty(StatusCode::NO_CONTENT), DATA_POLICY),
        ] {
            let done = response.finish(&Method::GET);
            assert_eq!(value(&done, "x-content-type-options"), "nosniff");
            assert_eq!(value(&done, "x-frame-options"), "DENY");
            assert_eq!(value(&done, "referrer-policy"), "no-referrer");
            assert_eq!(value(&done, "cache-control"), "no-store");
            assert_eq!(value(&done, "content-security-policy"), policy);
        }
        let cached = Response::new(StatusCode::OK, Content::Css, "a").cached_for(60).finish(&Method::GET);
        assert_eq!(value(&cached, "cache-control"), "public, max-age=60");
    }

    #[test]
    fn head_has_the_length_of_get_and_no_bytes() {
        let done = Response::text("four").finish(&Method::HEAD);
        assert_eq!(value(&done, "content-length"), "4");
        assert_eq!(done.body().size_hint().exact(), Some(0));
    }

    #[test]
    fn errors_are_json() {
        let response = Response::error(StatusCode::BAD_REQUEST, "bad_query", "say \"when\"\n");
        let ResponseBody::Full(body) = response.body else { panic!("no bytes") };
        assert_eq!(&body[..], br#"{"error":{"code":"bad_query","message":"say \"when\"\n"}}"#);
    }

    #[test]
    fn a_header_cannot_be_split() {
        let done = Response::text("").with(header::LOCATION, "/a\r\nset-cookie: b").finish(&Method::GET);
        assert!(done.headers().get(header::LOCATION).is_none());
    }
}
