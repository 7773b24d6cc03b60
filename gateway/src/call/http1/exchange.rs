//! Makes one exchange on a connection of its own: takes or makes the connection, sends the request, and receives the
//! head of the answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use http::StatusCode;
use policies::{Deadline, Moment};

use super::early_answer::EarlyAnswer;
use super::message_stream::{ExchangeError, MessageStream};
use crate::call::answer_body::AnswerBody;
use crate::call::attempt::{AttemptParams, AttemptRequest};
use crate::call::failure::Failure;
use crate::call::fault::{Fault, Upload};
use crate::call::pool::{Connection, Pool, PooledConnection};
use crate::call::timer::{Elapsed, Timer};
use crate::call::timing::Timing;
use crate::clock;
use crate::message::Response;
use crate::wire::http1::Head;

/// Sends the request and waits for the head of the answer until `deadline`. Records the times in `timing`.
///
/// # Errors
/// Returns a [`Failure`], which says whether anything was sent.
pub(crate) async fn exchange(
    params: &AttemptParams<'_>,
    pool: &Arc<Pool>,
    request: &AttemptRequest<'_>,
    began: Moment,
    deadline: Deadline,
    timer: &mut Timer,
    timing: &mut Timing,
) -> Result<Response<AnswerBody>, Failure> {
    let mut pooled = pool.take(params.pool, began);
    let mut ready = began;
    loop {
        let connection = match pooled.take() {
            Some(connection) => connection,
            None => {
                let started = clock::now();
                // Boxed, because connecting is rare and its future is large. Calls on pooled connections do not
                // carry its size.
                let dialled = Box::pin(dial(params, started, deadline, timer)).await;
                ready = clock::now();
                timing.connecting += ready.since(started);
                dialled?
            }
        };
        let mut lease = PooledConnection::new(connection, Arc::clone(pool));
        timing.sent = Some(ready);
        let Some(body) = request.body.for_attempt() else {
            return Err(Failure::body_gone());
        };
        let Connection {
            stream, timer, used, ..
        } = lease.connection();
        stream.begin(&request.head, body, params.pool.answer_fields);
        let read = timer
            .run(
                deadline.moment(),
                pin!(poll_fn(|cx| stream.poll_head(params.interim, cx))),
            )
            .await;
        let error = match read {
            Err(Elapsed) => return Err(Failure::new(Fault::TimedOut { sent: true }, "no answer in time")),
            Ok(Ok(head)) => return answer(lease, head, params, deadline),
            Ok(Err(error)) => error,
        };
        let is_of_request = matches!(error, ExchangeError::Upload(_) | ExchangeError::Length);
        if *used && !stream.has_written() && !is_of_request {
            // It was closed, or used up, before it took anything of the request.
            continue;
        }
        let tls = params.endpoint.tls.as_ref().filter(|_| !*used);
        let was_refused = match &error {
            ExchangeError::Io(error) => tls.is_some_and(|tls| tls.was_refused(error)),
            _ => false,
        };
        let fault = match &error {
            ExchangeError::Refused(_) => Fault::Invalid,
            ExchangeError::Upload(_) | ExchangeError::Length => Fault::Upload(Upload::Broken),
            ExchangeError::Cut(_) | ExchangeError::Io(_) if was_refused || !stream.has_written() => Fault::Unreached,
            ExchangeError::Cut(_) | ExchangeError::Io(_) => Fault::Broken,
        };
        return Err(Failure::new(fault, error));
    }
}

/// Returns the answer that begins with this head.
fn answer(
    mut lease: PooledConnection,
    head: Head,
    params: &AttemptParams<'_>,
    deadline: Deadline,
) -> Result<Response<AnswerBody>, Failure> {
    let invalid = |detail: &dyn ToString| Failure::new(Fault::Invalid, detail.to_string());
    let status = head.status().ok_or_else(|| invalid(&"the answer has no status"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS && !params.switches {
        return Err(invalid(&"switched protocols unasked"));
    }
    // What these answers say of a body is wrong, or about another answer (RFC 9110 section 8.6).
    let states_length = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let headers = head.fields.to_map_of_answer(states_length);
    let mut response = Response::new(AnswerBody::Over);
    *response.status_mut() = status;
    *response.version_mut() = head.version();
    *response.headers_mut() = headers.map_err(|refusal| invalid(&refusal))?;
    let reason = head.reason();
    if !reason.is_empty()
        && status.canonical_reason().map(str::as_bytes) != Some(reason)
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason)
    {
        response.extensions_mut().insert(reason);
    }
    let connection = lease.connection();
    connection.keep_for(head.keep_alive());
    connection.stream.recycle(head);
    *response.body_mut() = if connection.stream.is_sending() && status != StatusCode::SWITCHING_PROTOCOLS {
        AnswerBody::Early(EarlyAnswer::begin(lease, *params.pool, deadline.moment()))
    } else {
        AnswerBody::Own(lease)
    };
    Ok(response)
}

async fn dial(
    params: &AttemptParams<'_>,
    now: Moment,
    deadline: Deadline,
    timer: &mut Timer,
) -> Result<Connection, Failure> {
    let address = params.endpoint.address();
    let until = deadline.child(now, params.connect);
    match timer.run(until.moment(), pin!(params.endpoint.reach())).await {
        Ok(Ok(socket)) => Ok(Connection::new(MessageStream::new(socket), now)),
        Ok(Err(error)) => Err(Failure::new(Fault::Unreached, format_args!("{address}: {error}"))),
        Err(Elapsed) if until < deadline => Err(Failure::connect_limit(address, params.connect)),
        Err(Elapsed) => Err(Failure::new(
            Fault::TimedOut { sent: false },
            format_args!("{address}: connecting"),
        )),
    }
}
