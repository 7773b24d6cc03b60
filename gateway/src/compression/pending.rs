//! What is known of a request when its answer comes, and what becomes of the answer.

use std::sync::Arc;

use http::header::IF_NONE_MATCH;
use http::{HeaderValue, Method, StatusCode, Version};

use super::{AcceptedCodings, Coding, Compression, Encoder, fields};
use crate::message::FieldMap;

/// The compression of one answer, prepared once the route is known.
#[derive(Debug)]
pub struct PendingCompression {
    rules: Arc<Compression>,
    coding: Option<Coding>,
    refuses_identity: bool,
    /// Whether the answer has no body.
    is_head: bool,
    /// Values of `If-None-Match`.
    held: Vec<HeaderValue>,
}

impl PendingCompression {
    /// Reads the request. An HTTP/1.0 caller, to which only the end of the connection shows that an answer is whole, and
    /// a caller that forbids changes get answers as they are.
    pub fn begin(rules: &Arc<Compression>, method: &Method, version: Version, request: &FieldMap) -> Self {
        let accepted = AcceptedCodings::read(request);
        let takes_codings = version >= Version::HTTP_11 && !fields::forbids_changes(request);
        Self {
            rules: Arc::clone(rules),
            coding: accepted.choose(&rules.codings).filter(|_| takes_codings),
            refuses_identity: accepted.refuses_identity(),
            is_head: *method == Method::HEAD,
            held: request.get_all(IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// Coding of an answer that may be compressed.
    pub const fn coding(&self) -> Option<Coding> {
        self.coding
    }

    pub const fn rules(&self) -> &Arc<Compression> {
        &self.rules
    }

    /// Decides on an answer with these fields and this length of its body, and changes the fields. Returns the encoder for
    /// the body if it is to be compressed. An answer to HEAD has the fields of the one to GET.
    pub fn apply(&self, status: StatusCode, headers: &mut FieldMap, length: Option<u64>) -> Option<Encoder> {
        if status == StatusCode::NOT_MODIFIED {
            // The caller holds an answer that was compressed, and knows it by its weak tag.
            if fields::is_known_weakly(headers, &self.held) {
                fields::weaken(headers);
                fields::vary(headers);
            }
            return None;
        }
        let has_body = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
            );
        let is_forced = self.refuses_identity && self.coding.is_some();
        let minimum = if is_forced { 1 } else { self.rules.minimum.max(1) };
        if !has_body || length.is_some_and(|length| length < minimum) || !fields::may_change(headers, &self.rules.types)
        {
            return None;
        }
        fields::vary(headers);
        let coding = self.coding?;
        let encoder = match self.is_head {
            true => None,
            false => Some(Encoder::begin(coding, &self.rules)?),
        };
        fields::encode(headers, coding);
        encoder
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::compression::MediaRange;
    use crate::compression::encoder::tests::rules;

    fn map(fields: &[(&str, &str)]) -> FieldMap {
        let mut headers = FieldMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn shown(headers: &FieldMap) -> Vec<String> {
        let mut shown: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        shown.sort();
        shown
    }

    fn compression() -> Arc<Compression> {
        let types = ["application/json", "text/*", "application/*"];
        Arc::new(Compression {
            types: types.map(|text| MediaRange::parse(text).unwrap()).to_vec(),
            minimum: 1024,
            ..rules()
        })
    }

    fn pending(method: &Method, version: Version, request: &[(&str, &str)]) -> PendingCompression {
        PendingCompression::begin(&compression(), method, version, &map(request))
    }

    fn get(request: &[(&str, &str)]) -> PendingCompression {
        pending(&Method::GET, Version::HTTP_11, request)
    }

    const GZIP: &[(&str, &str)] = &[("accept-encoding", "gzip")];
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn a_compressed_answer_has_the_fields_of_its_new_form() {
        let mut headers = map(&[
            JSON,
            ("content-length", "2000"),
            ("etag", "\"7a\""),
            ("accept-ranges", "bytes"),
        ]);
        let encoder = get(GZIP).apply(StatusCode::OK, &mut headers, Some(2000));
        assert_eq!(encoder.map(|encoder| encoder.coding()), Some(Coding::Gzip));
        let expected = [
            "content-encoding: gzip",
            "content-type: application/json",
            "etag: W/\"7a\"",
            "vary: Accept-Encoding",
        ];
        assert_eq!(shown(&headers), expected);
    }

    /// What becomes of an answer: nothing, only `Vary`, or compression.
    #[derive(Debug, PartialEq)]
    enum Becomes {
        Same,
        Varied,
        Compressed,
    }

    fn becomes(pending: &PendingCompression, status: u16, answer: &[(&str, &str)], length: Option<u64>) -> Becomes {
        let (before, mut headers) = (map(answer), map(answer));
        let encoder = pending.apply(StatusCode::from_u16(status).unwrap(), &mut headers, length);
        if headers == before {
            assert!(encoder.is_none());
            return Becomes::Same;
        }
        assert!(
            shown(&headers).iter().any(|line| line.starts_with("vary: ")),
            "{answer:?}"
        );
        assert_eq!(
            encoder.is_some(),
            headers.contains_key("content-encoding") && !pending.is_head
        );
        match headers.contains_key("content-encoding") {
            true => Becomes::Compressed,
            false => {
                headers.remove("vary");
                assert_eq!(shown(&headers), shown(&before));
                Becomes::Varied
            }
        }
    }

    #[test]
    fn only_a_large_answer_of_a_listed_type_is_compressed() {
        let check = |answer: &[(&str, &str)], length: Option<u64>, expected: Becomes| {
            assert_eq!(
                becomes(&get(GZIP), 200, answer, length),
                expected,
                "{answer:?} {length:?}"
            );
        };
        check(&[JSON], Some(1024), Becomes::Compressed);
        check(&[JSON], None, Becomes::Compressed);
        check(&[JSON], Some(1023), Becomes::Same);
        check(&[JSON], Some(0), Becomes::Same);
        check(&[("content-type", "image/png")], None, Becomes::Same);
        check(&[], None, Becomes::Same);
        check(&[("content-type", "text/event-stream")], None, Becomes::Same);
        check(
            &[("content-type", "Text/Event-Stream;charset=utf-8")],
            None,
            Becomes::Same,
        );
        for grpc in ["application/grpc", "application/grpc+proto", "application/GRPC-web"] {
            check(&[("content-type", grpc)], None, Becomes::Same);
        }
        for other in [
            ("content-encoding", "br"),
            ("content-encoding", "identity, gzip"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "no-transform"),
            ("cache-control", "public,No-Transform , max-age=1"),
            (
                "content-digest",
                "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
            ),
            ("repr-digest", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"),
            ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
            ("signature", "sig1=:YQ==:"),
            ("trailer", "server-timing, Content-Digest"),
        ] {
            check(&[JSON, other], None, Becomes::Same);
        }
        check(&[JSON, ("content-encoding", "identity")], None, Becomes::Compressed);
        check(
            &[JSON, ("cache-control", "public, max-age=1")],
            None,
            Becomes::Compressed,
        );
    }

    #[test]
    fn some_statuses_have_nothing_to_compress() {
        for (status, expected) in [
            (200, Becomes::Compressed),
            (201, Becomes::Compressed),
            (404, Becomes::Compressed),
            (429, Becomes::Compressed),
            (500, Becomes::Compressed),
            (101, Becomes::Same),
            (204, Becomes::Same),
            (205, Becomes::Same),
            (206, Becomes::Same),
            (304, Becomes::Same),
        ] {
            assert_eq!(becomes(&get(GZIP), status, &[JSON], None), expected, "{status}");
        }
    }

    #[test]
    fn an_answer_that_could_be_compressed_says_so_to_everybody() {
        for request in [
            &[][..],
            &[("accept-encoding", "identity")],
            &[("accept-encoding", "gzip;q=0")],
        ] {
            assert_eq!(
                becomes(&get(request), 200, &[JSON], None),
                Becomes::Varied,
                "{request:?}"
            );
        }
        let untouched = [("accept-encoding", "gzip"), ("cache-control", "no-transform")];
        assert_eq!(becomes(&get(&untouched), 200, &[JSON], None), Becomes::Varied);
        let old = pending(&Method::GET, Version::HTTP_10, GZIP);
        assert_eq!(becomes(&old, 200, &[JSON], None), Becomes::Varied);
        let no_room = PendingCompression {
            rules: Arc::new(Compression {
                memory: 0,
                ..(*compression()).clone()
            }),
            ..get(GZIP)
        };
        assert_eq!(becomes(&no_room, 200, &[JSON], None), Becomes::Varied);
    }

    #[test]
    fn the_caller_is_told_once_what_the_answer_depends_on() {
        for (vary, expected) in [
            (&["*"][..], vec!["*"]),
            (&["Origin"], vec!["Origin", "Accept-Encoding"]),
            (&["origin, accept-encoding"], vec!["origin, accept-encoding"]),
            (&["Origin", "ACCEPT-ENCODING"], vec!["Origin", "ACCEPT-ENCODING"]),
        ] {
            let fields: Vec<_> = vary.iter().map(|value| ("vary", *value)).chain([JSON]).collect();
            let mut headers = map(&fields);
            get(&[]).apply(StatusCode::OK, &mut headers, None);
            let told: Vec<_> = headers
                .get_all("vary")
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_caller_that_refuses_answers_as_they_are_gets_small_ones_compressed() {
        let forcing = get(&[("accept-encoding", "gzip, identity;q=0")]);
        assert_eq!(becomes(&forcing, 200, &[JSON], Some(10)), Becomes::Compressed);
        assert_eq!(becomes(&forcing, 200, &[JSON], Some(0)), Becomes::Same);
        // Nothing that it accepts is on offer: it gets the answer as it is (RFC 9110 section 12.5.3).
        let impossible = get(&[("accept-encoding", "exi, identity;q=0")]);
        assert_eq!(becomes(&impossible, 200, &[JSON], Some(10)), Becomes::Same);
    }

    #[test]
    fn an_answer_to_head_has_the_same_fields() {
        for length in [Some(10), Some(5000), None] {
            let (mut of_get, mut of_head) = (map(&[JSON, ("etag", "\"1\"")]), map(&[JSON, ("etag", "\"1\"")]));
            let encoder = get(GZIP).apply(StatusCode::OK, &mut of_get, length);
            assert_eq!(encoder.is_some(), length != Some(10));
            let encoder = pending(&Method::HEAD, Version::HTTP_2, GZIP).apply(StatusCode::OK, &mut of_head, length);
            assert!(encoder.is_none());
            assert_eq!(shown(&of_get), shown(&of_head));
        }
    }

    #[test]
    fn a_tag_of_an_unchanged_answer_is_that_which_the_caller_holds() {
        for (held, tag, expected) in [
            ("W/\"1\"", "\"1\"", "W/\"1\""),
            ("\"0\", W/\"1\"", "\"1\"", "W/\"1\""),
            ("\"1\"", "\"1\"", "\"1\""),
            ("W/\"1\", \"1\"", "\"1\"", "\"1\""),
            ("W/\"2\"", "\"1\"", "\"1\""),
            ("*", "\"1\"", "\"1\""),
            ("W/\"1\"", "W/\"1\"", "W/\"1\""),
        ] {
            let mut headers = map(&[("etag", tag)]);
            let request = [("if-none-match", held), ("accept-encoding", "gzip")];
            assert!(
                get(&request)
                    .apply(StatusCode::NOT_MODIFIED, &mut headers, None)
                    .is_none()
            );
            assert_eq!(headers["etag"], expected, "{held}");
            assert_eq!(headers.contains_key("vary"), tag != expected);
        }
    }
}
