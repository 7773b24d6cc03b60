//! Checks that every message has one reading or is refused, in both directions.
//!
//! The published test cases of `fixtures/vectors` (see its README for the format and sources) run against a backend
//! that reads more strictly than any real server. The gateway must match the hardened choice of each case, not only the
//! safe one.

use std::time::Duration;

use serde_json::Value;
use tests::configs::{Config, UNGUARDED};
use tests::message::{self, Head, Message};
use tests::{Arrived, Gateway, Raw, Recorder, Script};

const REQUESTS: &str = include_str!("../../../fixtures/vectors/http1_requests.json");
const ANSWERS: &str = include_str!("../../../fixtures/vectors/http1_responses.json");

/// Cases in which we do not make the corpus's preferred choice, and why.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "ch-size-wrap32",
    "a chunk of 4 GiB is a good size; its sender hangs up, so there is no one to tell 400 from 499",
)];

async fn start() -> (Recorder, Gateway) {
    let recorder = Recorder::start().await;
    let config = Config::default().open("api", recorder.address(), UNGUARDED);
    (recorder, Gateway::start(config.to_string()).await)
}

/// Returns the messages that came back whole.
struct Exchange {
    answers: Vec<Message>,
    /// Interim answers, with a status below 200.
    interim: usize,
    /// Bytes that are no whole answer.
    rest: Vec<u8>,
}

fn read(bytes: &[u8], methods: &[String], closed: bool) -> Exchange {
    let mut exchange = Exchange {
        answers: Vec::new(),
        interim: 0,
        rest: bytes.to_vec(),
    };
    loop {
        let method = methods.get(exchange.answers.len()).map_or("GET", String::as_str);
        let answer = message::answer(&exchange.rest, method == "HEAD", closed);
        let Some(end) = answer.end else { return exchange };
        exchange.rest.drain(..end);
        if status(&answer) < 200 {
            exchange.interim += 1;
        } else {
            exchange.answers.push(answer);
        }
    }
}

fn status(answer: &Message) -> u16 {
    answer.head.as_ref().map_or(0, Head::status)
}

/// Fills in what a case leaves open, and makes bytes of it.
fn fill(text: &str, mark: &str, host: &str) -> Vec<u8> {
    let mut text = text
        .replace("{{PATH}}", &format!("/api/c-{mark}"))
        .replace("{{SMUG}}", &format!("/api/smuggled-{mark}"))
        .replace("{{HOST}}", host)
        .replace("{{NONCE}}", mark)
        .replace("{{AUTH}}", "")
        .replace("{{AUTHLF}}", "");
    if let (Some(start), Some(end)) = (text.find("{{<}}"), text.find("{{>}}")) {
        let size = end - start - "{{<}}".len();
        text = text
            .replace("{{<}}", "")
            .replace("{{>}}", "")
            .replace("{{HEXLEN}}", &format!("{size:x}"))
            .replace("{{LEN}}", &size.to_string());
    }
    if text.contains("{{CL}}") {
        let length = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        text = text.replace("{{CL}}", &length.to_string());
    }
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a char is a byte"))
        .collect()
}

/// Sends what the case says and reads until the gateway has said all it will.
async fn exchange(gateway: &Gateway, case: &Value, segments: &[(Vec<u8>, Value)], methods: &[String]) -> Exchange {
    let expect = &case["expect"];
    let forwarded = expect["forward"]["count"].as_u64().unwrap_or(1);
    let wanted = expect["responses"]
        .as_u64()
        .unwrap_or(if allows(expect, "forward") { forwarded } else { 1 });
    let mut caller = Raw::connect(gateway.address()).await;
    for (bytes, how) in segments {
        let pause = Duration::from_millis(how["gap_ms"].as_u64().unwrap_or_default());
        let size = how["chop"]
            .as_u64()
            .map_or(bytes.len(), |chop| usize::try_from(chop).expect("small"));
        for piece in bytes.chunks(size) {
            caller.send(piece).await;
            // Not to wait for anything, but so that the pieces are not put together on the way.
            tokio::time::sleep(pause).await;
        }
    }
    let mut half_closed = case["half_close"] == true;
    if half_closed {
        caller.half_close().await;
    }
    let mut bytes = Vec::new();
    while let Some(piece) = caller.piece().await {
        bytes.extend(piece);
        let so_far = read(&bytes, methods, false);
        if so_far.answers.len() as u64 >= wanted && !half_closed && expect["must_close"] != true {
            caller.half_close().await;
            half_closed = true;
        }
    }
    read(&bytes, methods, true)
}

