//! Copies of a route's requests for another backend.

use http::Method;

use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong, words};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::{ByteSize, Percent};
use crate::config::value::Value;
use crate::request_key::RequestKey;

/// Copies of requests for another backend, whose answers are thrown away. No request waits for its copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Name of the backend that gets the copies.
    pub to: At<String>,
    /// Share of the requests that are copied, up to two decimals.
    pub percent: At<Percent>,
    /// What requests have in common that are copied or not alike. `none` lets chance decide on each.
    pub key: At<RequestKey>,
    /// Methods that are copied. A copy that writes does so a second time, wherever the backend writes to.
    pub methods: Vec<At<Method>>,
    /// Length of a request's body up to which it is copied. `none`: only requests without a body are.
    pub body: At<MirroredBody>,
    /// Copies under way at once. Beyond it, requests are not copied.
    pub limit: At<u32>,
    /// What is compared of the answer to a request and of that to its copy, and counted.
    pub compare: At<Compare>,
}

words! {
    /// What is compared of two answers.
    pub enum Compare {
        Off = "off",
        Status = "status",
        /// The status and the body, byte for byte.
        Body = "body",
    }
}

/// Longest body that is copied, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MirroredBody(pub u64);

impl Scalar for MirroredBody {
    const EXPECTED: &'static str = "a size such as `64KiB`, or `none`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "none" => Ok(Self(0)),
            _ => ByteSize::parse(text).map(|size| Self(size.0)),
        }
    }

    fn show(&self) -> String {
        match self.0 {
            0 => "none".to_owned(),
            bytes => ByteSize(bytes).show(),
        }
    }
}

impl Read for Mirror {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ to: $, percent: 1 }"],
        sample: "{ to: NAME, percent: 1 }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (to, percent) = (f.required("to"), f.required("percent"));
            let key = f.or("key", RequestKey::None);
            let methods = f.list_or("methods", &[Method::GET, Method::HEAD, Method::OPTIONS]);
            let body = f.within("body", MirroredBody(64 << 10), MirroredBody(0)..=MirroredBody(1 << 20));
            let limit = f.within("limit", 16, 1..=1000);
            let compare = f.or("compare", Compare::Off);
            Some(Self {
                to: to?,
                percent: percent?,
                key,
                methods,
                body,
                limit,
                compare,
            })
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_a_size_or_is_none() {
        for (text, bytes) in [("none", 0), ("64KiB", 65_536), ("0B", 0)] {
            assert_eq!(MirroredBody::parse(text), Ok(MirroredBody(bytes)), "{text}");
        }
        assert_eq!(MirroredBody(0).show(), "none");
        assert_eq!(MirroredBody(65_536).show(), "64KiB");
        assert!(MirroredBody::parse("64").is_err() && MirroredBody::parse("all").is_err());
    }
}
