//! Tests which bytes are requests, in tables.

use super::*;

/// Returns what is read of the text, in one piece and byte by byte.
fn reading(text: &str) -> (Vec<Event>, Stop) {
    let bytes = wire(text);
    let whole = read(requests(), &[&bytes], false);
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(read(requests(), &single, false), whole, "{text:?} byte by byte");
    whole
}

/// Checks that all of the text is requests.
fn good(text: &str) {
    let (events, stop) = reading(text);
    assert_eq!((stop, events.last()), (Stop::Waits, Some(&Event::End)), "{text:?}");
}

/// Checks that the text begins with no head, and why.
fn no_head(text: &str, why: &str) {
    let (events, stop) = reading(text);
    assert!(events.is_empty(), "{text:?}: {events:?}");
    let Stop::Refused(refusal) = stop else {
        panic!("{text:?}: {stop:?}")
    };
    assert!(refusal.why().contains(why), "{text:?}: {refusal}");
}

#[test]
fn good_requests_are_read_whole() {
    good("GET / HTTP/1.1~Host: a~~");
    good("GET / HTTP/1.0~~");
    good("~GET / HTTP/1.1~Host: a~~");
    good("OPTIONS * HTTP/1.1~Host: a~~");
    good("CONNECT a:1 HTTP/1.1~Host: a~~");
    good("GET http://a/b?c HTTP/1.1~Host: a~~");
    good("GET /?`c` HTTP/1.1~Host: a~~");
    good(
        "GET /[a]{b}|c^d\\e?f=\"g HTTP/1.1~Host: a~~"
            .replace('"', "%22")
            .as_str(),
    );
    good("GET / HTTP/1.1~Host:a~X: \u{e9}\u{ff}\t y~Empty:~~");
    good("POST / HTTP/1.1~Host: a~Content-Length: 5~~helloGET /2 HTTP/1.1~Host: a~~");
    good("POST / HTTP/1.1~Host: a~Content-Length: 005~~helloGET /2 HTTP/1.1~Host: a~~");
    good("POST / HTTP/1.1~Host: a~Transfer-Encoding:\tchunked\t~~A~0123456789~0~~GET /2 HTTP/1.1~Host: a~~");
    good("POST / HTTP/1.1~Host: a~transfer-encoding: Chunked~~5 ; a = b;c;d=\"e\\\";\"~hello~0;f~T: v~U:~~");
    good("GET / HTTP/1.1~Host: a~Connection: keep-alive~~GET /2 HTTP/1.1~Host: a~~");
}

#[test]
fn what_is_no_head_is_refused() {
    no_head("GET / HTTP/1.1\nHost: a~~", "LF alone");
    no_head("GET / HTTP/1.1~Host: a\n\n", "LF alone");
    no_head("GET / HTTP/1.1~Host: a\r~~", "control");
    no_head("GET / HTTP/1.1~Host: a~X: 1\r2~~", "control");
    no_head("GET / HTTP/1.1~Host: a~X: \0~~", "control");
    no_head("GET / HTTP/1.1~Host: a~X: \u{7f}~~", "control");
    no_head("GET / HTTP/1.1~Host: a~ folded~~", "folding");
    no_head("GET / HTTP/1.1~ Host: a~~", "folding");
    no_head("GET / HTTP/1.1~Host : a~~", "before the colon");
    no_head("GET / HTTP/1.1~Host: a~X y: z~~", "token");
    no_head("GET / HTTP/1.1~Host: a~: z~~", "token");
    no_head("GET / HTTP/1.1~Host: a~X\u{85}: z~~", "token");
    no_head("GET / HTTP/1.1~Host: a~X~~", "no colon");
    no_head("GET / HTTP/1.1~~", "no Host");
    no_head("GET / HTTP/1.1~Host: a~host: a~~", "more than one Host");
    no_head("~~GET / HTTP/1.1~Host: a~~", "request line");
    no_head("GET  / HTTP/1.1~Host: a~~", "must be a path");
    no_head("GET / HTTP/1.1 ~Host: a~~", "version");
    no_head("GET / HTTP/1.2~Host: a~~", "version");
    no_head("PRI * HTTP/2.0~~SM~~", "must be a path");
    no_head("GET /~", "request line");
    no_head("GET\t/\tHTTP/1.1~Host: a~~", "request line");
    no_head("G(T / HTTP/1.1~Host: a~~", "method");
    no_head(" / HTTP/1.1~Host: a~~", "method");
    no_head("GET /#a HTTP/1.1~Host: a~~", "percent-encoded");
    no_head("GET /\u{e9} HTTP/1.1~Host: a~~", "percent-encoded");
    no_head("GET a HTTP/1.1~Host: a~~", "must be a path");
    no_head("GET * HTTP/1.1~Host: a~~", "must be a path");
    no_head("GET a:1 HTTP/1.1~Host: a~~", "must be a path");
    no_head("CONNECT http://a/ HTTP/1.1~Host: a~~", "must be a path");
    for length in [
        "",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5,5",
        "5.0",
        "99999999999999999999",
        "5\u{b2}",
    ] {
        no_head(
            &format!("POST / HTTP/1.1~Host: a~Content-Length: {length}~~hello"),
            "Content-Length",
        );
    }
    no_head(
        "POST / HTTP/1.1~Host: a~Content-Length: 5~Content-Length: 5~~hello",
        "Content-Length",
    );
    no_head(
        "POST / HTTP/1.1~Host: a~Content-Length: 5~Transfer-Encoding: chunked~~0~~",
        "exclude",
    );
    no_head(
        "POST / HTTP/1.1~Host: a~Transfer-Encoding: chunked~Content-Length: 5~~0~~",
        "exclude",
    );
    no_head("POST / HTTP/1.0~Transfer-Encoding: chunked~~0~~", "transfer coding");
    for coding in [
        "",
        "gzip",
        "chunked, chunked",
        "gzip, chunked",
        "chunked;a",
        "\"chunked\"",
        "xchunked",
        "\u{b}chunked",
    ] {
        let text = format!("POST / HTTP/1.1~Host: a~Transfer-Encoding: {coding}~~0~~");
        no_head(
            &text,
            if coding.starts_with('\u{b}') {
                "control"
            } else {
                "transfer coding"
            },
        );
    }
    no_head(
        "POST / HTTP/1.1~Host: a~Transfer-Encoding: chunked~Transfer-Encoding: chunked~~0~~",
        "transfer coding",
    );
}

