//! One part of an aggregate: its call, what decides whether and how often it is made, and what of the answer is kept.

use std::time::Duration;

use http::Method;

use super::cache::RouteCache;
use super::fallback::Fallback;
use super::forward::{self, ForwardedField};
use super::hedge::{Hedge, check_hedge};
use super::http_values::{check_path, headers};
use super::ranges::time_above_zero;
use super::shape::{ElementShape, defaults, paths};
use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, any_name, keyed};
use crate::config::scalar::words;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;
use crate::json::Document;

/// One call, and its place in the document. Paths into documents are dotted and go through arrays.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name of the backend that is called.
    pub backend: At<String>,
    /// Path and query, with placeholders; begins with `/`.
    pub path: At<String>,
    /// Method; `POST` if there is a `body`, else `GET`.
    pub method: At<Method>,
    /// Parameters that are added to the query; values may hold placeholders.
    pub query: NamedMap<At<String>>,
    /// Header fields that are sent; values may hold placeholders.
    pub headers: NamedMap<At<String>>,
    /// Header fields of the caller's that the part gets, in place of `forward` of the aggregate.
    pub forward: Option<Vec<At<ForwardedField>>>,
    /// Body that is sent as JSON. Texts in it may hold placeholders; a text that is one placeholder becomes its value,
    /// whatever its kind.
    pub body: Option<At<Document>>,
    /// Parts that must have succeeded before. Parts that placeholders name are needed anyway.
    pub needs: Vec<At<String>>,
    /// Condition on which the call is made at all.
    pub when: Option<When>,
    /// Makes one call for each element of an array.
    pub for_each: Option<ForEach>,
    /// What happens if a placeholder has no value: the part fails, is skipped, or a default is used.
    pub missing: OnMissing,
    /// Whether the whole fails if the part does.
    pub required: At<bool>,
    /// For the call. Left out: what is left of the route's.
    pub time_limit: Option<At<Duration>>,
    /// Length of the answer; a part with a longer one fails.
    pub body_limit: At<ByteSize>,
    /// Path to the sub-document that is taken in place of the whole.
    pub target: Option<At<String>>,
    /// Paths of which all else is dropped.
    pub keep: Vec<At<String>>,
    /// Paths that are dropped.
    pub drop: Vec<At<String>>,
    /// Old name to new name. The old one may be a path, the new one a path from the object that has the old one.
    pub rename: NamedMap<At<String>>,
    /// Path to the path that its value is copied to.
    pub copy: NamedMap<At<String>>,
    /// Path to the path that its value is moved to. What stands in a list stays in its element: `items.*.a: items.*.b.a`.
    pub moves: NamedMap<At<String>>,
    /// Shapes each element of an array.
    pub map: Vec<ElementShape>,
    /// Values for paths that have none; `null` is a value.
    pub defaults: NamedMap<At<Document>>,
    /// Path in the document that the part is put at; its name unless it is written. `.` merges it at the root.
    pub group: Option<At<String>>,
    /// Path that an array is put under. At the root an array is put under the part's name.
    pub collection: Option<At<String>>,
    /// What is used if the part fails, tried in this order.
    pub fallback: Vec<Fallback>,
    /// Which answers of the backend are stored and used again; left out, none.
    pub cache: Option<RouteCache>,
    /// When a second attempt is made because the first one is slow; left out, never.
    pub hedge: Option<Hedge>,
}

/// A condition on a value, or on the status of an earlier part; one of `value` and `status`, and one test.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    pub subject: Subject,
    pub test: Test,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// One placeholder, with its braces.
    Value(At<String>),
    /// Name of a part, whose status is tested. The call waits until that part has ended.
    Status(At<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Whether there is a value.
    Exists(At<bool>),
    /// The value is this.
    Is(At<Document>),
    /// The value is anything else.
    IsNot(At<Document>),
    /// The value is one of these.
    In(At<Document>),
}

/// One call for each element of an array.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEach {
    /// One placeholder, with its braces, that leads to an array.
    pub over: At<String>,
    /// Most elements. A part with more fails.
    pub limit: At<u32>,
    /// Calls at the same time.
    pub at_once: At<u32>,
    /// What a failed call does: the part fails, the element is left out, or is `null`.
    pub on_failure: At<OnFailure>,
    /// Path that each answer is put at, in the element that it is for: that of the list, `*`, and names, as in
    /// `items.*.product`. Left out, the part is an array of the answers.
    pub into: Option<At<String>>,
}

words! {
    /// What one failed element does to its part.
    pub enum OnFailure { Fail = "fail", Omit = "omit", Null = "null" }
}

/// Defaults for placeholders without a value.
#[derive(Debug, Clone, PartialEq)]
pub enum OnMissing {
    Fail,
    Skip,
    /// Defaults by placeholder, written without braces. The part fails if another value is missing.
    Default(NamedMap<At<Document>>),
}

words! {
    enum MissingWord { Fail = "fail", Skip = "skip" }
}

