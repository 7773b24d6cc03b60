//! What the service is asked about a request, and the key under which its answer is stored.
//!
//! Invariant: the key covers everything that a question holds. Two requests share an answer only if the service would
//! have been sent the same bytes for both. Fields that the config does not list are neither sent nor looked at.

use std::net::IpAddr;
use std::sync::LazyLock;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use http::header::{ACCEPT, ACCEPT_ENCODING, COOKIE, HOST};
use http::{HeaderName, HeaderValue, Method};
use smallvec::SmallVec;

use crate::auth::check::Check;
use crate::message::FieldMap;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Key of a question: a keyed hash, so that no credential lies in memory with its answer.
pub type QuestionKey = [u8; 32];

/// Form of all questions, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuestionForm {
    pub fields: Box<[QuestionField]>,
    pub method: bool,
    pub host: bool,
    pub path: bool,
    pub client_address: bool,
}

/// A part of a request's head in which callers say who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QuestionField {
    Header(HeaderName),
    /// One cookie, by its name.
    Cookie(Box<str>),
}

/// What questions may tell of a request beside its header fields.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    /// Path as it was received, without the query.
    pub path: &'a str,
    pub client: IpAddr,
    /// Worker that serves the request.
    pub worker: usize,
}

/// Values that a request presents to the service.
pub struct Presented<'a> {
    form: &'a QuestionForm,
    values: SmallVec<[Option<&'a [u8]>; 4]>,
    host: Option<&'a HeaderValue>,
    facts: RequestFacts<'a>,
}

/// A question as it is sent.
#[derive(Debug)]
pub struct Question {
    pub headers: FieldMap,
}

/// Secret of the process. It is made with the first form, because the first random numbers take 30 ms.
static SECRET: LazyLock<hmac::Key> =
    LazyLock::new(|| hmac::Key::generate(HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers"));

impl QuestionForm {
    /// Prepares the hash, so that no request has to.
    pub fn prepare(&self) {
        LazyLock::force(&SECRET);
    }

    /// Reads what a request presents; `None` if it has none of the fields.
    ///
    /// # Errors
    /// If a field comes twice: the service might read the one, and the backend the other.
    pub fn read<'a>(&'a self, headers: &'a FieldMap, facts: RequestFacts<'a>) -> Result<Option<Presented<'a>>, Check> {
        let mut values = SmallVec::new();
        for field in &self.fields {
            values.push(field.only(headers)?);
        }
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Presented {
            form: self,
            values,
            host: headers.get(HOST),
            facts,
        }))
    }
}

impl QuestionField {
    /// Returns the value, if there is one.
    ///
    /// # Errors
    /// If there are two.
    fn only<'a>(&self, headers: &'a FieldMap) -> Result<Option<&'a [u8]>, Check> {
        let (first, second) = match self {
            Self::Header(name) => {
                let mut found = headers.get_all(name).iter().map(HeaderValue::as_bytes);
                (found.next(), found.next())
            }
            Self::Cookie(wanted) => {
                let named = cookies(headers).filter_map(|pair| {
                    let (name, value) = split(pair)?;
                    (name == wanted.as_bytes()).then_some(value)
                });
                let mut found = named;
                (found.next(), found.next())
            }
        };
        match second {
            None => Ok(first),
            Some(_) => Err(Check::HeaderRepeated),
        }
    }

    /// Whether a request has it.
    pub fn is_in(&self, headers: &FieldMap) -> bool {
        !matches!(self.only(headers), Ok(None))
    }

    /// Removes it from a request.
    pub fn remove(&self, headers: &mut FieldMap) {
        match self {
            Self::Header(name) => {
                headers.remove(name);
            }
            Self::Cookie(wanted) => remove_cookie(headers, wanted),
        }
    }
}

/// Returns all pairs of `Cookie` (RFC 6265 section 4.2.1).
fn cookies(headers: &FieldMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii))
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii()))
}

fn remove_cookie(headers: &mut FieldMap, wanted: &str) {
    let is_wanted = |pair: &[u8]| split(pair).is_some_and(|(name, _)| name == wanted.as_bytes());
    if !cookies(headers).any(is_wanted) {
        return;
    }
    let others = cookies(headers).filter(|pair| !pair.is_empty() && !is_wanted(pair));
    let left = others.collect::<Vec<_>>().join(&b"; "[..]);
    headers.remove(COOKIE);
    // Parts of a valid value are valid.
    if let (Ok(value), false) = (HeaderValue::from_bytes(&left), left.is_empty()) {
        headers.insert(COOKIE, value);
    }
}

