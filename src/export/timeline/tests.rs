//! What comes out of a past that is known to the byte.

use std::collections::BTreeMap;

use super::*;
use crate::model::{AppName, Basis, DaemonName, LeakState, Life, Limit};

const MIB: f32 = 1_048_576.0;
const SCALE: TimeScale = TimeScale { minute: Duration::from_mins(1), offset_ms: 5_000 };

fn key() -> ProcessKey {
    ProcessKey { daemon: DaemonName::from("default"), pm_id: 0 }
}

/// 100 MiB that grow by one MiB a minute, with a heap of a third of it.
fn rising(rows: std::ops::Range<i64>) -> Vec<Minute> {
    rows.map(|row| {
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let resident = (100.0 + row as f32) * MIB;
        let native = 40.0 * MIB;
        Minute {
            minute: row,
            resident,
            native,
            heap_floor: resident - native - 20.0 * MIB,
            heap_used: resident - native - 10.0 * MIB,
            load: 0.1,
        }
    })
    .collect()
}

fn life(pid: u32, rows: std::ops::Range<i64>, version: &str, end: LifeEnd) -> LifeSummary {
    LifeSummary {
        key: key(),
        app: AppName::from("shop"),
        life: Life { pid, started: 0 },
        version: Some(version.to_owned()),
        revision: None,
        first: Steady(rows.start * 60_000),
        last: Steady(rows.end * 60_000),
        end,
        floors: Vec::new(),
        resident_floors: Vec::new(),
        resident_max: 300.0 * MIB,
        slope: None,
    }
}

fn verdict(at: i64, window: u64) -> Verdict {
    let pace = f64::from(MIB) / 60.0;
    let slope = Slope { bytes_per_second: pace, low: pace * 0.5, high: pace * 2.0 };
    Verdict {
        state: LeakState::Leaking,
        since: Steady(0),
        at: Steady(at * 60_000),
        signal: Signal::Footprint,
        basis: Basis::SampledHeap,
        slopes: BTreeMap::from([(Signal::Footprint, slope)]),
        window: Duration::from_secs(window * 60),
        floor: None,
        limit: Some(Limit { kind: LimitKind::MaxMemoryRestart, bytes: Bytes(512 << 20) }),
        projected_exhaustion: Some(Duration::from_mins(100)),
        provisional: None,
        first_verdict_at: None,
        previous: None,
        rejection: None,
        reason: String::new(),
    }
}

fn past<'a>(
    key: &'a ProcessKey,
    minutes: &'a [Minute],
    lives: &'a [LifeSummary],
    verdict: Option<&'a Verdict>,
) -> Past<'a> {
    static APP: std::sync::LazyLock<AppName> = std::sync::LazyLock::new(|| AppName::new("default", "shop"));
    Past { key, app: &APP, minutes, lives, composition: &[], verdict, exact_since: None, scale: SCALE }
}

fn everything(step: Option<u64>) -> Range {
    Range { from: WallTime(0), to: WallTime(i64::MAX / 2), step: step.map(Duration::from_secs) }
}

#[test]
fn a_step_holds_the_smallest_the_largest_and_the_last_of_its_minutes() {
    let (key, minutes) = (key(), rising(0..120));
    let view = HistoryView::new(&past(&key, &minutes, &[], None), everything(Some(600)));
    assert_eq!(view.time.len(), 12);
    assert_eq!(view.time[..2], [5.0, 605.0]);
    assert_eq!(view.resident.min[1], Some(110 << 20));
    assert_eq!(view.resident.max[1], Some(119 << 20));
    assert_eq!(view.resident.last[1], Some(119 << 20));
    assert_eq!(view.heap_total.last[1], Some(79 << 20));
    assert_eq!(view.heap_used.last[1], Some(69 << 20));
    assert_eq!(view.floor.last[1], Some(99 << 20));
}

