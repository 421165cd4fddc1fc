//! What was taken of a process, read from the folder of evidence when it is asked for.

use std::path::Path;
use std::sync::Arc;

use hyper::StatusCode;

use super::tagged;
use crate::evidence::keep::{self, Record};
use crate::evidence::profile;
use crate::http::{Content, Request, Response};
use crate::runtime::Shared;
use crate::ui::{EvidenceItemView, EvidenceView};

/// Pieces shown, the newest.
const SHOWN: usize = 10;
/// A profile is never larger; what is, is told by name only.
const LARGEST: u64 = 32 << 20;

pub(super) async fn list(shared: Arc<Shared>, request: Request) -> Response {
    let pm_id = match request.query.get("pm_id").map(str::parse::<u32>) {
        Some(Err(_not_a_number)) => {
            return Response::error(StatusCode::BAD_REQUEST, "bad_query", "parameter pm_id is no number of pm2's");
        }
        Some(Ok(pm_id)) => Some(pm_id),
        None => None,
    };
    let daemon = request.query.get("daemon").map(str::to_owned);
    let folder = shared.state_directory.as_ref().map(|state| state.join(keep::FOLDER));
    let wanted = move |record: &Record| {
        daemon.as_ref().is_none_or(|daemon| daemon == record.daemon.as_str())
            && pm_id.is_none_or(|pm_id| pm_id == record.pm_id)
    };
    let look = move || folder.map_or_else(Vec::new, |folder| look(&folder, wanted));
    let Ok(evidence) = tokio::task::spawn_blocking(look).await else {
        return Response::error(StatusCode::INTERNAL_SERVER_ERROR, "evidence", "the evidence could not be read");
    };
    let view = EvidenceView { evidence };
    match serde_json::to_vec(&view) {
        Ok(body) => tagged(&request, Content::Json, body),
        Err(_unwritable) => Response::json(&view),
    }
}

fn look(folder: &Path, wanted: impl Fn(&Record) -> bool) -> Vec<EvidenceItemView> {
    let records = keep::records(folder).into_iter().filter(wanted).take(SHOWN);
    records
        .map(|record| {
            let path = keep::path(folder, &record);
            let size = std::fs::metadata(&path).map(|about| about.len()).ok();
            let profile = match size {
                None => Err("the file is gone".to_owned()),
                Some(size) if size > LARGEST => Err(format!("a file of {size} bytes is not read here")),
                Some(_) => std::fs::File::open(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|file| profile::read(file, &record.file).map_err(|error| error.to_string())),
            };
            EvidenceItemView::of_profile(&record, size, profile.as_ref().map_err(Clone::clone))
        })
        .collect()
}