fn allows(expect: &Value, outcome: &str) -> bool {
    expect["outcome"]
        .as_array()
        .expect("a list")
        .iter()
        .any(|allowed| allowed == outcome)
}

fn holds(list: &Value, status: u16) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|one| one == status))
}

/// Returns what is wrong with one request of the corpus.
async fn judge_request(gateway: &Gateway, recorder: &Recorder, case: &Value, mark: &str) -> Vec<String> {
    let expect = &case["expect"];
    let host = gateway.address().to_string();
    let segments: Vec<(Vec<u8>, Value)> = match &case["segments"] {
        Value::Array(segments) => {
            let part = |segment: &Value| {
                (
                    fill(segment["data"].as_str().unwrap_or(""), mark, &host),
                    segment.clone(),
                )
            };
            segments.iter().map(part).collect()
        }
        _ => vec![(fill(case["request"].as_str().expect("text"), mark, &host), Value::Null)],
    };
    let method =
        || String::from_utf8_lossy(segments[0].0.split(|&byte| byte == b' ').next().unwrap_or(b"")).into_owned();
    let methods: Vec<String> = match expect["methods"].as_array() {
        Some(methods) => methods
            .iter()
            .filter_map(|method| method.as_str().map(str::to_owned))
            .collect(),
        None => vec![method().trim_start().to_owned()],
    };
    let got = exchange(gateway, case, &segments, &methods).await;

    let mut wrong = Vec::new();
    let arrived = recorder.arrived();
    let mine: Vec<&Arrived> = arrived.iter().filter(|one| one.head.first.contains(mark)).collect();
    let whole: Vec<&Arrived> = mine.iter().copied().filter(|one| one.complete).collect();
    let statuses: Vec<u16> = got.answers.iter().map(status).collect();
    let outcome = match () {
        () if !whole.is_empty() => "forward",
        () if statuses.iter().any(|&status| status >= 400) => "reject",
        () if !statuses.is_empty() && expect["any_status"] == true => "reject",
        () if !statuses.is_empty() => "answered",
        () => "reject",
    };
    let is_end_of_wait = outcome == "reject" && allows(expect, "incomplete");
    if !(allows(expect, outcome) || is_end_of_wait) {
        wrong.push(format!("outcome {outcome}"));
    }
    let smuggled = mine.iter().any(|one| one.head.target().contains("smuggled"));
    if smuggled && expect["smuggle_ok"] != true {
        wrong.push("smuggled".to_owned());
    }
    wrong.extend(mine.iter().flat_map(|one| one.defects.clone()));
    wrong.extend(got.answers.iter().flat_map(|answer| answer.defects.clone()));
    if !got.rest.is_empty() {
        wrong.push(format!("more than answers: {:?}", String::from_utf8_lossy(&got.rest)));
    }
    if outcome == "forward" {
        judge_forwarded(expect, &whole, &got, &mut wrong);
    }
    if outcome == "reject" {
        let reasoned = got.answers.iter().filter(|answer| status(answer) >= 400).all(|answer| {
            answer
                .head
                .as_ref()
                .is_some_and(|head| head.all("content-type") == ["application/problem+json"])
                && !answer.body.is_empty()
        });
        if !reasoned && methods[0] != "HEAD" {
            wrong.push("a refusal without a problem document".to_owned());
        }
    }
    let is_preferred = expect["prefer"].is_null() || expect["prefer"] == outcome;
    let is_fitting = outcome != "reject"
        || expect["status"].is_null()
        || statuses.iter().any(|&status| holds(&expect["status"], status));
    let is_excepted = EXCEPTIONS.iter().any(|(id, _)| case["id"] == *id);
    if !(is_preferred && is_fitting || is_excepted) {
        wrong.push(format!("{outcome} {statuses:?} is not what the corpus prefers"));
    }
    wrong
}

