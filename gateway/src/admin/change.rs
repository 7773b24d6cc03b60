//! Preconditions and trials of the handlers that change keys and tenants, and their answers to what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::FromRequestParts;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use super::list_query::flag;
use super::problem::Problem;
use super::state::Admin;
use crate::control::changes::{Changed, NotChanged, Order, Precondition, Running};
use crate::json::{self, Document};

/// Largest body of a change, in bytes.
const MOST: usize = 64 << 10;
/// Largest number of tags in `If-Match`.
const MOST_TAGS: usize = 16;
/// Time for which a file that someone else has changed is waited for.
const TRIES: (u32, Duration) = (50, Duration::from_millis(100));

/// Precondition of a change, and whether it is only tried: `If-Match`, `If-None-Match: *` and `?dry_run`.
pub(super) struct Terms {
    precondition: Precondition,
    is_trial: bool,
}

impl Terms {
    pub(super) fn by(self, by: Arc<str>) -> Order {
        Order {
            precondition: self.precondition,
            is_trial: self.is_trial,
            by,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Terms {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            precondition: precondition(&parts.headers)?,
            is_trial: flag(&parts.uri, "dry_run")?,
        })
    }
}

/// Reads the precondition of a request (RFC 9110 section 13.1). A weak tag matches nothing here.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let wrong = |why: &str| Err(Problem::bad_value(why.to_owned()));
    let texts = |name| {
        let all = headers.get_all(name).iter();
        all.map(|value| value.to_str().unwrap_or("?"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (matching, none) = (texts(IF_MATCH), texts(IF_NONE_MATCH));
    match (matching.trim(), none.trim()) {
        ("", "") => Ok(Precondition::Any),
        ("", "*") => Ok(Precondition::Absent),
        ("*", "") => Ok(Precondition::Present),
        ("", _) => wrong("If-None-Match is * here: the entry must be new."),
        (tags, "") => {
            let tags: Vec<_> = tags.split(',').map(str::trim).collect();
            if tags.len() > MOST_TAGS {
                return wrong("If-Match has too many tags.");
            }
            let strong = tags.iter().filter_map(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
            Ok(Precondition::Tags(strong.map(str::to_owned).collect()))
        }
        _ => wrong("If-Match and If-None-Match exclude each other."),
    }
}

/// Reads a body that is a JSON object.
pub(super) fn object(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, Problem> {
    let body = body.map_err(|error| Problem::bad_value(error.to_string()))?;
    let wrong = |why: &dyn std::fmt::Display| Problem::bad_value(format!("The body is a JSON object: {why}."));
    let document = Document::check(&body, MOST).map_err(|refusal| wrong(&refusal))?;
    json::typed(document.bytes(), MOST).map_err(|error| wrong(&error))
}

/// Applies a merge patch (RFC 7396). A merge into an empty object takes out every `null`.
pub(super) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(&name)),
            Value::Object(inner) => {
                let slot = target.entry(name).or_insert_with(|| Map::new().into());
                if !slot.is_object() {
                    *slot = Map::new().into();
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            value => drop(target.insert(name, value)),
        }
    }
}

/// Makes a change on a thread where files delay no other work. A file that someone else has changed is put in force
/// first.
pub(super) async fn make<T: Send + 'static>(
    admin: &Arc<Admin>,
    change: impl Fn(Running<'_>) -> Result<Changed<T>, NotChanged> + Send + Sync + 'static,
) -> Result<Changed<T>, Problem> {
    let change = Arc::new(change);
    let (tries, pause) = TRIES;
    let mut tried = 0;
    let changed = loop {
        let (live, state) = (Arc::clone(&admin.gateway.live), Arc::clone(&admin.gateway.state));
        let change = Arc::clone(&change);
        let made = tokio::task::spawn_blocking(move || change((&live, &state))).await;
        match made.unwrap_or_else(|_| Err(NotChanged::NotWritten("the change has panicked".to_owned()))) {
            Err(NotChanged::Newer) if tried < tries => {
                tried += 1;
                tokio::time::sleep(pause).await;
            }
            made => break made.map_err(problem)?,
        }
    };
    if changed.needs_plan && !changed.lines.is_empty() {
        admin.gateway.reloader.compile_again().await.map_err(|why| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not_in_force",
                "The file was written, and is not wholly in force",
                "",
            )
            .detail(format!("/api/v1/status says more. {why}"))
        })?;
    }
    Ok(changed)
}

