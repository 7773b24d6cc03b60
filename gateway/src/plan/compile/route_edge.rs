//! Compiles the optional rules of a route: addresses, header fields, CORS, path policy and upgrades.
//!
//! A rule that is not written compiles to nothing.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use crate::client::address_list::AddressList;
use crate::config::{self, At, Code, Mistake, NamedMap, OwnCors, Upgrade};
use crate::headers::cors::{Cors, Origins};
use crate::headers::response::ResponseHeaders;
use crate::headers::rules::{FieldValue, HeaderRules, why_kept};
use crate::headers::security::SecurityHeaders;
use crate::headers::{self, AddedHeaders, MethodOverride};
use crate::plan::RouteEdge;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::compression;
use crate::plan::compile::scope::{self, Scope};
use crate::plan::outline::{EdgeOutline, PathPolicyOutline};
use crate::routing::PathPolicy;
use crate::routing::path_policy::{Action, DotSegments};
use crate::template::{Placeholder, Syntax};

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &config::Route,
    parameters: &HashSet<String>,
) -> RouteEdge {
    let own_cors = format!("routes.{name}.cors");
    let path = if written.cors.is_some() { &own_cors } else { "cors" };
    let cors =
        cors_of(compiler.config, written).map(|cors| compile_cors(compiler, &written.matches.methods, cors, path));
    let rules = Rules {
        path: format!("routes.{name}.headers"),
        parameters,
        has_cors: cors.is_some(),
    };
    let config::Headers { request, response } = &written.headers;
    let request_rules = rules.compile(compiler, "request", request);
    let response_rules = rules.compile(compiler, "response", response);
    check_target(compiler, name, written);
    if cors.is_some() {
        doubt_preflights(compiler, name, written);
    }
    check_addresses(compiler, name, &written.access.addresses);
    let security = security_of(compiler.config, written);
    let has_finish = cors.is_some() || security.is_some() || !response_rules.is_empty();
    let is_head_read = compiler.config.tracing.is_some()
        || written.mirror.is_some()
        || written.cache.is_some()
        || written.idempotency.is_some()
        || !written.fallback.is_empty();
    RouteEdge {
        addresses: address_list(compiler, name, &written.access.addresses),
        finish: has_finish.then(|| {
            Arc::new(ResponseHeaders {
                cors: cors.map(Arc::new),
                rules: response_rules,
                security,
            })
        }),
        compression: compression::of_route(compiler, written),
        added: added_headers(&written.added_headers, &compiler.config.added_headers),
        is_head_read: is_head_read || reads_added(request_rules.uses()),
        request_rules: (!request_rules.is_empty()).then_some(request_rules),
        path_policy: path_policy(compiler.config, written),
        method_override: match *written.method_override {
            config::MethodOverride::Reject => {
                MethodOverride::Reject(compiler.setting(&format!("routes.{name}.method_override")))
            }
            config::MethodOverride::Strip => MethodOverride::Strip,
        },
        upgrades: *written.upgrade == Upgrade::Websocket,
    }
}

fn added_headers(own: &config::AddedHeaders, top: &config::AddedHeaders) -> AddedHeaders {
    let config::AddedHeaders {
        identity,
        forwarded,
        trace,
        ratelimit,
    } = own;
    let is_added = |own: &Option<At<bool>>, top: &Option<At<bool>>| own.as_ref().or(top.as_ref()).is_none_or(|at| **at);
    AddedHeaders {
        identity: is_added(identity, &top.identity),
        forwarded: is_added(forwarded, &top.forwarded),
        trace: is_added(trace, &top.trace),
        ratelimit: is_added(ratelimit, &top.ratelimit),
    }
}

/// Whether one of the placeholders names a field that the gateway adds.
pub(super) fn reads_added<'p>(mut placeholders: impl Iterator<Item = &'p Placeholder>) -> bool {
    placeholders.any(|placeholder| matches!(placeholder, Placeholder::Header(name) if headers::is_added(name)))
}

