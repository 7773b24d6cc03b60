//! Tells other replicas what an operator has changed here, and does what was changed there.
//!
//! What is spread: revocations and their ends by the admin API, forced breakers, drained endpoints, that the count of a
//! quota was set, and changes of tenants and keys by the admin API, of which the later wins everywhere. What is written
//! into a file is not: each replica has its own file, or all have the same. A notice is applied once, except that a breaker
//! is forced and an endpoint is drained again after a reload, because the backend may be new, and that a change is tried
//! again that was not possible under the plan before. What is in force already is left alone, so nothing that comes back
//! to the replica that announced it does anything.
//!
//! An entry that is written otherwise into a file after such a change stays as it is written. The replicas differ in it
//! then, which is told ([`ManagedFiles::note_conflicts`]).
//!
//! [`ManagedFiles::note_conflicts`]: crate::plan::managed_files::ManagedFiles::note_conflicts

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policies::breaker::{self, ForcedState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::auth::api_key::keys::{ApiKey, digest_text};
use crate::auth::revocations::{List, Revoked, RevokedKind, Terms};
use crate::call::backend::Backend;
use crate::clock::{self, Now};
use crate::config::keys::read_digest;
use crate::control::changes::{self, Changed, NotChanged, Order};
use crate::control::reload::Reloader;
use crate::fingerprint;
use crate::json as text;
use crate::plan::{LivePlan, Plan, State};
use crate::store::{Notice, Store};
use crate::tenancy::record::TenantRecord;

const REVOKED: &str = "revoked:";
const BREAKER: &str = "breaker:";
const DRAINED: &str = "drained:";
const QUOTA: &str = "quota:";
const TENANT: &str = "tenant:";
const KEY: &str = "key:";

/// Time for which other replicas can learn of a change of a tenant or a key, in seconds.
const CHANGED_FOR: u64 = 86_400;

/// Time for which other replicas can learn that a credential is good again, or an endpoint in use.
const RESTORED_FOR: u64 = 86_400;
/// Interval between looks at the plan.
const LOOK: Duration = Duration::from_secs(1);
/// Number of tries of a change while the file is not in force, and the pause between them.
const NEWER: (u32, Duration) = (30, Duration::from_millis(100));
/// Longest text of a notice, in bytes.
const LONGEST: usize = 8_192;

/// Announces revocations to the other replicas, if there is a shared store.
pub fn announce_revoked(state: &State, list: &List) {
    let Some(store) = state.shared_store.get() else { return };
    for (revoked, terms) in list {
        let value = json!({ "until": terms.until, "reason": terms.reason }).to_string();
        announce(store, &name_of(revoked), &value, terms.until);
    }
}

/// Announces that a revocation has been taken back.
pub fn announce_restored(state: &State, revoked: &Revoked) {
    if let Some(store) = state.shared_store.get() {
        announce(store, &name_of(revoked), "", Some(clock::unix_seconds() + RESTORED_FOR));
    }
}

/// Announces that a breaker is forced `open` or `closed`, or decides by itself again (`auto`).
pub fn announce_breaker(state: &State, backend: &str, word: &str) {
    if let Some(store) = state.shared_store.get() {
        announce(store, &format!("{BREAKER}{backend}"), word, None);
    }
}

/// Announces which endpoints of a backend with this address are drained, by their URLs; none if they are in use again.
pub fn announce_drained(state: &State, backend: &str, address: SocketAddr, urls: &[Arc<str>]) {
    if let Some(store) = state.shared_store.get() {
        let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
        let ends = urls.is_empty().then(|| clock::unix_seconds() + RESTORED_FOR);
        let name = format!("{DRAINED}{}", json!([backend, address]));
        announce(store, &name, &json!(urls).to_string(), ends);
    }
}

/// Announces that the count of a tenant's quota was set in the store, where so much is left. `ends` is the end of its
/// period, in seconds since 1970: until then, a replica may refuse the tenant because of what the store has told before.
pub fn announce_quota(state: &State, limit: &str, tenant: &str, left: u64, ends: u64) {
    if let Some(store) = state.shared_store.get() {
        let name = format!("{QUOTA}{}", json!([limit, tenant]));
        announce(store, &name, &left.to_string(), Some(ends));
    }
}

/// Announces what is written for a tenant now; `None` if it was taken out.
pub fn announce_tenant(state: &State, tenant: &str, record: Option<&TenantRecord>) {
    let value = record.map_or_else(String::new, |record| {
        Value::from(changes::tenants::view(record)).to_string()
    });
    announce_change(state, &format!("{TENANT}{tenant}"), &value);
}

/// Announces what is written for a key now, by its digest; `None` if it was taken out.
pub fn announce_key(state: &State, id: &str, key: Option<&ApiKey>) {
    let value = key.map_or_else(String::new, |key| {
        let settable = changes::keys::settable(key);
        json!([key.tenant, digest_text(&key.digest), settable]).to_string()
    });
    announce_change(state, &format!("{KEY}{id}"), &value);
}

fn announce_change(state: &State, name: &str, value: &str) {
    if let Some(store) = state.shared_store.get() {
        state.managed.announced(name, value);
        announce(store, name, value, Some(clock::unix_seconds() + CHANGED_FOR));
    }
}

fn announce(store: &Store, name: &str, value: &str, ends: Option<u64>) {
    if !store.announce(name, value, ends) {
        tracing::error!(
            name,
            "other replicas do not learn this: it is too long, or too much waits for the shared store"
        );
    }
}

fn name_of(revoked: &Revoked) -> String {
    let parts = json!([revoked.kind().as_str(), revoked.name(), revoked.issuer()]);
    format!("{REVOKED}{parts}")
}

/// Applies what other replicas announce, and tells them of this one, forever.
pub async fn follow_notices(live: Arc<LivePlan>, state: Arc<State>, reloader: Arc<Reloader>) {
    let Some(store) = state.shared_store.get().cloned() else {
        return;
    };
    let (name, started) = (process_name(), clock::unix_seconds());
    let mut changes = store.watch_notices();
    let mut applied = Applied::default();
    let (mut generation, mut is_changed, mut told_last) = (0, true, Changes::default());
    let (mut is_round, mut looks_again, mut conflicts) = (false, false, Conflicts::new());
    let mut round = tokio::time::interval(LOOK);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let plan = live.load();
        let is_new_plan = std::mem::replace(&mut generation, plan.generation) != plan.generation;
        if is_changed || is_new_plan {
            let news = applied.news(store.notices(), is_new_plan);
            for (backend, word) in &news.breakers {
                force(&plan, backend, word);
            }
            news.drained.iter().for_each(|drained| drain(&plan, drained));
            for (limit, tenant, left) in &news.quotas {
                if let Some((count, _)) = state.accounts.leased_quota(limit, tenant) {
                    count.recall(*left, Now::read());
                }
            }
            revoke(&state, news.revoked, news.restored).await;
            let failed = std::mem::take(&mut applied.failed);
            let (failed, needs_plan) = change(&live, &state, news.changes, failed).await;
            applied.failed = failed;
            if needs_plan && let Err(why) = reloader.compile_again().await {
                tracing::error!(why, "a change of another replica is written, and not wholly in force");
            }
            looks_again = true;
        }
        if is_round && looks_again {
            let (plan, notices) = (live.load(), store.notices());
            let notices: Vec<_> = notices.into_iter().filter(|notice| is_of_entry(&notice.name)).collect();
            conflicts = look_for_conflicts(&plan, &state, &notices, &applied.failed, &conflicts);
            looks_again = !conflicts.is_empty();
        }
        let in_force = Changes::of(&plan, &state);
        let told = json!({
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "generation": plan.generation,
            "started": started,
            "on_lease": state.accounts.leasing.held(),
            "changes": in_force,
        });
        let is_news = std::mem::replace(&mut told_last, in_force) != in_force;
        // What is on lease changes all the time, so it is told with the next word.
        store.set_presence(&told.to_string(), is_new_plan || is_news);
        is_changed = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = round.tick() => false,
        };
        is_round = !is_changed;
    }
}

