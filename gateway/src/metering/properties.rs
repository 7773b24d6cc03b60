//! Compares the readers with `serde_json`, and settlements with what they must add up to.

use std::num::NonZeroU64;
use std::slice::from_ref;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::event_reader::{EventReader, Events};
use super::json_reader::{Findings, JsonReader};
use super::*;
use crate::message::FieldMap;

const PATHS: [&str; 5] = ["usage.total", "a.*.b", "*", "usage.*", "list.*.*.x"];
const TEXTS: [&str; 3] = ["choices.*.delta.content", "a.b", "t"];

fn paths() -> Paths {
    let path = |text: &str| AnswerPath::parse(text).expect("a path");
    Paths::new(PATHS.map(|text| vec![path(text)]), TEXTS.map(path))
}

/// Everything found, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    numbers: Vec<(usize, u64)>,
    text: u64,
    values: usize,
    events: Vec<bool>,
}

impl Findings for Found {
    fn number(&mut self, summand: usize, value: u64) {
        self.numbers.push((summand, value));
    }
    fn text(&mut self, bytes: u64) {
        self.text += bytes;
    }
    fn end_value(&mut self) {
        self.values += 1;
    }
}

impl Events for Found {
    fn end_event(&mut self, is_json: bool) {
        self.events.push(is_json);
    }
}

/// What `serde_json` finds, in the order of the text.
fn expected(value: &Value, found: &mut Found) {
    fn walk(value: &Value, at: &mut Vec<Option<String>>, found: &mut Found) {
        let leads = |path: &str| {
            let steps: Vec<_> = path.split('.').collect();
            steps.len() == at.len()
                && steps
                    .iter()
                    .zip(at.iter())
                    .all(|(step, at)| *step == "*" || at.as_deref() == Some(step))
        };
        match value {
            Value::Number(number) => {
                if let Some(whole) = number
                    .as_u64()
                    .filter(|_| number.to_string().bytes().all(|byte| byte.is_ascii_digit()))
                {
                    found.numbers.extend(
                        (0..PATHS.len())
                            .filter(|path| leads(PATHS[*path]))
                            .map(|path| (path, whole)),
                    );
                }
            }
            Value::String(text) if TEXTS.iter().any(|path| leads(path)) => found.text += text.len() as u64,
            Value::Array(all) => {
                for one in all {
                    at.push(None);
                    walk(one, at, found);
                    at.pop();
                }
            }
            Value::Object(all) => {
                for (name, one) in all {
                    at.push(Some(name.clone()));
                    walk(one, at, found);
                    at.pop();
                }
            }
            _ => {}
        }
    }
    walk(value, &mut Vec::new(), found);
    found.values += 1;
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["usage", "total", "a", "b", "choices", "delta", "content", "t", "list", "x"]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z]{60,70}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..100).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from(
            "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{1f600}\"\\\n\"usage\":{\"total\":9}"
        )),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..5).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

/// Writes a value with whitespace and with escapes, so that nothing of it depends on the form.
fn written(value: &Value, form: u8) -> String {
    let text = match form % 2 {
        0 => value.to_string(),
        _ => serde_json::to_string_pretty(value).expect("it is written"),
    };
    if form < 2 {
        return text;
    }
    // All that is not ASCII, and some that is, as `\uXXXX`.
    let (mut out, mut in_text, mut escaped) = (String::new(), false, false);
    for letter in text.chars() {
        let was_escaped = std::mem::take(&mut escaped);
        if in_text && !was_escaped && letter == '\\' {
            escaped = true;
        } else if letter == '"' && !was_escaped {
            in_text = !in_text;
        } else if in_text && !was_escaped && (!letter.is_ascii() || "aeut".contains(letter)) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
            continue;
        }
        out.push(letter);
    }
    out
}

/// Cuts a text into pieces of these lengths; the rest is the last one.
fn cut<'t>(text: &'t [u8], lengths: &[usize]) -> Vec<&'t [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    for length in lengths {
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

