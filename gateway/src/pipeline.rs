//! A request's life, in order.
//!
//! clean headers, request id, trace, client address -> route? -> who? -> allowed? -> how many? -> how long?
//! -> call one backend | aggregate several | answer directly -> respond -> observe (at the last byte)
//!
//! Each stage takes a value and returns a value or a [`Rejection`]; `?` is the way out. Nothing is decided here.

mod edge;
mod fallback;
mod one;
mod several;
mod who;

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

use self::who::NeedsPasswordCheck;
use crate::auth::mtls::caller_certificate::CallerCertificate;
use crate::auth::taken;
use crate::call::{Facts, StatedCost};
use crate::client::address::{self, ClientAddress};
use crate::clock::{self, Now};
use crate::headers::cors;
use crate::headers::response::PendingResponseHeaders;
use crate::headers::websocket::{self, Handshake};
use crate::headers::{self, RequestHints, Scheme};
use crate::limits::{self, Charges, Ending, Receipt};
use crate::observe::{Decided, RequestGuard, RequestRecord};
use crate::plan::{Plan, Route, Target};
use crate::rejection::{Rejection, Setting};
use crate::response::{AnswerBody, Content};
use crate::routing::{PathPolicy, path_policy};
use crate::template::{Captures, Query, Sources};
use crate::tenancy::Principal;
use crate::wire::caller_body::CallerBody;
use crate::wire::grpc;
use crate::{problem, routing};

/// Whom a connection comes from, and which worker serves it.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whether the address is that of whoever calls, and not of a load balancer that did not say for whom it connects.
    pub client_is_known: bool,
    pub worker: usize,
    pub scheme: Scheme,
    /// That the caller has shown.
    pub certificate: Option<Arc<CallerCertificate>>,
}

/// When to come back who was refused for nothing of their own.
const SOON: Duration = Duration::from_secs(1);

/// Answers a request; every request ends in a response.
pub async fn serve(plan: &Plan, peer: &Peer, mut request: Request<CallerBody>) -> Response<AnswerBody> {
    let Now { moment: started, wall } = Now::read();
    let request_id = headers::request_id(request.headers_mut());
    let is_head = request.method() == Method::HEAD;
    let is_grpc = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    let mut watch = Box::new(plan.observer.watch(RequestRecord::begin(
        started,
        wall.elapsed(),
        request_id.to_str().unwrap_or_default(),
        request.method().clone(),
        request.uri().path(),
    )));
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
        watch: &mut watch,
        is_grpc,
        finishing: None,
        failure_paid: false,
        has_waited_for_keys: false,
        receipt: None,
        ending: Ending::default(),
        stated_cost: StatedCost::default(),
        decided: None,
        is_hurried: false,
    };
    // A bug that one request meets must not take its neighbours along, nor leave its caller without a word.
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
            // Nothing is under way any more, however long its caller takes over the refusal.
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

/// A request on its way through the stages.
struct Exchange<'a> {
    plan: &'a Plan,
    peer: &'a Peer,
    started: Moment,
    /// The time of day; read anew where the request had to wait to be known.
    wall: WallTime,
    watch: &'a mut RequestGuard,
    is_grpc: bool,
    /// What the answer is given on its way out: by its route, or while that is not known, by the top of the config.
    finishing: Option<PendingResponseHeaders>,
    /// A failed authentication of this request has been charged to its address already.
    failure_paid: bool,
    /// The keys of its token's issuer have been fetched while it waited.
    has_waited_for_keys: bool,
    /// Once the request has been charged.
    receipt: Option<Receipt>,
    /// What becomes of the charge.
    ending: Ending,
    stated_cost: StatedCost,
    /// The setting that decided on a refusal, where the rejection does not carry it.
    decided: Option<Setting>,
    /// The caller allows less time than the route.
    is_hurried: bool,
}

/// What a request asks for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    uri: &'a Uri,
    query: &'a Query<'a>,
    /// The same without the API keys in its query, if it has any there.
    keyless: Option<(&'a Uri, &'a Query<'a>)>,
}

