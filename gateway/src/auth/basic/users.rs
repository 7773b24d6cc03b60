//! Users with names and passwords (RFC 7617), for callers that support no better credential.
//!
//! A password can be guessed, so only a slow hash is stored, and a comparison takes a tenth of a second of CPU. It is
//! made once for each credential, outside the workers (see [`crate::auth::basic::checks`]). Here a credential either
//! has a cached verdict (see [`crate::auth::basic::password_cache`]), or is returned as a [`PasswordCheck`].
//!
//! Invariant: a failure takes the same work for every name, so its duration does not reveal which users exist. An
//! unknown name is compared with a hash that no password fits. A comparison with a cheap hash is extended to the cost
//! of the most expensive one.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::auth::basic::checks::PasswordChecks;
use crate::auth::basic::password_cache::{COUNTED, KnownPasswords, Line};
use crate::auth::basic::password_check::{NamedUser, PasswordCheck};
use crate::auth::basic::password_hash::{COST, cost, decoy};
use crate::auth::caller::{Caller, Kind};
use crate::auth::check::Check;

/// Maximum length of a presented credential, in bytes of base64.
const MAX_LENGTH: usize = 1024;

/// One user of the user file.
#[derive(Debug, Clone)]
pub struct User {
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    /// bcrypt hash as `htpasswd -B` writes it.
    pub hash: Arc<str>,
    pub tier: Option<Arc<str>>,
    pub scopes: Box<[Arc<str>]>,
    pub disabled: bool,
}

/// All users.
#[derive(Debug)]
pub struct Passwords {
    users: Box<[Row]>,
    by_id: HashMap<Arc<str>, usize>,
    /// Highest cost of a user's hash.
    highest_cost: u32,
    /// Hash with the highest cost that no password fits.
    decoy: Arc<str>,
    known: Arc<KnownPasswords>,
    checks: Arc<PasswordChecks>,
}

struct Row {
    user: User,
    line: Arc<Line>,
}

/// Reason why a credential identifies no user yet.
#[derive(Debug)]
pub(crate) enum LoginFailure {
    Failed(Check),
    Unchecked(Box<PasswordCheck>),
}

impl From<Check> for LoginFailure {
    fn from(check: Check) -> Self {
        Self::Failed(check)
    }
}

impl Passwords {
    /// Builds the table of users. Their ids must be distinct.
    pub fn new(users: Vec<User>, known: Arc<KnownPasswords>, checks: Arc<PasswordChecks>) -> Self {
        let by_id = users
            .iter()
            .enumerate()
            .map(|(row, user)| (Arc::clone(&user.id), row))
            .collect();
        let highest_cost = users.iter().filter_map(|user| cost(&user.hash)).max().unwrap_or(COST);
        let users = users.into_iter().map(|user| Row {
            line: known.line(&user.id, &user.hash),
            user,
        });
        Self {
            users: users.collect(),
            by_id,
            highest_cost,
            decoy: decoy(highest_cost).into(),
            known,
            checks,
        }
    }

