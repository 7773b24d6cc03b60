//! Finds the caller that a client certificate identifies.
//!
//! The chain was verified during the handshake; here a name of the certificate is looked up. A certificate may have
//! several names. URIs are tried first, then DNS names, then the subject: from names made for workloads to names made
//! for people. Of one kind, a full name precedes a wildcard, and a longer wildcard precedes a shorter one. The order of
//! the list does not matter.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::caller::{Caller, Kind, is_caller_id};
use crate::auth::check::Check;
use crate::tls::certificate::Certificate;

/// Caller with a certificate of this name.
#[derive(Debug, Clone)]
pub struct Holder {
    pub name: HolderName,
    pub tenant: Arc<str>,
    /// Id of the caller. `None` uses the matching name of the certificate.
    pub id: Option<Arc<str>>,
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HolderName {
    Uri(String),
    /// All URIs that are longer than this prefix, which ends with `/`.
    UrisBelow(String),
    /// DNS name in lower case.
    Dns(String),
    /// All DNS names that are longer than this suffix, which begins with a dot.
    DnsBelow(String),
    /// Subject in the form of [`crate::tls::certificate::subject`].
    Subject(String),
}

/// All configured callers with certificates. Their names are distinct.
#[derive(Debug)]
pub struct CertificateHolders {
    all: Box<[Holder]>,
    uris: HashMap<String, usize>,
    dns: HashMap<String, usize>,
    subjects: HashMap<String, usize>,
    /// URI prefixes, longest first.
    uris_below: Box<[(String, usize)]>,
    dns_below: Box<[(String, usize)]>,
}

impl CertificateHolders {
    /// # Errors
    /// The indexes of two holders with the same name.
    pub fn new(all: Vec<Holder>) -> Result<Self, (usize, usize)> {
        let mut made = Self {
            all: Box::default(),
            uris: HashMap::new(),
            dns: HashMap::new(),
            subjects: HashMap::new(),
            uris_below: Box::default(),
            dns_below: Box::default(),
        };
        let (mut uris_below, mut dns_below, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for (row, holder) in all.iter().enumerate() {
            if let Some(first) = seen.insert(&holder.name, row) {
                return Err((first, row));
            }
            match holder.name.clone() {
                HolderName::Uri(name) => drop(made.uris.insert(name, row)),
                HolderName::Dns(name) => drop(made.dns.insert(name, row)),
                HolderName::Subject(name) => drop(made.subjects.insert(name, row)),
                HolderName::UrisBelow(name) => uris_below.push((name, row)),
                HolderName::DnsBelow(name) => dns_below.push((name, row)),
            }
        }
        for below in [&mut uris_below, &mut dns_below] {
            below.sort_by_key(|(name, _): &(String, usize)| std::cmp::Reverse(name.len()));
        }
        made.uris_below = uris_below.into();
        made.dns_below = dns_below.into();
        made.all = all.into();
        Ok(made)
    }

    /// # Errors
    /// [`Check::CertificateUnknown`] if no name of the certificate belongs to a caller, [`Check::CertificateName`] if
    /// the matching name is too long for a caller's id.
    pub(crate) fn find(&self, certificate: &Certificate) -> Result<Caller, Check> {
        let (row, name) = self.row(certificate).ok_or(Check::CertificateUnknown)?;
        let holder = &self.all[row];
        let id = holder.id.as_ref().unwrap_or(name);
        if !is_caller_id(id) {
            return Err(Check::CertificateName);
        }
        Ok(Caller {
            tenant: holder.tenant.clone(),
            id: id.clone(),
            tier: holder.tier.clone(),
            scopes: holder.scopes.clone(),
            kind: Kind::Mtls,
            claims: None,
            configured: true,
            expires: Some(certificate.expires),
        })
    }

    fn row<'a>(&self, certificate: &'a Certificate) -> Option<(usize, &'a Arc<str>)> {
        let (uris, dns_names) = (&certificate.uris, &certificate.dns_names);
        let exactly = |all: &HashMap<String, usize>, name: &'a Arc<str>| Some((*all.get(&**name)?, name));
        let below = |wildcards: &[(String, usize)], names: &'a [Arc<str>], is_below: fn(&str, &str) -> bool| {
            wildcards
                .iter()
                .find_map(|(wildcard, row)| Some((*row, names.iter().find(|name| is_below(name, wildcard))?)))
        };
        uris.iter()
            .find_map(|uri| exactly(&self.uris, uri))
            .or_else(|| {
                below(&self.uris_below, uris, |uri, start| {
                    is_longer(uri, start) && uri.starts_with(start)
                })
            })
            .or_else(|| dns_names.iter().find_map(|name| exactly(&self.dns, name)))
            .or_else(|| {
                below(&self.dns_below, dns_names, |name, end| {
                    // A certificate for a wildcard identifies no caller.
                    is_longer(name, end) && name.ends_with(end) && !name.contains('*')
                })
            })
            .or_else(|| exactly(&self.subjects, certificate.subject.as_ref()?))
    }
}