/// Numbers of changes by operators that are in force in one replica, for comparison with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Revoked credentials, those of the file included.
    pub revoked: usize,
    /// Breakers that are forced.
    pub forced: usize,
    /// Endpoints that are drained.
    pub drained: usize,
    /// Fingerprints of all entries of the file of tenants and of the key file, in 48 bits; 0 without such a file.
    pub tenants: u64,
    pub keys: u64,
    /// Entries that were written otherwise into a file after a change by the admin API.
    pub conflicts: usize,
}

impl Changes {
    /// Returns what is in force in this replica.
    pub fn of(plan: &Plan, state: &State) -> Self {
        let now = clock::now();
        let is_forced = |backend: &&Arc<Backend>| {
            let now = backend.guards.breaker.state(now);
            backend.breaker_on && matches!(now, breaker::State::ForcedOpen | breaker::State::ForcedClosed)
        };
        let drained = |backend: &Arc<Backend>| backend.endpoints.registry().drained().len();
        Self {
            revoked: state.revocations.in_force().list().len(),
            forced: plan.backends.iter().filter(is_forced).count(),
            drained: plan.backends.iter().map(drained).sum(),
            tenants: tenants_fingerprint(plan),
            keys: keys_fingerprint(plan),
            conflicts: state.managed.conflicts().len(),
        }
    }
}

