//! Compiles an aggregate into a recipe and the calls of its parts.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::aggregate::{
    Aggregate, Conflict, Errors, FieldChoice, ForEach, Forwarded, IntoDraft, MapDraft, Mistake as RecipeMistake,
    OnFailure, OnMissing, PartCall, PartDraft, PartFallback, PartSettingIds, Partial, PathMistake, Recipe, RecipeDraft,
    Shape, ShapeDraft, Splice, StoredAnswers, Subject, Test, When,
};
use crate::config::{self, At, Code, Fallback, Mistake, Span};
use crate::headers::rules::why_kept;
use crate::json::{self, Document, Kind, Value};
use crate::plan::compile::backends::Backends;
use crate::plan::compile::caches;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::fallbacks::check_fallbacks;
use crate::plan::compile::hedges;
use crate::plan::compile::optional::transposed;
use crate::plan::compile::part_heads;
use crate::plan::compile::scope::{Item, Scope, template};
use crate::setting::Configured;
use crate::template::{Placeholder, Syntax, Template};
use http::HeaderName;

pub(super) fn compile(
    compiler: &mut Compiler<'_>,
    route: &str,
    written: &config::Aggregate,
    route_limit: Duration,
    parameters: &HashSet<String>,
    backends: &Backends,
) -> Option<Aggregate> {
    let config::Aggregate {
        partial: on_failure,
        errors,
        conflict,
        wrap,
        document,
        fields,
        body_limit,
        // Compiled with the heads of the parts.
        status: _,
        headers: _,
        forward: forwarded,
        parts,
    } = written;
    let names: Vec<&str> = parts.names().collect();
    check_forwarded(compiler, forwarded.as_deref());
    let mut drafts = Vec::new();
    let mut calls = Vec::new();
    for (name, part) in parts.iter() {
        let path = format!("routes.{route}.aggregate.parts.{name}");
        let forward = part.forward.as_deref().or(forwarded.as_deref());
        let mut call = part_call(compiler, &path, (part, forward), parameters, &names, backends);
        if let (Some(call), Some(cache)) = (&mut call, &part.cache) {
            let terms = caches::of_part(compiler.config.routes.get(route), part, cache);
            call.cache = Some(Arc::new(terms));
        }
        drafts.push(draft(compiler, &path, (name, part), call.as_ref()));
        if let Some(limit) = part.time_limit.as_ref().filter(|limit| limit.value > route_limit) {
            compiler.mistake(
                Mistake::new(
                    Code::OverParent,
                    limit.span(),
                    format!("part `{name}` of `routes.{route}` may take longer than its route"),
                )
                .hint(format!(
                    "the route has {}: lower the part's limit or raise the route's",
                    config::duration_text(route_limit)
                )),
            );
        }
        if part.body_limit.is_written() && part.body_limit.0 > body_limit.0 {
            let message = format!("part `{name}` of `routes.{route}` may answer with more than all its parts together");
            let hint = "lower the part's `body_limit`, or raise that of the aggregate";
            let mistake = Mistake::new(Code::OverParent, part.body_limit.span(), message).hint(hint);
            compiler.mistake(mistake.related(body_limit.span(), "all parts together"));
        }
        if let Some(for_each) = &part.for_each
            && **on_failure == config::Partial::Deny
            && *for_each.on_failure != config::OnFailure::Fail
        {
            let word = for_each.on_failure.as_str();
            let message = format!("part `{name}` of `routes.{route}` cannot go on without an element (`{word}`)");
            compiler.mistake(
                Mistake::new(Code::Conflict, for_each.on_failure.span(), message)
                    .label("is never used")
                    .hint("`partial: deny`, the default, turns any failure into an error; write `partial: allow`"),
            );
        }
        doubt_fallback_value(compiler, part);
        part_heads::check_status_test(compiler, written, part);
        for written in [&part.group, &part.collection].into_iter().flatten() {
            check_name(compiler, written, "a part of the answer");
        }
        calls.push(call);
    }
    let room = check_fits(compiler, body_limit, &format!("`routes.{route}` gathers answers"));
    if let Some(name) = wrap {
        check_name(compiler, name, "the answer");
    }
    if let (Some(document), true) = (document, conflict.is_written()) {
        let message = format!(
            "`conflict` never counts in `routes.{route}`: part `{}` is the whole answer",
            document.value
        );
        compiler.mistake(Mistake::new(Code::Conflict, conflict.span(), message).hint("drop it, or `document`"));
    }
    let choice = fields.as_ref().map(|fields| field_choice(compiler, route, fields));
    let heads = part_heads::compile(compiler, written);
    let calls = calls.into_iter().collect::<Option<Vec<_>>>();
    let partial = match **on_failure {
        config::Partial::Deny => Partial::Deny,
        config::Partial::Allow => Partial::Allow,
    };
    let recipe = RecipeDraft {
        parts: drafts,
        partial,
        conflict: match **conflict {
            config::Conflict::Last => Conflict::Last,
            config::Conflict::First => Conflict::First,
            config::Conflict::Deep => Conflict::Deep,
            config::Conflict::Concat => Conflict::Concat,
            config::Conflict::Error => Conflict::Error,
        },
        errors: match **errors {
            config::Errors::False => Errors::Unlisted,
            config::Errors::True => Errors::Listed,
            config::Errors::Details => Errors::Detailed,
        },
        wrap: wrap.as_ref().map(|name| name.value.clone()),
        document: document
            .as_ref()
            .filter(|part| compiler.resolve("part", part, parts).is_some())
            .map(|part| part.value.clone()),
        body_limit: Some(Configured {
            value: usize::try_from(room).unwrap_or(usize::MAX),
            by: compiler.setting(&format!("routes.{route}.aggregate.body_limit")),
        }),
    };
    let recipe = match Recipe::compile(recipe) {
        Ok(recipe) => recipe,
        Err(mistakes) => {
            for mistake in mistakes {
                report(compiler, route, written, &mistake);
            }
            return None;
        }
    };
    check_critical_path(compiler, route, written, &recipe, route_limit);
    let answers = StoredAnswers {
        cache: Arc::clone(&compiler.state.responses),
        metrics: compiler.state.observer.registry.route(route),
        are_used: caches::has_any(compiler.config),
    };
    let of_conflict = compiler.setting(&format!("routes.{route}.aggregate.conflict"));
    Some(Aggregate::new(
        Arc::from(route),
        recipe,
        calls?,
        heads?,
        transposed(choice)?,
        answers,
        of_conflict,
    ))
}

