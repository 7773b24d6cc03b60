//! Credentials that are taken back before they expire: a key, a token, a subject, or all of a tenant.
//!
//! Verified callers are cached, so the list has to be asked again when it has changed, but not for every request. It
//! counts its changes, and each caller remembers the count at which it was last let through ([`Seen`]): while nothing
//! changes, a request costs one load and one comparison; a change holds from the next request on, on every worker and
//! every open connection. A list never changes, a newer one takes its place; it holds at most [`MOST`] entries.
//!
//! An entry that has ended stays in the list and is judged by the time at which it is asked for: a clock that runs ahead
//! for a while takes back no revocation for good. A jump of the clock counts as a change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::auth::caller::{Caller, Kind, is_caller_id, is_tenant_name};
use crate::auth::check::Check;

/// Entries that a list may have.
pub const MOST: usize = 100_000;

/// What is taken back. Ordered, so that lists and files have an order of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// The API key with this id.
    Key(Arc<str>),
    /// The token with this `jti`, of the issuer with this name in the config or of any.
    Token(Arc<str>, Option<Arc<str>>),
    /// Whoever has this id and does not come with an API key: the `sub` of tokens, of one issuer or of any.
    Subject(Arc<str>, Option<Arc<str>>),
    /// Every credential that names the tenant.
    Tenant(Arc<str>),
}

/// What an entry says beside what is taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The first second in which it does not hold any more, since 1970; `None` is for ever.
    pub until: Option<u64>,
    /// For people.
    pub reason: Option<Arc<str>>,
}

pub type List = BTreeMap<Revoked, Terms>;

/// The kinds of entries, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedKind {
    Key,
    Token,
    Subject,
    Tenant,
}

impl Terms {
    /// Whether the entry holds at this second.
    pub fn hold(&self, unix_now: u64) -> bool {
        self.until.is_none_or(|until| unix_now < until)
    }
}

/// The list in force.
#[derive(Debug, Default)]
pub struct Revocations {
    list: ArcSwap<List>,
    changes: AtomicU64,
}

/// How many changes of the list a caller has lived through.
#[derive(Debug)]
pub struct Seen(AtomicU64);

/// Why something written cannot be an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRevocable(pub &'static str);

impl Revocations {
    /// Lets a verified caller through unless something that is said about it has been taken back.
    ///
    /// # Errors
    /// The check that names the kind of the entry.
    #[inline]
    pub fn check(&self, caller: &Caller, seen: &Seen, unix_now: u64) -> Result<(), Check> {
        // Loaded before the list is, so that a list that comes meanwhile is looked at the next time.
        let changes = self.changes.load(Ordering::Acquire);
        if seen.0.load(Ordering::Relaxed) == changes {
            return Ok(());
        }
        self.look(caller, unix_now)?;
        seen.0.store(changes, Ordering::Relaxed);
        Ok(())
    }

    /// Off the path of most requests, since it takes copies of names.
    #[cold]
    fn look(&self, caller: &Caller, unix_now: u64) -> Result<(), Check> {
        let list = self.list.load();
        if list.is_empty() {
            return Ok(());
        }
        let refuse = |revoked: Revoked| match list.get(&revoked) {
            Some(terms) if terms.hold(unix_now) => Err(revoked.kind().check()),
            _ => Ok(()),
        };
        let issuer = match &caller.kind {
            Kind::Jwt(name) => Some(name),
            _ => None,
        };
        let of_issuers = || {
            [None, issuer.cloned()]
                .into_iter()
                .take(1 + usize::from(issuer.is_some()))
        };
        refuse(Revoked::Tenant(caller.tenant.clone()))?;
        if caller.kind == Kind::ApiKey {
            return refuse(Revoked::Key(caller.id.clone()));
        }
        of_issuers().try_for_each(|issuer| refuse(Revoked::Subject(caller.id.clone(), issuer)))?;
        let claims = caller.claims.as_ref();
        match claims.and_then(|claims| claims.value().get("jti")?.name()) {
            Some(jti) => of_issuers().try_for_each(|issuer| refuse(Revoked::Token(Arc::from(&*jti), issuer))),
            None => Ok(()),
        }
    }

    pub fn list(&self) -> Arc<List> {
        self.list.load_full()
    }

    /// Puts a list in force; callers are asked again only if it is another one. One at a time.
    pub fn replace(&self, list: List) {
        if **self.list.load() != list {
            self.list.store(Arc::new(list));
            self.look_again();
        }
    }

