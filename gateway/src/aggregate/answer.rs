//! What an aggregate tells its caller, in headers: whether everything is there, and if not, what failed and why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::entity_tag;
use super::fault::{PartFault, Substitute};
use super::proxy_status;
use crate::observe::FallbackKind;

const COMPLETE: HeaderName = HeaderName::from_static("x-gateway-complete");
const SKIPPED: HeaderName = HeaderName::from_static("x-gateway-skipped");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

const FALLBACK: HeaderName = HeaderName::from_static("x-gateway-fallback");

/// Whether a backend that is a gateway itself says that something is missing in its answer, or is not what its own
/// backend says now.
pub(super) fn is_said_to_be_incomplete(headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, words: &[&str]| {
        let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.any(|line| words.iter().any(|word| line.trim().eq_ignore_ascii_case(word)))
    };
    let stand_ins = [FallbackKind::Stale, FallbackKind::Value].map(FallbackKind::as_str);
    says(&COMPLETE, &["false"]) || says(&FALLBACK, &stand_ins)
}

/// What there is to be told, together with what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, unless a part's is to be the answer's.
    pub status: StatusCode,
    /// Of parts' own, those that are to be passed on; what belongs to the body is written over them.
    pub headers: HeaderMap,
    /// A JSON object.
    pub body: Bytes,
    /// The parts that failed, in declared order, with or without a fallback in their place.
    pub faults: Vec<(Arc<str>, PartFault)>,
    /// Of the body, where another request may name it.
    pub tag: Option<HeaderValue>,
    /// The parts that were left out by the recipe's own word, in declared order; no failures.
    pub skipped: Vec<Arc<str>>,
}

/// There is no answer, because of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The part in which the trouble began.
    pub part: Arc<str>,
    pub fault: PartFault,
}

impl Answer {
    /// Whether every part is there by a backend's own and present word. A value or an old answer is neither.
    pub fn is_complete(&self) -> bool {
        self.faults
            .iter()
            .all(|(_, fault)| matches!(fault.served, Some(Substitute::Backend(_))))
    }

    /// Gives it a tag, unless something is missing: what comes next may be the same bytes, and whole.
    pub(super) fn tag(&mut self) {
        self.tag = self.is_complete().then(|| entity_tag::of(&self.body));
    }

    /// Whether the request comes from somebody who has this very answer (RFC 9110 section 13.1.2).
    pub fn is_known_to(&self, request: &HeaderMap) -> bool {
        self.tag.as_ref().is_some_and(|tag| entity_tag::is_named(tag, request))
    }

    /// Sets what a 304 says in place of this answer: all of its fields but those that describe the body, which is not
    /// sent (RFC 9110 section 15.4.5).
    pub fn write_unchanged_headers(&self, headers: &mut HeaderMap) {
        self.write_headers(headers);
        let of_body: Vec<_> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("content-") && *name != CONTENT_LOCATION)
            .cloned()
            .collect();
        for name in of_body {
            headers.remove(name);
        }
    }

    /// What stood in for parts.
    pub fn fallbacks(&self) -> impl Iterator<Item = FallbackKind> {
        self.faults
            .iter()
            .filter_map(|(_, fault)| fault.served.as_ref().map(Substitute::kind))
    }

    /// Sets everything that belongs to this answer and its body. Nobody may store what was put together without a part.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.clone_from(&self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, self.body.len().into());
        headers.insert(
            COMPLETE,
            HeaderValue::from_static(if self.is_complete() { "true" } else { "false" }),
        );
        if let Some(tag) = &self.tag {
            headers.insert(ETAG, tag.clone());
        }
        if !self.is_complete() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if !self.skipped.is_empty() {
            let names = HeaderValue::try_from(self.skipped.join(", "));
            headers.insert(
                SKIPPED,
                names.expect("names of parts are made of what a header may hold"),
            );
        }
        for (part, fault) in &self.faults {
            headers.append(PROXY_STATUS, proxy_status::entry(part, fault));
        }
    }
}

impl Failure {
    pub(super) fn of(part: &Arc<str>, fault: &PartFault) -> Self {
        let (part, fault) = fault.origin(part);
        Self {
            part: part.clone(),
            fault: fault.clone(),
        }
    }

    /// Never 2xx.
    pub fn status(&self) -> StatusCode {
        self.fault.status()
    }

    /// The stable word of the fault.
    pub fn reason(&self) -> &'static str {
        self.fault.reason()
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.fault.retry_after
    }

    /// Sets what an aggregate says beside its problem document.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(COMPLETE, HeaderValue::from_static("false"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(PROXY_STATUS, proxy_status::entry(&self.part, &self.fault));
    }
}
