//! Checks that a request over HTTP/2 reaches a backend as one clean request or not at all, whatever bytes were sent.
//!
//! The published cases of `fixtures/vectors/h2_requests.json` run against a backend that reads more strictly than any
//! real server.

use serde_json::Value;
use tests::configs::{Config, UNGUARDED};
use tests::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use tests::http2_caller::Http2;
use tests::{Arrived, Gateway, Recorder};

const CASES: &str = include_str!("../../../fixtures/vectors/h2_requests.json");

/// Cases in which we do not do what the corpus demands, and why.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "h2-trailer-pseudo",
    "the library drops a pseudo-field in trailers rather than the request: it goes nowhere",
)];

struct Case<'a> {
    id: &'a str,
    mark: String,
    host: String,
    case: &'a Value,
}

impl Case<'_> {
    fn fill(&self, text: &str, length: usize) -> Vec<u8> {
        text.replace("{{PATH}}", &format!("/api/c-{}", self.mark))
            .replace("{{SMUG}}", &format!("/api/smuggled-{}", self.mark))
            .replace("{{HOST}}", &self.host)
            .replace("{{NONCE}}", &self.mark)
            .replace("{{CL}}", &length.to_string())
            // Beyond ASCII, a character of the corpus is a byte.
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
            .collect()
    }

    fn block(&self, fields: &Value, length: usize) -> Vec<u8> {
        let pairs: Vec<_> = fields
            .as_array()
            .expect("a list of fields")
            .iter()
            .map(|pair| {
                let text = |index: usize| pair[index].as_str().expect("text");
                (self.fill(text(0), length), self.fill(text(1), length))
            })
            .collect();
        frames::fields(&pairs)
    }

    fn simple(&self) -> Vec<u8> {
        let path = format!("/api/c-{}", self.mark);
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", &self.host),
        ];
        frames::fields(&fields)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = frames::begin();
        if let Some(script) = self.case["raw_frames"].as_array() {
            for line in script {
                out.extend(self.scripted(line.as_str().expect("a line")));
            }
            return out;
        }
        let data = self.case["data"].as_str().map(|data| self.fill(data, 0));
        let trailers = self.case.get("trailers");
        let block = self.block(&self.case["headers"], data.as_ref().map_or(0, Vec::len));
        let ends = |last: bool| if last { END_STREAM } else { 0 };
        let pieces: Vec<_> = block.chunks(16_000).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let ends_headers = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
            let ends_stream = ends(index == 0 && data.is_none() && trailers.is_none());
            out.extend(frame(kind, ends_headers | ends_stream, 1, piece));
        }
        if let Some(data) = &data {
            out.extend(frame(DATA, ends(trailers.is_none()), 1, data));
        }
        if let Some(trailers) = trailers {
            out.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &self.block(trailers, 0)));
        }
        out
    }

    /// Frames of one line of a script, as `ping:x5000`.
    fn scripted(&self, line: &str) -> Vec<u8> {
        let words: Vec<_> = line.split(':').collect();
        let number = |index: usize| -> u32 { words[index].trim_start_matches('x').parse().expect("a number") };
        let many = |frame: Vec<u8>, count: u32| frame.repeat(count as usize);
        let ends = if words.contains(&"end") { END_STREAM } else { 0 };
        let simple = self.simple();
        match words[0] {
            "headers" => frame(HEADERS, END_HEADERS | ends, number(1), &simple),
            "data" => frame(DATA, ends, number(1), words[2].as_bytes()),
            "window" => frame(WINDOW_UPDATE, 0, number(1), &number(2).to_be_bytes()),
            "push" => [
                frame(HEADERS, END_HEADERS, 1, &simple),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &simple[..]].concat()),
            ]
            .concat(),
            "ping" => many(frame(PING, 0, 0, b"12345678"), number(1)),
            "emptydata" => many(frame(DATA, 0, number(1), &[]), number(2)),
            "contflood" => {
                let more = (0..number(1)).flat_map(|index| {
                    let field = frames::fields(&[(format!("x-{index}"), "y".repeat(200))]);
                    frame(CONTINUATION, 0, 1, &field)
                });
                frame(HEADERS, 0, 1, &simple).into_iter().chain(more).collect()
            }
            "hpackbomb" => {
                let value = "b".repeat(3900);
                let mut block = simple;
                block.extend([0x40, 1, b'a']);
                block.extend(frames::integer(value.len()));
                block.extend(value.bytes());
                block.extend(vec![0xbe; number(1) as usize]);
                let (head, rest) = block.split_at(block.len().min(16_000));
                let rest = &rest[..rest.len().min(16_000)];
                [
                    frame(HEADERS, END_STREAM, 1, head),
                    frame(CONTINUATION, END_HEADERS, 1, rest),
                ]
                .concat()
            }
            "hpackbad" => {
                let bad: &[u8] = match words[1] {
                    "index" => &[0xff, 0xff, 0x00],
                    _ => &[
                        0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                    ],
                };
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&simple, bad].concat())
            }
            "rapid" => (0..number(1))
                .flat_map(|index| {
                    let stream = 2 * index + 1;
                    let get = frame(HEADERS, END_HEADERS | END_STREAM, stream, &simple);
                    [get, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                })
                .collect(),
            "settings" => many(frame(SETTINGS, 0, 0, &[]), number(1)),
            other => panic!("the corpus has a new word: {other}"),
        }
    }

    /// Returns what the corpus would object to.
    fn judge(&self, arrived: &[Arrived]) -> Result<(), String> {
        let own = |arrived: &&Arrived| arrived.head.target().contains(&self.mark);
        let all: Vec<_> = arrived.iter().filter(own).collect();
        if let Some(bad) = all.iter().find(|arrived| !arrived.defects.is_empty()) {
            return Err(format!("a defect arrived: {:?}", bad.defects));
        }
        if all.iter().any(|arrived| arrived.head.target().contains("smuggled")) {
            return Err("a request was smuggled".to_owned());
        }
        let expect = &self.case["expect"];
        let allows = |outcome: &str| {
            expect["outcome"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == outcome))
        };
        let whole: Vec<_> = all.iter().filter(|arrived| arrived.complete).collect();
        if allows("survive") {
            return Ok(());
        }
        if whole.is_empty() {
            return if allows("reject") {
                Ok(())
            } else {
                Err("it was refused".to_owned())
            };
        }
        if !allows("forward") {
            return Err("it was passed on".to_owned());
        }
        let forward = &expect["forward"];
        if forward["count"]
            .as_u64()
            .is_some_and(|count| count != whole.len() as u64)
        {
            return Err(format!("{} were passed on", whole.len()));
        }
        if let Some(body) = forward["body"].as_str()
            && whole[0].body != body.as_bytes()
        {
            return Err(format!("the body is {:?}", whole[0].body));
        }
        let absent = forward["header_absent"].as_array().into_iter().flatten();
        for name in absent.filter_map(Value::as_str) {
            if !whole[0].head.all(name).is_empty() {
                return Err(format!("{name} was passed on"));
            }
        }
        for (name, value) in forward["header_not"].as_object().into_iter().flatten() {
            if whole[0].head.all(name).iter().any(|sent| value == sent) {
                return Err(format!("{name} was passed on as it was"));
            }
        }
        Ok(())
    }
}

