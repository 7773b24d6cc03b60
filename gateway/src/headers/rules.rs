//! What an operator changes in the header fields of a route, compiled once.
//!
//! Invariant: no rule reaches a field that belongs to one connection, frames a message, or is the gateway's own word
//! on who asks; [`may_be_changed`] says which those are, and a plan is only made of rules that keep off them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers;
use crate::template::{Placeholder, Sources, Template};
use crate::wire::aliases;

/// Changes in the order they are made.
#[derive(Debug, Default)]
pub struct HeaderRules {
    pub remove: Box<[HeaderName]>,
    /// All lines of the first become the lines of the second.
    pub rename: Box<[(HeaderName, HeaderName)]>,
    pub set: Box<[(HeaderName, FieldValue)]>,
    pub add: Box<[(HeaderName, FieldValue)]>,
}

/// What is put into a field.
#[derive(Debug)]
pub enum FieldValue {
    Fixed(HeaderValue),
    /// Has placeholders.
    Filled(Template),
}

/// The values that were filled for one request, in order; `None` where something is missing.
pub type FilledValues = Vec<Option<HeaderValue>>;

/// Whether rules may touch the field; `name` is in lower case.
pub fn may_be_changed(name: &HeaderName) -> bool {
    const KEPT: [&str; 9] = [
        "content-length",
        "trailer",
        "host",
        "via",
        "x-request-id",
        "traceparent",
        "tracestate",
        "sec-websocket-key",
        "sec-websocket-accept",
    ];
    !KEPT.contains(&name.as_str()) && !headers::says_something(name)
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// What is removed or set is so under every name that backends may read as the same: with underscores in place of
    /// hyphens.
    /// What a request has for the values that are filled.
    pub fn fill(&self, sources: &Sources<'_>) -> FilledValues {
        let fill = |template: &Template| {
            let mut text = String::new();
            template.render(sources, &mut text).ok()?;
            HeaderValue::try_from(text).ok()
        };
        self.templates().map(fill).collect()
    }

    /// Whether there is anything to fill.
    pub fn has_templates(&self) -> bool {
        self.templates().next().is_some()
    }

    /// Whether a value is filled from the caller's token, which is known only once it has been verified.
    pub fn uses_claims(&self) -> bool {
        let mut used = self.templates().flat_map(Template::uses);
        used.any(|placeholder| matches!(placeholder, Placeholder::Claim(_)))
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let values = self.set.iter().chain(&self.add).map(|(_, value)| value);
        values.filter_map(|value| match value {
            FieldValue::Filled(template) => Some(template),
            FieldValue::Fixed(_) => None,
        })
    }

    /// `filled` is what [`Self::fill`] made of the request. Where a value is missing the field is left out, and what was
    /// there under the name of one that is to be set goes all the same: nobody else's word stands in its place.
    pub fn apply(&self, headers: &mut HeaderMap, filled: &[Option<HeaderValue>]) {
        let mut filled = filled.iter();
        let mut value_of = |value: &FieldValue| match value {
            FieldValue::Fixed(value) => Some(value.clone()),
            FieldValue::Filled(_) => filled.next().cloned().flatten(),
        };
        for name in &self.remove {
            aliases::remove_all(headers, name);
        }
        for (old, new) in &self.rename {
            if !headers.contains_key(old) {
                continue;
            }
            aliases::remove_all(headers, new);
            aliases::remove_others(headers, old);
            let lines: Vec<_> = headers.get_all(old).iter().cloned().collect();
            headers.remove(old);
            for line in lines {
                headers.append(new, line);
            }
        }
        for (name, value) in &self.set {
            match value_of(value) {
                Some(value) => aliases::set_alone(headers, name, value),
                None => aliases::remove_all(headers, name),
            }
        }
        for (name, value) in &self.add {
            if let Some(value) = value_of(value) {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Captures, Place, Query};

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    fn fixed(text: &'static str) -> FieldValue {
        FieldValue::Fixed(value(text))
    }

    #[test]
    fn values_are_filled_from_the_request_and_what_is_missing_leaves_nothing() {
        let filled = |text: &str| FieldValue::Filled(Template::parse(text, Place::Header).unwrap());
        let rules = HeaderRules {
            set: [
                (name("x-fixed"), fixed("{as it is}")),
                (name("x-from"), filled("{header.x-caller}/{query.q}")),
                (name("x-login"), filled("{claim.sub}")),
            ]
            .into(),
            add: [
                (name("x-more"), filled("{query.none}")),
                (name("x-more"), filled("{query.q} and {{more}}")),
            ]
            .into(),
            ..HeaderRules::default()
        };
        assert!(rules.has_templates() && rules.uses_claims());
        let mut headers = HeaderMap::new();
        for (field, text) in [("x-caller", "ada"), ("x-login", "forged"), ("x-more", "own")] {
            headers.append(field, value(text));
        }
        let (captures, query) = (Captures::none(), Query::new(Some("q=a%20b")));
        let filled = rules.fill(&Sources::of_request(&captures, &query, &headers, None));
        rules.apply(&mut headers, &filled);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "x-caller: ada",
                "x-fixed: {as it is}",
                "x-from: ada/a b",
                "x-more: a b and {more}",
                "x-more: own",
            ]
        );
        // A value cannot begin a line of its own.
        let query = Query::new(Some("q=a%0d%0ax-evil:%201"));
        let filled = rules.fill(&Sources::of_request(&captures, &query, &HeaderMap::new(), None));
        assert!(filled.iter().all(Option::is_none), "{filled:?}");
    }

    #[test]
    fn rules_are_applied_in_order() {
        let rules = HeaderRules {
            remove: [name("gone"), name("never-there")].into(),
            rename: [(name("old"), name("new")), (name("never-there"), name("kept"))].into(),
            set: [(name("fixed"), fixed("1")), (name("fresh"), fixed("2"))].into(),
            add: [(name("more"), fixed("c"))].into(),
        };
        let mut headers = HeaderMap::new();
        for (field, text) in [
            ("gone", "x"),
            ("old", "a"),
            ("old", "b"),
            ("new", "forged"),
            ("kept", "k"),
            ("fixed", "forged"),
            ("fixed", "twice"),
            ("more", "b"),
        ] {
            headers.append(field, value(text));
        }
        rules.apply(&mut headers, &[]);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "fixed: 1", "fresh: 2", "kept: k", "more: b", "more: c", "new: a", "new: b"
            ]
        );
    }

    #[test]
    fn an_alias_gets_round_no_rule() {
        let rules = HeaderRules {
            remove: [name("x-debug")].into(),
            rename: [(name("x-old"), name("x-new"))].into(),
            set: [(name("x-edge"), fixed("1"))].into(),
            add: [(name("x-more"), fixed("2"))].into(),
        };
        let mut headers = HeaderMap::new();
        for field in [
            "x_debug", "x-debug", "x_old", "x-old", "x_new", "x_edge", "x-edge", "x_more", "x_other",
        ] {
            headers.append(field, value("forged"));
        }
        rules.apply(&mut headers, &[]);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "x-edge: 1",
                "x-more: 2",
                "x-new: forged",
                "x_more: forged",
                "x_other: forged"
            ]
        );
    }

    #[test]
    fn what_the_gateway_answers_for_is_out_of_reach() {
        for kept in [
            "connection",
            "transfer-encoding",
            "content-length",
            "host",
            "te",
            "upgrade",
            "x-tenant-id",
            "x-caller-id",
            "x_tenant_id",
            "x-user",
            "forwarded",
            "x-forwarded-for",
            "x-gateway-reason",
            "x-request-timeout-ms",
            "x-attempt",
            "grpc-timeout",
            "x-http-method-override",
            "x-request-id",
            "via",
            "sec-websocket-accept",
        ] {
            assert!(!may_be_changed(&name(kept)), "{kept}");
        }
        for free in [
            "authorization",
            "cache-control",
            "x-api-key",
            "server",
            "x-frame-options",
            "cookie",
        ] {
            assert!(may_be_changed(&name(free)), "{free}");
        }
    }
}