#[test]
fn what_is_too_long_has_its_own_verdict() {
    let check = |text: String, refusal| assert_eq!(reading(&text), (Vec::new(), Stop::Refused(refusal)), "{text:?}");
    check(format!("GET /{} HTTP/1.1~", "x".repeat(200)), Refusal::TargetTooLong);
    check("x".repeat(265), Refusal::TargetTooLong);
    check(format!("GET / HTTP/1.1~X: {}", "x".repeat(1000)), Refusal::HeadTooLarge);
    check(format!("GET / HTTP/1.1~{}", "X: y~".repeat(21)), Refusal::TooManyFields);
    good(&format!("GET /{} HTTP/1.1~Host: a~~", "x".repeat(199)));
    good(&format!("GET / HTTP/1.1~Host: a~{}~", "X: y~".repeat(19)));
}

#[test]
fn a_bad_body_is_refused_and_what_came_before_is_handed_over() {
    let head = "POST / HTTP/1.1~Host: a~Transfer-Encoding: chunked~~";
    let check = |body: &str, content: &str| {
        let (events, stop) = reading(&format!("{head}{body}"));
        assert!(
            matches!(stop, Stop::Refused(Refusal::Malformed(_))),
            "{body:?}: {stop:?}"
        );
        let content = match content {
            "" => String::new(),
            content => format!(" '{content}'"),
        };
        assert_eq!(told(&events), format!("POST /{content}"), "{body:?}");
    };
    let none = |body: &str| check(body, "");
    none("~");
    none("-5~hello~");
    none(" 5~hello~");
    none("0x5~hello~");
    none("5_~hello~");
    none("5\nhello~");
    none("5\r\rhello~");
    none("5 ~hello~");
    none("5;~hello~");
    none("5;a=~hello~");
    none("5;a=b ~hello~");
    none("5;a=\"b~hello~");
    none("5;a=\"b\"c~hello~");
    none("5;a\nhello~");
    check("4~hello~", "hell");
    check("5~hello\n", "hello");
    check("5~hello~~", "hello");
    none("11111111111111111~");
    none("0~ T: v~~");
    none("0~T : v~~");
    none("0~T~~");
    none("0~T: v\n");
    none("0~T: \0~~");
    none("0~\n");
    none(&format!("1;a{}~", "b".repeat(8191)));
    none(&format!("0~{}T: v~~", "T: v~".repeat(64)));
}

#[test]
fn after_the_last_request_nothing_is_read() {
    const NEXT: &str = "GET / HTTP/1.1~Host: a~~";
    for close in [
        "GET / HTTP/1.1~Host: a~Connection: close~~",
        "GET / HTTP/1.1~Host: a~Connection: keep-alive, Close~~",
        "GET / HTTP/1.0~~",
        "POST / HTTP/1.1~Host: a~Connection: close~Content-Length: 2~~ok",
    ] {
        let (events, stop) = reading(&format!("{close}{NEXT}"));
        assert_eq!((events, stop), (reading(close).0, Stop::Rest(wire(NEXT))), "{close:?}");
    }
    good("GET / HTTP/1.0~Connection: keep-alive~~GET / HTTP/1.0~~");
}
