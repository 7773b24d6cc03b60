//! Changes the keys of the key file.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::tenants::{line, tag_of};
use super::text::{self, Fields};
use super::{Changed, MOST_KEYS, NotChanged, Order, Running, not_edited, read_file, turn, write_file};
use crate::auth::api_key::keys::{ApiKey, ApiKeys, digest_text};
use crate::clock;
use crate::config::keys::Timestamp as Written;
use crate::config::{Sources, keys, written};
use crate::observe::log_sampler::AUDIT;
use crate::observe::timestamp::Timestamp;
use crate::plan::Plan;
use crate::plan::compile::callers::meant;

/// Largest number of scopes of a key, and of bytes in a scope, a label or a tier.
const MOST: (usize, usize) = (64, 256);

/// Names that a request may set.
const SETTABLE: [&str; 6] = ["tier", "scopes", "label", "not_before", "expires", "disabled"];

/// Returns what a key is to be, for what it is; `None` takes it out.
pub type Wanted<'a> = dyn Fn(Option<&ApiKey>) -> Result<Option<ApiKey>, Vec<String>> + 'a;

/// Changes one key. It is in force for the next request.
///
/// # Errors
/// See [`NotChanged`].
pub fn change(
    (live, state): Running<'_>,
    id: &str,
    order: &Order,
    wanted: &Wanted<'_>,
) -> Result<Changed<ApiKey>, NotChanged> {
    let _turn = turn(state)?;
    let plan = live.load();
    let (path, version) = plan.key_file.as_ref().ok_or(NotChanged::NoFile)?;
    let known = plan.authenticator.api_keys().ok_or(NotChanged::NoFile)?;
    let place = known.all().iter().position(|key| *key.id == *id);
    let before = place.map(|place| known.all()[place].clone());
    order.precondition.check(before.as_ref().map(tag).as_deref())?;
    let after = wanted(before.as_ref()).map_err(NotChanged::Invalid)?;
    if before.is_none() && after.is_none() {
        return Err(NotChanged::Absent);
    }
    if let Some(key) = &after {
        check(&plan, key)?;
    }
    let mut all = known.all().to_vec();
    match (place, &after) {
        (Some(place), Some(key)) => all[place] = key.clone(),
        (Some(place), None) => drop(all.remove(place)),
        (None, Some(key)) => all.push(key.clone()),
        (None, None) => {}
    }
    let all = ApiKeys::new(known.header().clone(), all)
        .map_err(|wrong| NotChanged::Invalid(wrong.iter().map(ToString::to_string).collect()))?;
    let (old, stamp) = read_file(path, MOST_KEYS, state.managed.version(path, *version))?;
    let (fields_before, fields_after) = (before.as_ref().map(fields), after.as_ref().map(fields));
    let splice = text::edited(
        keys::LAYOUT,
        &old,
        id,
        (fields_before.as_ref(), fields_after.as_ref()),
        &entries,
        after.clone(),
    )
    .map_err(|why| not_edited(path, why))?;
    let [start, end] = [splice.part.start, splice.part.end].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    let new = [&old.text[..start], &splice.new, &old.text[end..]].concat();
    if new.len() as u64 > MOST_KEYS {
        return Err(NotChanged::Form(format!(
            "{} would be larger than {MOST_KEYS} bytes and could not be read again",
            path.display()
        )));
    }
    let changed = Changed {
        lines: text::lines_that_differ(&splice.old, &splice.new),
        needs_plan: false,
        before,
        after,
    };
    if order.is_trial || changed.lines.is_empty() {
        return Ok(changed);
    }
    let version = write_file(path, stamp, &splice)?;
    state.managed.note_written(path, version, new.into_bytes().into());
    plan.authenticator.replace_api_keys(all);
    let said = |key: Option<&ApiKey>| key.map_or_else(|| "none".to_owned(), |key| line(&shown(key)));
    tracing::info!(
        target: AUDIT,
        by = %order.by,
        key = id,
        before = said(changed.before.as_ref()),
        after = said(changed.after.as_ref()),
        "audit: an API key is changed"
    );
    Ok(changed)
}

