//! Reading what an app reports through pm2's metric channel (`axm_monitor`).
//!
//! Known metrics are told by their `type`, never by the name that pm2 shows, and end in base units: bytes, seconds, per
//! second. All others that hold a number are kept as custom metrics, a bounded number of them. A value that cannot be
//! read is absent and takes no other with it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::fields::{clean, label, number};
use super::scan::{Json, Names, Scan};
use model::{AppMetrics, Bytes, CustomMetric, GcReport};

/// The most custom metrics kept of one process; beyond, the last by name are dropped.
pub const CUSTOM_LIMIT: usize = 64;
const NAME_LIMIT: usize = 64;
const UNIT_LIMIT: usize = 16;
const TYPE_LIMIT: usize = 64;
const GC_PREFIX: &str = "leakslope/";

const MEMORY_UNITS: [(&str, f64); 10] = [
    ("B", 1.0),
    ("byte", 1.0),
    ("bytes", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
];
const TIME_UNITS: [(&str, f64); 5] = [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];

/// What is read of a metric.
const PARTS: Names<3> = Names::new(["value", "unit", "type"]);

/// Reads the map of metrics that comes next; empty where it is no map, none where the text is no JSON.
pub(super) fn read_metrics(scan: &mut Scan<'_>) -> Option<AppMetrics> {
    let mut metrics = AppMetrics::default();
    let mut https = AppMetrics::default();
    let mut custom: BTreeMap<String, CustomMetric> = BTreeMap::new();
    scan.object(|name, scan| {
        let parts = scan.fields(&PARTS)?;
        let Some(reading) = Reading::of(&parts) else { return Some(()) };
        if let Some(report) = reading.kind.strip_prefix(GC_PREFIX) {
            read_report(report, &reading, metrics.gc.get_or_insert_default());
        } else if !read_known(&reading, &mut metrics, &mut https) {
            keep_custom(name, &reading, &mut custom);
        }
        Some(())
    })?;
    metrics.http_requests_per_second = sum(metrics.http_requests_per_second, https.http_requests_per_second);
    metrics.http_p50_seconds = metrics.http_p50_seconds.or(https.http_p50_seconds);
    metrics.http_p95_seconds = metrics.http_p95_seconds.or(https.http_p95_seconds);
    metrics.custom = custom.into_values().collect();
    Some(metrics)
}

fn sum(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (one, other) => one.or(other),
    }
}

/// One entry of the map, before it is known what it means.
struct Reading<'t> {
    kind: Cow<'t, str>,
    value: f64,
    unit: Cow<'t, str>,
}

