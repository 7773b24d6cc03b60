//! Limits the tenants that an issuer's tokens may name.
//!
//! An issuer can write any tenant into a token, so without a limit one issuer could act for the tenants of all others.
//! Invariant: a tenant that is bound to issuers can be named by no other issuer.

use std::collections::HashSet;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerTenants {
    /// Tenants that are bound to this issuer.
    These(HashSet<Arc<str>>),
    /// All tenants except those that are bound to other issuers.
    AllBut(HashSet<Arc<str>>),
}

impl Default for IssuerTenants {
    fn default() -> Self {
        Self::AllBut(HashSet::new())
    }
}

impl IssuerTenants {
    /// Computes the limits of several issuers, in their order. `bound` has the tenants that the config lists for each.
    pub fn of_each(bound: &[Option<Vec<Arc<str>>>]) -> Vec<Self> {
        let all: HashSet<_> = bound.iter().flatten().flatten().cloned().collect();
        let of_one = |bound: &Option<Vec<Arc<str>>>| match bound {
            Some(own) => Self::These(own.iter().cloned().collect()),
            None => Self::AllBut(all.clone()),
        };
        bound.iter().map(of_one).collect()
    }

    pub(crate) fn admit(&self, tenant: &str) -> bool {
        match self {
            Self::These(own) => own.contains(tenant),
            Self::AllBut(others) => !others.contains(tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bound` are the tenants of each issuer, `-` for none. `admitted` are those of a, b and c that each issuer may
    /// name.
    fn check(bound: &[&str], admitted: &[&str]) {
        let written: Vec<Option<Vec<Arc<str>>>> = bound
            .iter()
            .map(|names| (*names != "-").then(|| names.split_whitespace().map(Arc::from).collect()))
            .collect();
        let found: Vec<String> = IssuerTenants::of_each(&written)
            .iter()
            .map(|tenants| ["a", "b", "c"].into_iter().filter(|name| tenants.admit(name)).collect())
            .collect();
        assert_eq!(found, admitted, "{bound:?}");
    }

    #[test]
    fn a_tenant_that_is_bound_is_named_by_no_other_issuer() {
        check(&["-"], &["abc"]);
        check(&["-", "-"], &["abc", "abc"]);
        check(&["a"], &["a"]);
        check(&["a", "b"], &["a", "b"]);
        check(&["a", "-"], &["a", "bc"]);
        check(&["a", "-", "-"], &["a", "bc", "bc"]);
        check(&["a", "b", "-"], &["a", "b", "c"]);
        check(&["a b", "b"], &["ab", "b"]);
        check(&["a b c", "-"], &["abc", ""]);
    }
}
