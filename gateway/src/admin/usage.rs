//! `GET /api/v1/usage`: what tenants have used, by minute, hour or day of UTC, as JSON or CSV.
//!
//! `?tenant=`, `?route=` and `?key=` choose series, `?from=` and `?to=` the time, `?by=` the length of the periods. What
//! has been counted until the request is in the answer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use policies::{Every, WallTime};
use serde_json::{Map, Value, json};

use super::list_query::{pairs, unknown};
use super::problem::Problem;
use super::state::Admin;
use crate::clock;
use crate::config::keys::Timestamp as Written;
use crate::observe::timestamp::Timestamp;
use crate::rejection::Reason;
use crate::usage::{By, Counts, Query, Row, Usage, events};

/// Number of rows of a page, unless the request says otherwise.
const USUAL_LIMIT: usize = 1000;
/// Maximum number of rows of a page.
const MOST: usize = 10_000;
const PARAMETERS: [&str; 9] = [
    "tenant", "route", "key", "from", "to", "by", "format", "limit", "offset",
];

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    query: Query,
    is_csv: bool,
    limit: usize,
    offset: usize,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Response, Problem> {
    let now = clock::unix_time();
    let asked = read(&uri, now)?;
    let usage = Arc::clone(&admin.gateway.state.observer.usage);
    if !usage.is_on() {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "usage_off",
            "Usage is not counted",
            "Write `usage: {}` at the top of the config, or with a `folder` that keeps it over a restart.",
        ));
    }
    // Sorting many rows must not delay the control thread.
    let answered = tokio::task::spawn_blocking(move || answer(&usage, &asked, &uri, now));
    answered
        .await
        .map_err(|_| Problem::bad_value("The question could not be answered.".to_owned()))
}

fn read(uri: &Uri, now: Duration) -> Result<Asked, Problem> {
    let mut values: [Option<String>; PARAMETERS.len()] = Default::default();
    for (name, value) in pairs(uri)? {
        let place = PARAMETERS.iter().position(|known| *known == name);
        let place = place.ok_or_else(|| unknown(&name, &PARAMETERS))?;
        if values[place].replace(value).is_some() {
            return Err(Problem::bad_value(format!("{name} stands twice: write it once.")));
        }
    }
    let [tenant, route, key, from, to, by, format, limit, offset] = values;
    let by = match by {
        None => By::Day,
        Some(word) => By::parse(&word).ok_or_else(|| Problem::bad_value("by is minute, hour or day.".to_owned()))?,
    };
    let is_csv = match format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(Problem::bad_value("format is json or csv.".to_owned())),
    };
    let minute = |name: &str, text: Option<String>, usual: u64| match text {
        None => Ok(usual),
        Some(text) => match Written::read_instant(&text) {
            Some(Written(seconds)) => Ok(seconds / 60),
            None => Err(Problem::bad_value(format!(
                "{name} is a day or an instant of UTC, such as 2027-01-31 or 2027-01-31T12:00:00Z."
            ))),
        },
    };
    let number = |name: &str, text: Option<String>, usual: usize, most: usize| match text.map(|text| text.parse()) {
        None => Ok(usual),
        Some(Ok(number)) if number <= most => Ok(number),
        Some(_) => Err(Problem::bad_value(format!("{name} is a number up to {most}."))),
    };
    let this_minute = now.as_secs() / 60;
    let usual_from = match by {
        By::Minute => this_minute.saturating_sub(59),
        By::Hour => this_minute.saturating_sub(23 * 60),
        By::Day => Every::Month.start(WallTime::since_epoch(now)).elapsed().as_secs() / 60,
    };
    Ok(Asked {
        query: Query {
            by,
            from: minute("from", from, usual_from)?,
            to: minute("to", to, this_minute + 1)?,
            tenant,
            route,
            key,
        },
        is_csv,
        limit: number("limit", limit, USUAL_LIMIT, MOST)?.max(1),
        offset: number("offset", offset, 0, usize::MAX)?,
    })
}

fn answer(usage: &Usage, asked: &Asked, uri: &Uri, now: Duration) -> Response {
    let ledger = usage.collect(now);
    let rows = ledger.rows(&asked.query);
    let (kept_from, gaps) = (ledger.oldest(asked.query.by), ledger.gaps().to_vec());
    drop(ledger);
    let mut sum = Counts::default();
    rows.iter().for_each(|row| sum.add(&row.counts));
    let total = rows.len();
    let end = asked.offset.saturating_add(asked.limit);
    let next_offset = (end < total).then_some(end);
    let page: Vec<_> = rows.into_iter().skip(asked.offset).take(asked.limit).collect();
    if asked.is_csv {
        let mut response = csv(&page).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
        if let Some(next) = next_offset
            && let Ok(link) = HeaderValue::try_from(format!("<{}>; rel=\"next\"", next_page(uri, next)))
        {
            headers.insert(LINK, link);
        }
        return response;
    }
    let gaps: Vec<_> = gaps
        .iter()
        .map(|gap| json!({ "after": Timestamp(gap.from), "found": Timestamp(gap.to) }))
        .collect();
    Json(json!({
        "by": asked.query.by.as_str(),
        "from": time(asked.query.from),
        "to": time(asked.query.to),
        "usage": page.iter().map(row).collect::<Vec<_>>(),
        "sum": events::numbers(&sum),
        "total": total,
        "next_offset": next_offset,
        "kept_from": kept_from.map(time),
        "gaps": gaps,
    }))
    .into_response()
}

