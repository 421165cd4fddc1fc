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

/// For each place, which must be sorted, where the name stands that generated code gives the function: right before its
/// parameters, or before `=` or `:`.
pub(super) fn bindings(script: &str, places: &[At]) -> Vec<Option<At>> {
    let mut found = vec![None; places.len()];
    let mut wanted = places.iter().zip(&mut found).peekable();
    for (number, line) in (0_u32..).zip(script.split('\n')) {
        // All places of a line in one pass: a bundle may be one line.
        let (mut column, mut offset) = (0_u32, 0);
        while let Some((at, answer)) = wanted.next_if(|(at, _)| at.line == number) {
            for letter in line[offset..].chars() {
                if column >= at.column {
                    break;
                }
                offset += letter.len_utf8();
                column += u32::from(letter.len_utf16() == 2) + 1;
            }
            let before = &line[..offset];
            let start = binding(before);
            let width = |start: usize| u32::try_from(before[start..].encode_utf16().count()).ok();
            *answer = start.and_then(|start| Some(At { line: number, column: column.checked_sub(width(start)?)? }));
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    found
}

/// Where the name begins, if the text before a function's parameters ends with one.
fn binding(before: &str) -> Option<usize> {
    let in_name = |letter: char| letter.is_alphanumeric() || "_$#".contains(letter);
    let cut = |text: &str| text.trim_end_matches(in_name).len();
    let mut before = before.trim_end();
    loop {
        let start = cut(before);
        let word = &before[start..];
        if !word.is_empty() && !KEYWORDS.contains(&word) {
            return Some(start);
        }
        let rest = before[..start].trim_end().trim_end_matches('*').trim_end();
        let assigned = rest.strip_suffix(['=', ':']).filter(|name| !name.ends_with(['=', '!', '<', '>']));
        if let Some(name) = assigned.map(str::trim_end) {
            let start = cut(name);
            return (start < name.len()).then_some(start);
        }
        if word.is_empty() {
            return None;
        }
        // `function` or `async` without a name: what stands before may be one.
        before = rest;
    }
}

/// Says whether a function may begin at a place of a text: the one of this name, where it has one.
pub(super) fn is_plausible(text: &str, at: At, function: &str) -> bool {
    if function == "(anonymous)" {
        let line = text.lines().nth(at.line as usize).unwrap_or_default();
        let mut after = line.chars().skip(at.column as usize).peekable();
        return after.peek().is_some() && (after.peek() == Some(&'(') || after.collect::<String>().contains("=>"));
    }
    self::at(text, at).as_deref() == Some(plain(function))
}

/// A function's name without what V8 puts before it.
fn plain(function: &str) -> &str {
    function.rsplit(['.', ' ']).next().unwrap_or(function)
}

/// Finds the one definition of a function in a text.
pub(super) fn find(text: &str, function: &str) -> Option<At> {
    let name = plain(function);
    let letters = |letter: char| letter.is_alphanumeric() || "_$#".contains(letter);
    if text.len() > LONGEST || name.is_empty() || !name.chars().all(letters) {
        return None;
    }
    let name = name.replace('$', r"\$");
    let definition = regex(&format!(
        r"(?m)\bfunction\s*\*?\s*({name})\s*[<(]|\bclass\s+({name})\b|\b(?:const|let|var)\s+({name})\b[^=;]*=\s*(?:async\s*)?(?:function\b|\(|[\w$]+\s*=>)|^\s*(?:(?:public|private|protected|static|override|async|get|set)\s+)*\*?\s*({name})\s*(?:<[^>(]*>)?\s*\([^;]*\{{\s*$"
    ));
    let mut found = definition.captures_iter(text).filter_map(|found| found.iter().skip(1).flatten().next());
    let (only, None) = (found.next()?, found.next()) else { return None };
    let before = &text[..only.start()];
    let line = before.rsplit('\n').next().unwrap_or_default();
    let count = |number: usize| u32::try_from(number).ok();
    Some(At { line: count(before.matches('\n').count())?, column: count(line.encode_utf16().count())? })
}

/// No longer text is searched, in bytes.
const LONGEST: usize = 2 << 20;

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

    #[test]
    fn a_name_in_generated_code_stands_before_the_parameters() {
        for (before, name) in [
            ("async function x", Some("x")),
            ("let U=[],w=", Some("w")),
            ("a.b=async ", Some("b")),
            ("{keep:function", Some("keep")),
            ("class e{keepCart", Some("keepCart")),
            ("list.map(", None),
            ("a==", None),
            ("return ", None),
        ] {
            let found = binding(before).map(|start| {
                let rest = &before[start..];
                rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap()
            });
            assert_eq!(found, name, "{before}");
        }
        let places = [At { line: 0, column: 10 }, At { line: 1, column: 8 }, At { line: 1, column: 13 }];
        let found = bindings("function a(n){}\nlet \u{1f600}b=c=>1,d", &places);
        assert_eq!(found, [Some(At { line: 0, column: 9 }), Some(At { line: 1, column: 6 }), None]);
    }

    #[test]
    fn a_function_with_one_definition_is_found_by_its_name() {
        let source = "interface A {}\nexport class Cart {\n  keep(id: number): void {\n    note(id);\n  }\n}\n\
                      export const track = (id: number) => {};\nfunction note(id) {}\nfunction twice() {}\n{ function twice() {} }\n";
        for (function, line) in [
            ("keep", Some(2)),
            ("Cart.keep", Some(2)),
            ("track", Some(6)),
            ("note", Some(7)),
            ("Cart", Some(1)),
            ("twice", None),
            ("gone", None),
        ] {
            assert_eq!(find(source, function).map(|at| at.line), line, "{function}");
        }
        assert!(is_plausible(source, At { line: 7, column: 13 }, "note"));
        assert!(
            !is_plausible(source, At { line: 4, column: 0 }, "note")
                && !is_plausible(source, At { line: 0, column: 900 }, "(anonymous)")
        );
    }
}
