//! Applies a route's rules to special requests: ambiguous paths, CORS preflights, WebSocket handshakes.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, request};

use super::{Exchange, NotCleared};
use crate::client::address::ClientAddress;
use crate::headers::cors;
use crate::headers::response::PendingResponseHeaders;
use crate::headers::websocket::{self, Handshake};
use crate::plan::Route;
use crate::rejection::{Rejection, Setting};
use crate::response::Content;
use crate::routing::{self, Found, NormalPath, NotFound, PathPolicy, path_policy};
use crate::template::{Query, Sources};

impl<'p> Exchange<'p> {
    /// Normalizes an ambiguous path by the policy of the route that it matches. Returns that policy, or `None` if the
    /// path is not ambiguous or no route matches.
    pub(super) fn settle_path(&self, uri: &mut Uri, head: &request::Parts) -> Option<PathPolicy> {
        let policies = &self.plan.path_policies;
        if policies.is_empty() || !path_policy::is_odd(uri.path()) {
            return None;
        }
        let method = cors::preflight(&head.method, &head.headers);
        let asked = (method.as_ref().unwrap_or(&head.method), head.version);
        let policy_of = |route: &Arc<Route>| route.edge.path_policy;
        let (made, policy) = path_policy::settle(&self.plan.routes, policies, policy_of, asked, uri, &head.headers)?;
        *uri = made;
        Some(policy)
    }

    /// Answers a CORS preflight for a path whose routes have CORS settings. `asked` is the method that the browser
    /// wants to use. If no route has this method, the answer lists the allowed ones, and the browser reports the
    /// missing one.
    pub(super) fn preflight(
        &mut self,
        target: &routing::Target<'_, '_>,
        query: &Query<'_>,
        asked: &Method,
        headers: &HeaderMap,
        client: &ClientAddress,
    ) -> Option<NotCleared> {
        let routes = &self.plan.routes;
        let (route, finishing) = match routes.find(target.host, &target.path, asked, headers, query) {
            Ok(found) => {
                let finish = found.target.edge.finish.as_ref()?;
                let mut finishing = PendingResponseHeaders::begin(finish, headers, true);
                finishing.fill(&Sources::of_request(&found.captures, query, headers, None));
                (found.target, finishing)
            }
            Err(NotFound::MethodNotAllowed { routes, .. }) => of_path(&routes, headers, true)?,
            Err(NotFound::NoRoute | NotFound::TooManyParameters | NotFound::TwoRoutes) => return None,
        };
        let cors = Arc::clone(finishing.finish.cors.as_ref()?);
        self.watch.route = Some(Arc::clone(&route.metrics));
        let granted = match &route.edge.addresses {
            Some(addresses) => addresses.permits(client),
            None => Ok(()),
        }
        .and_then(|()| cors.grant(&finishing.verdict));
        self.finishing = Some(finishing);
        Some(match granted {
            Ok(fields) => {
                let mut response = Response::new(Content::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = fields;
                NotCleared::Answered(Box::new(response))
            }
            Err(rejection) => rejection.into(),
        })
    }

    /// Finds the route of a request. If only the method does not match, the 405 response carries the CORS fields of the
    /// routes of that path. Other misses carry those of the config's top level.
    pub(super) fn find<'a>(
        &mut self,
        host: &str,
        path: &NormalPath<'a>,
        query: &Query<'_>,
        head: &request::Parts,
    ) -> Result<Found<'a, Arc<Route>>, Rejection>
    where
        'p: 'a,
    {
        let plan = self.plan;
        let found = plan.routes.find(host, path, &head.method, &head.headers, query);
        if let Err(NotFound::MethodNotAllowed { routes, .. }) = &found {
            self.finishing = of_path(routes, &head.headers, false).map(|(_, finishing)| finishing);
        }
        found.map_err(Rejection::from)
    }

    /// Reads a WebSocket handshake. The origin is checked here if the route lists origins, because browsers do not
    /// apply the same-origin policy to WebSockets.
    pub(super) fn handshake(&mut self, head: &request::Parts, upgrades: bool) -> Result<Option<Handshake>, Rejection> {
        if !upgrades {
            // An HTTP/1.1 Upgrade may be ignored (RFC 9110, section 7.8). An extended CONNECT on a stream must be
            // refused.
            if !websocket::asks_on_stream(head) {
                return Ok(None);
            }
            self.decided = Some(Setting::Upgrade);
            return Err(Rejection::MethodNotAllowed {
                allow: HeaderValue::from_static("GET"),
            });
        }
        let handshake = Handshake::read(head)?;
        if let (Some(_), Some(finishing)) = (&handshake, &self.finishing)
            && let Some(cors) = &finishing.finish.cors
        {
            cors.demand(&finishing.verdict, &head.headers)?;
        }
        Ok(handshake)
    }
}

/// Returns the first of `routes` whose CORS settings allow the request's origin, or else the first that has CORS
/// settings, with its response header fields.
fn of_path<'r>(
    routes: &[&'r Arc<Route>],
    headers: &HeaderMap,
    is_preflight: bool,
) -> Option<(&'r Arc<Route>, PendingResponseHeaders)> {
    let cors_of = |(index, route): (usize, &&'r Arc<Route>)| Some((index, route.edge.finish.as_ref()?.cors.as_ref()?));
    let all: Vec<_> = routes.iter().enumerate().filter_map(cors_of).collect();
    let (index, finishing) = PendingResponseHeaders::of_first_allowed(&all, headers, is_preflight)?;
    Some((routes[index], finishing))
}
