//! The author's own file and line: places in generated code are looked up in the source maps beside it.
//!
//! Maps are read from disk, never in the app: inline, beside the script, or through several builds. Only regular files
//! below the script's own folder are opened, up to 32 MiB each, and a map is followed four times at the most. What is
//! missing or wrong costs the name of its places, and a note says so.

pub mod map;
mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use v8_heap::profile::Profile;
use v8_heap::snapshot::Heap;
use v8_heap::snapshot::heap::Original;

use self::map::{At, Found, look_up};

/// The largest script or map that is read, in bytes.
const LARGEST: u64 = 32 << 20;
/// The most maps that are followed one after the other.
const HOPS: usize = 4;
/// The most notes that are told.
const NOTES: usize = 8;

/// Looks up where code was written.
#[derive(Debug, Default)]
pub struct Originals {
    /// Folders of the machine the app ran on, and where they are here.
    path_map: Vec<(PathBuf, PathBuf)>,
    notes: BTreeSet<String>,
}

impl Originals {
    /// Starts with folders that lie elsewhere here than where the app ran.
    pub fn new(path_map: Vec<(PathBuf, PathBuf)>) -> Self {
        Self { path_map, notes: BTreeSet::new() }
    }

    /// What could not be looked up, and why.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str).take(NOTES)
    }

    /// Gives the functions of a profile their original places; the generated ones stay beside them.
    pub fn of_profile(&mut self, profile: &mut Profile) {
        let mut wanted: BTreeMap<String, BTreeSet<At>> = BTreeMap::new();
        let at = |line: u32, column: u32| At { line: line.saturating_sub(1), column: column.saturating_sub(1) };
        for frame in profile.frames.iter().filter(|frame| frame.line > 0) {
            wanted.entry(frame.file.clone()).or_default().insert(at(frame.line, frame.column));
        }
        let found = self.look_up_all(&wanted);
        for frame in &mut profile.frames {
            if let Some(original) = found.get(&(frame.file.clone(), at(frame.line, frame.column))) {
                frame.moved_to(original);
            }
        }
    }

    /// Gives the places of a snapshot their originals.
    pub fn of_heap(&mut self, heap: &mut Heap) {
        let places = heap.places();
        let mut wanted: BTreeMap<String, BTreeSet<At>> = BTreeMap::new();
        let at = |place: &v8_heap::snapshot::heap::Location| At { line: place.line, column: place.column };
        for (file, place) in &places {
            wanted.entry(file.clone()).or_default().insert(at(place));
        }
        let mut found = self.look_up_all(&wanted);
        let originals =
            places.into_iter().filter_map(|(file, place)| Some((place, found.remove(&(file, at(&place)))?)));
        heap.set_originals(originals.collect());
    }

    fn look_up_all(&mut self, wanted: &BTreeMap<String, BTreeSet<At>>) -> BTreeMap<(String, At), Original> {
        let mut found = BTreeMap::new();
        for (file, places) in wanted {
            if !Path::new(file).is_absolute() {
                continue;
            }
            let places: Vec<At> = places.iter().copied().collect();
            let script = self.here(Path::new(file));
            for (at, answer) in places.iter().zip(self.of_script(&script, &places, HOPS)) {
                if let Some(original) = answer {
                    found.insert((file.clone(), *at), original);
                }
            }
        }
        found
    }

    /// Where a file of the app's machine is here: the longest folder that matches counts.
    fn here(&self, file: &Path) -> PathBuf {
        let moved = self.path_map.iter().filter_map(|(from, to)| Some((from, to.join(file.strip_prefix(from).ok()?))));
        moved.max_by_key(|(from, _)| from.components().count()).map_or_else(|| file.to_owned(), |(_, path)| path)
    }

    fn of_script(&mut self, script: &Path, places: &[At], hops: usize) -> Vec<Option<Original>> {
        let nothing = vec![None; places.len()];
        let Some(text) = hops.checked_sub(1).and_then(|_| read_regular(script, script.parent()?).ok()) else {
            return nothing;
        };
        let (map, folder) = match Self::map_of(script, &text) {
            Ok(Some(found)) => found,
            Ok(None) => return nothing,
            Err(why) => {
                self.notes.insert(format!("{}: {why}; its places stay those of the generated code", script.display()));
                return nothing;
            }
        };
        let answers = match look_up(&map, places) {
            Ok(answers) => answers,
            Err(error) => {
                self.notes.insert(format!("the source map of {} cannot be read: {error}", script.display()));
                return nothing;
            }
        };
        answers.into_iter().map(|found| Some(self.original(&found?, &folder, hops))).collect()
    }

    /// Turns an answer of a map into a place; where the source was built from another, on to that one's.
    fn original(&mut self, found: &Found, folder: &Path, hops: usize) -> Original {
        let (path, on_disk) = source_path(&found.source, folder);
        let extension = Path::new(&path).extension().and_then(|extension| extension.to_str());
        let is_script = matches!(extension, Some("js" | "cjs" | "mjs"));
        if on_disk
            && is_script
            && let Some(Some(further)) = self.of_script(Path::new(&path), &[found.at], hops - 1).into_iter().next()
        {
            return further;
        }
        let name = found.content.as_deref().and_then(|content| name::at(content, found.at));
        Original { file: path, line: found.at.line, column: found.at.column, name, ignored: found.ignored }
    }

    /// Reads the map of a script, and tells in which folder it lies.
    fn map_of(script: &Path, text: &[u8]) -> Result<Option<(Vec<u8>, PathBuf)>, String> {
        let folder = script.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let Some(link) = link(text) else {
            let mut beside = script.as_os_str().to_owned();
            beside.push(".map");
            let beside = PathBuf::from(beside);
            return match read_regular(&beside, &folder) {
                Ok(map) => Ok(Some((map, folder))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("its source map {} cannot be read: {error}", beside.display())),
            };
        };
        if let Some(data) = link.strip_prefix("data:") {
            let (head, body) = data.split_once(',').ok_or("its inline source map is cut off")?;
            if !head.ends_with(";base64") {
                return Ok(Some((percent_decoded(body).into_bytes(), folder)));
            }
            let map = base64::engine::general_purpose::STANDARD.decode(body.trim_end());
            return map.map(|map| Some((map, folder))).map_err(|error| format!("its inline source map: {error}"));
        }
        if link.contains("://") {
            return Err(format!("its source map is at {link}, which is not on this machine"));
        }
        let path = normal(&folder.join(percent_decoded(link)));
        if !path.starts_with(&folder) {
            return Err(format!("its source map {} is outside its folder", path.display()));
        }
        let map = read_regular(&path, &folder)
            .map_err(|error| format!("its source map {} cannot be read: {error}", path.display()))?;
        let folder = path.parent().map_or(folder, Path::to_owned);
        Ok(Some((map, folder)))
    }
}