#[test]
fn the_step_follows_the_span_and_never_gives_too_many_points() {
    let (key, minutes) = (key(), rising(0..4_320));
    let all = past(&key, &minutes, &[], None);
    assert_eq!(HistoryView::new(&all, everything(None)).time.len(), 480);
    let finest = HistoryView::new(&all, everything(Some(1)));
    assert_eq!((finest.time.len(), finest.step_seconds), (1_440, 180.0));
    let hour = Range { from: WallTime(60_000 * 4_260), ..everything(None) };
    let hour = HistoryView::new(&all, hour);
    assert_eq!((hour.time.len(), hour.step_seconds), (61, 60.0));
}

#[test]
fn a_gap_keeps_its_width_and_holds_nulls() {
    let key = key();
    let minutes: Vec<Minute> = rising(0..10).into_iter().chain(rising(20..30)).collect();
    let view = HistoryView::new(&past(&key, &minutes, &[], None), everything(Some(60)));
    assert_eq!(view.time.len(), 30);
    assert_eq!(view.resident.last[9..21].iter().filter(|value| value.is_none()).count(), 10);
    assert!(view.time.windows(2).all(|pair| (pair[1] - pair[0] - 60.0).abs() < 1e-9));
}

#[test]
fn nothing_remembered_is_an_empty_view() {
    let key = key();
    let view = HistoryView::new(&past(&key, &[], &[], Some(&verdict(10, 10))), everything(None));
    assert_eq!((view.time.len(), view.oldest, view.fit, view.projection), (0, None, None, None));
    assert_eq!(csv(&past(&key, &[], &[], None), everything(None)), format!("{CSV_HEADER}\n"));
    assert_eq!(sparkline(&[], 60, SCALE), None);
}

#[test]
fn the_line_goes_through_the_floors_of_its_window_only() {
    let (key, minutes) = (key(), rising(0..240));
    let lives = [life(1, 0..240, "1", LifeEnd::Running)];
    let verdict = verdict(239, 120);
    let view = HistoryView::new(&past(&key, &minutes, &lives, Some(&verdict)), everything(None));
    let fit = view.fit.unwrap();
    assert_eq!((fit.signal.as_str(), fit.from), ("footprint", SCALE.wall_of_row(119)));
    let pivot_row = (fit.pivot_at - 5.0) / 60.0;
    let footprint = (80.0 + pivot_row) * f64::from(MIB);
    assert!((fit.pivot_bytes - footprint).abs() < f64::from(MIB), "{} {footprint}", fit.pivot_bytes);
    let projection = view.projection.unwrap();
    assert_eq!(projection.from_bytes, 339 << 20);
    let left = |at: f64| at - projection.from;
    assert!((left(projection.at) - 6_000.0).abs() < 1.0);
    assert!((left(projection.earliest_at) - 3_000.0).abs() < 1.0);
    assert!((left(projection.latest_at.unwrap()) - 12_000.0).abs() < 1.0);
}

#[test]
fn restarts_and_new_versions_are_marked_where_they_lie_in_the_range() {
    let (key, minutes) = (key(), rising(0..300));
    let lives = [
        life(1, 0..100, "1.0", LifeEnd::Restarted),
        life(2, 101..200, "1.0", LifeEnd::RestartedByUs),
        life(3, 201..300, "1.1", LifeEnd::Running),
    ];
    let all = past(&key, &minutes, &lives, None);
    let kinds = |range| -> Vec<(String, String)> {
        HistoryView::new(&all, range).marks.into_iter().map(|mark| (mark.kind, mark.end)).collect()
    };
    let own = |kind: &str, end: &str| (kind.to_owned(), end.to_owned());
    assert_eq!(kinds(everything(None)), [own("restart", "restarted"), own("deploy", "restarted_by_us")]);
    assert_eq!(kinds(Range { from: WallTime(150 * 60_000), ..everything(None) }), [own("deploy", "restarted_by_us")]);
}

