//! `gateway usage`: what tenants have used, asked from a running gateway.

use std::io::{Write as _, stderr, stdout};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin_client::AdminOption;
use super::{FAILED, OK};

/// Number of rows that are asked for at once.
const PAGE: usize = 10_000;

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOption,
    /// Only this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only the API key with this id.
    #[arg(long, value_name = "ID")]
    key: Option<String>,
    /// A day or an instant of UTC, such as `2027-01-31` or `2027-01-31T12:00:00Z`; default: the start of the month.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// The first instant that is left out; default: now.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Length of the periods.
    #[arg(long, value_name = "PERIOD", default_value = "day", value_parser = ["minute", "hour", "day"])]
    by: String,
    /// Print CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints usage. Returns the exit code.
pub(super) fn usage(options: &Options) -> u8 {
    let printed = match options.csv {
        true => print_csv(options),
        false => print_rows(options),
    };
    match printed {
        Ok(()) => OK,
        Err(why) => {
            let _ = writeln!(stderr(), "gateway usage: {why}");
            FAILED
        }
    }
}

fn ask(options: &Options, format: &str, offset: usize) -> Result<Vec<u8>, String> {
    let mut path = format!(
        "/api/v1/usage?by={}&format={format}&limit={PAGE}&offset={offset}",
        options.by
    );
    let chosen = [
        ("tenant", &options.tenant),
        ("route", &options.route),
        ("key", &options.key),
        ("from", &options.from),
        ("to", &options.to),
    ];
    for (name, value) in chosen {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    let answer = options.admin.get(&path)?;
    match answer.status {
        200 => Ok(answer.body),
        _ => Err(answer.problem()),
    }
}

/// Returns the whole answer, all pages together.
fn all_pages(options: &Options) -> Result<Value, String> {
    let mut whole = Value::Null;
    let mut offset = 0;
    loop {
        let body = ask(options, "json", offset)?;
        let mut page: Value = crate::json::typed(&body, usize::MAX).map_err(|error| format!("{error:?}"))?;
        let next = page["next_offset"].as_u64();
        match (&mut whole, page["usage"].take()) {
            (Value::Null, rows) => {
                whole = page;
                whole["usage"] = rows;
            }
            (whole, Value::Array(rows)) => {
                if let Some(all) = whole["usage"].as_array_mut() {
                    all.extend(rows);
                }
            }
            _ => return Err("it does not answer like a gateway".to_owned()),
        }
        match next.and_then(|next| usize::try_from(next).ok()) {
            Some(next) if next > offset => offset = next,
            _ => break,
        }
    }
    if let Some(whole) = whole.as_object_mut() {
        whole.shift_remove("next_offset");
    }
    Ok(whole)
}

/// Prints the pages one after the other, with one line of names.
fn print_csv(options: &Options) -> Result<(), String> {
    let whole = all_pages(options)?;
    let rows = whole["usage"].as_array().map_or(&[][..], Vec::as_slice);
    let mut reasons: Vec<&str> = Vec::new();
    for row in rows {
        let refused = row["refused"].as_object().into_iter().flat_map(serde_json::Map::keys);
        refused.for_each(|reason| {
            if !reasons.contains(&reason.as_str()) {
                reasons.push(reason);
            }
        });
    }
    reasons.sort_unstable();
    let mut text =
        "time,tenant,route,key,requests,1xx,2xx,3xx,4xx,5xx,cost,bytes_in,bytes_out,refused,other".to_owned();
    reasons.iter().for_each(|reason| text.push_str(&format!(",{reason}")));
    text.push_str("\r\n");
    for row in rows {
        let word = |name: &str| quoted(row[name].as_str().unwrap_or_default());
        let names = ["time", "tenant", "route", "key"].map(word).join(",");
        let count = |value: &Value| value.as_u64().unwrap_or_default().to_string();
        let mut cells = vec![names, count(&row["requests"])];
        cells.extend(["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| count(&row["answers"][class])));
        cells.extend(["cost", "bytes_in", "bytes_out"].map(|name| count(&row[name])));
        let refused = |(reason, count): (&String, &Value)| (reason != "caller_gone").then(|| count.as_u64()).flatten();
        let refused = row["refused"].as_object().into_iter().flatten().filter_map(refused);
        cells.push(refused.sum::<u64>().to_string());
        cells.push((row["other"] == true).to_string());
        cells.extend(reasons.iter().map(|reason| count(&row["refused"][reason])));
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    print(&text)
}

fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

fn print_rows(options: &Options) -> Result<(), String> {
    let whole = all_pages(options)?;
    if options.json {
        return print(&format!("{whole:#}\n"));
    }
    print(&table(&whole))
}

fn print(text: &str) -> Result<(), String> {
    stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

/// Returns the rows as a table, with the sum below and what is not complete.
fn table(whole: &Value) -> String {
    let head = [
        "time", "tenant", "route", "key", "requests", "2xx", "refused", "cost", "in", "out",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let cells = |row: &Value, names: [String; 4]| {
        let count = |value: &Value| value.as_u64().unwrap_or_default().to_string();
        let refused = row["refused"].as_object().into_iter().flatten();
        let refused = refused
            .filter(|(reason, _)| *reason != "caller_gone")
            .filter_map(|(_, count)| count.as_u64());
        let [time, tenant, route, key] = names;
        [
            time,
            tenant,
            route,
            key,
            count(&row["requests"]),
            count(&row["answers"]["2xx"]),
            refused.sum::<u64>().to_string(),
            count(&row["cost"]),
            count(&row["bytes_in"]),
            count(&row["bytes_out"]),
        ]
    };
    for row in whole["usage"].as_array().map_or(&[][..], Vec::as_slice) {
        let word = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let time = word("time");
        // A day has no hour, and an hour no second.
        let time = match whole["by"].as_str() {
            Some("day") => time.get(..10).unwrap_or(&time).to_owned(),
            _ => time.get(..16).unwrap_or(&time).replace('T', " "),
        };
        let tenant = match row["other"] == true {
            true => "(others)".to_owned(),
            false => word("tenant"),
        };
        rows.push(cells(row, [time, tenant, word("route"), word("key")]));
    }
    let blank = || String::new();
    rows.push(cells(&whole["sum"], ["sum".to_owned(), blank(), blank(), blank()]));
    let widths: [usize; 10] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            // Names stand left, numbers right.
            match column < 4 {
                true => line.push_str(&format!("{cell}{padding}  ")),
                false => line.push_str(&format!("{padding}{cell}  ")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for gap in whole["gaps"].as_array().map_or(&[][..], Vec::as_slice) {
        let after = gap["after"].as_str().unwrap_or_default();
        text.push_str(&format!(
            "a process was killed: requests that ended in the second after {after} are missing\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_series_and_a_sum() {
        let row = |tenant: Value, requests: u64| {
            json!({ "time": "2026-11-30T00:00:00Z", "tenant": tenant, "route": "users", "key": null,
                    "requests": requests, "answers": { "2xx": requests - 1 }, "refused": { "rate_limited": 1, "caller_gone": 1 },
                    "cost": requests, "bytes_in": 0, "bytes_out": 12 })
        };
        let whole = json!({ "by": "day", "usage": [row(json!("acme"), 10), row(Value::Null, 2)], "sum": row(Value::Null, 12),
            "gaps": [{ "after": "2026-11-30T01:02:03.000Z", "found": "2026-11-30T01:02:09.000Z" }] });
        assert_eq!(
            table(&whole),
            "time        tenant  route  key  requests  2xx  refused  cost  in  out\n\
             2026-11-30  acme    users  -          10    9        1    10   0   12\n\
             2026-11-30  -       users  -           2    1        1     2   0   12\n\
             sum                                   12   11        1    12   0   12\n\
             a process was killed: requests that ended in the second after 2026-11-30T01:02:03.000Z are missing\n"
        );
    }
}
