//! Whatever the documents point to is there: files, headings, tests; and every document is reached from the README.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::docs_support::markdown::{Document, documents, files, root, tidy};

/// What a link leads to, from the root, and the heading in it; of a folder its README, which GitHub shows. Nothing for what is
/// not ours.
fn target(document: &Document, link: &str) -> Option<(String, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
    let folder = Path::new(&document.path).parent().unwrap();
    let path = if path.is_empty() { document.path.clone().into() } else { tidy(&folder.join(path)) };
    let index = path.join("README.md");
    let path = if root().join(&index).exists() { index } else { path };
    Some((path.to_str().unwrap().to_owned(), anchor))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let documents = documents();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in &documents {
        for link in &document.links {
            let Some((path, anchor)) = target(document, &link.text) else { continue };
            seen += 1;
            let heading_is_there = |anchor: &String| {
                documents.iter().any(|document| document.path == path && document.anchors.contains(anchor))
            };
            if !root().join(&path).exists() || anchor.as_ref().is_some_and(|anchor| !heading_is_there(anchor)) {
                wrong.push(format!("{}: {}", link.spot, link.text));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_document_is_reached_from_the_readme() {
    let documents = documents();
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut open = vec!["README.md".to_owned()];
    while let Some(next) = open.pop() {
        let Some(document) = documents.iter().find(|document| document.path == next) else { continue };
        for (path, _) in document.links.iter().filter_map(|link| target(document, &link.text)) {
            if reached.insert(path.clone()) {
                open.push(path);
            }
        }
    }
    let all = documents.iter().map(|document| document.path.clone()).chain(files("docs"));
    let lost: BTreeSet<String> = all.filter(|path| !reached.contains(path)).collect();
    assert!(lost.is_empty(), "nothing that the README leads to links to {lost:?}");
}

#[test]
fn files_and_tests_that_the_text_names_are_there() {
    let tops: BTreeSet<String> = files("").iter().filter_map(|path| Some(path.split_once('/')?.0.to_owned())).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for span in documents().into_iter().flat_map(|document| document.spans) {
        let (path, test) = span.text.split_once("::").map_or((&*span.text, None), |(path, test)| (path, Some(test)));
        let ours = path.split_once('/').is_some_and(|(top, _)| tops.contains(top));
        if !ours || path.contains([' ', '*', '…', '{', ':']) {
            continue;
        }
        seen += 1;
        let named = |test: &str| {
            let source = fs::read_to_string(root().join(path)).unwrap_or_default();
            source.contains(&format!("fn {test}("))
        };
        if !root().join(path).exists() || test.is_some_and(|test| !named(test)) {
            wrong.push(format!("{}: {}", span.spot, span.text));
        }
    }
    assert!(seen > 40, "only {seen} paths were found");
    assert!(wrong.is_empty(), "named and not there:\n{}", wrong.join("\n"));
}