impl<'t> Reading<'t> {
    fn of([value, unit, kind]: &[Option<Json<'t>>; 3]) -> Option<Self> {
        let value = (*value)?;
        let (value, inner_unit) = match number(value) {
            Some(number) => (number, Cow::Borrowed("")),
            None => match value.string()? {
                Cow::Borrowed(text) => split_unit(text).map(|(value, unit)| (value, Cow::Borrowed(unit)))?,
                Cow::Owned(text) => split_unit(&text).map(|(value, unit)| (value, Cow::Owned(unit.to_owned())))?,
            },
        };
        let unit = unit.and_then(|unit| label(unit, UNIT_LIMIT)).unwrap_or(inner_unit);
        Some(Self { kind: kind.and_then(|kind| label(kind, TYPE_LIMIT)).unwrap_or_default(), value, unit })
    }

    /// The value times the factor of its unit, or of `default` where it has none; none where the unit is not among those of
    /// the quantity or the value is negative.
    fn scaled(&self, default: &str, units: &[(&str, f64)]) -> Option<f64> {
        let own = if self.unit.is_empty() { default } else { &*self.unit };
        let (_, factor) = units.iter().find(|(unit, _)| *unit == own)?;
        plain(self.value * factor)
    }

    fn memory(&self, default: &str) -> Option<Bytes> {
        self.scaled(default, &MEMORY_UNITS).map(Bytes::from_f64)
    }

    fn seconds(&self, default: &str) -> Option<f64> {
        self.scaled(default, &TIME_UNITS)
    }

    /// A rate of pm2's own meters. They call it "req/min" in pm2 5, 6 and 7, and mean a second: their average over a minute
    /// is told for one second. 22 requests a second were told as 13.6 "req/min" after a minute of the average's warming up.
    fn per_second(&self) -> Option<f64> {
        self.scaled("req/min", &[("req/min", 1.0), ("req/s", 1.0), ("req/sec", 1.0)])
    }

    /// A count, whatever the app calls its unit.
    fn amount(&self) -> Option<f64> {
        plain(self.value)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
    fn count(&self) -> u64 {
        self.amount().map_or(0, |count| count.min(9.0e15) as u64)
    }
}

fn plain(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// Puts a metric of pm2's own agent into its place; false where the type is none of them.
fn read_known(reading: &Reading<'_>, metrics: &mut AppMetrics, https: &mut AppMetrics) -> bool {
    match &*reading.kind {
        "internal/v8/heap/used" => metrics.heap_used = reading.memory("MiB"),
        "internal/v8/heap/total" => metrics.heap_total = reading.memory("MiB"),
        "internal/libuv/latency/p50" => metrics.event_loop_p50_seconds = reading.seconds("ms"),
        "internal/libuv/latency/p95" => metrics.event_loop_p95_seconds = reading.seconds("ms"),
        "internal/libuv/handles" => metrics.active_handles = reading.amount(),
        "internal/libuv/requests" => metrics.active_requests = reading.amount(),
        "internal/http/builtin/reqs" => metrics.http_requests_per_second = reading.per_second(),
        "internal/http/builtin/latency/p50" => metrics.http_p50_seconds = reading.seconds("ms"),
        "internal/http/builtin/latency/p95" => metrics.http_p95_seconds = reading.seconds("ms"),
        "internal/https/builtin/reqs" => https.http_requests_per_second = reading.per_second(),
        "internal/https/builtin/latency/p50" => https.http_p50_seconds = reading.seconds("ms"),
        "internal/https/builtin/latency/p95" => https.http_p95_seconds = reading.seconds("ms"),
        _ => return false,
    }
    true
}

/// Puts a figure of leakslope's own preload into its place; a figure this version does not know is dropped.
fn read_report(name: &str, reading: &Reading<'_>, report: &mut GcReport) {
    match name {
        "heap_after_major_gc" => report.heap_after_major_gc = reading.memory("B"),
        "major_gcs" => report.major_gcs = reading.count(),
        "minor_gcs" => report.minor_gcs = reading.count(),
        "gc_seconds" => report.gc_seconds = reading.seconds("s").unwrap_or_default(),
        "heap_size_limit" => report.heap_size_limit = reading.memory("B"),
        "space/new" => report.new_space = reading.memory("B"),
        "space/old" => report.old_space = reading.memory("B"),
        "space/large_object" => report.large_object_space = reading.memory("B"),
        "external" => report.external = reading.memory("B"),
        "heap_physical" => report.heap_physical = reading.memory("B"),
        "global_handles" => report.global_handles = reading.memory("B"),
        _ => {}
    }
}

fn keep_custom(name: &str, reading: &Reading<'_>, custom: &mut BTreeMap<String, CustomMetric>) {
    let Some(name) = clean(name, usize::MAX).map(|name| shortened(&name)) else { return };
    let (value, unit) = (reading.value, reading.unit.clone().into_owned());
    custom.entry(name.clone()).or_insert(CustomMetric { name, value, unit });
    if custom.len() > CUSTOM_LIMIT {
        custom.pop_last();
    }
}

/// Cuts a name to its bound. A cut one ends in a digest of the whole, so that two that begin alike stay two.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_LIMIT {
        return name.to_owned();
    }
    // FNV-1a of 32 bits (Fowler, Noll, Vo).
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let kept: String = name.chars().take(NAME_LIMIT - 9).collect();
    format!("{kept}~{hash:08x}")
}

/// Splits `15.07 MB` into its number and its unit; none where the text is not a number followed by at most a unit.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let after_number = text.char_indices().find(|(index, character)| {
        !(character.is_ascii_digit() || *character == '.' || (*index == 0 && "+-".contains(*character)))
    });
    let (digits, unit) = text.split_at(after_number.map_or(text.len(), |(index, _)| index));
    if let Ok(value) = text.parse::<f64>() {
        // The whole text is a number, perhaps with an exponent; `inf` and `nan` parse too.
        return value.is_finite().then_some((value, ""));
    }
    let value: f64 = digits.parse().ok()?;
    let unit = unit.trim();
    let mut characters = unit.chars();
    let first = characters.next()?;
    let fits = (first.is_alphabetic() || "%°".contains(first))
        && unit.chars().count() <= UNIT_LIMIT
        && characters.all(|character| character.is_alphabetic() || "%°/²³ ".contains(character));
    (fits && value.is_finite()).then_some((value, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(json: &str) -> AppMetrics {
        read_metrics(&mut Scan::new(json)).unwrap()
    }

    #[test]
    fn units_inside_a_value_are_split_off() {
        for (text, expected) in [
            ("15.07 MB", Some((15.07, "MB"))),
            ("246.82", Some((246.82, ""))),
            ("-3", Some((-3.0, ""))),
            ("1e3", Some((1000.0, ""))),
            ("12%", Some((12.0, "%"))),
            ("3 req/min", Some((3.0, "req/min"))),
            (" 7ms ", Some((7.0, "ms"))),
            ("N/A", None),
            ("", None),
            ("inf", None),
            ("NaN", None),
            ("-Infinity", None),
            ("1.2.3", None),
            ("12:30", None),
            ("2024-01-01", None),
            ("5 token=hunter2", None),
            ("5 a very long sentence", None),
            (".", None),
            ("MB", None),
        ] {
            assert_eq!(split_unit(text), expected, "{text}");
        }
    }

    #[test]
    fn known_metrics_are_told_by_type_and_end_in_base_units() {
        let metrics = read_json(
            r#"{
            "Any Name": {"value": "2.5", "type": "internal/v8/heap/used", "unit": "MiB"},
            "Heap Size": {"value": 3, "type": "internal/v8/heap/total"},
            "a": {"value": "1.5", "type": "internal/libuv/latency/p50", "unit": "ms"},
            "b": {"value": "2 s", "type": "internal/libuv/latency/p95"},
            "c": {"value": 3, "type": "internal/libuv/handles"},
            "d": {"value": 0, "type": "internal/libuv/requests"},
            "HTTP": {"value": 2, "type": "internal/http/builtin/reqs", "unit": "req/min"},
            "HTTPS": {"value": 1, "type": "internal/https/builtin/reqs", "unit": "req/min"},
            "e": {"value": 20, "type": "internal/https/builtin/latency/p50", "unit": "ms"}
        }"#,
        );
        assert_eq!(metrics.heap_used, Some(Bytes(2_621_440)));
        assert_eq!(metrics.heap_total, Some(Bytes(3 << 20)));
        assert_eq!(metrics.event_loop_p50_seconds, Some(0.0015));
        assert_eq!(metrics.event_loop_p95_seconds, Some(2.0));
        assert_eq!((metrics.active_handles, metrics.active_requests), (Some(3.0), Some(0.0)));
        assert_eq!(metrics.http_requests_per_second, Some(3.0));
        assert_eq!(metrics.http_p50_seconds, Some(0.02));
        assert_eq!((metrics.gc, metrics.custom), (None, vec![]));
    }

    #[test]
    fn one_bad_value_loses_nothing_else() {
        let metrics = read_json(
            r#"{
            "null": {"value": null, "type": "internal/v8/heap/used"},
            "object": {"value": {"a": 1}},
            "array": [1], "text": "x", "number": 1, "nothing": null,
            "no value": {"type": "x"},
            "wrong unit": {"value": 1, "type": "internal/v8/heap/total", "unit": "bananas"},
            "negative": {"value": -1, "type": "internal/libuv/handles"},
            "words": {"value": "not a number"},
            "flag": {"value": true},
            "size": {"value": "15.07 MB", "type": "x", "unit": ""},
            "count": {"value": 4, "unit": "  jobs\u0000 "},
            "": {"value": 1},
            "\ud800": {"value": 2}
        }"#,
        );
        assert_eq!((metrics.heap_used, metrics.heap_total, metrics.active_handles), (None, None, None));
        let custom: Vec<_> =
            metrics.custom.iter().map(|one| (one.name.as_str(), one.value, one.unit.as_str())).collect();
        assert_eq!(custom, [("count", 4.0, "jobs"), ("size", 15.07, "MB"), ("\u{fffd}\u{fffd}\u{fffd}", 2.0, "")]);
        for other in ["null", "[]", "3", "\"x\""] {
            assert_eq!(read_json(other), AppMetrics::default(), "{other}");
        }
    }

    #[test]
    fn the_preload_reports_exact_figures() {
        let metrics = read_json(
            r#"{
            "leakslope heap after major gc": {"value": 5000001, "type": "leakslope/heap_after_major_gc", "unit": "bytes"},
            "m": {"value": 3, "type": "leakslope/major_gcs"},
            "n": {"value": 40, "type": "leakslope/minor_gcs"},
            "s": {"value": 0.125, "type": "leakslope/gc_seconds", "unit": "s"},
            "l": {"value": 2197815296, "type": "leakslope/heap_size_limit"},
            "new": {"value": 1, "type": "leakslope/space/new"},
            "old": {"value": 2, "type": "leakslope/space/old"},
            "lo": {"value": 3, "type": "leakslope/space/large_object"},
            "ext": {"value": "4", "type": "leakslope/external"},
            "physical": {"value": 5, "type": "leakslope/heap_physical"},
            "handles": {"value": 6, "type": "leakslope/global_handles"},
            "later": {"value": 5, "type": "leakslope/of_a_later_version"}
        }"#,
        );
        let report = GcReport {
            heap_after_major_gc: Some(Bytes(5_000_001)),
            major_gcs: 3,
            minor_gcs: 40,
            gc_seconds: 0.125,
            heap_size_limit: Some(Bytes(2_197_815_296)),
            new_space: Some(Bytes(1)),
            old_space: Some(Bytes(2)),
            large_object_space: Some(Bytes(3)),
            external: Some(Bytes(4)),
            heap_physical: Some(Bytes(5)),
            global_handles: Some(Bytes(6)),
        };
        assert_eq!((metrics.gc, metrics.custom), (Some(report), vec![]));
    }

    #[test]
    fn custom_metrics_that_begin_alike_are_both_kept() {
        let begin = "orders waiting in the queue of the payment service of the region ";
        let metrics = read_json(&format!(r#"{{"{begin}north":{{"value":1}},"{begin}south":{{"value":2}}}}"#));
        let mut kept: Vec<_> = metrics.custom.iter().map(|one| (one.value, one.name.chars().count())).collect();
        kept.sort_by(|left, right| left.0.total_cmp(&right.0));
        assert_eq!(kept, [(1.0, NAME_LIMIT), (2.0, NAME_LIMIT)]);
    }

    #[test]
    fn custom_metrics_are_bounded_in_number_and_length() {
        let many: Vec<String> =
            (0..500).map(|index| format!(r#""m{index:03}{}":{{"value":{index}}}"#, "x".repeat(200))).collect();
        let metrics = read_json(&format!("{{{}}}", many.join(",")));
        assert_eq!(metrics.custom.len(), CUSTOM_LIMIT);
        assert_eq!(metrics.custom[0].value.to_bits(), 0.0_f64.to_bits());
        assert!(metrics.custom.iter().all(|metric| metric.name.chars().count() == NAME_LIMIT));
    }
}
