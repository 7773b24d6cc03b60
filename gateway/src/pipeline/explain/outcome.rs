//! Foresees what would happen to a request now: refused and by what, answered by the gateway, or sent.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;

use super::Scene;
use super::text::{list, time};
use crate::aggregate::{Aggregate, PartFault};
use crate::auth::caller::Kind;
use crate::call::backend::Backend;
use crate::call::foresee::Foreseen;
use crate::limits;
use crate::pipeline::decision::{AuthorizedRequest, Decision, Stop};
use crate::pipeline::fallback::is_outage;
use crate::plan::{Destination, Fallback, Plan, Target};
use crate::rejection::Rejection;
use crate::setting::{Location, SettingId};
use crate::template::Sources;
use crate::tenancy::Principal;

/// What would happen to a request now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Status of the answer; `null` if a backend decides it.
    pub status: Option<u16>,
    /// Reason of a refusal.
    pub reason: Option<&'static str>,
    /// Limits that refuse.
    pub limits: Vec<Arc<str>>,
    /// Backend that gets the request; `null` for an aggregate.
    pub backend: Option<Arc<str>>,
    /// Time that the request would wait for tokens before it is sent.
    pub delay_ms: Option<u64>,
    /// Sentence for people.
    pub text: String,
    /// Setting that refuses; `null` if none would change the answer.
    pub setting: Option<String>,
    pub at: Option<Location>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would be sent to a backend, or its parts to several.
    Sent,
    /// The gateway would answer it without a backend.
    Answered,
    Refused,
    /// It would wait for a slot; what happens then is not known.
    Waits,
    /// The worker refuses a part of such requests, by chance.
    Perhaps,
    /// A slow check would be waited for, which an explanation does not do.
    Unknown,
}

impl Outcome {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            verdict,
            status: None,
            reason: None,
            limits: Vec::new(),
            backend: None,
            delay_ms: None,
            text: text.into(),
            setting: None,
            at: None,
        }
    }

    fn answered(status: StatusCode, text: String) -> Self {
        Self {
            status: Some(status.as_u16()),
            ..Self::new(Verdict::Answered, text)
        }
    }

    fn refused(plan: &Plan, rejection: &Rejection) -> Self {
        let reason = rejection.reason();
        let mut text = format!("{} {}: {}", reason.status().as_u16(), reason.as_str(), reason.title());
        let mut limits = Vec::new();
        if let Rejection::MethodNotAllowed { allow, .. } = rejection {
            text.push_str(&format!(" (allowed: {})", allow.to_str().unwrap_or_default()));
        }
        if let Rejection::MalformedRequest { why, .. } | Rejection::NotAllowed { why, .. } = rejection {
            text.push_str(&format!(" ({})", why.trim_end_matches('.')));
        }
        if let Some(violation) = rejection.violation() {
            limits.clone_from(&violation.limits);
            text.push_str(&format!(" ({}, for {})", list(&limits, "and"), time(violation.wait)));
        }
        Self {
            status: Some(reason.status().as_u16()),
            reason: Some(reason.as_str()),
            limits,
            ..Self::new(Verdict::Refused, text)
        }
        .by(plan, rejection.setting())
    }

    fn by(mut self, plan: &Plan, setting: Option<SettingId>) -> Self {
        if let Some(setting) = setting.and_then(|id| plan.settings.get(id)) {
            self.setting = Some(setting.path.to_string());
            self.at.clone_from(&setting.at);
        }
        self
    }
}

