//! Compiles where the endpoints of a backend come from, and takes over the set that is in force.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::backend_tls::{BackendTls, System};
use super::compiler::Compiler;
use super::named_files;
use crate::call::endpoints::{
    Discovery, DnsSettings, EndpointSet, EndpointSettings, FileSettings, KubernetesApi, KubernetesSettings, Member,
    Naming, Origin, Schemes, SlicePort, Source, SrvSettings, WrittenEndpoints,
};
use crate::clock;
use crate::config::{self, At, Code, EndpointSource, EndpointUrl, Mistake, Protocol};
use crate::plan::endpoint_file;
use crate::plan::state::SetName;

/// Endpoints of a backend as the config says where they are.
pub(super) struct Compiled {
    pub(super) listed: WrittenEndpoints,
    /// Source that is asked while the gateway runs, with the time for which its endpoints are kept.
    source: Option<(Source, Option<Duration>)>,
    /// Place of the file of endpoints.
    file: Option<At<PathBuf>>,
}

/// Returns whether TLS may be spoken with endpoints of the backend.
pub(super) fn may_speak_tls(system: &System, written: &config::Backend) -> bool {
    let config::BackendTls {
        ca_file,
        certificate,
        server_name,
        minimum_version,
    } = &written.tls;
    written
        .endpoints
        .is_secure()
        .unwrap_or_else(|| match *written.protocol {
            Protocol::H2 => true,
            Protocol::H2c => false,
            // A file may list such endpoints later.
            Protocol::Http1 => {
                let is_written = ca_file.is_some() || certificate.is_some() || server_name.is_some();
                is_written || minimum_version.is_written() || system.has_authorities()
            }
        })
}

/// Returns what is good of the endpoints, after it has reported the mistakes in them.
pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    backend: &str,
    written: &config::Backend,
    tls: Option<&BackendTls>,
) -> Compiled {
    let source = match &written.endpoints {
        config::Endpoints::Listed(all) => {
            for mistake in endpoint_file::twice(all, &format!("`backends.{backend}`")).iter() {
                compiler.mistake(mistake.clone());
            }
            let found = all.iter().filter_map(|config::Endpoint { url, weight }| {
                let origin = origin(compiler, url, tls)?;
                Some(endpoint_file::written(url, **weight, origin))
            });
            return Compiled {
                listed: WrittenEndpoints::new(found.collect()),
                source: None,
                file: None,
            };
        }
        config::Endpoints::Found(source) => source,
    };
    let keep = match (source.kind(), source.keep.is_written()) {
        ("file", false) => None,
        _ => Some(*source.keep),
    };
    let compiled = self::source(compiler, backend, *written.protocol, source, tls);
    Compiled {
        listed: WrittenEndpoints::default(),
        source: compiled.map(|source| (source, keep)),
        file: source.file.clone(),
    }
}

/// Returns `None` after a mistake in the URL or in the backend's `tls`.
fn origin(compiler: &mut Compiler<'_>, url: &At<EndpointUrl>, tls: Option<&BackendTls>) -> Option<Origin> {
    let server_name = match tls.filter(|_| url.is_secure) {
        Some(tls) => {
            let Some(name) = tls.name_of(&url.host) else {
                compiler.mistake(endpoint_file::no_certificate(url));
                return None;
            };
            Some(name)
        }
        None if url.is_secure => return None,
        None => None,
    };
    Some(endpoint_file::new_origin(url, server_name))
}

/// Returns `None` after a mistake.
fn source(
    compiler: &mut Compiler<'_>,
    backend: &str,
    protocol: Protocol,
    written: &EndpointSource,
    tls: Option<&BackendTls>,
) -> Option<Source> {
    let EndpointSource {
        // Shown in mistakes.
        at: _,
        dns,
        srv,
        file,
        kubernetes,
        port,
        scheme,
        refresh,
        name_server,
        // Compiled in `compile`.
        keep: _,
    } = written;
    let is_secure = **scheme == config::Scheme::Https;
    let mut naming = |host: &str| naming(compiler, backend, written, host, is_secure, tls);
    if let Some(name) = dns {
        return Some(Source::Dns(DnsSettings {
            naming: naming(&name.0)?,
            port: port
                .as_ref()
                .map_or(if is_secure { 443 } else { 80 }, |port| port.value),
            refresh: **refresh,
        }));
    }
    if let Some(name) = srv {
        // `_http._tcp.users.internal` is a service of `users.internal` (RFC 2782).
        let host = name.0.split('.').skip_while(|label| label.starts_with('_'));
        let host = host.collect::<Vec<_>>().join(".");
        if host.is_empty() {
            let message = format!("`backends.{backend}.endpoints.srv` names no host");
            let mistake = Mistake::new(Code::BadValue, name.span(), message);
            compiler.mistake(mistake.hint("write it with its domain, such as `_http._tcp.users.internal`"));
            return None;
        }
        return Some(Source::Srv(SrvSettings {
            name: name.0.as_str().into(),
            naming: naming(&host)?,
            name_server: name_server.as_ref().map(|address| address.value),
        }));
    }
    if let Some(file) = file {
        named_files::doubt_writers(compiler, file, file.span());
        return Some(Source::File(FileSettings {
            path: file.value.clone(),
            schemes: match protocol {
                Protocol::H2 => Schemes::Secure,
                Protocol::H2c => Schemes::Plain,
                Protocol::Http1 if tls.is_some() => Schemes::Both,
                Protocol::Http1 => Schemes::Untrusting,
            },
            server_name: tls.and_then(BackendTls::own_name),
        }));
    }
    let Some(config::KubernetesService {
        namespace,
        service,
        port,
        api,
        token_file,
        ca_file,
    }) = kubernetes
    else {
        return None;
    };
    Some(Source::Kubernetes(KubernetesSettings {
        namespace: namespace.as_str().into(),
        service: service.as_str().into(),
        port: match &port.value {
            config::SlicePort::Name(name) => SlicePort::Name(name.as_str().into()),
            config::SlicePort::Number(number) => SlicePort::Number(*number),
        },
        naming: naming(&format!("{}.{}.svc", service.value, namespace.value))?,
        api: KubernetesApi {
            url: api.as_ref().map(|url| url.as_str().into()),
            token_file: token_file.as_ref().map(|file| file.value.clone()),
            ca_file: ca_file.as_ref().map(|file| file.value.clone()),
        },
    }))
}

