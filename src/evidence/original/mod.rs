//! The author's own file and line: places in generated code are looked up in the source maps beside it.
//!
//! Maps are read from disk, never in the app: inline, beside the script, in a folder that was named, or through several
//! builds. Profiles and maps name whatever they like, so only regular files are opened that are the app's user's, or root's
//! and there for everybody; a map only below the script's own folder or a named one; up to 32 MiB each, a map is followed
//! four times at the most, and all reading together ends at 256 MiB. What is missing or wrong costs the name of its places,
//! and a note says so.

mod advice;
pub mod map;
mod name;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base64::Engine as _;
use serde::Deserialize;
use v8_heap::profile::{Frame, Profile, package};
use v8_heap::snapshot::Heap;
use v8_heap::snapshot::heap::Original;
use v8_heap::snapshot::patterns::Finding;

use self::map::{At, Found, look_up};
use self::paths::{Source, normal, percent_decoded};
use crate::collect::home_file::Home;

/// The largest script or map that is read, in bytes, …
const LARGEST: u64 = 32 << 20;
/// … and the most that all of one report take together.
const ALL: u64 = 256 << 20;
/// The most maps that are followed one after the other.
const HOPS: usize = 4;
/// The most notes that are told.
const NOTES: usize = 8;
/// A place so far to the right is of code that nobody wrote like this.
const MINIFIED: u32 = 400;

/// Where scripts and their maps lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Folders of the machine the app ran on, and where they are here.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// Folders with maps that do not lie beside their scripts.
    pub maps: Vec<PathBuf>,
}

impl Places {
    /// Reads `FROM=TO`.
    ///
    /// # Errors
    /// A sentence where it is something else.
    pub fn moved(text: &str) -> Result<(PathBuf, PathBuf), &'static str> {
        let (from, to) = text.split_once('=').ok_or("write it as FROM=TO")?;
        let whole = from.starts_with('/') && !to.is_empty();
        if whole { Ok((from.into(), to.into())) } else { Err("FROM is a folder with its whole path") }
    }
}

/// Looks up where code was written.
#[derive(Debug, Default)]
pub struct Originals {
    places: Places,
    user: Option<u32>,
    notes: BTreeSet<String>,
    read: u64,
}

/// A script, and how to read it.
struct Script {
    /// Where it ran.
    path: PathBuf,
    text: String,
    /// How many more maps may be followed.
    hops: usize,
}

impl Originals {
    /// Starts with folders that lie elsewhere here than where the app ran, and the user whose app it was, where that is known.
    pub fn new(places: Places, user: Option<u32>) -> Self {
        Self { places, user, ..Self::default() }
    }

