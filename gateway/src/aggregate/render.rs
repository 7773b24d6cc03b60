//! Makes the requests of a part: fills its templates from the caller's request and from earlier answers.
//!
//! Invariant: a spliced value stays at its place in the template (see [`crate::template`]). If the caller
//! sends an idempotency key, each request with an unsafe method gets a key derived from the caller's key, the part and
//! the element. With the caller's key alone, a backend that serves two parts would take the second request for a
//! repetition of the first.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;

use super::draft::OnMissing;
use super::fan_out::{EndedParts, NotCalled};
use super::fault::{Cause, Missing, PartFault};
use super::for_each::ListElement;
use super::forward::{IDEMPOTENCY_KEY, is_callers_alone};
use super::part::Part;
use super::part_call::PartCall;
use super::request::Request;
use super::when::Subject;
use crate::call::CallBody;
use crate::json::{Document, Kind, Selection};
use crate::message::FieldMap;
use crate::template::{Found, Placeholder, Sources, Template};
use crate::wire::aliases;

/// Limit in bytes for the requests of all elements together. They are measured before the first is sent.
pub(super) const ELEMENTS_LIMIT: usize = 16 << 20;

/// Requests that a part makes.
pub(super) enum Rendered {
    Once(PartRequest),
    Each(Array),
    /// The value for `for_each` is not an array.
    Impossible(Cause),
}

/// Array for whose elements a part is called, and the sources of the requests.
pub(super) struct Array {
    pub document: Document,
    pub whence: Missing,
    /// Answers of other parts that may be spliced, by part name.
    answers: SmallVec<[(Arc<str>, Arc<Selection>); 2]>,
    /// Header fields common to all requests.
    fields: FieldMap,
}

impl Array {
    fn answer(&self, part: &str) -> Option<&Selection> {
        let mut answers = self.answers.iter();
        answers.find(|(of, _)| **of == *part).map(|(_, answer)| &**answer)
    }
}

/// Request of one element, or the reason why there is none.
pub(super) enum Element {
    Call(PartRequest),
    /// The recipe leaves the element out because a value is missing.
    Omitted,
    Failed(PartFault),
}

/// One request of a part, with all values filled in.
pub(super) struct PartRequest {
    pub target: PathAndQuery,
    pub headers: FieldMap,
    pub body: CallBody,
}

impl PartRequest {
    /// Memory that the request takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let body = match &self.body {
            CallBody::Whole(body) => body.len(),
            CallBody::Empty | CallBody::Streamed(..) => 0,
        };
        size_of::<Self>() + self.target.as_str().len() + fields_size(&self.headers) + body
    }
}

