//! TLS to an endpoint: verifies the endpoint's name and counts the results of handshakes.
//!
//! Invariant: no data is sent to an endpoint whose certificate was not verified for its name. Sessions are resumed. No
//! request is sent before the handshake is complete (there is no early data), so a failure here means that nothing
//! was sent.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind, RootCertStore, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::TlsTime;
use crate::observe::{BackendHandshake, BackendMetrics, Family};

/// Maximum number of stored TLS sessions for one endpoint, shared by all workers.
const SESSIONS: usize = 64;

/// TLS settings that the endpoints of a backend share.
#[derive(Debug)]
pub struct EndpointTls {
    pub config: ClientConfig,
    /// Identity of the settings.
    pub terms: TlsTerms,
    pub metrics: Arc<BackendMetrics>,
}

/// Identity of TLS settings. Endpoints with other settings share no connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsTerms {
    /// SHA-256 of the trusted certificate authorities.
    pub authorities: [u8; 32],
    /// SHA-256 of the client certificate.
    pub own: Option<[u8; 32]>,
    pub name: Option<Arc<str>>,
    pub only_1_3: bool,
}

/// Compiled form of a backend's `tls` section for one of its endpoints.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    metrics: Arc<BackendMetrics>,
}

/// Builds the TLS settings that all endpoints of a backend share.
///
/// # Errors
/// Returns an error if the library supports none of the versions, which would be a bug of the gateway.
pub fn terms(
    roots: Arc<RootCertStore>,
    own: Option<Arc<CertifiedKey>>,
    only_1_3: bool,
    in_http2: bool,
) -> Result<ClientConfig, rustls::Error> {
    let versions: &[_] = if only_1_3 {
        &[&version::TLS13]
    } else {
        &[&version::TLS13, &version::TLS12]
    };
    let config = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(TlsTime))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    };
    config.alpn_protocols = vec![if in_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}

impl Tls {
    /// Creates the TLS settings of an endpoint. `name` is sent as server name, and the certificate must be valid for
    /// it.
    pub fn new(terms: &ClientConfig, name: ServerName<'static>, metrics: Arc<BackendMetrics>) -> Self {
        let mut config = terms.clone();
        // Separate for each endpoint, because another endpoint could not resume the sessions.
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Self {
            config: Arc::new(config),
            name,
            metrics,
        }
    }

    /// Performs the handshake and counts it. A handshake dropped before its end counts as timed out.
    ///
    /// # Errors
    /// Returns what went wrong, for the log.
    pub(crate) async fn shake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut counted = Counted {
            metrics: &self.metrics,
            outcome: BackendHandshake::TimedOut,
        };
        let shaken = TlsConnector::from(Arc::clone(&self.config))
            .connect(self.name.clone(), stream)
            .await;
        counted.outcome = match &shaken {
            Ok(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) => {
                BackendHandshake::Resumed
            }
            Ok(_) => BackendHandshake::Full,
            Err(error) => outcome(error),
        };
        shaken.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))
    }

    /// Whether the endpoint closed a new connection because it refused the gateway's certificate. In TLS 1.3 this is
    /// reported only after the handshake, instead of an answer (RFC 8446 section 4.4.2.4). What was sent was not read
    /// as a request.
    pub(crate) fn was_refused(&self, error: &io::Error) -> bool {
        let was_refused = outcome(error) == BackendHandshake::RefusedByBackend;
        if was_refused {
            self.metrics
                .add(Family::BackendHandshakes, BackendHandshake::RefusedByBackend);
        }
        was_refused
    }
}

fn outcome(error: &io::Error) -> BackendHandshake {
    use CertificateError as Wrong;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. })) => {
            BackendHandshake::WrongName
        }
        Some(Error::InvalidCertificate(
            Wrong::Expired | Wrong::ExpiredContext { .. } | Wrong::NotValidYet | Wrong::NotValidYetContext { .. },
        )) => BackendHandshake::Expired,
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => BackendHandshake::Untrusted,
        Some(Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        )) => BackendHandshake::RefusedByBackend,
        Some(_) => BackendHandshake::Failed,
        None => BackendHandshake::Abandoned,
    }
}

/// Counts a handshake when dropped. A handshake that was abandoned counts as timed out.
struct Counted<'a> {
    metrics: &'a BackendMetrics,
    outcome: BackendHandshake,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.add(Family::BackendHandshakes, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_name_of_its_own() {
        let check = |error: Error, expected| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(outcome(&error), expected, "{error}");
        };
        let invalid = Error::InvalidCertificate;
        check(invalid(CertificateError::UnknownIssuer), BackendHandshake::Untrusted);
        check(invalid(CertificateError::Revoked), BackendHandshake::Untrusted);
        check(invalid(CertificateError::NotValidForName), BackendHandshake::WrongName);
        check(invalid(CertificateError::Expired), BackendHandshake::Expired);
        check(invalid(CertificateError::NotValidYet), BackendHandshake::Expired);
        check(
            Error::AlertReceived(AlertDescription::CertificateRequired),
            BackendHandshake::RefusedByBackend,
        );
        check(
            Error::AlertReceived(AlertDescription::ProtocolVersion),
            BackendHandshake::Failed,
        );
        check(Error::DecryptError, BackendHandshake::Failed);
        let hung_up = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(outcome(&hung_up), BackendHandshake::Abandoned);
    }
}
