//! Tests what is a message, where it ends, and what it says, in tables.

use bytes::{Bytes, BytesMut};

use super::*;

mod corpus;
mod differential;
mod properties;
mod requests;

pub(crate) const LIMITS: Limits = Limits::of_heads(200, 1000, 20);

/// How the reading of a byte stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    /// More could come.
    Waits,
    Closed,
    Refused(Refusal),
    Cut(Cut),
    /// What came after the last message, or after a switch.
    Rest(Vec<u8>),
}

/// Converts the readable text of a table to bytes: `~` is CRLF.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    let text = text.replace('~', "\r\n");
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("Latin-1"))
        .collect()
}

fn requests() -> Reader {
    Reader::requests(LIMITS)
}

fn answers(asked: Asked) -> Reader {
    let mut reader = Reader::answers(LIMITS);
    reader.expect(asked);
    reader
}

/// Reads the pieces, and then the end of the stream if it `closes`. Adjacent pieces of content are joined.
fn read(mut reader: Reader, pieces: &[&[u8]], closes: bool) -> (Vec<Event>, Stop) {
    let (mut events, mut held) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match reader.read(&mut held) {
                Ok(Some(event)) => add(&mut events, event),
                Ok(None) => break,
                Err(refusal) => {
                    let left = held.clone();
                    held.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
                    assert_eq!(reader.read(&mut held), Err(refusal), "it stays");
                    assert!(held.starts_with(&left), "nothing is taken");
                    return (events, Stop::Refused(refusal));
                }
            }
        }
    }
    if reader.has_switched() || !held.is_empty() && reader.is_complete() {
        return (events, Stop::Rest(held.to_vec()));
    }
    if !closes {
        return (events, Stop::Waits);
    }
    match reader.close() {
        Ok(event) => {
            events.extend(event);
            (events, Stop::Closed)
        }
        Err(cut) => (events, Stop::Cut(cut)),
    }
}

fn add(events: &mut Vec<Event>, event: Event) {
    if let (Some(Event::Data(before)), Event::Data(data)) = (events.last_mut(), &event) {
        *before = Bytes::from([&before[..], &data[..]].concat());
    } else {
        events.push(event);
    }
}

