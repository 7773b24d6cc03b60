//! A request that waits for a slow check of its credentials.

use http::request;
use policies::Moment;

use crate::auth::refusal::Pending;
use crate::client::address::ClientAddress;

/// A request that must wait for a slow authentication check. The check is a password comparison or a key fetch.
pub(super) struct NeedsPasswordCheck {
    pub(super) pending: Pending,
    pub(super) client: ClientAddress,
    /// Time by which the request must be answered: the route's limit or the caller's, whichever is earlier.
    pub(super) until: Moment,
    pub(super) head: request::Parts,
}
