//! Evidence as the page shows it: of a profile the functions that hold most and the calls as a tree, of a series of
//! snapshots what its report says.

use super::views::{EvidenceItemView, FrameView};
use crate::evidence::keep::Record;
use crate::evidence::profile::report::FlameBox;
use crate::evidence::profile::{Frame, Profile, ProfileSummary, summarise};
use crate::evidence::report::SeriesReport;

/// Functions listed.
const TOP: usize = 20;
/// Deeper calls are counted with those that made them.
const DEEPEST: u32 = 100;
/// Calls narrower than one in this many are left out of the tree.
const NARROW: u64 = 200;
/// Boxes of the tree.
const MOST: usize = 400;

impl EvidenceItemView {
    /// Makes the view of a profile; of one that cannot be read the reason.
    pub fn of_profile(record: &Record, size: Option<u64>, profile: Result<(Profile, Vec<String>), String>) -> Self {
        match profile {
            Ok((profile, notes)) => {
                let summary = summarise(&profile, &record.file, TOP);
                let flame = tree(&summary.flame).map(Box::new);
                let bare = Self::bare(record, "done", summary.sentence.clone());
                let notes = record.notes.iter().cloned().chain(notes).collect();
                Self { size_bytes: size, top: top(&summary), flame, notes, ..bare }
            }
            Err(reason) => Self { size_bytes: size, ..Self::bare(record, "failed", reason) },
        }
    }

    /// Makes the view of what is being taken.
    pub fn running(record: &Record, sentence: String) -> Self {
        Self::bare(record, "running", sentence)
    }

    /// Makes the view of a snapshot, which takes too much memory to be read here: of the last one of a series with what
    /// the report beside it says, or why that cannot be read.
    pub fn of_snapshot(record: &Record, size: u64, report: Option<Result<SeriesReport, String>>) -> Self {
        let by_hand = format!("leakslope heap summary {} tells what holds the memory", record.file);
        let (sentence, growth) = match report {
            Some(Ok(report)) => (report.sentence, report.growth),
            Some(Err(why)) => (format!("{why}; {by_hand}"), None),
            None => (by_hand, None),
        };
        Self { size_bytes: Some(size), growth: growth.map(Box::new), ..Self::bare(record, "done", sentence) }
    }

    fn bare(record: &Record, state: &str, sentence: String) -> Self {
        Self {
            id: record.file.clone(),
            kind: record.kind.as_str().to_owned(),
            daemon: record.daemon.as_str().to_owned(),
            namespace: record.app.namespace().to_owned(),
            app: record.app.name().to_owned(),
            pm_id: record.pm_id,
            taken_at: record.taken_at.as_seconds(),
            trigger: record.trigger.as_str().to_owned(),
            state: state.to_owned(),
            duration_seconds: record.sampled_seconds,
            pause_seconds: record.cost.and_then(|cost| cost.pause_seconds),
            size_bytes: None,
            sentence,
            top: Vec::new(),
            flame: None,
            growth: None,
            notes: Vec::new(),
        }
    }
}

fn top(summary: &ProfileSummary) -> Vec<FrameView> {
    summary.holders.iter().map(|holder| view(&holder.frame, holder.bytes)).collect()
}

fn view(frame: &Frame, bytes: u64) -> FrameView {
    FrameView {
        name: frame.function.clone(),
        location: frame.place(),
        generated: frame.generated.clone(),
        package: frame.package.clone(),
        bytes,
        children: Vec::new(),
    }
}

