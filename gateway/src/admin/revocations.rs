//! `/api/v1/revocations`: revokes credentials from the next request on.
//!
//! GET lists the revocations. POST adds one entry or `{"revocations": [...]}`. DELETE removes the entry that the query
//! names, as in `?key=acme-1` or `?subject=ada&issuer=main`. An entry is written as in the revocations file. An added
//! entry is in force even if the file cannot be written, and the answer then says so. Changes reach all replicas that
//! share a store.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body_limit::MAX_BODY;
use super::list_query::{ListQuery, Page};
use super::problem::Problem;
use super::state::Admin;
use super::token::MayChangeKeys;
use crate::auth::revocations::{List, Revoked, RevokedKind, Terms};
use crate::clock;
use crate::config::keys::Timestamp as Written;
use crate::control::notices;
use crate::json::{self, Document};
use crate::observe::timestamp::Timestamp;
use crate::plan::revocation_store::{Failure, RevocationStore, RevocationStoreError, RevocationStoreStatus};

/// An entry as it is written in a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    key: Option<String>,
    jti: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    issuer: Option<String>,
    /// An instant, a day, or a duration from now.
    until: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    revocations: Vec<Entry>,
}

/// Longest reason, in bytes.
const MAX_REASON: usize = 1024;

pub(super) async fn show(State(admin): State<Arc<Admin>>, query: ListQuery) -> Json<Value> {
    let (list, unix_now) = (admin.gateway.state.revocations.in_force().list(), clock::unix_seconds());
    let texts = |(revoked, terms): &(&Revoked, &Terms)| {
        let name: &str = revoked.name();
        query.finds(
            [revoked.kind().as_str(), name]
                .into_iter()
                .chain(terms.reason.as_deref()),
        )
    };
    let Page {
        entries,
        total,
        next_offset,
    } = query.page(list.iter().filter(texts).collect());
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(revoked, terms)| view(revoked, terms, unix_now))
        .collect();
    let mut shown = summary(&admin);
    shown.insert("total".to_owned(), total.into());
    shown.insert("next_offset".to_owned(), next_offset.into());
    shown.insert("revocations".to_owned(), entries.into());
    Json(shown.into())
}

/// Summarises the list: the number of entries, and whether a restart keeps them.
pub(super) fn summary(admin: &Admin) -> Map<String, Value> {
    let store = &admin.gateway.state.revocations;
    let RevocationStoreStatus {
        file,
        error,
        unwritten,
        write_error,
    } = store.status();
    let shown = |failure: Failure| {
        let at = Timestamp(Duration::from_secs(failure.at));
        json!({ "at": at, "error": failure.error })
    };
    let (error, write_error) = (error.map(shown), write_error.map(shown));
    let (list, unix_now) = (store.in_force().list(), clock::unix_seconds());
    let ended = list.values().filter(|terms| !terms.hold(unix_now)).count();
    let note = file.is_none().then_some(
        "Held in memory alone: the list is forgotten when this process ends, and what it names is good again. Write \
         `callers.revocations.file` to keep it.",
    );
    let shown = json!({
        "total": list.len(),
        "ended": ended,
        "file": file,
        "note": note,
        "not_in_file": unwritten,
        "last_error": error,
        "last_write_error": write_error,
    });
    match shown {
        Value::Object(shown) => shown,
        _ => unreachable!("written as an object"),
    }
}

pub(super) async fn add(
    _: MayChangeKeys,
    State(admin): State<Arc<Admin>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let list = read(&body)?;
    for (revoked, terms) in &list {
        tracing::info!(kind = revoked.kind().as_str(), name = %revoked.name(), reason = terms.reason.as_deref(), "revoked");
    }
    let state = Arc::clone(&admin.gateway.state);
    let revoke = move |store: &RevocationStore| {
        let revoked = store.revoke(list.clone());
        // What could not be written is in force all the same.
        if matches!(revoked, Ok(()) | Err(RevocationStoreError::NotWritten(_))) {
            notices::announce_revoked(&state, &list);
        }
        revoked
    };
    change(admin, revoke).await
}

pub(super) async fn remove(
    _: MayChangeKeys,
    State(admin): State<Arc<Admin>>,
    named: Result<Query<Entry>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(named) = named.map_err(|error| Problem::bad_value(error.to_string()))?;
    let (revoked, _) = named.meant()?;
    tracing::info!(kind = revoked.kind().as_str(), name = %revoked.name(), "restored");
    let state = Arc::clone(&admin.gateway.state);
    let restore = move |store: &RevocationStore| {
        store.restore(&revoked)?;
        notices::announce_restored(&state, &revoked);
        Ok(())
    };
    change(admin, restore).await
}

