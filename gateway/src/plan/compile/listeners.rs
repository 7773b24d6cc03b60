//! Listeners as written -> where to listen, and how to speak TLS there.

use std::path::Path;

use super::{Desk, read_file};
use crate::clock;
use crate::config::{self, At, CertificateFiles, ClientCertificates, Code, Mistake, Span, TlsVersion};
use crate::intake::tls::{self, Callers, Identity, Tls, TlsMistake};
use crate::plan::Listener;

/// Certificates that end sooner are warned about: what renews them should have done so by now.
const SOON: u64 = 14 * 24 * 3600;

pub(super) fn compile(desk: &mut Desk<'_>) -> Option<Vec<Listener>> {
    let config = desk.config;
    let all: Vec<_> = config
        .listeners
        .iter()
        .map(|(name, written)| {
            let tls = match &written.tls {
                None => None,
                Some(written) => Some(tls(desk, name, written)?),
            };
            Some(Listener {
                name: name.to_string(),
                address: *written.address,
                tls,
            })
        })
        .collect();
    all.into_iter().collect()
}

/// Whether any listener asks callers for certificates.
pub(super) fn ask_for_certificates(config: &config::Config) -> bool {
    let asks = |tls: &config::Tls| tls.client.value != ClientCertificates::Off;
    config
        .listeners
        .iter()
        .any(|(_, listener)| listener.tls.as_ref().is_some_and(asks))
}

fn tls(desk: &mut Desk<'_>, name: &str, written: &config::Tls) -> Option<Tls> {
    let identities: Vec<_> = written.certificates.iter().map(|files| identity(desk, files)).collect();
    let roots = written.client_ca_file.as_ref().map(|file| {
        let pem = read_file(desk, file)?;
        tls::authorities(&pem)
            .map_err(|mistake| push(desk, file.span(), file, &mistake))
            .ok()
    });
    let identities = identities.into_iter().collect::<Option<Vec<_>>>()?;
    let callers = match (roots, written.client.value) {
        (Some(None), _) => return None,
        (Some(Some(roots)), ClientCertificates::Optional) => Callers::May(roots),
        (Some(Some(roots)), ClientCertificates::Required) => Callers::Must(roots),
        (_, _) => Callers::NotAsked,
    };
    let only_1_3 = written.minimum_version.value == TlsVersion::V1_3;
    Tls::new(identities, callers, only_1_3)
        .map_err(|mistake| {
            let at = written.client_ca_file.as_ref().and_then(At::span);
            desk.mistake(Mistake::new(
                Code::BadValue,
                at,
                format!("`listeners.{name}.tls` {mistake}"),
            ));
        })
        .ok()
}

fn identity(desk: &mut Desk<'_>, files: &CertificateFiles) -> Option<Identity> {
    let (chain, key) = (read_file(desk, &files.cert_file), read_file(desk, &files.key_file));
    let now = clock::unix_seconds();
    let identity = Identity::read(&chain?, &key?, now)
        .map_err(|mistake| {
            let file = if mistake.is_about_the_key() {
                &files.key_file
            } else {
                &files.cert_file
            };
            push(desk, file.span(), file, &mistake);
        })
        .ok()?;
    let expires = identity.certificate().expires;
    if expires.saturating_sub(now) < SOON {
        let message = format!(
            "{} holds a certificate that expires on {}",
            files.cert_file.display(),
            tls::day(expires)
        );
        desk.warnings.push(
            Mistake::new(Code::Doubtful, files.cert_file.span(), message)
                .hint("put the new one in its place and reload; no connection is dropped"),
        );
    }
    Some(identity)
}

fn push(desk: &mut Desk<'_>, at: Option<Span>, file: &Path, mistake: &TlsMistake) {
    let made = Mistake::new(Code::BadValue, at, format!("{} {mistake}", file.display()));
    desk.mistake(match hint(mistake) {
        Some(hint) => made.hint(hint),
        None => made,
    });
}

const fn hint(mistake: &TlsMistake) -> Option<&'static str> {
    match mistake {
        TlsMistake::NotPem(_) | TlsMistake::NoCertificate => {
            Some("PEM is wanted: text that begins with `-----BEGIN CERTIFICATE-----`")
        }
        TlsMistake::NoKey => Some("PEM is wanted: `-----BEGIN PRIVATE KEY-----`, not encrypted"),
        TlsMistake::KeyMismatch => {
            Some("write the key that the certificate was requested with; the chain begins with it")
        }
        TlsMistake::Expired { .. } => Some("callers would refuse it: put a new one in its place"),
        TlsMistake::NotYetValid { .. } => Some("callers would refuse it: is the clock of this machine right?"),
        TlsMistake::Key(_) | TlsMistake::Certificate(_) => None,
    }
}
