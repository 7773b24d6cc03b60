//! What an operator changes in the header fields of a route, compiled once.
//!
//! Invariant: no rule reaches a field that belongs to one connection, frames a message, or is the gateway's own word
//! on who asks; [`may_be_changed`] says which those are, and a plan is only made of rules that keep off them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers;
use crate::aliases;

/// Changes in the order they are made.
#[derive(Debug, Default)]
pub struct HeaderRules {
    pub remove: Box<[HeaderName]>,
    /// All lines of the first become the lines of the second.
    pub rename: Box<[(HeaderName, HeaderName)]>,
    pub set: Box<[(HeaderName, HeaderValue)]>,
    pub add: Box<[(HeaderName, HeaderValue)]>,
}

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
    pub fn apply(&self, headers: &mut HeaderMap) {
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
            aliases::set_alone(headers, name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn rules_are_applied_in_order() {
        let rules = HeaderRules {
            remove: [name("gone"), name("never-there")].into(),
            rename: [(name("old"), name("new")), (name("never-there"), name("kept"))].into(),
            set: [(name("fixed"), value("1")), (name("fresh"), value("2"))].into(),
            add: [(name("more"), value("c"))].into(),
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
        rules.apply(&mut headers);
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
            set: [(name("x-edge"), value("1"))].into(),
            add: [(name("x-more"), value("2"))].into(),
        };
        let mut headers = HeaderMap::new();
        for field in [
            "x_debug", "x-debug", "x_old", "x-old", "x_new", "x_edge", "x-edge", "x_more", "x_other",
        ] {
            headers.append(field, value("forged"));
        }
        rules.apply(&mut headers);
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
