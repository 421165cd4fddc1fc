//! From bytes to a `Profile`.

use std::collections::HashMap;
use std::io::Read;

use serde::Serialize;

use crate::format::whole;
use crate::snapshot::heap::Original;
use crate::snapshot::source::Source;
use crate::snapshot::{HeapError, HeapErrorKind};

/// The most calls a profile may have.
const MAX_CALLS: usize = 4_000_000;
/// The most bytes kept of a function's name or a file's.
const MAX_TEXT: usize = 1024;

/// A function at its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Frame {
    /// The function's name, `(anonymous)` if it has none.
    pub function: String,
    /// The file or URL, empty for V8's own.
    pub file: String,
    /// The line, counted from one; zero where there is none.
    pub line: u32,
    /// The column, counted from one; zero where there is none.
    pub column: u32,
    /// The place in the generated code, where the one above is that of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// The package that it is of, with its version, where somebody has looked it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Whether a source map says that the source is somebody else's.
    #[serde(skip)]
    pub ignored: bool,
}

impl Frame {
    /// Writes the place as `file:line:column`, if there is one.
    pub fn place(&self) -> Option<String> {
        let known = (!self.file.is_empty()).then_some(self.file.as_str())?;
        // No line is claimed where none is known.
        Some(if self.line == 0 { known.to_owned() } else { format!("{known}:{}:{}", self.line, self.column) })
    }

    /// Says whether the app wrote it: neither Node, nor V8, nor a dependency.
    pub fn is_own(&self) -> bool {
        !self.ignored
            && !self.file.is_empty()
            && !self.file.starts_with("node:")
            && !self.file.contains("node_modules/")
            && !self.is_preload()
    }

    /// Says whether it is of a preload of leakslope's, which is never the cause of anything.
    fn is_preload(&self) -> bool {
        let of_watch = || self.file.contains("/leakslope-watch-") && self.file.ends_with("/preload.cjs");
        self.file.ends_with("/leakslope-gc.cjs") || of_watch()
    }

    /// Says where the function is, for a sentence: ` at app.js:71`, with its package and the code that ran, if they differ.
    pub fn at(&self) -> String {
        let place = match (self.package_place(), self.line) {
            (Some(place), _) => place,
            (None, _) if self.file.is_empty() => return String::new(),
            (None, 0) => self.file.clone(),
            (None, line) => format!("{}:{line}", self.file),
        };
        let beside: Vec<&str> = self.package.iter().chain(&self.generated).map(String::as_str).collect();
        if beside.is_empty() { format!(" at {place}") } else { format!(" at {place} ({})", beside.join(", ")) }
    }

    /// Returns the file below `node_modules` with its line, if it is of a package: `winston/lib/create-logger.js:71`.
    pub fn package_place(&self) -> Option<String> {
        let (_, path) = self.file.rsplit_once("node_modules/")?;
        Some(format!("{path}:{}", self.line))
    }

    /// Returns the name of the package that the file is of, and the folder it lies in.
    pub fn package(&self) -> Option<(&str, &str)> {
        package(&self.file)
    }

    /// Takes the place and the name that the source has, and keeps the generated place beside it.
    pub fn moved_to(&mut self, original: &Original) {
        self.generated = self.place();
        self.file.clone_from(&original.file);
        (self.line, self.column) = (original.line + 1, original.column + 1);
        self.ignored = original.ignored;
        if let Some(name) = &original.name {
            self.function.clone_from(name);
        } else if let Some((object, name)) = self.function.rsplit_once('.')
            && (object == "exports" || object.len() == 1)
        {
            // What a builder assigned it to is not of the source.
            self.function = name.to_owned();
        }
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.function)?;
        match self.place() {
            Some(place) => write!(out, " {place}")?,
            None => return Ok(()),
        }
        match &self.generated {
            Some(generated) => write!(out, " ({generated})"),
            None => Ok(()),
        }
    }
}

/// Returns the name of the package that a file below `node_modules` is of, and the folder it lies in.
pub fn package(file: &str) -> Option<(&str, &str)> {
    let start = file.rfind("node_modules/")? + "node_modules/".len();
    let scoped = usize::from(file[start..].starts_with('@'));
    let length = file[start..].match_indices('/').nth(scoped)?.0;
    Some((&file[start..start + length], &file[..start + length]))
}

