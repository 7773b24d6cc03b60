//! Tells browsers which pages of other origins may use a route (CORS protocol of the Fetch standard).
//!
//! A preflight carries no credential, so it is answered before authentication and is not charged. Every other answer of
//! the route, rejections included, carries the same permission, because a page that may use the route may also read why
//! it was refused. CORS fields of a backend are replaced, so that an answer has one policy.
//!
//! Invariant: an origin is echoed only if it equals a configured one byte for byte. Where the answer depends on the
//! origin, `Vary` names `Origin`, also for origins that are not allowed, because a cache must not give one page's
//! permission to another.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::{HeaderValue, Method};

use crate::message::FieldMap;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// A route's CORS policy, as the header fields that express it.
#[derive(Debug)]
pub struct Cors {
    pub origins: Origins,
    pub credentials: bool,
    /// Field values for preflights only.
    pub methods: HeaderValue,
    pub request_headers: HeaderValue,
    pub max_age: HeaderValue,
    /// Field value for all other answers.
    pub expose: Option<HeaderValue>,
    /// Setting that the policy comes from.
    pub setting: SettingId,
}

#[derive(Debug)]
pub enum Origins {
    Any,
    These(Box<[HeaderValue]>),
}

/// The permission of a request's origin, for the answer.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The origin may read the answer; holds the value of `Access-Control-Allow-Origin`.
    Allowed(HeaderValue),
    /// The request has no origin, or its origin is not allowed.
    Silent,
}

