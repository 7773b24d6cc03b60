//! Names of a series: whose requests it counts, and of which route.

use std::sync::Arc;

use crate::identity;

/// Tenant, route and key of a series. Ordered by tenant, then route, then key.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// `None` for requests whose caller is not known.
    pub tenant: Option<Arc<str>>,
    /// `None` for requests that no route matched.
    pub route: Option<Arc<str>>,
    /// Id of an API key, name of a user or of a certificate's holder; `None` for tokens and for anonymous callers.
    pub key: Option<Arc<str>>,
    /// Whether this stands for all series of the route that there was no room for.
    pub is_other: bool,
}

impl Names {
    /// Returns the series of a route that counts what has none of its own.
    pub fn other(route: Option<Arc<str>>) -> Self {
        Self {
            route,
            is_other: true,
            ..Self::default()
        }
    }

    /// Returns the tenant of a series that has a key.
    pub fn tenant_with_key(&self) -> Option<&Arc<str>> {
        self.key.as_ref().and(self.tenant.as_ref())
    }

    /// Returns the names with slashes between them, as a part of an event's id: percent-encoded, so that different
    /// series have different texts.
    pub fn id(&self) -> String {
        let word = |name: &Option<Arc<str>>| match name {
            Some(name) => identity::encoded(name).replace('/', "%2F"),
            None => String::new(),
        };
        let tenant = if self.is_other {
            "%other".to_owned()
        } else {
            word(&self.tenant)
        };
        format!("{tenant}/{}/{}", word(&self.route), word(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_series_have_different_ids() {
        let name = |text: &str| Some(Arc::from(text)).filter(|_| !text.is_empty());
        let names = |tenant, route, key| Names {
            tenant: name(tenant),
            route: name(route),
            key: name(key),
            is_other: false,
        };
        let all = [
            Names::default(),
            Names::other(None),
            Names::other(name("r")),
            names("", "r", ""),
            names("other", "r", ""),
            names("%other", "r", ""),
            names("a/b", "r", ""),
            names("a", "b/r", ""),
            names("a", "b", "r"),
            names("a%2Fb", "r", ""),
            names("\u{e9} x", "r", "k"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other.id() != one.id()), "{one:?}");
            assert!(one.id().bytes().all(|byte| byte.is_ascii_graphic()), "{one:?}");
        }
    }
}
