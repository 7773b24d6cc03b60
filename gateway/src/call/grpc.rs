//! Determines the status by which a backend is judged for a gRPC call.

use http::{HeaderValue, StatusCode, Version};

use crate::header_fields::GRPC_STATUS;
use crate::message::{FieldMap, ResponseHead};
use crate::wire::grpc::is_grpc;

/// gRPC status UNAVAILABLE, which invites a retry.
const UNAVAILABLE: &[u8] = b"14";

/// Whether the status in a head or in trailers is UNAVAILABLE.
pub(crate) fn is_unavailable(status: Option<&HeaderValue>) -> bool {
    status.is_some_and(|status| status == UNAVAILABLE)
}

/// Returns the status by which an answer is judged. A gRPC answer whose head carries UNAVAILABLE counts as an HTTP 503.
pub(crate) fn judged(version: Version, status: StatusCode, headers: &FieldMap) -> StatusCode {
    let says_so = version == Version::HTTP_2 && status == StatusCode::OK && is_unavailable(headers.get(&GRPC_STATUS));
    if says_so && is_grpc(headers) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        status
    }
}

pub(crate) fn judged_head(head: &ResponseHead) -> StatusCode {
    judged(head.version, head.status, &head.headers)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    fn headers(kind: &'static str, status: Option<&'static str>) -> FieldMap {
        let mut headers = FieldMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(status) = status {
            headers.insert(&GRPC_STATUS, HeaderValue::from_static(status));
        }
        headers
    }

    #[test]
    fn unavailable_in_the_head_is_a_503() {
        let check = |version, kind, status, expected: u16| {
            let headers = headers(kind, status);
            assert_eq!(judged(version, StatusCode::OK, &headers), expected, "{headers:?}");
        };
        check(Version::HTTP_2, "application/grpc", Some("14"), 503);
        check(Version::HTTP_2, "application/grpc", Some("13"), 200);
        check(Version::HTTP_2, "application/grpc", None, 200);
        check(Version::HTTP_2, "application/json", Some("14"), 200);
        check(Version::HTTP_11, "application/grpc", Some("14"), 200);
        let headers = headers("application/grpc", Some("14"));
        assert_eq!(judged(Version::HTTP_2, StatusCode::NOT_FOUND, &headers), 404);
    }
}
