//! Compiles the connection to the store that processes share.

use std::sync::Arc;

use rustls::RootCertStore;

use crate::call::tls;
use crate::config::{self, At, Code, Mistake};
use crate::limits::leased;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::{named_files, tls_files};
use crate::store::{AddressError, Password, Pem, StoreAddress, StoreSettings};

/// Returns the settings of the connection; `None` without a store, or after a mistake.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Option<StoreSettings> {
    let config::LimitsStore {
        redis,
        lease_time,
        call_limit,
        // Terms of the limits.
        lease_share: _,
        when_down: _,
    } = compiler.config.limits_store.as_ref()?;
    let config::Redis {
        url,
        prefix,
        username,
        password_file,
        tls,
    } = redis;
    let address = StoreAddress::read(url).map_err(|error| {
        let mistake = Mistake::new(Code::BadValue, url.span(), format!("`limits_store.redis.url`: {error}"));
        compiler.mistake(match error {
            AddressError::Scheme | AddressError::Host => {
                let host = url
                    .split_once("://")
                    .map_or(url.as_str(), |(_, host)| host)
                    .trim_end_matches('/');
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                let host = if host.is_empty() { "host:6379" } else { host };
                mistake.hint(format!("did you mean `\"{scheme}://{host}\"`?"))
            }
            _ => mistake,
        });
    });
    if let Some(file) = password_file {
        named_files::doubt_secret(compiler, file);
    }
    // The files of a mistaken address are read all the same.
    let is_tls = address.as_ref().map_or(tls.is_some(), |address| address.is_tls);
    let pem = match (tls, &address) {
        (Some(written), Ok(address)) if is_tls && address.is_cluster => pem(compiler, written)?,
        _ => Pem::default(),
    };
    let tls = match (tls, is_tls) {
        (_, false) => None,
        (written, true) => Some(self::tls(compiler, written.as_ref(), url)?),
    };
    Some(StoreSettings {
        address: address.ok()?,
        prefix: prefix.as_str().into(),
        username: username.as_ref().map(|name| name.as_str().into()),
        password: password_file.as_ref().map(|file| Password::File(file.value.clone())),
        tls,
        pem,
        call_limit: **call_limit,
        lease_time: **lease_time,
        heartbeat: leased::heartbeat(**lease_time),
    })
}

/// Reads the files for a cluster.
fn pem(compiler: &mut Compiler<'_>, config::StoreTls { ca_file, certificate }: &config::StoreTls) -> Option<Pem> {
    let authorities = match ca_file {
        Some(file) => Some(named_files::read_file(compiler, file)?.to_vec()),
        None => None,
    };
    let own = match certificate {
        Some(config::CertificateFiles { cert_file, key_file }) => {
            let certificate = named_files::read_file(compiler, cert_file)?;
            Some((
                certificate.to_vec(),
                named_files::read_file(compiler, key_file)?.to_vec(),
            ))
        }
        None => None,
    };
    Some(Pem { authorities, own })
}

fn tls(
    compiler: &mut Compiler<'_>,
    written: Option<&config::StoreTls>,
    url: &At<String>,
) -> Option<Arc<rustls::ClientConfig>> {
    let (ca_file, certificate) = match written {
        Some(config::StoreTls { ca_file, certificate }) => (ca_file.as_ref(), certificate.as_ref()),
        None => (None, None),
    };
    let roots = match ca_file {
        Some(file) => tls_files::authorities(compiler, file),
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                compiler.mistake(
                    Mistake::new(
                        Code::Unreadable,
                        url.span(),
                        "this system has no certificate authorities by which the store could be trusted",
                    )
                    .hint("name its own in `tls.ca_file`, or install the package `ca-certificates`"),
                );
            }
            Some(Arc::new(roots))
        }
    };
    let own = certificate.map(|files| tls_files::identity(compiler, files));
    let own = match own {
        Some(own) => Some(Arc::clone(own?.key())),
        None => None,
    };
    let mut config = tls::terms(roots?, own, false, false)
        .map_err(|error| {
            let message = format!("`limits_store.redis.tls`: {error}");
            compiler.mistake(Mistake::new(Code::BadValue, url.span(), message));
        })
        .ok()?;
    config.alpn_protocols = Vec::new();
    Some(Arc::new(config))
}
