//! Settings of the sources of endpoints that are asked while the gateway runs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::member::Origin;

/// Source of the endpoints of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    Dns(DnsSettings),
    Srv(SrvSettings),
    File(FileSettings),
    Kubernetes(KubernetesSettings),
}

/// Scheme and names that all endpoints of a source have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Naming {
    /// Host in the URL of each endpoint and in its Host field.
    pub host: Arc<str>,
    /// Name that the certificates must carry. `None` means plain text.
    pub server_name: Option<ServerName<'static>>,
}

/// Name whose addresses are the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsSettings {
    pub naming: Naming,
    pub port: u16,
    /// Time between two lookups.
    pub refresh: Duration,
}

/// File that lists the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSettings {
    pub path: PathBuf,
    /// Schemes that its URLs may have.
    pub schemes: Schemes,
    /// Name that the certificates must carry in place of the host of the URL.
    pub server_name: Option<ServerName<'static>>,
}

/// Schemes that the URLs of a file of endpoints may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schemes {
    /// `http`, because the protocol is spoken in plain text.
    Plain,
    /// `https`, because the protocol is spoken in TLS.
    Secure,
    Both,
    /// `http`, because no certificate authority is trusted.
    Untrusting,
}

/// DNS service whose records list the endpoints (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SrvSettings {
    /// Name of the service, such as `_http._tcp.users.example.com`.
    pub name: Arc<str>,
    pub naming: Naming,
    /// Name server that is asked. `None` means those of the system.
    pub name_server: Option<SocketAddr>,
}

/// Kubernetes service whose endpoint slices list the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KubernetesSettings {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: SlicePort,
    pub naming: Naming,
    pub api: KubernetesApi,
}

/// Port of an endpoint slice: by name, or by the number on which the pods listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlicePort {
    Name(Arc<str>),
    Number(u16),
}

/// Access to the Kubernetes API. `None` means as a pod finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KubernetesApi {
    pub url: Option<Arc<str>>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
}

impl Source {
    /// Returns the word for the kind of source, which is its key in the config.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Srv(_) => "srv",
            Self::File(_) => "file",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Returns whether endpoints may be spoken to in plain text.
    pub fn takes_plain(&self) -> bool {
        match (self, self.naming()) {
            (Self::File(settings), _) => settings.schemes != Schemes::Secure,
            (_, naming) => naming.is_none_or(|naming| naming.server_name.is_none()),
        }
    }

    /// Returns the names of endpoints that the source finds; `None` for a file, which names each of them.
    pub const fn naming(&self) -> Option<&Naming> {
        match self {
            Self::Dns(settings) => Some(&settings.naming),
            Self::Srv(settings) => Some(&settings.naming),
            Self::Kubernetes(settings) => Some(&settings.naming),
            Self::File(_) => None,
        }
    }
}

/// Subject of a lookup: a name, a path or a service.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(settings) => write!(f, "{}:{}", settings.naming.host, settings.port),
            Self::Srv(settings) => f.write_str(&settings.name),
            Self::File(settings) => write!(f, "{}", settings.path.display()),
            Self::Kubernetes(settings) => {
                write!(f, "{}/{}:{}", settings.namespace, settings.service, settings.port)
            }
        }
    }
}

impl fmt::Display for SlicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Naming {
    /// Returns the origin of the endpoints at a port. `None` if the host is no part of a URL.
    pub fn origin(&self, port: u16) -> Option<Arc<Origin>> {
        let (scheme, usual) = match self.server_name {
            Some(_) => ("https", 443),
            None => ("http", 80),
        };
        let authority = if port == usual {
            self.host.to_string()
        } else {
            format!("{}:{port}", self.host)
        };
        let url = format!("{scheme}://{authority}");
        Origin::new(url.into(), &authority, self.server_name.clone()).map(Arc::new)
    }
}
