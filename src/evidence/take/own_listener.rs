//! Does the app listen for SIGUSR1 itself? The system cannot tell whose handler a signal has, so the app's source is
//! looked through for the signal's name in quotes.
//!
//! It looks at the app's own files (not at `node_modules`), at so many and no more, and quotes nothing of them. What it
//! does not find may still be there: in a package, or in a name put together at run time. Then the app's own listener runs
//! instead, and no inspector opens.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

const NAMES: [&str; 3] = ["'SIGUSR1'", "\"SIGUSR1\"", "`SIGUSR1`"];
const KINDS: [&str; 6] = ["js", "cjs", "mjs", "ts", "cts", "mts"];
/// Entries of folders that are looked at, at the most, and bytes of files.
const ENTRIES: usize = 10_000;
const BYTES: u64 = 64 << 20;
/// How far above the script its `package.json` is looked for.
const ABOVE: usize = 6;

/// Finds where the app's own source names the signal: a file and a line.
pub(super) fn find(command_line: &[String], folder: Option<&Path>) -> Option<(PathBuf, usize)> {
    let script = script(command_line, folder)?;
    let beside = script.parent()?;
    let package = beside.ancestors().take(ABOVE).find(|folder| folder.join("package.json").exists());
    let mut open = vec![package.unwrap_or(beside).to_owned()];
    let (mut entries, mut bytes) = (ENTRIES, BYTES);
    if let Some(line) = line(&script, &mut bytes) {
        return Some((script, line));
    }
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            entries = entries.checked_sub(1)?;
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            let passed_over = name == "node_modules" || name.to_string_lossy().starts_with('.');
            if kind.is_dir() && package.is_some() && !passed_over {
                open.push(path);
            } else if kind.is_file()
                && is_source(&path)
                && let Some(line) = line(&path, &mut bytes)
            {
                return Some((path, line));
            }
        }
    }
    None
}

/// The script in a command line such as `node /srv/app.js`, which pm2 writes into one word.
fn script(command_line: &[String], folder: Option<&Path>) -> Option<PathBuf> {
    let words = command_line.iter().flat_map(|word| word.split_ascii_whitespace());
    let paths = words.map(|word| folder.unwrap_or(Path::new("/")).join(word));
    paths.filter(|path| is_source(path)).find(|path| path.is_file())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| KINDS.iter().any(|kind| extension == *kind))
}

fn line(path: &Path, left: &mut u64) -> Option<usize> {
    let mut text = Vec::new();
    // A pipe that has the name of a source file is not waited for.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(*left).read_to_end(&mut text).ok()?;
    *left -= text.len() as u64;
    let text = String::from_utf8_lossy(&text);
    let at = NAMES.iter().filter_map(|name| text.find(name)).min()?;
    Some(1 + text[..at].matches('\n').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apps_own_source_is_looked_through_and_packages_are_not() {
        let app = tempfile::tempdir().unwrap();
        let place = |name: &str| app.path().join(name);
        for folder in ["src/deep", "node_modules/other", ".git"] {
            std::fs::create_dir_all(place(folder)).unwrap();
        }
        std::fs::write(place("src/index.js"), "// SIGUSR1 is Node's\nprocess.on('SIGUSR2', () => {});\n").unwrap();
        std::fs::write(place("node_modules/other/index.js"), "process.on('SIGUSR1', f)").unwrap();
        std::fs::write(place("notes.txt"), "'SIGUSR1'").unwrap();
        let command = |words: &str| vec![words.to_owned(), String::new()];
        let title = command(&format!("node {}       ", place("src/index.js").display()));
        assert_eq!(find(&title, None), None);
        std::fs::write(place("src/deep/log.ts"), "a\nb\nprocess.once(\"SIGUSR1\", reopen)").unwrap();
        assert_eq!(find(&title, None), None, "without a package.json only the script's own folder is the app's");
        std::fs::write(place("package.json"), "{}").unwrap();
        assert_eq!(find(&title, None), Some((place("src/deep/log.ts"), 3)));
        let here = command("node src/index.js");
        assert_eq!(find(&here, Some(app.path())), Some((place("src/deep/log.ts"), 3)));
        assert_eq!(find(&command("my worker"), Some(app.path())), None);
    }
}
