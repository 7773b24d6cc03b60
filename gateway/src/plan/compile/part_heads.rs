//! Compiles the use of part heads in an aggregate: for the status and fields of the response, and in `when` conditions.
//!
//! A use that can never take effect is reported as a mistake, because at run time it would show no error.

use std::str::FromStr;

use http::HeaderName;

use crate::aggregate::Heads;
use crate::config::{self, At, Code, Mistake};
use crate::json::{Kind, Value};
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::optional::transposed;

/// Resolves the parts whose heads are used to their indexes.
pub(super) fn compile(compiler: &mut Compiler<'_>, written: &config::Aggregate) -> Option<Heads> {
    doubt_validators(compiler, written);
    let mut index_of = |part: &At<String>| {
        let index = written.parts.names().position(|name| name == **part);
        if index.is_none() {
            compiler.mistake(written.parts.unknown("part", part));
        }
        check_one_answer(compiler, written, part);
        index
    };
    let status = written.status.as_ref().map(&mut index_of);
    let passed: Vec<_> = written
        .headers
        .iter()
        .map(|(name, parts)| {
            let parts: Vec<_> = parts.iter().map(&mut index_of).collect();
            Some((
                HeaderName::from_str(name).ok()?,
                parts.into_iter().collect::<Option<_>>()?,
            ))
        })
        .collect();
    let mut passed: Vec<(HeaderName, Vec<usize>)> = passed.into_iter().collect::<Option<_>>()?;
    passed.retain(|(name, _)| !VALIDATORS.contains(&name.as_str()));
    Some(Heads {
        passed,
        status: transposed(status)?,
    })
}

/// Fields that identify a version of a document. Those of a part identify the part only, so they are not passed on.
const VALIDATORS: [&str; 2] = ["etag", "last-modified"];

fn doubt_validators(compiler: &mut Compiler<'_>, written: &config::Aggregate) {
    let names = written.headers.iter().map(|(name, _)| name);
    for name in names.filter(|name| VALIDATORS.contains(&&*name.value)) {
        let message = format!(
            "`{}` of a part is not passed on: it would stand for many documents",
            **name
        );
        let hint = match &*name.value {
            "etag" => "leave it out: the gateway makes the `ETag` of the whole, and answers `If-None-Match`",
            _ => "leave it out: the whole has an `ETag` that the gateway makes, and it needs no date",
        };
        let doubt = Mistake::new(Code::Doubtful, name.span(), message).hint(hint);
        compiler.warnings.push(doubt);
    }
}

/// Reports a `for_each` part, which has one head per element and none for the whole part.
fn check_one_answer(compiler: &mut Compiler<'_>, written: &config::Aggregate, named: &At<String>) {
    let over = written.parts.get(named).and_then(|part| part.for_each.as_ref());
    if let Some(for_each) = over {
        let message = format!(
            "part `{}` is called for each element, so it has no status and no fields",
            **named
        );
        compiler.mistake(
            Mistake::new(Code::Conflict, named.span(), message)
                .related(for_each.over.span(), "of these")
                .hint("name a part without `for_each`, or leave it out"),
        );
    }
}

/// Checks a `when` on a part's status: it must be a number from 100 to 599. If the part's failure fails the whole
/// response, one of the listed statuses must be a 2xx.
pub(super) fn check_status_test(compiler: &mut Compiler<'_>, written: &config::Aggregate, part: &config::Part) {
    let Some(config::When {
        subject: config::Subject::Status(named),
        test,
    }) = &part.when
    else {
        return;
    };
    check_one_answer(compiler, written, named);
    let (values, span) = match test {
        config::Test::Exists(_) => return,
        config::Test::Is(wanted) | config::Test::IsNot(wanted) => (vec![wanted.value.value()], wanted.span()),
        config::Test::In(wanted) => match wanted.value.value() {
            values if values.kind() == Kind::Array => (values.elements().collect(), wanted.span()),
            one => (vec![one], wanted.span()),
        },
    };
    let status = |value: &Value<'_>| {
        value
            .number()?
            .parse()
            .ok()
            .filter(|status| (100..600).contains(status))
    };
    let statuses: Vec<Option<u64>> = values.iter().map(status).collect();
    if let Some(odd) = statuses.iter().position(Option::is_none) {
        let message = format!("`{}` is never a status, which is a number from 100 to 599", values[odd]);
        compiler.mistake(Mistake::new(Code::BadValue, span, message).hint("write a number, such as `404`"));
        return;
    }
    let is_good = |status: &Option<u64>| status.is_some_and(|status| (200..300).contains(&status));
    let denies = *written.partial == config::Partial::Deny;
    let is_required = written.parts.get(named).is_some_and(|part| *part.required);
    let can_be_met = matches!(test, config::Test::IsNot(_)) || statuses.is_empty() || statuses.iter().any(is_good);
    if (denies || is_required) && !can_be_met {
        let message = format!("the failure of part `{}` ends the whole, so this is never so", **named);
        let hint = if denies {
            "`partial: deny`, the default, turns any failure into an error; write `partial: allow`"
        } else {
            "drop its `required: true`"
        };
        compiler.mistake(Mistake::new(Code::Conflict, span, message).hint(hint));
    }
}
