//! Applies a route's rules to special requests: ambiguous paths, CORS preflights, WebSocket handshakes.

use std::sync::Arc;

use http::{HeaderValue, Method};

use super::decision::{Findings, Stop};
use crate::headers::response::PendingResponseHeaders;
use crate::headers::websocket::{self, Handshake};
use crate::message::{FieldMap, RequestHead};
use crate::plan::{Plan, Route};
use crate::rejection::Rejection;
use crate::routing::{self, Found, NotFound, PathPolicy};
use crate::template::{Query, Sources};

/// Decides on a CORS preflight for a path whose routes have CORS settings; `None` for other paths. `wanted` is the
/// method that the browser wants to use. If no route has this method, the answer lists the allowed ones, and the
/// browser reports the missing one.
pub(super) fn preflight<'a>(
    plan: &'a Plan,
    target: &routing::Target<'a, '_>,
    query: &Query<'_>,
    wanted: &Method,
    headers: &FieldMap,
    found: &mut Findings<'a>,
) -> Option<Stop> {
    let (route, pending) = match plan.routes.find(target.host, &target.path, wanted, headers, query) {
        Ok(matched) => {
            let fields = matched.target.edge.finish.as_ref()?;
            let mut pending = PendingResponseHeaders::begin(fields, headers, true);
            pending.fill(&Sources::of_request(&matched.captures, query, headers, None));
            (matched.target, pending)
        }
        Err(NotFound::MethodNotAllowed { routes, .. }) => of_path(&routes, headers, true)?,
        Err(NotFound::NoRoute | NotFound::TooManyParameters | NotFound::TwoRoutes) => return None,
    };
    let cors = Arc::clone(pending.finish.cors.as_ref()?);
    let permitted = match &route.edge.addresses {
        Some(addresses) => addresses.permits(&found.client),
        None => Ok(()),
    };
    let granted = permitted.and_then(|()| cors.grant(&pending.verdict));
    found.route = Some(route);
    found.response_headers = Some(pending);
    Some(granted.map_or_else(Stop::from, Stop::Preflight))
}

/// Finds the route of a request. If only the method does not match, the 405 response carries the CORS fields of the
/// routes of that path. Other misses carry those of the config's top level.
pub(super) fn find<'a>(
    plan: &'a Plan,
    target: &routing::Target<'a, '_>,
    query: &Query<'_>,
    head: &RequestHead,
    found: &mut Findings<'a>,
) -> Result<Found<'a, Arc<Route>>, Rejection> {
    let matched = plan
        .routes
        .find(target.host, &target.path, &head.method, &head.headers, query);
    if let Err(NotFound::MethodNotAllowed { routes, .. }) = &matched {
        found.response_headers = of_path(routes, &head.headers, false).map(|(_, pending)| pending);
    }
    matched.map_err(Rejection::from)
}

/// Requires that an ambiguous path was normalized by the policy of the route that it leads to.
///
/// # Errors
/// The method of a preflight and the method that it asks for can lead to two routes with different path policies.
pub(super) fn same_path_policy(applied: Option<PathPolicy>, route: &Route) -> Result<(), Rejection> {
    if applied.is_none_or(|policy| policy == route.edge.path_policy) {
        return Ok(());
    }
    Err(Rejection::MalformedRequest {
        why: "the path is read differently by the route that it leads to",
        by: Some(route.ids.path_policy),
    })
}

/// Reads a WebSocket handshake. The origin is checked here if the route lists origins, because browsers do not apply
/// the same-origin policy to WebSockets.
pub(super) fn handshake(
    head: &RequestHead,
    route: &Route,
    response_headers: Option<&PendingResponseHeaders>,
) -> Result<Option<Handshake>, Rejection> {
    if !route.edge.upgrades {
        // An HTTP/1.1 Upgrade may be ignored (RFC 9110, section 7.8). An extended CONNECT on a stream must be refused.
        if !websocket::asks_on_stream(head) {
            return Ok(None);
        }
        return Err(Rejection::MethodNotAllowed {
            allow: HeaderValue::from_static("GET"),
            by: Some(route.ids.upgrade),
        });
    }
    let handshake = Handshake::read(head)?;
    if let (Some(_), Some(pending)) = (&handshake, response_headers)
        && let Some(cors) = &pending.finish.cors
    {
        cors.demand(&pending.verdict, &head.headers)?;
    }
    Ok(handshake)
}

/// Returns the first of `routes` whose CORS settings allow the request's origin, or else the first that has CORS
/// settings, with its response header fields.
fn of_path<'r>(
    routes: &[&'r Arc<Route>],
    headers: &FieldMap,
    is_preflight: bool,
) -> Option<(&'r Arc<Route>, PendingResponseHeaders)> {
    let cors_of = |(index, route): (usize, &&'r Arc<Route>)| Some((index, route.edge.finish.as_ref()?.cors.as_ref()?));
    let all: Vec<_> = routes.iter().enumerate().filter_map(cors_of).collect();
    let (index, pending) = PendingResponseHeaders::of_first_allowed(&all, headers, is_preflight)?;
    Some((routes[index], pending))
}
