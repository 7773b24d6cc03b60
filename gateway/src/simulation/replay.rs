//! Sends the requests of a recorded access log again, at their times, with answers of backends as they were recorded.
//!
//! A line has no header fields, query or body: the host is that of the line's route, and a body has the size that it had.
//! A caller is the one that was identified, by key, tenant and tier.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;

use super::report::{Outcome, Sent};
use super::{Message, Reply, Simulation};
use crate::auth::caller::is_tenant_name;
use crate::config::keys::Timestamp;
use crate::headers::Scheme;
use crate::json;
use crate::message::FieldMap;
use crate::pipeline::explain::AssumedCaller;
use crate::plan::Plan;

/// Longest line of a log, in bytes.
const LONGEST_LINE: usize = 256 * 1024;
/// Most lines of a log.
const MOST_LINES: usize = 1_000_000;
/// Longest time between the first and the last line.
const LONGEST: Duration = Duration::from_secs(32 * 24 * 3600);
/// Largest body that is sent.
const LARGEST_BODY: u64 = 64 * 1024;
/// Credential that no caller has.
const WRONG: HeaderValue = HeaderValue::from_static("not-a-credential");

/// A line of the access log, as far as it is replayed.
#[derive(Debug, Deserialize)]
struct Line {
    time: String,
    client: Option<IpAddr>,
    method: String,
    path: String,
    route: Option<String>,
    tenant: Option<String>,
    tier: Option<String>,
    caller: Option<String>,
    kind: Option<String>,
    status: u16,
    reason: Option<String>,
    #[serde(default)]
    bytes_in: u64,
    #[serde(default)]
    attempt_details: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    backend: String,
    endpoint: Option<String>,
    outcome: String,
    status: Option<u16>,
    took_ms: Option<f64>,
}

/// One request of a log.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Milliseconds since 1970.
    millis: u64,
    /// Status and word of the refusal that the line tells.
    pub status: u16,
    pub reason: Option<String>,
    message: Message,
    replies: Vec<(Arc<str>, Reply)>,
}

impl Logged {
    /// Gives the request what a log does not have: these header fields, and this body if the log says that it had one.
    pub fn complete(&mut self, headers: &[(HeaderName, HeaderValue)], body: Option<&Bytes>) {
        for (name, value) in headers {
            self.message.headers.insert(name, value.clone());
        }
        if let Some(body) = body.filter(|_| !self.message.body.is_empty()) {
            self.message.body = body.clone();
        }
    }
}

/// Reads a log. Returns its requests in the order of their times, and the number of lines that are none.
///
/// # Errors
/// The log cannot be read, or is too long.
pub fn read(log: impl BufRead, plan: &Plan) -> io::Result<(Vec<Logged>, usize)> {
    let (mut requests, mut others) = (Vec::new(), 0);
    for line in log.split(b'\n') {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if requests.len() == MOST_LINES {
            return Err(io::Error::other(format!("more than {MOST_LINES} lines")));
        }
        let parsed = json::typed::<Line>(&line, LONGEST_LINE).ok();
        match parsed.and_then(|line| logged(line, plan)) {
            Some(request) => requests.push(request),
            None => others += 1,
        }
    }
    requests.sort_by_key(|request| request.millis);
    let span = requests.last().zip(requests.first());
    if span.is_some_and(|(last, first)| Duration::from_millis(last.millis - first.millis) > LONGEST) {
        return Err(io::Error::other("the lines span more than 32 days"));
    }
    Ok((requests, others))
}

/// Returns the time of day of the first request, in seconds since 1970.
pub fn starts(requests: &[Logged]) -> Option<u64> {
    requests.first().map(|first| first.millis / 1000)
}

/// Sends all requests at their times.
pub async fn replay(simulation: &Arc<Simulation>, requests: Vec<Logged>) -> Outcome {
    let began = starts(&requests).unwrap_or_default() * 1000;
    let mut running = Vec::with_capacity(requests.len());
    for request in requests {
        simulation
            .wait_until(Duration::from_millis(request.millis.saturating_sub(began)))
            .await;
        let Logged {
            status,
            reason,
            message,
            replies,
            ..
        } = request;
        let simulation = Arc::clone(simulation);
        let sending = tokio::spawn(async move { simulation.send_with(message, replies).await });
        running.push((sending, (status, reason)));
    }
    let mut sent = Vec::with_capacity(running.len());
    for (sending, logged) in running {
        // A request that does not end within the time of all requests is ended by the gateway.
        if let Ok(answered) = sending.await {
            sent.push(Sent {
                answered,
                logged: Some(logged),
            });
        }
    }
    Outcome::of(simulation, sent)
}

