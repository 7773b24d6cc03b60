//! Reads the host, path and query that a request addresses, from any form of request target.
//!
//! Invariant: a request names one host. `Host`, `:authority` and an absolute request target must agree, or the request
//! is refused. So routes are chosen by the host that every server behind the gateway sees.

use http::header::HOST;
use http::{HeaderValue, Method, Uri, Version};

use super::host;
use super::path::{Keeps, NormalPath};
use crate::message::FieldMap;
use crate::rejection::Rejection;

/// The address of a request, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'u, 'h> {
    /// Host as sent, with port; empty if an HTTP/1.0 request names none.
    pub host: &'h str,
    pub path: NormalPath<'u>,
    /// Raw query without `?`.
    pub query: Option<&'u str>,
}

impl<'u: 'h, 'h> Target<'u, 'h> {
    /// Reads the address from a request head (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
    ///
    /// Clients send the origin form. Of an absolute form the path is used, if the authority agrees with `Host`. `keeps`
    /// names what the path may hold. Called before the header fields are cleaned; an HTTP/1.1 request must have exactly
    /// one `Host`.
    ///
    /// # Errors
    /// [`Rejection::MalformedRequest`] for an address that is missing or ambiguous. [`Rejection::MethodNotAllowed`] for
    /// CONNECT and TRACE, which no route takes, and for `OPTIONS *`.
    pub fn read(
        method: &Method,
        version: Version,
        uri: &'u Uri,
        headers: &'h FieldMap,
        keeps: Keeps,
    ) -> Result<Self, Rejection> {
        if matches!(*method, Method::CONNECT | Method::TRACE) || (*method == Method::OPTIONS && uri.path() == "*") {
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            return Err(Rejection::MethodNotAllowed { allow, by: None });
        }
        Ok(Self {
            host: read_host(version, uri, headers)?,
            path: NormalPath::keeping(uri.path(), keeps)?,
            query: uri.query(),
        })
    }
}

fn read_host<'a>(version: Version, uri: &'a Uri, headers: &'a FieldMap) -> Result<&'a str, Rejection> {
    let mut lines = headers.get_all(HOST).iter();
    let field = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(malformed("the request has more than one Host")),
        (Some(value), None) => {
            let text = value
                .to_str()
                .map_err(|_| malformed("the host is not a valid host name or address"))?;
            Some(text)
        }
        (None, None) => None,
    };
    let authority = match uri.authority() {
        Some(authority) => {
            host::check(authority.as_str())?;
            Some((authority.as_str(), default_port(uri)?))
        }
        None => None,
    };
    // On HTTP/2 `Host` is nearly always a copy of the authority.
    let is_copy = authority.map(|(authority, _)| authority) == field;
    if let Some(field) = field.filter(|_| !is_copy) {
        host::check(field)?;
    }
    match (authority, field) {
        (Some((authority, port)), Some(field)) if !is_copy && !host::same_authority(authority, field, port) => {
            Err(malformed("the request target and Host name different hosts"))
        }
        (Some((authority, _)), None) if version >= Version::HTTP_2 => Ok(authority),
        (_, Some(field)) => Ok(field),
        (Some((authority, _)), None) if version < Version::HTTP_11 => Ok(authority),
        (None, None) if version < Version::HTTP_11 => Ok(""),
        (_, None) => Err(malformed("the request has no Host")),
    }
}

fn default_port(uri: &Uri) -> Result<&'static str, Rejection> {
    match uri.scheme_str() {
        Some("http") => Ok("80"),
        Some("https") => Ok("443"),
        _ => Err(malformed("the request target must be a path that begins with '/'")),
    }
}

const fn malformed(why: &'static str) -> Rejection {
    Rejection::malformed(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns host, path and query, or the status and reason of the rejection.
    fn read<'a>(
        method: &str,
        version: Version,
        uri: &'a Uri,
        headers: &'a FieldMap,
    ) -> Result<(&'a str, &'a str, Option<&'a str>), String> {
        let method = Method::from_bytes(method.as_bytes()).expect("a token");
        match Target::read(&method, version, uri, headers, Keeps::default()) {
            Ok(target) => Ok((target.host, target.path.raw(), target.query)),
            Err(Rejection::MalformedRequest { why, .. }) => Err(why.to_owned()),
            Err(other) => Err(other.reason().as_str().to_owned()),
        }
    }

    fn check(line: &str, hosts: &[&str], expected: Result<(&str, &str, Option<&str>), &str>) {
        let [method, uri, version] = line.split(' ').collect::<Vec<_>>().try_into().expect("three words");
        let version = match version {
            "1.0" => Version::HTTP_10,
            "1.1" => Version::HTTP_11,
            _ => Version::HTTP_2,
        };
        let mut headers = FieldMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).expect("a value"));
        }
        let uri = uri.parse().expect("a URI");
        match (read(method, version, &uri, &headers), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{line}: {why}"),
            (found, expected) => panic!("{line} {hosts:?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn the_host_is_named_once_and_well() {
        check(
            "GET /a?b=c 1.1",
            &["h.example:80"],
            Ok(("h.example:80", "/a", Some("b=c"))),
        );
        check("GET /a 1.1", &[], Err("no Host"));
        check("GET /a 1.1", &["h", "h"], Err("more than one Host"));
        check("GET /a 1.1", &[""], Err("not a valid host"));
        check("GET /a 1.1", &["a b"], Err("not a valid host"));
        check("GET /a 1.1", &["a@h"], Err("not a valid host"));
        check("GET /a 1.1", &["é"], Err("not a valid host"));
        check("GET /a 1.0", &[], Ok(("", "/a", None)));
        check("GET /a 1.0", &["h", "h"], Err("more than one Host"));
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        check(
            "GET http://h.example/a 1.1",
            &["H.EXAMPLE:80"],
            Ok(("H.EXAMPLE:80", "/a", None)),
        );
        check("GET https://h/a 1.1", &["h:443"], Ok(("h:443", "/a", None)));
        check("GET http://h 1.1", &["h"], Ok(("h", "/", None)));
        check("GET http://h/a 1.1", &["evil.example"], Err("different hosts"));
        check("GET http://h:81/a 1.1", &["h"], Err("different hosts"));
        check("GET http://a:b@h/a 1.1", &["h"], Err("not a valid host"));
        check("GET http://h/a 1.1", &[], Err("no Host"));
        check("GET ftp://h/a 1.1", &["h"], Err("must be a path"));
        check("GET http://h/a/../b 1.1", &["h"], Err("dot segment"));
        check("GET https://h/a 2", &[], Ok(("h", "/a", None)));
        check("GET https://h/a 2", &["evil.example"], Err("different hosts"));
        check("GET /a 2", &["h"], Ok(("h", "/a", None)));
    }

    #[test]
    fn other_forms_are_refused() {
        check("GET * 1.1", &["h"], Err("must be a path"));
        check("GET admin 1.1", &["h"], Err("must be a path"));
        check("OPTIONS * 1.1", &["h"], Err("method_not_allowed"));
        check("CONNECT h:443 1.1", &["h:443"], Err("method_not_allowed"));
        check("CONNECT /a 1.1", &["h"], Err("method_not_allowed"));
        check("TRACE /a 1.1", &["h"], Err("method_not_allowed"));
    }
}