impl Read for Part {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ backend: NAME, path: $ }", "{ backend: $, path: / }"],
        sample: r#"{ backend: NAME, path: "/users/{path.id}" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (backend, path) = (f.required("backend"), f.required("path"));
            check_path(f, "path", path.as_ref());
            let time_limit = f.optional("time_limit");
            time_above_zero(f, "time_limit", time_limit.as_ref());
            let mut query = NamedMap::default();
            if let Some(value) = f.value_of("query", Shape::Named(&Shape::Value("text"))) {
                keyed(&value, &mut query, any_name, |_, value| value.scalar());
            }
            let body: Option<At<Document>> = f.optional("body");
            let method = f.or("method", if body.is_some() { Method::POST } else { Method::GET });
            check_method(f, &method, body.as_ref());
            check_cache(f, &method);
            check_hedge(f, &method);
            Some(Self {
                method,
                body,
                when: f.optional("when"),
                for_each: f.optional("for_each"),
                missing: f.optional("missing").unwrap_or(OnMissing::Fail),
                query,
                headers: headers(f, "headers"),
                forward: forward::read(f),
                needs: f.list("needs"),
                required: f.or("required", false),
                time_limit,
                body_limit: f.within("body_limit", ByteSize(1 << 20), ByteSize(1)..=ByteSize(64 << 20)),
                target: f.optional("target"),
                keep: f.list("keep"),
                drop: f.list("drop"),
                rename: paths(f, "rename"),
                copy: paths(f, "copy"),
                moves: paths(f, "move"),
                map: f.list("map"),
                defaults: defaults(f),
                group: f.optional("group"),
                collection: f.optional("collection"),
                fallback: f.list("fallback"),
                cache: f.optional("cache"),
                hedge: f.optional("hedge"),
                backend: backend?,
                path: path?,
            })
        })?
    }
}

/// A part gets something or changes something; a body goes with the latter.
fn check_method(f: &Fields<'_>, method: &At<Method>, body: Option<&At<Document>>) {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    if !known.contains(method) {
        let message = format!("a part cannot be called with `{}`", **method);
        let hint = "there are GET, HEAD, POST, PUT, PATCH and DELETE";
        f.push(Mistake::new(Code::BadValue, method.span(), message).hint(hint));
    }
    if let Some(body) = body.filter(|_| matches!(**method, Method::GET | Method::HEAD)) {
        let message = format!("`{}.body` does not go with {}", f.path, **method);
        f.push(
            Mistake::new(Code::Conflict, body.span(), message)
                .hint("write `method: POST`, or what the backend expects, or drop the body"),
        );
    }
}

/// Answers to GET are stored, and no others.
fn check_cache(f: &mut Fields<'_>, method: &At<Method>) {
    if **method == Method::GET {
        return;
    }
    let Some(Value { key, .. }) = f.value("cache") else {
        return;
    };
    let message = format!(
        "`{}.cache` stores answers to `GET` only, and the part is called with {}",
        f.path, **method
    );
    let hint = "a part that changes things needs no `cache`: it ends the use of stored answers in any case";
    f.push(
        Mistake::new(Code::Conflict, key, message)
            .related(method.span(), "the method of the part")
            .hint(hint),
    );
}

impl Read for When {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ value: $, exists: true }"],
        sample: r#"{ value: "{part.user.id}", exists: true }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let subject = f.exactly_one(&["value", "status"]);
            let test = f.exactly_one(&["exists", "is", "is_not", "in"]);
            let (value, status) = (f.optional("value"), f.optional("status"));
            let (exists, is) = (f.optional("exists"), f.optional("is"));
            let (is_not, within): (_, Option<At<Document>>) = (f.optional("is_not"), f.optional("in"));
            Some(Self {
                subject: match subject? {
                    "value" => Subject::Value(value?),
                    _ => Subject::Status(status?),
                },
                test: match test? {
                    "exists" => Test::Exists(exists?),
                    "is" => Test::Is(is?),
                    "is_not" => Test::IsNot(is_not?),
                    _ => Test::In(within?),
                },
            })
        })?
    }
}

impl Read for ForEach {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ in: $ }"],
        sample: r#"{ in: "{part.cart.items}" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let over = f.required("in");
            let on_failure = match f.value_of("on_failure", <At<OnFailure> as Read>::SHAPE) {
                // A word here, though YAML takes it for nothing.
                Some(value) if value.is_word("null") => At::written(OnFailure::Null, value.node.span),
                _ => f.or("on_failure", OnFailure::Fail),
            };
            Some(Self {
                limit: f.within("limit", 20, 1..=1000),
                at_once: f.within("at_once", 4, 1..=100),
                on_failure,
                into: f.optional("into"),
                over: over?,
            })
        })?
    }
}

impl Read for OnMissing {
    const SHAPE: Shape = Shape::Value("`fail`, `skip`, or a map with `default`");

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_map() {
            return value.fields(|f| {
                let Some(value) = f.value_of("default", Shape::Named(&Shape::Anything)) else {
                    f.required::<At<Document>>("default")?;
                    return None;
                };
                let value = Value {
                    hint: Some("write a value for each placeholder, as in `{ query.page: 1 }`".to_owned()),
                    ..value
                };
                let mut defaults = NamedMap::default();
                keyed(&value, &mut defaults, any_name, |_, value| Read::read(value))?;
                Some(Self::Default(defaults))
            })?;
        }
        Some(match *value.scalar::<MissingWord>()? {
            MissingWord::Fail => Self::Fail,
            MissingWord::Skip => Self::Skip,
        })
    }
}
