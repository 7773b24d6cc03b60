//! How a listener speaks TLS: what it shows callers, and what it asks of them.

use std::path::PathBuf;

use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// At least one. The server name that a caller asks for (SNI) chooses; the first is shown to callers who ask for
    /// none of them.
    pub certificates: Vec<CertificateFiles>,
    /// Certificate authorities whose client certificates are taken.
    pub client_ca_file: Option<At<PathBuf>>,
    /// Whether a caller must show a certificate. `required` if there is a `client_ca_file`, else `off`.
    pub client: At<ClientCertificates>,
    /// Oldest version of TLS that is spoken.
    pub minimum_version: At<TlsVersion>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateFiles {
    /// The certificate, followed by those that lead to the root.
    pub cert_file: At<PathBuf>,
    /// The private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_file: At<PathBuf>,
}

words! {
    /// Whether callers are asked for a certificate of their own.
    pub enum ClientCertificates { Off = "off", Optional = "optional", Required = "required" }

    pub enum TlsVersion { V1_2 = "1.2", V1_3 = "1.3" }
}

impl Read for Tls {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ certificates: [{ cert_file: $, key_file: edge.key }] }"],
        sample: "{ certificates: [{ cert_file: edge.pem, key_file: edge.key }] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let certificates = f.required_list("certificates");
            let client_ca_file = f.path("client_ca_file");
            let usual = match client_ca_file {
                Some(_) => ClientCertificates::Required,
                None => ClientCertificates::Off,
            };
            let client = f.or("client", usual);
            match (&client_ca_file, client.value) {
                (None, ClientCertificates::Optional | ClientCertificates::Required) => f.push(
                    Mistake::new(
                        Code::MissingKey,
                        client.span(),
                        format!("`{}.client` needs the key `client_ca_file`", f.path),
                    )
                    .hint("write `client_ca_file: ca.pem` beside it, the authority that signs callers' certificates"),
                ),
                (Some(file), ClientCertificates::Off) => f.push(
                    Mistake::new(
                        Code::Conflict,
                        file.span(),
                        format!("`{}.client_ca_file` is of no use", f.path),
                    )
                    .related(client.span(), "callers are not asked for a certificate")
                    .hint("write `client: optional` or `client: required`, or take the file out"),
                ),
                _ => {}
            }
            Some(Self {
                client_ca_file,
                client,
                minimum_version: f.or("minimum_version", TlsVersion::V1_2),
                certificates: certificates?,
            })
        })?
    }
}

impl Read for CertificateFiles {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ cert_file: $, key_file: edge.key }"],
        sample: "{ cert_file: edge.pem, key_file: edge.key }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (cert_file, key_file) = (f.required_path("cert_file"), f.required_path("key_file"));
            Some(Self {
                cert_file: cert_file?,
                key_file: key_file?,
            })
        })?
    }
}