impl Presented<'_> {
    /// Returns the key of the question.
    pub fn key(&self) -> QuestionKey {
        let mut context = hmac::Context::with_key(&SECRET);
        // Each value is preceded by its length, so that no two questions have the same bytes.
        let mut add = |value: Option<&[u8]>| match value {
            None => context.update(&[0; 9]),
            Some(value) => {
                context.update(&[1]);
                context.update(&(value.len() as u64).to_be_bytes());
                context.update(value);
            }
        };
        for value in &self.values {
            add(*value);
        }
        let Self { form, facts, .. } = self;
        if form.method {
            add(Some(facts.method.as_str().as_bytes()));
        }
        if form.host {
            add(self.host.map(HeaderValue::as_bytes));
        }
        if form.path {
            add(Some(facts.path.as_bytes()));
        }
        if form.client_address {
            let client = match facts.client {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            add(Some(&client.octets()));
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    pub fn facts(&self) -> RequestFacts<'_> {
        self.facts
    }

    /// Returns the question to send.
    pub fn question(&self) -> Question {
        let Self { form, facts, .. } = self;
        let mut headers = FieldMap::with_capacity(self.values.len() + 6);
        let mut cookies: Vec<u8> = Vec::new();
        let mut put = |name: &HeaderName, value: &[u8]| {
            // A part of a valid value is valid.
            if let Ok(mut value) = HeaderValue::from_bytes(value) {
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
            }
        };
        for (field, value) in form.fields.iter().zip(&self.values) {
            match (field, value) {
                (QuestionField::Header(name), Some(value)) => put(name, value),
                (QuestionField::Cookie(name), Some(value)) => {
                    let between: &[u8] = if cookies.is_empty() { b"" } else { b"; " };
                    cookies.extend_from_slice(&[between, name.as_bytes(), b"=", value].concat());
                }
                (_, None) => {}
            }
        }
        if !cookies.is_empty() {
            put(&COOKIE, &cookies);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // A method, a path and an address are visible ASCII, and so valid values.
        let mut add = |name, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        if form.method {
            add(X_FORWARDED_METHOD, facts.method.as_str());
        }
        if form.path {
            add(X_FORWARDED_URI, facts.path);
        }
        if form.client_address {
            add(X_FORWARDED_FOR, &facts.client.to_string());
        }
        if let (true, Some(host)) = (form.host, self.host) {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        Question { headers }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn form(fields: &[&'static str], facts: &str) -> QuestionForm {
        QuestionForm {
            fields: fields
                .iter()
                .map(|name| match name.strip_prefix("cookie.") {
                    Some(cookie) => QuestionField::Cookie(cookie.into()),
                    None => QuestionField::Header(HeaderName::from_static(name)),
                })
                .collect(),
            method: facts.contains("method"),
            host: facts.contains("host"),
            path: facts.contains("path"),
            client_address: facts.contains("client"),
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> FieldMap {
        let mut headers = FieldMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn facts(method: &'static Method, path: &'static str, last: u8) -> RequestFacts<'static> {
        RequestFacts {
            method,
            path,
            client: Ipv4Addr::new(192, 0, 2, last).into(),
            worker: 0,
        }
    }

    const PLAIN: &[(&str, &str)] = &[("authorization", "a"), ("x-org", "b"), ("host", "h")];

    #[test]
    fn everything_that_is_sent_is_in_the_key() {
        let key = |form: &QuestionForm, lines: &[(&'static str, &'static str)], facts: RequestFacts<'_>| {
            let headers = headers(lines);
            form.read(&headers, facts).ok().flatten().expect("it has a field").key()
        };
        let all = form(&["authorization", "x-org"], "method host path client");
        let base = key(&all, PLAIN, facts(&Method::GET, "/a", 1));
        assert_eq!(key(&all, PLAIN, facts(&Method::GET, "/a", 1)), base);
        let others = [
            key(&all, PLAIN, facts(&Method::POST, "/a", 1)),
            key(&all, PLAIN, facts(&Method::GET, "/b", 1)),
            key(&all, PLAIN, facts(&Method::GET, "/a", 2)),
            key(
                &all,
                &[("authorization", "a"), ("x-org", "b"), ("host", "i")],
                facts(&Method::GET, "/a", 1),
            ),
            key(
                &all,
                &[("authorization", "ab"), ("x-org", ""), ("host", "h")],
                facts(&Method::GET, "/a", 1),
            ),
            key(
                &all,
                &[("authorization", "ab"), ("host", "h")],
                facts(&Method::GET, "/a", 1),
            ),
            key(&all, &[("x-org", "ab"), ("host", "h")], facts(&Method::GET, "/a", 1)),
            key(
                &all,
                &[("authorization", "a"), ("x-org", "c"), ("host", "h")],
                facts(&Method::GET, "/a", 1),
            ),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, base, "{at}");
            assert!(!others[..at].contains(other), "{at}");
        }
        // What is not sent is not in the key.
        let narrow = form(&["authorization"], "");
        let base = key(&narrow, PLAIN, facts(&Method::GET, "/a", 1));
        assert_eq!(
            key(&narrow, &[("authorization", "a")], facts(&Method::POST, "/b", 2)),
            base
        );
    }

    #[test]
    fn a_question_holds_the_listed_fields_alone() {
        let lines = [
            ("authorization", "a"),
            ("cookie", "c=d"),
            ("x-forwarded-uri", "/forged"),
            ("host", "h"),
        ];
        let (headers, narrow) = (headers(&lines), form(&["authorization"], "method path host client"));
        let question = narrow
            .read(&headers, facts(&Method::PUT, "/a", 1))
            .unwrap()
            .unwrap()
            .question();
        let mut sent: Vec<_> = question
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        sent.sort();
        assert_eq!(
            sent,
            [
                "accept-encoding: identity",
                "accept: application/json",
                "authorization: a",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: h",
                "x-forwarded-method: PUT",
                "x-forwarded-uri: /a",
            ]
        );
        assert!(question.headers["authorization"].is_sensitive());
    }

    #[test]
    fn single_cookies_are_sent_and_removed() {
        let form = form(&["cookie.sid", "cookie.org"], "");
        let check = |lines: &[&'static str], sent: Result<Option<&'static str>, Check>, left: Option<&str>| {
            let lines: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            let mut headers = headers(&lines);
            let read = form.read(&headers, facts(&Method::GET, "/", 1));
            let read = read.map(|presented| presented.map(|presented| presented.question().headers[COOKIE].clone()));
            assert_eq!(read, sent.map(|sent| sent.map(HeaderValue::from_static)), "{lines:?}");
            form.fields.iter().for_each(|field| field.remove(&mut headers));
            let found = headers.get(COOKIE).map(|value| value.to_str().unwrap());
            assert_eq!(found, left, "{lines:?}");
        };
        check(&["sid=1"], Ok(Some("sid=1")), None);
        check(&["a=b; sid=1; c=d"], Ok(Some("sid=1")), Some("a=b; c=d"));
        check(&["org=x;sid=\"1\""], Ok(Some("sid=\"1\"; org=x")), None);
        check(&["a=b", "sid=1"], Ok(Some("sid=1")), Some("a=b"));
        check(&["sid=1; sid=2"], Err(Check::HeaderRepeated), None);
        check(&["xsid=1; SID=2; sid"], Ok(None), Some("xsid=1; SID=2; sid"));
        check(&["sid="], Ok(Some("sid=")), None);
        // Other cookies are not part of the question.
        let key = |line: &'static str| {
            let headers = headers(&[("cookie", line)]);
            form.read(&headers, facts(&Method::GET, "/", 1))
                .ok()
                .flatten()
                .map(|presented| presented.key())
        };
        assert_eq!(key("sid=1; seen=2"), key("seen=3; sid=1"));
        assert_ne!(key("sid=1"), key("org=1"));
    }

    #[test]
    fn a_request_without_the_fields_has_no_question_and_one_with_a_field_twice_is_refused() {
        let form = form(&["authorization", "x-org"], "path");
        let facts = facts(&Method::GET, "/", 1);
        assert!(form.read(&headers(&[("cookie", "a")]), facts).unwrap().is_none());
        let twice = headers(&[("authorization", "a"), ("x-org", "b"), ("x-org", "b")]);
        assert_eq!(form.read(&twice, facts).err(), Some(Check::HeaderRepeated));
    }
}
