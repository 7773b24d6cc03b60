//! Which requests a route is for.

use http::Method;

use super::http_values::{check_path, field_name};
use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, any_name, keyed};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Which requests a route is for; exactly one of `path` and `prefix`. What else is left out matches everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Host names; `*.example.com` is anything one or more labels below.
    pub hosts: Vec<At<String>>,
    /// Path patterns such as `/users/{id}` and `/files/{*rest}`; at least one.
    pub paths: Vec<At<String>>,
    /// Path patterns such as `/shop`; each takes its path and all paths below. `{path.rest}` is what follows it.
    pub prefixes: Vec<At<String>>,
    /// Whether the backend gets the path without the prefix; with `prefix` and `backend` alone.
    pub strip: At<bool>,
    /// Methods.
    pub methods: Vec<At<Method>>,
    /// Header fields with exactly these values; `"*"` is any value, `{ regex: "v[0-9]+" }` a value that matches as a
    /// whole.
    pub headers: NamedMap<Wanted>,
    /// Query parameters, with values as in `headers`.
    pub query: NamedMap<Wanted>,
    /// Parameters of the path, by the name in the pattern, with values as in `headers`.
    pub parameters: NamedMap<Wanted>,
}

/// The value that a field or parameter must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Any value, written as `"*"`.
    Any,
    Exactly(At<String>),
    /// A value that matches a regular expression as a whole.
    Regex(At<String>),
}

/// A condition on a value, in place of the value itself.
struct Expression {
    /// Regular expression that the whole value must match. Classes such as `\d` are those of ASCII.
    regex: At<String>,
}

const TEXT_OR_REGEX: Shape = Shape::Value("text, or a map with `regex`");

impl Match {
    /// Returns what stands for a match that could not be read.
    pub(super) fn unread() -> Self {
        Self {
            hosts: Vec::new(),
            paths: Vec::new(),
            prefixes: Vec::new(),
            strip: At::unwritten(false),
            methods: Vec::new(),
            headers: NamedMap::default(),
            query: NamedMap::default(),
            parameters: NamedMap::default(),
        }
    }
}

impl Read for Match {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ path: [$] }"],
        sample: r#"{ path: "/users/{id}" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let hosts = f.nonempty("host").unwrap_or_default();
            let paths: Option<Vec<At<String>>> = f.nonempty("path");
            let prefixes: Option<Vec<At<String>>> = f.nonempty("prefix");
            for path in paths.iter().flatten() {
                check_path(f, "path", Some(path));
            }
            for prefix in prefixes.iter().flatten() {
                check_path(f, "prefix", Some(prefix));
            }
            let strip: At<bool> = f.or("strip", false);
            let written = f.exactly_one(&["path", "prefix"]);
            if let (Some("path"), Some(at)) = (written, strip.span()) {
                let message = format!("`{}.strip` goes with `prefix` only", f.path);
                f.push(
                    Mistake::new(Code::Conflict, at, message)
                        .hint("write `prefix: /shop` in place of `path: \"/shop/{*rest}\"`, or use `rewrite`"),
                );
            }
            let methods = f.nonempty("methods").unwrap_or_default();
            let headers = wanted(f, "headers", field_name);
            let query = wanted(f, "query", any_name);
            let parameters = wanted(f, "parameters", any_name);
            written?;
            Some(Self {
                hosts,
                paths: paths.unwrap_or_default(),
                prefixes: prefixes.unwrap_or_default(),
                strip,
                methods,
                headers,
                query,
                parameters,
            })
        })?
    }
}

/// Reads wanted values, by the name of what has them.
pub(super) fn wanted(
    f: &mut Fields<'_>,
    key: &'static str,
    name: fn(&str) -> Result<String, &'static str>,
) -> NamedMap<Wanted> {
    let mut all = NamedMap::default();
    if let Some(value) = f.value_of(key, Shape::Named(&TEXT_OR_REGEX)) {
        keyed(&value, &mut all, name, |_, value| Wanted::read(value));
    }
    all
}

impl Read for Wanted {
    const SHAPE: Shape = TEXT_OR_REGEX;

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_map() {
            let expression = value.fields(|f| {
                Some(Expression {
                    regex: f.required("regex")?,
                })
            })??;
            return Some(Self::Regex(expression.regex));
        }
        let all = value
            .items()
            .iter()
            .filter_map(Value::text)
            .collect::<Vec<_>>()
            .join("|");
        let several = value
            .is_list()
            .then(|| format!("for several: `{{ regex: {} }}`", crate::config::scalar::written(&all)));
        let value = &Value {
            hint: several.or_else(|| value.hint.clone()),
            ..value.clone()
        };
        let text: At<String> = value.scalar()?;
        Some(match text.as_str() {
            "*" => Self::Any,
            _ => Self::Exactly(text),
        })
    }
}
