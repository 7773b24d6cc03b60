//! Makes one exchange on a shared connection: takes a slot, sends the request, and receives the head of the answer.
//!
//! A request that the peer did not begin, because the connection was going away, is sent on another connection within
//! the same attempt. A request that the peer refused may be retried only by the call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::StatusCode;
use http_body::Body as _;
use policies::Deadline;

use super::answer_stream::AnswerStream;
use super::convert::{self, RequestTarget};
use super::dial;
use super::fault::{fault_of, is_left_out};
use super::link::{Link, Unanswered};
use super::pool::{ExchangeSlot, Shared, Taken};
use super::upload::Upload;
use crate::call::endpoints::Endpoint;
use crate::call::failure::Failure;
use crate::call::fault::Fault;
use crate::call::pool::PoolSettings;
use crate::call::replay::Outbound;
use crate::call::timer::{Elapsed, Timer};
use crate::call::timing::Timing;
use crate::clock;
use crate::message::{Request, Response};
use crate::wire::interim::InterimAnswers;

/// Maximum number of connections that an attempt may find going away before it fails.
const MOST_LEFT_OUT: u32 = 3;

/// Maximum number of interim answers to a request, as on HTTP/1.1.
const MOST_INTERIM: u32 = 100;

/// Parameters of an exchange: the endpoint, its pool, and the limits.
pub(crate) struct Terms<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) pool: &'a Arc<Shared>,
    pub(crate) settings: &'a PoolSettings,
    /// Maximum time of connecting.
    pub(crate) connect: Duration,
    pub(crate) target: RequestTarget<'a>,
    /// Takes interim answers, where they can be passed on to the caller.
    pub(crate) interim: Option<&'a InterimAnswers>,
}

/// Exchange in progress. If it is dropped before its end, it resets its stream.
pub(crate) struct StreamCheckout {
    slot: Arc<ExchangeSlot>,
    is_whole: bool,
    pub(crate) timer: Timer,
}

impl StreamCheckout {
    fn new(slot: Arc<ExchangeSlot>) -> Self {
        Self {
            slot,
            is_whole: false,
            timer: Timer::default(),
        }
    }

    /// Whether the whole request has been handed to the connection.
    pub(crate) fn is_asked(&self) -> bool {
        self.slot.is_asked()
    }

    /// Ends the exchange after a complete answer. The rest of its request is no longer needed and is not sent.
    pub(crate) fn give_back(mut self) {
        self.is_whole = self.is_asked();
    }
}

impl Drop for StreamCheckout {
    fn drop(&mut self) {
        if !self.is_whole {
            self.slot.abandon();
        }
    }
}

/// Reason why there is no head of an answer.
enum Unserved {
    /// The peer did not begin the request. It may be sent on another connection.
    LeftOut(Failure),
    Failed(Failure),
}

