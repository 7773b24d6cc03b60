//! Who asks: the stage that may take a while, because a password is slow to compare on purpose.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, request};

use super::Exchange;
use crate::clock;
use crate::intake::address::{self, ClientAddress};
use crate::intake::caller::Kind;
use crate::intake::doorman::{Client, Refusal};
use crate::intake::limits::owner::Owner;
use crate::intake::limits::{self, Charges};
use crate::intake::passwords::PasswordCheck;
use crate::intake::tiers::Known;
use crate::observe::CallerKind;
use crate::plan::Route;
use crate::rejection::Rejection;

/// A request whose credential takes a while to check.
pub(super) struct Unproven {
    pub(super) check: Box<PasswordCheck>,
    pub(super) client: ClientAddress,
    pub(super) head: request::Parts,
}

impl Exchange<'_> {
    /// Who asks; or what has to be done before that can be told.
    pub(super) fn identify(
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
    pub(super) async fn prove(&self, unproven: Unproven) -> Result<request::Parts, Rejection> {
        let Unproven { check, client, head } = unproven;
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let until = clock::instant(self.started + self.plan.time.request);
        tokio::time::timeout_at(until, check.done(address))
            .await
            .unwrap_or(Err(Rejection::OutOfTime))?;
        Ok(head)
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
