//! Properties of any bytes, and of any message.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, StatusCode, Version};
use proptest::prelude::*;

use super::*;
use crate::message::FieldMap;

/// Generates lines, chunks and noise, some of which form requests.
pub(crate) fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "GET / HTTP/1.1~",
        "GET /a?b=c HTTP/1.1~",
        "POST /a HTTP/1.1~",
        "HEAD / HTTP/1.1~",
        "POST / HTTP/1.0~",
        "OPTIONS * HTTP/1.1~",
        "~GET / HTTP/1.1~",
        "GET http://a/b HTTP/1.1~",
        "GET  / HTTP/1.1~",
        "GET / HTTP/1.1\n",
        "GET /#b HTTP/1.1~",
        "GET /?`b HTTP/1.1~",
        "PRI * HTTP/2.0~",
    ]);
    messages(start, "Host: a~")
}

/// Generates the same for answers.
pub(crate) fn answer_traffic() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "HTTP/1.1 200 OK~",
        "HTTP/1.1 200~",
        "HTTP/1.0 200 OK~",
        "HTTP/1.1 404 ~",
        "HTTP/1.1 204 No Content~",
        "HTTP/1.1 304 Not Modified~",
        "HTTP/1.1 100 Continue~~HTTP/1.1 200 OK~",
        "HTTP/1.1 103 Early Hints~",
        "HTTP/1.1 101 Switching Protocols~",
        "HTTP/1.1 200 OK\n",
        "HTTP/2 200 OK~",
        "~HTTP/1.1 200 OK~",
    ]);
    messages(start, "")
}

fn messages(start: impl Strategy<Value = &'static str>, host: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let field = prop::sample::select(vec![
        "X: y~",
        "X:~",
        "X: \u{e9}\t~",
        "Connection: close~",
        "Connection: keep-alive~",
        "Expect: 100-continue~",
        "Keep-Alive: timeout=5~",
        "X y: z~",
        "X : y~",
        " X: y~",
        "X: y\n",
        "X: \0~",
        "Host: b~",
        "Content-Length: 5~",
        "Content-Length: 05~",
        "Transfer-Encoding: chunked~",
        "Transfer-Encoding: gzip~",
    ]);
    let frame = prop::sample::select(vec![
        "",
        "",
        "Content-Length: 5~",
        "Content-Length: 0~",
        "Transfer-Encoding: chunked~",
        "Transfer-Encoding: chunked~",
        "transfer-encoding: Chunked ~",
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "0~~",
        "5~hello~0~~",
        "0005;a=b~hello~0~~",
        "2 ;a=\"b;c\"~ok~1;d~!~0;e~T: v~~",
        "5~hello~0~Content-Length: 5~~",
        "5~hello~~0~~",
        "5;~hello~0~~",
        "5\nhello~0~~",
        "5~hello~0~T: v\n~",
        "ffffffffffffffff~",
        "fffffffffffffffff~",
    ]);
    let message = (start, prop::collection::vec(field, 0..3), frame, body)
        .prop_map(move |(start, fields, frame, body)| wire(&format!("{start}{host}{}{frame}~{body}", fields.concat())));
    let damage = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    (prop::collection::vec(message, 1..4), damage).prop_map(|(messages, damage)| {
        let mut bytes = messages.concat();
        if let Some((at, byte)) = damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    prop::sample::select(vec![Asked::Other, Asked::Other, Asked::Head, Asked::Connect])
}

/// Cuts `bytes` at the given places.
pub(crate) fn cut<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let ends = at.iter().copied().chain([bytes.len()]);
    let starts = [0].into_iter().chain(at.iter().copied());
    starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect()
}

/// Message as its parts.
#[derive(Debug, Clone)]
struct Message {
    status: Option<StatusCode>,
    method: String,
    target: String,
    fields: FieldMap,
    length: Option<BodyLength>,
    body: Vec<Vec<u8>>,
    trailers: FieldMap,
}

fn fields() -> impl Strategy<Value = FieldMap> {
    let field = ("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}", "[ -~\t\u{80}-\u{ff}]{0,20}");
    prop::collection::vec(field, 0..8).prop_map(|lines| {
        let mut map = FieldMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
            let value: Vec<u8> = value.chars().map(|c| u32::from(c) as u8).collect();
            let value = HeaderValue::from_bytes(value.trim_ascii()).expect("a value");
            use FieldKind as K;
            let kind = FieldKind::of(name.as_str().as_bytes());
            let says_more = matches!(
                kind,
                K::Connection | K::Expect | K::Host | K::KeepAlive | K::Te | K::Trailer | K::Upgrade
            );
            if !says_more {
                map.append(name, value);
            }
        }
        map
    })
}

fn message() -> impl Strategy<Value = Message> {
    let status = prop::option::of((200u16..=599).prop_filter("no body", |status| !matches!(status, 204 | 304)));
    let body = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4);
    let method = "[A-Z]{1,8}".prop_filter("another form of target", |method| method != "CONNECT");
    (
        status,
        method,
        "/[a-z0-9%./?=&`-]{0,20}",
        fields(),
        0..3,
        body,
        fields(),
    )
        .prop_map(|(status, method, target, fields, framing, body, trailers)| {
            let size: usize = body.iter().map(Vec::len).sum();
            let length = match framing {
                0 => Some(BodyLength::Chunked),
                1 if status.is_some() => Some(BodyLength::UntilClose),
                _ if size == 0 && status.is_none() => None,
                _ => Some(BodyLength::Exact(size as u64)),
            };
            let path = target.split('?').next().unwrap_or_default().replace('`', "");
            let query = target
                .split_once('?')
                .map_or(String::new(), |(_, query)| format!("?{query}"));
            Message {
                status: status.map(|status| StatusCode::from_u16(status).expect("in range")),
                method,
                target: path + &query,
                fields,
                length,
                body: if length.is_none() { Vec::new() } else { body },
                trailers: if length == Some(BodyLength::Chunked) {
                    trailers
                } else {
                    FieldMap::new()
                },
            }
        })
}

