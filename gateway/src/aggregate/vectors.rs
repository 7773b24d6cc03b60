//! Replays the published cases of response shaping and merging in `fixtures/vectors/aggregate.json`.
//!
//! They are written for a gateway that merges every part at the root and calls an array `collection`, so the recipes
//! here say so. What we do not have, or do differently on purpose, is listed by name.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::draft::{PartDraft, Partial, RecipeDraft};
use super::fan_out::{PartResult, fan_out};
use super::fault::{Cause, PartFault};
use super::merge::merge;
use super::recipe::Recipe;
use super::shape::ShapeDraft;
use crate::rejection::Reason;

const CASES: &str = include_str!("../../../fixtures/vectors/aggregate.json");

/// There is no operation that appends one array of a part to another; `conflict: concat` joins those of several parts.
const UNSUPPORTED: [&str; 1] = ["fl-full"];

#[tokio::test(start_paused = true)]
async fn published_cases() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), file["count"]);
    let mut unsupported = Vec::new();
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let found = match case["kind"].as_str().unwrap() {
            "format" => format(case).await,
            "merge" => Some(answer(case["parts"].as_array().unwrap(), case["timeout_ms"].as_u64().unwrap()).await),
            kind => panic!("{id}: unknown kind {kind}"),
        };
        let Some(found) = found else {
            unsupported.push(id);
            continue;
        };
        for (name, expected) in case["expect"].as_object().unwrap() {
            assert_eq!(&found[name], expected, "{id}: {name}");
        }
    }
    assert_eq!(unsupported, UNSUPPORTED);
}

async fn format(case: &Value) -> Option<Value> {
    let part = json!({ "data": case["input"], "config": case["config"] });
    shape(&case["config"])?;
    Some(answer(&[part], 1).await)
}

async fn answer(parts: &[Value], timeout_ms: u64) -> Value {
    let draft = |(index, part): (usize, &Value)| PartDraft {
        name: index.to_string(),
        shape: shape(&part["config"]).unwrap(),
        group: Some(part["config"]["group"].as_str().unwrap_or(".").to_owned()),
        collection: Some("collection".to_owned()),
        ..PartDraft::default()
    };
    let drafts = parts.iter().enumerate().map(draft).collect();
    let recipe = RecipeDraft {
        parts: drafts,
        partial: Partial::Allow,
        ..RecipeDraft::default()
    };
    let recipe = Recipe::compile(recipe).unwrap();

    let call = |index: usize, ()| async move {
        let part = &parts[index];
        let delay = part["delay_ms"].as_u64().unwrap_or(0);
        sleep(Duration::from_millis(delay.min(timeout_ms))).await;
        if delay >= timeout_ms {
            return PartResult::Failed(PartFault::new(Cause::Call(Reason::BackendTimeout)));
        }
        if !part["error"].is_null() {
            return PartResult::Failed(PartFault::new(Cause::Call(Reason::BackendBroken)));
        }
        let status = u16::try_from(part["status"].as_u64().unwrap_or(200)).unwrap();
        PartResult::of(status.try_into().unwrap(), Bytes::from(part["data"].to_string()), None)
    };
    let outcomes = fan_out(&recipe, |_, _| Ok(()), call).await;
    let errors = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, super::Outcome::Failed(_)))
        .count();
    let (data, is_complete) = match merge(&recipe, outcomes) {
        Ok(answer) => (serde_json::from_slice(&answer.body).unwrap(), answer.is_complete()),
        Err(_) => (Value::Null, false),
    };
    json!({ "data": data, "complete": is_complete, "errors": errors })
}

/// None for what our shaping cannot say.
fn shape(config: &Value) -> Option<ShapeDraft> {
    let strings = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let mut shape = ShapeDraft {
        target: config["target"].as_str().map(str::to_owned),
        keep: strings(&config["allow"]),
        drop: strings(&config["deny"]),
        rename: Vec::new(),
    };
    for (from, to) in config["mapping"].as_object().into_iter().flatten() {
        shape.rename.push((from.clone(), to.as_str().unwrap().to_owned()));
    }
    for operation in config["flatmap"].as_array().into_iter().flatten() {
        match operation["type"].as_str() {
            Some("del") => shape.drop.extend(strings(&operation["args"])),
            _ => return None,
        }
    }
    Some(shape)
}
