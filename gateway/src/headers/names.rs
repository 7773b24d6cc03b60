//! Classifies header fields by name.
//!
//! A character that is neither letter nor digit counts as a hyphen, because many backends read it as one ([`aliases`]).
//! So a field that is removed under one name cannot enter under another spelling.

use http::HeaderName;

use crate::wire::aliases;

pub static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
pub static X_TENANT_TIER: HeaderName = HeaderName::from_static("x-tenant-tier");
pub static X_CALLER_ID: HeaderName = HeaderName::from_static("x-caller-id");
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Passes unchanged.
    EndToEnd,
    /// Belongs to one connection (RFC 9110 section 7.6.1).
    HopByHop,
    /// Names the caller, its attempt number or its deadline; only the gateway may tell a backend that.
    Identity,
    /// Tells what the gateway did; only the gateway may set it.
    Gateway,
    /// Asks a server to treat the request as one of another method than was authorised.
    MethodOverride,
    /// Tells what a proxy saw, or replaces the path or host that some servers use. A trusted proxy may set it, in the
    /// spelling with hyphens; a proxy does not remove another spelling, so such a field may come from the client.
    FromProxies,
}

/// Endings of field names in which proxies tell the address, scheme or host that a request came with. The part before
/// the ending names a product and can be anything.
const ENDS_OF_PROXIES: [&str; 25] = [
    "client-ip",
    "clientip",
    "connecting-ip",
    "connecting-ipv4",
    "connecting-ipv6",
    "connection-ip",
    "external-address",
    "forward-for",
    "forwarded-for",
    "forwarded-for-ip",
    "forwarded-host",
    "forwarded-proto",
    "original-ip",
    "originating-ip",
    "pseudo-ipv4",
    "real-ip",
    "realip",
    "remote-addr",
    "remote-address",
    "remote-ip",
    "socketip",
    "source-ip",
    "src-ip",
    "user-ip",
    "viewer-address",
];

/// Beginnings of the names of fields in which a proxy passes on the client certificate, whole or in parts (RFC 9440
/// section 2, and older names). The gateway tells its own result in the caller's identity.
const BEGINNINGS_OF_CERTIFICATES: [&str; 4] = ["client-cert", "x-client-cert", "ssl-client-", "x-ssl-client-"];

/// Returns the kind of a field. `name` is in lower case, as the names of a header map are.
pub(crate) fn kind(name: &str) -> Kind {
    if is_word_of_proxies(name) {
        return of_proxies(name);
    }
    // For most fields the first letter shows that none of these names matches.
    match name.as_bytes().first() {
        // Another spelling of Content-Length would be a second length for a backend that folds names.
        Some(b'c') if name == "connection" || is_alias(name, "content-length") => Kind::HopByHop,
        Some(b'e') if name == "expect" => Kind::HopByHop,
        Some(b'f') if name == "forwarded" || is(name, "front-end-https") => of_proxies(name),
        // The gateway sets grpc-timeout itself; backends that fold names read another spelling as the same field.
        Some(b'g') if is_alias(name, "grpc-timeout") => Kind::Identity,
        Some(b'h') if is(name, "http2-settings") => Kind::HopByHop,
        Some(b'k') if is(name, "keep-alive") => Kind::HopByHop,
        Some(b'p') if is(name, "proxy-connection") || is(name, "proxy-authorization") => Kind::HopByHop,
        Some(b'p') if is(name, "proxy-authenticate") || name == "proxy" => Kind::HopByHop,
        Some(b's') if begins(name, "sec-websocket-") && aliases::is_odd(name) => Kind::Identity,
        Some(b't') if name == "te" || is(name, "transfer-encoding") => Kind::HopByHop,
        Some(b'u') if name == "upgrade" => Kind::HopByHop,
        Some(b'x') => extension_kind(name),
        _ => Kind::EndToEnd,
    }
}

/// Whether a request's field of this name has to be removed, or read first.
pub(crate) fn needs_attention(name: &HeaderName) -> bool {
    let name = name.as_str();
    kind(name) != Kind::EndToEnd || matches!(name, "via" | "grpc-timeout")
}

/// Whether a request's field of this name is always removed before the backend gets the request.
pub fn is_always_removed(name: &HeaderName) -> bool {
    match kind(name.as_str()) {
        Kind::HopByHop | Kind::Identity | Kind::Gateway | Kind::MethodOverride => true,
        Kind::EndToEnd | Kind::FromProxies => false,
    }
}