fn logged(line: Line, plan: &Plan) -> Option<Logged> {
    let millis = millis(&line.time)?;
    let mut headers = FieldMap::new();
    headers.insert(HOST, HeaderValue::from_str(&host(plan, line.route.as_deref())).ok()?);
    let is_wrong = matches!(
        line.reason.as_deref(),
        Some("credentials_invalid" | "credentials_expired")
    );
    if is_wrong && let Some(field) = plan.authenticator.api_key_header() {
        headers.insert(field.clone(), WRONG);
    }
    let body = body(line.bytes_in.min(LARGEST_BODY));
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let assumed = match line.kind.as_deref() {
        None | Some("anonymous") => None,
        _ if is_wrong => None,
        Some("api_key") if line.caller.is_some() => line.caller.as_deref().map(|id| AssumedCaller::Key(id.into())),
        Some(_) => line
            .tenant
            .as_deref()
            .filter(|tenant| is_tenant_name(tenant))
            .map(|tenant| AssumedCaller::Tenant {
                tenant: tenant.into(),
                tier: line.tier.as_deref().map(Arc::from),
            }),
    };
    Some(Logged {
        millis,
        status: line.status,
        reason: line.reason,
        message: Message {
            method: Method::from_bytes(line.method.as_bytes()).ok()?,
            target: line.path.parse::<Uri>().ok()?,
            scheme: Scheme::Http,
            headers,
            body,
            from: line.client,
            assumed,
        },
        replies: line.attempt_details.iter().filter_map(reply).collect(),
    })
}

/// Returns what the backend did in an attempt; `None` if none was made, or its end is unknown.
fn reply(attempt: &Attempt) -> Option<(Arc<str>, Reply)> {
    attempt.endpoint.as_ref()?;
    let took = attempt
        .took_ms
        .filter(|took| (0.0..86_400_000.0).contains(took))
        .unwrap_or(0.0);
    let after = Duration::from_micros((took * 1000.0) as u64);
    let status = attempt.status.and_then(|status| StatusCode::from_u16(status).ok());
    let reply = match (status, attempt.outcome.as_str()) {
        (Some(status), _) if status.as_u16() >= 200 => Reply::Status(status, after),
        (_, "timed_out" | "cancelled") => Reply::Hang,
        _ => Reply::Break(after),
    };
    Some((attempt.backend.as_str().into(), reply))
}

/// Returns a host of the route; the log tells none.
fn host(plan: &Plan, route: Option<&str>) -> String {
    let outline = plan.outline.routes.iter().find(|outline| Some(&*outline.name) == route);
    let host = outline.and_then(|outline| outline.matches.hosts.first());
    host.map_or_else(|| "localhost".to_owned(), |host| host.replace('*', "a"))
}

/// Returns a JSON document of this many bytes.
fn body(bytes: u64) -> Bytes {
    match bytes {
        0 => Bytes::new(),
        1 => Bytes::from_static(b"1"),
        _ => {
            let mut body = vec![b' '; usize::try_from(bytes).unwrap_or_default()];
            if let [first, .., last] = &mut body[..] {
                (*first, *last) = (b'{', b'}');
            }
            Bytes::from(body)
        }
    }
}

/// Reads `2026-01-31T12:00:00.250Z` as milliseconds since 1970.
fn millis(time: &str) -> Option<u64> {
    let (whole, fraction) = time
        .trim_end_matches('Z')
        .split_once('.')
        .unwrap_or((time.trim_end_matches('Z'), "0"));
    let Timestamp(seconds) = Timestamp::read_from(&format!("{whole}Z"), 0).ok()?;
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(seconds * 1000 + digits.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds() {
        for (time, expected) in [
            ("1970-01-01T00:00:01.250Z", Some(1250)),
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("1970-01-01T00:00:01.5Z", Some(1500)),
            ("1970-01-01T00:00:01.123456Z", Some(1123)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(millis(time), expected, "{time}");
        }
    }

    #[test]
    fn a_body_is_json_of_its_size() {
        for bytes in [0, 1, 2, 3, 1000] {
            let body = body(bytes);
            assert_eq!(body.len() as u64, bytes);
            assert!(bytes == 0 || json::typed::<serde_json::Value>(&body, usize::MAX).is_ok());
        }
    }
}