fn fields_size(fields: &FieldMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

impl PartCall {
    /// Returns every placeholder of the request, of the condition and of `for_each`.
    pub fn uses(&self) -> impl Iterator<Item = &Placeholder> {
        let in_query = self.query.iter().map(|(_, template)| template);
        let in_headers = self.headers.iter().map(|(_, template)| template);
        let sent = [&self.target]
            .into_iter()
            .chain(in_query)
            .chain(in_headers)
            .chain(&self.body);
        let condition = self.when.iter().filter_map(|when| match &when.subject {
            Subject::Value(placeholder) => Some(placeholder),
            Subject::Status(_) => None,
        });
        let over = self.for_each.iter().map(|for_each| &for_each.over);
        sent.flat_map(Template::uses).chain(condition).chain(over)
    }

    /// Makes the request or requests of a part. `lacks` receives each placeholder that cannot be filled and the reason,
    /// for the log.
    pub(super) fn render(
        &self,
        part: &Part,
        request: &Request<'_>,
        earlier: EndedParts<'_>,
        lacks: &dyn Fn(&str, &str),
    ) -> Result<Rendered, NotCalled> {
        let answer = |name: &str| earlier.answer(name).map(AsRef::as_ref);
        let sources = self.sources(request, &answer);
        if let Some(when) = &self.when
            && !when.holds(&sources, |part| earlier.status(part))
        {
            return Err(NotCalled::Unwanted);
        }
        let Some(for_each) = &self.for_each else {
            let fields = self.onward(request);
            let request = self.render_once(part, fields, &sources, None, lacks)?;
            return Ok(Rendered::Once(request));
        };
        let whence = self.whence(&for_each.over);
        let document = match for_each.over.value_but_null(&sources) {
            Some(Found::Json(value)) if value.kind() == Kind::Array => sources.share(&for_each.over, value),
            Some(_) => return Ok(Rendered::Impossible(Cause::NotAnArray(whence))),
            // A null from a part, or an answer without a body, counts as an empty array.
            None if for_each.over.is_nothing(&sources) => Document::from_checked(Bytes::from_static(b"[]")),
            None => {
                lacks(&for_each.over.to_string(), "there is no array");
                return Err(whence.into());
            }
        };
        let answers = self.uses().filter_map(|placeholder| match placeholder {
            Placeholder::Part { part, .. } => Some((Arc::from(&**part), Arc::clone(earlier.answer(part)?))),
            _ => None,
        });
        Ok(Rendered::Each(Array {
            document,
            whence,
            answers: answers.collect(),
            fields: self.onward(request),
        }))
    }

    /// Size in bytes of the requests for all elements, header fields included. Counting stops above [`ELEMENTS_LIMIT`].
    pub(super) fn size_of_all(&self, request: &Request<'_>, array: &Array, elements: &[ListElement]) -> usize {
        let answer = |name: &str| array.answer(name);
        let in_query = self.query.iter().map(|(_, template)| template);
        let in_headers = self.headers.iter().map(|(_, template)| template);
        let templates = || {
            [&self.target]
                .into_iter()
                .chain(in_query.clone())
                .chain(in_headers.clone())
                .chain(&self.body)
        };
        let fields = fields_size(&array.fields);
        let (mut total, mut text) = (0, String::new());
        for element in elements {
            let sources = Sources {
                item: Some(&element.wanted),
                ..self.sources(request, &answer)
            };
            total += fields;
            for template in templates() {
                text.clear();
                // A request that cannot be made is not sent, so its size does not matter.
                let _ = template.render(&sources, &mut text);
                total += text.len();
            }
            if total > ELEMENTS_LIMIT {
                break;
            }
        }
        total
    }

    /// Makes the request of one element.
    pub(super) fn render_element(
        &self,
        part: &Part,
        request: &Request<'_>,
        array: &Array,
        (index, item): (usize, &Selection),
        lacks: &dyn Fn(&str, &str),
    ) -> Element {
        let answer = |name: &str| array.answer(name);
        let sources = Sources {
            item: Some(item),
            ..self.sources(request, &answer)
        };
        match self.render_once(part, array.fields.clone(), &sources, Some(index), lacks) {
            Ok(request) => Element::Call(request),
            Err(_) if part.on_missing == OnMissing::Skip => Element::Omitted,
            Err(missing) => Element::Failed(PartFault::new(Cause::ValueMissing(missing))),
        }
    }

    fn sources<'s>(
        &'s self,
        request: &'s Request<'_>,
        parts: &'s dyn Fn(&str) -> Option<&'s Selection>,
    ) -> Sources<'s> {
        Sources {
            captures: request.captures,
            query: request.query,
            headers: request.headers,
            claims: request.claims,
            parts,
            body: request.body,
            item: None,
            defaults: &self.defaults,
        }
    }

    /// Returns the caller's header fields that the part receives. Fields about the caller's body and about a partial,
    /// conditional or encoded answer are removed, because a part has a body of its own or none, and its answer must be
    /// whole, fresh JSON that the gateway can read.
    fn onward(&self, request: &Request<'_>) -> FieldMap {
        let is_taken = |name: &HeaderName| !is_callers_alone(name) && self.forward.has(name, request.not_taken);
        let taken = request.headers.iter().filter(|(name, _)| is_taken(name));
        let mut headers: FieldMap = taken.map(|(name, value)| (name.clone(), value.clone())).collect();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // Without this field, the backend may use any coding (RFC 9110 section 12.5.3).
        aliases::set_alone(
            &mut headers,
            &header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        headers
    }

    /// Makes one request. `fields` are the caller's header fields that the part receives.
    fn render_once(
        &self,
        part: &Part,
        fields: FieldMap,
        sources: &Sources<'_>,
        element: Option<usize>,
        lacks: &dyn Fn(&str, &str),
    ) -> Result<PartRequest, Missing> {
        let fill = |template: &Template, out: &mut String| {
            template.render(sources, out).map_err(|missing| {
                lacks(&missing.placeholder, missing.why);
                let mut uses = template.uses();
                uses.find(|used| used.to_string() == missing.placeholder)
                    .map_or(Missing::InRequest, |used| self.whence(used))
            })
        };
        let unfit = |template: &Template, place: &str| {
            lacks(place, "it is too long, or has what it cannot have");
            let from_answer = template.uses().any(|used| self.whence(used) == Missing::InAnswer);
            if from_answer {
                Missing::InAnswer
            } else {
                Missing::InRequest
            }
        };
        let mut target = String::with_capacity(64);
        fill(&self.target, &mut target)?;
        for (name, template) in &self.query {
            target.push(if target.contains('?') { '&' } else { '?' });
            crate::template::percent::encode(name, &mut target);
            target.push('=');
            fill(template, &mut target)?;
        }
        let mut headers = fields;
        aliases::remove_others(&mut headers, &IDEMPOTENCY_KEY);
        if let Some(key) = headers.remove(&IDEMPOTENCY_KEY)
            && !is_safe(&self.method)
        {
            headers.insert(IDEMPOTENCY_KEY, own_key(&key, part.name(), element));
        }
        for (name, template) in &self.headers {
            let mut value = String::new();
            fill(template, &mut value)?;
            let value = HeaderValue::try_from(value).map_err(|_| unfit(template, name.as_str()))?;
            aliases::set_alone(&mut headers, name, value);
        }
        let body = match &self.body {
            None => CallBody::Empty,
            Some(template) => {
                let mut text = String::with_capacity(128);
                fill(template, &mut text)?;
                headers.insert_missing(header::CONTENT_TYPE, || HeaderValue::from_static("application/json"));
                CallBody::Whole(text.into())
            }
        };
        let target = PathAndQuery::try_from(target).map_err(|_| unfit(&self.target, "path"))?;
        Ok(PartRequest { target, headers, body })
    }

    /// Returns the source of a placeholder's value. An element has the source of its array.
    fn whence(&self, placeholder: &Placeholder) -> Missing {
        let origin = match (placeholder, &self.for_each) {
            (Placeholder::Item(_), Some(for_each)) => &for_each.over,
            _ => placeholder,
        };
        match origin {
            Placeholder::Part { .. } => Missing::InAnswer,
            _ => Missing::InRequest,
        }
    }
}

