//! What was taken of a process, the orders to take more, and the files themselves.
//!
//! A file holds what an app had in memory: it is sent to nobody who has not shown a token or a password.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::{StatusCode, header};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::restarts::{acting, admitted, read, refused};
use super::tagged;
use crate::config::parse_duration;
use crate::evidence::export::Export;
use crate::evidence::keep::{Kind, Record, Trigger};
use crate::evidence::take;
use crate::evidence::when::{self, Item};
use crate::http::{Content, Request, Response, guard_secrets};
use crate::model::{AppName, DaemonName, ProcessKey};
use crate::runtime::Shared;
use crate::runtime::evidence::{candidates, target_of};
use crate::ui::{EvidenceTakenView, EvidenceView};

/// Pieces shown, the newest.
const SHOWN: usize = 10;
/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;
/// Pieces of a file that wait for a slow reader.
const PIECES: usize = 4;

pub(super) async fn list(shared: Arc<Shared>, request: Request) -> Response {
    let pm_id = match request.query.get("pm_id").map(str::parse::<u32>) {
        Some(Err(_not_a_number)) => {
            return Response::error(StatusCode::BAD_REQUEST, "bad_query", "parameter pm_id is no number of pm2's");
        }
        Some(Ok(pm_id)) => Some(pm_id),
        None => None,
    };
    let daemon = request.query.get("daemon").map(DaemonName::from);
    let acting = acting(&shared, &request).await;
    let looking = shared.clone();
    let look = move || {
        let items = looking.evidence.items();
        let standing = match (&daemon, pm_id, looking.published.load().as_ref()) {
            (Some(daemon), Some(pm_id), Some(published)) => {
                let key = ProcessKey { daemon: daemon.clone(), pm_id };
                looking.evidence.standing(published, &key, &items, looking.clock.wall())
            }
            _ => None,
        };
        let wanted = |item: &&Item| {
            daemon.as_ref().is_none_or(|daemon| *daemon == item.record.daemon)
                && pm_id.is_none_or(|pm_id| pm_id == item.record.pm_id)
        };
        let evidence = items.iter().filter(wanted).take(SHOWN).map(|item| looking.evidence.view(item)).collect();
        EvidenceView { evidence, acting, standing }
    };
    let Ok(view) = tokio::task::spawn_blocking(look).await else {
        return Response::error(StatusCode::INTERNAL_SERVER_ERROR, "evidence", "the evidence could not be read");
    };
    match serde_json::to_vec(&view) {
        Ok(body) => tagged(&request, Content::Json, body),
        Err(_unwritable) => Response::json(&view),
    }
}

/// An order to take something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    app: AppName,
    #[serde(default)]
    daemon: Option<DaemonName>,
    #[serde(default)]
    pm_id: Option<u32>,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    duration: Option<String>,
    #[serde(default)]
    who: String,
}

pub(super) async fn ask(shared: Arc<Shared>, request: Request) -> Response {
    if let Err(refusal) = admitted(&shared, &request).await {
        return *refusal;
    }
    let order: Order = match read(&request) {
        Ok(order) => order,
        Err(refusal) => return *refusal,
    };
    if order.kind == Kind::HeapSnapshot {
        let message = "a snapshot can stop an app for many seconds, so it is taken on the command line only, where the \
                       pause is shown first; ask for a heap_profile here";
        return refused(message);
    }
    let duration = order.duration.as_deref().map_or_else(|| Ok(shared.evidence.settings().duration), parse_duration);
    let checked = duration.and_then(|duration| {
        take::check_duration(duration).map_err(str::to_owned)?;
        Ok(duration)
    });
    let duration = match checked {
        Ok(duration) => duration,
        Err(why) => return Response::error(StatusCode::BAD_REQUEST, "bad_order", &format!("duration: {why}")),
    };
    let Some(published) = shared.published.load_full() else { return super::not_yet() };
    let meant = candidates(&published).filter(|it| {
        order.app.means(it.app)
            && order.daemon.as_ref().is_none_or(|daemon| *daemon == it.key.daemon)
            && order.pm_id.is_none_or(|pm_id| pm_id == it.key.pm_id)
    });
    let Some(it) = when::most_telling(meant) else {
        let number = order.pm_id.map(|number| format!(" with pm_id {number}")).unwrap_or_default();
        return refused(&format!("no running process of {}{number} is listed", order.app));
    };
    let Some(target) = target_of(&shared.settings.load(), &it) else {
        return refused(&format!(
            "daemon {} is watched without being configured: name its home under [[pm2]]",
            it.key.daemon
        ));
    };
    let who = if order.who.is_empty() { "somebody".to_owned() } else { format!("{:?}", order.who) };
    match shared.evidence.ask(target, Trigger::Person, duration, &format!("{who} asked for it")) {
        Ok(id) => {
            let (app, key, seconds) = (it.app, it.key, duration.as_secs_f64());
            let sentence = format!(
                "allocations of {app} ({key}) are sampled for {seconds} s while it goes on; GET /api/v1/evidence tells how \
                 it stands"
            );
            Response::json_with(StatusCode::ACCEPTED, &EvidenceTakenView { id, sentence })
        }
        Err(why) => refused(&why.to_string()),
    }
}

