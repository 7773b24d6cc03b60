//! Hashes what backends of the policy `hash` choose their endpoints by.

use std::net::IpAddr;

use http::{HeaderMap, header};
use policies::balance::hash;

use super::decision::AuthorizedRequest;
use crate::call::endpoints::{HashKey, HashKeys};

/// Returns the hashes of the keys that the backends of the route ask for. `client` is the client address, if it is
/// known.
pub(super) fn hash_keys(request: &AuthorizedRequest<'_>, client: Option<IpAddr>) -> HashKeys {
    HashKeys::of(&request.route.hash_keys, |key| {
        let caller = &request.principal.caller;
        let headers = &request.head.headers;
        Some(match key {
            HashKey::Tenant => hash::of(caller.tenant.as_bytes()),
            // No tenant contains a NUL, so no two callers have the same key.
            HashKey::Caller => hash::of(format!("{}\0{}", caller.tenant, caller.id).as_bytes()),
            HashKey::ClientAddress => hash::of(client?.to_string().as_bytes()),
            HashKey::Header(name) => hash::of(headers.get(name)?.as_bytes()),
            HashKey::Cookie(name) => hash::of(cookie(headers, name)?),
            HashKey::Path(name) => hash::of(request.captures.get(name)?.as_bytes()),
        })
    })
}

/// Returns the value of a cookie (RFC 6265 section 5.4). Of several with this name, the first counts.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let check = |lines: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            assert_eq!(cookie(&headers, "sid"), expected.map(str::as_bytes), "{lines:?}");
        };
        check(&[], None);
        check(&["sid=1"], Some("1"));
        check(&["a=2; sid=1; b=3"], Some("1"));
        check(&["a=2", "sid=1"], Some("1"));
        check(&["sid=1; sid=2"], Some("1"));
        check(&["sid="], Some(""));
        check(&["sid"], None);
        check(&["xsid=1; sidx=2"], None);
        check(&["a=sid=1"], None);
    }
}
