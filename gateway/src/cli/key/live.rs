//! Makes and changes the keys of a running gateway, through its admin API.

use std::io::{Write as _, stdout};

use clap::Args;
use serde_json::{Map, Value, json};

use super::New;
use crate::cli::admin_client::{AdminOption, Answer, encoded, table};
use crate::cli::tenant::said;
use crate::observe::timestamp::Timestamp;

#[derive(Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    admin: AdminOption,
    /// Show only keys whose id, tenant or label has this text in it.
    #[arg(value_name = "TEXT", default_value = "")]
    text: String,
    /// Show only keys of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Number of keys to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Change {
    #[command(flatten)]
    admin: AdminOption,
    /// Id of the key.
    id: String,
    /// Say which lines of the file would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Set {
    #[command(flatten)]
    change: Change,
    /// Tier of the key's requests, unless the tenant has one.
    #[arg(long)]
    tier: Option<String>,
    /// Scopes of the key, separated by commas, in place of those that it has.
    #[arg(long, value_delimiter = ',', value_name = "SCOPE")]
    scopes: Option<Vec<String>>,
    /// Description for people.
    #[arg(long)]
    label: Option<String>,
    /// Start of validity: a day, an instant in UTC, or a time from now such as `2h`.
    #[arg(long, value_name = "WHEN")]
    not_before: Option<String>,
    /// End of validity: a day, an instant in UTC, or a time from now such as `90d`.
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Fields to take from the key, such as `tier` or `expires`.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    unset: Vec<String>,
}

pub(super) fn list(options: &List) -> Result<(), String> {
    let mut path = format!("/api/v1/keys?limit={}&q={}", options.limit, encoded(&options.text));
    if let Some(tenant) = &options.tenant {
        path = format!("{path}&tenant={}", encoded(tenant));
    }
    let shown = options.admin.get(&path).and_then(Answer::ok)?;
    if options.json {
        return print(&format!("{:#}\n", shown["keys"]));
    }
    let mut rows = vec![["key", "tenant", "tier", "expires", "label", "state"].map(str::to_owned)];
    let listed = shown["keys"].as_array().map_or(&[][..], Vec::as_slice);
    rows.extend(listed.iter().map(|key| {
        let text = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        ["id", "tenant", "tier", "expires", "label", "fails"].map(text)
    }));
    let mut page = table(&rows);
    if let Some(total) = shown["total"].as_u64().filter(|total| *total > listed.len() as u64) {
        page.push_str(&format!("{} more\n", total - listed.len() as u64));
    }
    print(&page)
}

/// Asks a running gateway for a key, and prints it.
pub(super) fn new(admin: &AdminOption, options: &New) -> Result<(), String> {
    let at = |unix: u64| Timestamp(std::time::Duration::from_secs(unix)).whole_seconds();
    let terms = json!({
        "id": options.id,
        "tier": options.tier,
        "scopes": options.scopes,
        "label": options.label,
        "not_before": options.not_before.map(at),
        "expires": options.expires.map(at),
    });
    let path = format!("/api/v1/tenants/{}/keys", encoded(&options.tenant));
    let made = admin.change("POST", &path, Some(&terms), None)?.ok()?;
    let secret = made["secret"]
        .as_str()
        .ok_or("the gateway has answered without a key")?;
    print(&format!("{secret}\n"))
}

pub(super) fn set(options: &Set) -> Result<(), String> {
    let mut terms = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            terms.insert(name.to_owned(), value);
        }
    };
    put("tier", options.tier.clone().map(Value::from));
    put("scopes", options.scopes.clone().map(Value::from));
    put("label", options.label.clone().map(Value::from));
    put("not_before", options.not_before.clone().map(Value::from));
    put("expires", options.expires.clone().map(Value::from));
    for field in &options.unset {
        terms.insert(field.clone(), Value::Null);
    }
    patch(&options.change, &Value::from(terms))
}

pub(super) fn disable(change: &Change) -> Result<(), String> {
    patch(change, &json!({ "disabled": true }))
}

pub(super) fn enable(change: &Change) -> Result<(), String> {
    patch(change, &json!({ "disabled": null }))
}

pub(super) fn delete(change: &Change) -> Result<(), String> {
    let answer = change.admin.change("DELETE", &change.path(), None, None)?;
    answer.ok().and_then(|shown| print(&said(&shown)))
}

fn patch(change: &Change, terms: &Value) -> Result<(), String> {
    let answer = change.admin.change("PATCH", &change.path(), Some(terms), None)?;
    answer.ok().and_then(|shown| print(&said(&shown)))
}

impl Change {
    fn path(&self) -> String {
        let path = format!("/api/v1/keys/{}", encoded(&self.id));
        if self.dry_run { path + "?dry_run" } else { path }
    }
}

fn print(page: &str) -> Result<(), String> {
    stdout()
        .write_all(page.as_bytes())
        .map_err(|error| format!("standard output: {error}"))
}
