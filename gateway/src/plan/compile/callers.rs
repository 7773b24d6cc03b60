//! Compiles API keys, issuers, certificates, users and anonymous callers into the authenticator.

use std::path::PathBuf;
use std::sync::Arc;

use policies::{Ratio, Share};

use crate::auth::api_key::keys::{ApiKey, ApiKeys};
use crate::auth::api_key::places::KeyPlaces;
use crate::auth::authenticator::{AnonymousTier, Authenticator};
use crate::auth::basic::users::{Passwords, User};
use crate::auth::caller::{is_caller_id, is_tenant_name};
use crate::auth::external::ExternalCallers;
use crate::auth::jwt::issuer::{Issuer, IssuerSettings};
use crate::auth::jwt::issuer_tenants::IssuerTenants;
use crate::auth::jwt::jwk::Origin;
use crate::auth::jwt::jws::{self, Algorithm};
use crate::auth::jwt::key_fetch::{Freshness, JwksUrl, Source};
use crate::auth::jwt::key_set::KeySet;
use crate::auth::jwt::live_keys::LiveKeys;
use crate::auth::mtls::holders::{CertificateHolders, Holder, HolderName};
use crate::auth::revocations::Revoked;
use crate::auth::verifications::Verifications;
use crate::config::{self, At, CertificateName, Code, JwtKeys, KeyPlace, KeysUrl, Mistake, keys, users};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::limits::Tables;
use crate::plan::compile::{listeners, named_files};
use crate::plan::revocation_store::{self, RevocationFile};
use crate::plan::state::KeysName;
use crate::tenancy::Principal;
use crate::tls::certificate;

