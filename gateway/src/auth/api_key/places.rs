//! Finds API keys outside their header field.
//!
//! Every key is moved into the header field, so that one set of rules applies. Two keys, wherever they were found, are
//! then a repeated field, which is refused. The places that were searched also determine which parts of the request are
//! not forwarded to the backend.

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::message::FieldMap;

/// Places that may hold API keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlaces {
    pub header: HeaderName,
    /// Whether the header field is read. If not, its values are ignored.
    pub in_header: bool,
    /// Whether `Authorization` is read: `ApiKey ...`, or `Bearer ...` with a value that lacks the two dots of a token.
    pub in_authorization: bool,
    /// Name of the query parameter that is read.
    pub in_query: Option<String>,
}

impl KeyPlaces {
    /// Returns the header fields to read credentials from, with every key of the request in the keys' header field.
    /// `None` if the request's own fields serve unchanged.
    pub fn gather(&self, query: Option<&str>, headers: &FieldMap) -> Option<FieldMap> {
        if self.in_header && !self.in_authorization && self.in_query.is_none() {
            return None;
        }
        let mut gathered = FieldMap::new();
        if self.in_header {
            for value in headers.get_all(&self.header) {
                gathered.append(&self.header, value.clone());
            }
        }
        if let Some(key) = self.key_in_authorization(headers) {
            // Another reader may take another of several lines, so every line counts as a repetition of the key.
            for _ in headers.get_all(AUTHORIZATION) {
                gathered.append(&self.header, value(key));
            }
        } else {
            for value in headers.get_all(AUTHORIZATION) {
                gathered.append(AUTHORIZATION, value.clone());
            }
        }
        if let (Some(name), Some(query)) = (&self.in_query, query) {
            for key in pairs(query).filter_map(|pair| key_in(pair, name)) {
                let decoded: Vec<u8> = percent_decode_str(key).collect();
                gathered.append(&self.header, value(&decoded));
            }
        }
        Some(gathered)
    }

    /// Returns the key in the first line of `Authorization`, if that place is read and holds one.
    pub fn key_in_authorization<'a>(&self, headers: &'a FieldMap) -> Option<&'a [u8]> {
        let value = headers.get(AUTHORIZATION).filter(|_| self.in_authorization)?;
        key_of(value.as_bytes())
    }

    /// Returns the request target without its keys, or `None` if it has none.
    pub fn without_keys(&self, uri: &Uri) -> Option<Uri> {
        let (name, query) = (self.in_query.as_ref()?, uri.query()?);
        if !pairs(query).any(|pair| key_in(pair, name).is_some()) {
            return None;
        }
        let path = uri.path();
        let mut target = String::with_capacity(path.len() + query.len());
        target.push_str(path);
        let mut mark = '?';
        for pair in pairs(query).filter(|pair| key_in(pair, name).is_none()) {
            target.push(mark);
            target.push_str(pair);
            mark = '&';
        }
        let mut parts = uri.clone().into_parts();
        // The shortened target is still valid. If it were not, `/` is safer than forwarding a key.
        parts.path_and_query = Some(PathAndQuery::try_from(target).unwrap_or(PathAndQuery::from_static("/")));
        Some(Uri::from_parts(parts).unwrap_or_default())
    }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

/// Returns the parameter's value if the pair has this name. The name may be percent-encoded.
fn key_in<'a>(pair: &'a str, name: &str) -> Option<&'a str> {
    let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
    percent_decode_str(written).eq(name.bytes()).then_some(value)
}

/// Returns the key in a value of `Authorization`. The scheme is case-insensitive (RFC 9110 section 11.1).
fn key_of(value: &[u8]) -> Option<&[u8]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    let is_token = || rest.iter().filter(|byte| **byte == b'.').count() == 2;
    let is_key = scheme.eq_ignore_ascii_case(b"apikey") || scheme.eq_ignore_ascii_case(b"bearer") && !is_token();
    is_key.then_some(rest)
}

