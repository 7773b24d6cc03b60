//! What a listener shows to callers who speak TLS, and what it asks of them.
//!
//! Invariant: whatever is wrong with certificates, keys or authorities is found when a plan is made, so that a
//! handshake fails only through the caller. Sessions are resumed with tickets, which cost no memory here and no lock
//! between workers. Their key is made with each plan: a caller who has been verified under a plan that is gone is
//! verified again. There is no early data, which could be replayed.

use std::collections::HashMap;
use std::fmt;
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

/// Compiled form of a listener's `tls`.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// In declared order.
    pub shown: Arc<[Certificate]>,
    /// Who vouches for the certificates of callers; `None` if they are not asked for one.
    pub client_authorities: Option<Arc<ClientAuthorities>>,
}

/// A certificate with its chain and key, ready to be shown.
#[derive(Debug)]
pub struct Identity {
    certificate: Certificate,
    key: Arc<CertifiedKey>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMistake {
    NotPem(String),
    NoCertificate,
    NoKey,
    /// Not one that can be used: encrypted, of an unknown kind, too short.
    Key(String),
    /// The key belongs to another certificate.
    KeyMismatch,
    Certificate(String),
    NotYetValid {
        from: u64,
    },
    Expired {
        since: u64,
    },
}

impl Tls {
    /// `identities` has at least one. `offers` are the protocols that are spoken within, the first preferred (ALPN).
    ///
    /// # Errors
    /// The TLS versions cannot be spoken.
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
    /// From PEM: `chain` is the certificate and those that lead to its root, `key` is not encrypted.
    ///
    /// # Errors
    /// What is wrong with the chain or the key; which of them, [`TlsMistake::is_about_the_key`] tells.
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

/// The authorities of a PEM file, by which callers' certificates are verified.
///
/// # Errors
/// The file has none, or one that cannot be used.
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

/// Chooses by the server name that a caller asks for, and among several by what its signatures may be.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    /// In lower case; a wildcard without its `*`, beginning with a dot.
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

    /// A wildcard stands for one label (RFC 9525 section 6.3).
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

impl TlsMistake {
    /// Whether it is the key's file that must be mended, not the certificate's.
    pub const fn is_about_the_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Key(_) | Self::KeyMismatch)
    }
}

impl fmt::Display for TlsMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem(error) => write!(f, "is not PEM: {error}"),
            Self::NoCertificate => f.write_str("holds no certificate"),
            Self::NoKey => f.write_str("holds no private key"),
            Self::Key(error) => write!(f, "holds a key that cannot be used: {error}"),
            Self::KeyMismatch => f.write_str("holds the key of another certificate"),
            Self::Certificate(error) => write!(f, "holds a certificate that cannot be used: {error}"),
            Self::NotYetValid { from } => write!(f, "holds a certificate that is not valid before {}", day(*from)),
            Self::Expired { since } => write!(f, "holds a certificate that expired on {}", day(*since)),
        }
    }
}

impl std::error::Error for TlsMistake {}

/// The day of an instant, as `2026-11-24`.
pub fn day(unix: u64) -> String {
    let text = httpdate::HttpDate::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix)).to_string();
    // `Sun, 06 Nov 1994 08:49:37 GMT`: the weekday and the time of day say nothing here.
    text.get(5..16).unwrap_or(&text).to_owned()
}
