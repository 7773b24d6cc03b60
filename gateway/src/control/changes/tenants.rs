//! Changes the tenants of the file of tenants.

use std::collections::BTreeMap;

use policies::Every;
use serde_json::{Map, Value, json};

use super::text::{self, Fields};
use super::{Changed, NotChanged, Order, Running, not_edited, read_ends, read_file, turn, write_file};
use crate::auth::api_key::keys::digest_of;
use crate::config::{Rate, Sources, tenant_file, written};
use crate::limits::Mode;
use crate::observe::log_sampler::AUDIT;
use crate::plan::Plan;
use crate::plan::compile::tenants::meant;
use crate::tenancy::record::TenantRecord;
use crate::tenancy::{NoTerms, UNKNOWN_QUOTA};

/// Returns what an entry is to be, for what it is; `None` takes it out.
pub type Wanted<'a> = dyn Fn(Option<&TenantRecord>) -> Result<Option<TenantRecord>, Unusable> + 'a;

/// Mistakes of an entry, and what could be read of it all the same.
pub type Unusable = (Vec<String>, Option<Box<TenantRecord>>);

/// Changes one tenant. It is in force for the next request.
///
/// # Errors
/// See [`NotChanged`].
pub fn change(
    (live, state): Running<'_>,
    name: &str,
    order: &Order,
    wanted: &Wanted<'_>,
) -> Result<Changed<TenantRecord>, NotChanged> {
    let _turn = turn(state)?;
    let plan = live.load();
    let of_plan = plan.tenants.as_ref().ok_or(NotChanged::NoFile)?;
    let known = state.managed.tenants(&of_plan.path).ok_or(NotChanged::Newer)?;
    let before = known.directory.get(name);
    order.precondition.check(before.as_deref().map(tag).as_deref())?;
    let after = wanted(before.as_deref()).map_err(|(mut mistakes, readable)| {
        if let Some(Err(NotChanged::Invalid(more))) = readable.map(|record| check(&plan, &record)) {
            mistakes.extend(more);
        }
        NotChanged::Invalid(mistakes)
    })?;
    if before.is_none() && after.is_none() {
        return Err(NotChanged::Absent);
    }
    if after.is_some() && plan.tiers.tenants.contains_key(name) {
        return Err(NotChanged::Invalid(vec![format!(
            "the tenant `{name}` stands in the config: change it there, or take it out of there first"
        )]));
    }
    let needs_plan = after.as_ref().map_or(Ok(false), |record| check(&plan, record))?;
    let (old, stamp) = match &before {
        Some(_) => read_file(&known.path, tenant_file::MAX_BYTES, known.stamp)?,
        None => read_ends(&known.path, known.stamp)?,
    };
    let before = before.map(|record| TenantRecord::clone(&record));
    let (fields_before, fields_after) = (before.as_ref().map(fields), after.as_ref().map(fields));
    let splice = text::edited(
        tenant_file::LAYOUT,
        &old,
        name,
        (fields_before.as_ref(), fields_after.as_ref()),
        &entries,
        after.clone(),
    )
    .map_err(|why| not_edited(&known.path, why))?;
    let changed = Changed {
        lines: text::lines_that_differ(&splice.old, &splice.new),
        needs_plan: needs_plan && !order.is_trial,
        before,
        after,
    };
    if order.is_trial || changed.lines.is_empty() {
        return Ok(changed);
    }
    let version = write_file(&known.path, stamp, &splice)?;
    state.managed.note_written(&known.path, version, [].into());
    known.directory.set(name, changed.after.clone());
    let said = |fields: Option<Fields>| fields.map_or_else(|| "none".to_owned(), |fields| line(&fields));
    tracing::info!(
        target: AUDIT,
        by = %order.by,
        tenant = name,
        before = said(fields_before),
        after = said(fields_after),
        "audit: a tenant is changed"
    );
    Ok(changed)
}

