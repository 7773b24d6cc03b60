//! Combines the `Cache-Control` fields of all parts into one (RFC 9111 section 5.2.2).
//!
//! Invariant: the result is never less strict than any part's field. A part without a lifetime leaves the answer
//! without one, but a prohibition by any part applies to the whole answer.

use http::HeaderValue;
use http::header::{AGE, CACHE_CONTROL};

use crate::message::FieldMap;

/// Directives of the parts seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CombinedCacheControl {
    parts: u32,
    public: u32,
    no_store: bool,
    no_cache: bool,
    private: bool,
    must_revalidate: bool,
    lifetimes: Shortest,
    shared_lifetimes: Shortest,
    says_shared: bool,
    /// Largest age in seconds of the parts without a lifetime.
    age: u64,
}

/// Shortest of the lifetimes seen, in seconds, and the number of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shortest {
    said: u32,
    seconds: u64,
}

impl Shortest {
    fn add(&mut self, seconds: u64) {
        self.seconds = if self.said == 0 {
            seconds
        } else {
            self.seconds.min(seconds)
        };
        self.said += 1;
    }
}

impl CombinedCacheControl {
    /// Adds the directives of one part's answer.
    pub(super) fn add(&mut self, headers: &FieldMap) {
        self.parts += 1;
        let (mut lifetime, mut shared, mut public) = (None, None, false);
        for line in headers.get_all(CACHE_CONTROL) {
            let Ok(line) = line.to_str() else { continue };
            for directive in line.split(',').map(str::trim) {
                let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
                // An unreadable lifetime counts as 0 (RFC 9111 section 4.2.1).
                let seconds = || value.trim_matches('"').parse().unwrap_or(0);
                match name.to_ascii_lowercase().as_str() {
                    "no-store" => self.no_store = true,
                    // With a list of fields, both apply to these fields only. Applying them to the whole answer is
                    // stricter, and therefore safe.
                    "no-cache" => self.no_cache = true,
                    "private" => self.private = true,
                    "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
                    "public" => public = true,
                    "max-age" => lifetime = Some(lifetime.unwrap_or(u64::MAX).min(seconds())),
                    "s-maxage" => shared = Some(shared.unwrap_or(u64::MAX).min(seconds())),
                    _ => {}
                }
            }
        }
        // Seconds that the answer has already spent in caches between its origin and this gateway.
        let age = headers
            .get(AGE)
            .and_then(|age| age.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        if lifetime.is_none() && shared.is_none() {
            self.age = self.age.max(age);
        }
        self.public += u32::from(public);
        self.says_shared |= shared.is_some();
        if let Some(seconds) = lifetime {
            self.lifetimes.add(seconds.saturating_sub(age));
        }
        if let Some(seconds) = shared.or(lifetime) {
            self.shared_lifetimes.add(seconds.saturating_sub(age));
        }
    }

    /// Returns the age of the whole answer in seconds, if a part has one that no lifetime takes into account. It counts
    /// where a cache gives the answer a lifetime of its own choice.
    pub(super) fn age(&self) -> Option<u64> {
        (self.age > 0).then_some(self.age)
    }

    /// Returns the field value for the whole answer, or `None` if the parts have no directive in common.
    pub(super) fn value(&self) -> Option<HeaderValue> {
        if self.no_store {
            return Some(HeaderValue::from_static("no-store"));
        }
        let mut words: Vec<String> = Vec::new();
        if self.private {
            words.push("private".into());
        } else if self.parts > 0 && self.public == self.parts {
            words.push("public".into());
        }
        if self.no_cache {
            words.push("no-cache".into());
        }
        if self.must_revalidate {
            words.push("must-revalidate".into());
        }
        if self.parts > 0 && self.lifetimes.said == self.parts {
            words.push(format!("max-age={}", self.lifetimes.seconds));
        }
        if self.says_shared && !self.private && self.shared_lifetimes.said == self.parts {
            words.push(format!("s-maxage={}", self.shared_lifetimes.seconds));
        }
        (!words.is_empty()).then(|| HeaderValue::try_from(words.join(", ")).expect("words and numbers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_counts() {
        let check = |parts: &[(&'static str, &'static str)], expected: Option<&str>| {
            let mut strictest = CombinedCacheControl::default();
            for (cache_control, age) in parts {
                let mut headers = FieldMap::new();
                if !cache_control.is_empty() {
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
                }
                if !age.is_empty() {
                    headers.insert(AGE, HeaderValue::from_static(age));
                }
                strictest.add(&headers);
            }
            let value = strictest.value();
            assert_eq!(
                value.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{parts:?}"
            );
        };
        check(&[], None);
        check(&[("", "")], None);
        check(&[("max-age=60", ""), ("max-age=10", "")], Some("max-age=10"));
        check(&[("max-age=60", "55"), ("max-age=10", "")], Some("max-age=5"));
        check(&[("max-age=60", "61")], Some("max-age=0"));
        check(&[("max-age=60", ""), ("", "")], None);
        check(&[("max-age=60", ""), ("no-store", "")], Some("no-store"));
        check(
            &[("public, max-age=60", ""), ("private, max-age=90", "")],
            Some("private, max-age=60"),
        );
        check(
            &[("public, max-age=60", ""), ("public, max-age=90", "")],
            Some("public, max-age=60"),
        );
        check(&[("public, max-age=60", ""), ("max-age=90", "")], Some("max-age=60"));
        check(&[("private", ""), ("", "")], Some("private"));
        check(&[("No-Cache", ""), ("max-age=5", "")], Some("no-cache"));
        check(
            &[("max-age=60, must-revalidate", ""), ("max-age=70", "")],
            Some("must-revalidate, max-age=60"),
        );
        check(
            &[("max-age=60, s-maxage=9", ""), ("max-age=7", "")],
            Some("max-age=7, s-maxage=7"),
        );
        check(
            &[("max-age=60, s-maxage=9", ""), ("private, max-age=7", "")],
            Some("private, max-age=7"),
        );
        check(&[("max-age=many", "")], Some("max-age=0"));
        check(&[("max-age=9, max-age=5", "")], Some("max-age=5"));
    }
}