/// Makes a change on a thread where writing a file delays no other work.
async fn change(
    admin: Arc<Admin>,
    make: impl FnOnce(&RevocationStore) -> Result<(), RevocationStoreError> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let state = Arc::clone(&admin.gateway.state);
    let made = tokio::task::spawn_blocking(move || make(&state.revocations)).await;
    match made.unwrap_or_else(|_| Err(RevocationStoreError::NotWritten("writing it has panicked".to_owned()))) {
        Ok(()) => Ok(Json(summary(&admin).into())),
        Err(error) => Err(problem(&error)),
    }
}

fn problem(error: &RevocationStoreError) -> Problem {
    match error {
        RevocationStoreError::TooMany => Problem::new(
            StatusCode::CONFLICT,
            "too_many_revocations",
            "The list is full, and nothing was added",
            "Revoke the tenant or the subject rather than each token, and give entries an `until`.",
        ),
        RevocationStoreError::TooLong => Problem::new(
            StatusCode::CONFLICT,
            "revocations_too_long",
            "The file of revocations would be too long to be read again, and nothing was added",
            "Give shorter reasons, or revoke the tenant or the subject rather than each token.",
        ),
        RevocationStoreError::Absent => Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_revocation",
            "No such revocation",
            "/api/v1/revocations lists them; name it with its issuer if it has one.",
        ),
        RevocationStoreError::NotWritten(why) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "revocation_not_written",
            "The file of revocations was not written",
            "",
        )
        .detail(format!(
            "What was added is in force, and is written as soon as it can be; a restart before would forget it. Nothing was \
             taken out. {why}"
        )),
    }
}

fn read(body: &Bytes) -> Result<List, Problem> {
    let wrong = |error: &dyn std::fmt::Display| {
        Problem::bad_value(format!(
            "The body is {{\"key\": \"acme-1\"}}, or jti, subject or tenant, with until and reason if you like; \
             several go into {{\"revocations\": [...]}}: {error}."
        ))
    };
    let document = Document::check(body, MAX_BODY).map_err(|refusal| wrong(&refusal))?;
    let text = document.bytes();
    let entries = if document.value().get("revocations").is_some() {
        let entries: Entries = json::typed(text, MAX_BODY).map_err(|error| wrong(&error))?;
        entries.revocations
    } else {
        vec![json::typed(text, MAX_BODY).map_err(|error| wrong(&error))?]
    };
    let mut list = List::new();
    for (revoked, terms) in entries.iter().map(Entry::meant).collect::<Result<Vec<_>, _>>()? {
        let (kind, name) = (revoked.kind().as_str(), Arc::clone(revoked.name()));
        if list.insert(revoked, terms).is_some() {
            return Err(Problem::bad_value(format!("{kind}: {name} is named twice.")));
        }
    }
    Ok(list)
}

impl Entry {
    fn meant(&self) -> Result<(Revoked, Terms), Problem> {
        let named = [
            (RevokedKind::Key, &self.key),
            (RevokedKind::Token, &self.jti),
            (RevokedKind::Subject, &self.subject),
            (RevokedKind::Tenant, &self.tenant),
        ];
        let mut named = named
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, name.as_ref()?)));
        let (Some((kind, name)), None) = (named.next(), named.next()) else {
            return Err(Problem::bad_value(
                "Exactly one of key, jti, subject and tenant says what is taken back.".to_owned(),
            ));
        };
        let wrong = |why: &dyn std::fmt::Display| Problem::bad_value(format!("{}: {why}.", kind.as_str()));
        let revoked = Revoked::new(kind, name, self.issuer.as_deref()).map_err(|why| wrong(&why))?;
        let unix_now = clock::unix_seconds();
        let until = self.until.as_ref().map(|until| Written::read_from(until, unix_now));
        let until = until
            .transpose()
            .map_err(|why| Problem::bad_value(format!("until: {why}.")))?;
        if until.is_some_and(|until| until.0 <= unix_now) {
            let now = Timestamp(Duration::from_secs(unix_now)).whole_seconds();
            return Err(Problem::bad_value(format!("until: that is over, it is {now} here.")));
        }
        if self.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            return Err(Problem::bad_value(format!("reason: at most {MAX_REASON} bytes.")));
        }
        let terms = Terms {
            until: until.map(|until| until.0),
            reason: self.reason.as_deref().map(Arc::from),
        };
        Ok((revoked, terms))
    }
}

fn view(revoked: &Revoked, terms: &Terms, unix_now: u64) -> Value {
    let mut shown = Map::new();
    shown.insert(revoked.kind().as_str().to_owned(), (&**revoked.name()).into());
    if let Some(issuer) = revoked.issuer() {
        shown.insert("issuer".to_owned(), (&**issuer).into());
    }
    let until = terms.until.map(|until| Timestamp(Duration::from_secs(until)));
    shown.insert("until".to_owned(), json!(until));
    shown.insert("holds".to_owned(), terms.hold(unix_now).into());
    shown.insert("reason".to_owned(), json!(terms.reason));
    shown.into()
}
