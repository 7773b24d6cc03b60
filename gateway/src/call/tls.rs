//! TLS toward an endpoint: whom it must be, and what came of asking.
//!
//! Invariant: a certificate that was not verified for the endpoint's name is never spoken to. Sessions are resumed; no
//! request is sent before the handshake is over (there is no early data), so whatever fails here was not sent.

use std::error::Error as _;
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
use crate::observe::{BackendHandshake, BackendMetrics};

/// Sessions of one endpoint that are kept to be resumed, by all workers.
const SESSIONS: usize = 64;

/// Compiled form of a backend's `tls`, for one of its endpoints.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    metrics: Arc<BackendMetrics>,
}

/// What all endpoints of a backend have in common.
///
/// # Errors
/// The library takes none of the versions, which would be our bug.
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
    /// `name` is whom the certificate must stand for, and what is asked for.
    pub fn new(terms: &ClientConfig, name: ServerName<'static>, metrics: Arc<BackendMetrics>) -> Self {
        let mut config = terms.clone();
        // Another endpoint could not resume them.
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Self {
            config: Arc::new(config),
            name,
            metrics,
        }
    }

    /// Shakes hands. Dropped before it is done, it counts as timed out.
    ///
    /// # Errors
    /// What was wrong, for the log; it is counted here.
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

    /// Whether the endpoint has ended a new connection because of our certificate. In TLS 1.3 that is told only after
    /// the handshake, in place of an answer (RFC 8446 section 4.4.2.4): what was sent was not read as a request.
    pub(crate) fn was_refused(&self, error: &hyper::Error) -> bool {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && outcome(error) == BackendHandshake::RefusedByBackend
            {
                self.metrics.handshakes.add(BackendHandshake::RefusedByBackend);
                return true;
            }
            cause = error.source();
        }
        false
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

/// Counts a handshake when it is over, even if it is given up: then it has taken too long.
struct Counted<'a> {
    metrics: &'a BackendMetrics,
    outcome: BackendHandshake,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.handshakes.add(self.outcome);
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
