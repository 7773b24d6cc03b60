//! Checks that a path has one reading or none: a path that another server might resolve, decode or cut is refused.

use gateway::routing::path::NormalPath;
use gateway::routing::path_policy::{Action, DotSegments, PathPolicy, is_odd};
use gateway::template::percent;

const POLICIES: [PathPolicy; 3] = [
    of_all(DotSegments::Decode, Action::Decode),
    of_all(DotSegments::Decode, Action::Keep),
    of_all(DotSegments::Reject, Action::Keep),
];

const fn of_all(dot_segments: DotSegments, action: Action) -> PathPolicy {
    PathPolicy {
        dot_segments,
        double_slash: action,
        encoded_slash: action,
        backslash: action,
    }
}

pub fn check(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    POLICIES.iter().for_each(|policy| check_policy(raw, *policy));
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

/// Checks that a policy changes a path only once, and that no dot segment appears when another server decodes the path.
fn check_policy(raw: &str, policy: PathPolicy) {
    let made = policy.apply(raw);
    assert!(is_odd(raw) || made == raw, "{raw:?} became {made:?}");
    let Ok(path) = NormalPath::keeping(&made, policy.keeps()) else {
        return;
    };
    assert_eq!(path.raw(), made, "what was authorised is what is sent");
    assert_eq!(policy.apply(&made), made, "made again");
    let decoded = percent::decode(&made).expect("an accepted path can be decoded");
    let mut segments = decoded.split(['/', '\\']);
    assert!(
        segments.all(|segment| !matches!(segment, "." | "..")),
        "{raw:?} became {made:?}"
    );
}
