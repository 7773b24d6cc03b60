//! The request that a call sends, once for each attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment};

use super::attempt::AttemptRequest;
use super::backend::Settings;
use super::endpoints::{Endpoint, HashKeys};
use super::hedge::Hedge;
use super::http1::AttemptHead;
use super::mirror::MirrorOrder;
use super::replay::{Outbound, Replay, Sending};
use crate::headers::AddedFields;
use crate::message::FieldMap;
use crate::setting::SettingId;
use crate::wire::interim::InterimTarget;
use crate::wire::slow_caller::Transfer;

/// Request to a backend, with the limits and the priority of its call.
pub struct CallRequest {
    pub method: Method,
    /// Request target as sent on the wire: exactly the path bytes that were authorised.
    pub target: PathAndQuery,
    /// Cleaned fields. They include the gateway's own fields except those of a single attempt.
    pub headers: FieldMap,
    /// Fields that are sent beside those in `headers`, which has none of their names.
    pub added: AddedFields,
    pub body: CallBody,
    pub deadline: Deadline,
    /// Setting that `deadline` comes from; `None` if the caller set it.
    pub deadline_by: Option<SettingId>,
    /// Deadline by the operators' limits alone, without the caller's own time limit.
    pub operator_deadline: Deadline,
    /// Deadline that the caller asked for, if any.
    pub caller_deadline: Option<Deadline>,
    /// Whether the caller accepts trailers.
    pub trailers: bool,
    /// Whether the caller waits for `100 Continue` before it sends its body.
    pub expects: bool,
    /// Smallest operator's limit above the backend's own limits: that of the route or of the part.
    pub operator_limit: Duration,
    pub entrant: Entrant,
    /// Whether the caller marked its request as a retry. Such a request is not retried, so that retries do not
    /// multiply.
    pub is_retry: bool,
    pub streaming: Streaming,
    /// Whether the request asks the backend to switch to another protocol.
    pub switches: bool,
    /// Takes interim answers, where they can be passed on to the caller.
    pub interim: Option<InterimTarget>,
    /// Name of the field in which answers state the cost of the request. The gateway removes this field.
    pub cost_header: Option<Arc<HeaderName>>,
    /// Hashes of the keys by which backends choose their endpoints.
    pub hash_keys: HashKeys,
    /// Present if another backend gets a copy.
    pub mirror: Option<Box<MirrorOrder>>,
    /// Present if a second attempt may be made while the first one is under way.
    pub hedge: Option<Arc<Hedge>>,
}

/// Whether an answer may continue past its deadline, as long as it does not pause too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// Holds every answer to the deadline, because the gateway needs the whole answer.
    Never,
    /// Exempts an answer whose head declares a stream: server-sent events or gRPC.
    IfDeclared,
    /// Exempts every answer, whatever its head says.
    Always,
}

#[derive(Default)]
pub enum CallBody {
    #[default]
    Empty,
    Whole(Bytes),
    Streamed(Replay),
}

impl CallRequest {
    /// Whether the call is known from the start to be a stream or tunnel of unlimited length.
    pub(super) fn is_stream(&self) -> bool {
        self.switches || self.streaming == Streaming::Always
    }

    /// Returns the request of one attempt.
    pub(super) fn request<'a>(
        &'a self,
        attempt: u32,
        remaining: Duration,
        endpoint: &'a Endpoint,
        settings: &Settings,
    ) -> AttemptRequest<'a> {
        let head = AttemptHead {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            added: &self.added,
            host: host_of(&self.headers, endpoint, settings),
            remaining,
            attempt,
            // What another attempt sends has come already.
            expects: self.expects && attempt == 1,
        };
        AttemptRequest { head, body: &self.body }
    }
}

/// Returns the Host of a request with these fields.
pub(super) fn host_of<'a>(headers: &'a FieldMap, endpoint: &'a Endpoint, settings: &Settings) -> &'a HeaderValue {
    let own = headers.get(header::HOST).filter(|_| settings.preserve_host);
    own.unwrap_or_else(|| endpoint.host())
}

impl CallBody {
    /// Returns the body of one attempt. Returns `None` if too much of it is gone to send it again.
    pub(super) fn for_attempt(&self) -> Option<Outbound> {
        match self {
            Self::Empty => Some(Outbound::Empty),
            Self::Whole(data) => Some(Outbound::Whole(Some(data.clone()))),
            Self::Streamed(replay) => replay.attempt(),
        }
    }

    /// Whether nothing more has to come from the caller.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Streamed(replay) => replay.is_whole(),
            Self::Empty | Self::Whole(_) => true,
        }
    }

    pub(super) fn can_be_sent_again(&self) -> bool {
        !matches!(self, Self::Streamed(replay) if !replay.is_kept())
    }

    /// Returns the progress of the newest attempt, whose request was given to the connection at `sent`.
    pub(super) fn sending(&self, sent: Moment) -> Sending {
        match self {
            Self::Streamed(replay) => replay.sending(sent),
            Self::Empty | Self::Whole(_) => Sending::Complete { since: sent },
        }
    }

    /// Returns the state of the transfer with the caller, if the caller streams a body.
    pub(super) fn flow(&self) -> Option<Arc<Transfer>> {
        match self {
            Self::Streamed(replay) => replay.flow(),
            Self::Empty | Self::Whole(_) => None,
        }
    }

    pub(super) fn received(&self) -> u64 {
        match self {
            Self::Streamed(replay) => replay.received(),
            Self::Empty | Self::Whole(_) => 0,
        }
    }
}
