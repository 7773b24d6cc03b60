//! Which of the caller's header fields the parts of an aggregate get.

use http::HeaderName;

use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::scalar::{Scalar, Wrong};
use crate::config::span::At;

/// A header field of the caller's, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardedField {
    All,
    Named(HeaderName),
}

impl Scalar for ForwardedField {
    const EXPECTED: &'static str = "the name of a header field, or `all`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "all" => Ok(Self::All),
            "*" => Err(Wrong::new(Code::BadValue, "is not the name of a header field").hint("did you mean `all`?")),
            "none" | "off" => {
                Err(Wrong::new(Code::BadValue, "is not the name of a header field").hint("for none, write `[]`"))
            }
            _ => HeaderName::from_bytes(text.as_bytes())
                .map(Self::Named)
                .map_err(|_| Wrong::new(Code::BadValue, "is not the name of a header field")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Named(name) => name.to_string(),
        }
    }
}

/// Reads which fields are forwarded; `None` if it is not written.
pub(super) fn read(f: &mut Fields<'_>) -> Option<Vec<At<ForwardedField>>> {
    let fields: Vec<At<ForwardedField>> = f.optional("forward")?;
    let all = fields.iter().find(|field| field.value == ForwardedField::All);
    if let (Some(all), true) = (all, fields.len() > 1) {
        let message = format!("`{}.forward` names others beside `all`", f.path);
        f.push(Mistake::new(Code::Conflict, all.span(), message).label("is all of them already"));
    }
    Some(fields)
}
