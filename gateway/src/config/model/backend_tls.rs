//! How backends are spoken to in TLS: whom to trust, what to show, by which name.
//!
//! There is no key that leaves a certificate unverified.

use std::path::PathBuf;

use super::tls::{CertificateFiles, TlsVersion};
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// How endpoints are spoken to whose URL begins with `https`. Certificates are always verified.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendTls {
    /// Certificate authorities that are trusted. Left out: those of the system.
    pub ca_file: Option<At<PathBuf>>,
    /// Certificate that is shown to a backend that asks for one (`cert_file` with `key_file`).
    pub certificate: Option<CertificateFiles>,
    /// Name that is asked for (SNI), and that the certificate must have. Left out: the host of the URL.
    pub server_name: Option<At<String>>,
    /// Oldest version of TLS that is spoken.
    pub minimum_version: At<TlsVersion>,
}

impl Read for BackendTls {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ ca_file: $ }"],
        sample: "{ ca_file: ca.pem }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (cert_file, key_file) = (f.path("cert_file"), f.path("key_file"));
            let half = match (&cert_file, &key_file) {
                (Some(file), None) => Some((file, "key_file")),
                (None, Some(file)) => Some((file, "cert_file")),
                _ => None,
            };
            if let Some((file, missing)) = half {
                let message = format!("`{}` needs the key `{missing}`", f.path);
                f.push(
                    Mistake::new(Code::MissingKey, f.at, message)
                        .related(file.span(), "belongs to it")
                        .hint("a certificate is shown with its key, or not at all"),
                );
            }
            Self {
                ca_file: f.path("ca_file"),
                certificate: cert_file
                    .zip(key_file)
                    .map(|(cert_file, key_file)| CertificateFiles { cert_file, key_file }),
                server_name: f.optional("server_name"),
                minimum_version: f.or("minimum_version", TlsVersion::V1_2),
            }
        })
    }
}