impl Message {
    fn encode(&self, out: &mut BytesMut) {
        let host = HeaderValue::from_static("a");
        // What the fields say of the framing does not count.
        let mut fields = self.fields.clone();
        fields.insert("content-length", HeaderValue::from_static("7"));
        fields.insert("transfer-encoding", HeaderValue::from_static("gzip"));
        match self.status {
            None => write_request_head(
                out,
                (&self.method, &self.target, Some(&host)),
                fields.iter(),
                self.length,
            ),
            Some(status) => write_answer_head(out, (Version::HTTP_11, status, None), fields.iter(), self.length),
        }
        let mut encoder = BodyEncoder::new(self.length);
        for piece in &self.body {
            let frame = encoder.frame(piece.len()).expect("it is as long as stated");
            for part in [frame.before(), piece, frame.after] {
                out.extend_from_slice(part);
            }
        }
        encoder
            .end(Some(&self.trailers.clone().into()), out)
            .expect("it is as long as stated");
        assert!(encoder.has_ended());
    }

    /// Checks that these are the events of the message.
    fn assert_told_by(&self, events: &[Event]) {
        let mut events = events.iter();
        let Some(Event::Head(head)) = events.next() else {
            panic!("no head")
        };
        match (self.status, head.start_line()) {
            (None, StartLine::Request { method, target }) => {
                assert_eq!((method, target), (self.method.as_bytes(), self.target.as_bytes()));
            }
            (Some(status), StartLine::Answer { status: read, reason }) => {
                assert_eq!(read, status.as_u16());
                assert_eq!(reason, status.canonical_reason().unwrap_or_default().as_bytes());
            }
            other => panic!("{other:?}"),
        }
        let mut map = head.fields.to_map_without_framing().expect("it fits");
        assert_eq!(map.remove("host").is_some(), self.status.is_none());
        assert_eq!(map, self.fields);
        assert_eq!(head.is_last(), self.length == Some(BodyLength::UntilClose));
        let body = self.body.concat();
        if !body.is_empty() {
            assert_eq!(events.next(), Some(&Event::Data(body.into())));
        }
        if !self.trailers.is_empty() {
            let Some(Event::Trailers(trailers)) = events.next() else {
                panic!("no trailers")
            };
            assert_eq!(trailers.to_map().expect("it fits"), self.trailers);
        }
        assert_eq!((events.next(), events.next()), (Some(&Event::End), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    #[test]
    fn properties_events_do_not_depend_on_the_pieces(
        bytes in traffic(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        closes in any::<bool>(),
    ) {
        let whole = read(requests(), &[&bytes], closes);
        prop_assert_eq!(&read(requests(), &cut(&bytes, &at), closes), &whole);
        prop_assert_eq!(&read(requests(), &bytes.chunks(1).collect::<Vec<_>>(), closes), &whole);
    }

    #[test]
    fn properties_events_of_answers_do_not_depend_on_the_pieces(
        bytes in answer_traffic(),
        asked in asked(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        closes in any::<bool>(),
    ) {
        let whole = read(answers(asked), &[&bytes], closes);
        prop_assert_eq!(&read(answers(asked), &cut(&bytes, &at), closes), &whole);
        prop_assert_eq!(&read(answers(asked), &bytes.chunks(1).collect::<Vec<_>>(), closes), &whole);
    }

    #[test]
    fn properties_what_is_written_is_read(
        message in message(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let limits = Limits { trailers: 1000, ..LIMITS };
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        let reader = || match message.status {
            None => Reader::requests(limits),
            Some(_) => {
                let mut reader = Reader::answers(limits);
                reader.expect(Asked::Other);
                reader
            }
        };
        let (events, stop) = read(reader(), &cut(&bytes, &at), true);
        prop_assert_eq!(stop, Stop::Closed);
        message.assert_told_by(&events);
        // Without its last byte it is not complete.
        if message.length != Some(BodyLength::UntilClose) {
            let (events, _) = read(reader(), &[&bytes[..bytes.len() - 1]], true);
            prop_assert!(!events.contains(&Event::End));
        }
    }

    #[test]
    fn properties_requests_follow_each_other(messages in prop::collection::vec(message(), 1..4)) {
        let mut bytes = BytesMut::new();
        let requests: Vec<_> = messages.into_iter().filter(|message| message.status.is_none()).collect();
        requests.iter().for_each(|message| message.encode(&mut bytes));
        let (events, stop) = read(Reader::requests(Limits { trailers: 1000, ..LIMITS }), &[&bytes], true);
        prop_assert_eq!(stop, Stop::Closed);
        let told: Vec<_> = events.split_inclusive(|event| *event == Event::End).collect();
        prop_assert_eq!(told.len(), requests.len());
        told.iter().zip(&requests).for_each(|(events, message)| message.assert_told_by(events));
    }
}
