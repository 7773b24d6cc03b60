//! TLS settings of a listener: its certificates, and the authorities that verify callers' certificates.
//!
//! Invariant: every mistake in certificates, keys or authorities is found when a plan is made, so a handshake fails
//! only because of the caller. Sessions are resumed with tickets, which need no memory here and no lock between
//! workers. Each plan has its own ticket key: a caller that was verified under an earlier plan is verified again. There
//! is no early data, because it could be replayed.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, version};

use crate::clock::TlsTime;
use crate::tls::certificate::Certificate;
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::mistake::TlsMistake;

/// Compiled form of a listener's `tls`.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// Certificates of the listener, in declared order.
    pub shown: Arc<[Certificate]>,
    /// Authorities for callers' certificates. `None` if callers are not asked for one.
    pub client_authorities: Option<Arc<ClientAuthorities>>,
}

/// One of the listener's certificates with its chain and key.
#[derive(Debug)]
pub struct Identity {
    certificate: Certificate,
    key: Arc<CertifiedKey>,
}

impl Tls {
    /// Builds the settings. `identities` is not empty. `offers` are the ALPN protocols, most preferred first.
    ///
    /// # Errors
    /// If the TLS versions are not available.
    pub fn new(
        identities: Vec<Identity>,
        client_authorities: Option<Arc<ClientAuthorities>>,
        only_1_3: bool,
        offers: &[&[u8]],
    ) -> Result<Self, TlsMistake> {
        let versions: &[_] = if only_1_3 {
            &[&version::TLS13]
        } else {
            &[&version::TLS13, &version::TLS12]
        };
        let unusable = |error: rustls::Error| TlsMistake::Certificate(error.to_string());
        let config = ServerConfig::builder_with_details(Arc::new(default_provider()), Arc::new(TlsTime))
            .with_protocol_versions(versions)
            .map_err(unusable)?;
        let config = match &client_authorities {
            None => config.with_no_client_auth(),
            Some(authorities) => config.with_client_cert_verifier(authorities.verifier()),
        };
        let shown = identities.iter().map(|identity| identity.certificate.clone()).collect();
        let mut config = config.with_cert_resolver(Arc::new(ByName::new(identities)));
        config.alpn_protocols = offers.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = Ticketer::new().map_err(unusable)?;
        Ok(Self {
            config: Arc::new(config),
            shown,
            client_authorities,
        })
    }
}

impl Identity {
    /// Reads PEM. `chain` is the certificate followed by those that lead to its root; `key` is not encrypted.
    ///
    /// # Errors
    /// The mistake in the chain or the key. [`TlsMistake::is_about_the_key`] tells the two apart.
    pub fn read(chain: &[u8], key: &[u8], unix_now: u64) -> Result<Self, TlsMistake> {
        let chain = certificates(chain)?;
        let certificate = chain
            .first()
            .and_then(|first| Certificate::read(first))
            .ok_or_else(|| TlsMistake::Certificate("it is not an X.509 certificate".to_owned()))?;
        if unix_now < certificate.not_before {
            return Err(TlsMistake::NotYetValid {
                from: certificate.not_before,
            });
        }
        if unix_now >= certificate.expires {
            return Err(TlsMistake::Expired {
                since: certificate.expires,
            });
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => TlsMistake::NoKey,
            other => TlsMistake::Key(other.to_string()),
        })?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsMistake::KeyMismatch,
            rustls::Error::InvalidCertificate(error) => TlsMistake::Certificate(format!("{error:?}")),
            other => TlsMistake::Key(other.to_string()),
        })?;
        Ok(Self {
            certificate,
            key: Arc::new(key),
        })
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Reads the authorities of a PEM file that verify callers' certificates.
///
/// # Errors
/// If the file has no authority, or one that cannot be used.
pub fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsMistake> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsMistake::Certificate(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsMistake> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsMistake::NotPem(error.to_string()))?;
    if all.is_empty() {
        return Err(TlsMistake::NoCertificate);
    }
    Ok(all)
}

/// Chooses a certificate by the requested server name (SNI), then by the signature algorithms that the caller supports.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    /// Keys by name in lower case. A wildcard is stored without its `*`, so it begins with a dot.
    by_name: HashMap<Arc<str>, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    fn new(identities: Vec<Identity>) -> Self {
        let first = Arc::clone(&identities[0].key);
        let mut by_name: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for Identity { certificate, key } in &identities {
            for name in &certificate.dns_names {
                let name = name.strip_prefix('*').map_or(Arc::clone(name), Arc::from);
                by_name.entry(name).or_default().push(Arc::clone(key));
            }
        }
        Self { first, by_name }
    }

    /// Returns the keys for a server name. A wildcard matches exactly one label (RFC 9525 section 6.3).
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let name = name.to_ascii_lowercase();
        let below = || self.by_name.get(&name[name.find('.')?..]);
        self.by_name.get(&*name).or_else(below).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = named.and_then(|keys| keys.iter().find(fits).or(keys.first()));
        Some(Arc::clone(named.unwrap_or(&self.first)))
    }
}
