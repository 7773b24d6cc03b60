//! Tells a caller its own plan: tier, limits, what is left of them, and what it has used.
//!
//! Invariant: it tells of the caller's accounts alone. A caller without credentials has those of its address and no usage,
//! because the usage of all such callers is counted together; the balance of an account that others share is left out.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::exchange::Exchange;
use crate::auth::caller::Kind;
use crate::clock::Now;
use crate::header_fields;
use crate::limits::{LimitHandle, Mode};
use crate::message::{FieldMap, Response};
use crate::response::Content;
use crate::tenancy::Principal;
use crate::usage::{Usage, events};

impl Exchange<'_> {
    /// Answers with the plan of the caller. `status` and `headers` are those of the route.
    pub(super) fn own_plan(&self, status: StatusCode, headers: &FieldMap, principal: &Principal) -> Response<Content> {
        let told = told(principal, &self.plan.observer.usage, Now::read());
        let body = Bytes::from(told.to_string());
        let mut response = Response::new(Content::Whole(body.clone()));
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        response
    }
}

fn told(principal: &Principal, usage: &Usage, now: Now) -> Value {
    let caller = &principal.caller;
    let is_anonymous = caller.kind == Kind::Anonymous;
    let key = matches!(caller.kind, Kind::ApiKey).then_some(&caller.id);
    let holds = principal.holds();
    let limits: Vec<_> = holds
        .iter()
        .filter(|hold| hold.limit.mode == Mode::Enforce)
        .map(|hold| limit(hold, now))
        .collect();
    let mut told = json!({
        "tenant": (!is_anonymous).then_some(&caller.tenant),
        "key": key,
        "tier": principal.tier.name,
        "limits": limits,
    });
    if usage.is_on() && !is_anonymous {
        let (today, this_month) = usage.of_tenant(&caller.tenant).unwrap_or_default();
        told["usage"] = json!({ "today": events::numbers(&today), "this_month": events::numbers(&this_month) });
    }
    told
}

fn limit(hold: &LimitHandle, now: Now) -> Value {
    let terms = hold.account.terms();
    json!({
        "name": hold.limit.name,
        "kind": terms.kind().as_str(),
        "limit": terms.most(),
        "per_second": terms.per_second(),
        "remaining": (!hold.is_shared).then(|| hold.account.balance(now)),
        "resets_in_seconds": terms.renewed_in(now).map(header_fields::whole_seconds),
    })
}