    /// What could not be looked up, and why.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str).take(NOTES)
    }

    /// Gives the functions of a profile their original places; the generated ones stay beside them.
    pub fn of_profile(&mut self, profile: &mut Profile) {
        let mut wanted: BTreeMap<String, BTreeSet<At>> = BTreeMap::new();
        for frame in profile.frames.iter().filter(|frame| frame.line > 0) {
            wanted.entry(frame.file.clone()).or_default().insert(at(frame));
        }
        let found = self.look_up_all(&wanted);
        let mut typed: BTreeMap<String, Option<String>> = BTreeMap::new();
        for frame in &mut profile.frames {
            if let Some(original) = found.get(&(frame.file.clone(), at(frame))) {
                frame.moved_to(original);
            } else if frame.line > 0 && paths::is_typed(&frame.file) {
                let known = typed.entry(frame.file.clone());
                let text = known.or_insert_with_key(|file| self.read_script(Path::new(file)).ok()).as_deref();
                let note = text.and_then(|text| settle(frame, text));
                self.notes.extend(note);
            }
        }
        let mut known: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
        for frame in &mut profile.frames {
            frame.package = frame.package().map(|(name, folder)| {
                let folder = PathBuf::from(folder);
                let version = known.entry(folder).or_insert_with_key(|folder| self.version(folder)).clone();
                version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"))
            });
        }
    }

    /// Names the packages whose code holds what findings are of.
    pub fn of_findings(&mut self, findings: &mut [Finding]) {
        for finding in findings {
            let found = [&finding.file, &finding.code].into_iter().flatten().find_map(|file| package(file));
            finding.package = found.map(|(name, folder)| {
                let version = self.version(Path::new(folder));
                version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"))
            });
        }
    }

    /// The version that a package's own file tells.
    fn version(&mut self, folder: &Path) -> Option<String> {
        #[derive(Deserialize)]
        struct Package {
            version: String,
        }
        let text = self.read_script(&folder.join("package.json")).ok()?;
        let Package { version } = serde_json::from_str(&text).ok()?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-+".contains(letter);
        (version.len() < 64 && version.chars().all(plain)).then_some(version)
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
        for (file, places) in wanted.iter().filter(|(file, _)| Path::new(file).is_absolute()) {
            let Ok(text) = self.read_script(Path::new(file)) else { continue };
            let places: Vec<At> = places.iter().copied().collect();
            let answers = self.of_script(&Script { path: file.into(), text, hops: HOPS }, &places);
            let answers = places.into_iter().zip(answers);
            found.extend(answers.filter_map(|(at, answer)| Some(((file.clone(), at), answer?))));
        }
        found
    }

    /// Where a file of the app's machine is here: the longest folder that matches counts.
    fn here(&self, file: &Path) -> PathBuf {
        let moved = &self.places.moved;
        let moved = moved.iter().filter_map(|(from, to)| Some((from, to.join(file.strip_prefix(from).ok()?))));
        moved.max_by_key(|(from, _)| from.components().count()).map_or_else(|| file.to_owned(), |(_, path)| path)
    }

    /// Looks up places of a script, which must be sorted.
    fn of_script(&mut self, script: &Script, places: &[At]) -> Vec<Option<Original>> {
        let nothing = vec![None; places.len()];
        let told = |path: &Path| !path.to_string_lossy().contains("node_modules/");
        let shown = script.path.display();
        let (map, folder) = match self.map_of(script) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let minified = places.iter().any(|at| at.column >= MINIFIED);
                let advice = advice::of(&script.text, minified)
                    .filter(|_| told(&script.path) && !paths::is_typed(&shown.to_string()));
                self.notes.extend(advice.map(|advice| format!("{shown} has no source map: {advice}")));
                return nothing;
            }
            Err(why) if told(&script.path) => {
                self.notes.insert(format!("{shown}: {why}; its places stay those of the generated code"));
                return nothing;
            }
            Err(_of_a_package) => return nothing,
        };
        // For each place also the name that stands before it: the map tells what it was called.
        let bindings = name::bindings(&script.text, places);
        let all: BTreeSet<At> = places.iter().chain(bindings.iter().flatten()).copied().collect();
        let all: Vec<At> = all.into_iter().collect();
        let answers = match look_up(&map, &all) {
            Ok(answers) => answers,
            Err(error) => {
                self.notes.insert(format!("the source map of {shown} cannot be read: {error}"));
                return nothing;
            }
        };
        drop(map);
        let answer = |at: &At| answers[all.binary_search(at).ok()?].as_ref();
        let named = |at: &At| answer(at)?.name.clone();
        let found: Vec<Option<&Found>> = places.iter().map(answer).collect();
        let further = self.follow(&found, &folder, script);
        let texts = self.texts(&found, &folder);
        let answers = places.iter().zip(&bindings).zip(found).zip(further);
        let original = |((_, name), found): ((&At, &Option<At>), Option<&Found>), further: Option<Original>| {
            let name = || name.as_ref().and_then(named);
            if let Some(further) = further {
                return Some(Original { name: further.name.clone().or_else(name), ..further });
            }
            let found = found?;
            let source = Source::of(&found.source, &folder);
            Some(Original {
                file: self.here(&source.path).to_string_lossy().into_owned(),
                line: found.at.line,
                column: found.at.column,
                name: texts.get(&*found.source).and_then(|text| name::at(text, found.at)).or_else(name),
                ignored: found.ignored || source.foreign,
            })
        };
        answers.map(|(known, further)| original(known, further)).collect()
    }

    /// The texts of the sources: as the map holds them, else from disk.
    fn texts(&mut self, found: &[Option<&Found>], folder: &Path) -> BTreeMap<Rc<str>, Rc<str>> {
        let mut texts = BTreeMap::new();
        for found in found.iter().copied().flatten() {
            if texts.contains_key(&*found.source) {
                continue;
            }
            let path = Source::of(&found.source, folder).path;
            let text = match &found.content {
                Some(content) => Some(content.clone()),
                None if path.is_absolute() && paths::is_source(&path) => self.read_script(&path).ok().map(Rc::from),
                None => None,
            };
            texts.insert(found.source.clone(), text.unwrap_or_default());
        }
        texts
    }

    /// Goes on where a source is a script that was itself built from another: each such script is read once.
    fn follow(&mut self, found: &[Option<&Found>], folder: &Path, script: &Script) -> Vec<Option<Original>> {
        let mut further = vec![None; found.len()];
        let mut sources: BTreeMap<&str, (Option<&str>, BTreeSet<At>)> = BTreeMap::new();
        for found in found.iter().copied().flatten().filter(|found| paths::is_script(&found.source)) {
            let source = sources.entry(&found.source).or_insert_with(|| (found.content.as_deref(), BTreeSet::new()));
            source.1.insert(found.at);
        }
        let Some(hops) = script.hops.checked_sub(1).filter(|hops| *hops > 0) else { return further };
        for (source, (content, places)) in sources {
            let Some(next) = self.next_script(source, content, folder, script, hops) else { continue };
            let places: Vec<At> = places.into_iter().collect();
            let answers = self.of_script(&next, &places);
            for (place, found) in further.iter_mut().zip(found) {
                let Some(found) = found.filter(|found| &*found.source == source) else { continue };
                let at = places.binary_search(&found.at).ok();
                *place = at.and_then(|at| answers[at].clone());
            }
        }
        further
    }

    /// Finds a source that is a script: where the map says, else below a folder above the script, since some builds name
    /// sources from where they were started.
    fn next_script(
        &mut self,
        source: &str,
        content: Option<&str>,
        folder: &Path,
        script: &Script,
        hops: usize,
    ) -> Option<Script> {
        let source = Source::of(source, folder);
        let mut candidates = vec![source.path.clone()];
        if let Some(relative) = &source.relative {
            candidates.extend(script.path.ancestors().skip(1).map(|above| normal(&above.join(relative))));
        }
        for path in candidates.into_iter().filter(|path| path.is_absolute() && *path != script.path) {
            if let Ok(text) = self.read_script(&path)
                && content.is_none_or(|content| content.trim_end() == text.trim_end())
            {
                return Some(Script { path, text, hops });
            }
        }
        content.map(|content| Script { path: source.path, text: content.to_owned(), hops })
    }

    /// Reads the map of a script, and tells in which folder it lies, where the app ran.
    fn map_of(&mut self, script: &Script) -> Result<Option<(Vec<u8>, PathBuf)>, String> {
        let folder = script.path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let link = link(&script.text);
        if let Some(data) = link.and_then(|link| link.strip_prefix("data:")) {
            let (head, body) = data.split_once(',').ok_or("its inline source map is cut off")?;
            if !head.ends_with(";base64") {
                return Ok(Some((percent_decoded(body).into_bytes(), folder)));
            }
            let map = base64::engine::general_purpose::STANDARD.decode(body.trim_end());
            return map.map(|map| Some((map, folder))).map_err(|error| format!("its inline source map: {error}"));
        }
        if let Some(link) = link.filter(|link| link.contains("://")) {
            return Err(format!("its source map is at {link}, which is not on this machine"));
        }
        let mut beside = script.path.clone().into_os_string();
        beside.push(".map");
        let path = link.map_or_else(|| beside.into(), |link| normal(&folder.join(percent_decoded(link))));
        if !path.starts_with(&folder) {
            return Err(format!("its source map {} is outside its folder", path.display()));
        }
        let below = path.parent().map_or(folder.clone(), Path::to_owned);
        let error = match self.read(&self.here(&path), &self.here(&folder)) {
            Ok(map) => return Ok(Some((map, below))),
            Err(error) => error,
        };
        for named in self.places.maps.clone() {
            for candidate in paths::below(&named, &path) {
                if let Ok(map) = self.read(&candidate, &named) {
                    return Ok(Some((map, below)));
                }
            }
        }
        if link.is_none() && error.kind() == std::io::ErrorKind::NotFound {
            return Ok(None);
        }
        Err(format!("its source map {} cannot be read: {error}", path.display()))
    }

    fn read_script(&mut self, path: &Path) -> std::io::Result<String> {
        let here = self.here(path);
        let folder = here.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let text = self.read(&here, &folder)?;
        String::from_utf8(text).or_else(|error| Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Reads a regular file that lies below a folder once links are followed. What lies in a folder that we were told of may be
    /// anybody's who works there.
    fn read(&mut self, path: &Path, folder: &Path) -> std::io::Result<Vec<u8>> {
        let real = path.canonicalize()?;
        if !real.starts_with(folder.canonicalize()?) {
            return Err(std::io::Error::other("it leads out of the script's folder"));
        }
        let (Some(parent), Some(name)) = (real.parent(), real.file_name().and_then(|name| name.to_str())) else {
            return Err(std::io::ErrorKind::InvalidFilename.into());
        };
        let moved = self.places.moved.iter().map(|(_, to)| to);
        let is_named =
            moved.chain(&self.places.maps).any(|named| named.canonicalize().is_ok_and(|named| real.starts_with(named)));
        let open = || {
            let home = Home::open(parent)?;
            if is_named { home.open_file(name) } else { home.open_file_for(name, self.user) }
        };
        let file = open().map_err(std::io::Error::other)?;
        let length = file.metadata()?.len();
        if length > LARGEST {
            return Err(std::io::Error::other("it is larger than 32 MiB"));
        }
        if self.read.saturating_add(length) > ALL {
            self.notes.insert("scripts and source maps of more than 256 MiB: the rest was left unread".to_owned());
            return Err(std::io::Error::other("enough was read"));
        }
        self.read += length;
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// The place of a function, counted from zero.
fn at(frame: &Frame) -> At {
    At { line: frame.line.saturating_sub(1), column: frame.column.saturating_sub(1) }
}

/// Holds a place in a file that Node does not run as it stands against the file's text: tsx, ts-node and their kin keep what
/// they generate, and its map, in memory. A function that has one definition is found by its name; of others the line is
/// not known.
fn settle(frame: &mut Frame, text: &str) -> Option<String> {
    let at = at(frame);
    if name::is_plausible(text, at, &frame.function) {
        return None;
    }
    if let Some(At { line, column }) = name::find(text, &frame.function) {
        frame.moved_to(&Original { file: frame.file.clone(), line, column, name: None, ignored: false });
        return None;
    }
    frame.generated = frame.place();
    (frame.line, frame.column) = (0, 0);
    Some(format!(
        "{} ran as code that was generated in memory (tsx, ts-node): the lines of functions without a name of their own are not known; \
         build it with source maps to see them",
        frame.file
    ))
}

/// The address in the last comment that names a source map, if no code follows it.
fn link(text: &str) -> Option<&str> {
    for line in text.rsplit('\n').map(str::trim).filter(|line| !line.is_empty()).take(16) {
        let comment = line.strip_prefix("//").filter(|rest| rest.starts_with(['#', '@']));
        match comment.and_then(|rest| rest[1..].trim_start().strip_prefix("sourceMappingURL=")) {
            Some(link) => return Some(link),
            None if line.starts_with("//") => {}
            None => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
