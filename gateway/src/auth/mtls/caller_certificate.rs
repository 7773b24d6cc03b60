//! Certificate that a caller has presented on its connection.
//!
//! The certificate is verified during the handshake, and the connection may last for days. Invariant: a certificate
//! counts only while the authorities of the plan in force vouch for it. If a plan has other authorities, the
//! certificate is verified once more. After a failed verification it never counts again, and every task that waits in
//! [`CallerCertificate::withdrawn`] is woken.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::auth::check::Check;
use crate::tls::certificate::Certificate;
use crate::tls::client_authorities::ClientAuthorities;

/// Certificate of one connection. A certificate whose names cannot be read is a failed credential, not a missing one.
#[derive(Debug)]
pub struct CallerCertificate {
    named: Result<Certificate, Check>,
    /// The presented certificates: the caller's own, then the intermediate ones.
    chain: Box<[CertificateDer<'static>]>,
    listener: usize,
    /// Generation of the newest plan whose authorities vouch for the certificate, or [`WITHDRAWN`].
    vouched_in: AtomicU64,
    /// Digest of the authorities that verified the certificate last.
    vouched_by: Mutex<[u8; 32]>,
    withdrawn: watch::Sender<bool>,
}

const WITHDRAWN: u64 = u64::MAX;

impl CallerCertificate {
    /// Reads the chain that `authorities` have verified on a connection to this listener. `None` if the chain is empty.
    pub fn read(chain: &[CertificateDer<'_>], listener: usize, authorities: &ClientAuthorities) -> Option<Self> {
        Some(Self {
            named: Certificate::of_caller(chain.first()?).ok_or(Check::CertificateMalformed),
            chain: chain.iter().map(|part| part.clone().into_owned()).collect(),
            listener,
            vouched_in: AtomicU64::new(0),
            vouched_by: Mutex::new(*authorities.digest()),
            withdrawn: watch::Sender::new(false),
        })
    }

    /// Index of the listener in the plan.
    pub const fn listener(&self) -> usize {
        self.listener
    }

    /// Returns the certificate if the listener's authorities under the plan of this generation vouch for it.
    ///
    /// # Errors
    /// [`Check::CertificateUntrusted`] if they do not, [`Check::CertificateMalformed`] if the names cannot be read.
    pub fn check(
        &self,
        generation: u64,
        authorities: Option<&ClientAuthorities>,
        unix_now: u64,
    ) -> Result<&Certificate, Check> {
        match self.vouched_in.load(Relaxed) {
            WITHDRAWN => Err(Check::CertificateUntrusted),
            vouched_in if vouched_in >= generation => self.named.as_ref().map_err(|check| *check),
            _ => self.check_anew(generation, authorities, unix_now),
        }
    }

    #[cold]
    fn check_anew(
        &self,
        generation: u64,
        authorities: Option<&ClientAuthorities>,
        unix_now: u64,
    ) -> Result<&Certificate, Check> {
        let named = self.named.as_ref().map_err(|check| *check);
        if named.is_ok_and(|certificate| !certificate.is_valid_at(unix_now)) {
            // The certificate is outside its validity period, and the caller may be told so. It is not withdrawn,
            // because the clock may be wrong.
            return named;
        }
        let mut vouched_by = self.vouched_by.lock().unwrap_or_else(PoisonError::into_inner);
        let vouch = |authorities: &ClientAuthorities| {
            authorities.digest() == &*vouched_by || authorities.vouch(&self.chain, unix_now)
        };
        let Some(authorities) = authorities.filter(|authorities| vouch(authorities)) else {
            self.vouched_in.store(WITHDRAWN, Relaxed);
            self.withdrawn.send_replace(true);
            return Err(Check::CertificateUntrusted);
        };
        *vouched_by = *authorities.digest();
        self.vouched_in.fetch_max(generation, Relaxed);
        named
    }

    pub fn is_withdrawn(&self) -> bool {
        self.vouched_in.load(Relaxed) == WITHDRAWN
    }

    /// Waits until no authority vouches for the certificate any more.
    pub async fn withdrawn(&self) {
        // The sender lives as long as self, so waiting cannot fail.
        let _ = self.withdrawn.subscribe().wait_for(|withdrawn| *withdrawn).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use rustls::RootCertStore;

    use super::*;

    const NOW: u64 = 1_795_521_600;

    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Authority {
            certificate: params.self_signed(&key).unwrap().der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn authorities(all: &[&Authority]) -> ClientAuthorities {
        let mut roots = RootCertStore::empty();
        for authority in all {
            roots.add(authority.certificate.clone()).unwrap();
        }
        ClientAuthorities::new(Arc::new(roots), true).unwrap()
    }

    fn signed(by: &Authority, name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &by.issuer).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_counts_as_long_as_an_authority_of_the_plan_vouches_for_it() {
        let (own, other, namesake) = (authority("own"), authority("other"), authority("own"));
        let check = |later: &[&[&Authority]], expected: &[bool]| {
            let first = authorities(&[&own]);
            let shown = CallerCertificate::read(&[signed(&own, "a.b")], 3, &first).unwrap();
            assert_eq!(shown.listener(), 3);
            assert!(shown.check(7, Some(&first), NOW).is_ok());
            let answers: Vec<bool> = later
                .iter()
                .zip(8..)
                .map(|(all, generation)| {
                    let all = (!all.is_empty()).then(|| authorities(all));
                    let answer = shown.check(generation, all.as_ref(), NOW).map(drop);
                    assert_eq!(
                        shown.check(generation, all.as_ref(), NOW).map(drop),
                        answer,
                        "asked again"
                    );
                    assert_eq!(answer == Err(Check::CertificateUntrusted), shown.is_withdrawn());
                    answer.is_ok()
                })
                .collect();
            assert_eq!(answers, expected);
        };
        check(&[&[&own]], &[true]);
        check(&[&[&own, &other], &[&other, &own], &[&own]], &[true, true, true]);
        check(&[&[&other]], &[false]);
        check(&[&[&namesake]], &[false]);
        check(&[&[]], &[false]);
        check(&[&[&own, &other], &[&other]], &[true, false]);
        // A withdrawn certificate never counts again.
        check(&[&[&other], &[&own]], &[false, false]);
    }

    #[test]
    fn a_request_of_an_older_plan_is_served_by_that() {
        let (own, other) = (authority("own"), authority("other"));
        let (first, second) = (authorities(&[&own]), authorities(&[&own, &other]));
        let shown = CallerCertificate::read(&[signed(&own, "a.b")], 0, &first).unwrap();
        assert!(shown.check(8, Some(&second), NOW).is_ok());
        assert!(shown.check(7, Some(&first), NOW).is_ok());
    }

    #[test]
    fn one_that_was_verified_by_a_plan_that_is_gone_is_verified_again() {
        let (own, other) = (authority("own"), authority("other"));
        let shown = CallerCertificate::read(&[signed(&own, "a.b")], 0, &authorities(&[&own])).unwrap();
        let answer = shown.check(8, Some(&authorities(&[&other])), NOW);
        assert_eq!(answer.map(drop), Err(Check::CertificateUntrusted));
    }

    #[test]
    fn one_that_is_not_valid_at_the_time_says_so() {
        let (own, other) = (authority("own"), authority("other"));
        let shown = CallerCertificate::read(&[signed(&own, "a.b")], 0, &authorities(&[&own])).unwrap();
        for other_time in [1_900_000_000, 0] {
            let answer = shown.check(8, Some(&authorities(&[&other])), other_time);
            assert!(answer.is_ok_and(|certificate| !certificate.is_valid_at(other_time)));
        }
        // With a corrected clock, the certificate counts again.
        assert!(shown.check(8, Some(&authorities(&[&own])), NOW).is_ok());
    }

    #[test]
    fn one_that_cannot_be_read_fails_whoever_vouches_for_it() {
        let own = authority("own");
        let all = authorities(&[&own]);
        let shown = CallerCertificate::read(&[signed(&own, "a..b")], 0, &all).unwrap();
        for generation in [0, 1, 2] {
            let answer = shown.check(generation, Some(&all), NOW);
            assert_eq!(answer.map(drop), Err(Check::CertificateMalformed));
        }
        assert!(CallerCertificate::read(&[], 0, &all).is_none());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told() {
        let (own, other) = (authority("own"), authority("other"));
        let shown = Arc::new(CallerCertificate::read(&[signed(&own, "a.b")], 0, &authorities(&[&own])).unwrap());
        let waiting = tokio::spawn({
            let shown = Arc::clone(&shown);
            async move { shown.withdrawn().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let _ = shown.check(8, Some(&authorities(&[&other])), NOW);
        waiting.await.unwrap();
        shown.withdrawn().await;
    }
}
