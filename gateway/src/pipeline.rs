//! Runs one request through the gateway, from its head to the last byte of its response.
//!
//! The stages run in this order:
//!
//! 1. Read the head: request id, client address, size limits, forbidden header fields.
//! 2. Find the route. A CORS preflight is answered here.
//! 3. Apply the route's rules for the path, the client address and WebSocket handshakes.
//! 4. Authenticate the caller. A slow check (a password, a token's keys) is awaited, then stages 1 to 4 run again.
//! 5. Authorize the caller for the route.
//! 6. Charge the limits of the caller's tier and of the route; set the deadline; set the header fields for the backend.
//! 7. Wait until the charged tokens are there. Call the backend, or several for an aggregate, or answer directly.
//! 8. Settle the charge and finish the response. Metrics and the access log are written at its last byte.
//!
//! Each stage takes a value and returns a value or a [`Rejection`], and `?` ends the request. This file only sets the
//! order: the stages and the policies decide.

mod authenticate;
mod fallback;
mod needs_password_check;
mod one_backend;
mod redirect;
mod route_rules;
mod several_backends;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment, WallTime};

use self::needs_password_check::NeedsPasswordCheck;
use crate::auth::credential_removal;
use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::call::{Facts, StatedCost};
use crate::client::address::{self, ClientAddress};
use crate::clock::{self, Now};
use crate::headers::response::PendingResponseHeaders;
use crate::headers::websocket::{self, Handshake};
use crate::headers::{self, RequestHints, Scheme, cors};
use crate::limits::{self, Charges, Receipt, RefundFacts};
use crate::observe::{Decided, RequestGuard, RequestRecord};
use crate::plan::{Plan, Route, Target};
use crate::rejection::{Rejection, Setting};
use crate::response::{AnswerBody, Content};
use crate::routing::{PathPolicy, path_policy};
use crate::setting::SettingId;
use crate::template::{Captures, Query, Sources};
use crate::tenancy::Principal;
use crate::wire::caller_body::CallerBody;
use crate::wire::grpc;
use crate::{problem, routing};

/// A client connection, as the stages see it.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// False if a load balancer sits in front and did not name its client; `address` is then the load balancer's.
    pub client_is_known: bool,
    pub worker: usize,
    pub scheme: Scheme,
    /// The client certificate of the TLS handshake, if one was presented.
    pub certificate: Option<Arc<CallerCertificate>>,
}

/// `Retry-After` of a rejection that the caller did not cause.
const SOON: Duration = Duration::from_secs(1);

