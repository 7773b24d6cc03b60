//! Loads certificates, keys and authorities from the files that the config names, and reports mistakes in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use crate::clock;
use crate::config::{At, CertificateFiles, Code, Mistake, Span};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::named_files;
use crate::tls::listener::{self, Identity};
use crate::tls::mistake::{self, TlsMistake};

/// Time before expiry, in seconds, from which a certificate causes a warning: it should have been renewed by then.
const SOON: u64 = 14 * 24 * 3600;

pub(super) fn authorities(compiler: &mut Compiler<'_>, file: &At<PathBuf>) -> Option<Arc<RootCertStore>> {
    let pem = named_files::read_file(compiler, file)?;
    listener::authorities(&pem)
        .map_err(|mistake| push(compiler, file.span(), file, &mistake))
        .ok()
}

pub(super) fn identity(
    compiler: &mut Compiler<'_>,
    CertificateFiles { cert_file, key_file }: &CertificateFiles,
) -> Option<Identity> {
    named_files::doubt_secret(compiler, key_file);
    let (chain, key) = (
        named_files::read_file(compiler, cert_file),
        named_files::read_file(compiler, key_file),
    );
    let (chain, key, now) = (chain?, key?, clock::unix_seconds());
    let identity = Identity::read(&chain, &key, now)
        .map_err(|mistake| {
            let file = if mistake.is_about_the_key() {
                key_file
            } else {
                cert_file
            };
            push(compiler, file.span(), file, &mistake);
            // A key is looked for only in a pair whose certificate is good.
            if !mistake.is_about_the_key() && !has_key(&key) {
                push(compiler, key_file.span(), key_file, &TlsMistake::NoKey);
            }
        })
        .ok()?;
    let expires = identity.certificate().expires;
    if expires.saturating_sub(now) < SOON {
        let message = format!(
            "{} holds a certificate that expires on {}",
            cert_file.display(),
            mistake::day(expires)
        );
        compiler.warnings.push(
            Mistake::new(Code::Doubtful, cert_file.span(), message)
                .hint("put the new one in its place and reload; no connection is dropped"),
        );
    }
    Some(identity)
}

/// Returns whether a text has a private key in PEM.
fn has_key(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("PRIVATE KEY-----")
}

fn push(compiler: &mut Compiler<'_>, at: Option<Span>, file: &Path, mistake: &TlsMistake) {
    let made = Mistake::new(Code::BadValue, at, format!("{} {mistake}", file.display()));
    compiler.mistake(match hint(mistake) {
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
        TlsMistake::Expired { .. } => Some("nobody would take it: put a new one in its place"),
        TlsMistake::NotYetValid { .. } => Some("nobody would take it: is the clock of this machine right?"),
        TlsMistake::Key(_) | TlsMistake::Certificate(_) => None,
    }
}
