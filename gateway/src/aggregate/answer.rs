//! Describes an aggregate's answer in header fields: whether it is complete, and if not, which parts failed and why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, StatusCode};

use super::entity_tag;
use super::fault::{PartFault, Substitute};
use super::proxy_status;
use crate::message::FieldMap;
use crate::observe::FallbackKind;

const COMPLETE: HeaderName = HeaderName::from_static("x-gateway-complete");
const SKIPPED: HeaderName = HeaderName::from_static("x-gateway-skipped");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

const FALLBACK: HeaderName = HeaderName::from_static("x-gateway-fallback");

/// Returns whether a backend's answer declares itself incomplete or served from a fallback. Only a backend that is
/// itself such a gateway sends these header fields.
pub(super) fn is_said_to_be_incomplete(headers: &FieldMap) -> bool {
    let says = |name: &HeaderName, words: &[&str]| {
        let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.any(|line| words.iter().any(|word| line.trim().eq_ignore_ascii_case(word)))
    };
    let stand_ins = [FallbackKind::Stale, FallbackKind::Value].map(FallbackKind::as_str);
    says(&COMPLETE, &["false"]) || says(&FALLBACK, &stand_ins)
}

/// Combined body of all parts, together with the parts that failed or were skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, unless the recipe takes the status of one part.
    pub status: StatusCode,
    /// Header fields passed on from parts. Fields that describe the body overwrite them.
    pub headers: FieldMap,
    /// JSON object.
    pub body: Bytes,
    /// Parts that failed, in declared order, with or without a fallback in their place.
    pub faults: Vec<(Arc<str>, PartFault)>,
    /// Entity tag of the body. Set only if the answer is complete and the method is GET or HEAD.
    pub tag: Option<HeaderValue>,
    /// Parts that the recipe left out, in declared order. They do not count as failures.
    pub skipped: Vec<Arc<str>>,
}

/// Failed aggregate: one part prevents the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Part in which the failure began.
    pub part: Arc<str>,
    pub fault: PartFault,
}

impl Answer {
    /// Returns whether every part comes from a fresh backend answer. A fallback value or a stale answer does not count.
    pub fn is_complete(&self) -> bool {
        self.faults
            .iter()
            .all(|(_, fault)| matches!(fault.served, Some(Substitute::Backend(_))))
    }

    /// Sets the entity tag if the answer is complete. An incomplete answer gets none, because a later complete answer
    /// may have the same bytes.
    pub(super) fn tag(&mut self) {
        self.tag = self.is_complete().then(|| entity_tag::of(&self.body));
    }

    /// Returns whether the request names this answer's tag in `If-None-Match` (RFC 9110 section 13.1.2).
    pub fn is_known_to(&self, request: &FieldMap) -> bool {
        self.tag.as_ref().is_some_and(|tag| entity_tag::is_named(tag, request))
    }

    /// Sets the header fields of a 304 in place of this answer. A 304 has no body, so the fields that describe the body
    /// are left out (RFC 9110 section 15.4.5).
    pub fn write_unchanged_headers(&self, headers: &mut FieldMap) {
        self.write_headers(headers);
        headers.retain(|name, _| !name.as_str().starts_with("content-") || *name == CONTENT_LOCATION);
    }

    /// Kinds of the fallbacks that replaced failed parts.
    pub fn fallbacks(&self) -> impl Iterator<Item = FallbackKind> {
        self.faults
            .iter()
            .filter_map(|(_, fault)| fault.served.as_ref().map(Substitute::kind))
    }

    /// Sets all header fields of this answer and its body. Caches must not store an incomplete answer.
    pub fn write_headers(&self, headers: &mut FieldMap) {
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

    /// Status that the caller receives. Never 2xx.
    pub fn status(&self) -> StatusCode {
        self.fault.status()
    }

    /// Stable code of the fault.
    pub fn reason(&self) -> &'static str {
        self.fault.reason()
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.fault.retry_after
    }

    /// Sets the header fields that an aggregate adds to its problem document.
    pub fn write_headers(&self, headers: &mut FieldMap) {
        headers.insert(COMPLETE, HeaderValue::from_static("false"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(PROXY_STATUS, proxy_status::entry(&self.part, &self.fault));
    }
}