/// Compiles which fields of the document a caller may choose.
fn field_choice(compiler: &mut Compiler<'_>, route: &str, written: &config::CallersFields) -> Option<FieldChoice> {
    let config::CallersFields { parameter, allow } = written;
    let by = compiler.setting(&format!("routes.{route}.aggregate.fields"));
    let mut choice = FieldChoice::new(&parameter.value, by);
    let mut are_sound = true;
    for path in allow {
        if let Err(mistake) = choice.allow(&path.value) {
            let (code, why) = match mistake {
                PathMistake::SameName => (Code::DuplicateKey, "it is there already"),
                other => (Code::BadValue, other.hint()),
            };
            let message = format!("`routes.{route}.aggregate.fields`: path `{}`: {why}", path.value);
            compiler.mistake(Mistake::new(code, path.span(), message));
            are_sound = false;
        }
    }
    are_sound.then_some(choice)
}

fn part_call(
    compiler: &mut Compiler<'_>,
    path: &str,
    (part, forwarded): (&config::Part, Option<&[At<config::ForwardedField>]>),
    parameters: &HashSet<String>,
    parts: &[&str],
    backends: &Backends,
) -> Option<PartCall> {
    let config::Part {
        backend,
        path: target,
        method,
        query,
        headers,
        forward,
        body,
        when: condition,
        for_each: elements,
        time_limit,
        body_limit,
        fallback,
        hedge,
        // Compiled in `compile`.
        cache: _,
        // Compiled in `defaults` and in `draft`.
        missing: _,
        // Compiled in `draft`, for the recipe.
        needs: _,
        required: _,
        target: _,
        keep: _,
        drop: _,
        rename: _,
        copy: _,
        moves: _,
        map: _,
        defaults: _,
        group: _,
        collection: _,
    } = part;
    compiler.resolve("backend", backend, &compiler.config.backends);
    check_forwarded(compiler, forward.as_deref());
    let scope = Scope {
        parameters,
        parts,
        body: true,
        item: if elements.is_some() {
            Item::Each
        } else {
            Item::NoneInPart
        },
    };
    let target = template(compiler, target, Syntax::Path, &scope);
    let query: Vec<_> = query
        .iter()
        .map(|(name, value)| Some((name.to_string(), template(compiler, value, Syntax::Query, &scope)?)))
        .collect();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            let field = HeaderName::from_str(name).ok()?;
            check_field(compiler, name, &field);
            Some((field, template(compiler, value, Syntax::Header, &scope)?))
        })
        .collect();
    let body = body.as_ref().map(|body| {
        if !texts_are_sound(compiler, body.value.value(), body.span()) {
            return None;
        }
        let mut text = String::new();
        write_body(body.value.value(), &mut text);
        template(compiler, &body.as_ref().map(|_| text), Syntax::Json, &scope)
    });
    let when = condition.as_ref().map(|written| when(compiler, written, &scope));
    let over = elements.as_ref().map(|written| for_each(compiler, written, &scope));
    let mut call = PartCall {
        backend: backends.get(backend).cloned()?,
        method: method.value.clone(),
        target: target?,
        query: query.into_iter().collect::<Option<_>>()?,
        headers: headers.into_iter().collect::<Option<_>>()?,
        forward: forwarded.map_or(Forwarded::AllButCredentials, forwarded_fields),
        body: transposed(body)?,
        when: transposed(when)?,
        for_each: transposed(over)?,
        defaults: Box::default(),
        fallbacks: fallbacks(compiler, backend, fallback, backends)?,
        cache: None,
        hedge: hedge
            .as_ref()
            .map(|written| hedges::compile(compiler, backend, written)),
        time_limit: time_limit.as_ref().map(|limit| limit.value),
        body_limit: Configured {
            value: usize::try_from(body_limit.0).unwrap_or(usize::MAX),
            by: compiler.setting(&format!("{path}.body_limit")),
        },
        ids: PartSettingIds {
            part: compiler.setting(path),
            time_limit: compiler.setting(&format!("{path}.time_limit")),
            element_limit: compiler.setting(&format!("{path}.for_each.limit")),
        },
    };
    call.defaults = defaults(compiler, part, &call)?;
    Some(call)
}