/// Describes the same rules for the admin API.
pub(super) fn outline(config: &config::Config, written: &config::Route) -> EdgeOutline {
    let shown = |networks: &Vec<At<ipnet::IpNet>>| networks.iter().map(ToString::to_string).collect();
    let action = |action| match action {
        Action::Reject => config::PathAction::Reject.as_str(),
        Action::Decode => config::PathAction::Decode.as_str(),
        Action::Keep => config::PathAction::Keep.as_str(),
    };
    let policy = path_policy(config, written);
    let addresses = &written.access.addresses;
    EdgeOutline {
        allow: addresses.allow.as_ref().map(shown),
        deny: shown(&addresses.deny),
        origins: cors_of(config, written)
            .map(|cors| cors.origins.iter().map(|origin| origin_text(&origin.value)).collect()),
        compression: compression::outline(config, written),
        security_headers: written
            .security_headers
            .as_ref()
            .unwrap_or(&config.security_headers)
            .as_str(),
        added_headers: added_headers(&written.added_headers, &config.added_headers).names(),
        request_fields: fields_of(&written.headers.request),
        response_fields: fields_of(&written.headers.response),
        method_override: written.method_override.as_str(),
        path_policy: PathPolicyOutline {
            dot_segments: match policy.dot_segments {
                DotSegments::Reject => config::DotSegments::Reject.as_str(),
                DotSegments::Decode => config::DotSegments::Decode.as_str(),
            },
            double_slash: action(policy.double_slash),
            encoded_slash: action(policy.encoded_slash),
            backslash: action(policy.backslash),
        },
        upgrade: written.upgrade.as_str(),
    }
}

fn origin_text(origin: &config::Origin) -> String {
    match origin {
        config::Origin::Any => "*".to_owned(),
        config::Origin::Exactly(origin) => origin.clone(),
    }
}