/// Writes events as text: one word each, with what they hold.
fn told(events: &[Event]) -> String {
    let text = |bytes: &[u8]| -> String { bytes.iter().map(|&byte| char::from(byte)).collect() };
    let words = events.iter().map(|event| match event {
        Event::Head(head) | Event::Interim(head) => match head.start_line() {
            StartLine::Request { method, target } => format!("{} {}", text(method), text(target)),
            StartLine::Answer { status, .. } => status.to_string(),
        },
        Event::Data(data) => format!("'{}'", text(data)),
        Event::Trailers(fields) => {
            let lines = fields
                .iter()
                .map(|field| format!("{}={}", text(field.name), text(field.value)));
            format!("[{}]", lines.collect::<Vec<_>>().join(","))
        }
        Event::End => "end".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Checks what the text says, in one piece and byte by byte.
fn check(reader: impl Fn() -> Reader, text: &str, closes: bool, says: &str, stop: &Stop) {
    let bytes = wire(text);
    let whole = read(reader(), &[&bytes], closes);
    assert_eq!((told(&whole.0).as_str(), &whole.1), (says, stop), "{text:?}");
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(read(reader(), &single, closes), whole, "{text:?} byte by byte");
}

#[test]
fn an_answer_ends_where_its_head_says() {
    use Asked::{Connect, Head, Other};
    let waits = |asked, text: &str, says: &str| check(|| answers(asked), text, false, says, &Stop::Waits);
    let closed = |asked, text: &str, says: &str| check(|| answers(asked), text, true, says, &Stop::Closed);
    let cut = |asked, text: &str, says: &str, cut| check(|| answers(asked), text, true, says, &Stop::Cut(cut));
    let rest = |asked, text: &str, says: &str, rest: &str| {
        check(|| answers(asked), text, true, says, &Stop::Rest(wire(rest)));
    };
    waits(Other, "HTTP/1.1 200 OK~Content-Length: 2~~ok", "200 'ok' end");
    waits(Other, "HTTP/1.1 200~Content-Length: 0~~", "200 end");
    waits(
        Other,
        "HTTP/1.1 200 OK~Transfer-Encoding: chunked~~2~ok~0~~",
        "200 'ok' end",
    );
    waits(
        Other,
        "HTTP/1.1 200 OK~Transfer-Encoding: chunked~~0~A: b~C:d ~~",
        "200 [A=b,C=d] end",
    );
    closed(Other, "HTTP/1.1 200 OK~~until the end", "200 'until the end' end");
    closed(Other, "HTTP/1.0 200 ~~", "200 end");
    // To HEAD, and with a status that has no body, an answer ends with its head.
    waits(Head, "HTTP/1.1 200 OK~Content-Length: 2~~", "200 end");
    waits(Head, "HTTP/1.1 200 OK~Transfer-Encoding: chunked~~", "200 end");
    waits(Head, "HTTP/1.1 200 OK~~", "200 end");
    waits(Other, "HTTP/1.1 204 No~~", "204 end");
    waits(Other, "HTTP/1.1 204 No~Content-Length: 0~~", "204 end");
    waits(Other, "HTTP/1.1 304 No~~", "304 end");
    // What such an answer announces may come, and is then no answer.
    rest(Other, "HTTP/1.1 204 No~Content-Length: 2~~ok", "204 end", "ok");
    rest(
        Other,
        "HTTP/1.1 204 No~Transfer-Encoding: chunked~~0~~",
        "204 end",
        "0~~",
    );
    rest(
        Other,
        "HTTP/1.1 304 No~Content-Length: 9~~HTTP/1.1 200",
        "304 end",
        "HTTP/1.1 200",
    );
    rest(
        Other,
        "HTTP/1.1 304 No~Transfer-Encoding: chunked~~0~~",
        "304 end",
        "0~~",
    );
    // Interim answers, and switches.
    waits(
        Other,
        "HTTP/1.1 100 Continue~~HTTP/1.1 103 Early~Link: x~~HTTP/1.1 204 No~~",
        "100 103 204 end",
    );
    rest(Other, "HTTP/1.1 101 Go~Upgrade: x~~\0any", "101", "\0any");
    rest(Connect, "HTTP/1.1 200 OK~Content-Length: 5~~any", "200", "any");
    waits(Connect, "HTTP/1.1 404 No~Content-Length: 2~~no", "404 'no' end");
    // The last answer.
    rest(
        Other,
        "HTTP/1.1 200 OK~Connection: a, Close~Content-Length: 2~~okHTTP/1.1 200",
        "200 'ok' end",
        "HTTP/1.1 200",
    );
    rest(Other, "HTTP/1.0 200 OK~Content-Length: 2~~ok!", "200 'ok' end", "!");
    waits(
        Other,
        "HTTP/1.0 200 OK~Connection: keep-alive~Content-Length: 2~~ok",
        "200 'ok' end",
    );
    // Cut.
    cut(Other, "", "", Cut::BeforeHead);
    cut(Other, "HTTP/1.1 100 Go~~", "100", Cut::BeforeHead);
    cut(Other, "HTTP/1.1 200 OK~Content-Length: 2~", "", Cut::WithinHead);
    cut(
        Other,
        "HTTP/1.1 200 OK~Content-Length: 2~~o",
        "200 'o'",
        Cut::WithinBody,
    );
    cut(
        Other,
        "HTTP/1.1 200 OK~Transfer-Encoding: chunked~~2~ok~0~",
        "200 'ok'",
        Cut::WithinBody,
    );
}

#[test]
fn what_was_not_asked_is_refused() {
    let unasked = Stop::Refused(Refusal::Malformed("nothing was asked"));
    let one = "HTTP/1.1 200 OK~Content-Length: 2~~ok";
    check(|| Reader::answers(LIMITS), one, false, "", &unasked);
    check(
        || answers(Asked::Other),
        &format!("{one}{one}"),
        false,
        "200 'ok' end",
        &unasked,
    );
    check(
        || answers(Asked::Other),
        &format!("{one}~"),
        false,
        "200 'ok' end",
        &unasked,
    );
    check(|| answers(Asked::Head), one, false, "200 end", &unasked);
    let interim = |count| "HTTP/1.1 103 Early~~".repeat(count);
    let hundred = vec!["103"; 100].join(" ");
    let too_many = Stop::Refused(Refusal::Malformed("there are too many interim answers"));
    check(|| answers(Asked::Other), &interim(101), false, &hundred, &too_many);
}

#[test]
fn what_is_no_answer_is_refused() {
    for bad in [
        "HTTP/1.1 99 X~~",
        "HTTP/1.1 600 X~~",
        "HTTP/1.1 2000 X~~",
        "HTTP/2 200 OK~~",
        "HTTP/1.1  200 OK~~",
        "HTTP/1.1 200 O\0K~~",
        "ICY 200 OK~~",
        "~HTTP/1.1 200 OK~~",
        "HTTP/1.1 200 OK~Content-Length: 2~Content-Length: 2~~ok",
        "HTTP/1.1 200 OK~Content-Length: 2~Transfer-Encoding: chunked~~0~~",
        "HTTP/1.0 200 OK~Transfer-Encoding: chunked~~0~~",
        "HTTP/1.1 200 OK~Transfer-Encoding: gzip~~",
        "HTTP/1.1 100 Go~Content-Length: 2~~ok",
        "HTTP/1.1 103 Go~Transfer-Encoding: chunked~~0~~",
        "HTTP/1.1 200 OK~X: a~ b~~",
        "HTTP/1.1 200 OK~X : a~~",
        "HTTP/1.1 200 OK~X~~",
        "HTTP/1.1 200 OK\n\n",
    ] {
        let (events, stop) = read(answers(Asked::Other), &[&wire(bad)], true);
        assert!(
            events.is_empty() && matches!(stop, Stop::Refused(_)),
            "{bad:?}: {stop:?}"
        );
    }
}

#[test]
fn requests_follow_each_other() {
    let get = "GET /2 HTTP/1.1~Host: a~~";
    let good = |text: &str, says: &str| check(requests, text, true, says, &Stop::Closed);
    good("", "");
    good("GET / HTTP/1.0~~", "GET / end");
    good("~GET / HTTP/1.1~Host: a~~", "GET / end");
    good(
        &format!("POST / HTTP/1.1~Host: a~Content-Length: 5~~hello{get}"),
        "POST / 'hello' end GET /2 end",
    );
    good(
        &format!(
            "POST / HTTP/1.1~Host: a~transfer-encoding: Chunked~~5 ; a = b;c;d=\"e\\\";\"~hello~0;f~T: v~U:~~{get}"
        ),
        "POST / 'hello' [T=v,U=] end GET /2 end",
    );
    good(
        &format!("GET /1 HTTP/1.0~Connection: keep-alive~~{get}"),
        "GET /1 end GET /2 end",
    );
    good("GET /a?b=`c` HTTP/1.1~Host: a~~", "GET /a?b=`c` end");
    good("CONNECT a:1 HTTP/1.1~Host: a~~", "CONNECT a:1 end");
    for last in ["GET / HTTP/1.1~Host: a~Connection: x,close~~", "GET / HTTP/1.0~~"] {
        check(
            requests,
            &format!("{last}{get}"),
            true,
            "GET / end",
            &Stop::Rest(wire(get)),
        );
    }
    check(requests, "GET / HT", true, "", &Stop::Cut(Cut::WithinHead));
    let half = "POST / HTTP/1.1~Host: a~Content-Length: 5~~hel";
    check(requests, half, true, "POST / 'hel'", &Stop::Cut(Cut::WithinBody));
    let percent = Refusal::Malformed("the request target holds a character that must be percent-encoded");
    check(requests, "GET /` HTTP/1.1~Host: a~~", true, "", &Stop::Refused(percent));
}

#[test]
fn a_head_says_what_was_sent() {
    let head = |reader: Reader, text: &str| match read(reader, &[&wire(text)], false).0.swap_remove(0) {
        Event::Head(head) => head,
        other => panic!("{other:?}"),
    };
    let text = "GET /a HTTP/1.1~HOST: a ~X-One:~cookie:\t b=c \t~Connection: Upgrade~Upgrade: x~Expect: 100-Continue~TE:trailers~~";
    let request = head(requests(), text);
    let line = StartLine::Request {
        method: b"GET",
        target: b"/a",
    };
    assert_eq!(
        (request.start_line(), request.version()),
        (line, http::Version::HTTP_11)
    );
    let kinds: Vec<_> = request.fields.iter().map(|field| field.kind).collect();
    use FieldKind as K;
    assert_eq!(
        kinds,
        [
            K::Host,
            K::Other,
            K::Cookie,
            K::Connection,
            K::Upgrade,
            K::Expect,
            K::Te
        ]
    );
    assert!(request.asks_to_switch() && request.expects_continue() && !request.is_last());
    assert_eq!(request.fields.all(K::Host).collect::<Vec<_>>(), [b"a"]);
    let map = request.fields.to_map().expect("it fits");
    assert_eq!(
        (&map["x-one"], &map["cookie"], map.len()),
        (&"".parse().unwrap(), &"b=c".parse().unwrap(), 7)
    );

    let old = head(
        requests(),
        "GET / HTTP/1.0~Connection: upgrade~Upgrade: x~Expect: 100-continue~~",
    );
    assert!(
        !old.asks_to_switch() && !old.expects_continue() && old.is_last(),
        "an older version has neither"
    );

    let answer = |fields: &str| {
        head(
            answers(Asked::Other),
            &format!("HTTP/1.1 299 So \u{e9}~{fields}Content-Length: 7~~"),
        )
    };
    assert_eq!(
        (answer("").reason(), answer("").body()),
        (&wire("So \u{e9}")[..], Some(BodyLength::Exact(7)))
    );
    for (field, seconds) in [
        ("", None),
        ("Keep-Alive: timeout=5~", Some(5)),
        ("Keep-Alive: max=100, Timeout = 75~", Some(75)),
        ("Keep-Alive: timeout=~", None),
        ("Keep-Alive: timeout=-1~", None),
        ("Keep-Alive: timeout=99999999999~", None),
        ("Keep-Alive: timeouts=5, 5~", None),
    ] {
        assert_eq!(answer(field).keep_alive(), seconds, "{field}");
    }
    let framed = answer("X: y~").fields.to_map_without_framing().expect("it fits");
    assert_eq!(framed.len(), 1);
}

#[test]
fn every_bound_is_a_parameter() {
    let check = |limits: Limits, text: &str, refusal: Option<Refusal>| {
        let (_, stop) = read(Reader::requests(limits), &[&wire(text)], true);
        assert_eq!(stop, refusal.map_or(Stop::Closed, Stop::Refused), "{text:?}");
    };
    let small = Limits {
        target: 3,
        head: 40,
        fields: 1,
        extensions: 2,
        trailers: 6,
        trailer_lines: 1,
        interim: 0,
    };
    check(small, "GET /ab HTTP/1.1~Host: a~~", None);
    check(small, "GET /abc HTTP/1.1~Host: a~~", Some(Refusal::TargetTooLong));
    check(small, "GET / HTTP/1.1~Host: abcdefghijkl~~", None);
    check(
        small,
        "GET / HTTP/1.1~Host: abcdefghijklmno~~",
        Some(Refusal::HeadTooLarge),
    );
    check(small, "GET / HTTP/1.1~Host: a~X:~~", Some(Refusal::TooManyFields));
    let body = |limits: Limits, body: &str, refusal| {
        let limits = Limits {
            head: 100,
            fields: 2,
            ..limits
        };
        check(
            limits,
            &format!("PUT / HTTP/1.1~Host: a~Transfer-Encoding: chunked~~{body}"),
            refusal,
        );
    };
    body(small, "1;a~b~0~~", None);
    body(
        small,
        "1;ab~c~0~~",
        Some(Refusal::Malformed("the chunk extensions are too long")),
    );
    body(small, "0~A: b~~", None);
    body(
        small,
        "0~A: bc~~",
        Some(Refusal::Malformed("the trailer section is too long")),
    );
    let room = Limits { trailers: 100, ..small };
    body(
        room,
        "0~A: b~C: d~~",
        Some(Refusal::Malformed("there are too many trailers")),
    );
    let (_, stop) = {
        let mut reader = Reader::answers(small);
        reader.expect(Asked::Other);
        read(reader, &[&wire("HTTP/1.1 100 Go~~")], false)
    };
    assert_eq!(
        stop,
        Stop::Refused(Refusal::Malformed("there are too many interim answers"))
    );
}

#[test]
fn a_body_is_framed_as_its_head_says() {
    let mut out = BytesMut::new();
    let mut body = BodyEncoder::new(Some(BodyLength::Exact(5)));
    assert_eq!(
        body.frame(3).map(|frame| frame.before().len() + frame.after.len()),
        Ok(0)
    );
    assert_eq!(body.end(None, &mut out), Err(Short));
    assert_eq!(body.frame(3), Err(Overrun));
    assert!(body.frame(2).is_ok() && body.has_ended());
    assert_eq!(body.frame(1), Err(Overrun));
    assert_eq!((body.end(None, &mut out), out.len()), (Ok(()), 0));

    let mut chunked = BodyEncoder::new(Some(BodyLength::Chunked));
    for (length, before) in [(1, "1~"), (10, "a~"), (16, "10~"), (0xabc_def0, "abcdef0~")] {
        let frame = chunked.frame(length).expect("it may be of any length");
        assert_eq!((frame.before(), frame.after), (&wire(before)[..], &b"\r\n"[..]));
    }
    assert_eq!(
        chunked.frame(0).map(|frame| frame.before().len()),
        Ok(0),
        "no chunk ends the body early"
    );
    let mut trailers = http::HeaderMap::new();
    trailers.insert("a", "b".parse().expect("a value"));
    assert_eq!(chunked.end(Some(&trailers), &mut out), Ok(()));
    assert_eq!((&out[..], chunked.frame(1)), (&wire("0~a: b~~")[..], Err(Overrun)));
    assert!(BodyEncoder::new(None).has_ended());
}
