//! `leakslope run`: from valid settings to a running sidecar.

use std::process::ExitCode;

use super::arguments::Flags;
use crate::config;
use crate::runtime;

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let mut loaded = super::load(&flags)?;
    let state = config::state_directory(&flags.surroundings());
    let settings = loaded.settings.clone();
    let reload = move || {
        loaded.replace(super::load(&flags)?)?;
        Ok(loaded.settings.clone())
    };
    runtime::run(settings, state, Box::new(reload))?;
    Ok(ExitCode::SUCCESS)
}