/// What the stages have found out, for the target.
struct Cleared<'a> {
    route: &'a Route,
    captures: Captures<'a>,
    known: Arc<Principal>,
    deadline: Deadline,
    uri: &'a Uri,
    query: &'a Query<'a>,
    head: request::Parts,
    wishes: RequestHints,
    /// To turn the connection into a WebSocket.
    handshake: Option<Handshake>,
}

/// Why a request is not cleared.
enum Stop {
    Refused(Rejection),
    /// It is answered without anyone being asked.
    Answered(Box<Response<Content>>),
    NeedsPasswordCheck(Box<NeedsPasswordCheck>),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl<'p> Exchange<'p> {
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
        let cleared = match self.clear(asked, settled, head) {
            Ok(cleared) => cleared,
            Err(Stop::Refused(rejection)) => return Err(rejection),
            Err(Stop::Answered(response)) => return Ok(*response),
            Err(Stop::NeedsPasswordCheck(unproven)) => {
                let head = self.prove(*unproven).await?;
                match self.clear(asked, settled, head) {
                    Ok(cleared) => cleared,
                    Err(Stop::Refused(rejection)) => return Err(rejection),
                    Err(Stop::Answered(response)) => return Ok(*response),
                    // Forgotten already, which takes thousands of others in between.
                    Err(Stop::NeedsPasswordCheck(_)) => {
                        return Err(Rejection::Overloaded {
                            retry_after: SOON,
                            by: None,
                        });
                    }
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
                by: Some(Setting::ParkedTotal),
            }),
            Target::Backend { backend, rewrite } => self.ask_one(cleared, backend, rewrite.as_ref(), body).await,
            Target::Aggregate(aggregate) => Box::pin(self.ask_several(cleared, aggregate, body)).await,
            Target::Respond { status, headers, body } => Ok(respond(*status, headers, body)),
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

    /// Everything that is decided before anyone is asked.
    fn clear<'u>(
        &mut self,
        asked: Asked<'u>,
        settled: Option<PathPolicy>,
        mut head: request::Parts,
    ) -> Result<Cleared<'u>, Stop>
    where
        'p: 'u,
    {
        let plan = self.plan;
        let Asked { uri, query, .. } = asked;

        // What came in, and from where?
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

        // Which route?
        let keeps = settled.unwrap_or_default().keeps();
        let target =
            routing::Target::read(&head.method, head.version, uri, &head.headers, keeps).inspect_err(|_| {
                self.decided = path_policy::key_that_refused(uri.path()).map(Setting::PathPolicy);
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
            Some(keyless) if taken::removes_from_query(&route.access, route.forward_credential) => keyless,
            _ => (uri, query),
        };
        self.finishing = edge.finish.as_ref().map(|finish| {
            let mut finishing = PendingResponseHeaders::begin(finish, &head.headers, false);
            finishing.fill(&Sources::of_request(&found.captures, query, &head.headers, None));
            finishing
        });
        if settled.is_some_and(|policy| policy != edge.path_policy) {
            // What it is and what it would be leave for lead to two routes; each has its own reading of the path.
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

        // Who asks?
        let known = match self.identify(route, &client, whole.query(), &head.headers)? {
            Ok(known) => known,
            Err(pending) => {
                let wish = headers::wanted_deadline(&head.headers)?.unwrap_or(Duration::MAX);
                return Err(Stop::NeedsPasswordCheck(Box::new(NeedsPasswordCheck {
                    pending,
                    client,
                    until: self.started + wish.min(route.time_limit),
                    head,
                })));
            }
        };

        let claims = known.caller.claims.as_ref();
        if let (Some(finishing), Some(_)) = (&mut self.finishing, claims) {
            finishing.fill(&Sources::of_request(&found.captures, query, &head.headers, claims));
        }

        // May they?
        route.access.permits(&known.caller, &known.tier.name)?;

        // How many? Not before what it asks of us is understood: a malformed request is not charged.
        let wishes = headers::clean_request(
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
        let limit = wishes
            .deadline
            .map_or(route.time_limit, |wish| wish.min(route.time_limit));
        self.is_hurried = limit < route.time_limit;
        let charges = self.charges(route, &known, &client);
        self.receipt = Some(limits::take(
            charges,
            self.at_start(),
            limit.saturating_sub(plan.time.minimum),
        )?);

        // How long?
        let deadline = Deadline::at(self.started + limit);
        self.watch.budget = Some(limit);

        self.stamp(&mut head, route, &known, &client, &host);
        if let Some(rules) = &edge.request_rules {
            let filled = rules.fill(&Sources::of_request(&found.captures, query, &head.headers, claims));
            rules.apply(&mut head.headers, &filled);
        }
        Ok(Cleared {
            route,
            captures: found.captures,
            known,
            deadline,
            uri,
            query,
            head,
            wishes,
            handshake,
        })
    }

    fn charges(&self, route: &Route, known: &Principal, client: &ClientAddress) -> Charges {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let held = known.holds();
        let of_tier = held.iter().map(|hold| hold.charge(route.cost));
        let of_route = route.limits.iter();
        of_tier
            .chain(of_route.map(|limit| limit.charge(known, address, &route.name, route.cost)))
            .collect()
    }

    /// A request that was charged in advance goes on when its tokens are there.
    async fn wait_its_turn(&mut self) {
        if let Some(delay) = self.receipt.as_ref().map(|receipt| receipt.delay)
            && !delay.is_zero()
        {
            self.watch.delayed = delay;
            clock::wait_until(self.started + delay).await;
        }
    }

    /// When the request began, and the time of day as it goes on: a quota is taken from the period that it is now, however
    /// long the request has waited to be known.
    const fn at_start(&self) -> Now {
        Now {
            moment: self.started,
            wall: self.wall,
        }
    }

    /// Says what only the gateway may say.
    fn stamp(&self, head: &mut request::Parts, route: &Route, known: &Principal, client: &ClientAddress, host: &str) {
        let fields = &mut head.headers;
        // Room for what is stamped here and with each attempt, so that the map grows once.
        fields.reserve(12);
        let (places, caller) = (self.plan.key_places.as_ref(), &known.caller.kind);
        taken::remove(fields, places, &route.access, caller, route.forward_credential);
        headers::stamp_identity(fields, &known.tenant_header, &known.tier_header, &known.caller_header);
        headers::stamp_forwarded(fields, client, self.peer.scheme, host);
        headers::continue_trace(fields, false);
    }

    /// Notes what happened in all calls together.
    fn record(&mut self, facts: Facts) {
        self.ending.attempts = facts.attempts;
        self.ending.by_callers_time |= facts.by_callers_time;
        self.stated_cost = facts.cost;
        self.watch.attempts = facts.attempts;
        self.watch.queued = facts.queued;
        self.watch.connect = (!facts.connecting.is_zero()).then_some(facts.connecting);
        self.watch.first_byte = facts.first_byte;
        self.watch.bytes_in = facts.bytes_in;
        if let Some(detail) = facts.detail {
            self.watch.note_fault(detail);
        }
    }

    /// Gives the charge back if nothing is owed, else corrects it to what the backends say that the request has cost;
    /// `own` is what the route says. Once for a request, when nobody is asked any more.
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

    /// The setting that decided, in the config that holds for this request.
    fn decided_by(&self, setting: Option<Setting>) -> Box<Decided> {
        let setting = match setting {
            Some(Setting::RouteTime) if self.is_hurried => Some(Setting::CallersWish),
            setting => setting,
        };
        Box::new(Decided::by(setting, Arc::clone(&self.plan.outline) as _))
    }

    /// The answer to a request that was not served.
    fn refuse(&mut self, rejection: &Rejection, request_id: &HeaderValue) -> Response<Content> {
        self.watch.refused(rejection.reason());
        let mut decided = self.decided_by(self.decided.or(rejection.setting()));
        if let Rejection::RateLimited(violation)
        | Rejection::QuotaExhausted(violation)
        | Rejection::TooManyInFlight(violation) = rejection
        {
            decided.limit = Some(Arc::clone(&violation.key));
        }
        self.watch.decided = Some(decided);
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

fn entrant(known: &Principal) -> Entrant {
    // The call knows until when a slot is of use.
    Entrant {
        tenant: known.share,
        tier: known.tier.number,
        weight: known.tier.weight,
        deadline: Moment::MAX,
    }
}
