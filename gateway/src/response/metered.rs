//! Reads what an answer says of its cost on its way to the caller, and settles the charge at its end.
//!
//! Invariant: each piece is passed on in the poll in which it came. The charge is settled once, also if the answer breaks
//! off or its caller leaves.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::{Content, Open};
use crate::call::reply::Broken;
use crate::clock::Now;
use crate::limits::Receipt;
use crate::metering::{AnswerEnd, AnswerMeter, Reserved, Settlement, Source};
use crate::observe::{CostSource, Family, RequestRecord, UnitEvent};

/// Most bytes that are read of an answer after its caller has left.
const ARRIVED: usize = 4 << 20;
/// Turns without any byte after which nothing more has arrived.
const TURNS: u32 = 3;

/// An answer that is read while it passes.
pub struct MeteredContent {
    pub(super) content: Content,
    meter: AnswerMeter,
    /// The charges; `None` once they are settled.
    receipt: Option<Receipt>,
}

impl MeteredContent {
    /// Begins to read `content`. The receipt has no place among the requests in flight.
    pub fn begin(content: Content, meter: AnswerMeter, receipt: Receipt) -> Content {
        Content::Metered(Box::new(Self {
            content,
            meter,
            receipt: Some(receipt),
        }))
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = std::task::ready!(self.content.poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.meter.read(data);
        }
        Poll::Ready(polled)
    }

    /// Settles the charge by what has passed, if it is not settled yet.
    pub(super) fn settle(&mut self, end: AnswerEnd, record: &mut RequestRecord) {
        if let Some(mut receipt) = self.receipt.take() {
            let settlement = self.meter.settle(end);
            settle(&mut receipt, record, self.meter.reserved(), settlement);
        }
    }

    /// Reads what has arrived of the answer, and what follows it at once. Returns how the answer ends.
    async fn read_arrived(&mut self) -> AnswerEnd {
        let Self { content, meter, .. } = self;
        let reply = match content {
            Content::Reply(reply) => Some(&mut **reply),
            Content::Events(events) => events.body(),
            _ => None,
        };
        let Some(reply) = reply else {
            return AnswerEnd::CallerLeft;
        };
        let (mut left, mut idle) = (ARRIVED, 0);
        while left > 0 && idle < TURNS && !reply.is_end_stream() {
            match poll_fn(|cx| Poll::Ready(reply.poll_arrived(cx))).await {
                Poll::Ready(Some(piece)) => {
                    idle = 0;
                    left = left.saturating_sub(piece.len().max(1));
                    meter.read(&piece);
                }
                Poll::Ready(None) => break,
                // The runtime looks at its sockets before the next turn.
                Poll::Pending => {
                    idle += 1;
                    yield_now().await;
                }
            }
        }
        match reply.is_end_stream() {
            true => AnswerEnd::Complete,
            false => AnswerEnd::CallerLeft,
        }
    }
}

/// An answer whose caller has left. Dropping it settles the charge by what has passed.
pub(super) struct Abandoned {
    content: Box<MeteredContent>,
    open: Option<Open>,
}

impl Abandoned {
    pub(super) fn new(content: Box<MeteredContent>, open: Open) -> Self {
        let open = Some(open);
        Self { content, open }
    }

    /// Settles the charge, where there is a runtime by what has arrived as well: a caller that does not read would else
    /// have it generated for nothing.
    pub(super) fn settle(mut self) {
        if std::thread::panicking() || self.content.receipt.is_none() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let end = self.content.read_arrived().await;
                self.close(end);
            });
        }
    }

    fn close(&mut self, end: AnswerEnd) {
        if let Some(open) = &mut self.open {
            self.content.settle(end, &mut open.record);
        }
        self.open = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.close(AnswerEnd::CallerLeft);
    }
}

/// Corrects the charge of a request, and records what it costs.
pub fn settle(receipt: &mut Receipt, record: &mut RequestRecord, reserved: Reserved, settlement: Settlement) {
    receipt.settle(Now::read(), settlement.units);
    let by = match settlement.by {
        Source::Usage => CostSource::Usage,
        Source::Estimate => CostSource::Estimate,
        Source::Reservation => CostSource::Reservation,
        Source::Refund => CostSource::Refund,
    };
    record.cost = u32::try_from(settlement.units).unwrap_or(u32::MAX);
    record.cost_by = Some(by);
    let Some(route) = &record.route else { return };
    route.add(Family::CostSettlements, by);
    for (event, units) in [
        (UnitEvent::Settled, settlement.units),
        (UnitEvent::Refunded, settlement.refunded(reserved)),
        (UnitEvent::Beyond, settlement.beyond(reserved)),
    ] {
        if units > 0 {
            route.add_all(Family::Units, event, units);
        }
    }
}