/// Answers one request. Every request ends in a response, also after a panic in a stage.
pub async fn serve(plan: &Plan, peer: &Peer, mut request: Request<CallerBody>) -> Response<AnswerBody> {
    let Now { moment: started, wall } = Now::read();
    let request_id = headers::request_id(request.headers_mut());
    let trace = headers::Trace::read_or_start(request.headers(), false);
    let is_head = request.method() == Method::HEAD;
    let is_grpc = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    let mut watch = Box::new(plan.observer.watch(RequestRecord::begin(
        started,
        wall.elapsed(),
        request_id.to_str().unwrap_or_default(),
        request.method().clone(),
        request.uri().path(),
    )));
    watch.trace = Some(trace.id);
    watch.protocol = match request.version() {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let mut exchange = Exchange {
        plan,
        peer,
        started,
        wall,
        trace,
        watch: &mut watch,
        is_grpc,
        finishing: None,
        failure_paid: false,
        has_waited_for_keys: false,
        receipt: None,
        ending: RefundFacts::default(),
        stated_cost: StatedCost::default(),
        decided: None,
        is_hurried: false,
    };
    // A panic affects one request only: its caller gets a 500, and other requests on the connection go on.
    let result = {
        let run = pin!(exchange.run(request));
        AssertUnwindSafe(run)
            .catch_unwind()
            .await
            .unwrap_or(Err(Rejection::Internal))
    };
    let mut response = match result {
        Ok(response) => response,
        Err(rejection) => {
            let refusal = exchange.refuse(&rejection, &request_id);
            // A rejected request is no longer in flight, even if its caller reads the response slowly.
            exchange.receipt = None;
            refusal
        }
    };
    if let Some(finishing) = &exchange.finishing {
        finishing.apply(peer.scheme, response.headers_mut());
    }
    let presence = exchange.receipt.map(|receipt| receipt.presence).unwrap_or_default();
    watch.status = response.status().as_u16();
    if is_grpc {
        watch.grpc_status = grpc::stated(response.headers());
    }
    response.headers_mut().insert(headers::X_REQUEST_ID.clone(), request_id);
    response.map(|content| match content {
        Content::Whole(_) if is_head => AnswerBody::new(Content::Empty, watch, presence),
        content if is_grpc => AnswerBody::new(content, watch, presence).of_grpc(),
        content => AnswerBody::new(content, watch, presence),
    })
}

/// State of one request while it passes through the stages.
struct Exchange<'a> {
    plan: &'a Plan,
    peer: &'a Peer,
    started: Moment,
    /// The time of day. It is read again after a slow authentication.
    wall: WallTime,
    trace: headers::Trace,
    watch: &'a mut RequestGuard,
    is_grpc: bool,
    /// Header fields to add to the response: those of the route, or of the config's top level until the route is known.
    finishing: Option<PendingResponseHeaders>,
    /// True if the client address has already been charged for a failed authentication of this request.
    failure_paid: bool,
    /// True if this request has already waited for the keys of its token's issuer.
    has_waited_for_keys: bool,
    /// The charge to the limits; `None` until the request is charged.
    receipt: Option<Receipt>,
    /// Facts about the request's end, which decide whether the charge is given back.
    ending: RefundFacts,
    stated_cost: StatedCost,
    /// The setting that led to the rejection, if the rejection does not name it.
    decided: Option<Setting>,
    /// True if the caller allows less time than the route does.
    is_hurried: bool,
}

/// The URI of a request.
#[derive(Clone, Copy)]
struct Asked<'a> {
    uri: &'a Uri,
    query: &'a Query<'a>,
    /// URI and query without the API keys in the query; `None` if the query has none.
    keyless: Option<(&'a Uri, &'a Query<'a>)>,
}

/// A request that has passed every check and can be sent to its target.
struct AuthorizedRequest<'a> {
    route: &'a Route,
    captures: Captures<'a>,
    principal: Arc<Principal>,
    deadline: Deadline,
    uri: &'a Uri,
    query: &'a Query<'a>,
    head: request::Parts,
    hints: RequestHints,
    /// Present if the caller asks for a WebSocket.
    handshake: Option<Handshake>,
}

/// Reasons why `clear` does not clear a request.
enum NotCleared {
    Refused(Rejection),
    /// The gateway answers itself, without a backend.
    Answered(Box<Response<Content>>),
    NeedsPasswordCheck(Box<NeedsPasswordCheck>),
}

