//! Explains what would answer a request: a backend, one of several, the parts of an aggregate, or the gateway itself.

use std::net::IpAddr;

use http::{Method, StatusCode};
use policies::split::Share;

use super::Scene;
use super::step::Step;
use super::text::list;
use crate::aggregate::{Aggregate, FieldChoice};
use crate::cache::responses::CacheTerms;
use crate::call::foresee::Planned;
use crate::call::hedge::Hedge;
use crate::client::address;
use crate::clock;
use crate::idempotency::IdempotencyTerms;
use crate::message::FieldMap;
use crate::metering::Metering;
use crate::pipeline::decision::AuthorizedRequest;
use crate::pipeline::exchange::entrant;
use crate::plan::split::Split;
use crate::plan::{Destination, Fallback, KeySources, Target};

/// Says what the response cache does with a request. Whether there is a stored answer is not looked up.
fn cached(terms: &CacheTerms, method: &Method) -> String {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let what = if method.is_safe() {
            "passes by"
        } else {
            "ends the use of the answers stored for its URI"
        };
        return format!("{method} {what}");
    }
    let shared = match terms.shares_with_tenant {
        true => "its tenant",
        false => "this caller",
    };
    format!("a stored answer is used if there is one for everyone or for {shared}")
}

/// Says what the key of a request does. Whether it was sent before is not looked up.
fn once(terms: &IdempotencyTerms, method: &Method, headers: &FieldMap) -> String {
    if method.is_safe() {
        return format!("{method} changes nothing: it passes by");
    }
    let place = match terms.in_store {
        true => "in the shared store",
        false => "in the memory of this process, until it ends",
    };
    let shared = match terms.shares_with_tenant {
        true => "its tenant",
        false => "this caller",
    };
    let kept = super::text::time(terms.keep_for);
    match headers.contains_key("idempotency-key") {
        true => format!("sent once for {shared} with its Idempotency-Key, which is kept for {kept} {place}"),
        false if terms.required => "refused: it has no Idempotency-Key".to_owned(),
        false => "it has no Idempotency-Key: sent each time that it comes".to_owned(),
    }
}

/// Says how the cost of a request is measured.
fn measured(metering: &Metering) -> String {
    let reserve = &metering.reserve;
    let prompt = format!("a unit for each {} bytes of the body", reserve.bytes_per_unit);
    let most: Vec<_> = reserve.most.iter().map(ToString::to_string).collect();
    let reserved = match most.as_slice() {
        [] => prompt,
        [one] => format!("{prompt} and {one} more"),
        all => format!("{prompt} and the largest of {} more", list(all, "and")),
    };
    format!("reserves {reserved}; in the end it costs what the answer says")
}

/// Says when a call is hedged.
fn hedged(hedge: &Hedge) -> String {
    match hedge.delay(clock::now()) {
        Some(delay) => format!(
            "a second attempt goes to another endpoint after {}",
            super::text::time(delay)
        ),
        None => "no second attempt yet: too few calls were seen".to_owned(),
    }
}