/// Makes a tree of boxes that stand in order, each before those below it. Of more than [`MOST`] the largest stay: a box is
/// never smaller than those below it, so what stays hangs together.
fn tree(boxes: &[FlameBox]) -> Option<FrameView> {
    let total = boxes.first()?.total_bytes;
    let shown = |wide: &&FlameBox| wide.depth <= DEEPEST && wide.total_bytes > 0 && wide.total_bytes >= total / NARROW;
    let mut sizes: Vec<u64> = boxes.iter().filter(shown).map(|wide| wide.total_bytes).collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    // Boxes of the size that would be one too many all go.
    let least = sizes.get(MOST).map_or(0, |size| size + 1);
    let mut open: Vec<FrameView> = Vec::new();
    for wide in boxes.iter().filter(shown).filter(|wide| wide.total_bytes >= least) {
        while open.len() > wide.depth as usize {
            close(&mut open);
        }
        open.push(view(&wide.frame, wide.total_bytes));
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
    use crate::evidence::keep::{Cost, Kind, Road, Trigger};
    use crate::evidence::profile::read;
    use crate::evidence::profile::read::Call;
    use crate::model::WallTime;

    fn record() -> Record {
        Record {
            kind: Kind::HeapProfile,
            trigger: Trigger::Leak,
            user: None,
            life: None,
            daemon: "default".into(),
            app: "shop".into(),
            pm_id: 0,
            taken_at: WallTime(1500),
            sampled_seconds: Some(2.0),
            cost: Some(Cost { road: Road::Inspector, pause_seconds: Some(0.02), expected: None }),
            notes: Vec::new(),
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
        let view =
            EvidenceItemView::of_profile(&record(), Some(10), Ok((profile, vec!["of what it cannot tell".to_owned()])));
        assert_eq!(view.notes.len(), 1);
        assert_eq!((view.state.as_str(), view.trigger.as_str(), view.taken_at), ("done", "leak", 1.5));
        assert_eq!(view.pause_seconds, Some(0.02));
        let names: Vec<(&str, u64)> = view.top.iter().map(|row| (row.name.as_str(), row.bytes)).collect();
        assert_eq!(names, [("remember", 5000), ("idle", 900), ("serve", 100)]);
        assert!(view.sentence.contains("remember at /app/a.js:10 allocated"), "{}", view.sentence);
        let root = view.flame.unwrap();
        assert_eq!(root.bytes, 6000);
        let below: Vec<(&str, u64)> = root.children.iter().map(|call| (call.name.as_str(), call.bytes)).collect();
        assert_eq!(below, [("serve", 5100), ("idle", 900)]);
        assert_eq!(root.children[0].children[0].name, "remember");
        assert!(root.children[0].children[0].location.as_deref().is_some_and(|place| place.contains("a.js")));
    }

    fn size(tree: &FrameView) -> usize {
        1 + tree.children.iter().map(size).sum::<usize>()
    }

    #[test]
    fn a_name_with_a_space_stays_whole_and_a_wide_tree_stays_small() {
        let frame = |function: &str, line| Frame {
            function: function.into(),
            file: "/app/a.js".into(),
            line,
            column: 1,
            ..Frame::default()
        };
        let call = |parent, frame, bytes| Call { parent, frame, bytes };
        let frames = vec![frame("(root)", 0), frame("get foo", 7), frame("set bar", 9)];
        let mut calls = vec![call(0, 0, 0), call(0, 1, 1 << 20)];
        let of_root = |view: &EvidenceItemView| view.flame.clone().unwrap().children;
        let small = Profile { frames: frames.clone(), calls: calls.clone() };
        let named = of_root(&EvidenceItemView::of_profile(&record(), None, Ok((small, Vec::new()))));
        assert_eq!((named[0].name.as_str(), named[0].location.as_deref()), ("get foo", Some("/app/a.js:7:1")));
        for chain in 0..150 {
            // Only the last of a chain holds memory, so that all of it is as wide.
            calls.extend((0..20).map(|step| {
                let parent = if step == 0 { 0 } else { 1 + chain * 20 + step };
                call(parent, 2, if step == 19 { (1 << 20) + u64::from(chain) } else { 0 })
            }));
        }
        let wide = EvidenceItemView::of_profile(&record(), None, Ok((Profile { frames, calls }, Vec::new())));
        let boxes = size(&wide.flame.unwrap());
        assert!(boxes <= MOST && boxes > MOST / 2, "{boxes} boxes");
    }

    #[test]
    fn a_snapshot_says_what_the_report_of_its_series_says() {
        let record = Record { kind: Kind::HeapSnapshot, file: "shop.3.heapsnapshot".to_owned(), ..record() };
        let report = br#"{"sentence":"the Map `m` only grows","growth":{"ways":["m (Map) \u2192 A"]}}"#;
        let report = SeriesReport::read(report).unwrap();
        let view = EvidenceItemView::of_snapshot(&record, 9, Some(Ok(report.clone())));
        assert_eq!((view.state.as_str(), view.sentence.as_str()), ("done", "the Map `m` only grows"));
        assert_eq!((view.size_bytes, view.growth), (Some(9), report.growth.map(Box::new)));
        for (report, told) in [
            (None, "leakslope heap summary shop.3.heapsnapshot tells what holds the memory"),
            (
                Some(Err("shop.3.heapsnapshot.report cannot be read: it is cut off".to_owned())),
                "shop.3.heapsnapshot.report cannot be read: it is cut off; leakslope heap summary shop.3.heapsnapshot \
                 tells what holds the memory",
            ),
        ] {
            let view = EvidenceItemView::of_snapshot(&record, 9, report);
            assert_eq!((view.state.as_str(), view.sentence.as_str(), view.growth), ("done", told, None));
        }
    }

    #[test]
    fn a_profile_that_cannot_be_read_says_why() {
        let view = EvidenceItemView::of_profile(&record(), None, Err("the file is gone".to_owned()));
        assert_eq!((view.state.as_str(), view.sentence.as_str()), ("failed", "the file is gone"));
        assert!(view.top.is_empty() && view.flame.is_none());
    }
}