/// Returns `None` after a mistake, in the name or in the backend's `tls`.
fn naming(
    compiler: &mut Compiler<'_>,
    backend: &str,
    source: &EndpointSource,
    host: &str,
    is_secure: bool,
    tls: Option<&BackendTls>,
) -> Option<Naming> {
    let server_name: Option<ServerName<'static>> = match tls.filter(|_| is_secure) {
        Some(tls) => {
            let name = tls.name_of(host);
            if name.is_none() {
                let message = format!("no certificate can stand for `{host}`, which `backends.{backend}` looks up");
                compiler
                    .mistake(Mistake::new(Code::BadValue, Some(source.at), message).hint("write `tls.server_name`"));
            }
            Some(name?)
        }
        None if is_secure => return None,
        None => None,
    };
    Some(Naming {
        host: host.into(),
        server_name,
    })
}

impl Compiled {
    /// Returns the set of the plan in force if its endpoints are written in the same way. Otherwise makes a new one,
    /// which begins with the endpoints that are in use, until the source has answered.
    pub(super) fn set(
        &self,
        compiler: &mut Compiler<'_>,
        backend: &Arc<str>,
        settings: EndpointSettings,
    ) -> Arc<EndpointSet> {
        let name = SetName {
            backend: Arc::clone(backend),
            written: self
                .listed
                .all()
                .iter()
                .map(|at| (Arc::clone(&at.origin.url), at.weight))
                .collect(),
            source: self.source.clone(),
            tls: settings.tls.as_ref().map(|tls| tls.terms.clone()),
            in_http2: settings.in_http2,
        };
        let state = compiler.state;
        let in_force = state.kept().endpoint_sets.get(&name).and_then(Weak::upgrade);
        if let Some(set) = in_force.filter(|set| !set.is_closed()) {
            return set;
        }
        let of_file = self.read_file(compiler);
        let mut kept = state.kept();
        let registry = Arc::clone(kept.endpoints.entry(Arc::clone(backend)).or_default());
        let mut discovery = self.source.clone().map(|(source, keep)| Discovery::new(source, keep));
        let mut members = of_file.as_ref().unwrap_or(&self.listed).members(&registry);
        if of_file.is_some() {
            discovery = discovery.map(|discovery| discovery.answered_at(clock::now()));
        }
        if members.is_empty() {
            let others = kept.endpoint_sets.iter().filter(|(other, _)| {
                // The names of a list are resolved at once.
                other.backend == *backend && (other.source.is_some() || name.source.is_some())
            });
            let before = others.filter_map(|(other, set)| Some((other, set.upgrade()?)));
            members = before
                .filter(|(_, set)| !set.is_closed())
                .map(|(other, set)| still_usable(&set, other, &name))
                .find(|members| !members.is_empty())
                .unwrap_or_default();
        }
        let set = Arc::new(EndpointSet::new(registry, settings, members).found_by(discovery));
        kept.endpoint_sets.insert(name, Arc::downgrade(&set));
        set
    }

    /// Reads the file of endpoints, and reports its mistakes.
    fn read_file(&self, compiler: &mut Compiler<'_>) -> Option<WrittenEndpoints> {
        let (Some((Source::File(settings), _)), Some(path)) = (&self.source, &self.file) else {
            return None;
        };
        if compiler.unusable.contains(&path.value) {
            return None;
        }
        match endpoint_file::load(settings, compiler.sources) {
            Ok(written) => Some(written),
            Err(mistakes) => {
                compiler.unusable.push(path.value.clone());
                for mistake in mistakes.iter() {
                    let mut mistake = mistake.clone();
                    if mistake.at.is_none() {
                        // An unreadable file has no position of its own, so the mistake points to the config.
                        mistake.at = path.span();
                    }
                    compiler.mistake(mistake);
                }
                None
            }
        }
    }
}

/// Returns the endpoints of the set in force that calls can go to until a new source has answered.
fn still_usable(set: &EndpointSet, old: &SetName, new: &SetName) -> Vec<Member> {
    let in_force = set.load();
    let takes_plain = match &new.source {
        Some((source, _)) => source.takes_plain(),
        None => new.tls.is_none(),
    };
    let is_usable = |member: &Member| match member.origin.is_secure() {
        true => old.tls == new.tls,
        false => takes_plain,
    };
    let usable: Vec<_> = in_force.members().filter(is_usable).collect();
    if old.in_http2 == new.in_http2 && !usable.is_empty() {
        return usable;
    }
    // What is spoken with them has changed. It is the same source if its names alone are others.
    let (Some((old, _)), Some((new, _))) = (&old.source, &new.source) else {
        return Vec::new();
    };
    let (Some(before), Some(naming)) = (old.naming(), new.naming()) else {
        return Vec::new();
    };
    if old.kind() != new.kind() || before.host != naming.host || old.to_string() != new.to_string() {
        return Vec::new();
    }
    let renamed = in_force.members().filter_map(|member| {
        Some(Member {
            origin: naming.origin(member.address.port())?,
            ..member
        })
    });
    renamed.collect()
}