/// Returns the names of changed fields, without their values: a value may be a secret.
fn fields_of(rules: &config::HeaderRules) -> Vec<String> {
    let removed = rules.remove.iter().map(ToString::to_string);
    let renamed = rules
        .rename
        .iter()
        .flat_map(|(old, new)| [old.to_string(), new.to_string()]);
    let written = rules
        .set
        .iter()
        .chain(rules.add.iter())
        .map(|(name, _)| name.to_string());
    let mut names: Vec<_> = removed.chain(renamed).chain(written).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns every path policy that a route uses, that of the top level first; empty if all routes refuse ambiguous
/// paths.
pub(super) fn path_policies(config: &config::Config) -> Vec<PathPolicy> {
    let mut policies = vec![policy_of(&config.path_policy, &config::PathPolicy::default())];
    for (_, route) in config.routes.iter() {
        let policy = path_policy(config, route);
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    if policies == [PathPolicy::default()] {
        policies.clear();
    }
    policies
}

fn path_policy(config: &config::Config, written: &config::Route) -> PathPolicy {
    policy_of(&written.path_policy, &config.path_policy)
}

fn policy_of(own: &config::PathPolicy, top: &config::PathPolicy) -> PathPolicy {
    let config::PathPolicy {
        dot_segments,
        double_slash,
        encoded_slash,
        backslash,
    } = own;
    let action = |own: &Option<At<config::PathAction>>, top: &Option<At<config::PathAction>>| match own
        .as_ref()
        .or(top.as_ref())
        .map(|at| at.value)
    {
        None | Some(config::PathAction::Reject) => Action::Reject,
        Some(config::PathAction::Decode) => Action::Decode,
        Some(config::PathAction::Keep) => Action::Keep,
    };
    let dots = dot_segments.as_ref().or(top.dot_segments.as_ref());
    PathPolicy {
        dot_segments: match dots.map(|at| at.value) {
            None | Some(config::DotSegments::Reject) => DotSegments::Reject,
            Some(config::DotSegments::Decode) => DotSegments::Decode,
        },
        double_slash: action(double_slash, &top.double_slash),
        encoded_slash: action(encoded_slash, &top.encoded_slash),
        backslash: action(backslash, &top.backslash),
    }
}

fn security_of(config: &config::Config, written: &config::Route) -> Option<SecurityHeaders> {
    match written
        .security_headers
        .as_ref()
        .unwrap_or(&config.security_headers)
        .value
    {
        config::SecurityHeaders::Off => None,
        config::SecurityHeaders::Api => Some(SecurityHeaders::Api),
        config::SecurityHeaders::Page => Some(SecurityHeaders::Page),
    }
}

fn address_list(compiler: &mut Compiler<'_>, name: &str, written: &config::Addresses) -> Option<AddressList> {
    let config::Addresses { allow, deny } = written;
    let networks = |list: &[At<ipnet::IpNet>]| list.iter().map(|net| net.value).collect::<Vec<_>>();
    let allow = allow.as_deref().map(networks);
    (allow.is_some() || !deny.is_empty()).then(|| {
        let setting = compiler.setting(&format!("routes.{name}.access.addresses"));
        AddressList::new(allow, networks(deny), setting)
    })
}

/// Returns what to write in place of a rule for a field that rules may not change.
fn hint_of(field: &HeaderName, way: &str) -> &'static str {
    match field.as_str() {
        "host" => "take it out; `preserve_host: true` stands in the backend",
        "x-http-method-override" | "x-http-method" | "x-method-override" => {
            "take it out, and write `method_override: strip` in the route"
        }
        name if name.starts_with("x-forwarded") || name == "forwarded" => {
            "take it out; `added_headers: { forwarded: false }` sends backends none of them"
        }
        name if way == "request" && (name.starts_with("x-tenant") || name == "x-caller-id") => {
            "take it out; `added_headers: { identity: false }` sends backends none of them"
        }
        _ => "take it out; a field of another name can be set",
    }
}

/// Reports an allowed network that is denied as a whole.
fn check_addresses(compiler: &mut Compiler<'_>, name: &str, written: &config::Addresses) {
    for allowed in written.allow.iter().flatten() {
        let ends: [IpAddr; 2] = [allowed.network(), allowed.broadcast()];
        let denied = written.deny.iter().find(|net| ends.iter().all(|end| net.contains(end)));
        if let Some(denied) = denied {
            compiler.mistake(
                Mistake::new(
                    Code::Conflict,
                    allowed.span(),
                    format!("nobody could use `routes.{name}` from `{}`", allowed.value),
                )
                .label("allowed here")
                .related(denied.span(), "and denied here, which counts")
                .hint("take it out of `allow`, or make the network in `deny` smaller"),
            );
        }
    }
}

/// Reports rules that apply only to another kind of target.
fn check_target(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) {
    let (config::Target::Backend { .. } | config::Target::Split { .. }) = &written.target else {
        if let Some(at) = written.headers.request.first() {
            let message = format!("`routes.{name}.headers.request` goes with `backend` or `split` alone");
            let mistake = Mistake::new(Code::Conflict, Some(at), message);
            let hint = "take it out; a part of an aggregate has `headers` of its own";
            compiler.mistake(mistake.label("there is no one request that it could change").hint(hint));
        }
        if *written.upgrade != Upgrade::Off {
            let message = format!("`routes.{name}.upgrade` goes with `backend` or `split` alone");
            let mistake = Mistake::new(Code::Conflict, written.upgrade.span(), message);
            let hint = "take it out, or write a `backend` in place of what the route answers with";
            compiler.mistake(mistake.label("there is nobody to switch to").hint(hint));
        }
        return;
    };
    let methods = &written.matches.methods;
    if *written.upgrade == Upgrade::Websocket && !methods.is_empty() && !methods.iter().any(|at| **at == Method::GET) {
        let message = format!("no WebSocket could be opened on `routes.{name}`");
        compiler.mistake(
            Mistake::new(Code::Conflict, written.upgrade.span(), message)
                .related(methods.first().and_then(At::span), "they are opened with GET")
                .hint("add GET to the methods"),
        );
    }
}

/// Warns about a route with CORS that matches on a header field. A preflight carries field names without values, so it
/// cannot find such a route.
fn doubt_preflights(compiler: &mut Compiler<'_>, name: &str, written: &config::Route) {
    let Some((field, _)) = written.matches.headers.iter().next() else {
        return;
    };
    let own = match &written.cors {
        Some(OwnCors::On(cors)) => cors.origins.first().and_then(At::span),
        _ => None,
    };
    let top = || compiler.config.cors.as_ref()?.origins.first()?.span();
    compiler.warnings.push(
        Mistake::new(
            Code::Doubtful,
            field.span(),
            format!("no preflight finds `routes.{name}`: it is chosen by a field that a preflight does not carry"),
        )
        .related(
            own.or_else(top),
            "pages of this origin may use it, but for what needs a preflight",
        )
        .hint("choose the route by its path, host or query, or write `cors: off`"),
    );
}

fn cors_of<'c>(config: &'c config::Config, written: &'c config::Route) -> Option<&'c config::Cors> {
    match &written.cors {
        None => config.cors.as_ref(),
        Some(OwnCors::Off) => None,
        Some(OwnCors::On(cors)) => Some(cors),
    }
}

/// Returns the response rules for responses outside of any route.
pub(super) fn finish_of_top(compiler: &mut Compiler<'_>) -> Option<Arc<ResponseHeaders>> {
    let cors = compile_cors(compiler, &[], compiler.config.cors.as_ref()?, "cors");
    Some(Arc::new(ResponseHeaders {
        cors: Some(Arc::new(cors)),
        ..ResponseHeaders::default()
    }))
}

/// Compiles the CORS settings that stand at `path`. `methods` are those of the route; an empty list means all methods.
fn compile_cors(compiler: &mut Compiler<'_>, methods: &[At<Method>], written: &config::Cors, path: &str) -> Cors {
    let config = compiler.config;
    let config::Cors {
        origins,
        methods: own_methods,
        request_headers,
        expose,
        credentials,
        max_age,
    } = written;
    let origins = origins.iter().map(|origin| match &origin.value {
        config::Origin::Any => None,
        config::Origin::Exactly(origin) => HeaderValue::from_str(origin).ok(),
    });
    let origins = origins.collect::<Option<Box<[_]>>>();
    let methods = match (own_methods.as_slice(), methods) {
        ([], []) => "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned(),
        ([], methods) | (methods, _) => joined(methods.iter().map(|method| method.as_str())),
    };
    let request_headers = match request_headers {
        Some(names) => joined(names.iter().map(|name| name.as_str())),
        None => {
            let api_key = config.callers.api_keys.as_ref().map(config::ApiKeys::told_header);
            let usual = ["authorization", "content-type"].into_iter();
            joined(
                usual.chain(
                    api_key
                        .as_ref()
                        .map(HeaderName::as_str)
                        .filter(|name| *name != "authorization"),
                ),
            )
        }
    };
    let expose = match expose {
        Some(names) => joined(names.iter().map(|name| name.as_str())),
        None => joined(SAID_BY_US.into_iter()),
    };
    Cors {
        origins: origins.map_or(Origins::Any, Origins::These),
        credentials: **credentials,
        methods: value(&methods),
        request_headers: value(&request_headers),
        max_age: HeaderValue::from(max_age.as_secs()),
        expose: (!expose.is_empty()).then(|| value(&expose)),
        setting: compiler.setting(path),
    }
}

/// Response fields set by the gateway that a script in a browser may need.
const SAID_BY_US: [&str; 6] = [
    "x-request-id",
    "x-gateway-reason",
    "x-gateway-complete",
    "retry-after",
    "ratelimit",
    "ratelimit-policy",
];

fn joined<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names of methods and fields are tokens")
}