fn read_json(pieces: &[&[u8]]) -> Found {
    let (paths, mut found) = (paths(), Found::default());
    let mut reader = JsonReader::new(&paths);
    pieces.iter().for_each(|piece| reader.read(piece, &paths, &mut found));
    reader.finish(&paths, &mut found);
    found
}

fn read_events(pieces: &[&[u8]]) -> Found {
    let (paths, mut found) = (paths(), Found::default());
    let mut reader = EventReader::new(&paths);
    pieces.iter().for_each(|piece| reader.read(piece, &paths, &mut found));
    found
}

/// Events as one who reads line by line understands them: the data of each.
fn data_of(stream: &str) -> Vec<String> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut all, mut data) = (Vec::new(), None::<String>);
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        if line.is_empty() {
            all.extend(data.take());
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            data = Some(data.map_or_else(|| value.to_owned(), |data| format!("{data}\n{value}")));
        }
    }
    all
}

proptest! {
    #![proptest_config(cases::counted())]

    #[test]
    fn any_cut_of_json_is_read_as_serde_json_reads_it(
        values in prop::collection::vec((value(), 0_u8..4), 1..4),
        lengths in prop::collection::vec(0_usize..9, 0..200),
    ) {
        let (mut text, mut all) = (String::new(), Found::default());
        for (value, form) in &values {
            text.push_str(&written(value, *form));
            text.push('\n');
            expected(value, &mut all);
        }
        let whole = read_json(&[text.as_bytes()]);
        prop_assert_eq!(&whole, &all, "{}", text);
        prop_assert_eq!(&read_json(&cut(text.as_bytes(), &lengths)), &all);
        let each: Vec<_> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(&read_json(&each), &all);
    }

    #[test]
    fn no_bytes_make_the_readers_fail_or_depend_on_the_cut(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(prop::sample::select(b"{}[]\",:\\u0123-.eE truefalsn\r\ndata:".to_vec()), 0..300),
        ],
        lengths in prop::collection::vec(0_usize..9, 0..100),
    ) {
        let pieces = cut(&bytes, &lengths);
        prop_assert_eq!(read_json(&[&bytes]), read_json(&pieces));
        prop_assert_eq!(read_events(&[&bytes]), read_events(&pieces));
    }

    #[test]
    fn events_are_read_in_any_form_and_cut(
        events in prop::collection::vec((value(), 0_u8..4, 0_usize..8), 0..6),
        lengths in prop::collection::vec(0_usize..9, 0..200),
        ending in prop::sample::select(vec!["\n", "\r", "\r\n"]),
        has_mark in any::<bool>(),
    ) {
        let mut stream = if has_mark { "\u{feff}".to_owned() } else { String::new() };
        for (value, form, kind) in &events {
            let text = written(value, *form);
            match kind {
                0 => stream.push_str(&format!("event: x{ending}id: 7{ending}")),
                1 => stream.push_str(&format!(": a comment{ending}:{ending}data-: no{ending}")),
                2 => stream.push_str(&format!("data: [DONE]{ending}{ending}")),
                3 => stream.push_str(&format!("{ending}data{ending}retry: 10{ending}")),
                _ => {}
            }
            for line in text.split('\n') {
                stream.push_str(if kind % 2 == 0 { "data: " } else { "data:" });
                stream.push_str(line);
                stream.push_str(ending);
            }
            stream.push_str(ending);
        }
        let mut all = Found::default();
        for data in data_of(&stream) {
            match serde_json::from_str::<Value>(&data) {
                Ok(value) => {
                    expected(&value, &mut all);
                    all.events.push(true);
                }
                Err(_) => all.events.push(data.trim().is_empty()),
            }
        }
        let found = read_events(&[stream.as_bytes()]);
        prop_assert_eq!(&found, &all, "{:?}", stream);
        prop_assert_eq!(&read_events(&cut(stream.as_bytes(), &lengths)), &all);
        let each: Vec<_> = stream.as_bytes().chunks(1).collect();
        prop_assert_eq!(&read_events(&each), &all);
    }

    /// Whatever an answer is and wherever it ends: what was reserved and what came on top is what is settled and what
    /// goes back, an answer that was seen is never free, and an estimate is within the reservation.
    #[test]
    fn what_is_reserved_is_settled_or_refunded(
        prompt in 1_u64..1000, generated in 0_u64..1000,
        events in prop::collection::vec(("[a-z ]{0,40}", prop::option::of((0_u64..3000, 0_u64..3000))), 0..8),
        kind in 0_usize..4, share in 0.0..=1.0_f64, end in 0_usize..3, is_good in any::<bool>(),
    ) {
        let reserved = Reserved { prompt, generated };
        let metering = Arc::new(metering());
        let mut body = String::new();
        for (text, usage) in &events {
            let mut event = json!({ "choices": [{ "delta": { "content": text } }] });
            if let Some((input, output)) = usage {
                event["usage"] = json!({ "input": input, "output": output });
            }
            match kind {
                0 => body.push_str(&format!("data: {event}\n\n")),
                _ => body.push_str(&format!("{event}\n")),
            }
        }
        let mut headers = FieldMap::new();
        let media_type = ["text/event-stream; charset=utf-8", "application/x-ndjson", "application/json", "text/plain"][kind];
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if kind == 3 {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let status = if is_good { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        let mut meter = AnswerMeter::begin(metering, reserved, status, &headers);
        let end = [AnswerEnd::Complete, AnswerEnd::BrokeOff, AnswerEnd::CallerLeft][end];
        let seen = match end {
            AnswerEnd::Complete => body.len(),
            _ => (body.len() as f64 * share) as usize,
        };
        for byte in &body.as_bytes()[..seen] {
            meter.read(&[*byte]);
        }
        let settled = meter.settle(end);
        prop_assert_eq!(
            reserved.units() + settled.beyond(reserved),
            settled.units + settled.refunded(reserved)
        );
        let said = meter_usage(&body.as_bytes()[..seen]);
        match said {
            None if is_good => prop_assert!((prompt..=reserved.units()).contains(&settled.units), "{settled:?}"),
            None => prop_assert_eq!(settled, Settlement::REFUND),
            Some(said) => prop_assert!((said..=said.max(reserved.units())).contains(&settled.units), "{settled:?} {said}"),
        }
        if let (Some(said), AnswerEnd::Complete) = (said, end) {
            prop_assert_eq!(settled, Settlement { units: said, by: Source::Usage });
        }
    }
}

fn metering() -> Metering {
    let path = |text: &str| AnswerPath::parse(text).expect("a path");
    Metering {
        paths: Paths::new(
            [vec![path("usage.input")], vec![path("usage.output")]],
            [path("choices.*.delta.content")],
        ),
        reserve: Reserve {
            bytes_per_unit: NonZeroU64::new(4).expect("not 0"),
            most: Vec::new(),
            default: None,
            ceiling: None,
            times: Vec::new(),
        },
        quotas: Vec::new(),
        setting: crate::setting::SettingId::URI,
    }
}

/// The last values whose end has been seen.
fn meter_usage(seen: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(seen);
    let last = |name: &str| {
        let all = text.match_indices(name).filter_map(|(at, _)| {
            let digits: String = text[at + name.len()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            let is_over = text.len() > at + name.len() + digits.len();
            (is_over && !digits.is_empty()).then(|| digits.parse::<u64>().expect("digits"))
        });
        all.last()
    };
    let (input, output) = (last("\"input\":"), last("\"output\":"));
    match (input, output) {
        (None, None) => None,
        (input, output) => Some(input.unwrap_or(0) + output.unwrap_or(0)),
    }
}

#[test]
fn a_stream_is_paid_for_by_what_was_seen() {
    let reserved = Reserved {
        prompt: 10,
        generated: 100,
    };
    let check = |stream: &str, end: AnswerEnd, expected: (u64, Source)| {
        let mut headers = FieldMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let mut meter = AnswerMeter::begin(Arc::new(metering()), reserved, StatusCode::OK, &headers);
        meter.read(stream.as_bytes());
        let settled = meter.settle(end);
        assert_eq!((settled.units, settled.by), expected, "{stream} {end:?}");
    };
    let text = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let usage = "data: {\"choices\":[],\"usage\":{\"input\":5,\"output\":9}}\n\n";
    let left = AnswerEnd::CallerLeft;
    // Nothing seen: the prompt alone.
    check("", left, (10, Source::Estimate));
    // Each event is one unit at least, and a long one as many as its bytes say.
    check(&text("a"), left, (11, Source::Estimate));
    check(
        &(text("a") + &text("") + &text("nine text")),
        left,
        (15, Source::Estimate),
    );
    check(
        &(text("a") + "data: {\"choices\":[{\"delta\":{\"content\":\"five"),
        left,
        (12, Source::Estimate),
    );
    check(
        &(text("a") + "data: [DONE]\n\n"),
        AnswerEnd::Complete,
        (11, Source::Estimate),
    );
    // Never more than was reserved.
    check(&text("a").repeat(500), left, (110, Source::Estimate));
    // What the backend says beats it, also where the caller leaves right after it.
    check(
        &(text("a").repeat(500) + usage),
        AnswerEnd::Complete,
        (14, Source::Usage),
    );
    check(&(text("a").repeat(500) + usage), left, (14, Source::Usage));
    check(
        &(text("a") + usage + "data: [DO"),
        AnswerEnd::BrokeOff,
        (14, Source::Usage),
    );
    // What comes after it counts on top.
    check(&(usage.to_owned() + &text("a").repeat(3)), left, (17, Source::Estimate));
    check(
        &(usage.to_owned() + &text("a").repeat(500)),
        left,
        (110, Source::Estimate),
    );
    // An unknown form counts by its bytes.
    check("data: {\"x\":1}\n\n", left, (14, Source::Estimate));
    check("data: some text\n\n", AnswerEnd::Complete, (15, Source::Estimate));
}

#[test]
fn an_answer_that_was_made_whole_is_not_cheaper_for_a_caller_that_leaves() {
    let reserved = Reserved {
        prompt: 10,
        generated: 1000,
    };
    let settle = |fields: &[(http::HeaderName, &'static str)], status: u16, seen: &str, end: AnswerEnd| {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let headers: FieldMap = headers.collect();
        let status = StatusCode::from_u16(status).expect("a status");
        let mut meter = AnswerMeter::begin(Arc::new(metering()), reserved, status, &headers);
        meter.read(seen.as_bytes());
        let settled = meter.settle(end);
        (settled.units, settled.by)
    };
    let (left, whole) = (AnswerEnd::CallerLeft, AnswerEnd::Complete);
    let json = (CONTENT_TYPE, "application/json");
    assert_eq!(settle(from_ref(&json), 200, "{", left), (1010, Source::Reservation));
    assert_eq!(
        settle(&[json.clone(), (CONTENT_LENGTH, "400")], 200, "{", left),
        (110, Source::Estimate)
    );
    assert_eq!(
        settle(from_ref(&json), 200, "{", AnswerEnd::BrokeOff),
        (11, Source::Estimate)
    );
    assert_eq!(settle(from_ref(&json), 500, "{", left), (0, Source::Refund));
    let used = r#"{"usage":{"input":5,"output":9},"choices":["#;
    for end in [left, whole, AnswerEnd::BrokeOff] {
        assert_eq!(settle(from_ref(&json), 200, used, end), (14, Source::Usage), "{end:?}");
        assert_eq!(settle(from_ref(&json), 400, used, end), (14, Source::Usage), "{end:?}");
    }
    // A backend that encodes though it was asked not to.
    let encoded = (http::header::CONTENT_ENCODING, "gzip");
    assert_eq!(
        settle(&[json.clone(), encoded.clone()], 200, used, whole),
        (1010, Source::Reservation)
    );
    assert_eq!(settle(&[json, encoded], 500, used, whole), (0, Source::Refund));
}
