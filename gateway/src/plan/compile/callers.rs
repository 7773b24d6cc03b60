//! Key file, issuers and anonymous callers -> the doorman.

use std::path::Path;
use std::sync::Arc;

use super::Desk;
use super::limits::Tables;
use crate::config::{self, At, Code, JwtKeys, Mistake, keys};
use crate::intake::api_keys::{ApiKey, ApiKeys};
use crate::intake::doorman::{AnonymousTier, Doorman};
use crate::intake::jwks::{KeySet, Origin};
use crate::intake::jwks_fetch::JwksUrl;
use crate::intake::jws::{self, Algorithm};
use crate::intake::jwt::{Issuer, IssuerSettings};
use crate::intake::live_keys::LiveKeys;
use crate::intake::tiers::Known;
use crate::plan::state::RemoteKeys;

/// Verified tokens, refused tokens and addresses that are remembered, each.
const REMEMBERED: usize = 10_000;

pub(super) fn compile(desk: &mut Desk<'_>, tables: &Option<Tables>) -> Option<Doorman<Known>> {
    let config = desk.config;
    let api_keys = config.callers.api_keys.as_ref().map(|written| api_keys(desk, written));
    let issuers: Vec<_> = config
        .callers
        .jwt
        .iter()
        .map(|(name, written)| issuer(desk, name, written))
        .collect();
    let anonymous = config.callers.anonymous.as_ref().map(|anonymous| {
        let tier = anonymous.tier.as_ref().unwrap_or(&config.default_tier);
        desk.resolve("tier", tier, &config.tiers);
        AnonymousTier(tier.as_str().into())
    });
    let tiers = Arc::clone(&tables.as_ref()?.tiers);
    let api_keys = match api_keys {
        Some(read) => Some(read?),
        None => None,
    };
    let issuers = issuers.into_iter().collect::<Option<Vec<_>>>()?;
    match Doorman::new(api_keys, issuers, anonymous, REMEMBERED, move |caller| {
        tiers.enroll(caller)
    }) {
        Ok(doorman) => Some(doorman),
        Err(same) => {
            let at = |name: &str| config.callers.jwt.get(name).and_then(|jwt| jwt.issuer.as_ref()?.span());
            desk.mistake(
                Mistake::new(
                    Code::Conflict,
                    at(&same.second),
                    format!(
                        "`callers.jwt.{}` and `callers.jwt.{}` have the same issuer",
                        same.first, same.second
                    ),
                )
                .related(at(&same.first), "the other one")
                .hint("a token is told by its `iss`: make them one entry with both audiences"),
            );
            None
        }
    }
}

fn api_keys(desk: &mut Desk<'_>, written: &config::ApiKeys) -> Option<ApiKeys> {
    let file = match keys::load(&written.file, desk.sources) {
        Ok(file) => file,
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                // A file that cannot be read has no place in itself, but it is named in the config.
                desk.mistake(Mistake {
                    at: mistake.at.or(written.file.span()),
                    ..mistake.clone()
                });
            }
            return None;
        }
    };
    let mut all = Vec::with_capacity(file.keys.len());
    for key in &file.keys {
        let place = format!("keys.{}", key.tenant.as_str());
        if !desk.places.contains_key(&place) {
            desk.note(place, key.id.span());
        }
        if let Some(tier) = &key.tier {
            desk.resolve("tier", tier, &desk.config.tiers);
        }
        all.push(ApiKey {
            id: key.id.as_str().into(),
            tenant: key.tenant.as_str().into(),
            digest: key.digest.0,
            tier: key.tier.as_ref().map(|tier| tier.as_str().into()),
            scopes: key.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            not_before: key.not_before.as_ref().map(|at| at.0),
            expires: key.expires.as_ref().map(|at| at.0),
            disabled: *key.disabled,
        });
    }
    ApiKeys::new(written.header.value.clone(), all)
        .map_err(|mistakes| {
            for mistake in mistakes {
                desk.mistake(Mistake::new(Code::BadValue, written.file.span(), mistake.to_string()));
            }
        })
        .ok()
}

