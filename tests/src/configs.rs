//! Builds configs for tests: free ports, anonymous callers without a limit that matters, and simple backends and
//! routes.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

/// Top-level keys with free ports, and anonymous callers that never reach their limit. The guard against overload is off,
/// because a debug build on a busy machine is late without much to do.
pub const EDGE: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { anonymous: { by: client_address, tier: open } }
overload: off
";

/// Guards of a route or backend that no test's load reaches, also on a slow machine.
pub const UNGUARDED: &str = "retry: off, breaker: off, bulkhead: { limit: 10000 }";

/// Config that starts from [`EDGE`].
#[derive(Clone, Debug)]
pub struct Config {
    top: String,
    backends: String,
    routes: String,
}

impl Default for Config {
    fn default() -> Self {
        Self::with(EDGE)
    }
}

impl Config {
    /// Starts from these top-level keys instead of [`EDGE`].
    pub fn with(top: impl Into<String>) -> Self {
        Self {
            top: top.into(),
            backends: String::new(),
            routes: String::new(),
        }
    }

    /// Adds top-level keys.
    pub fn top(mut self, yaml: impl Display) -> Self {
        writeln!(self.top, "{yaml}").expect("a string takes any text");
        self
    }

    /// Adds a backend with one endpoint; `more` is the rest of its flow mapping.
    pub fn backend(self, name: &str, address: SocketAddr, more: &str) -> Self {
        self.backend_of(name, [address], more)
    }

    /// Adds a backend with several endpoints; `more` is the rest of its flow mapping.
    pub fn backend_of<const N: usize>(mut self, name: &str, addresses: [SocketAddr; N], more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        let endpoints = addresses
            .map(|address| format!("{{ url: \"http://{address}\" }}"))
            .join(", ");
        writeln!(self.backends, "  {name}: {{ endpoints: [{endpoints}]{comma}{more} }}")
            .expect("a string takes any text");
        self
    }

    /// Adds a backend whose endpoints come from this source; `more` is the rest of its flow mapping.
    pub fn backend_from(mut self, name: &str, source: &str, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        writeln!(self.backends, "  {name}: {{ endpoints: {source}{comma}{more} }}").expect("a string takes any text");
        self
    }

    /// Adds a route, as a flow mapping or an indented block.
    pub fn route(mut self, name: &str, yaml: &str) -> Self {
        writeln!(self.routes, "  {name}: {yaml}").expect("a string takes any text");
        self
    }

    /// Adds a backend, and a route of the same name that anybody may use, for all paths below `/{name}`.
    pub fn open(self, name: &str, address: SocketAddr, more: &str) -> Self {
        self.backend(name, address, more).open_route(name, name, "")
    }

    /// Adds a route that anybody may use, from `/{name}/{*rest}` to `/{*rest}` of the backend; `more` is the rest of
    /// its mapping.
    pub fn open_route(self, name: &str, backend: &str, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        self.mapped(
            name,
            backend,
            &format!("access: {{ any_of: [anonymous] }}{comma}{more}"),
        )
    }

    /// Adds a route from `/{name}/{*rest}` to `/{*rest}` of the backend; `more` is the rest of its mapping.
    pub fn mapped(self, name: &str, backend: &str, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        self.route(
            name,
            &format!(
                "{{ match: {{ path: \"/{name}/{{*rest}}\" }}, backend: {backend}, \
                 rewrite: \"/{{path.rest}}\"{comma}{more} }}"
            ),
        )
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.top)?;
        if !self.backends.is_empty() {
            write!(f, "backends:\n{}", self.backends)?;
        }
        write!(f, "routes:\n{}", self.routes)
    }
}