/// Returns the fingerprint of the file of tenants; 0 without one.
pub fn tenants_fingerprint(plan: &Plan) -> u64 {
    let directory = plan.tiers.directory.as_ref();
    directory.map_or(0, |part| fingerprint::shown(part.tenants.fingerprint()))
}

/// Returns the fingerprint of the key file; 0 without one.
pub fn keys_fingerprint(plan: &Plan) -> u64 {
    let keys = plan.authenticator.api_keys();
    keys.map_or(0, |keys| fingerprint::shown(keys.fingerprint()))
}

/// What was applied.
#[derive(Debug, Default)]
struct Applied {
    /// Times of the announcements, by name.
    times: HashMap<Box<str>, u64>,
    /// Names of changes of tenants and keys that were not possible.
    failed: HashSet<Box<str>>,
}

/// Whether a notice is about an entry of a file that the admin API rewrites.
fn is_of_entry(name: &str) -> bool {
    name.starts_with(TENANT) || name.starts_with(KEY)
}

/// Endpoints of a backend with one address.
#[derive(Debug, PartialEq, Eq)]
struct Drained {
    backend: String,
    address: SocketAddr,
    /// URLs of those that are drained; none if they are in use again.
    urls: Vec<Arc<str>>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct News {
    breakers: Vec<(String, String)>,
    drained: Vec<Drained>,
    /// Limit, tenant, and what the central count had left.
    quotas: Vec<(Arc<str>, String, u64)>,
    revoked: List,
    restored: Vec<Revoked>,
    /// Names and values of changes of tenants and keys.
    changes: Vec<(Box<str>, Box<str>)>,
}

impl Applied {
    /// Returns what of the notices has not been applied; of breakers and endpoints all if the plan is new.
    fn news(&mut self, notices: Vec<Notice>, is_new_plan: bool) -> News {
        let mut news = News::default();
        let mut applied = HashMap::with_capacity(notices.len());
        for notice in notices {
            let is_new = self.times.get(&notice.name) != Some(&notice.at);
            if let Some(backend) = notice.name.strip_prefix(BREAKER) {
                if is_new || is_new_plan {
                    news.breakers.push((backend.to_owned(), notice.value.into_string()));
                }
            } else if let Some(name) = notice.name.strip_prefix(DRAINED) {
                if is_new || is_new_plan {
                    news.drained.extend(read_drained(name, &notice.value));
                }
            } else if let Some(name) = notice.name.strip_prefix(QUOTA) {
                let read = text::typed::<(String, String)>(name.as_bytes(), LONGEST).ok();
                if is_new && let Some(((limit, tenant), left)) = read.zip(notice.value.parse().ok()) {
                    news.quotas.push((limit.into(), tenant, left));
                }
            } else if is_of_entry(&notice.name) {
                if is_new || is_new_plan && self.failed.contains(&notice.name) {
                    news.changes.push((notice.name.clone(), notice.value));
                }
            } else if is_new && let Some(revoked) = notice.name.strip_prefix(REVOKED).and_then(read_revoked) {
                if notice.value.is_empty() {
                    news.restored.push(revoked);
                } else if let Some(terms) = read_terms(&notice.value) {
                    news.revoked.insert(revoked, terms);
                }
            }
            applied.insert(notice.name, notice.at);
        }
        self.failed.retain(|name| applied.contains_key(name));
        self.times = applied;
        news
    }
}

fn read_revoked(written: &str) -> Option<Revoked> {
    let (kind, name, issuer): (String, String, Option<String>) = text::typed(written.as_bytes(), LONGEST).ok()?;
    let kind = RevokedKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Revoked::new(kind, &name, issuer.as_deref()).ok()
}

fn read_drained(name: &str, value: &str) -> Option<Drained> {
    let (backend, address) = text::typed(name.as_bytes(), LONGEST).ok()?;
    let urls: Vec<String> = text::typed(value.as_bytes(), LONGEST).ok()?;
    let urls = urls.into_iter().map(Arc::from).collect();
    Some(Drained { backend, address, urls })
}

fn read_terms(written: &str) -> Option<Terms> {
    let terms: HashMap<String, Value> = text::typed(written.as_bytes(), LONGEST).ok()?;
    let until = match terms.get("until") {
        None | Some(Value::Null) => None,
        Some(until) => Some(until.as_u64()?),
    };
    let reason = terms.get("reason").and_then(Value::as_str).map(Arc::from);
    Some(Terms { until, reason })
}

fn force(plan: &Plan, name: &str, word: &str) {
    let found = plan.backends.iter().find(|backend| *backend.name == *name);
    let Some(backend) = found.filter(|backend| backend.breaker_on) else {
        return;
    };
    let (breaker, now) = (&backend.guards.breaker, clock::now());
    backend.tell(match word {
        "open" => breaker.force(ForcedState::Open, now),
        "closed" => breaker.force(ForcedState::Closed, now),
        "auto" => breaker.unforce(now),
        _ => None,
    });
}

fn drain(plan: &Plan, drained: &Drained) {
    let Drained { backend, address, urls } = drained;
    let Some(found) = plan.backends.iter().find(|found| *found.name == **backend) else {
        return;
    };
    let registry = found.endpoints.registry();
    let before = registry.drained();
    if urls.is_empty() {
        if before.iter().any(|(_, other)| other == address) {
            registry.drain(*address, false);
            tracing::warn!(%backend, %address, "endpoint is no longer drained, as on another replica");
        }
        return;
    }
    let all: Vec<_> = urls.iter().map(|url| (Arc::clone(url), *address)).collect();
    if all.iter().any(|one| !before.contains(one)) {
        registry.drain_again(&all);
        tracing::warn!(%backend, %address, "endpoint is drained, as on another replica");
    }
}

/// Puts revocations of other replicas in force, on a thread where writing the file delays nothing.
async fn revoke(state: &Arc<State>, mut revoked: List, restored: Vec<Revoked>) {
    let in_force = state.revocations.in_force().list();
    revoked.retain(|revoked, terms| in_force.get(revoked) != Some(terms));
    let restored: Vec<_> = restored
        .into_iter()
        .filter(|revoked| in_force.contains_key(revoked))
        .collect();
    if revoked.is_empty() && restored.is_empty() {
        return;
    }
    tracing::info!(
        revoked = revoked.len(),
        restored = restored.len(),
        "learnt from another replica"
    );
    let state = Arc::clone(state);
    let apply = move || {
        if !revoked.is_empty()
            && let Err(error) = state.revocations.revoke(revoked)
        {
            tracing::error!(?error, "a revocation of another replica is not in force or not written");
        }
        for revoked in &restored {
            if let Err(error) = state.revocations.restore(revoked) {
                tracing::error!(?error, name = %revoked.name(), "not restored as on another replica");
            }
        }
    };
    let _ = tokio::task::spawn_blocking(apply).await;
}

/// Puts changes of tenants and keys in force that other replicas have made, on a thread where files delay nothing. Returns
/// the names of those that are not possible, of `failed` too, and whether the plan lacks a quota of one that is.
async fn change(
    live: &Arc<LivePlan>,
    state: &Arc<State>,
    news: Vec<(Box<str>, Box<str>)>,
    mut failed: HashSet<Box<str>>,
) -> (HashSet<Box<str>>, bool) {
    if news.is_empty() {
        return (failed, false);
    }
    let (live, state) = (Arc::clone(live), Arc::clone(state));
    let apply = move || {
        let mut needs_plan = false;
        for (name, value) in &news {
            let mut tries = 0;
            loop {
                match change_one((&live, &state), name, value) {
                    Err(NotChanged::Newer | NotChanged::Busy) if tries < NEWER.0 => {
                        tries += 1;
                        std::thread::sleep(NEWER.1);
                    }
                    Err(error) => {
                        tracing::error!(%name, ?error, "a change of another replica is not in force here");
                        failed.insert(name.clone());
                        break;
                    }
                    Ok(made) => {
                        failed.remove(name);
                        needs_plan |= made.needs_plan;
                        if made.is_changed && state.managed.is_overtaken(name, value) {
                            tracing::warn!(
                                %name,
                                "conflict: another replica has changed this after it was changed here, and the later change wins"
                            );
                        }
                        break;
                    }
                }
            }
        }
        (failed, needs_plan)
    };
    tokio::task::spawn_blocking(apply).await.unwrap_or_default()
}

/// Result of a change of another replica.
#[derive(Debug, Default)]
struct Applying {
    /// Whether it was not in force already.
    is_changed: bool,
    /// Whether the plan has to be compiled again before it is wholly in force.
    needs_plan: bool,
}

impl<T> From<Changed<T>> for Applying {
    fn from(made: Changed<T>) -> Self {
        let is_changed = !made.lines.is_empty();
        Self {
            is_changed,
            needs_plan: is_changed && made.needs_plan,
        }
    }
}

/// Entries that a file has otherwise than the last change by the admin API, each with the fingerprint of what is in force.
type Conflicts = HashMap<Box<str>, u64>;

/// Finds entries that a file has otherwise than the last change by the admin API. One that was found by the last look too,
/// a second ago, is a conflict, and is told once; before, its own change may be on the way to the store.
fn look_for_conflicts(
    plan: &Plan,
    state: &State,
    notices: &[Notice],
    failed: &HashSet<Box<str>>,
    last: &Conflicts,
) -> Conflicts {
    let keys = plan.authenticator.api_keys();
    let ids: HashSet<&str> = notices
        .iter()
        .filter_map(|notice| notice.name.strip_prefix(KEY))
        .collect();
    let of_keys = keys
        .as_ref()
        .filter(|_| !ids.is_empty())
        .into_iter()
        .flat_map(|keys| keys.all());
    let in_force: HashMap<&str, &ApiKey> = of_keys
        .filter(|key| ids.contains(&*key.id))
        .map(|key| (&*key.id, key))
        .collect();
    let mut found = Conflicts::new();
    for Notice { name, value, .. } in notices.iter().filter(|notice| !failed.contains(&notice.name)) {
        // What was announced here and has not been overtaken is newer than what the store says.
        let announced = state.managed.last_announced(name);
        let value = announced.as_deref().unwrap_or(value);
        let differs = if let Some(tenant) = name.strip_prefix(TENANT) {
            let in_force = plan.tiers.record(tenant);
            let wanted = wanted_tenant(tenant, value)
                .ok()
                .filter(|_| plan.tiers.directory.is_some());
            let differs = wanted.is_some_and(|wanted| wanted.as_ref() != in_force.as_deref());
            differs.then(|| fingerprint::of(&in_force))
        } else {
            let id = name.strip_prefix(KEY).unwrap_or_default();
            let in_force = in_force.get(id).copied();
            let wanted = wanted_key(id, value).ok().filter(|_| keys.is_some());
            let differs = wanted.is_some_and(|wanted| wanted.as_ref() != in_force);
            differs.then(|| fingerprint::of(&in_force))
        };
        found.extend(differs.map(|in_force| (name.clone(), in_force)));
    }
    let known = state.managed.conflicts();
    let sure = found
        .iter()
        .filter(|(name, in_force)| last.get(*name) == Some(*in_force));
    let sure: Arc<[Box<str>]> = sure.map(|(name, _)| name.clone()).collect();
    for name in sure.iter().filter(|name| !known.contains(name)) {
        tracing::warn!(
            %name,
            "conflict: the file was changed after this was changed by the admin API, and what the file says is in force here alone"
        );
    }
    state.managed.note_conflicts(sure);
    found
}

/// Reads what an announcement wants a tenant to be.
fn wanted_tenant(tenant: &str, value: &str) -> Result<Option<TenantRecord>, changes::tenants::Unusable> {
    if value.is_empty() {
        return Ok(None);
    }
    let entry = text::typed(value.as_bytes(), LONGEST).map_err(|_| (unreadable(), None))?;
    changes::tenants::read(tenant, &entry).map(Some)
}

/// Reads what an announcement wants a key to be.
fn wanted_key(id: &str, value: &str) -> Result<Option<ApiKey>, Vec<String>> {
    if value.is_empty() {
        return Ok(None);
    }
    let read = text::typed(value.as_bytes(), LONGEST);
    let (tenant, digest, entry): (String, String, _) = read.map_err(|_| unreadable())?;
    let digest = read_digest(&digest).ok_or_else(unreadable)?;
    changes::keys::read(id, &tenant, &digest, &entry).map(Some)
}

fn unreadable() -> Vec<String> {
    vec!["it cannot be read".to_owned()]
}

/// Applies one change.
fn change_one(running: changes::Running<'_>, name: &str, value: &str) -> Result<Applying, NotChanged> {
    let order = Order {
        by: "another replica".into(),
        ..Order::default()
    };
    let made = if let Some(tenant) = name.strip_prefix(TENANT) {
        let made = changes::tenants::change(running, tenant, &order, &|_| wanted_tenant(tenant, value));
        made.map(Applying::from)
    } else if let Some(id) = name.strip_prefix(KEY) {
        let made = changes::keys::change(running, id, &order, &|_| wanted_key(id, value));
        made.map(Applying::from)
    } else {
        return Ok(Applying::default());
    };
    match made {
        // It was taken out here too, or this replica has no such file.
        Err(NotChanged::Absent | NotChanged::NoFile) => Ok(Applying::default()),
        made => made,
    }
}

/// Returns the host and the number of the process.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(200).collect();
    format!(
        "{}:{}",
        if host.is_empty() { "gateway" } else { &host },
        std::process::id()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(name: &str, value: &str, at: u64) -> Notice {
        Notice {
            name: name.into(),
            value: value.into(),
            at,
        }
    }

    #[test]
    fn a_notice_is_applied_once() {
        let revoked = Revoked::new(RevokedKind::Subject, "ada \"lovelace\"", Some("main")).unwrap();
        let terms = Terms {
            until: Some(1_900_000_000),
            reason: Some("left".into()),
        };
        let value = json!({ "until": terms.until, "reason": terms.reason }).to_string();
        let mut applied = Applied::default();
        let first = notice(&name_of(&revoked), &value, 5);
        let news = applied.news(vec![first.clone()], true);
        assert_eq!(news.revoked, List::from([(revoked.clone(), terms)]));
        assert_eq!(applied.news(vec![first.clone()], true), News::default());
        let news = applied.news(vec![notice(&first.name, "", 6)], false);
        assert_eq!(news.restored, std::slice::from_ref(&revoked));
        let news = applied.news(vec![notice(&first.name, r#"{"until":null,"reason":null}"#, 7)], false);
        assert_eq!(news.revoked, List::from([(revoked, Terms::default())]));
    }

    #[test]
    fn a_change_is_tried_again_under_a_new_plan_if_it_was_not_possible() {
        let mut applied = Applied::default();
        let notices = || vec![notice("tenant:acme", "{}", 5), notice("key:k", "", 5)];
        assert_eq!(applied.news(notices(), false).changes.len(), 2);
        assert_eq!(applied.news(notices(), true).changes, []);
        applied.failed.insert("key:k".into());
        assert_eq!(applied.news(notices(), false).changes, []);
        assert_eq!(applied.news(notices(), true).changes, [("key:k".into(), "".into())]);
        applied.news(Vec::new(), true);
        assert!(applied.failed.is_empty());
    }

    #[test]
    fn a_breaker_is_forced_again_under_a_new_plan() {
        let mut applied = Applied::default();
        let open = || vec![notice("breaker:users", "open", 5)];
        let expected = [("users".to_owned(), "open".to_owned())];
        assert_eq!(applied.news(open(), false).breakers, expected);
        assert_eq!(applied.news(open(), false).breakers, []);
        assert_eq!(applied.news(open(), true).breakers, expected);
    }

    #[test]
    fn an_endpoint_is_drained_again_under_a_new_plan() {
        let mut applied = Applied::default();
        let name = r#"drained:["users","10.0.0.5:8080"]"#;
        let drained = |urls: &[&str]| Drained {
            backend: "users".to_owned(),
            address: "10.0.0.5:8080".parse().unwrap(),
            urls: urls.iter().map(|url| Arc::from(*url)).collect(),
        };
        let first = || vec![notice(name, r#"["http://users:8080"]"#, 5)];
        let expected = [drained(&["http://users:8080"])];
        assert_eq!(applied.news(first(), false).drained, expected);
        assert_eq!(applied.news(first(), false).drained, []);
        assert_eq!(applied.news(first(), true).drained, expected);
        assert_eq!(applied.news(vec![notice(name, "[]", 6)], false).drained, [drained(&[])]);
    }

    #[test]
    fn a_quota_is_recalled_once() {
        let mut applied = Applied::default();
        let set = |left, at| vec![notice(r#"quota:["monthly","acme"]"#, left, at)];
        let expected = |left| [(Arc::from("monthly"), "acme".to_owned(), left)];
        assert_eq!(applied.news(set("70", 5), false).quotas, expected(70));
        assert_eq!(applied.news(set("70", 5), true).quotas, []);
        assert_eq!(applied.news(set("70", 6), false).quotas, expected(70));
    }

    #[test]
    fn a_notice_that_cannot_be_read_does_nothing() {
        let notices = [
            ("revoked:", "{}"),
            ("revoked:[\"key\"]", "{}"),
            ("revoked:[\"other\",\"a\",null]", "{}"),
            ("revoked:[\"key\",\"a\",\"issuer\"]", "{}"),
            ("revoked:[\"key\",\"a\",null]", "{\"until\":\"now\"}"),
            ("revoked:[\"key\",\"a\",null]", "{"),
            ("drained:[\"users\",\"nowhere\"]", "[]"),
            ("drained:[\"users\",\"10.0.0.5:8080\"]", "{}"),
            ("quota:[\"monthly\"]", "1"),
            ("quota:[\"monthly\",\"acme\"]", "-1"),
            ("another:thing", "{}"),
        ];
        for (name, value) in notices {
            let news = Applied::default().news(vec![notice(name, value, 1)], false);
            assert_eq!(news, News::default(), "{name} {value}");
        }
    }
}
