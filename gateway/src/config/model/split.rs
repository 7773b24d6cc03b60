//! Several backends that share the requests of one route, by percent or by condition.

use crate::config::mistake::{Code, Mistake};
use crate::config::model::http_values::field_name;
use crate::config::model::matches::{Wanted, wanted};
use crate::config::model::request_key::cookie_name;
use crate::config::named::NamedMap;
use crate::config::reader::Read;
use crate::config::single::Single;
use crate::config::span::At;
use crate::config::tree::Kind;
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

/// Checks entries of which some cannot be read for what will be wrong once they can: their keys, and whether they make a
/// whole.
pub(super) fn check_unread(value: &Value<'_>) {
    let mut keys = Vec::new();
    let (mut hundredths, mut has_percent, mut has_rest, mut is_sure) = (0.0, false, false, true);
    for item in value.items() {
        let Kind::Map(entries) = &item.node.kind else { return };
        let written = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
        let text = |name: &str| match &written(name)?.kind {
            Kind::Scalar { text, .. } => Some(text.as_str()),
            Kind::List(_) | Kind::Map(_) => None,
        };
        if let (Some(key), Some(node)) = (text("key"), written("key")) {
            keys.push((key, node.span));
        }
        if written("when").is_some() {
            continue;
        }
        match text("percent").or_else(|| text("weight")) {
            Some(percent) => {
                has_percent = true;
                match percent.trim_end_matches('%').trim().parse::<f64>() {
                    Ok(percent) => hundredths += percent * 100.0,
                    Err(_) => is_sure = false,
                }
            }
            None => has_rest = true,
        }
    }
    if let [(first, at), others @ ..] = &keys[..]
        && let Some((_, span)) = others.iter().find(|(other, _)| other != first)
    {
        let mistake = Mistake::new(Code::Conflict, *span, format!("`{}` has two keys", value.path));
        let mistake = mistake.related(*at, "here it is another");
        value.push(mistake.hint("percents of different keys do not add up: write the same key in all entries"));
    }
    if has_percent && !has_rest && is_sure && (hundredths - 10_000.0_f64).abs() >= 1.0 {
        let sum = hundredths.round() / 100.0;
        let message = format!("the percents of `{}` make {sum}, not 100", value.path);
        let mistake = Mistake::new(Code::Conflict, value.key, message);
        value.push(mistake.hint("let them make 100, or leave out one `percent`: that entry takes the rest"));
    }
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
