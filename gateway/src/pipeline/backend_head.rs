//! Writes the head that backends get. Done after the charge, because a request that a limit refuses needs none.

use http::header::HOST;
use http::uri::Authority;

use super::decision::Decision;
use super::peer::Peer;
use crate::auth::credential_removal;
use crate::headers::{self, AddedFields, AddedHeaders, Trace, ValueText, X_REQUEST_ID};
use crate::plan::Plan;
use crate::template::Sources;

impl Decision<'_> {
    /// Writes the head of a request that goes on: removes the credential, adds the fields that tell where the request
    /// comes from (identity, forwarding, trace), and applies the rules of the route. `has_own_id` says whether the
    /// gateway made the id of the request.
    pub(super) fn write_head(
        &mut self,
        plan: &Plan,
        peer: &Peer,
        trace: &Trace,
        has_own_id: bool,
        text: &mut ValueText,
    ) {
        let Ok(request) = &mut self.outcome else { return };
        let (route, principal) = (request.route, &request.principal);
        let fields = &mut request.head.headers;
        let caller = &principal.caller.kind;
        let credentials = plan.credential_fields();
        credential_removal::remove(fields, credentials, &route.access, caller, route.forward_credential);
        let AddedHeaders {
            identity,
            forwarded,
            trace: is_traced,
            ratelimit: _,
        } = route.edge.added;
        if identity {
            principal.identity.put(text);
        }
        if forwarded {
            // Of HTTP/1.0, an absolute target may name the host without `Host`. The clone of the field shares its bytes.
            let field = fields.get(HOST).cloned();
            let authority = request.target.uri.authority().map(Authority::as_str);
            let host = field.as_ref().and_then(|host| host.to_str().ok()).or(authority);
            let (client, host) = (&self.found.client, host.unwrap_or_default());
            if client.trusted_peer {
                headers::continue_forwarded(fields, client, peer.scheme, host);
            } else {
                peer.forwarded.put(text, client, peer.scheme, host);
            }
        }
        if is_traced {
            trace.write(fields, text);
        } else if has_own_id {
            fields.remove(&X_REQUEST_ID);
        }
        let added = AddedFields::take(text);
        if route.edge.is_head_read {
            added.insert_into(fields);
        } else {
            request.added = added;
        }
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
