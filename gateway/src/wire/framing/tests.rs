//! Tests which bytes are messages, and properties that hold for any bytes in any pieces.

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use crate::wire::framing::{Read, Screen};
use crate::wire::http1::Refusal;
use crate::wire::http1::tests::properties::{cut, traffic};
use crate::wire::http1::tests::{LIMITS, wire};

/// Reader that yields the given pieces, and then nothing.
struct Pieces<'a>(Vec<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let Some(piece) = self.0.first_mut() else {
            return Poll::Pending;
        };
        let count = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..count]);
        *piece = &piece[count..];
        if piece.is_empty() {
            self.0.remove(0);
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the bytes that pass, and the verdict on the rest; [`Read::Passed`] if there is none yet.
fn screened(mut screen: Screen, pieces: Vec<&[u8]>, room: usize) -> (Vec<u8>, Read) {
    let mut pieces = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect());
    let mut passed = Vec::new();
    let mut memory = vec![0; room];
    loop {
        let mut buf = ReadBuf::new(&mut memory);
        match screen.poll_read(&mut pieces, &mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Ready(Ok(Read::Passed)) => passed.extend_from_slice(buf.filled()),
            Poll::Ready(Ok(verdict)) => return (passed, verdict),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => return (passed, Read::Passed),
        }
    }
}

/// Does the same, but each read waits until a head has arrived.
fn screened_head_by_head(mut screen: Screen, pieces: Vec<&[u8]>, room: usize) -> (Vec<u8>, Read) {
    let mut pieces = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect());
    let mut cx = Context::from_waker(Waker::noop());
    let mut passed = Vec::new();
    let mut memory = vec![0; room];
    while let Poll::Ready(looked) = screen.poll_head(&mut pieces, &mut cx) {
        let verdict = looked.expect("it does not break").expect("it does not close");
        let mut buf = ReadBuf::new(&mut memory);
        let read = screen.poll_read(&mut pieces, &mut cx, &mut buf);
        assert!(
            matches!(read, Poll::Ready(Ok(read)) if read == verdict),
            "{read:?}, not {verdict:?}"
        );
        if verdict != Read::Passed {
            return (passed, verdict);
        }
        passed.extend_from_slice(buf.filled());
    }
    assert!(!screen.is_between_messages() || screen.held().is_empty());
    (passed, Read::Passed)
}

/// Checks that exactly `passes` of the text passes.
fn check(screen: Screen, text: &str, passes: &str, verdict: Read) {
    let bytes = wire(text);
    let (passed, read) = screened(screen, vec![&bytes], 8192);
    assert_eq!((passed, read), (wire(passes), verdict), "{text:?}");
}

/// Checks that all of the text passes.
fn good(text: &str) {
    check(Screen::new(LIMITS), text, text, Read::Passed);
}

/// Checks that none of the text passes.
fn no_head(text: &str, why: &str) {
    let bytes = wire(text);
    let (passed, read) = screened(Screen::new(LIMITS), vec![&bytes], 8192);
    assert!(passed.is_empty(), "{text:?}: {passed:?}");
    let Read::NoHead(refusal) = read else {
        panic!("{text:?}: {read:?}")
    };
    assert!(refusal.why().contains(why), "{text:?}: {refusal}");
}

