//! `leakslope run`: from valid settings to a running sidecar.

use std::process::ExitCode;

use super::arguments::Flags;
use crate::config;
use crate::runtime;

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = super::settings(&flags)?;
    let state = config::state_directory(&flags.surroundings());
    runtime::run(settings, state, Box::new(move || super::settings(&flags)))?;
    Ok(ExitCode::SUCCESS)
}
