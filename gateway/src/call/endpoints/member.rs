//! One endpoint as its source describes it: an address, with the URL by which it was found.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;

use crate::call::memory_pipe::Dial;

/// Scheme, host and port of a URL in the config or in another source (RFC 6454 section 4). Its host may have several
/// addresses.
#[derive(Debug)]
pub struct Origin {
    /// URL as written; logs and the admin API name the endpoints by it.
    pub url: Arc<str>,
    /// Value of the Host field: `host[:port]`.
    pub(crate) host: HeaderValue,
    /// Authority of the request URI in HTTP/2: `host[:port]`.
    pub(crate) authority: Authority,
    /// Name that the certificate must carry. `None` means plain text.
    pub(super) server_name: Option<ServerName<'static>>,
    /// Opens the connections in place of a network, for plans that run on virtual time.
    pub(super) dial: Option<Arc<dyn Dial>>,
}

/// Endpoint as a source lists it.
#[derive(Debug, Clone)]
pub struct Member {
    pub origin: Arc<Origin>,
    pub address: SocketAddr,
    /// Share of the calls, relative to the other members. Zero counts as 1.
    pub weight: u32,
    pub readiness: Readiness,
}

/// Whether a member should get new calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Still serves but is about to end. It gets calls only while no ready endpoint is usable.
    Serving,
}

impl Readiness {
    /// Returns the word for the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Serving => "serving",
        }
    }
}

impl Origin {
    /// Creates an origin. `authority` is `host[:port]` as written. `server_name` is the name that the certificate must
    /// carry; `None` means plain text. Returns `None` if the authority is not valid.
    pub fn new(url: Arc<str>, authority: &str, server_name: Option<ServerName<'static>>) -> Option<Self> {
        Some(Self {
            url,
            host: HeaderValue::from_str(authority).ok()?,
            authority: authority.parse().ok()?,
            server_name,
            dial: None,
        })
    }

    /// Returns the same origin with connections that `dial` opens. No TLS is spoken on them.
    pub fn dialled_by(&self, dial: Arc<dyn Dial>) -> Self {
        Self {
            url: Arc::clone(&self.url),
            host: self.host.clone(),
            authority: self.authority.clone(),
            server_name: self.server_name.clone(),
            dial: Some(dial),
        }
    }

    /// Returns whether TLS is spoken with the endpoints.
    pub const fn is_secure(&self) -> bool {
        self.server_name.is_some()
    }
}

impl Member {
    /// Creates a ready member.
    pub const fn new(origin: Arc<Origin>, address: SocketAddr, weight: u32) -> Self {
        Self {
            origin,
            address,
            weight,
            readiness: Readiness::Ready,
        }
    }

    /// Marks a member that is about to end.
    #[must_use]
    pub const fn only_serving(mut self) -> Self {
        self.readiness = Readiness::Serving;
        self
    }
}