impl Scene<'_> {
    /// Returns the target, with the guards of each backend. `client` is the address of the client.
    pub(super) fn target(&self, request: &AuthorizedRequest<'_>, client: IpAddr) -> Vec<Step> {
        let route = request.route;
        let mut steps = Vec::new();
        if let Target::Split { split, .. } = &route.target {
            steps.push(self.split(split, request, client));
        }
        match route.target.destination(request.chosen) {
            Destination::Backend { backend, .. } => {
                steps.push(self.backend("backend", "", backend, self.planned(request)));
                if let Some(hedge) = &route.hedge {
                    let step = Step::plain("hedge", hedged(hedge));
                    steps.push(step.at(self.plan, format!("routes.{}.hedge", route.name)));
                }
                steps.extend(self.fallbacks(request));
            }
            Destination::Aggregate(aggregate) => steps.extend(self.parts(aggregate, request)),
            Destination::Respond { status, .. } => steps.push(self.by_gateway(request, "respond", status)),
            Destination::Redirect(redirect) => steps.push(self.by_gateway(request, "redirect", redirect.status)),
        }
        if let Some(terms) = route.cache.as_ref().filter(|_| request.handshake.is_none()) {
            let text = cached(terms, &request.head.method);
            steps.push(Step::plain("cache", text).at(self.plan, format!("routes.{}.cache", route.name)));
        }
        if let Some(terms) = &route.idempotency {
            let text = once(terms, &request.head.method, &request.head.headers);
            let step = Step::plain("idempotency", text);
            steps.push(step.at(self.plan, format!("routes.{}.idempotency", route.name)));
        }
        if let Some(metering) = &route.metering {
            let step = Step::plain("cost", measured(metering));
            steps.push(step.at(self.plan, format!("routes.{}.cost", route.name)));
        }
        if let Some(mirror) = route.mirror.as_ref().filter(|_| request.is_mirrored) {
            let text = format!("a copy goes to {}, and is never waited for", mirror.mirror.backend.name);
            steps.push(Step::plain("mirror", text).at(self.plan, format!("routes.{}.mirror", route.name)));
        }
        steps
    }

    /// Returns the call of a route's backend.
    pub(super) fn planned(&self, request: &AuthorizedRequest<'_>) -> Planned {
        Planned {
            entrant: entrant(&request.principal),
            is_stream: request.route.stream || request.handshake.is_some(),
            deadline: request.budget.deadline,
            deadline_by: request.budget.by,
        }
    }

    fn by_gateway(&self, request: &AuthorizedRequest<'_>, key: &'static str, status: StatusCode) -> Step {
        let text = format!("the gateway answers {} itself", status.as_u16());
        Step::plain(key, text).at(self.plan, format!("routes.{}.{key}", request.route.name))
    }

    fn split(&self, split: &Split, request: &AuthorizedRequest<'_>, client: IpAddr) -> Step {
        let (principal, headers): (_, &FieldMap) = (&request.principal, &request.head.headers);
        let sources = KeySources {
            principal,
            address: address::key(client, self.plan.edge.ipv6_prefix),
            headers,
            captures: &request.captures,
        };
        let bucket = split.bucket(sources, self.asked.chance).number();
        let chosen = request.chosen.map_or("", |backend| &*backend.name);
        let text = match split.key.to_string().as_str() {
            "none" => format!("{chosen}, by chance: each request by itself"),
            key => format!("{chosen}: by {key} it is in bucket {bucket} of 10000"),
        };
        let targets = split.targets.iter().map(|target| {
            let share = match target.share {
                Share::Part(percent) => format!("{} %", f64::from(percent.hundredths()) / 100.0),
                Share::Rest => "the rest".to_owned(),
            };
            let applies = match target.holds(principal, headers) {
                true => "",
                false => ", but its conditions do not hold",
            };
            Step::plain("split", format!("{} takes {share}{applies}", target.backend.name))
                .at(self.plan, format!("backends.{}", target.backend.name))
        });
        Step::plain("split", text)
            .at(self.plan, format!("routes.{}.split", request.route.name))
            .fact("bucket", bucket)
            .fact("backend", chosen)
            .with(targets)
    }

    fn fallbacks(&self, request: &AuthorizedRequest<'_>) -> Option<Step> {
        let names = request.route.fallbacks.iter().map(|fallback| match fallback {
            Fallback::Value(_) => "a fixed value".to_owned(),
            Fallback::Stale(within) => format!("a stale answer up to {} old", super::text::time(*within)),
            Fallback::Backend(backend) => format!("backend {}", backend.name),
        });
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| {
            Step::plain(
                "fallback",
                format!("if there is no good answer: {}", list(&names, "and then")),
            )
            .at(self.plan, format!("routes.{}.fallback", request.route.name))
        })
    }

    fn parts(&self, aggregate: &Aggregate, request: &AuthorizedRequest<'_>) -> Vec<Step> {
        let all = aggregate.recipe.parts().iter().zip(&aggregate.calls);
        all.map(|(part, call)| {
            let need = match part.is_required() {
                true => "required",
                false => "optional",
            };
            let into = part.host().zip(part.element_place()).map(|(host, place)| {
                let host = aggregate.recipe.parts()[host].name();
                format!("into {host} at {}", place.path())
            });
            let whole = aggregate
                .recipe
                .document()
                .is_some_and(|document| document.name() == part.name());
            let role = match &into {
                Some(into) => format!("{need}, {into}"),
                None if whole => format!("{need}, the whole document"),
                None => need.to_owned(),
            };
            let label = format!("{} ({role}) to ", part.name());
            let step = self.backend("part", &label, &call.backend, self.planned_part(request));
            let step = step.fact("part", &**part.name()).by(self.plan, call.ids.part);
            let step = match into {
                Some(into) => step.fact("into", into),
                None => step,
            };
            let step = match &call.hedge {
                None => step,
                Some(hedge) => step.with([Step::plain("hedge", hedged(hedge)).by(self.plan, call.ids.part)]),
            };
            match &call.cache {
                None => step,
                Some(terms) => {
                    step.with([Step::plain("cache", cached(terms, &Method::GET)).by(self.plan, call.ids.part)])
                }
            }
        })
        .chain(aggregate.fields.as_ref().map(|choice| self.fields(choice, request)))
        .collect()
    }

    /// Says which fields of the document the caller gets.
    fn fields(&self, choice: &FieldChoice, request: &AuthorizedRequest<'_>) -> Step {
        let parameter = choice.parameter();
        let offered: Vec<_> = choice.allowed().map(str::to_owned).collect();
        let text = match choice.read(&request.target.query) {
            Ok(None) => format!("all fields; ?{parameter}= chooses among {}", list(&offered, "and")),
            Ok(Some(_)) => format!("those that ?{parameter}= names"),
            Err(_) => format!(
                "refused: ?{parameter}= names what is not among {}",
                list(&offered, "and")
            ),
        };
        Step::plain("fields", text).at(self.plan, format!("routes.{}.aggregate.fields", request.route.name))
    }

    /// Returns the call of a part that starts at once.
    pub(super) fn planned_part(&self, request: &AuthorizedRequest<'_>) -> Planned {
        Planned {
            is_stream: false,
            ..self.planned(request)
        }
    }
}
