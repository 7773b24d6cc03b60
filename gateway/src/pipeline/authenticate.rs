//! Authenticates the caller. This can take long: a password hash is slow on purpose, and the keys of a token's issuer
//! may have to be fetched first.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, request};
use policies::Moment;

use super::Exchange;
use super::needs_password_check::NeedsPasswordCheck;
use crate::auth::authenticator::Client;
use crate::auth::basic::password_check::PasswordCheck;
use crate::auth::caller::Kind;
use crate::auth::jwt::key_wait::KeyWait;
use crate::auth::refusal::{Pending, Refusal};
use crate::client::address::{self, ClientAddress};
use crate::clock::{self, Now};
use crate::limits::owner::Owner;
use crate::limits::reserved::Reserved;
use crate::limits::store::Origin;
use crate::limits::{self, Charges};
use crate::observe::CallerKind;
use crate::plan::Route;
use crate::rejection::{Rejection, Setting};
use crate::setting::SettingId;
use crate::tenancy::Principal;

impl Exchange<'_> {
    /// Returns the caller, or the pending check that must finish first.
    pub(super) fn identify(
        &mut self,
        route: &Route,
        client: &ClientAddress,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Result<Arc<Principal>, Pending>, Rejection> {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let unix_now = self.wall.elapsed().as_secs();
        let certificate = self.peer.certificate.as_ref().map(|certificate| {
            let authorities = self.plan.edge.client_authorities(certificate.listener());
            certificate.check(self.plan.generation, authorities, unix_now)
        });
        let from = Client {
            address,
            certificate,
            has_waited: self.has_waited_for_keys,
        };
        let places = self.plan.key_places.as_ref();
        let gathered = places
            .filter(|_| route.access.admits(&Kind::ApiKey))
            .and_then(|places| places.gather(query, headers));
        let fields = gathered.as_ref().unwrap_or(headers);
        match self.plan.authenticator.identify(fields, &route.access, from, unix_now) {
            Ok(principal) => {
                self.watch.tenant = Some(Arc::clone(&principal.metrics));
                self.watch.tier = Some(Arc::clone(&principal.tier.name));
                self.watch.unknown_tier.clone_from(&principal.unknown_tier);
                self.watch.caller = Some(Arc::clone(&principal.caller.id));
                self.watch.caller_kind = caller_kind(&principal.caller.kind);
                Ok(Ok(principal))
            }
            Err(Refusal {
                awaits: Some(pending), ..
            }) => Ok(Err(pending)),
            Err(refusal) => {
                self.watch.note_fault(refusal.check);
                // A failure is charged only after the check, so that a valid credential is never locked out.
                let paid = std::mem::take(&mut self.failure_paid);
                if let (true, false, Some(failures)) = (refusal.suspect, paid, &self.plan.failures) {
                    let held = failures.hold(Owner::Address(address), Origin::Request).charge(1);
                    let _ = limits::take(Charges::from_iter([held]), self.at_start(), Duration::ZERO)?;
                }
                Err(refusal.rejection)
            }
        }
    }

    /// Waits for the pending check to finish, then returns the head so that the stages can run again.
    pub(super) async fn finish_authentication(
        &mut self,
        unproven: NeedsPasswordCheck,
    ) -> Result<request::Parts, Rejection> {
        let NeedsPasswordCheck {
            pending,
            client,
            until,
            head,
        } = unproven;
        match pending {
            Pending::Password(check) => self.compare(*check, &client).await?,
            Pending::Keys(wait) => self.fetch_keys(*wait, until).await?,
        }
        self.wall = Now::read().wall;
        Ok(head)
    }

    /// Waits for a password comparison whose result is not cached.
    ///
    /// The client address is charged for a failed authentication in advance. If it has no tokens left, the password is
    /// not compared.
    async fn compare(&mut self, check: PasswordCheck, client: &ClientAddress) -> Result<(), Rejection> {
        let address = address::key(client.ip, self.plan.edge.ipv6_prefix);
        let until = self.started + self.plan.time.request;
        let reserve = || {
            let failures = self.plan.failures.as_ref();
            let held = failures.map(|failures| failures.hold(Owner::Address(address), Origin::Request).charge(1));
            held.map(|held| Reserved::take(held, Now::read())).transpose()
        };
        self.failure_paid = tokio::time::timeout_at(clock::instant(until), check.done(address, until, reserve))
            .await
            .unwrap_or(Err(Rejection::OutOfTime(Setting::At(SettingId::REQUEST_TIME))))?;
        Ok(())
    }

    /// Waits for the keys of a token's issuer to be fetched.
    async fn fetch_keys(&mut self, wait: KeyWait, until: Moment) -> Result<(), Rejection> {
        let check = wait.check;
        wait.done(until)
            .await
            .inspect_err(|_| self.watch.note_fault(check.as_str()))?;
        self.has_waited_for_keys = true;
        Ok(())
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