fn check(plan: &Plan, key: &ApiKey) -> Result<(), NotChanged> {
    let mut wrong = Vec::new();
    if let Some(tier) = key.tier.as_ref().filter(|tier| !plan.tiers.by_name.contains_key(*tier)) {
        wrong.push(format!("`tier`: there is no tier `{tier}`"));
    }
    if key.scopes.len() > MOST.0 {
        wrong.push(format!("`scopes`: at most {} of them", MOST.0));
    }
    if key.scopes.iter().any(|scope| scope.is_empty() || scope.len() > MOST.1) {
        wrong.push(format!("`scopes`: each has 1 to {} bytes", MOST.1));
    }
    if key.label.as_ref().is_some_and(|label| label.len() > MOST.1) {
        wrong.push(format!("`label`: at most {} bytes", MOST.1));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(NotChanged::Invalid(wrong))
    }
}

/// Returns the entries of a text.
fn entries(text: &str) -> Option<BTreeMap<String, ApiKey>> {
    let file = keys::parse("", text, &mut Sources::default(), &|name| std::env::var(name).ok()).ok()?;
    Some(file.keys.iter().map(|key| (key.id.value.clone(), meant(key))).collect())
}

/// Returns a tag that differs for different keys.
pub fn tag(key: &ApiKey) -> String {
    tag_of(&line(&fields(key)))
}

/// Returns the fields that are written for a key, without its digest.
fn shown(key: &ApiKey) -> Fields {
    let mut fields = fields(key);
    fields.retain(|(name, _)| *name != "digest");
    fields
}

/// Returns the fields that are written for a key.
fn fields(key: &ApiKey) -> Fields {
    let ApiKey {
        id,
        tenant,
        digest,
        tier,
        scopes,
        label,
        not_before,
        expires,
        disabled,
    } = key;
    let at = |at: u64| Timestamp(Duration::from_secs(at)).whole_seconds();
    let mut fields = vec![("id", written(id)), ("tenant", written(tenant))];
    fields.extend(tier.iter().map(|tier| ("tier", written(tier))));
    if !scopes.is_empty() {
        let scopes: Vec<_> = scopes.iter().map(|scope| written(scope)).collect();
        fields.push(("scopes", format!("[{}]", scopes.join(", "))));
    }
    fields.extend(label.iter().map(|label| ("label", written(label))));
    fields.extend(not_before.map(|start| ("not_before", at(start))));
    fields.extend(expires.map(|end| ("expires", at(end))));
    if *disabled {
        fields.push(("disabled", "true".to_owned()));
    }
    fields.push(("digest", format!("\"{}\"", digest_text(digest))));
    fields
}

/// Reads a key from the names that a request may set.
///
/// # Errors
/// Every mistake, as a sentence.
pub fn read(id: &str, tenant: &str, digest: &[u8; 32], wanted: &Map<String, Value>) -> Result<ApiKey, Vec<String>> {
    let mut wrong = Vec::new();
    let mut entry = wanted.clone();
    for name in wanted.keys().filter(|name| !SETTABLE.contains(&name.as_str())) {
        wrong.push(format!("`{name}` cannot be set: there are {}", SETTABLE.join(", ")));
        entry.remove(name);
    }
    for name in ["not_before", "expires"] {
        if let Some(Value::String(text)) = wanted.get(name) {
            match Written::read_from(text, clock::unix_seconds()) {
                Ok(at) => {
                    let at = Timestamp(Duration::from_secs(at.0)).whole_seconds();
                    entry.insert(name.to_owned(), at.into());
                }
                Err(why) => {
                    wrong.push(format!("`{name}`: {why}"));
                    entry.remove(name);
                }
            }
        }
    }
    entry.insert("id".to_owned(), id.into());
    entry.insert("tenant".to_owned(), tenant.into());
    entry.insert("digest".to_owned(), digest_text(digest).into());
    match keys::parse_json(&serde_json::to_string(&entry).unwrap_or_default()) {
        Ok(key) if wrong.is_empty() => Ok(meant(&key)),
        Ok(_) => Err(wrong),
        Err(more) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

/// Returns what a request may set, as it is now.
pub fn settable(key: &ApiKey) -> Map<String, Value> {
    let at = |at: u64| Value::from(Timestamp(Duration::from_secs(at)).whole_seconds());
    let shown = json!({
        "tier": key.tier,
        "scopes": key.scopes,
        "label": key.label,
        "not_before": key.not_before.map(at),
        "expires": key.expires.map(at),
        "disabled": key.disabled,
    });
    let mut all = Map::new();
    if let Value::Object(shown) = shown {
        all = shown;
        all.retain(|_, value| !value.is_null());
    }
    all
}