    /// Has every caller held against the list again: the time by which entries are judged has jumped.
    pub fn look_again(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}

impl Seen {
    pub const fn nothing() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Revoked {
    /// What is written with exactly one of the four; `issuer` goes with a `jti` or a `subject`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(kind: RevokedKind, name: &str, issuer: Option<&str>) -> Result<Self, NotRevocable> {
        let fits = match kind {
            RevokedKind::Key | RevokedKind::Subject => is_caller_id(name),
            RevokedKind::Token => (1..=1024).contains(&name.chars().count()),
            RevokedKind::Tenant => is_tenant_name(name),
        };
        if !fits {
            return Err(NotRevocable("no credential could have this name"));
        }
        let issuer = issuer.map(Arc::from);
        match kind {
            RevokedKind::Token => Ok(Self::Token(name.into(), issuer)),
            RevokedKind::Subject => Ok(Self::Subject(name.into(), issuer)),
            _ if issuer.is_some() => Err(NotRevocable("`issuer` goes with `jti` or `subject` alone")),
            RevokedKind::Key => Ok(Self::Key(name.into())),
            RevokedKind::Tenant => Ok(Self::Tenant(name.into())),
        }
    }

    pub const fn kind(&self) -> RevokedKind {
        match self {
            Self::Key(_) => RevokedKind::Key,
            Self::Token(..) => RevokedKind::Token,
            Self::Subject(..) => RevokedKind::Subject,
            Self::Tenant(_) => RevokedKind::Tenant,
        }
    }

    pub const fn name(&self) -> &Arc<str> {
        let (Self::Key(name) | Self::Token(name, _) | Self::Subject(name, _) | Self::Tenant(name)) = self;
        name
    }

    pub const fn issuer(&self) -> Option<&Arc<str>> {
        match self {
            Self::Token(_, issuer) | Self::Subject(_, issuer) => issuer.as_ref(),
            Self::Key(_) | Self::Tenant(_) => None,
        }
    }
}

impl RevokedKind {
    pub const ALL: [Self; 4] = [Self::Key, Self::Token, Self::Subject, Self::Tenant];

    /// As it is written in the file and in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token => "jti",
            Self::Subject => "subject",
            Self::Tenant => "tenant",
        }
    }

    /// What a credential fails that is taken back in this way.
    pub const fn check(self) -> Check {
        match self {
            Self::Key => Check::RevokedKey,
            Self::Token => Check::RevokedToken,
            Self::Subject => Check::RevokedSubject,
            Self::Tenant => Check::RevokedTenant,
        }
    }
}

impl fmt::Display for NotRevocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotRevocable {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json::Document;

    fn key(tenant: &str, id: &str) -> Caller {
        Caller {
            tenant: tenant.into(),
            id: id.into(),
            tier: None,
            scopes: Box::default(),
            kind: Kind::ApiKey,
            claims: None,
            configured: true,
            expires: None,
        }
    }

    fn token(issuer: &str, subject: &str, jti: &str) -> Caller {
        let claims = json!({ "jti": jti });
        Caller {
            kind: Kind::Jwt(issuer.into()),
            claims: Some(Document::of(&claims)),
            configured: false,
            ..key("acme", subject)
        }
    }

    fn list(entries: &[(RevokedKind, &str, Option<&str>)]) -> List {
        entries
            .iter()
            .map(|(kind, name, issuer)| (Revoked::new(*kind, name, *issuer).unwrap(), Terms::default()))
            .collect()
    }

    #[test]
    fn an_entry_takes_back_what_it_names_and_nothing_else() {
        use RevokedKind::{Key, Subject, Tenant, Token};
        let check = |entry, caller: &Caller, expected: Result<(), Check>| {
            let revocations = Revocations::default();
            revocations.replace(list(&[entry]));
            let answer = revocations.check(caller, &Seen::nothing(), 0);
            assert_eq!(answer, expected, "{entry:?} {caller:?}");
        };
        check((Key, "k1", None), &key("acme", "k1"), Err(Check::RevokedKey));
        check((Key, "k1", None), &key("acme", "k2"), Ok(()));
        check((Key, "ada", None), &token("main", "ada", "t1"), Ok(()));
        check((Tenant, "acme", None), &key("acme", "k1"), Err(Check::RevokedTenant));
        check(
            (Tenant, "acme", None),
            &token("main", "ada", "t1"),
            Err(Check::RevokedTenant),
        );
        check((Tenant, "acme", None), &key("globex", "k1"), Ok(()));
        check(
            (Subject, "ada", None),
            &token("main", "ada", "t1"),
            Err(Check::RevokedSubject),
        );
        check(
            (Subject, "ada", None),
            &token("other", "ada", "t1"),
            Err(Check::RevokedSubject),
        );
        check(
            (Subject, "ada", Some("main")),
            &token("main", "ada", "t1"),
            Err(Check::RevokedSubject),
        );
        check((Subject, "ada", Some("main")), &token("other", "ada", "t1"), Ok(()));
        check((Subject, "k1", None), &key("acme", "k1"), Ok(()));
        check(
            (Token, "t1", None),
            &token("main", "ada", "t1"),
            Err(Check::RevokedToken),
        );
        check(
            (Token, "t1", Some("main")),
            &token("main", "ada", "t1"),
            Err(Check::RevokedToken),
        );
        check((Token, "t1", Some("other")), &token("main", "ada", "t1"), Ok(()));
        check((Token, "t2", None), &token("main", "ada", "t1"), Ok(()));
    }

