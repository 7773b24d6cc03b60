//! Writes the head that backends get. Done after the charge, because a request that a limit refuses needs none.

use http::header::HOST;
use http::uri::Authority;

use super::decision::Decision;
use super::peer::Peer;
use crate::auth::credential_removal;
use crate::headers::{self, Trace, ValueText};
use crate::plan::Plan;
use crate::template::Sources;

impl Decision<'_> {
    /// Writes the head of a request that goes on: removes the credential, sets the fields that tell where the request
    /// comes from (identity, forwarding, trace), and applies the rules of the route.
    pub(super) fn write_head(&mut self, plan: &Plan, peer: &Peer, trace: &Trace, text: &mut ValueText) {
        let Ok(request) = &mut self.outcome else { return };
        let (route, principal) = (request.route, &request.principal);
        let fields = &mut request.head.headers;
        // Of HTTP/1.0, an absolute target may name the host without `Host`.
        let field = fields.get(HOST).cloned();
        let authority = request.target.uri.authority().map(Authority::as_str);
        let host = field.as_ref().and_then(|host| host.to_str().ok()).or(authority);
        // Space for these fields and those of each attempt, so that the map grows only once.
        fields.reserve(12);
        let (places, caller) = (plan.key_places.as_ref(), &principal.caller.kind);
        credential_removal::remove(fields, places, &route.access, caller, route.forward_credential);
        headers::stamp_identity(
            fields,
            &principal.tenant_header,
            &principal.tier_header,
            &principal.caller_header,
        );
        headers::stamp_forwarded(fields, text, &self.found.client, peer.scheme, host.unwrap_or_default());
        trace.write(fields, text);
        if let Some(rules) = &route.edge.request_rules {
            let claims = principal.caller.claims.as_ref();
            let filled = rules.fill(&Sources::of_request(
                &request.captures,
                &request.target.query,
                fields,
                claims,
            ));
            rules.apply(fields, &filled);
        }
    }
}
