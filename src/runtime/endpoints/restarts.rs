//! How restarts stand, and the orders that ask for one. Whatever acts has been let through by the gatekeeper, body unread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{StatusCode, header};
use serde::Deserialize;

use super::{not_yet, tagged};
use crate::actuate::{Closed, Handle};
use crate::alertmanager::{WebhookError, parse_webhook};
use crate::http::{Asker, Content, Identity, RateLimits, Refusal, Request, Response, who_acts};
use crate::model::{AppName, DaemonName};
use crate::policy::{AppPlan, Mode, PersonCall, Plan};
use crate::runtime::{Shared, restarting};
use crate::ui::{ActingView, PreviewView, RestartsView, Said, TakenView};

/// Orders of one who asks at once, and the time after which one more is taken.
const ORDERS: (u32, Duration) = (20, Duration::from_secs(3));
/// Webhook bodies of one sender at once, and the time after which one more is taken.
const WEBHOOKS: (u32, Duration) = (120, Duration::from_millis(250));

/// Refused alerts that an answer tells of at the most.
const MOST_REFUSED: usize = 100;

/// The buckets of orders and webhooks, one for each who asks.
#[derive(Debug)]
pub struct Rates {
    orders: Mutex<RateLimits>,
    webhooks: Mutex<RateLimits>,
}

impl Default for Rates {
    fn default() -> Self {
        let limits = |(most, refill)| Mutex::new(RateLimits::new(most, refill));
        Self { orders: limits(ORDERS), webhooks: limits(WEBHOOKS) }
    }
}

pub(super) async fn list(shared: Arc<Shared>, request: Request) -> Response {
    let published = shared.published.load_full();
    let Some(published) = published else { return not_yet() };
    // What was asked a moment ago is shown at once, not only with the next collection.
    let fresh = match &shared.policy {
        Some(policy) => restarting::standing(policy).await,
        None => None,
    };
    let Some(standing) = fresh.as_ref().or(published.restarts.as_ref()) else { return unavailable() };
    let audit = restarting::audit(&shared).await;
    let settings = shared.settings.load();
    let offset_ms = shared.clock.wall().0.saturating_sub(shared.clock.now().0);
    let said =
        Said { settings: &settings.restart, plan: &standing.plan, state: &standing.state, audit: &audit, offset_ms };
    let view = RestartsView::new(&said, acting(&shared, &request).await);
    match serde_json::to_vec(&view) {
        Ok(body) => tagged(&request, Content::Json, body),
        Err(_unwritable) => Response::json(&view),
    }
}

/// Whether whoever asks may act, and who that is.
pub(super) async fn may_act(shared: &Shared, request: &Request) -> (Result<(), Refusal>, Identity) {
    let identity = shared.access.identity(request).await;
    let asker = Asker { identity: &identity, ..request.asker() };
    (who_acts(&asker, shared.access.has_tokens()), identity)
}

/// Whether an order from there would be taken.
pub(super) async fn acting(shared: &Shared, request: &Request) -> ActingView {
    let (may, identity) = may_act(shared, request).await;
    let view = |allowed, authentication: &str, sentence: String| ActingView {
        allowed,
        authentication: authentication.to_owned(),
        sentence,
    };
    match (may, &identity) {
        (Err(Refusal::NoToken | Refusal::WrongToken), _) | (Ok(()), Identity::Token) => {
            view(true, "bearer", "orders need a bearer token".to_owned())
        }
        (Err(refusal), _) => view(false, "none", refusal.to_string()),
        (Ok(()), Identity::User(_)) => {
            view(true, "basic", "orders are taken from a user whose password was checked".to_owned())
        }
        (Ok(()), Identity::Session) => {
            view(true, "session", "orders are taken from this browser, which `leakslope open` let in".to_owned())
        }
        (Ok(()), Identity::Process { uid: Some(uid), .. }) => {
            view(true, "none", format!("orders are taken from you, user {uid} of this machine"))
        }
        (Ok(()), Identity::Process { uid: None, .. } | Identity::Anonymous) => {
            view(true, "none", "orders are taken from this machine".to_owned())
        }
    }
}

