//! One answer made of several: which parts there are, what each contributes, and what its absence means.

use http::HeaderName;

use super::forward::{self, ForwardedField};
use super::part::Part;
use super::shape::CallersFields;
use crate::config::asked::Shape;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::{Read, keyed};
use crate::config::scalar::{Scalar, Wrong, unknown_word, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::ByteSize;
use crate::config::value::Value;

/// One answer made of the answers of several calls, its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Whether there is an answer if a part that is not `required` fails.
    pub partial: At<Partial>,
    /// Whether the document says in `_errors` which parts failed. `details` adds the JSON bodies that their backends
    /// refused with.
    pub errors: At<Errors>,
    /// Which value counts if two parts have the same name at the root. `deep` merges objects field by field; `concat`
    /// also appends arrays; `error` fails.
    pub conflict: At<Conflict>,
    /// Path that everything but `_errors` is put under.
    pub wrap: Option<At<String>>,
    /// Part whose document is the whole answer, whatever its kind. Other parts are only used for it.
    pub document: Option<At<String>>,
    /// Fields of the document that a caller may choose. Left out, it gets all.
    pub fields: Option<CallersFields>,
    /// Length of the answers of all parts together. A part that goes over it fails.
    pub body_limit: At<ByteSize>,
    /// Part whose status the answer gets. Left out, it is 200.
    pub status: Option<At<String>>,
    /// Header fields that are passed on: from which parts, in this order.
    pub headers: NamedMap<Vec<At<String>>>,
    /// Header fields of the caller's that parts get, beside those that the gateway writes: `all`, or their names. Left
    /// out: all but `Cookie`, and credentials that the gateway did not take.
    pub forward: Option<Vec<At<ForwardedField>>>,
    /// Parts by name, in the order in which they are merged; at most 256.
    pub parts: NamedMap<Part>,
}

words! {
    /// What one failed part does to the whole.
    pub enum Partial { Deny = "deny", Allow = "allow" }
}

words! {
    /// Which of two values counts that have the same name at the root.
    pub enum Conflict {
        /// That of the part declared later.
        Last = "last",
        First = "first",
        /// Objects are merged field by field at any depth; of anything else the last counts.
        Deep = "deep",
        /// As `deep`, and arrays are appended.
        Concat = "concat",
        /// None: the aggregate fails.
        Error = "error",
    }
}

/// What the document says of parts that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    False,
    True,
    /// And the JSON that their backends refused with.
    Details,
}

impl Scalar for Errors {
    const EXPECTED: &'static str = "`true`, `false` or `details`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "details" => Ok(Self::Details),
            _ => match bool::parse(text) {
                Ok(true) => Ok(Self::True),
                Ok(false) => Ok(Self::False),
                Err(wrong) if wrong.hint.is_some() => Err(wrong),
                Err(_) => Err(unknown_word(text, &["true", "false", "details"])),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::False => "false",
            Self::True => "true",
            Self::Details => "details",
        }
        .to_owned()
    }
}

/// Each can wait for each, so what it takes to plan them grows faster than their number.
const MOST_PARTS: usize = 256;

impl Read for Aggregate {
    const SINGLE: Option<Single> = Some(Single {
        maps: &[],
        sample: r#"{ parts: { user: { backend: NAME, path: "/users/{path.id}" } } }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (partial, errors) = (f.or("partial", Partial::Deny), f.or("errors", Errors::False));
            let parts: Option<NamedMap<Part>> = f.required_map("parts");
            if let Some((name, _)) = parts.as_ref().and_then(|parts| parts.iter().nth(MOST_PARTS)) {
                let message = format!("`{}.parts` has more than {MOST_PARTS} parts", f.path);
                f.push(Mistake::new(Code::OutOfRange, name.span(), message).label("one too many"));
            }
            let mut headers = NamedMap::default();
            if let Some(value) = f.value_of(
                "headers",
                Shape::Named(&Shape::List(&Shape::Value("the name of a part"))),
            ) {
                keyed(&value, &mut headers, passable, |_, value| Read::read(value));
            }
            Some(Self {
                partial,
                errors,
                conflict: f.or("conflict", Conflict::Last),
                wrap: f.optional("wrap"),
                document: f.optional("document"),
                fields: f.optional("fields"),
                body_limit: f.within("body_limit", ByteSize(16 << 20), ByteSize(1)..=ByteSize(256 << 20)),
                status: f.optional("status"),
                headers,
                forward: forward::read(f),
                parts: parts?,
            })
        })?
    }
}

/// A field of a part's answer that can be the whole's, too.
fn passable(name: &str) -> Result<String, &'static str> {
    const OURS: [&str; 12] = [
        "age",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "proxy-status",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "that is not the name of a header field")?;
    if name == "cache-control" {
        return Err("it is always the strictest of all parts' own");
    }
    if name == "vary" {
        return Err("it always names what any part varies with");
    }
    if OURS.contains(&name.as_str()) || name.as_str().starts_with("x-gateway-") {
        return Err("the gateway writes it for the whole");
    }
    Ok(name.as_str().to_owned())
}
