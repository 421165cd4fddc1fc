//! `/metrics`, in the form and the packing that the reader asks for.

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use tokio::sync::mpsc;

use crate::collect::system::own_sample;
use crate::export::{self, openmetrics};
use crate::http::{Content, Request, Response};
use crate::runtime::Shared;

pub(super) async fn metrics(shared: Arc<Shared>, request: Request) -> Response {
    let own = own_sample(shared.clock.wall()).unwrap_or_default();
    let sidecar = export::render_sidecar(&shared.sidecar_state().await, &own);
    let collected = shared.published.load().as_ref().map(|published| published.metrics()).unwrap_or_default();
    let parts = vec![collected, Bytes::from(sidecar)];
    let open = request.header(ACCEPT).is_some_and(openmetrics::is_preferred);
    let packed = packs(&request);
    let parts = if open || packed {
        // Thousands of processes make megabytes: not on the thread that serves the others.
        let work = move || made(parts, open, packed);
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    } else {
        parts
    };
    let length = parts.iter().map(|part| part.len() as u64).sum();
    let (sender, receiver) = mpsc::channel(parts.len().max(1));
    for part in parts {
        sender.try_send(part).expect("invariant: the channel has room for every part");
    }
    let content = Content::Other(if open { openmetrics::OPEN_METRICS } else { export::TEXT_FORMAT });
    let response = Response::parts(content, receiver, Some(length)).with(VARY, "accept, accept-encoding");
    if packed { response.with(CONTENT_ENCODING, "gzip") } else { response }
}

fn made(parts: Vec<Bytes>, open: bool, packed: bool) -> Vec<Bytes> {
    let parts = if open {
        let texts: Vec<&str> = parts.iter().filter_map(|part| std::str::from_utf8(part).ok()).collect();
        vec![Bytes::from(openmetrics::write(&texts))]
    } else {
        parts
    };
    if !packed {
        return parts;
    }
    vec![gzip(parts.iter().map(|part| &**part))]
}

/// Packs the parts of a body.
pub(super) fn gzip<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for part in parts {
        encoder.write_all(part).expect("invariant: writing to memory does not fail");
    }
    encoder.finish().expect("invariant: writing to memory does not fail").into()
}

/// Whether the reader of the answer takes gzip.
pub(super) fn packs(request: &Request) -> bool {
    request.header(ACCEPT_ENCODING).is_some_and(takes_gzip)
}

/// Whether an `Accept-Encoding` names gzip and does not rule it out.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named && !parts.any(|part| part.strip_prefix("q=").is_some_and(|quality| quality.parse() == Ok(0.0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_where_it_is_taken() {
        for (accepted, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accepted), expected, "{accepted}");
        }
    }
}
