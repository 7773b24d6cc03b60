//! A compiled redirect.

use http::{HeaderValue, StatusCode};

use crate::template::{Missing, Sources, Template};

/// A redirect, whose target is made for each request.
#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub origin: Origin,
    /// Path and query of the target.
    pub path: Template,
}

/// Scheme, host and port of a redirect's target.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// Those of the request.
    Same,
    /// Text such as `https://www.example.com`.
    Fixed(Box<str>),
    /// The host of the request.
    SameHost {
        /// `http://` or `https://`.
        scheme: &'static str,
        /// Port with a colon before it, or nothing.
        port: Box<str>,
    },
}

impl Redirect {
    /// Returns the value of `Location`. `host` is the host of the request, which may have a port. The query of the
    /// request is appended unless the config's target has a query.
    ///
    /// # Errors
    /// A value that the target needs is missing or cannot stand in it.
    pub fn location(&self, sources: &Sources<'_>, host: &str, query: Option<&str>) -> Result<HeaderValue, Missing> {
        let mut location = String::with_capacity(64);
        let wrong = |why| Missing {
            placeholder: "redirect".to_owned(),
            why,
        };
        match &self.origin {
            Origin::Same => {}
            Origin::Fixed(origin) => location.push_str(origin),
            Origin::SameHost { .. } if host.is_empty() => return Err(wrong("the request names no host")),
            Origin::SameHost { scheme, port } => location.extend([scheme, without_port(host), port]),
        }
        let path = location.len();
        self.path.render(sources, &mut location)?;
        // Two slashes would begin a host, and browsers read a backslash as a slash.
        if location[path..].starts_with("//") || location[path..].starts_with("/\\") {
            return Err(wrong("the path begins with two slashes"));
        }
        if let (Some(query), false) = (query, location[path..].contains('?')) {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::from_str(&location).map_err(|_| wrong("the target cannot stand in a header field"))
    }
}

/// Returns a host without its port. An IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use crate::message::FieldMap;

    use super::*;
    use crate::template::{Captures, Query, Syntax};

    fn location(origin: Origin, path: &str, rest: &str, host: &str, query: Option<&str>) -> Option<String> {
        let redirect = Redirect {
            status: StatusCode::PERMANENT_REDIRECT,
            origin,
            path: Template::parse(path, Syntax::Path).expect("well formed"),
        };
        let names = ["rest".into()];
        let captures = Captures::new(rest, &names, std::iter::once(0..rest.len()).collect());
        let (query_read, headers) = (Query::new(query), FieldMap::new());
        let sources = Sources::of_request(&captures, &query_read, &headers, None);
        let made = redirect.location(&sources, host, query).ok()?;
        Some(made.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn the_target_is_made_of_the_request() {
        let fixed = || Origin::Fixed("https://new.example".into());
        let same_host = || Origin::SameHost {
            scheme: "https://",
            port: ":8443".into(),
        };
        let check = |made: Option<String>, expected: &str| assert_eq!(made.as_deref(), Some(expected));
        check(
            location(fixed(), "/{path.rest}", "a/b%20c/", "h", None),
            "https://new.example/a/b%20c/",
        );
        check(
            location(fixed(), "/v2/{path.rest}", "", "h", Some("a=1")),
            "https://new.example/v2/?a=1",
        );
        check(
            location(fixed(), "/x?b=2", "", "h", Some("a=1")),
            "https://new.example/x?b=2",
        );
        check(location(Origin::Same, "/new/{path.rest}", "a", "h", None), "/new/a");
        check(
            location(same_host(), "/{path.rest}", "a", "h.example:8080", None),
            "https://h.example:8443/a",
        );
        check(
            location(same_host(), "/", "", "[::1]:8080", None),
            "https://[::1]:8443/",
        );
        check(location(same_host(), "/", "", "[::1]", None), "https://[::1]:8443/");
    }

    #[test]
    fn no_request_chooses_the_host() {
        for rest in ["/evil.example", "\\evil.example", "/", "../x", "%2e%2e/x"] {
            assert_eq!(location(Origin::Same, "/{path.rest}", rest, "h", None), None, "{rest}");
        }
        assert_eq!(
            location(
                Origin::SameHost {
                    scheme: "https://",
                    port: "".into()
                },
                "/",
                "",
                "",
                None
            ),
            None
        );
    }
}
