//! Compiles listeners: their addresses, protocols and TLS settings.

use std::sync::Arc;

use crate::config::{self, At, ClientCertificates, Code, HttpVersion, Mistake, ProxyProtocol, TlsVersion};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::tls_files;
use crate::plan::{Listener, Protocols};
use crate::tls::client_authorities::ClientAuthorities;
use crate::tls::listener::Tls;

pub(super) fn compile(compiler: &mut Compiler<'_>) -> Option<Vec<Listener>> {
    let config = compiler.config;
    let all: Vec<_> = config
        .listeners
        .iter()
        .map(|(name, written)| {
            let config::Listener {
                address,
                tls: of_tls,
                // Compiled in `protocols`.
                protocols: _,
                proxy_protocol,
            } = written;
            let tls = match of_tls {
                None => None,
                Some(of_tls) => Some(tls(compiler, name, of_tls, protocols(written))?),
            };
            let is_proxied = proxy_protocol.value == ProxyProtocol::Required;
            if is_proxied && config.client_address.trusted_proxies.is_empty() {
                let message = format!("nobody could connect to `listeners.{name}`: no proxy is trusted");
                compiler.mistake(
                    Mistake::new(Code::MissingKey, proxy_protocol.span(), message)
                        .hint("write the networks of the load balancers in `client_address.trusted_proxies`"),
                );
            }
            Some(Listener {
                name: name.to_string(),
                address: **address,
                tls,
                protocols: protocols(written),
                proxy_protocol: is_proxied,
            })
        })
        .collect();
    all.into_iter().collect()
}

fn protocols(written: &config::Listener) -> Protocols {
    let lists = |version| written.protocols.iter().any(|listed| listed.value == version);
    match (lists(HttpVersion::Http1), lists(HttpVersion::Http2)) {
        (true, true) => Protocols::Both,
        (_, false) => Protocols::Http1,
        (false, true) => Protocols::Http2,
    }
}

/// Returns true if any listener asks callers for client certificates.
pub(super) fn ask_for_certificates(config: &config::Config) -> bool {
    let asks = |tls: &config::Tls| tls.client.value != ClientCertificates::Off;
    config
        .listeners
        .iter()
        .any(|(_, listener)| listener.tls.as_ref().is_some_and(asks))
}

fn tls(compiler: &mut Compiler<'_>, name: &str, written: &config::Tls, protocols: Protocols) -> Option<Tls> {
    let config::Tls {
        certificates,
        client_ca_file,
        client,
        minimum_version,
    } = written;
    let identities: Vec<_> = certificates
        .iter()
        .map(|files| tls_files::identity(compiler, files))
        .collect();
    let file = client_ca_file.as_ref();
    let roots = file.map(|file| tls_files::authorities(compiler, file));
    let identities = identities.into_iter().collect::<Option<Vec<_>>>()?;
    let must_show = client.value == ClientCertificates::Required;
    let asked = client.value != ClientCertificates::Off;
    let authorities = match roots {
        Some(None) => return None,
        Some(Some(roots)) if asked => Some(ClientAuthorities::new(roots, must_show)),
        _ => None,
    };
    let only_1_3 = minimum_version.value == TlsVersion::V1_3;
    let offers: &[&[u8]] = match protocols {
        Protocols::Http1 => &[b"http/1.1"],
        Protocols::Http2 => &[b"h2"],
        Protocols::Both => &[b"h2", b"http/1.1"],
    };
    let authorities = authorities.transpose().map(|authorities| authorities.map(Arc::new));
    authorities
        .and_then(|authorities| Tls::new(identities, authorities, only_1_3, offers))
        .map_err(|mistake| {
            let at = client_ca_file.as_ref().and_then(At::span);
            compiler.mistake(Mistake::new(
                Code::BadValue,
                at,
                format!("`listeners.{name}.tls` {mistake}"),
            ));
        })
        .ok()
}
