//! The file of revocations: credentials that are revoked before they expire.
//!
//! People and the gateway read it. The gateway also rewrites it when the list is changed through the admin API.

use std::path::Path;

use super::keys::Timestamp;
use super::mistake::{Code, Mistake, Mistakes};
use super::reader::Read;
use super::sources::Sources;
use super::span::At;
use super::value::Value;

/// Credentials that are taken back before they expire. The admin API writes this file too.
#[derive(Debug, Clone, PartialEq)]
pub struct RevocationFile {
    /// All entries; a file without any says `[]`.
    pub revocations: Vec<Revocation>,
}

/// One entry; exactly one of `key`, `jti`, `subject` and `tenant`.
#[derive(Debug, Clone, PartialEq)]
pub struct Revocation {
    /// Which of the four is written.
    pub what: What,
    pub name: At<String>,
    /// Name in the config of the only issuer that is meant; with `jti` or `subject`.
    pub issuer: Option<At<String>>,
    /// Time from which on the entry does not hold any more.
    pub until: Option<At<Timestamp>>,
    /// Why; for people.
    pub reason: Option<At<String>>,
}

/// What an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Id of an API key.
    Key,
    /// `jti` of a token.
    Jti,
    /// Name of a caller: `sub` of a token, a user, or a certificate's.
    Subject,
    /// Tenant, with all its credentials.
    Tenant,
}

/// Reads the file into `sources`, so that later mistakes can point into it.
pub fn load(path: &Path, sources: &mut Sources) -> Result<RevocationFile, Mistakes> {
    let source = sources.read(path).map_err(|mistake| {
        mistake.hint("a list that is not there would let through what it is to stop: begin with `revocations: []`")
    })?;
    super::read(source, sources, Path::new("."), &super::environment).map(|(file, _)| file)
}

/// Parses the file from a text.
pub fn parse(name: &str, text: &str, sources: &mut Sources) -> Result<RevocationFile, Mistakes> {
    let source = sources.add(name, text)?;
    super::read(source, sources, Path::new("."), &super::environment).map(|(file, _)| file)
}

impl Read for RevocationFile {
    const BEGINNING: Option<&'static str> = Some("a file of revocations may begin as `revocations: []`");

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                revocations: f.required("revocations")?,
            })
        })?
    }
}

impl Read for Revocation {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let written = f.exactly_one(&["key", "jti", "subject", "tenant"]);
            let names = [
                (What::Key, f.optional("key")),
                (What::Jti, f.optional("jti")),
                (What::Subject, f.optional("subject")),
                (What::Tenant, f.optional("tenant")),
            ];
            let issuer: Option<At<String>> = f.optional("issuer");
            let (until, reason) = (f.optional("until"), f.optional("reason"));
            written?;
            let (what, name) = names.into_iter().find_map(|(what, name)| Some((what, name?)))?;
            if let (What::Key | What::Tenant, Some(issuer)) = (what, &issuer) {
                let message = format!("`{}` cannot have an `issuer`", f.path);
                f.push(Mistake::new(Code::Conflict, issuer.span(), message).hint("it goes with `jti` or `subject`"));
            }
            Some(Self {
                what,
                name,
                issuer,
                until,
                reason,
            })
        })?
    }
}