/// Makes a field value. Bytes that a field value cannot hold become an empty value, which is refused as malformed.
fn value(key: &[u8]) -> HeaderValue {
    let mut value = HeaderValue::from_bytes(key).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn places(in_header: bool, in_authorization: bool, in_query: Option<&str>) -> KeyPlaces {
        KeyPlaces {
            header: KEY,
            in_header,
            in_authorization,
            in_query: in_query.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check(
        places: &KeyPlaces,
        sent: (&str, &[(&str, &str)]),
        keys: &[&str],
        target: &str,
        authorization: Option<&str>,
    ) {
        let mut headers = FieldMap::new();
        for (name, value) in sent.1 {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let uri: Uri = sent.0.parse().unwrap();
        let gathered = places.gather(uri.query(), &headers);
        let read = gathered.as_ref().unwrap_or(&headers);
        let found: Vec<_> = read.get_all(&KEY).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(found, keys, "{sent:?}");
        let left = places.without_keys(&uri);
        assert_eq!(left.as_ref().unwrap_or(&uri).to_string(), target, "{sent:?}");
        assert_eq!(left.is_some(), sent.0 != target, "{sent:?}");
        let kept = read.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
        assert_eq!(kept, authorization, "{sent:?}");
    }

    #[test]
    fn a_key_is_taken_out_of_the_query() {
        let places = places(true, false, Some("api_key"));
        let check = |target: &str, keys: &[&str], left: &str| check(&places, (target, &[]), keys, left, None);
        check("/a", &[], "/a");
        check("/a?b=c", &[], "/a?b=c");
        check("/a?", &[], "/a?");
        check("/a?api_key=k", &["k"], "/a");
        check("/a?b=c&api_key=k&d=%20e&&f", &["k"], "/a?b=c&d=%20e&&f");
        check("/a?api_key=k%2Dk+", &["k-k+"], "/a");
        check("/a?api%5Fkey=k", &["k"], "/a");
        check("/a?api_key=k&api_key=k2", &["k", "k2"], "/a");
        check("/a?api_key", &[""], "/a");
        check("/a?api_key=", &[""], "/a");
        check("/a?api_key=%0D%0Ax-tenant:%20root", &[""], "/a");
        check(
            "/a?API_KEY=k&xapi_key=k&api_keys=k",
            &[],
            "/a?API_KEY=k&xapi_key=k&api_keys=k",
        );
        check("http://h.example/a%2Fb?api_key=k", &["k"], "http://h.example/a%2Fb");
    }

    #[test]
    fn a_key_is_taken_out_of_authorization() {
        let places = places(true, true, None);
        let check = |sent: &str, keys: &[&str], kept: Option<&str>| {
            check(
                &places,
                ("/a?api_key=k", &[("authorization", sent)]),
                keys,
                "/a?api_key=k",
                kept,
            );
        };
        check("ApiKey k", &["k"], None);
        check("apikey  k", &["k"], None);
        check("Bearer gw_a_b", &["gw_a_b"], None);
        check("bearer k.k", &["k.k"], None);
        check("Bearer a.b.c", &[], Some("Bearer a.b.c"));
        check("Basic YTpi", &[], Some("Basic YTpi"));
        check("ApiKey", &[], Some("ApiKey"));
        check("k", &[], Some("k"));
        check("ApiKey a.b.c", &["a.b.c"], None);
    }

    #[test]
    fn what_comes_twice_stays_twice() {
        let everywhere = places(true, true, Some("api_key"));
        let sent: &[(&str, &str)] = &[("x-api-key", "one"), ("authorization", "ApiKey two")];
        check(
            &everywhere,
            ("/a?api_key=three", sent),
            &["one", "two", "three"],
            "/a",
            None,
        );
        let sent: &[(&str, &str)] = &[("authorization", "ApiKey one"), ("authorization", "Bearer a.b.c")];
        check(&everywhere, ("/a", sent), &["one", "one"], "/a", None);
    }

    #[test]
    fn a_place_that_is_not_configured_is_not_looked_at() {
        let sent: &[(&str, &str)] = &[("x-api-key", "one"), ("authorization", "ApiKey two")];
        check(
            &places(false, true, None),
            ("/a?api_key=k", sent),
            &["two"],
            "/a?api_key=k",
            None,
        );
        check(
            &places(true, false, None),
            ("/a", sent),
            &["one"],
            "/a",
            Some("ApiKey two"),
        );
    }
}
