//! What `decide` takes: everything about a request that is not its body.

use http::{Method, Uri};

use crate::headers::{Trace, cors, websocket};
use crate::message::RequestHead;
use crate::plan::{Plan, Route};
use crate::routing::{PathPolicy, path_policy};

/// Request without its body. The URI stands apart, because it is borrowed while the header fields change.
pub(super) struct DecisionInput {
    /// Method, version, header fields and extensions; `uri` is empty.
    pub(super) parts: RequestHead,
    /// Request target. An ambiguous path is normalized.
    pub(super) uri: Uri,
    /// The same without the API keys in the query; `None` if the query has none.
    pub(super) keyless_uri: Option<Uri>,
    /// Policy by which an ambiguous path was normalized; `None` if the path is not ambiguous or no route matches.
    pub(super) path_policy: Option<PathPolicy>,
    /// Random number, which decides where nothing else does. Drawn before the decision, which then depends on no chance.
    pub(super) chance: u64,
}

impl DecisionInput {
    pub(super) fn read(plan: &Plan, mut parts: RequestHead, trace: &Trace) -> Self {
        websocket::unfold(&mut parts);
        let mut uri = std::mem::take(&mut parts.uri);
        let path_policy = normalize_path(plan, &mut uri, &parts);
        let places = plan.key_places.as_ref();
        Self {
            keyless_uri: places.and_then(|places| places.without_keys(&uri)),
            parts,
            uri,
            path_policy,
            chance: trace.chance(),
        }
    }

    /// Method that a CORS preflight asks for; `None` if the request is not a preflight.
    pub(super) fn preflight_method(parts: &RequestHead) -> Option<Method> {
        cors::preflight(&parts.method, &parts.headers)
    }
}

/// Normalizes an ambiguous path by the policy of the route that it matches, and returns that policy.
fn normalize_path(plan: &Plan, uri: &mut Uri, parts: &RequestHead) -> Option<PathPolicy> {
    let policies = &plan.path_policies;
    if policies.is_empty() || !path_policy::is_odd(uri.path()) {
        return None;
    }
    let wanted = DecisionInput::preflight_method(parts);
    let request = (wanted.as_ref().unwrap_or(&parts.method), parts.version);
    let policy_of = |route: &std::sync::Arc<Route>| route.edge.path_policy;
    let (normal, policy) = path_policy::settle(&plan.routes, policies, policy_of, request, uri, &parts.headers)?;
    *uri = normal;
    Some(policy)
}
