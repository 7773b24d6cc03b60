//! One exchange on a shared connection: a place, the request, the head of the answer.
//!
//! What its peer did not begin (the connection was going away) is taken elsewhere within the same attempt; what it
//! refused is the call's to repeat.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use policies::Deadline;

use super::convert::{self, RequestTarget};
use super::dial;
use super::fault::{fault_of, is_left_out};
use super::link::{Link, Unanswered};
use super::pool::{Place, Shared, Taken};
use super::request_body::RequestBody;
use crate::call::attempt::{Failure, Timing, describe};
use crate::call::classify::Fault;
use crate::call::endpoints::Endpoint;
use crate::call::pool::PoolSettings;
use crate::call::replay::Outbound;
use crate::call::timer::{Elapsed, Timer};
use crate::clock;

/// Connections that an attempt may find going away.
const MOST_LEFT_OUT: u32 = 3;

/// On what terms an attempt is made.
pub(crate) struct Terms<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) pool: &'a Arc<Shared>,
    pub(crate) settings: &'a PoolSettings,
    /// The most that connecting may take.
    pub(crate) connect: Duration,
    pub(crate) toward: RequestTarget<'a>,
}

/// An exchange under way. Dropped before its end, it resets its stream.
pub(crate) struct StreamCheckout {
    place: Arc<Place>,
    is_whole: bool,
    pub(crate) timer: Timer,
}

impl StreamCheckout {
    fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            is_whole: false,
            timer: Timer::default(),
        }
    }

    /// Whether all of the request has been handed to the connection.
    pub(crate) fn is_asked(&self) -> bool {
        self.place.is_asked()
    }

    /// For the end of a whole answer. Nobody waits for what is left of its request, so that is not sent.
    pub(crate) fn give_back(mut self) {
        self.is_whole = self.is_asked();
    }
}

impl Drop for StreamCheckout {
    fn drop(&mut self) {
        if !self.is_whole {
            self.place.abandon();
        }
    }
}

/// Why there is no head of an answer.
enum Unserved {
    /// The request was not begun, and may be sent elsewhere.
    LeftOut(Failure),
    Failed(Failure),
}

impl Terms<'_> {
    /// Sends the request and waits for the head of the answer until `deadline`; notes when what was done in `timing`.
    ///
    /// # Errors
    /// [`Failure`], which knows whether anything was begun.
    pub(crate) async fn exchange(
        &self,
        request: impl Fn() -> Option<Request<Outbound>>,
        deadline: Deadline,
        timer: &mut Timer,
        timing: &mut Timing,
    ) -> Result<(Response<Incoming>, StreamCheckout), Failure> {
        let mut left_out = 0;
        loop {
            let place = Arc::new(self.place(deadline, timer, &mut timing.connecting).await?);
            let Some(request) = request() else {
                return Err(Failure::body_gone());
            };
            timing.sent = Some(clock::now());
            let failure = match self.ask(place, request, deadline).await {
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

    async fn place(&self, deadline: Deadline, timer: &mut Timer, connecting: &mut Duration) -> Result<Place, Failure> {
        let began = clock::now();
        let (served, duty) = match self.pool.take(self.settings, began) {
            Taken::Now(place) => return Ok(place),
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
                format_args!("{}: no connection with room in time", self.endpoint.url),
            )),
        }
    }

    async fn ask(
        &self,
        place: Arc<Place>,
        mut request: Request<Outbound>,
        deadline: Deadline,
    ) -> Result<(Response<Incoming>, StreamCheckout), Unserved> {
        let failed = |fault, detail: &dyn ToString| Unserved::Failed(Failure::new(fault, detail.to_string()));
        let link: &Arc<Link> = &Arc::clone(place.link());
        if self.toward.switches && !link.allows_switching() {
            return Err(failed(
                Fault::Invalid,
                &"the backend takes no WebSockets on HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL)",
            ));
        }
        let key = convert::key(request.headers());
        convert::put(&mut request, &self.toward);
        let mut lease = StreamCheckout::new(Arc::clone(&place));
        let request = request.map(|body| RequestBody::new(body, place));
        let mut sender = link.sender();
        let answer = pin!(sender.try_send_request(request));
        let mut response = match lease.timer.run(deadline.moment(), answer).await {
            Err(Elapsed) => {
                let mut failure = Failure::new(Fault::TimedOut { sent: true }, "no answer in time");
                failure.unanswered = Some(Unanswered(Arc::clone(link)));
                return Err(Unserved::Failed(failure));
            }
            Ok(Err(refused)) => return Err(unanswered(refused, link.is_used())),
            Ok(Ok(response)) => response,
        };
        link.note_answer();
        if response.headers().len() > convert::MOST_FIELDS {
            return Err(failed(Fault::Invalid, &"the head has too many fields"));
        }
        if response.status().as_u16() > convert::HIGHEST_STATUS {
            return Err(failed(Fault::Invalid, &"the status is not a number from 100 to 599"));
        }
        if self.toward.switches && response.status().is_success() {
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
}

fn unanswered(mut refused: TrySendError<Request<RequestBody>>, was_used: bool) -> Unserved {
    // It comes back if it never got as far as a stream.
    let came_back = refused.take_message().is_some();
    let error = refused.into_error();
    if is_left_out(&error) || came_back && was_used {
        return Unserved::LeftOut(Failure::new(Fault::Unreached, describe(&error)));
    }
    let fault = if came_back { Fault::Unreached } else { fault_of(&error) };
    Unserved::Failed(Failure::new(fault, describe(&error)))
}
