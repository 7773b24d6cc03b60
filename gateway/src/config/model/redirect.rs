//! An answer that sends the caller elsewhere.

use http::StatusCode;

use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// An answer that sends the caller elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// Path such as `/new/{path.id}`, or URL such as `https://new.example.com/{path.rest}`, with placeholders in the
    /// path and the query. `https://{host}/...` keeps the caller's host name. Without `?` in it, the caller's query is
    /// passed on.
    pub to: At<String>,
    /// Status: 301, 302, 303, 307 or 308. 307 and 308 keep the method; 301 and 308 may be remembered by browsers.
    pub status: At<u16>,
}

impl Read for Redirect {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ to: $ }"],
        sample: r#"{ to: "https://www.example.com/{path.rest}" }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let to = f.required("to");
            let status = f.or("status", StatusCode::PERMANENT_REDIRECT.as_u16());
            if let (Some(at), false) = (status.span(), matches!(*status, 301 | 302 | 303 | 307 | 308)) {
                let message = format!("`{}.status` must be 301, 302, 303, 307 or 308", f.path);
                f.push(Mistake::new(Code::OutOfRange, at, message).hint("308 is for good, 307 for now"));
            }
            Some(Self { to: to?, status })
        })?
    }
}
