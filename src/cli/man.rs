//! `leakslope man`: the manual, made from what the command line knows of itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::arguments::Arguments;
use super::output::print;

/// Print the manual page, or write the pages of all commands.
#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// An existing folder to write a page of every command to, such as leakslope-status.1.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints the page of `leakslope`, or writes all pages into the folder.
pub(super) fn run(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    match &arguments.folder {
        None => print(&main_page()?)?,
        Some(folder) => write_pages(folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn main_page() -> anyhow::Result<String> {
    let mut text = Vec::new();
    Man::new(Arguments::command()).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}

fn write_pages(folder: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(Arguments::command(), folder)
        .with_context(|| format!("writing manual pages to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command_and_every_command_has_a_page() {
        let page = main_page().unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        for known in Arguments::command().get_subcommands().filter(|known| !known.is_hide_set()) {
            let name = known.get_name();
            assert!(page.contains(&format!("leakslope\\-{}(1)", name.replace('-', "\\-"))), "{name}: {page}");
            let own = std::fs::read_to_string(folder.path().join(format!("leakslope-{name}.1"))).unwrap();
            assert!(own.contains(".SH SYNOPSIS"), "{name}: {own}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = write_pages(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}
