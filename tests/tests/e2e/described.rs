//! Checks answers of the admin API against the document that describes it, `/api/v1/openapi.json`.

use serde_json::Value;
use tests::{Answer, Gateway};

/// The document of a gateway.
pub(crate) struct Described(Value);

impl Described {
    pub(crate) async fn of(gateway: &Gateway) -> Self {
        let ask = tests::Client::to(gateway.admin_address()).get("/api/v1/openapi.json");
        Self(ask.send().await.expect(200).json())
    }

    /// # Panics
    /// The answer to this operation is not as it is described.
    #[track_caller]
    pub(crate) fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap_or_default();
        let paths = self.0["paths"].as_object().expect("it has paths");
        let described = paths.iter().filter(|(template, _)| fits(template, path));
        let operation = described
            .min_by_key(|(template, _)| template.matches('{').count())
            .map(|(_, item)| &item[method])
            .filter(|operation| operation.is_object())
            .unwrap_or_else(|| panic!("{method} {path} is not described"));
        let response = &operation["responses"][answer.status.to_string()];
        let schema = &response["content"]["application/json"]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path}: {} is not described",
            answer.status
        );
        let mut wrong = Vec::new();
        self.validate(schema, &answer.json(), "", &mut wrong);
        assert!(
            wrong.is_empty(),
            "{method} {path}, for gateway/src/admin/openapi/answers.rs: {wrong:#?}"
        );
    }

    /// # Panics
    /// The problem is not as it is described.
    #[track_caller]
    pub(crate) fn check_problem(&self, problem: &Value) {
        let mut wrong = Vec::new();
        self.validate(&self.0["components"]["schemas"]["Problem"], problem, "", &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Validates by those words of JSON Schema that the document uses.
    fn validate(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.0.pointer(reference.trim_start_matches('#'));
            return self.validate(schema.expect("the reference leads somewhere"), value, at, wrong);
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let fits = any.iter().any(|schema| {
                let mut wrong = Vec::new();
                self.validate(schema, value, at, &mut wrong);
                wrong.is_empty()
            });
            if !fits {
                wrong.push(format!("{at}: {value} fits none"));
            }
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            wrong.push(format!("{at}: {value} is none of {allowed:?}"));
        }
        let kinds: Vec<_> = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(value, kind)) {
            wrong.push(format!("{at}: {value} is not {kinds:?}"));
        }
        if let (Some(least), Some(number)) = (schema["minimum"].as_u64(), value.as_u64())
            && number < least
        {
            wrong.push(format!("{at}: {number} is less than {least}"));
        }
        if let Some(object) = value.as_object() {
            let required = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            wrong.extend(
                required
                    .filter(|name| !object.contains_key(*name))
                    .map(|name| format!("{at}: no {name}")),
            );
            for (name, value) in object {
                let at = format!("{at}/{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (known @ Value::Object(_), _) => self.validate(known, value, &at, wrong),
                    (_, Value::Bool(false)) => wrong.push(format!("{at} is not described")),
                    (_, others @ Value::Object(_)) => self.validate(others, value, &at, wrong),
                    _ => {}
                }
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema["items"].is_object() {
                self.validate(&schema["items"], item, &format!("{at}/{index}"), wrong);
            }
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(part, found)| part.starts_with('{') || *part == found)
}
