//! Takes Markdown apart as far as the tests need it: fenced blocks, code in the text, headings, links. It knows what this
//! project writes, not all of Markdown.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where something stands: `docs/web.md:40`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The document, from the project's root.
    pub document: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.document, self.line)
    }
}

/// A piece of a document and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where its first line stands.
    pub spot: Spot,
    /// Its text.
    pub text: String,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// What stands behind the fence: `sh`, `toml`, nothing.
    pub info: String,
    /// What stands between the fences.
    pub piece: Piece,
}

/// One Markdown file, taken apart.
#[derive(Debug)]
pub struct Document {
    /// From the project's root.
    pub path: String,
    /// The fenced blocks.
    pub blocks: Vec<Block>,
    /// Code in the text, without its backticks.
    pub spans: Vec<Piece>,
    /// Where links and pictures lead.
    pub links: Vec<Piece>,
    /// The anchors of its headings, as GitHub makes them.
    pub anchors: BTreeSet<String>,
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder that is ours: nothing built, nothing installed, nothing hidden. Paths from the root, in order.
pub fn files(folder: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || name == "node_modules" || entry.path() == root().join("target") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(relative(&entry.path()));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// Every Markdown file of the project.
pub fn documents() -> Vec<Document> {
    let markdown = |path: &String| Path::new(path).extension().is_some_and(|extension| extension == "md");
    files("").into_iter().filter(markdown).map(|path| read(&path)).collect()
}

/// Takes one file apart.
pub fn read(path: &str) -> Document {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let spot = |line: usize| Spot { document: path.to_owned(), line };
    let mut document = Document {
        path: path.to_owned(),
        blocks: Vec::new(),
        spans: Vec::new(),
        links: Vec::new(),
        anchors: BTreeSet::new(),
    };
    // Code and links may go over a line's end, but not over a paragraph's.
    let mut paragraph = Piece { spot: spot(1), text: String::new() };
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let mut block = String::new();
            let inside = lines.by_ref().map(|(line, _)| line).take_while(|line| line.trim() != "```");
            for line in inside {
                block += line.get(indent..).unwrap_or_default();
                block.push('\n');
            }
            let piece = Piece { spot: spot(number + 1), text: block };
            document.blocks.push(Block { info: info.trim().to_owned(), piece });
            continue;
        }
        if let Some(title) = line.strip_prefix('#') {
            document.anchors.insert(anchor(title.trim_start_matches('#')));
        }
        if line.trim().is_empty() || line.starts_with('|') {
            document.take(&paragraph);
            paragraph = Piece { spot: spot(number), text: String::new() };
        }
        paragraph.text += line;
        paragraph.text.push('\n');
    }
    document.take(&paragraph);
    document
}

impl Document {
    fn take(&mut self, paragraph: &Piece) {
        let spot = |at: usize| {
            let line = paragraph.spot.line + paragraph.text[..at].matches('\n').count();
            Spot { line, ..paragraph.spot.clone() }
        };
        let (mut prose, mut at) = (String::new(), 0);
        for (index, part) in paragraph.text.split('`').enumerate() {
            if index % 2 == 1 {
                let words: Vec<&str> = part.split_whitespace().collect();
                self.spans.push(Piece { spot: spot(at), text: words.join(" ").replace("\\|", "|") });
                prose += &" ".repeat(part.len() + 2);
            } else {
                prose += part;
            }
            at += part.len() + 1;
        }
        for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            for (at, _) in prose.match_indices(opening) {
                let target: String = prose[at + opening.len()..].chars().take_while(|&one| one != closing).collect();
                self.links.push(Piece { spot: spot(at), text: target });
            }
        }
    }
}

/// What GitHub makes of a heading: small letters, digits, `-` and `_`; blanks become `-`.
fn anchor(title: &str) -> String {
    let kept = title.trim().chars().filter(|one| one.is_alphanumeric() || [' ', '-', '_'].contains(one));
    kept.map(|one| if one == ' ' { '-' } else { one.to_ascii_lowercase() }).collect()
}

/// The commands of a block: in `sh` every line that is no comment, in `console` those behind `$`. A line that ends with a
/// backslash goes on in the next.
pub fn commands(block: &Block) -> Vec<Piece> {
    let mut found: Vec<Piece> = Vec::new();
    let mut goes_on = false;
    for (line, number) in block.piece.text.lines().zip(block.piece.spot.line..) {
        let text = match (goes_on, block.info.as_str()) {
            (true, _) => Some(line),
            (false, "console") => line.strip_prefix("$ "),
            (false, _) => Some(line).filter(|line| !line.trim().is_empty() && !line.starts_with('#')),
        };
        let Some(text) = text else { continue };
        if let Some(command) = found.last_mut().filter(|_| goes_on) {
            command.text.extend(["\n", text]);
        } else {
            let spot = Spot { line: number, ..block.piece.spot.clone() };
            found.push(Piece { spot, text: text.to_owned() });
        }
        goes_on = text.ends_with('\\');
    }
    found
}

/// A path as the file system has it, without `..`.
pub fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            tidied.pop();
        } else {
            tidied.push(part);
        }
    }
    tidied
}