const fn is_longer(name: &str, part: &str) -> bool {
    name.len() > part.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate;
    use crate::tls::certificate::tests::made;

    fn holder(name: HolderName, tenant: &str) -> Holder {
        Holder {
            name,
            tenant: tenant.into(),
            id: None,
            tier: None,
            scopes: Box::default(),
        }
    }

    #[test]
    fn the_most_exact_name_decides() {
        let holders = CertificateHolders::new(vec![
            holder(HolderName::UrisBelow("spiffe://acme/".into()), "all"),
            holder(HolderName::UrisBelow("spiffe://acme/prod/".into()), "prod"),
            holder(HolderName::Uri("spiffe://acme/prod/billing".into()), "billing"),
            holder(HolderName::DnsBelow(".acme.internal".into()), "hosts"),
            holder(HolderName::Dns("b.acme.internal".into()), "b"),
            holder(HolderName::Subject("CN=b,O=Acme".into()), "subject"),
            Holder {
                id: Some("with-an-id".into()),
                ..holder(HolderName::Subject("CN=b,O=Acme Inc".into()), "spaced")
            },
            holder(HolderName::Subject("CN=c,O=Acme Inc".into()), "spaced"),
            holder(
                HolderName::Subject(certificate::subject("CN=c, O=Soci\u{e9}t\u{e9} \u{2603}").unwrap()),
                "unicode",
            ),
        ])
        .unwrap();
        let check = |names: &[&str], subject: Option<(&str, &str)>, expected: Result<&str, Check>| {
            let certificate = Certificate::read(&made(names, subject)).unwrap();
            let found = holders.find(&certificate);
            let shown = found.map(|caller| format!("{}/{}", caller.tenant, caller.id));
            assert_eq!(
                shown.as_deref().map_err(|check| *check),
                expected,
                "{names:?} {subject:?}"
            );
        };
        check(&["spiffe://acme/x"], None, Ok("all/spiffe://acme/x"));
        check(&["spiffe://acme/prod/x"], None, Ok("prod/spiffe://acme/prod/x"));
        check(
            &["spiffe://acme/prod/billing"],
            None,
            Ok("billing/spiffe://acme/prod/billing"),
        );
        check(&["spiffe://acme.evil/x"], None, Err(Check::CertificateUnknown));
        check(&["spiffe://acme/"], None, Err(Check::CertificateUnknown));
        let long = format!("spiffe://acme/{}", "a".repeat(255));
        check(&[&long], None, Err(Check::CertificateName));
        check(&["a.acme.internal"], None, Ok("hosts/a.acme.internal"));
        check(&["x.a.acme.internal"], None, Ok("hosts/x.a.acme.internal"));
        check(&["evilacme.internal"], None, Err(Check::CertificateUnknown));
        check(&["*.acme.internal"], None, Err(Check::CertificateUnknown));
        check(&["B.ACME.internal"], None, Ok("b/b.acme.internal"));
        check(&["b.acme.internal", "spiffe://acme/x"], None, Ok("all/spiffe://acme/x"));
        check(
            &["b.other", "a.acme.internal"],
            Some(("Acme", "b")),
            Ok("hosts/a.acme.internal"),
        );
        check(&["b.other"], Some(("Acme", "b")), Ok("subject/CN=b,O=Acme"));
        check(&[], Some(("Acme Inc", "b")), Ok("spaced/with-an-id"));
        check(&[], Some(("Acme Inc", "c")), Ok("spaced/CN=c,O=Acme Inc"));
        check(
            &[],
            Some(("Soci\u{e9}t\u{e9} \u{2603}", "c")),
            Ok("unicode/CN=c,O=Soci\u{e9}t\u{e9} \u{2603}"),
        );
        check(&[], Some(("Acme,O=Acme", "b")), Err(Check::CertificateUnknown));
        check(&[], None, Err(Check::CertificateUnknown));
    }

    #[test]
    fn a_name_has_one_holder() {
        let twice = vec![
            holder(HolderName::Dns("a".into()), "one"),
            holder(HolderName::Uri("a:a".into()), "one"),
            holder(HolderName::Dns("a".into()), "two"),
        ];
        assert_eq!(CertificateHolders::new(twice).unwrap_err(), (0, 2));
    }
}
