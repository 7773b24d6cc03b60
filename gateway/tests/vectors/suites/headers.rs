//! Fields and problem documents as the gateway writes them.
//!
//! A caller's partition key is never told (it would name a tenant), and our problem documents have titles, details and
//! members of their own, so a document put together from given members is not among what we write.

use gateway::aggregate::proxy_status;
use gateway::header_fields::{Balance, Grant, ratelimit, ratelimit_policy, retry_after};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{Answer, list, millis, text, whole};

pub(super) fn answer(case: &Value) -> Answer {
    let input = &case["input"];
    let value = match text(case, "kind")? {
        "ratelimit_policy" => {
            let grants: Result<Vec<_>, _> = list(input, "policies")?.iter().map(grant).collect();
            ratelimit_policy(grants?)
        }
        "ratelimit" => {
            let balances: Result<Vec<_>, _> = list(input, "limits")?.iter().map(balance).collect();
            ratelimit(balances?)
        }
        "retry_after" => retry_after(millis(input, "wait_ms")?),
        "proxy_status" => member(input)?,
        _ => return Err("a document or a check that is not ours"),
    };
    let value = value.to_str().map_err(|_| "a field that is not text")?;
    Ok(json!({ "value": value }))
}

fn grant(policy: &Value) -> Result<Grant<'_>, &'static str> {
    has_only(policy, &["name", "q", "w", "qu"])?;
    let window = match policy["qu"].as_str() {
        None => Some(whole(policy, "w")?),
        Some("concurrent-requests") if policy["w"].is_null() => None,
        Some(_) => return Err("another quota unit than requests"),
    };
    Ok(Grant {
        limit: text(policy, "name")?,
        quota: whole(policy, "q")?,
        window,
    })
}

fn balance(limit: &Value) -> Result<Balance<'_>, &'static str> {
    has_only(limit, &["name", "r", "t"])?;
    Ok(Balance {
        limit: text(limit, "name")?,
        remaining: whole(limit, "r")?,
        reset: whole(limit, "t")?,
    })
}

fn member(input: &Value) -> Result<HeaderValue, &'static str> {
    has_only(input, &["proxy", "error", "received_status", "details"])?;
    if text(input, "proxy")? != proxy_status::NAME {
        return Err("another proxy's name");
    }
    let received_status = match input["received_status"] {
        Value::Null => None,
        _ => {
            let status = u16::try_from(whole(input, "received_status")?).ok();
            Some(
                status
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .ok_or("no status")?,
            )
        }
    };
    let member = proxy_status::Member {
        error: input["error"].as_str(),
        received_status,
        details: input["details"].as_str(),
    };
    Ok(member.to_value())
}

fn has_only(members: &Value, known: &[&str]) -> Result<(), &'static str> {
    let mut names = members.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    names
        .all(|name| known.contains(&name))
        .then_some(())
        .ok_or("a parameter that is never told")
}
