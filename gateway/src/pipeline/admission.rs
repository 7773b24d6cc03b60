//! Refuses newcomers of the cheapest tiers while the worker is overloaded, before anything is charged or sent.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::decision::AuthorizedRequest;
use super::peer::Peer;
use crate::auth::caller::Kind;
use crate::plan::Target;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// `Retry-After` of a refusal: longer than the guard takes to see a change.
const COME_BACK: Duration = Duration::from_secs(1);

/// Lets the request pass unless the worker is overloaded and the caller's tier is among those refused. An anonymous
/// caller counts as one of the cheapest tier, whatever its own. What is answered directly passes: the answer costs no
/// more than the refusal.
pub(super) fn admit(peer: &Peer, request: &AuthorizedRequest<'_>) -> Result<(), Rejection> {
    let admission = &peer.load.admission;
    if admission.is_open() || matches!(request.route.target, Target::Respond { .. } | Target::Redirect(_)) {
        return Ok(());
    }
    let tier = &request.principal.tier;
    let is_anonymous = request.principal.caller.kind == Kind::Anonymous;
    if admission.admits(if is_anonymous { 0 } else { tier.rank }, fastrand::f64()) {
        return Ok(());
    }
    tier.refused.fetch_add(1, Relaxed);
    Err(Rejection::Overloaded {
        retry_after: COME_BACK,
        by: Some(SettingId::OVERLOAD),
    })
}