fn judge_forwarded(expect: &Value, whole: &[&Arrived], got: &Exchange, wrong: &mut Vec<String>) {
    let forward = &expect["forward"];
    let first = whole[0];
    if forward["count"]
        .as_u64()
        .is_some_and(|count| count != whole.len() as u64)
    {
        wrong.push(format!("{} requests arrived", whole.len()));
    }
    if forward["method"]
        .as_str()
        .is_some_and(|method| method != first.head.method())
    {
        wrong.push(format!("method {}", first.head.method()));
    }
    let body: String = first.body.iter().copied().map(char::from).collect();
    let bodies = forward["body_in"].as_array().map_or(&[][..], Vec::as_slice);
    let mut fitting = forward["body"]
        .as_str()
        .into_iter()
        .chain(bodies.iter().filter_map(Value::as_str))
        .peekable();
    if fitting.peek().is_some() && !fitting.any(|fits| fits == body) {
        wrong.push(format!("body {body:?}"));
    }
    if forward["target_not"]
        .as_str()
        .is_some_and(|not| first.head.target().contains(not))
    {
        wrong.push(format!("target {}", first.head.target()));
    }
    for name in texts(&forward["header_absent"]) {
        if !first.head.all(&name).is_empty() {
            wrong.push(format!("{name} arrived"));
        }
    }
    for (name, value) in pairs(&forward["header"]) {
        if first.head.all(&name) != [value.as_str().unwrap_or_default()] {
            wrong.push(format!("{name} is {:?}", first.head.all(&name)));
        }
    }
    for (name, value) in pairs(&forward["header_not"]) {
        if first.head.all(&name).contains(&value.as_str().unwrap_or_default()) {
            wrong.push(format!("{name}: {value} arrived"));
        }
    }
    for (name, values) in pairs(&forward["header_in"]) {
        let value = first
            .head
            .all(&name)
            .first()
            .map_or(Value::Null, |value| Value::from(*value));
        if !values.as_array().is_some_and(|values| values.contains(&value)) {
            wrong.push(format!("{name} is {value}"));
        }
    }
    let statuses: Vec<u16> = got.answers.iter().map(status).collect();
    if expect["responses"]
        .as_u64()
        .is_some_and(|count| count != statuses.len() as u64)
        || expect["responses_min"]
            .as_u64()
            .is_some_and(|count| count > statuses.len() as u64)
        || statuses.is_empty()
    {
        wrong.push(format!("answers {statuses:?}"));
    }
    if expect["statuses"]
        .as_array()
        .is_some_and(|expected| *expected != statuses.iter().map(|&s| Value::from(s)).collect::<Vec<_>>())
    {
        wrong.push(format!("statuses {statuses:?}"));
    }
    if expect["no_interim"] == true && got.interim > 0 {
        wrong.push("an interim answer to HTTP/1.0".to_owned());
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

fn pairs(object: &Value) -> Vec<(String, Value)> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Returns what is wrong with the way in which one answer of the corpus was passed on.
async fn judge_answer(gateway: &Gateway, recorder: &Recorder, case: &Value, mark: &str) -> Vec<String> {
    let (expect, backend) = (&case["expect"], &case["backend"]);
    let method = case["method"].as_str().expect("a method");
    recorder.script(
        mark,
        Script {
            bytes: fill(backend["raw"].as_str().expect("bytes"), mark, ""),
            closes: backend["then"] != "keep",
        },
    );
    let mut caller = Raw::connect(gateway.address()).await;
    caller
        .send(format!("{method} /api/{mark} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .await;
    let (mut bytes, mut half_closed) = (Vec::new(), false);
    let methods = [method.to_owned()];
    while let Some(piece) = caller.piece().await {
        bytes.extend(piece);
        if !half_closed && !read(&bytes, &methods, false).answers.is_empty() {
            half_closed = true;
            caller.half_close().await;
        }
    }
    let got = read(&bytes, &methods, true);
    let mut wrong = Vec::new();
    let outcome = match got.answers.first() {
        Some(answer) if status(answer) >= 500 && status(answer) != expect["status"] => "bad_gateway",
        Some(_) => "deliver",
        None => "truncated",
    };
    if !allows(expect, outcome) {
        wrong.push(format!("outcome {outcome}: {:?}", String::from_utf8_lossy(&bytes)));
    }
    if let (Some(answer), "deliver") = (got.answers.first(), outcome) {
        let body: String = answer.body.iter().copied().map(char::from).collect();
        let head = answer.head.clone().unwrap_or_default();
        if expect["status"] != status(answer) || expect["body"].as_str().is_some_and(|expected| expected != body) {
            wrong.push(format!("{} {body:?}", status(answer)));
        }
        for name in texts(&expect["header_absent"]) {
            if !head.all(&name).is_empty() {
                wrong.push(format!("{name} has come"));
            }
        }
        if expect["client_keepalive"] == true && (!half_closed || head.all("connection").contains(&"close")) {
            wrong.push("the caller's connection was closed".to_owned());
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    if got.answers.len() > 1 || text.contains("poison") {
        wrong.push(format!("more than one answer: {text:?}"));
    }
    wrong.extend(got.answers.iter().flat_map(|answer| answer.defects.clone()));
    wrong
}

/// A request of its own gets the answer to it.
async fn canary(gateway: &Gateway, mark: &str) -> Option<String> {
    let answer = gateway
        .raw(format!(
            "GET /api/canary-{mark} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
        .await;
    let is_own = answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("canary-{mark}"));
    (!is_own).then(|| format!("the canary got {answer:?}"))
}

fn cases(corpus: &str) -> Vec<Value> {
    let corpus: Value = serde_json::from_str(corpus).expect("JSON");
    corpus["cases"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn every_request_of_the_corpus_has_one_reading() {
    let (recorder, gateway) = start().await;
    let mut failures = Vec::new();
    for (index, case) in cases(REQUESTS).iter().enumerate() {
        let mark = format!("q{index}q");
        let mut wrong = judge_request(&gateway, &recorder, case, &mark).await;
        wrong.extend(canary(&gateway, &mark).await);
        failures.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", case["id"])));
    }
    let stray = recorder.arrived().into_iter().filter(|one| {
        let first = &one.head.first;
        !first.contains("/c-q") && !first.contains("canary-q") && !first.contains("smuggled-q")
    });
    failures.extend(stray.map(|one| format!("stray: {:?}", one.head.first)));
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn every_answer_of_the_corpus_is_passed_on_whole_or_is_a_502() {
    let (recorder, gateway) = start().await;
    let mut failures = Vec::new();
    for (index, case) in cases(ANSWERS).iter().enumerate() {
        let mark = format!("p{index}p");
        let mut wrong = judge_answer(&gateway, &recorder, case, &mark).await;
        wrong.extend(canary(&gateway, &mark).await);
        failures.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", case["id"])));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn good_requests_before_a_bad_one_are_answered_first() {
    let (recorder, gateway) = start().await;
    let good = |n: u32| format!("POST /api/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    let mut caller = gateway.connect().await;
    caller
        .send(format!(
            "{}{}GET /api/3 HTTP/1.1\nHost: a\r\n\r\n{}",
            good(1),
            good(2),
            good(4)
        ))
        .await;
    let all = caller.rest().await;
    let got = read(all.as_bytes(), &[], true);
    assert_eq!(
        got.answers.iter().map(status).collect::<Vec<_>>(),
        [200, 200, 400],
        "{all}"
    );
    for (answer, target) in got.answers.iter().zip(["/1", "/2", "malformed_request"]) {
        assert!(String::from_utf8_lossy(&answer.body).contains(target), "{all}");
    }
    assert_eq!(recorder.arrived().len(), 2);
    assert_eq!(gateway.metric("gateway_malformed_connections_total", &[]).await, 1.0);
    let rejected = gateway.metric("gateway_rejections_total", &[("reason", "malformed_request")]);
    assert_eq!(rejected.await, 1.0);
}

#[tokio::test]
async fn a_backend_that_says_too_much_is_not_asked_again_on_that_connection() {
    let (recorder, gateway) = start().await;
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    recorder.script(
        "talkative",
        Script {
            bytes: format!("{one}{one}").into_bytes(),
            closes: false,
        },
    );
    for n in 0..20 {
        gateway.get("/api/talkative").send().await.expect(200);
        let answer = gateway.get(&format!("/api/{n}")).send().await.expect(200);
        assert!(answer.text().contains(&format!("/{n}\"")), "{}", answer.text());
    }
}

/// RFC 9112 section 7.1.2 and RFC 9110 section 6.5.1: what is announced passes, what frames or routes never does.
#[tokio::test]
async fn trailers_pass_both_ways_without_what_frames_or_routes() {
    let (recorder, gateway) = start().await;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, host\r\n\r\n";
    recorder.script(
        "trailers",
        Script {
            bytes: format!("{head}2\r\nok\r\n0\r\nx-sum: 9\r\nHost: evil\r\n\r\n").into_bytes(),
            closes: false,
        },
    );
    let answer = gateway
        .raw(
            "POST /api/trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\nTrailer: x-sum, host\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\nHost: evil\r\nContent-Length: 9\r\n\r\n",
        )
        .await;
    let got = message::answer(answer.as_bytes(), false, true);
    let sum = |value: &str| vec![("x-sum".to_owned(), value.to_owned())];
    assert_eq!((got.trailers, got.end), (sum("9"), Some(answer.len())), "{answer}");
    let arrived = recorder.arrived();
    assert_eq!(
        (&arrived[0].trailers, arrived[0].complete),
        (&sum("5"), true),
        "{arrived:?}"
    );
}