/// Context for the header rules of one route.
struct Rules<'a> {
    path: String,
    /// Path parameters that every path of the route has.
    parameters: &'a HashSet<String>,
    has_cors: bool,
}

impl Rules<'_> {
    fn compile(&self, compiler: &mut Compiler<'_>, way: &str, written: &config::HeaderRules) -> HeaderRules {
        let config::HeaderRules {
            remove: removed,
            rename: renamed,
            set: written_set,
            add: written_add,
        } = written;
        let remove = removed.iter().map(|name| (name.value.clone(), name.span()));
        let rename = renamed.iter().flat_map(|(old, new)| {
            let old_name = HeaderName::from_bytes(old.as_bytes()).ok();
            let old = old_name.map(|name| (name, old.span()));
            old.into_iter().chain([(new.value.clone(), new.span())])
        });
        let named = |(name, _): (&At<Arc<str>>, &At<String>)| {
            let field = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((field, name.span()))
        };
        let (set, add) = (
            written_set.iter().filter_map(named),
            written_add.iter().filter_map(named),
        );
        for (field, at) in remove.chain(rename).chain(set).chain(add) {
            let of_cors = self.has_cors && way == "response" && field.as_str().starts_with("access-control-");
            let why = why_kept(&field);
            if why.is_none() && !of_cors {
                continue;
            }
            let message = format!("`{}.{way}` cannot change `{field}`", self.path);
            let hint = if of_cors {
                "take it out; write `cors: { origins: [...] }` in the route, or at the top for all"
            } else {
                hint_of(&field, way)
            };
            let label = if of_cors {
                "is what the `cors` of this route says"
            } else {
                why.unwrap_or_default()
            };
            compiler.mistake(Mistake::new(Code::Conflict, at, message).label(label).hint(hint));
        }
        let set = self.values(compiler, written_set);
        let add = self.values(compiler, written_add);
        HeaderRules {
            remove: removed.iter().map(|name| name.value.clone()).collect(),
            rename: renamed
                .iter()
                .filter_map(|(old, new)| Some((HeaderName::from_bytes(old.as_bytes()).ok()?, new.value.clone())))
                .collect(),
            set,
            add,
        }
    }

    /// Compiles values with placeholders, and reports the invalid ones.
    fn values(&self, compiler: &mut Compiler<'_>, written: &NamedMap<At<String>>) -> Box<[(HeaderName, FieldValue)]> {
        let scope = Scope::of_route(self.parameters);
        let mut value = |(name, text): (&At<Arc<str>>, &At<String>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let template = scope::template(compiler, text, Syntax::Header, &scope)?;
            let value = match template.as_literal() {
                Some(text) => FieldValue::Fixed(HeaderValue::from_str(text).ok()?),
                None => FieldValue::Filled(template),
            };
            Some((name, value))
        };
        written.iter().filter_map(&mut value).collect()
    }
}
