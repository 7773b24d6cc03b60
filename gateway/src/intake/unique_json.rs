//! Reads JSON in which no member of an object comes twice.
//!
//! RFC 7515 section 4 and RFC 7519 section 4 let a verifier refuse duplicates or take the last one. Whoever
//! reads the token next may take the first, so refusing is the only answer on which all agree.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The object that is written in `json`, or `None` if it is anything else or holds a name twice, at any depth.
pub(super) fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match value(json)? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// The same for any value.
pub(super) fn value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Distinct>(json).ok()?;
    serde_json::from_slice(json).ok()
}

/// Any JSON value whose objects have distinct names. Names are compared unescaped.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Distinct)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name) {
                return Err(serde::de::Error::custom("duplicate name"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn names_must_be_distinct() {
        let check = |json: &str, accepted| assert_eq!(object(json.as_bytes()).is_some(), accepted, "{json}");
        check("{}", true);
        check(
            r#"{"a":1,"b":[{"a":2},{"a":3}],"c":null,"d":true,"e":1.5,"f":"x","g":100000000000000000000}"#,
            true,
        );
        check(r#"{"a":1,"a":1}"#, false);
        check(r#"{"a":1,"\u0061":2}"#, false);
        check(r#"{"a":{"b":1,"b":2}}"#, false);
        check(r#"{"a":[{"b":1,"b":2}]}"#, false);
        check("[]", false);
        check("null", false);
        check("\"x\"", false);
        check("{} {}", false);
        check("{a:1}", false);
        check("", false);
        check(&format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000)), false);
    }
}
