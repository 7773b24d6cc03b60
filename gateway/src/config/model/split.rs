//! Several backends that share the requests of one route, by percent or by condition.

use crate::config::mistake::{Code, Mistake};
use crate::config::model::http_values::field_name;
use crate::config::model::matches::{Wanted, wanted};
use crate::config::model::request_key::cookie_name;
use crate::config::named::NamedMap;
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::units::Percent;
use crate::config::value::Value;
use crate::request_key::RequestKey;

/// One of the backends that share a route's requests. An entry with neither `percent` nor `when` takes the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitEntry {
    /// Name of the backend.
    pub backend: At<String>,
    /// Share of the requests, up to two decimals. With `when`, of those that meet the condition.
    pub percent: Option<At<Percent>>,
    /// What requests have in common that go to one backend. All entries have the same; default: `tenant`.
    pub key: Option<At<RequestKey>>,
    /// Which requests the entry is for. Left out: all.
    pub when: Option<SplitWhen>,
}

/// Which requests an entry is for. All that is written must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitWhen {
    /// Tiers of which the caller has one.
    pub tier: Vec<At<String>>,
    /// Tenants of which the caller is one.
    pub tenant: Vec<At<String>>,
    /// Header fields, with values as in `match.headers`.
    pub header: NamedMap<Wanted>,
    /// Cookies, with values as in `match.headers`.
    pub cookie: NamedMap<Wanted>,
}

impl Read for SplitEntry {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ backend: $ }"],
        sample: "{ backend: NAME, percent: 5 }",
    });

    /// Shares requests equally. The last entry takes the rest.
    fn as_item(filled: String, all: usize, left: usize) -> String {
        match left {
            0 => filled,
            _ => filled.replace(" }", &format!(", percent: {} }}", 100 / all)),
        }
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let (backend, percent) = (f.required("backend"), f.optional("percent"));
            let (key, when) = (f.optional("key"), f.optional("when"));
            Some(Self {
                backend: backend?,
                percent,
                key,
                when,
            })
        })?
    }
}

impl Read for SplitWhen {
    const SINGLE: Option<Single> = Some(Single {
        maps: &["{ tier: [$] }"],
        sample: "{ tier: [free] }",
    });

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            let when = Self {
                tier: f.nonempty("tier").unwrap_or_default(),
                tenant: f.nonempty("tenant").unwrap_or_default(),
                header: wanted(f, "header", field_name),
                cookie: wanted(f, "cookie", cookie_name),
            };
            let is_empty = ["tier", "tenant", "header", "cookie"]
                .into_iter()
                .all(|key| f.value(key).is_none());
            if is_empty {
                let message = format!("`{}` has no condition", f.path);
                f.push(
                    Mistake::new(Code::MissingKey, Some(f.at), message)
                        .hint("write `tier`, `tenant`, `header` or `cookie`"),
                );
            }
            when
        })
    }
}