impl From<Rejection> for NotCleared {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl<'p> Exchange<'p> {
    /// Runs all stages, from the head of the request to the head of the response.
    async fn run(&mut self, request: Request<CallerBody>) -> Result<Response<Content>, Rejection> {
        let (mut head, body) = request.into_parts();
        websocket::unfold(&mut head);
        let mut uri = std::mem::take(&mut head.uri);
        let settled = self.settle_path(&mut uri, &head);
        let query = Query::new(uri.query());
        let keyless_uri = self
            .plan
            .key_places
            .as_ref()
            .and_then(|places| places.without_keys(&uri));
        let keyless_query = Query::new(keyless_uri.as_ref().and_then(Uri::query));
        let asked = Asked {
            uri: &uri,
            query: &query,
            keyless: keyless_uri.as_ref().map(|uri| (uri, &keyless_query)),
        };
        let mut is_checked = false;
        let cleared = loop {
            match self.clear(asked, settled, head) {
                Ok(cleared) => break cleared,
                Err(NotCleared::Refused(rejection)) => return Err(rejection),
                Err(NotCleared::Answered(response)) => return Ok(*response),
                Err(NotCleared::NeedsPasswordCheck(pending)) if !is_checked => {
                    head = self.finish_authentication(*pending).await?;
                    is_checked = true;
                }
                // The result of the check has been evicted from its cache. This takes thousands of other checks.
                Err(NotCleared::NeedsPasswordCheck(_)) => {
                    return Err(Rejection::Overloaded {
                        retry_after: SOON,
                        by: None,
                    });
                }
            }
        };
        let has_no_room = body.has_no_room();
        if !has_no_room {
            self.wait_its_turn().await;
        }
        let cost = cleared.route.cost;
        let answered = match &cleared.route.target {
            _ if has_no_room => Err(Rejection::Overloaded {
                retry_after: SOON,
                by: Some(Setting::At(SettingId::PARKED_TOTAL)),
            }),
            Target::Backend { backend, rewrite } => self.call_backend(cleared, backend, rewrite.as_ref(), body).await,
            Target::Aggregate(aggregate) => Box::pin(self.call_aggregate(cleared, aggregate, body)).await,
            Target::Respond { status, headers, body } => Ok(respond(*status, headers, body)),
            Target::Redirect(redirect) => self.redirect(redirect, &cleared),
        };
        if let Err(rejection) = &answered {
            self.ending.fail(rejection.reason());
        }
        self.settle(cost);
        let mut response = answered?;
        if let Some(receipt) = &self.receipt {
            receipt.tell(response.headers_mut(), Now::read());
        }
        Ok(response)
    }

