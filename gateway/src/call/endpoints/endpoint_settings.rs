//! Settings that all endpoints of a backend have in common.

use crate::call::tls::EndpointTls;

/// Settings that all endpoints of a set share.
pub struct EndpointSettings {
    /// TLS settings, for the endpoints whose URL asks for TLS.
    pub tls: Option<EndpointTls>,
    /// Whether HTTP/2 is spoken in place of HTTP/1.1.
    pub in_http2: bool,
    /// Number of workers, each of which has its own pools.
    pub workers: usize,
}

impl EndpointSettings {
    /// Returns the protocol, as named in the config.
    pub const fn protocol(&self) -> &'static str {
        match (self.in_http2, &self.tls) {
            (false, _) => "http1",
            (true, Some(_)) => "h2",
            (true, None) => "h2c",
        }
    }
}
