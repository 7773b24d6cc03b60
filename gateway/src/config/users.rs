//! The file of users with passwords. It holds only slow hashes, so a person who reads it must compute for long to find
//! a password.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::fields::Fields;
use super::mistake::{Code, Mistake, Mistakes};
use super::reader::Read;
use super::scalar::{Scalar, Wrong};
use super::sources::Sources;
use super::span::At;
use super::value::Value;
use crate::identity;

/// User names and passwords.
#[derive(Debug, Clone, PartialEq)]
pub struct UserFile {
    /// All users.
    pub users: Vec<User>,
}

/// One user.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// User name, without a colon; logs call the caller by it.
    pub id: At<String>,
    /// Tenant of the caller.
    pub tenant: At<String>,
    /// bcrypt hash of the password.
    pub password_hash: At<PasswordHash>,
    /// Tier of the caller, unless `tenants` names one.
    pub tier: Option<At<String>>,
    /// Scopes of the caller.
    pub scopes: Vec<At<String>>,
    /// Whether the user is refused.
    pub disabled: At<bool>,
}

/// A bcrypt hash, as `htpasswd -nB` prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Cost of a comparison: it takes 2 to the power of this number of steps.
    fn cost(&self) -> u32 {
        self.0[4..6].parse().expect("two digits were checked")
    }
}

/// Reads a user file into `sources`, so that later mistakes can point into it. Also returns warnings for weak hashes.
pub fn load(path: &Path, sources: &mut Sources) -> Result<(UserFile, Mistakes), Mistakes> {
    let source = sources.read(path)?;
    let base_dir = path.parent().unwrap_or(Path::new("."));
    super::read(source, sources, base_dir, &super::environment)
}

impl Read for UserFile {
    const BEGINNING: Option<&'static str> = Some(
        "a file of users begins with `users:`, and its entries stand under it: `- { id: NAME, tenant: NAME, password_hash: HASH }`",
    );

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let users: Vec<User> = f.required("users")?;
            let mut ids = HashMap::new();
            for user in &users {
                if let Some(first) = ids.insert(&user.id.value, &user.id) {
                    let message = format!("two users are called `{}`", user.id);
                    f.push(
                        Mistake::new(Code::DuplicateKey, user.id.span(), message)
                            .related(first.span(), "the other one"),
                    );
                }
            }
            Some(Self { users })
        })?
    }
}

impl Read for User {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let id: Option<At<String>> = f.required("id");
            let tenant = f.required("tenant");
            let hash: Option<At<PasswordHash>> = f.required("password_hash");
            if let Some(id) = &id {
                check_id(f, id);
            }
            if let Some(hash) = &hash {
                check_cost(f, hash);
            }
            Some(Self {
                tier: f.optional("tier"),
                scopes: f.list("scopes"),
                disabled: f.or("disabled", false),
                id: id?,
                tenant: tenant?,
                password_hash: hash?,
            })
        })?
    }
}

/// Checks a user name. In a request the name ends at the first colon (RFC 7617 section 2).
fn check_id(f: &Fields<'_>, id: &At<String>) {
    let fits = identity::is_name(id, identity::CALLER_LENGTH) && !id.contains(':');
    if !fits {
        let message = format!("`{}.id` cannot be called that", f.path);
        f.push(
            Mistake::new(Code::BadValue, id.span(), message)
                .label("1 to 255 characters, no colon and no control characters"),
        );
    }
}

fn check_cost(f: &Fields<'_>, hash: &At<PasswordHash>) {
    let (least, most) = (10, 14);
    let place = f.path;
    if hash.cost() > most {
        let message = format!("`{place}.password_hash` has a cost above {most}");
        let mut mistake = Mistake::new(Code::OutOfRange, hash.span(), message).hint(format!(
            "a comparison would take seconds: make it anew with `htpasswd -nB -C {least}`"
        ));
        mistake.secret = true;
        f.push(mistake);
    } else if hash.cost() < least {
        let message = format!("`{place}.password_hash` has a cost below {least}");
        let mut warning = Mistake::new(Code::Doubtful, hash.span(), message).hint(format!(
            "it is quickly guessed by whoever reads the file: make it anew with `htpasswd -nB -C {least}`"
        ));
        warning.secret = true;
        f.warn(warning);
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl Scalar for PasswordHash {
    const EXPECTED: &'static str = "a bcrypt hash, as `htpasswd -nB` prints after the name";
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label| Wrong::new(Code::BadValue, label);
        let is_known = ["$2y$", "$2b$", "$2a$"].iter().any(|version| text.starts_with(version));
        if !is_known {
            return Err(wrong("does not begin with `$2y$`, `$2b$` or `$2a$`")
                .hint("a password itself does not belong here, only its hash"));
        }
        let bytes = text.as_bytes();
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
        let fits = bytes.len() == 60
            && bytes[4..6].iter().all(u8::is_ascii_digit)
            && bytes[6] == b'$'
            && bytes[7..].iter().all(is_digit);
        if !fits {
            return Err(wrong("is not whole: a hash has 60 characters"));
        }
        // bcrypt rejects any other hash at once, whatever the password.
        if text.parse::<bcrypt::HashParts>().is_err() {
            return Err(wrong("is damaged: its salt or its end is not one that bcrypt writes"));
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        "(a hash)".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_password_can_be_compared_with_is_a_hash() {
        let good = "$2b$10$/ZsGkLXy3vF/5sxtezIWGejgQsFEHybCdXm7490eqDXG1ioZCSAG6";
        let check = |text: &str, fits| assert_eq!(PasswordHash::parse(text).is_ok(), fits, "{text}");
        check(good, true);
        check(&good.replace("$2b", "$2y"), true);
        check(&good.replace("$2b", "$2x"), false);
        check(&good.replace("$10$", "$1a$"), false);
        check(&good[..59], false);
        check(&good.replace("/5sx", "!5sx"), false);
        // Bits beyond the 16 bytes of the salt, and beyond the 23 bytes of the hash.
        check(&good.replace("IWGejg", "IWGfjg"), false);
        check(&good.replace("SAG6", "SAG7"), false);
        check("lovelace", false);
    }
}
