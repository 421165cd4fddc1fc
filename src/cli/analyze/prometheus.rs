//! The JSON that Prometheus answers a `query_range` with, taken apart into series of rows.
//!
//! Pure: it takes text. Series with the same labels that are known figures of one process (resident memory, heap,
//! collections, start time) are put together; every other series is memory of its own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::{Problem, Wrong};
use super::row::{Column, NO_GCS, Row};
use super::time::of_milliseconds;

/// The rows of one process, in order of time.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    /// The labels, as PromQL writes them.
    pub(super) name: String,
    /// What was measured.
    pub(super) has: BTreeSet<Column>,
    /// The rows.
    pub(super) rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Document<'a> {
    status: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<Data<'a>>,
    #[serde(rename = "resultType")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

/// Takes an answer apart. `unit` is the size of one unit of memory in bytes.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn read(text: &str, unit: f64) -> Result<Vec<Series>, Problem> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let json = |error: serde_json::Error| Problem::line(error.line() as u64, Wrong::Json(error.to_string()));
    let elements: Vec<Element> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(json)?
    } else {
        let document: Document<'_> = serde_json::from_str(text).map_err(json)?;
        if document.status.as_deref() == Some("error") || document.error.is_some() {
            let said = document.error.unwrap_or(Cow::Borrowed("it does not say which")).into_owned();
            return Err(Problem::whole(Wrong::Answer(said)));
        }
        let (kind, result) = match (document.data, document.kind, document.result) {
            (Some(data), ..) => (data.kind, data.result),
            (None, Some(kind), Some(result)) => (kind, result),
            _ => return Err(Problem::whole(Wrong::Json("it has no `data`".to_owned()))),
        };
        if kind != "matrix" {
            return Err(Problem::whole(Wrong::Instant(kind.into_owned())));
        }
        serde_json::from_str(result.get()).map_err(|error| Problem::whole(Wrong::Json(error.to_string())))?
    };
    if elements.iter().any(|element| element.value.is_some() && element.values.is_empty()) {
        return Err(Problem::whole(Wrong::Instant("vector".to_owned())));
    }
    let series = assemble(elements, unit)?;
    if series.is_empty() { Err(Problem::whole(Wrong::NoSeries)) } else { Ok(series) }
}

type Labels = BTreeMap<String, String>;

fn assemble(elements: Vec<Element>, unit: f64) -> Result<Vec<Series>, Problem> {
    let mut together: BTreeMap<Labels, Parts> = BTreeMap::new();
    let mut alone = Vec::new();
    for element in elements.into_iter().filter(|element| !element.values.is_empty()) {
        let mut labels = element.metric.clone();
        let name = labels.remove("__name__").unwrap_or_default();
        match known(&name, &mut labels) {
            Known::Figure(column) => together.entry(labels).or_default().add(column, &element, unit)?,
            Known::Beside => {}
            Known::Not => alone.push((labels, element)),
        }
    }
    let mut series: Vec<(String, Parts)> = Vec::new();
    for (labels, element) in alone {
        if !together.contains_key(&labels) {
            let mut parts = Parts::default();
            parts.add(Column::Resident, &element, unit)?;
            series.push((label_text(&element.metric), parts));
        }
    }
    for (labels, parts) in together {
        if parts.has.iter().any(|column| !matches!(column, Column::MajorGcs | Column::Life)) {
            series.push((label_text(&labels), parts));
        }
    }
    series.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(series
        .into_iter()
        .map(|(name, parts)| Series { name, has: parts.has, rows: parts.rows.into_values().collect() })
        .collect())
}

/// What a metric is by its name.
enum Known {
    Figure(Column),
    /// Belongs to a process but is nothing to judge.
    Beside,
    Not,
}

fn known(name: &str, labels: &mut Labels) -> Known {
    let column = match name {
        "process_resident_memory_bytes" | "pm2_process_resident_memory_bytes" => Column::Resident,
        "nodejs_heap_size_used_bytes" | "pm2_process_heap_used_bytes" => Column::HeapUsed,
        "nodejs_heap_size_total_bytes" | "pm2_process_heap_total_bytes" => Column::HeapTotal,
        "pm2_process_heap_after_major_gc_bytes" => Column::PostGc,
        "pm2_process_gcs_total" | "nodejs_gc_duration_seconds_count" => {
            return match labels.remove("kind").as_deref() {
                Some("major") => Known::Figure(Column::MajorGcs),
                _ => Known::Beside,
            };
        }
        "process_start_time_seconds" | "pm2_process_start_time_seconds" => Column::Life,
        _ => return Known::Not,
    };
    Known::Figure(column)
}

/// The figures of one process by time.
#[derive(Default)]
struct Parts {
    has: BTreeSet<Column>,
    rows: BTreeMap<i64, Row>,
    lives: BTreeMap<u64, u32>,
}