    pub fn len(&self) -> usize {
        self.users.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Returns the index of the user that a credential identifies. `presented` is the value after `Basic`.
    pub(crate) fn find(&self, presented: &str) -> Result<usize, LoginFailure> {
        let malformed = || LoginFailure::Failed(Check::HeaderMalformed);
        if presented.len() > MAX_LENGTH {
            return Err(malformed());
        }
        let mut decoded = [0; MAX_LENGTH / 4 * 3];
        let length = STANDARD
            .decode_slice(presented, &mut decoded)
            .map_err(|_| malformed())?;
        let text = &decoded[..length];
        let colon = text.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
        // RFC 7617 section 2: no control characters. bcrypt ends or repeats a password at a NUL.
        if text.iter().any(u8::is_ascii_control) {
            return Err(malformed());
        }
        let (name_and_colon, password) = text.split_at(colon + 1);
        let row = std::str::from_utf8(&text[..colon])
            .ok()
            .and_then(|id| self.by_id.get(id).copied());
        let user = row.map(|row| &self.users[row]);
        let tag = self.known.tag(user.map(|user| &*user.line), name_and_colon, password);
        if user.is_some_and(|user| user.line.is_right(&tag)) {
            return Ok(self.judge(row, true)?);
        }
        if self.known.is_wrong(&tag) {
            return Ok(self.judge(row, false)?);
        }
        Err(LoginFailure::Unchecked(Box::new(PasswordCheck {
            tag,
            password: password[..password.len().min(COUNTED)].into(),
            hash: Arc::clone(user.map_or(&self.decoy, |user| &user.user.hash)),
            highest_cost: self.highest_cost,
            user: row.zip(user).map(|(row, user)| NamedUser {
                row,
                line: Arc::clone(&user.line),
                is_enabled: !user.user.disabled,
            }),
            known: Arc::clone(&self.known),
            checks: Arc::clone(&self.checks),
        })))
    }

    /// Returns the index of the user if the user is admitted. `row` is the index of the named user, `None` if there is
    /// none, and `is_right` the verdict on its password.
    pub(crate) fn judge(&self, row: Option<usize>, is_right: bool) -> Result<usize, Check> {
        match row {
            Some(row) if is_right && self.users[row].user.disabled => Err(Check::UserDisabled),
            Some(row) if is_right => Ok(row),
            Some(_) => Err(Check::Password),
            None => Err(Check::UserUnknown),
        }
    }

    pub(crate) fn tenant(&self, row: usize) -> &Arc<str> {
        &self.users[row].user.tenant
    }

    pub(crate) fn caller(&self, row: usize) -> Caller {
        let user = &self.users[row].user;
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

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.user.id.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::basic::password_check::rest_of_the_work;

    fn user(id: &str, password: &str, disabled: bool) -> User {
        User {
            id: id.into(),
            tenant: "acme".into(),
            hash: bcrypt::hash(password, 4).unwrap().into(),
            tier: None,
            scopes: Box::default(),
            disabled,
        }
    }

    fn users() -> Vec<User> {
        vec![
            user("ada", "lovelace", false),
            user("old", "secret", true),
            user("odd", "a:b", false),
            user("long", &"x".repeat(80), false),
        ]
    }

    fn passwords(users: Vec<User>, known: &Arc<KnownPasswords>) -> Passwords {
        Passwords::new(users, Arc::clone(known), Arc::new(PasswordChecks::new(1)))
    }

    fn known() -> Arc<KnownPasswords> {
        Arc::new(KnownPasswords::new(10))
    }

    fn ask(passwords: &Passwords, credential: impl AsRef<[u8]>) -> Result<usize, &'static str> {
        present(passwords, &STANDARD.encode(credential))
    }

    fn present(passwords: &Passwords, presented: &str) -> Result<usize, &'static str> {
        passwords.find(presented).map_err(|unadmitted| match unadmitted {
            LoginFailure::Failed(check) => check.as_str(),
            LoginFailure::Unchecked(check) => {
                check.run();
                "unchecked"
            }
        })
    }

