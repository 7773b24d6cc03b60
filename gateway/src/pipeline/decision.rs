//! What the gateway decides on a request before it does anything about it.
//!
//! A decision is a value: nothing has been charged, called, recorded or counted when it is made. The same plan, peer,
//! head and time give the same decision.

use std::sync::Arc;
use std::time::Duration;

use policies::Deadline;

use super::explain::AssumedCaller;
use super::peer::Peer;
use crate::call::backend::Backend;
use crate::call::endpoints::HashKeys;
use crate::client::address::ClientAddress;
use crate::clock::Now;
use crate::compression::PendingCompression;
use crate::headers::response::PendingResponseHeaders;
use crate::headers::websocket::Handshake;
use crate::headers::{AddedFields, RequestHints};
use crate::limits::Charges;
use crate::message::{FieldMap, RequestHead};
use crate::plan::{Plan, Route};
use crate::rejection::Rejection;
use crate::setting::SettingId;
use crate::template::{Captures, Query};
use crate::tenancy::Principal;

/// What a decision depends on beside the head of the request.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) peer: &'a Peer,
    /// Time at which the request began.
    pub(super) now: Now,
}

/// How the caller of a request is identified.
pub(super) trait Identification<'a> {
    /// Learns what is known of the request before a slow check is waited for.
    ///
    /// # Errors
    /// The reason why the check is not waited for.
    fn before_wait(&mut self, found: &Findings<'a>) -> Result<(), Rejection>;

    /// Returns the caller that is assumed in place of a credential.
    fn assumed(&self) -> Option<&AssumedCaller> {
        None
    }
}

/// Requests are identified by their credentials, and slow checks are waited for.
impl<'a, F: FnMut(&Findings<'a>)> Identification<'a> for F {
    fn before_wait(&mut self, found: &Findings<'a>) -> Result<(), Rejection> {
        self(found);
        Ok(())
    }
}

/// A decision on one request.
pub(super) struct Decision<'a> {
    pub(super) found: Findings<'a>,
    /// Charges to take. For a failed authentication, the charge to the client's address.
    pub(super) charges: Charges,
    /// The request for the route's target, or why it goes no further. Boxed, because it is handed from stage to stage.
    pub(super) outcome: Result<Box<AuthorizedRequest<'a>>, Stop>,
}

/// What is known of a request, whether it goes on or not.
pub(super) struct Findings<'a> {
    pub(super) client: ClientAddress,
    pub(super) route: Option<&'a Arc<Route>>,
    pub(super) principal: Option<Arc<Principal>>,
    /// Header fields to add to the response: those of the route, or of the config's top level if no route was found.
    pub(super) response_headers: Option<PendingResponseHeaders>,
    /// Compression of the response: that of the route, or of the config's top level if no route was found.
    pub(super) compression: Option<Box<PendingCompression>>,
    /// Log word of the failed check of authentication.
    pub(super) failed_check: Option<&'static str>,
}

/// A request that has passed every check and can be sent to its target.
pub(super) struct AuthorizedRequest<'a> {
    pub(super) route: &'a Route,
    /// Backend that was chosen, on a route whose requests several share.
    pub(super) chosen: Option<&'a Arc<Backend>>,
    /// Whether the mirror of the route gets a copy of the request.
    pub(super) is_mirrored: bool,
    /// Keys by which backends choose their endpoints.
    pub(super) hash_keys: HashKeys,
    pub(super) captures: Captures<'a>,
    pub(super) principal: Arc<Principal>,
    /// Request target, without the API keys that are not forwarded.
    pub(super) target: RequestTarget<'a>,
    /// Cleaned head, still with the caller's credential. [`Decision::write_head`] makes it that for the backend.
    pub(super) head: &'a mut RequestHead,
    /// Fields that are sent beside those of the head.
    pub(super) added: AddedFields,
    pub(super) hints: RequestHints,
    /// Present if the caller asks for a WebSocket.
    pub(super) handshake: Option<Handshake>,
    pub(super) budget: Budget,
}

/// URI of a request, and its query.
pub(super) struct RequestTarget<'a> {
    pub(super) uri: &'a http::Uri,
    pub(super) query: Query<'a>,
}

/// Time of a request: the route's limit, or what the caller allows if that is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) limit: Duration,
    pub(super) deadline: Deadline,
    /// Setting that the limit comes from; `None` if the caller allows less time than the route does.
    pub(super) by: Option<SettingId>,
}

/// Reason why a request does not go to a target.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Rejection),
    /// A CORS preflight, which the gateway answers itself with these header fields.
    Preflight(FieldMap),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}