/// Caps a size limit at a quarter of the JSON budget: JSON counts twice, and one tenant may use half of the budget. A
/// written limit above that is a mistake.
pub(super) fn check_fits(compiler: &mut Compiler<'_>, limit: &At<config::ByteSize>, what: &str) -> u64 {
    let total = &compiler.config.request_limits.json_total;
    let room = total.0 / 4;
    if limit.0 > room && limit.is_written() {
        let message = format!("{what} that are longer than there is ever room for");
        let mistake = Mistake::new(Code::OverParent, limit.span(), message);
        let mistake = mistake.hint("raise `request_limits.json_total` to four times this limit, or lower the limit");
        compiler.mistake(mistake.related(total.span(), "all JSON together"));
    }
    limit.0.min(room)
}

fn check_name(compiler: &mut Compiler<'_>, name: &At<String>, of: &str) {
    if name.is_empty() {
        let message = format!("{of} cannot stand under an empty name");
        let hint = "leave it out, or write `group: .` to merge a part at the root";
        compiler.mistake(Mistake::new(Code::BadValue, name.span(), message).hint(hint));
    }
}

fn forwarded_fields(written: &[At<config::ForwardedField>]) -> Forwarded {
    let names: Option<Arc<[HeaderName]>> = written
        .iter()
        .map(|field| match &field.value {
            config::ForwardedField::All => None,
            config::ForwardedField::Named(name) => Some(name.clone()),
        })
        .collect();
    names.map_or(Forwarded::All, Forwarded::Named)
}

/// Reports fields that parts do not get from the caller whatever is written.
fn check_forwarded(compiler: &mut Compiler<'_>, written: Option<&[At<config::ForwardedField>]>) {
    for field in written.unwrap_or_default() {
        if let config::ForwardedField::Named(name) = &field.value
            && let Some(why) = Forwarded::why_never(name)
        {
            let message = format!("no part gets `{name}` of the caller's");
            compiler.mistake(
                Mistake::new(Code::Conflict, field.span(), message)
                    .label(why)
                    .hint("take it out"),
            );
        }
    }
}

/// Checks that a part may set this field of its request.
fn check_field(compiler: &mut Compiler<'_>, name: &At<Arc<str>>, field: &HeaderName) {
    let label = if let Some(why) = why_kept(field) {
        why
    } else if matches!(field.as_str(), "accept-encoding" | "content-encoding") {
        "what is encoded cannot be merged, and what is sent is plain JSON"
    } else {
        return;
    };
    let message = format!("a part cannot set `{field}`");
    let hint = "take it out; a part can set fields of other names";
    compiler.mistake(
        Mistake::new(Code::Conflict, name.span(), message)
            .label(label)
            .hint(hint),
    );
}