    /// Runs stages 1 to 6: everything that is decided before a backend is called.
    fn clear<'u>(
        &mut self,
        asked: Asked<'u>,
        settled: Option<PathPolicy>,
        mut head: request::Parts,
    ) -> Result<AuthorizedRequest<'u>, NotCleared>
    where
        'p: 'u,
    {
        let plan = self.plan;
        let Asked { uri, query, .. } = asked;

        // Stage 1: the head and the client address.
        let client = if self.peer.client_is_known {
            plan.edge.trusted.client_address(self.peer.address, &head.headers)
        } else {
            ClientAddress::unknown(self.peer.address)
        };
        self.watch.client = Some(client.ip);
        let finish = plan.edge.finish.as_ref();
        self.finishing = finish.map(|finish| PendingResponseHeaders::begin(finish, &head.headers, false));
        if uri.path().len() + uri.query().map_or(0, str::len) > plan.edge.uri_limit {
            return Err(Rejection::UriTooLong.into());
        }
        headers::check_size(head.version, &head.method, uri, &head.headers, plan.edge.head_limit)?;
        headers::check(head.version, &head.headers, plan.edge.header_limit)?;
        headers::join_cookies(head.version, &mut head.headers);

        // Stage 2: the route.
        let keeps = settled.unwrap_or_default().keeps();
        let target =
            routing::Target::read(&head.method, head.version, uri, &head.headers, keeps).inspect_err(|_| {
                self.decided = path_policy::key_that_refused(uri.path()).map(Setting::At);
            })?;
        if let Some(asked) = cors::preflight(&head.method, &head.headers)
            && let Some(answered) = self.preflight(&target, query, &asked, &head.headers, &client)
        {
            return Err(answered);
        }
        let (host, path) = (target.host.to_owned(), target.path);
        headers::name_host(head.version, &host, &mut head.headers);
        let found = self.find(&host, &path, query, &head)?;
        let route: &Route = found.target;
        self.watch.route = Some(Arc::clone(&route.metrics));
        let edge = &route.edge;
        let whole = uri;
        let (uri, query) = match asked.keyless {
            Some(keyless) if credential_removal::removes_from_query(&route.access, route.forward_credential) => keyless,
            _ => (uri, query),
        };
        self.finishing = edge.finish.as_ref().map(|finish| {
            let mut finishing = PendingResponseHeaders::begin(finish, &head.headers, false);
            finishing.fill(&Sources::of_request(&found.captures, query, &head.headers, None));
            finishing
        });
        // Stage 3: the route's rules.
        if settled.is_some_and(|policy| policy != edge.path_policy) {
            // The method of a preflight and the method that it asks for can lead to two routes with different path
            // policies.
            self.decided = Some(Setting::RoutePathPolicy);
            return Err(Rejection::MalformedRequest {
                why: "the path is read differently by the route that it leads to",
            }
            .into());
        }
        if let Some(addresses) = &edge.addresses {
            addresses.permits(&client)?;
        }
        let handshake = self.handshake(&head, edge.upgrades)?;

        // Stage 4: authentication.
        let principal = match self.identify(route, &client, whole.query(), &head.headers)? {
            Ok(principal) => principal,
            Err(pending) => {
                let wish = headers::wanted_deadline(&head.headers)?.unwrap_or(Duration::MAX);
                return Err(NotCleared::NeedsPasswordCheck(Box::new(NeedsPasswordCheck {
                    pending,
                    client,
                    until: self.started + wish.min(route.time_limit),
                    head,
                })));
            }
        };

        let claims = principal.caller.claims.as_ref();
        if let (Some(finishing), Some(_)) = (&mut self.finishing, claims) {
            finishing.fill(&Sources::of_request(&found.captures, query, &head.headers, claims));
        }

        // Stage 5: authorization.
        route.access.permits(&principal.caller, &principal.tier.name)?;

        // Stage 6: limits. The header fields are checked first, because a malformed request is not charged.
        let hints = headers::clean_request(
            &mut head.headers,
            head.version,
            client.trusted_peer,
            edge.method_override,
            &plan.via,
        )
        .inspect_err(|rejection| {
            let of_method =
                matches!(rejection, Rejection::MalformedRequest { why } if *why == headers::ASKS_FOR_ANOTHER_METHOD);
            self.decided = of_method.then_some(Setting::MethodOverride);
        })?;
        let limit = hints
            .deadline
            .map_or(route.time_limit, |wish| wish.min(route.time_limit));
        self.is_hurried = limit < route.time_limit;
        let charges = self.charges(route, &principal, &client);
        self.receipt = Some(limits::take(
            charges,
            self.at_start(),
            limit.saturating_sub(plan.time.minimum),
        )?);

        // Stage 6: the deadline.
        let deadline = Deadline::at(self.started + limit);
        self.watch.budget = Some(limit);

        self.stamp(&mut head, route, &principal, &client, &host);
        if let Some(rules) = &edge.request_rules {
            let filled = rules.fill(&Sources::of_request(&found.captures, query, &head.headers, claims));
            rules.apply(&mut head.headers, &filled);
        }
        Ok(AuthorizedRequest {
            route,
            captures: found.captures,
            principal,
            deadline,
            uri,
            query,
            head,
            hints,
            handshake,
        })
    }

    /// Returns the charges of the request: to the limits of the tenant's tier, then to those of the route.
    fn charges(&self, route: &Route, principal: &Principal, client: &ClientAddress) -> Charges {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let held = principal.holds();
        let of_tier = held.iter().map(|hold| hold.charge(route.cost));
        let of_route = route.limits.iter();
        of_tier
            .chain(of_route.map(|limit| limit.charge(principal, address, &route.name, route.cost)))
            .collect()
    }

