//! Which certificates of callers stand for whom.
//!
//! A name in a certificate is a promise of the authority that signed it, so nothing here is secret. Names are compared
//! whole, byte by byte; the one wildcard takes whole path segments or whole labels, so that `spiffe://acme/*` never
//! admits `spiffe://acme.evil/x`.

use crate::config::mistake::Code;
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Client certificates, by the names in them.
#[derive(Debug, Clone, PartialEq)]
pub struct Mtls {
    /// Whom the certificates stand for; at least one.
    pub identities: Vec<Identity>,
}

/// A caller, by a name in its certificate; exactly one of `uri`, `dns` and `subject`.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub name: CertificateName,
    /// Tenant of the caller.
    pub tenant: At<String>,
    /// Name of the caller in logs and towards backends. Left out: the name in the certificate.
    pub id: Option<At<String>>,
    /// Tier of the caller, unless `tenants` names one.
    pub tier: Option<At<String>>,
    /// Scopes of the caller.
    pub scopes: Vec<At<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CertificateName {
    /// URI among the subject's alternative names, as SPIFFE has it; `spiffe://acme/*` stands for all below.
    Uri(At<UriName>),
    /// DNS name among the subject's alternative names; `*.acme.internal` stands for all below.
    Dns(At<DnsName>),
    /// The whole subject as RFC 4514 writes it: the last attribute first, `CN=billing,O=Acme`.
    Subject(At<String>),
}

/// A URI, or all that begin with what stands before a final `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriName(String);

/// A host's name in lower case, or all below what stands after a leading `*.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName(String);

impl CertificateName {
    pub fn span(&self) -> Option<crate::config::Span> {
        match self {
            Self::Uri(name) => name.span(),
            Self::Dns(name) => name.span(),
            Self::Subject(name) => name.span(),
        }
    }
}

impl UriName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DnsName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for UriName {
    const EXPECTED: &'static str = "a URI such as `spiffe://acme/billing`, or `spiffe://acme/*`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(wrong("has no scheme"));
        };
        if scheme.is_empty() || rest.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("is not a URI"));
        }
        match text.find('*') {
            None => {}
            Some(at) if at + 1 != text.len() => return Err(wrong("has a `*` that is not at its end")),
            Some(_) => {
                let authority = rest.strip_prefix("//").and_then(|rest| rest.split_once('/'));
                if authority.is_none_or(|(authority, _)| authority.is_empty()) || !text.ends_with("/*") {
                    return Err(wrong("has a `*` that is not a whole path segment").hint(
                        "names with another beginning would be admitted too: write the authority and end with `/*`",
                    ));
                }
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for DnsName {
    const EXPECTED: &'static str = "a name such as `billing.acme.internal`, or `*.acme.internal`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.contains('*') {
            return Err(wrong("has a `*` that is not the whole first label"));
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(wrong("is not a name"));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Read for Mtls {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[],
        sample: "{ identities: [{ dns: billing.internal, tenant: acme }] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                identities: f.required_list("identities")?,
            })
        })?
    }
}

impl Read for Identity {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[
            "{ uri: $, tenant: acme }",
            "{ dns: $, tenant: acme }",
            "{ subject: $, tenant: acme }",
        ],
        sample: "{ dns: billing.internal, tenant: acme }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let written = f.exactly_one(&["uri", "dns", "subject"]);
            let (uri, dns, subject) = (f.optional("uri"), f.optional("dns"), f.optional("subject"));
            let tenant = f.required("tenant");
            let identity = (f.optional("id"), f.optional("tier"), f.list("scopes"));
            let name = match written? {
                "uri" => CertificateName::Uri(uri?),
                "dns" => CertificateName::Dns(dns?),
                _ => CertificateName::Subject(subject?),
            };
            let (id, tier, scopes) = identity;
            Some(Self {
                name,
                tenant: tenant?,
                id,
                tier,
                scopes,
            })
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_whole_segments() {
        let check = |text: &str, fits| assert_eq!(UriName::parse(text).is_ok(), fits, "{text}");
        check("spiffe://acme/billing", true);
        check("spiffe://acme/*", true);
        check("spiffe://acme/ns/prod/*", true);
        check("urn:acme:billing", true);
        check("spiffe://*", false);
        check("spiffe:///*", false);
        check("spiffe://acme*", false);
        check("spiffe://acme/b*", false);
        check("spiffe://*/billing", false);
        check("urn:*", false);
        check("billing", false);
        check("spiffe://acme/two words", false);
        let check = |text: &str, fits| assert_eq!(DnsName::parse(text).is_ok(), fits, "{text}");
        check("billing.acme.internal", true);
        check("*.acme.internal", true);
        check("Billing.ACME.internal", true);
        check("*", false);
        check("b*.acme.internal", false);
        check("a.*.internal", false);
        check("a..b", false);
        check("", false);
    }
}
