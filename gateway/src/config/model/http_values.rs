//! Paths and header fields as several sections write them.

use http::{HeaderName, HeaderValue};

use crate::config::asked::Shape;
use crate::config::fields::Fields;
use crate::config::mistake::{Code, Mistake};
use crate::config::named::NamedMap;
use crate::config::reader::keyed;
use crate::config::single::quoted;
use crate::config::span::At;

/// What is sent to a backend as its path.
pub(super) fn check_path(f: &Fields<'_>, name: &str, path: Option<&At<String>>) {
    if let Some(path) = path.filter(|path| !path.starts_with('/')) {
        let message = format!("`{}.{name}` must begin with `/`", f.path);
        let hint = if path.contains("://") {
            "a path has no scheme and no host: the host of a route goes into `host`".to_owned()
        } else if path.contains(' ') {
            "a path has no spaces: the method of a route goes into `methods`".to_owned()
        } else if path.starts_with(['^', '~', '=', '*', '(', '.', '\\']) {
            "a path is no regular expression: `/users/{id}` takes any one segment, `/files/{*rest}` all below"
                .to_owned()
        } else {
            format!("did you mean `{}`?", quoted(&format!("/{}", **path)))
        };
        f.push(Mistake::new(Code::BadValue, path.span(), message).hint(hint));
    }
}

/// Header fields; names are taken to lower case, values must be sendable.
pub(super) fn headers(f: &mut Fields<'_>, name: &'static str) -> NamedMap<At<String>> {
    let mut fields = NamedMap::default();
    if let Some(value) = f.value_of(name, Shape::Named(&Shape::Value("text"))) {
        keyed(&value, &mut fields, field_name, |_, value| {
            let text: At<String> = value.scalar()?;
            if HeaderValue::from_str(&text).is_err() {
                let message = format!("`{}` cannot be sent as a header field", value.path);
                value.push(Mistake::new(Code::BadValue, text.span(), message));
            }
            Some(text)
        });
    }
    fields
}

/// The name of a header field, in lower case.
pub(super) fn field_name(name: &str) -> Result<String, &'static str> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err("that is not the name of a header field"),
    }
}
