//! What a certificate says: for whom it stands, and until when.
//!
//! Reads names alone. Whether to believe them is for whoever verified the chain: for a caller's certificate that is the
//! handshake, for one of ours nobody has to.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use x509_cert::Certificate as Parsed;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// The parts of a certificate that we go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the whole certificate.
    pub digest: [u8; 32],
    /// Among the subject's alternative names, in their order.
    pub uris: Box<[Arc<str>]>,
    /// The same, in lower case. Wildcards are left out of a caller's names, since nobody is everybody.
    pub dns_names: Box<[Arc<str>]>,
    /// As RFC 4514 writes it, the last attribute first; `None` where it is empty.
    pub subject: Option<Arc<str>>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970; from then on it does not hold.
    pub expires: u64,
}

impl Certificate {
    /// `None` if this is no X.509 certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let parsed = Parsed::from_der(der).ok()?;
        let certificate = parsed.tbs_certificate();
        let (mut uris, mut dns_names): (Vec<Arc<str>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
        if let Some((_, SubjectAltName(names))) = certificate.get_extension::<SubjectAltName>().ok()? {
            for name in &names {
                match name {
                    GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().into()),
                    GeneralName::DnsName(name) => dns_names.push(name.as_str().to_ascii_lowercase().into()),
                    _ => {}
                }
            }
        }
        let subject = certificate.subject();
        let validity = certificate.validity();
        Some(Self {
            digest: digest(&SHA256, der).as_ref().try_into().expect("SHA-256 has 32 bytes"),
            uris: uris.into(),
            dns_names: dns_names.into(),
            subject: (!subject.is_empty()).then(|| subject.to_string().into()),
            not_before: validity.not_before.to_unix_duration().as_secs(),
            // The last second is still within (RFC 5280 section 4.1.2.5).
            expires: validity.not_after.to_unix_duration().as_secs() + 1,
        })
    }
}

/// A subject as [`Certificate::subject`] has it, from one that was written by hand; `None` if it is none.
pub fn subject(written: &str) -> Option<String> {
    // Spaces after the commas are for the eye, unless the comma is part of a value.
    let mut tidy = String::with_capacity(written.len());
    for letter in written.chars() {
        if !(letter == ' ' && tidy.ends_with(',') && !tidy.ends_with("\\,")) {
            tidy.push(letter);
        }
    }
    let name: Name = tidy.parse().ok()?;
    (!name.is_empty()).then(|| name.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    /// A certificate with these alternative names, in DER; those with a colon are URIs. The subject is `O`, then `CN`.
    pub(crate) fn made(names: &[&str], subject: Option<(&str, &str)>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some((organization, common_name)) = subject {
            params.distinguished_name.push(DnType::OrganizationName, organization);
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                let text = Ia5String::try_from(*name).unwrap();
                if name.contains(':') {
                    SanType::URI(text)
                } else {
                    SanType::DnsName(text)
                }
            })
            .collect();
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn names_are_read_in_their_order() {
        let der = made(
            &["B.acme.internal", "spiffe://acme/b", "*.acme.internal", "urn:acme:b"],
            Some(("Acme, Inc", "b")),
        );
        let read = Certificate::read(&der).unwrap();
        assert_eq!(
            read.uris.iter().map(|uri| &**uri).collect::<Vec<_>>(),
            ["spiffe://acme/b", "urn:acme:b"]
        );
        assert_eq!(
            read.dns_names.iter().map(|name| &**name).collect::<Vec<_>>(),
            ["b.acme.internal", "*.acme.internal"]
        );
        assert_eq!(read.subject.as_deref(), Some("CN=b,O=Acme\\, Inc"));
        assert!(read.not_before < read.expires);
        let bare = Certificate::read(&made(&["a.b"], None)).unwrap();
        assert_eq!(bare.subject, None);
        assert_ne!(bare.digest, read.digest);
        assert_eq!(Certificate::read(b"no certificate"), None);
        assert_eq!(Certificate::read(&der[..der.len() - 1]), None);
    }

    #[test]
    fn a_written_subject_becomes_one_that_can_be_compared() {
        let check = |written: &str, expected: Option<&str>| {
            assert_eq!(subject(written).as_deref(), expected, "{written}");
        };
        check("CN=b,O=Acme", Some("CN=b,O=Acme"));
        check("cn=b, o=Acme", Some("CN=b,O=Acme"));
        check("CN=b,O=Acme\\, Inc", Some("CN=b,O=Acme\\, Inc"));
        check("O=Acme,CN=b", Some("O=Acme,CN=b"));
        check("b", None);
        check("", None);
    }
}
