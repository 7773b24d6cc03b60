//! Changes that an operator configures for the header fields of a route.
//!
//! Invariant: no rule changes a field that belongs to one connection, frames a message, or is the gateway's statement
//! on the caller. [`may_be_changed`] tells which fields are open to rules; a plan only holds rules for those.

use http::{HeaderName, HeaderValue};

use crate::headers::{self, Kind};
use crate::message::FieldMap;
use crate::template::{Placeholder, Sources, Template};
use crate::wire::aliases;

/// Rules in the order in which they are applied.
#[derive(Debug, Default)]
pub struct HeaderRules {
    pub remove: Box<[HeaderName]>,
    /// Pairs of names; all lines of the first field become lines of the second.
    pub rename: Box<[(HeaderName, HeaderName)]>,
    pub set: Box<[(HeaderName, FieldValue)]>,
    pub add: Box<[(HeaderName, FieldValue)]>,
}

/// The value of a field.
#[derive(Debug)]
pub enum FieldValue {
    Fixed(HeaderValue),
    /// A template with placeholders.
    Filled(Template),
}

/// Values of the templates for one request, in order; `None` where a placeholder has no value.
pub type FilledValues = Vec<Option<HeaderValue>>;

/// Whether rules may change the field; `name` is in lower case.
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
    !KEPT.contains(&name.as_str()) && !headers::needs_attention(name)
}

/// Returns why rules may not change the field; `None` if they may.
pub fn why_kept(name: &HeaderName) -> Option<&'static str> {
    if may_be_changed(name) {
        return None;
    }
    Some(match name.as_str() {
        "host" => "the backend gets its own host, or the caller's with its `preserve_host: true`",
        "content-length" | "transfer-encoding" | "trailer" | "te" => "it frames the message",
        "via" | "x-request-id" | "traceparent" | "tracestate" => "the gateway sends it",
        text if text.starts_with("sec-websocket-") => "it belongs to the handshake of a WebSocket",
        "x-http-method-override" | "x-http-method" | "x-method-override" => {
            "the route's `method_override: strip` removes it"
        }
        text => match headers::kind(text) {
            Kind::HopByHop => "it belongs to one connection",
            Kind::MethodOverride => "the route's `method_override: strip` removes it",
            _ => "the gateway sends it, or removes it: it says who calls",
        },
    })
}

impl HeaderRules {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Returns every placeholder of the values.
    pub fn uses(&self) -> impl Iterator<Item = &Placeholder> {
        let values = self.set.iter().chain(&self.add);
        let filled = values.filter_map(|(_, value)| match value {
            FieldValue::Filled(template) => Some(template),
            FieldValue::Fixed(_) => None,
        });
        filled.flat_map(Template::uses)
    }

    /// Fills the templates from a request.
    pub fn fill(&self, sources: &Sources<'_>) -> FilledValues {
        let fill = |template: &Template| {
            let mut text = String::new();
            template.render(sources, &mut text).ok()?;
            HeaderValue::try_from(text).ok()
        };
        self.templates().map(fill).collect()
    }

    /// Whether any value is a template.
    pub fn has_templates(&self) -> bool {
        self.templates().next().is_some()
    }

    /// Whether a template uses a claim of the caller's token, which is known only once the token is verified.
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

    /// Applies the rules; `filled` comes from [`Self::fill`]. A field that is removed or set is removed under every
    /// name that backends may read as the same, such as one with underscores for hyphens. Where a value is missing, the
    /// field is left out, and a field that was to be set is removed, so that no value from elsewhere stands in its
    /// place.
    pub fn apply(&self, headers: &mut FieldMap, filled: &[Option<HeaderValue>]) {
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
    use crate::template::{Captures, Query, Syntax};

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
        let filled = |text: &str| FieldValue::Filled(Template::parse(text, Syntax::Header).unwrap());
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
        let mut headers = FieldMap::new();
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
        // A value cannot begin another line.
        let query = Query::new(Some("q=a%0d%0ax-evil:%201"));
        let filled = rules.fill(&Sources::of_request(&captures, &query, &FieldMap::new(), None));
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
        let mut headers = FieldMap::new();
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
        let mut headers = FieldMap::new();
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