fn issuer(desk: &mut Desk<'_>, name: &Arc<str>, written: &config::Jwt) -> Option<Issuer> {
    let algorithms: Vec<Algorithm> = written
        .algorithms
        .iter()
        .map(|algorithm| jws::algorithm(algorithm.as_str()).expect("every word of the config is an algorithm"))
        .collect();
    let keys = match &written.keys {
        JwtKeys::Url(url) => remote_keys(desk, name, url, &algorithms),
        JwtKeys::File(path) => read(desk, path).and_then(|text| {
            let is_pem = text.starts_with(b"-----BEGIN");
            let made = if is_pem {
                KeySet::from_pem(&text, &algorithms)
            } else {
                KeySet::from_jwks(&text, &algorithms, Origin::File)
            };
            local_keys(desk, path.span(), made)
        }),
        JwtKeys::Secret(secret) => local_keys(
            desk,
            secret.span(),
            KeySet::from_secret(secret.expose().as_bytes(), &algorithms),
        ),
        JwtKeys::SecretFile(path) => read(desk, path).and_then(|text| {
            // Editors end a file with a line end, which is not part of the secret.
            local_keys(
                desk,
                path.span(),
                KeySet::from_secret(text.trim_ascii_end(), &algorithms),
            )
        }),
    }?;
    let Some(issuer) = &written.issuer else {
        desk.mistake(
            Mistake::new(
                Code::MissingKey,
                written.tenant.span(),
                format!("`callers.jwt.{name}` has no `issuer`"),
            )
            .hint("tokens are told apart by `iss`: write what the issuer puts there"),
        );
        return None;
    };
    let settings = IssuerSettings {
        name: Arc::clone(name),
        issuer: issuer.value.clone(),
        audience: written.audience.iter().map(|audience| audience.value.clone()).collect(),
        tenant: written.tenant.as_str().to_owned(),
        tier: written.tier.as_ref().map(|tier| tier.as_str().to_owned()),
        scopes: Some(written.scopes.as_str().to_owned()),
        leeway: *written.leeway,
    };
    Issuer::new(settings, keys)
        .map_err(|mistake| {
            desk.mistake(Mistake::new(
                Code::BadValue,
                written.leeway.span().or(issuer.span()),
                mistake.to_string(),
            ))
        })
        .ok()
}

fn local_keys(
    desk: &mut Desk<'_>,
    at: Option<config::Span>,
    made: Result<KeySet, crate::intake::jwks::KeySetMistake>,
) -> Option<Arc<LiveKeys>> {
    made.map(LiveKeys::with)
        .map_err(|mistake| {
            desk.mistake(Mistake::new(
                Code::BadValue,
                at,
                format!("these keys cannot be used: {mistake}"),
            ))
        })
        .ok()
}

/// Keys that the control thread keeps fresh; they are the same across plans while issuer and address are.
fn remote_keys(
    desk: &mut Desk<'_>,
    name: &Arc<str>,
    url: &At<String>,
    algorithms: &[Algorithm],
) -> Option<Arc<LiveKeys>> {
    let parsed = match JwksUrl::parse(url) {
        Ok(parsed) => parsed,
        Err(mistake) => {
            desk.mistake(Mistake::new(Code::BadValue, url.span(), mistake.to_string()));
            return None;
        }
    };
    let mut kept = desk.state.kept();
    let remote = kept
        .keys
        .entry((Arc::clone(name), url.as_str().into()))
        .or_insert_with(|| RemoteKeys {
            live: LiveKeys::awaited(),
            url: parsed,
            algorithms: algorithms.to_vec(),
        });
    if remote.algorithms != algorithms {
        *remote = RemoteKeys {
            live: LiveKeys::awaited(),
            url: remote.url.clone(),
            algorithms: algorithms.to_vec(),
        };
    }
    Some(Arc::clone(&remote.live))
}

fn read(desk: &mut Desk<'_>, path: &At<std::path::PathBuf>) -> Option<Vec<u8>> {
    let path_text: &Path = path;
    std::fs::read(path_text)
        .map_err(|error| {
            desk.mistake(
                Mistake::new(
                    Code::Unreadable,
                    path.span(),
                    format!("cannot read {}: {error}", path.display()),
                )
                .hint("files are found relative to the folder of the config file"),
            );
        })
        .ok()
}
