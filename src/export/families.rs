//! Families under construction: values go in by descriptor, text comes out.
//!
//! Series are kept as rows over one common text until they are written, and the encoder's own shapes, which need an
//! allocation for each label, are made for a few hundred series at a time and used again for the next. A body of thousands
//! of processes is thus written in a few megabytes rather than many.

use std::collections::BTreeMap;
use std::ops::Range;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::catalogue::{Descriptor, Kind};

/// Labels of a series whose values are looked for in the series before it: most are of the same process.
const PLACES: usize = 4;
/// Series that are in the encoder's shapes at a time.
const TOGETHER: usize = 256;

/// Families by name; a family without a series never reaches the text.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<&'static str, Rows>,
    /// The label values of all series, one after the other; those of neighbours that are alike stand once.
    text: String,
    /// Where the latest value of each place stands.
    latest: [Range<u32>; PLACES],
}

/// The series of one family.
#[derive(Debug)]
struct Rows {
    family: &'static Descriptor,
    values: Vec<f64>,
    /// Where the label values stand in the text: as many for each series as the family has labels.
    labels: Vec<Range<u32>>,
}

impl Families {
    /// Adds one series. The values stand in the order of the descriptor's labels.
    pub(super) fn add(&mut self, family: &'static Descriptor, label_values: &[&str], value: f64) {
        debug_assert_eq!(family.labels.len(), label_values.len(), "{}", family.name);
        let rows =
            self.by_name.entry(family.name).or_insert_with(|| Rows { family, values: Vec::new(), labels: Vec::new() });
        rows.values.push(value);
        for (place, label) in label_values.iter().enumerate() {
            let latest = self.latest.get_mut(place);
            if let Some(latest) = &latest
                && self.text.get(latest.start as usize..latest.end as usize) == Some(*label)
            {
                rows.labels.push((*latest).clone());
                continue;
            }
            let start = position(&self.text);
            self.text.push_str(label);
            let stands = start..position(&self.text);
            if let Some(latest) = latest {
                *latest = stands.clone();
            }
            rows.labels.push(stands);
        }
    }

    /// Adds one series where there is a value.
    pub(super) fn add_some(&mut self, family: &'static Descriptor, label_values: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(family, label_values, value);
        }
    }

    /// Writes the text format, families by name.
    pub(super) fn into_text(self) -> String {
        let room = self.by_name.values().map(Rows::room).sum();
        let mut body = String::with_capacity(room);
        let (mut metrics, mut piece) = (Vec::new(), Vec::new());
        for rows in self.by_name.values() {
            for start in (0..rows.values.len()).step_by(TOGETHER) {
                let mut family = empty(rows.family);
                rows.fill(&self.text, start, &mut metrics);
                family.set_metric(metrics);
                piece.clear();
                TextEncoder::new()
                    .encode(std::slice::from_ref(&family), &mut piece)
                    .expect("invariant: every family has a series and writing to memory does not fail");
                metrics = family.take_metric();
                append(&mut body, &piece, start == 0);
            }
        }
        body.shrink_to_fit();
        body
    }
}

/// Appends what the encoder wrote; its two lines about the family only where its series begin.
fn append(body: &mut String, piece: &[u8], with_head: bool) {
    let text = std::str::from_utf8(piece).expect("invariant: the encoder writes UTF-8");
    let lines = text.split_inclusive('\n').skip(if with_head { 0 } else { 2 });
    for line in lines {
        // The encoder writes Rust's `inf`; the format's own spelling is `+Inf`. A newline in a label value is escaped.
        match line.strip_suffix(" inf\n") {
            Some(series) => body.extend([series, " +Inf\n"]),
            None => body.push_str(line),
        }
    }
}

impl Rows {
    /// Bytes that the text takes, roughly: a body that need not grow is not copied on the way.
    fn room(&self) -> usize {
        const NUMBER: usize = 12;
        const QUOTES: usize = "=\"\",".len();
        let Descriptor { name, help, labels, .. } = self.family;
        let head = "# HELP  \n# TYPE  counter\n".len() + 2 * name.len() + help.len();
        let series = name.len() + labels.iter().map(|label| label.len() + QUOTES).sum::<usize>() + NUMBER;
        let values: usize = self.labels.iter().map(|label| (label.end - label.start) as usize).sum();
        head + self.values.len() * series + values
    }

    /// Makes the metrics of some series, from the one at `start` on, out of those of others.
    fn fill(&self, text: &str, start: usize, metrics: &mut Vec<Metric>) {
        let values = self.values.get(start..).unwrap_or_default();
        let values = values.get(..TOGETHER).unwrap_or(values);
        metrics.resize_with(values.len(), Metric::default);
        let names = self.family.labels;
        for (index, (metric, value)) in (start..).zip(metrics.iter_mut().zip(values)) {
            let mut pairs = metric.take_label();
            pairs.resize_with(names.len(), LabelPair::default);
            let places = &self.labels[index * names.len()..(index + 1) * names.len()];
            for ((pair, name), place) in pairs.iter_mut().zip(names).zip(places) {
                let label = &text[place.start as usize..place.end as usize];
                if pair.name() != *name {
                    pair.set_name((*name).to_owned());
                }
                if pair.value() != label {
                    pair.set_value(label.to_owned());
                }
            }
            metric.set_label(pairs);
            match self.family.kind {
                Kind::Gauge => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(*value);
                    metric.set_gauge(gauge);
                }
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(*value);
                    metric.set_counter(counter);
                }
            }
        }
    }
}

fn position(text: &str) -> u32 {
    u32::try_from(text.len()).expect("invariant: the label values of one body stay far below 4 GiB")
}

fn empty(family: &'static Descriptor) -> MetricFamily {
    let mut built = MetricFamily::default();
    built.set_name(family.name.to_owned());
    built.set_help(family.help.to_owned());
    built.set_field_type(match family.kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
    });
    built
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::catalogue;

    #[test]
    fn a_family_of_many_series_has_one_head_and_every_series_once() {
        let family =
            catalogue::catalogue().iter().find(|family| family.labels == ["daemon"]).expect("there are several");
        let mut families = Families::default();
        let count = 3 * TOGETHER + 1;
        for number in 0..count {
            families.add(family, &[&format!("d{number} inf")], if number == TOGETHER { f64::INFINITY } else { 1.0 });
        }
        let text = families.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), count + 2);
        assert_eq!(lines.iter().filter(|line| line.starts_with('#')).count(), 2);
        for (number, line) in lines[2..].iter().enumerate() {
            let value = if number == TOGETHER { "+Inf" } else { "1" };
            assert_eq!(*line, format!("{}{{daemon=\"d{number} inf\"}} {value}", family.name));
        }
    }
}
