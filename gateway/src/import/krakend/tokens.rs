//! Makes an issuer of the tokens that a route checks.

use serde_json::Value;

use super::Importer;
use super::left_out::LeftOut;
use super::object::text;
use crate::import::yaml::{Map, Yaml};

impl Importer<'_> {
    /// Returns the access of a route whose tokens KrakenD checks; `None` if the check has no counterpart.
    pub(super) fn issuer(&mut self, value: &Value, path: &str, left: &mut LeftOut) -> Option<Map> {
        let value = value.as_object()?;
        let algorithm = text(value, "alg").unwrap_or("RS256");
        let audience: Vec<_> = value
            .get("audience")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (issuer, url) = (text(value, "issuer")?, text(value, "jwk_url")?);
        // A shared key that is fetched would let everybody sign who can fetch it.
        if audience.is_empty() || algorithm.starts_with("HS") {
            return None;
        }
        let roles: Vec<_> = value
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let scopes: Vec<_> = value
            .get("scopes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let any_scope = text(value, "scopes_matcher").is_none_or(|matcher| matcher == "any") && scopes.len() > 1;
        // One of several is enough there; here all scopes are needed.
        if roles.len() > 1 || any_scope || (!roles.is_empty() && !scopes.is_empty()) {
            return None;
        }
        let (key, needed) = match roles.is_empty() {
            true => (text(value, "scopes_key").unwrap_or("scope"), scopes),
            false => (text(value, "roles_key").unwrap_or("roles"), roles),
        };
        let is_nested =
            value.get("roles_key_is_nested") == Some(&Value::Bool(true)) || key.contains('.') && !key.contains("://");
        let pointer = if is_nested {
            key.replace('~', "~0").replace('/', "~1").replace('.', "/")
        } else {
            key.replace('~', "~0").replace('/', "~1")
        };
        let mut entry = Map::default()
            .with("issuer", Yaml::text(issuer))
            .with("audience", Yaml::texts(audience))
            .with("algorithms", Yaml::texts([algorithm]))
            .with("keys", Map::default().with("url", Yaml::text(url)))
            .with("tenant", Yaml::text("/sub"));
        if !needed.is_empty() {
            entry.put("scopes", Yaml::text(format!("/{pointer}")));
        }
        for key in value.keys() {
            const KNOWN: [&str; 12] = [
                "alg",
                "audience",
                "issuer",
                "jwk_url",
                "roles",
                "roles_key",
                "roles_key_is_nested",
                "scopes",
                "scopes_key",
                "scopes_matcher",
                "cache",
                "disable_jwk_security",
            ];
            if !KNOWN.contains(&key.as_str()) {
                left.add(&format!("{path}.{key}"), "");
            }
        }
        let id = Map::default().with("i", entry.clone()).document();
        let name = match self.known_issuers.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = format!("issuer_{}", self.known_issuers.len() + 1);
                self.known_issuers.insert(id, name.clone());
                self.issuers.put_noted(
                    &name,
                    entry,
                    vec!["note: KrakenD knows no tenants; here each subject is one".to_owned()],
                );
                name
            }
        };
        let access = Map::default().with("any_of", Yaml::texts([format!("jwt:{name}")]));
        Some(match needed.is_empty() {
            true => access,
            false => access.with("scopes", Yaml::texts(needed)),
        })
    }
}
