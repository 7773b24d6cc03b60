//! `gateway tenant`: shows the tenants of a running gateway, and changes those of its file of tenants.

use std::fmt::Write as _;
use std::io::{Write as _, stderr, stdout};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::admin_client::{AdminOption, Answer, encoded};
use super::{FAILED, OK};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List tenants with their tiers, requests and refusals.
    List(List),
    /// Show one tenant: what is written for it, and what its limits have left.
    Show(One),
    /// Write a tenant's terms into the file of tenants; those that are not named stay as they are.
    Set(Set),
    /// Refuse every request of a tenant, from the next one on.
    Disable(Change),
    /// Serve a tenant again.
    Enable(Change),
    /// Take a tenant out of the file of tenants. Its keys stay.
    Delete(Change),
}

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    admin: AdminOption,
    /// Show only tenants whose name or tier has this text in it.
    #[arg(value_name = "TEXT", default_value = "")]
    text: String,
    /// Number of tenants to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct One {
    #[command(flatten)]
    admin: AdminOption,
    /// Name of the tenant.
    tenant: String,
}

#[derive(clap::Args)]
pub(super) struct Change {
    #[command(flatten)]
    one: One,
    /// Say which lines of the file would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
pub(super) struct Set {
    #[command(flatten)]
    change: Change,
    /// Tier of the tenant, whatever its credentials say.
    #[arg(long)]
    tier: Option<String>,
    /// Rate in place of the tier's, such as `50/s`.
    #[arg(long)]
    rate: Option<String>,
    /// Burst in place of the tier's.
    #[arg(long)]
    burst: Option<u64>,
    /// Requests at once.
    #[arg(long, value_name = "N")]
    in_flight: Option<u32>,
    /// Calendar quota, such as `monthly=100000/month`.
    #[arg(long, value_name = "NAME=LIMIT/PERIOD", value_parser = quota)]
    quota: Vec<(String, Value)>,
    /// Text for people and programs.
    #[arg(long, value_name = "NAME=TEXT", value_parser = label)]
    label: Vec<(String, String)>,
    /// Fields to take from the tenant, such as `rate`, `quotas.monthly` or `labels.owner`.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    unset: Vec<String>,
}

fn quota(text: &str) -> Result<(String, Value), String> {
    let parsed = text.split_once('=').and_then(|(name, terms)| {
        let (limit, every) = terms.split_once('/')?;
        Some((
            name.to_owned(),
            json!({ "limit": limit.parse::<u64>().ok()?, "every": every }),
        ))
    });
    parsed.ok_or_else(|| "write it as `monthly=100000/month`".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let parsed = text
        .split_once('=')
        .map(|(name, text)| (name.to_owned(), text.to_owned()));
    parsed.ok_or_else(|| "write it as `owner=ada`".to_owned())
}

/// Runs a command. Returns the exit code.
pub(super) fn tenant(command: &Command) -> u8 {
    let done = match command {
        Command::List(options) => list(options),
        Command::Show(one) => show(one),
        Command::Set(options) => set(options),
        Command::Disable(change) => patch(change, &json!({ "disabled": true })),
        Command::Enable(change) => patch(change, &json!({ "disabled": null })),
        Command::Delete(change) => delete(change),
    };
    match done {
        Ok(page) => {
            let _ = stdout().write_all(page.as_bytes());
            OK
        }
        Err(why) => {
            let _ = writeln!(stderr(), "gateway tenant: {}", why.trim_end());
            FAILED
        }
    }
}

fn list(options: &List) -> Result<String, String> {
    let path = format!("/api/v1/tenants?limit={}&q={}", options.limit, encoded(&options.text));
    let shown = options.admin.get(&path).and_then(Answer::ok)?;
    if options.json {
        return Ok(format!("{:#}\n", shown["tenants"]));
    }
    Ok(table(&shown))
}

/// Returns a line for each tenant.
fn table(shown: &Value) -> String {
    let mut rows = vec![["tenant", "tiers", "keys", "requests", "limited", "state"].map(str::to_owned)];
    let listed = shown["tenants"].as_array().map_or(&[][..], Vec::as_slice);
    rows.extend(listed.iter().map(|tenant| {
        let tiers = tenant["tiers"].as_array().map_or(&[][..], Vec::as_slice);
        let tiers: Vec<_> = tiers.iter().filter_map(Value::as_str).collect();
        let state = if tenant["disabled"] == true { "disabled" } else { "" };
        [
            tenant["name"].as_str().unwrap_or_default().to_owned(),
            tiers.join(", "),
            tenant["api_keys"].to_string(),
            tenant["requests"]["total"].to_string(),
            tenant["requests"]["limited"].to_string(),
            state.to_owned(),
        ]
    }));
    let mut page = super::admin_client::table(&rows);
    if let Some(total) = shown["total"].as_u64().filter(|total| *total > listed.len() as u64) {
        let _ = writeln!(page, "{} more", total - listed.len() as u64);
    }
    page
}

fn show(one: &One) -> Result<String, String> {
    let shown = one.admin.get(&one.path()).and_then(Answer::ok)?;
    Ok(format!("{shown:#}\n"))
}

fn set(options: &Set) -> Result<String, String> {
    let mut terms = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            terms.insert(name.to_owned(), value);
        }
    };
    put("tier", options.tier.clone().map(Value::from));
    put("rate", options.rate.clone().map(Value::from));
    put("burst", options.burst.map(Value::from));
    put("in_flight", options.in_flight.map(Value::from));
    let quotas: Map<String, Value> = options.quota.iter().cloned().collect();
    put("quotas", (!quotas.is_empty()).then(|| quotas.into()));
    let labels = options
        .label
        .iter()
        .map(|(name, text)| (name.clone(), text.clone().into()));
    let labels: Map<String, Value> = labels.collect();
    put("labels", (!labels.is_empty()).then(|| labels.into()));
    for field in &options.unset {
        match field.split_once('.') {
            None => drop(terms.insert(field.clone(), Value::Null)),
            Some((map, name)) => terms.entry(map).or_insert_with(|| json!({}))[name] = Value::Null,
        }
    }
    let change = &options.change;
    let terms = Value::from(terms);
    let path = change.path();
    // A new tenant is put, so that one that comes in between is not changed.
    let found = change.one.admin.get(&change.one.path())?;
    let has_entry = found.status == 200 && found.json()["record"].is_object();
    if has_entry {
        return patch(change, &terms);
    }
    let put = change.one.admin.change("PUT", &path, Some(&terms), Some("none"))?;
    put.ok().map(|shown| said(&shown))
}

