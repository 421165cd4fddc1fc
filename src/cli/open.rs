//! `leakslope open`: a link to the page, good once, that lets a browser act.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::arguments::Flags;
use super::output::print;
use super::restarts::{no_sidecar, refusal, runtime};
use crate::config::UNIX_PREFIX;
use crate::http::client;
use crate::runtime::LinkView;

const DEADLINE: Duration = Duration::from_secs(15);
const LONGEST_ANSWER: usize = 64 << 10;

/// Print a link to the page that lets one browser act: restart, take evidence, and fetch it.
///
/// The link is good once and for two minutes, the browser for twelve hours. It is for whoever may act: root, the user that the
/// sidecar runs as (`sudo leakslope open`), users named by `web.acting_users`, and holders of a token.
#[derive(Debug, Args)]
pub(super) struct OpenArguments {
    /// A file whose first line is a bearer token, where the sidecar asks for one.
    #[arg(long, value_name = "FILE", env = "LEAKSLOPE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags, arguments: &OpenArguments) -> anyhow::Result<ExitCode> {
    let settings = super::settings(flags)?;
    let pages = settings.web.listen_addresses.iter().filter(|address| !address.starts_with(UNIX_PREFIX));
    let Some(page) = pages.map(|address| client::reachable(address)).next() else {
        bail!(
            "the sidecar listens on a Unix socket alone, which no browser can open: add an address to web.listen_address"
        );
    };
    let beside = super::beside(flags, &settings, arguments.token_file.as_deref())?;
    let scheme = if beside.certificate.is_some() { "https" } else { "http" };
    let sent = beside.post("/api/v1/session/link", b"{}".to_vec(), DEADLINE, LONGEST_ANSWER);
    let (status, answer) = runtime()?.block_on(sent).with_context(|| no_sidecar(&beside.address))?;
    if status != 200 {
        bail!("no link: {}", refusal(status, &answer));
    }
    let link: LinkView =
        serde_json::from_slice(&answer).with_context(|| format!("the answer of {}", beside.address))?;
    print(&format!("{scheme}://{page}/#open={}\n", link.secret))?;
    Ok(ExitCode::SUCCESS)
}
