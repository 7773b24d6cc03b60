//! Holds an answer against what a case expects, by the rules of `run_vectors.py`.
//!
//! Only what both sides say of a timeline's counts is compared, and numbers may differ by what a clock in
//! nanoseconds rounds away.

use serde_json::Value;

/// # Errors
/// The difference.
pub(crate) fn judge(suite: &str, case: &Value, answer: &Value) -> Result<(), String> {
    match suite {
        "breaker" | "bucket" => timeline(case, answer),
        "retry" if case["kind"] == "delay" => spread(&case["expect"], &answer["delays_ms"]),
        "jws" => same(&answer["valid"], &case["valid"]),
        _ => {
            let expected = case["expect"].as_object().ok_or("nothing is expected")?;
            expected.iter().try_for_each(|(name, value)| {
                let matches = near(&answer[name], value, 1e-3);
                matches
                    .then_some(())
                    .ok_or_else(|| format!("{name} is {}, not {value}", answer[name]))
            })
        }
    }
}

fn timeline(case: &Value, answer: &Value) -> Result<(), String> {
    let (steps, results) = (case["steps"].as_array(), answer["results"].as_array());
    let (steps, results) = steps.zip(results).ok_or("no timeline")?;
    if steps.len() != results.len() {
        return Err(format!("{} results for {} steps", results.len(), steps.len()));
    }
    for (number, (step, result)) in steps.iter().zip(results).enumerate() {
        let Some(expected) = step.get("expect") else { continue };
        if !fits(step["op"].as_str().unwrap_or_default(), result, expected) {
            return Err(format!("step {number} {step}: {result}"));
        }
    }
    Ok(())
}

fn fits(op: &str, result: &Value, expected: &Value) -> bool {
    match (op, expected) {
        ("counts" | "tokens", _) | (_, Value::Object(_)) if result.is_null() => true,
        ("counts", Value::Object(expected)) => expected
            .iter()
            .all(|(name, value)| result.get(name).is_none_or(|told| told == value)),
        ("reserve", expected) => {
            result["ok"] == expected["ok"]
                && (expected["ok"] != true || near(&result["at_ms"], &expected["at_ms"], 0.01))
        }
        // A millisecond late is fine, early is not.
        ("retry_after", Value::Number(_)) => result
            .as_f64()
            .zip(expected.as_f64())
            .is_some_and(|(told, expected)| (expected - 0.01..=expected + 1.0).contains(&told)),
        _ => near(result, expected, 1e-3),
    }
}

/// All within their bounds, and over most of what lies between them.
fn spread(expected: &Value, delays: &Value) -> Result<(), String> {
    let delays: Option<Vec<f64>> = delays
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_f64).collect());
    let delays = delays.filter(|delays| !delays.is_empty()).ok_or("no delays")?;
    let (low, high) = delays.iter().fold((f64::MAX, f64::MIN), |(low, high), delay| {
        (low.min(*delay), high.max(*delay))
    });
    let bound = |name: &str| expected[name].as_f64().ok_or("no bound");
    let (least, most) = (bound("min_ms")?, bound("max_ms")?);
    let within = low >= least * 0.999 - 0.01 && high <= most * 1.001 + 0.01;
    let is_spread = expected["spread"] != true || high - low >= 0.6 * (most - least);
    if within && is_spread {
        Ok(())
    } else {
        Err(format!("delays from {low} to {high} ms"))
    }
}

fn same(told: &Value, expected: &Value) -> Result<(), String> {
    (told == expected)
        .then_some(())
        .ok_or_else(|| format!("{told}, not {expected}"))
}

/// Equal, but numbers only nearly, and nothing expected where a list has `null`.
fn near(told: &Value, expected: &Value, tolerance: f64) -> bool {
    match (told, expected) {
        (Value::Number(_), Value::Number(_)) => told
            .as_f64()
            .zip(expected.as_f64())
            .is_some_and(|(told, expected)| (told - expected).abs() <= tolerance + 1e-9 * expected.abs()),
        _ => told == expected,
    }
}