impl Terms<'_> {
    /// Sends the request and waits for the head of the answer until `deadline`. Records the times in `timing`.
    ///
    /// # Errors
    /// Returns a [`Failure`], which says whether the peer may have begun the request.
    pub(crate) async fn exchange(
        &self,
        mut request: impl FnMut() -> Option<Request<Outbound>>,
        deadline: Deadline,
        timer: &mut Timer,
        timing: &mut Timing,
    ) -> Result<(Response<AnswerStream>, StreamCheckout), Failure> {
        let mut left_out = 0;
        loop {
            let slot = Arc::new(self.slot(deadline, timer, &mut timing.connecting).await?);
            let Some(request) = request() else {
                return Err(Failure::body_gone());
            };
            timing.sent = Some(clock::now());
            let failure = match self.ask(slot, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Unserved::Failed(failure)) => return Err(failure),
                Err(Unserved::LeftOut(failure)) => failure,
            };
            left_out += 1;
            if left_out > MOST_LEFT_OUT {
                return Err(failure);
            }
        }
    }

    async fn slot(
        &self,
        deadline: Deadline,
        timer: &mut Timer,
        connecting: &mut Duration,
    ) -> Result<ExchangeSlot, Failure> {
        let began = clock::now();
        let (served, duty) = match self.pool.take(self.settings, began) {
            Taken::Now(slot) => return Ok(slot),
            Taken::Later(served, duty) => (served, duty),
        };
        if let Some(duty) = duty {
            dial::begin(Arc::clone(self.endpoint), duty, self.connect, *self.settings);
        }
        let served = timer.run(deadline.moment(), pin!(served)).await;
        *connecting += clock::now().since(began);
        match served {
            Ok(Ok(served)) => served,
            Ok(Err(_)) => Err(Failure::new(Fault::Unreached, "given up")),
            Err(Elapsed) => Err(Failure::new(
                Fault::TimedOut { sent: false },
                format_args!("{}: no connection with room in time", self.endpoint.name),
            )),
        }
    }

    async fn ask(
        &self,
        slot: Arc<ExchangeSlot>,
        mut request: Request<Outbound>,
        deadline: Deadline,
    ) -> Result<(Response<AnswerStream>, StreamCheckout), Unserved> {
        let failed = |fault, detail: &dyn ToString| Unserved::Failed(Failure::new(fault, detail.to_string()));
        let link: &Arc<Link> = &Arc::clone(slot.link());
        if self.target.switches && !link.allows_switching() {
            return Err(failed(
                Fault::Invalid,
                &"the backend takes no WebSockets on HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL)",
            ));
        }
        let key = convert::key(request.headers());
        convert::put(&mut request, &self.target);
        let mut lease = StreamCheckout::new(Arc::clone(&slot));
        let (mut answer, outgoing) = self
            .send(request, slot)
            .await
            .map_err(|error| not_begun(&error, link.is_used()))?;
        let mut interim_answers = 0;
        let head = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
                interim_answers += 1;
                if interim_answers > MOST_INTERIM {
                    return Poll::Ready(Err(Unserved::Failed(Failure::new(
                        Fault::Invalid,
                        "too many interim answers",
                    ))));
                }
                self.note_interim(interim);
            }
            Pin::new(&mut answer).poll(cx).map_err(|error| unanswered(&error))
        });
        let response = match lease.timer.run(deadline.moment(), pin!(head)).await {
            Err(Elapsed) => {
                let mut failure = Failure::new(Fault::TimedOut { sent: true }, "no answer in time");
                failure.unanswered = Some(Unanswered(Arc::clone(link)));
                return Err(Unserved::Failed(failure));
            }
            Ok(Err(unserved)) => return Err(unserved),
            Ok(Ok(response)) => response,
        };
        link.note_answer();
        if response.headers().len() > self.settings.answer_fields {
            return Err(failed(Fault::Invalid, &"the head has too many fields"));
        }
        if response.status().as_u16() > convert::HIGHEST_STATUS {
            return Err(failed(Fault::Invalid, &"the status is not a number from 100 to 599"));
        }
        let (head, incoming) = Response::from(response).into_parts();
        let body = AnswerStream::new(incoming, outgoing, &head.headers);
        let mut response = Response::from_parts(head, body);
        if self.target.switches && response.status().is_success() {
            if response.status() != StatusCode::OK {
                return Err(failed(
                    Fault::Invalid,
                    &"switched protocols with a status other than 200",
                ));
            }
            convert::switched(&mut response, key.as_ref());
        }
        Ok((response, lease))
    }

    /// Sends the head of a request, and begins to send its body. Returns the answer to come, and our side of the stream if
    /// it may switch to another protocol.
    ///
    /// # Errors
    /// Fails if the request got no stream.
    async fn send(
        &self,
        request: Request<Outbound>,
        slot: Arc<ExchangeSlot>,
    ) -> Result<(ResponseFuture, Option<SendStream<Bytes>>), h2::Error> {
        let mut sender = slot.link().sender();
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (head, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        let (answer, outgoing) =
            sender.send_request(Request::from_parts(head, ()).into(), is_whole && !self.target.switches)?;
        if is_whole {
            slot.end_request();
            return Ok((answer, self.target.switches.then_some(outgoing)));
        }
        let mut upload = Some(Upload::new(body, outgoing, slot));
        poll_fn(|cx| {
            if let Some(upload) = upload.take() {
                upload.start(cx);
            }
            Poll::Ready(())
        })
        .await;
        Ok((answer, None))
    }

    /// Passes an interim answer on, where that is possible.
    fn note_interim(&self, interim: http::Response<()>) {
        let (head, ()) = interim.into_parts();
        if let Some(answers) = self.interim
            && head.headers.len() <= self.settings.answer_fields
        {
            answers.add(head.status, head.headers.into());
        }
    }
}

/// Returns why a request got no stream. It may be sent on another connection if this one was good before.
fn not_begun(error: &h2::Error, was_used: bool) -> Unserved {
    let failure = Failure::new(Fault::Unreached, error);
    match was_used || is_left_out(error) {
        true => Unserved::LeftOut(failure),
        false => Unserved::Failed(failure),
    }
}

/// Returns why a request that got a stream has no answer.
fn unanswered(error: &h2::Error) -> Unserved {
    match is_left_out(error) {
        true => Unserved::LeftOut(Failure::new(Fault::Unreached, error)),
        false => Unserved::Failed(Failure::new(fault_of(error), error)),
    }
}
