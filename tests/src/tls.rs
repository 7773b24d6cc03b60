//! Issues certificates for one test, and speaks TLS with them as a caller or a backend.
//!
//! Nothing is stored: every test has its own authorities, whose names mean nothing elsewhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Authority that signs certificates.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// Certificate with its key.
#[derive(Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
    pub cert_der: Vec<u8>,
    key_der: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = subject(&[(DnType::CommonName, name)]);
        let key = KeyPair::generate().expect("there are random numbers");
        let certificate = params.self_signed(&key).expect("the name fits");
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Issues a certificate with these alternative names; names with a colon are URIs, the others DNS names.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.signed(names, |_| {})
    }

    /// Issues a certificate whose alternative names are these bytes, valid or not.
    pub fn issue_with_names(&self, content: &[u8]) -> Issued {
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content.to_vec());
        self.signed(&[], |params| params.custom_extensions.push(extension))
    }

    /// Issues a certificate without alternative names, with `O` and `CN`.
    pub fn issue_to(&self, organization: &str, common_name: &str) -> Issued {
        let attributes = [
            (DnType::OrganizationName, organization),
            (DnType::CommonName, common_name),
        ];
        self.signed(&[], |params| params.distinguished_name = subject(&attributes))
    }

    /// Issues a certificate that was valid only in the year 2000.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.signed(names, |params| {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        })
    }

    fn signed(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let alternative = |name: &&str| {
            let text = Ia5String::try_from(*name).expect("the test writes ASCII");
            if name.contains(':') {
                SanType::URI(text)
            } else {
                SanType::DnsName(text)
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.iter().map(alternative).collect();
        change(&mut params);
        let key = KeyPair::generate().expect("there are random numbers");
        let certificate = params.signed_by(&key, &self.issuer).expect("the names fit");
        Issued {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            cert_der: certificate.der().to_vec(),
            key_der: key.serialize_der(),
        }
    }
}

fn subject(attributes: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.clone(), *value);
    }
    name
}

/// TLS settings of a caller: the authority it trusts, the name it asks for, and its own certificate.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts `authority`, asks for `name`, and has no certificate.
    pub fn new(authority: &Authority, name: &str) -> Self {
        Self::with(authority, name, None, true)
    }

    /// Presents a certificate when asked for one.
    pub fn showing(authority: &Authority, name: &str, own: &Issued) -> Self {
        Self::with(authority, name, Some(own), true)
    }

    /// Offers no version above TLS 1.2.
    pub fn old(authority: &Authority, name: &str) -> Self {
        Self::with(authority, name, None, false)
    }

    /// Offers these protocols (RFC 7301).
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    fn with(authority: &Authority, name: &str, own: Option<&Issued>, new: bool) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.certificate.der().clone())
            .expect("an authority's certificate");
        let versions: &[_] = if new { &[&TLS13, &TLS12] } else { &[&TLS12] };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that the provider has")
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key_der.clone()));
                let chain = vec![CertificateDer::from(own.cert_der.clone())];
                config
                    .with_client_auth_cert(chain, key)
                    .expect("a certificate with its key")
            }
        };
        Self {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).expect("the test writes a valid name"),
        }
    }

    /// Opens a connection and completes the handshake. A refusal of *our* certificate shows only at the first read.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream).await
    }

    /// Completes the handshake on an existing connection.
    pub async fn over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.config))
            .connect(self.name.clone(), stream)
            .await
    }

    /// Returns the certificate of the other side, in DER.
    ///
    /// # Panics
    /// The other side has no certificate that is trusted for the name.
    pub async fn shown(&self, address: SocketAddr) -> Vec<u8> {
        let stream = self.connect(address).await.expect("hands are shaken");
        let chain = stream.get_ref().1.peer_certificates().expect("it has shown one");
        chain[0].to_vec()
    }
}

/// Returns the TLS settings of a backend: it presents `own`, requires callers' certificates of `callers` if given, and
/// speaks one protocol.
pub(crate) fn acceptor(own: &Issued, callers: Option<&Authority>, protocol: &[u8]) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("versions that the provider has");
    let config = match callers {
        None => config.with_no_client_auth(),
        Some(callers) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(callers.certificate.der().clone())
                .expect("an authority's certificate");
            let provider = Arc::new(default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.expect("there is an authority"))
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key_der.clone()));
    let chain = vec![CertificateDer::from(own.cert_der.clone())];
    let mut config = config.with_single_cert(chain, key).expect("a certificate with its key");
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Speaks TLS in front of a backend that does not. Dropping it closes its connections.
pub struct Front {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Front {
    /// Presents `own`, and requires callers' certificates of `callers` if given.
    pub async fn start(own: &Issued, callers: Option<&Authority>, backend: SocketAddr) -> Self {
        let acceptor = acceptor(own, callers, b"http/1.1");
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // The test sees an error on its own side of the connection.
                    let mut caller = acceptor.accept(stream).await?;
                    let mut backend = TcpStream::connect(backend).await?;
                    copy_bidirectional(&mut caller, &mut backend).await
                });
            }
        });
        Self { address, task }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
