//! Which pages of other origins a browser may let use a route (the Fetch standard's CORS protocol).

use std::time::Duration;

use http::{HeaderName, Method};

use crate::config::fields::Fields;
use crate::config::hint;
use crate::config::mistake::{Code, Mistake};
use crate::config::reader::Read;
use crate::config::scalar::{Scalar, Wrong};
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::value::Value;

/// Which pages of other origins may use a route from a browser (CORS, Fetch standard).
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Origins of pages, at least one; `*` stands alone and is any.
    pub origins: Vec<At<Origin>>,
    /// Methods that pages may use. Left out: those of the route.
    pub methods: Vec<At<Method>>,
    /// Header fields that pages may send. Left out: `authorization`, `content-type` and the field of API keys.
    pub request_headers: Option<Vec<At<HeaderName>>>,
    /// Header fields of answers that pages may read beside those that are always readable. Left out: the fields that
    /// the gateway writes.
    pub expose: Option<Vec<At<HeaderName>>>,
    /// Whether browsers may send cookies and other credentials of their own.
    pub credentials: At<bool>,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: At<Duration>,
}

/// Where a page comes from, as a browser writes it in `Origin` (RFC 6454 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Any,
    /// Scheme, host, and a port that is not the scheme's own; in lower case.
    Exactly(String),
}

/// What a route writes in place of the whole section at the top.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnCors {
    Off,
    On(Cors),
}

impl Read for OwnCors {
    const OFF: bool = true;
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ origins: [$] }", r#"{ origins: ["https://%"] }"#],
        sample: r#"{ origins: ["https://app.example.com"] }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_off() {
            return Some(Self::Off);
        }
        Cors::read(&value.switchable(hint::for_no)).map(Self::On)
    }
}

impl Read for Cors {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ origins: [$] }", r#"{ origins: ["https://%"] }"#],
        sample: r#"{ origins: ["https://app.example.com"] }"#,
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let origins: Option<Vec<At<Origin>>> = f.required_list("origins");
            let credentials = f.or("credentials", false);
            check_any(f, origins.as_deref().unwrap_or_default(), &credentials);
            let methods = f.nonempty("methods").unwrap_or_default();
            let request_headers = f.optional("request_headers");
            let expose = f.optional("expose");
            let max_age = f.within(
                "max_age",
                Duration::from_secs(600),
                Duration::ZERO..=Duration::from_secs(24 * 3600),
            );
            Some(Self {
                origins: origins?,
                methods,
                request_headers,
                expose,
                credentials,
                max_age,
            })
        })?
    }
}

/// "Any" beside others says nothing more, and with credentials would let every page on the web act as its visitor.
fn check_any(f: &Fields<'_>, origins: &[At<Origin>], credentials: &At<bool>) {
    let Some(any) = origins.iter().find(|origin| origin.value == Origin::Any) else {
        return;
    };
    if origins.len() > 1 {
        let message = format!("`{}.origins` names others beside `*`", f.path);
        f.push(Mistake::new(Code::Conflict, any.span(), message).label("is all of them already"));
    }
    if **credentials {
        let message = format!("`{}` lets every origin use its visitors' credentials", f.path);
        f.push(
            Mistake::new(Code::Conflict, any.span(), message)
                .label("any page on the web")
                .related(credentials.span(), "could act as whoever looks at it")
                .hint("name the origins, or write `credentials: false`"),
        );
    }
}

impl Scalar for Origin {
    const EXPECTED: &'static str = "an origin such as `https://app.example.com`, or `*`";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = |label: &'static str| Wrong::new(Code::BadValue, label);
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err(
                wrong("is what any page can make itself").hint("sandboxed frames and local files have no origin")
            );
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, authority)) = lower.split_once("://") else {
            return Err(wrong("has no scheme").hint(format!("did you mean `https://{text}`?")));
        };
        if authority.contains('*') {
            return Err(wrong("is a pattern").hint("origins are compared whole; name each of them"));
        }
        if let Some(end) = authority.find(['/', '?', '#']) {
            let meant = format!("{scheme}://{}", &authority[..end]);
            return Err(wrong("has more than scheme, host and port").hint(format!("did you mean `{meant}`?")));
        }
        let usual = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        if let Some(host) = authority.strip_suffix(usual).filter(|_| !usual.is_empty()) {
            let label = "names the port that a browser leaves out";
            return Err(wrong(label).hint(format!("did you mean `{scheme}://{host}`?")));
        }
        let sound = !authority.contains('@')
            && !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            && authority.parse::<http::uri::Authority>().is_ok();
        if !sound {
            return Err(wrong("is not an origin"));
        }
        if lower != text {
            return Err(wrong("is not in lower case").hint(format!("did you mean `{lower}`?")));
        }
        Ok(Self::Exactly(lower))
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exactly(origin) => origin.clone(),
        }
    }
}
