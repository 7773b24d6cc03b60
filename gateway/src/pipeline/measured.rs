//! Reserves what a request may cost whose cost is read from its answer, and settles it at the end.
//!
//! Invariant: what is reserved for a request is settled once, however it ends: by [`Exchange::settle`], at the last byte
//! of its answer, or where it is dropped before that.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;

use super::charge::longest_wait;
use super::decision::AuthorizedRequest;
use super::exchange::Exchange;
use crate::clock::{self, Now};
use crate::limits::{self, Charges};
use crate::message::Response;
use crate::metering::{AnswerMeter, Metering, Reserved, Settlement};
use crate::observe::{Family, UnitEvent};
use crate::plan::Plan;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::response::metered::{self, MeteredContent};
use crate::wire::caller_body::CallerBody;
use crate::wire::json_body;

/// A request whose cost is measured.
pub(super) struct Measured {
    pub(super) metering: Arc<Metering>,
    pub(super) reserved: Reserved,
    /// The whole body, as it came.
    pub(super) body: Bytes,
}

/// Reads the body of a request, and sets its charges to what it may cost. A request that cannot be served is charged one
/// unit, so that such requests are limited too.
///
/// # Errors
/// The body cannot be read, does not say what the request may cost, or asks for more than a limit ever holds. A request
/// that has no chance is refused before its body is read.
pub(super) async fn reserve(
    plan: &Plan,
    request: &AuthorizedRequest<'_>,
    metering: &Arc<Metering>,
    charges: &mut Charges,
    body: &mut CallerBody,
) -> Result<Box<Measured>, Rejection> {
    let least = metering.reserve.prompt(body.size_hint().lower()).max(1);
    limits::set_cost(charges, least);
    if too_high(charges).is_none() {
        let now = Now::read();
        // Nothing is changed then: the charge that follows is refused, and counted.
        limits::foresee(charges, now, longest_wait(plan, request, now))?;
    }
    let checked = match too_high(charges) {
        Some(rejection) => Err(rejection),
        None => read(plan, request, metering, body).await,
    };
    let checked = checked.and_then(|measured| {
        limits::set_cost(charges, measured.reserved.units());
        too_high(charges).map_or(Ok(measured), Err)
    });
    if checked.is_err() {
        limits::set_cost(charges, 1);
    }
    checked
}

fn too_high(charges: &Charges) -> Option<Rejection> {
    limits::impossible(charges).map(|charge| Rejection::CostTooHigh {
        most: charge.account.terms().most(),
        by: charge.limit.setting,
    })
}

async fn read(
    plan: &Plan,
    request: &AuthorizedRequest<'_>,
    metering: &Arc<Metering>,
    body: &mut CallerBody,
) -> Result<Box<Measured>, Rejection> {
    if body.has_no_room() {
        return Err(Rejection::no_room_for_upload());
    }
    let (principal, total) = (&request.principal, plan.edge.json_total);
    let (deadline, by) = (request.budget.deadline.moment(), request.budget.by);
    let room = plan.workspace.reserve(total, principal.share, (deadline, by));
    let room = room.up_to(principal.tier.room(total));
    let until = (clock::instant(deadline), by);
    let reserve = {
        let metering = Arc::clone(metering);
        move |document: Option<&_>, length| metering.reserve.of(document, length)
    };
    let (body, reserved) = json_body::read_whole(body, request.route.body_limit, until, room, reserve).await?;
    let reserved = reserved.map_err(|error| Rejection::CostUnknown {
        what: format!("{} {}.", error.path, error.why).into(),
        by: metering.setting,
    })?;
    Ok(Box::new(Measured {
        metering: Arc::clone(metering),
        reserved,
        body,
    }))
}

/// Settles the charge of a request that is dropped before it is answered.
pub(super) struct SettleOnDrop<'e, 'a>(pub(super) &'e mut Exchange<'a>);

impl Drop for SettleOnDrop<'_, '_> {
    fn drop(&mut self) {
        let exchange = &mut *self.0;
        if let Some(measured) = &exchange.measured {
            // A backend that was asked may have generated all of it.
            let settlement = match exchange.record.attempts.count() {
                0 => Settlement::REFUND,
                _ => Settlement::in_full(measured.reserved),
            };
            exchange.settle_measured(settlement);
        }
    }
}

impl Exchange<'_> {
    /// Notes what is reserved for the request, which is charged.
    pub(super) fn note_reserved(&mut self, measured: Box<Measured>) {
        let units = measured.reserved.units();
        let recorded = u32::try_from(units).unwrap_or(u32::MAX);
        (self.record.reserved, self.record.cost) = (NonZeroU32::new(recorded), recorded);
        self.record.bytes_in = measured.body.len() as u64;
        if let Some(route) = &self.record.route {
            route.add_all(Family::Units, UnitEvent::Reserved, units);
        }
        self.measured = Some(measured);
    }

    /// Settles the charge of a request without an answer of a backend. That of another one is settled at the end of its
    /// answer.
    pub(super) fn settle_reserved(&mut self, answered: &Result<Response<Content>, Rejection>) {
        let Some(measured) = &self.measured else { return };
        let is_of_backend =
            |response: &Response<Content>| !matches!(response.body(), Content::Whole(_) | Content::Empty);
        if answered.as_ref().is_ok_and(is_of_backend) {
            return;
        }
        // A backend that used up its time may have generated all of it, and a caller could have that again and again.
        let settlement = match self.refund.attempts > 0 && self.refund.has_timed_out() {
            true => Settlement::in_full(measured.reserved),
            false => Settlement::REFUND,
        };
        self.settle_measured(settlement);
    }

    fn settle_measured(&mut self, settlement: Settlement) {
        let Some(measured) = self.measured.take() else { return };
        if let Some(receipt) = &mut self.receipt {
            let record = &mut self.record;
            metered::settle(receipt, record, measured.reserved, settlement);
        }
    }

    /// Lets the answer of a backend be read while it passes. Its end settles the charge.
    pub(super) fn measure(&mut self, response: Response<Content>) -> Response<Content> {
        let Some(measured) = self.measured.take() else {
            return response;
        };
        let Some(receipt) = self.receipt.as_mut().map(limits::Receipt::take_charges) else {
            return response;
        };
        let (head, content) = response.into_parts();
        let meter = AnswerMeter::begin(measured.metering, measured.reserved, head.status, &head.headers);
        Response::from_parts(head, MeteredContent::begin(content, meter, receipt))
    }
}
