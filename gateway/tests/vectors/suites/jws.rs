//! One signature and one key, judged as a token's would be against an issuer's key set. Claims are not looked at.

use gateway::auth::jwt::jwk::Origin;
use gateway::auth::jwt::jws::{Algorithm, Jws};
use gateway::auth::jwt::key_set::KeySet;
use serde_json::{Value, json};

use super::{Answer, text};

pub(super) fn answer(case: &Value) -> Answer {
    let jwks = json!({ "keys": [case["key"]] }).to_string();
    let token = text(case, "token")?;
    let valid = KeySet::from_jwks(jwks.as_bytes(), &Algorithm::ALL, Origin::File)
        .is_ok_and(|keys| Jws::parse(token).is_ok_and(|jws| jws.payload().is_ok() && keys.verify(&jws).is_ok()));
    Ok(json!({ "valid": valid }))
}
