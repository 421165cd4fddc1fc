//! The files of the page.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderName;

use super::tagged;
use crate::http::{Content, Request, Response};
use crate::runtime::Shared;
use crate::ui;

pub(super) async fn file(_shared: Arc<Shared>, request: Request) -> Response {
    let Some(asset) = ui::asset(&request.path) else {
        return Response::error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path");
    };
    ui::HEADERS.iter().fold(tagged(&request, Content::Other(asset.content_type), asset.body), |response, header| {
        response.with(HeaderName::from_static(header.0), header.1)
    })
}
