//! Compiles redirects. Only the path and the query can have placeholders, so no request chooses the host it is sent to.

use std::collections::HashSet;

use http::StatusCode;
use http::uri::Authority;

use crate::config::{self, Code, Mistake};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::scope::{Scope, template};
use crate::plan::redirect::{Origin, Redirect};
use crate::template::Syntax;

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &config::Redirect,
    parameters: &HashSet<String>,
) -> Option<Redirect> {
    let config::Redirect { to, status } = written;
    let Some((origin, path)) = split(to) else {
        compiler.mistake(
            Mistake::new(
                Code::BadValue,
                to.span(),
                format!("`routes.{name}.redirect.to` must be a path, or an http or https URL"),
            )
            .hint("as in `/new/{path.id}`, `https://www.example.com/{path.rest}` or `https://{host}/`"),
        );
        return None;
    };
    let path = to.clone().map(|_| path);
    Some(Redirect {
        status: StatusCode::from_u16(**status).ok()?,
        origin,
        path: template(compiler, &path, Syntax::Path, &Scope::of_route(parameters))?,
    })
}

/// Splits a URL into its origin and the template of its path and query.
fn split(to: &str) -> Option<(Origin, String)> {
    if to.starts_with('/') {
        return Some((Origin::Same, to.to_owned()));
    }
    let (scheme, rest) = ["http://", "https://"]
        .iter()
        .find_map(|scheme| Some((*scheme, to.strip_prefix(scheme)?)))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    if let Some(port) = authority.strip_prefix("{host}") {
        let is_port = |digits: &str| digits.parse::<u16>().is_ok_and(|port| port > 0);
        let is_good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_good.then(|| {
            (
                Origin::SameHost {
                    scheme,
                    port: port.into(),
                },
                path,
            )
        });
    }
    let is_good = !authority.contains(['@', '{', '}']) && authority.parse::<Authority>().is_ok();
    is_good.then(|| (Origin::Fixed(format!("{scheme}{authority}").into()), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_after_its_authority() {
        let fixed = |origin: &str, path: &str| Some((Origin::Fixed(origin.into()), path.to_owned()));
        let host = |scheme, port: &str, path: &str| {
            let port = port.into();
            Some((Origin::SameHost { scheme, port }, path.to_owned()))
        };
        for (to, expected) in [
            ("/a/{path.id}?b", Some((Origin::Same, "/a/{path.id}?b".to_owned()))),
            ("https://a.example", fixed("https://a.example", "/")),
            ("https://a.example:8443/b?c", fixed("https://a.example:8443", "/b?c")),
            ("http://[::1]/b", fixed("http://[::1]", "/b")),
            ("https://a.example?b", fixed("https://a.example", "/?b")),
            ("https://{host}/b", host("https://", "", "/b")),
            ("https://{host}:8443", host("https://", ":8443", "/")),
            ("https://{host}:0/", None),
            ("https://{host}.evil/", None),
            ("https://{header.host}/", None),
            ("https://user@a.example/", None),
            ("https:///a", None),
            ("ftp://a.example/", None),
            ("a.example", None),
            ("", None),
        ] {
            assert_eq!(split(to), expected, "{to}");
        }
    }
}
