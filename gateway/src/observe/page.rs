//! Makes the text of `/metrics` in the Prometheus exposition format 0.0.4 or in OpenMetrics 1.0.0, with the exporter of
//! the `metrics` facade.
//!
//! Names and labels are the same in both. In OpenMetrics a counter's family is named without `_total`; a counter whose
//! name would then be that of another family is a family of unknown type there, since a name may stand only once.
//!
//! Each page has a recorder of its own, so what nobody adds any more is not on it. The facade has whole counters and
//! gauges; histograms and counters of seconds are added as lines.
//!
//! Invariant: the HELP and TYPE lines of every family appear once, directly above all of its samples, and families have
//! the order of [`Family::ALL`], in whatever order samples are added. The exporter itself writes in no order.

use std::collections::HashMap;

use metrics::{Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use metrics_exporter_prometheus::{LabelSet, PrometheusBuilder, PrometheusRecorder};

use super::counters::key;
use super::exemplars::{Exemplar, Exemplars};
use super::families::{Facts, Family, Kind, families};
use super::histogram::Histogram;

/// Format of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    /// The only one that has exemplars.
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns the format that `Accept` asks for: OpenMetrics if it is named, and text is not preferred (RFC 9110 section
    /// 12.5.1).
    pub fn asked_for(accept: &str) -> Self {
        let weight = |name: &str, versions: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(name) {
                    return None;
                }
                let (mut weight, mut is_known) = (1.0, true);
                for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                    match key.trim().to_ascii_lowercase().as_str() {
                        "q" => weight = value.trim().parse().unwrap_or(0.0),
                        "version" => is_known = versions.contains(&value.trim().trim_matches('"')),
                        _ => {}
                    }
                }
                is_known.then_some(weight)
            });
            ranges.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text", &["1.0.0", "0.0.1"]);
        if open > 0.0 && open >= weight("text/plain", &["0.0.4"]) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("gateway", Level::INFO, None);

/// The page of one scrape, while it is being built.
#[derive(Debug)]
pub struct Page {
    format: Format,
    recorder: PrometheusRecorder,
    /// Samples of each family that the facade has no type for.
    lines: [String; Family::ALL.len()],
}

/// Value of a sample.
pub trait Sample {
    /// Returns it as a count. Fractions and negative values are cut.
    fn count(self) -> u64;
    fn number(self) -> f64;
}

macro_rules! samples {
    ($($number:ty),+) => {$(
        impl Sample for $number {
            fn count(self) -> u64 {
                self as u64
            }
            fn number(self) -> f64 {
                self as f64
            }
        }
    )+};
}

samples!(u8, u32, u64, usize, i32, i64, f64);

