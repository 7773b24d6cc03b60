//! Response shaping and merging, cooked by the gateway's own recipes.
//!
//! The cases are written for a gateway that merges every part at the root and calls an array `collection`, so the
//! recipes here say so. Arrival is scripted on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::aggregate::{
    Cause, Outcome, PartDraft, PartFault, PartResult, Partial, Recipe, RecipeDraft, ShapeDraft, fan_out, merge,
};
use gateway::json::Workspace;
use gateway::rejection::Reason;
use http::StatusCode;
use policies::Moment;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Answer, list, millis, optional, text};

pub(super) fn answer(case: &Value) -> Answer {
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|_| "no runtime")?;
    match text(case, "kind")? {
        "format" => {
            let part = json!({ "data": case["input"], "config": case["config"] });
            clock.block_on(cook(&[part], Duration::from_millis(1)))
        }
        "merge" => clock.block_on(cook(list(case, "parts")?, millis(case, "timeout_ms")?)),
        _ => Err("a case of another kind"),
    }
}

async fn cook(parts: &[Value], timeout: Duration) -> Answer {
    let drafts: Result<Vec<PartDraft>, _> = parts.iter().enumerate().map(draft).collect();
    let recipe = RecipeDraft {
        parts: drafts?,
        partial: Partial::Allow,
        ..RecipeDraft::default()
    };
    let recipe = Recipe::compile(recipe).map_err(|_| "a recipe that is a mistake with us")?;
    let arrivals: Result<Vec<_>, _> = parts.iter().map(|part| arrival(part, timeout)).collect();
    let arrivals = arrivals?;
    let call = |index: usize, ()| {
        let (delay, result) = arrivals[index].clone();
        async move {
            sleep(delay).await;
            result
        }
    };
    let room = Arc::new(Workspace::new(1)).reserve(u64::MAX, 0, (Moment::MAX, None));
    let outcomes = fan_out(&recipe, &room, |_, _| Ok(()), call).await;
    let has_failed = |outcome: &&Outcome| matches!(outcome, Outcome::Failed(_));
    let errors = outcomes.iter().filter(has_failed).count();
    let (data, complete) = match merge(&recipe, outcomes, None) {
        Ok(answer) => {
            let data: Value = serde_json::from_slice(&answer.body).map_err(|_| "an answer that is not JSON")?;
            (data, answer.is_complete())
        }
        Err(_) => (Value::Null, false),
    };
    Ok(json!({ "data": data, "complete": complete, "errors": errors }))
}

fn draft((index, part): (usize, &Value)) -> Result<PartDraft, &'static str> {
    Ok(PartDraft {
        name: index.to_string(),
        shape: shape(&part["config"])?,
        group: Some(part["config"]["group"].as_str().unwrap_or(".").to_owned()),
        collection: Some("collection".to_owned()),
        ..PartDraft::default()
    })
}

/// What becomes of a part, and when. A part that is not there in time has failed by then.
fn arrival(part: &Value, timeout: Duration) -> Result<(Duration, PartResult), &'static str> {
    let delay = optional(part, "delay_ms")?.unwrap_or_default();
    let failed = |reason| PartResult::Failed(PartFault::new(Cause::Call(reason)));
    if delay >= timeout {
        return Ok((timeout, failed(Reason::BackendTimeout)));
    }
    if !part["error"].is_null() {
        return Ok((delay, failed(Reason::BackendBroken)));
    }
    let status = u16::try_from(part["status"].as_u64().unwrap_or(200)).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let body = Bytes::from(part["data"].to_string());
    Ok((
        delay,
        PartResult::of(status.ok_or("no status")?, &body, usize::MAX, None),
    ))
}

/// Operations in place of filters can be said as far as they delete, and then rename at the root: that is our order.
fn shape(config: &Value) -> Result<ShapeDraft, &'static str> {
    let mut shape = ShapeDraft {
        target: config["target"].as_str().map(str::to_owned),
        ..ShapeDraft::default()
    };
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    if config["flatmap"].is_null() {
        shape.keep = texts(&config["allow"]);
        shape.drop = texts(&config["deny"]);
        for (from, to) in config["mapping"].as_object().into_iter().flatten() {
            shape
                .rename
                .push((from.clone(), to.as_str().ok_or("a name that is none")?.to_owned()));
        }
        return Ok(shape);
    }
    for operation in list(config, "flatmap")? {
        match (text(operation, "type")?, &texts(&operation["args"])[..]) {
            ("del", paths) if shape.rename.is_empty() => shape.drop.extend_from_slice(paths),
            ("move", [from, to]) if !from.contains('.') && !to.contains('.') => {
                shape.rename.push((from.clone(), to.clone()));
            }
            _ => return Err("an operation on paths that is not a deletion"),
        }
    }
    Ok(shape)
}
