//! What the configs of many tests have in common: free ports, callers who are not in the way, one plain backend.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

/// Ports that are free, and anonymous callers who never meet their limit.
pub const EDGE: &str = "
listeners: { public: { address: \"127.0.0.1:0\" } }
admin: { address: \"127.0.0.1:0\" }
tiers: { open: { rate: 1000000/s, burst: 1000000 } }
callers: { anonymous: { by: client_address, tier: open } }
";

/// Guards that no test's load ever meets, however long the machine makes it wait.
pub const UNGUARDED: &str = "retry: off, breaker: off, bulkhead: { limit: 10000 }";

/// A config of [`EDGE`] and what is added to it.
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
    /// On these top-level keys rather than those of [`EDGE`].
    pub fn with(top: impl Into<String>) -> Self {
        Self {
            top: top.into(),
            backends: String::new(),
            routes: String::new(),
        }
    }

    /// More top-level keys.
    pub fn top(mut self, yaml: impl Display) -> Self {
        writeln!(self.top, "{yaml}").expect("a string takes any text");
        self
    }

    /// A backend of one endpoint; `more` is the rest of its flow mapping.
    pub fn backend(self, name: &str, address: SocketAddr, more: &str) -> Self {
        self.backend_of(name, [address], more)
    }

    /// A backend of several endpoints; `more` is the rest of its flow mapping.
    pub fn backend_of<const N: usize>(mut self, name: &str, addresses: [SocketAddr; N], more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        let endpoints = addresses
            .map(|address| format!("{{ url: \"http://{address}\" }}"))
            .join(", ");
        writeln!(self.backends, "  {name}: {{ endpoints: [{endpoints}]{comma}{more} }}")
            .expect("a string takes any text");
        self
    }

    /// A route, as a flow mapping or an indented block.
    pub fn route(mut self, name: &str, yaml: &str) -> Self {
        writeln!(self.routes, "  {name}: {yaml}").expect("a string takes any text");
        self
    }

    /// A route open to everyone, to whatever is below `/{name}`, of one backend of the same name.
    pub fn open(self, name: &str, address: SocketAddr, more: &str) -> Self {
        self.backend(name, address, more).open_route(name, name, "")
    }

    /// A route open to everyone from `/{name}/{*rest}` to `/{*rest}` of the backend; `more` is the rest of its mapping.
    pub fn open_route(self, name: &str, backend: &str, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        self.mapped(
            name,
            backend,
            &format!("access: {{ any_of: [anonymous] }}{comma}{more}"),
        )
    }

    /// A route from `/{name}/{*rest}` to `/{*rest}` of the backend; `more` is the rest of its mapping.
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
