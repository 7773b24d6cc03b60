//! The file of tokens of the admin API. It holds only digests, so a person who reads it cannot use any token.

use std::collections::HashMap;
use std::path::Path;

use super::keys::{Digest, Timestamp};
use super::mistake::{Code, Mistake, Mistakes};
use super::reader::Read;
use super::scalar::words;
use super::sources::Sources;
use super::span::At;
use super::value::Value;

/// Tokens of the admin API, each with what it may do.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminTokenFile {
    /// All tokens.
    pub tokens: Vec<AdminTokenEntry>,
}

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminTokenEntry {
    /// Name of the token in the audit.
    pub name: At<String>,
    /// SHA-256 of the token, as `gateway key hash` prints it.
    pub digest: At<Digest>,
    /// Roles of the token.
    pub roles: Vec<At<Role>>,
    /// Time from which on the token is not taken.
    pub expires: Option<At<Timestamp>>,
    /// Whether the token is not taken.
    pub disabled: At<bool>,
}

words! {
    /// Role of a token.
    pub enum Role {
        /// Read everything, and change nothing.
        Read = "read",
        /// Change tenants, keys, revocations and the counts of quotas, and read.
        Keys = "keys",
        All = "all",
    }
}

/// Largest number of tokens.
const MOST: usize = 1000;

/// Reads a file of tokens into `sources`, so that later mistakes can point into it.
pub fn load(path: &Path, sources: &mut Sources) -> Result<AdminTokenFile, Mistakes> {
    let source = sources.read(path)?;
    super::read(source, sources, Path::new("."), &super::environment).map(|(file, _)| file)
}

impl Read for AdminTokenFile {
    const BEGINNING: Option<&'static str> = Some(
        "a file of tokens begins with `tokens:`, and its entries stand under it: `- { name: ci, roles: [keys], digest: \"sha256:...\" }`",
    );

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let tokens: Vec<AdminTokenEntry> = f.required("tokens")?;
            let (mut names, mut digests) = (HashMap::new(), HashMap::new());
            for token in &tokens {
                if let Some(first) = names.insert(&token.name.value, &token.name) {
                    let message = format!("two tokens are called `{}`", token.name);
                    f.push(
                        Mistake::new(Code::DuplicateKey, token.name.span(), message)
                            .related(first.span(), "the other one"),
                    );
                }
                if let Some(first) = digests.insert(&token.digest.value, &token.digest) {
                    let message = format!("`{}` has the digest of another token", token.name);
                    f.push(
                        Mistake::new(Code::DuplicateKey, token.digest.span(), message)
                            .related(first.span(), "the other one"),
                    );
                }
            }
            if tokens.len() > MOST {
                f.push(Mistake::new(Code::OutOfRange, f.at, format!("more than {MOST} tokens")));
            }
            Some(Self { tokens })
        })?
    }
}

impl Read for AdminTokenEntry {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (name, digest) = (f.required("name"), f.required("digest"));
            let roles = f.required_list("roles");
            let (expires, disabled) = (f.optional("expires"), f.or("disabled", false));
            Some(Self {
                name: name?,
                digest: digest?,
                roles: roles?,
                expires,
                disabled,
            })
        })?
    }
}
