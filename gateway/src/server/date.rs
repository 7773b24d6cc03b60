//! Keeps the `Date` of answers, which is made once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use crate::clock;

/// Returns the value of the `Date` field.
pub(super) fn field() -> HeaderValue {
    thread_local! {
        static MADE: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let now = clock::unix_seconds();
    MADE.with_borrow_mut(|(at, value)| {
        if *at != now {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
            if let Ok(made) = HeaderValue::try_from(text) {
                (*at, *value) = (now, made);
            }
        }
        value.clone()
    })
}
