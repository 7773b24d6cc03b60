//! Removes the header fields that carried credentials before a request is forwarded.
//!
//! Invariant: a field is removed only if a credential that the route admits was read from it; every other field goes to
//! the backend. The API key header is forwarded only under its exact configured name; other spellings are removed,
//! whatever they hold.

use http::HeaderName;
use http::header::AUTHORIZATION;
use smallvec::SmallVec;

use crate::auth::access::Access;
use crate::auth::api_key::places::KeyPlaces;
use crate::auth::caller::Kind;
use crate::auth::credentials;
use crate::auth::external::question::QuestionField;
use crate::message::FieldMap;
use crate::wire::aliases;

/// Credentials that are forwarded to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    Nothing,
    /// Tokens only: they expire and name their audience. API keys and passwords are worth more to a thief.
    Tokens,
    Everything,
}

/// Fields that can carry credentials, as the config names them.
#[derive(Debug, Clone, Copy)]
pub struct CredentialFields<'a> {
    pub places: Option<&'a KeyPlaces>,
    /// Fields that the external service gets.
    pub external: &'a [QuestionField],
}

/// Removes the fields that carried the credentials of a request, unless `forward` keeps them.
///
/// `caller` is the kind of the identified caller. All credentials that the route admits have been verified.
pub fn remove(headers: &mut FieldMap, fields: CredentialFields<'_>, access: &Access, caller: &Kind, forward: Forward) {
    let CredentialFields { places, external } = fields;
    let everything = forward == Forward::Everything;
    if *caller == Kind::External {
        for field in external {
            if let QuestionField::Header(name) = field {
                aliases::remove_others(headers, name);
            }
            if !everything {
                field.remove(headers);
            }
        }
    }
    if let Some(places) = places {
        aliases::remove_others(headers, &places.header);
        if access.admits(&Kind::ApiKey) && !everything {
            if places.in_header {
                headers.remove(&places.header);
            }
            if places.key_in_authorization(headers).is_some() {
                headers.remove(AUTHORIZATION);
            }
        }
    }
    // A valid token takes precedence over every other credential. If the caller is not a token's, no token was used.
    let by_token = matches!(caller, Kind::Jwt(_)) && forward == Forward::Nothing;
    let by_password = access.admits(&Kind::Basic) && !everything && credentials::has_password(headers);
    if by_token || by_password {
        headers.remove(AUTHORIZATION);
    }
}

/// Returns the names of fields that can hold credentials and were not taken as such. The request has been through
/// [`remove`].
pub fn not_taken(
    headers: &FieldMap,
    fields: CredentialFields<'_>,
    access: &Access,
    caller: &Kind,
) -> SmallVec<[HeaderName; 2]> {
    let CredentialFields { places, external } = fields;
    let takes_keys = access.admits(&Kind::ApiKey);
    let mut names = SmallVec::new();
    if *caller != Kind::External {
        let others = external.iter().filter_map(|field| match field {
            QuestionField::Header(name) if *name != AUTHORIZATION => Some(name.clone()),
            _ => None,
        });
        names.extend(others);
    }
    if let Some(places) = places.filter(|places| places.in_header && !takes_keys) {
        names.push(places.header.clone());
    }
    let has_key = |places: &KeyPlaces| takes_keys && places.key_in_authorization(headers).is_some();
    let is_taken = matches!(caller, Kind::Jwt(_))
        || (*caller == Kind::External && external.contains(&QuestionField::Header(AUTHORIZATION)))
        || places.is_some_and(has_key)
        || (access.admits(&Kind::Basic) && credentials::has_password(headers));
    if !is_taken {
        names.push(AUTHORIZATION);
    }
    names
}

