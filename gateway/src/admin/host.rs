//! Rejects requests of web pages: a page whose name was rebound to the admin address (DNS rebinding) sends its own name
//! as Host.
//!
//! An IP address or `localhost` cannot be rebound, so only these names are accepted.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

pub(super) async fn check(request: Request, next: Next) -> Response {
    // A request without Host is HTTP/1.0, which no browser speaks.
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = hosts.all(|host| host.to_str().is_ok_and(is_ours));
    let targeted = request
        .uri()
        .authority()
        .is_none_or(|authority| is_ours(authority.as_str()));
    if named && targeted {
        next.run(request).await
    } else {
        Problem::HOST_REFUSED.into_response()
    }
}

fn is_ours(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    // Text before an `@` is user information, not a host.
    !host.contains('@') && (address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_ours() {
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "10.2.3.4:80",
            "[::1]",
            "[::1]:9900",
            "localhost",
            "LocalHost:9900",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for others in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x@127.0.0.1",
            "::1 x",
            "1.2.3",
        ] {
            assert!(!is_ours(others), "{others}");
        }
    }
}

#[cfg(test)]
mod api_tests;
