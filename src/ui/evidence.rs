//! A profile as the page shows it: the functions that hold most, and the calls as a tree.

use super::views::{EvidenceItemView, FrameView};
use crate::evidence::keep::Record;
use crate::evidence::profile::Profile;
use crate::evidence::profile::report::{FlameBox, FunctionRow};
use crate::evidence::profile::{ProfileSummary, summarise};
use crate::model::Bytes;

/// Functions listed.
const TOP: usize = 20;
/// Deeper calls are counted with those that made them.
const DEEPEST: u32 = 100;
/// Calls narrower than one in this many are left out of the tree.
const NARROW: u64 = 200;

impl EvidenceItemView {
    /// Makes the view of a profile; of one that cannot be read the reason.
    pub fn of_profile(record: &Record, size: Option<u64>, profile: Result<&Profile, String>) -> Self {
        let summary = profile.map(|profile| summarise(profile, &record.file, TOP));
        let (state, sentence, top, flame) = match &summary {
            Ok(summary) => ("done", sentence(summary), top(summary), tree(&summary.flame)),
            Err(reason) => ("failed", reason.clone(), Vec::new(), None),
        };
        Self {
            id: record.file.clone(),
            kind: "heap_profile".to_owned(),
            daemon: record.daemon.as_str().to_owned(),
            app: record.app.as_str().to_owned(),
            pm_id: record.pm_id,
            taken_at: record.taken_at.as_seconds(),
            trigger: "person".to_owned(),
            state: state.to_owned(),
            duration_seconds: record.sampled_seconds,
            pause_seconds: None,
            size_bytes: size,
            sentence,
            top,
            flame: flame.map(Box::new),
        }
    }
}

fn sentence(summary: &ProfileSummary) -> String {
    let total = Bytes(summary.total_bytes);
    match summary.own.first().or(summary.functions.first()) {
        Some(row) => format!(
            "of {total} that was allocated meanwhile and is still alive, {} was allocated by {} and what it calls",
            Bytes(row.total_bytes),
            row.frame
        ),
        None => "nothing that was allocated meanwhile is still alive".to_owned(),
    }
}

fn top(summary: &ProfileSummary) -> Vec<FrameView> {
    let frame = |row: &FunctionRow| FrameView {
        name: row.frame.function.clone(),
        location: row.frame.place(),
        bytes: row.self_bytes,
        children: Vec::new(),
    };
    summary.functions.iter().take(TOP).map(frame).collect()
}

/// Makes a tree of boxes that stand in order, each before those below it.
fn tree(boxes: &[FlameBox]) -> Option<FrameView> {
    let total = boxes.first()?.total_bytes;
    let wide =
        boxes.iter().filter(|wide| wide.depth <= DEEPEST && wide.total_bytes > 0 && wide.total_bytes >= total / NARROW);
    let mut open: Vec<FrameView> = Vec::new();
    for wide in wide {
        while open.len() > wide.depth as usize {
            close(&mut open);
        }
        let label = wide.label.as_str();
        let (name, location) = label.split_once(' ').map_or((label, None), |(name, place)| (name, Some(place)));
        open.push(FrameView {
            name: name.to_owned(),
            location: location.map(str::to_owned),
            bytes: wide.total_bytes,
            children: Vec::new(),
        });
    }
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop()
}

fn close(open: &mut Vec<FrameView>) {
    let Some(done) = open.pop() else { return };
    if let Some(parent) = open.last_mut() {
        parent.children.push(done);
    } else {
        open.push(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::profile::read;
    use crate::model::WallTime;

    fn record() -> Record {
        Record {
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 0,
            taken_at: WallTime(1500),
            sampled_seconds: Some(2.0),
            cost: None,
            file: "shop-0-1.heapprofile".to_owned(),
        }
    }

    const PROFILE: &str = r#"{"head":{"callFrame":{"functionName":"(root)","scriptId":"0","url":"","lineNumber":-1,"columnNumber":-1},
        "selfSize":0,"children":[
          {"callFrame":{"functionName":"serve","scriptId":"1","url":"file:///app/a.js","lineNumber":1,"columnNumber":0},"selfSize":100,"children":[
            {"callFrame":{"functionName":"remember","scriptId":"1","url":"file:///app/a.js","lineNumber":9,"columnNumber":0},"selfSize":5000,"children":[]}]},
          {"callFrame":{"functionName":"idle","scriptId":"1","url":"file:///app/a.js","lineNumber":20,"columnNumber":0},"selfSize":900,"children":[]}]}}"#;

    #[test]
    fn a_profile_becomes_a_sentence_a_list_and_a_tree() {
        let profile = read(PROFILE.as_bytes(), "test").unwrap();
        let view = EvidenceItemView::of_profile(&record(), Some(10), Ok(&profile));
        assert_eq!((view.state.as_str(), view.taken_at), ("done", 1.5));
        let names: Vec<(&str, u64)> = view.top.iter().map(|row| (row.name.as_str(), row.bytes)).collect();
        assert_eq!(names, [("remember", 5000), ("idle", 900), ("serve", 100)]);
        assert!(view.sentence.contains("serve") && view.sentence.contains("a.js"), "{}", view.sentence);
        let root = view.flame.unwrap();
        assert_eq!(root.bytes, 6000);
        let below: Vec<(&str, u64)> = root.children.iter().map(|call| (call.name.as_str(), call.bytes)).collect();
        assert_eq!(below, [("serve", 5100), ("idle", 900)]);
        assert_eq!(root.children[0].children[0].name, "remember");
        assert!(root.children[0].children[0].location.as_deref().is_some_and(|place| place.contains("a.js")));
    }

    #[test]
    fn a_profile_that_cannot_be_read_says_why() {
        let view = EvidenceItemView::of_profile(&record(), None, Err("the file is gone".to_owned()));
        assert_eq!((view.state.as_str(), view.sentence.as_str()), ("failed", "the file is gone"));
        assert!(view.top.is_empty() && view.flame.is_none());
    }
}
