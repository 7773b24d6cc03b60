//! Makes one attempt: takes a connection, sends the request and reads the head of the answer.
//!
//! An attempt knows whether its request was sent, which decides what may be repeated. There are no hidden retries. Only
//! a connection that is found closed, or closing, before it took anything of the request is replaced by another.

use std::sync::Arc;
use std::time::Duration;

use policies::{Deadline, Moment};

use super::answer_body::AnswerBody;
use super::endpoints::{Endpoint, Pools};
use super::failure::Failure;
use super::http1::{self, AttemptHead};
use super::http2::{RequestTarget, Terms};
use super::pool::PoolSettings;
use super::request::CallBody;
use super::timer::Timer;
use super::timing::Timing;
use crate::message::Response;
use crate::wire::interim::InterimAnswers;

/// Parameters of an attempt: the endpoint, its pool, and the limits.
pub(crate) struct AttemptParams<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) worker: usize,
    pub(crate) pool: &'a PoolSettings,
    /// Maximum time of connecting.
    pub(crate) connect: Duration,
    /// Whether the request asks the backend to switch to another protocol.
    pub(crate) switches: bool,
    /// Whether the caller accepts trailers.
    pub(crate) trailers: bool,
    /// Takes interim answers, where they can be passed on to the caller.
    pub(crate) interim: Option<&'a InterimAnswers>,
}

/// Request of an attempt.
pub(crate) struct AttemptRequest<'a> {
    pub(crate) head: AttemptHead<'a>,
    pub(crate) body: &'a CallBody,
}

/// Head of an answer, with a body that is still being received on the connection.
pub(crate) type Answer = Response<AnswerBody>;

impl AttemptParams<'_> {
    /// Sends the request and waits for the head of the answer until `deadline`. Records the times in `timing`. Sends the
    /// request again if a connection is found closed.
    ///
    /// # Errors
    /// Returns a [`Failure`], which says whether anything was sent.
    pub(crate) async fn attempt(
        &self,
        request: &AttemptRequest<'_>,
        began: Moment,
        deadline: Deadline,
        timer: &mut Timer,
        timing: &mut Timing,
    ) -> Result<Answer, Failure> {
        match &self.endpoint.pools {
            Pools::Http1(pools) => {
                let pool = &pools[self.worker];
                http1::exchange(self, pool, request, began, deadline, timer, timing).await
            }
            Pools::Http2(pools) => {
                let terms = Terms {
                    endpoint: self.endpoint,
                    pool: &pools[self.worker],
                    settings: self.pool,
                    connect: self.connect,
                    target: RequestTarget {
                        host: self.endpoint.host(),
                        authority: self.endpoint.authority(),
                        is_secure: self.endpoint.tls.is_some(),
                        trailers: self.trailers,
                        switches: self.switches,
                    },
                    interim: self.interim,
                };
                let request = || request.body.for_attempt().map(|body| request.head.to_request(body));
                // Boxed, so that calls over HTTP/1.1 do not carry the size of this future.
                let exchange = Box::pin(terms.exchange(request, deadline, timer, timing));
                let (response, lease) = exchange.await?;
                Ok(response.map(|answer| AnswerBody::Shared(Box::new(answer), lease)))
            }
        }
    }
}