/// Whether query parameters that hold API keys are removed before forwarding.
pub fn removes_from_query(access: &Access, forward: Forward) -> bool {
    access.admits(&Kind::ApiKey) && forward != Forward::Everything
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::auth::access::{Admitted, AdmittedIssuers, Requirements};

    const KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn access(kinds: &str) -> Access {
        let has = |kind: &str| kinds.split(' ').any(|found| found == kind);
        let admitted = Admitted {
            api_key: has("api_key"),
            jwt: if has("jwt") {
                AdmittedIssuers::Any
            } else {
                AdmittedIssuers::None
            },
            mtls: has("mtls"),
            basic: has("basic"),
            external: has("external"),
            anonymous: has("anonymous"),
            together: false,
        };
        Access::new(admitted, Requirements::default(), &KEY, crate::setting::SettingId::URI)
    }

    fn places(place: &str) -> KeyPlaces {
        KeyPlaces {
            header: KEY,
            in_header: place.contains("header"),
            in_authorization: place.contains("authorization"),
            in_query: None,
        }
    }

    fn kind(name: &str) -> Kind {
        match name {
            "api_key" => Kind::ApiKey,
            "jwt" => Kind::Jwt("main".into()),
            "mtls" => Kind::Mtls,
            "basic" => Kind::Basic,
            "external" => Kind::External,
            _ => Kind::Anonymous,
        }
    }

    /// Checks whether a key and an `Authorization` of the given value are forwarded.
    #[track_caller]
    fn check(keys: &str, admitted: &str, caller: &str, authorization: &'static str, left: [(bool, bool); 3]) {
        for (forward, (key, authorized)) in [Forward::Nothing, Forward::Tokens, Forward::Everything]
            .into_iter()
            .zip(left)
        {
            let mut headers = FieldMap::new();
            for name in ["x-api-key", "x_api_key", "x-api_key", "x_api-key"] {
                headers.append(name, HeaderValue::from_static("k"));
            }
            headers.append(AUTHORIZATION, HeaderValue::from_static(authorization));
            headers.append("cookie", HeaderValue::from_static("a=b"));
            remove(
                &mut headers,
                CredentialFields {
                    places: Some(&places(keys)),
                    external: &[],
                },
                &access(admitted),
                &kind(caller),
                forward,
            );
            assert_eq!(
                (headers.contains_key(KEY), headers.contains_key(AUTHORIZATION)),
                (key, authorized),
                "keys in {keys}, {admitted} admitted, {caller} acts, {authorization}, {forward:?}"
            );
            let named: Vec<_> = headers.keys().filter(|name| name.as_str().contains('_')).collect();
            assert!(named.is_empty() && headers.contains_key("cookie"), "{named:?}");
        }
    }

    #[test]
    fn what_was_taken_goes_and_all_else_stays() {
        const ALL: [(bool, bool); 3] = [(true, true); 3];
        let key_goes = [(false, true), (false, true), (true, true)];
        for authorization in ["Bearer a.b.c", "Bearer opaque", "Basic YTpi", "Digest x", "ApiKey k"] {
            check("header", "api_key", "api_key", authorization, key_goes);
            check("header", "anonymous", "anonymous", authorization, ALL);
            check("header", "mtls", "mtls", authorization, ALL);
            check("header authorization", "mtls", "mtls", authorization, ALL);
            check("header authorization", "anonymous", "anonymous", authorization, ALL);
            check("header", "api_key anonymous", "api_key", authorization, key_goes);
        }
        // Tokens are forwarded unless the route says otherwise; fields without an admitted credential always are.
        let token_goes = [(true, false), (true, true), (true, true)];
        check("header", "jwt", "jwt", "Bearer a.b.c", token_goes);
        check("header", "jwt anonymous", "jwt", "Bearer a.b.c", token_goes);
        check("header authorization", "jwt", "jwt", "Bearer a.b.c", token_goes);
        check("header", "jwt anonymous", "anonymous", "Digest x", ALL);
        check("header", "jwt anonymous", "anonymous", "Basic YTpi", ALL);
        // Both credentials were read, and both are valid.
        let both_go = [(false, false), (false, true), (true, true)];
        check("header", "api_key jwt", "jwt", "Bearer a.b.c", both_go);
        check("header", "api_key jwt", "api_key", "Basic YTpi", key_goes);
        // A token of an issuer that the route does not admit is not used as a credential.
        check("header", "api_key jwt", "api_key", "Bearer a.b.c", key_goes);
        // Passwords.
        let password_goes = [(true, false), (true, false), (true, true)];
        for scheme in ["Basic YTpi", "basic YTpi", "BASIC   YTpi"] {
            check("header", "basic", "basic", scheme, password_goes);
            check(
                "header",
                "basic api_key",
                "api_key",
                scheme,
                [(false, false), (false, false), (true, true)],
            );
            check("header", "api_key", "api_key", scheme, key_goes);
        }
        check("header", "basic mtls", "mtls", "Bearer a.b.c", ALL);
        // Keys outside their header field. The field is then left to the backend.
        check("authorization", "api_key", "api_key", "ApiKey k", password_goes);
        check("authorization", "api_key", "api_key", "Bearer opaque", password_goes);
        check("authorization", "api_key jwt", "jwt", "Bearer a.b.c", token_goes);
        check("query", "api_key", "api_key", "Bearer opaque", ALL);
        check(
            "header authorization",
            "api_key",
            "api_key",
            "ApiKey k",
            [(false, false), (false, false), (true, true)],
        );
    }

    #[test]
    fn without_keys_there_is_no_header_of_keys() {
        let mut headers = FieldMap::new();
        headers.append("x-api-key", HeaderValue::from_static("k"));
        headers.append("x_api_key", HeaderValue::from_static("k"));
        let fields = CredentialFields {
            places: None,
            external: &[],
        };
        remove(&mut headers, fields, &access("jwt"), &kind("jwt"), Forward::Nothing);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn what_the_external_service_got_goes() {
        let names = [AUTHORIZATION, HeaderName::from_static("x-session")].map(QuestionField::Header);
        let check = |caller: &str, forward: Forward, expected: &[&str]| {
            let mut headers = FieldMap::new();
            for name in ["authorization", "x-session", "x_session", "x-other"] {
                headers.append(name, HeaderValue::from_static("v"));
            }
            let fields = CredentialFields {
                places: None,
                external: &names,
            };
            remove(
                &mut headers,
                fields,
                &access("external anonymous"),
                &kind(caller),
                forward,
            );
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, expected, "{caller} {forward:?}");
        };
        check("external", Forward::Nothing, &["x-other"]);
        check("external", Forward::Tokens, &["x-other"]);
        check(
            "external",
            Forward::Everything,
            &["authorization", "x-other", "x-session"],
        );
        check(
            "anonymous",
            Forward::Nothing,
            &["authorization", "x-other", "x-session", "x_session"],
        );
    }

    #[test]
    fn a_key_leaves_the_query_where_keys_are_taken() {
        for (admitted, forward, goes) in [
            ("api_key", Forward::Nothing, true),
            ("api_key jwt", Forward::Tokens, true),
            ("api_key", Forward::Everything, false),
            ("jwt", Forward::Nothing, false),
            ("anonymous", Forward::Tokens, false),
        ] {
            assert_eq!(
                removes_from_query(&access(admitted), forward),
                goes,
                "{admitted} {forward:?}"
            );
        }
    }
}
