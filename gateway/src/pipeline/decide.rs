//! Decides on a request: stages 1 to 6, from the head to a request that may go on, or to the reason against it.
//!
//! Reads no clock, and writes neither metrics nor the record. Authentication may wait for a slow check, which keeps its
//! own time.

use std::sync::Arc;

use policies::Deadline;

use super::authenticate::authenticate;
use super::decision::{AuthorizedRequest, Budget, Context, Decision, Findings, Identification, RequestTarget, Stop};
use super::decision_input::DecisionInput;
use super::peer::Peer;
use super::route_rules;
use crate::auth::credential_removal;
use crate::call::endpoints::HashKeys;
use crate::client::address::{self, ClientAddress};
use crate::clock::Now;
use crate::compression::{Compression, PendingCompression};
use crate::headers::response::PendingResponseHeaders;
use crate::headers::{self, AddedFields, RequestHints};
use crate::limits::{Charge, Charges, LimitHandle};
use crate::message::RequestHead;
use crate::plan::{KeySources, Plan, Route, Target};
use crate::rejection::Rejection;
use crate::routing::{self, path_policy};
use crate::template::{Query, Sources};
use crate::tenancy::Principal;

/// Decides on a request that began at `now`. Ready at once unless authentication has to wait; `identification` is then
/// told what is known so far.
pub(super) async fn decide<'a>(
    plan: &'a Plan,
    peer: &'a Peer,
    head: &'a mut DecisionInput,
    now: Now,
    identification: impl Identification<'a>,
) -> Decision<'a> {
    let client = if peer.client_is_known {
        plan.edge.trusted.client_address(peer.address, &head.parts.headers)
    } else {
        ClientAddress::unknown(peer.address)
    };
    let of_top = plan.edge.finish.as_ref();
    let mut found = Findings {
        client,
        route: None,
        principal: None,
        response_headers: of_top.map(|fields| PendingResponseHeaders::begin(fields, &head.parts.headers, false)),
        compression: begin_compression(plan.edge.compression.as_ref(), &head.parts),
        failed_check: None,
    };
    let mut charges = Charges::new();
    let context = Context { plan, peer, now };
    let outcome = stages(context, head, &mut found, &mut charges, identification).await;
    Decision {
        found,
        charges,
        outcome,
    }
}

