//! What was taken of a process, read from the folder of evidence when it is asked for.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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
/// Profiles whose report is remembered, the latest read.
const REMEMBERED: usize = 32;

/// Reports of profiles that were read before. A file is never written twice, so its name and size say which it is.
#[derive(Debug, Default)]
pub struct Reports(Mutex<VecDeque<(u64, EvidenceItemView)>>);

impl Reports {
    /// The report of a file of this size; `read` makes it where it is not known. What failed is tried again.
    fn of(&self, file: &str, size: u64, read: impl FnOnce() -> EvidenceItemView) -> EvidenceItemView {
        let known = |(of, view): &&(u64, EvidenceItemView)| *of == size && view.id == file;
        if let Some((_, view)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find(known) {
            return view.clone();
        }
        let view = read();
        if view.state == "done" {
            let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            reports.push_front((size, view.clone()));
            reports.truncate(REMEMBERED);
        }
        view
    }
}

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
    let looking = shared.clone();
    let look = move || folder.map_or_else(Vec::new, |folder| look(&looking.reports, &folder, wanted));
    let Ok(evidence) = tokio::task::spawn_blocking(look).await else {
        return Response::error(StatusCode::INTERNAL_SERVER_ERROR, "evidence", "the evidence could not be read");
    };
    let view = EvidenceView { evidence };
    match serde_json::to_vec(&view) {
        Ok(body) => tagged(&request, Content::Json, body),
        Err(_unwritable) => Response::json(&view),
    }
}

fn look(reports: &Reports, folder: &Path, wanted: impl Fn(&Record) -> bool) -> Vec<EvidenceItemView> {
    let records = keep::records(folder).into_iter().filter(wanted).take(SHOWN);
    let shown = records.map(|record| {
        let path = keep::path(folder, &record);
        let failed = |size, reason| EvidenceItemView::of_profile(&record, size, Err(reason));
        match std::fs::metadata(&path).map(|about| about.len()) {
            Err(_no_file) => failed(None, "the file is gone".to_owned()),
            Ok(size) if size > LARGEST => failed(Some(size), format!("a file of {size} bytes is not read here")),
            Ok(size) => reports.of(&record.file, size, || {
                let profile = std::fs::File::open(&path)
                    .map_err(|error| error.to_string())
                    .and_then(|file| profile::read(file, &record.file).map_err(|error| error.to_string()));
                EvidenceItemView::of_profile(&record, Some(size), profile.as_ref().map_err(Clone::clone))
            }),
        }
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, state: &str) -> EvidenceItemView {
        let record = Record {
            kind: keep::Kind::HeapProfile,
            trigger: keep::Trigger::Person,
            life: None,
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 0,
            taken_at: crate::model::WallTime(0),
            sampled_seconds: None,
            cost: None,
            file: id.to_owned(),
        };
        EvidenceItemView { state: state.to_owned(), ..EvidenceItemView::of_profile(&record, None, Err(String::new())) }
    }

    #[test]
    fn a_report_is_read_once_and_few_are_remembered() {
        let reports = Reports::default();
        let mut read = 0;
        let mut ask = |file: &str, size, state: &str| {
            reports.of(file, size, || {
                read += 1;
                view(file, state)
            });
            read
        };
        assert_eq!((ask("a", 1, "done"), ask("a", 1, "done"), ask("a", 2, "done")), (1, 1, 2));
        assert_eq!((ask("b", 1, "failed"), ask("b", 1, "failed")), (3, 4), "what failed is tried again");
        for other in 0..REMEMBERED {
            ask(&other.to_string(), 1, "done");
        }
        assert_eq!(ask("a", 1, "done"), 4 + u64::try_from(REMEMBERED).unwrap() + 1, "the oldest is forgotten");
        assert_eq!(reports.0.lock().unwrap().len(), REMEMBERED);
    }
}