    #[test]
    fn an_entry_names_what_it_takes_back_to_the_letter() {
        for name in [
            "us\u{e9}r-\u{2603}",
            "two words",
            " a",
            "50%",
            "a%20b",
            "7",
            "\u{1f600}",
        ] {
            for (kind, caller) in [
                (RevokedKind::Key, key("acme", name)),
                (RevokedKind::Subject, token("main", name, "t1")),
                (RevokedKind::Token, token("main", "ada", name)),
                (RevokedKind::Tenant, key(name, "k1")),
            ] {
                let revocations = Revocations::default();
                revocations.replace(list(&[(kind, name, None)]));
                let answer = revocations.check(&caller, &Seen::nothing(), 0);
                assert_eq!(answer, Err(kind.check()), "{kind:?} {name:?}");
                // Neither as it is written in a header field, nor composed in another way.
                for other in [crate::identity::encoded(name), name.replace('\u{e9}', "e\u{301}")] {
                    if other != name {
                        revocations.replace(list(&[(kind, &other, None)]));
                        assert_eq!(
                            revocations.check(&caller, &Seen::nothing(), 0),
                            Ok(()),
                            "{kind:?} {other:?}"
                        );
                    }
                }
            }
        }
        let by_number = Caller {
            claims: Some(Document::of(&json!({ "jti": 7 }))),
            ..token("main", "ada", "t1")
        };
        let revocations = Revocations::default();
        revocations.replace(list(&[(RevokedKind::Token, "7", None)]));
        assert_eq!(
            revocations.check(&by_number, &Seen::nothing(), 0),
            Err(Check::RevokedToken)
        );
    }

    #[test]
    fn a_caller_who_was_let_through_is_asked_again_when_the_list_has_changed() {
        let revocations = Revocations::default();
        let (caller, seen) = (key("acme", "k1"), Seen::nothing());
        let check = |expected| assert_eq!(revocations.check(&caller, &seen, 0), expected);
        check(Ok(()));
        revocations.replace(list(&[(RevokedKind::Key, "k1", None)]));
        check(Err(Check::RevokedKey));
        check(Err(Check::RevokedKey));
        revocations.replace(list(&[(RevokedKind::Key, "k2", None)]));
        check(Ok(()));
        let before = seen.0.load(Ordering::Relaxed);
        revocations.replace(list(&[(RevokedKind::Key, "k2", None)]));
        assert_eq!(
            revocations.changes.load(Ordering::Relaxed),
            before,
            "the same list is no change"
        );
    }

    #[test]
    fn an_entry_is_judged_by_the_time_at_which_it_is_asked_for() {
        let revocations = Revocations::default();
        let (caller, seen) = (key("acme", "k1"), Seen::nothing());
        let until = |until| {
            let terms = Terms { until, reason: None };
            List::from([(Revoked::new(RevokedKind::Key, "k1", None).unwrap(), terms)])
        };
        let check = |now, expected| assert_eq!(revocations.check(&caller, &seen, now), expected, "at {now}");
        revocations.replace(until(Some(100)));
        check(0, Err(Check::RevokedKey));
        check(99, Err(Check::RevokedKey));
        check(100, Ok(()));
        // The clock was ahead: it jumps back.
        revocations.look_again();
        check(99, Err(Check::RevokedKey));
        check(u64::MAX, Ok(()));
        revocations.look_again();
        check(98, Err(Check::RevokedKey));
        revocations.replace(until(None));
        check(u64::MAX, Err(Check::RevokedKey));
    }

    #[test]
    fn what_no_credential_could_be_called_is_no_entry() {
        use RevokedKind::{Key, Subject, Tenant, Token};
        let refused = |kind, name: &str, issuer| assert!(Revoked::new(kind, name, issuer).is_err(), "{name:?}");
        refused(Key, "", None);
        refused(Key, "k1", Some("main"));
        refused(Tenant, "anonymous", None);
        refused(Tenant, "acme", Some("main"));
        refused(Subject, "line\nend", None);
        refused(Token, "", None);
        refused(Tenant, "a\u{85}b", None);
        refused(Token, &"\u{2603}".repeat(1025), None);
    }
}