    #[test]
    fn a_credential_is_checked_once() {
        let passwords = passwords(users(), &known());
        let check = |credential: &str, expected| {
            assert_eq!(ask(&passwords, credential), Err("unchecked"), "{credential}");
            for _ in 0..2 {
                assert_eq!(ask(&passwords, credential), expected, "{credential}");
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
        let passwords = passwords(users(), &known());
        for presented in ["", "!", "YWRh", "YWRh====", &"A".repeat(MAX_LENGTH + 4)] {
            assert_eq!(present(&passwords, presented), Err("header_malformed"), "{presented:?}");
        }
        for credential in [
            "ada:lovelace\0",
            "ada:lovelace\0lovelace",
            "ada\r\n:lovelace",
            "ada:\x7f",
        ] {
            assert_eq!(ask(&passwords, credential), Err("header_malformed"), "{credential:?}");
        }
        let longest = format!("ada:{}", "x".repeat(MAX_LENGTH / 4 * 3 - 4));
        assert_eq!(ask(&passwords, longest), Err("unchecked"));
    }

    #[test]
    fn bytes_that_do_not_count_make_no_new_credential() {
        let passwords = passwords(users(), &known());
        assert_eq!(ask(&passwords, format!("long:{}", "x".repeat(72))), Err("unchecked"));
        for length in [72, 73, 80, 100] {
            assert_eq!(
                ask(&passwords, format!("long:{}", "x".repeat(length))),
                Ok(3),
                "{length}"
            );
        }
        assert_eq!(ask(&passwords, format!("long:{}", "x".repeat(71))), Err("unchecked"));
        assert_eq!(ask(&passwords, format!("long:{}", "x".repeat(71))), Err("password"));
    }

    /// Verdict on `credential`, which was compared with the original users, after the users have changed.
    #[test]
    fn a_comparison_holds_as_long_as_the_line_is_unchanged() {
        let check = |what: &str, credential: &str, change: &dyn Fn(&mut Vec<User>), expected| {
            let known = known();
            let before = users();
            let mut after = before.clone();
            change(&mut after);
            let before = passwords(before, &known);
            let _ = ask(&before, credential);
            let after = passwords(after, &known);
            drop(before);
            assert_eq!(ask(&after, credential), expected, "{what}");
        };
        let right = "ada:lovelace";
        check("nothing", right, &|_| {}, Ok(0));
        check("others", right, &|users| users.truncate(1), Ok(0));
        check("its place", right, &|users| users.reverse(), Ok(3));
        check(
            "its tier and tenant",
            right,
            &|users| users[0].tenant = "globex".into(),
            Ok(0),
        );
        check(
            "disabled",
            right,
            &|users| users[0].disabled = true,
            Err("user_disabled"),
        );
        check("enabled", "old:secret", &|users| users[1].disabled = false, Ok(1));
        let other_salt = bcrypt::hash("lovelace", 4).unwrap();
        check(
            "the hash",
            right,
            &|users| users[0].hash = other_salt.as_str().into(),
            Err("unchecked"),
        );
        check("the name", right, &|users| users[0].id = "eve".into(), Err("unchecked"));
        check("taken out", right, &|users| drop(users.remove(0)), Err("unchecked"));
        check("wrong stays wrong", "ada:Lovelace", &|_| {}, Err("password"));
        check("unknown stays unknown", "eve:lovelace", &|_| {}, Err("user_unknown"));
        let new = user("eve", "lovelace", false);
        check(
            "unknown till now",
            "eve:lovelace",
            &|users| users.push(new.clone()),
            Err("unchecked"),
        );
        let hash: Arc<str> = bcrypt::hash("Lovelace", 4).unwrap().into();
        check(
            "wrong till now",
            "ada:Lovelace",
            &|users| users[0].hash = hash.clone(),
            Err("unchecked"),
        );
    }

    #[test]
    fn memory_is_bounded_and_a_flood_costs_nobody_their_place() {
        let known = known();
        let passwords = passwords(users(), &known);
        let _ = ask(&passwords, "ada:lovelace");
        for n in 0..50 {
            let _ = ask(&passwords, format!("ada:{n}"));
        }
        let (lines, wrong) = known.len();
        assert!(lines == 4 && wrong <= 10, "{lines} {wrong}");
        assert_eq!(ask(&passwords, "ada:lovelace"), Ok(0));
    }

    #[test]
    fn whatever_fails_takes_the_work_of_the_dearest_hash() {
        for highest_cost in 4..=14 {
            for done in 4..=highest_cost {
                let rest: u64 = rest_of_the_work(done, highest_cost).map(|cost| 1 << cost).sum();
                assert_eq!((1 << done) + rest, 1_u64 << highest_cost, "{done} {highest_cost}");
            }
        }
        let with_cost = |id: &str, cost| User {
            hash: bcrypt::hash("secret", cost).unwrap().into(),
            ..user(id, "", false)
        };
        let passwords = passwords(vec![with_cost("cheap", 4), with_cost("dear", 6)], &known());
        for (credential, own) in [("cheap:x", 4), ("dear:x", 6), ("nobody:x", 6)] {
            let Err(LoginFailure::Unchecked(check)) = passwords.find(&STANDARD.encode(credential)) else {
                panic!("{credential} is not known");
            };
            assert_eq!((cost(&check.hash), check.highest_cost), (Some(own), 6), "{credential}");
        }
    }
}
