//! How a browser comes to act: whoever may act has a link made, and the page exchanges what is in it for a cookie.

use std::sync::Arc;

use hyper::{StatusCode, header};
use serde::{Deserialize, Serialize};

use super::restarts::{admitted, read};
use crate::http::{LINK_LASTS, Request, Response, guard_browsers};
use crate::runtime::Shared;

/// What a link has to hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct LinkView {
    /// The secret, good once.
    pub secret: String,
    /// For how many seconds it is good.
    pub expires_in_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    secret: String,
}

/// Makes a link; the gatekeeper has seen to it that whoever asks may act.
pub(super) async fn link(shared: Arc<Shared>, request: Request) -> Response {
    if let Err(refusal) = admitted(&shared, &request).await {
        return *refusal;
    }
    match shared.access.link() {
        Some(secret) => Response::json(&LinkView { secret, expires_in_seconds: LINK_LASTS.as_secs() }),
        None => Response::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the system gives no random bytes"),
    }
}

/// Exchanges the secret of a link for the cookie of a session.
pub(super) async fn begin(shared: Arc<Shared>, request: Request) -> Response {
    if let Err(refusal) = guard_browsers(&request.asker()) {
        return refusal.response();
    }
    if let Err(refusal) = admitted(&shared, &request).await {
        return *refusal;
    }
    let exchange: Exchange = match read(&request) {
        Ok(exchange) => exchange,
        Err(refusal) => return *refusal,
    };
    if let Some(cookie) = shared.access.begin_session(&exchange.secret, &request.peer).await {
        return Response::empty(StatusCode::NO_CONTENT).with(header::SET_COOKIE, &cookie);
    }
    let message = "this link was used before or is too old: `leakslope open` prints another one";
    Response::error(StatusCode::FORBIDDEN, "link_not_valid", message)
}