fn patch(change: &Change, terms: &Value) -> Result<String, String> {
    let answer = change.one.admin.change("PATCH", &change.path(), Some(terms), None)?;
    answer.ok().map(|shown| said(&shown))
}

fn delete(change: &Change) -> Result<String, String> {
    let answer = change.one.admin.change("DELETE", &change.path(), None, None)?;
    answer.ok().map(|shown| said(&shown))
}

/// Returns the lines of the file that have changed.
pub(super) fn said(shown: &Value) -> String {
    match shown["diff"].as_str().unwrap_or_default() {
        "" => "nothing differs\n".to_owned(),
        lines => lines.to_owned(),
    }
}

impl One {
    fn path(&self) -> String {
        format!("/api/v1/tenants/{}", encoded(&self.tenant))
    }
}

impl Change {
    fn path(&self) -> String {
        let path = self.one.path();
        if self.dry_run { path + "?dry_run" } else { path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_a_table() {
        let shown = json!({ "total": 5, "tenants": [
            { "name": "acme", "tiers": ["premium"], "api_keys": 2, "disabled": false,
              "requests": { "total": 12, "limited": 3 } },
            { "name": "globex", "tiers": ["free", "basic"], "api_keys": 0, "disabled": true,
              "requests": { "total": 0, "limited": 0 } },
        ] });
        let expected = "\
tenant  tiers        keys  requests  limited  state
acme    premium      2     12        3
globex  free, basic  0     0         0        disabled
3 more
";
        assert_eq!(table(&shown), expected);
    }

    #[test]
    fn terms_are_typed_as_they_are_said() {
        assert_eq!(
            quota("monthly=100/month").unwrap(),
            ("monthly".to_owned(), json!({ "limit": 100, "every": "month" }))
        );
        assert!(quota("monthly").is_err() && quota("a=b/day").is_err());
        assert_eq!(label("owner=ada=1").unwrap(), ("owner".to_owned(), "ada=1".to_owned()));
    }
}
