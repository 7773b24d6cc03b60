//! A path has one reading or none: whatever another server might resolve, decode or cut is refused.

use gateway::routing::path::NormalPath;
use gateway::template::percent;

pub fn check(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(path) = NormalPath::parse(raw) else { return };
    assert_eq!(path.raw(), raw, "what was authorised is what is sent");
    let canonical = path.canonical();
    let again = NormalPath::parse(canonical).expect("a canonical path is a path");
    assert_eq!(
        again.canonical(),
        canonical,
        "a canonical path is its own canonical form"
    );
    let decoded = percent::decode(raw).expect("an accepted path can be decoded");
    assert_eq!(
        percent::decode(canonical).as_deref(),
        Some(&*decoded),
        "both spell the same path"
    );
    assert_eq!(
        decoded.matches('/').count(),
        raw.matches('/').count(),
        "decoding adds no segment"
    );
    assert!(!decoded.contains(['\\', '\0', '\r', '\n']), "{decoded:?}");
    assert!(!decoded.contains("//"), "{decoded:?}");
    assert!(
        decoded.split('/').all(|segment| !matches!(segment, "." | "..")),
        "{decoded:?}"
    );
}
