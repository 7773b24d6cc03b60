//! Replays the copies of the published vectors in `fixtures/vectors` through the translations that `make replay` uses.
//!
//! Each case names where it was taken from: the tests of sony/gobreaker, resilience4j, x/time/rate, governor, lura,
//! finagle, tower and Envoy, the examples and rules of RFCs, Wycheproof's signatures, the attacks on tokens that have
//! been published. What we do not have, and what we do otherwise on purpose, is listed by name with the reason; a case
//! on a list that passes all the same fails the test, so the lists cannot go stale.

#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::Value;

mod suites;
mod tokens;
mod verdict;

const AGGREGATE: &str = include_str!("../../../fixtures/vectors/aggregate.json");
const BREAKER: &str = include_str!("../../../fixtures/vectors/breaker.json");
const BUCKET: &str = include_str!("../../../fixtures/vectors/bucket.json");
const HEADERS: &str = include_str!("../../../fixtures/vectors/headers.json");
const JWS: &str = include_str!("../../../fixtures/vectors/jws_vectors.json");
const RETRY: &str = include_str!("../../../fixtures/vectors/retry.json");

/// Cases that are answered otherwise on purpose, each with the reason.
type Different<'a> = &'a [(&'a str, &'a str)];

/// Cases that ask for what we do not have, in the adapter's words, in the order of their ids.
type Unsupported<'a> = &'a [(&'a str, &'a [&'a str])];

/// From the tests of sony/gobreaker v2 and resilience4j; random timelines by models of both.
#[test]
fn breakers() {
    let unsupported: Unsupported<'_> = &[
        (
            "a ratio of the calls admitted, asked after failures: ours is of results",
            &["rand-01", "rand-09"],
        ),
        (
            "a window of the last calls: ours is one of time",
            &["r4-count-oldest-leaves"],
        ),
        (
            "a window that is cleared at once: ours rolls",
            &["gb-generation", "rand-05", "rand-13"],
        ),
        (
            "half-open judged by a rate: with us one failed or slow probe reopens",
            &["r4-half-open-slow", "rand-03", "rand-07", "rand-11", "rand-15"],
        ),
    ];
    replay("breaker", BREAKER, &[], unsupported);
}

/// From the tests of golang.org/x/time/rate and boinkor-net/governor; random arrivals under the law of token buckets.
#[test]
fn buckets() {
    let different: Different<'_> = &[(
        "xr-jump-back",
        "a clock that runs backwards makes our buckets look emptier, until it has caught up: never a token too many",
    )];
    let unsupported: Unsupported<'_> = &[
        (
            "a quota of zero, or out of range",
            &["xr-set-after-zero", "xr-zero-rate"],
        ),
        (
            "a reservation that is cancelled late, or from between others",
            &["rs-cancel-0", "rs-cancel-multi", "rs-set-limit-cancel"],
        ),
    ];
    replay("bucket", BUCKET, different, unsupported);
}

/// From gRFC A6, Envoy, finagle and tower; RFC 9110 sections 9.2.2 and 10.2.3; RFC 9113 section 8.7.
#[test]
fn retries() {
    let unsupported: Unsupported<'_> = &[(
        "a retry budget of another kind",
        &[
            "bc-00", "bc-02", "bc-04", "bc-06", "bc-08", "bc-10", "bc-12", "bc-14", "bc-16", "bc-18", "bd-00", "bd-02",
            "bd-04", "bd-06", "bd-08", "bt-01", "bt-03", "bt-05", "bt-07", "bt-09",
        ],
    )];
    replay("retry", RETRY, &[], unsupported);
}

/// From the tests of luraproject/lura, which KrakenD is built on.
#[test]
fn aggregates() {
    let unsupported: Unsupported<'_> = &[("an operation on paths that is not a deletion", &["fl-full"])];
    replay("aggregate", AGGREGATE, &[], unsupported);
}

/// From draft-ietf-httpapi-ratelimit-headers, RFC 9110, RFC 9209 and RFC 9457.
#[test]
fn header_fields() {
    let unsupported: Unsupported<'_> = &[
        ("a document or a check that is not ours", &["emit-19", "emit-21"]),
        ("a parameter that is never told", &["emit-03"]),
    ];
    replay("headers", HEADERS, &[], unsupported);
}

/// From C2SP/wycheproof, and the examples of RFC 7515 and RFC 8037.
#[test]
fn signatures() {
    let different: Different<'_> = &[(
        "wy-350",
        "the key is for PS256 and the token is signed with PS384, which RFC 8725 section 3.1 forbids; so do, of this \
         very set, wy-332 to wy-340, whose signatures verify as well",
    )];
    replay("jws", JWS, different, &[]);
}

/// Every case of a file is answered as published, but for those on the lists.
fn replay(suite: &str, file: &str, different: Different<'_>, unsupported: Unsupported<'_>) {
    let mut as_published = 0;
    let mut wrong = Vec::new();
    let mut differing = BTreeSet::new();
    let mut lacking: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in read(file) {
        // For linters alone; `problem` has ours.
        if case["kind"] == "lint" {
            continue;
        }
        let id = case["id"].as_str().expect("an id").to_owned();
        let answer = suites::answer(suite, &question(&case));
        if answer["unsupported"] == true {
            let why = answer["why"].as_str().expect("a reason").to_owned();
            lacking.entry(why).or_default().insert(id);
        } else if let Err(difference) = verdict::judge(suite, &case, &answer) {
            if !different.iter().any(|(listed, _)| *listed == id) {
                wrong.push(format!("{id} ({}): {difference}", case["source"]));
            }
            differing.insert(id);
        } else {
            as_published += 1;
        }
    }
    // Past the harness, which would keep it to itself: how much was replayed is for everyone who runs the tests.
    let _ = writeln!(
        std::io::stderr(),
        "{suite}: {as_published} cases as published, {} otherwise on purpose, {} of what we do not have",
        differing.len(),
        lacking.values().map(BTreeSet::len).sum::<usize>()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    cases::report("vectors", suite, as_published);
    let listed: BTreeSet<String> = different.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(differing, listed, "the list of differences is stale");
    let owned = |(why, ids): &(&str, &[&str])| ((*why).to_owned(), ids.iter().map(|id| (*id).to_owned()).collect());
    let listed: BTreeMap<_, _> = unsupported.iter().map(owned).collect();
    assert_eq!(lacking, listed, "the list of what we do not have is stale");
}

fn read(file: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(file).expect("the vectors are JSON");
    let cases = document["cases"].as_array().expect("a list of cases").clone();
    assert_eq!(Some(cases.len() as u64), document["count"].as_u64());
    cases
}

/// The case without what is expected of it, as the runner hands it to an adapter.
fn question(case: &Value) -> Value {
    match case {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !["expect", "valid", "why", "source"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), question(value)))
            .collect(),
        Value::Array(items) => items.iter().map(question).collect(),
        other => other.clone(),
    }
}
