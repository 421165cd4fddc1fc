//! The name of the function that starts at a place, by the text of its source. Pure.
//!
//! A map's own names are wrong for arrows (they name the first parameter), so the text is read instead.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::map::At;

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("invariant: the pattern is a constant")
}

static DECLARED: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^(?:export\s+)?(?:default\s+)?(?:async\s+)?function\b\s*\*?\s*([\w$]+)"));
static METHOD: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"^(?:(?:public|private|protected|static|override|async|get|set)\s+)*\*?\s*(#?[\w$]+)\s*(?:<[^>(]*>)?\s*\(")
});
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| regex(r"(#?[\w$]+)\s*(?::[^=]*)?[=:]\s*(?:async\s*)?\(?$"));
static KEYWORD_BEFORE: LazyLock<Regex> = LazyLock::new(|| regex(r"\bfunction\s*\*?\s*$"));
static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| regex(r"^([\w$]+)"));
static CLASS: LazyLock<Regex> = LazyLock::new(|| regex(r"\bclass\s+([\w$]+)"));

/// Words that stand before a bracket and name no function.
const KEYWORDS: [&str; 9] = ["function", "if", "for", "while", "switch", "catch", "return", "async", "new"];

/// Finds the name, if the text tells it.
pub(super) fn at(source: &str, at: At) -> Option<String> {
    let line = source.lines().nth(at.line as usize)?;
    // Columns count UTF-16 units.
    let mut left = at.column as usize;
    let start = line.char_indices().find(|(_, letter)| {
        let here = left == 0;
        left = left.saturating_sub(letter.len_utf16());
        here
    });
    let (before, after) = line.split_at(start.map_or(line.len(), |(index, _)| index));
    // V8 has a function begin at its parameters; a name right before them belongs to it.
    let in_name = |letter: char| letter.is_alphanumeric() || "_$#".contains(letter);
    let name_start = if after.starts_with('(') { before.trim_end_matches(in_name).len() } else { before.len() };
    let (before, after) = line.split_at(name_start);
    let first = |pattern: &Regex, text: &str| pattern.captures(text).map(|found| found[1].to_owned());
    if let Some(name) = first(&DECLARED, after).or_else(|| first(&CLASS, after).filter(|_| after.starts_with("class")))
    {
        return Some(name);
    }
    if KEYWORD_BEFORE.is_match(before)
        && let Some(name) = first(&IDENTIFIER, after)
    {
        return Some(name);
    }
    let assigned = first(&ASSIGNED, before.trim_end());
    let arrow =
        after.starts_with('(') || after.starts_with("async") || after.contains("=>") || after.starts_with("function");
    if arrow && assigned.is_some() {
        return assigned;
    }
    let method = first(&METHOD, after).filter(|name| !KEYWORDS.contains(&name.as_str()))?;
    // A call inside an expression is none: a method's name starts what stands on its line, but for its modifiers.
    let modifiers = ["public", "private", "protected", "static", "override", "async", "get", "set", "*"];
    if !before.split_whitespace().all(|word| modifiers.contains(&word)) {
        return None;
    }
    if method != "constructor" {
        return Some(method);
    }
    let above: Vec<&str> = source.lines().take(at.line as usize + 1).collect();
    above.into_iter().rev().find_map(|line| first(&CLASS, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_methods_arrows_and_constructors_are_named() {
        let source = "export function keep(id: number) {}\nconst visit = (id) => {};\nclass Cart {\n  constructor(id) {}\n  \
                      static async load<T>(id: T) {}\n}\nlist.map((one) => one);\nconst track: Track = async (id) => {};\nrun(7);";
        for (line, column, name) in [
            (0, 0, Some("keep")),
            (0, 7, Some("keep")),
            (0, 16, Some("keep")),
            (0, 20, Some("keep")),
            (1, 14, Some("visit")),
            (3, 2, Some("Cart")),
            (4, 2, Some("load")),
            (4, 15, Some("load")),
            (6, 9, None),
            (7, 21, Some("track")),
            (99, 0, None),
        ] {
            assert_eq!(at(source, At { line, column }).as_deref(), name, "{line}:{column}");
        }
    }
}