#[test]
fn good_requests_pass_whole() {
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
fn what_is_no_head_does_not_pass() {
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
    let check = |text: String, refusal| check(Screen::new(LIMITS), &text, "", Read::NoHead(refusal));
    check(format!("GET /{} HTTP/1.1~", "x".repeat(200)), Refusal::TargetTooLong);
    check("x".repeat(265), Refusal::TargetTooLong);
    check(format!("GET / HTTP/1.1~X: {}", "x".repeat(1000)), Refusal::HeadTooLarge);
    check(format!("GET / HTTP/1.1~{}", "X: y~".repeat(21)), Refusal::TooManyFields);
    good(&format!("GET /{} HTTP/1.1~Host: a~~", "x".repeat(199)));
    good(&format!("GET / HTTP/1.1~Host: a~{}~", "X: y~".repeat(19)));
}

#[test]
fn of_a_bad_body_what_precedes_the_fault_passes() {
    let head = "POST / HTTP/1.1~Host: a~Transfer-Encoding: chunked~~";
    let check = |body: &str, passes: &str| {
        let bytes = wire(&format!("{head}{body}"));
        let (passed, read) = screened(Screen::new(LIMITS), vec![&bytes], 8192);
        assert!(matches!(read, Read::NoBody(_)), "{body:?}: {read:?}");
        assert_eq!(passed, wire(&format!("{head}{passes}")), "{body:?}");
    };
    check("~", "");
    check("-5~hello~", "");
    check(" 5~hello~", "");
    check("0x5~hello~", "0");
    check("5_~hello~", "5");
    check("5\nhello~", "5");
    check("5\r\rhello~", "5\r");
    check("5 ~hello~", "5 ");
    check("5;~hello~", "5;");
    check("5;a=~hello~", "5;a=");
    check("5;a=b ~hello~", "5;a=b ");
    check("5;a=\"b~hello~", "5;a=\"b");
    check("5;a=\"b\"c~hello~", "5;a=\"b\"");
    check("5;a\nhello~", "5;a");
    check("4~hello~", "4~hell");
    check("5~hello\n", "5~hello");
    check("5~hello~~", "5~hello~");
    check("11111111111111111~", "1111111111111111");
    check("0~ T: v~~", "0~");
    check("0~T : v~~", "0~T");
    check("0~T~~", "0~T");
    check("0~T: v\n", "0~T: v");
    check("0~T: \0~~", "0~T: ");
    check("0~\n", "0~");
    let extension = format!("1;a{}~", "b".repeat(8191));
    check(&extension, &extension[..extension.len() - 1]);
    let trailers = "T: v~".repeat(64);
    check(&format!("0~{trailers}T: v~~"), &format!("0~{trailers}"));
}

#[test]
fn after_the_last_request_nothing_passes() {
    for close in [
        "GET / HTTP/1.1~Host: a~Connection: close~~",
        "GET / HTTP/1.1~Host: a~Connection: keep-alive, Close~~",
        "GET / HTTP/1.0~~",
        "POST / HTTP/1.1~Host: a~Connection: close~Content-Length: 2~~ok",
    ] {
        check(
            Screen::new(LIMITS),
            &format!("{close}GET / HTTP/1.1~Host: a~~"),
            close,
            Read::Over,
        );
    }
    good("GET / HTTP/1.0~Connection: keep-alive~~GET / HTTP/1.0~~");
}

#[test]
fn a_switched_connection_passes_everything_that_was_held() {
    let mut screen = Screen::new(LIMITS);
    let head = wire("GET / HTTP/1.1~Host: a~Upgrade: x~~");
    let bytes = [&head[..], b"\x81\x05\n"].concat();
    let mut memory = [0; 256];
    let mut buf = ReadBuf::new(&mut memory);
    let mut cx = Context::from_waker(Waker::noop());
    let mut socket = Cursor::new(bytes);
    assert!(matches!(
        screen.poll_read(&mut socket, &mut cx, &mut buf),
        Poll::Ready(Ok(Read::Passed))
    ));
    assert_eq!(buf.filled(), head);
    screen.switch_off();
    assert!(matches!(
        screen.poll_read(&mut socket, &mut cx, &mut buf),
        Poll::Ready(Ok(Read::Passed))
    ));
    assert_eq!(buf.filled()[head.len()..], *b"\x81\x05\n");
}

#[test]
fn who_closes_between_two_messages_has_said_all() {
    let look = |bytes: &[u8]| {
        let mut screen = Screen::new(LIMITS);
        let polled = screen.poll_head(&mut Cursor::new(bytes), &mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(read)) = polled else {
            panic!("{polled:?}")
        };
        (read, screen.is_between_messages())
    };
    assert_eq!(look(b""), (None, true));
    assert_eq!(look(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (Some(Read::Passed), false));
    assert!(matches!(look(b"GET / HT"), (Some(Read::NoHead(_)), false)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..cases::counted() })]

    #[test]
    fn properties_the_verdict_does_not_depend_on_the_pieces(
        bytes in traffic(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        room in 1usize..600,
    ) {
        let whole = screened(Screen::new(LIMITS), vec![&bytes], 8192);
        prop_assert_eq!(&screened(Screen::new(LIMITS), cut(&bytes, &at), room), &whole);
        let single = bytes.chunks(1).collect();
        prop_assert_eq!(&screened(Screen::new(LIMITS), single, room), &whole);
        prop_assert_eq!(&screened_head_by_head(Screen::new(LIMITS), cut(&bytes, &at), room), &whole);
    }

    #[test]
    fn properties_what_passes_is_a_prefix(bytes in traffic()) {
        let (passed, verdict) = screened(Screen::new(LIMITS), vec![&bytes], 8192);
        prop_assert!(bytes.starts_with(&passed));
        if let Read::NoBody(_) = verdict {
            prop_assert!(passed.len() < bytes.len());
        }
    }
}