/// Warns about a fallback value without the target. A value has the shape of the backend's answer, so the target must
/// exist in it.
fn doubt_fallback_value(compiler: &mut Compiler<'_>, part: &config::Part) {
    let Some(target) = &part.target else { return };
    let draft = ShapeDraft {
        target: Some(target.value.clone()),
        ..ShapeDraft::default()
    };
    let Ok(shape) = Shape::compile(&draft) else { return };
    for fallback in &part.fallback {
        if let Fallback::Value(value) = fallback
            && !shape.has_target(value.value.value())
        {
            let message = format!("the fallback has nothing at `{}`, so `{{}}` stands in", target.value);
            let hint = "write the value as the backend would answer it, with what `target` leads to";
            let doubt = Mistake::new(Code::Doubtful, value.span(), message).hint(hint);
            compiler.warnings.push(doubt.related(target.span(), "of this only"));
        }
    }
}

/// Compiles the fallbacks that come before a value. The recipe itself inserts the value.
fn fallbacks(
    compiler: &mut Compiler<'_>,
    own: &str,
    written: &[Fallback],
    backends: &Backends,
) -> Option<Vec<PartFallback>> {
    check_fallbacks(compiler, written, Some(own));
    let compiled: Vec<_> = written
        .iter()
        .filter_map(|fallback| match fallback {
            Fallback::Value(_) => None,
            Fallback::Stale(within) => Some(Some(PartFallback::Stale(**within))),
            Fallback::Backend(name) => Some(backends.get(name).cloned().map(PartFallback::Backend)),
        })
        .collect();
    compiled.into_iter().collect()
}

