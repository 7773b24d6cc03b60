//! Names and passwords (RFC 7617), for callers who have nothing better.
//!
//! A password is guessable, so it is kept as a slow hash, and comparing takes a tenth of a second of CPU. That is spent
//! once for each credential, elsewhere (see [`super::password_checks`]): here a credential is either known from before,
//! at the cost of a digest and a lookup, or it is handed out as a [`PasswordCheck`]. An unknown name is checked against
//! a hash that nothing fits, so that the time it takes does not tell who exists.
//!
//! What is remembered is a digest under a key of this process, since a plain one would undo the slow hash.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quick_cache::sync::Cache;

use super::caller::{Caller, Kind};
use super::check::Check;
use super::password_checks::PasswordChecks;

/// What a caller sends at most, in bytes of base64.
const MAX_LENGTH: usize = 1024;

/// What comparing with a new hash costs: 2 to the power of this, about a tenth of a second.
const COST: u32 = 11;

/// Whoever knows a password.
#[derive(Debug, Clone)]
pub struct User {
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    /// bcrypt, as `htpasswd -B` writes it.
    pub hash: Arc<str>,
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
    pub disabled: bool,
}

/// All users, and the credentials that have been checked.
#[derive(Debug)]
pub struct Passwords {
    users: Box<[User]>,
    by_id: HashMap<Arc<str>, usize>,
    /// Fits no password.
    decoy: Arc<str>,
    checked: Arc<Checked>,
    checks: Arc<PasswordChecks>,
}

/// A credential that has not been seen before.
#[derive(Debug)]
pub struct PasswordCheck {
    /// Of the whole credential.
    pub digest: [u8; 32],
    password: Vec<u8>,
    hash: Arc<str>,
    /// The place of the user, if there is one.
    row: Option<usize>,
    checked: Arc<Checked>,
    pub(super) checks: Arc<PasswordChecks>,
}

/// The two sorts apart, so that a flood of wrong ones does not push out the right.
#[derive(Debug)]
struct Checked {
    right: Cache<[u8; 32], usize>,
    wrong: Cache<[u8; 32], Check>,
    key: hmac::Key,
}

/// Why a credential does not admit.
#[derive(Debug)]
pub(super) enum Unadmitted {
    Failed(Check),
    Unchecked(PasswordCheck),
}

