//! Checks a page against the rules of OpenMetrics 1.0.0.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::headers::TraceId;
use crate::observe::families::Family;
use crate::observe::record::RequestRecord;
use crate::observe::{Exemplar, Format, Outcome, Registry};

/// Suffixes of the samples that a family of the type may have.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "gauge" | "unknown" => &[""],
        other => panic!("no type that a page has: {other}"),
    }
}

/// Checks the page, and returns its exemplars: the series that has one, the trace, and the value.
fn check(page: &str) -> Vec<(String, String, f64)> {
    let body = page.strip_suffix("# EOF\n").expect("the end of the page");
    assert!(!body.contains("# EOF") && !body.contains("\n\n"));
    let (mut kinds, mut series, mut exemplars) = (HashMap::new(), HashSet::new(), Vec::new());
    let mut family = ("", "");
    for line in body.lines() {
        if let Some(described) = line.strip_prefix("# ") {
            let mut words = described.splitn(3, ' ');
            let [what, name, text] = [(); 3].map(|()| words.next().expect(line));
            match what {
                "TYPE" => {
                    assert_eq!(kinds.insert(name, text), None, "{line}: a family stands once");
                    family = (name, text);
                }
                "UNIT" => assert!(name == family.0 && name.ends_with(&format!("_{text}")), "{line}"),
                "HELP" => {
                    assert_eq!(name, family.0, "{line}");
                    assert!(!text.replace("\\\"", "").contains('"'), "{line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, exemplar) = line.split_once(" # ").map_or((line, None), |(a, b)| (a, Some(b)));
        let (named, value) = sample.rsplit_once(' ').expect(line);
        value.parse::<f64>().expect(line);
        assert!(series.insert(named.to_owned()), "{line}: a series stands once");
        let (name, kind) = family;
        let suffix = named.split('{').next().and_then(|sampled| sampled.strip_prefix(name));
        let suffix = suffix.expect(line);
        assert!(suffixes(kind).contains(&suffix), "{line} of a {kind}");
        let bound = named
            .split_once("le=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(bound, _)| bound);
        if let Some(bound) = bound {
            assert!(bound == "+Inf" || bound.contains('.') || bound.contains('e'), "{line}");
        }
        if let Some(exemplar) = exemplar {
            assert!(suffix == "_bucket" || suffix == "_total", "{line}");
            let (labels, rest) = exemplar.split_once("} ").expect(line);
            let trace = labels
                .strip_prefix("{trace_id=\"")
                .and_then(|rest| rest.strip_suffix('"'));
            let trace = trace.expect(line);
            assert_eq!(
                trace.len(),
                32,
                "{line}: at most 128 characters, name and value together"
            );
            let (value, at) = rest.split_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            at.parse::<f64>().expect(line);
            let bound = bound.expect(line).replace("+Inf", "inf");
            assert!(value <= bound.parse().expect(line), "{line}");
            exemplars.push((named.to_owned(), trace.to_owned(), value));
        }
    }
    exemplars
}

#[test]
fn a_page_with_everything_follows_the_rules() {
    let registry = Registry::default();
    let users = registry.route("a \"strange\"\\name\n");
    let record = RequestRecord::default();
    for (number, took) in [(7, 30_u64), (8, 40_000)] {
        let took = Duration::from_millis(took);
        users.count_request(&record, took);
        users.exemplars.put(&Exemplar {
            trace: TraceId::of(number),
            took,
            at: Duration::from_millis(1_796_000_000_250),
        });
    }
    registry
        .backend("users")
        .called(Outcome::TimedOut, Duration::from_secs(2));
    registry.on_scrape(
        "state",
        Box::new(|page| {
            page.put(Family::Connections, &[], 1);
            page.put(Family::ConnectionsAccepted, &[], 3);
            page.put(Family::VerificationSeconds, &[], 0.0002);
        }),
    );
    let registry = Arc::new(registry);
    let page = registry.render_as(Format::OpenMetrics);
    let found = check(&page);
    let [(fast, first, took), (slow, second, _)] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(
        fast.ends_with("le=\"0.05\"}") && slow.ends_with("le=\"+Inf\"}"),
        "{found:?}"
    );
    let traces = [7_u128, 8].map(|number| format!("{number:032x}"));
    assert_eq!(([first, second], *took), ([&traces[0], &traces[1]], 0.03));
    assert!(page.contains(" 0.03 1796000000.250\n"), "{page}");
    for described in [
        "# TYPE gateway_requests counter\n",
        "# TYPE gateway_connections gauge\n",
        "# TYPE gateway_connections_total unknown\n",
        "# TYPE gateway_verification_seconds counter\n# UNIT gateway_verification_seconds seconds\n",
        "gateway_connections_total 3\n",
    ] {
        assert!(page.contains(described), "{described}");
    }
    assert!(
        !registry.render().contains("trace_id"),
        "the other format has no exemplars"
    );
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let check = |accept: &str, expected: Format| assert_eq!(Format::asked_for(accept), expected, "{accept}");
    check("", Format::Prometheus);
    check("*/*", Format::Prometheus);
    check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Prometheus);
    check("application/openmetrics-text", Format::OpenMetrics);
    check("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics);
    check("application/openmetrics-text;version=2.0.0", Format::Prometheus);
    check("application/openmetrics-text;q=0", Format::Prometheus);
    check("application/openmetrics-text;q=nonsense", Format::Prometheus);
    check(
        "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        Format::OpenMetrics,
    );
    check(
        "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2",
        Format::Prometheus,
    );
}
