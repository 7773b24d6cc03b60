//! Lets a request that lacks a key wait for a fetch of its issuer's keys.
//!
//! A token that names an unknown key is neither valid nor invalid: the key may be new, or no keys may have arrived yet.
//! Invariant: such a token is called invalid only after the arrival of a key set that was requested after the token
//! arrived. Until then its request waits for the current fetch or starts a new one. If too many fetches have been
//! started already, the request is refused with the time of its next try.
//!
//! [`crate::auth::jwt::fetch_state`] decides which fetch to wait for, and [`crate::auth::jwt::key_fetch`] makes it. A
//! forged key name costs one of the [`FETCHES`] of a `cool_down`. Its fetch brings the newest keys like any other, so a
//! forgery delays a key rotation at most by the time in which one fetch is earned.

use std::sync::Arc;

use policies::{Moment, Quota};

use crate::auth::api_key::keys::digest_of;
use crate::auth::check::Check;
use crate::auth::jwt::fetch_state::{Arrival, FETCHES, SOON, Step};
use crate::auth::jwt::key_fetch::Freshness;
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::clock;
use crate::rejection::Rejection;
use crate::setting::SettingId;

/// Key that a request lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacked {
    /// Key with the name in the token's `kid`. Without a name, any key.
    Named(Option<Box<str>>),
    /// Key outside the key set with this fingerprint. The token names no key of that set and is signed with none.
    NotOf(u64),
}

/// A request that lacks a key, and the failed check.
pub struct KeyWait {
    keys: Arc<LiveKeys>,
    lacked: Lacked,
    freshness: Freshness,
    arrival: Arrival,
    pub check: Check,
    /// Setting of the token's issuer.
    pub issuer: SettingId,
}

impl Lacked {
    fn is_in(&self, keys: &KeySet) -> bool {
        match self {
            Self::Named(kid) => keys.knows(kid.as_deref()),
            Self::NotOf(fingerprint) => !keys.is_empty() && keys.fingerprint() != *fingerprint,
        }
    }

    /// Digest under which the key is remembered as absent. All keys that are missing without a name share one.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Named(kid) => kid.as_ref().map(|kid| digest_of(kid.as_bytes())),
            Self::NotOf(_) => Some([0; 32]),
        }
    }
}

impl KeyWait {
    /// A request whose token has failed `check` because a key is missing.
    pub(crate) fn new(
        keys: &Arc<LiveKeys>,
        lacked: Lacked,
        freshness: Freshness,
        check: Check,
        issuer: SettingId,
    ) -> Self {
        Self {
            arrival: keys.demand().arrival(),
            keys: Arc::clone(keys),
            lacked,
            freshness,
            check,
            issuer,
        }
    }

    /// Whether the key is already known to be absent, so that waiting is useless.
    pub(crate) fn is_known_absent(&self) -> bool {
        let cool_down = self.freshness.cool_down;
        Quota::new(FETCHES, cool_down, FETCHES).is_ok_and(|quota| {
            let fetches = self.keys.demand();
            fetches.is_absent(self.lacked.digest(), &quota, cool_down, clock::now())
        })
    }

    /// Waits until it is known whether the key exists.
    ///
    /// # Errors
    /// [`Rejection::KeysUnavailable`] if this is not known before `until` or within the time limit of a fetch.
    pub async fn done(self, until: Moment) -> Result<(), Rejection> {
        let unavailable = |retry_after| {
            Err(Rejection::KeysUnavailable {
                retry_after,
                by: Some(self.issuer),
            })
        };
        let Freshness { cool_down, timeout, .. } = self.freshness;
        let fetches = self.keys.demand();
        let (Some(_slot), Ok(quota)) = (fetches.enter(), Quota::new(FETCHES, cool_down, FETCHES)) else {
            return unavailable(SOON);
        };
        let until = clock::instant(until.min(clock::now() + timeout));
        let kid = self.lacked.digest();
        let mut ended = fetches.ended.subscribe();
        loop {
            if self.lacked.is_in(&self.keys.current()) {
                return Ok(());
            }
            match fetches.step(self.arrival, kid, &quota, cool_down, clock::now()) {
                Step::Absent => return Ok(()),
                Step::Unknown { retry_after } => return unavailable(retry_after),
                Step::Wait(number) => {
                    let waited = tokio::time::timeout_at(until, ended.wait_for(|ended| *ended >= number)).await;
                    if !matches!(waited, Ok(Ok(_))) {
                        return unavailable(SOON);
                    }
                }
            }
        }
    }
}