impl Passwords {
    /// Ids are distinct. Remembers at most `capacity` right credentials, and as many wrong ones.
    pub fn new(users: Vec<User>, capacity: usize, checks: Arc<PasswordChecks>) -> Self {
        let by_id = users
            .iter()
            .enumerate()
            .map(|(row, user)| (Arc::clone(&user.id), row))
            .collect();
        let checked = Checked {
            right: Cache::new(capacity),
            wrong: Cache::new(capacity),
            key: hmac::Key::generate(HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers"),
        };
        Self {
            // The dearest one, so that nobody who exists takes longer.
            decoy: decoy(users.iter().filter_map(|user| cost(&user.hash)).max().unwrap_or(COST)),
            users: users.into(),
            by_id,
            checked: Arc::new(checked),
            checks,
        }
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The place of the user whom a credential, as it stands after `Basic`, belongs to.
    pub(super) fn find(&self, presented: &str) -> Result<usize, Unadmitted> {
        if presented.len() > MAX_LENGTH {
            return Err(Unadmitted::Failed(Check::HeaderMalformed));
        }
        let digest = self.checked.digest(presented);
        if let Some(row) = self.checked.right.get(&digest) {
            return if self.users[row].disabled {
                Err(Unadmitted::Failed(Check::UserDisabled))
            } else {
                Ok(row)
            };
        }
        if let Some(check) = self.checked.wrong.get(&digest) {
            return Err(Unadmitted::Failed(check));
        }
        let malformed = || Unadmitted::Failed(Check::HeaderMalformed);
        let text = STANDARD.decode(presented).map_err(|_| malformed())?;
        let colon = text.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
        let row = std::str::from_utf8(&text[..colon])
            .ok()
            .and_then(|id| self.by_id.get(id).copied());
        Err(Unadmitted::Unchecked(PasswordCheck {
            digest,
            password: text[colon + 1..].to_vec(),
            hash: Arc::clone(row.map_or(&self.decoy, |row| &self.users[row].hash)),
            row,
            checked: Arc::clone(&self.checked),
            checks: Arc::clone(&self.checks),
        }))
    }

    pub(super) fn tenant(&self, row: usize) -> &Arc<str> {
        &self.users[row].tenant
    }

    pub(super) fn caller(&self, row: usize) -> Caller {
        let user = &self.users[row];
        Caller {
            tenant: user.tenant.clone(),
            id: user.id.clone(),
            tier: user.tier.clone(),
            scopes: user.scopes.clone(),
            kind: Kind::Basic,
            claims: None,
            configured: true,
            expires: None,
        }
    }
}

impl PasswordCheck {
    /// Compares, for a tenth of a second, and remembers what came of it.
    pub(super) fn run(&self) {
        let fits = bcrypt::verify(&self.password, &self.hash).unwrap_or(false);
        match self.row {
            Some(row) if fits => self.checked.right.insert(self.digest, row),
            Some(_) => self.checked.wrong.insert(self.digest, Check::Password),
            None => self.checked.wrong.insert(self.digest, Check::UserUnknown),
        }
    }
}

impl Checked {
    fn digest(&self, presented: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.key, presented.as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

/// What the user file keeps of a password, of which 72 bytes count.
pub fn hash(password: &str) -> String {
    bcrypt::hash(password, COST).expect("the cost is within bcrypt's bounds")
}

/// The cost of a hash, if it is one of bcrypt's.
pub fn cost(hash: &str) -> Option<u32> {
    Some(hash.parse::<bcrypt::HashParts>().ok()?.get_cost())
}

/// The form of a hash, and no password has it: what follows the salt is not its hash.
fn decoy(cost: u32) -> Arc<str> {
    format!("$2b${cost:02}${}", ".".repeat(53)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        let user = |id: &str, password: &str, disabled| User {
            id: id.into(),
            tenant: "acme".into(),
            hash: bcrypt::hash(password, 4).unwrap().into(),
            tier: None,
            scopes: Box::default(),
            disabled,
        };
        let users = vec![
            user("ada", "lovelace", false),
            user("old", "secret", true),
            user("odd", "a:b", false),
        ];
        Passwords::new(users, 10, Arc::new(PasswordChecks::new(1)))
    }

    fn ask(passwords: &Passwords, presented: &str) -> Result<usize, &'static str> {
        passwords.find(presented).map_err(|unadmitted| match unadmitted {
            Unadmitted::Failed(check) => check.as_str(),
            Unadmitted::Unchecked(check) => {
                check.run();
                "unchecked"
            }
        })
    }

    #[test]
    fn a_credential_is_checked_once() {
        let passwords = passwords();
        let check = |credential: &str, expected| {
            let presented = STANDARD.encode(credential);
            assert_eq!(ask(&passwords, &presented), Err("unchecked"), "{credential}");
            for _ in 0..2 {
                assert_eq!(ask(&passwords, &presented), expected, "{credential}");
            }
        };
        check("ada:lovelace", Ok(0));
        check("ada:Lovelace", Err("password"));
        check("ada:", Err("password"));
        check("eve:lovelace", Err("user_unknown"));
        check(":lovelace", Err("user_unknown"));
        check("old:secret", Err("user_disabled"));
        check("odd:a:b", Ok(2));
    }

    #[test]
    fn what_is_no_credential_costs_no_check() {
        let passwords = passwords();
        for presented in ["", "!", "YWRh", "YWRh====", &"A".repeat(MAX_LENGTH + 4)] {
            assert_eq!(ask(&passwords, presented), Err("header_malformed"), "{presented:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_a_flood_costs_nobody_their_place() {
        let passwords = passwords();
        let good = STANDARD.encode("ada:lovelace");
        let _ = ask(&passwords, &good);
        for n in 0..50 {
            let _ = ask(&passwords, &STANDARD.encode(format!("ada:{n}")));
        }
        assert!(passwords.checked.wrong.len() <= 10);
        assert_eq!(ask(&passwords, &good), Ok(0));
    }

    #[test]
    fn a_hash_is_what_htpasswd_writes() {
        let made = hash("lovelace");
        assert!(bcrypt::verify("lovelace", &made).unwrap());
        assert_eq!(cost(&made), Some(COST));
        assert_eq!(
            cost("$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"),
            Some(5)
        );
        assert_eq!(cost("lovelace"), None);
        assert_eq!(cost(&decoy(12)), Some(12));
        assert!(!bcrypt::verify("", &decoy(4)).unwrap());
    }
}
