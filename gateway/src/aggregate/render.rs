//! Makes a part's requests: fills its templates from the caller's request and from earlier answers.
//!
//! Invariant: whatever is spliced stays where it was written (see [`crate::template`]). A request that would not be
//! safe to send twice carries a key of its own part and element, never the caller's as it is: two parts that share a
//! backend would take each other for repetitions.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;

use super::draft::OnMissing;
use super::fan_out::{EndedParts, NotCalled};
use super::fault::{Cause, Missing, PartFault};
use super::part::Part;
use super::serve::{PartCall, Request};
use super::when::Subject;
use crate::call::CallBody;
use crate::json::{Document, Kind, Selection};
use crate::template::{Found, Placeholder, Sources, Template};
use crate::wire::aliases;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Bytes that the requests for all elements may have together. They are counted before the first is sent.
pub(super) const ELEMENTS_LIMIT: usize = 16 << 20;

/// What a part is to ask.
pub(super) enum Rendered {
    Once(PartRequest),
    Each(Array),
    /// There is no array that it could be called for.
    Impossible(Cause),
}

/// The array that a part is called for each element of, and what its requests are made of.
pub(super) struct Array {
    pub document: Document,
    pub whence: Missing,
    /// The answers that may be spliced, by part.
    answers: SmallVec<[(Arc<str>, Arc<Selection>); 2]>,
    /// What all requests have in common.
    fields: HeaderMap,
}

impl Array {
    fn answer(&self, part: &str) -> Option<&Selection> {
        let mut answers = self.answers.iter();
        answers.find(|(of, _)| **of == *part).map(|(_, answer)| &**answer)
    }
}

/// One element of the array that a part is called for.
pub(super) enum Element {
    Call(PartRequest),
    /// The recipe may skip it for want of a value.
    Omitted,
    Failed(PartFault),
}

/// One request of a part, spliced.
pub(super) struct PartRequest {
    pub target: PathAndQuery,
    pub headers: HeaderMap,
    pub body: CallBody,
}

impl PartRequest {
    /// What it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        let body = match &self.body {
            CallBody::Whole(body) => body.len(),
            CallBody::Empty | CallBody::Streamed(..) => 0,
        };
        size_of::<Self>() + self.target.as_str().len() + fields_size(&self.headers) + body
    }
}

fn fields_size(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

impl PartCall {
    /// Every placeholder: of what it sends, of its condition, and of what it is called for.
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

    /// `lacks` is told what cannot be filled, and why, for the log.
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
            let fields = onward(request.headers);
            let request = self.render_once(part, fields, &sources, None, lacks)?;
            return Ok(Rendered::Once(request));
        };
        let whence = self.whence(&for_each.over);
        let document = match for_each.over.value_but_null(&sources) {
            Some(Found::Json(value)) if value.kind() == Kind::Array => sources.share(&for_each.over, value),
            Some(_) => return Ok(Rendered::Impossible(Cause::NotAnArray(whence))),
            // Who says that there is nothing says that there are no elements.
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
            fields: onward(request.headers),
        }))
    }

    /// Bytes of the requests for all elements, fields included; more than [`ELEMENTS_LIMIT`] are not counted to the end.
    pub(super) fn size_of_all(&self, request: &Request<'_>, array: &Array, elements: &[Selection]) -> usize {
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
                item: Some(element),
                ..self.sources(request, &answer)
            };
            total += fields;
            for template in templates() {
                text.clear();
                // What cannot be made is not sent.
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

    /// `fields` are those that the caller's request has for every part.
    fn render_once(
        &self,
        part: &Part,
        fields: HeaderMap,
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
                headers
                    .entry(header::CONTENT_TYPE)
                    .or_insert(HeaderValue::from_static("application/json"));
                CallBody::Whole(text.into())
            }
        };
        let target = PathAndQuery::try_from(target).map_err(|_| unfit(&self.target, "path"))?;
        Ok(PartRequest { target, headers, body })
    }

    /// Where a placeholder's value comes from: an element comes from where its array does.
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

/// Safe methods ask for nothing that could happen twice (RFC 9110 section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The caller's key made this part's own, and this element's, as `KEY:part[2]`. A structured-field string stays one
/// (draft-ietf-httpapi-idempotency-key-header).
///
/// No part's name has a colon or a bracket, so that no two parts or elements get one key, whatever the caller's is.
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

/// The caller's fields that still make sense for a part: it has a body of its own or none, and its answer must be
/// whole, fresh JSON that we can read.
fn onward(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let gone: SmallVec<[HeaderName; 8]> = headers.keys().filter(|name| is_callers_alone(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    // Without it any coding would be welcome (RFC 9110 section 12.5.3).
    aliases::set_alone(
        &mut headers,
        &header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    headers
}

/// Fields about the caller's own body, about how it is framed, and about how the caller would have the answer.
fn is_callers_alone(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("content-")
        || name.starts_with("if-")
        || matches!(
            name,
            "digest" | "range" | "repr-digest" | "trailer" | "transfer-encoding"
        )
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
