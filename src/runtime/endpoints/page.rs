//! The files of the page.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, HeaderName, VARY};

use super::metrics::{gzip, packs};
use super::tagged;
use crate::http::{Content, Request, Response};
use crate::runtime::Shared;
use crate::ui;

pub(super) async fn file(_shared: Arc<Shared>, request: Request) -> Response {
    let Some(asset) = ui::asset(&request.path) else {
        return Response::error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
    };
    let content = Content::Other(asset.content_type);
    let response = if packs(&request) {
        tagged(&request, content, gzip([asset.body])).with(CONTENT_ENCODING, "gzip")
    } else {
        tagged(&request, content, asset.body)
    };
    ui::HEADERS.iter().fold(response.with(VARY, "accept-encoding"), |response, header| {
        response.with(HeaderName::from_static(header.0), header.1)
    })
}