/// Checks a record against the plan. Returns whether the plan lacks a quota that the record has.
fn check(plan: &Plan, record: &TenantRecord) -> Result<bool, NotChanged> {
    let largest = plan.listed.iter().map(|route| route.cost).max().unwrap_or(1);
    let Err(wrong) = plan.tiers.check(record, largest) else {
        return Ok(false);
    };
    let (unknown, wrong): (Vec<_>, Vec<_>) = wrong.into_iter().partition(|no| no.why == UNKNOWN_QUOTA);
    if wrong.is_empty() {
        return Ok(!unknown.is_empty());
    }
    let said = |NoTerms { field, why }: NoTerms| format!("`{field}`: {why}");
    Err(NotChanged::Invalid(wrong.into_iter().map(said).collect()))
}

/// Returns the entries of a text.
fn entries(text: &str) -> Option<BTreeMap<String, TenantRecord>> {
    let file = tenant_file::parse("", text, &mut Sources::default()).ok()?;
    let entries = file.tenants.iter();
    Some(
        entries
            .map(|(name, tenant)| (name.value.to_string(), meant(tenant)))
            .collect(),
    )
}

/// Reads an entry from JSON.
///
/// # Errors
/// Every mistake, and what could be read all the same.
pub fn read(name: &str, entry: &Map<String, Value>) -> Result<TenantRecord, Unusable> {
    let json = serde_json::to_string(entry).unwrap_or_default();
    tenant_file::parse_json(name, &json)
        .map(|tenant| meant(&tenant))
        .map_err(|(mistakes, readable)| (mistakes, readable.map(|tenant| Box::new(meant(&tenant)))))
}

/// Returns an entry in the form in which it is written, without what is left out.
pub fn view(record: &TenantRecord) -> Map<String, Value> {
    let TenantRecord {
        tier,
        rate,
        burst,
        in_flight,
        quotas,
        disabled,
        labels,
    } = record;
    let mut shown = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown.insert(name.to_owned(), value);
        }
    };
    add("tier", tier.as_ref().map(|tier| (&**tier).into()));
    add("rate", rate.map(|(count, per)| Rate { count, per }.to_string().into()));
    add("burst", burst.map(|burst| burst.get().into()));
    add("in_flight", in_flight.map(|cap| cap.get().into()));
    let quotas: Map<String, Value> = quotas
        .iter()
        .map(|(name, quota)| {
            let mut shown = json!({ "limit": quota.limit.get(), "every": every(quota.every) });
            if quota.mode == Mode::Shadow {
                shown["mode"] = "shadow".into();
            }
            if let Some(counted) = quota.counted {
                shown["counted"] = counted.as_str().into();
            }
            (name.to_string(), shown)
        })
        .collect();
    add("quotas", (!quotas.is_empty()).then(|| quotas.into()));
    add("disabled", Some((*disabled).into()));
    let labels: Map<String, Value> = labels
        .iter()
        .map(|(name, text)| (name.to_string(), (&**text).into()))
        .collect();
    add("labels", (!labels.is_empty()).then(|| labels.into()));
    shown
}

/// Returns a tag that differs for different records.
pub fn tag(record: &TenantRecord) -> String {
    tag_of(&line(&fields(record)))
}

/// Returns a tag of a text.
pub(super) fn tag_of(text: &str) -> String {
    let digest = digest_of(text.as_bytes());
    digest[..8]
        .iter()
        .fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"))
}

/// Names of an entry, in the order in which they are written.
const NAMES: [&str; 7] = ["tier", "rate", "burst", "in_flight", "quotas", "disabled", "labels"];

/// Returns the fields that are written for a record.
pub fn fields(record: &TenantRecord) -> Fields {
    let shown = view(record);
    let names = NAMES.into_iter().filter(|name| *name != "disabled" || record.disabled);
    let fields = names.filter_map(|name| match (name, shown.get(name)?) {
        // Nothing in a rate needs quotes.
        ("rate", Value::String(rate)) => Some((name, rate.clone())),
        (_, value) => Some((name, flow(value))),
    });
    fields.collect()
}

/// Writes a value in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => written(text),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, value)| format!("{}: {}", written(name), flow(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

pub(super) fn line(fields: &Fields) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{ {} }}", fields.join(", "))
}

const fn every(every: Every) -> &'static str {
    match every {
        Every::Minute => "minute",
        Every::Hour => "hour",
        Every::Day => "day",
        Every::Week => "week",
        Every::Month => "month",
    }
}
