//! Tells the backend how long an attempt may take and which number it has.

use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;

use crate::header_fields::{Digits, GRPC_TIMEOUT, X_ATTEMPT, X_REQUEST_TIMEOUT_MS, number};
use crate::message::FieldMap;

/// Writes the remaining time, in whole milliseconds rounded down, and the number of the attempt, counted from 1.
///
/// The next attempt overwrites these fields. A gRPC deadline is written only if the caller sent one.
pub(crate) fn stamp_attempt(headers: &mut FieldMap, remaining: Duration, attempt: u32) {
    let milliseconds = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
    headers.insert(&X_REQUEST_TIMEOUT_MS, number(milliseconds));
    let attempt = match attempt {
        1 => HeaderValue::from_static("1"),
        later => number(later.into()),
    };
    headers.insert(&X_ATTEMPT, attempt);
    if headers.contains_key(&GRPC_TIMEOUT) {
        headers.insert(&GRPC_TIMEOUT, grpc_timeout(milliseconds));
    }
}

/// Formats a gRPC timeout: at most eight digits and a unit. A time with more digits is given in seconds.
pub(crate) fn grpc_timeout(milliseconds: u64) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    let (amount, unit) = if milliseconds <= MOST {
        (milliseconds, b'm')
    } else {
        ((milliseconds / 1000).min(MOST), b'S')
    };
    let mut text: SmallVec<[u8; 9]> = Digits::of(amount).as_bytes().into();
    text.push(unit);
    HeaderValue::from_bytes(&text).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_attempt_is_stamped_anew() {
        let mut headers = FieldMap::new();
        headers.insert(&GRPC_TIMEOUT, HeaderValue::from_static("1H"));
        for (remaining, attempt, milliseconds, grpc) in [
            (Duration::from_micros(1_999), 1, "1", "1m"),
            (Duration::from_secs(99_999), 2, "99999000", "99999000m"),
            (Duration::from_secs(100_000), 3, "100000000", "100000S"),
        ] {
            stamp_attempt(&mut headers, remaining, attempt);
            assert_eq!(headers[&X_REQUEST_TIMEOUT_MS], milliseconds);
            assert_eq!(headers[&X_ATTEMPT], attempt.to_string());
            assert_eq!(headers[&GRPC_TIMEOUT], grpc);
        }
        let mut plain = FieldMap::new();
        stamp_attempt(&mut plain, Duration::MAX, 1);
        assert_eq!(plain[&X_REQUEST_TIMEOUT_MS], u64::MAX.to_string());
        assert!(!plain.contains_key(&GRPC_TIMEOUT));
    }

    proptest! {
        #![proptest_config(cases::counted())]

        /// Both forms state at most the remaining time, and lose only the rounding.
        #[test]
        fn no_more_is_emitted_than_is_left(remaining in prop_oneof![0..1u64 << 40, 0..100_000_000_000_000_000u64]) {
            let remaining = Duration::from_nanos(remaining);
            let mut headers = FieldMap::new();
            headers.insert(&GRPC_TIMEOUT, HeaderValue::from_static("1S"));
            stamp_attempt(&mut headers, remaining, 1);

            let plain = headers[&X_REQUEST_TIMEOUT_MS].to_str().unwrap();
            let plain = Duration::from_millis(plain.parse().unwrap());
            prop_assert!(plain <= remaining && remaining - plain < Duration::from_millis(1));

            let grpc = headers[&GRPC_TIMEOUT].to_str().unwrap();
            let (amount, unit) = grpc.split_at(grpc.len() - 1);
            let unit = if unit == "m" { Duration::from_millis(1) } else { Duration::from_secs(1) };
            prop_assert!(amount.len() <= 8);
            let grpc = unit * amount.parse().unwrap();
            prop_assert!(grpc <= remaining && remaining - grpc < unit.max(remaining / 1_000));
        }
    }
}