fn extension_kind(name: &str) -> Kind {
    const IDENTITY: [&str; 6] = [
        "x-tenant",
        "x-user",
        "x-user-id",
        "x-caller-id",
        "x-request-timeout-ms",
        "x-attempt",
    ];
    // Some servers use these as path or host in place of those that were matched.
    const FROM_PROXIES: [&str; 3] = ["x-original-url", "x-original-host", "x-rewrite-url"];
    const METHOD_OVERRIDE: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    let is_ours = IDENTITY.iter().any(|identity| is(name, identity)) || begins(name, "x-tenant-");
    if is_ours || is_alias(name, "x-request-id") {
        Kind::Identity
    } else if begins(name, "x-gateway-") {
        Kind::Gateway
    } else if FROM_PROXIES.iter().any(|theirs| is(name, theirs)) || begins(name, "x-forwarded") {
        of_proxies(name)
    } else if METHOD_OVERRIDE.iter().any(|theirs| is(name, theirs)) {
        Kind::MethodOverride
    } else {
        Kind::EndToEnd
    }
}

/// Whether a field is exempt from removal by `Connection`, against RFC 9110 section 7.6.1. Exempt fields frame the
/// body, name its type, address the request, name it in logs, carry a credential or tell what a proxy saw. A
/// `Connection` that names them is an attack, so they pass as if it did not.
pub(crate) fn is_protected(name: &str) -> bool {
    const PROTECTED: [&str; 7] = [
        "content-length",
        "content-type",
        "content-encoding",
        "host",
        "authorization",
        "via",
        "x-request-id",
    ];
    PROTECTED.contains(&name) || matches!(kind(name), Kind::Identity | Kind::Gateway | Kind::FromProxies)
}

/// Whether a proxy sets the field to tell where a request comes from, whatever the product.
fn is_word_of_proxies(name: &str) -> bool {
    // The first letters or the last ones rule out most fields.
    let may_begin_so = matches!(name.as_bytes(), [b'c', b'l', ..] | [b's', b's', ..] | [b'x', ..]);
    let may_end_so = match name.as_bytes() {
        [.., before, last] => match last {
            b'p' => *before == b'i',
            b'4' | b'6' => *before == b'v',
            b's' => *before == b's',
            b'r' => matches!(before, b'o' | b'd'),
            // `forwarded-host` with any sign before its last word; `host` alone is in every request.
            b't' => name.len() > 4 && name.ends_with("host"),
            b'o' => *before == b't',
            _ => false,
        },
        _ => false,
    };
    may_end_so && ENDS_OF_PROXIES.iter().any(|end| ends(name, end))
        || may_begin_so
            && BEGINNINGS_OF_CERTIFICATES
                .iter()
                .any(|beginning| begins(name, beginning))
}

fn of_proxies(name: &str) -> Kind {
    if aliases::is_odd(name) {
        Kind::Identity
    } else {
        Kind::FromProxies
    }
}

/// Whether backends may read `name` as `hyphenated` although it is spelt in another way.
fn is_alias(name: &str, hyphenated: &str) -> bool {
    name != hyphenated && is(name, hyphenated)
}

fn is(name: &str, hyphenated: &str) -> bool {
    name.len() == hyphenated.len() && begins(name, hyphenated)
}

/// Whether the name ends with these whole words.
fn ends(name: &str, hyphenated: &str) -> bool {
    let Some(before) = name.len().checked_sub(hyphenated.len()) else {
        return false;
    };
    let (Some(start), Some(end)) = (name.get(..before), name.get(before..)) else {
        return false;
    };
    (start.is_empty() || start.ends_with(|last: char| !last.is_ascii_alphanumeric())) && begins(end, hyphenated)
}