/// Writes a JSON template as text. A string that is a single placeholder loses its quotes, so that the value keeps its
/// type.
fn write_body(value: Value<'_>, out: &mut String) {
    match (value.kind(), value.text()) {
        (Kind::Object, _) => {
            out.push_str("{{");
            for (index, (name, value)) in value.members().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(&name.text()).replace('{', "{{").replace('}', "}}"));
                out.push(':');
                write_body(value, out);
            }
            out.push_str("}}");
        }
        (Kind::Array, _) => {
            out.push('[');
            for (index, item) in value.elements().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_body(item, out);
            }
            out.push(']');
        }
        (_, Some(text)) if Placeholder::alone(&text).is_some() => out.push_str(&text),
        (_, Some(text)) => {
            out.push('"');
            write_text(&text, out);
            out.push('"');
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::write_string(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes the content of a JSON string. Literals are escaped; placeholder names in braces are not.
fn write_text(text: &str, out: &mut String) {
    let escaped = |literal: &str| {
        let quoted = quoted(literal);
        quoted[1..quoted.len() - 1].to_owned()
    };
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let end = match &rest[start + 1..] {
            doubled if doubled.starts_with('{') => start + 2,
            name => name.find('}').map_or(rest.len(), |end| start + end + 2),
        };
        out.push_str(&escaped(&rest[..start]));
        out.push_str(&rest[start..end]);
        rest = &rest[end..];
    }
    out.push_str(&escaped(rest));
}

/// Checks that every string in a body is a template by itself. In the whole text, braces of different strings could
/// form a pair.
fn texts_are_sound(compiler: &mut Compiler<'_>, value: Value<'_>, at: Option<Span>) -> bool {
    // Checks all strings, so that all mistakes are reported.
    let mut are_sound = true;
    for value in value.elements().chain(value.members().map(|(_, value)| value)) {
        are_sound &= texts_are_sound(compiler, value, at);
    }
    let Some(text) = value.text() else {
        return are_sound;
    };
    Template::parse(&text, Syntax::Json)
        .map_err(|error| {
            let message = format!("`{text}` in the body: {error}");
            compiler.mistake(Mistake::new(Code::BadValue, at, message));
        })
        .is_ok()
}

/// Parses a text that must be one placeholder in braces, valid in this scope.
fn placeholder(compiler: &mut Compiler<'_>, text: &At<String>, scope: &Scope<'_>) -> Option<Placeholder> {
    let Some(found) = Placeholder::alone(text) else {
        let message = format!("`{}` is not one placeholder", **text);
        let hint = "write for example `\"{part.NAME.FIELD}\"`, with its braces and quotes";
        compiler.mistake(Mistake::new(Code::BadValue, text.span(), message).hint(hint));
        return None;
    };
    scope.admits(compiler, &found, text.span()).then_some(found)
}

fn when(compiler: &mut Compiler<'_>, written: &config::When, scope: &Scope<'_>) -> Option<When> {
    let config::When { subject, test } = written;
    let subject = match subject {
        // A condition is evaluated once and not per element.
        config::Subject::Value(text) => {
            let scope = scope.before_each();
            placeholder(compiler, text, &scope).map(Subject::Value)
        }
        config::Subject::Status(part) => {
            let named = Placeholder::Part {
                part: part.as_str().into(),
                steps: Box::default(),
            };
            scope
                .admits(compiler, &named, part.span())
                .then(|| Subject::Status(part.value.clone()))
        }
    };
    let test = match test {
        config::Test::Exists(wanted) => Test::Exists(**wanted),
        config::Test::Is(wanted) => Test::Is(wanted.value.clone()),
        config::Test::IsNot(wanted) => Test::IsNot(wanted.value.clone()),
        config::Test::In(wanted) => match wanted.value.value() {
            any if any.kind() == Kind::Array => Test::In(any.elements().map(|one| wanted.value.share(one)).collect()),
            _ => Test::In(vec![wanted.value.clone()]),
        },
    };
    Some(When {
        subject: subject?,
        test,
    })
}

fn for_each(compiler: &mut Compiler<'_>, written: &config::ForEach, scope: &Scope<'_>) -> Option<ForEach> {
    let config::ForEach {
        over: array,
        limit,
        at_once,
        on_failure,
        into,
    } = written;
    let scope = scope.before_each();
    let over = placeholder(compiler, array, &scope)?;
    if matches!(
        over,
        Placeholder::Path(_) | Placeholder::Query(_) | Placeholder::Header(_)
    ) {
        let message = format!("`{}` is text and never an array", **array);
        let hint = "an array comes from an answer, the request's body, or a claim";
        compiler.mistake(Mistake::new(Code::BadValue, array.span(), message).hint(hint));
    }
    Some(ForEach {
        over,
        limit: **limit as usize,
        at_once: **at_once as usize,
        on_failure: match **on_failure {
            config::OnFailure::Fail => OnFailure::Fail,
            config::OnFailure::Omit => OnFailure::Omit,
            config::OnFailure::Null => OnFailure::Null,
        },
        embeds: into.is_some(),
    })
}

/// Compiles the defaults. Each must belong to a placeholder that the part uses.
fn defaults(
    compiler: &mut Compiler<'_>,
    part: &config::Part,
    call: &PartCall,
) -> Option<Box<[(Placeholder, Document)]>> {
    let config::OnMissing::Default(written) = &part.missing else {
        return Some(Box::default());
    };
    let found = written.iter().map(|(name, value)| {
        let named = Placeholder::alone(&format!("{{{name}}}")).filter(|named| call.uses().any(|used| used == named));
        if named.is_none() {
            let mut used: Vec<_> = call.uses().map(ToString::to_string).collect();
            used.sort_unstable();
            used.dedup();
            let hint = match used.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has: {}", used.join(", ")),
            };
            let message = format!("the part has no placeholder `{name}`");
            compiler.mistake(Mistake::new(Code::UnknownName, name.span(), message).hint(hint));
        }
        Some((named?, value.value.clone()))
    });
    found.collect::<Vec<_>>().into_iter().collect()
}

/// Returns what the recipe has to know of a part. A call that cannot be made has no placeholders.
fn draft(
    compiler: &mut Compiler<'_>,
    path: &str,
    (name, part): (&str, &config::Part),
    call: Option<&PartCall>,
) -> PartDraft {
    let uses = call.into_iter().flat_map(PartCall::uses);
    let splices = uses.filter_map(|placeholder| match placeholder {
        Placeholder::Part { part, steps } => Some(Splice {
            part: part.to_string(),
            steps: steps.clone(),
        }),
        _ => None,
    });
    let conditions = call.into_iter().filter_map(|call| call.when.as_ref());
    let after = conditions.filter_map(|when| match &when.subject {
        Subject::Status(part) => Some(part.clone()),
        Subject::Value(_) => None,
    });
    PartDraft {
        name: name.to_owned(),
        required: *part.required,
        needs: texts(&part.needs),
        splices: splices.collect(),
        after: after.collect(),
        on_missing: match part.missing {
            config::OnMissing::Skip => OnMissing::Skip,
            config::OnMissing::Fail | config::OnMissing::Default(_) => OnMissing::Fail,
        },
        each: part.for_each.is_some(),
        shape: shape(part),
        // JSON counts twice where memory is reserved, so shaping may double an answer.
        room: Some(Configured {
            value: usize::try_from(part.body_limit.0.saturating_mul(2)).unwrap_or(usize::MAX),
            by: compiler.setting(&format!("{path}.body_limit")),
        }),
        into: part.for_each.as_ref().and_then(|each| {
            let list = match Placeholder::alone(&each.over)? {
                Placeholder::Part { part, steps } => Some(Splice {
                    part: part.to_string(),
                    steps: steps.clone(),
                }),
                _ => None,
            };
            Some(IntoDraft {
                path: each.into.as_ref()?.value.clone(),
                list,
                leaves_out_null: *each.on_failure != config::OnFailure::Null,
            })
        }),
        group: part.group.as_ref().map(|group| group.value.clone()),
        collection: part.collection.as_ref().map(|name| name.value.clone()),
        fallback: part.fallback.iter().find_map(|fallback| match fallback {
            Fallback::Value(value) => Some(value.value.clone()),
            Fallback::Stale(_) | Fallback::Backend(_) => None,
        }),
    }
}