impl Scene<'_> {
    pub(super) fn outcome(&self, decision: &Decision<'_>, would_wait: bool) -> Outcome {
        if would_wait {
            let text = "not decided here: a password has to be compared, the keys of an issuer to be fetched, or the external \
                        service to be asked";
            return Outcome::new(Verdict::Unknown, text);
        }
        let part = match &decision.outcome {
            Ok(request) if !request.answers_itself() => self.refused_part(&request.principal),
            _ => 0.0,
        };
        let overloaded = Rejection::Overloaded {
            retry_after: Duration::from_secs(1),
            by: Some(SettingId::OVERLOAD),
        };
        if part >= 1.0 {
            return Outcome::refused(self.plan, &overloaded);
        }
        let outcome = self.once_admitted(decision);
        if part > 0.0 {
            let text = format!(
                "{:.0} % of such requests are refused (503 overloaded); else: {}",
                part * 100.0,
                outcome.text
            );
            return Outcome {
                verdict: Verdict::Perhaps,
                text,
                ..outcome
            };
        }
        outcome
    }

    /// Returns the part of the newcomers of the caller's tier that the worker refuses now.
    pub(super) fn refused_part(&self, principal: &Principal) -> f64 {
        let rank = match principal.caller.kind {
            Kind::Anonymous => 0,
            _ => principal.tier.rank,
        };
        self.peer.load.admission.refused_part(rank)
    }

    fn once_admitted(&self, decision: &Decision<'_>) -> Outcome {
        let left = match &decision.outcome {
            Ok(request) => {
                let left = request.budget.deadline.remaining(self.now.moment);
                left.saturating_sub(self.plan.time.minimum)
            }
            Err(_) => Duration::ZERO,
        };
        let charged = limits::foresee(&decision.charges, self.now, left);
        let delay = match charged {
            Ok(delay) => delay,
            Err(rejection) => return Outcome::refused(self.plan, &rejection),
        };
        let mut outcome = match &decision.outcome {
            Ok(request) => self.once_charged(request),
            Err(Stop::Refused(rejection)) => Outcome::refused(self.plan, rejection),
            Err(Stop::Preflight(_)) => Outcome::answered(
                StatusCode::NO_CONTENT,
                "204: a CORS preflight that is granted".to_owned(),
            ),
        };
        if !delay.is_zero() {
            outcome.delay_ms = u64::try_from(delay.as_millis()).ok();
            outcome.text = format!("waits {} for tokens; {}", time(delay), outcome.text);
        }
        outcome
    }

    fn once_charged(&self, request: &AuthorizedRequest<'_>) -> Outcome {
        match request.route.target.destination(request.chosen) {
            Destination::Backend { backend, rewrite } => {
                if let Some(rewrite) = rewrite {
                    let claims = request.principal.caller.claims.as_ref();
                    let headers = &request.head.headers;
                    let sources = Sources::of_request(&request.captures, &request.target.query, headers, claims);
                    if let Err(rejection) =
                        super::super::one_backend::rewritten_or_refused(rewrite, &sources, request.target.uri.query())
                    {
                        return Outcome::refused(self.plan, &rejection);
                    }
                }
                self.at_backend(request, backend)
            }
            Destination::Aggregate(aggregate) => self.of_parts(request, aggregate),
            Destination::Respond { status, .. } => {
                Outcome::answered(status, format!("{}: the gateway answers itself", status.as_u16()))
            }
            Destination::Redirect(redirect) => {
                let status = redirect.status;
                Outcome::answered(status, format!("{}: a redirect", status.as_u16()))
            }
        }
    }

    fn at_backend(&self, request: &AuthorizedRequest<'_>, backend: &Arc<Backend>) -> Outcome {
        let planned = self.planned(request);
        let fallbacks = match request.handshake {
            Some(_) => &[][..],
            None => &request.route.fallbacks[..],
        };
        let outcome = match self.foresee(backend, planned) {
            Foreseen::Sent { .. } => Outcome::new(Verdict::Sent, format!("sent to {}", backend.name)),
            Foreseen::Waits => Outcome::new(Verdict::Waits, format!("waits for a slot of {}", backend.name)),
            Foreseen::Refused(rejection) if is_outage(rejection.reason()) && !fallbacks.is_empty() => {
                self.fallen_back(&rejection, fallbacks)
            }
            Foreseen::Refused(rejection) => Outcome::refused(self.plan, &rejection),
        };
        let backend = outcome.backend.clone().or_else(|| Some(Arc::clone(&backend.name)));
        Outcome { backend, ..outcome }
    }

    /// Returns what the first fallback does that surely serves. Whether a stale answer is kept is not looked up.
    fn fallen_back(&self, rejection: &Rejection, fallbacks: &[Fallback]) -> Outcome {
        let why = rejection.reason().as_str();
        match &fallbacks[0] {
            Fallback::Value(_) => Outcome::answered(
                StatusCode::OK,
                format!("200: a fixed value in place of the backend ({why})"),
            ),
            Fallback::Stale(_) => {
                let text = format!("a stale answer if one is kept, else the next fallback or 503 ({why})");
                Outcome::new(Verdict::Unknown, text)
            }
            Fallback::Backend(other) => Outcome {
                backend: Some(Arc::clone(&other.name)),
                ..Outcome::new(
                    Verdict::Sent,
                    format!("sent to {} in place of the backend ({why})", other.name),
                )
            },
        }
        .by(self.plan, rejection.setting())
    }

    fn of_parts(&self, request: &AuthorizedRequest<'_>, aggregate: &Aggregate) -> Outcome {
        let all = aggregate.recipe.parts().iter().zip(&aggregate.calls);
        let mut refused = Vec::new();
        for (part, call) in all {
            let foreseen = self.foresee(&call.backend, self.planned_part(request));
            let Foreseen::Refused(rejection) = foreseen else {
                continue;
            };
            // A part that starts later, or perhaps never, meets another state.
            let starts_now = part.awaits().is_empty() && call.when.is_none() && call.for_each.is_none();
            let has_substitute = part.has_fallback_value() || !call.fallbacks.is_empty();
            if part.is_required() && starts_now && !has_substitute {
                let fault = PartFault::of_rejection(&rejection);
                let (status, reason) = (fault.status(), fault.reason());
                let text = format!("{} {reason}: required part {} fails", status.as_u16(), part.name());
                return Outcome {
                    status: Some(status.as_u16()),
                    reason: Some(reason),
                    ..Outcome::new(Verdict::Refused, text)
                }
                .by(self.plan, rejection.setting());
            }
            refused.push(format!("{} ({})", part.name(), rejection.reason().as_str()));
        }
        let text = match &*refused {
            [] => "its parts are sent".to_owned(),
            refused => format!("its parts are sent, except {}", list(refused, "and")),
        };
        Outcome::new(Verdict::Sent, text)
    }
}

impl AuthorizedRequest<'_> {
    /// Whether the gateway answers without a backend.
    fn answers_itself(&self) -> bool {
        matches!(self.route.target, Target::Respond { .. } | Target::Redirect(_))
    }
}
