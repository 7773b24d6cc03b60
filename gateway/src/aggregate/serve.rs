//! Calls the parts of an aggregate: each is a full guarded call with its own slice of the deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method};
use http_body::Body;
use http_body_util::BodyExt;
use policies::Deadline;
use policies::bulkhead::Entrant;
use serde_json::{Map, Value};

use super::answer::{Answer, Failure};
use super::fan_out::{Called, PartResult, fan_out};
use super::fault::{Cause, PartFault};
use super::for_each::{ForEach, for_each};
use super::merge::merge;
use super::recipe::Recipe;
use super::render::{PartRequest, Rendered};
use super::when::When;
use crate::call::backend::Backend;
use crate::call::reply::ReplyBody;
use crate::call::{self, Facts, Order, Streaming};
use crate::clock;
use crate::rejection::Rejection;
use crate::template::{Captures, Placeholder, Template};

/// An aggregate as meant: a recipe, and the call that each of its parts makes, by index.
pub struct Aggregate {
    pub recipe: Recipe,
    pub calls: Vec<PartCall>,
    /// Whether a part takes values from the request's own body.
    pub reads_body: bool,
}

/// How a part asks its backend.
pub struct PartCall {
    pub backend: Arc<Backend>,
    pub method: Method,
    pub target: Template,
    pub query: Vec<(String, Template)>,
    pub headers: Vec<(HeaderName, Template)>,
    /// A JSON text.
    pub body: Option<Template>,
    /// Called at all only if this holds.
    pub when: Option<When>,
    pub for_each: Option<ForEach>,
    /// What stands in for values that are absent.
    pub defaults: Box<[(Placeholder, Value)]>,
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
    /// If a part takes values from it.
    pub body: Option<&'a Value>,
    pub deadline: Deadline,
    /// The route's own limit.
    pub meant: Duration,
    pub entrant: Entrant,
    pub is_retry: bool,
    pub worker: usize,
}

impl Aggregate {
    pub fn new(recipe: Recipe, calls: Vec<PartCall>) -> Self {
        let reads_body = calls
            .iter()
            .flat_map(PartCall::uses)
            .any(|placeholder| matches!(placeholder, Placeholder::Body(_)));
        Self {
            recipe,
            calls,
            reads_body,
        }
    }

    /// Asks all parts and puts their answers together. Facts add up over the parts.
    pub async fn serve(&self, request: &Request<'_>) -> (Result<Answer, Failure>, Facts) {
        let facts = Mutex::new(Facts::default());
        let outcomes = fan_out(
            &self.recipe,
            |index, earlier| self.calls[index].render(&self.recipe.parts()[index], request, earlier),
            |index, rendered| self.calls[index].call(request, rendered, &facts),
        )
        .await;
        (
            merge(&self.recipe, outcomes),
            facts.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl PartCall {
    async fn call(&self, request: &Request<'_>, rendered: Rendered, facts: &Mutex<Facts>) -> Called {
        let deadline = match self.time_limit {
            Some(limit) => request.deadline.child(clock::now(), limit),
            None => request.deadline,
        };
        let ask = async |part_request: PartRequest| {
            let mut own = Facts::default();
            let called = self.ask(request, part_request, deadline, &mut own).await;
            facts.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            called
        };
        match (rendered, &self.for_each) {
            (Rendered::Once(part_request), _) => ask(part_request).await,
            (Rendered::Each(elements), Some(terms)) => for_each(terms, elements, self.body_limit, ask).await.into(),
            (Rendered::Impossible(cause), _) => PartResult::Failed(PartFault::new(cause)).into(),
            (Rendered::Each(_), None) => unreachable!("elements come from `for_each`"),
        }
    }

    /// Makes one call, however many attempts it takes.
    async fn ask(
        &self,
        request: &Request<'_>,
        PartRequest { target, headers, body }: PartRequest,
        deadline: Deadline,
        facts: &mut Facts,
    ) -> Called {
        let order = Order {
            method: self.method.clone(),
            target,
            headers,
            body,
            deadline,
            meant: self.time_limit.map_or(request.meant, |limit| limit.min(request.meant)),
            entrant: request.entrant,
            is_retry: request.is_retry,
            streaming: Streaming::Never,
        };
        let reply = match call::call(&self.backend, request.worker, &order, facts).await {
            Ok(reply) => reply,
            Err(rejection) => return PartResult::Failed(fault_of(&rejection)).into(),
        };
        let retry_after = call::classify::retry_after(&reply.head.headers);
        let status = reply.head.status;
        let result = match read(reply.body, self.body_limit).await {
            Ok(body) => PartResult::of(status, body, retry_after),
            Err(cause) => PartResult::Failed(PartFault::new(cause)),
        };
        Called {
            status: Some(status),
            result,
        }
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