/// Reads until the request or the connection has come to an end.
async fn ends(connection: &mut tests::Raw) {
    let mut came = Vec::new();
    while let Some(piece) = connection.piece().await {
        came.extend(piece);
        let is_over = |(kind, flags, stream, _): &(u8, u8, u32, Vec<u8>)| match *kind {
            GOAWAY => true,
            RST_STREAM => *stream == 1,
            HEADERS | DATA => *stream == 1 && flags & END_STREAM != 0,
            _ => false,
        };
        if frames::read(&came).iter().any(is_over) {
            return;
        }
    }
}

#[tokio::test]
async fn every_request_of_the_corpus_is_clean_or_refused() {
    let recorder = Recorder::start().await;
    let config = Config::default()
        // A connection that would go on waiting ends soon.
        .top("time_limits: { request: 2s, reserve: 500ms, head: 500ms, keep_alive: 500ms }")
        .open("api", recorder.address(), UNGUARDED);
    let gateway = Gateway::start(config.to_string()).await;
    let corpus: Value = serde_json::from_str(CASES).expect("JSON");
    let cases = corpus["cases"].as_array().expect("a list of cases");
    assert_eq!(Some(cases.len() as u64), corpus["count"].as_u64());

    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let case = Case {
            id: case["id"].as_str().expect("an id"),
            mark: format!("m{index}m"),
            host: gateway.address().to_string(),
            case,
        };
        let mut connection = gateway.connect().await;
        connection.send(case.bytes()).await;
        ends(&mut connection).await;
        let canary = Http2::connect(gateway.address()).await.get("/api/canary").await;
        let is_well = canary.is_ok_and(|answer| answer.status == 200 && answer.text().contains("canary"));
        let judged = case.judge(&recorder.arrived());
        match (is_well, judged, EXCEPTIONS.iter().any(|(id, _)| *id == case.id)) {
            (false, ..) => wrong.push(format!("{}: others were harmed", case.id)),
            (true, Err(why), false) => wrong.push(format!("{}: {why}", case.id)),
            (true, Ok(()), true) => wrong.push(format!("{} is no exception any more", case.id)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
