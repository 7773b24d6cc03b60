//! Chooses the requests of a route that another backend gets a copy of.
//!
//! Invariant: with a key the choice depends on the route's name and the request's key alone, so each replica makes the
//! same one. It is another choice than that of the route's split: the keys that a new version gets are not the ones that
//! are mirrored.

use std::sync::Arc;

use http::Method;
use http::header::ACCEPT;
use policies::split::Percent;

use crate::call::backend::Backend;
use crate::call::mirror::Mirror;
use crate::message::{FieldMap, RequestHead};
use crate::plan::request_key::KeySources;
use crate::request_key::RequestKey;
use crate::wire::grpc;

/// Requests that are mirrored, and where to.
pub struct RouteMirror {
    /// The route's name, a zero byte, `mirror` and another zero byte, which precede each key.
    pub prefix: Box<[u8]>,
    pub key: RequestKey,
    pub percent: Percent,
    pub methods: Vec<Method>,
    pub mirror: Arc<Mirror>,
}

impl RouteMirror {
    /// Whether the request is mirrored. `chosen` is the backend that a split chose for it, and `chance` decides where there
    /// is no key.
    ///
    /// Calls of gRPC and requests for event streams may last for ever, and are never mirrored.
    pub fn copies(
        &self,
        head: &RequestHead,
        chosen: Option<&Arc<Backend>>,
        sources: KeySources<'_>,
        chance: u64,
    ) -> bool {
        // The upper half of the number decides on the split.
        let chance = chance.rotate_left(32);
        self.methods.contains(&head.method)
            && chosen.is_none_or(|chosen| chosen.name != self.mirror.backend.name)
            && sources.bucket(&self.key, &self.prefix, chance).is_within(self.percent)
            && !grpc::is_grpc(&head.headers)
            && !asks_for_events(&head.headers)
    }
}

/// Whether the caller accepts server-sent events (WHATWG HTML section 9.2).
fn asks_for_events(headers: &FieldMap) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    let names_it = |value: &[u8]| value.windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME));
    headers.get_all(ACCEPT).iter().any(|value| names_it(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn event_streams_are_found_among_the_types_that_are_accepted() {
        let check = |values: &[&'static str], expected| {
            let mut headers = FieldMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(asks_for_events(&headers), expected, "{values:?}");
        };
        check(&[], false);
        check(&["*/*"], false);
        check(&["text/event"], false);
        check(&["text/event-stream"], true);
        check(&["application/json, Text/Event-Stream;q=0.5"], true);
        check(&["text/html", "text/event-stream"], true);
    }
}