/// Runs the stages in order. `?` ends the request.
async fn stages<'a>(
    context: Context<'a>,
    head: &'a mut DecisionInput,
    found: &mut Findings<'a>,
    charges: &mut Charges,
    identification: impl Identification<'a>,
) -> Result<Box<AuthorizedRequest<'a>>, Stop> {
    let DecisionInput {
        parts: head,
        uri,
        keyless_uri,
        path_policy,
        chance,
    } = head;
    let (uri, keyless_uri) = (&*uri, keyless_uri.as_ref());
    let plan = context.plan;

    // Stage 1: the head.
    if uri.path().len() + uri.query().map_or(0, str::len) > plan.edge.uri_limit {
        return Err(Rejection::UriTooLong.into());
    }
    headers::check_size(head.version, &head.method, uri, &head.headers, plan.edge.head_limit)?;
    headers::check(head.version, &head.headers, plan.edge.header_limit)?;
    headers::join_cookies(head.version, &mut head.headers);
    headers::name_host(head.version, uri, &mut head.headers);

    // Stage 2: the route. A CORS preflight ends here.
    let keeps = path_policy.unwrap_or_default().keeps();
    let target = routing::Target::read(&head.method, head.version, uri, &head.headers, keeps).map_err(|rejection| {
        match rejection {
            Rejection::MalformedRequest { why, .. } => Rejection::MalformedRequest {
                why,
                by: path_policy::key_that_refused(uri.path()),
            },
            other => other,
        }
    })?;
    let query = Query::new(uri.query());
    if let Some(wanted) = DecisionInput::preflight_method(head)
        && let Some(stop) = route_rules::preflight(plan, &target, &query, &wanted, &head.headers, found)
    {
        return Err(stop);
    }
    let matched = route_rules::find(plan, &target, &query, head, found)?;
    let (route, captures): (&Arc<Route>, _) = (matched.target, matched.captures);
    found.route = Some(route);
    let target = match keyless_uri {
        Some(uri) if credential_removal::removes_from_query(&route.access, route.forward_credential) => RequestTarget {
            uri,
            query: Query::new(uri.query()),
        },
        _ => RequestTarget { uri, query },
    };
    found.response_headers = route.edge.finish.as_ref().map(|fields| {
        let mut pending = PendingResponseHeaders::begin(fields, &head.headers, false);
        pending.fill(&Sources::of_request(&captures, &target.query, &head.headers, None));
        pending
    });

    if route.edge.compression.as_ref() != found.compression.as_ref().map(|pending| pending.rules()) {
        found.compression = begin_compression(route.edge.compression.as_ref(), head);
    }

    // Stage 3: the route's rules for path, client address and WebSocket handshakes.
    route_rules::same_path_policy(*path_policy, route)?;
    if let Some(addresses) = &route.edge.addresses {
        addresses.permits(&found.client)?;
    }
    let handshake = route_rules::handshake(head, route, found.response_headers.as_ref())?;

    // Stage 4: authentication (401).
    let principal = authenticate(context, route, uri, head, found, charges, identification).await?;
    let claims = principal.caller.claims.as_ref();
    if let (Some(pending), Some(_)) = (&mut found.response_headers, claims) {
        pending.fill(&Sources::of_request(&captures, &target.query, &head.headers, claims));
    }

    // Stage 5: authorization (403).
    route.access.permits(&principal.caller, &principal.tier.name)?;

    // Stage 6: limits and deadline. The header fields are checked first, because a malformed request is not charged.
    let hints = clean(plan, route, &found.client, head)?;
    let limit = hints.deadline.unwrap_or(route.time_limit).min(route.time_limit);
    let budget = Budget {
        limit,
        deadline: Deadline::at(context.now.moment + limit),
        by: (limit == route.time_limit).then_some(route.ids.time_limit),
    };
    charges.extend(all_charges(plan, route, &principal, &found.client));

    // The backend, where several share the requests, and the keys of its endpoints. Both look at the caller's own header
    // fields.
    let sources = KeySources {
        principal: &principal,
        address: address::key(found.client.ip, plan.edge.ipv6_prefix),
        headers: &head.headers,
        captures: &captures,
    };
    let chosen = match &route.target {
        Target::Split { split, .. } => Some(split.choose(sources, *chance)),
        _ => None,
    };
    let is_mirrored = match (&route.mirror, &handshake) {
        (Some(mirror), None) => mirror.copies(head, chosen, sources, *chance),
        _ => false,
    };
    let hash_keys = HashKeys::of(&route.hash_keys, |key| sources.hash(key));

    Ok(Box::new(AuthorizedRequest {
        route,
        chosen,
        is_mirrored,
        hash_keys,
        captures,
        principal,
        target,
        head,
        added: AddedFields::default(),
        hints,
        handshake,
        budget,
    }))
}

/// Prepares the compression of the answer, where there are rules for it.
fn begin_compression(rules: Option<&Arc<Compression>>, head: &RequestHead) -> Option<Box<PendingCompression>> {
    let rules = rules?;
    let pending = PendingCompression::begin(rules, &head.method, head.version, &head.headers);
    Some(Box::new(pending))
}

/// Removes the header fields that the backend must not see, and returns what they asked of the gateway.
fn clean(
    plan: &Plan,
    route: &Route,
    client: &ClientAddress,
    head: &mut RequestHead,
) -> Result<RequestHints, Rejection> {
    let rule = route.edge.method_override;
    headers::clean_request(&mut head.headers, head.version, client.trusted_peer, rule, &plan.via)
}

/// Returns the charges of the request: to the limits of the tenant's tier, then to those of the route.
fn all_charges(plan: &Plan, route: &Route, principal: &Principal, client: &ClientAddress) -> Charges {
    let address = address::key(client.ip, plan.edge.ipv6_prefix);
    let held = principal.holds();
    let of_tier = held.iter().filter_map(|hold| of_tier(hold, route));
    let of_route = route.limits.iter();
    of_tier
        .chain(of_route.map(|limit| limit.charge(principal, address, &route.name, route.cost)))
        .collect()
}

/// Returns the charge to a limit of the tenant's tier. One that counts units is for routes that name it.
fn of_tier(hold: &Arc<LimitHandle>, route: &Route) -> Option<Charge> {
    match &route.metering {
        None if hold.limit.counts_units => None,
        None => Some(hold.charge(route.cost)),
        Some(metering) if hold.limit.counts_units => {
            let is_named = metering.quotas.iter().any(|name| *name == hold.limit.name);
            is_named.then(|| hold.charge(1))
        }
        Some(_) => Some(hold.charge_request()),
    }
}

#[cfg(test)]
mod tests;