impl Parts {
    fn add(&mut self, column: Column, element: &Element, unit: f64) -> Result<(), Problem> {
        self.has.insert(column);
        for (seconds, text) in &element.values {
            let wrong = |wrong| Problem { line: None, column: Some(label_text(&element.metric)), wrong };
            let at = of_milliseconds(seconds * 1000.0).ok_or_else(|| wrong(Wrong::FarTime(seconds.to_string())))?;
            let value: f64 = text.parse().map_err(|_not_a_number| wrong(Wrong::NotANumber(text.clone())))?;
            if !value.is_finite() {
                continue;
            }
            if value < 0.0 {
                return Err(wrong(Wrong::Negative(text.clone())));
            }
            let row = self.rows.entry(at.0).or_insert(Row::empty(at));
            match column {
                Column::Resident => row.resident = value * unit,
                Column::HeapUsed => row.heap_used = value * unit,
                Column::HeapTotal => row.heap_total = value * unit,
                Column::PostGc => row.post_gc = value * unit,
                Column::MajorGcs => {
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
                    let count = value.min(f64::from(NO_GCS - 1)) as u32;
                    row.major_gcs = count;
                }
                Column::Life => {
                    let next = u32::try_from(self.lives.len()).unwrap_or(u32::MAX).saturating_add(1);
                    row.life = *self.lives.entry(value.to_bits()).or_insert(next);
                }
            }
        }
        Ok(())
    }
}

/// Labels as PromQL writes them, the metric's name first.
fn label_text(labels: &Labels) -> String {
    let name = labels.get("__name__").map_or("", String::as_str);
    let pairs: Vec<String> = labels
        .iter()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| format!("{label}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    if pairs.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", pairs.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":{result}}}}}"#)
    }

    #[test]
    fn figures_of_one_process_are_put_together_and_others_stand_alone() {
        let text = answer(
            r#"[{"metric":{"__name__":"process_resident_memory_bytes","job":"api"},"values":[[60,"200"],[120.5,"NaN"]]},
                {"metric":{"__name__":"nodejs_heap_size_used_bytes","job":"api"},"values":[[60,"70"]]},
                {"metric":{"__name__":"nodejs_gc_duration_seconds_count","job":"api","kind":"major"},"values":[[60,"3"]]},
                {"metric":{"__name__":"nodejs_gc_duration_seconds_count","job":"api","kind":"minor"},"values":[[60,"9"]]},
                {"metric":{"__name__":"process_start_time_seconds","job":"api"},"values":[[60,"1.5"],[180,"2.5"]]},
                {"metric":{"__name__":"process_open_fds","job":"api"},"values":[[60,"20"]]},
                {"metric":{"instance":"b\"c"},"values":[[60,"1"]]},
                {"metric":{},"values":[]}]"#,
        );
        let series = read(&text, 2.0).expect("valid");
        assert_eq!(
            series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            [r#"{instance="b\"c"}"#, r#"{job="api"}"#]
        );
        assert_eq!(series[0].rows.len(), 1);
        let rows = &series[1].rows;
        assert_eq!(rows.iter().map(|row| row.at.0).collect::<Vec<_>>(), [60_000, 180_000]);
        assert_eq!((rows[0].resident, rows[0].heap_used, rows[0].major_gcs, rows[0].life), (400.0, 140.0, 3, 1));
        assert_eq!((rows[1].resident.is_nan(), rows[1].life), (true, 2));
    }

    #[test]
    fn the_bare_forms_are_read_too() {
        let result = r#"[{"metric":{},"values":[[1,"5"]]}]"#;
        for text in [result.to_owned(), format!(r#"{{"resultType":"matrix","result":{result}}}"#), answer(result)] {
            let series = read(&text, 1.0).expect("valid");
            assert_eq!((series[0].name.as_str(), series[0].rows.len()), ("{}", 1), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("{", "line 1: not the JSON of a Prometheus range query: EOF while parsing an object at line 1 column 1"),
            ("{}", "not the JSON of a Prometheus range query: it has no `data`"),
            (r#"{"status":"error","error":"parse error"}"#, "Prometheus answered with an error: parse error"),
            (
                r#"{"data":{"resultType":"vector","result":[]}}"#,
                "a result of the kind \"vector\" has no course of time: ask for a range with `query_range`",
            ),
            (
                r#"[{"metric":{},"value":[1,"2"]}]"#,
                "a result of the kind \"vector\" has no course of time: ask for a range with `query_range`",
            ),
            ("[]", "the query found no series"),
            (r#"[{"metric":{"a":"b"},"values":[[1,"-2"]]}]"#, "{a=\"b\"}: \"-2\" is negative"),
            (r#"[{"metric":{},"values":[[1,"x"]]}]"#, "{}: \"x\" is not a number"),
            (
                r#"[{"metric":{},"values":[[1e30,"1"]]}]"#,
                "{}: \"1000000000000000000000000000000\" lies too far away: write unix seconds",
            ),
        ] {
            assert_eq!(read(text, 1.0).expect_err(text).to_string(), message);
        }
    }
}