fn pairs(written: &config::NamedMap<At<String>>) -> Vec<(String, String)> {
    let pair = |(from, to): (&At<Arc<str>>, &At<String>)| (from.to_string(), to.value.clone());
    written.iter().map(pair).collect()
}

fn values(written: &config::NamedMap<At<Document>>) -> Vec<(String, Document)> {
    let pair = |(path, value): (&At<Arc<str>>, &At<Document>)| (path.to_string(), value.value.clone());
    written.iter().map(pair).collect()
}

fn texts(written: &[At<String>]) -> Vec<String> {
    written.iter().map(|text| text.value.clone()).collect()
}

/// Returns how a part's answer is shaped.
fn shape(part: &config::Part) -> ShapeDraft {
    ShapeDraft {
        target: part.target.as_ref().map(|path| path.value.clone()),
        keep: texts(&part.keep),
        drop: texts(&part.drop),
        rename: pairs(&part.rename),
        copies: pairs(&part.copy),
        moves: pairs(&part.moves),
        maps: part.map.iter().map(map).collect(),
        defaults: values(&part.defaults),
    }
}

/// Returns how the elements of an array are shaped.
fn map(written: &config::ElementShape) -> MapDraft {
    let config::ElementShape {
        at,
        target,
        keep,
        drop,
        rename,
        copy,
        moves,
        defaults,
    } = written;
    MapDraft {
        at: at.as_ref().map(|path| path.value.clone()),
        shape: ShapeDraft {
            target: target.as_ref().map(|path| path.value.clone()),
            keep: texts(keep),
            drop: texts(drop),
            rename: pairs(rename),
            copies: pairs(copy),
            moves: pairs(moves),
            maps: Vec::new(),
            defaults: values(defaults),
        },
    }
}

/// Returns where a path of a part's shape is written.
fn place_of(part: &config::Part, key: &str, path: &str) -> Option<Span> {
    let listed = |all: &[At<String>]| all.iter().find(|one| one.value == path).and_then(At::span);
    let named = |all: &config::NamedMap<At<String>>| all.entry(path).and_then(|(name, _)| name.span());
    let value = |all: &config::NamedMap<At<Document>>| all.entry(path).and_then(|(name, _)| name.span());
    let alone = |one: &Option<At<String>>| one.as_ref().filter(|one| one.value == path).and_then(At::span);
    let of_map = |map: &config::ElementShape| match key {
        "map.at" => alone(&map.at),
        "target" => alone(&map.target),
        "keep" => listed(&map.keep),
        "drop" => listed(&map.drop),
        "rename" => named(&map.rename),
        "copy" => named(&map.copy),
        "move" => named(&map.moves),
        "defaults" => value(&map.defaults),
        _ => None,
    };
    let own = match key {
        "target" => alone(&part.target),
        "keep" => listed(&part.keep),
        "drop" => listed(&part.drop),
        "rename" => named(&part.rename),
        "copy" => named(&part.copy),
        "move" => named(&part.moves),
        "defaults" => value(&part.defaults),
        "into" => part.for_each.as_ref().and_then(|each| alone(&each.into)),
        _ => alone(&part.group).or_else(|| alone(&part.collection)),
    };
    own.or_else(|| part.map.iter().find_map(of_map))
}

