//! Calls the parts of an aggregate: each is a full guarded call with its own slice of the deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::Body;
use http_body_util::BodyExt;
use policies::Deadline;
use policies::bulkhead::Entrant;
use serde_json::{Map, Value};

use super::answer::{Answer, Failure};
use super::fan_out::{Lookup, PartResult, fan_out};
use super::fault::{Cause, Missing, PartFault};
use super::merge::merge;
use super::recipe::Recipe;
use crate::call::backend::Backend;
use crate::call::reply::ReplyBody;
use crate::call::{self, Facts, Order, OrderBody, Streaming};
use crate::clock;
use crate::rejection::Rejection;
use crate::template::{Captures, Placeholder, Sources, Template};

/// An aggregate as meant: a recipe, and the call that each of its parts makes, by index.
pub struct Aggregate {
    pub recipe: Recipe,
    pub calls: Vec<PartCall>,
}

/// How a part asks its backend.
pub struct PartCall {
    pub backend: Arc<Backend>,
    pub method: Method,
    pub target: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(HeaderName, Template)>,
    /// Its slice of the route's time, if it has one of its own.
    pub time_limit: Option<Duration>,
    /// Bytes of an answer that are read; a longer one is a failed part.
    pub body_limit: usize,
}

/// The request that is to be answered from several parts.
pub struct Request<'a> {
    pub captures: &'a Captures<'a>,
    pub query: Option<&'a str>,
    /// Clean and stamped.
    pub headers: &'a HeaderMap,
    pub claims: Option<&'a Map<String, Value>>,
    pub deadline: Deadline,
    /// The route's own limit.
    pub meant: Duration,
    pub entrant: Entrant,
    pub is_retry: bool,
    pub worker: usize,
}

/// A part's request, spliced.
struct Rendered {
    target: PathAndQuery,
    headers: HeaderMap,
}

impl PartCall {
    /// Everything in which values are spliced.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let in_query = self.query.iter().map(|(_, template)| template);
        let in_headers = self.headers.iter().map(|(_, template)| template);
        [&self.target].into_iter().chain(in_query).chain(in_headers)
    }
}

impl Aggregate {
    /// Asks all parts and puts their answers together. Facts add up over the parts.
    pub async fn serve(&self, request: &Request<'_>) -> (Result<Answer, Failure>, Facts) {
        let facts = Mutex::new(Facts::default());
        let outcomes = fan_out(
            &self.recipe,
            |index, parts| self.calls[index].render(request, parts),
            |index, rendered| {
                let (part, facts) = (&self.calls[index], &facts);
                async move {
                    let mut own = Facts::default();
                    let result = part.call(request, rendered, &mut own).await;
                    facts.lock().unwrap_or_else(PoisonError::into_inner).add(own);
                    result
                }
            },
        )
        .await;
        (
            merge(&self.recipe, outcomes),
            facts.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl PartCall {
    fn render(&self, request: &Request<'_>, parts: &Lookup<'_>) -> Result<Rendered, Missing> {
        let sources = Sources {
            captures: request.captures,
            query: request.query,
            headers: request.headers,
            claims: request.claims,
            parts: &|name| parts(name),
        };
        let fill = |template: &Template, out: &mut String| {
            template.render(&sources, out).map_err(|_| missing(template, parts))
        };
        let mut target = String::with_capacity(64);
        fill(&self.target, &mut target)?;
        for (name, template) in &self.query {
            target.push(if target.contains('?') { '&' } else { '?' });
            crate::template::percent::encode(name, &mut target);
            target.push('=');
            fill(template, &mut target)?;
        }
        let mut headers = onward(request.headers);
        for (name, template) in &self.headers {
            let mut value = String::new();
            fill(template, &mut value)?;
            let value = HeaderValue::try_from(value).map_err(|_| missing(template, parts))?;
            headers.insert(name.clone(), value);
        }
        let target = PathAndQuery::try_from(target).map_err(|_| missing(&self.target, parts))?;
        Ok(Rendered { target, headers })
    }

    async fn call(&self, request: &Request<'_>, rendered: Rendered, facts: &mut Facts) -> PartResult {
        let deadline = match self.time_limit {
            Some(limit) => request.deadline.child(clock::now(), limit),
            None => request.deadline,
        };
        let order = Order {
            method: self.method.clone(),
            target: rendered.target,
            headers: rendered.headers,
            body: OrderBody::Empty,
            deadline,
            meant: self.time_limit.map_or(request.meant, |limit| limit.min(request.meant)),
            entrant: request.entrant,
            is_retry: request.is_retry,
            streaming: Streaming::Never,
            switches: false,
        };
        let reply = match call::call(&self.backend, request.worker, &order, facts).await {
            Ok(reply) => reply,
            Err(rejection) => return PartResult::Failed(fault_of(&rejection)),
        };
        let retry_after = call::classify::retry_after(&reply.head.headers);
        match read(reply.body, self.body_limit).await {
            Ok(body) => PartResult::of(reply.head.status, body, retry_after),
            Err(cause) => PartResult::Failed(PartFault::new(cause)),
        }
    }
}

/// The caller's fields that still make sense for a part: it has no body, and its answer must be whole, fresh JSON
/// that we can read.
fn onward(headers: &HeaderMap) -> HeaderMap {
    const NOT_OURS: [HeaderName; 12] = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::ACCEPT_ENCODING,
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    let mut headers = headers.clone();
    for name in &NOT_OURS {
        headers.remove(name);
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// Whose fault it is that a value is missing: the caller's, unless it was to come from an answer.
fn missing(template: &Template, parts: &Lookup<'_>) -> Missing {
    let from_answer = template.uses().any(|placeholder| match placeholder {
        Placeholder::Part { part, .. } => parts(part).is_some(),
        _ => false,
    });
    if from_answer {
        Missing::InAnswer
    } else {
        Missing::InRequest
    }
}

fn fault_of(rejection: &Rejection) -> PartFault {
    let retry_after = match rejection {
        Rejection::BulkheadFull { retry_after }
        | Rejection::BulkheadTimeout { retry_after }
        | Rejection::BreakerOpen { retry_after }
        | Rejection::NoEndpoint { retry_after }
        | Rejection::Overloaded { retry_after } => Some(*retry_after),
        _ => None,
    };
    PartFault {
        retry_after,
        ..PartFault::new(Cause::Call(rejection.reason()))
    }
}

/// The whole body, or why there is none.
async fn read(mut body: ReplyBody, limit: usize) -> Result<Bytes, Cause> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Cause::TooLarge);
    }
    let mut whole = Bytes::new();
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(broken) => return Err(Cause::Call(broken.reason())),
        };
        if whole.len() + gathered.len() + data.len() > limit {
            return Err(Cause::TooLarge);
        }
        // Most answers come in one piece, which is not copied.
        if whole.is_empty() && gathered.is_empty() {
            whole = data;
        } else {
            gathered.extend_from_slice(&std::mem::take(&mut whole));
            gathered.extend_from_slice(&data);
        }
    }
    Ok(if gathered.is_empty() { whole } else { gathered.freeze() })
}