/// A call, and what was allocated by it that is still alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The call it was made from; the first call has itself.
    pub parent: u32,
    /// The function, as a place in `Profile::frames`.
    pub frame: u32,
    /// Bytes allocated by the function itself.
    pub bytes: u64,
}

/// A tree of calls; parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The different functions.
    pub frames: Vec<Frame>,
    /// The calls.
    pub calls: Vec<Call>,
}

type Outcome<T> = Result<T, HeapErrorKind>;

/// Reads a profile; `subject` names it in errors.
pub fn read(reader: impl Read, subject: &str) -> Result<Profile, HeapError> {
    let mut source = Source::new(reader);
    let mut reading = Reading::default();
    match reading.document(&mut source) {
        Ok(()) => Ok(reading.profile),
        Err(kind) => Err(source.error(subject, kind)),
    }
}

#[derive(Default)]
struct Reading {
    profile: Profile,
    known: HashMap<Frame, u32>,
    found: bool,
}

/// A value that is still open.
enum Open {
    Call { index: u32, first: bool },
    Children { parent: u32, first: bool },
}

impl Reading {
    fn document<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        self.object(source, true)?;
        if !source.at_end()? {
            return Err(HeapErrorKind::Unexpected { expected: "the end of the file", found: source.peek()? });
        }
        if self.found { Ok(()) } else { Err(HeapErrorKind::Missing("head")) }
    }

    /// The profile stands at the top, or below `profile` as the inspector answers.
    fn object<R: Read>(&mut self, source: &mut Source<R>, top: bool) -> Outcome<()> {
        source.expect(b'{', "'{'")?;
        let mut first = true;
        while source.next(b'}', &mut first)? {
            let key = source.short_string(64)?;
            source.expect(b':', "':'")?;
            match key.as_str() {
                "head" => {
                    source.key = "head";
                    if std::mem::replace(&mut self.found, true) {
                        return Err(HeapErrorKind::Contradiction("it stands there twice".to_owned()));
                    }
                    self.calls(source)?;
                }
                "profile" if top => self.object(source, false)?,
                _ => {
                    source.key = "another key";
                    source.skip(|_| Ok(()))?;
                }
            }
            source.key = "";
        }
        Ok(())
    }

    fn calls<R: Read>(&mut self, source: &mut Source<R>) -> Outcome<()> {
        source.expect(b'{', "a call")?;
        let mut open = vec![Open::Call { index: self.enter(0)?, first: true }];
        while let Some(last) = open.last_mut() {
            match last {
                Open::Call { index, first } => {
                    let index = *index;
                    if !source.next(b'}', first)? {
                        open.pop();
                        continue;
                    }
                    let key = source.short_string(64)?;
                    source.expect(b':', "':'")?;
                    match key.as_str() {
                        "callFrame" => {
                            let frame = frame(source)?;
                            let frame = self.frame(frame)?;
                            self.profile.calls[index as usize].frame = frame;
                        }
                        "selfSize" => {
                            let bytes = whole(number(source)?);
                            self.profile.calls[index as usize].bytes = bytes;
                        }
                        "children" => {
                            source.expect(b'[', "a list of calls")?;
                            open.push(Open::Children { parent: index, first: true });
                        }
                        _ => source.skip(|_| Ok(()))?,
                    }
                }
                Open::Children { parent, first } => {
                    let parent = *parent;
                    if source.next(b']', first)? {
                        source.expect(b'{', "a call")?;
                        open.push(Open::Call { index: self.enter(parent)?, first: true });
                    } else {
                        open.pop();
                    }
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, parent: u32) -> Outcome<u32> {
        let index = self.profile.calls.len();
        if index >= MAX_CALLS {
            return Err(HeapErrorKind::TooLarge { limit: MAX_CALLS as u64 });
        }
        let frame = self.frame(Frame { function: "(unknown)".to_owned(), ..Frame::default() })?;
        self.profile.calls.push(Call { parent, frame, bytes: 0 });
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn frame(&mut self, frame: Frame) -> Outcome<u32> {
        if let Some(&known) = self.known.get(&frame) {
            return Ok(known);
        }
        let index = u32::try_from(self.profile.frames.len())
            .map_err(|_out_of_range| HeapErrorKind::TooLarge { limit: u64::from(u32::MAX) })?;
        self.known.insert(frame.clone(), index);
        self.profile.frames.push(frame);
        Ok(index)
    }
}

fn frame<R: Read>(source: &mut Source<R>) -> Outcome<Frame> {
    let mut frame = Frame::default();
    source.expect(b'{', "a function's place")?;
    let mut first = true;
    while source.next(b'}', &mut first)? {
        let key = source.short_string(64)?;
        source.expect(b':', "':'")?;
        match key.as_str() {
            "functionName" => frame.function = source.short_string(MAX_TEXT)?,
            "url" => frame.file = source.short_string(MAX_TEXT)?,
            "lineNumber" => frame.line = place(number(source)?),
            "columnNumber" => frame.column = place(number(source)?),
            _ => source.skip(|_| Ok(()))?,
        }
    }
    if frame.function.is_empty() {
        "(anonymous)".clone_into(&mut frame.function);
    }
    if let Some(path) = frame.file.strip_prefix("file://") {
        frame.file = path.to_owned();
    }
    if frame.file.is_empty() {
        (frame.line, frame.column) = (0, 0);
    }
    Ok(frame)
}

/// V8 counts from zero and writes -1 where there is nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
fn place(number: f64) -> u32 {
    (number + 1.0).clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Reads a number of any form.
fn number<R: Read>(source: &mut Source<R>) -> Outcome<f64> {
    let found = source.peek()?;
    let mut text = Vec::new();
    source.skip(|piece| {
        if text.len() + piece.len() > 64 {
            return Err(HeapErrorKind::Unexpected { expected: "a number", found });
        }
        text.extend_from_slice(piece);
        Ok(())
    })?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    text.trim().parse().map_err(|_no_number| HeapErrorKind::Unexpected { expected: "a number", found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_stack_is_read() {
        let depth = 200_000;
        let mut text = String::from(r#"{"head":"#);
        for _ in 0..depth {
            text.push_str(r#"{"callFrame":{"functionName":"f","url":"","lineNumber":-1},"selfSize":1,"children":["#);
        }
        text.push_str(&"]}".repeat(depth));
        text.push_str(r#","samples":[{"size":1,"nodeId":3,"ordinal":7}]}"#);
        let profile = read(text.as_bytes(), "deep").unwrap();
        assert_eq!(profile.calls.len(), depth);
        assert_eq!(profile.calls.iter().map(|call| call.bytes).sum::<u64>(), depth as u64);
    }

    #[test]
    fn lines_are_counted_from_one() {
        let text = r#"{"profile":{"head":{"callFrame":{"functionName":"","scriptId":"9","url":"file:///app/a.js","lineNumber":5,"columnNumber":0},"selfSize":12.0,"id":1,"children":[]}}}"#;
        let profile = read(text.as_bytes(), "one").unwrap();
        let call = profile.calls[0];
        assert_eq!(profile.frames[call.frame as usize].to_string(), "(anonymous) /app/a.js:6:1");
        assert_eq!(call.bytes, 12);
    }

    #[test]
    fn preloads_of_ours_are_never_the_apps() {
        for (file, own) in [
            ("/app/preload.cjs", true),
            ("/tmp/leakslope-watch-x1/preload.cjs", false),
            ("/usr/share/leakslope/leakslope-gc.cjs", false),
            ("/app/node_modules/a/b.js", false),
        ] {
            assert_eq!(Frame { file: file.to_owned(), ..Frame::default() }.is_own(), own, "{file}");
        }
    }

    #[test]
    fn every_prefix_is_an_error_and_no_panic() {
        let text = r#"{"head":{"callFrame":{"functionName":"aö","url":"x","lineNumber":1},"selfSize":3,"children":[{"selfSize":4,"children":[]}]},"samples":[]}"#;
        for end in 0..text.len() {
            assert!(read(&text.as_bytes()[..end], "cut").is_err(), "{end}");
        }
        assert!(read(text.as_bytes(), "whole").is_ok());
    }
}
