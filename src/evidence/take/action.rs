//! A profile by pm2's own action: the agent in the app samples, and the profile comes on the daemon's public socket.

use std::time::Duration;

use tokio::time::timeout;

use super::{ProfileOrder, Sampled, TakeErrorKind, Target};
use crate::collect::amp::Request;
use crate::collect::bus::{Bus, BusError};
use crate::collect::look::{LOOK_DEADLINE, refusal};
use crate::collect::socket::Client;
use crate::evidence::keep::Road;

/// How long pm2's agent may take to begin, and the profile to come after the sampling has ended.
const GRACE: Duration = Duration::from_secs(30);
const INLINED: &str = "it was taken by pm2's agent, where V8 counts what a small function allocates to the one it was inlined \
    into; `leakslope heap profile APP --inspector` names the function itself";
const NO_REPLY: &str = "pm2's agent in it did not answer: its event loop is blocked, or it has just been started; try \
    again when it answers requests";
const NO_PROFILE: &str = "no profile came: its event loop is blocked, or it was reloaded meanwhile; try again when it \
    answers requests";

/// Has pm2's agent sample allocations and waits for the profile.
pub(super) async fn sample(
    client: &mut Client,
    target: &Target,
    order: &ProfileOrder,
) -> Result<Sampled, TakeErrorKind> {
    let pm_id = target.key.pm_id;
    let request = request(pm_id, order).map_err(TakeErrorKind::Refused)?;
    let connecting = timeout(LOOK_DEADLINE, Bus::connect(&target.home)).await;
    let mut bus = connecting
        .map_err(|_elapsed| TakeErrorKind::Refused("pm2's public socket takes no connection; is pm2 busy?".to_owned()))?
        .map_err(|error| TakeErrorKind::Refused(error.to_string()))?;
    let ask = async {
        let reply = client.act(request).await.map_err(|error| {
            let kind = if error.sent { TakeErrorKind::Failed } else { TakeErrorKind::Refused };
            kind(error.to_string())
        })?;
        refusal(reply.json()).map_or(Ok(()), |why| Err(TakeErrorKind::Refused(unasked(&why))))
    };
    let answer = async {
        let broken = |error: BusError| TakeErrorKind::Failed(error.to_string());
        let silent = || TakeErrorKind::Failed(NO_REPLY.to_owned());
        let began = timeout(GRACE, bus.sampling(pm_id)).await.map_err(|_elapsed| silent())?;
        let name = began.map_err(broken)?.map_err(|why| TakeErrorKind::Refused(turned_down(&why)))?;
        let profile = timeout(order.duration + GRACE, bus.heap_profile(pm_id, &name)).await;
        profile.map_err(|_elapsed| TakeErrorKind::Failed(NO_PROFILE.to_owned()))?.map_err(broken)
    };
    // Both at once: whoever is connected must read.
    let ((), profile) = tokio::try_join!(ask, answer)?;
    let notes = vec![INLINED.to_owned()];
    Ok(Sampled { profile: profile.into_bytes(), road: Road::Pm2Action, pause: None, still_open: None, notes })
}

fn request(pm_id: u32, order: &ProfileOrder) -> Result<Request, String> {
    let timeout_ms = u32::try_from(order.duration.as_millis()).map_err(|error| error.to_string())?;
    let sampling_interval = u32::try_from(order.sampling_interval.0).map_err(|error| error.to_string())?;
    Ok(Request::SampleHeap { pm_id, timeout_ms, sampling_interval })
}

/// What pm2 said against passing the request on, with what to do about it.
fn unasked(words: &str) -> String {
    if words.contains("Action doesn't exist") {
        return "pm2's agent in it offers no profiles: it is no Node app, or has just been started; try again later"
            .to_owned();
    }
    format!("pm2 says: {words}")
}

/// What pm2's agent said against sampling, with what to do about it.
fn turned_down(words: &str) -> String {
    if words.contains("already running") {
        return "another profile is being taken of it; try again when that one has ended".to_owned();
    }
    format!("pm2's agent in it says: {words}; pm2's log of the app may tell more")
}