pub(super) async fn ask(shared: Arc<Shared>, request: Request) -> Response {
    let policy = match the_policy(&shared, &request).await {
        Ok(policy) => policy,
        Err(refusal) => return *refusal,
    };
    let call: PersonCall = match read(&request) {
        Ok(call) => call,
        Err(refusal) => return *refusal,
    };
    let asked = call.clone();
    match policy.ask(call).await {
        Ok(Ok(requests)) => {
            let sentence = match restarting::standing(policy).await {
                Some(standing) => taken(&standing.plan, &asked, &requests),
                None => format!("{} recorded; `leakslope plan` tells how it stands", numbered(&requests)),
            };
            Response::json_with(StatusCode::ACCEPTED, &TakenView { requests, sentence })
        }
        Ok(Err(refusal)) => refused(&refusal.to_string()),
        Err(Closed) => unavailable(),
    }
}

/// What an order would do, as the policy itself says; asking changes nothing.
pub(super) async fn preview(shared: Arc<Shared>, request: Request) -> Response {
    let bad = |what: &str| Response::error(StatusCode::BAD_REQUEST, "bad_query", what);
    let Some(app) = request.query.get("app") else { return bad("parameter app is missing") };
    let pm_id = match request.query.get("pm_id").map(str::parse::<u32>).transpose() {
        Ok(pm_id) => pm_id,
        Err(_no_number) => return bad("parameter pm_id is no number of pm2's"),
    };
    let set = |name: &str| request.query.get(name) == Some("true");
    let call = PersonCall {
        daemon: request.query.get("daemon").map(DaemonName::from),
        app: AppName::from(app),
        pm_id,
        all: set("all"),
        now: set("now"),
        hard: set("hard"),
        who: String::new(),
        why: String::new(),
    };
    let Some(policy) = &shared.policy else { return unavailable() };
    match policy.preview(call).await {
        Ok(Ok(preview)) => Response::json(&PreviewView::from(&preview)),
        Ok(Err(refusal)) => refused(&refusal.to_string()),
        Err(Closed) => unavailable(),
    }
}

/// What follows from a request that was taken: nothing at all where every app it is about is in a dry run.
fn taken(plan: &Plan, asked: &PersonCall, requests: &[u64]) -> String {
    let of_app =
        |app: &&AppPlan| asked.app.means(&app.app) && asked.daemon.as_ref().is_none_or(|name| app.daemon == *name);
    let recorded = numbered(requests);
    match plan.apps.iter().filter(of_app).map(|app| (app.mode, app.policy.is_some())).max() {
        Some((Mode::Enforce, _)) => {
            let now = plan.entries.iter().find(|entry| requests.contains(&entry.request));
            let now = now.map_or(String::new(), |entry| format!("; {}", entry.sentence));
            format!("{recorded} recorded; it goes through every gate, and `leakslope plan` tells how it stands{now}")
        }
        mode => {
            let opted_in = mode.is_some_and(|(_, opted_in)| opted_in);
            let why = if opted_in { "the mode is dry-run" } else { "no policy names the app" };
            format!("DRY RUN ({why}): {recorded} recorded, and nothing will be restarted; `leakslope plan` shows it")
        }
    }
}

