//! The methods that a route takes.

use std::fmt;

use http::{HeaderValue, Method};

/// Configured methods; `None` means every method except OPTIONS, CONNECT and TRACE.
#[derive(Debug)]
pub(super) struct Methods(Option<Box<[Method]>>);

impl Methods {
    /// Creates the set; an empty list means every method.
    pub(super) fn new(written: Vec<Method>) -> Self {
        Self((!written.is_empty()).then(|| written.into()))
    }

    /// Whether no route may take the method: CONNECT would open a tunnel, and TRACE echoes credentials (RFC 9110
    /// section 9.3.8).
    pub(super) fn is_forbidden(method: &Method) -> bool {
        matches!(*method, Method::CONNECT | Method::TRACE)
    }

    pub(super) fn admits(&self, method: &Method) -> bool {
        self.names(method) || (*method == Method::HEAD && self.names(&Method::GET))
    }

    /// Whether the set contains the method itself, without HEAD as part of GET. OPTIONS must be configured, because
    /// browsers send it for CORS and backends seldom need it.
    pub(super) fn names(&self, method: &Method) -> bool {
        let in_all = || *method != Method::OPTIONS;
        !Self::is_forbidden(method) && self.0.as_ref().map_or_else(in_all, |written| written.contains(method))
    }

    pub(super) fn overlap(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(_)) => one.iter().any(|method| other.names(method)),
            (None, Some(written)) | (Some(written), None) => written.iter().any(|method| *method != Method::OPTIONS),
            (None, None) => true,
        }
    }

    /// Returns the methods that are in none of `others`, as in `Allow`, or an empty text for all that are not there;
    /// `None` if there are none.
    pub(super) fn without(&self, others: &[&Self]) -> Option<String> {
        let is_missing = |method: &Method| !others.iter().any(|other| other.admits(method));
        let Some(written) = &self.0 else {
            let takes_all = others.iter().any(|other| other.0.is_none());
            return (!takes_all).then(String::new);
        };
        let missing: Vec<Method> = written.iter().filter(|method| is_missing(method)).cloned().collect();
        (!missing.is_empty()).then(|| Self::new(missing).to_string())
    }

    /// Returns the `Allow` field for all of `methods` (RFC 9110 section 10.2.1): each method once, in a fixed order.
    pub(super) fn allow<'a>(methods: impl Iterator<Item = &'a Self>) -> HeaderValue {
        const COMMON: [Method; 7] = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ];
        let all: Vec<&Self> = methods.collect();
        let common = COMMON
            .into_iter()
            .filter(|method| all.iter().any(|methods| methods.admits(method)));
        let mut names: Vec<String> = common.map(|method| method.to_string()).collect();
        for method in all.iter().filter_map(|methods| methods.0.as_deref()).flatten() {
            if !Self::is_forbidden(method) && !names.iter().any(|name| name == method.as_str()) {
                names.push(method.to_string());
            }
        }
        HeaderValue::try_from(names.join(", ")).expect("methods are tokens")
    }
}

/// Prints the methods as in `Allow`; nothing for every method.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => Ok(()),
            Some(_) => f.write_str(Self::allow(std::iter::once(self)).to_str().unwrap_or_default()),
        }
    }
}
