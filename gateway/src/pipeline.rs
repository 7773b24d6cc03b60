//! A request's life, in order.
//!
//! clean headers, request id, trace, client address -> route? -> who? -> allowed? -> how many? -> how long?
//! -> call one backend | aggregate several | answer directly -> respond -> observe (at the last byte)
//!
//! Each stage takes a value and returns a value or a [`Rejection`]; `?` is the way out. Nothing is decided here.

mod fallback;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use policies::bulkhead::Entrant;
use policies::{Deadline, Moment, WallTime};

use crate::aggregate::{self, Aggregate, Failure};
use crate::answer::{AnswerBody, Content};
use crate::call::backend::Backend;
use crate::call::replay::Replay;
use crate::call::{self, Facts, Order, OrderBody, Reply, Streaming};
use crate::caller_body::CallerBody;
use crate::clock::{self, Now};
use crate::intake::address::{self, ClientAddress};
use crate::intake::caller::Kind;
use crate::intake::certificate::Certificate;
use crate::intake::cors;
use crate::intake::doorman::{Client, Refusal};
use crate::intake::finish::Finishing;
use crate::intake::headers::{self, Scheme, Wishes};
use crate::intake::json_body;
use crate::intake::limits::owner::Owner;
use crate::intake::limits::{self, Charges, Receipt};
use crate::intake::passwords::PasswordCheck;
use crate::intake::tiers::Known;
use crate::intake::websocket::{self, Handshake};
use crate::observe::{CallerKind, RequestRecord, Watch};
use crate::plan::{Plan, Route, Target};
use crate::rejection::Rejection;
use crate::routing::{PathPolicy, path_policy};
use crate::template::{Captures, Missing, Sources, Template};
use crate::tunnel::Tunnel;
use crate::{grpc, problem, routing};

/// Whom a connection comes from, and which worker serves it.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub worker: usize,
    pub scheme: Scheme,
    /// That the caller has shown, verified.
    pub certificate: Option<Certificate>,
}

/// When to come back who was refused for nothing of their own.
const SOON: Duration = Duration::from_secs(1);

