//! The request that an aggregate answers, as its parts see it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use policies::Deadline;
use policies::bulkhead::Entrant;

use super::shape::Shape;
use crate::cache::responses::CacheCaller;
use crate::call::endpoints::HashKeys;
use crate::headers::AddedFields;
use crate::json::{Document, Reservation, Selection};
use crate::message::FieldMap;
use crate::setting::SettingId;
use crate::template::{Captures, Query};

/// Request to be answered by an aggregate.
pub struct Request<'a> {
    pub method: &'a Method,
    pub captures: &'a Captures<'a>,
    pub query: &'a Query<'a>,
    /// Cleaned header fields.
    pub headers: &'a FieldMap,
    /// Names of fields with credentials that the gateway did not take.
    pub not_taken: &'a [HeaderName],
    /// Fields that each backend gets beside these.
    pub added: &'a AddedFields,
    pub claims: Option<&'a Document>,
    /// Caller as the cache sees it; `None` if no part has a cache.
    pub cache_caller: Option<&'a Arc<CacheCaller>>,
    /// Values of the request body that parts use.
    pub body: Option<&'a Selection>,
    /// Memory for the answers and requests of the parts.
    pub reservation: &'a Reservation,
    /// Fields of the document that the caller has chosen; `None`: all.
    pub fields: Option<&'a Shape>,
    pub deadline: Deadline,
    /// Setting that `deadline` comes from; `None` if the caller set it.
    pub deadline_by: Option<SettingId>,
    /// Deadline by the operators' limits alone, without the caller's own limit.
    pub operator_deadline: Deadline,
    /// Deadline that the caller announced for itself, if any.
    pub caller_deadline: Option<Deadline>,
    /// Field in which answers report the cost of the request.
    pub cost_header: Option<&'a Arc<HeaderName>>,
    /// Time limit of the route itself.
    pub operator_limit: Duration,
    pub entrant: Entrant,
    /// Hashes of the keys by which backends choose their endpoints.
    pub hash_keys: &'a HashKeys,
    pub is_retry: bool,
    pub worker: usize,
}