fn begins(name: &str, hyphenated: &str) -> bool {
    let mut both = name.bytes().zip(hyphenated.bytes());
    name.len() >= hyphenated.len() && both.all(|(byte, want)| aliases::fold(byte) == want)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that known products, servers and hosts set or trust.
    #[test]
    fn who_speaks_of_the_caller_is_a_proxy() {
        for name in [
            "true-client-ip",
            "x-true-client-ip",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "cf-pseudo-ipv4",
            "fastly-client-ip",
            "fly-client-ip",
            "do-connecting-ip",
            "client-ip",
            "http-client-ip",
            "x-client-ip",
            "x-clientip",
            "x-azure-clientip",
            "x-azure-socketip",
            "x-sucuri-clientip",
            "incap-client-ip",
            "x-cluster-client-ip",
            "proxy-client-ip",
            "wl-proxy-client-ip",
            "x-nf-client-connection-ip",
            "x-appengine-user-ip",
            "x-appengine-remote-addr",
            "x-envoy-external-address",
            "cloudfront-viewer-address",
            "x-real-ip",
            "ali-cdn-real-ip",
            "cdn-src-ip",
            "x-remote-ip",
            "x-remote-addr",
            "remote-addr",
            "x-originating-ip",
            "x-original-ip",
            "x-source-ip",
            "x-original-forwarded-for",
            "x-vercel-forwarded-for",
            "http-x-forwarded-for",
            "forwarded-for",
            "x-forward-for",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "cloudfront-forwarded-proto",
            "forwarded",
        ] {
            assert_eq!(kind(name), Kind::FromProxies, "{name}");
            assert!(is_protected(name), "{name}: Connection could name it away");
            // Proxies do not set any other spelling.
            for (at, _) in name.match_indices('-') {
                for sign in ["_", ".", "~", "!", "'"] {
                    let mut odd = name.to_owned();
                    odd.replace_range(at..=at, sign);
                    assert_eq!(kind(&odd), Kind::Identity, "{odd}");
                }
            }
        }
    }

    /// The letters by which most fields are ruled out are those of these words.
    #[test]
    fn every_word_of_proxies_is_found() {
        for end in ENDS_OF_PROXIES {
            assert_eq!(kind(end), Kind::FromProxies, "{end}");
            assert_eq!(kind(&format!("any-{end}")), Kind::FromProxies, "{end}");
        }
        for beginning in BEGINNINGS_OF_CERTIFICATES {
            assert_eq!(kind(&format!("{beginning}x")), Kind::FromProxies, "{beginning}");
        }
    }

    #[test]
    fn fields_are_known_by_name() {
        let check = |expected: Kind, names: &[&str]| {
            for name in names {
                assert_eq!(kind(name), expected, "{name}");
            }
        };
        check(
            Kind::HopByHop,
            &[
                "connection",
                "keep-alive",
                "proxy-connection",
                "te",
                "transfer-encoding",
                "transfer_encoding",
                "transfer.encoding",
                "content_length",
                "content~length",
                "upgrade",
                "proxy-authenticate",
                "proxy-authorization",
                "expect",
                "http2-settings",
                "proxy",
            ],
        );
        check(
            Kind::Identity,
            &[
                "x-tenant",
                "x-tenant-id",
                "x_tenant_id",
                "x.tenant.id",
                "x!tenant~id",
                "x|user",
                "x-tenant_tier",
                "x-tenant-anything",
                "x-user",
                "x-user-id",
                "x-caller-id",
                "x_caller_id",
                "x-request-timeout-ms",
                "x-attempt",
                // Spellings that no proxy sets.
                "x_forwarded_for",
                "x-real_ip",
                "true_client_ip",
                "cf-connecting_ip",
                "x_client_ip",
                "x-ssl_client-verify",
                "client_cert",
                "front_end_https",
                // Spellings that the gateway does not set either.
                "x_request_id",
                "x-request_id",
                "x_attempt",
                "x_request_timeout-ms",
                "grpc_timeout",
                "sec_websocket_key",
                "sec-websocket_protocol",
            ],
        );
        check(Kind::Gateway, &["x-gateway-reason", "x_gateway_reason", "x-gateway-"]);
        check(
            Kind::FromProxies,
            &[
                "forwarded",
                "x-forwarded-for",
                "x-forwarded",
                "x-real-ip",
                "x-original-url",
                "front-end-https",
                "client-cert",
                "client-cert-chain",
                "x-client-cert",
                "x-ssl-client-cert",
                "x-ssl-client-verify",
                "x-ssl-client-s-dn",
                "ssl-client-subject-dn",
            ],
        );
        check(
            Kind::EndToEnd,
            &[
                "accept",
                "host",
                "authorization",
                "content-length",
                "trailer",
                "x-request-id",
                "x-tenants",
                "x-users",
                "x-user-agent",
                "x-gateway",
                "x",
                // Names without an address or a certificate.
                "ip",
                "x-zip",
                "x-tip",
                "client-id",
                "client-ip-count",
                "x-bus-stop",
                "x-sourceip-list",
                "notclient-ip",
                "x-ssl-clients",
                "clients",
                "server-cert",
                "x-api-key",
                "grpc-timeout",
                "sec-websocket-key",
                "traceparent",
                "via",
            ],
        );
    }
}
