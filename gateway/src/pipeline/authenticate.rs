//! Authenticates the caller. This can take long: a password hash is slow on purpose, the keys of a token's issuer may
//! have to be fetched first, and the external service may have to be asked.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::decision::{Context, Findings, Identification};
use crate::auth::authenticator::{Client, WaitTerms};
use crate::auth::caller::Kind;
use crate::auth::external::question::RequestFacts;
use crate::auth::refusal::Refusal;
use crate::client::address;
use crate::headers;
use crate::limits::owner::Owner;
use crate::limits::store::Origin;
use crate::limits::{Charge, Charges};
use crate::message::RequestHead;
use crate::plan::Route;
use crate::rejection::Rejection;
use crate::tenancy::Principal;

/// Returns the caller. `uri` is the whole request target, with API keys.
///
/// A failure is charged to the client's address only after the check, so that a valid credential is never locked out.
/// The one exception is a password that has to be compared: its failure is charged in advance, and if the address has
/// no tokens left, the password is not compared.
pub(super) async fn authenticate<'a>(
    context: Context<'_>,
    route: &Route,
    uri: &Uri,
    head: &RequestHead,
    found: &mut Findings<'a>,
    charges: &mut Charges,
    mut identification: impl Identification<'a>,
) -> Result<Arc<Principal>, Rejection> {
    let Context { plan, peer, now } = context;
    let address = address::key(found.client.ip, plan.edge.ipv6_prefix);
    let unix_now = now.wall.elapsed().as_secs();
    let certificate = peer.certificate.as_ref().map(|certificate| {
        let authorities = plan.edge.client_authorities(certificate.listener());
        certificate.check(plan.generation, authorities, unix_now)
    });
    let places = plan.key_places.as_ref();
    let gathered = places
        .filter(|_| route.access.admits(&Kind::ApiKey))
        .and_then(|places| places.gather(uri.query(), &head.headers));
    let fields = gathered.as_ref().unwrap_or(&head.headers);
    let failure = || -> Option<Charge> {
        let failures = plan.failures.as_ref()?;
        Some(failures.hold(Owner::Address(address), Origin::Request).charge(1))
    };
    let assumed = identification.assumed().or(peer.assumed.as_deref());
    if let Some(identified) = assumed.and_then(|assumed| assumed.identify(plan, route, unix_now)) {
        return conclude(identified, found, charges, failure);
    }
    let begin_wait = || {
        identification.before_wait(found)?;
        let wish = headers::wanted_deadline(&head.headers)?.unwrap_or(Duration::MAX);
        Ok(WaitTerms {
            keys_until: now.moment + wish.min(route.time_limit),
            keys_until_by: (wish >= route.time_limit).then_some(route.ids.time_limit),
            comparison_until: now.moment + plan.time.request,
            failure: Box::new(failure),
        })
    };
    let client = Client::new(address, certificate).with_facts(RequestFacts {
        method: &head.method,
        path: uri.path(),
        client: found.client.ip,
        worker: peer.worker,
    });
    let identified = plan
        .authenticator
        .identify(fields, &route.access, client, unix_now, begin_wait);
    let identified = identified.await;
    conclude(identified, found, charges, failure)
}

/// Notes the caller, or the failed check with its charge.
fn conclude(
    identified: Result<Arc<Principal>, Refusal>,
    found: &mut Findings<'_>,
    charges: &mut Charges,
    failure: impl FnOnce() -> Option<Charge>,
) -> Result<Arc<Principal>, Rejection> {
    match identified {
        Ok(principal) => {
            found.principal = Some(Arc::clone(&principal));
            match principal.disabled {
                Some(by) => Err(Rejection::TenantDisabled(by)),
                None => Ok(principal),
            }
        }
        Err(Refusal {
            rejection,
            check,
            suspect,
        }) => {
            found.failed_check = check;
            if suspect {
                charges.extend(failure());
            }
            Err(rejection)
        }
    }
}
