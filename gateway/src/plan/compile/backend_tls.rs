//! Compiles the TLS settings for the endpoints of a backend.

use std::cell::OnceCell;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use crate::call::tls::{self, EndpointTls, TlsTerms};
use crate::config::{self, Code, Mistake, TlsVersion};
use crate::observe::BackendMetrics;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::{backends, tls_files};
use crate::tls::client_authorities;

/// The system's certificate authorities, loaded when the first backend needs them.
#[derive(Default)]
pub(super) struct System(OnceCell<Arc<RootCertStore>>);

impl System {
    fn authorities(&self) -> &Arc<RootCertStore> {
        self.0.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            // Unusable certificates are skipped: the system's administrator must fix them, and the others still work.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        })
    }

    pub(super) fn has_authorities(&self) -> bool {
        !self.authorities().is_empty()
    }
}

/// TLS settings that all endpoints of one backend share.
pub(super) struct BackendTls {
    pub(super) shared: EndpointTls,
    name: Option<ServerName<'static>>,
    /// Expiry of the client certificate, in seconds since 1970.
    pub(super) expires: Option<u64>,
}

/// Returns `None` after a mistake.
pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    system: &System,
    backend: &str,
    written: &config::Backend,
    metrics: &Arc<BackendMetrics>,
) -> Option<BackendTls> {
    let config::BackendTls {
        ca_file,
        certificate,
        server_name: own_name,
        minimum_version,
    } = &written.tls;
    let roots = match ca_file {
        Some(file) => tls_files::authorities(compiler, file),
        None => system_authorities(compiler, system, backend, written),
    };
    let own = certificate.as_ref().map(|files| tls_files::identity(compiler, files));
    let name = own_name.as_ref().map(|name| {
        server_name(name)
            .ok_or_else(|| {
                let message = format!(
                    "`{}.tls.server_name` is not a host's name or an address",
                    backends::path(backend)
                );
                compiler.mistake(Mistake::new(Code::BadValue, name.span(), message));
            })
            .ok()
    });
    // All three are evaluated first, so that all mistakes are reported.
    let (roots, own, name) = (roots?, transpose(own)?, transpose(name)?);
    let only_1_3 = minimum_version.value == TlsVersion::V1_3;
    let terms = TlsTerms {
        authorities: client_authorities::digest(&roots),
        own: own.as_ref().map(|own| own.certificate().digest),
        name: own_name.as_ref().map(|name| name.as_str().into()),
        only_1_3,
    };
    let key = own.as_ref().map(|own| Arc::clone(own.key()));
    let in_http2 = *written.protocol == config::Protocol::H2;
    let config = tls::terms(roots, key, only_1_3, in_http2)
        .map_err(|error| {
            let at = minimum_version.span();
            compiler.mistake(Mistake::new(
                Code::BadValue,
                at,
                format!("`{}.tls`: {error}", backends::path(backend)),
            ));
        })
        .ok()?;
    Some(BackendTls {
        shared: EndpointTls {
            config,
            terms,
            metrics: Arc::clone(metrics),
        },
        name,
        expires: own.map(|own| own.certificate().expires),
    })
}

impl BackendTls {
    /// Returns the name that the certificate of an endpoint must carry; `None` if its host is not a valid name.
    pub(super) fn name_of(&self, host: &str) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| server_name(host))
    }

    /// Returns the name that is written in place of the hosts.
    pub(super) fn own_name(&self) -> Option<ServerName<'static>> {
        self.name.clone()
    }
}

fn system_authorities(
    compiler: &mut Compiler<'_>,
    system: &System,
    backend: &str,
    written: &config::Backend,
) -> Option<Arc<RootCertStore>> {
    let found = system.authorities();
    if !found.is_empty() {
        return Some(Arc::clone(found));
    }
    let first = written
        .endpoints
        .listed()
        .iter()
        .find(|endpoint| endpoint.url.is_secure);
    let at = first.map_or(written.endpoints.span(), |first| first.url.span());
    let message = format!(
        "this system has no certificate authorities by which `{}` could be trusted",
        backends::path(backend)
    );
    compiler.mistake(
        Mistake::new(Code::Unreadable, at, message)
            .hint("name the backend's own in `tls.ca_file`, or install the package `ca-certificates`"),
    );
    None
}

fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

/// Turns a failed optional section into `None`, and a missing one into `Some(None)`.
fn transpose<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(Some(part)) => Some(Some(part)),
        Some(None) => None,
    }
}