/// Sends a profile in another form.
async fn converted(shared: Arc<Shared>, record: Record, format: &str) -> Response {
    let Some(export) = Export::named(format).filter(|_| record.kind == Kind::HeapProfile) else {
        let message =
            "a heap profile is sent as format=pprof, speedscope or folded; without one the file comes as it is";
        return Response::error(StatusCode::BAD_REQUEST, "bad_query", message);
    };
    let Ok(place) = shared.evidence.download_places.clone().try_acquire_owned() else { return busy() };
    let name = record.file.clone();
    let converting = tokio::task::spawn_blocking(move || {
        let _place = place;
        shared.evidence.exported(&record, export)
    });
    match converting.await.map_err(|panicked| panicked.to_string()).and_then(|converted| converted) {
        Ok(bytes) => {
            let stem = name.trim_end_matches(".heapprofile").replace(['"', '\\'], "_");
            let file = format!("attachment; filename=\"{stem}.{}\"", export.ending());
            let response = Response::new(StatusCode::OK, Content::Other("application/octet-stream"), bytes);
            response.with(header::CONTENT_DISPOSITION, &file)
        }
        Err(why) => Response::error(StatusCode::INTERNAL_SERVER_ERROR, "evidence", &why),
    }
}

fn busy() -> Response {
    let message = "other files are being sent; try again when they are done";
    Response::error(StatusCode::SERVICE_UNAVAILABLE, "busy", message).with(header::RETRY_AFTER, "10")
}

pub(super) async fn file(shared: Arc<Shared>, request: Request) -> Response {
    if let Err(refusal) = guard_secrets(&request.asker(), shared.access.has_tokens()) {
        return refusal.response();
    }
    let id = request.parameters.first().map(String::as_str).unwrap_or_default();
    // Only the name of a record that is there leads to a file, so no path can be asked for.
    let found =
        shared.evidence.file(id).filter(|(path, _)| std::fs::symlink_metadata(path).is_ok_and(|it| it.is_file()));
    let gone = || Response::error(StatusCode::NOT_FOUND, "unknown_evidence", "there is no file of that id (any more)");
    let Some((path, record)) = found else { return gone() };
    if let Some(format) = request.query.get("format") {
        return converted(shared, record, format).await;
    }
    let Ok(place) = shared.evidence.download_places.clone().try_acquire_owned() else { return busy() };
    let Ok(mut file) = tokio::fs::File::open(&path).await else { return gone() };
    let Ok(about) = file.metadata().await else { return gone() };
    let (sender, parts) = mpsc::channel(PIECES);
    shared.evidence.downloads.spawn(async move {
        let _place = place;
        let mut piece = vec![0; PIECE];
        while let Ok(read @ 1..) = file.read(&mut piece).await {
            if sender.send(Bytes::copy_from_slice(&piece[..read])).await.is_err() {
                return;
            }
        }
    });
    Response::parts(Content::Other("application/octet-stream"), parts, Some(about.len())).with(
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{}\"", record.file.replace(['"', '\\'], "_")),
    )
}
