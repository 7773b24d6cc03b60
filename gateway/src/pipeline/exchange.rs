//! State of one request from its decision to its response.

use http::{HeaderValue, Method, Version};
use policies::Moment;
use policies::bulkhead::Entrant;

use super::measured::Measured;
use super::peer::Peer;
use crate::call::StatedCost;
use crate::clock::Now;
use crate::compression::PendingCompression;
use crate::headers::response::PendingResponseHeaders;
use crate::headers::{self, Trace, ValueText};
use crate::limits::{Receipt, RefundFacts};
use crate::message::Request;
use crate::observe::traces::SpanContext;
use crate::observe::{RequestGuard, RequestRecord};
use crate::plan::Plan;
use crate::tenancy::Principal;
use crate::wire::caller_body::CallerBody;
use crate::wire::grpc;

pub(super) struct Exchange<'a> {
    pub(super) plan: &'a Plan,
    pub(super) peer: &'a Peer,
    pub(super) started: Moment,
    pub(super) trace: Trace,
    /// Text of the field values that are written for the request.
    pub(super) text: ValueText,
    pub(super) request_id: HeaderValue,
    /// Whether the gateway made the id.
    pub(super) has_own_id: bool,
    pub(super) is_head: bool,
    pub(super) is_grpc: bool,
    /// Header fields to add to the response.
    pub(super) response_headers: Option<PendingResponseHeaders>,
    /// Compression of the response; `None` leaves it as it is.
    pub(super) compression: Option<Box<PendingCompression>>,
    /// The charge to the limits; `None` until the request is charged.
    pub(super) receipt: Option<Receipt>,
    /// Whether the response says what the limits have left.
    pub(super) tells_limits: bool,
    /// Facts that decide whether the charge is given back.
    pub(super) refund: RefundFacts,
    pub(super) stated_cost: StatedCost,
    /// What is reserved for the request, until it is settled; `None` where its cost is not measured.
    pub(super) measured: Option<Box<Measured>>,
    pub(super) record: Box<RequestGuard>,
}

impl<'a> Exchange<'a> {
    /// Begins the record of a request, and gives the request an id.
    pub(super) fn begin(plan: &'a Plan, peer: &'a Peer, request: &mut Request<CallerBody>, now: Now) -> Self {
        let mut text = ValueText::default();
        let (request_id, has_own_id) = headers::request_id(request.headers_mut(), &mut text);
        let tracing = plan.edge.tracing.as_deref();
        let is_sampled = tracing.is_some_and(|tracing| tracing.sample.has(fastrand::u64(..)));
        let trace = Trace::read_or_start(request.headers(), is_sampled);
        let mut record = RequestRecord::begin(
            now.moment,
            now.wall.elapsed(),
            request_id.to_str().unwrap_or_default(),
            request.method().clone(),
            request.uri().path(),
        );
        record.trace = Some(trace.id);
        record.span = tracing.map(|tracing| {
            Box::new(SpanContext {
                span: trace.span(),
                parent: Trace::parent(request.headers()),
                flags: trace.flags(),
                tail: tracing.tail,
                scheme: peer.scheme.as_str(),
            })
        });
        record.version = Some(request.version());
        Self {
            plan,
            peer,
            started: now.moment,
            trace,
            text,
            request_id,
            has_own_id,
            is_head: request.method() == Method::HEAD,
            is_grpc: request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers()),
            response_headers: None,
            compression: None,
            receipt: None,
            tells_limits: true,
            refund: RefundFacts::default(),
            stated_cost: StatedCost::default(),
            measured: None,
            record: plan.observer.begin(record),
        }
    }
}

/// Returns the principal's place in the queues of backends.
pub(super) fn entrant(principal: &Principal) -> Entrant {
    // The call itself sets the time until which a slot is useful.
    Entrant {
        tenant: principal.share,
        tier: principal.tier.number,
        weight: principal.tier.weight,
        deadline: Moment::MAX,
    }
}