/// Answers a request; every request ends in a response.
pub async fn serve(plan: &Plan, peer: &Peer, mut request: Request<CallerBody>) -> Response<AnswerBody> {
    let (started, unix_started) = (clock::now(), clock::unix_time());
    let request_id = headers::request_id(request.headers_mut());
    let is_head = request.method() == Method::HEAD;
    let is_grpc = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    let mut watch = Box::new(plan.observer.watch(RequestRecord::begin(
        started,
        unix_started,
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
        unix_started,
        watch: &mut watch,
        is_grpc,
        finishing: None,
        receipt: None,
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
        Err(rejection) => exchange.refuse(&rejection, &request_id),
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
    unix_started: Duration,
    watch: &'a mut Watch,
    is_grpc: bool,
    /// Once the route is known, if it has something to say on its answers.
    finishing: Option<Finishing>,
    /// Once the request has been charged.
    receipt: Option<Receipt>,
}

/// What the stages have found out, for the target.
struct Cleared<'a> {
    route: &'a Route,
    captures: Captures<'a>,
    known: Arc<Known>,
    deadline: Deadline,
    uri: &'a Uri,
    head: request::Parts,
    wishes: Wishes,
    /// To turn the connection into a WebSocket.
    handshake: Option<Handshake>,
}

/// A caller whose connection is to become a WebSocket, if the backend agrees.
struct Switching {
    handshake: Handshake,
    caller: OnUpgrade,
}

/// Why a request is not cleared.
enum Stop {
    Refused(Rejection),
    /// It is answered without anyone being asked.
    Answered(Box<Response<Content>>),
    Unproven(Box<Unproven>),
}

/// A request whose credential takes a while to check.
struct Unproven {
    check: Box<PasswordCheck>,
    client: ClientAddress,
    head: request::Parts,
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
        if let Some(places) = &self.plan.key_places {
            uri = places.gather(uri, &mut head.headers);
        }
        let settled = self.settle_path(&mut uri, &head);
        let cleared = match self.clear(&uri, settled, head) {
            Ok(cleared) => cleared,
            Err(Stop::Refused(rejection)) => return Err(rejection),
            Err(Stop::Answered(response)) => return Ok(*response),
            Err(Stop::Unproven(unproven)) => {
                let head = self.prove(*unproven).await?;
                match self.clear(&uri, settled, head) {
                    Ok(cleared) => cleared,
                    Err(Stop::Refused(rejection)) => return Err(rejection),
                    Err(Stop::Answered(response)) => return Ok(*response),
                    // Forgotten already, which takes thousands of others in between.
                    Err(Stop::Unproven(_)) => return Err(Rejection::Overloaded { retry_after: SOON }),
                }
            }
        };
        self.wait_its_turn().await;
        let mut response = match &cleared.route.target {
            Target::Backend { backend, rewrite } => {
                let route = cleared.route;
                let (order, switching) = self.order(cleared, backend, rewrite.as_ref(), body)?;
                // Nothing can stand in for a tunnel.
                if route.fallbacks.is_empty() || switching.is_some() {
                    let (cost_header, mut facts) = (route.cost_header.as_ref(), Facts::default());
                    let called = self.call(backend, &order, cost_header, switching, &mut facts).await;
                    self.note(facts);
                    called
                } else {
                    Box::pin(self.call_or_fall_back(route, backend, &order)).await
                }
            }
            Target::Aggregate(aggregate) => Box::pin(self.aggregate(cleared, aggregate, body)).await,
            Target::Respond { status, headers, body } => Ok(respond(*status, headers, body)),
        }?;
        if let Some(receipt) = &self.receipt {
            receipt.tell(response.headers_mut(), self.now());
        }
        Ok(response)
    }

    /// An odd path as the policy of its own route has it, and that policy.
    fn settle_path(&self, uri: &mut Uri, head: &request::Parts) -> Option<PathPolicy> {
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

    /// Everything that is decided before anyone is asked.
    fn clear<'u>(
        &mut self,
        uri: &'u Uri,
        settled: Option<PathPolicy>,
        mut head: request::Parts,
    ) -> Result<Cleared<'u>, Stop>
    where
        'p: 'u,
    {
        let plan = self.plan;

        // What came in, and from where?
        let client = plan.edge.trusted.client_address(self.peer.address, &head.headers);
        self.watch.client = Some(client.ip);
        if uri.path().len() + uri.query().map_or(0, str::len) > plan.edge.uri_limit {
            return Err(Rejection::UriTooLong.into());
        }
        headers::check(head.version, &head.headers, plan.edge.header_limit)?;
        headers::join_cookies(head.version, &mut head.headers);

        // Which route?
        let keeps = settled.unwrap_or_default().keeps();
        let target = routing::Target::read(&head.method, head.version, uri, &head.headers, keeps)?;
        if let Some(asked) = cors::preflight(&head.method, &head.headers)
            && let Some(answered) = self.preflight(&target, &asked, &head.headers, &client)
        {
            return Err(answered);
        }
        let (host, path, query) = (target.host.to_owned(), target.path, target.query);
        headers::name_host(head.version, &host, &mut head.headers);
        let found = plan
            .routes
            .find(&host, &path, &head.method, &head.headers, query)
            .map_err(Rejection::from)?;
        let route: &Route = found.target;
        self.watch.route = Some(Arc::clone(&route.metrics));
        let edge = &route.edge;
        if settled.is_some_and(|policy| policy != edge.path_policy) {
            // What it is and what it would be leave for lead to two routes; each has its own reading of the path.
            return Err(Rejection::MalformedRequest {
                why: "the path is read differently by the route that it leads to",
            }
            .into());
        }
        if let Some(finish) = &edge.finish {
            self.finishing = Some(Finishing::begin(finish, &head.headers, false));
        }
        if let Some(addresses) = &edge.addresses {
            addresses.permits(client.ip)?;
        }
        let handshake = self.handshake(&head, edge.upgrades)?;

        // Who asks?
        let known = match self.identify(route, &client, &head.headers)? {
            Ok(known) => known,
            Err(check) => return Err(Stop::Unproven(Box::new(Unproven { check, client, head }))),
        };

        // May they?
        route.access.permits(&known.caller, &known.tier.name)?;

        // How many? Not before what it asks of us is understood: a malformed request is not charged.
        let wishes = headers::clean_request(
            &mut head.headers,
            head.version,
            client.trusted_peer,
            edge.method_override,
            &plan.via,
        )?;
        let limit = wishes
            .deadline
            .map_or(route.time_limit, |wish| wish.min(route.time_limit));
        let charges = self.charges(route, &known, &client);
        self.receipt = Some(limits::take(
            charges,
            self.at(self.started),
            limit.saturating_sub(plan.time.minimum),
        )?);

        // How long?
        let deadline = Deadline::at(self.started + limit);
        self.watch.budget = Some(limit);

        self.stamp(&mut head, route, &known, &client, &host);
        Ok(Cleared {
            route,
            captures: found.captures,
            known,
            deadline,
            uri,
            head,
            wishes,
            handshake,
        })
    }

    /// The answer to a preflight for a route that has something to say on it. `asked` is the method it asks leave for.
    fn preflight(
        &mut self,
        target: &routing::Target<'_, '_>,
        asked: &Method,
        headers: &HeaderMap,
        client: &ClientAddress,
    ) -> Option<Stop> {
        let routes = &self.plan.routes;
        let found = routes
            .find(target.host, &target.path, asked, headers, target.query)
            .ok()?;
        let route = found.target;
        let finish = route.edge.finish.as_ref()?;
        let cors = finish.cors.as_ref()?;
        self.watch.route = Some(Arc::clone(&route.metrics));
        let finishing = Finishing::begin(finish, headers, true);
        let granted = match &route.edge.addresses {
            Some(addresses) => addresses.permits(client.ip),
            None => Ok(()),
        }
        .and_then(|()| cors.grant(&finishing.verdict));
        self.finishing = Some(finishing);
        Some(match granted {
            Ok(fields) => {
                let mut response = Response::new(Content::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = fields;
                Stop::Answered(Box::new(response))
            }
            Err(rejection) => rejection.into(),
        })
    }

    /// A wish to switch to a WebSocket. Browsers do not keep a page of another origin from reading what comes over
    /// one, so where origins are written down, they are demanded here.
    fn handshake(&self, head: &request::Parts, upgrades: bool) -> Result<Option<Handshake>, Rejection> {
        if !upgrades {
            // Of a connection it is a wish that need not be granted; a stream that is not switched is of no use.
            return match websocket::asks_on_stream(head) {
                true => Err(Rejection::MethodNotAllowed {
                    allow: HeaderValue::from_static("GET"),
                }),
                false => Ok(None),
            };
        }
        let handshake = Handshake::read(head)?;
        if let (Some(_), Some(finishing)) = (&handshake, &self.finishing)
            && let Some(cors) = &finishing.finish.cors
        {
            cors.demand(&finishing.verdict, &head.headers)?;
        }
        Ok(handshake)
    }

    /// Who asks; or what has to be done before that can be told.
    fn identify(
        &mut self,
        route: &Route,
        client: &ClientAddress,
        headers: &HeaderMap,
    ) -> Result<Result<Arc<Known>, Box<PasswordCheck>>, Rejection> {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let from = Client {
            address,
            certificate: self.peer.certificate.as_ref(),
        };
        match self
            .plan
            .doorman
            .identify(headers, &route.access, from, clock::unix_seconds())
        {
            Ok(known) => {
                self.watch.tenant = Some(Arc::clone(&known.metrics));
                self.watch.tier = Some(Arc::clone(&known.tier.name));
                self.watch.caller = Some(Arc::clone(&known.caller.id));
                self.watch.caller_kind = caller_kind(&known.caller.kind);
                Ok(Ok(known))
            }
            Err(Refusal {
                awaits: Some(check), ..
            }) => Ok(Err(check)),
            Err(refusal) => {
                self.watch.note_fault(refusal.check);
                // Counted after the answer is known, so that a valid credential is never locked out.
                if let (true, Some(failures)) = (refusal.suspect, &self.plan.failures) {
                    let held = failures.hold(Owner::Address(address), false).charge(1);
                    let _ = limits::take(Charges::from_iter([held]), self.at(self.started), Duration::ZERO)?;
                }
                Err(refusal.rejection)
            }
        }
    }

    /// Waits until a credential that nobody has seen before has been compared; gives the head back to be asked again.
    async fn prove(&self, unproven: Unproven) -> Result<request::Parts, Rejection> {
        let Unproven { check, client, head } = unproven;
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let until = clock::instant(self.started + self.plan.time.request);
        tokio::time::timeout_at(until, check.done(address))
            .await
            .unwrap_or(Err(Rejection::OutOfTime))?;
        Ok(head)
    }

    fn charges(&self, route: &Route, known: &Known, client: &ClientAddress) -> Charges {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let of_tier = known.holds.iter().map(|hold| hold.charge(route.cost));
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

    fn now(&self) -> Now {
        self.at(clock::now())
    }

    /// Both clocks, of which one was read at the start.
    fn at(&self, moment: Moment) -> Now {
        Now {
            moment,
            wall: WallTime::since_epoch(self.unix_started + moment.since(self.started)),
        }
    }

    /// Says what only the gateway may say.
    fn stamp(&self, head: &mut request::Parts, route: &Route, known: &Known, client: &ClientAddress, host: &str) {
        let fields = &mut head.headers;
        // Room for what is stamped here and with each attempt, so that the map grows once.
        fields.reserve(12);
        if let Some(api_key) = self.plan.doorman.api_key_header() {
            fields.remove(api_key);
        }
        if !(route.forward_credential && matches!(known.caller.kind, Kind::Jwt(_))) {
            fields.remove(header::AUTHORIZATION);
        }
        if let Some(rules) = &route.edge.request_rules {
            rules.apply(fields);
        }
        headers::stamp_identity(fields, &known.tenant_header, &known.tier_header, &known.caller_header);
        headers::stamp_forwarded(fields, client, self.peer.scheme, host);
        headers::continue_trace(fields, false);
    }

    /// What the route's backend is to be asked.
    fn order(
        &mut self,
        cleared: Cleared<'_>,
        backend: &Backend,
        rewrite: Option<&Template>,
        body: CallerBody,
    ) -> Result<(Order, Option<Switching>), Rejection> {
        let Cleared {
            route,
            captures,
            known,
            deadline,
            uri,
            mut head,
            wishes,
            handshake,
        } = cleared;
        // Without a connection that can be switched, the wish has gone with the other fields of the connection.
        let switching = handshake.and_then(|handshake| {
            let caller = head.extensions.remove::<OnUpgrade>()?;
            Some(Switching { handshake, caller })
        });
        if let Some(switching) = &switching {
            switching.handshake.stamp(&mut head.headers);
        }
        let target = match rewrite {
            None => uri.path_and_query().cloned(),
            Some(rewrite) => {
                let sources = Sources {
                    captures: &captures,
                    query: uri.query(),
                    headers: &head.headers,
                    claims: known.caller.claims.as_deref(),
                    parts: &|_| None,
                    body: None,
                    item: None,
                    defaults: &[],
                };
                Some(rewritten(rewrite, &sources, uri.query()).map_err(|missing| {
                    self.watch
                        .note_fault(format!("{}: {}", missing.placeholder, missing.why));
                    Rejection::MalformedRequest {
                        why: "a value that this route needs is missing or cannot be used",
                    }
                })?)
            }
        };
        let limit = route.body_limit;
        let body = if body.is_end_stream() {
            OrderBody::Empty
        } else if body.size_hint().lower() > limit {
            return Err(Rejection::BodyTooLarge { limit });
        } else {
            OrderBody::Streamed(Replay::new(body, limit, backend.settings.keep), limit)
        };
        let order = Order {
            method: head.method,
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: head.headers,
            body,
            deadline,
            wished: wishes.deadline.map(|wish| Deadline::at(self.started + wish)),
            trailers: wishes.trailers,
            meant: route.time_limit,
            entrant: entrant(&known),
            is_retry: wishes.is_retry,
            streaming: if route.stream {
                Streaming::Always
            } else {
                Streaming::AsItSays
            },
            switches: switching.is_some(),
        };
        Ok((order, switching))
    }

    async fn call(
        &mut self,
        backend: &Arc<Backend>,
        order: &Order,
        cost_header: Option<&HeaderName>,
        switching: Option<Switching>,
        facts: &mut Facts,
    ) -> Result<Response<Content>, Rejection> {
        self.watch.backend = Some(Arc::clone(&backend.name));
        let mut own = Facts::default();
        let called = call::call(backend, self.peer.worker, order, &mut own).await;
        facts.add(own);
        let Reply { mut head, body } = called?;
        let switched = match switching {
            Some(switching) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                if !switching.handshake.is_confirmed_by(&head.headers) {
                    self.watch
                        .note_fault("the backend switched to something else than was asked for");
                    return Err(Rejection::BackendInvalid);
                }
                let backend = head.extensions.remove::<OnUpgrade>().ok_or(Rejection::Internal)?;
                Some((switching.caller, backend))
            }
            Some(switching) if switching.handshake.of_stream && head.status.is_success() => {
                self.watch.note_fault("the backend answered, and did not switch");
                return Err(Rejection::BackendInvalid);
            }
            _ => None,
        };
        headers::clean_response(&mut head.headers, head.version, &self.plan.via)?;
        if let Some(stated) = cost_header.and_then(|name| head.headers.remove(name)) {
            self.settle(&stated);
        }
        head.version = Version::HTTP_11;
        let content = match switched {
            None => Content::Reply(body),
            Some((caller, to)) => {
                websocket::stamp_upgrade(&mut head.headers);
                Content::Switched(Box::new(Tunnel {
                    caller,
                    backend: to,
                    held: body,
                    idle: backend.settings.idle_stream,
                }))
            }
        };
        Ok(Response::from_parts(head, content))
    }

    /// Corrects the charge to what the backend says the request has cost.
    fn settle(&mut self, stated: &HeaderValue) {
        let now = self.now();
        match (stated.to_str().map(str::parse), &mut self.receipt) {
            (Ok(Ok(cost)), Some(receipt)) => receipt.settle(now, cost),
            _ => self
                .watch
                .note_fault("the backend's cost is not a number: the route's own holds"),
        }
    }

    async fn aggregate(
        &mut self,
        cleared: Cleared<'_>,
        aggregate: &Aggregate,
        body: CallerBody,
    ) -> Result<Response<Content>, Rejection> {
        let known = &cleared.known;
        let body = if aggregate.reads_body {
            let until = clock::instant(cleared.deadline.moment());
            json_body::read(body, cleared.route.body_limit, until).await?
        } else {
            None
        };
        let (body, received) = body.unzip();
        let request = aggregate::Request {
            captures: &cleared.captures,
            query: cleared.uri.query(),
            headers: &cleared.head.headers,
            claims: known.caller.claims.as_deref(),
            body: body.as_ref(),
            deadline: cleared.deadline,
            meant: cleared.route.time_limit,
            entrant: entrant(known),
            is_retry: cleared.wishes.is_retry,
            worker: self.peer.worker,
        };
        let (answered, facts) = aggregate.serve(&request).await;
        let is_unsent = facts.attempts == 0;
        self.record(facts);
        self.watch.bytes_in = received.unwrap_or_default() as u64;
        // Who asked for nothing, or for what cannot be asked for, has been served all the same.
        let failed = match &answered {
            Ok(answer) => answer.faults.iter().any(|(_, fault)| !fault.is_callers()),
            Err(failure) => !failure.fault.is_callers(),
        };
        if is_unsent && failed {
            self.refund();
        }
        self.watch.complete = Some(matches!(&answered, Ok(answer) if answer.is_complete()));
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => return Ok(self.fail(&failure)),
        };
        self.watch.fallbacks.extend(answer.fallbacks());
        let mut response = Response::new(Content::Whole(answer.body.clone()));
        *response.status_mut() = answer.status;
        answer.write_headers(response.headers_mut());
        Ok(response)
    }

    fn note(&mut self, facts: Facts) {
        let is_unsent = facts.attempts == 0;
        self.record(facts);
        if is_unsent {
            self.refund();
        }
    }

    fn record(&mut self, facts: Facts) {
        self.watch.attempts = facts.attempts;
        self.watch.queued = facts.queued;
        self.watch.connect = (!facts.connecting.is_zero()).then_some(facts.connecting);
        self.watch.first_byte = facts.first_byte;
        self.watch.bytes_in = facts.bytes_in;
        if let Some(detail) = facts.detail {
            self.watch.note_fault(detail);
        }
    }

    /// Nothing was sent, so nothing is owed.
    fn refund(&self) {
        if let Some(receipt) = &self.receipt {
            receipt.refund(self.now());
        }
    }

    /// The answer to a request that was not served.
    fn refuse(&mut self, rejection: &Rejection, request_id: &HeaderValue) -> Response<Content> {
        self.watch.refused(rejection.reason());
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
            (_, Some(receipt)) => receipt.tell(response.headers_mut(), self.now()),
            (_, None) => {}
        }
        response.map(Content::Whole)
    }

    /// The answer of an aggregate that cannot do without the part that failed.
    fn fail(&mut self, failure: &Failure) -> Response<Content> {
        let request_id = self.watch.request_id.clone();
        self.watch
            .note_fault(format!("part {}: {}", failure.part, failure.reason()));
        self.watch.reason = Some(failure.fault.rejection());
        let mut response = problem::part_failed(
            failure.status(),
            failure.reason(),
            &failure.part,
            failure.retry_after(),
            request_id.as_str(),
        );
        failure.write_headers(response.headers_mut());
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

/// The target that a rewrite makes; a query that it does not write itself is passed on.
fn rewritten(rewrite: &Template, sources: &Sources<'_>, query: Option<&str>) -> Result<PathAndQuery, Missing> {
    let mut text = String::with_capacity(64);
    rewrite.render(sources, &mut text)?;
    if let (Some(query), false) = (query, text.contains('?')) {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| Missing {
        placeholder: "rewrite".to_owned(),
        why: "the result is not a request target",
    })
}

fn entrant(known: &Known) -> Entrant {
    // The call knows until when a slot is of use.
    Entrant {
        tenant: known.share,
        tier: known.tier.number,
        weight: known.tier.weight,
        deadline: Moment::MAX,
    }
}

const fn caller_kind(kind: &Kind) -> CallerKind {
    match kind {
        Kind::ApiKey => CallerKind::ApiKey,
        Kind::Jwt(_) => CallerKind::Jwt,
        Kind::Mtls => CallerKind::Mtls,
        Kind::Basic => CallerKind::Basic,
        Kind::Anonymous => CallerKind::Anonymous,
    }
}
