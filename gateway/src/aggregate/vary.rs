//! Combines the `Vary` fields of all parts: every request field that the answer of some part depends on (RFC 9110
//! section 12.5.5).
//!
//! Invariant: a cache that may store the answer learns all of these fields. Fields that the gateway sets to the same
//! value in every part's request are left out.

use std::collections::BTreeSet;

use http::HeaderValue;
use http::header::VARY;

use crate::message::FieldMap;

/// Lower-case field names of the parts seen so far, sorted.
#[derive(Debug, Clone, Default)]
pub(super) struct CombinedVary {
    names: BTreeSet<String>,
}

impl CombinedVary {
    /// Adds the field names of one part's answer.
    pub(super) fn add(&mut self, headers: &FieldMap) {
        for line in headers.get_all(VARY) {
            let Ok(line) = line.to_str() else { continue };
            let names = line.split(',').map(|name| name.trim().to_ascii_lowercase());
            self.names
                .extend(names.filter(|name| !matches!(name.as_str(), "" | "accept" | "accept-encoding")));
        }
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        if self.names.contains("*") {
            return Some(HeaderValue::from_static("*"));
        }
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")).expect("pieces of field values"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parts_fields_are_named_once() {
        let check = |parts: &[&'static str], expected: Option<&str>| {
            for order in [parts.to_vec(), parts.iter().rev().copied().collect()] {
                let mut varies = CombinedVary::default();
                for part in order {
                    let headers = FieldMap::from_iter([(VARY, HeaderValue::from_static(part))]);
                    varies.add(&headers);
                }
                let value = varies.value();
                let found = value.as_ref().map(|value| value.to_str().unwrap());
                assert_eq!(found, expected, "{parts:?}");
            }
        };
        check(&[], None);
        check(&["", "Accept-Encoding,accept"], None);
        check(&["Cookie", "accept-language, cookie"], Some("accept-language, cookie"));
        check(&["cookie", "*"], Some("*"));
    }
}
