//! Families under construction: values go in by descriptor, text comes out.

use std::collections::BTreeMap;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::catalogue::{Descriptor, Kind};

/// Families by name; a family without a series never reaches the text.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<&'static str, MetricFamily>,
}

impl Families {
    /// Adds one series. The values stand in the order of the descriptor's labels.
    pub(super) fn add(&mut self, family: &'static Descriptor, label_values: &[&str], value: f64) {
        debug_assert_eq!(family.labels.len(), label_values.len(), "{}", family.name);
        let mut metric = Metric::default();
        metric.set_label(
            family
                .labels
                .iter()
                .zip(label_values)
                .map(|(name, value)| {
                    let mut pair = LabelPair::default();
                    pair.set_name((*name).to_owned());
                    pair.set_value((*value).to_owned());
                    pair
                })
                .collect(),
        );
        match family.kind {
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
        }
        self.by_name.entry(family.name).or_insert_with(|| empty(family)).mut_metric().push(metric);
    }

    /// Adds one series where there is a value.
    pub(super) fn add_some(&mut self, family: &'static Descriptor, label_values: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(family, label_values, value);
        }
    }

    /// Writes the text format, families by name.
    pub(super) fn into_text(self) -> String {
        let families: Vec<MetricFamily> = self.by_name.into_values().collect();
        let mut body = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut body)
            .expect("invariant: every family has a series and writing to memory does not fail");
        let text = String::from_utf8(body).expect("invariant: the encoder writes UTF-8");
        // The encoder writes Rust's `inf`; the format's own spelling is `+Inf`. Newlines in label values are escaped.
        if text.contains(" inf\n") { text.replace(" inf\n", " +Inf\n") } else { text }
    }
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
