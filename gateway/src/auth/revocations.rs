//! Revokes credentials before they expire: an API key, a token, a subject, or everything of a tenant.
//!
//! Verified callers are cached, so each must be checked again when the list changes, but not for every request. The
//! list counts its changes, and each caller keeps the count of its last successful check ([`Seen`]). While nothing
//! changes, a request costs one load and one comparison. A change applies from the next request on, on every worker and
//! every open connection. A list is immutable and is replaced as a whole; it holds at most [`MOST`] entries.
//!
//! An expired entry stays in the list, and its end is compared with the time of each check. So a clock that runs ahead
//! for a while does not cancel a revocation for good. A jump of the clock counts as a change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::auth::caller::{Caller, Kind, is_caller_id, is_tenant_name};
use crate::auth::check::Check;

/// Maximum number of entries in a list.
pub const MOST: usize = 100_000;

/// Target of a revocation. Ordered, so that lists and files have a stable order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// The API key with this id.
    Key(Arc<str>),
    /// Token with this `jti`, of the issuer with this config name or of any issuer.
    Token(Arc<str>, Option<Arc<str>>),
    /// Caller with this id that does not use an API key: a token's `sub`, of one issuer or of any; without an issuer
    /// also a user or a certificate.
    Subject(Arc<str>, Option<Arc<str>>),
    /// Every credential that names the tenant.
    Tenant(Arc<str>),
}

/// Details of a revocation entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// First second since 1970 in which the entry no longer applies. `None` is forever.
    pub until: Option<u64>,
    /// Explanation for operators.
    pub reason: Option<Arc<str>>,
}

pub type List = BTreeMap<Revoked, Terms>;

/// Kind of a revocation entry, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedKind {
    Key,
    Token,
    Subject,
    Tenant,
}

impl Terms {
    /// Whether the entry applies at this second.
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

/// Number of list changes that a caller has been checked against.
#[derive(Debug)]
pub struct Seen(AtomicU64);

/// Reason why a written entry is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRevocable(pub &'static str);

impl Revocations {
    /// Checks that neither a verified caller nor its tenant has been revoked.
    ///
    /// # Errors
    /// The check that names the kind of the matching entry.
    #[inline]
    pub fn check(&self, caller: &Caller, seen: &Seen, unix_now: u64) -> Result<(), Check> {
        // Loaded before the list, so that a list that arrives meanwhile is checked at the next request.
        let changes = self.changes.load(Ordering::Acquire);
        if seen.0.load(Ordering::Relaxed) == changes {
            return Ok(());
        }
        self.look(caller, unix_now)?;
        seen.0.store(changes, Ordering::Relaxed);
        Ok(())
    }

    /// Searches the list. Not on the path of most requests, because it copies names.
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

    /// Puts a list in force. Callers are checked again only if it differs. Calls must not overlap.
    pub fn replace(&self, list: List) {
        if **self.list.load() != list {
            self.list.store(Arc::new(list));
            self.look_again();
        }
    }

    /// Makes every caller be checked again, because the clock that entries are compared with has jumped.
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
    /// Builds a target from its parts. `issuer` is allowed only with a `jti` or a `subject`.
    ///
    /// # Errors
    /// The reason why it is invalid.
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

    /// Name of the kind in the revocation file and in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token => "jti",
            Self::Subject => "subject",
            Self::Tenant => "tenant",
        }
    }

    /// Check that a credential fails when it is revoked in this way.
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
                // The entry matches neither in its encoded form nor in another Unicode composition.
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
        // The clock was ahead and jumps back.
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
