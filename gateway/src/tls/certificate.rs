//! Reads the names and the validity period of a certificate.
//!
//! Verifies nothing. The TLS handshake verifies callers' certificates; the gateway's own need no verification.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use x509_cert::Certificate as Parsed;
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::tls::certificate_names;

/// Fields of a certificate that the gateway uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the whole certificate.
    pub digest: [u8; 32],
    /// URIs of the subject alternative names, in their order.
    pub uris: Box<[Arc<str>]>,
    /// DNS names of the subject alternative names, in lower case and in their order.
    pub dns_names: Box<[Arc<str>]>,
    /// Subject in the form of RFC 4514, last attribute first. `None` if it is empty.
    pub subject: Option<Arc<str>>,
    /// First second since 1970 in which the certificate is valid.
    pub not_before: u64,
    /// First second since 1970 in which the certificate is no longer valid.
    pub expires: u64,
}

impl Certificate {
    /// Reads a certificate in DER. `None` if it is not an X.509 certificate.
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
            // The last second still belongs to the validity period (RFC 5280 section 4.1.2.5).
            expires: validity.not_after.to_unix_duration().as_secs() + 1,
        })
    }

    pub fn is_valid_at(&self, unix_now: u64) -> bool {
        (self.not_before..self.expires).contains(&unix_now)
    }

    /// Reads a caller's certificate. `None` if its names cannot be read, or have more than one reading.
    pub fn of_caller(der: &[u8]) -> Option<Self> {
        let read = Self::read(der)?;
        let parsed = Parsed::from_der(der).ok()?;
        let mut attributes = parsed.tbs_certificate().subject().iter();
        let reads_well = attributes.all(|attribute| is_text(&attribute.value))
            && read.dns_names.iter().all(|name| certificate_names::is_dns_name(name))
            && certificate_names::are_uris(read.uris.iter().map(|uri| &**uri));
        reads_well.then_some(read)
    }
}

/// Whether an attribute's value is valid text without control characters. A value of a type that is not text is
/// accepted, because it is shown as bytes.
fn is_text(value: &Any) -> bool {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(char::is_control)),
        // In these types every byte is a character.
        Tag::PrintableString | Tag::Ia5String | Tag::TeletexString | Tag::VisibleString | Tag::NumericString => {
            !bytes.iter().any(u8::is_ascii_control)
        }
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks::<2>();
            let text = char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit)));
            rest.is_empty()
                && text
                    .into_iter()
                    .all(|letter| letter.is_ok_and(|letter| !letter.is_control()))
        }
        _ => true,
    }
}

/// Converts a subject from a config into the form of [`Certificate::subject`]. `None` if it is invalid or empty.
pub fn subject(written: &str) -> Option<String> {
    // Spaces after commas are layout, unless the comma is part of a value.
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

    /// Makes a certificate in DER. Alternative names with a colon are URIs. The subject is `O`, then `CN`.
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

    /// Encodes alternative names with their tags: 0x82 for a DNS name, 0x86 for a URI.
    fn names(all: &[(u8, &[u8])]) -> Vec<u8> {
        let entries: Vec<u8> = all
            .iter()
            .flat_map(|(tag, name)| [&[*tag, u8::try_from(name.len()).unwrap()], *name].concat())
            .collect();
        [&[0x30, u8::try_from(entries.len()).unwrap()], &entries[..]].concat()
    }

    fn made_of(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        made.der().to_vec()
    }

    fn with_names(content: Vec<u8>) -> Vec<u8> {
        made_of(|params| {
            let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            params.custom_extensions.push(extension);
        })
    }

    #[test]
    fn a_callers_names_have_one_reading() {
        const DNS: u8 = 0x82;
        const URI: u8 = 0x86;
        let check = |all: &[(u8, &[u8])], expected: bool| {
            let read = Certificate::of_caller(&with_names(names(all)));
            let shown = all
                .iter()
                .map(|(_, name)| String::from_utf8_lossy(name))
                .collect::<Vec<_>>();
            assert_eq!(read.is_some(), expected, "{shown:?}");
        };
        check(&[(DNS, b"a.acme.internal"), (URI, b"spiffe://acme/a")], true);
        check(
            &[(DNS, b"*.acme.internal"), (URI, b"urn:acme:a"), (URI, b"urn:acme:b")],
            true,
        );
        // An IP address and a mailbox are ignored.
        check(&[(0x87, &[10, 0, 0, 1]), (0x81, b"a@acme.test"), (DNS, b"a")], true);
        for odd in [
            &b"a\0.acme.internal"[..],
            b"a\r\nb",
            b"a..b",
            b"a.",
            b".a",
            b"",
            b"a b",
            b"caf\xc3\xa9",
            b"\xff",
        ] {
            check(&[(DNS, odd)], false);
            check(&[(DNS, b"a.acme.internal"), (DNS, odd)], false);
            check(&[(URI, b"spiffe://acme/a"), (DNS, odd)], false);
        }
        for odd in [
            &b"spiffe://acme/a\0"[..],
            b"spiffe://acme/a\r\n",
            b"spiffe://acme/../a",
            b"spiffe://acme/\xc3\xa9",
            b"urn:a/../b",
            b"",
            b"a",
        ] {
            check(&[(URI, odd)], false);
            check(&[(DNS, b"a.acme.internal"), (URI, odd)], false);
        }
        check(&[(URI, b"spiffe://acme/a"), (URI, b"spiffe://acme/b")], false);
        check(&[(URI, b"spiffe://acme/a"), (URI, b"urn:acme:a")], false);
    }

    #[test]
    fn what_holds_no_names_where_they_belong_is_not_read() {
        assert!(Certificate::of_caller(&made(&["a.b"], None)).is_some());
        assert!(
            Certificate::of_caller(&made_of(|_| {})).is_some(),
            "it has none, which is no damage"
        );
        let one = names(&[(0x82, b"a.b")]);
        for content in [
            Vec::new(),
            b"garbage".to_vec(),
            one[..one.len() - 1].to_vec(),
            [&one[..], &[0]].concat(),
            // Not a sequence; an unknown kind of name.
            [&[0x31], &one[1..]].concat(),
            names(&[(0x8f, b"a.b")]),
        ] {
            assert_eq!(
                Certificate::of_caller(&with_names(content.clone())),
                None,
                "{content:?}"
            );
        }
        assert_eq!(Certificate::of_caller(b"no certificate"), None);
    }

    #[test]
    fn a_callers_subject_is_text() {
        use rcgen::DnValue;
        let check = |value: DnValue, expected| {
            let der = made_of(|params| params.distinguished_name.push(DnType::CommonName, value.clone()));
            assert_eq!(Certificate::of_caller(&der).is_some(), expected, "{value:?}");
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        check(utf8("nightly batch"), true);
        check(utf8("Soci\u{e9}t\u{e9} G\u{e9}n\u{e9}rale"), true);
        for odd in ["admin\0", "admin\0.evil", "a\r\nb", "a\u{1b}[31m", "a\u{7f}", "a\u{85}"] {
            check(utf8(odd), false);
        }
        let bmp = |bytes: &[u8]| DnValue::BmpString(rcgen::string::BmpString::from_utf16be(bytes.to_vec()).unwrap());
        check(bmp(b"\0a\0b"), true);
        check(bmp(b"\0a\0\0"), false);
    }
}