/// Cache size for each of: verified tokens, refused tokens, certificates, client addresses.
const REMEMBERED: usize = 10_000;

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    tables: &Option<Tables>,
    external: Option<ExternalCallers>,
) -> Option<Authenticator<Principal>> {
    let config = compiler.config;
    let api_keys = config
        .callers
        .api_keys
        .as_ref()
        .map(|written| api_keys(compiler, written));
    let config::Callers {
        api_keys: _,
        jwt: _,
        mtls: _,
        basic: _,
        // Compiled in `external`.
        external: _,
        anonymous,
        // Compiled with the limits.
        failures: _,
        verifications: _,
        // Compiled in `revocations`.
        revocations: _,
    } = &config.callers;
    let tenants = issuer_tenants(compiler);
    let issuers: Vec<_> = config
        .callers
        .jwt
        .iter()
        .zip(tenants)
        .map(|((name, written), tenants)| Some(issuer(compiler, name, written)?.for_tenants(tenants)))
        .collect();
    // A file of keys is checked even if its issuer has mistakes.
    for (_, written) in config.callers.jwt.unsound() {
        if let JwtKeys::File(path) = &written.keys {
            keys_of_file(compiler, path, &compiled(&written.algorithms));
        }
    }
    let anonymous = anonymous.as_ref().map(|config::Anonymous { by: _, tier }| {
        let tier = tier.as_ref().unwrap_or(&config.default_tier);
        compiler.resolve("tier", tier, &config.tiers);
        AnonymousTier(tier.as_str().into())
    });
    let certificates = config
        .callers
        .mtls
        .as_ref()
        .map(|written| certificates(compiler, written));
    let passwords = config
        .callers
        .basic
        .as_ref()
        .map(|written| passwords(compiler, written));
    let tiers = Arc::clone(&tables.as_ref()?.tiers);
    let api_keys = match api_keys {
        Some(read) => Some(read?),
        None => None,
    };
    let issuers = issuers.into_iter().collect::<Option<Vec<_>>>()?;
    let certificates = match certificates {
        Some(holders) => Some(holders?),
        None => None,
    };
    let passwords = match passwords {
        Some(users) => Some(users?),
        None => None,
    };
    let revoked = compiler.state.revocations.in_force();
    let renewing = Arc::clone(&tiers);
    match Authenticator::new(api_keys, issuers, anonymous, REMEMBERED, move |caller| {
        tiers.build_principal(caller)
    }) {
        Ok(authenticator) => Some(
            authenticator
                .with_certificates(certificates)
                .with_passwords(passwords)
                .with_external(external)
                .within(verifications(compiler, tables))
                .with_final_check(move |known, unix_now| {
                    revoked.check(&known.caller, &known.seen, unix_now)?;
                    Ok(renewing.renewed(known))
                }),
        ),
        Err(same) => {
            let at = |name: &str| config.callers.jwt.get(name).and_then(|jwt| jwt.issuer.span());
            compiler.mistake(
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

/// Returns the limits on signature checks; `None` if they are off.
fn verifications(compiler: &Compiler<'_>, tables: &Option<Tables>) -> Option<Verifications> {
    let config::Verifications {
        // Compiled with the limits.
        rate: _,
        burst: _,
        share,
    } = compiler.config.callers.verifications.as_ref()?;
    Some(Verifications {
        per_address: tables.as_ref()?.failed_checks.clone()?,
        share: Ratio::new(share.get())
            .and_then(|ratio| Share::new(ratio, u32::try_from(compiler.workers).unwrap_or(u32::MAX))),
        work: Arc::clone(&compiler.state.verification_work),
    })
}

fn api_keys(compiler: &mut Compiler<'_>, written: &config::ApiKeys) -> Option<ApiKeys> {
    let config::ApiKeys {
        header,
        file: path,
        // Compiled in `key_places`.
        places: _,
        query: _,
    } = written;
    compiler.look_after(path);
    let file = match keys::load(path, compiler.sources) {
        Ok(file) => file,
        Err(mistakes) => {
            compiler.tenants = None;
            for mistake in mistakes.iter() {
                // An unreadable file has no position of its own, so the mistake points to the config.
                compiler.mistake(Mistake {
                    at: mistake.at.or(path.span()),
                    ..mistake.clone()
                });
            }
            return None;
        }
    };
    let mut all = Vec::with_capacity(file.keys.len());
    for key in &file.keys {
        compiler.know_tenant(&key.tenant);
        let place = format!("keys.{}", key.tenant.as_str());
        if !compiler.places.contains_key(&place) {
            compiler.note(place, key.id.span());
        }
        if let Some(tier) = &key.tier {
            compiler.resolve("tier", tier, &compiler.config.tiers);
        }
        all.push(meant(key));
    }
    ApiKeys::new(header.value.clone(), all)
        .map_err(|mistakes| {
            for mistake in mistakes {
                compiler.mistake(Mistake::new(Code::BadValue, path.span(), mistake.to_string()));
            }
        })
        .ok()
}

/// Returns a key without its places.
pub fn meant(key: &config::keys::ApiKey) -> ApiKey {
    ApiKey {
        id: key.id.as_str().into(),
        tenant: key.tenant.as_str().into(),
        digest: key.digest.0,
        tier: key.tier.as_ref().map(|tier| tier.as_str().into()),
        scopes: key.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        label: key.label.as_ref().map(|label| label.as_str().into()),
        not_before: key.not_before.as_ref().map(|at| at.0),
        expires: key.expires.as_ref().map(|at| at.0),
        disabled: *key.disabled,
    }
}

fn certificates(compiler: &mut Compiler<'_>, written: &config::Mtls) -> Option<CertificateHolders> {
    if !listeners::ask_for_certificates(compiler.config) && !compiler.unsound.touches("listeners") {
        let at = written.identities.first().and_then(|first| first.name.span());
        compiler.mistake(
            Mistake::new(
                Code::Conflict,
                at,
                "`callers.mtls` knows certificates that no listener asks for",
            )
            .hint(match compiler.config.listeners.iter().any(|(_, listener)| listener.tls.is_some()) {
                true => "write `client_ca_file: ca.pem` and `client: required` or `optional` into the `tls` of a listener",
                false => "write into a listener `tls: { certificates: [{ cert_file: edge.pem, key_file: edge.key }], client_ca_file: ca.pem, client: required }`",
            }),
        );
    }
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    let config::Mtls { identities } = written;
    for identity in identities {
        let config::Identity {
            name,
            tenant,
            id,
            tier,
            scopes,
        } = identity;
        check_tenant(compiler, tenant);
        if let Some(tier) = tier {
            compiler.resolve("tier", tier, &compiler.config.tiers);
        }
        let name = holder_name(compiler, name);
        let id = id.as_ref().map(|id| Arc::from(id.as_str()));
        if let Some(name) = &name {
            check_id(compiler, identity, name, id.as_ref());
        }
        let Some(name) = name else { continue };
        rows.push(identity);
        all.push(Holder {
            name,
            tenant: tenant.as_str().into(),
            id,
            tier: tier.as_ref().map(|tier| tier.as_str().into()),
            scopes: scopes.iter().map(|scope| scope.as_str().into()).collect(),
        });
    }
    CertificateHolders::new(all)
        .map_err(|(first, second)| {
            let at = |row: usize| rows[row].name.span();
            compiler.mistake(
                Mistake::new(
                    Code::DuplicateKey,
                    at(second),
                    "two of `callers.mtls.identities` have one name",
                )
                .related(at(first), "the other one")
                .hint("a certificate names one caller: take one of them out"),
            );
        })
        .ok()
}

/// Checks that the tenant's name is valid and not that of anonymous callers.
fn check_tenant(compiler: &mut Compiler<'_>, tenant: &At<String>) {
    compiler.know_tenant(tenant);
    if !is_tenant_name(tenant) {
        compiler.mistake(
            Mistake::new(
                Code::BadValue,
                tenant.span(),
                format!("a tenant cannot be called `{}`", tenant.escape_debug()),
            )
            .hint("use 1 to 128 characters, no control characters, and not `anonymous`"),
        );
    }
}

fn holder_name(compiler: &mut Compiler<'_>, written: &CertificateName) -> Option<HolderName> {
    match written {
        CertificateName::Uri(name) => Some(match name.as_str().strip_suffix('*') {
            Some(start) => HolderName::UrisBelow(start.to_owned()),
            None => HolderName::Uri(name.as_str().to_owned()),
        }),
        CertificateName::Dns(name) => Some(match name.as_str().strip_prefix('*') {
            Some(end) => HolderName::DnsBelow(end.to_owned()),
            None => HolderName::Dns(name.as_str().to_owned()),
        }),
        CertificateName::Subject(written) => {
            let subject = certificate::subject(written);
            if subject.is_none() {
                compiler.mistake(
                    Mistake::new(
                        Code::BadValue,
                        written.span(),
                        format!("`{written}` is not the subject of a certificate"),
                    )
                    .hint("`openssl x509 -noout -subject -nameopt RFC2253 -in FILE` prints it: `CN=billing,O=Acme`"),
                );
            }
            subject.map(HolderName::Subject)
        }
    }
}

/// Checks that the caller's id is valid. The names that a wildcard matches are only known later.
fn check_id(compiler: &mut Compiler<'_>, identity: &config::Identity, name: &HolderName, id: Option<&Arc<str>>) {
    let (text, at): (&str, _) = match (id, name) {
        (Some(id), _) => (id, identity.id.as_ref().and_then(At::span)),
        (None, HolderName::Uri(name) | HolderName::Dns(name) | HolderName::Subject(name)) => {
            (name, identity.name.span())
        }
        (None, HolderName::UrisBelow(_) | HolderName::DnsBelow(_)) => return,
    };
    if !is_caller_id(text) {
        compiler.mistake(
            Mistake::new(
                Code::BadValue,
                at,
                format!("a caller cannot be called `{}`", text.escape_debug()),
            )
            .hint("write an `id` of 1 to 255 characters, no control characters"),
        );
    }
}

fn passwords(compiler: &mut Compiler<'_>, config::Basic { file: path }: &config::Basic) -> Option<Passwords> {
    compiler.look_after(path);
    let file = match users::load(path, compiler.sources) {
        Ok((file, warnings)) => {
            warnings
                .iter()
                .for_each(|warning| compiler.warnings.push(warning.clone()));
            file
        }
        Err(mistakes) => {
            compiler.tenants = None;
            for mistake in mistakes.iter() {
                // An unreadable file has no position of its own, so the mistake points to the config.
                compiler.mistake(Mistake {
                    at: mistake.at.or(path.span()),
                    ..mistake.clone()
                });
            }
            return None;
        }
    };
    let mut all = Vec::with_capacity(file.users.len());
    for user in &file.users {
        check_tenant(compiler, &user.tenant);
        if let Some(tier) = &user.tier {
            compiler.resolve("tier", tier, &compiler.config.tiers);
        }
        all.push(User {
            id: user.id.as_str().into(),
            tenant: user.tenant.as_str().into(),
            hash: user.password_hash.as_str().into(),
            tier: user.tier.as_ref().map(|tier| tier.as_str().into()),
            scopes: user.scopes.iter().map(|scope| scope.as_str().into()).collect(),
            disabled: *user.disabled,
        });
    }
    let (known, checks) = (&compiler.state.known_passwords, &compiler.state.password_checks);
    Some(Passwords::new(all, Arc::clone(known), Arc::clone(checks)))
}

/// Returns the places where API keys may come; `None` if there are no API keys.
pub(super) fn key_places(config: &config::Config) -> Option<KeyPlaces> {
    let written = config.callers.api_keys.as_ref()?;
    let listed = |place| written.places.iter().any(|listed| listed.value == place);
    Some(KeyPlaces {
        header: written.header.value.clone(),
        in_header: listed(KeyPlace::Header),
        in_authorization: listed(KeyPlace::Authorization),
        in_query: listed(KeyPlace::Query).then(|| written.query.value.clone()),
    })
}

/// Loads the revocation file, if there is one.
pub(super) fn revocations(compiler: &mut Compiler<'_>) -> Option<RevocationFile> {
    let config::Revocations { file } = compiler.config.callers.revocations.as_ref()?;
    // A change of another file does not read this one again: the revocation store follows it separately.
    named_files::doubt_writers(compiler, file, file.span());
    let is_read = !compiler.sources.reader().keeps(file);
    let changes = is_read.then(|| compiler.state.revocations.changes());
    match revocation_store::load(file, compiler.sources) {
        Ok(list) => {
            for issuer in list.keys().filter_map(Revoked::issuer) {
                if !compiler.config.callers.jwt.contains(issuer) {
                    let message = format!("{} names the issuer `{issuer}`, which there is not", file.display());
                    let hint =
                        "what it is to take back is not: write the issuer's name in `callers.jwt`, or leave it out";
                    compiler
                        .warnings
                        .push(Mistake::new(Code::Doubtful, file.span(), message).hint(hint));
                }
            }
            Some(RevocationFile {
                path: file.value.clone(),
                version: compiler.sources.reader().stamp(file),
                list,
                changes,
            })
        }
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                compiler.mistake(Mistake {
                    at: mistake.at.or(file.span()),
                    ..mistake.clone()
                });
            }
            None
        }
    }
}

/// Returns the allowed tenants of each issuer, in their order.
fn issuer_tenants(compiler: &mut Compiler<'_>) -> Vec<IssuerTenants> {
    let all = &compiler.config.callers.jwt;
    for tenant in all.iter().flat_map(|(_, written)| written.tenants.iter().flatten()) {
        check_tenant(compiler, tenant);
    }
    if all.iter().any(|(_, written)| written.tenants.is_none()) {
        compiler.tenants = None;
    }
    let mut unbound = all.iter().filter(|(_, written)| written.tenants.is_none());
    if let (Some((first, _)), Some((second, written))) = (unbound.next(), unbound.next()) {
        let message = format!("tokens of `callers.jwt.{second}` may name the tenants of `callers.jwt.{first}`");
        compiler.warnings.push(
            Mistake::new(Code::Doubtful, written.tenant.span(), message).hint(
                "write `tenants: [...]`, the names that its tokens may have: no other issuer's may have them then",
            ),
        );
    }
    let names = |names: &Vec<At<String>>| names.iter().map(|name| name.as_str().into()).collect();
    let bound: Vec<_> = all
        .iter()
        .map(|(_, written)| written.tenants.as_ref().map(names))
        .collect();
    IssuerTenants::of_each(&bound)
}

fn issuer(compiler: &mut Compiler<'_>, name: &Arc<str>, written: &config::Jwt) -> Option<Issuer> {
    let config::Jwt {
        issuer,
        audience,
        algorithms,
        keys: written_keys,
        typ,
        required_claims,
        caller,
        tenant,
        // Compiled in `issuer_tenants`.
        tenants: _,
        tier,
        scopes,
        leeway,
        max_age,
    } = written;
    let algorithms = compiled(algorithms);
    let source = match written_keys {
        JwtKeys::Url(keys) => Some(source(compiler, keys, &algorithms)?),
        _ => None,
    };
    let keys = match written_keys {
        JwtKeys::Url(keys) => Some(remote_keys(compiler, name, &keys.url, &algorithms)),
        JwtKeys::File(path) => keys_of_file(compiler, path, &algorithms),
        JwtKeys::Secret(secret) => local_keys(
            compiler,
            secret.span(),
            KeySet::from_secret(secret.expose().as_bytes(), &algorithms),
        ),
        JwtKeys::SecretFile(path) => read_secret(compiler, path).and_then(|text| {
            // Editors add a line end, which is not part of the secret.
            local_keys(
                compiler,
                path.span(),
                KeySet::from_secret(text.trim_ascii_end(), &algorithms),
            )
        }),
    }?;
    let text = |pointer: &At<config::Pointer>| pointer.as_str().to_owned();
    let settings = IssuerSettings {
        name: Arc::clone(name),
        issuer: issuer.value.clone(),
        audience: audience.iter().map(|audience| audience.value.clone()).collect(),
        types: typ.iter().map(|typ| token_type(typ.value)).collect(),
        required_claims: required_claims.iter().map(text).collect(),
        caller: text(caller),
        tenant: text(tenant),
        tier: tier.as_ref().map(text),
        scopes: Some(text(scopes)),
        leeway: **leeway,
        max_age: max_age.as_ref().map(|max_age| max_age.value),
        setting: compiler.setting(&format!("callers.jwt.{name}")),
    };
    Issuer::new(settings, keys)
        .map(|issuer| issuer.fetched_from(source))
        .map_err(|mistake| {
            compiler.mistake(Mistake::new(
                Code::BadValue,
                leeway.span().or(issuer.span()),
                mistake.to_string(),
            ))
        })
        .ok()
}

fn compiled(algorithms: &[At<config::Algorithm>]) -> Vec<Algorithm> {
    let known = |algorithm: &At<config::Algorithm>| jws::algorithm(algorithm.as_str());
    algorithms
        .iter()
        .map(|algorithm| known(algorithm).expect("every word of the config is an algorithm"))
        .collect()
}

/// Reads a file of public keys: a JWKS, or one key in PEM.
fn keys_of_file(compiler: &mut Compiler<'_>, path: &At<PathBuf>, algorithms: &[Algorithm]) -> Option<Arc<LiveKeys>> {
    let text = named_files::read_file(compiler, path)?;
    let is_pem = text.starts_with(b"-----BEGIN");
    let made = if is_pem {
        KeySet::from_pem(&text, algorithms)
    } else {
        KeySet::from_jwks(&text, algorithms, Origin::File)
    };
    local_keys(compiler, path.span(), made)
}

fn read_secret(compiler: &mut Compiler<'_>, path: &At<PathBuf>) -> Option<Arc<[u8]>> {
    named_files::doubt_secret(compiler, path);
    named_files::read_file(compiler, path)
}

const fn token_type(written: config::TokenType) -> jws::TokenType {
    match written {
        config::TokenType::Jwt => jws::TokenType::Jwt,
        config::TokenType::AccessToken => jws::TokenType::AccessToken,
    }
}

fn local_keys(
    compiler: &mut Compiler<'_>,
    at: Option<config::Span>,
    made: Result<KeySet, crate::auth::jwt::key_set::KeySetMistake>,
) -> Option<Arc<LiveKeys>> {
    made.map(LiveKeys::with)
        .map_err(|mistake| {
            compiler.mistake(Mistake::new(
                Code::BadValue,
                at,
                format!("these keys cannot be used: {mistake}"),
            ))
        })
        .ok()
}

fn source(compiler: &mut Compiler<'_>, written: &KeysUrl, algorithms: &[Algorithm]) -> Option<Source> {
    let KeysUrl {
        url: text,
        refresh,
        max_age,
        cool_down,
        time_limit,
    } = written;
    let url = JwksUrl::parse(text)
        .map_err(|mistake| compiler.mistake(Mistake::new(Code::BadValue, text.span(), mistake.to_string())))
        .ok()?;
    let usual = Freshness::default();
    let freshness = Freshness {
        refresh: **refresh,
        longest_retry: usual.longest_retry.min(**refresh),
        max_age: **max_age,
        cool_down: **cool_down,
        timeout: **time_limit,
        ..usual
    };
    Some(Source {
        url,
        algorithms: algorithms.to_vec(),
        freshness,
    })
}

/// Returns the keys of a URL, which the control thread refreshes. They are shared across plans with the same issuer,
/// URL and algorithms. If only the algorithms differ, the keys that were fetched last are used until the next fetch.
fn remote_keys(compiler: &Compiler<'_>, name: &Arc<str>, url: &At<String>, algorithms: &[Algorithm]) -> Arc<LiveKeys> {
    let wanted = KeysName {
        issuer: Arc::clone(name),
        url: url.as_str().into(),
        algorithms: algorithms.to_vec(),
    };
    let mut kept = compiler.state.kept();
    let same_source = |kept: &KeysName| (&kept.issuer, &kept.url) == (&wanted.issuer, &wanted.url);
    let last = kept
        .keys
        .iter()
        .filter(|(name, _)| same_source(name))
        .max_by_key(|(_, keys)| keys.status().confirmed);
    let made = || last.map_or_else(LiveKeys::awaited, |(_, keys)| keys.pinned_to(algorithms));
    let keys = kept.keys.get(&wanted).cloned().unwrap_or_else(made);
    kept.keys.insert(wanted, Arc::clone(&keys));
    keys
}