/// Reads a regular file that lies below a folder once links are followed.
fn read_regular(path: &Path, folder: &Path) -> std::io::Result<Vec<u8>> {
    let real = path.canonicalize()?;
    if !real.starts_with(folder.canonicalize()?) {
        return Err(std::io::Error::other("it leads out of the script's folder"));
    }
    let about = real.metadata()?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(std::io::Error::other("it is no regular file of 32 MiB at the most"));
    }
    let mut text = Vec::new();
    File::open(real)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The address in the last comment that names a source map, if no code follows it.
fn link(text: &[u8]) -> Option<&str> {
    for line in text.rsplit(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).take(16) {
        let comment = line.strip_prefix(b"//").filter(|rest| rest.starts_with(b"#") || rest.starts_with(b"@"));
        match comment.and_then(|rest| rest[1..].trim_ascii_start().strip_prefix(b"sourceMappingURL=")) {
            Some(link) => return std::str::from_utf8(link).ok(),
            None if line.starts_with(b"//") => {}
            None => return None,
        }
    }
    None
}

/// Turns a source of a map into a path, and says whether it is one of a file.
fn source_path(source: &str, folder: &Path) -> (String, bool) {
    if let Some(rest) = source.strip_prefix("webpack://") {
        // After the scheme comes the package's name, if any; after a question mark a hash.
        let rest = rest.split_once('/').map_or(rest, |(_, path)| path);
        let rest = rest.rsplit_once('?').map_or(rest, |(path, _)| path);
        let mut path = rest.trim_start_matches("./").to_owned();
        while let Some(above) = path.strip_prefix("../") {
            path = above.to_owned();
        }
        return (path, false);
    }
    if let Some(path) = source.strip_prefix("file://") {
        return (percent_decoded(path), true);
    }
    if source.contains("://") {
        return (source.to_owned(), false);
    }
    (normal(&folder.join(source)).to_string_lossy().into_owned(), true)
}

/// Takes `.` and `..` out of a path without looking at the disk.
fn normal(path: &Path) -> PathBuf {
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

fn percent_decoded(text: &str) -> String {
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
mod tests;