/// Returns the address of the same question from another offset on.
fn next_page(uri: &Uri, offset: usize) -> String {
    let query = uri.query().unwrap_or_default().split('&');
    let others = query.filter(|pair| !pair.is_empty() && !pair.starts_with("offset="));
    let mut address = format!("{}?", uri.path());
    others.for_each(|pair| _ = write!(address, "{pair}&"));
    let _ = write!(address, "offset={offset}");
    address
}

fn time(minute: u64) -> String {
    Timestamp(Duration::from_secs(minute.saturating_mul(60))).whole_seconds()
}

fn row(row: &Row) -> Map<String, Value> {
    let Row { minute, names, counts } = row;
    let mut object = Map::new();
    object.insert("time".to_owned(), json!(time(*minute)));
    object.insert("tenant".to_owned(), json!(names.tenant));
    object.insert("route".to_owned(), json!(names.route));
    object.insert("key".to_owned(), json!(names.key));
    if names.is_other {
        object.insert("other".to_owned(), json!(true));
    }
    object.extend(events::numbers(counts));
    object
}

/// Writes rows by RFC 4180. The last columns are the reasons that occur.
fn csv(rows: &[Row]) -> String {
    let occurs = |reason: &Reason| {
        let mut all = rows.iter().flat_map(|row| row.counts.refused());
        all.any(|(known, _)| known == reason)
    };
    let reasons: Vec<_> = Reason::ALL.into_iter().filter(occurs).collect();
    let mut text =
        "time,tenant,route,key,requests,1xx,2xx,3xx,4xx,5xx,cost,bytes_in,bytes_out,refused,other".to_owned();
    reasons
        .iter()
        .for_each(|reason| _ = write!(text, ",{}", reason.as_str()));
    text.push_str("\r\n");
    for Row { minute, names, counts } in rows {
        text.push_str(&time(*minute));
        for name in [&names.tenant, &names.route, &names.key] {
            let _ = write!(text, ",{}", quoted(name.as_deref().unwrap_or_default()));
        }
        let numbers = [counts.requests].into_iter().chain(counts.by_class);
        let numbers = numbers.chain([counts.cost, counts.bytes_in, counts.bytes_out, counts.refusals()]);
        numbers.for_each(|number| _ = write!(text, ",{number}"));
        text.push_str(if names.is_other { ",true" } else { ",false" });
        for reason in &reasons {
            let count = counts.refused().iter().find(|(known, _)| known == reason);
            let _ = write!(text, ",{}", count.map_or(0, |(_, count)| *count));
        }
        text.push_str("\r\n");
    }
    text
}

fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Names;

    const PATH: &str = "/api/v1/usage";

    /// 2026-11-30T19:30:20Z.
    const NOW: Duration = Duration::from_secs(1_796_067_020);

    fn asked(query: &str) -> Result<Asked, Problem> {
        read(&format!("{PATH}?{query}").parse().unwrap(), NOW)
    }

    #[test]
    fn a_question_has_defaults_and_refuses_what_it_does_not_know() {
        let times = |query: &str| {
            let asked = asked(query).unwrap();
            format!("{} {}", time(asked.query.from), time(asked.query.to))
        };
        assert_eq!(times(""), "2026-11-01T00:00:00Z 2026-11-30T19:31:00Z");
        assert_eq!(times("by=hour"), "2026-11-29T20:30:00Z 2026-11-30T19:31:00Z");
        assert_eq!(times("by=minute"), "2026-11-30T18:31:00Z 2026-11-30T19:31:00Z");
        assert_eq!(
            times("from=2026-11-02&to=2026-11-03T12:30:00Z"),
            "2026-11-02T00:00:00Z 2026-11-03T12:30:00Z"
        );
        let all = asked("tenant=a%20b&route=r&key=k&format=csv&limit=5&offset=7").unwrap();
        assert_eq!(
            (all.query.tenant.as_deref(), all.query.route.as_deref()),
            (Some("a b"), Some("r"))
        );
        assert_eq!(
            (all.query.key.as_deref(), all.is_csv, all.limit, all.offset),
            (Some("k"), true, 5, 7)
        );
        for wrong in [
            "by=week",
            "format=xml",
            "from=yesterday",
            "to=",
            "limit=10001",
            "offset=-1",
            "tenat=a",
            "by=day&by=day",
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        let uri = "/api/v1/usage?offset=5&by=day&tenant=a%20b".parse().unwrap();
        assert_eq!(next_page(&uri, 10), "/api/v1/usage?by=day&tenant=a%20b&offset=10");
    }

    #[test]
    fn rows_of_csv_have_a_column_for_each_reason_that_occurs() {
        let row = |tenant: Option<&str>, reason: Option<Reason>| {
            let mut counts = Counts {
                requests: 2,
                by_class: [0, 1, 0, 1, 0],
                cost: 1,
                ..Counts::default()
            };
            if let Some(reason) = reason {
                counts.add_refused(reason, 1);
            }
            Row {
                minute: 29_934_450,
                names: Arc::new(Names {
                    tenant: tenant.map(Arc::from),
                    route: Some("users".into()),
                    ..Names::default()
                }),
                counts,
            }
        };
        let text = csv(&[row(Some("a, \"b\""), Some(Reason::RateLimited)), row(None, None)]);
        assert_eq!(
            text,
            "time,tenant,route,key,requests,1xx,2xx,3xx,4xx,5xx,cost,bytes_in,bytes_out,refused,other,rate_limited\r\n\
             2026-11-30T19:30:00Z,\"a, \"\"b\"\"\",users,,2,0,1,0,1,0,1,0,0,1,false,1\r\n\
             2026-11-30T19:30:00Z,,users,,2,0,1,0,1,0,1,0,0,0,false,0\r\n"
        );
    }
}
