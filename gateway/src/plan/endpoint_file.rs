//! Reads the file of a backend's endpoints, when the config is compiled and whenever the file changes.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::call::endpoints::{FileSettings, Origin, Schemes, Written, WrittenEndpoints};
use crate::config::{self, At, Code, EndpointUrl, Invalid, Mistake, Mistakes, Sources, endpoint_file};

/// Reads a file of endpoints.
///
/// # Errors
/// Every mistake in the file, ready to be shown.
pub fn read(settings: &FileSettings) -> Result<WrittenEndpoints, String> {
    let mut sources = Sources::default();
    load(settings, &mut sources).map_err(|mistakes| Invalid { sources, mistakes }.to_string())
}

/// Reads a file of endpoints into `sources`.
pub(super) fn load(settings: &FileSettings, sources: &mut Sources) -> Result<WrittenEndpoints, Mistakes> {
    let file = endpoint_file::load(&settings.path, sources)?;
    let mut mistakes = twice(&file.endpoints, "the file");
    let mut all = Vec::new();
    for config::Endpoint { url, weight } in &file.endpoints {
        match origin(url, settings) {
            Ok(origin) => all.push(written(url, **weight, origin)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() {
        Ok(WrittenEndpoints::new(all))
    } else {
        Err(mistakes)
    }
}

pub(super) fn written(url: &EndpointUrl, weight: u32, origin: Origin) -> Written {
    Written {
        origin: Arc::new(origin),
        host: url.host.clone(),
        port: url.port,
        weight,
    }
}

/// Reports the endpoints that are listed twice.
pub(super) fn twice(all: &[config::Endpoint], owner: &str) -> Mistakes {
    let (mut mistakes, mut seen) = (Mistakes::default(), HashSet::new());
    for at in all {
        if !seen.insert(&at.url.authority) {
            mistakes.push(
                Mistake::new(
                    Code::DuplicateKey,
                    at.url.span(),
                    format!("{owner} has this endpoint twice"),
                )
                .hint("use `weight` to send it more"),
            );
        }
    }
    mistakes
}

fn origin(url: &At<EndpointUrl>, settings: &FileSettings) -> Result<Origin, Mistake> {
    let wrong = |why: &str, hint: &str| {
        let message = format!("`{}` {why}", url.value);
        Err(Mistake::new(Code::Conflict, url.span(), message).hint(hint))
    };
    match (settings.schemes, url.is_secure) {
        (Schemes::Plain, true) => return wrong("cannot be reached by `h2c`", "write `http://`"),
        (Schemes::Secure, false) => return wrong("cannot be reached by `h2`", "write `https://`"),
        (Schemes::Untrusting, true) => {
            return wrong(
                "has no certificate authority by which it could be trusted",
                "name it in the backend's `tls.ca_file`, or install the package `ca-certificates`",
            );
        }
        (Schemes::Plain | Schemes::Untrusting | Schemes::Both, false) | (Schemes::Secure | Schemes::Both, true) => {}
    }
    let server_name = match (&settings.server_name, url.is_secure) {
        (_, false) => None,
        (Some(name), true) => Some(name.clone()),
        (None, true) => match ServerName::try_from(url.host.clone()) {
            Ok(name) => Some(name),
            Err(_) => return Err(no_certificate(url)),
        },
    };
    Ok(new_origin(url, server_name))
}

pub(super) fn no_certificate(url: &At<EndpointUrl>) -> Mistake {
    let message = format!("no certificate can stand for the host of `{}`", url.value);
    Mistake::new(Code::BadValue, url.span(), message).hint("write `tls.server_name`")
}

pub(super) fn new_origin(url: &EndpointUrl, server_name: Option<ServerName<'static>>) -> Origin {
    let origin = Origin::new(url.to_string().into(), &url.authority, server_name);
    origin.expect("an authority that was parsed fits into a field")
}