fn numbered(requests: &[u64]) -> String {
    let numbers: Vec<String> = requests.iter().map(ToString::to_string).collect();
    format!("request {} is", numbers.join(", "))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdrawal {
    request: u64,
    #[serde(default)]
    who: String,
}

pub(super) async fn withdraw(shared: Arc<Shared>, request: Request) -> Response {
    let policy = match the_policy(&shared, &request).await {
        Ok(policy) => policy,
        Err(refusal) => return *refusal,
    };
    let order: Withdrawal = match read(&request) {
        Ok(order) => order,
        Err(refusal) => return *refusal,
    };
    match policy.withdraw(order.request, order.who).await {
        Ok(Ok(())) => {
            let sentence = format!("request {} is taken back", order.request);
            Response::json(&TakenView { requests: vec![order.request], sentence })
        }
        Ok(Err(refusal)) => refused(&refusal.to_string()),
        Err(Closed) => unavailable(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    #[serde(default)]
    daemon: Option<DaemonName>,
    app: AppName,
    #[serde(default)]
    who: String,
}

pub(super) async fn reset_breaker(shared: Arc<Shared>, request: Request) -> Response {
    let policy = match the_policy(&shared, &request).await {
        Ok(policy) => policy,
        Err(refusal) => return *refusal,
    };
    let order: Reset = match read(&request) {
        Ok(order) => order,
        Err(refusal) => return *refusal,
    };
    let app = order.app.clone();
    match policy.reset_breaker(order.daemon, order.app, order.who).await {
        Ok(Ok(causes)) => {
            let sentence = format!("the breaker of {app} is closed; it had opened because: {}", causes.join("; "));
            Response::json(&TakenView { requests: Vec::new(), sentence })
        }
        Ok(Err(refusal)) => refused(&refusal.to_string()),
        Err(Closed) => unavailable(),
    }
}

/// Alertmanager's webhook. An answer of the 2xx family means that every call is written down.
pub(super) async fn alerts(shared: Arc<Shared>, request: Request) -> Response {
    if let Err(refusal) = admit(&shared.rates.webhooks, &shared, &request).await {
        return *refusal;
    }
    let Some(policy) = &shared.policy else { return unavailable() };
    let webhook = match parse_webhook(&request.body) {
        Ok(webhook) => webhook,
        Err(error) => {
            let status = match error {
                WebhookError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                WebhookError::Malformed(_) | WebhookError::Version(_) => StatusCode::BAD_REQUEST,
            };
            return Response::error(status, "bad_webhook", &error.to_string());
        }
    };
    let (taken, truncated) = (webhook.calls.len(), webhook.truncated);
    let ignored: std::collections::BTreeMap<&str, usize> =
        webhook.ignored.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    match policy.alerts(webhook.calls).await {
        Ok(refused) => Response::json(&serde_json::json!({
            "taken": taken - refused.len(),
            "refused": refused.iter().take(MOST_REFUSED).map(|(call, why)| serde_json::json!({
                "alert": call.name, "daemon": call.daemon, "app": call.app, "pm_id": call.pm_id, "sentence": why,
            })).collect::<Vec<_>>(),
            "ignored": ignored,
            "truncated": truncated,
        })),
        Err(Closed) => unavailable(),
    }
}

/// Lets an order through the rate limit of the one who asks.
pub(super) async fn admitted(shared: &Shared, request: &Request) -> Result<(), Box<Response>> {
    admit(&shared.rates.orders, shared, request).await
}

/// The policy, for an order that was let through.
async fn the_policy<'a>(shared: &'a Shared, request: &Request) -> Result<&'a Handle, Box<Response>> {
    admitted(shared, request).await?;
    shared.policy.as_ref().ok_or_else(|| Box::new(unavailable()))
}

async fn admit(limits: &Mutex<RateLimits>, shared: &Shared, request: &Request) -> Result<(), Box<Response>> {
    let who = request.peer.key().await;
    let admitted = limits.lock().unwrap_or_else(PoisonError::into_inner).admit(who, shared.clock.now());
    admitted.map_err(|wait| Box::new(too_many(wait)))
}

pub(super) fn read<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, Box<Response>> {
    serde_json::from_slice(&request.body).map_err(|error| {
        let message = format!("the body is no such order: line {} column {}", error.line(), error.column());
        Box::new(Response::error(StatusCode::BAD_REQUEST, "bad_order", &message))
    })
}

pub(super) fn refused(why: &str) -> Response {
    Response::error(StatusCode::CONFLICT, "refused", why)
}

fn unavailable() -> Response {
    let message = "the restart policy does not answer, or its state cannot be kept; nothing is restarted";
    Response::error(StatusCode::SERVICE_UNAVAILABLE, "restarts_unavailable", message)
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs().max(1).to_string();
    Response::error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many orders; try again later")
        .with(header::RETRY_AFTER, &seconds)
}
