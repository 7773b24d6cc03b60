//! One request of a connection, and its answer.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer_head::Asked;
use super::caller_stream::{CallerStream, Upload};
use super::closing::LEFT_OF_BODY;
use crate::message::{Request, Response};
use crate::pipeline::{self, Peer};
use crate::rejection::Reason;
use crate::response::{AnswerBody, Switched};
use crate::server::connection_guard::ConnectionGuard;
use crate::server::in_flight::InFlight;
use crate::server::last_words::LastWords;
use crate::wire::caller_body::CallerBody;
use crate::wire::http1::{BodyEncoder, BodyLength, FieldKind, Head, Refusal, StartLine};
use crate::wire::slow_caller::Transfer;
use crate::wire::upload::upload;
use crate::wire::write_queue::WriteQueue;
use crate::{headers, problem};

const MALFORMED: &str = Reason::MalformedRequest.as_str();
const NO_TARGET: Refusal = Refusal::Malformed("the request target is not a URI");

/// How an exchange ends.
pub(super) enum Ended {
    /// The request was read and its answer is written, or waits to be written.
    Whole {
        is_last: bool,
    },
    /// The answer was the last one, and more of the request is to come.
    Unread,
    Switched(Box<Switched>, InFlight),
}

/// Answer that is being written.
struct Answering {
    /// What is left of the answer; `None` after its end.
    body: Option<AnswerBody>,
    encoder: BodyEncoder,
    takes_trailers: bool,
    /// Whether the answer has no time by which it must end, as a stream of events.
    is_endless: bool,
    /// Whether the answer ends with its head, whatever comes as its body.
    is_bare: bool,
    in_flight: InFlight,
}

/// Answers one request.
///
/// # Errors
/// Fails if the caller has left, and if the answer can only be cut.
pub(super) async fn exchange<S>(
    caller: &mut CallerStream<'_, S>,
    head: Head,
    peer: &Peer,
    guard: &ConnectionGuard,
) -> io::Result<Ended>
where
    S: AsyncRead + AsyncWrite + LastWords + Unpin,
{
    let flow: Option<Arc<Transfer>> = has_body(&head).then(Arc::default);
    let asked = Asked {
        version: head.version(),
        is_head: false,
        takes_trailers: takes_trailers(&head),
        is_last: head.is_last(),
    };
    let request = match begin(caller, head, flow.clone()) {
        Ok(request) => request,
        Err(refusal) => {
            caller.refuse(refusal);
            return Ok(Ended::Whole { is_last: true });
        }
    };
    let asked = Asked {
        is_head: request.method() == Method::HEAD,
        ..asked
    };
    let in_flight = InFlight::new(guard.worker(), guard.activity(), flow);
    let plan = in_flight.worker.live.load();
    let mut answer = {
        let mut service = pin!(pipeline::serve(&plan, peer, request));
        poll_fn(|cx| caller.poll_serve(service.as_mut(), cx)).await?
    };
    let is_spoilt = matches!(caller.settle_upload(), Upload::Unread | Upload::Broken);
    let switched = answer.body_mut().take_switched();
    let length = asked.framing(&answer);
    let is_last = asked.is_last
        || is_spoilt
        || length == Some(BodyLength::UntilClose)
        || in_flight.is_the_last(&plan.edge)
        || has_no_reading(&answer);
    drop(plan);
    asked.write_head(caller.output.buffer(), &answer, length, is_last);
    if let Some(tunnel) = switched {
        in_flight.activity.switches();
        poll_fn(|cx| caller.poll_output(cx)).await?;
        return Ok(Ended::Switched(Box::new(tunnel), in_flight));
    }
    if length == Some(BodyLength::UntilClose) {
        in_flight.activity.start_unframed_answer();
    }
    answer.body_mut().end_when(|| in_flight.leaving());
    let ends_by = answer.body().ends_by();
    in_flight.expires(ends_by);
    let mut answering = Answering {
        is_endless: ends_by.is_none(),
        body: Some(answer.into_body()),
        encoder: BodyEncoder::new(length),
        takes_trailers: asked.takes_trailers,
        is_bare: length.is_none(),
        in_flight,
    };
    poll_fn(|cx| caller.poll_answer(&mut answering, is_last, cx)).await?;
    // The body may still be read, as by a backend that has answered early.
    poll_fn(|cx| caller.poll_rest_of_upload(cx)).await?;
    let activity = Arc::clone(&answering.in_flight.activity);
    drop(answering);
    Ok(match caller.settle_upload() {
        Upload::Complete => Ended::Whole { is_last },
        Upload::Unread if !is_last => {
            let mut left = LEFT_OF_BODY;
            activity.start_discarding();
            let is_whole = poll_fn(|cx| caller.poll_discard(&mut left, cx)).await?;
            activity.idles();
            Ended::Whole { is_last: !is_whole }
        }
        Upload::Unread => Ended::Unread,
        Upload::Underway { .. } | Upload::Broken => Ended::Whole { is_last: true },
    })
}

