//! Checks that after cleaning a request says nothing about its caller that the gateway did not establish, and that no
//! message holds a field that belonged to one connection.

use gateway::headers::{MethodOverride, Via, check as check_framing, clean_request, clean_response};
use gateway::message::FieldMap;
use http::{Version, header};

/// Fields that are never passed on, whatever their sender.
const NEVER: [&str; 15] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-caller-id",
    "x-gateway-complete",
    "x-http-method-override",
    "x-tenant-id",
    "x_tenant_id",
    "x-tenant-tier",
    "x-user-id",
];
const FROM_PROXIES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

pub fn check(data: &[u8]) {
    let Some((flags, lines)) = crate::split_flags(data) else {
        return;
    };
    let trusted_peer = flags & 1 == 1;
    let version = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][usize::from(flags >> 1) % 3];
    let overrides = if flags & 0x80 == 0 {
        MethodOverride::Strip
    } else {
        MethodOverride::Reject(gateway::setting::SettingId::URI)
    };
    let original = crate::header_lines(lines);

    if check_framing(version, &original, 100).is_ok() {
        let lengths = original.get_all(header::CONTENT_LENGTH).iter().count();
        let codings = original.get_all(header::TRANSFER_ENCODING).iter().count();
        assert!(lengths + codings <= 1, "two framings passed: {original:?}");
    }

    let mut request = original.clone();
    if clean_request(&mut request, version, trusted_peer, overrides, &Via::unique()).is_ok() {
        assert_clean(&original, &request, &NEVER);
        if !trusted_peer {
            assert!(
                FROM_PROXIES.iter().all(|name| !request.contains_key(*name)),
                "{request:?}"
            );
        }
        let once = without_via(request.clone());
        // The request came through another gateway, which is a trusted peer or not.
        clean_request(&mut request, version, trusted_peer, overrides, &Via::unique())
            .expect("a clean request is welcome");
        assert_eq!(without_via(request), once, "cleaning twice is cleaning once");
    }

    let mut response = original.clone();
    if clean_response(&mut response, version, &Via::unique()).is_ok() {
        assert_clean(
            &original,
            &response,
            &["connection", "keep-alive", "transfer-encoding", "upgrade"],
        );
    }
}

fn assert_clean(original: &FieldMap, cleaned: &FieldMap, never: &[&str]) {
    for name in never {
        assert!(!cleaned.contains_key(*name), "{name} passed: {cleaned:?}");
    }
    assert_eq!(
        cleaned.get_all(header::VIA).iter().count(),
        original.get_all(header::VIA).iter().count() + 1
    );
    for name in cleaned.keys().filter(|name| *name != header::VIA) {
        let (before, after) = (original.get_all(name), cleaned.get_all(name));
        assert!(before.iter().eq(after.iter()), "{name} was changed");
    }
}

fn without_via(mut headers: FieldMap) -> FieldMap {
    headers.remove(header::VIA);
    headers
}
