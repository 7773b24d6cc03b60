//! Asks the external service who a caller is, by a call like those to backends.
//!
//! The call has the guards of a backend: a bulkhead in which client addresses take turns, a breaker, retries within a
//! budget, and connections of its own. It ends within the service's time limit, whatever the service does.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment};

use crate::auth::external::answer::MAX_BODY;
use crate::auth::external::question::Question;
use crate::auth::external::{Asked, Service, ServiceAnswer, Unavailable};
use crate::call::backend::Backend;
use crate::call::endpoints::HashKeys;
use crate::call::reply::Broken;
use crate::call::{self, CallBody, CallRequest, Facts, Reply, Streaming};
use crate::clock;
use crate::headers::AddedFields;
use crate::limits::owner::Owner;
use crate::observe::{Attempts, ExternalOutcome};
use crate::rejection::Rejection;
use crate::wire::content_encoding::Codings;

/// Wait after a failure that says nothing of when it ends.
const SOON: Duration = Duration::from_secs(1);

/// Longest wait that a caller is told because the service asks for it.
const LONGEST: Duration = Duration::from_secs(60);

/// The external service as a backend, and the target of questions.
pub(super) struct ExternalService {
    pub(super) backend: Arc<Backend>,
    pub(super) target: PathAndQuery,
}

impl Service for ExternalService {
    fn ask(&self, question: Question, worker: usize, client: IpAddr) -> Pin<Box<dyn Future<Output = Asked> + Send>> {
        let (backend, target) = (Arc::clone(&self.backend), self.target.clone());
        Box::pin(async move { ask(&backend, target, question, worker, client).await })
    }
}

async fn ask(backend: &Arc<Backend>, target: PathAndQuery, question: Question, worker: usize, client: IpAddr) -> Asked {
    let limit = backend.settings.time_limit;
    let deadline = Deadline::at(clock::now() + limit);
    let mut order = CallRequest {
        method: Method::GET,
        target,
        headers: question.headers,
        added: AddedFields::default(),
        body: CallBody::Empty,
        deadline,
        deadline_by: Some(backend.ids.time_limit),
        operator_deadline: deadline,
        caller_deadline: None,
        trailers: false,
        expects: false,
        operator_limit: limit,
        entrant: Entrant {
            tenant: Owner::Address(client).key().short(),
            tier: 0,
            weight: 1,
            deadline: Moment::MAX,
        },
        is_retry: false,
        streaming: Streaming::Never,
        switches: false,
        interim: None,
        cost_header: None,
        hash_keys: HashKeys::default(),
        mirror: None,
        hedge: None,
    };
    let (mut attempts, mut facts) = (Attempts::default(), Facts::default());
    let called = call::call(backend, worker, &mut order, &mut attempts, &mut facts);
    let Reply { head, body } = called.await.map_err(|rejection| of_rejection(&rejection, backend))?;
    let invalid = |detail: String| {
        tracing::warn!(status = head.status.as_u16(), %detail, "the external service gave no answer that can be used");
        unavailable(ExternalOutcome::Invalid, &detail, backend)
    };
    let codings = Codings::read(&head.headers).map_err(|error| invalid(error.to_string()))?;
    let body = whole(*body, backend).await?;
    let body = codings
        .undo(body, MAX_BODY)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(ServiceAnswer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// Reads a body up to [`MAX_BODY`].
async fn whole(mut body: call::reply::ReplyBody, backend: &Backend) -> Result<Bytes, Unavailable> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|broken| {
            let outcome = match broken {
                Broken::OutOfTime | Broken::Over | Broken::NoStreamSlot => ExternalOutcome::TimedOut,
                Broken::Backend(_) | Broken::Caller(_) => ExternalOutcome::Broken,
            };
            unavailable(outcome, &broken.to_string(), backend)
        })?;
        let Some(data) = frame.data_ref() else { continue };
        if read.len() + data.len() > MAX_BODY {
            let detail = format!("the answer is longer than {MAX_BODY} bytes");
            tracing::warn!(%detail, "the external service gave no answer that can be used");
            return Err(unavailable(ExternalOutcome::Invalid, &detail, backend));
        }
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
}

fn unavailable(outcome: ExternalOutcome, detail: &str, backend: &Backend) -> Unavailable {
    Unavailable {
        outcome,
        detail: detail.into(),
        retry_after: SOON,
        by: match outcome {
            ExternalOutcome::TimedOut => backend.ids.time_limit,
            _ => backend.ids.endpoints,
        },
    }
}

fn of_rejection(rejection: &Rejection, backend: &Backend) -> Unavailable {
    let reason = rejection.reason();
    let (outcome, retry_after) = match rejection {
        Rejection::BackendUnreached(_) => (ExternalOutcome::Unreached, SOON),
        Rejection::NoEndpoint { retry_after, .. } => (ExternalOutcome::Unreached, *retry_after),
        Rejection::BackendTimeout(_) | Rejection::OutOfTime(_) => (ExternalOutcome::TimedOut, SOON),
        Rejection::BulkheadFull { retry_after, .. } | Rejection::BulkheadTimeout { retry_after, .. } => {
            (ExternalOutcome::Full, *retry_after)
        }
        Rejection::BreakerOpen { retry_after, .. } => (ExternalOutcome::BreakerOpen, *retry_after),
        _ => (ExternalOutcome::Broken, SOON),
    };
    let told = unavailable(outcome, reason.as_str(), backend);
    Unavailable {
        retry_after: retry_after.min(LONGEST),
        by: rejection.setting().unwrap_or(told.by),
        ..told
    }
}
