//! Reads the published cases of `fixtures/vectors`: which are requests and answers, and how many.

use serde_json::Value;

use super::*;

const REQUESTS: &str = include_str!("../../../../../fixtures/vectors/http1_requests.json");
const ANSWERS: &str = include_str!("../../../../../fixtures/vectors/http1_responses.json");

/// Cases that are good messages, and are refused for what they ask by routing and by the checks of fields.
const REFUSED_LATER: &[&str] = &[
    "ho-at",
    "ho-dotdot",
    "ho-port-double",
    "ho-space",
    "rl-connect-path",
    "rl-bad-method",
    "ds-404-chunked",
];

fn cases(text: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).expect("JSON");
    all["cases"].as_array().expect("a list").clone()
}

/// Fills in what a case leaves open, and makes bytes of it.
fn fill(text: &str) -> Vec<u8> {
    let mut text = text.to_owned();
    for (hole, filling) in [
        ("{{PATH}}", "/a"),
        ("{{SMUG}}", "/smuggled"),
        ("{{HOST}}", "a"),
        ("{{NONCE}}", "n"),
        ("{{AUTH}}", ""),
        ("{{AUTHLF}}", ""),
    ] {
        text = text.replace(hole, filling);
    }
    if let (Some(start), Some(end)) = (text.find("{{<}}"), text.find("{{>}}")) {
        let size = end - start - "{{<}}".len();
        text = text.replace("{{<}}", "").replace("{{>}}", "");
        text = text.replace("{{HEXLEN}}", &format!("{size:x}"));
        text = text.replace("{{LEN}}", &size.to_string());
    }
    if text.contains("{{CL}}") {
        let length = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        text = text.replace("{{CL}}", &length.to_string());
    }
    let bytes = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a char is a byte"));
    bytes.collect()
}

fn bytes_of(case: &Value) -> Vec<u8> {
    match &case["segments"] {
        Value::Array(segments) => segments
            .iter()
            .flat_map(|segment| fill(segment["data"].as_str().expect("text")))
            .collect(),
        _ => fill(case["request"].as_str().expect("text")),
    }
}

fn allows(case: &Value, outcome: &str) -> bool {
    case["expect"]["outcome"]
        .as_array()
        .expect("a list")
        .iter()
        .any(|allowed| allowed == outcome)
}

#[test]
fn every_request_of_the_corpus_has_one_reading() {
    let limits = Limits::of_heads(8 * 1024, 64 * 1024, 100);
    let (mut refused, mut read_whole) = (0, 0);
    for case in cases(REQUESTS) {
        let id = case["id"].as_str().expect("a name");
        let bytes = bytes_of(&case);
        let (events, stop) = read(Reader::requests(limits), &[&bytes], true);
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(
            read(Reader::requests(limits), &single, true),
            (events.clone(), stop.clone()),
            "{id}"
        );
        let ends = events.iter().filter(|event| **event == Event::End).count() as u64;
        let says = told(&events);
        let is_smuggled = |event: &Event| match event {
            Event::Head(head) => head.fields.bytes().windows(9).any(|window| window == b"/smuggled"),
            _ => false,
        };
        assert!(!events.iter().any(is_smuggled), "{id}: {says}");
        let is_whole = matches!(stop, Stop::Closed | Stop::Rest(_)) && ends > 0;
        if is_whole {
            read_whole += 1;
            if allows(&case, "forward") {
                let count = case["expect"]["forward"]["count"].as_u64().expect("a number");
                assert_eq!(ends, count, "{id}: {says}");
                if let Some(body) = case["expect"]["forward"]["body"]
                    .as_str()
                    .filter(|body| !body.is_empty())
                {
                    assert!(says.contains(&format!("'{body}'")), "{id}: {says}");
                }
            } else {
                assert!(REFUSED_LATER.contains(&id), "{id}: {says} {stop:?}");
            }
        } else {
            refused += 1;
            let prefers = case["expect"]["prefer"].as_str();
            assert!(prefers != Some("forward"), "{id}: {says} {stop:?}");
            assert!(allows(&case, "reject") || ends > 0, "{id}: {says} {stop:?}");
        }
    }
    assert_eq!((refused, read_whole), (87, 50));
}

#[test]
fn every_answer_of_the_corpus_has_one_reading() {
    for case in cases(ANSWERS) {
        let id = case["id"].as_str().expect("a name");
        let bytes = fill(case["backend"]["raw"].as_str().expect("text"));
        let asked = if id.starts_with("rb-head") {
            Asked::Head
        } else {
            Asked::Other
        };
        let closes = case["backend"]["then"] == "close";
        let reader = || {
            let mut reader = Reader::answers(Limits::of_answers(100));
            reader.expect(asked);
            reader
        };
        let whole = read(reader(), &[&bytes], closes);
        assert_eq!(
            read(reader(), &bytes.chunks(1).collect::<Vec<_>>(), closes),
            whole,
            "{id}"
        );
        let is_complete = whole.0.contains(&Event::End);
        let mut says = told(&whole.0);
        if is_complete {
            let status = case["expect"]["status"]
                .as_u64()
                .unwrap_or_else(|| panic!("{id}: {says}"));
            let body = case["expect"]["body"].as_str().unwrap_or_default();
            let body = if body.is_empty() {
                String::new()
            } else {
                format!(" '{body}'")
            };
            if let Some(last) = says.rfind(&status.to_string()) {
                says.drain(..last);
            }
            assert_eq!(says, format!("{status}{body} end"), "{id}");
        } else {
            assert!(allows(&case, "bad_gateway"), "{id}: {says}");
        }
    }
}
