//! The methods that a route takes.

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
