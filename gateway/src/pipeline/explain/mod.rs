//! Explains the decision on one request: which route takes it and why, who the caller is, what the limits have left, how
//! long it may take, what guards its backend, and what would happen now.
//!
//! The decision is the one that `decide` makes for every request. What comes after it is asked of the same limits and
//! guards that a request meets, in the same order. Charges nothing and calls nothing: no key is fetched and no password
//! compared, so a request that waits for such a check is not decided here.

mod assumed;
mod caller;
mod coding;
mod guards;
mod outcome;
mod question;
mod route;
mod step;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod time;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::message::{FieldMap, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, Method, StatusCode, Uri, Version, header};
use serde::Serialize;

pub use self::assumed::AssumedCaller;
pub use self::outcome::Outcome;
pub use self::question::{Described, LINK, Question, assumed_caller};
pub use self::step::Step;
use super::decide::decide;
use super::decision::{Decision, Findings, Identification};
use super::decision_input::DecisionInput;
use super::peer::Peer;
use crate::clock::Now;
use crate::headers::{self, ForwardedLines, Trace};
use crate::overload::WorkerLoad;
use crate::plan::Plan;
use crate::plan::own_settings::OwnSettings;
use crate::rejection::Rejection;
use crate::response::Content;
use crate::routing::PathPolicy;

/// Header field in which an operator presents its token, so that the request is explained in place of being served.
pub(super) const ASKS: HeaderName = HeaderName::from_static("x-gateway-explain");

/// Explanation of the decision on one request.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub method: String,
    /// Host that the request names; empty if it names none.
    pub host: String,
    /// Path without the query, which may hold secrets.
    pub path: String,
    pub client: IpAddr,
    /// Number of the config in force, from 1.
    pub generation: u64,
    pub outcome: Outcome,
    /// Facts in the order in which they decide.
    pub steps: Vec<Step>,
}

/// What the explanation reads of a request before the decision changes its head.
pub(super) struct Asked {
    method: Method,
    version: Version,
    uri: Uri,
    headers: FieldMap,
    path_policy: Option<PathPolicy>,
    chance: u64,
}

/// What a request is explained from.
struct Scene<'a> {
    plan: &'a Plan,
    peer: &'a Peer,
    asked: &'a Asked,
    now: Now,
    /// Whether the state is that of a running gateway.
    is_live: bool,
}

/// Identifies the caller of a request that is only explained: waits for nothing.
struct Unhurried<'a> {
    caller: Option<AssumedCaller>,
    /// Set if a slow check would have to be waited for.
    would_wait: &'a Cell<bool>,
}

impl<'a> Identification<'a> for Unhurried<'_> {
    fn before_wait(&mut self, _: &Findings<'a>) -> Result<(), Rejection> {
        self.would_wait.set(true);
        Err(Rejection::Internal)
    }

    fn assumed(&self) -> Option<&AssumedCaller> {
        self.caller.as_ref()
    }
}

/// Explains what `plan` decides on the request now. `load` is that of the worker which the request would come to.
pub fn explain(plan: &Plan, load: Arc<WorkerLoad>, question: Question, is_live: bool) -> Explanation {
    let now = Now::read();
    let Question {
        parts,
        scheme,
        caller,
        from,
    } = question;
    let peer = Peer {
        address: SocketAddr::new(from, 0),
        client_is_known: true,
        worker: 0,
        load,
        scheme,
        certificate: None,
        interim: None,
        forwarded: ForwardedLines::default(),
        assumed: None,
    };
    let trace = Trace::read_or_start(&parts.headers, false);
    let mut head = DecisionInput::read(plan, parts, &trace);
    let asked = Asked::of(&head);
    let would_wait = Cell::new(false);
    let identification = Unhurried {
        caller,
        would_wait: &would_wait,
    };
    let decision = decide(plan, &peer, &mut head, now, identification).now_or_never();
    let decision = decision.expect("a decision is ready at once unless it waits, and here it does not");
    let scene = Scene {
        plan,
        peer: &peer,
        asked: &asked,
        now,
        is_live,
    };
    let mut explanation = scene.explanation(&decision, would_wait.get());
    if let Some(principal) = &decision.found.principal {
        explanation.name_tenant(&OwnSettings::new(plan), &principal.caller.tenant);
    }
    explanation
}

/// Returns the request as it is now if an operator asks for its explanation.
pub(super) fn asked(plan: &Plan, head: &DecisionInput) -> Option<Box<Asked>> {
    let token = plan.edge.operator_token.as_ref()?;
    let presented = head.parts.headers.get(&ASKS)?.to_str().ok()?;
    token.is(presented).then(|| Box::new(Asked::of(head)))
}

/// Answers a request with the explanation of its own decision.
pub(super) fn answer(plan: &Plan, peer: &Peer, asked: &Asked, decision: &Decision<'_>, now: Now) -> Response<Content> {
    let scene = Scene {
        plan,
        peer,
        asked,
        now,
        is_live: true,
    };
    let explanation = scene.explanation(decision, false);
    let mut text = serde_json::to_vec_pretty(&explanation).expect("names are texts, and a Vec takes it all");
    text.push(b'\n');
    let body = Bytes::from(text);
    let mut response = Response::new(Content::Empty);
    *response.status_mut() = StatusCode::OK;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response
            .headers_mut()
            .insert(name, http::HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    response.map(|_| Content::Whole(body))
}

impl Explanation {
    /// Names the tenant in settings that each tenant of the file has of its own, and looks for their places there.
    fn name_tenant(&mut self, own: &OwnSettings<'_>, tenant: &str) {
        for step in &mut self.steps {
            step.name_tenant(own, tenant);
        }
        let outcome = &mut self.outcome;
        if let Some((setting, at)) = outcome.setting.as_ref().and_then(|path| own.find(Some(tenant), path)) {
            (outcome.setting, outcome.at) = (Some(setting), at.or(outcome.at.take()));
        }
    }
}

impl Asked {
    fn of(head: &DecisionInput) -> Self {
        let mut headers = head.parts.headers.clone();
        headers::name_host(head.parts.version, &head.uri, &mut headers);
        Self {
            method: head.parts.method.clone(),
            version: head.parts.version,
            uri: head.uri.clone(),
            headers,
            path_policy: head.path_policy,
            chance: head.chance,
        }
    }

    fn host(&self) -> &str {
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.unwrap_or_default()
    }
}

impl Scene<'_> {
    fn explanation(&self, decision: &Decision<'_>, would_wait: bool) -> Explanation {
        let found = &decision.found;
        let mut steps = self.route(found.route);
        steps.push(Step::plain("client", format!("{}", found.client.ip)));
        if let Some(route) = found.route {
            steps.push(self.credential(route, found, would_wait));
            if let Some(principal) = &found.principal {
                steps.extend(self.who(route, principal));
            }
        }
        steps.extend(self.limits(&decision.charges, found));
        if let Ok(request) = &decision.outcome {
            steps.extend(self.overload(&request.principal));
            steps.push(self.time(request));
            steps.extend(self.target(request, found.client.ip));
            steps.extend(self.compression(request.route));
        }
        Explanation {
            method: self.asked.method.to_string(),
            host: self.asked.host().to_owned(),
            path: self.asked.uri.path().to_owned(),
            client: found.client.ip,
            generation: self.plan.generation,
            outcome: self.outcome(decision, would_wait),
            steps,
        }
    }
}