/// Returns whether a method is safe. A safe request has no effect that a repetition could double (RFC 9110 section
/// 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Derives a key for this part and element from the caller's key, as `KEY:part[2]`. A structured-field string stays one
/// (draft-ietf-httpapi-idempotency-key-header).
///
/// Part names contain no colon and no bracket, so no two parts or elements get the same key.
fn own_key(key: &HeaderValue, part: &str, element: Option<usize>) -> HeaderValue {
    let (start, end) = match key.as_bytes() {
        [start @ .., b'"'] => (start, b"\"".as_slice()),
        all => (all, b"".as_slice()),
    };
    let mut own = [start, b":", part.as_bytes()].concat();
    if let Some(element) = element {
        own.extend_from_slice(format!("[{element}]").as_bytes());
    }
    own.extend_from_slice(end);
    HeaderValue::from_bytes(&own).expect("names of parts are made of what a header may hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_element_has_a_key_of_its_own() {
        let check = |key: &'static str, element, expected: &str| {
            assert_eq!(own_key(&HeaderValue::from_static(key), "pay", element), expected);
        };
        check("8e03", None, "8e03:pay");
        check("8e03", Some(2), "8e03:pay[2]");
        check("\"8e03\"", None, "\"8e03:pay\"");
        check("\"8e03\"", Some(0), "\"8e03:pay[0]\"");
        check("8e03:pay", Some(0), "8e03:pay:pay[0]");
        check("", None, ":pay");
    }
}