fn report(compiler: &mut Compiler<'_>, route: &str, written: &config::Aggregate, mistake: &RecipeMistake) {
    let (code, part) = match mistake {
        RecipeMistake::UnknownNeed { part, .. } => (Code::UnknownName, Some(part)),
        RecipeMistake::Cycle { parts } => (Code::Cycle, parts.first()),
        RecipeMistake::NoParts => (Code::MissingKey, None),
        RecipeMistake::DuplicatePart { part } => (Code::DuplicateKey, Some(part)),
        RecipeMistake::BadPath { part, .. } => (Code::BadValue, Some(part)),
        RecipeMistake::UselessFallback { part, .. } => (Code::Conflict, Some(part)),
        RecipeMistake::UnplacedFallback { part } => (Code::BadValue, Some(part)),
        RecipeMistake::BadWrap { .. } => (Code::BadValue, None),
        RecipeMistake::ReservedWrap => (Code::Conflict, None),
        RecipeMistake::ReservedName { part } => (Code::Conflict, Some(part)),
        RecipeMistake::IntoWithoutList { part } | RecipeMistake::IntoElsewhere { part, .. } => {
            (Code::BadValue, Some(part))
        }
        RecipeMistake::IntoAndPlace { part }
        | RecipeMistake::IntoAndFallback { part, .. }
        | RecipeMistake::IntoTaken { part, .. }
        | RecipeMistake::IntoHidden { part, .. }
        | RecipeMistake::PlaceBesideDocument { part, .. } => (Code::Conflict, Some(part)),
        RecipeMistake::UnknownDocument { .. } => (Code::UnknownName, None),
        RecipeMistake::DocumentIsPutElsewhere { .. } | RecipeMistake::ErrorsBesideDocument => (Code::Conflict, None),
    };
    let at = part
        .and_then(|part| written.parts.entry(part))
        .and_then(|(name, _)| name.span());
    let at = match mistake {
        RecipeMistake::BadWrap { .. } | RecipeMistake::ReservedWrap => written.wrap.as_ref().and_then(At::span),
        RecipeMistake::UnknownDocument { .. } | RecipeMistake::DocumentIsPutElsewhere { .. } => {
            written.document.as_ref().and_then(At::span)
        }
        RecipeMistake::ErrorsBesideDocument => written.errors.span(),
        _ => precise_place(written, mistake).or(at),
    };
    let mut made = Mistake::new(code, at, format!("`routes.{route}.aggregate`: {mistake}"));
    made.hint = mistake.hint();
    let other = match mistake {
        RecipeMistake::IntoTaken { other, .. } => {
            written.parts.get(other).and_then(into_span).map(|at| (at, "also here"))
        }
        RecipeMistake::IntoHidden { host, by, .. } => {
            let host = written.parts.get(host);
            let drop = host.and_then(|host| host.drop.first().and_then(At::span));
            let target = host.and_then(|host| host.target.as_ref().and_then(At::span));
            if *by == "target" { target } else { drop }.map(|at| (at, "taken away here"))
        }
        RecipeMistake::PlaceBesideDocument { .. } => written
            .document
            .as_ref()
            .and_then(At::span)
            .map(|at| (at, "the whole answer")),
        _ => None,
    };
    if let Some((at, label)) = other {
        made = made.related(Some(at), label);
    }
    compiler.mistake(made);
}

fn into_span(part: &config::Part) -> Option<Span> {
    part.for_each.as_ref()?.into.as_ref().and_then(At::span)
}

/// Returns where within a part a mistake is written.
fn precise_place(written: &config::Aggregate, mistake: &RecipeMistake) -> Option<Span> {
    match mistake {
        RecipeMistake::BadPath { part, key, path, .. } => place_of(written.parts.get(part)?, key, path),
        RecipeMistake::IntoWithoutList { part } => written
            .parts
            .get(part)?
            .for_each
            .as_ref()
            .and_then(|each| each.over.span()),
        RecipeMistake::IntoElsewhere { part, .. }
        | RecipeMistake::IntoTaken { part, .. }
        | RecipeMistake::IntoHidden { part, .. } => into_span(written.parts.get(part)?),
        RecipeMistake::IntoAndPlace { part } | RecipeMistake::PlaceBesideDocument { part, .. } => {
            let part = written.parts.get(part)?;
            part.group.as_ref().or(part.collection.as_ref()).and_then(At::span)
        }
        _ => None,
    }
}

