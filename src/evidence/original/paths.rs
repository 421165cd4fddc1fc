//! What the names in a source map mean as paths. Pure.

use std::path::{Component, Path, PathBuf};

/// A source as a map names it.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it lies, where the app ran or was built; relative where only the bundler knows.
    pub(super) path: PathBuf,
    /// The part of it that holds wherever the build was started.
    pub(super) relative: Option<PathBuf>,
    /// Whether the bundler wrote it, and no author.
    pub(super) foreign: bool,
}

impl Source {
    /// Reads the name of a source in a map that lies in `folder`.
    pub(super) fn of(name: &str, folder: &Path) -> Self {
        let foreign = name.contains('\0');
        let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
        if let Some(path) = name.strip_prefix("file://") {
            return Self { path: normal(Path::new(&percent_decoded(path))), relative: None, foreign };
        }
        let Some((scheme, rest)) = name.split_once("://").filter(|(scheme, _)| !scheme.contains('/')) else {
            let relative = Path::new(&name).is_relative().then(|| name.clone().into());
            return Self { path: normal(&folder.join(&name)), relative, foreign };
        };
        if scheme.starts_with("http") {
            return Self { path: name.into(), relative: None, foreign };
        }
        // webpack://, turbopack://: after the scheme comes the package's name, if any; after a question mark a hash.
        let rest = rest.split_once('/').map_or(rest, |(_, path)| path);
        let rest = rest.rsplit_once('?').map_or(rest, |(path, _)| path);
        let mut path = rest.trim_start_matches("./").trim_start_matches("[project]/");
        while let Some(above) = path.strip_prefix("../") {
            path = above;
        }
        let of_bundler =
            path.starts_with("webpack/") || path.starts_with("external ") || path.starts_with("[turbopack]");
        Self { path: path.into(), relative: Some(path.into()), foreign: foreign || of_bundler }
    }
}

/// Says whether a file's text is that of a program.
pub(super) fn is_source(file: &Path) -> bool {
    let file = file.to_string_lossy();
    is_script(&file) || is_typed(&file)
}

/// Says whether a source may have been built from another.
pub(super) fn is_script(source: &str) -> bool {
    [".js", ".cjs", ".mjs"].iter().any(|ending| source.split('?').next().is_some_and(|path| path.ends_with(ending)))
}

/// Says whether Node cannot run a file as it stands, or has only lately learned to.
pub(super) fn is_typed(file: &str) -> bool {
    [".ts", ".mts", ".cts", ".tsx", ".jsx"].iter().any(|ending| file.ends_with(ending))
}

/// The places below a folder where a file may lie that is missing at its own, the likeliest first.
pub(super) fn below(folder: &Path, file: &Path) -> Vec<PathBuf> {
    let parts: Vec<Component<'_>> = file.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    (0..parts.len()).map(|start| folder.join(parts[start..].iter().collect::<PathBuf>())).collect()
}

/// Takes `.` and `..` out of a path without looking at the disk.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => parts.push(part),
        }
    }
    parts
}

pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hexadecimal = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = hexadecimal.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%');
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_bundlers_become_paths() {
        let folder = Path::new("/srv/shop/dist");
        for (source, path, foreign) in [
            ("webpack://shop/./src/a.ts", "src/a.ts", false),
            ("webpack://shop/src/a.ts?1f2e", "src/a.ts", false),
            ("webpack:///./src/a.ts", "src/a.ts", false),
            ("webpack://shop/webpack/bootstrap", "webpack/bootstrap", true),
            ("turbopack:///[project]/app/page.tsx", "app/page.tsx", false),
            ("turbopack:///[turbopack]/runtime.ts", "[turbopack]/runtime.ts", true),
            ("../../src/a.ts", "/srv/src/a.ts", false),
            ("file:///srv/shop/src/a%20b.ts", "/srv/shop/src/a b.ts", false),
            ("https://example.org/a.ts", "https://example.org/a.ts", false),
            ("\0commonjsHelpers.js", "/srv/shop/dist/commonjsHelpers.js", true),
        ] {
            let found = Source::of(source, folder);
            assert_eq!((found.path.as_path(), found.foreign), (Path::new(path), foreign), "{source}");
        }
    }

    #[test]
    fn a_missing_file_is_looked_for_by_the_ends_of_its_path() {
        let found = below(Path::new("/build"), Path::new("/app/.next/a.js.map"));
        assert_eq!(found, ["/build/app/.next/a.js.map", "/build/.next/a.js.map", "/build/a.js.map"].map(PathBuf::from));
    }
}
