//! Writes the text of `/metrics` in the Prometheus exposition format 0.0.4.
//!
//! Invariant: the HELP and TYPE lines of a family appear once, directly above all of its samples, and families have the
//! order of [`Family::ALL`], in whatever order samples are added. A family without samples is left out.

use std::fmt::{Display, Write};

use super::families::{Facts, Family};
use super::histogram::Histogram;
use super::labels::{CounterVec, Label};

/// `Content-Type` of `/metrics`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page of one scrape, while it is being built.
#[derive(Debug)]
pub struct Page {
    /// Sample lines of each family.
    samples: [String; Family::ALL.len()],
}

impl Page {
    pub(super) fn new() -> Self {
        Self {
            samples: std::array::from_fn(|_| String::new()),
        }
    }

    /// Adds a sample; `values` are those of the family's labels, in their order.
    pub fn put(&mut self, family: Family, values: &[&str], sample: impl Display) {
        self.line(family, "", values, None, sample);
    }

    /// Adds a count for `name` and one value of another label if it is above zero. The empty name stands for requests
    /// without a route, whose samples are always present.
    pub fn put_count(&mut self, family: Family, name: &str, value: &str, count: u64) {
        if count > 0 || name.is_empty() {
            self.put(family, &[name, value], count);
        }
    }

    /// Adds the count of each value of `L`, which is the family's last label.
    pub fn put_tally<L: Label>(&mut self, family: Family, name: &str, tally: &CounterVec<L>) {
        for (label, count) in tally.iter() {
            self.put_count(family, name, label.as_str(), count);
        }
    }

    /// Adds the samples of a histogram if it has observations.
    pub fn put_histogram(&mut self, family: Family, name: &str, histogram: &Histogram) {
        if !name.is_empty() && histogram.is_empty() {
            return;
        }
        let (values, mut count) = (&[name], 0);
        for (bound, total) in histogram.cumulative() {
            self.line(family, "_bucket", values, Some(bound), total);
            count = total;
        }
        self.line(family, "_sum", values, None, histogram.sum_seconds());
        self.line(family, "_count", values, None, count);
    }

    pub(super) fn into_text(self) -> String {
        let mut text = String::with_capacity(self.samples.iter().map(|lines| lines.len() + 160).sum());
        for (family, lines) in Family::ALL.into_iter().zip(&self.samples) {
            let Facts { name, kind, help, .. } = family.facts();
            let kind = kind.as_str();
            write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes any text");
            text.push_str(lines);
        }
        text
    }

    fn line(&mut self, family: Family, suffix: &str, values: &[&str], bound: Option<f64>, sample: impl Display) {
        let Facts { name, labels, .. } = family.facts();
        debug_assert_eq!(labels.len(), values.len(), "{name} has the labels {labels:?}");
        let out = &mut self.samples[family as usize];
        out.push_str(name);
        out.push_str(suffix);
        let mut separator = '{';
        for (label, value) in labels.iter().zip(values) {
            out.push(separator);
            out.push_str(label);
            out.push_str("=\"");
            push_escaped(out, value);
            out.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            out.push(separator);
            let written = if bound.is_finite() {
                write!(out, "le=\"{bound}\"")
            } else {
                write!(out, "le=\"+Inf\"")
            };
            written.expect("a string takes any text");
            separator = ',';
        }
        if separator == ',' {
            out.push('}');
        }
        writeln!(out, " {sample}").expect("a string takes any text");
    }
}

fn push_escaped(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::labels::Decision;

    #[test]
    fn families_stay_together_in_whatever_order_samples_come() {
        let mut page = Page::new();
        page.put(Family::BulkheadLimit, &["a"], 20);
        page.put(Family::BulkheadInUse, &["a"], 1);
        page.put(Family::BulkheadLimit, &["b"], 30);
        page.put(Family::BulkheadInUse, &["b"], 2);
        let text = page.into_text();
        let expected = "# HELP gateway_bulkhead_in_use Slots taken\n\
             # TYPE gateway_bulkhead_in_use gauge\n\
             gateway_bulkhead_in_use{backend=\"a\"} 1\n\
             gateway_bulkhead_in_use{backend=\"b\"} 2\n\
             # HELP gateway_bulkhead_waiting Calls waiting for a slot\n\
             # TYPE gateway_bulkhead_waiting gauge\n\
             # HELP gateway_bulkhead_limit Slots there are\n\
             # TYPE gateway_bulkhead_limit gauge\n\
             gateway_bulkhead_limit{backend=\"a\"} 20\n\
             gateway_bulkhead_limit{backend=\"b\"} 30\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_a_name_multiplies_appears_when_it_is_counted() {
        let (tally, histogram) = (CounterVec::<Decision>::default(), Histogram::default());
        let samples = |name: &str| {
            let mut page = Page::new();
            page.put_tally(Family::LimitDecisions, name, &tally);
            page.put_histogram(Family::RequestDuration, name, &histogram);
            let text = page.into_text();
            text.lines().filter(|line| !line.starts_with('#')).count()
        };
        assert_eq!(samples("free"), 0);
        assert_eq!(samples(""), 4 + 19, "there is one such name");
        tally.add(Decision::Shadow);
        assert_eq!(samples("free"), 1);
        histogram.observe(Duration::ZERO);
        assert_eq!(samples("free"), 1 + 19);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::new();
        page.put(Family::Retries, &["a\"b\\c\nd"], 1);
        assert!(
            page.into_text()
                .contains("\ngateway_retries_total{backend=\"a\\\"b\\\\c\\nd\"} 1\n")
        );
    }

    #[test]
    fn a_histogram_ends_in_the_infinite_bucket_its_sum_and_its_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        histogram.observe(Duration::from_secs(60));
        let mut page = Page::new();
        page.put_histogram(Family::RequestDuration, "users", &histogram);
        let text = page.into_text();
        assert!(text.contains("_bucket{route=\"users\",le=\"0.001\"} 0\n"), "{text}");
        assert!(text.contains("_bucket{route=\"users\",le=\"0.0025\"} 1\n"), "{text}");
        let end = "_bucket{route=\"users\",le=\"+Inf\"} 2\n\
             gateway_request_duration_seconds_sum{route=\"users\"} 60.002\n\
             gateway_request_duration_seconds_count{route=\"users\"} 2\n";
        assert!(text.contains(end), "{text}");
    }

    #[test]
    fn a_family_without_labels_has_no_braces() {
        let mut page = Page::new();
        page.put(Family::Connections, &[], 3);
        assert!(page.into_text().contains("\ngateway_connections 3\n"));
    }
}