impl Page {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            recorder: PrometheusBuilder::new().build_recorder(),
            lines: std::array::from_fn(|_| String::new()),
        }
    }

    /// Adds a sample; `values` are those of the family's labels, in their order. A counter of which there are two
    /// samples has the higher one.
    pub fn put(&mut self, family: Family, values: &[&str], sample: impl Sample) {
        let key = key(family, values);
        match family.facts().kind {
            Kind::Counter => self.put_counter(&key, sample.count()),
            Kind::Gauge => self.recorder.register_gauge(&key, &METADATA).set(sample.number()),
            Kind::Seconds => self.line(family, None, &labels(&key), None, sample.number()),
            Kind::Histogram => unreachable!("{family:?} is added by put_histogram"),
        }
    }

    /// Adds a counter that is kept elsewhere.
    pub(super) fn put_counter(&mut self, key: &Key, count: u64) {
        self.recorder.register_counter(key, &METADATA).absolute(count);
    }

    /// Adds a count for `name` and one value of another label if it is above zero.
    pub fn put_count(&mut self, family: Family, name: &str, value: &str, count: u64) {
        if count > 0 {
            self.put(family, &[name, value], count);
        }
    }

    /// Adds the samples of a histogram if it has observations. The empty name stands for requests without a route, or
    /// for what there is once; its samples are always present.
    pub fn put_histogram(&mut self, family: Family, name: &str, histogram: &Histogram) {
        self.put_with_exemplars(family, name, histogram, &Exemplars::default());
    }

    /// Adds the samples of a histogram like [`Self::put_histogram`], in OpenMetrics with its exemplars.
    pub(super) fn put_with_exemplars(
        &mut self,
        family: Family,
        name: &str,
        histogram: &Histogram,
        exemplars: &Exemplars,
    ) {
        // Read first: a count that is read later has what is an exemplar already.
        let exemplars = exemplars.read();
        if !name.is_empty() && histogram.is_empty() {
            return;
        }
        let values: &[&str] = if family.facts().labels.is_empty() { &[] } else { &[name] };
        let (labels, mut count) = (labels(&key(family, values)), 0);
        for ((bound, total), exemplar) in histogram.cumulative().zip(exemplars) {
            let bound = match self.format {
                _ if bound.is_infinite() => "+Inf".to_owned(),
                Format::Prometheus => bound.to_string(),
                // Canonical numbers have a point.
                Format::OpenMetrics => format!("{bound:?}"),
            };
            self.line(family, Some("bucket"), &labels, Some(bound), total);
            if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplar) {
                self.lines[family as usize].pop();
                write_exemplar(&mut self.lines[family as usize], &exemplar);
            }
            count = total;
        }
        self.line(family, Some("sum"), &labels, None, histogram.sum_seconds());
        self.line(family, Some("count"), &labels, None, count);
    }

    pub(super) fn into_text(self) -> String {
        let rendered = self.recorder.handle().render();
        let mut samples = by_family(&rendered);
        let mut text = String::with_capacity(2 * rendered.len() + 200 * Family::ALL.len());
        for (family, lines) in Family::ALL.into_iter().zip(&self.lines) {
            let Facts { name, kind, help, .. } = family.facts();
            match self.format {
                Format::Prometheus => {
                    write_help_line(&mut text, name, None, None, help);
                    write_type_line(&mut text, name, None, None, kind.as_str());
                }
                Format::OpenMetrics => write_descriptor(&mut text, family),
            }
            let mut samples = samples.remove(name).unwrap_or_default();
            samples.sort_unstable();
            for sample in samples {
                text.push_str(sample);
                text.push('\n');
            }
            text.push_str(lines);
        }
        if self.format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    fn line(
        &mut self,
        family: Family,
        suffix: Option<&'static str>,
        labels: &LabelSet,
        bound: Option<String>,
        sample: impl std::fmt::Display,
    ) {
        let bound = bound.map(|bound| ("le", bound));
        let out = &mut self.lines[family as usize];
        write_metric_line(out, family.facts().name, suffix, labels, bound, sample, None);
    }
}

/// Writes type, unit and help of a family as OpenMetrics wants them.
fn write_descriptor(out: &mut String, family: Family) {
    let Facts { name, kind, help, .. } = family.facts();
    let counted = name.strip_suffix("_total").filter(|_| kind.as_str() == "counter");
    let is_taken = |name: &str| families().any(|other| other.name == name);
    let (name, kind) = match counted {
        Some(short) if !is_taken(short) => (short, "counter"),
        Some(_) => (name, "unknown"),
        None => (name, kind.as_str()),
    };
    let unit = ["seconds", "bytes"]
        .into_iter()
        .find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
    let help = help.replace('"', "\\\"");
    let unit = unit.map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
    out.push_str(&format!("# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n"));
}

/// Writes an exemplar after a sample, with the end of the line.
fn write_exemplar(out: &mut String, exemplar: &Exemplar) {
    let Exemplar { trace, took, at } = exemplar;
    let (took, at) = (took.as_secs_f64(), at.as_secs_f64());
    out.push_str(&format!(" # {{trace_id=\"{trace}\"}} {took:?} {at:.3}\n"));
}

fn labels(key: &Key) -> LabelSet {
    LabelSet::from_key_and_global(key, &Default::default())
}

/// Returns the sample lines of each family on a page of the exporter.
fn by_family(page: &str) -> HashMap<&str, Vec<&str>> {
    let (mut samples, mut name) = (HashMap::<_, Vec<_>>::new(), "");
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            name = kind.split(' ').next().unwrap_or_default();
        } else if !line.is_empty() && !line.starts_with('#') {
            samples.entry(name).or_default().push(line);
        }
    }
    samples
}

