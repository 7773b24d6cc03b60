//! What a caller's connection is doing, and how long it may do so.
//!
//! | state | ends at | time limit |
//! |---|---|---|
//! | fresh | the first byte | `first_byte` |
//! | awaiting a head | the whole head | `head` |
//! | serving | the last byte of the last answer | none here: an answer has limits of its own |
//! | idle | the first byte of the next head | `idle` |
//! | discarding | the end of what is not used of a request, or of what comes after the last answer | `head`, or `idle` if it is shorter |
//! | closing | the caller's close | [`END_TIME`] |
//! | dismissed | the end of the task; it idled for too long | [`END_TIME`] |
//! | late | the end of the task; a head came too slowly | none: the task is being aborted |
//!
//! Has no clock and no socket: [`reaper`](super::reaper) measures the time and calls [`ConnectionState::on`].

use std::time::Duration;

use crate::observe::Awaited;
use crate::wire::slow_caller::WaitLimits;

/// Time that a connection has to end by itself after the reaper has asked it to.
pub(super) const END_TIME: Duration = Duration::from_secs(1);

/// Time limits of a connection. The reaper waits at least the limit and at most two ticks longer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionTimeouts {
    /// Time from accepting the connection to its first byte.
    pub(crate) first_byte: Duration,
    /// Time from the first byte of a head to its last.
    pub(crate) head: Duration,
    /// Time between two requests.
    pub(crate) idle: Duration,
    /// Limits for reading a body and for writing an answer.
    pub(crate) leave: WaitLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ConnectionState {
    Fresh,
    AwaitingHead,
    Serving,
    Idle,
    Discarding,
    Closing,
    Dismissed,
    Late,
}

/// What happens on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The connection counts as newly accepted, after a handshake or a PROXY header.
    Accepted,
    /// Bytes came, which can only belong to a head unless a request is under way.
    Read,
    /// A part of a head came, on a connection that requests share.
    HeadBegan,
    /// A head on a shared connection is whole.
    HeadEnded,
    /// The first request that is under way has come.
    RequestBegan,
    /// No request is under way any more, and nothing of one is to come.
    RequestsEnded,
    /// What still comes is not used.
    Discards,
    /// The last answer is sent.
    Closes,
    /// The time of this state is over, or the connection is not wanted any more.
    Overdue,
}

/// What of an answer is not with the caller yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    Nothing,
    /// The caller reads nothing.
    Stalled,
    /// The library holds a part of it.
    Owed,
}

impl ConnectionState {
    const ALL: [Self; 8] = [
        Self::Fresh,
        Self::AwaitingHead,
        Self::Serving,
        Self::Idle,
        Self::Discarding,
        Self::Closing,
        Self::Dismissed,
        Self::Late,
    ];

    /// Returns the state that `as u8` made into this number.
    pub(super) fn of(number: u8) -> Self {
        Self::ALL[usize::from(number) % Self::ALL.len()]
    }

    /// Returns the state that begins with an event; `None` if the event changes nothing.
    pub(super) const fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (_, Event::Accepted) => Some(Self::Fresh),
            (Self::Fresh | Self::Idle, Event::Read) | (Self::Idle, Event::HeadBegan) => Some(Self::AwaitingHead),
            (Self::AwaitingHead, Event::HeadEnded) | (_, Event::RequestsEnded) => Some(Self::Idle),
            (_, Event::RequestBegan) => Some(Self::Serving),
            (Self::Discarding, Event::Discards) => None,
            (_, Event::Discards) => Some(Self::Discarding),
            (_, Event::Closes) => Some(Self::Closing),
            (Self::Fresh | Self::Idle, Event::Overdue) => Some(Self::Dismissed),
            (Self::AwaitingHead, Event::Overdue) => Some(Self::Late),
            (_, Event::Read | Event::HeadBegan | Event::HeadEnded | Event::Overdue) => None,
        }
    }

    /// Returns what is waited for in this state, and for how long at most; `None` if nothing here limits the state.
    pub(super) fn limit(self, unsent: Unsent, timeouts: &ConnectionTimeouts) -> Option<(Awaited, Duration)> {
        match (self, unsent) {
            (Self::Fresh, _) => Some((Awaited::FirstByte, timeouts.first_byte)),
            (Self::AwaitingHead, _) => Some((Awaited::Head, timeouts.head)),
            // The last answer is still being sent.
            (Self::Idle | Self::Dismissed, Unsent::Stalled) => None,
            (Self::Idle | Self::Dismissed, Unsent::Owed) => {
                Some((Awaited::Reader, timeouts.idle.max(timeouts.leave.write)))
            }
            (Self::Idle, Unsent::Nothing) => Some((Awaited::NextRequest, timeouts.idle)),
            (Self::Dismissed, Unsent::Nothing) | (Self::Closing, _) => Some((Awaited::NextRequest, END_TIME)),
            (Self::Discarding, _) => Some((Awaited::Body, timeouts.head.min(timeouts.idle))),
            (Self::Serving | Self::Late, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_states() {
        for state in ConnectionState::ALL {
            assert_eq!(ConnectionState::of(state as u8), state);
        }
    }

    #[test]
    fn the_events_of_a_life_lead_from_state_to_state() {
        let follow = |events: &[Event]| {
            events
                .iter()
                .fold(ConnectionState::Fresh, |state, event| state.on(*event).unwrap_or(state))
        };
        let check = |events: &[Event], expected| assert_eq!(follow(events), expected, "{events:?}");
        use Event::{Closes, Discards, HeadBegan, HeadEnded, Overdue, Read, RequestBegan, RequestsEnded};
        check(&[], ConnectionState::Fresh);
        check(&[HeadBegan], ConnectionState::Fresh);
        check(&[Read], ConnectionState::AwaitingHead);
        check(&[Read, HeadEnded], ConnectionState::Idle);
        check(&[Read, RequestBegan, Read], ConnectionState::Serving);
        check(&[Read, RequestBegan, Overdue], ConnectionState::Serving);
        check(&[Read, RequestBegan, RequestsEnded], ConnectionState::Idle);
        check(&[RequestBegan, RequestsEnded, HeadBegan], ConnectionState::AwaitingHead);
        check(
            &[RequestBegan, RequestsEnded, Discards, Read],
            ConnectionState::Discarding,
        );
        check(&[RequestBegan, RequestsEnded, Closes, Read], ConnectionState::Closing);
        check(&[Overdue], ConnectionState::Dismissed);
        check(&[Read, Overdue], ConnectionState::Late);
        check(&[Read, Overdue, Read], ConnectionState::Late);
        check(&[Read, Overdue, Event::Accepted], ConnectionState::Fresh);
        // A state that an event does not change begins no new time.
        assert_eq!(ConnectionState::Discarding.on(Discards), None);
        assert_eq!(ConnectionState::AwaitingHead.on(Read), None);
    }
}