fn problem(error: NotChanged) -> Problem {
    match error {
        NotChanged::Busy => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "change_in_progress",
            "Another change or a reload has not finished",
            "Try again soon; nothing was changed.",
        ),
        NotChanged::NoFile => Problem::new(
            StatusCode::CONFLICT,
            "no_file",
            "The config names no file for this",
            "Write `tenants: { file: tenants.yaml }` for tenants or `callers: { api_keys: { file: keys.yaml } }` for keys into the config, and reload.",
        ),
        NotChanged::Newer => Problem::new(
            StatusCode::CONFLICT,
            "file_not_in_force",
            "The file was changed by someone else and is not in force",
            "A change here would undo that one. /api/v1/status says what is wrong with the file; correct it first.",
        ),
        NotChanged::Absent => absent(),
        NotChanged::Precondition(tag) => Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "The entry is not the one that the condition names",
            "Someone else has changed it. Read it again, and send the change with the new etag.",
        )
        .tag(tag),
        NotChanged::Invalid(wrong) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "What is asked for cannot be used",
            "The member `errors` lists everything that is wrong; nothing was changed.",
        )
        .errors(wrong),
        NotChanged::Form(why) => {
            Problem::new(StatusCode::CONFLICT, "file_form", "The file cannot be changed here", "").detail(why)
        }
        NotChanged::NotWritten(why) => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not_written",
            "The file was not written",
            "",
        )
        .detail(format!("Nothing was changed, and what is in force stays. {why}")),
        NotChanged::Full(why) => Problem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "storage_full",
            "There is no room to write the file",
            "",
        )
        .detail(format!("Nothing was changed, and what is in force stays. {why}")),
    }
}

pub(super) fn absent() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_entry",
        "There is no such entry",
        "/api/v1/tenants and /api/v1/keys list what there is; only tenants of the file of tenants can be changed here.",
    )
}

/// Answers with an entry and its tag.
pub(super) fn answer(status: StatusCode, tag: Option<&str>, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(format!("\"{tag}\"")).ok()) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_follows_its_rfc() {
        // From RFC 7396 appendix A.
        let check = |target: Value, patch: Value, expected: Value| {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                panic!("objects");
            };
            merge(&mut target, patch);
            assert_eq!(Value::from(target), expected);
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"}));
        check(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
        check(json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"}));
        check(
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        );
        check(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
        check(
            json!({"a": "foo"}),
            json!({"a": {"b": {"c": null}}}),
            json!({"a": {"b": {}}}),
        );
        check(json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
    }

    #[test]
    fn a_condition_names_tags_or_presence() {
        let check = |fields: &[(&'static str, &'static str)], expected: Option<Precondition>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(precondition(&headers).ok(), expected, "{fields:?}");
        };
        let tags = |tags: &[&str]| Precondition::Tags(tags.iter().map(|tag| (*tag).to_owned()).collect());
        check(&[], Some(Precondition::Any));
        check(&[("if-match", "*")], Some(Precondition::Present));
        check(&[("if-none-match", "*")], Some(Precondition::Absent));
        check(&[("if-match", "\"a\"")], Some(tags(&["a"])));
        check(
            &[("if-match", "\"a\", W/\"b\""), ("if-match", "\"c\"")],
            Some(tags(&["a", "c"])),
        );
        check(&[("if-match", "a")], Some(tags(&[])));
        check(&[("if-none-match", "\"a\"")], None);
        check(&[("if-match", "*"), ("if-none-match", "*")], None);
    }
}