#[test]
fn the_csv_has_a_row_a_minute_with_its_life() {
    let key = key();
    let mut minutes = rising(0..4);
    minutes[1] = Minute::empty(1);
    minutes[3].heap_floor = f32::NAN;
    let lives = [life(1, 0..2, "1", LifeEnd::Restarted), life(2, 2..4, "1", LifeEnd::Running)];
    let mut exact = past(&key, &minutes, &lives, None);
    assert_eq!(
        csv(&exact, everything(None)),
        format!(
            "{CSV_HEADER}\n5,104857600,41943040,62914560,,,1\n125,106954752,44040192,65011712,,,2\n\
             185,108003328,55574528,66060288,,,2\n"
        )
    );
    exact.exact_since = Some(0);
    assert_eq!(
        csv(&exact, everything(None)).lines().skip(2).collect::<Vec<_>>(),
        ["125,106954752,54525952,65011712,44040192,2,2", "185,108003328,55574528,66060288,,2,2"]
    );
}

#[test]
fn a_sparkline_keeps_its_floors() {
    let mut minutes = rising(0..100);
    minutes[37].resident = MIB;
    for minute in &mut minutes[50..60] {
        *minute = Minute::empty(minute.minute);
    }
    let view = sparkline(&minutes, 10, SCALE).unwrap();
    assert_eq!((view.from, view.step_seconds), (5.0, 600.0));
    assert_eq!(view.resident_min_bytes.len(), 10);
    assert_eq!(view.resident_min_bytes[3], Some(1 << 20));
    assert_eq!(view.resident_min_bytes[5], None);
    assert_eq!(view.resident_min_bytes[9], Some(190 << 20));
}

#[test]
fn ranges_are_read_in_both_forms_and_refused_with_a_reason() {
    let now = WallTime(200_000_000);
    let parse = |query: &'static str| {
        let pairs: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        Range::parse(|name| pairs.get(name).copied(), now)
    };
    let day = Range { from: WallTime(113_600_000), to: now, step: None };
    assert_eq!(parse(""), Ok(day));
    assert_eq!(parse("span=3600"), Ok(Range { from: WallTime(196_400_000), ..day }));
    let both = parse("from=1970-01-01T00:00:01Z&to=2.5&step=30").unwrap();
    assert_eq!(both, Range { from: WallTime(1_000), to: WallTime(2_500), step: Some(Duration::from_secs(30)) });
    for (query, text) in [
        ("from=yesterday", "parameter from: is neither seconds since the Unix epoch nor an RFC 3339 time"),
        ("from=9&to=8", "parameter to: lies before from"),
        ("to=NaN", "parameter to: is neither seconds since the Unix epoch nor an RFC 3339 time"),
        ("step=-1", "parameter step: is not a positive number of seconds"),
        ("span=1e300", "parameter span: is not a positive number of seconds"),
    ] {
        assert_eq!(parse(query).unwrap_err().to_string(), text);
    }
}

proptest::proptest! {
    #[test]
    fn columns_are_of_equal_length_and_bounded(
        rows in proptest::collection::btree_set(-5_000_i64..5_000, 0..200),
        step in proptest::option::of(1_u64..100_000),
        from in -400_000_i64..400_000,
    ) {
        let key = key();
        let minutes: Vec<Minute> = rows.into_iter().flat_map(|row| rising(row..row + 1)).collect();
        let range = Range { from: WallTime(from * 1000), to: WallTime(400_000_000), step: step.map(Duration::from_secs) };
        let view = HistoryView::new(&past(&key, &minutes, &[], None), range);
        let count = view.time.len();
        proptest::prop_assert!(i64::try_from(count).unwrap() <= MOST_POINTS + 1);
        for series in [&view.resident, &view.heap_used, &view.heap_total, &view.floor] {
            proptest::prop_assert!([&series.min, &series.max, &series.last].iter().all(|column| column.len() == count));
        }
        proptest::prop_assert!(view.time.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