/// Returns the method that a preflight asks for, or `None` if the request is no preflight.
pub fn preflight(method: &Method, headers: &FieldMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

impl Cors {
    /// Decides whether the request's origin is allowed. Several `Origin` lines count as none.
    pub fn judge(&self, headers: &FieldMap) -> Verdict {
        let mut lines = headers.get_all(ORIGIN).iter();
        match (lines.next(), lines.next(), &self.origins) {
            (None, ..) | (_, Some(_), _) => Verdict::Silent,
            (Some(_), None, Origins::Any) => Verdict::Allowed(HeaderValue::from_static("*")),
            (Some(origin), None, Origins::These(origins)) => origins
                .iter()
                .find(|known| *known == origin)
                .map_or(Verdict::Silent, |known| Verdict::Allowed(known.clone())),
        }
    }

    /// Returns the fields for the answer to a preflight, without those that [`Self::stamp`] adds to every answer. They
    /// list all that is granted; the browser compares them with the method and fields that it wants.
    ///
    /// # Errors
    /// [`Rejection::OriginNotAllowed`] if the origin is not allowed.
    pub fn grant(&self, verdict: &Verdict) -> Result<FieldMap, Rejection> {
        let Verdict::Allowed(_) = verdict else {
            return Err(Rejection::OriginNotAllowed(self.setting));
        };
        let mut fields = FieldMap::with_capacity(8);
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.request_headers.clone());
        fields.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Ok(fields)
    }

    /// Refuses a WebSocket handshake from a page of an origin that is not allowed, because browsers let a page read a
    /// WebSocket of any origin. Callers other than browsers send no `Origin` and pass.
    ///
    /// # Errors
    /// [`Rejection::OriginNotAllowed`] if `Origin` is present and not allowed.
    pub fn demand(&self, verdict: &Verdict, headers: &FieldMap) -> Result<(), Rejection> {
        match verdict {
            Verdict::Silent if headers.contains_key(ORIGIN) => Err(Rejection::OriginNotAllowed(self.setting)),
            _ => Ok(()),
        }
    }

    /// Whether answers differ by origin.
    pub const fn depends_on_origin(&self) -> bool {
        matches!(self.origins, Origins::These(_))
    }

    /// Puts the CORS fields into an answer of the route, in place of those that it has.
    pub fn stamp(&self, verdict: &Verdict, is_preflight: bool, headers: &mut FieldMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        if self.depends_on_origin() {
            vary_by_origin(headers);
        }
        let Verdict::Allowed(origin) = verdict else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let (Some(expose), false) = (&self.expose, is_preflight) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// Adds `Origin` to `Vary`, unless it lists `Origin` or `*`.
pub(crate) fn vary_by_origin(headers: &mut FieldMap) {
    let listed = headers.get_all(VARY).iter().any(|line| {
        line.as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|item| item == b"*" || item.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes()))
    });
    if !listed {
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const APP: &str = "https://app.example.com";

    fn cors(origins: Origins, credentials: bool) -> Cors {
        Cors {
            origins,
            credentials,
            methods: HeaderValue::from_static("GET, PUT"),
            request_headers: HeaderValue::from_static("authorization"),
            max_age: HeaderValue::from_static("600"),
            expose: Some(HeaderValue::from_static("retry-after")),
            setting: SettingId::URI,
        }
    }

    fn exactly(origins: &[&'static str]) -> Origins {
        Origins::These(origins.iter().map(|origin| HeaderValue::from_static(origin)).collect())
    }

    fn from(origins: &[&str]) -> FieldMap {
        origins
            .iter()
            .map(|origin| (ORIGIN, HeaderValue::from_str(origin).expect("a value")))
            .collect()
    }

    #[test]
    fn an_origin_is_compared_to_the_letter() {
        let cors = cors(exactly(&[APP, "http://localhost:3000"]), true);
        for allowed in [APP, "http://localhost:3000"] {
            assert!(
                matches!(cors.judge(&from(&[allowed])), Verdict::Allowed(value) if value == allowed),
                "{allowed}"
            );
        }
        for other in [
            "",
            "null",
            "*",
            "https://app.example.com.evil.example",
            "https://evil-app.example.com",
            "https://app.example.com:443",
            "https://app.example.com/",
            "http://app.example.com",
            "HTTPS://APP.EXAMPLE.COM",
            "https://app.example.com, https://evil.example",
        ] {
            let verdict = cors.judge(&from(&[other]));
            assert!(matches!(verdict, Verdict::Silent), "{other}");
            assert!(cors.grant(&verdict).is_err() && cors.demand(&verdict, &from(&[other])).is_err());
        }
        let twice = from(&[APP, "https://evil.example"]);
        assert!(matches!(cors.judge(&twice), Verdict::Silent));
        assert!(cors.demand(&cors.judge(&from(&[])), &from(&[])).is_ok());
    }

    /// Returns all CORS fields as `name: value`, sorted.
    fn said(cors: &Cors, origin: &[&str], before: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = FieldMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        cors.stamp(&cors.judge(&from(origin)), false, &mut headers);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn an_answer_says_what_its_origin_may_do() {
        let named = cors(exactly(&[APP]), true);
        let allowed = [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://app.example.com",
            "access-control-expose-headers: retry-after",
            "vary: origin",
        ];
        assert_eq!(said(&named, &[APP], &[]), allowed);
        let of_backend = [
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "*"),
        ];
        assert_eq!(said(&named, &[APP], &of_backend), allowed);
        // A cache may hold the answer, so `Vary` is there for an origin that is not allowed.
        assert_eq!(said(&named, &["https://evil.example"], &of_backend), ["vary: origin"]);
        assert_eq!(said(&named, &[], &[]), ["vary: origin"]);
        for there in ["*", "Origin", "accept, ORIGIN"] {
            assert_eq!(said(&named, &[], &[("vary", there)]), [format!("vary: {there}")]);
        }
        assert_eq!(
            said(&named, &[], &[("vary", "accept")]),
            ["vary: accept", "vary: origin"]
        );
        assert_eq!(
            said(&cors(Origins::Any, false), &["https://evil.example"], &[]),
            [
                "access-control-allow-origin: *",
                "access-control-expose-headers: retry-after"
            ]
        );
    }

    #[test]
    fn a_preflight_is_told_by_its_fields() {
        let check = |method: Method, fields: &[(&'static str, &'static str)], expected: Option<Method>| {
            let headers = fields
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(preflight(&method, &headers), expected, "{method} {fields:?}");
        };
        let both = [("origin", APP), ("access-control-request-method", "PUT")];
        check(Method::OPTIONS, &both, Some(Method::PUT));
        check(Method::GET, &both, None);
        check(Method::OPTIONS, &both[..1], None);
        check(Method::OPTIONS, &both[1..], None);
        check(
            Method::OPTIONS,
            &[("origin", APP), ("access-control-request-method", "P T")],
            None,
        );
    }
}