    /// Stage 7: waits until the tokens that were charged in advance are there.
    async fn wait_its_turn(&mut self) {
        if let Some(delay) = self.receipt.as_ref().map(|receipt| receipt.delay)
            && !delay.is_zero()
        {
            self.watch.delayed = delay;
            clock::wait_until(self.started + delay).await;
        }
    }

    /// Start of the request on the monotonic clock, with the current time of day. A quota is charged to the period of
    /// the current time, also if authentication took long.
    const fn at_start(&self) -> Now {
        Now {
            moment: self.started,
            wall: self.wall,
        }
    }

    /// Removes the credential and sets the header fields that only the gateway may set: identity, forwarding and trace.
    fn stamp(
        &self,
        head: &mut request::Parts,
        route: &Route,
        principal: &Principal,
        client: &ClientAddress,
        host: &str,
    ) {
        let fields = &mut head.headers;
        // Space for these fields and those of each attempt, so that the map grows only once.
        fields.reserve(12);
        let (places, caller) = (self.plan.key_places.as_ref(), &principal.caller.kind);
        credential_removal::remove(fields, places, &route.access, caller, route.forward_credential);
        headers::stamp_identity(
            fields,
            &principal.tenant_header,
            &principal.tier_header,
            &principal.caller_header,
        );
        headers::stamp_forwarded(fields, client, self.peer.scheme, host);
        self.trace.write(fields);
    }

    /// Copies the facts of all calls into the access record and the state of the charge.
    fn record(&mut self, facts: Facts) {
        self.ending.attempts = facts.attempts;
        self.ending.by_callers_time |= facts.by_callers_time;
        self.stated_cost = facts.cost;
        self.watch.bytes_in = facts.bytes_in;
        if let Some(detail) = facts.detail {
            self.watch.note_fault(detail);
        }
    }

    /// Stage 8: refunds the charge if none is owed, or corrects it to the cost that the backends stated. `own` is the
    /// route's cost. Called once per request, after the last call has ended.
    fn settle(&mut self, own: u64) {
        if self.stated_cost.is_partly_unreadable() {
            self.watch
                .note_fault("a backend's cost is not a number: the route's own holds");
        }
        let Some(receipt) = &mut self.receipt else { return };
        if self.ending.is_refunded() {
            receipt.refund(Now::read());
        } else if let Some(cost) = self.stated_cost.total(own) {
            receipt.settle(Now::read(), cost);
        }
    }

    /// Returns the setting that led to the result, located in the config of this request.
    fn decided_by(&self, setting: Option<Setting>) -> Box<Decided> {
        let setting = match setting {
            Some(Setting::RouteTime) if self.is_hurried => Some(Setting::CallersWish),
            setting => setting,
        };
        Box::new(Decided::by(setting, Arc::clone(&self.plan.outline) as _))
    }

    /// Builds the response to a rejected request and notes the reason.
    fn refuse(&mut self, rejection: &Rejection, request_id: &HeaderValue) -> Response<Content> {
        self.watch.refused(rejection.reason());
        self.watch.decided = Some(self.decided_by(self.decided.or(rejection.setting())));
        let request_id = request_id.to_str().unwrap_or_default();
        let mut response = match self.is_grpc {
            true => grpc::refusal(rejection, request_id),
            false => problem::answer(rejection, request_id),
        };
        match (rejection, &self.receipt) {
            (
                Rejection::RateLimited(violation)
                | Rejection::QuotaExhausted(violation)
                | Rejection::TooManyInFlight(violation),
                _,
            ) => self.watch.limit = violation.limits.first().cloned(),
            (_, Some(receipt)) => receipt.tell(response.headers_mut(), Now::read()),
            (_, None) => {}
        }
        response.map(Content::Whole)
    }
}

fn respond(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

fn entrant(principal: &Principal) -> Entrant {
    // The call itself sets the time until which a slot is useful.
    Entrant {
        tenant: principal.share,
        tier: principal.tier.number,
        weight: principal.tier.weight,
        deadline: Moment::MAX,
    }
}
