//! `leakslope run`: from valid settings to a running sidecar.

use std::process::ExitCode;

use super::arguments::Flags;
use crate::config;
use crate::runtime;

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let mut loaded = super::load(&flags)?;
    let surroundings = flags.surroundings();
    let state = config::state_directory(&surroundings);
    let settings = loaded.settings.clone();
    let reload = move || {
        loaded.replace(super::load(&flags)?)?;
        Ok(loaded.settings.clone())
    };
    let first = settings.web.listen_addresses.first().map_or("", String::as_str);
    let control = config::control_sockets(&surroundings, first).into_iter().next();
    runtime::run(settings, state, control, Box::new(reload))?;
    Ok(ExitCode::SUCCESS)
}