/// Checks that the written limits of sequential parts add up to no more than the route's limit.
fn check_critical_path(
    compiler: &mut Compiler<'_>,
    route: &str,
    written: &config::Aggregate,
    recipe: &Recipe,
    route_limit: Duration,
) {
    let limits: Vec<_> = written
        .parts
        .iter()
        .map(|(_, part)| part.time_limit.as_ref().map_or(Duration::ZERO, |limit| **limit))
        .collect();
    let path = recipe.critical_path(|part| limits[part]);
    if limits.iter().any(|limit| *limit > route_limit) || path.time <= route_limit {
        return;
    }
    let chain: Vec<_> = path
        .parts
        .iter()
        .filter_map(|part| written.parts.iter().nth(*part))
        .collect();
    let names: Vec<_> = chain.iter().map(|(name, _)| format!("`{name}`")).collect();
    let at = chain.last().and_then(|(name, part)| {
        let need = part.needs.first().and_then(At::span);
        need.or(name.span())
    });
    let mut mistake = Mistake::new(
        Code::OverParent,
        at,
        format!(
            "{} of `routes.{route}` may take {}, the route {}",
            names.join(" and then "),
            config::duration_text(path.time),
            config::duration_text(route_limit)
        ),
    )
    .hint("lower the limits along the chain of `needs`, or raise the route's");
    for (_, part) in &chain {
        if let Some(limit) = &part.time_limit {
            mistake = mistake.related(limit.span(), "on the chain");
        }
    }
    compiler.mistake(mistake);
}

#[cfg(test)]
mod tests {
    use crate::message::FieldMap;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::{Paths, Selection};
    use crate::template::{Captures, Query, Sources};

    /// Returns the body that is sent if the config writes `body` and the element is `item`.
    fn sent(body: &Value, item: &Value) -> Result<Value, String> {
        let text = written(&Document::of(body), &Document::of(item))?;
        serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))
    }

    fn written(body: &Document, item: &Document) -> Result<String, String> {
        let mut text = String::new();
        write_body(body.value(), &mut text);
        let template = Template::parse(&text, Syntax::Json).map_err(|error| error.to_string())?;
        let wanted = template.uses().filter_map(|used| match used {
            Placeholder::Item(steps) => Some(&**steps),
            _ => None,
        });
        let item = Selection::of(item, &Arc::new(Paths::new(wanted)));
        let sources = Sources {
            captures: &Captures::new("", &[], smallvec::SmallVec::new()),
            query: &Query::default(),
            headers: &FieldMap::new(),
            claims: None,
            parts: &|_| None,
            body: None,
            item: Some(&item),
            defaults: &[],
        };
        let mut out = String::new();
        template
            .render(&sources, &mut out)
            .map_err(|missing| missing.placeholder)?;
        Ok(out)
    }

    #[test]
    fn a_body_is_what_is_written_with_its_values() {
        let check = |body: Value, item: Value, expected: Value| {
            assert_eq!(sent(&body, &item), Ok(expected), "{body} with {item}");
        };
        let literal = json!({ "a{b": [1, "x\"\\\n", null, true, {}, []], "": "" });
        check(literal.clone(), json!(1), literal);
        let number = Document::check(&"12345678901234567890.10".into(), 100).expect("a number");
        let body = Document::of(&json!({ "n": "{item}" }));
        assert_eq!(
            written(&body, &number).as_deref(),
            Ok(r#"{"n":12345678901234567890.10}"#)
        );
        for whole in [
            json!(null),
            json!([1, "{item}"]),
            json!({ "x": {} }),
            json!("7"),
            json!(false),
        ] {
            check(json!(["{item}"]), whole.clone(), json!([whole]));
        }
        check(json!("{{item}} is {item}"), json!(7), json!("{item} is 7"));
        check(json!("{item}{item}"), json!("a"), json!("aa"));
        check(
            json!("\"{item.say \"hi\"}\""),
            json!({ "say \"hi\"": "\"" }),
            json!("\"\"\""),
        );
        assert_eq!(sent(&json!({ "x": "{item.y}" }), &json!({})), Err("item.y".to_owned()));
        assert_eq!(sent(&json!("a {item}"), &json!([])), Err("item".to_owned()));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        #[test]
        fn no_value_and_no_literal_leaves_its_place(value in any::<String>(), literal in any::<String>(), name in any::<String>()) {
            let doubled = literal.replace('{', "{{").replace('}', "}}");
            let body = json!({ &name: "{item}", "list": [format!("{doubled}{{item}}{doubled}"), &doubled] });
            let expected = json!({ &name: &value, "list": [format!("{literal}{value}{literal}"), &literal] });
            prop_assert_eq!(sent(&body, &json!(value)), Ok(expected));
        }
    }
}
