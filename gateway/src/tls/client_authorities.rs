//! The authorities that vouch for callers' certificates on a listener.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::tls::mistake::TlsMistake;

/// Verifies callers' certificates during the handshake, and again when the authorities change.
pub struct ClientAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// SHA-256 of the authorities.
    digest: [u8; 32],
}

impl ClientAuthorities {
    /// # Errors
    /// If the authorities cannot be used.
    pub fn new(roots: Arc<RootCertStore>, must_show: bool) -> Result<Self, TlsMistake> {
        let digest = digest(&roots);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
        let builder = if must_show {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        Ok(Self {
            verifier: builder
                .build()
                .map_err(|error| TlsMistake::Certificate(error.to_string()))?,
            digest,
        })
    }

    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    pub(crate) const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether the authorities vouch for the first certificate of the chain. Takes a tenth of a millisecond.
    pub(crate) fn vouch(&self, chain: &[CertificateDer<'_>], unix_now: u64) -> bool {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_now));
        let Some((first, others)) = chain.split_first() else {
            return false;
        };
        self.verifier.verify_client_cert(first, others, now).is_ok()
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of the authorities, independent of their order.
pub fn digest(roots: &RootCertStore) -> [u8; 32] {
    let mut anchors: Vec<_> = roots
        .roots
        .iter()
        .map(|anchor| {
            let constraints = anchor.name_constraints.as_deref().unwrap_or_default();
            let mut whole = Context::new(&SHA256);
            for part in [&anchor.subject, &anchor.subject_public_key_info, constraints] {
                whole.update(&(part.len() as u64).to_be_bytes());
                whole.update(part);
            }
            whole.finish()
        })
        .collect();
    anchors.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    let mut all = Context::new(&SHA256);
    anchors.iter().for_each(|anchor| all.update(anchor.as_ref()));
    all.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