/// Returns the request that begins with this head.
fn begin<S: LastWords>(
    caller: &mut CallerStream<'_, S>,
    head: Head,
    flow: Option<Arc<Transfer>>,
) -> Result<Request<CallerBody>, Refusal> {
    let StartLine::Request { method, target } = head.start_line() else {
        return Err(NO_TARGET);
    };
    let mut request = Request::new(CallerBody::empty(headers::clean_trailers));
    *request.method_mut() = Method::from_bytes(method).map_err(|_| Refusal::Malformed("the method is not a token"))?;
    *request.uri_mut() = Uri::from_maybe_shared(head.bytes().slice_ref(target)).map_err(|_| NO_TARGET)?;
    *request.version_mut() = head.version();
    *request.headers_mut() = head.fields.to_map()?;
    let writer = flow.map(|flow| {
        let length = match head.body() {
            Some(BodyLength::Exact(length)) => Some(length),
            _ => None,
        };
        let (writer, reader) = upload(length);
        *request.body_mut() = CallerBody::of_connection(reader, Some(flow), headers::clean_trailers);
        writer
    });
    caller.begin(writer, head.version() >= Version::HTTP_11, head.expects_continue());
    caller.recycle(head);
    Ok(request)
}

const fn has_body(head: &Head) -> bool {
    !matches!(head.body(), None | Some(BodyLength::Exact(0)))
}

/// Whether the caller reads trailers (RFC 9110 section 6.5.1).
fn takes_trailers(head: &Head) -> bool {
    let mut lines = head.fields.all(FieldKind::Te);
    lines.any(|line| {
        let mut codings = line.split(|&byte| byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether the request was refused as malformed. Bytes after such a request cannot be trusted either.
fn has_no_reading<B>(answer: &Response<B>) -> bool {
    answer.status() == StatusCode::BAD_REQUEST
        && answer.headers().get(&problem::X_GATEWAY_REASON) == Some(&HeaderValue::from_static(MALFORMED))
}

impl<S: AsyncRead + AsyncWrite + LastWords + Unpin> CallerStream<'_, S> {
    /// Writes the answer, and goes on to hand over the request's body. The end of an answer that is not the last may wait
    /// for the next one, if more requests have come.
    ///
    /// # Errors
    /// Fails if the caller has left, and if the answer can only be cut.
    fn poll_answer(&mut self, answering: &mut Answering, is_last: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let gathered = answering.gather(&mut self.output, cx);
            // The body of the answer may be waiting for that of the request.
            let is_fed = self.hand_over(cx);
            if self.output.is_empty() || gathered.is_err() {
                // What has come of an answer that breaks off is written as far as it can be at once.
                while !self.output.is_empty()
                    && let Poll::Ready(written) = self.output.poll_write(&mut *self.socket, cx)
                {
                    written?;
                }
                gathered?;
                if answering.body.is_none() {
                    return Poll::Ready(Ok(()));
                }
                if is_fed {
                    continue;
                }
                if answering.is_endless && self.activity.is_half_closed() {
                    // Nothing would tell in time that the caller has left.
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                return match self.poll_output(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                };
            }
            let may_wait = !is_last && self.has_more() && self.output.has_room();
            if answering.body.is_none() && may_wait {
                return Poll::Ready(Ok(()));
            }
            match self.output.poll_write(&mut *self.socket, cx)? {
                Poll::Ready(()) => {}
                Poll::Pending if is_fed => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Answering {
    /// Adds what is there of the answer to `output` while there is room.
    ///
    /// # Errors
    /// Fails if the answer breaks off, or has not the length that its head states.
    fn gather(&mut self, output: &mut WriteQueue, cx: &mut Context<'_>) -> io::Result<()> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        while let Some(body) = &mut self.body
            && output.has_room()
        {
            let mut trailers = None;
            if !body.is_end_stream() {
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    return Ok(());
                };
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(_))) if self.is_bare => continue,
                    Some(Ok(Ok(data))) => {
                        self.in_flight.activity.hands_over();
                        output.add(&mut self.encoder, data).map_err(|_| cut())?;
                        continue;
                    }
                    Some(Ok(Err(frame))) => trailers = frame.into_trailers().ok().filter(|_| self.takes_trailers),
                    Some(Err(_)) => return Err(cut()),
                    None => {}
                }
            }
            // Releases what the answer holds; its last bytes may still be unwritten.
            self.body = None;
            self.encoder
                .end(trailers.as_ref(), output.buffer())
                .map_err(|_| cut())?;
        }
        Ok(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let (Some(body), Some(fault)) = (&mut self.body, self.in_flight.unread_fault()) {
            body.note_fault(fault);
        }
    }
}