#[cfg(test)]
mod open_metrics;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_stay_together_in_whatever_order_samples_come() {
        let mut page = Page::new(Format::Prometheus);
        page.put(Family::BulkheadLimit, &["b"], 30);
        page.put(Family::BulkheadInUse, &["a"], 1);
        page.put(Family::BulkheadLimit, &["a"], 20);
        page.put(Family::BulkheadInUse, &["b"], 2);
        let text = page.into_text();
        let expected = "# HELP gateway_bulkhead_in_use Slots taken\n\
             # TYPE gateway_bulkhead_in_use gauge\n\
             gateway_bulkhead_in_use{backend=\"a\"} 1\n\
             gateway_bulkhead_in_use{backend=\"b\"} 2\n\
             # HELP gateway_bulkhead_waiting Calls waiting for a slot\n\
             # TYPE gateway_bulkhead_waiting gauge\n\
             # HELP gateway_bulkhead_limit Slots there are now\n\
             # TYPE gateway_bulkhead_limit gauge\n\
             gateway_bulkhead_limit{backend=\"a\"} 20\n\
             gateway_bulkhead_limit{backend=\"b\"} 30\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_a_name_multiplies_appears_when_it_is_counted() {
        let histogram = Histogram::default();
        let samples = |name: &str, count| {
            let mut page = Page::new(Format::Prometheus);
            page.put_count(Family::JwksFetches, name, "fetched", count);
            page.put_histogram(Family::RequestDuration, name, &histogram);
            let text = page.into_text();
            text.lines().filter(|line| !line.starts_with('#')).count()
        };
        assert_eq!(samples("free", 0), 0);
        assert_eq!(samples("", 0), 19, "there is one such name");
        assert_eq!(samples("free", 1), 1);
        histogram.observe(Duration::ZERO);
        assert_eq!(samples("free", 0), 19);
    }

    #[test]
    fn label_values_are_escaped() {
        fn check(value: &str, written: &str) {
            let mut page = Page::new(Format::Prometheus);
            let histogram = Histogram::default();
            histogram.observe(Duration::ZERO);
            page.put(Family::Retries, &[value], 1);
            page.put(Family::BulkheadInUse, &[value], 1);
            page.put_histogram(Family::BackendDuration, value, &histogram);
            let text = page.into_text();
            for start in ["retries_total{", "bulkhead_in_use{", "backend_duration_seconds_count{"] {
                let line = format!("\ngateway_{start}backend=\"{written}\"}} 1\n");
                assert!(text.contains(&line), "{value:?}: {text}");
            }
        }
        check("", "");
        check("a\"b\\c\nd", "a\\\"b\\\\c\\nd");
        check("\\", "\\\\");
        check("\\\\", "\\\\\\\\");
        check("\\\"", "\\\\\\\"");
        check("\\\n", "\\\\\\n");
        check("\\n", "\\\\n");
        check("# TYPE {a=\"b\"} 1", "# TYPE {a=\\\"b\\\"} 1");
        check("日本語", "日本語");
    }

    #[test]
    fn a_histogram_ends_in_the_infinite_bucket_its_sum_and_its_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        histogram.observe(Duration::from_secs(60));
        let mut page = Page::new(Format::Prometheus);
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
    fn numbers_are_written_whole_or_with_their_fraction() {
        let mut page = Page::new(Format::Prometheus);
        page.put(Family::Connections, &[], 3);
        page.put(Family::ConnectionsAccepted, &[], u64::MAX);
        page.put(Family::ClockAhead, &[], -2.5);
        page.put(Family::ProcessStartTime, &[], 1_796_000_000.25);
        page.put(Family::VerificationSeconds, &[], 0.0002);
        let text = page.into_text();
        for line in [
            "gateway_connections 3",
            "gateway_connections_total 18446744073709551615",
            "gateway_clock_ahead_seconds -2.5",
            "process_start_time_seconds 1796000000.25",
            "gateway_verification_seconds_total 0.0002",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        }
    }
}
